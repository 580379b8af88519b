"""LDS: istiod's ListenerBuilder, and the listeners of its gateways."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

from pushsim.blocks import Block, Blocks
from pushsim.context import Route
from pushsim.conversion import parse_protocol
from pushsim.gateways import passed_hosts
from pushsim.generators.recipient import ANY_ADDRESS, Recipient, gateway_names, ingress_port, services_of
from pushsim.hosts import matches, subset_of
from pushsim.mesh import Object, Port, Service
from pushsim.registry import Target
from pushsim.resources import Listener
from pushsim.sizes.gateway import layer4
from pushsim.visibility import EgressListener, Scope

#: Where a listener listens: bind address and port.
_Socket = tuple[str, int]


class _Egress(NamedTuple):
    """What of an egress listener decides its services' listeners: the address they bind to, "" for each service's own.

    routes: VirtualServices with tcp or tls routes.
    """

    bind: str
    routes: tuple[Route, ...]


#: A service's listeners where it may meet others, and a block of those on its own address.
_OfService = tuple[tuple[Listener, ...], tuple[Block, ...]]


class _Sockets:
    """Outbound listeners in the order of their services: those where services meet, and those of one service alone.

    met:   by socket. alone: by address, the listeners on an address that no other service has.
    """

    def __init__(self) -> None:
        self.met: dict[_Socket, list[Listener]] = {}
        self.alone: dict[str, Block] = {}
        self._binds: set[str] = set()

    def add(self, met: Iterable[Listener], alone: Iterable[Block] = ()) -> None:
        """Listeners of later services."""
        for block in alone:
            address = next(_listeners(block)).bind
            if address in self.alone or address in self._binds:
                self.add(_listeners(block))
            else:
                self.alone[address] = block
        for listener in met:
            if listener.bind in self.alone:
                self.add(_listeners(self.alone.pop(listener.bind)))
            self._binds.add(listener.bind)
            self.met.setdefault((listener.bind, listener.port), []).append(listener)

    def joined(self) -> Iterator[Listener]:
        """One listener for each socket where services meet."""
        return map(_join, self.met.values())


class Listeners(Recipient):
    """The listeners of one proxy."""

    def listeners(self) -> Blocks:
        """Every listener: a sidecar's two virtual ones, then the outbound ones."""
        if not self.sidecar:
            return (Block(self._gateway_listeners()),)
        return (self.virtual_listeners(), self._outbound())

    def routes_by_listener(self, blocks: Blocks) -> Mapping[str, frozenset[str]]:
        """RDS names that listeners refer to, by listener: one object for all sidecars that share the outbound ones."""
        if not self.sidecar:
            return self._routes_by_listener(blocks)
        return blocks[-1].memo.once(lambda: self._routes_by_listener(blocks), "LDS routes")

    def _routes_by_listener(self, blocks: Blocks) -> dict[str, frozenset[str]]:
        return {listener.name: self._routes_of(listener) for block in blocks for listener in _listeners(block)}

    def _routes_of(self, listener: Listener) -> frozenset[str]:
        """A TLS port of a gateway has one per HTTPS server."""
        if listener.route:
            return frozenset({listener.route})
        shown = set(listener.servers)
        if not shown:
            return frozenset()
        routes = self.view.gateway.routes.items()
        return frozenset(name for name, servers in routes if name and not shown.isdisjoint(servers))

    # ---- sidecars

    def virtual_listeners(self) -> Block:
        """A sidecar's two virtual listeners."""
        targets, sidecar = self.view.targets, self.scope.sidecar if self.ingress else None
        memo = self.memo_of(targets[0].service) if targets else self.scope.memo
        return memo.once(lambda: self._virtual_listeners(targets), "virtual", self.unknown, of=(targets, sidecar))

    def _virtual_listeners(self, targets: tuple[Target, ...]) -> Block:
        def outbound() -> Block:
            return Block([Listener("virtualOutbound", "virtualOutbound", ANY_ADDRESS, 15001, unknown=self.unknown)])

        if self.ingress:
            service = self.ingress_service()
            served = [(service, port, port.number) for port in map(ingress_port, self.ingress)]
        else:
            served = list(targets)
        inbound = Listener(
            "virtualInbound",
            "virtualInbound",
            ANY_ADDRESS,
            15006,
            services=tuple((service, port) for service, port, _ in served),
            target_ports=tuple(number for _, _, number in served),
            rules=(self.scope.sidecar,) if self.ingress and self.scope.sidecar else (),
        )
        shared = self.scope.family.memo.once(outbound, "virtual outbound", self.unknown)
        return Block.joined((shared, Block([inbound])))

    def _outbound(self) -> Block:
        """Outbound listeners; shared by all proxies of the scope unless one per endpoint leaves out the proxy's own."""
        told, memo = (self.own_endpoint, self.unknown), self.scope.memo_of_content
        routes = (route for egress in self.scope.listeners for route in egress.layer4)
        return memo.once(self._outbound_block, "LDS", *told, of=(*self.scope.content, *routes))

    @property
    def own_endpoint(self) -> str:
        """Its address, if it is an endpoint that others have a listener for."""
        return self.view.proxy.ip if self.view.proxy.ip in listening_endpoints(self.scope) else ""

    def _outbound_block(self) -> Block:
        listeners = self.scope.listeners
        if len(listeners) == 1 and not listeners[0].spec.get("port"):
            return self._of_one_listener(_Egress(_bind(listeners[0]), listeners[0].layer4))
        return Block(self._outbound_sockets(listeners).values())

    def _outbound_sockets(self, listeners: tuple[EgressListener, ...]) -> dict[_Socket, Listener]:
        found: dict[_Socket, Listener] = {}
        locked: set[_Socket] = set()
        for egress in listeners:
            mine = set()
            for listener in self._of_listener(egress):
                socket = (listener.bind, listener.port)
                if socket not in locked:
                    found[socket] = _joined(found.get(socket), listener)
                    mine.add(socket)
            if egress.spec.get("port"):
                locked |= mine  # a listener with a port of its own keeps it
        return found

    def _of_one_listener(self, egress: _Egress) -> Block:
        """The listeners of a scope with one egress listener on all ports, from the scope's blocks."""
        *shared, own = self.scope.blocks
        parts = [self._of_shared(block, egress) for block in shared]
        if own:
            hosts = dict.fromkeys(service.hostname for service in own)
            parts.append(self._of_services((s for host in hosts for s in self.scope.listened(host)), egress))
        whole = _Sockets()
        for part in parts:
            whole.add(part.joined(), part.alone.values())
        return Block.joined([Block(whole.joined()), *whole.alone.values()])

    def _of_shared(self, block: tuple[Service, ...], egress: _Egress) -> _Sockets:
        told, memo = (egress.bind, self.own_endpoint, self.unknown), self.scope.family.memo_of(block)
        return memo.once(lambda: self._of_services(block, egress), "LDS of", *told, of=egress.routes)

    def _of_services(self, services: Iterable[Service], egress: _Egress) -> _Sockets:
        found = _Sockets()
        for service in services:
            found.add(*self._of_service(service, egress))
        return found

    def _of_service(self, service: Service, egress: _Egress) -> _OfService:
        """A service's listeners: those on addresses that others may share, and those on its own address."""
        shards = None
        if service.resolution == "PASSTHROUGH":
            shards = self.context.instances.get((service.hostname, service.namespace))
        routes = _routing(service, egress.routes)
        told = (egress.bind, self.unknown, self.own_endpoint if shards else "", self.places(service))
        return self.memo_of(service).once(
            lambda: self._new_listeners(service, _Egress(egress.bind, routes)),
            "listeners",
            *told,
            of=(service, shards, *routes),
        )

    def _new_listeners(self, service: Service, egress: _Egress) -> _OfService:
        found = [listener for port in service.ports for listener in self._of_port(service, port, port, egress)]
        address = service.addresses[0] if not egress.bind and service.addresses else ANY_ADDRESS
        own = [listener for listener in found if listener.bind == address != ANY_ADDRESS]
        if len({listener.port for listener in own}) < len(own):
            own = []
        return tuple(listener for listener in found if listener not in own), (Block(own),) if own else ()

    def _of_listener(self, egress: EgressListener) -> Iterator[Listener]:
        fixed = egress.spec.get("port")
        bind = _bind(egress) or (ANY_ADDRESS if fixed and self.rules.egress_port_anywhere else "")
        for service in services_of(egress):
            where = _Egress(bind, _routing(service, egress.layer4))
            if not fixed:
                for port in service.ports:
                    yield from self._of_port(service, port, port, where)
            elif service.ports:
                protocol = parse_protocol(str(fixed.get("protocol") or ""))
                listen = Port(str(fixed.get("name") or ""), int(fixed["number"]), protocol)
                yield from self._of_port(service, service.ports[0], listen, where)

    def _of_port(self, service: Service, port: Port, listen: Port, egress: _Egress) -> Iterator[Listener]:
        """The listeners of one service port, listening on `listen`."""
        bind = egress.bind
        if service.resolution == "ALIAS" or listen.protocol == "UDP":
            return
        if listen.http:
            address, number = bind or ANY_ADDRESS, listen.number
            name, pairs = f"{address}_{number}", ((service, port),)
            yield Listener(name, "http", address, number, str(number), pairs, unknown=self.unknown)
            return
        for address in (bind,) if bind else self.places(service):
            yield from self._at_address(service, port, listen, egress, address)

    def _at_address(
        self, service: Service, port: Port, listen: Port, egress: _Egress, address: str
    ) -> Iterator[Listener]:
        """The TCP or sniffed listeners of one service port at one of its addresses.

        One per endpoint of a headless service where it listens on its own port, not on the egress listener's.
        """
        if service.resolution == "PASSTHROUGH" and address == ANY_ADDRESS and not egress.bind and listen is port:
            instances = [e for e in self.context.instances_of(service) if e.port_name == port.name]
            if instances or service.registry == "Kubernetes" or service.selector:
                for endpoint_address in dict.fromkeys(e.address for e in instances):
                    if endpoint_address != self.view.proxy.ip:
                        yield self._tcp(service, port, listen, endpoint_address, egress.routes)
                return
        yield self._tcp(service, port, listen, ANY_ADDRESS if "/" in address else address, egress.routes)

    def _tcp(self, service: Service, port: Port, listen: Port, address: str, routes: tuple[Route, ...]) -> Listener:
        name, number, pairs = f"{address}_{listen.number}", listen.number, ((service, port),)
        kind: Literal["tcp", "auto"] = "auto" if listen.auto else "tcp"
        sniffed = str(number) if address == ANY_ADDRESS else f"{service.hostname}:{number}"
        written = tuple(route.written for route in routes)
        return Listener(
            name, kind, address, number, sniffed if listen.auto else "", pairs,
            virtual_services=written, unknown=self.unknown,
        )  # fmt: skip

    # ---- gateways

    def _gateway_listeners(self) -> Iterator[Listener]:
        found: dict[str, Listener] = {}
        for port in self.view.gateway.ports:
            routes = self._gateway_tcp_routes(port.servers)
            passed = tuple(self._passed_through(port.servers))
            serves = port.route or routes or passed
            if not serves and parse_protocol(port.protocol) != "HTTPS":
                continue  # a TCP or TLS port without a route has no filter chain, so no listener
            earlier = found.get(port.name)
            found[port.name] = Listener(
                port.name,
                "gateway",
                port.bind or ANY_ADDRESS,
                port.port,
                port.route,
                (*(earlier.services if earlier else ()), *passed),
                servers=(*(earlier.servers if earlier else ()), *port.servers),
                virtual_services=routes,
                rules=tuple(dict.fromkeys(source for s, _ in passed for source in self._sources(s))),
            )
        yield from found.values()

    def _sources(self, service: Service) -> tuple[Object, ...]:
        rule = self.rule_for(service)
        return rule.sources if rule else ()

    def _passed_through(self, servers: tuple[tuple[Object, int], ...]) -> Iterator[tuple[Service, Port]]:
        """The ports that AUTO_PASSTHROUGH servers have a filter chain for: builtAutoPassthroughFilterChains."""
        hosts = [host for server in servers for host in passed_hosts(server)]
        for service in self.scope.all_services if hosts else ():
            if not service.external and any(subset_of(service.hostname, host) for host in hosts):
                yield from ((service, port) for port in service.ports if port.protocol != "UDP")

    def _gateway_tcp_routes(self, servers: tuple[tuple[Object, int], ...]) -> tuple[Object, ...]:
        routes, namespace = self.context.routes, self.view.proxy.namespace
        seen = (route.written for name in gateway_names(servers) for route in routes.tcp(name, namespace))
        return tuple(written for written in seen if any(any(layer4(server, written)) for server in servers))


