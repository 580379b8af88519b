"""`control.serving` compiled: from the queue to a proxy.

Each function mirrors the one of the same name there. They return a status: DONE, or what Python has to do before the
event can go on. Whatever it is, what is left of the event then is to dispatch (see `loop.resume`).
"""

from __future__ import annotations

from numba import njit

from pushsim.control.cores import TICKS
from pushsim.control.serving import WRITE_QUOTA
from pushsim.control.state import (
    ASK,
    DEQUEUED,
    IDLE,
    POLLED,
    PUSHED,
    PUSHING,
    REPLYING,
    SCOPING,
    SENDING,
    SERVING,
    SPARED,
    UNBLOCK,
    WRITING,
)
from pushsim.kernel.arrays import (
    ASKS,
    CONSIDERED,
    CONVERGED,
    E_KIN,
    E_PLAN,
    E_SHAPE,
    E_STATE,
    EXPECTED,
    FIRST,
    FLIGHT,
    FOLLOWING,
    HAS,
    K_FREE,
    K_LINE,
    K_LINE_AT,
    L_VALUE,
    LAST,
    LATENCY,
    NOW,
    O_RESOURCES,
    O_UNITS,
    P_AT,
    P_COUNT,
    P_FIRST,
    P_LOCK,
    P_NEEDED,
    P_PUSHED,
    P_SCOPE,
    P_SCOPE_WORK,
    P_WORK,
    PUSHES,
    QUEUED,
    R_BYTE,
    R_CACHED,
    R_HIT,
    R_PRICED,
    R_RESOURCE,
    R_SIZE,
    R_SPARE,
    R_UNIT,
    R_VIEW,
    R_WRITE,
    R_XDS,
    REPLICA,
    REPLY,
    SLOTS,
    SPARE,
    START,
    THROTTLE,
    U_QUEUED_AT,
    U_SCOPED,
    U_TAKEN,
    V_AT,
    V_END,
    V_RESOURCES,
    V_UNITS,
    WAITING,
    WHO,
    Arrays,
)
from pushsim.kernel.parts import add_level, keep, look_up, set_wake, start, wait
from pushsim.kernel.queue import entry_of, note, sampled, to_tail
from pushsim.kernel.wire import on_wire, unwritten, write_all

#: Statuses. PLAN: of s[WHO]. CLOSING: s[WHO] ends. The others are events for Python, due at s[NOW]; ROOM: more of it.
DONE, PLAN, CLOSING, TICK, JOB, WAKE, ROOM = range(7)


@njit(cache=True)
def dispatch(a: Arrays, now: int, r: int) -> int:
    """`Serving._dispatch`."""
    replica = a.replicas[r]
    while replica[K_FREE] > 0 and replica[K_LINE] > 0:
        replica[K_FREE] -= 1
        c = a.line[r, replica[K_LINE_AT]]
        replica[K_LINE_AT] += 1
        if replica[K_LINE_AT] == a.line.shape[1]:
            replica[K_LINE_AT] = 0
        replica[K_LINE] -= 1
        waiting = a.waiting[c]
        a.processing[c] = 1
        a.s[CONSIDERED] += 1
        sampled(a, a.queued, QUEUED, now - waiting[START])
        note(a, now, DEQUEUED, c, waiting[FIRST], waiting[LAST])
        if a.phase[c] == IDLE:
            a.pushing[c] = waiting
            waiting[HAS] = 0
            status = begin_push(a, now, c)
            if status != DONE:
                return status
        else:
            a.offered[c] = waiting
            waiting[HAS] = 0
    add_level(a, WAITING, r, now, replica[K_LINE] - a.levels[WAITING, r, L_VALUE])
    add_level(a, SLOTS, r, now, a.s[THROTTLE] - replica[K_FREE] - a.levels[SLOTS, r, L_VALUE])
    return DONE


@njit(cache=True)
def begin_push(a: Arrays, now: int, c: int) -> int:
    """`Serving._begin_push`, of the event in `pushing`."""
    event, slot = a.pushing[c], entry_of(a, c)
    if slot < 0:
        a.s[WHO], a.s[NOW], a.s[REPLICA] = c, now, a.home[c]
        return PLAN
    entry = a.entries[slot]
    p = entry[E_PLAN]
    used = a.used[p]
    used[U_TAKEN] += 1
    if used[U_QUEUED_AT] < 0 or event[START] < used[U_QUEUED_AT]:
        used[U_QUEUED_AT] = event[START]
    if entry[E_STATE] >= 0:  # else it stays as it is
        a.state[c], a.kin[c] = entry[E_STATE], entry[E_KIN]
        if entry[E_SHAPE] != a.shape[c]:
            dwelt(a, now, c)
            a.shape[c] = entry[E_SHAPE]
    a.phase[c], a.plan[c], a.step[c], event[HAS] = PUSHING, p, 0, 1
    a.last_start[c], a.wired[c] = event[START], 0
    begin(a, now, c)
    return DONE


