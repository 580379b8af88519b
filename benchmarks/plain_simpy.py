"""The textbook form of the push pipeline in simpy: one process and one Resource request for each proxy push.

As good as that form allows: proxies are integers, a push that finds one still waiting is merged into it, and nothing
is recorded but counts and the time of the last push. It knows no cores: a push takes `work_ns` on its slot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import simpy


def run(pushes: Sequence[int], proxies: int, slots: int, work_ns: int) -> tuple[int, int]:
    """Fan every push out to all proxies; (proxy pushes made, when the last was done, ns)."""
    env = simpy.Environment()
    throttle = simpy.Resource(env, slots)
    waiting = bytearray(proxies)
    done = 0

    def pushed(proxy: int) -> Iterator[Any]:
        nonlocal done
        with throttle.request() as slot:
            yield slot
            waiting[proxy] = 0
            yield env.timeout(work_ns)
        done += 1

    def fan_out() -> Iterator[Any]:
        for at in pushes:
            yield env.timeout(at - env.now)
            for proxy in range(proxies):
                if not waiting[proxy]:
                    waiting[proxy] = 1
                    env.process(pushed(proxy))

    env.process(fan_out())
    env.run()
    return done, int(env.now)