def listening_endpoints(scope: Scope) -> frozenset[str]:
    """Addresses of endpoints that have a listener of their own, which they leave out themselves."""

    def found() -> frozenset[str]:
        services = (s for s in scope.all_services if s.resolution == "PASSTHROUGH")
        return frozenset(e.address for s in services for e in scope.context.instances_of(s))

    return scope.memo_of_content.once(found, "listening", of=scope.content)


def _listeners(block: Block) -> Iterator[Listener]:
    return (resource for resource in block if isinstance(resource, Listener))


def _joined(earlier: Listener | None, later: Listener) -> Listener:
    return later if earlier is None else _join([earlier, later])


def _join(listeners: list[Listener]) -> Listener:
    """Outbound listeners on one address and port as one: HTTP ones share it, a mix becomes a sniffed one."""
    first = listeners[0]
    if len(listeners) == 1:
        return first
    kind = first.kind if all(listener.kind == first.kind for listener in listeners) else "auto"
    route = next((listener.route for listener in listeners if listener.route), "")
    services = tuple(pair for listener in listeners for pair in listener.services)
    routing = tuple(dict.fromkeys(written for listener in listeners for written in listener.virtual_services))
    return Listener(
        first.name, kind, first.bind, first.port, route, services, virtual_services=routing, unknown=first.unknown
    )


def _routing(service: Service, routes: tuple[Route, ...]) -> tuple[Route, ...]:
    """Of the VirtualServices with tcp or tls routes, those that a service's host is one of (getConfigsForHost)."""
    return tuple(route for route in routes if any(matches(host, service.hostname) for host in route.hosts))


def _bind(egress: EgressListener) -> str:
    """The address an egress listener binds to, "" for each service's own."""
    bind = str(egress.spec.get("bind") or "")
    return bind or ("127.0.0.1" if egress.spec.get("captureMode") == "NONE" else "")
