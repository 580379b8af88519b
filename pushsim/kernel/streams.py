"""How proxies come in: that part of `control.streams` and `control.limiter`, compiled."""

from __future__ import annotations

import numpy as np

from pushsim.control.cores import NEVER, SECOND
from pushsim.control.limiter import BACKOFF, BACKOFF_BASE_NS, BACKOFF_CAP_NS, REPLICA
from pushsim.control.replica import UNSET
from pushsim.control.state import ACCEPT, ACCEPTING, ARRIVE, AWAY, LOOK, LOOKING, POLLED
from pushsim.control.streams import KEEPALIVE_TIMEOUT_NS
from pushsim.control.tally import Ints
from pushsim.kernel.arrays import (
    EXPECTED,
    K_GAP,
    K_NEXT,
    K_UP,
    KEEPALIVE,
    LOOK_NS,
    LOOKED,
    N_GENERATION,
    N_HEARD,
    N_HOME,
    N_LOOKS,
    N_PHASE,
    OPENED,
    OPENING,
    REFUSED,
    SEED,
    Arrays,
)
from pushsim.kernel.cores import start
from pushsim.kernel.parts import set_wake
from pushsim.kernel.struct import called, compiled

_STEP, _MIX, _MIX_AGAIN = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_1, _27, _30, _31 = np.uint64(1), np.uint64(27), np.uint64(30), np.uint64(31)


@compiled
def draw(seed: int, purpose: int, who: int, count: int) -> int:
    """`limiter.draw`."""
    mixed = np.uint64(seed)
    for number in (purpose, who, count):
        mixed = mixed + _STEP + np.uint64(number)
        mixed = (mixed ^ (mixed >> _30)) * _MIX
        mixed = (mixed ^ (mixed >> _27)) * _MIX_AGAIN
        mixed = mixed ^ (mixed >> _31)
    return np.int64(mixed >> _1)  # type: ignore[return-value]


@compiled
def backoff_ns(seed: int, connection: int, count: int, attempt: int) -> int:
    """`limiter.backoff_ns`."""
    bound = min(BACKOFF_CAP_NS, BACKOFF_BASE_NS << min(attempt, 20))
    return draw(seed, BACKOFF, connection, count) % bound


@compiled
def wait_to_arrive(a: Arrays, at: int, c: int, attempt: int) -> None:
    """A proxy will ask for a stream then."""
    set_wake(a, at, ARRIVE, c, a.conn[c, N_GENERATION], attempt, 0)
    a.s[EXPECTED] += 1


@called
def arrive_all(a: Arrays, now: int, coming: Ints, gap: int) -> None:
    """`Machine.connect_all`, of those that come."""
    for place in range(coming.shape[0]):
        wait_to_arrive(a, now + place * gap, coming[place], 0)


@compiled
def arrive(a: Arrays, now: int, c: int, attempt: int) -> None:
    """`Streams._arrive`."""
    if a.conn[c, N_PHASE] != AWAY:
        return
    count, seed = a.conn[c, N_GENERATION], a.s[SEED]
    r = draw(seed, REPLICA, c, count * 64 + attempt) % a.cores.shape[0]
    replica = a.replicas[r]
    admitted = NEVER
    if replica[K_UP]:
        at = max(now, replica[K_NEXT])
        if at - now <= SECOND:
            admitted = at
            replica[K_NEXT] = at + replica[K_GAP]
    if admitted != NEVER:
        set_wake(a, admitted, ACCEPT, c, count, r, 0)
        a.s[EXPECTED] += 1
        return
    a.s[REFUSED] += 1
    wait_to_arrive(a, now + backoff_ns(seed, c, count * 64 + min(attempt, 63), attempt), c, attempt + 1)


@compiled
def accept(a: Arrays, now: int, c: int, r: int) -> None:
    """`Streams._accept`."""
    if not a.replicas[r, K_UP]:
        wait_to_arrive(a, now + backoff_ns(a.s[SEED], c, a.conn[c, N_GENERATION], 0), c, 1)
        return
    a.conn[c, N_HOME] = UNSET
    a.s[OPENED] += 1
    start(a, r, now, ACCEPTING << 32 | c, a.s[OPENING], POLLED)


@compiled
def keep_alive(a: Arrays, now: int, c: int) -> None:
    """`Streams._keep_alive`."""
    due = a.conn[c, N_HEARD] + a.s[KEEPALIVE]
    if now >= due:
        a.conn[c, N_HEARD], due = now, now + min(a.s[KEEPALIVE], KEEPALIVE_TIMEOUT_NS)
    if not a.conn[c, N_LOOKS]:
        a.conn[c, N_LOOKS] = 1
        a.s[LOOKED] += 1
        start(a, a.conn[c, N_HOME], now, LOOKING << 32 | c, a.s[LOOK_NS], POLLED)
    set_wake(a, due, LOOK, c, a.conn[c, N_GENERATION], 0, 0)
