"""Curves of a sweep with their intervals and knees, and the front of what is worth choosing."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from pushsim.errors import InputError, Problem, expected
from pushsim.figures import unit
from pushsim.plots.style import FAINT, INK, Plot, colours, drawn, formatted, placed, shortened
from pushsim.problems import nearest
from pushsim.sweeps import Sweep, front, knee
from pushsim.sweeps.sweeping import COST, DELAY
from pushsim.units import SECOND_NS, UnitError, duration, quantity


def sweep_curve(sweep: Sweep, knob: str, metric: str = DELAY) -> Plot:
    """A figure over one knob, a curve for each setting of the others; band: 95 % over seeds; diamond: the knee."""
    expected(sweep, Sweep, "sweep", "a Sweep", "give what pushsim.sweep returns")
    if knob not in sweep.knobs:
        raise InputError(Problem(f"the sweep does not vary {knob!r}", remedy=nearest(knob, sweep.knobs, "knobs")))
    estimates = sweep.estimates(metric)
    others = [name for name in sweep.knobs if name != knob and sweep.frame[name].nunique() > 1]

    def draw(figure: Figure) -> str:
        axes = figure.subplots()
        told = []
        values = list(dict.fromkeys(sweep.frame[knob]))
        numbers, knob_unit = _numbers(values)
        named = estimates[others].astype(str).agg(", ".join, axis=1) if others else estimates[knob].map(lambda _: "")
        for name, colour in colours(list(dict.fromkeys(named))).items():
            curve = estimates[named == name]
            points = sorted((numbers[row[knob]], row) for row in curve.to_dict("records"))
            xs = [x for x, _ in points]
            ys = [row["value"] for _, row in points]
            axes.plot(xs, ys, "o-", color=colour, markersize=3, label=shortened(name, 48) or None)
            axes.fill_between(
                xs, [r["low"] for _, r in points], [r["high"] for _, r in points], color=colour, alpha=0.2
            )
            bend = knee(list(zip(xs, ys, strict=True))) if knob_unit is not None else None
            if bend is not None:
                axes.plot(xs[bend], ys[bend], "D", color=colour, markeredgecolor=INK, markersize=8)
                axes.annotate(
                    f"knee {points[bend][1][knob]}",
                    (xs[bend], ys[bend]),
                    xytext=(6, 6),
                    textcoords="offset points",
                    fontsize=7,
                )
                told.append(f"{name or metric}: knee at {knob}={points[bend][1][knob]}")
        if not axes.lines:
            placed(axes, f"no run has {metric}")
            return f"no run has {metric}"
        if knob_unit is None or len(values) <= 8:
            axes.set_xticks(
                [numbers[value] for value in values], [shortened(value, 16) for value in values], rotation=30
            )
        if knob_unit is not None and min(numbers.values()) > 0 and max(numbers.values()) / min(numbers.values()) > 20:
            axes.set_xscale("log")
            axes.set_xticks(
                [numbers[value] for value in values], [shortened(value, 16) for value in values], rotation=30
            )
            axes.minorticks_off()
        axes.set_ylim(bottom=0)
        formatted(axes.yaxis, unit(metric))
        axes.set_xlabel(f"{knob}{f' ({knob_unit})' if knob_unit else ''}")
        axes.set_ylabel(f"{metric}{f' ({unit(metric)})' if unit(metric) else ''}")
        axes.grid(axis="y")
        if others:
            axes.legend(title=", ".join(others), fontsize=7, title_fontsize=7)
        return "; ".join(told)

    return drawn(f"{metric} over {knob}", f"{sweep.caption()}; band: 95 % over seeds", (8, 4.4), draw)


def pareto(sweep: Sweep, delay: str = DELAY, cost: str = COST) -> Plot:
    """Every setting by its delay and its cost; the line joins those that no other beats, the diamond is recommended."""
    expected(sweep, Sweep, "sweep", "a Sweep", "give what pushsim.sweep returns")
    choices = sweep.choices(delay, cost)
    best = front(choices)

    def draw(figure: Figure) -> str:
        axes = figure.subplots()
        if not choices:
            placed(axes, "no run has both figures")
            return "no run has both figures"
        policies = list(dict.fromkeys(choice.settings["policy"] for choice in choices))
        for name, colour in colours(policies).items():
            mine = [choice for choice in choices if choice.settings["policy"] == name]
            axes.plot(
                [c.delay for c in mine],
                [c.cost for c in mine],
                "o",
                color=colour,
                markersize=5,
                alpha=0.8,
                label=shortened(name),
            )
        axes.step([c.delay for c in best], [c.cost for c in best], where="post", color=FAINT, linewidth=1, zorder=0)
        chosen = sweep.recommended(delay, cost)
        if chosen is not None:
            axes.plot(chosen.delay, chosen.cost, "D", markersize=10, markerfacecolor="none", markeredgecolor=INK)
            axes.annotate(
                str(chosen), (chosen.delay, chosen.cost), xytext=(8, 8), textcoords="offset points", fontsize=7
            )
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        formatted(axes.xaxis, unit(delay))
        axes.set_xlabel(f"{delay} ({unit(delay)})" if unit(delay) else delay)
        axes.set_ylabel(f"{cost} ({unit(cost)})" if unit(cost) else cost)
        axes.legend(title="policy", fontsize=7, title_fontsize=7)
        return sweep.sentence(delay, cost)

    return drawn("What is worth choosing", f"{sweep.caption()}; means over seeds", (8, 5), draw)


def _numbers(values: list[str]) -> tuple[dict[str, float], str | None]:
    """Each value as a number, and its unit ("" for plain numbers); in order, with None, if they are no numbers."""
    readers: tuple[tuple[str, Any], ...] = (
        ("s", lambda text: duration(text) / SECOND_NS),
        ("", lambda text: float(quantity(text))),
    )
    for kind, read in readers:
        try:
            return {value: read(value) for value in values}, kind
        except UnitError:
            continue
    return {value: float(place) for place, value in enumerate(values)}, None
