"""One push for one proxy: (proxy state, merged request, push) to (responses, new state, why).

The order is istiod's pushConnection: bring the proxy's state up to date, decide, then each watched type: CDS, EDS,
LDS, RDS. Then the proxy changes its subscriptions as Envoy does, and istiod answers. Everything here is a value;
`Istiod` holds the one thing that moves, the registry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from pushsim.context import PushContext, build_context
from pushsim.dependencies import Decision, View, attached, decide
from pushsim.gateways import MergedGateway, merge_gateways
from pushsim.generators import Blocks, Generators, eds_names, key_names, routes_of_listeners
from pushsim.hosts import resolve, subset_of
from pushsim.mesh import Change, ConfigKey, Mesh, Mode, Object, Proxy, Service, Xds
from pushsim.names import NO_NAMES, ClusterNames, parse_cluster
from pushsim.registry import Registry, Target
from pushsim.releases import Rules
from pushsim.requests import HEADLESS_ENDPOINT_UPDATE, PROXY_UPDATE, SERVICE_UPDATE, PushRequest
from pushsim.resources import Resource
from pushsim.visibility import Scope, Scopes


@dataclass(frozen=True, slots=True)
class Response:
    """One xDS response.

    blocks:    what it holds, in blocks that proxies share.
    removed:   names delta takes back.
    solicited: the proxy asked for it just before.
    """

    xds: Xds
    blocks: Blocks
    removed: tuple[str, ...] = ()
    solicited: bool = False

    @property
    def resources(self) -> Iterator[Resource]:
        """The resources it holds."""
        return chain.from_iterable(self.blocks)

    @property
    def count(self) -> int:
        """How many resources it holds."""
        return sum(map(len, self.blocks))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the resources, sorted."""
        return tuple(sorted(resource.name for resource in self.resources))


@dataclass(frozen=True, slots=True, eq=False)
class Push:
    """A push as every proxy meets it: the context and its scopes."""

    context: PushContext
    scopes: Scopes
    registry: Registry


@dataclass(frozen=True, slots=True)
class ProxyState:
    """What istiod and a proxy remember of each other between pushes.

    labels:    workload labels, as of connect or the last ProxyUpdate.
    watched:   for delta, the outbound clusters that removals are computed from;
    base:      likewise the other clusters; served: likewise the listeners.
    clusters:  EDS names the proxy subscribes to: those of the EDS clusters it has.
    routes:    RDS name by listener, of the listeners it has ("" where a listener has several or none).
    previous_gateway: the merged gateway before the last one.
    """

    proxy: Proxy
    mode: Mode
    labels: Mapping[str, str]
    scope: Scope
    previous: Scope | None
    targets: tuple[Target, ...]
    gateway: MergedGateway
    previous_gateway: MergedGateway
    watched: ClusterNames = NO_NAMES
    base: frozenset[str] = frozenset()
    served: frozenset[str] = frozenset()
    clusters: ClusterNames = NO_NAMES
    routes: frozenset[str] = frozenset()
    listeners: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @property
    def view(self) -> View:
        """What decisions and generators read of it."""
        proxy = replace(self.proxy, labels=self.labels)
        return View(proxy, self.scope, self.previous, self.targets, self.gateway)


@dataclass(frozen=True, slots=True)
class Plan:
    """The outcome of one push for one proxy."""

    state: ProxyState
    decision: Decision
    responses: tuple[Response, ...] = ()


