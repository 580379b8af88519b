"""Bars by variant: before and after, and memory. Every axis begins at zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from pushsim.errors import InputError, Problem
from pushsim.figures import HEADLINES, number_at, shown, unit
from pushsim.given import as_results, texts
from pushsim.plots.style import Plot, colours, drawn, formatted, placed, shortened
from pushsim.problems import nearest
from pushsim.result import Results

#: What before and after are compared by, unless asked otherwise.
COMPARED = ("bytes_sent", "converged_s.p99", "istiod_cpu_cores.mean", "sidecar_memory_bytes.mean")

_TITLES = {path: title for title, path in HEADLINES}

#: Of memory: whose, and which figures.
_MEMORY = (
    ("a sidecar", "sidecar_memory_bytes", ("mean", "p99", "max")),
    ("a gateway", "gateway_memory_bytes", ("mean", "p99", "max")),
    ("an istiod", "istiod_memory_bytes", ("mean", "max")),
)


def before_after(results: Results, metrics: Sequence[str] = COMPARED) -> Plot:
    """A small bar chart per figure (dotted paths), with the change against the first variant."""
    results = as_results(results)
    metrics = texts(metrics, "metrics")
    if not metrics:
        raise InputError(Problem("metrics must not be empty", remedy=f"leave them out, or write {list(COMPARED[:1])}"))
    for path in metrics:
        if path not in _TITLES and all(number_at(result.summary, path) is None for result in results.values()):
            known = list(dict.fromkeys(name for result in results.values() for name in result.paths()))
            raise InputError(Problem(f"there is no figure {path!r}", remedy=nearest(path, known, "figures")))
    told: list[str] = []

    def draw(figure: Figure) -> str:
        for axes, path in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
            values = [number_at(result.summary, path) for result in results.values()]
            kind = unit(path)
            axes.set_title(_TITLES.get(path, path))
            bars = axes.bar(
                range(len(values)), [value or 0.0 for value in values], color=list(colours(list(results)).values())
            )
            labels = [_label(value, values[0], kind) for value in values]
            axes.bar_label(bars, labels, fontsize=8)
            _named(axes, list(results))
            axes.margins(y=0.18)
            axes.set_ylim(bottom=0)
            axes.set_ylabel(kind if kind in ("s", "cores") else "")
            formatted(axes.yaxis, kind)
            told.extend(
                f"{_TITLES.get(path, path)}, {name}: {label}" for name, label in zip(results, labels, strict=True)
            )
        return "; ".join(told).replace("\n", " ")

    return drawn("Before and after", results.caption(), (3.1 * len(metrics), 3.6), draw)


def memory(results: Results) -> Plot:
    """Memory of a sidecar, a gateway and an istiod by variant; beside the mean, the greatest."""
    results = as_results(results)

    def draw(figure: Figure) -> str:
        known = [part for part in _MEMORY if any(part[1] in result.summary for result in results.values())]
        if not known:
            placed(figure.subplots(), "no memory is known")
            return "no memory is known"
        for axes, (whose, section, which) in zip(figure.subplots(1, len(known), squeeze=False)[0], known, strict=True):
            width = 0.8 / len(which)
            for place, name in enumerate(which):
                values = [number_at(result.summary, f"{section}.{name}") for result in results.values()]
                at = [variant + (place - (len(which) - 1) / 2) * width for variant in range(len(values))]
                fill = {"alpha": 1 - 0.3 * place, "hatch": ("", "//", "..")[place]}
                bars = axes.bar(
                    at,
                    [value or 0.0 for value in values],
                    width,
                    label=name,
                    color=list(colours(list(results)).values()),
                    **fill,
                )
                axes.bar_label(bars, [shown(value, "B") for value in values], fontsize=6, rotation=90, padding=2)
            _named(axes, list(results))
            axes.set_title(f"memory of {whose}")
            axes.margins(y=0.3)
            axes.set_ylim(bottom=0)
            formatted(axes.yaxis, "B")
            axes.set_ylabel(" / ".join(which))
        return "; ".join(
            f"{whose}, {variant}: {name} {shown(number_at(result.summary, f'{section}.{name}'), 'B')}"
            for whose, section, which in known
            for variant, result in results.items()
            for name in which
        )

    return drawn("Memory by variant", results.caption(), (10, 3.8), draw)


def _label(value: float | None, base: float | None, kind: str) -> str:
    if value is None:
        return "none"
    if base is None or not base or value == base:
        return shown(value, kind)
    return f"{shown(value, kind)}\n{100 * (value / base - 1):+.0f} %"


def _named(axes: Any, names: Sequence[str]) -> None:
    axes.set_xticks(range(len(names)), [shortened(name, 22) for name in names], rotation=25, ha="right", fontsize=8)
