"""istiod's xDS cache with its token rule (reference §3).

The four LRUs are cleared together, so one token stands for all: entries of a push whose Start is older than the last
clear are refused. An event that arrives while a fan-out drains therefore makes every further miss of that fan-out
repeat, until a Push stamps a newer Start. Replies to a proxy that was never pushed (Start 0) read but never write.

A generator looks up and writes one resource after the other. So whoever comes while another makes the same resources
finds what that has made, soon all of it: it misses nothing. (`xds_cache_reads` of a real istiod with two cores: ten
proxies that are pushed at once miss each entry 1.0 to 1.1 times.) And what was written before an event stays. So here
all of a response's resources are written when their generation begins.

Entries are kept by cell (`planner.View`). PILOT_XDS_CACHE_SIZE is not modelled as an LRU.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from pushsim.mesh import Xds
from pushsim.planner import Cells, View

#: Types whose keys name the proxy's locality.
BY_LOCALITY: Collection[Xds] = frozenset({"CDS", "EDS"})


class XdsCache:
    """The cache of one replica, for proxies in so many localities. `bytes` is what its entries hold.

    A cell has a place for each locality; of types that are not `BY_LOCALITY`, the first stands for all.
    """

    def __init__(self, cached: Collection[Xds], localities: int = 1) -> None:
        self.cached = frozenset(cached)
        self.localities = localities
        self.token = 0
        self.version = 0
        self.bytes = 0
        self._present = np.zeros(1024, dtype=np.bool_)
        self._size = np.zeros(1024, dtype=np.int64)
        # by view and locality: version, resources, units
        self._missing: dict[tuple[int, int], tuple[int, int, int]] = {}

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
            whole = max(1, int(view.resources.sum(dtype=np.int64)))
            size = view.resources[absent].astype(np.int64) * size_bytes // whole
            self._present[places] = True
            self._size[places[absent]] = size
            self.bytes += int(size.sum())
            self.token = start
            self.version += 1
        else:
            self._missing[key] = (self.version, resources, units)
        return resources, units

    def _writes(self, start: int) -> bool:
        """Whether what is generated for that Start may be written."""
        return start != 0 and start >= self.token

    def clear(self, now: int, cells: Cells) -> None:
        """Drop these cells; nothing older than now may be written any more."""
        self.token = now
        places = np.concatenate([self._at(cells, locality) for locality in range(self.localities)])
        present = places[self._present[places]]
        if present.size:
            self.bytes -= int(self._size[present].sum())
            self._present[present] = False
            self.version += 1

    def clear_all(self, now: int) -> None:
        """Drop everything; nothing older than now may be written any more."""
        self.token = now
        self._present[:] = False
        self.bytes = 0
        self.version += 1

    def _at(self, cells: Cells, locality: int) -> Cells:
        """Where these cells are of a locality; there is room for them."""
        highest = (int(cells.max()) + 1) * self.localities if cells.size else 0
        if highest > len(self._present):
            more = 2 * highest - len(self._present)
            for name in ("_present", "_size"):
                of = getattr(self, name)
                setattr(self, name, np.concatenate([of, np.zeros(more, dtype=of.dtype)]))
        return cells * np.int32(self.localities) + np.int32(locality)
