"""What each xDS type holds for a proxy: resources of CDS, EDS, LDS and RDS (reference `push-semantics` §6, §11.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Any, TypeVar

from pushsim.context import PushContext
from pushsim.conversion import parse_protocol
from pushsim.dependencies import View, attached
from pushsim.mesh import ConfigKey, Endpoint, Object, Port, Service
from pushsim.names import ClusterNames, parse_cluster
from pushsim.resources import (
    Discovery,
    InboundCluster,
    Listener,
    LoadAssignment,
    OutboundCluster,
    Resource,
    RouteConfiguration,
    StaticCluster,
)
from pushsim.rules_index import MergedRule, applying
from pushsim.visibility import Listener as EgressListener

ANY_ADDRESS = "0.0.0.0"
_T = TypeVar("_T")

#: Resources that proxies share as one object, and a response as several of them.
Block = tuple[Resource, ...]
Blocks = tuple[Block, ...]


class Generators:
    """The resources of one proxy (or of all proxies that are equal to it) in one push.

    Args:
        view: the proxy, with the scope it has.
        context: the push; younger than the scope's, where the push rebuilt no scopes.
    """

    def __init__(self, view: View, context: PushContext) -> None:
        self.view, self.scope, self.context = view, view.scope, context
        self.rules = context.rules
        self.labels = dict(view.proxy.labels)

    # ---- CDS

    def clusters(self) -> Blocks:
        """Every cluster: the base ones, then those of all services, in the scope's blocks."""
        if self._filtered:
            return (self.base_clusters(), tuple(c for s in self.services() for c in self.clusters_of(s)))
        *shared, own = self.scope.blocks
        kind = (self.view.proxy.type == "router", self.view.gateway.passthrough)
        told = self._told if self.context.rule_index.selective else ()
        memo, mine = self.scope.family.memo, self.scope.memo
        return (
            self.base_clusters(),
            *(_once(memo, ("CDS", id(b), *kind), partial(self._clusters_of_block, b)) for b in shared),
            _once(mine, ("CDS", *kind, told), lambda: self._clusters_of_block(own)),
        )

    @property
    def _told(self) -> tuple[tuple[str, str], ...]:
        return tuple(sorted(self.labels.items()))

    def _clusters_of_block(self, block: tuple[Service, ...]) -> Block:
        return tuple(cluster for service in block for cluster in self.clusters_of(service))

    def services(self) -> Iterator[Service]:
        """Services that get clusters: the scope's, or with FILTER the ones a route of the gateway names."""
        for service in self.scope.all_services:
            if self.has_clusters(service):
                yield service

    @property
    def _filtered(self) -> bool:
        return self.view.proxy.type == "router" and self.context.filter_gateways

    def has_clusters(self, service: Service) -> bool:
        """With FILTER on, a router has clusters only of services its routes name."""
        return not self._filtered or attached(self.view, service.key)

    def base_clusters(self) -> Block:
        """Clusters that every CDS response holds."""
        if self.view.proxy.type != "sidecar":
            return (StaticCluster("BlackHoleCluster"),)
        static = ("BlackHoleCluster", "PassthroughCluster", self.rules.inbound_passthrough)
        return (*(StaticCluster(name) for name in static), *self.inbound_clusters())

    def inbound_clusters(self) -> list[InboundCluster]:
        """One per target port of the proxy's services, or per ingress listener of its Sidecar."""
        ports: dict[int, list[tuple[Service, Port]]] = {}
        ingress = self.ingress
        for target in self.view.targets:
            if target.port.protocol == "UDP":
                continue
            ports.setdefault(target.target_port, []).append((target.service, target.port))
        if ingress:
            ports = {int(i["port"]["number"]): ports.get(int(i["port"]["number"]), []) for i in ingress}
        return [InboundCluster(f"inbound|{port}||", port, tuple(of)) for port, of in ports.items()]

    @property
    def ingress(self) -> list[dict[str, dict[str, int]]]:
        """The ingress listeners of the proxy's Sidecar."""
        sidecar = self.scope.sidecar
        return list(sidecar.spec.get("ingress") or ()) if sidecar else []

    def rule_for(self, service: Service) -> MergedRule | None:
        """The DestinationRule this proxy uses for a service."""
        return applying(self.scope.rules_for(service), self.labels)

    def discovery(self, service: Service) -> Discovery | None:
        """How Envoy finds the hosts of a service's clusters; None if it has no cluster (an alias)."""
        match service.resolution:
            case "EDS":
                return "EDS"
            case "DNS":
                return "STRICT_DNS"
            case "DNS_ROUND_ROBIN":
                return "LOGICAL_DNS"
            case "PASSTHROUGH":
                return "EDS" if self.view.proxy.type == "router" else "ORIGINAL_DST"
        return None

    def clusters_of(self, service: Service) -> Iterator[OutboundCluster]:
        """The clusters of one service: each port, and each subset of the DestinationRule that applies."""
        discovery = self.discovery(service)
        if discovery is None:
            return
        rule = self.rule_for(service)
        sources = rule.sources if rule else ()
        accounts = self.accounts(service)
        subsets = ("", *(name for name, _ in rule.subsets())) if rule else ("",)
        inline = discovery in ("STRICT_DNS", "LOGICAL_DNS")
        instances = self.scope.context.instances_of(service) if inline else ()
        directions = ["outbound"]
        if self.view.gateway.passthrough:
            directions.append("outbound_")
        for port in service.ports:
            if port.protocol == "UDP":
                continue
            for subset in subsets:
                endpoints = self.endpoints(instances, port, subset, rule) if inline else ()
                if inline and not endpoints:
                    continue
                for direction in directions:
                    name = f"{direction}|{port.number}|{subset}|{service.hostname}"
                    if direction == "outbound_":
                        name = f"outbound_.{port.number}_.{subset}_.{service.hostname}"
                    yield OutboundCluster(name, service, port, subset, discovery, sources, accounts, endpoints)

    def accounts(self, service: Service) -> tuple[str, ...]:
        """SPIFFE identities of a service's endpoints and those named on it, sorted."""
        known = self.scope.context.accounts.get((service.hostname, service.namespace), frozenset())
        return tuple(sorted({*known, *service.accounts}))

    @staticmethod
    def endpoints(
        known: tuple[Endpoint, ...], port: Port, subset: str, rule: MergedRule | None
    ) -> tuple[Endpoint, ...]:
        """Those endpoints of a service that are of a port, and of a subset if one is named."""
        labels = {}
        if subset and rule:
            labels = dict(dict(rule.subsets()).get(subset, {}).get("labels") or {})
        return tuple(
            e for e in known if e.port_name == port.name and all(dict(e.labels).get(k) == v for k, v in labels.items())
        )

    # ---- EDS

    def assignments(self, names: ClusterNames | frozenset[str]) -> Blocks:
        """The ClusterLoadAssignments of watched clusters; where those are all clusters there are, in their blocks."""
        if not isinstance(names, ClusterNames):
            return (tuple(self.assignment(name) for name in sorted(names)),)
        told = self._told if self.context.rule_index.selective else ()
        key = ("EDS", id(names), self.context.number, told, self.view.proxy.type)
        return _once(self.scope.memo, key, lambda: self._all_assignments(names), names)

    def _all_assignments(self, names: ClusterNames) -> Blocks:
        memo, number = self.scope.family.memo, self.context.number
        clusters = self.clusters()[1:]
        listed = [_once(memo, ("EDS names", id(b)), partial(eds_names, [b]), b) for b in clusters]
        if not self._filtered and len(names) == sum(map(len, listed)) and all(part <= names.names for part in listed):
            return tuple(
                _once(memo, ("EDS", id(part), number), partial(self._assignments, part), part) for part in listed
            )
        return (self._assignments(names.names),)

    def _assignments(self, names: frozenset[str]) -> Block:
        return tuple(self.assignment(name) for name in sorted(names))

    def assignment(self, name: str) -> LoadAssignment:
        """The ClusterLoadAssignment of a watched cluster; empty if nothing is known of it any more."""
        cluster = parse_cluster(name)
        service = self.scope.service(cluster.host) if cluster else None
        if cluster is None or service is None:
            return LoadAssignment(name, None, None, "")
        port = next((p for p in service.ports if p.number == cluster.port), None)
        if port is None:
            return LoadAssignment(name, service, None, cluster.subset)
        rule = self.rule_for(service)
        endpoints = self.endpoints(self.context.endpoints_of(service), port, cluster.subset, rule)
        healthy = tuple(e for e in endpoints if e.healthy)
        return LoadAssignment(name, service, port, cluster.subset, rule.sources if rule else (), healthy)

    # ---- LDS

    def listeners(self) -> Blocks:
        """Every listener: a sidecar's two virtual ones, then the outbound ones."""
        if self.view.proxy.type != "sidecar":
            return (tuple(self._gateway_listeners()),)
        return (self._virtual_listeners(), self._outbound())

    def _virtual_listeners(self) -> Block:
        return _once(self.scope.memo, ("virtual", self.view.targets), self._make_virtual_listeners)

    def _make_virtual_listeners(self) -> Block:
        return (
            Listener("virtualOutbound", "virtualOutbound", ANY_ADDRESS, 15001),
            Listener(
                "virtualInbound",
                "virtualInbound",
                ANY_ADDRESS,
                15006,
                services=tuple((t.service, t.port) for t in self.view.targets),
                target_ports=tuple(t.target_port for t in self.view.targets),
            ),
        )

    def _outbound(self) -> Block:
        """Outbound listeners; shared by all proxies of the scope unless one per endpoint leaves out the proxy's own."""
        own = self.view.proxy.ip if self.view.proxy.ip in self._listening_endpoints else ""
        return _once(self.scope.memo, ("LDS", own), lambda: tuple(self._sidecar_listeners()))

    @property
    def _listening_endpoints(self) -> frozenset[str]:
        """Addresses of endpoints that have a listener of their own."""

        def found() -> frozenset[str]:
            services = (s for s in self.scope.blocks[-1] if s.resolution == "PASSTHROUGH")  # shared ones have none
            return frozenset(e.address for s in services for e in self.scope.context.instances_of(s))

        return _once(self.scope.memo, "listening", found)

    def _gateway_listeners(self) -> Iterator[Listener]:
        found: dict[str, Listener] = {}
        for port in self.view.gateway.ports:
            routes = self._gateway_tcp_routes(port.servers)
            if (
                parse_protocol(port.protocol) != "HTTPS"
                and not port.route
                and not routes
                and not any(_terminates(s) for s in port.servers)
            ):
                continue  # a TCP or TLS port without a route has no filter chain, so no listener
            earlier = found.get(port.name)
            servers = (*(earlier.servers if earlier else ()), *port.servers)
            found[port.name] = Listener(
                port.name,
                "gateway",
                port.bind or ANY_ADDRESS,
                port.port,
                port.route,
                servers=servers,
                virtual_services=routes,
            )
        yield from found.values()

    def _gateway_tcp_routes(self, servers: Iterable[tuple[Object, int]]) -> tuple[Object, ...]:
        names = {f"{gateway.ref.namespace}/{gateway.ref.name}" for gateway, _ in servers}
        return tuple(
            route.written
            for name in sorted(names)
            for route in self.context.routes.visible(name, self.view.proxy.namespace)
            if route.written.spec.get("tcp") or route.written.spec.get("tls")
        )

    def _sidecar_listeners(self) -> Iterator[Listener]:
        found: dict[tuple[str, int], Listener] = {}
        if len(self.scope.listeners) == 1 and not self.scope.listeners[0].spec.get("port"):
            *shared, own = self.scope.blocks
            pulled = self.scope.pulled_only
            parts = [_once(self.scope.family.memo, ("LDS", id(b)), partial(self._listeners_of, b, "")) for b in shared]
            bind = _bind(self.scope.listeners[0])
            if bind:
                parts = [self._listeners_of(b, bind) for b in shared]
            parts.append(self._listeners_of(tuple(s for s in own if s.hostname not in pulled), bind))
            for part in parts:
                for key, listener in part.items():
                    found[key] = _joined(found.get(key), listener)
            yield from found.values()
            return
        locked: set[tuple[str, int]] = set()
        for egress in self.scope.listeners:
            fixed = egress.spec.get("port") or None
            bind = _bind(egress)
            mine: set[tuple[str, int]] = set()
            for service in self._egress_services(egress):
                for port in service.ports:
                    listen = port
                    if fixed:
                        listen = Port(
                            str(fixed.get("name") or ""),
                            int(fixed["number"]),
                            parse_protocol(str(fixed.get("protocol") or "")),
                        )
                    for listener in self._outbound_listeners(service, port, listen, bind):
                        key = (listener.bind, listener.port)
                        if key in locked:
                            continue
                        found[key] = _joined(found.get(key), listener)
                        mine.add(key)
                    if fixed:
                        break
            if fixed:
                locked |= mine
        yield from found.values()

    def _listeners_of(self, block: Iterable[Service], bind: str) -> dict[tuple[str, int], Listener]:
        found: dict[tuple[str, int], list[Listener]] = {}
        for service in block:
            for port in service.ports:
                for listener in self._outbound_listeners(service, port, port, bind):
                    found.setdefault((listener.bind, listener.port), []).append(listener)
        return {key: _join(listeners) for key, listeners in found.items()}

    def _egress_services(self, egress: EgressListener) -> Iterator[Service]:
        for host in egress.hosts():
            yield from egress.services(host)

    def _outbound_listeners(self, service: Service, port: Port, listen: Port, bind: str) -> Iterator[Listener]:
        if service.resolution == "ALIAS" or listen.protocol == "UDP":
            return
        if listen.http:
            yield Listener(
                f"{bind or ANY_ADDRESS}_{listen.number}",
                "http",
                bind or ANY_ADDRESS,
                listen.number,
                str(listen.number),
                ((service, port),),
            )
            return
        address = bind or service.addresses[0]
        if service.resolution == "PASSTHROUGH" and address == ANY_ADDRESS and not bind:
            instances = [e for e in self.context.instances_of(service) if e.port_name == port.name]
            if instances or service.registry == "Kubernetes" or service.selector:
                own = self.view.proxy.ip
                for endpoint_address in dict.fromkeys(e.address for e in instances):
                    if endpoint_address != own:
                        yield self._tcp(service, port, listen, endpoint_address)
                return
        if "/" in address:
            address = ANY_ADDRESS
        yield self._tcp(service, port, listen, address)

    def _tcp(self, service: Service, port: Port, listen: Port, address: str) -> Listener:
        route = ""
        if listen.auto:
            route = str(listen.number) if address == ANY_ADDRESS else f"{service.hostname}:{listen.number}"
        return Listener(
            f"{address}_{listen.number}",
            "auto" if listen.auto else "tcp",
            address,
            listen.number,
            route,
            ((service, port),),
        )

    # ---- RDS

    def route(self, name: str) -> RouteConfiguration:
        """One route configuration of a watched name; a sidecar's is shared by all proxies of its scope."""
        if self.view.proxy.type != "sidecar":
            return self._route(name)
        return _once(self.scope.memo, ("RDS", name), lambda: self._route(name))

    def _route(self, name: str) -> RouteConfiguration:
        if self.view.proxy.type != "sidecar":
            servers = self.view.gateway.routes.get(name, ())
            names = sorted({f"{gateway.ref.namespace}/{gateway.ref.name}" for gateway, _ in servers})
            visible = [r.written for n in names for r in self.context.routes.visible(n, self.view.proxy.namespace)]
            return RouteConfiguration(name, (), tuple(dict.fromkeys(visible)), servers, bool(servers))
        number = name.rpartition(":")[2]
        owners = list(self._route_listeners(int(number) if number.isdigit() else 0))
        routes = dict.fromkeys(r.written for egress in owners for r in egress.routes)
        if len(self.scope.listeners) == 1:
            *shared, own = self.scope.blocks
            pulled, memo = self.scope.pulled_only, self.scope.family.memo
            parts = [_once(memo, ("RDS", id(b)), partial(_routed, b)) for b in shared]
            parts.append(_once(self.scope.memo, "RDS", lambda: _routed(s for s in own if s.hostname not in pulled)))
        else:
            parts = [_routed(s for egress in owners for s in self._egress_services(egress))]
        found = [part.get(name, ()) for part in parts if name in part]
        services = found[0] if len(found) == 1 else tuple(chain.from_iterable(found))
        return RouteConfiguration(name, services, tuple(routes), (), bool(services))

    def _route_listeners(self, number: int) -> Iterator[EgressListener]:
        """The egress listener that owns a port, else the one without a port."""
        for egress in self.scope.listeners:
            if int((egress.spec.get("port") or {}).get("number") or 0) == number:
                yield egress
                return
        yield from (egress for egress in self.scope.listeners if not egress.spec.get("port"))


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
    return Listener(first.name, kind, first.bind, first.port, route, services)


