"""istiod's machine: its parts, and the thirteen things that are easily modelled wrong (reference §8.4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from fake_planner import FakePlanner, dropped
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pushsim.control import NEVER, Batch, Cores, Debouncer, Knobs, Machine, PushQueue, RequestLimiter, knobs
from pushsim.control.cache import XdsCache
from pushsim.control.cores import LOCKED, NEXT, PREEMPTED, SECOND, TICKS
from pushsim.control.limiter import draw
from pushsim.control.replica import HANDLES, RESTS
from pushsim.control.state import (
    ACKING,
    BLOCKED,
    CONNECTED,
    DEQUEUED,
    HANDLING,
    IDLE,
    POLLED,
    PUBLISHED,
    PUSHED,
    PUSHING,
    READING,
    SENDING,
    SENT,
    SPARED,
    WRITING,
    YIELDING,
)
from pushsim.cost import PACE, Prices, Runtime, shipped
from pushsim.errors import InputError
from pushsim.mesh import Change
from pushsim.metrics import BOUNDS, Histogram
from pushsim.planner import Cells, Evicted, View
from pushsim.releases import rules
from pushsim.requests import PushRequest
from pushsim.settings import Clients

MS = 1_000_000
#: A job that nothing follows from: the writer of connection 0 has not yielded.
WAKES_NOBODY = YIELDING << 32


# ---- cores


def _finish(cores: Cores, now: int) -> int:
    job = cores.finish(now)
    cores.fill()
    return job


def test_who_finds_no_core_waits_in_line() -> None:
    cores = Cores(2)
    for job in range(4):
        cores.start(0, job, 1000)
    assert cores.due() == 1000
    assert [_finish(cores, 1000), _finish(cores, 1000)] == [0, 1]
    assert cores.due() == 2000
    assert [_finish(cores, 2000), _finish(cores, 2000)] == [2, 3]
    assert cores.due() == NEVER


def test_what_follows_from_a_job_keeps_its_core() -> None:
    cores = Cores(1)
    cores.start(0, 0, 1000)
    cores.start(0, 1, 1000)
    assert cores.finish(1000) == 0
    cores.start(1000, 2, 1000)  # what job 0 woke
    cores.start(1000, 3, 1000)
    cores.fill()
    assert [_finish(cores, 1000 * end) for end in (2, 3, 4)] == [2, 1, 3]


def test_a_core_is_kept_until_sysmon_has_looked_twice_while_others_wait() -> None:
    cores = Cores(1)
    cores.start(0, 0, 45 * MS)
    cores.start(0, 1, MS)
    assert _finish(cores, 20 * MS) == PREEMPTED
    assert _finish(cores, 21 * MS) == 1
    assert _finish(cores, 40 * MS) == PREEMPTED, "nobody waits: it goes on at once"
    assert _finish(cores, 46 * MS) == 0


def test_sysmon_looks_every_10_ms_whenever_a_slice_begins() -> None:
    cores = Cores(1)
    cores.start(3 * MS, 0, 45 * MS)
    cores.start(3 * MS, 1, MS)
    assert cores.due() == 23 * MS, "its clock is of service: it stood still before"
    assert _finish(cores, cores.due()) == PREEMPTED


def test_while_garbage_is_marked_no_slice_ends() -> None:
    cores = _marking(Runtime(cycle_ns=100 * MS, marking_ns=35 * MS))
    cores.start(0, 0, 90 * MS)
    cores.start(0, 1, MS)
    assert _finish(cores, 50 * MS) == PREEMPTED, "20 ms by sysmon's looks after 35 ms of marking"
    assert _finish(cores, 51 * MS) == 1


def test_who_works_while_garbage_is_marked_pays_for_all_of_it() -> None:
    cores = _marking(Runtime(cycle_ns=100 * MS, marking_ns=40 * MS, slow=PACE // 2, fast=PACE * 4 // 3))
    cores.start(0, 0, 5 * MS)
    assert _finish(cores, 10 * MS) == 0, "half as fast"
    cores.start(10 * MS, 1, 15 * MS)
    assert _finish(cores, 40 * MS) == 1
    cores.start(40 * MS, 2, 20 * MS)
    assert _finish(cores, cores.due()) == 2
    assert cores.now == pytest.approx(55 * MS, rel=1e-3), "by a third faster"


#: Marks for 40 ms of each 100, and works half as fast then; after one that ended at rest, for 28, a seventh as fast.
COLLECTS = Runtime(100 * MS, 40 * MS, slow=PACE // 2, fast=PACE * 4 // 3, late_ns=28 * MS, crawl=PACE // 7)


def _marking(runtime: Runtime) -> Cores:
    """A core that begins to mark, after a cycle in which it never rested."""
    cores = Cores(1, runtime)
    cores.clock, cores.ended_at_rest = 0, range(0)
    return cores


def _takes(cores: Cores, rest: int, work: int) -> float:
    """How many ms some ms of work take after a rest of so many ms."""
    began = cores.now + rest * MS
    cores.start(began, 0, work * MS)
    while cores.finish(cores.due()) == PREEMPTED:
        cores.fill()
    cores.fill()
    return (cores.now - began) / MS


def test_cores_that_rest_go_on_marking() -> None:
    cores = _marking(COLLECTS)
    assert _takes(cores, 0, 5) == 10, "half as fast"
    assert _takes(cores, 10, 5) == pytest.approx(10, rel=1e-2), "10 ms of rest are 20 of marking: 10 are left"
    assert sum(cores.spent) == pytest.approx(30 * MS, rel=1e-2)
    assert _takes(cores, 6, 40) == pytest.approx(30, rel=1e-2), "by a third faster: all is marked"
    assert sum(cores.spent) == pytest.approx(60 * MS, rel=1e-2), "nobody marks any more"


def test_a_marking_that_ends_at_rest_makes_the_next_late_and_slow() -> None:
    cores = _marking(COLLECTS)
    assert _takes(cores, 0, 5) == 10
    assert _takes(cores, 50, 80) == pytest.approx(60, rel=1e-2)
    assert sum(cores.spent) == pytest.approx((10 + 15 + 60) * MS, rel=1e-2), "as long as marking took, and no longer"
    assert _takes(cores, 0, 2) == pytest.approx(14, rel=1e-2), "late and slow"
    assert _takes(cores, 100, 96) == pytest.approx(72, rel=1e-2), "that ended at rest, too"
    assert _takes(cores, 0, 4) == pytest.approx(28, rel=1e-2), "late and slow again"
    assert _takes(cores, 0, 96) == pytest.approx(72, rel=1e-2)
    assert _takes(cores, 0, 20) == pytest.approx(40, rel=1e-2), "nobody rested in the last: early"


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 30)), min_size=1, max_size=40))
def test_rests_change_when_collecting_is_paid_and_not_how_much(rests: list[tuple[int, int]]) -> None:
    cores = Cores(1, COLLECTS)
    work = sum(work for _, work in rests)
    for rest, each in rests:
        _takes(cores, rest, each)
    _takes(cores, 1000, 1)  # a marking that has begun comes to its end
    assert abs(sum(cores.spent) / MS - work) <= 30, "less than a cycle's collecting apart, however many there were"


@given(
    st.integers(10**6, 10**12),
    st.floats(0.05, 1),
    st.floats(1, 1.5),
    st.lists(st.integers(0, 10**13), min_size=1),
    st.integers(0, 5),
)
def test_when_work_is_done_is_the_first_time_that_so_much_is_done(
    cycle_ns: int, share: float, evenly: float, amounts: list[int], rested: int
) -> None:
    def slow(share: float) -> int:
        return max(1, round(PACE * (1 - evenly * (1 - share)) / share))

    markings = {"marking_ns": share, "late_ns": share / 2}
    runtime = Runtime(cycle_ns, slow=slow(share), fast=round(PACE * evenly), crawl=slow(share / 2))
    cores = Cores(1, runtime._replace(**{name: max(1, round(of * cycle_ns)) for name, of in markings.items()}))
    cores.ended_at_rest = range(rested)
    for amount in amounts:
        at = cores._reaches(amount)
        assert cores._done(at) >= amount
        assert at == 0 or cores._done(at - 1) < amount


def test_the_first_job_after_a_rest_takes_longer_by_how_long_it_was() -> None:
    cores = Cores(2, Runtime(wake_ns=400_000, half_ns=2 * MS))
    cores.start(0, 0, MS)
    cores.start(0, 1, MS)
    assert [cores.finish(cores.due()), cores.finish(cores.due())] == [0, 1], "they do not wait: the second is not first"
    assert cores.now == MS, "nobody has rested before the run began"
    cores.fill()
    cores.start(3 * MS, 2, MS)
    cores.start(3 * MS, 3, MS)
    assert cores.finish(cores.due()) == 3, "somebody works already"
    assert cores.due() == 4 * MS + 200_000, "half of it, after a rest of half_ns"
    cores.finish(cores.due())
    cores.start(cores.now, 4, MS)
    assert cores.due() == cores.now + MS, "what follows at once has not rested"
    assert cores.woken == 500


def test_who_loses_its_core_in_a_locked_moment_holds_up_all_who_come_to_it() -> None:
    cores = Cores(1, Runtime(locked_ns=2 * MS))
    cores.start(0, LOCKED | 0, 21 * MS)
    cores.start(0, LOCKED | 1, 3 * MS)
    cores.start(0, LOCKED | 2, 3 * MS)
    cores.start(0, 3, 3 * MS)
    assert _finish(cores, 20 * MS) == PREEMPTED, "1 ms before it ends: it has the lock"
    assert _finish(cores, 23 * MS) == PREEMPTED, "1 waits for the lock"
    assert _finish(cores, 26 * MS) == PREEMPTED, "so does 2"
    assert _finish(cores, 29 * MS) == 3, "who needs no lock goes on"
    assert _finish(cores, 30 * MS) == 0
    assert _finish(cores, 32 * MS) == 1, "it was woken, and what is locked is still to do"
    assert _finish(cores, 34 * MS) == 2, "the next is woken by who was woken before"
    assert cores.due() == NEVER


def test_of_those_that_wait_for_the_lock_one_at_a_time_is_woken() -> None:
    cores = Cores(1, Runtime(locked_ns=2 * MS))
    for job in range(4):
        cores.start(0, LOCKED | job, 21 * MS if job == 0 else 3 * MS)
    for end in (20, 23, 26, 29):
        assert _finish(cores, end * MS) == PREEMPTED
    assert cores.finish(30 * MS) == 0
    cores.start(30 * MS, LOCKED | 4, 4 * MS)  # what follows from it: it comes to a lock that is free
    cores.fill()
    assert [_finish(cores, end * MS) for end in (34, 36, 38, 40)] == [4, 1, 2, 3]


def test_a_chain_of_jobs_has_one_slice_together() -> None:
    cores = Cores(1)
    cores.start(0, 0, 6 * MS)
    cores.start(0, 1, MS)
    cores.finish(6 * MS)
    cores.start(6 * MS, 2, 16 * MS)
    cores.fill()
    assert _finish(cores, 20 * MS) == PREEMPTED
    assert _finish(cores, 21 * MS) == 1
    assert _finish(cores, 23 * MS) == 2


def test_the_network_is_heard_when_nothing_else_waits_and_now_and_then() -> None:
    cores = Cores(1)
    cores.start(0, 0, 1000)
    cores.start(0, 1000, 1000, 1)
    for job in range(1, 100):
        cores.start(0, job, 1000)
    ends = [_finish(cores, 1000 * end) for end in range(1, 102)]
    assert ends.index(1000) == 61, "the 61st that is picked from the lines"
    assert [job for job in ends if job < 1000] == list(range(100))


def test_what_a_timer_wakes_is_next() -> None:
    cores = Cores(1)
    for job in range(3):
        cores.start(0, job, 1000)
    cores.start(0, 3, 1000, NEXT)
    assert [_finish(cores, 1000 * end) for end in (1, 2, 3, 4)] == [0, 3, 1, 2]


def test_who_waits_for_the_network_goes_over_to_the_first_line_all_at_once() -> None:
    cores = Cores(1)
    for job in range(4):
        cores.start(0, job, 1000, POLLED)
    assert _finish(cores, 1000) == 0
    cores.start(1000, 4, 1000)
    assert [_finish(cores, 1000 * end) for end in (2, 3, 4, 5)] == [1, 2, 3, 4], "4 came after they had"


def test_a_lone_job_has_no_more_than_one_core() -> None:
    cores = Cores(8)
    cores.start(0, 7, 1000)
    assert cores.due() == 1000


def test_half_a_core_takes_twice_as_long() -> None:
    cores = Cores(0.5)
    cores.start(0, 0, 1000)
    assert cores.due() == 2000


@settings(max_examples=60)
@given(
    cpus=st.sampled_from([0.5, 1, 1.5, 2, 16]),
    jobs=st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 3000)), min_size=1, max_size=12),
)
def test_cores_agree_with_an_exact_line(cpus: float, jobs: list[tuple[int, int]]) -> None:
    jobs = sorted(jobs)
    cores, ends, waiting = Cores(cpus), {}, list(enumerate(jobs))
    while waiting or cores.jobs:
        due = cores.due()
        if waiting and waiting[0][1][0] <= due:
            number, (at, work) = waiting.pop(0)
            cores.start(at, number, work)
        else:
            ends[_finish(cores, due)] = due
    exact = _in_line(Fraction(cpus), jobs)
    # Each start or end may lose a tick of the service clock, and each end is at a whole ns.
    slack = 3 * len(jobs) + 2 * len(jobs) * len(jobs) / TICKS / min(1, cpus)
    assert all(abs(ends[number] - exact[number]) <= slack for number in ends)
    assert len(ends) == len(jobs)


def _in_line(cpus: Fraction, jobs: Sequence[tuple[int, int]]) -> dict[int, Fraction]:
    """When each job ends if as many as there are processors share the cores, and the others wait, in fractions."""
    left: dict[int, Fraction] = {}
    ends: dict[int, Fraction] = {}
    line: list[tuple[int, Fraction]] = []
    now, waiting = Fraction(0), list(enumerate(jobs))
    while waiting or left:
        rate = min(Fraction(1), cpus / len(left)) if left else Fraction(1)
        to_end = min(left.values()) / rate if left else None
        to_start = waiting[0][1][0] - now if waiting else None
        step = min(value for value in (to_end, to_start) if value is not None)
        now += step
        left = {number: work - step * rate for number, work in left.items()}
        for number in [number for number, work in left.items() if work <= 0]:
            ends[number] = now
            del left[number]
        while waiting and waiting[0][1][0] <= now:
            number, (_, work) = waiting.pop(0)
            line.append((number, Fraction(work)))
        while line and len(left) < math.ceil(cpus):
            left.update([line.pop(0)])
    return ends


def test_work_is_booked_to_the_second_it_was_done_in() -> None:
    cores = Cores(1)
    cores.start(SECOND // 2, 0, 2 * SECOND)
    while _finish(cores, cores.due()) == PREEMPTED:
        pass
    cores.advance(5 * SECOND)
    assert cores.spent == [SECOND // 2, SECOND, SECOND // 2, 0, 0, 0]


# ---- debouncer


def test_an_isolated_event_is_pushed_exactly_after() -> None:
    debouncer = Debouncer(100 * MS, 10_000 * MS)
    debouncer.submit(5, 0)
    assert debouncer.due == 5 + 100 * MS
    assert debouncer.tick(debouncer.due) == Batch((0,), 5, held=False)


def test_later_events_do_not_move_the_timer_but_the_tick_does() -> None:
    debouncer = Debouncer(100, 10_000)
    debouncer.submit(0, 0)
    debouncer.submit(60, 1)
    assert debouncer.due == 100
    assert debouncer.tick(100) is None
    assert debouncer.due == 160
    assert debouncer.tick(160) == Batch((0, 1), 0, held=False)


@settings(max_examples=100)
@given(
    gaps=st.lists(st.integers(0, 150), min_size=1, max_size=80),
    lasts=st.lists(st.integers(0, 400), min_size=1, max_size=80),
)
def test_debouncer_pushes_all_once_in_order_and_within_its_bounds(gaps: list[int], lasts: list[int]) -> None:
    after, most = 100, 500
    debouncer = Debouncer(after, most)
    arrivals = [sum(gaps[: n + 1]) for n in range(len(gaps))]
    pushed: list[int] = []
    now, free_at = 0, NEVER
    coming = list(enumerate(arrivals))
    while coming or debouncer.pending or free_at < NEVER:
        now = min(coming[0][1] if coming else NEVER, debouncer.due, free_at)
        batch = None
        if coming and coming[0][1] == now:
            debouncer.submit(now, coming.pop(0)[0])
            continue
        if free_at == now:
            free_at = NEVER
            batch = debouncer.finished(now)
        else:
            batch = debouncer.tick(now)
        if batch:
            assert free_at == NEVER, "one Push at a time"
            assert now - arrivals[batch.requests[-1]] >= after or batch.held
            if batch.held:
                assert now - batch.since >= most
            pushed += batch.requests
            free_at = now + lasts[len(pushed) % len(lasts)]
    assert pushed == list(range(len(arrivals)))


def test_a_busy_stream_is_held_back_until_the_maximum() -> None:
    debouncer = Debouncer(100, 1000)
    batch, now = None, 0
    for now in range(0, 3000, 50):
        if debouncer.due <= now:
            batch = debouncer.tick(debouncer.due)
            if batch:
                break
        debouncer.submit(now, now)
    assert batch is not None
    assert batch.held
    assert 1000 <= now < 1100 + 50


# ---- queue, limiter, knobs


@settings(max_examples=100)
@given(st.lists(st.tuples(st.sampled_from(["push", "take", "done"]), st.integers(0, 3)), max_size=60))
def test_the_queue_never_holds_a_connection_twice_and_loses_no_push(steps: list[tuple[str, int]]) -> None:
    queue, push, taken = PushQueue(4), 0, []
    got: dict[int, list[tuple[int, int]]] = {c: [] for c in range(4)}
    for step, connection in steps:
        if step == "push":
            for c in range(4):
                queue.enqueue(c, push, 10 * push)
            push += 1
        elif step == "take" and len(queue):
            event = queue.dequeue()
            assert event.start == 10 * event.first, "the oldest Start is kept"
            got[event.connection].append((event.first, event.last))
            taken.append(event.connection)
        elif step == "done" and connection in taken:
            taken.remove(connection)
            queue.done(connection)
        assert len(queue) <= 4
        assert len(set(queue.line)) == len(queue.line)
        assert not set(queue.line) & set(taken)
    for intervals in got.values():
        assert all(b[0] == a[1] + 1 for a, b in pairwise(intervals))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_what_is_merged_holds_pushes_that_were_overtaken(pushes: list[int]) -> None:
    """Without PILOT_ENABLE_EDS_DEBOUNCE a push about endpoints may come before one that began sooner."""
    queue = PushQueue(1)
    for push in pushes:
        queue.enqueue(0, push, 0)
    event = queue.dequeue()
    assert (event.first, event.last) == (min(pushes), max(pushes))


def test_the_limiter_admits_at_its_rate_and_refuses_whoever_would_wait_a_second() -> None:
    limiter = RequestLimiter(10)
    admitted = [limiter.arrive(0) for _ in range(12)]
    assert admitted[:11] == [n * SECOND // 10 for n in range(11)]
    assert admitted[11] == NEVER
    assert limiter.arrive(SECOND) == 11 * SECOND // 10


def test_draws_are_spread_evenly() -> None:
    counts = [0] * 10
    for who in range(5000):
        counts[draw(1, 2, who, 3) % 10] += 1
    assert all(400 < count < 600 for count in counts)


@pytest.mark.parametrize(
    ("release", "cpus", "throttle", "streams"),
    [("1.20", 4, 100, 25), ("1.21", 1, 20, 20), ("1.24.6", 4, 35, 35), ("1.30", 32, 100, 100), ("1.27", 0.5, 20, 20)],
)
def test_defaults_by_release_and_cores(release: str, cpus: float, throttle: int, streams: int) -> None:
    found = knobs(release, cpus, {})
    assert (found.throttle, found.streams_per_s) == (throttle, streams)
    assert (found.debounce_after_ns, found.debounce_max_ns) == (100 * MS, 10_000 * MS)


def test_knobs_are_read_from_the_environment_and_errors_name_them() -> None:
    found = knobs(
        "1.24", 4, {"PILOT_PUSH_THROTTLE": "7", "PILOT_DEBOUNCE_AFTER": "1s", "PILOT_ENABLE_EDS_DEBOUNCE": "0"}
    )
    assert (found.throttle, found.debounce_after_ns, found.eds_debounce) == (7, SECOND, False)
    for name in ("PILOT_DEBOUNCE_MAX", "GRPC_KEEPALIVE_INTERVAL"):
        with pytest.raises(InputError, match=name):
            knobs("1.24", 4, {name: "10"})


@pytest.mark.parametrize(("text", "seconds"), [("45s", 45), ("10ms", 1), ("0", 2 * 3600)])
def test_streams_are_pinged_no_more_often_than_grpc_does_and_by_its_own_default_if_never_is_asked(
    text: str, seconds: int
) -> None:
    assert knobs("1.24", 4, {"GRPC_KEEPALIVE_INTERVAL": text}).keepalive_ns == seconds * SECOND


# ---- the thirteen traps


class Rig:
    """A machine with a minimal driver: everything in the machine's own order, without simpy."""

    def __init__(self, planner: FakePlanner, names: Sequence[str], *, cpus: float = 4, **knob: object) -> None:
        self.planner = planner
        usual = {"throttle": 100, "streams_per_s": 1000, "keepalive_ns": NEVER}  # so that all comes to an end
        settings = Knobs(**{**usual, **knob})  # type: ignore[arg-type]
        changes = [Change(name=name) for name in names]
        self.machine = Machine(
            [planner],
            changes,
            cpus=cpus,
            knobs=settings,
            prices=Prices(shipped("1.24")),
            clients=Clients(),
            seed=1,
            keep_log=True,
        )
        self.now = 0
        self.machine.connect_all(0)
        while not self.machine.settled:
            self.until(self.now + SECOND)
        self.machine.start_counting(self.now)
        self.replica = self.machine.replicas[0]
        assert self.machine.log is not None
        self.machine.log.clear()
        self.log = self.machine.log
        self.tally = self.machine.tally

    def write(self, change: int) -> None:
        self.machine.write(self.now, change)

    def until(self, end: int) -> None:
        """Everything due before `end`."""
        machine = self.machine
        while True:
            dues = [(machine.tick_due(0), 0), (machine.finish_due(0), 1), (machine.wake_due(), 2)]
            at, what = min(dues)
            if at >= end or at == NEVER:
                break
            self.now = at
            if what == 0:
                machine.tick(at, 0)
            elif what == 1:
                machine.finish(at, 0)
            else:
                machine.wake(at)
        if end < NEVER:
            self.now = end

    def of(self, *kinds: int) -> list[tuple[int, int, int, int, int]]:
        return [entry for entry in self.log if entry[1] in kinds]