@njit(cache=True)
def dwelt(a: Arrays, now: int, c: int) -> None:
    """`State._dwelt`."""
    a.dwell[a.home[c], a.gateway[c], a.shape[c]] += now - a.shaped_at[c]
    a.shaped_at[c] = now


@njit(cache=True)
def begin(a: Arrays, now: int, c: int) -> None:
    """`Serving._begin`."""
    plan, r = a.plans[a.plan[c]], a.home[c]
    scope, lock = plan[P_SCOPE], plan[P_LOCK]
    if scope < 0 or a.built[r, scope]:
        serve(a, now, c, plan[P_WORK])
    elif a.holder[r, lock] >= 0:
        a.wait_next[c] = -1
        if a.wait_head[r, lock] < 0:
            a.wait_head[r, lock] = c
        else:
            a.wait_next[a.wait_tail[r, lock]] = c
        a.wait_tail[r, lock] = c
    else:
        a.holder[r, lock] = c
        a.used[a.plan[c], U_SCOPED] += 1
        start(a, r, now, SCOPING << 32 | c, plan[P_SCOPE_WORK], 0)


@njit(cache=True)
def scope_built(a: Arrays, now: int, r: int, c: int) -> None:
    """`Serving._scope_built`."""
    plan = a.plans[a.plan[c]]
    lock = plan[P_LOCK]
    a.built[r, plan[P_SCOPE]] = True
    a.holder[r, lock] = -1
    serve(a, now, c, plan[P_WORK])
    while a.wait_head[r, lock] >= 0:
        waiting = a.wait_head[r, lock]
        a.wait_head[r, lock] = a.wait_next[waiting]
        begin(a, now, waiting)
        if a.holder[r, lock] >= 0:
            break


