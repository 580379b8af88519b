"""LDS of gateways: the listeners of their servers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pushsim.context import Route
from pushsim.conversion import parse_protocol
from pushsim.gateways import passed_hosts
from pushsim.generators.recipient import Recipient, gateway_names
from pushsim.hosts import subset_of
from pushsim.mesh import HTTP_PROTOCOLS, Object, Port, Service
from pushsim.resources import ANY_ADDRESS, Listener
from pushsim.sizes.gateway import layer4, spec_of


class GatewayListeners(Recipient):
    """The listeners of one gateway."""

    def gateway_listeners(self) -> Iterator[Listener]:
        """One for each port of the servers that it has."""
        found: dict[str, Listener] = {}
        routes_of: dict[str, tuple[Route, ...]] = {}
        for port in self.view.gateway.ports:
            routes = self._tcp_routes(port.servers)
            passed = tuple(self._passed_through(port.servers))
            serves = parse_protocol(port.protocol) in HTTP_PROTOCOLS or routes or passed
            if not serves and not (parse_protocol(port.protocol) == "HTTPS" and any(map(_ends_tls, port.servers))):
                continue  # a TCP or TLS port without a route has no filter chain, so no listener
            bind, servers = port.bind or ANY_ADDRESS, port.servers
            if (earlier := found.get(port.name)) is not None:
                passed, servers = (*earlier.services, *passed), (*earlier.servers, *servers)
                routes = tuple(dict.fromkeys((*routes_of[port.name], *routes)))
            routes_of[port.name] = routes
            hosts = dict.fromkeys(host for route in routes for host, _ in route.other)
            found[port.name] = Listener(
                port.name,
                "gateway",
                bind,
                port.port,
                services=passed,
                servers=servers,
                virtual_services=tuple(route.written for route in routes),
                connections=self.connections(hosts),
                only_ports=tuple(self._only_ports(hosts)),
                rules=tuple(dict.fromkeys(source for s, _ in passed for source in self._sources(s))),
            )
        yield from found.values()

    def _only_ports(self, hosts: Iterable[str]) -> Iterator[tuple[str, int]]:
        """Ports of hosts that have one each (GetDestinationCluster)."""
        for host in hosts:
            service = self.scope.service(host)
            if service is not None and len(service.ports) == 1:
                yield host, service.ports[0].number

    def _sources(self, service: Service) -> tuple[Object, ...]:
        rule = self.rule_for(service)
        return rule.sources if rule else ()

    def _passed_through(self, servers: tuple[tuple[Object, int], ...]) -> Iterator[tuple[Service, Port]]:
        """The ports that AUTO_PASSTHROUGH servers have a filter chain for: builtAutoPassthroughFilterChains."""
        hosts = [host for server in servers for host in passed_hosts(server)]
        for service in self.scope.all_services if hosts else ():
            if not service.external and any(subset_of(service.hostname, host) for host in hosts):
                yield from ((service, port) for port in service.ports if port.protocol != "UDP")

    def _tcp_routes(self, servers: tuple[tuple[Object, int], ...]) -> tuple[Route, ...]:
        routes, namespace = self.context.routes, self.view.proxy.namespace
        seen = (route for name in gateway_names(servers) for route in routes.tcp(name, namespace))
        return tuple(route for route in seen if any(any(layer4(server, route.written)) for server in servers))


def _ends_tls(server: tuple[Object, int]) -> bool:
    mode = (spec_of(server).get("tls") or {}).get("mode")
    return mode not in ("PASSTHROUGH", "AUTO_PASSTHROUGH")
