"""`control.serving` compiled: from the queue to a proxy.

Each function mirrors the one of the same name there. They return a status: DONE, or what Python has to do before the
event can go on. Whatever it is, what is left of the event then is to dispatch (see `loop.resume`).
"""

from __future__ import annotations

from pushsim.control.cores import LOCKED
from pushsim.control.state import (
    ASK,
    BLOCKED,
    DEQUEUED,
    IDLE,
    POLLED,
    PUSHED,
    PUSHING,
    REPLYING,
    SCOPING,
    SERVING,
    SPARED,
    UNBLOCK,
)
from pushsim.kernel.arrays import (
    ACK,
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
    M_RESOURCES,
    M_UNITS,
    MAKING,
    N_ASK_HEAD,
    N_ASKED,
    N_CLOSING,
    N_GATEWAY,
    N_GENERATION,
    N_GROUP,
    N_HOME,
    N_KIN,
    N_LOCALITY,
    N_NEWEST,
    N_OFFERED,
    N_PHASE,
    N_PLAN,
    N_PROCESSING,
    N_PUSHING,
    N_READ_AT,
    N_READ_BEFORE,
    N_READABLE,
    N_SHAPE,
    N_SHAPED_AT,
    N_SLOW,
    N_STATE,
    N_STEP,
    N_TO_MAKE,
    N_TOOK,
    N_USE,
    N_WAIT_NEXT,
    N_WAITING,
    N_WIRED,
    NOW,
    P_AT,
    P_COUNT,
    P_FIRST,
    P_LAST,
    P_NEEDED,
    P_PUSHED,
    P_WORK,
    PUSHES,
    QUEUED,
    R_BYTE,
    R_CACHED,
    R_HIT,
    R_PRICED,
    R_RENEWS,
    R_RESOURCE,
    R_SIZE,
    R_SPARE,
    R_UNIT,
    R_VIEW,
    R_WRITE,
    R_XDS,
    REPLICA,
    REPLY,
    S_BUILT,
    S_LOCK,
    S_TIMES,
    S_WORK,
    SLOTS,
    SPARE,
    START,
    THROTTLE,
    V_AT,
    V_END,
    WAITING,
    WHO,
    X_PLAN,
    X_QUEUED_AT,
    X_TAKEN,
    Arrays,
)
from pushsim.kernel.asking import goes_on, is_stale
from pushsim.kernel.cores import start
from pushsim.kernel.parts import add_level, read, set_wake
from pushsim.kernel.queue import entry_of, note, sampled, scope_of, take, to_tail, use
from pushsim.kernel.struct import called, compiled
from pushsim.kernel.wire import blocks, leave, on_wire, write_all
from pushsim.mesh import XDS

EDS = XDS.index("EDS")
#: Statuses. PLAN: of s[WHO]. CLOSING: s[WHO] ends. The others are events for Python, due at s[NOW]; ROOM: more of it.
DONE, PLAN, CLOSING, TICK, JOB, WAKE, ROOM = range(7)


@compiled
def dispatch(a: Arrays, now: int, r: int) -> int:
    """`Serving._dispatch`."""
    replica, size = a.replicas[r], a.line.shape[1]
    while replica[K_FREE] > 0 and replica[K_LINE] > 0:
        c = a.line[r, replica[K_LINE_AT]]
        conn = a.conn[c]
        replica[K_FREE] -= 1
        replica[K_LINE] -= 1
        replica[K_LINE_AT] += 1
        if replica[K_LINE_AT] == size:
            replica[K_LINE_AT] = 0
        conn[N_PROCESSING] = 1
        a.s[CONSIDERED] += 1
        sampled(a, a.queued, QUEUED, now - conn[N_WAITING + START], 1)
        note(a, now, DEQUEUED, c, conn[N_WAITING + FIRST], conn[N_WAITING + LAST])
        if conn[N_PHASE] != IDLE:
            take(conn, N_OFFERED, N_WAITING)
            continue
        take(conn, N_PUSHING, N_WAITING)
        status = begin_push(a, now, c)
        if status != DONE:
            return status
    add_level(a, WAITING, r, now, replica[K_LINE] - a.levels[WAITING, r, L_VALUE])
    add_level(a, SLOTS, r, now, a.s[THROTTLE] - replica[K_FREE] - a.levels[SLOTS, r, L_VALUE])
    return DONE