class Istiod:
    """The configuration side of one istiod: its registry, and the pushes made of it so far.

    Args:
        mesh: what there is when it starts, with its mesh config and environment.
        rules: the release.
        mode: the xDS mode of its proxies; None for the release's own.
    """

    def __init__(self, mesh: Mesh, rules: Rules, mode: Mode | None = None) -> None:
        self.rules, self.mode, self._env = rules, mode or rules.agent_mode, mesh.env
        self.registry = Registry(mesh, rules)
        context = build_context(self.registry, self._env, None, PushRequest(forced=True))
        self.latest = Push(context, Scopes(context), self.registry)

    def fork(self) -> Istiod:
        """An independent copy, for trying something."""
        copy = object.__new__(Istiod)
        copy.__dict__.update(self.__dict__)
        copy.registry = self.registry.fork()
        copy.latest = replace(self.latest, registry=copy.registry)
        return copy

    def handle(self, change: Change, *, services_first: bool = False) -> tuple[PushRequest, ...]:
        """What the handlers ask to be pushed for a change (before the debounce)."""
        return self.registry.handle(change, services_first=services_first)

    def merge(self, requests: Iterable[PushRequest]) -> PushRequest | None:
        """The requests of one debounce window as one; ProxyUpdates, which bypass it, left out."""
        merged: PushRequest | None = None
        for request in requests:
            if not request.proxy:
                merged = request if merged is None else merged.merge(request, self.rules)
        return merged

    def push(self, request: PushRequest) -> Push:
        """Build the PushContext of a merged request."""
        before = self.latest
        context = build_context(self.registry, self._env, before.context, request)
        scopes = before.scopes if context.scopes_at == before.context.scopes_at else Scopes(context)
        self.latest = Push(context, scopes, self.registry)
        return self.latest

    def connect(self, proxy: Proxy, push: Push | None = None) -> Plan:
        """A proxy's first conversation: all of everything, as of a push (the latest)."""
        push = push or self.latest
        labels = self.registry.labels_of(proxy)
        targets = self.registry.targets(proxy)
        gateway = merge_gateways(push.context, targets, labels) if proxy.type == "router" else MergedGateway()
        state = ProxyState(
            proxy, self.mode, labels, push.scopes.of(proxy, labels), None, targets, gateway, MergedGateway()
        )
        generators = Generators(state.view, push.context)
        responses = [Response("CDS", generators.clusters(), solicited=True)]
        state = replace(state, clusters=_eds_names(responses[0].blocks, push.scopes.memo))
        if len(state.clusters):
            responses.append(_endpoints(generators, state.clusters, solicited=True))
        listeners = Response("LDS", generators.listeners(), solicited=True)
        responses.append(listeners)
        state = replace(state, listeners=_listener_routes(listeners.resources, generators))
        state = replace(state, routes=frozenset().union(*state.listeners.values()))
        if state.routes:
            responses.append(_routes(generators, state.routes, solicited=True))
        if self.rules.delta_watched != "last-push":
            state = replace(
                state,
                watched=_outbound_names(responses[0].blocks, push.scopes.memo),
                base=frozenset(cluster.name for cluster in responses[0].blocks[0]),
                served=frozenset(listeners.names),
            )
        everything = PushRequest(forced=True)
        return Plan(state, Decision(True, everything, ("it connects",)), tuple(responses))


def plan(state: ProxyState, request: PushRequest, push: Push) -> Plan:
    """One push of a merged request for one proxy."""
    state = refresh(state, request, push)
    decision = decide(state.view, request)
    if not decision.needed:
        return Plan(state, decision)
    return _Pushing(state, decision.request, push).run(decision)


def refresh(state: ProxyState, request: PushRequest, push: Push) -> ProxyState:
    """istiod's computeProxyState, on the request as merged (reference §2.5)."""
    rules, registry, proxy = push.context.rules, push.registry, state.proxy
    if request.endpoints_only(rules):
        return state
    everything = request.everything(rules)
    kinds = {key.kind for key in request.keys}
    if PROXY_UPDATE in request.reasons and rules.pod_labels != "none":
        state = replace(state, labels=registry.labels_of(proxy))
    retarget = everything or _targets_change(request, proxy, rules)
    if retarget:
        state = replace(state, targets=registry.targets(proxy))
    if everything or kinds & rules.scope_triggers:
        scope = push.scopes.of(proxy, state.labels)
        state = replace(state, scope=scope, previous=state.scope)
    remerge = everything or "Gateway" in kinds or (retarget and rules.targets != "full")
    if proxy.type == "router" and remerge:
        gateway = merge_gateways(push.context, state.targets, state.labels)
        state = replace(state, gateway=gateway, previous_gateway=state.gateway)
    return state


