"""The loop that runs events until Python is needed, compiled."""

from __future__ import annotations

from numba import njit

from pushsim.control.state import (
    ASK,
    IDLE,
    SCOPING,
    SENDING,
    SERVING,
    UNBLOCK,
)
from pushsim.kernel.arrays import (
    ASKS,
    C_JOBS,
    CONSIDERED,
    CONVERGED,
    DETAILS,
    EXPECTED,
    FOLLOWING,
    K_TICK,
    KEEP_DETAILS,
    KEEP_LOG,
    LOG,
    N_GENERATION,
    N_PHASE,
    N_PLAN,
    N_SHAPED_AT,
    NOW,
    O_FIRST,
    O_LAST,
    O_RESOURCES,
    O_SENT,
    O_UNITS,
    P_COUNT,
    P_FIRST,
    PUSHES,
    QUEUED,
    REJECTED,
    REPLICA,
    SENDS,
    U_QUEUED_AT,
    U_SCOPED,
    U_TAKEN,
    WAKES,
    Arrays,
)
from pushsim.kernel.parts import advance, drop_wake, due, fill, finish
from pushsim.kernel.serving import (
    DONE,
    JOB,
    ROOM,
    TICK,
    WAKE,
    ask,
    begin_push,
    dispatch,
    generated,
    next_on,
    pushed,
    scope_built,
    sent,
    written,
)


@njit(cache=True)
def woken(a: Arrays, now: int) -> int:
    """`Machine.wake` for a proxy that asks and for a Send that returns."""
    wake = a.wakes[0]
    kind, c, generation, p, step = wake[2], wake[3], wake[4], wake[5], wake[6]
    drop_wake(a)
    a.s[EXPECTED] -= 1
    if generation != a.conn[c, N_GENERATION]:
        if kind == ASK and a.plans[p, P_FIRST] >= 0:
            a.s[FOLLOWING] -= 1
        return DONE
    if kind == UNBLOCK:
        return sent(a, now, c)
    ask(a, c, p, step)
    return next_on(a, now, c) if a.conn[c, N_PHASE] == IDLE else DONE


@njit(cache=True)
def resume(a: Arrays, now: int, r: int, c: int) -> int:
    """Go on after Python has planned the event that c (if not -1) is to take, then dispatch."""
    if c >= 0:
        status = begin_push(a, now, c)
        if status != DONE:
            return status
    return dispatch(a, now, r)


@njit(cache=True)
def has_room(a: Arrays, margin: int) -> bool:
    """Whether every array that an event may add to has so many places left."""
    s = a.s
    return bool(
        s[QUEUED] + margin <= a.queued.shape[0]
        and (not s[KEEP_LOG] or s[LOG] + margin <= a.log.shape[0])
        and s[CONVERGED] + margin <= a.converged.shape[0]
        and s[SENDS] + margin <= a.sends.shape[0]
        and (not s[KEEP_DETAILS] or s[DETAILS] + margin <= a.details.shape[0])
        and s[WAKES] + margin <= a.wakes.shape[0]
        and s[ASKS] >= 0
    )


@njit(cache=True)
def alone_until(a: Arrays, r: int, until: int) -> int:
    """The time before which ends of jobs on a replica come before whatever else the machine does."""
    for other in range(a.cores.shape[0]):
        until = min(until, a.replicas[other, K_TICK])
        if other != r:
            until = min(until, due(a, other) + int(other > r))
    return int(min(until, a.wakes[0, 0] + 1) if a.s[WAKES] > 0 else until)


@njit(cache=True)
def is_spared(a: Arrays, r: int) -> bool:
    """Whether the job that ends next, if there is one, is that of a connection that is sent nothing."""
    if a.cores[r, C_JOBS] == 0 or a.job_left[r, 0] or a.job[r, 0] >> 32 != SERVING:
        return False
    return bool(a.plans[a.conn[a.job[r, 0] & 0xFFFFFFFF, N_PLAN], P_COUNT] == 0)


@njit(cache=True)
def run_spared(a: Arrays, r: int, before: int, margin: int) -> int:
    """`run` for what there is most of: connections that are sent nothing end, and the next are dequeued.

    There is such a one that is due before that time, before which nothing else is due, and room; it goes on until that
    is no more so. None of this sets a wake, a tick or a job elsewhere.
    """
    while True:
        now, c = due(a, r), a.job[r, 0] & 0xFFFFFFFF
        a.s[NOW] = now
        finish(a, r, now)
        status = pushed(a, now, c)
        if status != DONE:
            return status
        fill(a, r)
        if not is_spared(a, r) or due(a, r) >= before or not has_room(a, margin):
            return DONE


@njit(cache=True)
def run(a: Arrays, until: int, margin: int, going_on: bool, c: int) -> int:
    """Run events before `until`, in the machine's order, as long as they need no Python; why it stopped.

    margin: no event fills more places than that in any array. going_on: first `resume` the event that was stopped.
    """
    replicas = a.cores.shape[0]
    if going_on:
        status = resume(a, a.s[NOW], a.s[REPLICA], c)
        if status != DONE:
            return status
        fill(a, a.s[REPLICA])
    while True:
        if not has_room(a, margin):
            return ROOM
        now, source = until, -1
        for r in range(replicas):
            if a.replicas[r, K_TICK] < now:
                now, source = a.replicas[r, K_TICK], r
        for r in range(replicas):
            if due(a, r) < now:
                now, source = due(a, r), replicas + r
        if a.s[WAKES] > 0 and a.wakes[0, 0] < now:
            now, source = a.wakes[0, 0], 2 * replicas
        if source < 0:
            return DONE
        a.s[NOW] = now
        if source < replicas:
            a.s[REPLICA] = source
            return TICK
        if source < 2 * replicas:
            r = source - replicas
            a.s[REPLICA] = r
            kind, c = a.job[r, 0] >> 32, a.job[r, 0] & 0xFFFFFFFF
            if a.job_left[r, 0]:
                finish(a, r, now)
                status = DONE
            elif is_spared(a, r):
                status = run_spared(a, r, alone_until(a, r, until), margin)
            elif kind == SERVING:
                finish(a, r, now)
                status = generated(a, now, c)
            elif kind == SENDING:
                finish(a, r, now)
                status = written(a, now, c)
            elif kind == SCOPING:
                finish(a, r, now)
                scope_built(a, now, r, c)
                status = DONE
            else:
                return JOB
            if status == DONE:
                fill(a, r)
        else:
            if a.wakes[0, 2] != ASK and a.wakes[0, 2] != UNBLOCK:
                return WAKE
            status = woken(a, now)
        if status != DONE:
            return status


@njit(cache=True)
def start_counting(a: Arrays, now: int) -> None:
    """What compiled code has observed is forgotten; levels are reset by who knows them all."""
    for r in range(a.cores.shape[0]):
        advance(a, r, now)
    a.used[:, U_TAKEN] = 0
    a.used[:, U_SCOPED] = 0
    a.used[:, U_QUEUED_AT] = -1
    a.outcomes[:, O_SENT] = 0
    a.outcomes[:, O_RESOURCES] = 0
    a.outcomes[:, O_UNITS] = 0
    a.outcomes[:, O_FIRST] = -1
    a.outcomes[:, O_LAST] = -1
    a.dwell[:] = 0
    a.conn[:, N_SHAPED_AT] = now
    for count in (QUEUED, CONVERGED, SENDS, DETAILS, CONSIDERED, PUSHES, REJECTED):
        a.s[count] = 0