@compiled
def begin_push(a: Arrays, now: int, c: int) -> int:
    """`Serving._begin_push`, of the event in `pushing`."""
    conn, slot = a.conn[c], entry_of(a, c)
    since = conn[N_PUSHING + START]
    if slot < 0:
        a.s[WHO], a.s[NOW], a.s[REPLICA] = c, now, conn[N_HOME]
        return PLAN
    entry = a.entries[slot]
    p = entry[E_PLAN]
    a.used[p] += 1
    if a.plans[p, P_NEEDED] or a.plans[p, P_COUNT]:
        conn[N_USE] = use(a, c, p)
        row = a.uses[conn[N_USE]]
        row[X_TAKEN] += 1
        if row[X_QUEUED_AT] < 0 or since < row[X_QUEUED_AT]:
            row[X_QUEUED_AT] = since
    if entry[E_STATE] >= 0:  # else it stays as it is
        conn[N_STATE], conn[N_KIN] = entry[E_STATE], entry[E_KIN]
    if entry[E_SHAPE] >= 0 and entry[E_SHAPE] != conn[N_SHAPE]:
        dwelt(a, now, c)
        conn[N_SHAPE] = entry[E_SHAPE]
    conn[N_PHASE], conn[N_PLAN], conn[N_STEP], conn[N_WIRED] = PUSHING, p, 0, 0
    begin(a, now, c)
    return DONE


@called
def dwelt(a: Arrays, now: int, c: int) -> None:
    """`State._dwelt`."""
    a.dwell[a.conn[c, N_HOME], a.conn[c, N_GATEWAY], a.conn[c, N_SHAPE]] += now - a.conn[c, N_SHAPED_AT]
    a.conn[c, N_SHAPED_AT] = now


@compiled
def begin(a: Arrays, now: int, c: int) -> None:
    """`Serving._begin`."""
    r, scope = a.conn[c, N_HOME], scope_of(a, a.conn[c, N_PLAN], a.conn[c, N_GROUP])
    if scope < 0 or a.scopes[r, scope, S_BUILT]:
        serve(a, now, c, a.plans[a.conn[c, N_PLAN], P_WORK])
        return
    lock = a.scopes[r, scope, S_LOCK]
    if a.holder[r, lock] >= 0:
        a.conn[c, N_WAIT_NEXT] = -1
        if a.wait_head[r, lock] < 0:
            a.wait_head[r, lock] = c
        else:
            a.conn[a.wait_tail[r, lock], N_WAIT_NEXT] = c
        a.wait_tail[r, lock] = c
    else:
        a.holder[r, lock] = c
        a.scopes[r, scope, S_TIMES] += 1
        start(a, r, now, SCOPING << 32 | c, a.scopes[r, scope, S_WORK], 0)


@compiled
def scope_built(a: Arrays, now: int, r: int, c: int) -> None:
    """`Serving._scope_built`."""
    scope = scope_of(a, a.conn[c, N_PLAN], a.conn[c, N_GROUP])
    lock = a.scopes[r, scope, S_LOCK]
    a.scopes[r, scope, S_BUILT] = True
    a.holder[r, lock] = -1
    serve(a, now, c, a.plans[a.conn[c, N_PLAN], P_WORK])
    while a.wait_head[r, lock] >= 0:
        waiting = a.wait_head[r, lock]
        a.wait_head[r, lock] = a.conn[waiting, N_WAIT_NEXT]
        begin(a, now, waiting)
        if a.holder[r, lock] >= 0:
            break


