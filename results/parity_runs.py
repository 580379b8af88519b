"""Makes `results/parity/`: simulated against real, for several releases and scenarios, and one table of it all.

Usage: python results/parity_runs.py PILOT_DISCOVERY... [--repeat 5] [--scenario NAME]... [--again]

Each release and scenario gets a folder with parity.json (all figures, the real runs' spread, the machine) and
parity.svg; README.md beside them is the table, and the project's README has a summary of it. What is there is kept
unless it is run again. --again simulates anew what is there, and keeps the real runs: after a change of the model.

On a machine that does other work, run it with `chrt --rr 10`, so that istiod has its cores when it wants them, and set
/proc/sys/kernel/sched_rr_timeslice_ms to 1: with its default of 100, Go's sysmon thread waits that long for the core.
Set /proc/sys/kernel/sched_rt_runtime_us to -1, too: with its default of 950000 the kernel takes the core from an
istiod that is overloaded for 50 ms of each second. Go's sysmon, which ends slices and polls the network each 10 ms,
takes turns with all else at real-time priority, and looks each 12 ms then (seen in traces of istiod 1.17.8). A script
in the binary's place that starts it with `chrt --other 0 nice -n -20` spares it that: overload-sidecars on 1.24.6,
three runs, pushed 88 times (77) and had a P99 of 2.29 s (2.36); what is in the folder was run without.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from pushsim.files import write_block
from pushsim.metrics import BOUNDS, CONVERGED
from pushsim.parity import TOLERANCES, Compared, Parity, Row, at_speed, compare, parity
from pushsim.plots import parity_details
from pushsim.replay import adapted, allot, release_of
from pushsim.result import Result, tidy
from pushsim.scenario import Scenario

FOLDER = Path(__file__).parent / "parity"
README = FOLDER.parent.parent / "README.md"
#: Unscoped, scoped and exportTo (its variants); debounce held to its maximum; two overloaded, one gateway-heavy.
SCENARIOS = ("aisuite-small", "debounce-hold", "overload-sidecars", "overload-gateways")
SHOWN = (
    "merged_pushes",
    "fan_out_mean",
    "bytes_sent",
    "converged_s.mean",
    "received_s.p50",
    "received_s.p99",
    "istiod_cpu_cores.mean",
    "istiod_heap_bytes.max",
)
#: In the summary, by what they are called there.
SUMMED = {
    "received_s.p50": "`received` P50",
    "received_s.p99": "`received` P99",
    "converged_s.mean": "mean `converged`",
    "merged_pushes": "pushes",
    "bytes_sent": "bytes",
    "istiod_cpu_cores.mean": "CPU",
    "istiod_heap_bytes.max": "heap's peak",
}


def run(binary: Path, name: str, repeat: int) -> None:
    """One release, one scenario."""
    release = release_of(binary)
    begun = time.monotonic()

    def tell(what: str, share: float) -> None:
        at = f"{time.monotonic() - begun:6.0f} s  {release} {name}"
        print(f"\r{at}: {what} {100 * share:3.0f} %\033[K", end="", file=sys.stderr)

    found = parity(Scenario.load(name), binary, repeat=repeat, progress=tell)
    folder = FOLDER / f"{name}-{release}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "parity.json").write_text(json.dumps(found.to_json(), indent=1, ensure_ascii=False) + "\n")
    parity_details(found).save(folder / "parity.svg")
    print(file=sys.stderr)
    if not found.complete:
        raise SystemExit(f"{release} {name}: {found.ended}")


def again(folder: Path) -> None:
    """Simulate anew what was run there; the real runs stay as they are."""
    path = folder / "parity.json"
    whole = json.loads(path.read_text())
    release, name = whole["scenario"]["release"], Path(whole["scenario"]["path"]).stem
    scenario = Scenario.load(name)
    scenario = adapted(scenario, release, allot(scenario.settings.cpus, None))
    drawn = Parity(scenario, release, whole["mode"])
    for variant, found in whole["variants"].items():
        simulated = at_speed(scenario, variant, found.get("cpu_speed", 1.0))
        said = {row.metric: row for row in compare(simulated.summary, (), TOLERANCES)}
        kept = {row["metric"]: tuple(row["runs"]) for row in found["rows"]}
        rows = tuple(Row(m, row.simulated, kept.get(m, ()), row.tolerance, row.points) for m, row in said.items())
        exact = found.get("exact", {})
        same = all(score["equal"] == score["checked"] for score in exact.values() if isinstance(score, dict))
        found["rows"] = [row.to_json() for row in rows]
        found["within"] = same and all(row.within for row in rows)
        drawn.variants[variant] = Compared(variant, simulated, tuple(_real(simulated, rows)), rows)
    whole["within"] = all(found["within"] for found in whole["variants"].values())
    path.write_text(json.dumps(tidy(whole), indent=1, ensure_ascii=False) + "\n")
    parity_details(drawn).save(folder / "parity.svg")


def _real(like: Result, rows: tuple[Row, ...]) -> Iterator[Result]:
    """The real runs, as far as the figures tell of them: what is drawn."""
    figures = {row.metric: row.real for row in rows}
    for number in range(max(map(len, figures.values()), default=0)):
        told = {name: values[number] for name, values in figures.items() if number < len(values)}
        shares = [told.get(f"converged_share.le_{bound:g}", 0.0) for bound in BOUNDS[CONVERGED]]
        counts = [round(1e9 * (high - low)) for low, high in pairwise([0.0, *shares, 1.0])]
        received = {q: told[f"received_s.{q}"] for q in ("p50", "p99") if f"received_s.{q}" in told}
        histograms = {CONVERGED: {"counts": counts}} if any(shares) else {}
        yield replace(like, summary={"received_s": received, "histograms": histograms})


def table() -> str:
    """All that is in the folder, one line a variant."""
    lines = [
        "# Simulated against real",
        "",
        "Errors of simulated figures against the mean of the real runs, and in brackets half the real runs' spread.",
        "Speed: how fast the machine was for istiod beside the replays, against the one the calibration was made on; "
        "simulated so. 1.00: not measured.",
        "Answers: responses compared one change at a time (type, names, removed names), and those with equal bytes.",
        "`!` marks runs whose times are not istiod's alone (see `notes` in parity.json).",
        "",
        "| release | scenario | variant | runs | speed | answers equal | bytes | " + " | ".join(SHOWN) + " | within |",
        "|" + "---|" * (8 + len(SHOWN)),
    ]
    machines = set()
    for whole, name, found, rows in _compared():
        exact = found.get("exact", {})
        answers = [_share(exact.get("pushes")), _share(exact.get("bytes"))]
        cells = [*answers, *(_cell(rows.get(metric)) for metric in SHOWN)]
        mark = " !" if not found["valid"] or any("busy machine" in note for note in found["notes"]) else ""
        times = str(max((len(row["runs"]) for row in found["rows"]), default=0))
        head = [
            whole["scenario"]["release"],
            Path(whole["scenario"]["path"]).stem,
            name + mark,
            times,
            f"{found.get('cpu_speed', 1.0):.2f}",
        ]
        lines.append("| " + " | ".join([*head, *cells, "yes" if found["within"] else "no"]) + " |")
        if machine := found.get("machine"):
            machines.add(f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}")
    return "\n".join([*lines, "", *(f"Machine: {machine}" for machine in sorted(machines)), ""])


def _compared() -> Iterator[tuple[dict, str, dict, dict[str, dict]]]:
    """Of all that is in the folder: the file, the variant's name, what was found for it, and its rows by metric."""
    for path in sorted(FOLDER.glob("*/parity.json")):
        whole = json.loads(path.read_text())
        for name, found in whole["variants"].items():
            yield whole, name, found, {row["metric"]: row for row in found["rows"]}


