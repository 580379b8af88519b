"""istiod's xDS cache with its token rule (reference §3).

The four LRUs are cleared together, so one token stands for all: entries of a push whose Start is older than the last
clear are refused. An event that arrives while a fan-out drains therefore makes every further miss of that fan-out
repeat, until a Push stamps a newer Start. Replies to a proxy that was never pushed (Start 0) read but never write.

Entries are kept by cell (`planner.View`). PILOT_XDS_CACHE_SIZE is not modelled as an LRU.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from pushsim.mesh import Xds
from pushsim.planner import Cells, View


class XdsCache:
    """The cache of one replica. `bytes` is what its entries hold."""

    def __init__(self, cached: Collection[Xds]) -> None:
        self.cached = frozenset(cached)
        self.token = 0
        self.version = 0
        self.bytes = 0
        self._present = np.zeros(1024, dtype=np.bool_)
        self._size = np.zeros(1024, dtype=np.int64)
        self._missing: dict[int, tuple[int, int, int]] = {}  # view to (version, resources, units)

    def missing(self, xds: Xds, view: View) -> tuple[int, int]:
        """Resources and units of a view that would have to be generated now."""
        if xds not in self.cached:
            return int(view.resources.sum(dtype=np.int64)), int(view.units.sum(dtype=np.int64))
        known = self._missing.get(view.number)
        if known is not None and known[0] == self.version:
            return known[1], known[2]
        self._reach(view.cells)
        absent = ~self._present[view.cells]
        resources = int(view.resources[absent].sum(dtype=np.int64))
        units = int(view.units[absent].sum(dtype=np.int64))
        self._missing[view.number] = (self.version, resources, units)
        return resources, units

    def fill(self, xds: Xds, view: View, start: int, size_bytes: int) -> None:
        """Keep what was generated for a request with that Start, if the token allows."""
        if xds not in self.cached or start == 0 or start < self.token:
            return
        self._reach(view.cells)
        absent = ~self._present[view.cells]
        cells = view.cells[absent]
        if not cells.size:
            return
        total = max(1, int(view.resources.sum(dtype=np.int64)))
        size = view.resources[absent].astype(np.int64) * size_bytes // total
        self._present[cells] = True
        self._size[cells] = size
        self.bytes += int(size.sum())
        self.token = start
        self.version += 1

    def clear(self, now: int, cells: Cells) -> None:
        """Drop these cells; nothing older than now may be written any more."""
        self.token = now
        if not cells.size:
            return
        self._reach(cells)
        present = cells[self._present[cells]]
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

    def _reach(self, cells: Cells) -> None:
        """Make room for the highest of these cells."""
        highest = int(cells.max()) if cells.size else 0
        if highest >= len(self._present):
            more = 2 * highest + 1 - len(self._present)
            self._present = np.concatenate([self._present, np.zeros(more, dtype=np.bool_)])
            self._size = np.concatenate([self._size, np.zeros(more, dtype=np.int64)])