@compiled
def serve(a: Arrays, now: int, c: int, before: int) -> None:
    """`Serving._serve`."""
    plan, step, r = a.plans[a.conn[c, N_PLAN]], a.conn[c, N_STEP], a.conn[c, N_HOME]
    work, job = before, SERVING << 32 | c
    a.conn[c, N_TO_MAKE] = 0
    if step < plan[P_PUSHED] or a.conn[c, N_PHASE] == REPLYING:
        at = plan[P_AT] + step
        response = a.responses[at]
        resources = units = 0
        if response[R_VIEW] >= 0:
            if a.cached[response[R_XDS]]:
                of = a.conn[c, N_LOCALITY] if a.cached[response[R_XDS]] > 1 else 0
                resources, units = read(a, r, now, at, a.conn[c, N_PUSHING + START], of)
            else:
                view = a.views[response[R_VIEW]]
                for place in range(view[V_AT], view[V_END]):
                    resources += a.cell_resources[place]
                    units += a.cell_units[place]
            if resources > 0:
                a.missed[at, M_RESOURCES] += resources
                a.missed[at, M_UNITS] += units
        a.conn[c, N_TO_MAKE] = response[R_SIZE]
        if response[R_XDS] != EDS or plan[P_PUSHED] > 1 or a.conn[c, N_PHASE] == REPLYING:
            job |= LOCKED
        marshalled = 0
        if response[R_CACHED] > 0:
            marshalled = response[R_PRICED] * resources // response[R_CACHED]
        price = response[R_HIT] + resources * response[R_RESOURCE] + units * response[R_UNIT]
        price += marshalled * response[R_BYTE]
        work += max(1, (price + 500) // 1000)
        if a.conn[c, N_SLOW] or a.conn[c, N_PHASE] == REPLYING:
            work += response[R_WRITE] + a.s[ACK]
    start(a, r, now, job, max(1, work), POLLED if a.conn[c, N_PHASE] == REPLYING else 0)


@compiled
def generated(a: Arrays, now: int, c: int) -> int:
    """`Serving._generated`."""
    plan, step = a.plans[a.conn[c, N_PLAN]], a.conn[c, N_STEP]
    if a.conn[c, N_PHASE] == PUSHING and step >= plan[P_PUSHED]:
        return pushed(a, now, c)
    response, home = a.responses[plan[P_AT] + step], a.conn[c, N_HOME]
    add_level(a, MAKING, home, now, -response[R_SIZE])
    add_level(a, FLIGHT, home, now, response[R_SIZE])
    if response[R_SPARE]:
        add_level(a, SPARE, home, now, response[R_SPARE])
    if a.conn[c, N_PHASE] == PUSHING and blocks(a, now, c):
        return DONE
    return send(a, now, c)


@compiled
def send(a: Arrays, now: int, c: int) -> int:
    """`Serving._send`."""
    if a.conn[c, N_SLOW] and a.conn[c, N_READ_BEFORE] > now:
        set_wake(a, a.conn[c, N_READ_BEFORE], UNBLOCK, c, a.conn[c, N_GENERATION], 0, 0)
        a.s[EXPECTED] += 1
        return DONE
    return sent(a, now, c)


@compiled
def sent(a: Arrays, now: int, c: int) -> int:
    """`Serving._sent`."""
    step = a.conn[c, N_STEP]
    if a.conn[c, N_PHASE] == REPLYING:
        return replied(a, now, c, on_wire(a, now, c, step, -1))
    a.conn[c, N_STEP] = step + 1
    response = a.responses[a.plans[a.conn[c, N_PLAN], P_AT] + step]
    if response[R_RENEWS]:
        a.conn[c, N_NEWEST + response[R_XDS]] = a.plans[a.conn[c, N_PLAN], P_LAST]
    last = step + 1 == a.plans[a.conn[c, N_PLAN], P_PUSHED]
    if a.conn[c, N_SLOW]:
        on_wire(a, now, c, step, now - a.conn[c, N_PUSHING + START] if last else -1)
        a.conn[c, N_WIRED] = step + 1
    if last:
        return pushed(a, now, c)
    serve(a, now, c, 0)
    return DONE


@compiled
def pushed(a: Arrays, now: int, c: int) -> int:
    """`Serving._pushed`."""
    conn = a.conn[c]
    plan, r, first, last = a.plans[conn[N_PLAN]], conn[N_HOME], conn[N_PUSHING + FIRST], conn[N_PUSHING + LAST]
    conn[N_TOOK] = now - conn[N_PUSHING + START]
    if plan[P_NEEDED]:
        a.s[PUSHES] += 1
        sampled(a, a.converged, CONVERGED, conn[N_TOOK], 1)
        note(a, now, PUSHED, c, first, last)
    else:
        note(a, now, SPARED, c, first, last)
    conn[N_PUSHING + HAS] = 0
    conn[N_PROCESSING] = 0
    if conn[N_WAITING + HAS]:
        to_tail(a, r, c)
    a.replicas[r, K_FREE] += 1
    if conn[N_WIRED] < plan[P_PUSHED]:
        leave(a, c)
    else:
        status = follow_up(a, now, c)
        if status != DONE:
            return status
    return dispatch(a, now, r)


@compiled
def written(a: Arrays, now: int, c: int) -> int:
    """`Serving._written`."""
    write_all(a, now, c)
    if a.conn[c, N_PHASE] == BLOCKED:
        a.conn[c, N_PHASE] = PUSHING
        return send(a, now, c)
    a.s[FOLLOWING] -= 1
    return follow_up(a, now, c)


@compiled
def follow_up(a: Arrays, now: int, c: int) -> int:
    """`Serving._follow_up`."""
    plan = a.plans[a.conn[c, N_PLAN]]
    if plan[P_PUSHED] < plan[P_COUNT]:
        a.s[FOLLOWING] += 1
        heard = max(now + a.s[LATENCY], a.conn[c, N_READ_AT])
        set_wake(a, heard + a.s[REPLY], ASK, c, a.conn[c, N_GENERATION], a.conn[c, N_USE], plan[P_PUSHED])
        a.s[EXPECTED] += 1
    a.conn[c, N_PHASE] = IDLE
    return next_on(a, now, c)


@called
def next_on(a: Arrays, now: int, c: int) -> int:
    """`Serving._next_on`."""
    if a.conn[c, N_CLOSING]:
        a.s[WHO], a.s[NOW], a.s[REPLICA] = c, now, a.conn[c, N_HOME]
        return CLOSING
    while a.conn[c, N_READABLE]:
        place = a.conn[c, N_ASK_HEAD]
        u, step = a.asks[place, 0], a.asks[place, 1]
        p = a.uses[u, X_PLAN]
        a.conn[c, N_ASK_HEAD] = a.asks[place, 2]
        a.asks[place, 2] = a.s[ASKS]
        a.s[ASKS] = place
        a.conn[c, N_ASKED] -= 1
        a.conn[c, N_READABLE] -= 1
        if is_stale(a, c, u, step):
            goes_on(a, now, c, u, step)
            continue
        a.conn[c, N_PHASE], a.conn[c, N_PLAN], a.conn[c, N_USE], a.conn[c, N_STEP] = REPLYING, p, u, step
        if step == 0 and a.plans[p, P_FIRST] < 0:
            begin(a, now, c)
        else:
            serve(a, now, c, 0)
        return DONE
    if a.conn[c, N_OFFERED + HAS]:
        take(a.conn[c], N_PUSHING, N_OFFERED)
        return begin_push(a, now, c)
    return DONE


@compiled
def replied(a: Arrays, now: int, c: int, received: int) -> int:
    """`Serving._replied`."""
    goes_on(a, received, c, a.conn[c, N_USE], a.conn[c, N_STEP])
    a.conn[c, N_PHASE] = IDLE
    return next_on(a, now, c)