def tell() -> None:
    """Write the table and its summary."""
    (FOLDER / "README.md").write_text(table())
    write_block(README, "parity", summary())


def summary() -> str:
    """How many rows of the table are within 20 %, and the errors at both ends."""
    told: dict[bool, list[dict]] = {False: [], True: []}
    for _, _, _, rows in _compared():
        told[rows["istiod_cpu_cores.mean"]["real"]["mean"] > 0.5].append(rows)
    lines = ["| istiod's core | rows | " + " | ".join(SUMMED.values()) + " |", "|---|---|" + "---|" * len(SUMMED)]
    for busy, name in ((False, "works at most half of the time"), (True, "works more")):
        cells = [_within(rows[metric]["error"] for rows in told[busy] if metric in rows) for metric in SUMMED]
        lines.append("| " + " | ".join([name, str(len(told[busy])), *cells]) + " |")
    return "\n".join([*lines, ""])


def _within(errors: Iterable[float | None]) -> str:
    known = [round(100 * error) for error in errors if error is not None]
    return f"{sum(abs(error) <= 20 for error in known)} of {len(known)} ({min(known):+d} to {max(known):+d} %)"


def _share(found: dict[str, int] | None) -> str:
    return f"{found['equal']} of {found['checked']}" if found else "-"


def _cell(row: dict | None) -> str:
    if row is None or row["error"] is None:
        return "-"
    real = row["real"]
    spread = 50 * (real["max"] - real["min"]) / real["mean"] if real["mean"] else 0.0
    return f"{100 * row['error']:+.1f} % (±{spread:.1f})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binaries", nargs="*", type=Path)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--scenario", action="append")
    parser.add_argument("--again", action="store_true")
    given = parser.parse_args()
    for each in given.binaries:
        for scenario in given.scenario or SCENARIOS:
            run(each, scenario, given.repeat)
            tell()
    for path in sorted(FOLDER.glob("*/parity.json")) if given.again else ():
        again(path.parent)
    tell() if FOLDER.exists() else print("nothing there yet")
