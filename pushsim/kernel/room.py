"""`Room`: the arrays, made larger where they must be."""

from __future__ import annotations

from typing import Any

import numpy as np

from pushsim.control.cores import NOBODY, Cores
from pushsim.kernel.arrays import (
    ASKS,
    C_AT_REST,
    C_AT_REST_END,
    C_CLOCK,
    C_CYCLE,
    C_DUE,
    C_FAST,
    C_HALF,
    C_HOLDER,
    C_LATE,
    C_LOCKED,
    C_MOST,
    C_PARTS,
    C_PER_CYCLE,
    C_RESTED,
    C_USUAL,
    C_WAKE,
    C_WHOLE,
    C_WOKEN_NEXT,
    DETAILS,
    K_MEMBERS,
    LOG,
    N_HOME,
    OUTCOMES,
    UNKNOWN,
    USES,
    W_AT,
    W_LONG,
    WAKES,
    Arrays,
    arrays,
    grown,
)
from pushsim.kernel.struct import struct_of


class Room:
    """The arrays of a machine; `a` is another tuple whenever one of them was made larger."""

    def __init__(
        self, replicas: int, total: int, groups: int, localities: int, *, log: bool, details: bool, margin: int
    ) -> None:
        self.margin = margin
        self._struct: Any = None
        self.a: Arrays = arrays(replicas, total, groups, localities, log=log, details=details)

    @property
    def k(self) -> Any:
        """The arrays as compiled functions take them."""
        if self._struct is None:
            self._struct = struct_of(self.a)
        return self._struct

    # ---- room

    def _grow(self, name: str, least: int, axis: int = 0, fill: int = 0) -> None:
        old = getattr(self.a, name)
        if least > old.shape[axis]:
            larger: Any = {name: grown(old, least, axis, fill)}
            self.a = self.a._replace(**larger)
            self._struct = None

    def room(self) -> None:
        """Places for what the next event may add; samples must have been taken away before."""
        s, margin = self.a.s, self.margin
        if self.a.log.shape[0] > 1:
            self._grow("log", int(s[LOG]) + 2 * margin)
        if self.a.details.shape[0] > 1:
            self._grow("details", int(s[DETAILS]) + 2 * margin)
        for name in ("queued", "converged", "sends"):
            self._grow(name, 2 * margin)
        self._grow("uses", int(s[USES]) + 2 * margin)
        self._grow("outcomes", int(s[OUTCOMES]) + 4 * margin)
        self.room_for_wakes(0)
        self.room_to_ask()
        self.room_for_jobs()

    def room_for_wakes(self, more: int) -> None:
        """Places for so many wakes, beside what the next event may set."""
        self._grow("wakes", int(self.a.s[WAKES]) + 2 * self.margin + more)

    def room_to_ask(self) -> None:
        """A place for one that asks."""
        if self.a.s[ASKS] >= 0:
            return
        had = len(self.a.asks)
        self._grow("asks", had + 1024)
        asks = self.a.asks
        asks[had:, 2] = np.arange(had + 1, len(asks) + 1)
        asks[-1, 2] = -1
        self.a.s[ASKS] = had

    def room_for_jobs(self) -> None:
        """Places in the lines for the jobs that the next event may add."""
        had, wanted = self.a.lines.shape[2], int(self.a.line_of[:, :, W_LONG].sum(axis=0).max()) + 2 * self.margin
        if wanted <= had:
            return
        lines = np.zeros((*self.a.lines.shape[:2], 2 * wanted, 2), dtype=np.int64)
        for line, number in np.ndindex(*lines.shape[:2]):
            places = np.arange(had) + self.a.line_of[line, number, W_AT]
            lines[line, number, :had] = self.a.lines[line, number].take(places, axis=0, mode="wrap")
        self.a.line_of[:, :, W_AT] = 0
        self.a = self.a._replace(lines=lines)
        self._struct = None

    def room_for_seconds(self, until: int) -> None:
        """Places for what is worked until then."""
        self._grow("spent", until // 1_000_000_000 + 2, axis=1)

    def set_cores(self, cores: Cores, replica: int) -> None:
        """The cores of a replica."""
        self._grow("running", 4 * cores.most + 1, axis=1)
        row = self.a.cores[replica]
        row[C_WHOLE], row[C_PARTS], row[C_MOST] = cores.whole, cores.parts, cores.most
        row[C_CYCLE], row[C_PER_CYCLE], row[C_FAST] = cores.cycle, cores.per_cycle, cores.fast
        row[C_USUAL:C_LATE], row[C_LATE : C_LATE + len(cores.late)] = cores.usual, cores.late
        row[C_CLOCK] = row[C_RESTED] = cores.clock
        row[C_AT_REST], row[C_AT_REST_END] = cores.ended_at_rest.start, cores.ended_at_rest.stop
        row[C_WAKE], row[C_HALF], row[C_LOCKED] = cores.wake_ns, cores.half_ns, cores.locked
        row[C_HOLDER] = row[C_WOKEN_NEXT] = NOBODY
        row[C_DUE] = UNKNOWN

    def know_members(self, replica: int) -> None:
        """See that the members of a replica are known: they need not be before its first push."""
        a = self.a
        if a.replicas[replica, K_MEMBERS] < 0:
            places = np.flatnonzero(a.conn[a.ring, N_HOME] == replica)
            a.members[replica, : len(places)], a.replicas[replica, K_MEMBERS] = places, len(places)

    def add_member(self, replica: int, place: int) -> None:
        """The connection at that place of the ring is a replica's from now on."""
        of, members = self.a.replicas[replica], self.a.members[replica]
        count = of[K_MEMBERS]
        if count < 0:
            return
        at = np.searchsorted(members[:count], place)
        members[at + 1 : count + 1] = members[at:count]
        members[at] = place
        of[K_MEMBERS] += 1

    def drop_member(self, replica: int, place: int) -> None:
        """It is no more."""
        of, members = self.a.replicas[replica], self.a.members[replica]
        count = of[K_MEMBERS]
        if count < 0:
            return
        at = np.searchsorted(members[:count], place)
        members[at : count - 1] = members[at + 1 : count]
        of[K_MEMBERS] -= 1
