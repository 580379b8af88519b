"""Exports and live metrics: what is written is read by those who are to read it, a real Prometheus among them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import quote

import networkx as nx
import pandas as pd
import pytest
from conftest import outside
from test_report import HOSTILE, results

import pushsim as ps
from pushsim import exports, live
from pushsim.cli import main
from pushsim.exports import export
from pushsim.mesh import Ref
from pushsim.metrics import Histogram, read_openmetrics
from pushsim.tables import SCHEMAS, table_of

LE = [0.1, 0.5, 1, 3, 5, 10, 20, 30]


def measured() -> ps.Results:
    """A result with all that istiod has metrics for."""
    rows = [[1, 1, 0, 1, 0, 3, xds, False, 5, 0, size, 0, 0, 0] for xds, size in (("CDS", 500), ("EDS", 20_000))]
    buckets = {"pilot_proxy_convergence_time": {"le": LE, "counts": [90, 9, 1, 0, 0, 0, 0, 0, 0], "sum": 5.5}}
    summary = {
        "source": "simulated",
        "span_s": 10.0,
        "responses": {"CDS": 3, "EDS": 3, "LDS": 0, "RDS": 0},
        "istiod_cpu_cores": {"mean": 0.5},
        "istiod_memory_bytes": {"mean": 2e8},
        "connect": {"connections": 7},
        "histograms": buckets,
    }
    return ps.Results(
        [ps.Result("v", summary, {"scenario": {"release": "1.24"}}, True, {"rows": table_of(SCHEMAS["rows"], rows)})]
    )


def test_metrics_have_istiods_names_and_are_read_back():
    text = export_text(measured(), ".om")
    assert text.endswith("# EOF\n")
    back = read_openmetrics(text)
    assert back.total("pilot_xds_pushes") == 6
    assert back.total("pilot_xds_pushes", type="eds", variant="v") == 3
    assert back.total("process_cpu_seconds_total", app="istiod") == 5
    assert back.total("pilot_xds") == 7
    assert back.histogram("pilot_proxy_convergence_time") == Histogram(tuple(LE), (90, 9, 1, 0, 0, 0, 0, 0, 0), 5.5)
    sizes = back.histogram("pilot_xds_config_size_bytes", type="eds")
    assert (sizes.count, sizes.sum) == (3, 60_000)
    assert 'pilot_xds_pushes{type="cds",variant="v"} 3' in text


def test_a_text_page_has_the_types_that_istiods_own_has():
    text = export_text(measured(), ".prom")
    assert "# EOF" not in text
    types = dict(line.split()[2:] for line in text.splitlines() if line.startswith("# TYPE"))
    assert types["pilot_xds_pushes"] == types["process_cpu_seconds_total"] == "counter"
    assert types["pilot_xds"] == types["istio_build"] == types["process_resident_memory_bytes"] == "gauge"
    assert types["pilot_proxy_convergence_time"] == "histogram" and not {"unknown", "untyped"} & set(types.values())
    assert read_openmetrics(text) == read_openmetrics(export_text(measured(), ".om"))


def export_text(told: ps.Results, suffix: str) -> str:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return export(told, Path(folder) / f"x{suffix}").read_text()


@pytest.mark.parametrize("table", exports.TABLES)
def test_tables_are_read_back_as_they_were(tmp_path, table):
    told = results(HOSTILE)
    frame = told.summary if table == "summary" else told.frame(table)
    pd.testing.assert_frame_equal(pd.read_parquet(export(told, tmp_path / "t.parquet", table=table)), frame)
    csv = pd.read_csv(export(told, tmp_path / "t.csv", table=table), keep_default_na=False, na_values=[""])
    assert list(csv) == list(frame)
    assert len(csv) == len(frame)
    assert len(json.loads(export(told, tmp_path / "t.json", table=table).read_text())) == len(frame)


def test_summaries_as_json_are_those_that_simulate_prints(tmp_path):
    told = json.loads(export(results(), tmp_path / "t.json").read_text())
    assert told["pushsim"] == ps.__version__
    assert told["variants"]["after"]["bytes_sent"] == 2_000_000


def test_graphs_are_graphml(tmp_path):
    graph = nx.read_graphml(export(results(HOSTILE), tmp_path / "g.graphml"))
    assert len(graph) == len(HOSTILE)
    assert graph.number_of_edges() == len(HOSTILE) ** 2
    assert {"before: bytes_sent", "after: bytes_sent"} <= set(next(iter(graph.edges(data=True)))[2])
    calls: nx.DiGraph[Ref] = nx.DiGraph()
    calls.add_edge(Ref("Service", "a", "a"), Ref("Service", "b", "b"), rate=2.0)
    (tmp_path / "calls.graphml").write_bytes(exports.graphml(exports.call_graph(calls, results()["before"])))
    back = nx.read_graphml(tmp_path / "calls.graphml")
    assert back.nodes["a/a"]["bytes_sent"] == 1e6
    assert back.edges["a/a", "b/b"]["rate"] == 2.0


def test_wrong_endings_tables_and_places_are_told(tmp_path, capsys):
    results().save(tmp_path / "r")
    for arguments, code in (
        (["--to", "x.doc"], 2),
        (["--to", "x.csv", "--table", "servces"], 2),
        (["--to", str(tmp_path / "r" / "before" / "run.json" / "x.csv")], 3),
        (["--to", str(tmp_path / "ok.csv")], 0),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["export", str(tmp_path / "r"), *arguments])
        assert ended.value.code == code, arguments
    assert "services" in capsys.readouterr().err


# ---- live


@pytest.mark.parametrize(("text", "port"), [(":9464", 9464), ("0", 0), ("127.0.0.1:80", 80), ("localhost:1", 1)])
def test_ports_are_read(text, port):
    assert live.port_of(text) == port


@pytest.mark.parametrize("text", ["0.0.0.0:9464", ":99999", "http", "[::]:1"])
def test_metrics_stay_on_this_machine(text):
    with pytest.raises(ps.PushsimError, match="loopback"):
        live.port_of(text)


def test_metrics_are_served_while_they_grow_and_a_taken_port_is_told():
    shown = live.Live()
    with live.serving(shown, 0) as address:
        port = int(address.rpartition(":")[2].split("/")[0])
        with pytest.raises(ps.PushsimError, match="cannot be served"), live.serving(live.Live(), port):
            pass
        for count in (1, 2):
            shown.update("v", {"responses": {"CDS": count}})
            assert got(address).total("pilot_xds_pushes", type="cds") == count
        told = urllib.request.urlopen(address, timeout=10).read().decode()
        assert "# TYPE pilot_xds_pushes counter" in told, "as istiod's own page says, so that rate() is offered for it"
        shown.done(measured())
        assert got(address).histogram("pilot_proxy_convergence_time", variant="v").count == 100


def got(address: str):
    with urllib.request.urlopen(address, timeout=10) as response:
        return read_openmetrics(response.read().decode())


SCENARIO = """
mesh: {generate: {namespaces: 2, apps: [{name: web, pods: 2}]}}
churn: [{source: services, rate: 2/s, prefix: training}]
duration: 3s
warmup: 1s
"""


def test_a_run_is_watched_while_it_runs(monkeypatch):
    monkeypatch.setattr("pushsim.runs._WATCH_S", 0.0)
    seen: list[dict] = []
    told = ps.simulate(ps.Scenario.loads(SCENARIO), engine="simpy", watch=lambda name, summary: seen.append(summary))[
        "as-is"
    ]
    pushed = [summary["proxy_pushes"] for summary in seen]
    assert len(pushed) > 3
    assert 0 < max(pushed) <= told["proxy_pushes"]
    assert seen[-1]["connect"]["connections"] == 4


@pytest.mark.prometheus
def test_a_real_prometheus_draws_the_simulation(tmp_path):
    """`simulate --serve`, scraped by a real server: istiod's own queries give the summary's figures."""
    (tmp_path / "s.yaml").write_text(SCENARIO)
    code = "from pushsim.cli import main; main()"
    run = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, "simulate", "s.yaml", "--serve", ":0", "--json"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    server = None
    try:
        address = run.stderr.readline().split("metrics at ")[1].strip()
        told = json.loads(run.stdout.readline())["variants"]["as-is"]
        assert "served until" in run.stderr.readline()
        target = address.removeprefix("http://").removesuffix("/metrics")
        job = {"job_name": "istiod", "scrape_interval": "200ms", "scrape_timeout": "200ms"}
        job["static_configs"] = [{"targets": [target]}]
        (tmp_path / "p.yml").write_text(json.dumps({"scrape_configs": [job]}))
        server = subprocess.Popen(
            [
                outside("prometheus"),
                "--config.file=p.yml",
                f"--storage.tsdb.path={tmp_path / 'tsdb'}",
                "--web.listen-address=127.0.0.1:0",
            ],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
        )
        base = listening(server)
        p99 = told["converged_prometheus_s"]["p99"]
        queries = {
            'sum(pilot_xds_pushes{type="cds"})': told["responses"]["CDS"],
            "histogram_quantile(0.99, sum(pilot_proxy_convergence_time_bucket) by (le))": p99,
            "sum(pilot_xds)": told["connect"]["connections"],
            'process_resident_memory_bytes{app="istiod"}': told["istiod_memory_bytes"]["mean"],
        }
        assert told["responses"]["CDS"] > 0
        for query, wanted in queries.items():
            assert asked(base, query) == pytest.approx(wanted, rel=1e-6), query
        run.send_signal(signal.SIGINT)
        assert run.wait(30) == 0
    finally:
        for process in (run, server):
            if process is not None:
                process.kill()
                process.wait()
                for stream in (process.stdout, process.stderr):
                    if stream is not None:
                        stream.close()


def environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(Path(ps.__file__).parent.parent)}


def listening(server: subprocess.Popen[str]) -> str:
    """The address Prometheus listens on, from its log."""
    for line in server.stderr:
        if 'msg="Listening on"' in line or "Listening on" in line:
            return f"http://{line.split('address=')[1].split()[0]}"
    raise AssertionError("Prometheus ended before it listened")


def asked(base: str, query: str, within_s: float = 60) -> float:
    """The query's one value, once the first scrape is in."""
    ends = time.monotonic() + within_s
    while time.monotonic() < ends:
        try:
            with urllib.request.urlopen(f"{base}/api/v1/query?query={quote(query)}", timeout=10) as response:
                found = json.load(response)["data"]["result"]
        except OSError:
            continue
        if found:
            return float(found[0]["value"][1])
    raise AssertionError(f"no answer to {query}")
