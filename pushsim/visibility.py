"""SidecarScope: which services, VirtualServices and DestinationRules a proxy's namespace imports (reference §3).

Scopes are lazy: a question about one host costs what that host costs, the full list is made once and kept. Proxies
with the same Sidecar and namespace share one `Scope`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pushsim.context import MESH_GATEWAY, PushContext, Route
from pushsim.conversion import pairs, selects
from pushsim.hosts import is_wildcard, matches, resolve, subset_of
from pushsim.mesh import ConfigKey, Object, Proxy, Service
from pushsim.rules_index import MergedRule

_ANY = "*"


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


class Listener:
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
                into, part = self._excluded, part[1:] or _ANY
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
        self._found: dict[str, tuple[Service, ...]] = {}

    def services(self, host: str) -> tuple[Service, ...]:
        """The services of a host that it imports: all of one namespace, or none."""
        found = self._found.get(host)
        if found is None:
            found = self._found[host] = self._select(host)
        return found

    def _select(self, host: str) -> tuple[Service, ...]:
        context, rules = self._context, self._context.rules
        candidates = context.services.candidates(host, self._namespace)
        if self._plain:
            return tuple(candidates)
        matched = [s for s in candidates if self._imported(s)]
        if self.port:
            matched = [t for s in matched if (t := with_ports(s, {self.port})) is not None]
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
        for part in (service.namespace, _ANY):
            if any(subset_of(host, excluded) for excluded in self._excluded.get(part, ())):
                return False
        own, wild = self._imports.get(service.namespace), self._imports.get(_ANY)
        if own is not None:
            if own.covers(host):
                return True
            if not self._context.rules.namespace_fallthrough:
                return False
        return wild is not None and wild.covers(host)

    def importing(self, service: Service) -> str:
        """The `hosts` entry that imports a service, for explanations."""
        for written in self.spec.get("hosts") or ():
            part, _, host = str(written).partition("/")
            part = self._namespace if part == "." else part
            if part in (service.namespace, _ANY) and subset_of(service.hostname, host):
                return str(written)
        return ""

    @cached_property
    def routes(self) -> tuple[Route, ...]:
        """The VirtualServices it selects, in istiod's order."""
        visible = self._context.routes.visible(MESH_GATEWAY, self._namespace)
        if self._plain:
            return tuple(visible)
        return tuple(route for route in visible if any(self._meets(route, host) for host in route.hosts))

    def _meets(self, route: Route, host: str) -> bool:
        namespace = route.key.namespace
        for part in (namespace, _ANY):
            if any(subset_of(host, excluded) for excluded in self._excluded.get(part, ())):
                return False
        return any(
            imports.meets(host) for part in (namespace, _ANY) if (imports := self._imports.get(part)) is not None
        )

    @cached_property
    def whole(self) -> frozenset[str] | None:
        """Namespaces (`*`: all) whose every visible service it imports; None if that cannot be told by namespace."""
        if self._plain:
            return frozenset({_ANY})
        if self.port or self._excluded:
            return None
        whole = frozenset(part for part, imports in self._imports.items() if _ANY in imports.patterns)
        if any(imports.patterns and _ANY not in imports.patterns for imports in self._imports.values()):
            return None
        hidden = not self._context.rules.namespace_fallthrough and len(self._imports) > len(whole)
        return None if _ANY in whole and hidden else whole

    @property
    def named(self) -> Iterator[str]:
        """Hosts it imports by their exact names."""
        for imports in self._imports.values():
            yield from imports.exact

    def hosts(self) -> Iterator[str]:
        """Every host that it may import something of, in istiod's service order."""
        index = self._context.services
        if _ANY in self._imports or self._plain:
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


