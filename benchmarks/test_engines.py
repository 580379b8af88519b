"""Engine pushes per second: the textbook form, our reference and the compiled kernel, on the same workload.

Sizes are a toy's unless PUSHSIM_BENCHMARK=full.
"""

from __future__ import annotations

import os
from typing import Any

import plain_simpy
import pytest
from workload import prepared

FULL = os.environ.get("PUSHSIM_BENCHMARK") == "full"
PROXIES, SECONDS = (10_000, 60) if FULL else (200, 5)


@pytest.fixture(scope="module")
def reference() -> Any:
    """What our reference does: the pushes that the textbook form is given, and how many dequeues there are."""
    simulation = prepared("simulation", PROXIES, SECONDS, keep_log=True)
    simulation.run()
    return simulation.machine


@pytest.mark.parametrize("engine", ["simulation", "kernel"])
def test_engine(benchmark: Any, reference: Any, engine: str) -> None:
    prepared(engine, 4, 1).run()  # load what is compiled
    ready = benchmark.pedantic(
        lambda driver: (driver.run(), driver)[1],
        setup=lambda: ((prepared(engine, PROXIES, SECONDS),), {}),
        rounds=1 if FULL else 3,
    )
    assert ready.machine.tally.considered == reference.tally.considered > PROXIES
    benchmark.extra_info["pushes"] = ready.machine.tally.considered


def test_plain_simpy(benchmark: Any, reference: Any) -> None:
    # As many replicas as the engines have, one after the other, each with its own pushes and proxies.
    of_replica = [sum(home == replica.number for home in reference.home) for replica in reference.replicas]
    starts = [
        sorted(push.start for push in reference.tally.pushes if push.replica == number)
        for number in range(len(of_replica))
    ]

    def all_replicas() -> int:
        pairs = zip(starts, of_replica, strict=True)
        return sum(plain_simpy.run(at, proxies, 95, 5_000)[0] for at, proxies in pairs)

    done = benchmark.pedantic(all_replicas, rounds=1 if FULL else 3)
    assert done == reference.tally.considered
    benchmark.extra_info["pushes"] = done


def test_the_logs_of_our_two_engines_are_equal(reference: Any) -> None:
    kernel = prepared("kernel", PROXIES, SECONDS, keep_log=True)
    kernel.run()
    assert kernel.machine.log == reference.log
