"""One egress listener of a Sidecar: which services and VirtualServices its `hosts` import (§3.3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pushsim.context import MESH_GATEWAY, PushContext, Route
from pushsim.hosts import matches, subset_of
from pushsim.mesh import Service
from pushsim.visibility.family import ANY


@dataclass(frozen=True, slots=True)
class _Imports:
    """Hosts of one namespace part: `exact` names and wildcard `patterns` (`*` is all)."""

    exact: frozenset[str]
    patterns: tuple[str, ...]

    def covers(self, host: str) -> bool:
        return host in self.exact or any(subset_of(host, pattern) for pattern in self.patterns)

    def meets(self, host: str, *, subset_only: bool = False) -> bool:
        compare = subset_of if subset_only else matches
        return any(compare(host, known) for known in (*self.exact, *self.patterns))


class EgressListener:
    """One egress listener of a Sidecar (or the default one, `*/*`), as seen from a namespace."""

    def __init__(self, context: PushContext, namespace: str, spec: Mapping[str, Any], *, plain: bool = False) -> None:
        self._context, self._namespace, self._plain = context, namespace, plain
        self.spec = spec
        hosts: dict[str, list[str]] = {}
        self._excluded: dict[str, list[str]] = {}
        for written in spec.get("hosts") or ():
            part, slash, host = str(written).partition("/")
            if not slash or "/" in host:
                continue  # istiod logs and drops it
            into = hosts
            if part.startswith("~") and context.rules.exclusions:
                into, part = self._excluded, part[1:] or ANY
            into.setdefault(namespace if part == "." else part, []).append(host)
        self._imports = {
            part: _Imports(
                frozenset(h for h in listed if not h.startswith("*")), tuple(h for h in listed if h.startswith("*"))
            )
            for part, listed in hosts.items()
        }
        port = spec.get("port") or {}
        number = int(port.get("number") or 0)
        self.port = number if number and str(port.get("protocol") or "").upper() != "HTTP_PROXY" else 0
        #: It listens elsewhere than where its services are.
        self.special = bool(spec.get("port") or spec.get("bind") or spec.get("captureMode"))
        self._exact = context.rules.exact_lookup and not any(
            part == ANY or imports.patterns for part, imports in self._imports.items()
        )
        self._found: dict[str, tuple[Service, ...]] = {}

    def renewed(self, context: PushContext) -> EgressListener:
        """The same listener over another context that has the same services; only its routes are looked for anew."""
        other = copy(self)
        other._context = context
        other.__dict__.pop("routes", None)
        other.__dict__.pop("layer4", None)
        return other

    def services(self, host: str) -> tuple[Service, ...]:
        """The services of a host that it imports: all of one namespace, or none."""
        found = self._found.get(host)
        if found is None:
            found = self._found[host] = self._select(host)
        return found

    def _select(self, host: str) -> tuple[Service, ...]:
        context, rules = self._context, self._context.rules
        if self._plain:
            return tuple(context.services.candidates(host, self._namespace))
        if self._exact:
            candidates = context.services.named(host, self._imports, self._namespace)
        else:
            candidates = context.services.candidates(host, self._namespace)
        matched = [s for s in candidates if self._imported(s)]
        if self.port:
            matched = [t for s in matched if (t := with_ports(s, {self.port})) is not None]
        matched = [self._with_aliases(s) for s in matched]
        if len(matched) < 2:
            return tuple(matched)
        chosen = matched[0]
        for other in matched[1:]:
            if other.namespace == chosen.namespace:
                continue
            if other.namespace == self._namespace or (
                rules.namespace_of_host == "own-kubernetes-first"
                and chosen.namespace != self._namespace
                and chosen.registry != "Kubernetes"
                and other.registry == "Kubernetes"
            ):
                chosen = other
        return tuple(s for s in matched if s.namespace == chosen.namespace)

    def _imported(self, service: Service) -> bool:
        host = service.hostname
        for part in (service.namespace, ANY):
            if any(subset_of(host, excluded) for excluded in self._excluded.get(part, ())):
                return False
        own, wild = self._imports.get(service.namespace), self._imports.get(ANY)
        if own is not None:
            if own.covers(host):
                return True
            if not self._context.rules.namespace_fallthrough:
                return False
        return wild is not None and wild.covers(host)

    def _with_aliases(self, service: Service) -> Service:
        """The service with those of its aliases that the hosts which import it match, too (matchingAliasService)."""
        if not service.aliases:
            return service
        own = self._imports.get(service.namespace)
        by = own if own is not None and own.covers(service.hostname) else self._imports.get(ANY)
        kept = tuple(alias for alias in service.aliases if by is None or by.covers(alias))
        return service if len(kept) == len(service.aliases) else replace(service, aliases=kept)

    def importing(self, service: Service) -> str:
        """The `hosts` entry that imports a service, for explanations."""
        for written in self.spec.get("hosts") or ():
            part, _, host = str(written).partition("/")
            part = self._namespace if part == "." else part
            if part in (service.namespace, ANY) and subset_of(service.hostname, host):
                return str(written)
        return ""

    @cached_property
    def routes(self) -> tuple[Route, ...]:
        """The VirtualServices it selects, in istiod's order."""
        known = self._context.routes
        if self._plain or ANY in self._imports:
            visible = known.visible(MESH_GATEWAY, self._namespace)
        else:
            visible = known.visible_of(MESH_GATEWAY, self._namespace, self._imports)
        wild = self._imports.get(ANY)
        if self._plain or (wild is not None and ANY in wild.patterns and not self._excluded):
            return visible
        return tuple(route for route in visible if any(self._meets(route, host) for host in route.hosts))

    @cached_property
    def layer4(self) -> tuple[Route, ...]:
        """Of these, those with tcp or tls routes."""
        return tuple(route for route in self.routes if route.other) if self._context.routes.layer4 else ()

    def _meets(self, route: Route, host: str) -> bool:
        namespace = route.key.namespace
        for part in (namespace, ANY):
            if any(subset_of(host, excluded) for excluded in self._excluded.get(part, ())):
                return False
        return any(imports.meets(host) for part in (namespace, ANY) if (imports := self._imports.get(part)) is not None)

    @cached_property
    def whole(self) -> frozenset[str] | None:
        """Namespaces (`*`: all) whose every visible service it imports; None if that cannot be told by namespace."""
        if self._plain:
            return frozenset({ANY})
        if self.port or self._excluded:
            return None
        whole = frozenset(part for part, imports in self._imports.items() if ANY in imports.patterns)
        if any(imports.patterns and ANY not in imports.patterns for imports in self._imports.values()):
            return None
        hidden = not self._context.rules.namespace_fallthrough and len(self._imports) > len(whole)
        return None if ANY in whole and hidden else whole

    @property
    def parts(self) -> frozenset[str]:
        """Namespaces (`*`: all) it may import services of."""
        return frozenset({ANY}) if self._plain else frozenset(self._imports)

    @property
    def named(self) -> Iterator[str]:
        """Hosts it imports by their exact names."""
        for imports in self._imports.values():
            yield from imports.exact

    def hosts(self) -> Iterator[str]:
        """Every host that it may import something of, in istiod's service order."""
        index = self._context.services
        if ANY in self._imports or self._plain:
            yield from dict.fromkeys(s.hostname for s in index.ordered)
            return
        listed = {s.hostname for part in self._imports for s in index.by_namespace.get(part, ())}
        if len(self._imports) == 1:
            part = next(iter(self._imports))
            yield from dict.fromkeys(s.hostname for s in index.by_namespace.get(part, ()))
        else:
            yield from dict.fromkeys(s.hostname for s in index.ordered if s.hostname in listed)


def with_ports(service: Service, numbers: set[int]) -> Service | None:
    """The service with only these ports; itself if it has no other, None if it has none of them."""
    kept = tuple(port for port in service.ports if port.number in numbers)
    if len(kept) == len(service.ports):
        return service
    return replace(service, ports=kept) if kept else None
