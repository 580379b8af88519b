"""`Store`: the arrays, made larger where they must be, and the tables of plans in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pushsim.control.tally import Plan
from pushsim.cost.prices import Prices
from pushsim.kernel.arrays import (
    ASKS,
    C_CYCLE,
    C_DUE,
    C_MARKING,
    C_MOST,
    C_PARTS,
    C_WHOLE,
    DETAILS,
    E_AT,
    E_END,
    E_GROUP,
    E_LAST,
    E_OF,
    E_PLAN,
    K_MEMBERS,
    LOG,
    N_HOME,
    NOBODY,
    OUTCOMES,
    P_SCOPE,
    P_SLOTS,
    S_BUILT,
    S_LOCK,
    S_TIMES,
    S_WORK,
    UNKNOWN,
    USES,
    W_AT,
    W_LONG,
    WAKES,
    Arrays,
    Ints,
    arrays,
    grown,
)
from pushsim.kernel.queue import rehash, slot_of
from pushsim.kernel.struct import struct_of
from pushsim.mesh import XDS
from pushsim.planner import Scope, Scopes, View

#: Kin, state and shape of who stays as it is.
SAME = (-1, -1, -1)


class Store:
    """The arrays of a machine; `a` is another tuple whenever one of them was made larger."""

    def __init__(
        self, replicas: int, total: int, groups: int, localities: int, *, log: bool, details: bool, margin: int
    ) -> None:
        self.margin = margin
        self._struct: Any = None
        self.a: Arrays = arrays(replicas, total, groups, localities, log=log, details=details)
        self._kin: dict[tuple[int, int, bool], int] = {}
        self._home_of = np.zeros(1024, dtype=np.int64)  # by kin, the replica
        #: By replica and key, scopes that may still be built; `built` is the work on others while counting.
        self.scopes: list[dict[int, Scope]] = [{} for _ in range(replicas)]
        self.built: Counter[str] = Counter()
        self._of_greetings: set[tuple[int, int]] = set()  # of these, those that are built again after a restart
        # by replica and id: where they begin, their row of slots, and the last push that they were taken up in
        self._taken_up: dict[tuple[int, int], tuple[int, int, int, Scopes]] = {}
        self._slots: dict[int, tuple[int, NDArray[np.int32]]] = {}  # by id, the row
        #: By number of a response, the changes that it shows.
        self.shows: list[tuple[int, ...]] = []
        self._views: dict[tuple[int, int], int] = {}
        self._cells_of: dict[int, tuple[int, View]] = {}  # by id of a view, where its cells begin
        self._entries = self._responses = self._cells = self._concerned = self._lists = self._keys = 0
        self._list_of: dict[frozenset[int], tuple[int, int]] = {}  # where a list of groups is in `concerned`

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

    def room_for_jobs(self, replica: int) -> None:
        """Places in the lines for one more job, even if all connections have one, too."""
        of, had = self.a.line_of, self.a.lines.shape[2]
        if max(of[0, replica, W_LONG], of[1, replica, W_LONG]) + len(self.a.conn) + 64 <= had:
            return
        lines = np.zeros((*self.a.lines.shape[:2], 2 * had, 2), dtype=np.int64)
        for line, number in np.ndindex(*lines.shape[:2]):
            places = np.arange(had) + self.a.line_of[line, number, W_AT]
            lines[line, number, :had] = self.a.lines[line, number].take(places, axis=0, mode="wrap")
        self.a.line_of[:, :, W_AT] = 0
        self.a = self.a._replace(lines=lines)
        self._struct = None

    def room_for_seconds(self, until: int) -> None:
        """Places for what is worked until then."""
        self._grow("spent", until // 1_000_000_000 + 2, axis=1)

    def set_cores(self, replica: int, whole: int, parts: int, most: int, cycle: int, marking: int) -> None:
        """The cores of a replica."""
        self._grow("running", 4 * most + 1, axis=1)
        self.a.cores[replica, C_WHOLE], self.a.cores[replica, C_PARTS] = whole, parts
        self.a.cores[replica, C_MOST] = most
        self.a.cores[replica, C_CYCLE], self.a.cores[replica, C_MARKING] = cycle, marking
        self.a.cores[replica, C_DUE] = UNKNOWN

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

    # ---- plans

    def kin(self, replica: int, number: int, settled: int) -> int:
        """The number, over all replicas, of proxies that are alike on a replica; -1 for those that are not.

        settled: what `Planner.settled` says of them.
        """
        if number < 0:
            return -1
        known = self._numbered(replica, number, wide=False)
        self.a.wide[known] = -1 if settled < 0 else self.wide(replica, settled)
        return known

    def wide(self, replica: int, settled: int) -> int:
        """The number of proxies that are settled alike on a replica."""
        return self._numbered(replica, settled, wide=True)

    def _numbered(self, replica: int, number: int, *, wide: bool) -> int:
        known = self._kin.get((replica, number, wide))
        if known is None:
            known = self._kin[replica, number, wide] = len(self._kin)
            for name in ("last_of", "wide"):
                self._grow(name, known + 1, fill=-1)
            self.a.wide[known] = known if wide else -1
            if known == len(self._home_of):
                self._home_of = grown(self._home_of, 0)
            self._home_of[known] = replica
        return known

    def add_plan(self, plan: Plan, prices: Prices) -> None:
        """Write a plan into the tables, at its number."""
        planned, responses = plan.planned, plan.planned.responses
        at, self._responses = self._responses, self._responses + len(responses)
        if planned.scope is not None:
            self._add_scopes(plan.replica, (planned.scope,), prices)
            if plan.first < 0:
                self._of_greetings.add((plan.replica, planned.scope.key))
        for number, (response, price) in enumerate(zip(responses, plan.prices, strict=True), start=at):
            view = -1 if response.view is None else self._view(plan.replica, response.view)
            row = (view, XDS.index(response.xds), response.size_bytes, price.hit_ps, price.resource_ps)
            rest = (price.unit_ps, price.byte_ps, price.size_bytes, price.cached, len(response.shows))
            renews = number - at < plan.pushed and plan.renews[number - at]
            self.shows.append(response.shows)
            self._grow("responses", number + 1)
            self._grow("missed", number + 1)
            self.a.responses[number] = (*row, *rest, price.write_ns, price.spare_bytes, renews)
            self.a.missed[number] = 0
        self._grow("plans", plan.number + 1)
        self._grow("used", plan.number + 1)
        row = (planned.needed, plan.first, plan.last, plan.work_ns, plan.pushed)
        self.a.plans[plan.number] = (*row, len(responses), at, planned.scope.key if planned.scope else -1, -1)
        self.a.used[plan.number] = 0

    def take_up(self, plan: Plan, scopes: Scopes, prices: Prices) -> None:
        """Of those who have a plan, each takes up the scope of its group among these."""
        key = (plan.replica, id(scopes))
        at, row, last, _ = self._taken_up.get(key, (self._keys, self._row(scopes.slots), plan.last, scopes))
        if at == self._keys:
            self._add_scopes(plan.replica, scopes.scopes, prices)
            self._keys += len(scopes.scopes)
            self._grow("taken_up", self._keys)
            self.a.taken_up[at : self._keys] = [scope.key for scope in scopes.scopes]
        self._taken_up[key] = at, row, max(last, plan.last), scopes
        self.a.plans[plan.number, [P_SCOPE, P_SLOTS]] = at, row

    def _row(self, slots: NDArray[np.int32]) -> int:
        known = self._slots.get(id(slots))
        if known is None:
            known = self._slots[id(slots)] = len(self._slots), slots
            self._grow("slot_of", len(self._slots))
            self.a.slot_of[known[0]] = slots
        return known[0]

    def _add_scopes(self, replica: int, scopes: Sequence[Scope], prices: Prices) -> None:
        known = self.scopes[replica]
        new = {scope.key: scope for scope in scopes if scope.key not in known}
        if not new:
            return
        known.update(new)
        locks = [scope.lock + 1 for scope in new.values()]
        self._grow("scopes", max(new) + 1, axis=1)
        for name in ("holder", "wait_head", "wait_tail"):
            self._grow(name, max(locks) + 1, axis=1, fill=-1)
        counts = [tuple(scope.work.items()) for scope in new.values()]
        works = {of: prices.work_ns(dict(of)) for of in dict.fromkeys(counts)}  # most cost the same
        keys = np.fromiter(new, np.int64, len(new))
        self.a.scopes[replica, keys, S_WORK], self.a.scopes[replica, keys, S_LOCK] = [works[of] for of in counts], locks

    def _view(self, replica: int, view: View) -> int:
        known = self._views.get((replica, view.number))
        if known is not None:
            return known
        number = self._views[replica, view.number] = len(self._views)
        at, _ = self._cells_of.get(id(view)) or self._cells_of.setdefault(id(view), (self._add_cells(view), view))
        self._grow("views", number + 1)
        self._grow("lacking", number + 1, axis=1, fill=-1)
        self.a.views[number] = (at, at + len(view.cells))
        return number

    def _add_cells(self, view: View) -> int:
        """Where the cells of a view begin, of whatever replicas it is."""
        at, self._cells = self._cells, self._cells + len(view.cells)
        for name in ("cells", "cell_resources", "cell_units"):
            self._grow(name, self._cells)
        a = self.a
        a.cells[at : self._cells] = view.cells
        a.cell_resources[at : self._cells] = view.resources
        a.cell_units[at : self._cells] = view.units
        highest = int(view.cells.max()) + 1 if view.cells.size else 0
        for name in ("present", "cell_size"):
            self._grow(name, highest, axis=2)
        return at

    def answers(self, kin: int, first: int, last: int) -> bool:
        """Whether there is an entry already for those that are alike."""
        return self.answer(kin, first, last) >= 0

    def answer(self, kin: int, first: int, last: int) -> int:
        """The plan in that entry; below 0 if there is none."""
        return int(self.a.entries[slot_of(self.k, NOBODY, kin, first, last, 0), E_PLAN])

    def add_entry(
        self,
        group: int,
        of: int,
        interval: tuple[int, int, int],
        plan: int,
        after: tuple[int, int, int],
        concerned: Collection[int] = (),
    ) -> None:
        """What somebody gets for an interval (first, last, forced); after: their kin, state and shape then, or SAME.

        concerned: groups of that kin that are answered apart.
        """
        if 2 * self._entries >= len(self.a.entries):
            self._rehash(self.a.entries[self.a.entries[:, E_PLAN] >= 0])
        at, end = self._listed(frozenset(concerned))
        first, last, forced = interval
        slot = slot_of(self.k, group, of, first, last, forced)
        self.a.entries[slot] = (group, of, first * 2 + forced, last, plan, *after, at, end)
        self._entries += 1

    def _listed(self, groups: frozenset[int]) -> tuple[int, int]:
        """Where the list of these groups is, and where it ends."""
        known = self._list_of.get(groups)
        if known is None:
            at, end = self._concerned, self._concerned + 1 + len(groups)
            self._grow("concerned", end)
            self.a.concerned[at:end] = (self._lists, *groups)
            self._lists, self._concerned = self._lists + 1, end
            known = self._list_of[groups] = at, end
        return known

    def keep(self, replica: int, oldest: int) -> None:
        """Of a replica, only entries of intervals that end with the oldest push or later."""
        self._let_go_of_scopes(replica, oldest)
        entries, replicas = self.a.entries, len(self.a.cores)
        mine = np.where(entries[:, E_GROUP] >= 0, entries[:, E_OF] % replicas == replica, False)
        shared = (entries[:, E_GROUP] < 0) & (entries[:, E_PLAN] >= 0)
        mine[shared] = self._home_of[entries[shared, E_OF]] == replica
        kept = (entries[:, E_PLAN] >= 0) & ~(mine & (entries[:, E_LAST] < oldest))
        self._rehash(self._with_lists(entries[kept]))

    def _let_go_of_scopes(self, replica: int, oldest: int) -> None:
        """Scopes that are built are known by their numbers alone, and what building them was is summed up."""
        self._taken_up = {key: of for key, of in self._taken_up.items() if key[0] != replica or of[2] >= oldest}
        scopes, table = self.scopes[replica], self.a.scopes[replica]
        listed = [key for key in scopes if (replica, key) not in self._of_greetings]
        keys = np.array(listed, dtype=np.int64)
        keys = keys[table[keys, S_BUILT] > 0]
        for key, times in zip(keys.tolist(), table[keys, S_TIMES].tolist(), strict=True):
            for name, amount in scopes.pop(key).work.items():
                self.built[name] += amount * times
        table[keys, S_TIMES] = 0

    def _with_lists(self, entries: Ints) -> Ints:
        """The same entries; lists of groups that none of them has are dropped."""
        used, old = set(entries[:, E_AT].tolist()), self.a.concerned
        kept = {groups: span for groups, span in self._list_of.items() if span[0] in used}
        moved = np.zeros(len(old), dtype=np.int64)
        self._concerned = 0
        for groups, (at, end) in kept.items():
            moved[at], size = self._concerned, end - at
            old[self._concerned : self._concerned + size] = old[at:end]
            self._list_of[groups] = self._concerned, self._concerned + size
            self._concerned += size
        self._list_of = {groups: self._list_of[groups] for groups in kept}
        entries[:, E_END] -= entries[:, E_AT]
        entries[:, E_AT] = moved[entries[:, E_AT]]
        entries[:, E_END] += entries[:, E_AT]
        return entries

    def _rehash(self, entries: Ints) -> None:
        size = 1 << 12
        while size < 4 * len(entries):
            size *= 2
        self.a = self.a._replace(entries=np.full((size, 10), -1, dtype=np.int64))
        self._struct = None
        rehash(self.k, entries)
        self._entries = len(entries)
        self.a.last_of[:] = -1
