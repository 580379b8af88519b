"""The loop that runs events until Python is needed, compiled."""

from __future__ import annotations

from pushsim.control.cores import LOCK, LOCKED, PREEMPTED
from pushsim.control.state import (
    ACCEPT,
    ACKING,
    ARRIVE,
    ASK,
    IDLE,
    LOOK,
    LOOKING,
    POLLED,
    READING,
    SCOPING,
    SENDING,
    SERVING,
    UNBLOCK,
    YIELDING,
)
from pushsim.kernel.arrays import (
    ASKS,
    C_HEAD,
    C_JOBS,
    C_WOKEN,
    CONSIDERED,
    CONVERGED,
    DETAILS,
    EXPECTED,
    FOLLOWING,
    J_JOB,
    J_LEFT,
    K_TICK,
    KEEP_DETAILS,
    KEEP_LOG,
    LOG,
    LOOKED,
    N_GENERATION,
    N_HOME,
    N_LOOKS,
    N_PHASE,
    N_PLAN,
    N_SHAPED_AT,
    NOW,
    O_FIRST,
    O_LAST,
    O_SENT,
    OPENED,
    OUTCOMES,
    P_COUNT,
    P_FIRST,
    PUSHES,
    QUEUED,
    REFUSED,
    REJECTED,
    REPLICA,
    S_TIMES,
    SENDS,
    USES,
    W_LONG,
    WAKES,
    X_PLAN,
    X_QUEUED_AT,
    X_TAKEN,
    Arrays,
)
from pushsim.kernel.asking import ask, read
from pushsim.kernel.cores import advance, due, fill, finish, start
from pushsim.kernel.parts import drop_wake
from pushsim.kernel.serving import (
    DONE,
    JOB,
    ROOM,
    TICK,
    WAKE,
    begin_push,
    dispatch,
    generated,
    next_on,
    pushed,
    scope_built,
    sent,
    written,
)
from pushsim.kernel.sparing import spare
from pushsim.kernel.streams import accept, arrive, keep_alive
from pushsim.kernel.struct import called, compiled
from pushsim.kernel.wire import acked, resumed


@compiled
def woken(a: Arrays, now: int) -> int:
    """`Machine.wake` for proxies and for a Send that returns."""
    wake = a.wakes[0]
    kind, c, generation, x, step = wake[2], wake[3], wake[4], wake[5], wake[6]
    drop_wake(a)
    if kind != LOOK:
        a.s[EXPECTED] -= 1
    if generation != a.conn[c, N_GENERATION]:
        if kind == ASK and a.plans[a.uses[x, X_PLAN], P_FIRST] >= 0:
            a.s[FOLLOWING] -= 1
        return DONE
    if kind == UNBLOCK:
        return sent(a, now, c)
    if kind == ARRIVE:
        arrive(a, now, c, x)
        return DONE
    if kind == ACCEPT:
        accept(a, now, c, x)
        return DONE
    if kind == LOOK:
        keep_alive(a, now, c)
        return DONE
    ask(a, c, x, step)
    start(a, a.conn[c, N_HOME], now, READING << 32 | c, 1, POLLED)
    return DONE


@called
def resume(a: Arrays, now: int, r: int, c: int) -> int:
    """Go on after Python has planned the event that c (if not -1) is to take, then dispatch."""
    if c >= 0:
        status = begin_push(a, now, c)
        if status != DONE:
            return status
    return dispatch(a, now, r)


@called
def has_room(a: Arrays, margin: int) -> bool:
    """Whether every array that an event may add to has so many places left."""
    s = a.s
    for r in range(a.cores.shape[0]):
        if a.line_of[0, r, W_LONG] + a.line_of[1, r, W_LONG] + a.line_of[LOCK, r, W_LONG] + margin > a.lines.shape[2]:
            return False
    return bool(
        s[QUEUED] + margin <= a.queued.shape[0]
        and (not s[KEEP_LOG] or s[LOG] + margin <= a.log.shape[0])
        and s[CONVERGED] + margin <= a.converged.shape[0]
        and s[SENDS] + margin <= a.sends.shape[0]
        and s[USES] + margin <= a.uses.shape[0]
        and s[OUTCOMES] + 2 * margin <= a.outcomes.shape[0]
        and (not s[KEEP_DETAILS] or s[DETAILS] + margin <= a.details.shape[0])
        and s[WAKES] + margin <= a.wakes.shape[0]
        and s[ASKS] >= 0
    )


