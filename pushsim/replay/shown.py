"""Which response shows which change: `received` and `completed` as the wire tells them.

A response shows a change if it alters, at its proxy, a resource that the change is about. Of Services, endpoints,
DestinationRules and ServiceEntries that is a cluster or assignment of their host, or a virtual host of it; other kinds
are shown by the first altered resource of a type they can alter at a proxy they can reach. What istiod pushes from a
PushContext can't hold what was written after the first proxy had it: its version then is older than the change.
A proxy that has lost its stream is shown what it missed by what it is answered on the next.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pushsim.mesh import Change, Object, Proxy, Ref, Xds
from pushsim.names import host_of
from pushsim.replay.log import NOTHING, TYPES, Alteration, Log

_LISTENERS: frozenset[Xds] = frozenset({"LDS"})
_EXTENSIONS: frozenset[Xds] = frozenset({"LDS", "ECDS"})
_GATEWAY: frozenset[Xds] = frozenset({"LDS", "RDS", "CDS"})
_ALL: frozenset[Xds] = frozenset(TYPES)
#: Kinds without hosts: the types they can alter.
_TYPES: Mapping[str, frozenset[Xds]] = {
    "AuthorizationPolicy": _LISTENERS,
    "RequestAuthentication": _LISTENERS,
    "Telemetry": _LISTENERS,
    "WasmPlugin": _EXTENSIONS,
    "TrafficExtension": _EXTENSIONS,
    "Secret": frozenset({"SDS"}),
    "Gateway": _GATEWAY,
    "PeerAuthentication": _ALL,
    "Sidecar": _ALL,
    "EnvoyFilter": _ALL,
    "ProxyConfig": _ALL,
    "WorkloadEntry": _ALL,
}
#: Of these, one in a namespace reaches that namespace's proxies only.
_LOCAL = frozenset({"AuthorizationPolicy", "RequestAuthentication", "Telemetry", "WasmPlugin", "TrafficExtension",
                    "Sidecar", "EnvoyFilter", "ProxyConfig"})  # fmt: skip

#: The object of a reference as it was before the change, None if there was none.
Lookup = Callable[[Ref], Mapping[str, Any] | None]


@dataclass(frozen=True, slots=True)
class Subject:
    """What a change is about.

    hosts:  shown by a resource of one of them. others: (types, namespace or "" for all, routers only).
    """

    hosts: frozenset[str] = frozenset()
    others: tuple[tuple[frozenset[Xds], str, bool], ...] = ()


def subject_of(change: Change, before: Lookup, domain: str = "cluster.local", root: str = "istio-system") -> Subject:
    """What a change is about; `before` is the cluster as it is when the change is written."""
    hosts: set[str] = set()
    others: list[tuple[frozenset[Xds], str, bool]] = []

    def look(ref: Ref, body: Mapping[str, Any]) -> None:
        spec = body.get("spec") or {}

        def full(host: str) -> str:
            return host if "." in host else f"{host}.{ref.namespace}.svc.{domain}"

        match ref.kind:
            case "Service":
                hosts.add(full(ref.name))
            case "EndpointSlice":
                labels = (body.get("metadata") or {}).get("labels") or {}
                hosts.add(full(str(labels.get("kubernetes.io/service-name", ref.name))))
            case "Endpoints":
                hosts.add(full(ref.name))
            case "ServiceEntry" | "VirtualService":
                hosts.update(full(str(host)) for host in spec.get("hosts") or ())
                if spec.get("tcp") or spec.get("tls"):
                    others.append((_LISTENERS, "", False))
            case "DestinationRule":
                hosts.add(full(str(spec.get("host", ""))))
            case kind if kind in _TYPES:
                namespace = ref.namespace if kind in _LOCAL and ref.namespace != root else ""
                others.append((_TYPES[kind], namespace, kind == "Gateway"))

    written: Iterable[Object] = change.apply
    for one in written:
        look(one.ref, one.body)
        if (held := before(one.ref)) is not None:
            look(one.ref, held)
    for ref in change.delete:
        if (held := before(ref)) is not None:
            look(ref, held)
    return Subject(frozenset(hosts), tuple(dict.fromkeys(others)))


@dataclass(frozen=True, slots=True)
class Written:
    """A change that was written: its number, when (ns of the monotonic clock), and what it is about."""

    number: int
    at_ns: int
    subject: Subject


@dataclass
class Shown:
    """`received`, ns by (change, proxy); `completed`, by change; and of each row of the log the longest it shows."""

    received: array[int] = field(default_factory=lambda: array("q"))
    completed: dict[int, int] = field(default_factory=dict)
    by_row: dict[int, int] = field(default_factory=dict)


def shown(log: Log, changes: Sequence[Written], proxies: Sequence[Proxy]) -> Shown:
    """Find the first response at each proxy that shows each change. `log` is in order of arrival."""
    candidates = _candidates(log, changes)
    first_seen: dict[int, int] = {}
    for at, version in zip(log.at, log.version, strict=True):
        first_seen.setdefault(version, at)
    found = Shown()
    seen: set[tuple[int, int]] = set()
    live = TYPES.index("EDS")  # endpoints are read when they are generated, not when the push begins
    for row, (at, proxy, xds, version, altered) in enumerate(
        zip(log.at, log.proxy, log.xds, log.version, log.altered, strict=True)
    ):
        if altered == NOTHING:
            continue
        until = at if xds == live else min(at, first_seen[version])
        for change, others in candidates[altered]:
            key = (change.number, proxy)
            if change.at_ns > until or key in seen or not _reaches(others, proxies[proxy]):
                continue
            seen.add(key)
            delay = at - change.at_ns
            found.received.append(delay)
            found.by_row[row] = max(delay, found.by_row.get(row, 0))
            found.completed[change.number] = max(delay, found.completed.get(change.number, 0))
    return found


#: A change that an alteration may show; the places it must be at, None for any.
_Candidate = tuple[Written, tuple[tuple[str, bool], ...] | None]


def _candidates(log: Log, changes: Sequence[Written]) -> list[list[_Candidate]]:
    """By alteration, the changes it may show, oldest first."""
    by_host: dict[str, list[Written]] = defaultdict(list)
    for change in changes:
        for host in change.subject.hosts:
            by_host[host].append(change)
    general = [change for change in changes if change.subject.others]
    found: list[list[_Candidate]] = []
    for alteration in log.alterations:
        of_hosts = {c.number: c for host in _hosts(alteration) for c in by_host.get(host, ())}
        listed: list[_Candidate] = [(change, None) for change in of_hosts.values()]
        for change in general:
            places = tuple((ns, routers) for types, ns, routers in change.subject.others if alteration.xds in types)
            if places and change.number not in of_hosts:
                listed.append((change, places))
        found.append(sorted(listed, key=lambda candidate: candidate[0].number))
    return found


def _hosts(alteration: Alteration) -> Iterable[str]:
    if alteration.xds in ("CDS", "EDS"):
        return {host_of(name) for name in alteration.names}
    if alteration.xds == "RDS":
        return {name.rpartition(":")[0] or name for name in alteration.hosts}
    return ()


def _reaches(places: tuple[tuple[str, bool], ...] | None, proxy: Proxy) -> bool:
    if places is None:
        return True
    return any(
        namespace in ("", proxy.namespace) and (not routers or proxy.type == "router") for namespace, routers in places
    )
