"""Whose changes push whose proxies: a map of namespaces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from pushsim.errors import chosen
from pushsim.figures import shown
from pushsim.given import as_results
from pushsim.plots.style import MAP, Plot, drawn, formatted, placed, shortened
from pushsim.result import Results

if TYPE_CHECKING:
    import pandas as pd

#: What a namespace may be told by.
VALUES = ("proxy_pushes", "bytes_sent")
OTHERS = "(others)"


def fan_out(results: Results, value: str = "proxy_pushes", most: int = 30) -> Plot:
    """Namespace of the change by namespace of the proxies, one map per variant on one scale of colours.

    value: `proxy_pushes` or `bytes_sent`. Beyond the `most` busiest namespaces, the rest are one: (others).
    """
    results = as_results(results)
    chosen(value, VALUES, "value")
    kind = "B" if value == "bytes_sent" else ""

    def draw(figure: Figure) -> str:
        frames = {name: result.fan_out for name, result in results.items()}
        everything = results.fan_out
        if everything.empty:
            placed(figure.subplots(), "nothing was pushed")
            return "nothing was pushed"
        busy = _busiest(everything, value, most)
        maps = {name: _matrix(frame, value, busy) for name, frame in frames.items()}
        top = max(float(matrix.to_numpy().max()) for matrix in maps.values())
        panels = figure.subplots(1, len(maps), squeeze=False, sharey=True)[0]
        for axes, (name, matrix) in zip(panels, maps.items(), strict=True):
            image = axes.imshow(matrix, cmap=MAP, vmin=0, vmax=top or 1, aspect="auto", interpolation="nearest")
            labels = [shortened(label or "(none)", 18) for label in matrix.columns]
            axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=6)
            axes.set_yticks(range(len(matrix.index)), [shortened(n or "(none)", 18) for n in matrix.index], fontsize=6)
            axes.set_title(shortened(name))
            axes.set_xlabel("namespace of the proxies")
        panels[0].set_ylabel("namespace of the change")
        bar = figure.colorbar(image, ax=list(panels), label=value.replace("_", " "))
        formatted(bar.ax.yaxis, kind)
        return "; ".join(f"{name}: {shown(float(frame[value].sum()), kind)} {value}" for name, frame in frames.items())

    return drawn("Fan-out: whose changes push whose proxies", results.caption(), (3.2 + 3.4 * len(results), 4.8), draw)


def _busiest(frame: pd.DataFrame, value: str, most: int) -> list[str]:
    sums = frame.groupby("from_namespace")[value].sum().add(frame.groupby("to_namespace")[value].sum(), fill_value=0)
    return sorted(sums.sort_values(ascending=False, kind="stable").index[:most])


def _matrix(frame: pd.DataFrame, value: str, busy: list[str]) -> pd.DataFrame:
    known = {name: name for name in busy}
    rows = frame["from_namespace"].map(known).fillna(OTHERS)
    columns = frame["to_namespace"].map(known).fillna(OTHERS)
    matrix = frame.groupby([rows, columns])[value].sum().unstack(fill_value=0)
    rest = [OTHERS] if (rows == OTHERS).any() or (columns == OTHERS).any() else []
    return matrix.reindex(index=[*busy, *rest], columns=[*busy, *rest], fill_value=0.0)
