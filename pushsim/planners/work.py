"""The work behind pushes, scopes and responses, by cost driver (names of `cost.DRIVERS`)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from pushsim import planner as ask
from pushsim.blocks import Block
from pushsim.context import PushContext
from pushsim.generators.recipient import gateway_names
from pushsim.hosts import resolve_all
from pushsim.mesh import Endpoint, Object, Service
from pushsim.plan import ProxyState, Response
from pushsim.registry import Registry
from pushsim.releases import Rules
from pushsim.requests import PushRequest
from pushsim.resources import Added, InboundCluster, Listener, NameTable, RouteConfiguration
from pushsim.sizes.closest import split_hosts
from pushsim.visibility import Scope

#: Kinds that are not Istio configuration.
_PLAIN = frozenset({"Namespace", "Node", "Pod", "Service", "EndpointSlice", "Secret"})


def of_push(before: PushContext, context: PushContext, request: PushRequest, rules: Rules) -> ask.Counts:
    """Push and, if it is about more than endpoints, InitContext: the indexes that are made anew."""
    if request.endpoints_only(rules):
        return {"push.batches": 1}
    work = Counter[str]({"push.batches": 1, "push.contexts": 1})
    if context.services is not before.services:
        count = len(context.services.ordered)
        work["push.services"] = int(count * (1 + math.log2(max(count, 1)) / 10))
        work["push.endpoints"] = context.instances.sum(_endpoints)
        if rules.instances_listed:
            work["push.listed"] = sum(map(_listed, context.services.by_namespace.values()))
    if context.routes is not before.routes:
        work["push.virtual_services"] = len(context.routes.routes)
    if context.rule_index is not before.rule_index:
        work["push.destination_rules"] = len(context.rule_index.by_key)
    work["push.configs"] = sum(len(context.policies.get(kind, ())) for kind in request.kinds)
    return dict(work)


def _listed(services: Sequence[Service]) -> int:
    """EndpointSlices looked at to list the instances of a namespace's services: for each port one of each service.

    Source: pilot/pkg/serviceregistry/kube/controller/endpointslice.go (InstancesByPort), push_context.go, until 1.19.
    """
    return len(services) * sum(len(service.ports) for service in services)


class ScopeWork(NamedTuple):
    """What building a scope hangs on, besides how many services there are: the entries of its `hosts` with a wildcard
    and without, and its services; `sidecar` is false for the default scope of a namespace, of which none of it counts.
    """

    sidecar: bool
    wild: int = 0
    exact: int = 0
    services: int = 0

    @classmethod
    def of(cls, scope: Scope) -> ScopeWork:
        """That of a scope."""
        if scope.sidecar is None:
            return cls(sidecar=False)
        hosts = [str(host) for egress in scope.listeners for host in egress.spec.get("hosts") or ()]
        wild = sum(host.endswith("*") for host in hosts)
        return cls(True, wild, len(hosts) - wild, sum(map(len, scope.blocks)))

    def counts(self, services: int, rules: Rules) -> ask.Counts:
        """Building it, with so many services in the mesh."""
        if not self.sidecar:
            return {"scope.derived": services}
        return {
            "scope.sidecars": 1,
            "scope.wildcards": self.wild * services,
            "scope.indexed" if rules.exclusions else "scope.exact": self.exact,
            "scope.services": self.services,
        }


def of_response(response: Response, state: ProxyState, *, first: bool) -> ask.Counts:
    """Generating a response, but for its cached part. first: of a first conversation, in which nothing is watched."""
    work: Counter[str] = Counter()
    match response.xds:
        case "CDS":
            work.update(of_base_clusters(response.blocks[0]))
            if state.mode == "delta" and not first:
                work["cds.walked"] = len(state.watched)
            if response.delta:
                work["cds.parsed"] = len(state.watched)
        case "EDS":
            work["eds.walked"] = len(state.clusters)
        case "LDS":
            if state.proxy.type == "sidecar":
                work["lds.ports"] = len(state.clusters)
            for block in response.blocks:
                work.update(block.memo.once(partial(_of_listeners, block), "work"))
        case "RDS":
            for block in response.blocks:
                work.update(block.memo.once(partial(_of_routes, block), "work"))
            sniffed = sum(
                (block.memo.once(partial(_sniffed, block), "sniffed") for block in response.blocks), Counter()
            )
            if sniffed:
                work["rds.scanned"] = sum(count**2 for count in sniffed.values())
        case "ECDS":
            work["ecds.extensions"] = response.count
        case "NDS":
            work["nds.names"] = sum(len(table.hosts) for table in response.resources if isinstance(table, NameTable))
    return dict(work)


def of_base_clusters(block: Block) -> ask.Counts:
    """Generating a proxy's own clusters; all others are cached."""
    inbound = block.total(_count_inbound, "inbound")
    return {"cds.inbound": inbound, "cds.static": len(block) - inbound}


