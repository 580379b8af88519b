"""RDS: istiod's route configurations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain

from pushsim.context import Destination, Route, applying, asks_hashing
from pushsim.conversion import SOCKET, parse_protocol
from pushsim.generators.recipient import Recipient, gateway_names, services_of
from pushsim.mesh import Object, Port, Service
from pushsim.resources import RouteConfiguration
from pushsim.visibility import EgressListener

#: By RDS name, the service ports with a virtual host there.
_Routed = Mapping[str, tuple[tuple[Service, Port], ...]]


class Routes(Recipient):
    """The route configurations of one proxy."""

    def route(self, name: str) -> RouteConfiguration:
        """One route configuration of a watched name; a sidecar's is shared by all proxies of its scope."""
        if not self.sidecar:
            return self._gateway_route(name)
        told = (name, self.unknown, self.told if self.scope.context.rule_index.hashing else ())
        return self.scope.family.memo.once(lambda: self._sidecar_route(name), "RDS", *told, of=self.scope.routed)

    def _gateway_route(self, name: str) -> RouteConfiguration:
        servers = self.view.gateway.routes.get(name, ())
        namespace = self.view.proxy.namespace
        visible = (self.context.routes.visible(gateway, namespace) for gateway in gateway_names(servers))
        routes = {route.written: route for routes in visible for route in routes}
        found = (self._only_port(host, route) for route in routes.values() for host, _ in _portless(route))
        services = tuple(dict.fromkeys(pair for pair in found if pair is not None))
        rules = self._hashing((), routes.values())
        named = ((host, self._meant(host, route)) for route in routes.values() for host in route.destinations(None))
        aliases = {host: dict(of.extras)["externalName"] for host, of in named if of and of.resolution == "ALIAS"}
        known = bool(servers)
        return RouteConfiguration(name, services, tuple(routes), servers, known, rules, aliases=tuple(aliases.items()))

    def _only_port(self, host: str, route: Route) -> tuple[Service, Port] | None:
        """The service a gateway's route means by a host, if its only port is meant by none."""
        service = self._meant(host, route)
        return (service, service.ports[0]) if service is not None and len(service.ports) == 1 else None

    def _meant(self, host: str, route: Route) -> Service | None:
        """The service a gateway's route means by a host.

        Source: pilot/pkg/networking/core/gateway.go (buildNameToServiceMapForHTTPRoutes).
        """
        index = self.context.services
        service = index.exact.get(host, {}).get(route.key.namespace)
        seen = service is not None and index.visible(service, self.view.proxy.namespace)
        return service if seen else self.scope.service(host)

    def _sidecar_route(self, name: str) -> RouteConfiguration:
        number = name.rpartition(":")[2]
        owners = self._owners(int(number) if number.isdigit() else 0, name)
        every_port = name.startswith(SOCKET) or any(_takes_any_port(egress) for egress in owners)
        routes = [route for egress in owners for route in egress.routes]
        written = dict.fromkeys(route.written for route in routes)
        if len(self.scope.listeners) == 1:
            *shared, own = self.scope.blocks
            pulled = self.scope.pulled_only
            mine = self.scope.memo.once(lambda: _routed(s for s in own if s.hostname not in pulled), "RDS")
            parts = [*map(self._routed_of_shared, shared), mine]
        else:
            parts = [_routed(service for egress in owners for service in services_of(egress))]
        if every_port:
            found = [pairs for part in parts for number, pairs in part.items() if number.isdigit()]
        else:
            found = [part[name] for part in parts if name in part]
        services = found[0] if len(found) == 1 else tuple(chain.from_iterable(found))
        rules = self._hashing((service.hostname for service, _ in services), routes)
        others = self._others(name, owners) if written else ()
        return RouteConfiguration(
            name, services, tuple(written), (), bool(services), rules, self.unknown, others, every_port=every_port
        )

    def _others(self, number: str, owners: Sequence[EgressListener]) -> tuple[str, ...]:
        """Hosts of services that have a port for something else than HTTP.

        Source: pilot/pkg/networking/core/httproute.go (BuildSidecarOutboundVirtualHosts: servicesByName).
        """
        if len(self.scope.listeners) == 1:
            *shared, own = self.scope.blocks
            pulled = self.scope.pulled_only
            parts = [self.scope.family.memo_of(block).once(partial(_plain, block), "no RDS") for block in shared]
            parts.append(self.scope.memo.once(lambda: _plain(s for s in own if s.hostname not in pulled), "no RDS"))
        else:
            parts = [_plain(services_of(egress)) for egress in owners]
        return tuple(chain.from_iterable(part.get(number, ()) for part in parts))

    def _hashing(self, hosts: Iterable[str], routes: Iterable[Route]) -> tuple[tuple[str, tuple[Object, ...]], ...]:
        """By host, the DestinationRules that spread its requests by consistent hashing: of services and destinations.

        Source: pilot/pkg/networking/core/route/route.go (hashForService, hashForVirtualService).
        """
        if not self.scope.context.rule_index.hashing:
            return ()
        named = (host for route in routes for host in route.destinations(None))
        found = []
        for host in dict.fromkeys((*hosts, *named)):
            rule = applying(self.scope.rules_on(host), self.view.proxy.labels)
            if rule is not None and any(asks_hashing(source) for source in rule.sources):
                found.append((host, rule.sources))
        return tuple(found)

    def _routed_of_shared(self, block: tuple[Service, ...]) -> _Routed:
        family = self.scope.family

        def routed() -> _Routed:
            parts = [self._routed_of_shared(part) for part in family.parts(block)]
            if not parts:
                return _routed(block)
            found: dict[str, list[tuple[tuple[Service, Port], ...]]] = {}
            for part in parts:
                for name, pairs in part.items():
                    found.setdefault(name, []).append(pairs)
            return {name: of[0] if len(of) == 1 else family.joined(name, of) for name, of in found.items()}

        return family.memo_of(block).once(routed, "RDS")

    def _owners(self, number: int, name: str) -> list[EgressListener]:
        """The egress listener that owns a port, or the socket that a route is named by, else those without a port."""
        with_port = [egress for egress in self.scope.listeners if egress.spec.get("port")]
        by_port = ((int(egress.spec["port"].get("number") or 0), egress) for egress in with_port)
        owner = next((e for port, e in by_port if port == number and (port or e.spec.get("bind") == name)), None)
        if owner is not None:
            return [owner]
        return [egress for egress in self.scope.listeners if not egress.spec.get("port")]


