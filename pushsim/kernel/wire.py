"""`control.wire` compiled: what has been sent, on its way to the wire."""

from __future__ import annotations

from pushsim.control.cores import NEXT, TICKS
from pushsim.control.state import ACKING, BLOCKED, POLLED, SENDING, SENT, WRITING, YIELDING
from pushsim.control.wire import MIN_BATCH, WRITE_QUOTA
from pushsim.kernel.arrays import (
    ACK,
    DETAILS,
    FLIGHT,
    FOLLOWING,
    KEEP_DETAILS,
    LATENCY,
    N_HEARD,
    N_HOME,
    N_NACK,
    N_PHASE,
    N_PLAN,
    N_READ_AT,
    N_READ_BEFORE,
    N_SLOW,
    N_STEP,
    N_TOOK,
    N_USE,
    N_WIRED,
    N_YIELDS,
    O_FIRST,
    O_LAST,
    O_SENT,
    P_AT,
    P_LAST,
    P_PUSHED,
    R_SHOWS,
    R_SIZE,
    R_SPARE,
    R_WRITE,
    REJECTED,
    SENDS,
    SPARE,
    X_AT,
    Arrays,
)
from pushsim.kernel.cores import start, wait
from pushsim.kernel.parts import add_level
from pushsim.kernel.queue import note
from pushsim.kernel.struct import compiled


@compiled
def unwritten(a: Arrays, c: int, column: int) -> int:
    """Sum of a column over the responses that have been sent and are not written."""
    total, at = 0, a.plans[a.conn[c, N_PLAN], P_AT]
    for step in range(a.conn[c, N_WIRED], a.conn[c, N_STEP]):
        total += a.responses[at + step, column]
    return int(total)


@compiled
def writing_ns(a: Arrays, c: int) -> int:
    """`Wire._unwritten_ns`."""
    return max(1, unwritten(a, c, R_WRITE))


@compiled
def blocks(a: Arrays, now: int, c: int) -> bool:
    """`Wire._blocks`."""
    if unwritten(a, c, R_SIZE) < WRITE_QUOTA:
        return False
    a.conn[c, N_PHASE] = BLOCKED
    if not a.conn[c, N_YIELDS]:
        write(a, now, c)
    return True


@compiled
def leave(a: Arrays, c: int) -> None:
    """`Wire._leave`."""
    a.s[FOLLOWING] += 1
    a.conn[c, N_PHASE] = WRITING
    if not a.conn[c, N_YIELDS]:
        line = POLLED if unwritten(a, c, R_SIZE) < MIN_BATCH else 0
        wait(a, a.conn[c, N_HOME], line, SENDING << 32 | c, TICKS * writing_ns(a, c))


@compiled
def write(a: Arrays, now: int, c: int) -> None:
    """`Wire._write`."""
    start(a, a.conn[c, N_HOME], now, SENDING << 32 | c, writing_ns(a, c), NEXT)


@compiled
def acked(a: Arrays, r: int, c: int) -> None:
    """`Wire._acked`."""
    conn = a.conn[c]
    if conn[N_HOME] == r and not conn[N_YIELDS] and conn[N_PHASE] != BLOCKED and conn[N_PHASE] != WRITING:
        conn[N_YIELDS] = 1
        wait(a, r, POLLED, YIELDING << 32 | c, TICKS)


@compiled
def resumed(a: Arrays, now: int, r: int, c: int) -> None:
    """`Wire._resumed`."""
    conn = a.conn[c]
    if conn[N_HOME] == r and conn[N_YIELDS]:
        conn[N_YIELDS] = 0
        if conn[N_PHASE] == BLOCKED or conn[N_PHASE] == WRITING:
            write(a, now, c)


@compiled
def write_all(a: Arrays, now: int, c: int) -> None:
    """`Wire._write_all`."""
    count = a.plans[a.conn[c, N_PLAN], P_PUSHED]
    for step in range(a.conn[c, N_WIRED], a.conn[c, N_STEP]):
        on_wire(a, now, c, step, a.conn[c, N_TOOK] if step + 1 == count else -1)
    acks = a.conn[c, N_STEP] - a.conn[c, N_WIRED]
    if acks:
        wait(a, a.conn[c, N_HOME], POLLED, ACKING << 32 | c, TICKS * acks * a.s[ACK])
    a.conn[c, N_WIRED] = a.conn[c, N_STEP]


@compiled
def on_wire(a: Arrays, now: int, c: int, step: int, converged: int) -> int:
    """`Wire._on_wire`."""
    plan = a.plans[a.conn[c, N_PLAN]]
    at = plan[P_AT] + step
    received = now + a.s[LATENCY]
    if a.conn[c, N_SLOW]:
        received = max(now, a.conn[c, N_READ_AT]) + a.conn[c, N_SLOW]
        a.conn[c, N_READ_BEFORE], a.conn[c, N_READ_AT] = a.conn[c, N_READ_AT], received
    a.conn[c, N_HEARD] = received
    outcome = a.outcomes[a.uses[a.conn[c, N_USE], X_AT] + step]
    outcome[O_SENT] += 1
    if outcome[O_FIRST] < 0:
        outcome[O_FIRST] = now
    outcome[O_LAST] = now
    add_level(a, FLIGHT, a.conn[c, N_HOME], now, -a.responses[at, R_SIZE])
    if a.responses[at, R_SPARE]:
        add_level(a, SPARE, a.conn[c, N_HOME], now, -a.responses[at, R_SPARE])
    a.s[REJECTED] += a.conn[c, N_NACK]
    if a.responses[at, R_SHOWS]:
        place = a.s[SENDS]
        if place > 0 and a.sends[place - 1, 0] == at and a.sends[place - 1, 1] == received:
            a.sends[place - 1, 2] += 1
        else:
            a.sends[place, 0], a.sends[place, 1], a.sends[place, 2] = at, received, 1
            a.s[SENDS] += 1
    note(a, now, SENT, c, plan[P_LAST], step)
    if a.s[KEEP_DETAILS]:
        detail = a.details[a.s[DETAILS]]
        detail[0], detail[1], detail[2], detail[3] = a.conn[c, N_PLAN], step, c, now
        detail[4], detail[5] = converged, received
        a.s[DETAILS] += 1
    return int(received)