def _count_inbound(block: Block) -> int:
    return sum(isinstance(cluster, InboundCluster) for cluster in block)


def _of_listeners(block: Block) -> Counter[str]:
    work: Counter[str] = Counter()
    for listener in block:
        if isinstance(listener, Added):
            work["lds.tcp"] += 1
            continue
        assert isinstance(listener, Listener)
        match listener.kind:
            case "http" | "auto":
                work["lds.http"] += 1
            case "virtualInbound" | "inbound":
                work["lds.inbound"] += 1
            case "gateway":
                work["lds.http"] += 1
                work["lds.chains"] += len(listener.servers)
            case _:
                work["lds.tcp"] += 1
    return work


def _of_routes(block: Block) -> Counter[str]:
    work: Counter[str] = Counter()
    for route in block:
        assert isinstance(route, RouteConfiguration)
        work["rds.routes"] += sum(len(written.spec.get("http") or ()) for written in _translated(route))
        if not route.cached:  # of others the cache's view says it
            work["rds.hosts"] += len(route.services)
    return work


def _sniffed(block: Block) -> Counter[str]:
    """How many sniffed routes there are of each port. Each is looked for among the virtual hosts of all of them.

    Source: pilot/pkg/networking/core/httproute.go (getVirtualHostsForSniffedServicePort).
    """
    routes = (route for route in block if isinstance(route, RouteConfiguration))
    return Counter(route.name.rpartition(":")[2] for route in routes if route.sniffed)


def _translated(route: RouteConfiguration) -> Iterator[Object]:
    """The VirtualServices whose routes are translated for a route configuration, before istiod asks its cache.

    A sidecar's are those of hosts that have the port, but for port 80: there it translates all. What is sniffed at a
    port is translated once for all its routes, so each counts its own host's.

    Source: pilot/pkg/networking/core/httproute.go (BuildSidecarOutboundVirtualHosts, selectVirtualServices).
    """
    if route.servers or route.name == "80":
        yield from route.virtual_services
        return
    here = {service.hostname for service, _ in route.services}.union(() if route.sniffed else route.others)
    for written in route.virtual_services:
        matching, _ = split_hosts(resolve_all(written.spec.get("hosts") or (), written.ref.namespace), here, set())
        if matching:
            yield written


def shape_of(state: ProxyState, inbound: int, context: PushContext) -> ask.Shape:
    """What a proxy in this state holds, with so many inbound ports, and the endpoints of a push.

    A sidecar's virtualInbound has, for each inbound port and once for all others, an HTTP connection manager with and
    one without TLS. A gateway has one for each of its route configurations, with TLS for HTTPS servers, and the
    virtual hosts of its VirtualServices.
    """
    scope = state.scope
    held = context.memo.once(lambda: _held(scope, context), "held", of=scope.content)
    sidecar = state.proxy.type == "sidecar"
    listeners = max(2 if sidecar else 0, len(state.listening.by_listener))
    resolved = len(state.clusters)
    routes = len(state.routes)
    managers = sum(1 for names in state.listening.by_listener.values() if names) if sidecar else routes
    return ask.Shape(
        clusters=resolved + held.other + inbound + (3 if sidecar else 1),
        tls_clusters=resolved,
        assignments=min(resolved, held.assignments),
        endpoints=held.endpoints,
        listeners=listeners,
        managers=managers + (2 * (inbound + 1) if sidecar else 0),
        filter_chains=inbound + 1 if sidecar else sum(name.startswith("https.") for name in state.routes),
        virtual_hosts=held.hosts if sidecar else _routed_hosts(state),
        names=resolved + held.other + resolved + listeners + routes,
    )