@compiled
def alone_until(a: Arrays, r: int, until: int) -> int:
    """The time before which ends of jobs on a replica come before whatever else the machine does."""
    for other in range(a.cores.shape[0]):
        until = min(until, a.replicas[other, K_TICK])
        if other != r:
            until = min(until, due(a, other) + int(other > r))
    return int(min(until, a.wakes[0, 0] + 1) if a.s[WAKES] > 0 else until)


@compiled
def is_spared(a: Arrays, r: int) -> bool:
    """Whether the job that ends next, if there is one, is that of a connection that is sent nothing."""
    if a.cores[r, C_JOBS] == 0:
        return False
    first = a.running[r, a.cores[r, C_HEAD]]
    if first[J_LEFT] or first[J_JOB] >> 32 != SERVING:
        return False
    return bool(a.plans[a.conn[first[J_JOB] & 0xFFFFFFFF, N_PLAN], P_COUNT] == 0)


@compiled
def run_spared(a: Arrays, r: int, before: int, margin: int) -> int:
    """`run` for connections that are sent nothing.

    There is such a one that is due before that time, before which nothing else is due, and room; it goes on until that
    is no more so. None of this sets a wake, a tick or a job elsewhere.
    """
    while True:
        if spare(a, r, before, margin):
            status = dispatch(a, a.s[NOW], r)
        elif is_spared(a, r) and due(a, r) < before and has_room(a, margin):
            now = a.s[NOW] = due(a, r)
            status = pushed(a, now, finish(a, r, now) & 0xFFFFFFFF)
        else:
            return DONE
        if status != DONE:
            return status
        fill(a, r)


@called
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
            first = a.running[r, a.cores[r, C_HEAD]]
            kind, c = (first[J_JOB] & ~LOCKED) >> 32, first[J_JOB] & 0xFFFFFFFF
            if first[J_LEFT]:
                finish(a, r, now)
                status = DONE
            elif is_spared(a, r):
                status = run_spared(a, r, alone_until(a, r, until), margin)
            elif kind == SERVING:
                status = generated(a, now, c) if finish(a, r, now) != PREEMPTED else DONE
            elif kind == SENDING:
                finish(a, r, now)
                status = written(a, now, c)
            elif kind == READING:
                finish(a, r, now)
                read(a, c)
                status = next_on(a, now, c) if a.conn[c, N_PHASE] == IDLE else DONE
            elif kind == SCOPING:
                finish(a, r, now)
                scope_built(a, now, r, c)
                status = DONE
            elif kind == ACKING:
                finish(a, r, now)
                acked(a, r, c)
                status = DONE
            elif kind == YIELDING:
                finish(a, r, now)
                resumed(a, now, r, c)
                status = DONE
            elif kind == LOOKING:
                finish(a, r, now)
                a.conn[c, N_LOOKS] = 0
                status = DONE
            else:
                return JOB
            if status == DONE:
                fill(a, r)
        else:
            if a.wakes[0, 2] > LOOK:
                return WAKE
            status = woken(a, now)
        if status != DONE:
            return status


@called
def start_counting(a: Arrays, now: int) -> None:
    """What compiled code has observed is forgotten; levels are reset by who knows them all."""
    for r in range(a.cores.shape[0]):
        advance(a, r, now)
        a.cores[r, C_WOKEN] = 0
    a.used[:] = 0
    a.scopes[:, :, S_TIMES] = 0
    a.missed[:] = 0
    a.uses[:, X_TAKEN] = 0
    a.uses[:, X_QUEUED_AT] = -1
    a.outcomes[:, O_SENT] = 0
    a.outcomes[:, O_FIRST] = -1
    a.outcomes[:, O_LAST] = -1
    a.dwell[:] = 0
    a.conn[:, N_SHAPED_AT] = now
    for count in (QUEUED, CONVERGED, SENDS, DETAILS, CONSIDERED, PUSHES, REJECTED, REFUSED, OPENED, LOOKED):
        a.s[count] = 0
