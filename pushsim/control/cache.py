"""istiod's xDS cache with its token rule (reference §3).

The four LRUs are cleared together, so one token stands for all: entries of a push whose Start is older than the last
clear are refused. An event that arrives while a fan-out drains therefore makes every further miss of that fan-out
repeat, until a Push stamps a newer Start. Replies to a proxy that was never pushed (Start 0) read but never write.

A generator looks up and writes one resource after the other. So whoever comes while another makes the same resources
finds what that has made, soon all of it: it misses nothing. (`xds_cache_reads` of a real istiod with two cores: ten
proxies that are pushed at once miss each entry 1.0 to 1.1 times.) And what was written before an event stays. So here
all of a response's resources are written when their generation begins.

Entries are kept by cell (`planner.View`). One whose key has changed, as a route's does when a service comes, is found
no more, and stays until something changes that it depends on, or until there are more than PILOT_XDS_CACHE_SIZE: of
the LRU only that is modelled.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable

import numpy as np
from numpy.typing import NDArray

from pushsim.mesh import Xds
from pushsim.planner import Cells, Evicted, View

#: Types whose keys name the proxy's locality.
BY_LOCALITY: Collection[Xds] = frozenset({"CDS", "EDS"})


class Outdated:
    """Entries that are found no more. At most so many stay, the latest; `bytes` and `resources` are what they hold."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.clear()

    def clear(self) -> None:
        """None is left."""
        self._held = OrderedDict[tuple[int, int], tuple[int, int]]()  # bytes and resources, by place and since when
        self._since: dict[int, set[int]] = {}  # by place
        self.bytes = self.resources = 0

    def add(self, places: Iterable[int], sizes: Iterable[int], resources: Iterable[int], at: int) -> None:
        """These are found no more."""
        for place, size, count in zip(places, sizes, resources, strict=True):
            before = self._held.pop((place, at), (0, 0))
            self._held[place, at] = before[0] + size, before[1] + count
            self._since.setdefault(place, set()).add(at)
            self.bytes += size
            self.resources += count
        while len(self._held) > self._most:
            self._take(*next(iter(self._held)))

    def drop(self, places: NDArray[np.int32], since: NDArray[np.int64]) -> None:
        """Those of these places go that came to it after that."""
        if not self._held:
            return
        for place, after in zip(places.tolist(), since.tolist(), strict=True):
            if known := self._since.get(place):
                for at in [at for at in known if at > after]:
                    self._take(place, at)

    def _take(self, place: int, at: int) -> None:
        size, count = self._held.pop((place, at))
        self._since[place].remove(at)
        self.bytes -= size
        self.resources -= count


class XdsCache:
    """The cache of one replica, for proxies in so many localities.

    A cell has a place for each locality; of types that are not `BY_LOCALITY`, the first stands for all.
    """

    def __init__(self, cached: Collection[Xds], localities: int = 1, most: int = 60_000) -> None:
        self.cached = frozenset(cached)
        self.localities = localities
        self.token = 0
        self.version = 0
        self.outdated = Outdated(most)
        self._found = self._count = 0  # bytes and resources of entries that are
        self._present = np.zeros(1024, dtype=np.bool_)
        self._size, self._held = np.zeros(1024, dtype=np.int64), np.zeros(1024, dtype=np.int64)
        # by view and locality: version, resources, units
        self._missing: dict[tuple[int, int], tuple[int, int, int]] = {}

    @property
    def bytes(self) -> int:
        """What its entries hold."""
        return self._found + self.outdated.bytes

    @property
    def resources(self) -> int:
        """How many there are in its entries."""
        return self._count + self.outdated.resources

    def read(self, xds: Xds, view: View, start: int, size_bytes: int, locality: int = 0) -> tuple[int, int]:
        """Resources and units of a view that have to be generated now, for a request with that Start.

        They are kept from here on, if the token allows; size_bytes is that of the whole view.
        """
        if xds not in self.cached:
            return int(view.resources.sum(dtype=np.int64)), int(view.units.sum(dtype=np.int64))
        key = (view.number, locality if xds in BY_LOCALITY else 0)
        known = self._missing.get(key)
        if known is not None and known[0] == self.version and not (known[1] and self._writes(start)):
            return known[1], known[2]
        places = self._at(view.cells, key[1])
        absent = ~self._present[places]
        resources, units = (int(of[absent].sum(dtype=np.int64)) for of in (view.resources, view.units))
        if resources and self._writes(start):
            size = view.weights[absent] * size_bytes // view.whole
            self._present[places] = True
            self._size[places[absent]], self._held[places[absent]] = size, view.resources[absent]
            self._found += int(size.sum())
            self._count += resources
            self.token = start
            self.version += 1
        else:
            self._missing[key] = (self.version, resources, units)
        return resources, units

    def _writes(self, start: int) -> bool:
        """Whether what is generated for that Start may be written."""
        return start != 0 and start >= self.token

    def clear(self, now: int, evicted: Evicted) -> None:
        """Do to the entries what an event does; nothing older than now may be written any more."""
        self.token = now
        self.outdated.add(*self._lose(evicted.outdated), evicted.at)
        self._lose(evicted.cells)
        for locality in range(self.localities):
            self.outdated.drop(self._at(evicted.cells, locality), evicted.since)

    def _lose(self, cells: Cells) -> tuple[list[int], list[int], list[int]]:
        """Entries of these cells are found no more: which, their bytes and resources."""
        places = np.concatenate([self._at(cells, locality) for locality in range(self.localities)])
        present = places[self._present[places]]
        sizes, resources = self._size[present], self._held[present]
        self._present[present] = False
        self._found -= int(sizes.sum())
        self._count -= int(resources.sum())
        self.version += bool(present.size)
        return present.tolist(), sizes.tolist(), resources.tolist()

    def clear_all(self, now: int) -> None:
        """Drop everything; nothing older than now may be written any more."""
        self.token = now
        self._present[:] = False
        self._found = self._count = 0
        self.outdated.clear()
        self.version += 1

    def _at(self, cells: Cells, locality: int) -> Cells:
        """Where these cells are of a locality; there is room for them."""
        highest = (int(cells.max()) + 1) * self.localities if cells.size else 0
        if highest > len(self._present):
            more = 2 * highest - len(self._present)
            for name in ("_present", "_size", "_held"):
                of = getattr(self, name)
                setattr(self, name, np.concatenate([of, np.zeros(more, dtype=of.dtype)]))
        return cells * np.int32(self.localities) + np.int32(locality)