def _routed_hosts(state: ProxyState) -> int:
    """Hosts of the VirtualServices at a gateway's servers, each in every route configuration that has it."""
    routes, namespace = state.scope.context.routes, state.proxy.namespace

    def counted() -> int:
        count = 0
        for servers in state.gateway.routes.values():
            seen = {id(route): route for name in gateway_names(servers) for route in routes.visible(name, namespace)}
            count += sum(len(route.hosts) for route in seen.values())
        return count

    return routes.memo.once(counted, "hosts", namespace, of=(state.gateway,))


class _Held(NamedTuple):
    """Of services: clusters that are not fed by EDS, load assignments with endpoints, endpoints, virtual hosts."""

    other: int = 0
    assignments: int = 0
    endpoints: int = 0
    hosts: int = 0


def _held(scope: Scope, context: PushContext) -> _Held:
    """What the services of a scope come to."""
    *shared, own = scope.blocks
    return _total([_held_of(own, context), *(_held_of_shared(block, scope, context) for block in shared)])


class _Sum:
    """What blocks of one namespace each come to, of which those are looked up anew whose endpoints have changed."""

    def __init__(self, parts: Sequence[tuple[Service, ...]]) -> None:
        self._parts, self._namespaces = parts, [part[0].namespace for part in parts]
        self._shards: list[object] = [self] * len(parts)  # that is nobody's endpoints
        self._each, self._total = [_Held()] * len(parts), _Held()

    def of(self, scope: Scope, context: PushContext) -> _Held:
        """That with the endpoints of a push."""
        now = list(map(context.endpoints.of, self._namespaces))
        for place, (shards, known) in enumerate(zip(now, self._shards, strict=True)):
            if shards is not known:
                before, after = self._each[place], _held_of_part(self._parts[place], scope, context)
                self._each[place] = after
                self._total = _Held(*(sum - b + a for sum, b, a in zip(self._total, before, after, strict=True)))
        self._shards = list(now)
        return self._total


def _held_of_shared(block: tuple[Service, ...], scope: Scope, context: PushContext) -> _Held:
    parts = scope.family.parts(block)
    if not parts:
        return _held_of_part(block, scope, context)
    return scope.family.of_parts(lambda: _Sum(parts), "held", parts).of(scope, context)


def _held_of_part(block: tuple[Service, ...], scope: Scope, context: PushContext) -> _Held:
    """The same of services of a namespace, looked up anew when endpoints there have changed."""
    shards = context.endpoints.of(block[0].namespace) if block else None
    return scope.family.memo_of(block).once(lambda: _held_of(block, context), "held", of=(shards,))


def _held_of(services: Sequence[Service], context: PushContext) -> _Held:
    other = assignments = endpoints = hosts = 0
    for service in services:
        if service.resolution == "ALIAS":
            continue
        ports = len(service.ports)
        hosts += sum([port.http or port.auto for port in service.ports])
        if service.resolution == "EDS":
            found = len(context.endpoints_of(service))
            assignments += ports if found else 0
            endpoints += found
        else:
            other += ports
            endpoints += len(context.endpoints_of(service)) if service.resolution.startswith("DNS") else 0
    return _Held(other, assignments, endpoints, hosts)


def _total(each: Iterable[_Held]) -> _Held:
    return _Held(*map(sum, zip(*each, strict=True)))


def inventory_of(registry: Registry, scopes: Iterable[Scope]) -> ask.Counts:
    """What an istiod holds, with the scopes that its proxies have."""
    return {
        "memory.services": len(registry.services()),
        "memory.endpoints": registry.endpoints.shards.sum(_addresses),
        "memory.scopes": sum(len(block) for scope in scopes for block in scope.blocks),
        "memory.configs": sum(ref.kind not in _PLAIN for ref in registry.store.objects),
    }


def _addresses(by_shard: Mapping[str, Sequence[Endpoint]]) -> int:
    return len({endpoint.address for endpoints in by_shard.values() for endpoint in endpoints})


def _endpoints(by_shard: Mapping[str, Sequence[Endpoint]]) -> int:
    return sum(map(len, by_shard.values()))
