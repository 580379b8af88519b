"""The call graph, each service coloured by what its changes cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from pushsim.errors import chosen, expected
from pushsim.plots.style import FAINT, INK, MAP, Plot, drawn, formatted, placed, shortened
from pushsim.result import Result

if TYPE_CHECKING:
    import networkx as nx

#: What a service may be coloured by.
VALUES = ("bytes_sent", "proxy_pushes", "istiod_cpu_s")


def call_graph(graph: nx.DiGraph[Any], result: Result, value: str = "bytes_sent", most: int = 120) -> Plot:
    """Who calls whom (`Scenario.calls()`), services coloured by what their changes caused.

    value: bytes_sent, proxy_pushes or istiod_cpu_s. Beyond `most` services, those that cost least are left out, and the
    picture says so.
    """
    import networkx as nx

    expected(graph, (nx.Graph, type(None)), "graph", "a call graph", "give what Scenario.calls() returns")
    expected(result, Result, "result", "one Result", 'name its variant: results["as-is"]')
    chosen(value, VALUES, "value")
    caption = _caption(result)

    def draw(figure: Figure) -> str:
        axes = figure.subplots()
        axes.set_axis_off()
        if not graph:
            placed(axes, "there is no call graph")
            return "there is no call graph"
        services = result.services
        of_services = services[services["kind"] == "Service"]
        named = zip(of_services["namespace"], of_services["name"], of_services[value], strict=True)
        cost = {(namespace, name): float(amount) for namespace, name, amount in named}
        costs = {ref: cost.get((ref.namespace, ref.name), 0.0) for ref in graph}
        kept = sorted(costs, key=lambda ref: (-costs[ref], -graph.degree(ref), ref))[:most]
        shown = graph.subgraph(kept)
        order = [ref for ref in graph if ref in shown]
        layout = nx.spring_layout(shown, seed=1, k=2.5 / max(1, len(order)) ** 0.5)
        at = {ref: (float(x), float(y)) for ref, (x, y) in layout.items()}
        scale = Normalize(0, max(costs.values()) or 1)
        for caller, callee in shown.edges:
            axes.annotate(
                "",
                at[callee],
                at[caller],
                arrowprops={
                    "arrowstyle": "->",
                    "color": FAINT,
                    "alpha": 0.5,
                    "linewidth": 0.6,
                    "shrinkA": 4,
                    "shrinkB": 4,
                },
            )
        places = [at[ref] for ref in order]
        axes.scatter(
            [x for x, _ in places],
            [y for _, y in places],
            c=[costs[ref] for ref in order],
            cmap=MAP,
            norm=scale,
            s=60,
            edgecolors=INK,
            linewidths=0.5,
            zorder=2,
        )
        for ref in kept[: min(15, len(kept))]:
            axes.annotate(
                shortened(f"{ref.name}.{ref.namespace}"), at[ref], xytext=(5, 4), textcoords="offset points", fontsize=6
            )
        bar = figure.colorbar(
            ScalarMappable(scale, MAP), ax=axes, label=f"{value.replace('_', ' ')} that its changes caused"
        )
        formatted(bar.ax.yaxis, "B" if value == "bytes_sent" else "")
        left_out = len(costs) - len(kept)
        if left_out:
            axes.set_title(f"the {len(kept)} dearest services; {left_out} are left out", fontsize=8)
        dearest = ", ".join(f"{ref.name}.{ref.namespace}" for ref in kept[:3])
        return f"{len(kept)} services, {shown.number_of_edges()} calls; dearest: {dearest}"

    return drawn(f"Call graph by cost of changes: {shortened(result.variant)}", caption, (8, 6), draw)


def _caption(result: Result) -> str:
    from pushsim.result import caption

    return caption([result])