@pytest.mark.parametrize("together", [1, 3])
def test_what_came_meanwhile_is_read_at_once_and_several_are_handled_after_the_first_line(together: int) -> None:
    rig = Rig(FakePlanner((1,), services=4), [f"svc:{n}" for n in range(together)], cpus=1)
    cores = rig.replica.cores
    ms, busy, asks = SECOND // 1000, WAKES_NOBODY, READING << 32
    cores.start(rig.now, busy, ms)
    for change in range(together):
        rig.write(change)
    cores.start(rig.now, asks, ms, POLLED)
    while rig.replica.handling[0] != HANDLES:
        rig.until(rig.machine.finish_due(0) + 1)
    assert not rig.replica.inboxes[0]
    handling = HANDLING << 32
    assert cores.jobs == ([handling, asks] if together == 1 else [asks, handling])
    rig.until(rig.now + 20 * ms)
    assert rig.replica.handling[0] == RESTS and len(rig.replica.unpushed) == together


def until_phase(rig: Rig, c: int, phase: int) -> None:
    while rig.machine.phase[c] != phase:
        rig.until(min(rig.machine.tick_due(0), rig.machine.finish_due(0), rig.machine.wake_due()) + 1)


def waits(rig: Rig, kind: int, line: int) -> bool:
    return any(job == kind << 32 for job, _ in rig.replica.cores.lines[line])


