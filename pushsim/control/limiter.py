"""Who may connect when: istiod's stream limiter, and the clients' choices, drawn without a generator's state.

Draws are a hash of (seed, purpose, who, how often): the same in both engines whatever the order of events.
"""

from __future__ import annotations

from pushsim.control.cores import NEVER, SECOND

_MASK = (1 << 64) - 1

#: Purposes of draws.
ORDER, RING, REPLICA, AGE, BACKOFF, SLOW, NACK, GRACE = range(8)

BACKOFF_BASE_NS = 500_000_000
BACKOFF_CAP_NS = 30 * SECOND


def draw(seed: int, purpose: int, who: int, count: int) -> int:
    """63 uniformly distributed bits: splitmix64 over the four numbers."""
    mixed = seed & _MASK
    for number in (purpose, who, count):
        mixed = (mixed + 0x9E3779B97F4A7C15 + int(number)) & _MASK
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        mixed ^= mixed >> 31
    return mixed >> 1


def backoff_ns(seed: int, connection: int, count: int, attempt: int) -> int:
    """Envoy's wait before it connects again after `attempt` failures: uniform below a doubling bound (§2.3)."""
    bound = min(BACKOFF_CAP_NS, BACKOFF_BASE_NS << min(attempt, 20))
    return draw(seed, BACKOFF, connection, count) % bound


class RequestLimiter:
    """PILOT_MAX_REQUESTS_PER_SECOND: a token bucket of burst 1 in which a stream waits at most 1 s (reference §2.1)."""

    def __init__(self, per_second: int) -> None:
        self.gap = SECOND // per_second if per_second > 0 else 0
        self.next = 0

    def arrive(self, now: int) -> int:
        """When a stream that arrives now may go on; NEVER if it is refused."""
        admitted = max(now, self.next)
        if admitted - now > SECOND:
            return NEVER
        self.next = admitted + self.gap
        return admitted