def _targets_change(request: PushRequest, proxy: Proxy, rules: Rules) -> bool:
    service = any(key.kind == "ServiceEntry" for key in request.keys)
    match rules.targets:
        case "full":
            return True
        case "service":
            return service
        case "service-or-own":
            return service or any(key.namespace == proxy.namespace for key in request.keys)
    return any(key.kind == "ServiceEntry" and key.namespace == proxy.namespace for key in request.keys)


class _Pushing:
    """The generators of one push to one proxy, and what it does to its subscriptions."""

    def __init__(self, state: ProxyState, request: PushRequest, push: Push) -> None:
        self.state, self.request, self.push = state, request, push
        self.context, self.rules = push.context, push.context.rules
        self.generators = Generators(state.view, push.context)
        self.kinds = {key.kind for key in request.keys}
        self.router = state.proxy.type != "sidecar"
        self.full = request.full or not self.rules.has_full
        self.everything = request.everything(self.rules)
        self.delta = state.mode == "delta"

    def run(self, decision: Decision) -> Plan:
        """Each type in order, then the changed subscriptions."""
        state = self.state
        responses: list[Response] = []
        clusters, listeners = self._clusters(), None
        if clusters is not None:
            responses.append(clusters)
        if len(state.clusters) and (endpoints := self._endpoints()) is not None:
            responses.append(endpoints)
        if self._lds_runs():
            listeners = self._listeners()
            responses.append(listeners)
        if state.routes and self._rds_runs():
            responses.append(_routes(self.generators, state.routes))
        if self.delta:
            state = self._watch(state, clusters, listeners)
        state, answers = self._resubscribe(state, clusters, listeners)
        return Plan(state, decision, (*responses, *answers))

    # ---- which types run

    def _runs(self, skip: frozenset[str], *, needs_full: bool = True) -> bool:
        if needs_full and not self.full:
            return False
        return self.everything or bool(self.kinds - skip)

    def _headless_only(self) -> bool:
        if not self.rules.headless_trim or self.kinds != {"ServiceEntry"}:
            return False
        return HEADLESS_ENDPOINT_UPDATE in self.request.reasons and SERVICE_UPDATE not in self.request.reasons

    def _cds_runs(self) -> bool:
        rules = self.rules
        if not self.full or (not self.everything and self._headless_only()):
            return False
        if self.everything:
            return True
        kinds = set(self.kinds - rules.cds_skip)
        if self.router:
            filtered = self.context.filter_gateways
            if not filtered and not rules.cds_router_virtual_service:
                kinds.discard("VirtualService")
            if "Gateway" in self.kinds:
                before, now = self.state.previous_gateway, self.state.gateway
                changed = (before.passthrough, before.sni) != (now.passthrough, now.sni)
                rule = rules.cds_router_gateway
                if filtered or rule == "always" or (rule == "passthrough" and changed):
                    kinds.add("Gateway")
        return bool(kinds)

    def _lds_runs(self) -> bool:
        rules = self.rules
        skip = rules.lds_router_skip if self.router else rules.lds_sidecar_skip
        if not self.everything:
            if self.router and self._headless_only():
                return False
            if rules.lds_peer_authentication_own:
                own = (self.state.proxy.namespace, self.context.root)
                keys = [k for k in self.request.keys if k.kind != "PeerAuthentication" or k.namespace in own]
                return self.full and bool({k.kind for k in keys} - skip)
        return self._runs(skip)

    def _rds_runs(self) -> bool:
        skip = self.rules.rds_skip
        if self.rules.rds_gateway_router_only and not self.router:
            skip = skip | {"Gateway"}
        if self.rules.headless_trim_rds and not self.everything and self._headless_only():
            return False
        return self._runs(skip)

    # ---- CDS

    def _clusters(self) -> Response | None:
        if not self._cds_runs():
            return None
        if self.delta and self._cds_is_delta():
            return self._delta_clusters()
        clusters = self.generators.clusters()
        removed: frozenset[str] = frozenset()
        if self.delta:
            removed = self.state.watched.names - _outbound_names(clusters, self.push.scopes.memo).names
            removed |= self.state.base - {cluster.name for cluster in clusters[0]}
        return Response("CDS", clusters, tuple(sorted(removed)))

    def _cds_keys(self) -> frozenset[ConfigKey]:
        """The keys that delta CDS judges and works on."""
        rules = self.rules
        if not rules.cds_narrowed:
            return self.request.keys
        dropped = set(rules.cds_skip)
        if self.router:
            filtered = self.context.filter_gateways
            if not filtered and not rules.cds_router_virtual_service:
                dropped.add("VirtualService")
            if filtered or rules.cds_router_gateway == "always":
                dropped.discard("Gateway")
        return frozenset(key for key in self.request.keys if key.kind not in dropped)

    def _cds_is_delta(self) -> bool:
        if self.everything:
            return False
        if self.router and self.context.filter_gateways and self.rules.delta_filter == "full":
            return False
        root = self.context.root
        return all(
            key.kind in self.rules.delta_cds_kinds and not (key.kind == "PeerAuthentication" and key.namespace == root)
            for key in self._cds_keys()
        )

    def _delta_clusters(self) -> Response:
        by_host = self.state.watched.by_host
        services: dict[str, Service] = {}
        removed: set[str] = set()
        for key in sorted(self._cds_keys()):
            found, gone = self._delta_of_key(key, by_host)
            services |= {service.hostname: service for service in found}
            removed |= gone
        scoped = [s for s in services.values() if self.rules.delta_filter == "unfiltered" or self._attached(s)]
        base = self.generators.base_clusters()
        built = tuple(c for service in scoped for c in self.generators.clusters_of(service))
        if self.rules.delta_removes_inbound:
            removed |= {name for name in self.state.base if name.startswith("inbound|")}
        removed -= {cluster.name for cluster in (*base, *built)}
        return Response("CDS", (base, built), tuple(sorted(removed)))

    def _attached(self, service: Service) -> bool:
        return self.generators.has_clusters(service)

    def _delta_of_key(self, key: ConfigKey, by_host: Mapping[str, frozenset[str]]) -> tuple[list[Service], set[str]]:
        scope = self.state.scope
        match key.kind:
            case "ServiceEntry":
                service = scope.service(key.name)
                if service is None:
                    return [], set(by_host.get(key.name, ()))
                if self.rules.delta_filter == "filtered" and not self._attached(service):
                    return [], set()
                return [service], _gone_ports(service, by_host.get(key.name, frozenset()))
            case "DestinationRule":
                found = self._services_of_rule(key)
                subsets = {n for s in found for n in by_host.get(s.hostname, ()) if _has_subset(n)}
                return found, subsets
            case "PeerAuthentication":
                return [s for s in scope.all_services if s.namespace == key.namespace], set()
            case "VirtualService" | "Sidecar" | "Gateway":
                return self._scope_difference(by_host)
        return [], set()

    def _services_of_rule(self, key: ConfigKey) -> list[Service]:
        current = _used_rule(self.state.scope, key)
        before = _used_rule(self.state.previous, key) if self.state.previous else None
        patterns = [
            resolve(str(rule.spec.get("host")), rule.ref.namespace) for rule in (current, before) if rule is not None
        ]
        hosts = [h for p in dict.fromkeys(patterns) for h in _hosts_matching(self.state.scope, p)]
        return [s for h in dict.fromkeys(hosts) if (s := self.state.scope.service(h)) is not None]

    def _scope_difference(self, by_host: Mapping[str, frozenset[str]]) -> tuple[list[Service], set[str]]:
        if self.state.previous is None:
            return [], set()
        current = {service.hostname: service for service in self.generators.services()}
        added = [service for host, service in current.items() if host not in by_host]
        gone = {name for host, names in by_host.items() if host not in current for name in names}
        return added, gone

    # ---- EDS

    def _endpoints(self) -> Response | None:
        names, delta = self._eds_names()
        if names is None:
            return None
        removed: list[str] = []
        if delta and self.delta and self.rules.eds_removes:
            removed = [name for name in names if self._service_of(name) is None]
        sent = names if not removed else frozenset(names) - frozenset(removed)
        if not len(sent) and not removed and not self.rules.eds_empty_sent:
            return None
        return replace(_endpoints(self.generators, sent), removed=tuple(sorted(removed)))

    def _service_of(self, name: str) -> Service | None:
        cluster = parse_cluster(name)
        return self.state.scope.service(cluster.host) if cluster else None

    def _eds_names(self) -> tuple[Names | None, bool]:
        """The watched clusters to send (None: EDS does not run), and whether that is a delta."""
        rules, state = self.rules, self.state
        if not self._runs(rules.eds_skip, needs_full=False):
            return None, False
        keys = self.request.keys
        if rules.eds_partial == "aware":
            return self._aware_names(keys)
        hosts = key_names(keys, "ServiceEntry")
        named = state.clusters.of(hosts)
        if not self.full:
            return named, False
        judged = self.kinds - rules.eds_skip if rules.eds_partial == "unskipped" else self.kinds
        partial = not self.everything and judged <= {"ServiceEntry"}
        if rules.eds_partial == "none" and not self.delta:
            partial = False
        return (named, True) if partial else (state.clusters, False)

    def _aware_names(self, keys: frozenset[ConfigKey]) -> tuple[Names, bool]:
        root, kinds = self.context.root, {"ServiceEntry", "DestinationRule", "PeerAuthentication", "Endpoints"}
        if not self.rules.scope_endpoints_key:
            kinds.discard("Endpoints")
        aware = all(k.kind in kinds and not (k.kind == "PeerAuthentication" and k.namespace == root) for k in keys)
        if self.everything or not aware:
            return self.state.clusters, False
        hosts = key_names(keys, "ServiceEntry", "Endpoints")
        rules = {key for key in keys if key.kind == "DestinationRule"}
        namespaces = {key.namespace for key in keys if key.kind == "PeerAuthentication"}
        found = set(self.state.clusters.of(hosts))
        for host, names in self.state.clusters.by_host.items() if rules or namespaces else ():
            service = self.state.scope.service(host)
            if service is None or service.namespace in namespaces or self._uses_rule(host, rules):
                found |= names
        return frozenset(found), True

    def _uses_rule(self, host: str, keys: set[ConfigKey]) -> bool:
        scopes = [scope for scope in (self.state.scope, self.state.previous) if scope is not None]
        return any(keys & set(rule.keys) for scope in scopes for rule in scope.rules_on(host))

    # ---- LDS

    def _listeners(self) -> Response:
        response = Response("LDS", self.generators.listeners())
        if not self.delta:
            return response
        removed = self.state.served - frozenset(response.names)
        return replace(response, removed=tuple(sorted(removed)))

    # ---- what both sides remember

    def _watch(self, state: ProxyState, clusters: Response | None, listeners: Response | None) -> ProxyState:
        """What later removals are computed from, after these responses."""
        union = self.rules.delta_watched == "union"
        if clusters is not None:
            base, sent = frozenset(c.name for c in clusters.blocks[0]), _outbound_names(clusters.blocks, self._memo)
            if union:
                gone = frozenset(clusters.removed)
                sent = sent if state.watched is sent else state.watched.plus(sent.names, gone)
                base = (state.base | base) - gone
            state = replace(state, watched=sent, base=base)
        if listeners is not None:
            served = frozenset(listeners.names)
            if union:
                served = (state.served | served) - frozenset(listeners.removed)
            state = replace(state, served=served)
        return state

    @property
    def _memo(self) -> dict[Any, Any]:
        return self.push.scopes.memo

    def _resubscribe(
        self, state: ProxyState, clusters: Response | None, listeners: Response | None
    ) -> tuple[ProxyState, list[Response]]:
        """The proxy asks for endpoints of new clusters and routes of new listeners; istiod answers."""
        answers: list[Response] = []
        if clusters is not None:
            subscribed = _eds_names(clusters.blocks, self._memo)
            if self.delta and subscribed is not state.clusters:
                other = _outbound_names(clusters.blocks, self._memo).names - subscribed.names
                subscribed = state.clusters.plus(subscribed.names, other | frozenset(clusters.removed))
            asked = self._asked(state.clusters, subscribed)
            state = replace(state, clusters=subscribed)
            if asked:
                answers.append(_endpoints(self.generators, asked, solicited=True))
        if listeners is not None:
            known = _listener_routes(listeners.resources, self.generators)
            if self.delta:
                gone = frozenset(listeners.removed)
                known = {name: route for name, route in state.listeners.items() if name not in gone} | known
            routes: frozenset[str] = frozenset().union(*known.values())
            asked = self._asked(state.routes, routes)
            state = replace(state, listeners=known, routes=routes)
            if asked:
                answers.append(_routes(self.generators, asked, solicited=True))
        return state, answers

    def _asked(self, before: Names, now: Names) -> Names:
        """What istiod answers when a name list changes."""
        if isinstance(before, ClusterNames) and isinstance(now, ClusterNames):
            added, same = now.missing_from(before), now is before or now.names == before.names
        else:
            added, same = _plain(now) - _plain(before), _plain(now) == _plain(before)
        return now if self.rules.answers_all and not self.delta and not same else added


