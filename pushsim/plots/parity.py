"""Simulated against real: a dot for each figure, on the line where both agree; and in detail, variant by variant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from pushsim.errors import InputError, Problem, expected
from pushsim.figures import unit
from pushsim.metrics import BOUNDS, CONVERGED, shares
from pushsim.plots.style import COLOURS, FAINT, Plot, colours, drawn, formatted, placed, shortened

if TYPE_CHECKING:
    import pandas as pd

    from pushsim.parity import Compared, Parity

#: How far off is drawn as a band.
BAND = 0.2


def parity(frame: pd.DataFrame, caption: str = "") -> Plot:
    """Real (x) against simulated (y), a panel per unit, logarithmic; the band is within 20 %.

    frame: columns metric, real, simulated and, if there are several, scenario. What is not above zero cannot be drawn
    on such axes, and is named in the caption.
    """
    import pandas as pd

    expected(frame, pd.DataFrame, "frame", "a DataFrame", "with columns metric, real and simulated")
    if missing := sorted({"metric", "real", "simulated"} - {*frame}):
        remedy = "give columns metric, real and simulated"
        raise InputError(Problem(f"frame has no column {missing[0]}", remedy=remedy))
    known = frame[(frame["real"] > 0) & (frame["simulated"] > 0)]
    left_out = list(frame["metric"][~frame.index.isin(known.index)])

    def draw(figure: Figure) -> str:
        if known.empty:
            placed(figure.subplots(), "nothing to compare")
            return "nothing to compare"
        kinds = known["metric"].map(unit)
        units = list(dict.fromkeys(kinds))
        scenarios = known["scenario"] if "scenario" in known else known["metric"].map(lambda _: "")
        for axes, kind in zip(figure.subplots(1, len(units), squeeze=False)[0], units, strict=True):
            of = known[kinds == kind]
            low = float(min(of["real"].min(), of["simulated"].min())) / 1.5
            high = float(max(of["real"].max(), of["simulated"].max())) * 1.5
            axes.plot([low, high], [low, high], color=FAINT, linewidth=1)
            axes.fill_between(
                [low, high],
                [low * (1 - BAND), high * (1 - BAND)],
                [low * (1 + BAND), high * (1 + BAND)],
                color=FAINT,
                alpha=0.2,
                linewidth=0,
            )
            for name, colour in colours(list(dict.fromkeys(scenarios))).items():
                mine = of[scenarios[of.index] == name]
                axes.plot(mine["real"], mine["simulated"], "o", color=colour, label=name or None)
            for metric, x, y in zip(of["metric"], of["real"], of["simulated"], strict=True):
                axes.annotate(metric, (x, y), xytext=(4, -3), textcoords="offset points", fontsize=5)
            axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), aspect="equal")
            axes.set_title(kind or "numbers")
            axes.set_xlabel("real")
            formatted(axes.xaxis, kind)
            formatted(axes.yaxis, kind)
            if scenarios.nunique() > 1:
                axes.legend(fontsize=7)
        figure.axes[0].set_ylabel("simulated")
        off = (known["simulated"] / known["real"] - 1).abs()
        told = f"{(off <= BAND).sum()} of {len(known)} figures within {BAND:.0%}; the worst is off by {off.max():.0%}"
        return told

    if left_out:
        caption = "; ".join(filter(None, [caption, f"zero or unknown, so not drawn: {', '.join(left_out)}"]))
    return drawn("Simulated against real", caption, (10, 3.8), draw)


def parity_details(found: Parity) -> Plot:
    """For each variant: shares converged by Istio's bounds, quantiles of received, and the error of each figure."""
    from pushsim.parity import Parity

    expected(found, Parity, "found", "a Parity", "give what pushsim.parity returns")
    compared = [each for each in found.variants.values() if each.real]

    def draw(figure: Figure) -> str:
        for row, each in zip(figure.subplots(max(1, len(compared)), 3, squeeze=False), compared, strict=False):
            _converged(row[0], each)
            _received(row[1], each)
            _errors(row[2], each)
        within = sum(row.within for each in compared for row in each.rows)
        return f"{within} of {sum(len(each.rows) for each in compared)} figures are within tolerance"

    scenario = found.scenario
    caption = f"Istio {found.release}, {found.mode}, seed {scenario.seed}, scenario {scenario.id}"
    title = f"{scenario.path or 'scenario'}: simulated and real"
    return drawn(title, caption, (12, 3.2 * max(1, len(compared)) + 0.6), draw)


def _converged(axis: Any, compared: Compared) -> None:
    bounds = BOUNDS[CONVERGED]
    for number, result in enumerate(compared.real):
        if real := shares(result.summary):
            label = f"real ({len(compared.real)})" if number == 0 else None
            axis.plot(bounds, real, "o-", color=COLOURS[1], alpha=0.6, label=label)
    if ours := shares(compared.simulated.summary):
        axis.plot(bounds, ours, "s--", color=COLOURS[0], label="simulated")
    axis.set(xscale="log", ylim=(-0.03, 1.03), xlabel="converged within, s (Istio's bounds)", ylabel="share of pushes")
    formatted(axis.xaxis, "s")
    axis.set_title(shortened(compared.variant))
    if axis.get_legend_handles_labels()[0]:
        axis.legend()


#: Quantiles of a SUMMARY, and their shares.
_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


def _received(axis: Any, compared: Compared) -> None:
    def line(summary: Mapping[str, Any], style: str, **more: Any) -> None:
        found = summary.get("received_s", {})
        known = [(found[name], share) for name, share in _QUANTILES.items() if name in found]
        if known:
            delays, at = zip(*known, strict=True)
            axis.plot(delays, at, style, **more)

    for result in compared.real:
        line(result.summary, "o-", color=COLOURS[1], alpha=0.6)
    line(compared.simulated.summary, "s--", color=COLOURS[0])
    axis.set(xlabel="received within, s", ylabel="share of (change, proxy)", ylim=(0.45, 1.03), xlim=(0, None))


def _errors(axis: Any, compared: Compared) -> None:
    rows = [row for row in compared.rows if row.error is not None]
    fills = [COLOURS[2] if row.within else COLOURS[5] for row in rows]
    axis.barh([row.metric for row in rows], [100 * (row.error or 0.0) for row in rows], color=fills)
    axis.axvline(0, color=FAINT, linewidth=0.8)
    axis.invert_yaxis()
    axis.tick_params(axis="y", labelsize=6)
    axis.set(xlabel="error, % (shares: points)")
