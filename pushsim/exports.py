"""Results for other tools: CSV, Parquet, JSON, Prometheus' metrics under istiod's own names, GraphML."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pushsim import __version__
from pushsim.errors import InputError, Problem, writing
from pushsim.figures import number_at
from pushsim.given import as_results
from pushsim.mesh import XDS
from pushsim.metrics import BOUNDS, Histogram, Labels, Scrape, write_openmetrics, write_text
from pushsim.result import Result, Results, tidy
from pushsim.tables import SCHEMAS

if TYPE_CHECKING:
    import networkx as nx
    import pandas as pd

#: Tables that can be exported; `summary` is every figure of every variant.
TABLES = ("summary", *SCHEMAS)

#: Plain figures of a SUMMARY as metrics of istiod: path, name, labels. Source: pilot/pkg/xds/monitoring.go; Go's and
#: the process's own are those of client_golang's collectors, with the label that Istio's dashboards ask for.
_ISTIOD = {"app": "istiod"}
_PLAIN: tuple[tuple[str, str, Mapping[str, str]], ...] = (
    *((f"responses.{xds}", "pilot_xds_pushes", {"type": xds.lower()}) for xds in XDS),
    ("rejects", "pilot_total_xds_rejects", {}),
    ("connect.connections", "pilot_xds", {}),
    ("istiod_memory_bytes.mean", "process_resident_memory_bytes", _ISTIOD),
)


def export(results: Results, to: str | Path, *, table: str | None = None) -> Path:
    """Write results in the form of the file's ending; returns its path.

    to: the file; the ending says in which form:
    .csv, .parquet: `table` (default: summary) of all variants. .json: a row of it per object; without `table`, the
    summaries as `simulate --json` prints them. .om: OpenMetrics; .prom, .txt: Prometheus' text format. .graphml:
    namespaces, and whose changes push whose proxies.

    Raises InputError for another ending or table, EnvironmentProblem if it can't be written.
    """
    results = as_results(results)
    path = Path(to)
    if table is not None and table not in TABLES:
        from pushsim.problems import nearest

        remedy = nearest(table, TABLES, "tables")
        raise InputError(Problem(f"there is no table {table!r}", field="--table", remedy=remedy))
    writers: dict[str, Callable[[], bytes]] = {
        ".csv": lambda: _frame(results, table).to_csv(index=False).encode(),
        ".parquet": lambda: _parquet(_frame(results, table)),
        ".json": lambda: _json(results, table),
        ".graphml": lambda: graphml(fan_out_graph(results)),
        ".om": lambda: write_openmetrics(scrape(results)).encode(),
    }
    writers |= dict.fromkeys((".prom", ".txt"), lambda: write_text(scrape(results)).encode())
    if path.suffix not in writers:
        remedy = f"end it in {', '.join(writers)}"
        raise InputError(Problem("has an ending that says no form", str(path), remedy=remedy))
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(writers[path.suffix]())
    return path


def _frame(results: Results, table: str | None) -> pd.DataFrame:
    return results.summary if table in (None, "summary") else results.frame(str(table))


def _parquet(frame: pd.DataFrame) -> bytes:
    import io

    target = io.BytesIO()
    frame.to_parquet(target, index=False)
    return target.getvalue()


def _json(results: Results, table: str | None) -> bytes:
    if table is not None:
        return _frame(results, table).to_json(orient="records", indent=1).encode()
    first = next(iter(results.values()), None)
    whole = {
        "pushsim": __version__,
        "scenario": dict(first.identity.get("scenario", {})) if first else {},
        "complete": results.complete,
        "variants": results.to_json(),
    }
    return (json.dumps(tidy(whole), indent=1, ensure_ascii=False) + "\n").encode()


# ---- metrics


def scrape(results: Results) -> Scrape:
    """The results as a scrape of istiod's /metrics would give them at their end, each with the label `variant`."""
    values: dict[tuple[str, Labels], float] = {}
    histograms: dict[tuple[str, Labels], Histogram] = {}
    for name, result in results.items():
        one = scrape_of(result.summary, {"variant": name})
        values.update(one.values)
        histograms.update(one.histograms)
        histograms.update(_sizes(result, {"variant": name}))
        release = result.identity.get("scenario", {}).get("release")
        if release:
            values["istio_build", _labels({"component": "pilot", "tag": release, "variant": name})] = 1.0
    return Scrape(values, histograms)


