"""`Store`: the arrays, and the tables of plans in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pushsim.control.state import ASK, IDLE
from pushsim.control.tally import Ints, Plan
from pushsim.cost.prices import Prices
from pushsim.kernel.arrays import (
    APIECE,
    ASKS,
    E_AT,
    E_END,
    E_GROUP,
    E_LAST,
    E_OF,
    E_PLAN,
    N_PHASE,
    N_PLAN,
    N_USE,
    NOBODY,
    OUTCOMES,
    P_AT,
    P_COUNT,
    P_SCOPE,
    P_SLOTS,
    R_VIEW,
    S_BUILT,
    S_LOCK,
    S_TIMES,
    S_WORK,
    USES,
    V_AT,
    V_END,
    WAKES,
    X_AT,
    X_PLAN,
    begins,
    grown,
    renumbered,
    spread,
)
from pushsim.kernel.queue import rehash, slot_of
from pushsim.kernel.room import Room
from pushsim.mesh import XDS
from pushsim.planner import Scope, Scopes, View

#: Kin, state and shape of who stays as it is.
SAME = (-1, -1, -1)


class Store(Room):
    """The arrays of a machine, with the tables of plans in them."""

    def __init__(self, replicas: int, total: int, groups: int, localities: int, **options: Any) -> None:
        super().__init__(replicas, total, groups, localities, **options)
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

    # ---- plans

    def kin(self, replica: int, number: int, steady: int) -> int:
        """The number, over all replicas, of proxies that are alike on a replica; -1 for those that are not.

        steady: what `Planner.steady` says of them.
        """
        if number < 0:
            return -1
        known = self._numbered(replica, number, wide=False)
        self.a.wide[known] = -1 if steady < 0 else self.wide(replica, steady)
        return known

    def wide(self, replica: int, steady: int) -> int:
        """The number of proxies that are steady alike on a replica."""
        return self._numbered(replica, steady, wide=True)

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
        if responses:
            self._add_responses(at, plan)
        self._grow("plans", plan.number + 1)
        self._grow("used", plan.number + 1)
        row = (planned.needed, plan.first, plan.last, plan.work_ns, plan.pushed)
        self.a.plans[plan.number] = (*row, len(responses), at, planned.scope.key if planned.scope else -1, -1)
        self.a.used[plan.number] = 0

    def _add_responses(self, at: int, plan: Plan) -> None:
        """Write a plan's responses from that place on."""
        rows, renews = [], (*plan.renews, *(False for _ in plan.prices[plan.pushed :]))
        for response, price, renewed in zip(plan.planned.responses, plan.prices, renews, strict=True):
            view = -1 if response.view is None else self._view(plan.replica, response.view)
            row = (view, XDS.index(response.xds), response.size_bytes, price.hit_ps, price.resource_ps)
            rest = (price.unit_ps, price.byte_ps, price.size_bytes, price.cached, len(response.shows))
            rows.append((*row, *rest, price.write_ns, price.spare_bytes, renewed))
            self.shows.append(response.shows)
        self._grow("responses", at + len(rows))
        self._grow("missed", at + len(rows))
        self.a.responses[at : at + len(rows)], self.a.missed[at : at + len(rows)] = rows, 0

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
        for name in ("present", "cell_size", "cell_held"):
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

    def plans_in_use(self) -> Ints:
        """Numbers of plans that connections are at, or have yet to ask what follows from."""
        a = self.a
        busy = a.conn[a.conn[:, N_PHASE] > IDLE, N_PLAN]
        asks, wakes = a.asks[self._asked()], a.wakes[: a.s[WAKES]]
        uses = np.concatenate([asks[:, 0], wakes[wakes[:, 2] == ASK, 5]])
        return np.unique(np.concatenate([busy, a.uses[uses, X_PLAN]]))

    def _asked(self) -> Ints:
        """Places of what is asked: all but those that are in the list of free ones."""
        asked, place = np.ones(len(self.a.asks), dtype=np.bool_), int(self.a.s[ASKS])
        while place >= 0:
            asked[place] = False
            place = int(self.a.asks[place, 2])
        return np.flatnonzero(asked)

    def keep_plans(self, kept: Ints) -> None:
        """Only these plans, int64[n], ascending, and what is theirs; they are numbered anew in this order."""
        a = self.a
        plans = a.plans[kept]
        places = spread(plans[:, P_AT], plans[:, P_COUNT])
        of_plan = renumbered(kept, len(a.plans))
        self.shows = [self.shows[place] for place in places.tolist()]
        self._responses = len(places)
        a.responses[: len(places)], a.missed[: len(places)] = a.responses[places], a.missed[places]
        plans[:, P_AT] = begins(plans[:, P_COUNT])
        a.plans[: len(kept)], a.used[: len(kept)] = plans, a.used[kept]
        answered = (a.entries[:, E_PLAN] >= 0) & (a.entries[:, E_PLAN] < APIECE)
        a.entries[answered, E_PLAN] = of_plan[a.entries[answered, E_PLAN]]
        a.conn[:, N_PLAN] = of_plan[a.conn[:, N_PLAN]]
        self._keep_uses(of_plan)
        self._keep_views()

    def _keep_uses(self, of_plan: Ints) -> None:
        """Only uses of plans that still have a number."""
        a = self.a
        had = a.uses[: a.s[USES]]
        kept = np.flatnonzero(of_plan[had[:, X_PLAN]] >= 0)
        uses, of_use = had[kept], renumbered(kept, len(a.uses))
        uses[:, X_PLAN] = of_plan[uses[:, X_PLAN]]
        counts = a.plans[uses[:, X_PLAN], P_COUNT]
        places = spread(uses[:, X_AT], counts)
        a.outcomes[: len(places)] = a.outcomes[places]
        uses[:, X_AT] = begins(counts)
        a.uses[: len(uses)] = uses
        a.s[USES], a.s[OUTCOMES] = len(uses), len(places)
        asks = a.wakes[: a.s[WAKES], 2] == ASK
        for held in (a.use_of, a.conn[:, N_USE], a.asks[:, 0]):
            held[...] = of_use[held]
        a.wakes[: a.s[WAKES], 5][asks] = of_use[a.wakes[: a.s[WAKES], 5][asks]]

    def _keep_views(self) -> None:
        """Only views that some response has, and their cells."""
        a = self.a
        held = a.responses[: self._responses, R_VIEW]
        kept = np.unique(held[held >= 0])
        of_view = renumbered(kept, len(a.views))
        held[:] = of_view[held]
        spans, of_span = np.unique(a.views[kept], axis=0, return_inverse=True)
        lengths = spans[:, V_END] - spans[:, V_AT]
        places, at = spread(spans[:, V_AT], lengths), begins(lengths)
        for array in (a.cells, a.cell_resources, a.cell_units):
            array[: len(places)] = array[places]
        a.views[: len(kept)] = np.stack([at, at + lengths], axis=1)[of_span.reshape(-1)]
        a.lacking[:, : len(kept)] = a.lacking[:, kept]
        a.lacking[:, len(kept) :] = -1
        moved = dict(zip(map(tuple, spans.tolist()), at.tolist(), strict=True))
        had = ((of, (begin, begin + len(view.cells)), view) for of, (begin, view) in self._cells_of.items())
        self._cells_of = {of: (moved[span], view) for of, span, view in had if span in moved}
        self._cells = len(places)
        self._views = {key: int(of_view[number]) for key, number in self._views.items() if of_view[number] >= 0}

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
        often = Counter[tuple[tuple[str, int], ...]]()  # most cost the same
        for key, times in zip(keys.tolist(), table[keys, S_TIMES].tolist(), strict=True):
            often[tuple(scopes.pop(key).work.items())] += times
        for work, times in often.items():
            for name, amount in work:
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
