"""Sets of resource names that thousands of proxies share, and that change by a few names at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple
from weakref import WeakKeyDictionary, WeakValueDictionary, ref


@dataclass(frozen=True, slots=True)
class ClusterName:
    """`direction|port|subset|host`, or `direction_.port_.subset_.host` as AUTO_PASSTHROUGH servers name it."""

    direction: str
    port: int
    subset: str
    host: str


@lru_cache(maxsize=1 << 18)
def parse_cluster(name: str) -> ClusterName | None:
    """The parts of a cluster name, None for the static ones."""
    parts = name.split("_.", 3) if name.startswith("outbound_.") else name.split("|")
    if len(parts) != 4:
        return None
    return ClusterName(parts[0], int(parts[1]), parts[2], parts[3])


def host_of(name: str) -> str:
    """The host a cluster is of, "" for static and inbound ones."""
    cluster = parse_cluster(name)
    return cluster.host if cluster else ""


#: Sorting fewer than one in so many of some names beats looking through all, which are sorted already.
_SEVERAL = 8

#: How many domains are looked at as one, as long as none of their hosts matters: the root of some hundreds.
_DOMAINS = 16

#: Names of clusters by the host they are of.
NamesByHost = Mapping[str, frozenset[str]]


def names_by_host(names: Iterable[str]) -> NamesByHost:
    """Names of clusters by the host they are of; static and inbound clusters are under ""."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(host_of(name), []).append(name)
    return {host: frozenset(of_host) for host, of_host in found.items()}


class Domains(NamedTuple):
    """Some domains: all their hosts, and of each domain its hosts and the names of those."""

    hosts: frozenset[str]
    each: tuple[tuple[tuple[str, ...], frozenset[str]], ...]


class ClusterNames:
    """An immutable set of cluster names, indexed by host.

    `plus` of the same names gives the same object again as long as somebody holds it, so that what many proxies share
    stays shared.
    """

    __slots__ = ("__weakref__", "_by_domains", "_by_host", "_derived", "_joined", "_missing", "_ordered", "names")

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.names = frozenset(names)
        self._by_host: NamesByHost | None = None
        self._by_domains: tuple[Domains, ...] | None = None
        self._ordered: tuple[str, ...] | None = None
        self._derived: WeakValueDictionary[tuple[frozenset[str], frozenset[str], bool], ClusterNames] | None = None
        self._missing: WeakKeyDictionary[ClusterNames, frozenset[str]] = WeakKeyDictionary()
        self._joined: WeakKeyDictionary[ClusterNames, tuple[frozenset[str], ref[ClusterNames]]] = WeakKeyDictionary()

    @classmethod
    def of_hosts(cls, names: NamesByHost) -> ClusterNames:
        """Names that are known by host."""
        made = cls(frozenset().union(*names.values()))
        made._by_host = names
        return made

    def missing_from(self, earlier: ClusterNames) -> frozenset[str]:
        """The names that another set has not; asked about one that still lives again, it does not count again."""
        if self is earlier:
            return frozenset()
        known = self._missing.get(earlier)
        if known is None:
            known = self._missing[earlier] = self.names - earlier.names
        return known

    def ordered(self, some: frozenset[str]) -> tuple[str, ...]:
        """Some of these names, sorted: all are sorted once for all who ask for many."""
        if _SEVERAL * len(some) < len(self.names):
            return tuple(sorted(some))
        if self._ordered is None:
            self._ordered = tuple(sorted(self.names))
        return tuple(filter(some.__contains__, self._ordered))

    @property
    def by_host(self) -> NamesByHost:
        """Names by the host they are of; static and inbound clusters are under ""."""
        if self._by_host is None:
            self._by_host = names_by_host(self.names)
        return self._by_host

    @property
    def by_domains(self) -> tuple[Domains, ...]:
        """Hosts, and their names, by what follows a host's first dot: of Kubernetes' services, by namespace."""
        if self._by_domains is None:
            found: dict[str, list[str]] = {}
            for host in self.by_host:
                found.setdefault(host.partition(".")[2], []).append(host)
            each = [(tuple(hosts), self.of(hosts)) for hosts in found.values()]
            groups = (tuple(each[i : i + _DOMAINS]) for i in range(0, len(each), _DOMAINS))
            self._by_domains = tuple(
                Domains(frozenset(host for hosts, _ in group for host in hosts), group) for group in groups
            )
        return self._by_domains

    def of(self, hosts: Iterable[str]) -> frozenset[str]:
        """The names of these hosts."""
        known = self.by_host
        return frozenset().union(*(known[host] for host in hosts if host in known))

    def joined(self, other: ClusterNames, removed: frozenset[str]) -> ClusterNames:
        """With another set's names added, and then those removed; asked for the same again, it does not count again."""
        if self is other and removed.isdisjoint(self.names):
            return self
        before, of = self._joined.get(other, (None, None))
        if of is not None and (before is removed or before == removed) and (known := of()) is not None:
            return known
        kept = len(self.names) - len(removed) <= len(other.names) and other.names.isdisjoint(removed)
        made = other if kept and self.missing_from(other) <= removed else self.plus(other.names, removed)
        self._joined[other] = (removed, ref(made))
        return made

    def plus(self, added: frozenset[str], removed: frozenset[str] = frozenset()) -> ClusterNames:
        """With these names added, and then those removed."""
        added = (added - self.names) - removed
        kept = self.names - removed if 2 * len(removed) > len(self) else None
        if kept is None or 2 * len(kept) >= len(self):
            kept, removed = None, removed & self.names
            if not added and not removed:
                return self
        told = (added, removed, False) if kept is None else (added, kept, True)  # the smaller of both
        if self._derived is None:
            self._derived = WeakValueDictionary()
        known = self._derived.get(told)
        if known is None:
            known = self._with(added, removed) if kept is None else ClusterNames(kept | added)
            self._derived[told] = known
        return known

    def _with(self, added: frozenset[str], removed: frozenset[str]) -> ClusterNames:
        new = ClusterNames((self.names | added) - removed)
        if self._by_host is not None:
            by_host = dict(self._by_host)
            for name in added:
                host = host_of(name)
                by_host[host] = by_host.get(host, frozenset()) | {name}
            for name in removed:
                host = host_of(name)
                by_host[host] -= {name}
                if not by_host[host]:
                    del by_host[host]
            new._by_host = by_host
        return new

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __contains__(self, name: str) -> bool:
        return name in self.names


NO_NAMES = ClusterNames()
