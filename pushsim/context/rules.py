"""DestinationRules: which ones apply to a service as seen from a namespace (reference `push-semantics` §3.6)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pushsim.audience import PRIVATE, PUBLIC
from pushsim.conversion import pairs, selects
from pushsim.hosts import is_wildcard, resolve, subset_of
from pushsim.mesh import ConfigKey, Object, Service
from pushsim.releases import Rules
from pushsim.spreading import asked_by_rule


@dataclass(frozen=True, slots=True)
class MergedRule:
    """istiod's ConsolidatedDestRule: DestinationRules of one host and namespace merged into one.

    sources: oldest first; the first one's traffic policy wins, subsets add up.
    """

    host: str
    sources: tuple[Object, ...]
    exported: frozenset[str]
    selector: tuple[tuple[str, str], ...] = ()

    @property
    def keys(self) -> tuple[ConfigKey, ...]:
        """The keys a scope that uses it depends on."""
        return tuple(ConfigKey("DestinationRule", s.ref.name, s.ref.namespace) for s in self.sources)

    def subsets(self) -> tuple[tuple[str, Mapping[str, Any]], ...]:
        """(name, subset) of all sources; the first of a name wins."""
        found: dict[str, Mapping[str, Any]] = {}
        for source in self.sources:
            for subset in source.spec.get("subsets") or ():
                found.setdefault(str(subset["name"]), subset)
        return tuple(found.items())

    def subset_names(self) -> tuple[str, ...]:
        """The names of all subsets, as often as the first source with one has it (mergeDestinationRule)."""
        found: list[str] = []
        for source in self.sources:
            named = [str(subset["name"]) for subset in source.spec.get("subsets") or ()]
            found += [name for name in named if name not in found]  # found is longer only after this
        return tuple(found)


@dataclass(slots=True)
class _ByHost:
    exact: dict[str, list[MergedRule]] = field(default_factory=dict)
    wildcard: dict[str, list[MergedRule]] = field(default_factory=dict)

    def most_specific(self, host: str) -> list[MergedRule]:
        """Rules of the exact host, else of the longest wildcard that covers it."""
        if host in self.exact:
            return self.exact[host]
        fitting = [pattern for pattern in self.wildcard if host.endswith(pattern[1:])]
        return self.wildcard[max(fitting, key=len)] if fitting else []


class RuleIndex:
    """All DestinationRules of a PushContext.

    Args:
        objects: every DestinationRule.
        default: mesh-wide defaultDestinationRuleExportTo.
        root: the root namespace.
        rules: the release.
    """

    def __init__(self, objects: Iterable[Object], default: frozenset[str], root: str, rules: Rules) -> None:
        self._rules, self._root, self._default = rules, root, default
        self._local: dict[str, _ByHost] = {}
        self._exported: dict[str, _ByHost] = {}
        self._root_private = _ByHost()
        self.by_key: dict[ConfigKey, Object] = {}
        #: whether some rule is for selected workloads only, hashes requests, shapes TCP proxies, names a credential
        self.selective = self.hashing = self.connections = self.credentials = False
        #: labels of a proxy that decide how endpoints are spread for it
        self.spreads_by = frozenset[str]()
        ordered = sorted(objects, key=lambda o: (o.creation, o.ref.name, o.ref.namespace))
        if rules.merge_services == "append":  # 1.22+: rules with a workload selector first
            ordered.sort(key=lambda o: not o.spec.get("workloadSelector"))
        for written in ordered:
            self._add(written)

    def _add(self, written: Object) -> None:
        namespace, spec = written.ref.namespace, written.spec
        self.by_key[ConfigKey("DestinationRule", written.ref.name, namespace)] = written
        selector = pairs((spec.get("workloadSelector") or {}).get("matchLabels"))
        exported = frozenset(str(value) for value in spec.get("exportTo") or ())
        self.selective |= bool(selector)
        self.hashing |= asks_hashing(written)
        self.connections |= shapes_connections(written)
        self.spreads_by |= asked_by_rule(written)
        self.credentials |= any((part.get("tls") or {}).get("credentialName") for part in _parts(written))
        if selector:
            exported = frozenset({PRIVATE})
        rule = MergedRule(resolve(str(spec.get("host")), namespace), (written,), exported, selector)
        if not exported or exported & {PUBLIC, PRIVATE, namespace}:
            self._merge(self._local.setdefault(namespace, _ByHost()), rule)
        if not self._private(exported, namespace):
            self._merge(self._exported.setdefault(namespace, _ByHost()), rule)
        elif namespace == self._root:
            self._merge(self._root_private, rule)

    def _private(self, exported: frozenset[str], namespace: str) -> bool:
        if not exported:
            return PRIVATE in self._default
        if exported == {PRIVATE}:
            return True
        match self._rules.private_rules:
            case "own":
                return exported == {namespace}
            case "names-own":
                return namespace in exported
        return False

    def _merge(self, into: _ByHost, rule: MergedRule) -> None:
        """mergeDestinationRule: what a later rule adds to those of its host, be they for some workloads or for all.

        One with a selector, and one without, are both there apart as well.
        """
        known = (into.wildcard if is_wildcard(rule.host) else into.exact).setdefault(rule.host, [])
        separate, apart = self._rules.rule_merge == "separate", True
        for i, earlier in enumerate(known):
            exported = earlier.exported or rule.exported
            if separate:
                same, exported = earlier.exported == rule.exported, earlier.exported
                apart = not same
                if apart and not (earlier.exported and earlier.exported <= rule.exported):
                    continue
            if earlier.selector and rule.selector and earlier.selector != rule.selector:
                apart |= separate
                continue
            if earlier.selector == rule.selector:
                apart = False
            known[i] = MergedRule(rule.host, (*earlier.sources, *rule.sources), exported, earlier.selector)
        if apart:
            known.append(rule)

    def telling_apart(self, services: Mapping[str, Service]) -> set[str]:
        """Hosts that some rule may treat differently from one namespace to the next.

        A rule of the service's own namespace, shown to all and without selector, does not.
        """
        found: set[str] = set()
        for written in self.by_key.values():
            host = resolve(str(written.spec.get("host")), written.ref.namespace)
            hosts = [h for h in services if subset_of(h, host)] if is_wildcard(host) else [host]
            shown = frozenset(map(str, written.spec.get("exportTo") or ())) or self._default
            open_to_all = PUBLIC in shown and not written.spec.get("workloadSelector")
            home = written.ref.namespace
            found.update(h for h in hosts if h in services and not (open_to_all and services[h].namespace == home))
        return found

    def lookup(self, namespace: str, service: Service) -> tuple[MergedRule, ...]:
        """All rules for a service as seen from a namespace, selectors not yet applied."""
        local = self._root_private if namespace == self._root else self._local.get(namespace)
        found = local.most_specific(service.hostname) if local else []
        for owner in (service.namespace, self._root):
            if found:
                break
            exported = self._exported.get(owner)
            for rule in exported.most_specific(service.hostname) if exported else ():
                to = rule.exported
                if not to or PUBLIC in to or namespace in to:  # `.` counts in the rule's own namespace alone, above
                    found = [*found, rule]
        return tuple(found)


def asks_hashing(rule: Object) -> bool:
    """Whether a DestinationRule asks for consistent hashing anywhere."""
    return any((part.get("loadBalancer") or {}).get("consistentHash") is not None for part in _parts(rule))


def shapes_connections(rule: Object) -> bool:
    """Whether a DestinationRule says something of TCP proxies: idle and longest connections, hashing, tunnels."""
    for policy in _parts(rule):
        tcp = (policy.get("connectionPool") or {}).get("tcp") or {}
        hashes = ((policy.get("loadBalancer") or {}).get("consistentHash") or {}).get("useSourceIp")
        if hashes or policy.get("tunnel") or tcp.get("idleTimeout") or tcp.get("maxConnectionDuration"):
            return True
    return False


def _parts(rule: Object) -> Iterator[Mapping[str, Any]]:
    """The traffic policies of a rule and its subsets, and those of their ports."""
    policies = [rule.spec.get("trafficPolicy") or {}]
    policies += (subset.get("trafficPolicy") or {} for subset in rule.spec.get("subsets") or ())
    for policy in policies:
        yield policy
        yield from policy.get("portLevelSettings") or ()


def applying(rules: tuple[MergedRule, ...], labels: Mapping[str, str]) -> MergedRule | None:
    """The one a proxy with these labels uses: a matching selector's, else the last without one."""
    for rule in rules:
        if rule.selector and selects(rule.selector, labels):
            return rule
    unselective = [rule for rule in rules if not rule.selector]
    return unselective[-1] if unselective else None
