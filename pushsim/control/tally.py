"""What the machine observes: samples of delays, uses of plans, levels of memory. No statistics here.

Everything is integers and lossless; `start_counting` forgets what was before (connecting, warm-up).
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pushsim.cost.prices import CACHED, Price, marshalled
from pushsim.planner import Planned

UNSET = -1


Ints = NDArray[np.int64]


@dataclass(slots=True)
class Use:
    """What became of a plan in one group: see `Uses` and `Sends`; the lists are by response."""

    taken: int
    queued_at: int
    sent: list[int]
    first_sent: list[int]
    last_sent: list[int]


@dataclass(slots=True, eq=False)
class Plan:
    """One planned conversation, priced, with what became of it while counting.

    replica, first, last: whose it is; first…last are its pushes (UNSET, UNSET for connecting).
    group:   that of the first who took it; groups that share it are all sidecars.
    prices, work_ns: of its responses and of the filter and proxy state before them.
    pushed:  how many of its responses are unsolicited (they come first).
    renews:  for each of them, whether the proxy asks for more of its type when it has it.
    number:  its position in `Machine.plans`.
    taken:   proxies that began it.
    sent:    per response, how often.
    missed_resources, missed_units: per response, what the cache did not have, over all.
    """

    planned: Planned
    replica: int
    group: int
    first: int
    last: int
    prices: tuple[Price, ...]
    work_ns: int
    pushed: int
    renews: tuple[bool, ...]
    number: int
    taken: int = 0
    sent: list[int] = field(default_factory=list)
    missed_resources: list[int] = field(default_factory=list)
    missed_units: list[int] = field(default_factory=list)

    def reset(self) -> None:
        """Forget all uses."""
        responses = len(self.planned.responses)
        self.taken = 0
        self.sent = [0] * responses
        self.missed_resources = [0] * responses
        self.missed_units = [0] * responses

    def add_amounts(self, amounts: Counter[str]) -> None:
        """Add istiod's work on all its uses, by cost driver."""
        if self.taken:
            for name, amount in self.planned.work.items():
                amounts[name] += amount * self.taken
        for step, response in enumerate(self.planned.responses):
            times, missed = self.sent[step], self.missed_resources[step]
            if not times and not missed:
                continue
            for name, amount in response.work.items():
                amounts[name] += amount * times
            amounts["send.responses"] += times
            amounts["send.acks"] += times
            amounts["send.bytes"] += response.size_bytes * times
            price = self.prices[step]
            if response.view is None:
                amounts[marshalled(response.xds)] += response.size_bytes * times
                continue
            hit, miss, unit_hit, unit_miss = CACHED[response.xds]
            amounts[miss] += missed
            amounts[hit] += max(0, price.cached * times - missed)
            if unit_hit:
                amounts[unit_hit] += response.view.total_units * times
            if unit_miss:
                amounts[unit_miss] += self.missed_units[step]
            amounts[marshalled(response.xds)] += price.size_bytes * missed // max(1, price.cached)
            amounts[marshalled(response.xds)] += (response.size_bytes - price.size_bytes) * times

    def core_ns(self) -> int:
        """istiod's core time on all its uses."""
        work = self.work_ns * self.taken
        for step, times in enumerate(self.sent):
            price = self.prices[step]
            missed = self.missed_resources[step]
            ps = price.hit_ps * times + missed * price.resource_ps + self.missed_units[step] * price.unit_ps
            ps += price.size_bytes * missed // max(1, price.cached) * price.byte_ps
            work += ps // 1000 + (price.write_ns + price.ack_ns) * times
        return work


class Uses(NamedTuple):
    """Plans and the groups of proxies that took them: int64[n] each, ordered by plan and group.

    taken: so many proxies of the group began it; queued_at: the oldest Start among them, UNSET for connecting.
    Plans that do nothing to a proxy are left out.
    """

    plan: Ints
    group: Ints
    taken: Ints
    queued_at: Ints


class Sends(NamedTuple):
    """Responses that were sent, by group: int64[n] each, ordered by plan, group and step.

    step: position in the plan's responses; times: how often it was sent, first and last when.
    """

    plan: Ints
    group: Ints
    step: Ints
    times: Ints
    first: Ints
    last: Ints