def scrape_of(summary: Mapping[str, Any], labels: Mapping[str, str]) -> Scrape:
    """What of a SUMMARY, or a part of one, istiod has a metric for."""
    values: dict[tuple[str, Labels], float] = {}
    for path, name, own in _PLAIN:
        value = number_at(summary, path)
        if value is not None:
            values[name, _labels({**labels, **own})] = float(value)
    cores, span = number_at(summary, "istiod_cpu_cores.mean"), number_at(summary, "span_s")
    if cores is not None and span is not None:
        values["process_cpu_seconds_total", _labels({**labels, **_ISTIOD})] = cores * span
    histograms = {
        (name, _labels(labels)): Histogram(tuple(told["le"]), tuple(told["counts"]), told["sum"])
        for name, told in (summary.get("histograms") or {}).items()
        if sum(told["counts"])
    }
    return Scrape(values, histograms)


def _sizes(result: Result, labels: Mapping[str, str]) -> dict[tuple[str, Labels], Histogram]:
    """pilot_xds_config_size_bytes by type, from the rows."""
    name = "pilot_xds_config_size_bytes"
    rows = result.table("rows", ["xds", "proxies", "size_bytes"])
    bounds = BOUNDS[name]
    types, sizes, counts = (rows[column].to_numpy() for column in ("xds", "size_bytes", "proxies"))
    found = {}
    for xds in sorted(set(types)):
        of, times = sizes[types == xds], counts[types == xds]
        buckets = np.bincount(np.searchsorted(bounds, of, side="left"), weights=times, minlength=len(bounds) + 1)
        total = float((of * times).sum())
        found[name, _labels({**labels, "type": xds.lower()})] = Histogram(bounds, tuple(int(n) for n in buckets), total)
    return found


def _labels(labels: Mapping[str, str]) -> Labels:
    return tuple(sorted(labels.items()))


# ---- graphs


def fan_out_graph(results: Results) -> nx.DiGraph[str]:
    """Namespaces; an edge where a namespace's changes push another's proxies, with pushes and bytes by variant."""
    import networkx as nx

    graph: nx.DiGraph[str] = nx.DiGraph()
    for variant, origin, target, pushes, size in results.fan_out.itertuples(index=False):
        graph.add_edge(origin, target, **{f"{variant}: proxy_pushes": pushes, f"{variant}: bytes_sent": size})
    return graph


def call_graph(graph: nx.DiGraph[Any], result: Result) -> nx.DiGraph[str]:
    """A call graph (`Scenario.calls()`) as text, each service with the changes, pushes and bytes that it caused."""
    import networkx as nx

    columns = ["changes", "proxy_pushes", "bytes_sent"]
    frame = result.services
    costs = frame[frame["kind"] == "Service"].set_index(["namespace", "name"])[columns].to_dict("index")
    found: nx.DiGraph[str] = nx.DiGraph()
    for ref in graph:
        told = costs.get((ref.namespace, ref.name), dict.fromkeys(columns, 0))
        found.add_node(f"{ref.namespace}/{ref.name}", **{str(key): value for key, value in told.items()})
    found.add_edges_from(
        (f"{a.namespace}/{a.name}", f"{b.namespace}/{b.name}", dict(of)) for a, b, of in graph.edges(data=True)
    )
    return found


def graphml(graph: nx.DiGraph[str]) -> bytes:
    """The graph as GraphML. Characters that XML has no way to write are left out."""
    import networkx as nx

    legal = nx.relabel_nodes(graph, {node: _legal(node) for node in graph}, copy=True)
    return "\n".join(nx.generate_graphml(legal)).encode() + b"\n"


def _legal(text: str) -> str:
    return "".join(sign for sign in text if sign >= " " or sign in "\t\n\r")