def _routed(services: Iterable[Service]) -> dict[str, tuple[tuple[Service, Port], ...]]:
    """By RDS name, the service ports with a virtual host there: HTTP ones by number, sniffed ones also by host."""
    found: dict[str, list[tuple[Service, Port]]] = {}
    for service in services:
        for port in service.ports:
            if port.http:
                found.setdefault(str(port.number), []).append((service, port))
            if port.http or port.auto:
                found.setdefault(f"{service.hostname}:{port.number}", []).append((service, port))
    return {name: tuple(pairs) for name, pairs in found.items()}


def _bind(egress: EgressListener) -> str:
    """The address an egress listener binds to, "" for each service's own."""
    bind = str(egress.spec.get("bind") or "")
    return bind or ("127.0.0.1" if egress.spec.get("captureMode") == "NONE" else "")


def _once(memo: dict[Any, Any], key: Any, make: Callable[[], _T], *kept: object) -> _T:
    """The value made for a key, made once; `kept` are objects whose ids are in the key, kept alive with it."""
    if key not in memo:
        memo[key] = (make(), kept)
    value: _T = memo[key][0]
    return value


def _terminates(server: tuple[Object, int]) -> bool:
    gateway, index = server
    tls = gateway.spec["servers"][index].get("tls") or {}
    return bool(tls) and tls.get("mode") not in ("PASSTHROUGH", "AUTO_PASSTHROUGH")


def eds_names(clusters: Iterable[Block]) -> frozenset[str]:
    """Names of the EDS clusters among them."""
    found = (c for block in clusters for c in block if isinstance(c, OutboundCluster))
    return frozenset(c.name for c in found if c.discovery == "EDS")


def routes_of_listeners(listeners: Iterable[Resource], generators: Generators) -> frozenset[str]:
    """RDS names that listeners refer to; a TLS port of a gateway has one per HTTPS server."""
    found: set[str] = set()
    for listener in listeners:
        assert isinstance(listener, Listener)
        if listener.route:
            found.add(listener.route)
        elif listener.kind == "gateway":
            shown = set(listener.servers)
            routes = generators.view.gateway.routes
            found |= {name for name, servers in routes.items() if name and shown & set(servers)}
    return frozenset(found)


def key_names(keys: Iterable[ConfigKey], *kinds: str) -> frozenset[str]:
    """Names of the keys of these kinds."""
    return frozenset(key.name for key in keys if key.kind in kinds)