@pytest.mark.parametrize(("times", "line"), [(1, POLLED), (6, 0)])
def test_a_writer_with_little_to_write_yields_first(times: int, line: int) -> None:
    """An EDS response of 200 bytes is less than loopyWriter's minBatchSize, six times that is not."""
    rig = Rig(FakePlanner((1,), services=1, times=times), ["ep:0"], cpus=1)
    rig.write(0)
    until_phase(rig, 0, PUSHING)
    rig.replica.cores.wait(WAKES_NOBODY, 50 * MS)
    until_phase(rig, 0, WRITING)
    assert waits(rig, SENDING, line) and not waits(rig, SENDING, 1 - line)
    rig.until(NEVER)
    assert len(rig.of(SENT)) == 1 and rig.machine.phase[0] == IDLE


def test_what_is_sent_while_the_writer_yields_for_a_ping_is_written_when_it_has_a_core_again() -> None:
    rig = Rig(FakePlanner((1,), services=1, times=6), ["ep:0"], cpus=1)
    rig.write(0)
    until_phase(rig, 0, PUSHING)
    rig.machine._acked(rig.replica, 0)
    rig.machine._acked(rig.replica, 0)
    assert [job >> 32 for job, _ in rig.replica.cores.lines[1]] == [YIELDING], "one ping at a time"
    until_phase(rig, 0, WRITING)
    assert rig.replica.cores.jobs == [YIELDING << 32] and not rig.of(SENT)
    rig.until(NEVER)
    assert len(rig.of(SENT)) == 1 and not rig.machine.yields[0]


