"""What compiled code has observed, as `control.Tally` and plans show it; equal delays are kept once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import reduce
from itertools import chain

import numpy as np

from pushsim.control.machine import Machine
from pushsim.control.replica import UNSET
from pushsim.control.state import IDLE
from pushsim.control.streams import KEEPALIVE_WORK, OPENING_WORK
from pushsim.control.tally import Ints, Plan, Sends, Sent, Uses
from pushsim.kernel import loop, serving
from pushsim.kernel.arrays import (
    CONSIDERED,
    CONVERGED,
    DETAILS,
    LOG,
    LOOKED,
    N_PHASE,
    O_FIRST,
    O_LAST,
    O_SENT,
    OPENED,
    P_AT,
    P_COUNT,
    PUSHES,
    QUEUED,
    REFUSED,
    REJECTED,
    S_TIMES,
    SENDS,
    USES,
    X_AT,
    X_GROUP,
    X_PLAN,
    X_QUEUED_AT,
    X_TAKEN,
)
from pushsim.kernel.store import Store
from pushsim.metrics import Weighted

#: So many pairs of a response and a change that it shows are looked at together.
_MOST_PAIRS = 1 << 21
#: Plans are let go when they are more than one in so many.
_SHARE_GONE = 3


class Delays:
    """Delays and how often each was observed; what is added is merged with what is there, so equal ones are kept once.

    Parts at least halve in size from one to the next: to add n delays in all costs O(n log n).
    """

    def __init__(self) -> None:
        self._parts: list[Weighted] = []

    def add(self, delays: Ints, times: Ints) -> None:
        """Add delays, int64[n], each observed so often."""
        if not len(delays):
            return
        part = Weighted.of(delays, times)
        while self._parts and len(self._parts[-1].values) < 2 * len(part.values):
            part = self._parts.pop().plus(part)
        self._parts.append(part)

    @property
    def all(self) -> Weighted:
        """All of them."""
        return reduce(Weighted.plus, reversed(self._parts), Weighted.of((), ()))


def merged(key: Sequence[Ints], times: Ints, first: Ints, last: Ints | None = None) -> tuple[Ints, ...]:
    """Rows in the order of their keys, those of equal keys as one: the sum of `times`, the first and the last.

    Args:
        key: columns, int64[n] each, none below 0. times, first, last: int64[n].
    """
    order = np.lexsort(key[::-1])
    columns = [column[order] for column in key]
    new = np.ones(len(order), dtype=np.bool_)
    if len(order):
        new[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    begins = np.flatnonzero(new)
    if not len(begins):
        return (*columns, *(values[:0] for values in (times, first, last) if values is not None))
    found = [*(column[begins] for column in columns), np.add.reduceat(times[order], begins)]
    found.append(np.minimum.reduceat(first[order], begins))
    if last is not None:
        found.append(np.maximum.reduceat(last[order], begins))
    return tuple(found)


class Observing(Machine):
    """`Machine`, as far as it tells what it has observed."""

    store: Store
    _passing: list[list[Plan]]
    _gone: list[Plan]

    def _begin_observing(self) -> None:
        """Nothing is observed yet."""
        self._queued, self._converged, self._received = Delays(), Delays(), Delays()
        self._details: list[Ints] = []
        self.store.built.clear()
        self._done: Counter[str] = Counter()  # what is in the tally of the work that compiled code began

    def _stow(self) -> None:
        """Samples are taken out of their arrays, which are empty then."""
        a, s = self.store.a, self.store.a.s
        for count, rows, into in ((QUEUED, a.queued, self._queued), (CONVERGED, a.converged, self._converged)):
            into.add(rows[: s[count], 0], rows[: s[count], 1])
        self._stow_received(a.sends[: s[SENDS]])
        if self.tally.details is not None:
            self._details.append(a.details[: s[DETAILS]].copy())
        s[QUEUED] = s[CONVERGED] = s[SENDS] = s[DETAILS] = 0

    def _stow_received(self, sends: Ints) -> None:
        """Delays from the write of each change to the responses that show it."""
        responses, which = np.unique(sends[:, 0], return_inverse=True)
        shows = [self.store.shows[response] for response in responses.tolist()]
        lengths = np.fromiter(map(len, shows), np.int64, len(shows))
        changes = np.fromiter(chain.from_iterable(shows), np.int64, int(lengths.sum()))
        pairs = np.cumsum(lengths[which])
        cuts = np.searchsorted(pairs, np.arange(_MOST_PAIRS, pairs[-1] if pairs.size else 0, _MOST_PAIRS))
        begins = np.cumsum(lengths) - lengths
        for rows, of in zip(np.split(sends, cuts), np.split(which, cuts), strict=True):
            often = lengths[of]
            row = np.repeat(np.arange(len(rows)), often)
            place = np.arange(len(row)) - np.repeat(np.cumsum(often) - often, often)
            self._stow_shown(changes[begins[of][row] + place], rows[row, 1], rows[row, 2])

    def _stow_shown(self, changes: Ints, received: Ints, times: Ints) -> None:
        """Changes, when a proxy had them and how many others had at once: int64[n] each."""
        tally = self.tally
        written = np.full(max(self.written, default=0) + 1, UNSET, dtype=np.int64)
        written[list(self.written)] = list(self.written.values())
        counted = written[changes] >= tally.since
        changes, times = changes[counted], times[counted]
        delays = received[counted] - written[changes]
        latest = np.full(len(written), UNSET, dtype=np.int64)
        np.maximum.at(latest, changes, delays)
        for change in np.flatnonzero(latest >= 0).tolist():
            tally.completed[change] = max(int(latest[change]), tally.completed.get(change, UNSET))
        self._received.add(delays, times)

    def start_counting(self, now: int) -> None:
        loop.start_counting(self.store.k, now)
        self._begin_observing()
        for name in ("queued", "converged", "received"):
            setattr(self.tally, name, [])
        self.tally.start_counting(now)
        self._begin_sums()

    def stop_counting(self, now: int) -> None:
        for replica in self.replicas:
            replica.cores.advance(now)
        for c in np.flatnonzero(self.store.a.conn[:, N_PHASE] >= IDLE):
            serving.dwelt(self.store.k, now, int(c))
        self.take_up()

    def _take_up_cores(self) -> None:
        for replica in self.replicas:
            replica.cores.take_up()  # type: ignore[attr-defined]

    def take_up(self) -> None:
        """Let plans and tally show what compiled code has observed."""
        a, tally = self.store.a, self.tally
        self._take_up_cores()
        self._take_up_plans()
        self._stow()
        counts = (int(a.s[n]) for n in (CONSIDERED, PUSHES, REJECTED, REFUSED))
        tally.considered, tally.pushed, tally.rejected, tally.refused = counts
        samples = {"queued": self._queued, "converged": self._converged, "received": self._received}
        for name, observed in samples.items():
            setattr(tally, name, observed.all)
        if tally.details is not None:
            tally.details[:] = [self._detail(row) for rows in self._details for row in rows.tolist()]
        tally.dwell = Counter(
            {
                (int(r), bool(gateway), int(shape)): int(a.dwell[r, gateway, shape])
                for r, gateway, shape in zip(*np.nonzero(a.dwell), strict=True)
            }
        )
        if self.log is not None:
            self.log[:] = [tuple(entry) for entry in a.log[: a.s[LOG]].tolist()]

    def _take_up_plans(self) -> None:
        a, tally = self.store.a, self.tally
        self._show_plans()
        done = Counter(self.store.built)
        for work, times in ((OPENING_WORK, a.s[OPENED]), (KEEPALIVE_WORK, a.s[LOOKED])):
            for name, amount in work.items():
                done[name] += amount * int(times)
        for replica, key in zip(*np.nonzero(a.scopes[:, :, S_TIMES]), strict=True):
            for name, amount in self.store.scopes[replica][int(key)].work.items():
                done[name] += amount * int(a.scopes[replica, key, S_TIMES])
        tally.amounts.subtract(self._done)
        tally.amounts += done
        self._done = done

    def _show_plans(self) -> None:
        a, at = self.store.a, 0
        missed, sent = a.missed.T.tolist(), self._sent_in_all().tolist()
        for plan, taken in zip(self.plans, a.used[: len(self.plans)].tolist(), strict=True):
            plan.taken = taken
            count = len(plan.planned.responses)
            plan.sent = sent[at : at + count]
            plan.missed_resources, plan.missed_units = (column[at : at + count] for column in missed)
            at += count

    def _outcomes(self) -> tuple[Ints, Ints, Ints]:
        """Uses, and of every outcome the use that it is of and the step."""
        a = self.store.a
        uses = a.uses[: a.s[USES]]
        counts = a.plans[uses[:, X_PLAN], P_COUNT]
        of = np.repeat(np.arange(len(uses)), counts)
        return uses, of, np.arange(len(of)) - uses[of, X_AT]

    def _sent_in_all(self) -> Ints:
        """How often each response was sent."""
        a = self.store.a
        uses, of, steps = self._outcomes()
        sent = np.zeros(len(a.responses), dtype=np.int64)
        np.add.at(sent, a.plans[uses[of, X_PLAN], P_AT] + steps, a.outcomes[: len(of), O_SENT])
        return sent

    def uses(self) -> tuple[Uses, Sends]:
        """`State.uses`."""
        uses, of, steps = self._outcomes()
        outcomes = self.store.a.outcomes[: len(of)]
        sent = outcomes[:, O_SENT] > 0
        of, steps, outcomes = of[sent], steps[sent], outcomes[sent]
        sends = merged(
            (uses[of, X_PLAN], uses[of, X_GROUP], steps), outcomes[:, O_SENT], outcomes[:, O_FIRST], outcomes[:, O_LAST]
        )
        taken = uses[uses[:, X_TAKEN] > 0]
        known = merged((taken[:, X_PLAN], taken[:, X_GROUP]), taken[:, X_TAKEN], taken[:, X_QUEUED_AT])
        return Uses(*known), Sends(*sends)

    def _part_with(self, replica: int, oldest: int) -> None:
        """Plans of a replica that nobody will take any more become part of the sums; their places are others' then."""
        if self.tally.details is not None:
            return
        at_it = set(self.store.plans_in_use().tolist())
        greeted = {plan.number for plan in self._connect_plan.values()}
        left: list[Plan] = []
        for plan in self._passing[replica]:
            stays = plan.last >= oldest or plan.number in at_it or (plan.first < 0 and plan.number in greeted)
            (left if stays else self._gone).append(plan)
        self._passing[replica] = left
        if _SHARE_GONE * len(self._gone) > len(self.plans):
            self._stow()
            self._show_plans()
            self._past.add(self._gone, self.merged, self._gateway_groups)
            gone = {plan.number for plan in self._gone}
            self.plans = [plan for plan in self.plans if plan.number not in gone]
            self.store.keep_plans(np.array([plan.number for plan in self.plans], dtype=np.int64))
            for number, plan in enumerate(self.plans):
                plan.number = number
            responses = {id(response) for plan in self.plans for response in plan.planned.responses}
            self._price_of = {key: known for key, known in self._price_of.items() if key in responses}
            self._gone = []

    def _detail(self, row: list[int]) -> Sent:
        number, step, c, sent, converged, received = row
        plan: Plan = self.plans[number]
        written = [self.written[change] for change in plan.planned.responses[step].shows]
        delays = [received - at for at in written if at >= self.tally.since]
        return Sent(plan, step, c, sent, converged, max(delays, default=UNSET))
