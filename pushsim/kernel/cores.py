"""`control.cores` compiled."""

from __future__ import annotations

from pushsim.control.cores import (
    BATCH,
    FAIR,
    LOCK,
    LOCKED,
    NEVER,
    NEXT,
    NOBODY,
    PREEMPTED,
    SECOND,
    SYSMON,
    THOUSAND,
    TICKS,
)
from pushsim.control.state import SERVING
from pushsim.control.tally import Ints
from pushsim.cost import PACE
from pushsim.kernel.arrays import (
    C_AT_REST,
    C_AT_REST_END,
    C_CLOCK,
    C_CYCLE,
    C_DUE,
    C_FAST,
    C_HALF,
    C_HEAD,
    C_HOLDER,
    C_JOBS,
    C_LATE,
    C_LOCKED,
    C_MOST,
    C_NOW,
    C_PARTS,
    C_PER_CYCLE,
    C_PICKED,
    C_RESTED,
    C_RESTS_SINCE,
    C_SECOND,
    C_USUAL,
    C_VACATED,
    C_WAKE,
    C_WHOLE,
    C_WOKEN,
    C_WOKEN_NEXT,
    J_JOB,
    J_LEFT,
    J_MARK,
    J_SLICE,
    M_PACE,
    M_TICKS,
    M_WORK,
    MAKING,
    N_TO_MAKE,
    UNKNOWN,
    W_AT,
    W_LONG,
    Arrays,
)
from pushsim.kernel.parts import add_level, copy_row
from pushsim.kernel.struct import called, compiled


@called
def advance(a: Arrays, r: int, now: int) -> None:
    """`Cores.advance`."""
    core = a.cores[r]
    elapsed = now - core[C_NOW]
    if elapsed <= 0:
        return
    jobs, rate = core[C_JOBS], 0
    if jobs > 0:
        wanted = jobs * core[C_PARTS]
        if wanted <= core[C_WHOLE]:
            core[C_CLOCK] += TICKS * elapsed
            rate = wanted
        else:
            core[C_CLOCK] += TICKS * elapsed * core[C_WHOLE] // wanted
            rate = core[C_WHOLE]
    elif core[C_CYCLE]:
        go_on_marking(a, r, now)
    spend(a, r, now, rate)
    core[C_DUE] = UNKNOWN


