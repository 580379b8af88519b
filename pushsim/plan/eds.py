"""EDS: which of the watched assignments a push sends, and which delta takes back (reference §6, §7)."""

from __future__ import annotations

from pushsim.context import applying
from pushsim.generators import Generators
from pushsim.hosts import is_wildcard, resolve, subset_of
from pushsim.mesh import ConfigKey
from pushsim.names import ClusterNames, parse_cluster
from pushsim.plan.pushing import Pushing
from pushsim.plan.state import Response

#: Names, as a set that many proxies share or a plain one.
Names = ClusterNames | frozenset[str]
#: Kinds from whose keys a release that is `aware` knows which assignments changed.
_UNDERSTOOD = frozenset({"ServiceEntry", "DestinationRule", "PeerAuthentication", "Endpoints"})


def endpoints(pushing: Pushing) -> Response | None:
    """The EDS response; None if EDS does not run."""
    if not pushing.has_other_than(pushing.rules.eds_skip):
        return None
    names, partial = _names(pushing)
    removed: list[str] = []
    if partial and pushing.delta and pushing.rules.eds_removes:
        removed = sorted(name for name in names if not _is_known(pushing, name))
    sent = names if not removed else frozenset(names) - frozenset(removed)
    if not len(sent) and not removed and not pushing.rules.eds_empty_sent:
        return None
    return assignments(pushing.generators, sent, removed=tuple(removed))


def assignments(
    generators: Generators, names: Names, *, removed: tuple[str, ...] = (), solicited: bool = False
) -> Response:
    """The EDS response with these names."""
    return Response("EDS", generators.assignments(names), removed, solicited)


def _is_known(pushing: Pushing, name: str) -> bool:
    cluster = parse_cluster(name)
    return cluster is not None and pushing.state.scope.service(cluster.host) is not None


def _names(pushing: Pushing) -> tuple[Names, bool]:
    """The watched names to send, and whether those are only the ones that changed."""
    rules, watched = pushing.rules, pushing.state.clusters
    if rules.eds_partial == "aware":
        return _aware_names(pushing)
    named = watched.of({key.name for key in pushing.request.keys if key.kind == "ServiceEntry"})
    if not pushing.full:
        return named, False
    judged = pushing.kinds - rules.eds_skip if rules.eds_partial == "unskipped" else pushing.kinds
    if pushing.everything or not judged <= {"ServiceEntry"} or (rules.eds_partial == "none" and not pushing.delta):
        return watched, False
    return named, True


def _aware_names(pushing: Pushing) -> tuple[Names, bool]:
    keys, root, watched = pushing.request.keys, pushing.context.root, pushing.state.clusters
    kinds = _UNDERSTOOD if pushing.rules.scope_endpoints_key else _UNDERSTOOD - {"Endpoints"}
    aware = all(k.kind in kinds and not (k.kind == "PeerAuthentication" and k.namespace == root) for k in keys)
    if pushing.everything or not aware:
        return watched, False
    found = watched.of({key.name for key in keys if key.kind in ("ServiceEntry", "Endpoints")})
    rules = frozenset(key for key in keys if key.kind == "DestinationRule")
    namespaces = frozenset(key.namespace for key in keys if key.kind == "PeerAuthentication")
    if rules or namespaces:
        of, told = (pushing.state.scope, pushing.state.previous, watched), pushing.generators.told
        found |= pushing.memo.once(
            lambda: _touched(pushing, rules, namespaces), "EDS touched", rules, namespaces, told, of=of
        )
    return found, True


def _touched(pushing: Pushing, rules: frozenset[ConfigKey], namespaces: frozenset[str]) -> frozenset[str]:
    """Watched names of services in these namespaces, of those these DestinationRules apply to, and of unknown ones."""
    scope, previous, watched = pushing.state.scope, pushing.state.previous, pushing.state.clusters
    scopes, labels = (scope,) if previous is None else (scope, previous), pushing.generators.view.proxy.labels
    found = (one.context.rule_index.by_key.get(key) for one in scopes for key in rules)
    patterns = {resolve(str(rule.spec.get("host")), rule.ref.namespace) for rule in found if rule is not None}
    of_rules = patterns & watched.by_host.keys()
    if wildcards := [pattern for pattern in patterns if is_wildcard(pattern)]:
        of_rules |= {host for host in watched.by_host if any(subset_of(host, pattern) for pattern in wildcards)}

    def touched(host: str) -> bool:
        service = scope.service(host)
        if service is not None and service.namespace in namespaces:
            return True
        used = (applying(one.rules_on(host), labels) for one in scopes)
        return any(rule is not None and not rules.isdisjoint(rule.keys) for rule in used)

    held = scope.hostnames
    unknown = pushing.memo.once(lambda: watched.by_host.keys() - held, "EDS unknown", of=(watched, held))
    return watched.of(unknown.union(filter(touched, watched.by_host if namespaces else of_rules)))