def uses_of(used: Iterable[tuple[tuple[int, int], Use]]) -> tuple[Uses, Sends]:
    """Of uses by number of the plan and group."""
    ordered = sorted(used, key=lambda item: item[0])
    taken = [(*key, use.taken, use.queued_at) for key, use in ordered if use.taken]
    sent = [
        (*key, step, times, use.first_sent[step], use.last_sent[step])
        for key, use in ordered
        for step, times in enumerate(use.sent)
        if times
    ]
    columns = (np.asarray(rows, dtype=np.int64).reshape(-1, width).T for rows, width in ((taken, 4), (sent, 6)))
    return Uses(*next(columns)), Sends(*next(columns))


@dataclass(slots=True)
class PushRecord:
    """One Push(): its changes, when its batch began, when it was published and whether DEBOUNCE_MAX cut it short."""

    replica: int
    number: int
    changes: tuple[int, ...]
    since: int
    start: int
    held: bool


class Level:
    """A level over time: its time integral and its maximum."""

    def __init__(self) -> None:
        self.now = self.value = self.integral = self.highest = self.since = 0

    def add(self, now: int, amount: int) -> None:
        """The level changes by that much."""
        self.integral += self.value * (now - self.now)
        self.now = now
        self.value += amount
        if self.value > self.highest:
            self.highest = self.value

    def reset(self, now: int) -> None:
        """Count from now on."""
        self.add(now, 0)
        self.integral, self.highest, self.since = 0, self.value, now

    def mean(self, now: int) -> float:
        """Mean since counting began."""
        self.add(now, 0)
        return self.integral / (now - self.since) if now > self.since else float(self.value)


@dataclass(slots=True)
class Sent:
    """One response, for `detail="proxy"`; a delay is UNSET where it does not apply."""

    plan: Plan
    step: int
    connection: int
    sent: int
    converged: int
    received: int


class Tally:
    """Samples and counts. Times and delays in ns.

    converged, queued, debounced: pilot_proxy_convergence_time, pilot_proxy_queue_time, pilot_debounce_time.
    received:   by (change, proxy); completed: by change, the latest of its `received`.
    away:       from the end of a stream to the next that an istiod has accepted.
    amounts:    istiod's work by cost driver, beside plans; work_ns what all CPU jobs needed.
    making, flight, cache: levels, by replica, of bytes: being generated, on their way out, cached; spare: of the
                buffers around what is on its way out. entries: of cached resources. connected: streams; waiting:
                connections in the push queue; slots: of the throttle in use.
    gauges:     (time, integrals of waiting and slots, all replicas together), by when they were asked for.
    dwell:      ns that proxies spent, by (replica, whether it is a gateway, number of its state's shape).
    """

    def __init__(self, replicas: int, *, detail: bool) -> None:
        self.since = 0
        self.converged = array("q")
        self.queued = array("q")
        self.debounced = array("q")
        self.received = array("q")
        self.away = array("q")
        self.completed: dict[int, int] = {}
        self.considered = self.pushed = self.rejected = self.refused = self.connects = 0
        self.amounts: Counter[str] = Counter()
        self.pushes: list[PushRecord] = []
        self.making = [Level() for _ in range(replicas)]
        self.flight = [Level() for _ in range(replicas)]
        self.spare = [Level() for _ in range(replicas)]
        self.cache = [Level() for _ in range(replicas)]
        self.entries = [Level() for _ in range(replicas)]
        self.connected = [Level() for _ in range(replicas)]
        self.waiting = [Level() for _ in range(replicas)]
        self.slots = [Level() for _ in range(replicas)]
        self.gauges: list[tuple[int, int, int]] = []
        self.dwell: Counter[tuple[int, bool, int]] = Counter()
        self.details: list[Sent] | None = [] if detail else None

    def held(self, replica: int) -> dict[str, Level]:
        """Levels in a replica, by the coefficient of memory that they are multiplied with."""
        of = {"making": self.making, "flight": self.flight, "spare": self.spare}
        of |= {"cache": self.cache, "entries": self.entries}
        return {f"memory.{name}": levels[replica] for name, levels in of.items()}

    def start_counting(self, now: int) -> None:
        """Forget what was before now; levels keep their value."""
        self.since = now
        for samples in (self.converged, self.queued, self.debounced, self.received, self.away):
            del samples[:]
        self.completed.clear()
        self.considered = self.pushed = self.rejected = self.refused = self.connects = 0
        self.amounts.clear()
        self.pushes.clear()
        of = (self.making, self.flight, self.spare, self.cache, self.entries, self.connected, self.waiting, self.slots)
        for level in chain.from_iterable(of):
            level.reset(now)
        self.gauges.clear()
        self.dwell.clear()
        if self.details is not None:
            self.details.clear()
