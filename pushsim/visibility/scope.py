"""SidecarScope: the services of a Sidecar, or of the default scope of a namespace (reference §3.2 to §3.5)."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property

from pushsim.context import MergedRule, Route
from pushsim.memo import Memo
from pushsim.mesh import ConfigKey, Object, Service
from pushsim.visibility.dependence import dependence
from pushsim.visibility.egress import EgressListener, with_ports
from pushsim.visibility.family import ANY, Family

#: A VirtualService that names a host, and the ports it routes to (0 stands for all).
Naming = tuple[Route, frozenset[int]]


#: What of a scope hangs on the services it holds.
_OF_SERVICES = ("destinations", "blocks", "hostnames", "pulled_only", "service_namespaces")


class Scope:
    """A SidecarScope: of a Sidecar and the namespace it serves, or the default of a namespace.

    listeners: its egress listeners.
    replaced:  by host, the service that a legacy default scope held before a Kubernetes one took its place.
    memo:      what is made of it, by whoever makes it.

    Args:
        family: the scopes of the push it is computed in.
        namespace: the proxy's.
        sidecar: the Sidecar, None for the default scope.
        gateway: it is that of gateways, apart from sidecars': no destinations are pulled in.
        before: the same scope in an earlier family with the same services and rules.
    """

    def __init__(
        self,
        family: Family,
        namespace: str,
        sidecar: Object | None,
        gateway: bool = False,
        *,
        before: Scope | None = None,
    ) -> None:
        context, rules = family.context, family.context.rules
        self.family, self.context, self.namespace, self.sidecar = family, context, namespace, sidecar
        self.memo = Memo()
        everything = {"hosts": ["*/*"]}
        legacy = sidecar is None and (rules.default_scope != "unified" or gateway)
        self._legacy, self._merges = legacy, rules.merge_services == "append"
        self.replaced: dict[str, Service] = {}
        self._services: dict[str, tuple[Service, ...]] = {}
        if before is not None:
            self.listeners: tuple[EgressListener, ...] = tuple(
                listener.renewed(context) for listener in before.listeners
            )
            self._take_over(before)
            return
        specs = [everything] if sidecar is None else list(sidecar.spec.get("egress") or ()) or [everything]
        self.listeners = tuple(EgressListener(context, namespace, spec, plain=legacy) for spec in specs)

    def _take_over(self, before: Scope) -> None:
        """What cannot have changed since an earlier family: all, if the routes it imports are the same."""
        if not self._legacy and any(
            new.routes != old.routes for new, old in zip(self.listeners, before.listeners, strict=True)
        ):
            return
        self.replaced, self._services = before.replaced, before._services
        kept = _OF_SERVICES if self._legacy else (*_OF_SERVICES, "route_keys")
        self.__dict__.update({name: before.__dict__[name] for name in kept if name in before.__dict__})

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
        return namespace in self._whole or ANY in self._whole

    @property
    def parts(self) -> frozenset[str]:
        """Namespaces (`*`: all) it may hold services of, besides the hosts that its `destinations` name."""
        return frozenset().union(*(listener.parts for listener in self.listeners))

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
        for listener, named in zip(self.listeners, self.destinations, strict=True):
            for service in (*listener.services(host), *self._pulled(listener.port, named.get(host, ()), host)):
                held = self._merge(held, service)
        return (held,) if held is not None else ()

    def _legacy_winner(self, host: str) -> tuple[Service, ...]:
        found = self.listeners[0].services(host)
        if not found:
            return ()
        winner = found[0]
        for service in found[1:]:
            if winner.registry != "Kubernetes" and service.registry == "Kubernetes":
                self.replaced[host] = winner
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

    def listened(self, host: str) -> tuple[Service, ...]:
        """Services of a host that its first egress listener shows: all, where `services` merges them into one."""
        return self.services(host) if self._legacy and self._merges else self.listeners[0].services(host)

    @cached_property
    def destinations(self) -> tuple[dict[str, list[Naming]], ...]:
        """Per listener: destination hosts of its VirtualServices, with the routes and ports that name them."""
        if self._legacy:
            return ({},) * len(self.listeners)
        return tuple(self._named_by(listener.routes) for listener in self.listeners)

    def _named_by(self, routes: tuple[Route, ...]) -> dict[str, list[Naming]]:
        told = self.context.rules.source_namespace and self.context.routes.sourced
        namespace = self.namespace if told else None

        def found() -> dict[str, list[Naming]]:
            by_host: dict[str, list[Naming]] = {}
            for route in routes:
                for host, ports in route.destinations(namespace).items():
                    by_host.setdefault(host, []).append((route, frozenset(ports)))
            return by_host

        return self.family.memo.once(found, "destinations", namespace, of=(routes,))

    def _pulled(self, port: int, named: Sequence[Naming], host: str) -> Iterator[Service]:
        """Services of a host that the VirtualServices of a listener (on `port`, if that is not 0) route to."""
        service = self._destination(host) if named else None
        if service is None:
            return
        for _, ports in named:
            if port:
                trimmed = with_ports(service, {port})
            elif self.context.rules.route_ports and 0 not in ports:
                trimmed = with_ports(service, set(ports))
            else:
                trimmed = service
            if trimmed is not None:
                yield trimmed

    def _destination(self, host: str) -> Service | None:
        """The service of a host that a route means, ports as they are."""
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
        for listener, named in zip(self.listeners, self.destinations, strict=True):
            listed.update(dict.fromkeys(listener.hosts()))
            listed.update(dict.fromkeys(named))
        return iter(listed)

    @cached_property
    def blocks(self) -> tuple[tuple[Service, ...], ...]:
        """Its services in blocks: first those that many scopes share, one object for all of them, last its own."""
        whole = self._whole
        if not whole:
            return (tuple(service for host in self.hosts() for service in self.services(host)),)
        shared = tuple(self.family.block(part) for part in ([ANY] if ANY in whole else sorted(whole)))
        neutral = self.family.neutral
        hosts = dict.fromkeys(self.family.particular)
        hosts |= dict.fromkeys((*self.listeners[0].named, *self.destinations[0]))
        own = [
            service
            for host in hosts
            if (known := neutral.get(host)) is None or not self.holds_whole(known.namespace)
            for service in self.services(host)
        ]
        return (*shared, tuple(own))

    @cached_property
    def content(self) -> tuple[object, ...]:
        """What decides the resources made of its services, to be told apart by identity: scopes may share it."""
        *shared, own = self.blocks
        plain = len(self.listeners) == 1 and not self.listeners[0].special
        return tuple(shared) if plain and not own else (self,)

    @cached_property
    def kin(self) -> Hashable:
        """Equal for scopes of a push that hold the same and look the same from everywhere; None: like no other."""
        if self.context.rule_index.selective or self.context.routes.sourced or self.content == (self,):
            return None
        return id(self.family), id(self.sidecar), *map(id, self.routed)

    @cached_property
    def routed(self) -> tuple[object, ...]:
        """The same of its route configurations: that, and the VirtualServices it imports."""
        content = self.content
        return content if content == (self,) else (*content, self.listeners[0].routes)

    @property
    def memo_of_content(self) -> Memo:
        """For what is made of its `content` and rules, by whoever makes it."""
        return self.family.memo if self.content == (self,) else self.family.of_blocks

    @property
    def all_services(self) -> Iterator[Service]:
        """Every service of the scope."""
        return (service for block in self.blocks for service in block)

    @cached_property
    def hostnames(self) -> frozenset[str]:
        """The hosts it holds a service of."""
        return self.memo_of_content.once(
            lambda: frozenset(service.hostname for service in self.all_services), "hostnames", of=self.content
        )

    @cached_property
    def pulled_only(self) -> frozenset[str]:
        """Hosts it holds only as destinations of VirtualServices: clusters, but no listener and no route."""
        return frozenset(
            host
            for named in self.destinations
            for host in named
            if not any(listener.services(host) for listener in self.listeners)
        )

    # ---- configuration

    def depends_on(self, key: ConfigKey) -> str:
        """Why a push of this key concerns the proxies of this scope, "" if it does not (istiod's DependsOnConfig)."""
        return self.memo.once(lambda: dependence(self, key), "depends on", key)

    def holds(self, key: ConfigKey) -> bool:
        """Whether it or one of its egress listeners holds a service of that host and namespace.

        Not all of these are among what it depends on: of a host, that is the service it reaches, while legacy default
        scopes hold duplicates from other namespaces, and every egress listener chooses a namespace of its own.
        """
        found = (self.services(key.name), *(listener.services(key.name) for listener in self.listeners))
        return any(service.namespace == key.namespace for services in found for service in services)

    @cached_property
    def route_keys(self) -> frozenset[ConfigKey]:
        """The VirtualServices it imports."""
        seen, delegates = [listener.routes for listener in self.listeners], self.context.rules.delegate_keys

        def found() -> frozenset[ConfigKey]:
            keys = {route.key for routes in seen for route in routes}
            if delegates:
                keys |= {key for routes in seen for route in routes for key in route.delegates}
            return frozenset(keys)

        return self.family.memo.once(found, "route keys", of=tuple(seen))

    def rules_for(self, service: Service) -> tuple[MergedRule, ...]:
        """DestinationRules that apply to one of its services, workload selectors not yet judged."""
        if self._legacy and not self._merges:  # istiod asks by host: duplicates have the winner's
            return self.rules_on(service.hostname)
        return self.context.rule_index.lookup(self.namespace, service)

    def rules_on(self, host: str) -> tuple[MergedRule, ...]:
        """DestinationRules that apply to a host of the scope; a replaced service's where its successor has none."""
        service, lookup = self.service(host), self.context.rule_index.lookup
        found = lookup(self.namespace, service) if service is not None else ()
        return found or self.rules_replaced(host)

    def rules_replaced(self, host: str) -> tuple[MergedRule, ...]:
        """DestinationRules of the service that a Kubernetes one replaced."""
        service = self.replaced.get(host)
        return self.context.rule_index.lookup(self.namespace, service) if service is not None else ()

    @cached_property
    def service_namespaces(self) -> frozenset[str]:
        """Namespaces of its services."""
        return frozenset(service.namespace for service in self.all_services)

    def __str__(self) -> str:
        if self.sidecar is None:
            return f"default scope of {self.namespace}"
        ref = self.sidecar.ref
        of = f" for {self.namespace}" if ref.namespace != self.namespace else ""
        return f"Sidecar {ref.namespace}/{ref.name}{of}"
