"""LDS: istiod's ListenerBuilder, and the listeners of its gateways."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Literal, NamedTuple

from pushsim.blocks import Block, Blocks
from pushsim.context import Route
from pushsim.conversion import SOCKET, parse_protocol
from pushsim.generators.gateways import GatewayListeners
from pushsim.generators.recipient import ingress_port, services_of
from pushsim.generators.sockets import Socket, Sockets, joined, listeners_in
from pushsim.hosts import matches
from pushsim.mesh import Object, Port, Service
from pushsim.registry import Target
from pushsim.resources import ANY_ADDRESS, NOBODY, Added, Asked, Listener, Source
from pushsim.sizes.envoyfilters import Patch, added, doing, is_of_listener
from pushsim.visibility import EgressListener, Scope

_OF_SIDECARS = ("SIDECAR_INBOUND", "SIDECAR_OUTBOUND")


class _Egress(NamedTuple):
    """What of an egress listener decides its services' listeners: the address they bind to, "" for each service's own.

    routes: VirtualServices with tcp or tls routes; source: what these are told of the proxy.
    rules:  DestinationRules that shape TCP proxies, by host.
    """

    bind: str
    routes: tuple[Route, ...]
    source: Source = NOBODY
    rules: tuple[tuple[str, tuple[Object, ...]], ...] = ()


#: A service's listeners where it may meet others, and a block of those on its own address.
_OfService = tuple[tuple[Listener, ...], tuple[Block, ...]]


class Listeners(GatewayListeners):
    """The listeners of one proxy."""

    def listeners(self) -> Blocks:
        """Every listener: a sidecar's two virtual ones, then the outbound ones."""
        if not self.sidecar:
            return (self._patched(Block(self.gateway_listeners()), "GATEWAY"),)
        return (self._patched(self.virtual_listeners()), self._patched(self._outbound(), *_OF_SIDECARS))

    def _patched(self, block: Block, *adding: str) -> Block:
        """Listeners without those that EnvoyFilters remove, and those that they add in these contexts."""
        gone = doing(self.patches, "REMOVE", "LISTENER")
        new = [value for context in adding for value in added(self.patches, "LISTENER", context)]
        if not gone and not new:
            return block

        def patched() -> Block:
            kept = [one for one in listeners_in(block) if not any(self._is_of_listener(patch, one) for patch in gone)]
            return Block([*kept, *(Added("LDS", str(value.get("name") or ""), value) for value in new)])

        return block.memo.once(patched, "patched", adding, of=self.filters)

    def _is_of_listener(self, patch: Patch, listener: Listener) -> bool:
        outbound = "SIDECAR_OUTBOUND" if self.sidecar else "GATEWAY"
        context = "SIDECAR_INBOUND" if listener.kind in ("virtualInbound", "inbound") else outbound
        return patch.fits(context) and is_of_listener(patch, listener.name, listener.port)

    def routes_by_listener(self, blocks: Blocks) -> Mapping[str, frozenset[str]]:
        """RDS names that listeners refer to, by listener: one object for all sidecars that share the outbound ones."""
        if not self.sidecar:
            return self._routes_by_listener(blocks)
        of = self.filters if self._chains else ()
        inbound = tuple(listener.name for block in blocks[:-1] for listener in block)
        return blocks[-1].memo.once(lambda: self._routes_by_listener(blocks), "LDS routes", inbound, of=of)

    def _routes_by_listener(self, blocks: Blocks) -> dict[str, frozenset[str]]:
        found = {}
        for listener in (one for block in blocks for one in block if isinstance(one, Listener | Added)):
            more = [name for patch in self._chains_of(listener) for name in _routes_in(patch.value)]
            found[listener.name] = self._routes_of(listener).union(more)
        return found

    @cached_property
    def _chains(self) -> list[Patch]:
        """The patches that add filter chains."""
        return [patch for patch in self.patches if patch.apply_to == "FILTER_CHAIN" and patch.operation == "ADD"]

    def _chains_of(self, listener: Listener | Added) -> list[Patch]:
        if isinstance(listener, Added):
            return []
        return [patch for patch in self._chains if self._is_of_listener(patch, listener)]

    def _routes_of(self, listener: Listener | Added) -> frozenset[str]:
        """A gateway's has one for plain HTTP at each address that servers say they bind, and one per HTTPS server."""
        if isinstance(listener, Added):
            return frozenset(_routes_in(listener.value))
        if listener.kind != "gateway":
            return frozenset({listener.route} if listener.route else ())
        shown = set(listener.servers)
        routes = self.view.gateway.routes.items()
        return frozenset(name for name, servers in routes if name and not shown.isdisjoint(servers))

    # ---- sidecars

    def virtual_listeners(self) -> Block:
        """A sidecar's two virtual listeners, and those of its Sidecar's ingress that bind their ports themselves."""
        targets, sidecar = self.view.targets, self.scope.sidecar if self.ingress else None
        memo = self.memo_of(targets[0].service) if targets else self.scope.memo
        ip = self.view.proxy.ip if any(not of.get("bind") for of in self.ingress) else ""
        told = self.unknown, ip, self._static
        return memo.once(lambda: self._virtual_listeners(targets), "virtual", *told, of=(targets, sidecar))

    def _virtual_listeners(self, targets: tuple[Target, ...]) -> Block:
        def outbound() -> Block:
            return Block([Listener("virtualOutbound", "virtualOutbound", ANY_ADDRESS, 15001, unknown=self.unknown)])

        own: list[Listener] = []
        taken = self._reserved.union(self._static) if self.rules.targets_reserved else ()
        served = [(target, ANY_ADDRESS) for target in targets if target.target_port not in taken]
        if self.ingress:
            served, bound = self._ingress_targets(bound=False), self._ingress_targets(bound=True)
            own = [
                self._inbound("inbound", f"{bind}_{target.target_port}", bind, target.target_port, [(target, bind)])
                for target, bind in bound
            ]
        virtual = self._inbound("virtualInbound", "virtualInbound", ANY_ADDRESS, 15006, served)
        shared = self.scope.family.memo.once(outbound, "virtual outbound", self.unknown)
        return Block.joined((shared, Block([virtual, *own])))

    @property
    def _static(self) -> tuple[int, int]:
        """Ports of the listeners that it has by itself, 0 where its agent does not tell."""
        told = self.view.proxy.metadata
        return int(told.get("ENVOY_STATUS_PORT") or 0), int(told.get("ENVOY_PROMETHEUS_PORT") or 0)

    @cached_property
    def _reserved(self) -> frozenset[int]:
        """Ports of the virtual listeners, where no other may listen on all addresses (conflictWithReservedListener)."""
        mesh = self.context.mesh_config
        ports = int(mesh.get("proxyListenPort") or 15001), int(mesh.get("proxyInboundListenPort") or 15006)
        return frozenset(ports if self.rules.ports_reserved else ())

    def _ingress_targets(self, *, bound: bool) -> list[tuple[Target, str]]:
        """What its Sidecar's ingress listeners serve, and the address of each: those that bind it, or the others."""
        service, found = self.ingress_service(), []
        for listener in self.ingress:
            if (listener.get("captureMode") == "NONE") == bound:
                port = ingress_port(listener)
                found.append((Target(service, port, port.number), str(listener.get("bind") or self.view.proxy.ip)))
        return found

    def _inbound(
        self, kind: Literal["virtualInbound", "inbound"], name: str, bind: str, port: int,
        served: Sequence[tuple[Target, str]],
    ) -> Listener:  # fmt: skip
        return Listener(
            name, kind, bind, port,
            services=tuple((target.service, target.port) for target, _ in served),
            target_ports=tuple(target.target_port for target, _ in served),
            binds=tuple(bind for _, bind in served),
            rules=(self.scope.sidecar,) if self.ingress and self.scope.sidecar else (),
        )  # fmt: skip

    def _outbound(self) -> Block:
        """Outbound listeners; shared by all proxies of the scope unless one per endpoint leaves out the proxy's own."""
        routes = [route for egress in self.scope.listeners for route in egress.layer4]
        told, memo = (*self._particular, self._source(routes)), self.scope.memo_of_content
        return memo.once(self._outbound_block, "LDS", *told, of=(*self.scope.content, *routes))

    @property
    def _particular(self) -> tuple[Hashable, ...]:
        """All that tells it from others of its scope's content, but for what routes ask."""
        selected = self.told if self.scope.context.rule_index.connections else ()
        return self.own_endpoint, self.unknown, selected

    def _source(self, routes: Iterable[Route]) -> Source:
        """What routes ask of it, and are told."""
        return Asked.by((route.written for route in routes), "tcp", "tls").of(self.view.proxy)

    def _routed(self, service: Service, egress: _Egress) -> _Egress:
        """What of an egress listener is for a service."""
        if not egress.routes and not self.scope.context.rule_index.connections:
            return egress
        routes = _routing(service, egress.routes)
        named = (host for route in routes for host, _ in route.other)
        return _Egress(egress.bind, routes, self._source(routes), self.connections((service.hostname, *named)))

    @property
    def own_endpoint(self) -> str:
        """Its address, if it is an endpoint that others have a listener for."""
        return self.view.proxy.ip if self.view.proxy.ip in listening_endpoints(self.scope) else ""

    def _outbound_block(self) -> Block:
        listeners = self.scope.listeners
        if len(listeners) == 1 and not listeners[0].spec.get("port"):
            return self._of_one_listener(_Egress(_bind(listeners[0]), listeners[0].layer4))
        return Block(self._outbound_sockets(listeners).values())

    def _outbound_sockets(self, listeners: tuple[EgressListener, ...]) -> dict[Socket, Listener]:
        found: dict[Socket, Listener] = {}
        locked: set[Socket] = set()
        for egress in listeners:
            mine = set()
            for listener in self._of_listener(egress):
                socket = (listener.bind, listener.port)
                if socket not in locked:
                    found[socket] = joined(found.get(socket), listener)
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
        whole = Sockets()
        for part in parts:
            whole.add(part.joined(), part.alone.values())
        return Block.joined([Block(whole.joined()), *whole.alone.values()])

    def _of_shared(self, block: tuple[Service, ...], egress: _Egress) -> Sockets:
        told = (egress.bind, *self._particular, self._source(egress.routes))
        memo = self.scope.family.memo_of(block)
        return memo.once(lambda: self._of_services(block, egress), "LDS of", *told, of=egress.routes)

    def _of_services(self, services: Iterable[Service], egress: _Egress) -> Sockets:
        found = Sockets()
        for service in services:
            found.add(*self._of_service(service, egress))
        return found

    def _of_service(self, service: Service, egress: _Egress) -> _OfService:
        """A service's listeners: those on addresses that others may share, and those on its own address."""
        shards = None
        if service.resolution == "PASSTHROUGH":
            shards = self.context.instances.get((service.hostname, service.namespace))
        mine = self._routed(service, egress)
        own = self.own_endpoint if shards else ""
        told = (egress.bind, self.unknown, own, self.places(service), mine.source, mine.rules)
        return self.memo_of(service).once(
            lambda: self._new_listeners(service, mine), "listeners", *told, of=(service, shards, *mine.routes)
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
            where = self._routed(service, _Egress(bind, egress.layer4))
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
        if listen.number in self._reserved and (bind == ANY_ADDRESS or (listen.http and not bind)):
            return
        if listen.http:
            address, number = bind or ANY_ADDRESS, listen.number
            name, pairs = f"{address}_{number}", ((service, port),)
            route = address if address.startswith(SOCKET) else str(number)
            yield Listener(name, "http", address, number, route, pairs, unknown=self.unknown)
            return
        for address in (bind,) if bind else self.places(service):
            yield from self._at_address(service, port, listen, egress, address)

    def _at_address(
        self, service: Service, port: Port, listen: Port, egress: _Egress, address: str
    ) -> Iterator[Listener]:
        """The TCP or sniffed listeners of one service port at one of its addresses.

        One per endpoint of a headless service where it listens on its own port, not on the egress listener's.
        """
        apart = self.rules.pod_listeners and service.resolution == "PASSTHROUGH"
        if apart and address == ANY_ADDRESS and not egress.bind and listen is port:
            instances = [e for e in self.context.instances_of(service) if e.port_name == port.name]
            if instances or service.registry == "Kubernetes" or service.selector:
                for endpoint_address in dict.fromkeys(e.address for e in instances):
                    if endpoint_address != self.view.proxy.ip:
                        yield self._tcp(service, port, listen, endpoint_address, egress)
                return
        yield self._tcp(service, port, listen, address, egress)

    def _tcp(self, service: Service, port: Port, listen: Port, address: str, egress: _Egress) -> Listener:
        cidrs = ((service.hostname, address),) if "/" in address else ()
        address = ANY_ADDRESS if cidrs else address
        name, number, pairs = f"{address}_{listen.number}", listen.number, ((service, port),)
        kind: Literal["tcp", "auto"] = "auto" if listen.auto else "tcp"
        sniffed = str(number) if address == ANY_ADDRESS else f"{service.hostname}:{number}"
        written = tuple(route.written for route in egress.routes)
        return Listener(
            name, kind, address, number, sniffed if listen.auto else "", pairs,
            virtual_services=written, source=egress.source, connections=egress.rules, cidrs=cidrs,
            unknown=self.unknown,
        )  # fmt: skip


def listening_endpoints(scope: Scope) -> frozenset[str]:
    """Addresses of endpoints that have a listener of their own, which they leave out themselves."""

    def found() -> frozenset[str]:
        apart = scope.context.rules.pod_listeners
        services = (s for s in scope.all_services if apart and s.resolution == "PASSTHROUGH")
        return frozenset(e.address for s in services for e in scope.context.instances_of(s))

    return scope.memo_of_content.once(found, "listening", of=scope.content)


def _routes_in(value: object) -> Iterator[str]:
    """Names of route configurations that Envoy asks for, in a listener as it is written."""
    if isinstance(value, Mapping):
        if name := value.get("route_config_name") or value.get("routeConfigName"):
            yield str(name)
        value = list(value.values())
    for part in value if isinstance(value, list | tuple) else ():
        yield from _routes_in(part)


def _routing(service: Service, routes: tuple[Route, ...]) -> tuple[Route, ...]:
    """Of the VirtualServices with tcp or tls routes, those that a service's host is one of (getConfigsForHost)."""
    return tuple(route for route in routes if any(matches(host, service.hostname) for host in route.hosts))


def _bind(egress: EgressListener) -> str:
    """The address an egress listener binds to, "" for each service's own."""
    bind = str(egress.spec.get("bind") or "")
    return bind or ("127.0.0.1" if egress.spec.get("captureMode") == "NONE" else "")
