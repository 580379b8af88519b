"""Whole scenarios, from the file to the Result, and the memory of a long run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sizes import FULL, SCENARIOS, scenario
from workload import changes

from pushsim import runs

#: Proxies and seconds of churn of the run whose memory is measured: some ten million dequeues, or a toy's.
LONG = (10_000, 300) if FULL else (40, 5)


@pytest.mark.parametrize(("proxies", "services", "seconds"), SCENARIOS)
def test_scenario(benchmark: Any, proxies: int, services: int, seconds: int) -> None:
    wanted = scenario(services, seconds)
    results = benchmark.pedantic(lambda: runs.simulate(wanted, engine="kernel"), rounds=1)
    summary = results["namespace"].summary
    assert summary["changes"] == len(wanted.variant("namespace").changes) > 0
    assert summary["proxies_considered"] >= summary["proxy_pushes"] > 0
    assert summary["connect"]["connections"] >= proxies
    benchmark.extra_info["dequeues"] = summary["proxies_considered"]


_PEAK = """
from pathlib import Path
from workload import prepared
driver = prepared("kernel", {proxies}, {seconds})
driver.run()
print(driver.machine.tally.considered, len(driver.machine.tally.queued))
# not getrusage: that of a process begins with its parent's, whose peak may be that of other benchmarks (getrusage(2))
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line))
"""


def test_memory(benchmark: Any) -> None:
    """A long run keeps equal delays once: what it holds hardly grows with its dequeues."""
    proxies, seconds = LONG
    program = _PEAK.format(proxies=proxies, seconds=seconds)

    def run() -> list[int]:
        told = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(str(Path(place).resolve()) for place in sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        return [int(number) for number in told.stdout.split()]

    considered, samples, peak_kb = benchmark.pedantic(run, rounds=1)
    assert considered == samples > proxies
    assert considered <= proxies * 4 * len(changes(seconds))
    assert peak_kb < 2_000_000
    benchmark.extra_info.update(dequeues=considered, peak_mb=peak_kb // 1000)
