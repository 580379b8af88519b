"""Draws README's picture from the result folders of `pushsim simulate aisuite --out DIR`.

Usage: python results/readme_picture.py DIR results/aisuite.svg
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

from pushsim import result

BARS = (
    ("bytes sent (GB)", "bytes_sent", 1e-9),
    ("converged P99 (s)", "converged_s.p99", 1.0),
    ("istiod CPU, mean cores", "istiod_cpu_cores.mean", 1.0),
    ("memory of a sidecar, mean (MB)", "sidecar_memory_bytes.mean", 1e-6),
)

#: Okabe and Ito's: told apart by the colour-blind, too.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")


def draw(folder: Path, target: Path) -> None:
    """One small bar chart per figure, every axis from zero."""
    runs = [result.load(path.parent) for path in sorted(folder.glob("*/result.json"))]
    runs.sort(key=lambda run: -run["bytes_sent"])
    scenario = runs[0].identity["scenario"]
    plt.rcParams["svg.hashsalt"] = "pushsim"
    figure, axes = plt.subplots(1, len(BARS), figsize=(12, 3.6))
    for axis, (title, path, scale) in zip(axes, BARS, strict=True):
        known = [path in run.paths() for run in runs]  # a run without pushes has no delays
        values = [run[path] * scale if there else 0 for run, there in zip(runs, known, strict=True)]
        bars = axis.bar([run.variant for run in runs], values, color=COLOURS[: len(runs)])
        axis.bar_label(bars, [f"{v:.3g}" if there else "no push" for v, there in zip(values, known, strict=True)])
        axis.margins(y=0.15)
        axis.set_title(title, fontsize=9)
        axis.set_ylim(0)
        axis.tick_params(axis="x", labelrotation=30, labelsize=8)
    figure.suptitle(
        f"{folder.name}, simulated: Istio {scenario['release']}, seed {scenario['seed']}, "
        f"{scenario['duration_s']:g} s, calibration {runs[0].identity['calibration']['name']}",
        fontsize=9,
    )
    figure.tight_layout()
    figure.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
