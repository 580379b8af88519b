"""Cost against size, of the textbook form and of our two engines: results/engines.md and results/engines.svg.

PYTHONPATH=. python benchmarks/table.py [seconds of churn, 20]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import plain_simpy
from test_engines import cpu_seconds
from workload import prepared

SIZES = (100, 1_000, 10_000)
RESULTS = Path(__file__).parents[1] / "results"


def timed(run: Callable[[], int]) -> tuple[int, float]:
    """Dequeues, and CPU seconds they took."""
    begun = time.process_time()
    return run(), time.process_time() - begun


def measure(proxies: int, seconds: int) -> dict[str, tuple[int, float]]:
    """Each engine's dequeues and CPU seconds, that all dequeue as often is asserted."""
    simulation = prepared("simulation", proxies, seconds)
    found = {"simulation": timed(lambda: churned(simulation))}
    reference = simulation.machine
    of_replica = [sum(home == replica.number for home in reference.home) for replica in reference.replicas]
    starts = [[p.start for p in reference.tally.pushes if p.replica == r] for r in range(len(of_replica))]
    pairs = list(zip(starts, of_replica, strict=True))
    found["plain simpy"] = timed(lambda: sum(plain_simpy.run(at, count, 95, 5_000)[0] for at, count in pairs))
    # the middle one of three: it takes so little that whatever else the machine does shows
    runs = [prepared("kernel", proxies, seconds) for _ in range(3)]
    whole, churn = (sorted(parts)[1] for parts in zip(*map(cpu_seconds, runs), strict=True))
    dequeues = int(runs[0].machine.tally.considered)
    found["kernel"], found["kernel, churn"] = (dequeues, whole), (dequeues, churn)
    assert len({count for count, _ in found.values()}) == 1, found
    return found


def churned(driver: object) -> int:
    """Run an engine; its dequeues."""
    driver.run()  # type: ignore[attr-defined]
    return int(driver.machine.tally.considered)  # type: ignore[attr-defined]


def main() -> None:
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    churned(prepared("kernel", 4, 1))  # load what is compiled
    table = {size: measure(size, seconds) for size in SIZES}
    lines = [
        f"CPU seconds for {seconds} s of ten changes a second of plans that cost nothing, four replicas. Our engines'",
        "include connecting all proxies; the textbook form has no connections. The kernel's: the middle of three runs,",
        "with its code compiled and cached. All but a few dequeues spare a proxy.",
        "",
        "| proxies | dequeues | plain simpy | simulation | kernel | of it connecting | ns a dequeue, connecting aside "
        "| times plain simpy |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for size, found in table.items():
        count, kernel = found["kernel"]
        plain, ours = found["plain simpy"][1], found["simulation"][1]
        churn = found["kernel, churn"][1]
        rate = f"{kernel - churn:.3f} | {churn / count * 1e9:,.0f} | {plain / kernel:.1f}"
        lines.append(f"| {size:,} | {count:,} | {plain:.2f} | {ours:.2f} | {kernel:.3f} | {rate} |")
    (RESULTS / "engines.md").write_text("\n".join(lines) + "\n")
    figure, axes = plt.subplots(figsize=(6, 4))
    for name in ("plain simpy", "simulation", "kernel"):
        axes.loglog(SIZES, [table[size][name][1] for size in SIZES], marker="o", label=name)
    axes.set(xlabel="proxies", ylabel="CPU s", title=f"Cost of {seconds} s of churn")
    axes.legend()
    figure.savefig(RESULTS / "engines.svg", metadata={"Date": None})
    print("\n".join(lines))


if __name__ == "__main__":
    main()