class Scope:
    """A SidecarScope: of a Sidecar and the namespace it serves, or the default of a namespace.

    Args:
        family: the scopes of the push it is computed in.
        namespace: the proxy's.
        sidecar: the Sidecar, None for the default scope.
        gateway: a gateway's scope: no destinations pulled in from 1.22 on.
    """

    def __init__(self, family: Scopes, namespace: str, sidecar: Object | None, *, gateway: bool = False) -> None:
        context = family.context
        rules = context.rules
        self.family, self.context, self.namespace, self.sidecar = family, context, namespace, sidecar
        self.memo: dict[Any, Any] = {}
        everything = {"hosts": ["*/*"]}
        legacy = sidecar is None and (rules.default_scope != "unified" or (gateway and rules.gateway_scope))
        specs = [everything] if sidecar is None else list(sidecar.spec.get("egress") or ()) or [everything]
        self.listeners = tuple(Listener(context, namespace, spec, plain=legacy) for spec in specs)
        self._legacy = legacy
        self._merges = rules.merge_services == "append"
        self._services: dict[str, tuple[Service, ...]] = {}
        self._replaced: dict[str, Service] = {}

    # ---- services

    def services(self, host: str) -> tuple[Service, ...]:
        """What the scope holds of a host: nothing, or one service (legacy default scopes may hold duplicates)."""
        known = self.family.neutral.get(host)
        if known is not None and self.holds_whole(known.namespace):
            return (known,)
        found = self._services.get(host)
        if found is None:
            found = self._services[host] = self._collect(host)
        return found

    def holds_whole(self, namespace: str) -> bool:
        """Whether it imports every service of a namespace that looks the same to all."""
        return namespace in self._whole or _ANY in self._whole

    @cached_property
    def _whole(self) -> frozenset[str]:
        whole = self.listeners[0].whole if len(self.listeners) == 1 else None
        return whole if whole is not None else frozenset()

    def service(self, host: str) -> Service | None:
        """The service a proxy of this scope reaches under a host name (istiod's servicesByHostname)."""
        found = self.services(host)
        return found[0] if found else None

    def _collect(self, host: str) -> tuple[Service, ...]:
        if self._legacy and not self._merges:
            return self._legacy_winner(host)
        held: Service | None = None
        for listener in self.listeners:
            for service in listener.services(host):
                held = self._merge(held, service)
            for service in self._pulled(listener, host):
                held = self._merge(held, service)
        return (held,) if held is not None else ()

    def _legacy_winner(self, host: str) -> tuple[Service, ...]:
        found = self.listeners[0].services(host)
        if not found:
            return ()
        winner = found[0]
        for service in found[1:]:
            if winner.registry != "Kubernetes" and service.registry == "Kubernetes":
                self._replaced[host] = winner
                winner = service
        return (winner, *(s for s in found if s is not winner))

    def _merge(self, held: Service | None, service: Service) -> Service:
        if held is None:
            return service
        if held is service:
            return held
        if self._merges:
            if held.registry == "Kubernetes" and service.registry != "Kubernetes":
                return held
            if held.registry != "Kubernetes" and service.registry == "Kubernetes":
                return service
            compared = ("namespace", "resolution", "registry", "labels", "selector", "export_to")
            if any(getattr(held, f) != getattr(service, f) for f in compared):
                return held
        elif held.namespace != service.namespace:
            return held
        numbers = {port.number for port in held.ports}
        added = tuple(port for port in service.ports if port.number not in numbers)
        return replace(held, ports=(*held.ports, *added)) if added else held

    @cached_property
    def _destinations(self) -> tuple[dict[str, list[tuple[Route, frozenset[int]]]], ...]:
        """Per listener: destination hosts of its VirtualServices, with the routes and ports that name them."""
        if self._legacy:
            return ({},) * len(self.listeners)
        namespace = self.namespace if self.context.rules.source_namespace else None
        found = []
        for listener in self.listeners:
            by_host: dict[str, list[tuple[Route, frozenset[int]]]] = {}
            for route in listener.routes:
                for host, ports in route.destinations(namespace).items():
                    by_host.setdefault(host, []).append((route, frozenset(ports)))
            found.append(by_host)
        return tuple(found)

    def _pulled(self, listener: Listener, host: str) -> Iterator[Service]:
        """Services of a host that the listener's VirtualServices route to."""
        named = self._destinations[self.listeners.index(listener)].get(host)
        if not named:
            return
        service = self._destination(host)
        if service is None:
            return
        for _, ports in named:
            if listener.port:
                trimmed = with_ports(service, {listener.port})
            elif self.context.rules.route_ports and 0 not in ports:
                trimmed = with_ports(service, set(ports))
            else:
                trimmed = service
            if trimmed is not None:
                yield trimmed

    def _destination(self, host: str) -> Service | None:
        index, namespace = self.context.services, self.namespace
        by_namespace = index.exact.get(host, {})
        if namespace in by_namespace:
            return by_namespace[namespace]  # whatever its exportTo
        seen = [s for _, s in sorted(by_namespace.items()) if index.visible(s, namespace)]
        if not seen:
            return None
        if self.context.rules.destination_namespace == "alphabetical":
            return seen[0]
        return min(seen, key=lambda s: (s.registry != "Kubernetes", s.created))

    def hosts(self) -> Iterator[str]:
        """Every host that the scope may hold a service of: imported first, in istiod's order, then pulled."""
        listed: dict[str, None] = {}
        for listener, named in zip(self.listeners, self._destinations, strict=True):
            listed.update(dict.fromkeys(listener.hosts()))
            listed.update(dict.fromkeys(named))
        return iter(listed)

    @cached_property
    def blocks(self) -> tuple[tuple[Service, ...], ...]:
        """Its services in blocks: first those that many scopes share, one object for all of them, last its own."""
        whole = self._whole
        if not whole:
            return (tuple(service for host in self.hosts() for service in self.services(host)),)
        shared = tuple(self.family.block(part) for part in ([_ANY] if _ANY in whole else sorted(whole)))
        neutral = self.family.neutral
        hosts = dict.fromkeys(self.family.particular)
        hosts |= dict.fromkeys((*self.listeners[0].named, *self._destinations[0]))
        own = [
            service
            for host in hosts
            if (known := neutral.get(host)) is None or not self.holds_whole(known.namespace)
            for service in self.services(host)
        ]
        return (*shared, tuple(own))

    @property
    def all_services(self) -> Iterator[Service]:
        """Every service of the scope."""
        return (service for block in self.blocks for service in block)

    @cached_property
    def pulled_only(self) -> frozenset[str]:
        """Hosts it holds only as destinations of VirtualServices: clusters, but no listener and no route."""
        return frozenset(
            host
            for named in self._destinations
            for host in named
            if not any(listener.services(host) for listener in self.listeners)
        )

    # ---- configuration

    @cached_property
    def _route_keys(self) -> frozenset[ConfigKey]:
        keys = {route.key for listener in self.listeners for route in listener.routes}
        if self.context.rules.delegate_keys:
            keys |= {key for listener in self.listeners for route in listener.routes for key in route.delegates}
        return frozenset(keys)

    def rules_for(self, service: Service) -> tuple[MergedRule, ...]:
        """DestinationRules that apply to one of its services, workload selectors not yet judged."""
        return self.context.rule_index.lookup(self.namespace, service)

    def rules_on(self, host: str) -> tuple[MergedRule, ...]:
        """DestinationRules that apply to a host of the scope."""
        service = self.service(host)
        return self.rules_for(service) if service is not None else ()

    def depends_on(self, key: ConfigKey) -> str:
        """Why a push of this key concerns the proxies of this scope, "" if it does not (istiod's DependsOnConfig)."""
        context, rules = self.context, self.context.rules
        if key.kind in rules.cluster_kinds:
            if key.namespace == context.root:
                return f"{key.kind} {key.name} is in the root namespace {key.namespace}"
            return f"{key.kind} {key.name} is in its namespace" if key.namespace == self.namespace else ""
        if key.kind not in rules.known_kinds:
            return f"{key.kind} {key.name}: sidecars are not scoped by {key.kind}"
        match key.kind:
            case "Sidecar":
                ref = self.sidecar.ref if self.sidecar else None
                own = ref is not None and (key.name, key.namespace) == (ref.name, ref.namespace)
                return f"Sidecar {key.namespace}/{key.name} is its own" if own else ""
            case "ServiceEntry" | "Endpoints":
                return self._depends_on_service(key)
            case "VirtualService":
                return f"{self} imports VirtualService {key.namespace}/{key.name}" if key in self._route_keys else ""
            case "DestinationRule":
                return self._depends_on_rule(key)
            case "PeerAuthentication":
                return self._depends_on_peer_authentication(key)
        return ""

    def _depends_on_service(self, key: ConfigKey) -> str:
        if key.kind == "Endpoints" and not self.context.rules.scope_endpoints_key:
            return ""
        winner = self.service(key.name)
        held = [winner, self._replaced.get(key.name)]
        if any(s is not None and s.namespace == key.namespace for s in held):
            return f"{self} imports {self.short(key)}{self._how(winner)}"
        return ""

    def _how(self, service: Service | None) -> str:
        if service is None or self.sidecar is None:
            return ""
        for listener, named in zip(self.listeners, self._destinations, strict=True):
            if listener.services(service.hostname):
                return f" (hosts {listener.importing(service)})"
            if service.hostname in named:
                route = named[service.hostname][0][0]
                return f" (destination of VirtualService {route.key.namespace}/{route.key.name})"
        return ""

    def _depends_on_rule(self, key: ConfigKey) -> str:
        written = self.context.rule_index.by_key.get(key)
        if written is None:
            return ""
        for host in self.family.hosts_of_rule(written):
            service = self.service(host)
            if service is None:
                continue
            merged = self.rules_for(service)
            keys = [k for rule in merged for k in (rule.keys if self.context.rules.rule_sources else rule.keys[:1])]
            if key in keys:
                return f"{self}: DestinationRule {key.namespace}/{key.name} applies to {host}"
        return ""

    @cached_property
    def service_namespaces(self) -> frozenset[str]:
        """Namespaces of its services."""
        return frozenset(service.namespace for service in self.all_services)

    def _depends_on_peer_authentication(self, key: ConfigKey) -> str:
        policies = self.context.policies["PeerAuthentication"]
        if not any((o.ref.name, o.ref.namespace) == (key.name, key.namespace) for o in policies):
            return ""
        if key.namespace in (self.context.root, self.namespace):
            return f"PeerAuthentication {key.namespace}/{key.name} is in its or the root namespace"
        if key.namespace in self.service_namespaces:
            return f"{self} imports services of {key.namespace}, where PeerAuthentication {key.name} is"
        return ""

    @staticmethod
    def short(key: ConfigKey) -> str:
        """A service's key as people say it: `b.ns-b`, or the host of a ServiceEntry."""
        return key.name.removesuffix(".svc.cluster.local")

    def __str__(self) -> str:
        if self.sidecar is None:
            return f"default scope of {self.namespace}"
        ref = self.sidecar.ref
        of = f" for {self.namespace}" if ref.namespace != self.namespace else ""
        return f"Sidecar {ref.namespace}/{ref.name}{of}"


