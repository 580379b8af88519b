"""How long it takes: the distribution of converged and received, over the buckets that Istio's own histogram has."""

from __future__ import annotations

from itertools import accumulate

from matplotlib.figure import Figure

from pushsim.metrics import BOUNDS
from pushsim.plots.style import FAINT, Plot, colours, drawn, formatted, placed, shortened
from pushsim.result import Result, Results

_STYLES = {"converged": "-", "received": "--"}


def cdf(results: Results) -> Plot:
    """Share of proxies reached within a time: converged (solid, per push) and received (dashed, per change and proxy).

    Vertical lines are the bounds of pilot_proxy_convergence_time: what Prometheus sees between two of them is a guess,
    and beyond the last (30 s) nothing. A replayed run has its own histogram only: its shares at the bounds, as dots.
    """

    def draw(figure: Figure) -> str:
        axes = figure.subplots()
        told, least = [], 0.1
        for name, colour in colours(list(results)).items():
            delays = results[name].delays
            for delay, line in _STYLES.items():
                of = delays[(delays["delay"] == delay) & (delays["value_s"] > 0)]
                if len(of):
                    label = f"{shortened(name)}: {delay}"
                    axes.step(of["value_s"], of["share"], line, where="post", color=colour, label=label)
                    least = min(least, of["value_s"].min())
                    p99 = of.loc[of["share"] <= 0.99, "value_s"].max()
                    told.append(f"{name}: {delay} P99 {p99:.3g} s")
            if not (delays["delay"] == "converged").any():
                bounds, shares = _at_bounds(results[name])
                if bounds:
                    axes.plot(bounds, shares, "o", color=colour, label=f"{shortened(name)}: converged, at the bounds")
        if not told and not axes.lines:
            placed(axes, "nothing was pushed")
            return "nothing was pushed"
        axes.set_xscale("log")
        formatted(axes.xaxis, "s")
        for bound in BOUNDS["pilot_proxy_convergence_time"]:
            axes.axvline(bound, color=FAINT, linewidth=0.7, alpha=0.6)
            axes.annotate(f"{bound:g}", (bound, 1.01), xycoords=("data", "axes fraction"), ha="center", fontsize=7)
        axes.set_xlim(left=least * 0.8)
        axes.set_ylim(0, 1.0)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 0.9, 1.0], ["0", "25 %", "50 %", "75 %", "90 %", "100 %"])
        axes.set_xlabel("s (logarithmic); lines: bounds of pilot_proxy_convergence_time")
        axes.set_ylabel("share of samples that took no longer")
        axes.legend(loc="lower right", fontsize=8)
        return "; ".join(told)

    return drawn("How long until proxies have it", results.caption(), (8, 4.4), draw)


def _at_bounds(result: Result) -> tuple[list[float], list[float]]:
    found = (result.summary.get("histograms") or {}).get("pilot_proxy_convergence_time") or {}
    bounds, counts = list(found.get("le", ())), list(found.get("counts", ()))
    total = sum(counts)
    return (bounds, [below / total for below in accumulate(counts[: len(bounds)])]) if total else ([], [])