@compiled
def go_on_marking(a: Arrays, r: int, now: int) -> None:
    """`Cores._mark`."""
    core = a.cores[r]
    number, since = core[C_RESTED] // core[C_CYCLE], core[C_RESTED] % core[C_CYCLE]
    marking = marking_in(core, number)
    left, costs = core[marking + M_TICKS] - since, PACE - core[marking + M_PACE]
    if left <= 0 or costs <= 0:
        return
    rate = min(core[C_WHOLE], core[C_PARTS])
    ends = core[C_RESTS_SINCE] - (left * costs // -PACE * core[C_PARTS] // (TICKS * rate))
    if now < ends:
        worked = TICKS * (now - core[C_RESTS_SINCE]) * rate // core[C_PARTS]
        core[C_CLOCK] = core[C_RESTED] + worked * PACE // costs
    else:
        core[C_CLOCK] = core[C_RESTED] + left
        if not is_late(core, number):
            core[C_AT_REST] = number
        core[C_AT_REST_END] = number + 1
    if core[C_NOW] < ends:
        spend(a, r, min(now, ends), rate)


@compiled
def spend(a: Arrays, r: int, until: int, rate: int) -> None:
    """`Cores._spend`."""
    core = a.cores[r]
    since = core[C_NOW]
    while until >= (core[C_SECOND] + 1) * SECOND:
        ends = (core[C_SECOND] + 1) * SECOND
        a.spent[r, core[C_SECOND]] += (ends - since) * rate
        since = ends
        core[C_SECOND] += 1
    a.spent[r, core[C_SECOND]] += (until - since) * rate
    core[C_NOW] = until


@called
def due(a: Arrays, r: int) -> int:
    """`Cores.due`, reckoned when it is asked for after a change."""
    core = a.cores[r]
    if core[C_DUE] != UNKNOWN:
        return int(core[C_DUE])
    if core[C_JOBS] == 0:
        core[C_DUE] = NEVER
        return NEVER
    left = a.running[r, core[C_HEAD], J_MARK] - core[C_CLOCK]
    core[C_DUE] = core[C_NOW] + time_for(left, core[C_JOBS] * core[C_PARTS], core[C_WHOLE])
    return int(core[C_DUE])


@compiled
def time_for(left: int, wanted: int, whole: int) -> int:
    """How long it takes until the clock shows so much more."""
    if left <= 0:
        return 0
    if wanted <= whole:
        return (left + TICKS - 1) // TICKS
    per = TICKS * whole
    return (left * wanted + per - 1) // per


@called
def start(a: Arrays, r: int, now: int, job: int, work: int, line: int) -> None:
    """`Cores.start`."""
    advance(a, r, now)
    core = a.cores[r]
    if core[C_JOBS] == 0:
        rest = now - core[C_RESTS_SINCE]
        cold = THOUSAND * rest // (rest + core[C_HALF])
        core[C_WOKEN] += cold
        work += core[C_WAKE] * cold // THOUSAND
    ticks = TICKS * work
    if core[C_JOBS] == core[C_MOST]:
        wait(a, r, line, job, ticks)
    elif core[C_VACATED] and core[C_VACATED] <= core[C_CLOCK]:
        core[C_VACATED] = 0
        wait(a, r, 1, job, ticks)
    else:
        run_on(a, r, job, ticks, core[C_VACATED] if core[C_VACATED] else slice_ends_of(core))
        core[C_VACATED] = 0
    a.cores[r, C_DUE] = UNKNOWN


@compiled
def slice_ends_of(core: Ints) -> int:
    """`Cores._slice_ends`."""
    since = core[C_CLOCK]
    if core[C_CYCLE]:
        marking = marking_in(core, since // core[C_CYCLE])
        since += max(0, core[marking + M_TICKS] - since % core[C_CYCLE])
    return int((since // SYSMON + 2) * SYSMON)


@called
def wait(a: Arrays, r: int, line: int, job: int, ticks: int) -> None:
    """A job goes to the end of a line, or is the first of the first one."""
    if line == NEXT:
        of, ring = a.line_of[0, r], a.lines[0, r]
        of[W_AT] = place = of[W_AT] - 1 if of[W_AT] else ring.shape[0] - 1
    else:
        of, ring = a.line_of[line, r], a.lines[line, r]
        place = of[W_AT] + of[W_LONG]
        if place >= ring.shape[0]:
            place -= ring.shape[0]
    ring[place, 0], ring[place, 1] = job, ticks
    of[W_LONG] += 1


@called
def fill(a: Arrays, r: int) -> None:
    """`Cores.fill`."""
    core, first, second = a.cores[r], a.line_of[0, r], a.line_of[1, r]
    core[C_VACATED] = 0
    if core[C_JOBS] == core[C_MOST] or not (first[W_LONG] or second[W_LONG]):
        return
    while core[C_JOBS] < core[C_MOST] and (first[W_LONG] or second[W_LONG]):
        core[C_PICKED] += 1
        line = 1 if second[W_LONG] and core[C_PICKED] % FAIR == 0 else 0
        if line == 0 and first[W_LONG] == 0:
            for _ in range(min(second[W_LONG] // core[C_MOST] + 1, second[W_LONG], BATCH)):
                job, ticks = next_in(a, r, 1)
                wait(a, r, 0, job, ticks)
        job, ticks = next_in(a, r, line)
        run_on(a, r, job, ticks, slice_ends_of(core))
    a.cores[r, C_DUE] = UNKNOWN


@compiled
def next_in(a: Arrays, r: int, line: int) -> tuple[int, int]:
    """The first job of a line leaves it: which, and its ticks."""
    of, ring = a.line_of[line, r], a.lines[line, r]
    place = of[W_AT]
    of[W_AT] = 0 if place + 1 == ring.shape[0] else place + 1
    of[W_LONG] -= 1
    return ring[place, 0], ring[place, 1]


@compiled
def run_on(a: Arrays, r: int, job: int, ticks: int, slice_ends: int) -> None:
    """`Cores._run`."""
    core, running, c = a.cores[r], a.running[r], job & 0xFFFFFFFF
    if (job & ~LOCKED) >> 32 == SERVING and a.conn[c, N_TO_MAKE]:  # `Serving._runs`
        add_level(a, MAKING, r, core[C_NOW], a.conn[c, N_TO_MAKE])
        a.conn[c, N_TO_MAKE] = 0
    mark, left = mark_of(core, core[C_CLOCK], ticks, slice_ends)
    if core[C_HEAD] + core[C_JOBS] == running.shape[0]:
        for place in range(core[C_JOBS]):
            copy_row(running, place, running, core[C_HEAD] + place)
        core[C_HEAD] = 0
    insert(running, core[C_HEAD], core[C_JOBS], mark, job, left, slice_ends)
    core[C_JOBS] += 1


@compiled
def mark_of(core: Ints, clock: int, ticks: int, slice_ends: int) -> tuple[int, int]:
    """Of a job that gets a core: its mark, and what is left of it then (`Cores._run`)."""
    if core[C_CYCLE] == 0:
        mark = min(clock + ticks, slice_ends)
        return mark, clock + ticks - mark
    done = done_at(core, clock) + ticks
    mark = min(reached(core, done), slice_ends)
    return mark, max(0, done - done_at(core, mark))


@compiled
def is_late(core: Ints, number: int) -> bool:
    """Whether the marking before that of a cycle ended while the cores rested."""
    return bool(core[C_AT_REST] < number <= core[C_AT_REST_END])


@compiled
def marking_in(core: Ints, number: int) -> int:
    """`Cores._marking`: its first column."""
    return C_LATE if is_late(core, number) else C_USUAL


@compiled
def done_at(core: Ints, clock: int) -> int:
    """`Cores._done`, with a cycle."""
    number, since = clock // core[C_CYCLE], clock % core[C_CYCLE]
    marking = marking_in(core, number)
    ticks, work = core[marking + M_TICKS], core[marking + M_WORK]
    if since < ticks:
        of_cycle = min(work, since * core[marking + M_PACE] // PACE)
    else:
        of_cycle = work + (since - ticks) * core[C_FAST] // PACE
    return int(number * core[C_PER_CYCLE] + of_cycle)


@compiled
def reached(core: Ints, done: int) -> int:
    """`Cores._reaches`."""
    number, rest = done // core[C_PER_CYCLE], done % core[C_PER_CYCLE]
    marking = marking_in(core, number)
    ticks, work = core[marking + M_TICKS], core[marking + M_WORK]
    if rest <= work:
        return int(number * core[C_CYCLE] + min(ticks, -(-rest * PACE // core[marking + M_PACE])))
    return int(number * core[C_CYCLE] + ticks - ((work - rest) * PACE // core[C_FAST]))


@compiled
def insert(running: Ints, head: int, count: int, mark: int, job: int, left: int, slice_ends: int) -> None:
    """A job takes its place among so many that run; there is one behind them. Of equal marks the latest comes last."""
    place = head + count
    while place > head and running[place - 1, J_MARK] > mark:
        for column in range(4):  # a number that is known is unrolled
            running[place, column] = running[place - 1, column]
        place -= 1
    running[place, J_MARK], running[place, J_JOB] = mark, job
    running[place, J_LEFT], running[place, J_SLICE] = left, slice_ends


@called
def finish(a: Arrays, r: int, now: int) -> int:
    """`Cores.finish`."""
    advance(a, r, now)
    core = a.cores[r]
    first = a.running[r, core[C_HEAD]]
    core[C_HEAD] += 1
    core[C_JOBS] -= 1
    core[C_RESTS_SINCE], core[C_RESTED] = now, core[C_CLOCK]
    core[C_VACATED], core[C_DUE] = first[J_SLICE], UNKNOWN
    job, left, line = first[J_JOB], first[J_LEFT], 1
    if left:
        if job & LOCKED and left <= core[C_LOCKED] and core[C_HOLDER] == NOBODY:
            core[C_HOLDER] = job
    elif job & LOCKED and not passes(a, r, job):
        left, line = core[C_LOCKED], LOCK
    else:
        return int(job & ~LOCKED)
    core[C_VACATED] = 0
    wait(a, r, line, job, left)
    return PREEMPTED


@compiled
def passes(a: Arrays, r: int, job: int) -> bool:
    """`Cores._passes`."""
    core = a.cores[r]
    free = core[C_HOLDER] == NOBODY or core[C_HOLDER] == job
    if core[C_WOKEN_NEXT] == job:
        core[C_WOKEN_NEXT] = NOBODY
    if free:
        core[C_HOLDER] = NOBODY
        if a.line_of[LOCK, r, W_LONG] and core[C_WOKEN_NEXT] == NOBODY:
            core[C_WOKEN_NEXT], ticks = next_in(a, r, LOCK)
            wait(a, r, 0, core[C_WOKEN_NEXT], ticks)
    return bool(free)