@njit(cache=True)
def serve(a: Arrays, now: int, c: int, before: int) -> None:
    """`Serving._serve`."""
    plan, step, r = a.plans[a.plan[c]], a.step[c], a.home[c]
    work = before
    if step < plan[P_PUSHED] or a.phase[c] == REPLYING:
        at = plan[P_AT] + step
        response = a.responses[at]
        resources = units = 0
        if response[R_VIEW] >= 0:
            view = a.views[response[R_VIEW]]
            if a.cached[response[R_XDS]]:
                look_up(a, r, response[R_VIEW])
                resources, units = view[V_RESOURCES], view[V_UNITS]
            else:
                for place in range(view[V_AT], view[V_END]):
                    resources += a.cell_resources[place]
                    units += a.cell_units[place]
            if resources > 0:
                a.outcomes[at, O_RESOURCES] += resources
                a.outcomes[at, O_UNITS] += units
        a.missed[c] = resources
        add_level(a, FLIGHT, r, now, response[R_SIZE])
        if response[R_SPARE]:
            add_level(a, SPARE, r, now, response[R_SPARE])
        marshalled = 0
        if response[R_CACHED] > 0:
            marshalled = response[R_PRICED] * resources // response[R_CACHED]
        price = response[R_HIT] + resources * response[R_RESOURCE] + units * response[R_UNIT]
        price += marshalled * response[R_BYTE]
        work += max(1, (price + 500) // 1000)
        if a.slow[c] or a.phase[c] == REPLYING:
            work += response[R_WRITE]
        elif unwritten(a, c, R_SIZE) >= WRITE_QUOTA:
            work += unwritten(a, c, R_WRITE)
    start(a, r, now, SERVING << 32 | c, max(1, work), POLLED if a.phase[c] == REPLYING else 0)


@njit(cache=True)
def generated(a: Arrays, now: int, c: int) -> int:
    """`Serving._generated`."""
    plan, step = a.plans[a.plan[c]], a.step[c]
    if a.phase[c] == PUSHING and step >= plan[P_PUSHED]:
        return pushed(a, now, c)
    at = plan[P_AT] + step
    if a.phase[c] == PUSHING and unwritten(a, c, R_SIZE) >= WRITE_QUOTA:
        write_all(a, now, c)
    if a.missed[c] and a.responses[at, R_VIEW] >= 0:
        keep(a, a.home[c], now, at, a.last_start[c])
    if a.slow[c] and a.read_before[c] > now:
        set_wake(a, a.read_before[c], UNBLOCK, c, a.generation[c], 0, 0)
        a.s[EXPECTED] += 1
        return DONE
    return sent(a, now, c)


@njit(cache=True)
def sent(a: Arrays, now: int, c: int) -> int:
    """`Serving._sent`."""
    step = a.step[c]
    if a.phase[c] == REPLYING:
        return replied(a, now, c, on_wire(a, now, c, step, -1))
    a.step[c] = step + 1
    last = step + 1 == a.plans[a.plan[c], P_PUSHED]
    if a.slow[c]:
        on_wire(a, now, c, step, now - a.pushing[c, START] if last else -1)
        a.wired[c] = step + 1
    if last:
        return pushed(a, now, c)
    serve(a, now, c, 0)
    return DONE


@njit(cache=True)
def pushed(a: Arrays, now: int, c: int) -> int:
    """`Serving._pushed`."""
    plan, event, r = a.plans[a.plan[c]], a.pushing[c], a.home[c]
    a.took[c] = now - event[START]
    if plan[P_NEEDED]:
        a.s[PUSHES] += 1
        sampled(a, a.converged, CONVERGED, a.took[c])
        note(a, now, PUSHED, c, event[FIRST], event[LAST])
    else:
        note(a, now, SPARED, c, event[FIRST], event[LAST])
    event[HAS] = 0
    a.processing[c] = 0
    if a.waiting[c, HAS]:
        to_tail(a, r, c)
    a.replicas[r, K_FREE] += 1
    if a.wired[c] < plan[P_PUSHED]:
        a.s[FOLLOWING] += 1
        a.phase[c] = WRITING
        wait(a, r, 0, SENDING << 32 | c, TICKS * max(1, unwritten(a, c, R_WRITE)))
    else:
        status = follow_up(a, now, c)
        if status != DONE:
            return status
    return dispatch(a, now, r)


@njit(cache=True)
def written(a: Arrays, now: int, c: int) -> int:
    """`Serving._written`."""
    a.s[FOLLOWING] -= 1
    write_all(a, now, c)
    return follow_up(a, now, c)


@njit(cache=True)
def follow_up(a: Arrays, now: int, c: int) -> int:
    """`Serving._follow_up`."""
    plan = a.plans[a.plan[c]]
    if plan[P_PUSHED] < plan[P_COUNT]:
        a.s[FOLLOWING] += 1
        heard = max(now + a.s[LATENCY], a.read_at[c])
        set_wake(a, heard + a.s[REPLY], ASK, c, a.generation[c], a.plan[c], plan[P_PUSHED])
        a.s[EXPECTED] += 1
    a.phase[c] = IDLE
    return next_on(a, now, c)


@njit(cache=True)
def ask(a: Arrays, c: int, p: int, step: int) -> None:
    """`Serving._ask`."""
    place = a.s[ASKS]
    a.s[ASKS] = a.asks[place, 2]
    a.asks[place, 0], a.asks[place, 1], a.asks[place, 2] = p, step, -1
    if a.ask_head[c] < 0:
        a.ask_head[c] = place
    else:
        a.asks[a.ask_tail[c], 2] = place
    a.ask_tail[c] = place


@njit(cache=True)
def next_on(a: Arrays, now: int, c: int) -> int:
    """`Serving._next_on`."""
    if a.closing[c]:
        a.s[WHO], a.s[NOW], a.s[REPLICA] = c, now, a.home[c]
        return CLOSING
    place = a.ask_head[c]
    if place >= 0:
        p, step = a.asks[place, 0], a.asks[place, 1]
        a.ask_head[c] = a.asks[place, 2]
        a.asks[place, 2] = a.s[ASKS]
        a.s[ASKS] = place
        a.phase[c], a.plan[c], a.step[c] = REPLYING, p, step
        if step == 0 and a.plans[p, P_FIRST] < 0:
            begin(a, now, c)
        else:
            serve(a, now, c, 0)
        return DONE
    if a.offered[c, HAS]:
        a.pushing[c] = a.offered[c]
        a.offered[c, HAS] = 0
        return begin_push(a, now, c)
    return DONE


@njit(cache=True)
def replied(a: Arrays, now: int, c: int, received: int) -> int:
    """`Serving._replied`."""
    plan, step = a.plans[a.plan[c]], a.step[c]
    if step + 1 < plan[P_COUNT]:
        set_wake(a, received + a.s[REPLY], ASK, c, a.generation[c], a.plan[c], step + 1)
        a.s[EXPECTED] += 1
    elif plan[P_FIRST] >= 0:
        a.s[FOLLOWING] -= 1
    a.phase[c] = IDLE
    return next_on(a, now, c)