def test_a_send_that_finds_the_quota_unwritten_keeps_its_slot_and_lets_others_have_the_core() -> None:
    """CDS of 80 kB, then LDS: the second Send waits while the writer yields for a ping."""
    rig = Rig(FakePlanner((1,), services=1, times=80), ["cfg:0"], cpus=1, throttle=1)
    rig.write(0)
    until_phase(rig, 0, PUSHING)
    rig.machine._acked(rig.replica, 0)
    rig.replica.cores.wait(WAKES_NOBODY, 50 * MS)
    until_phase(rig, 0, BLOCKED)
    blocked = rig.now
    assert rig.replica.free == 0 and not rig.of(SENT)
    until_phase(rig, 0, PUSHING)
    assert rig.now - blocked > 10 * MS, "another had a slice of the core"
    assert [entry[4] for entry in rig.of(SENT)] == [0], "only the first is written"
    rig.until(NEVER)
    assert [entry[4] for entry in rig.of(SENT)] == [0, 1, 2] and rig.replica.free == 1


def test_what_is_written_waits_behind_the_acks_of_a_push() -> None:
    rig = Rig(FakePlanner((8,), services=2), ["svc:0", "svc:1"], cpus=1)
    cores = rig.replica.cores
    rig.write(0)
    while not any(job >> 32 == ACKING for job, _ in cores.lines[1]):
        rig.until(min(rig.machine.tick_due(0), rig.machine.finish_due(0), rig.machine.wake_due()) + 1)
    before = sum(job >> 32 == ACKING for job in cores.jobs)
    rig.write(1)
    waiting = [job >> 32 for job, _ in cores.lines[1]]
    assert waiting == [ACKING] * before + [HANDLING]
    rig.until(NEVER)
    assert not cores.jobs, "all were read"


