"""How endpoints are spread over localities for one proxy: localityLbSetting, outlier detection, trafficDistribution.

Source: pilot/pkg/networking/core/loadbalancer/loadbalancer.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pushsim.conversion import DISTRIBUTION
from pushsim.mesh import HOSTNAME, Endpoint, Object, truth

Spec = Mapping[str, Any]
#: What failoverPriority may hold: label keys; values, too; and whether it goes with `failover`.
Priorities = Literal["keys", "values", "both"]

#: Labels that tell a workload's region, zone and subzone.
TOPOLOGY = ("topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone")
_NETWORK = "topology.istio.io/network"
#: Labels that Services with a trafficDistribution ask for.
ASKED_BY_DISTRIBUTION = frozenset({*TOPOLOGY, _NETWORK, HOSTNAME})
#: By trafficDistribution, the labels of endpoints that are near.
_NEAR: Mapping[str, Sequence[str]] = {
    "zone": (_NETWORK, *TOPOLOGY[:2]),
    "node": (_NETWORK, *TOPOLOGY, HOSTNAME),
}
#: Priorities that one locality may have among others of one priority by labels.
_PRIORITIES = 5


@dataclass(frozen=True, slots=True)
class Spread:
    """What decides for a service how its endpoints are spread.

    setting:    the localityLbSetting that counts; None: they are not spread.
    fails_over: localities have priorities where no weights are given.
    """

    setting: Spec | None
    fails_over: bool


@dataclass(frozen=True, slots=True)
class Locality:
    """A group of endpoints in one cluster: where, which, and what it weighs (None: nothing) at which priority."""

    label: str
    members: tuple[Endpoint, ...]
    weight: int | None
    priority: int = 0


def spread(own: Spec | None, distribution: str, mesh: Spec, *, outlier: bool) -> Spread:
    """As the rule's own localityLbSetting says, else the Service, else the mesh config (GetLocalityLbSetting).

    own: of the policy that applies; distribution: what its trafficDistribution means ("" if it has none).
    outlier: whether the policy has outlier detection.
    """
    if own is not None:
        return Spread(own if truth(own.get("enabled"), True) else None, outlier)
    if distribution:
        return Spread({"failoverPriority": _NEAR.get(distribution, ())}, True)
    written: Spec = mesh.get("localityLbSetting") or {}
    return Spread(written if truth(written.get("enabled"), True) else None, outlier)


def spread_over(
    groups: Sequence[Locality],
    how: Spread,
    near: Mapping[str, str],
    *,
    by: Priorities,
    labelled: bool = True,
) -> list[Locality]:
    """The groups as a proxy gets them (ApplyLocalityLoadBalancer).

    near:     the proxy's labels, with where it is.
    labelled: the labels of endpoints are looked at; else failoverPriority does nothing.
    """
    setting, found = how.setting, list(groups)
    if setting is None:
        return found
    where = tuple(near.get(key, "") for key in TOPOLOGY)
    if setting.get("distribute"):
        return _distributed(found, setting["distribute"], where)
    if not how.fails_over:
        return found
    failover = setting.get("failover") or ()
    if names := setting.get("failoverPriority"):
        if labelled and near and groups:
            wanted = [_wanted(str(name), near, by) for name in names]
            found = _ranked([part for group in found for part in _split(group, wanted)])
        if by != "both" or not failover:
            return found
    return _failing_over(found, failover, where)


def _distributed(groups: list[Locality], settings: Iterable[Spec], where: Sequence[str]) -> list[Locality]:
    """applyLocalityWeights: weights as the first entry gives that is for the proxy; others have no endpoints."""
    entry = next((e for e in settings if _matches(where, str(e.get("from") or ""))), None)
    if entry is None:
        return groups
    found, left = list(groups), set(range(len(groups)))
    for pattern, weight in (entry.get("to") or {}).items():
        chosen = [n for n in sorted(left) if _matches(_parts(groups[n].label), str(pattern))]
        left.difference_update(chosen)
        total = sum(groups[n].weight or 1 for n in chosen)
        for n in chosen:
            group = groups[n]
            share = -(-(group.weight or 1) * int(weight) // total) or group.weight
            found[n] = replace(group, weight=share)
    for n in left:
        found[n] = replace(groups[n], members=())
    return found


def _failing_over(groups: list[Locality], settings: Iterable[Spec], where: Sequence[str]) -> list[Locality]:
    """applyLocalityFailover: nearer localities first."""
    to = next((e.get("to") for e in settings if str(e.get("from") or "") == where[0]), None)
    told = []
    for group in groups:
        at = _parts(group.label)
        same = next((n for n, (mine, its) in enumerate(zip(where, at, strict=True)) if mine != its), 3)
        priority = 3 - same
        if priority == 3 and to is not None and at[0] != to:
            priority = 4
        told.append(replace(group, priority=group.priority * _PRIORITIES + priority))
    return _ranked(told)


def _split(group: Locality, wanted: Sequence[tuple[str, str]]) -> Iterator[Locality]:
    """applyFailoverPriorityPerLocality: a locality's endpoints by how many labels are as they should be, in order."""
    by_priority: dict[int, list[Endpoint]] = {}
    for member in group.members:
        labels = {**dict(member.labels), **placed(member.locality), HOSTNAME: member.node}
        differs = next((n for n, (key, value) in enumerate(wanted) if labels.get(key, "") != value), len(wanted))
        by_priority.setdefault(len(wanted) - differs, []).append(member)
    for priority, members in sorted(by_priority.items()):
        yield Locality(group.label, tuple(members), sum(e.weight or 1 for e in members), priority)


