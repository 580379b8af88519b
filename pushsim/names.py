"""Sets of resource names that thousands of proxies share, and that change by a few names at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class ClusterName:
    """`direction|port|subset|host`."""

    direction: str
    port: int
    subset: str
    host: str


@lru_cache(maxsize=1 << 18)
def parse_cluster(name: str) -> ClusterName | None:
    """The parts of a cluster name, None for the static ones."""
    parts = name.split("|")
    if len(parts) != 4:
        return None
    return ClusterName(parts[0], int(parts[1]), parts[2], parts[3])


class ClusterNames:
    """An immutable set of cluster names, indexed by host.

    `plus` of the same names gives the same object again, so that what many proxies share stays shared.
    """

    __slots__ = ("_by_host", "_derived", "_missing", "names")

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.names = frozenset(names)
        self._by_host: Mapping[str, frozenset[str]] | None = None
        self._derived: dict[tuple[frozenset[str], frozenset[str]], ClusterNames] = {}
        self._missing: tuple[ClusterNames, frozenset[str]] | None = None

    def missing_from(self, earlier: ClusterNames) -> frozenset[str]:
        """The names that another set has not; asked about the same one again, it does not count again."""
        if self is earlier:
            return frozenset()
        if self._missing is None or self._missing[0] is not earlier:
            self._missing = (earlier, self.names - earlier.names)
        return self._missing[1]

    @property
    def by_host(self) -> Mapping[str, frozenset[str]]:
        """Names by the host they are of; static and inbound clusters are under ""."""
        if self._by_host is None:
            found: dict[str, list[str]] = {}
            for name in self.names:
                cluster = parse_cluster(name)
                found.setdefault(cluster.host if cluster else "", []).append(name)
            self._by_host = {host: frozenset(names) for host, names in found.items()}
        return self._by_host

    def of(self, hosts: Iterable[str]) -> frozenset[str]:
        """The names of these hosts."""
        known = self.by_host
        return frozenset().union(*(known[host] for host in hosts if host in known))

    def plus(self, added: frozenset[str], removed: frozenset[str] = frozenset()) -> ClusterNames:
        """With these names added, and then those removed."""
        added, removed = (added - self.names) - removed, removed & self.names
        if not added and not removed:
            return self
        key = (added, removed)
        if key not in self._derived:
            new = ClusterNames((self.names | added) - removed)
            if self._by_host is not None:
                by_host = dict(self._by_host)
                for name in (*added, *removed):
                    cluster = parse_cluster(name)
                    host = cluster.host if cluster else ""
                    changed = (by_host.get(host, frozenset()) | {name}) if name in added else by_host[host] - {name}
                    by_host[host] = changed
                    if not changed:
                        del by_host[host]
                new._by_host = by_host
            self._derived[key] = new
        return self._derived[key]

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __contains__(self, name: str) -> bool:
        return name in self.names


NO_NAMES = ClusterNames()