def test_01_convergence_starts_after_debounce_and_push_context() -> None:
    rig = Rig(FakePlanner((1,), services=5000), ["svc:0"])
    begun = rig.now
    rig.write(0)
    rig.until(NEVER)
    published = rig.of(PUBLISHED)[0][0]
    context = rig.machine.prices.work_ns({"push.services": 5000})
    assert published - begun > 100 * MS + context
    assert list(rig.tally.converged) == [rig.of(PUSHED)[0][0] - published]
    assert rig.tally.debounced[0] >= 100 * MS + context


def test_02_a_slot_is_held_while_the_connection_is_busy() -> None:
    planner = FakePlanner((2,), services=2)
    rig = Rig(planner, ["svc:0"], throttle=1)
    busy = rig.machine.ring[0]
    rig.machine.phase[busy] = 4  # answering a request
    rig.write(0)
    rig.until(NEVER)
    waiting = rig.machine.offered[busy]
    if waiting is None:  # the ring began at the other one, which was served first and left the slot
        assert len(rig.of(PUSHED)) == 1
    assert rig.machine.offered[busy] is not None
    assert rig.replica.free == 0
    assert [entry[2] for entry in rig.of(DEQUEUED)][-1] == busy, "taken before the connection was free"
    pushed = len(rig.of(PUSHED))
    rig.machine.phase[busy] = IDLE
    rig.machine._next_on(rig.now, busy)
    rig.until(NEVER)
    assert len(rig.of(PUSHED)) == 2 > pushed
    assert rig.replica.free == 1


