"""CDS: whether it runs for a push, in full or as a delta, and what delta takes back (reference §6, §7)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import chain

from pushsim.blocks import Blocks
from pushsim.generators import eds_names
from pushsim.hosts import is_wildcard, matches, resolve
from pushsim.mesh import ConfigKey, Object, Service
from pushsim.names import NO_NAMES, ClusterNames, parse_cluster
from pushsim.plan.pushing import Pushing
from pushsim.plan.state import Response
from pushsim.visibility import Scope

#: Names of clusters, each once.
Names = set[str] | frozenset[str]


def clusters(pushing: Pushing) -> Response | None:
    """The CDS response; None if CDS does not run."""
    if not _runs(pushing):
        return None
    if pushing.delta and _is_delta(pushing):
        return _delta(pushing)
    blocks = pushing.generators.clusters()
    if not pushing.delta:
        return Response("CDS", blocks)
    watched = pushing.state.watched
    missing = watched.missing_from(outbound_names(blocks))
    own = pushing.state.base - {cluster.name for cluster in blocks[0]}

    def gone() -> tuple[str, ...]:
        return tuple(sorted(missing | own)) if own else watched.ordered(missing)

    removed = pushing.memo.once(gone, "gone", own, of=(missing,))
    taken_back(pushing, removed, missing | own if own else missing)
    return Response("CDS", blocks, removed)


def taken_back(pushing: Pushing, removed: tuple[str, ...], known: frozenset[str] | None = None) -> frozenset[str]:
    """Removed names as a set, made once for all who have this tuple; `known`: the set, where there is one already."""
    return pushing.memo.once(lambda: frozenset(removed) if known is None else known, "taken back", of=(removed,))


def outbound_names(blocks: Blocks) -> ClusterNames:
    """Names of all clusters in a CDS response but the first block's, which are the proxy's own.

    Where all are EDS clusters, the very object that `watched_names` gives: what is made of one is made of both.
    """

    def named(of: Blocks) -> ClusterNames:
        watched = watched_names(blocks)
        if len(watched) == sum(map(len, of)):
            return watched
        names = ClusterNames(c.name for c in chain.from_iterable(of))
        return watched if watched.names == names.names else names

    return _named(blocks[1:], "CDS names", named)


def watched_names(blocks: Blocks) -> ClusterNames:
    """Names of the EDS clusters in a CDS response."""
    return _named(blocks[1:], "EDS names of CDS", lambda of: ClusterNames.of_hosts(eds_names(of)))


def _named(blocks: Blocks, what: str, names: Callable[[Blocks], ClusterNames]) -> ClusterNames:
    """One object for all who have these blocks, as long as the largest of them is kept."""
    if not blocks:
        return NO_NAMES
    return max(blocks, key=len).memo.once(lambda: names(blocks), what, of=blocks)


def _runs(pushing: Pushing) -> bool:
    rules, kinds = pushing.rules, pushing.kinds
    if not pushing.full or pushing.headless_only:
        return False
    if pushing.everything:
        return True
    counted = set(kinds - rules.cds_skip)
    if pushing.router:
        filtered = pushing.context.filter_gateways
        if not filtered and not rules.cds_router_virtual_service:
            counted.discard("VirtualService")
        if "Gateway" in kinds:
            before, now = pushing.state.previous_gateway, pushing.state.gateway
            changed = (before.passthrough, before.sni) != (now.passthrough, now.sni)
            rule = rules.cds_router_gateway
            if filtered or rule == "always" or (rule == "passthrough" and changed):
                counted.add("Gateway")
    return bool(counted)


# ---- delta


def _keys(pushing: Pushing) -> frozenset[ConfigKey]:
    """The keys that delta CDS judges and works on."""
    rules = pushing.rules
    if not rules.cds_narrowed:
        return pushing.request.keys
    dropped = set(rules.cds_skip)
    if pushing.router:
        filtered = pushing.context.filter_gateways
        if not filtered and not rules.cds_router_virtual_service:
            dropped.add("VirtualService")
        if filtered or rules.cds_router_gateway == "always":
            dropped.discard("Gateway")
    return frozenset(key for key in pushing.request.keys if key.kind not in dropped)


def _is_delta(pushing: Pushing) -> bool:
    rules, root = pushing.rules, pushing.context.root
    if pushing.everything:
        return False
    if pushing.router and pushing.context.filter_gateways and rules.delta_filter == "full":
        return False
    return all(
        key.kind in rules.delta_cds_kinds and not (key.kind == "PeerAuthentication" and key.namespace == root)
        for key in _keys(pushing)
    )


def _delta(pushing: Pushing) -> Response:
    rules, generators = pushing.rules, pushing.generators
    services: dict[str, Service] = {}
    removed: list[Names] = []
    for key in sorted(_keys(pushing)):
        found, gone = _of_key(pushing, key)
        services |= {service.hostname: service for service in found}
        removed.append(gone)
    built = generators.clusters_of_services(tuple(services.values()))
    blocks = (generators.base_clusters(), built, *generators.passed_through())
    made = {cluster.name for cluster in chain.from_iterable(blocks)}
    inbound = (name for name in pushing.state.base if name.startswith("inbound|") and name not in made)
    own = frozenset(inbound) if rules.delta_removes_inbound else frozenset[str]()
    names = frozenset(removed[0]) if len(removed) == 1 else frozenset[str]().union(*removed)
    names = names if names.isdisjoint(made) else names - made
    left = pushing.state.watched.ordered(names)
    if not rules.delta_removes_once and sum(map(len, removed)) > len(names):
        left = tuple(sorted(name for gone in removed for name in gone if name in names))
    taken = tuple(sorted((*left, *own))) if own else left
    taken_back(pushing, taken, names | own if own else names)
    return Response("CDS", blocks, taken, delta=True)


def _of_key(pushing: Pushing, key: ConfigKey) -> tuple[Collection[Service], Names]:
    """The services whose clusters one key makes anew, and the watched clusters it takes back."""
    scope, by_host = pushing.state.scope, pushing.state.watched.by_host
    match key.kind:
        case "ServiceEntry":
            service = scope.service(key.name)
            if service is None:
                return [], set(by_host.get(key.name, ()))
            if pushing.rules.delta_filter == "filtered" and not pushing.generators.attaches(key):
                return [], set()
            lost = pushing.lost if pushing.rules.delta_gone_port == "any" else frozenset()
            return [service], _gone_ports(service, by_host.get(key.name, frozenset()), lost)
        case "DestinationRule":
            found = _services_of_rule(pushing, key)
            found = _shown(pushing, found)
            return found, {n for s in found for n in by_host.get(s.hostname, ()) if _has_subset(n)}
        case "PeerAuthentication":
            return _shown(pushing, [s for s in scope.all_services if s.namespace == key.namespace]), set()
        case "VirtualService" | "Sidecar" | "Gateway":
            return _scope_difference(pushing)
    return [], set()


def _shown(pushing: Pushing, services: list[Service]) -> list[Service]:
    """With PILOT_FILTER_GATEWAY_CLUSTER_CONFIG, those that a router has clusters of."""
    if pushing.rules.delta_filter != "filtered":
        return services
    return [service for service in services if pushing.generators.has_clusters(service)]


def _services_of_rule(pushing: Pushing, key: ConfigKey) -> list[Service]:
    scope, previous = pushing.state.scope, pushing.state.previous
    used = (_used_rule(scope, key), _used_rule(previous, key) if previous else None)
    patterns = [resolve(str(rule.spec.get("host")), rule.ref.namespace) for rule in used if rule is not None]
    hosts = dict.fromkeys(host for p in dict.fromkeys(patterns) for host in _hosts_matching(scope, p))
    return [service for host in hosts if (service := scope.service(host)) is not None]


def _used_rule(scope: Scope, key: ConfigKey) -> Object | None:
    """A DestinationRule by key, if it applies to some service of the scope."""
    return scope.context.rule_index.by_key.get(key) if scope.depends_on(key) else None


def _hosts_matching(scope: Scope, pattern: str) -> list[str]:
    """istiod's ServicesForHostname: of a wildcard also those that it is a part of."""
    known = scope.context.services.by_host
    if is_wildcard(pattern):
        return [host for host in known if matches(host, pattern)]
    return [pattern] if pattern in known else []