def _takes_any_port(egress: EgressListener) -> bool:
    """Whether its route has all ports of its services (BuildSidecarOutboundVirtualHosts: HTTP_PROXY)."""
    return parse_protocol(str((egress.spec.get("port") or {}).get("protocol") or "")) == "HTTP_PROXY"


def _portless(route: Route) -> Iterator[Destination]:
    """The destinations of http routes that name no port."""
    return (to for http in route.http for to in http.destinations if not to[1])


def _plain(services: Iterable[Service]) -> Mapping[str, tuple[str, ...]]:
    """Hosts by the number of their ports that are neither HTTP nor sniffed."""
    found: dict[str, list[str]] = {}
    for service in services:
        for port in service.ports:
            if not (port.http or port.auto):
                found.setdefault(str(port.number), []).append(service.hostname)
    return {number: tuple(hosts) for number, hosts in found.items()}


def _routed(services: Iterable[Service]) -> _Routed:
    """HTTP and sniffed service ports, by number and by host (buildSidecarVirtualHostWrapper: IsHTTPOrSniffed)."""
    found: dict[str, list[tuple[Service, Port]]] = {}
    for service in services:
        for port in service.ports:
            if port.http or port.auto:
                found.setdefault(str(port.number), []).append((service, port))
                found.setdefault(f"{service.hostname}:{port.number}", []).append((service, port))
    return {name: tuple(pairs) for name, pairs in found.items()}