def test_03_requests_bypass_the_throttle() -> None:
    planner = FakePlanner((4,), services=2, solicited=True)
    rig = Rig(planner, ["svc:0"], throttle=1)
    rig.write(0)
    rig.until(NEVER)
    replies = [entry for entry in rig.of(SENT) if entry[4] == 4]
    assert len(replies) == 4
    # An answer goes out while the only slot is with somebody else.
    dequeued = [entry[0] for entry in rig.of(DEQUEUED)]
    assert len(dequeued) == 4
    assert rig.tally.considered == 4, "no slot and no queue for answers"
    connects = Rig(FakePlanner((50,)), [], throttle=1)
    assert connects.replica.free == 1
    assert connects.machine.tally.considered == 0


def test_04_merging_keeps_the_oldest_start_so_delays_grow_under_overload() -> None:
    planner = FakePlanner((60,), services=1200, unscoped=True)
    rig = Rig(planner, [f"svc:{n}" for n in range(12)], cpus=1, throttle=5)
    for change in range(12):
        rig.write(change)
        rig.until(rig.now + 150 * MS)
    rig.until(NEVER)
    merged = [entry for entry in rig.of(DEQUEUED) if entry[4] > entry[3]]
    assert merged, "pushes were merged"
    starts = {push.number: push.start for push in rig.tally.pushes}
    done = {(entry[2], entry[4]): entry for entry in rig.of(PUSHED)}
    expected = sorted(entry[0] - starts[entry[3]] for entry in done.values())
    assert sorted(rig.tally.converged) == expected
    assert rig.replica.queue.longest <= 60


def test_05_spared_proxies_take_a_slot_and_give_queue_samples_but_no_convergence() -> None:
    rig = Rig(FakePlanner((3, 5), services=2), ["svc:0"])
    rig.write(0)
    rig.until(NEVER)
    assert (rig.tally.considered, rig.tally.pushed) == (8, 3)
    assert (len(rig.tally.queued), len(rig.tally.converged)) == (8, 3)
    assert len(rig.of(SPARED)) == 5
    spared = rig.of(SPARED)[0]
    taken = next(entry for entry in rig.of(DEQUEUED) if entry[2] == spared[2])
    assert spared[0] > taken[0], "sparing costs work"


def test_06_a_tick_during_a_push_is_lost_and_the_end_of_the_push_looks_again() -> None:
    debouncer = Debouncer(100, 10_000)
    debouncer.submit(0, 0)
    assert debouncer.tick(100)
    debouncer.submit(120, 1)
    assert debouncer.due == 220
    assert debouncer.tick(220) is None
    assert debouncer.due == NEVER, "lost, not deferred"
    assert debouncer.finished(5000) == Batch((1,), 120, held=False)


def test_07_endpoint_events_evict_what_depends_on_the_host_routes_too() -> None:
    cache = XdsCache({"CDS", "EDS", "RDS"})
    one = View(0, *_cells([0], [1], [0]))
    route = View(1, *_cells([9], [1], [50]))
    assert cache.read("EDS", one, 10, 100) == (1, 0)
    assert cache.read("RDS", route, 10, 100) == (1, 50)
    assert cache.read("RDS", route, 0, 100) == (0, 0)
    cache.clear(
        20, dropped(_cells([0, 9], [1], [0])[0])
    )  # the planner names every dependent cell, the route among them
    assert cache.read("RDS", route, 0, 100) == (1, 50)
    assert cache.bytes == 0


def test_08_the_token_refuses_entries_older_than_the_last_event() -> None:
    cache = XdsCache({"CDS", "EDS", "RDS"})
    view = View(0, *_cells([1, 2], [3, 4], [0, 0]))
    cache.clear(50, Evicted())  # an event arrives while a fan-out that started at 40 drains
    assert cache.read("CDS", view, 40, 700) == (7, 0)
    assert cache.read("CDS", view, 0, 700) == (7, 0)
    assert cache.read("CDS", view, 60, 700) == (7, 0), "a proxy that was never pushed does not write"
    assert cache.read("CDS", view, 0, 700) == (0, 0)
    assert cache.bytes == 700


def test_what_somebody_makes_is_made_by_nobody_else() -> None:
    cache = XdsCache({"CDS"})
    both, more = View(0, *_cells([1, 2], [3, 4], [0, 0])), View(1, *_cells([1, 2, 3], [3, 4, 5], [0, 0, 0]))
    assert cache.read("CDS", both, 40, 700) == (7, 0)
    assert cache.read("CDS", more, 40, 1200) == (5, 0), "it comes behind the first"
    cache.clear(50, dropped(both.cells[:1]))
    for _ in range(2):
        assert cache.read("CDS", both, 40, 700) == (3, 0), "what is not evicted stays, what is made now is refused"


def test_each_locality_has_clusters_and_endpoints_of_its_own_in_the_cache_but_not_routes() -> None:
    cache = XdsCache({"CDS", "EDS", "RDS"}, localities=2)
    view, route = View(0, *_cells([1], [3], [0])), View(1, *_cells([2], [1], [50]))
    cache.read("CDS", view, 10, 300, locality=1)
    cache.read("RDS", route, 10, 1000, locality=1)
    assert cache.read("CDS", view, 0, 300, locality=0) == (3, 0)
    assert cache.read("CDS", view, 0, 300, locality=1) == (0, 0)
    assert cache.read("RDS", route, 0, 1000, locality=0) == (0, 0)
    cache.read("CDS", view, 10, 300, locality=0)
    assert cache.bytes == 1600
    cache.clear(20, dropped(view.cells))
    assert [cache.read("CDS", view, 0, 300, locality) for locality in (0, 1)] == [(3, 0), (3, 0)]
    assert cache.bytes == 1000


