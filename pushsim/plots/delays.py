"""How long it takes: the distribution of converged and received, over the buckets that Istio's own histogram has."""

from __future__ import annotations

from matplotlib.figure import Figure

from pushsim.given import as_results
from pushsim.metrics import BOUNDS, CONVERGED, shares
from pushsim.plots.style import FAINT, Plot, colours, drawn, formatted, placed, shortened
from pushsim.result import Results

_STYLES = {"converged": "-", "received": "--"}


def cdf(results: Results) -> Plot:
    """Share of proxies reached within a time: converged (solid, per push) and received (dashed, per change and proxy).

    Vertical lines are the bounds of pilot_proxy_convergence_time: what Prometheus sees between two of them is a guess,
    and beyond the last (30 s) nothing. A replayed run has its own histogram only: its shares at the bounds, as dots.
    """
    results = as_results(results)

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
            if not (delays["delay"] == "converged").any() and (reached := shares(results[name].summary)):
                label = f"{shortened(name)}: converged, at the bounds"
                axes.plot(BOUNDS[CONVERGED], reached, "o", color=colour, label=label)
        if not told and not axes.lines:
            placed(axes, "nothing was pushed")
            return "nothing was pushed"
        axes.set_xscale("log")
        formatted(axes.xaxis, "s")
        for bound in BOUNDS[CONVERGED]:
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