def _scope_difference(pushing: Pushing) -> tuple[Collection[Service], Names]:
    """Services that came into the scope, and the clusters of those that left it."""
    if pushing.state.previous is None:
        return (), frozenset()
    current, watched = pushing.generators.services_by_host(), pushing.state.watched

    def difference() -> tuple[Collection[Service], Names]:
        added = tuple(service for host, service in current.items() if host not in watched.by_host)
        return added, watched.names - watched.of(current)

    return pushing.memo.once(difference, "scope difference", of=(current, watched))


def _has_subset(name: str) -> bool:
    cluster = parse_cluster(name)
    return cluster is not None and bool(cluster.subset)


def _gone_ports(service: Service, watched: frozenset[str], lost: frozenset[str]) -> set[str]:
    """Watched clusters of ports a service has no more: of a port with subsets only one, the last that istiod looks at.

    Until 1.19 that is the last by name, hence the one without a subset (deltaWatchedResources sorts them); later the
    order, and so which one goes, is chance: one of those known to be lost, else the same.
    """
    by_port: dict[int, str] = {}
    for name in sorted(watched, key=lambda name: (name in lost, name)):
        if (cluster := parse_cluster(name)) is not None:
            by_port[cluster.port] = name
    return {name for port, name in by_port.items() if service.port(port) is None}