Names = ClusterNames | frozenset[str]


def _plain(names: Names) -> frozenset[str]:
    return names.names if isinstance(names, ClusterNames) else names


def _names_once(memo: dict[Any, Any], kind: str, clusters: Blocks, names: Callable[[], Iterable[str]]) -> ClusterNames:
    """One object for all responses that share every block but the first (a proxy's own clusters)."""
    key = (kind, *map(id, clusters[1:]))
    if key not in memo:
        memo[key] = (ClusterNames(names()), clusters)
    found: ClusterNames = memo[key][0]
    return found


def _eds_names(clusters: Blocks, memo: dict[Any, Any]) -> ClusterNames:
    """Names of the EDS clusters in a CDS response."""
    return _names_once(memo, "watched", clusters, lambda: eds_names(clusters[1:]))


def _outbound_names(clusters: Blocks, memo: dict[Any, Any]) -> ClusterNames:
    """Names of all clusters in a CDS response but the first block's."""
    return _names_once(memo, "CDS names", clusters, lambda: (c.name for c in chain.from_iterable(clusters[1:])))


def _listener_routes(listeners: Iterable[Resource], generators: Generators) -> dict[str, frozenset[str]]:
    return {listener.name: routes_of_listeners([listener], generators) for listener in listeners}


def _endpoints(generators: Generators, names: Names, *, solicited: bool = False) -> Response:
    return Response("EDS", generators.assignments(names), solicited=solicited)