def test_an_entry_whose_key_has_changed_stays_until_something_changes_that_it_knows() -> None:
    def at(*numbers: int) -> NDArray[np.int64]:
        return np.array(numbers, dtype=np.int64)

    cache = XdsCache({"RDS"}, most=3)
    cell = _cells([4], [1], [50])[0]

    def made_anew(number: int, size: int) -> None:
        """A service comes that the route does not have, and the route is asked for."""
        cache.clear(number, Evicted(outdated=cell, at=number))
        assert cache.read("RDS", View(number, *_cells([4], [1], [50])), number, size) == (1, 50)

    made_anew(1, 100)
    made_anew(2, 10)
    assert cache.bytes == 110
    cache.clear(3, Evicted(cell, at(2)))  # the service that came second changes
    assert cache.bytes == 100, "what was made before it came does not know it"
    made_anew(4, 20)
    made_anew(5, 30)
    assert cache.bytes == 150
    for number in (6, 7):
        made_anew(number, 40)
    assert cache.bytes == 20 + 30 + 40 + 40, "of those that nobody finds three stay, the latest"
    cache.clear(8, Evicted(cell, at(-1)))  # what has always been there
    assert cache.bytes == 0


def test_08_what_churn_evicts_is_missed_by_each_proxy_until_the_next_push() -> None:
    def misses(*, churn: bool) -> tuple[int, int]:
        """What a push missed of its clusters, and how many proxies it reached after the event had evicted one."""
        rig = Rig(FakePlanner((40,), services=400, unscoped=True), ["svc:0", "ep:1"], cpus=2, throttle=1)
        rig.write(0)
        while not rig.of(PUBLISHED):
            rig.until(rig.now + MS // 10)
        cache, evicted = rig.machine.replicas[0].cache, [NEVER]
        clear = cache.clear
        cache.clear = lambda now, cells: (evicted.insert(0, min(evicted[0], now)), clear(now, cells))  # type: ignore
        if churn:
            rig.write(1)
        rig.until(NEVER)
        plan = next(plan for plan in rig.machine.plans if (plan.first, plan.last) == (0, 0))
        assert plan.planned.responses[0].xds == "CDS"
        after = [at for at, *_, first, last in rig.of(DEQUEUED) if (first, last) == (0, 0) and at >= evicted[0]]
        return plan.missed_resources[0], len(after)

    assert misses(churn=False) == (400, 0), "the first fills the cache for all others"
    missed, after = misses(churn=True)
    assert after > 1
    assert missed == 400 + after, "who is pushed after the event may not keep what it makes"


def _cells(cells: list[int], resources: list[int], units: list[int]) -> tuple[Cells, Cells, Cells]:
    as_array = [np.array(values, dtype=np.int32) for values in (cells, resources, units)]
    return as_array[0], as_array[1], as_array[2]


def test_09_the_machine_sends_what_is_planned_listeners_whole() -> None:
    """That LDS is a complete set is the planner's; the machine prices and sends all of each response."""
    rig = Rig(FakePlanner((1,), services=30, unscoped=True), ["svc:0"])
    rig.write(0)
    rig.until(NEVER)
    plan = next(plan for plan in rig.machine.plans if plan.first == 0)
    sizes = {r.xds: r.size_bytes for r in plan.planned.responses}
    assert [r.xds for r in plan.planned.responses] == ["CDS", "EDS", "LDS", "RDS"]
    assert plan.prices[2].hit_ps >= sizes["LDS"] * rig.machine.prices.ps["send.bytes"]
    assert plan.prices[2].cached == 0


def test_10_prometheus_shows_no_more_than_thirty_seconds() -> None:
    histogram = Histogram.of_ns(BOUNDS["pilot_proxy_convergence_time"], [90 * SECOND] * 100)
    assert histogram.quantile(0.99) == 30


def test_11_connections_end_by_age_and_come_back_with_full_generations() -> None:
    planner = FakePlanner((20,), services=3)
    rig = Rig(planner, [])
    rig.machine.reconnect_ns = 60 * SECOND
    rig.machine.start_aging(rig.now)
    begun = rig.now
    rig.until(begun + 600 * SECOND)
    back = rig.of(CONNECTED)
    assert 20 * 600 / 60 * 0.7 < len(back) < 20 * 600 / 60 * 1.3
    sent = sum(sum(plan.sent) for plan in rig.machine.plans)
    assert sent == 4 * len(back)


def test_12_an_empty_config_set_poisons_the_batch_until_1_25() -> None:
    """The batch goes to the planner request by request, in order; merging them is PushRequest's, by release."""
    rig = Rig(FakePlanner((1,), services=9), ["svc:3", "cfg:1", "ep:4"])
    for change in (0, 1, 2):
        rig.write(change)
    rig.until(NEVER)
    assert [(kind, service) for _, kind, service in rig.planner.pushes[0]] == [("svc", 3), ("cfg", 1), ("ep", 4)]
    keyed = PushRequest(keys=frozenset({("ServiceEntry", "a", "b")}))  # type: ignore[arg-type]
    assert keyed.merge(PushRequest(), rules("1.24")).everything(rules("1.24"))
    assert not keyed.merge(PushRequest(), rules("1.26")).everything(rules("1.26"))


def test_13_what_a_proxy_gets_is_decided_on_the_merged_interval_and_its_own_state() -> None:
    planner = FakePlanner((30,), services=300, unscoped=True)
    rig = Rig(planner, [f"svc:{n}" for n in range(6)], cpus=0.2, throttle=1)
    for change in range(6):
        rig.write(change)
        rig.until(rig.now + 120 * MS)
    rig.until(NEVER)
    intervals = {(first, last) for _, _, first, last, _ in planner.asked}
    assert any(last > first for first, last in intervals)
    assert {entry[3:] for entry in rig.of(DEQUEUED)} == intervals
    shown = sum(len(plan.planned.responses[0].shows) * plan.sent[0] for plan in rig.machine.plans if plan.first >= 0)
    assert shown == 180 == len(rig.tally.received), "each proxy is shown each change once"


@pytest.mark.parametrize("sotw", [True, False])
def test_requests_with_an_old_nonce_are_ignored(sotw: bool) -> None:
    """A request that waits while more of its type is sent is stale; delta's requests to subscribe carry no nonce."""
    stale = 0
    for cpus in (0.2, 0.225, 0.25, 0.275, 0.3, 0.325, 0.35):  # some request waits that long in some of these
        planner = FakePlanner((30,), services=300, unscoped=True, solicited=True, sotw=sotw)
        rig = Rig(planner, [f"svc:{n}" for n in range(30)], cpus=cpus, throttle=30)
        for change in range(30):
            rig.write(change)
            rig.until(rig.now + 200 * MS)
        rig.until(NEVER)
        pushed = sum(plan.sent[1] for plan in rig.machine.plans if plan.first >= 0)
        answers = sum(plan.sent[4] for plan in rig.machine.plans if plan.first >= 0)
        assert pushed > 30
        assert answers >= 30, "the last request is answered"
        assert rig.machine.drained
        stale += pushed - answers
    assert (stale > 0) == sotw
    quiet = Rig(FakePlanner((30,), services=3, unscoped=True, solicited=True, sotw=sotw), ["svc:0", "svc:1"])
    for change in range(2):
        quiet.write(change)
        quiet.until(quiet.now + 5 * SECOND)
    assert sum(plan.sent[4] for plan in quiet.machine.plans if plan.first >= 0) == 60


# ---- beyond the traps


def test_endpoint_changes_go_around_the_debouncer_if_told_to() -> None:
    rig = Rig(FakePlanner((1,), services=2), ["ep:0"], eds_debounce=False)
    begun = rig.now
    rig.write(0)
    rig.until(NEVER)
    assert rig.of(PUBLISHED)[0][0] - begun < 2 * MS
    assert not len(rig.tally.debounced)


def test_builders_of_scopes_take_turns_and_each_scope_is_built_once() -> None:
    def last(lazy: bool) -> tuple[int, int]:
        planner = FakePlanner((10, 10, 10), services=3000, unscoped=True, lazy_scopes=lazy)
        rig = Rig(planner, ["svc:0"], cpus=64)
        rig.write(0)
        rig.until(NEVER)
        return rig.of(PUSHED, SPARED)[-1][0] - rig.of(PUBLISHED)[0][0], rig.tally.amounts["scope.derived"]

    lazy, work = last(True)
    eager, none = last(False)
    assert (work, none) == (3 * 3000, 0)
    once = Prices(shipped("1.24")).work_ns({"scope.derived": 3000})
    assert lazy >= 3 * once
    assert lazy > eager


def test_a_proxy_update_bypasses_debounce_and_reaches_only_its_proxy() -> None:
    rig = Rig(FakePlanner((3,), services=3), ["svc:0", "proxy:0.1"])
    rig.write(0)
    rig.until(NEVER)
    rig.log.clear()
    begun = rig.now
    rig.write(1)
    rig.until(NEVER)
    assert [entry[2] for entry in rig.of(PUSHED)] == [1]
    assert rig.of(DEQUEUED)[0][0] - begun < 5 * MS < rig.machine.replicas[0].knobs.debounce_after_ns
    assert rig.planner.asked[-1] == (0, 0, 0, 0, True)


def test_pods_come_and_go() -> None:
    rig = Rig(FakePlanner((3,), services=3, late=1), ["join:0.2", "svc:0", "leave:0.0", "svc:1"])
    assert rig.replica.connected == 2
    rig.write(0)
    rig.until(rig.now + 5 * SECOND)
    assert rig.replica.connected == 3
    rig.write(1)
    rig.until(rig.now + 5 * SECOND)
    assert rig.tally.considered == 3
    rig.write(2)
    rig.until(rig.now + 5 * SECOND)
    rig.write(3)
    rig.until(NEVER)
    assert rig.tally.considered == 5
    assert rig.replica.connected == 2


def test_a_restarted_istiod_gets_its_proxies_back_and_loses_no_change() -> None:
    planner = FakePlanner((20,), services=50, unscoped=True)
    rig = Rig(planner, ["svc:0", "svc:1"], cpus=1, throttle=2)
    rig.write(0)
    rig.until(rig.now + 105 * MS)
    rig.write(1)
    rig.until(rig.now + MS // 10)
    rig.machine.restart(rig.now, 0)
    assert rig.replica.connected == 0
    rig.until(NEVER)
    assert rig.machine.settled
    assert rig.replica.connected == 20
    assert {service for push in planner.pushes for _, _, service in push} == {0, 1}
    assert PUSHING not in rig.machine.phase


@settings(max_examples=25)
@given(
    names=st.lists(st.sampled_from(["ep:0", "ep:3", "svc:1", "svc:5", "cfg:2", "no"]), min_size=1, max_size=12),
    gaps=st.lists(st.integers(0, 250), min_size=12, max_size=12),
    throttle=st.integers(1, 5),
    cpus=st.sampled_from([0.5, 1, 4]),
)
def test_every_change_reaches_every_proxy_that_imports_it_once(
    names: list[str], gaps: list[int], throttle: int, cpus: float
) -> None:
    planner = FakePlanner((4, 3, 2), services=9, solicited=True, lazy_scopes=True)
    rig = Rig(planner, names, cpus=cpus, throttle=throttle)
    for change, gap in enumerate(gaps[: len(names)]):
        rig.write(change)
        rig.until(rig.now + gap * MS)
    rig.until(NEVER)
    assert rig.machine.settled
    sizes = (4, 3, 2)
    expected = sum(sizes[int(name[-1]) % 3] for name in names if name != "no")
    assert len(rig.tally.received) == expected
    assert min(rig.tally.received, default=SECOND) >= 100 * MS
    assert rig.replica.free == throttle
    assert rig.tally.flight[0].value == 0


def test_streams_are_looked_after_and_pinged_when_they_say_nothing() -> None:
    rig = Rig(FakePlanner((3,), services=4), ["svc:0"], keepalive_ns=30 * SECOND)
    opened = rig.now
    rig.until(opened + 20 * SECOND)
    rig.write(0)  # all are pushed, and say so
    looked = []
    for seconds in (28, 40, 55, 65, 115):
        rig.until(opened + seconds * SECOND)
        looked.append(rig.tally.amounts["stream.keepalives"])
    # at 30 s all is well until 50 s; there and at 80 and 110 s they are pinged, and looked at again 10 s later
    assert looked == [0, 3, 6, 9, 18]
