"""Second by second: what was written, pushed and sent, what waits, and istiod's cores."""

from __future__ import annotations

from matplotlib.figure import Figure

from pushsim.given import as_results
from pushsim.plots.style import Plot, colours, drawn, formatted, placed, shortened
from pushsim.result import Results

#: Panels: columns of `timeline`, how the second is drawn, label of the axis, unit.
_PANELS = (
    (("changes", "merged_pushes"), "changes a second\n(dashed: merged pushes)", ""),
    (("bytes_sent",), "sent a second", "B"),
    (("changes_on_their_way",), "changes on their way\nat the second's end", ""),
    (("queue_length",), "proxies in the push queue\nper replica", ""),
    (("slots_in_use",), "throttle, slots in use\nper replica", ""),
    (("istiod_cpu_cores",), "istiod, cores at work\nper replica", "cores"),
)


def timeline(results: Results) -> Plot:
    """Changes and merged pushes, bytes, what is on its way, the push queue, the throttle and cores, by the second.

    What a runner does not know (a replay: queue and throttle) has no panel.
    """
    results = as_results(results)
    together = results.timeline
    told = [panel for panel in _PANELS if panel[0][0] in together and together[panel[0][0]].notna().any()]
    known = told or list(_PANELS)

    def draw(figure: Figure) -> str:
        panels = figure.subplots(len(known), 1, sharex=True, squeeze=False)[:, 0]
        if any(result.timeline.empty for result in results.values()):
            for axes in panels:
                placed(axes, "not known")
            return "no timeline is known"
        for axes, (columns, label, unit) in zip(panels, known, strict=True):
            for name, colour in colours(list(results)).items():
                frame = together[together["variant"] == name]
                for column, line in zip(columns, ("-", "--"), strict=False):
                    first = column == columns[0]
                    axes.step(
                        [*frame["second_s"], frame["second_s"].iloc[-1] + 1],
                        [*frame[column], frame[column].iloc[-1]],
                        line,
                        where="post",
                        color=colour,
                        label=shortened(name) if first else None,
                        linewidth=1.3 if first else 1,
                    )
            axes.set_ylabel(label, fontsize=7)
            axes.set_ylim(bottom=0)
            axes.grid(axis="y")
            formatted(axes.yaxis, unit)
        panels[0].legend(loc="upper right", fontsize=8, ncols=3)
        panels[-1].set_xlabel("s since counting began")
        busiest = together.groupby("variant", sort=False)["istiod_cpu_cores"].max()
        return "; ".join(f"{name}: at most {cores:.3g} cores" for name, cores in busiest.items())

    return drawn("Timeline", results.caption(), (9, 1.6 * len(known) + 0.6), draw)