def _routes(generators: Generators, names: Names, *, solicited: bool = False) -> Response:
    return Response("RDS", (tuple(generators.route(name) for name in sorted(names)),), solicited=solicited)


def _has_subset(name: str) -> bool:
    cluster = parse_cluster(name)
    return cluster is not None and bool(cluster.subset)


def _gone_ports(service: Service, watched: frozenset[str]) -> set[str]:
    """Watched clusters of ports a service has no more; of a port with subsets only one, the last, as istiod does."""
    by_port: dict[int, str] = {}
    for name in sorted(watched, key=lambda name: (_has_subset(name), name)):
        if (cluster := parse_cluster(name)) is not None:
            by_port[cluster.port] = name
    ports = {port.number for port in service.ports}
    return {name for port, name in by_port.items() if port not in ports}


def _used_rule(scope: Scope, key: ConfigKey) -> Object | None:
    """A DestinationRule by key, if it applies to some service of the scope."""
    return scope.context.rule_index.by_key.get(key) if scope.depends_on(key) else None


def _hosts_matching(scope: Scope, pattern: str) -> list[str]:
    if pattern in scope.context.services.by_host:
        return [pattern]
    return [host for host in scope.context.services.by_host if subset_of(host, pattern)]


__all__ = ["Istiod", "Plan", "ProxyState", "Push", "Response", "attached", "plan"]