class Scopes:
    """The scopes of one PushContext, each computed once."""

    def __init__(self, context: PushContext) -> None:
        self.context = context
        self.memo: dict[Any, Any] = {}
        self._scopes: dict[tuple[str, str, bool], Scope] = {}
        self._blocks: dict[str, tuple[Service, ...]] = {}

    @cached_property
    def neutral(self) -> dict[str, Service]:
        """Hosts that look the same from everywhere: one service, shown to all, no DestinationRule that tells
        namespaces apart, no listener per endpoint."""
        touched = self.context.rule_index.telling_apart(self.context.services.common)
        return {
            host: service
            for host, service in self.context.services.common.items()
            if host not in touched
            and not (service.resolution == "PASSTHROUGH" and any(not port.http for port in service.ports))
        }

    @cached_property
    def particular(self) -> tuple[str, ...]:
        """The other hosts, in istiod's order."""
        hosts = dict.fromkeys(service.hostname for service in self.context.services.ordered)
        return tuple(host for host in hosts if host not in self.neutral)

    def hosts_of_rule(self, written: Object) -> Iterator[str]:
        """Hosts in the mesh that a DestinationRule's host covers."""
        pattern = resolve(str(written.spec.get("host")), written.ref.namespace)
        if not is_wildcard(pattern):
            if pattern in self.context.services.by_host:
                yield pattern
            return
        yield from (host for host in self.context.services.by_host if subset_of(host, pattern))

    def block(self, namespace: str) -> tuple[Service, ...]:
        """The neutral services of a namespace (`*`: of all)."""
        if not self._blocks:
            by_namespace: dict[str, list[Service]] = {_ANY: list(self.neutral.values())}
            for service in self.neutral.values():
                by_namespace.setdefault(service.namespace, []).append(service)
            self._blocks = {part: tuple(services) for part, services in by_namespace.items()}
        return self._blocks.get(namespace, ())

    def of(self, proxy: Proxy, labels: Mapping[str, str]) -> Scope:
        """The scope of a proxy with these workload labels (reference §3.1)."""
        context = self.context
        if proxy.type != "sidecar":
            return self._scope(proxy.namespace, None, gateway=True)
        for sidecar in context.sidecars.get(proxy.namespace, ()):
            selector = sidecar.spec.get("workloadSelector")
            if selector is None or selects(pairs(selector.get("labels")), labels):
                return self._scope(proxy.namespace, sidecar)
        return self._scope(proxy.namespace, self.root_sidecar)

    @cached_property
    def root_sidecar(self) -> Object | None:
        """The oldest Sidecar without selector of the root namespace: the default of namespaces without their own."""
        sidecars = self.context.sidecars.get(self.context.root, ())
        return next((s for s in sidecars if "workloadSelector" not in s.spec), None)

    def _scope(self, namespace: str, sidecar: Object | None, *, gateway: bool = False) -> Scope:
        apart = gateway and self.context.rules.gateway_scope
        key = (namespace, str(sidecar.ref) if sidecar else "", apart)
        if key not in self._scopes:
            self._scopes[key] = Scope(self, namespace, sidecar, gateway=gateway)
        return self._scopes[key]
