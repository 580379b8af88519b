"""What proxies ask for: that part of `control.serving`, compiled."""

from __future__ import annotations

from pushsim.control.state import ASK
from pushsim.kernel.arrays import (
    ASKS,
    EXPECTED,
    FOLLOWING,
    N_ASK_HEAD,
    N_ASK_TAIL,
    N_ASKED,
    N_GENERATION,
    N_NEWEST,
    N_READABLE,
    P_AT,
    P_COUNT,
    P_FIRST,
    P_LAST,
    R_XDS,
    REPLY,
    X_PLAN,
    Arrays,
)
from pushsim.kernel.parts import set_wake
from pushsim.kernel.struct import called, compiled


@called
def ask(a: Arrays, c: int, u: int, step: int) -> None:
    """`Serving._ask`."""
    place = a.s[ASKS]
    a.s[ASKS] = a.asks[place, 2]
    a.asks[place, 0], a.asks[place, 1], a.asks[place, 2] = u, step, -1
    if a.conn[c, N_ASK_HEAD] < 0:
        a.conn[c, N_ASK_HEAD] = place
    else:
        a.asks[a.conn[c, N_ASK_TAIL], 2] = place
    a.conn[c, N_ASK_TAIL] = place
    a.conn[c, N_ASKED] += 1


@called
def read(a: Arrays, c: int) -> None:
    """`Serving._read`."""
    a.conn[c, N_READABLE] = min(a.conn[c, N_READABLE] + 1, a.conn[c, N_ASKED])


@compiled
def goes_on(a: Arrays, now: int, c: int, u: int, step: int) -> None:
    """`Serving._goes_on`."""
    plan = a.plans[a.uses[u, X_PLAN]]
    if step + 1 < plan[P_COUNT]:
        set_wake(a, now + a.s[REPLY], ASK, c, a.conn[c, N_GENERATION], u, step + 1)
        a.s[EXPECTED] += 1
    elif plan[P_FIRST] >= 0:
        a.s[FOLLOWING] -= 1


@compiled
def is_stale(a: Arrays, c: int, u: int, step: int) -> bool:
    """`Serving._is_stale`."""
    plan = a.plans[a.uses[u, X_PLAN]]
    if plan[P_FIRST] < 0:
        return False
    return bool(a.conn[c, N_NEWEST + a.responses[plan[P_AT] + step, R_XDS]] > plan[P_LAST])
