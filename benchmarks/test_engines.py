"""Engine pushes per second: the textbook form, our reference and the compiled kernel, on the same workload."""

from __future__ import annotations

import time
from typing import Any

import plain_simpy
import pytest
from sizes import FULL
from workload import prepared

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
    """The textbook form, and how many times as long as the kernel it takes, in CPU seconds, for as many dequeues."""
    # As many replicas as the engines have, one after the other, each with its own pushes and proxies.
    of_replica = [sum(home == replica.number for home in reference.home) for replica in reference.replicas]
    starts = [
        sorted(push.start for push in reference.tally.pushes if push.replica == number)
        for number in range(len(of_replica))
    ]
    plain: list[float] = []

    def all_replicas() -> int:
        begun = time.process_time()
        done = sum(plain_simpy.run(at, count, 95, 5_000)[0] for at, count in zip(starts, of_replica, strict=True))
        plain.append(time.process_time() - begun)
        return done

    done = benchmark.pedantic(all_replicas, rounds=1 if FULL else 3)
    assert done == reference.tally.considered
    kernel = prepared("kernel", PROXIES, SECONDS)
    whole, churn = cpu_seconds(kernel)
    assert kernel.machine.tally.considered == done
    ratios = {"times_the_kernel": min(plain) / whole, "times_the_kernel_without_connecting": min(plain) / churn}
    print({name: round(ratio, 1) for name, ratio in ratios.items()})
    assert not FULL or ratios["times_the_kernel"] >= 50
    benchmark.extra_info.update(pushes=done, **ratios)


def test_pushes(benchmark: Any) -> None:
    """Every push has something for every proxy: nobody is spared."""
    prepared("kernel", 4, 1, everyone=True).run()  # load what is compiled

    def setup() -> Any:
        return (prepared("kernel", PROXIES, SECONDS // 3, everyone=True),), {}

    driver = benchmark.pedantic(lambda driver: (driver.run(), driver)[1], setup=setup, rounds=1 if FULL else 3)
    tally = driver.machine.tally
    sent = sum(sum(plan.sent) for plan in driver.machine.plans if plan.first >= 0)
    assert tally.considered == tally.pushed == sent > PROXIES
    benchmark.extra_info["pushes"] = tally.pushed


def cpu_seconds(kernel: Any) -> tuple[float, float]:
    """Run it; CPU seconds of all of it, and of what comes after all proxies have connected."""
    settled: list[float] = []
    kernel.on_settled = lambda now: settled.append(time.process_time()) or {}
    begun = time.process_time()
    kernel.run()
    ended = time.process_time()
    return ended - begun, ended - settled[0]


def test_the_logs_of_our_two_engines_are_equal(reference: Any) -> None:
    kernel = prepared("kernel", PROXIES, SECONDS, keep_log=True)
    kernel.run()
    assert kernel.machine.log == reference.log