def _ranked(groups: Iterable[Locality]) -> list[Locality]:
    """Priorities without gaps."""
    groups = list(groups)
    ranks = {priority: rank for rank, priority in enumerate(sorted({group.priority for group in groups}))}
    return [replace(group, priority=ranks[group.priority]) for group in groups]


def _wanted(name: str, near: Mapping[str, str], by: Priorities) -> tuple[str, str]:
    """An entry of failoverPriority: a label, and the value that endpoints should have."""
    key, _, value = name.partition("=")
    if by == "keys":
        return name, near.get(name, "")
    return (key, value) if "=" in name else (key, near.get(key, ""))


def placed(locality: str) -> dict[str, str]:
    """A locality (`region/zone/subzone`) as labels (AugmentLabels)."""
    return {key: part for key, part in zip(TOPOLOGY, _parts(locality), strict=True) if part}


def _parts(label: str) -> tuple[str, str, str]:
    region, zone, subzone = (*label.split("/"), "", "", "")[:3]
    return region, zone, subzone


def _matches(where: Sequence[str], pattern: str) -> bool:
    """util.LocalityMatch: `*`, and what a pattern leaves out below the region, is any."""
    region, zone, subzone = _parts(pattern)
    rest = zip(where[1:], (zone, subzone), strict=True)
    return region in ("*", where[0]) and all(wanted in ("*", "", at) for at, wanted in rest)


def asked_by_mesh(mesh: Spec) -> frozenset[str]:
    """Labels of a proxy that the mesh config asks for."""
    return _keys_of(mesh.get("localityLbSetting"))


def asked_by_rule(rule: Object) -> frozenset[str]:
    """Labels of a proxy that a DestinationRule asks for."""
    policies = [rule.spec.get("trafficPolicy") or {}]
    policies += [subset.get("trafficPolicy") or {} for subset in rule.spec.get("subsets") or ()]
    policies += [level for policy in list(policies) for level in policy.get("portLevelSettings") or ()]
    found = frozenset[str]()
    for policy in policies:
        if policy.get("outlierDetection") is not None:
            found |= frozenset(TOPOLOGY)
        found |= _keys_of((policy.get("loadBalancer") or {}).get("localityLbSetting"))
    return found


def _keys_of(setting: Spec | None) -> frozenset[str]:
    if not setting:
        return frozenset()
    asked = (str(name).partition("=")[0] for name in setting.get("failoverPriority") or ())
    placed = setting.get("distribute") or setting.get("failover") or setting.get("failoverPriority")
    return frozenset({*asked, *(TOPOLOGY if placed else ())})


def asked_by(objects: Iterable[Object]) -> frozenset[str]:
    """Labels of a proxy that decide how endpoints are spread for it, where there are these objects."""
    found = frozenset[str]()
    for written in objects:
        if written.ref.kind == "DestinationRule":
            found |= asked_by_rule(written)
        elif written.ref.kind == "Service" and (
            written.spec.get("trafficDistribution") or written.annotations.get(DISTRIBUTION)
        ):
            found |= ASKED_BY_DISTRIBUTION
    return found
