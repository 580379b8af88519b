"""Calibrating: istiod's counters read and translated, dumps read, an Envoy fed, and what comes of measurements."""

from __future__ import annotations

import asyncio
import http.server
import itertools
import json
import math
import os
import threading
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from pushsim import istiod, stub
from pushsim.calibrate import controlplane, dumps, fitting, monitored, of_envoy, of_istiod, profiles, proxies
from pushsim.calibrate import resources as make
from pushsim.calibrate.churning import churn_of
from pushsim.calibrate.counters import Window, read
from pushsim.cli.app import app
from pushsim.cost import DEFAULTS, Calibration, load, shipped, table
from pushsim.errors import EnvironmentProblem, InputError
from pushsim.istiod import detect_release
from pushsim.mesh import Proxy
from pushsim.metrics import read_openmetrics
from pushsim.releases import rules
from pushsim.replay.feeding import Feed, serve
from pushsim.replay.fleet import Fleet, Recorder, Target
from pushsim.replay.quiet import quiet
from pushsim.scenario import Scenario
from pushsim.settings import Variant

PAGE = Path(__file__).parent / "data" / "metrics-1.24.txt"


# ---- counters


def test_a_page_covers_istiods_life_so_far() -> None:
    window = read([str(PAGE)])
    assert window.since_start
    assert 1 < window.seconds < 600
    assert window.scrape.total("pilot_k8s_reg_events", type="Services", event="update") == 25
    assert window.rate("pilot_inbound_updates", type="svcdelete") == pytest.approx(3 / window.seconds)


def page(path: Path, **changed: float) -> str:
    """The page with some values added to; keys are `name__type__event`."""
    lines = []
    for line in PAGE.read_text().splitlines():
        for key, more in changed.items():
            parts = key.split("__")
            name = line.partition("{")[0].partition(" ")[0]
            if name == parts[0] and all(f'"{part}"' in line for part in parts[1:]):
                head, _, value = line.rpartition(" ")
                line = f"{head} {float(value) + more}"
        lines.append(line)
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_two_pages_count_what_lies_between_them(tmp_path: Path) -> None:
    later = page(tmp_path / "later", pilot_k8s_reg_events__Services__update=40, go_memstats_last_gc_time_seconds=100)
    window = read([str(PAGE), later])
    assert not window.since_start
    assert window.seconds == pytest.approx(100)
    assert window.rate("pilot_k8s_reg_events", type="Services", event="update") == pytest.approx(0.4)
    assert window.rate("pilot_inbound_updates") == 0
    assert window.scrape.total("pilot_services") == 11


def test_pages_of_two_processes_are_no_window(tmp_path: Path) -> None:
    later = page(tmp_path / "later", process_start_time_seconds=50)
    with pytest.raises(InputError, match="restarted"):
        read([str(PAGE), later])


@pytest.mark.parametrize("text", ["", "hello world\n", "# TYPE x counter\nx 1\n"])
def test_what_is_no_page_of_an_istiod_is_said_so(tmp_path: Path, text: str) -> None:
    path = tmp_path / "page"
    path.write_text(text)
    with pytest.raises(InputError, match="metrics"):
        read([str(path)])


class Prometheus(http.server.BaseHTTPRequestHandler):
    """Answers queries for the increase of Service updates, and says nothing of the rest."""

    asked: list[str]

    def do_GET(self) -> None:
        query = urllib.parse.parse_qs(urllib.parse.urlparse(self.path).query).get("query", [""])[0]
        self.asked.append(query)
        result = []
        if "pilot_k8s_reg_events" in query:
            result = [{"metric": {"type": "Services", "event": "update"}, "value": [1, "72"]}]
        if "pilot_services" in query:
            result = [{"metric": {}, "value": [1, "20"]}]
        body = json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Prometheus.asked = []
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Prometheus)
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    thread.join()
    served.server_close()


def test_a_prometheus_server_is_asked_for_increases(server: str) -> None:
    window = read([server], 3600)
    assert window.rate("pilot_k8s_reg_events", type="Services", event="update") == pytest.approx(0.02)
    assert any("increase(pilot_k8s_reg_events[3600s])" in query for query in Prometheus.asked)
    churn = churn_of(window)
    assert churn.sources == ({"source": "hpa-annotation", "period": "50s", "share": 0.05},)


def test_a_server_that_is_not_there_is_the_environments_problem() -> None:
    with pytest.raises(EnvironmentProblem, match="cannot be read"):
        read(["http://127.0.0.1:9"])


# ---- churn


def test_counters_become_sources_that_make_istiod_count_so(tmp_path: Path) -> None:
    """The sources' own changes, counted as istiod counts, come to the rates they were made from."""
    window = read([str(PAGE), page(
        tmp_path / "later",
        go_memstats_last_gc_time_seconds=600,
        pilot_k8s_reg_events__Services__add=60,
        pilot_k8s_reg_events__Services__delete=60,
        pilot_k8s_reg_events__Services__update=300,
        pilot_k8s_reg_events__Pods__add=90,
        pilot_k8s_reg_events__EndpointSlice__update=150,
        pilot_k8s_cfg_events__VirtualService__update=30,
        pilot_k8s_cfg_events__Gateway__add=2,
    )])  # fmt: skip
    churn = churn_of(window)
    rates = {(each["source"], each.get("kind", "")): each.get("rate") for each in churn.sources}
    assert rates["services", ""] == "6/m"
    assert rates["scale", ""] == "3/m"
    assert rates["crash-loop", ""] == "3/m"
    assert rates["config-push", "VirtualService"] == "3/m"
    assert ("config-push", "DestinationRule") not in rates
    assert any("Gateway" in note for note in churn.notes)
    generate = {"namespaces": 2, "apps": [{"name": "app", "per_namespace": 5, "sidecar": False, "pods": 2}]}
    section = yaml.safe_load(churn.section())["churn"]
    scenario = Scenario({"mesh": {"generate": generate}, "duration": "10m", "churn": section}, Path())
    noise = [t for t in scenario.variant("as-is").changes if t.source == "hpa-annotation"]
    assert len(noise) == pytest.approx(300, rel=0.25)


def test_a_page_since_the_start_does_not_take_what_was_listed_for_churn() -> None:
    churn = churn_of(read([str(PAGE)]))
    (services,) = [each for each in churn.sources if each["source"] == "services"]
    window = read([str(PAGE)])
    deleted = window.rate("pilot_k8s_reg_events", type="Services", event="delete")
    number, _, unit = services["rate"].partition("/")
    per = {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit]
    assert float(number) / per == pytest.approx(deleted, rel=0.01)
    assert any("lists at its start" in note for note in churn.notes)


def test_churn_prints_a_section_or_json() -> None:
    told = CliRunner().invoke(app, ["churn", "--prometheus", str(PAGE)])
    assert told.exit_code == 0
    assert "source: services" in told.stdout
    assert yaml.safe_load(told.stdout)["churn"]
    told = CliRunner().invoke(app, ["churn", "--prometheus", str(PAGE), "--json"])
    assert json.loads(told.stdout)["churn"][0]["source"] == "services"


def test_churn_of_a_scenario_says_what_each_source_costs_and_saves(tmp_path: Path) -> None:
    path = tmp_path / "scenario.yaml"
    path.write_text(
        "# What is it?\nmesh: {generate: {namespaces: 2, apps: [{name: app, per_namespace: 2}]}}\n"
        "churn: [{source: services, at: [1s], sidecar: false}, {source: crash-loop, at: [8s], down: 1s}]\n"
        "duration: 12s\nwarmup: 0s\n"
    )
    told = CliRunner().invoke(app, ["churn", str(path), "--json"])
    assert told.exit_code == 0, told.stdout
    rows = {row["source"]: row for row in json.loads(told.stdout)["sources"]}
    assert rows["services"]["caused"]["proxy_pushes"] == rows["services"]["saved"]["proxy_pushes"] == 4
    assert rows["crash-loop"]["saved"]["bytes_sent"] > 0


# ---- metrics to coefficients


def test_metrics_tell_few_coefficients_coarsely() -> None:
    found = monitored.from_window(read([str(PAGE)]), "1.24")
    assert {"push.services", "cds.miss", "eds.endpoints", "lds.http", "rds.hosts"} <= set(found.coefficients)
    assert all(c.fitted and c.error >= 0.3 for c in found.coefficients.values())
    scale = found.coefficients["lds.http"].value / shipped("1.24")["lds.http"]
    entry = next(entry for name, entry in found.fit.items() if "lds" in name)
    assert scale == pytest.approx(entry["measured"] / entry["predicted"])
    whole = fitting.calibration("1.24", found)
    assert not whole.coefficients["scope.derived"].fitted


def test_metrics_without_pushes_tell_nothing() -> None:
    empty = Window(read_openmetrics("# TYPE pilot_services gauge\npilot_services 3\n"), 60, True, "page")
    with pytest.raises(InputError, match="neither times nor sizes"):
        monitored.from_window(empty, "1.24")


# ---- istiod


def test_probes_are_scenarios_whose_parts_have_work() -> None:
    for name, data in controlplane.probes(0.02):
        scenario = Scenario(data, Path())
        variant = scenario.variant(scenario.variant_names[0])
        groups = controlplane.groups(variant)
        assert len(groups) >= 3, name
        parts, machine = controlplane.simulated_parts(variant)
        assert parts.pop("connect")["stream.opened"] == len(variant.mesh.proxies), name
        assert list(parts) == list(groups)
        for source, changes in groups.items():
            assert parts[source]["handler.events"] >= len(changes), name
        assert machine.settled
        whole = sum(parts.values(), Counter())
        _, work, _ = controlplane.simulated(variant, tuple(itertools.chain.from_iterable(groups.values())))
        assert whole == +work, "the parts are the whole"


def test_a_probe_tells_a_batch_from_its_events() -> None:
    data = dict(controlplane.probes(0.5))["many changes in one push"]
    scenario = Scenario(data, Path())
    variant = scenario.variant(scenario.variant_names[0])
    moments = {name: len({timed.at_ns for timed in of}) for name, of in controlplane.groups(variant).items()}
    parts, _ = controlplane.simulated_parts(variant)
    for name, count in moments.items():
        assert parts[name]["push.batches"] == count, name
    assert parts["rules"]["handler.events"] == parts["rules"]["push.batches"] == 4
    assert (parts["rules-2"]["handler.events"], parts["rules-2"]["push.batches"]) == (20, 1)


def _probed(true: Mapping[str, float], known: Calibration, *, divided: bool = False) -> list[controlplane.Probed]:
    """Parts of small probes, with CPU times made of these coefficients. divided: by piece, too."""
    scale = {"us": 1e-6, "ns": 1e-9}
    probed = []
    for name, data in controlplane.probes(0.1):
        scenario = Scenario(data, Path())
        variant = scenario.variant(scenario.variant_names[0])
        parts = []
        for part, amounts in controlplane.simulated_parts(variant)[0].items():
            seconds = sum(n * true[d] * scale[known.coefficients[d].unit] for d, n in amounts.items()) * known["gc"]
            contexts = sum(n * true[d] for d, n in amounts.items() if d in of_istiod._OF_CONTEXTS) * 1e-6 * known["gc"]
            more = {d: 50 * n for d, n in amounts.items()}
            pieces = {
                piece: sum(n * true[d] * scale[known.coefficients[d].unit] for d, n in more.items() if d.startswith(of))
                for piece, of in profiles.PIECES.items()
            }
            pieces[""] = 50 * seconds - sum(pieces.values())
            parts.append(controlplane.Part(name, part, 50 * seconds, 50 * contexts, more, pieces if divided else {}))
        heap = controlplane.Heap(10_000_000, 30_000_000, 100_000_000, 80_000_000)
        probed.append(controlplane.Probed(name, tuple(parts), heap, heap, {"memory.base": 1}, {"memory.base": 1}, {}))
    return probed


@pytest.mark.parametrize("slower", [1.0, 2.5])  # than the machine on which the shipped calibration was made
def test_an_istiods_coefficients_come_back_from_the_work_they_make(slower: float) -> None:
    """The fit finds what makes most of the time."""
    known = table("1.24")
    true = {
        name: slower * (3 * c.value if name.startswith(("send", "cds", "push.contexts")) else c.value)
        for name, c in known.coefficients.items()
    }
    probed = _probed(true, known)
    found = of_istiod.of_istiod(probed, "1.24.6")
    for name in ("send.responses", "cds.miss", "push.contexts"):
        assert found.coefficients[name].value == pytest.approx(true[name], rel=0.25)
    whole = [entry for name, entry in found.fit.items() if name.startswith("istiod CPU")]
    assert sum(e["predicted"] for e in whole) == pytest.approx(sum(e["measured"] for e in whole), rel=0.05)
    held = [entry for name, entry in found.fit.items() if name.startswith("held out")]
    assert len(held) == len(list(controlplane.probes()))


def test_what_scatters_is_right_in_its_sum() -> None:
    """Measured a fifth more and a fifth less than the work makes, by turns: relative errors alone come out low."""
    known = table("1.24")
    probed = _probed({name: c.value for name, c in known.coefficients.items()}, known)
    signs = itertools.cycle((1.2, 0.8))
    off = [replace(of, parts=tuple(replace(p, cpu_s=next(signs) * p.cpu_s) for p in of.parts)) for of in probed]
    whole = [entry for name, entry in of_istiod.of_istiod(off, "1.24.6").fit.items() if name.startswith("istiod CPU")]
    assert any(abs(entry["error"]) > 0.1 for entry in whole)
    assert sum(e["predicted"] for e in whole) == pytest.approx(sum(e["measured"] for e in whole), rel=1e-6)


def test_what_no_probe_tells_is_as_slow_as_all_else() -> None:
    known = table("1.24")
    found = of_istiod.of_istiod(
        _probed({name: 2.5 * c.value for name, c in known.coefficients.items()}, known), "1.24.6"
    )
    for name in ("ecds.extensions", "stream.opened", "nds.names"):
        assert not found.coefficients[name].fitted
        assert found.coefficients[name].value == pytest.approx(2.5 * known[name], rel=0.02)


def test_profiles_tell_apart_what_always_comes_together() -> None:
    """Responses and what they are made of: their sum is right without profiles, too."""
    known = table("1.24")
    factors = {"eds.hit": 2.0, "rds.keys": 0.6, "send.responses": 1.5}
    true = {name: factors.get(name, 1.0) * c.value for name, c in known.coefficients.items()}
    off = {}
    for divided in (False, True):
        found = of_istiod.of_istiod(_probed(true, known, divided=divided), "1.24.6")
        values = {name: found.coefficients.get(name, known.coefficients[name]).value for name in factors}
        off[divided] = {name: abs(math.log(value / true[name])) for name, value in values.items()}
        pieces = {name: entry for name, entry in found.fit.items() if name.startswith("istiod profiles: ")}
        assert set(pieces) == ({f"istiod profiles: {piece} (s)" for piece in profiles.PIECES} if divided else set())
        assert all(abs(entry["error"]) < 0.1 for entry in pieces.values())
    assert sum(off[True].values()) < 0.2 * sum(off[False].values()), off
    assert max(off[True].values()) < math.log(1.15), off


@pytest.mark.parametrize("slower", [1.0, 2.5])
def test_a_machine_is_as_fast_as_the_work_tells_that_took_longer_elsewhere(slower: float) -> None:
    """Also where the fit was off: by the same share now as then."""
    known = table("1.24")
    probed = _probed({name: slower * c.value for name, c in known.coefficients.items()}, known)
    assert of_istiod.speed(probed, known) == pytest.approx(1 / slower)
    off = {f"istiod CPU, {each.probe}: {part.name} (s)": {"error": 0.25} for each in probed for part in each.parts}
    assert of_istiod.speed(probed, replace(known, fit=off)) == pytest.approx(0.8 / slower)


@pytest.mark.istiod
def test_this_machine_is_neither_a_snail_nor_a_wonder(istiod_binary: Path) -> None:
    known = shipped(fitting.minor(detect_release(istiod_binary)))
    assert 0.1 < of_istiod.measured_speed(istiod_binary, known, print) < 5


@pytest.mark.istiod
def test_a_probe_tells_how_long_an_istiod_makes_push_contexts(istiod_binary: Path) -> None:
    """Of each kind of change that is pushed in full: less than all of it took."""
    release = fitting.minor(detect_release(istiod_binary))
    name, data = next(iter(controlplane.probes(0.6)))
    probed = asyncio.run(controlplane.probe(name, data, istiod_binary, release, print))
    contexts = {part.name: (part.contexts_s, part.cpu_s) for part in probed.parts}
    assert contexts.pop("connect")[0] == contexts.pop("crash-loop")[0] == 0
    assert contexts and all(0 < of_contexts < of_all for of_contexts, of_all in contexts.values()), contexts
    divided = sum((Counter(part.pieces) for part in probed.parts), Counter())
    spent = sum(part.cpu_s for part in probed.parts)
    assert 0.5 * spent < sum(divided.values()) < 1.3 * spent, "profiles have most of the time"
    assert {"sending", "listeners", "collecting"} < set(divided)
    assert divided[""] < 0.4 * sum(divided.values()), "and know what most of it was for"


# ---- proxies


def test_a_feed_serves_a_whole_conversation_and_pushes() -> None:
    """Our own ADS client on our own server: all resources arrive, a push repeats a type."""

    async def converse() -> tuple[dict[str, list[int]], bool]:
        seen: dict[str, list[int]] = {}
        async with serve(Feed()) as feed:
            feed.put("CDS", {make.cluster_name(i): make.cluster(i) for i in range(3)})
            feed.put("EDS", {make.cluster_name(i): make.assignment(i, 2) for i in range(3)})
            feed.put("LDS", dict([make.http_listener(8080), make.tcp_listener(1)]))
            feed.put("RDS", {"8080": make.routes(8080, 3)})

            def note(_member: Any, response: Any, _at: int) -> None:
                seen.setdefault(response.xds, []).append(len(response.names))

            fleet = Fleet([Target(feed.address)], note)
            from pushsim.ads import AdsClient

            fleet.add(AdsClient(Proxy("a", "ns", "10.1.1.1"), "1.24", "sotw"))
            async with asyncio.timeout(20):
                while "RDS" not in seen or not feed.acknowledged:
                    feed.heard.clear()
                    await feed.heard.wait()
                feed.push("LDS")
                while not feed.acknowledged:
                    feed.heard.clear()
                    await feed.heard.wait()
            await fleet.close()
            return seen, not feed.problems

    seen, accepted = asyncio.run(converse())
    assert seen["CDS"] == [3]
    assert seen["EDS"] == [3]
    assert seen["LDS"] == [2, 2]
    assert seen["RDS"] == [1]
    assert accepted


def test_slopes_of_proxies_come_back_from_the_memory_they_make() -> None:
    runs = list(proxies.design())
    c = {name: coefficient.value for name, coefficient in DEFAULTS.items()}
    seen = []
    for run in runs:
        for step in run.steps:
            grown = 0.0
            for name, amount in step.held.items():
                per = c.get(f"envoy.memory.{name}", 100_000.0)
                grown += per * amount * (run.workers if name.endswith("_worker") else 1)
            grown += step.held.get("cluster", 0) * c["envoy.memory.stats"] * (run.options.get("stats") == "all")
            work = sum(amount * c.get(f"envoy.cpu.{name}", 100.0) for name, amount in step.work.items())
            received = 400_000
            cpu_s = (work + received / 1000 * c["envoy.cpu.byte"]) / 1e6
            seen.append(proxies.Seen(run, step, round(grown), round(1.1 * grown), cpu_s, received))
    idle = proxies.Idle(5_000_000, 15_000_000, 60_000_000)
    found = of_envoy.of_envoy([idle], seen, "1.36.4", "1.30")
    for name in ("cluster", "cluster_worker", "tls", "endpoint", "listener", "manager", "chain", "host", "stats"):
        full = f"envoy.memory.{name}"
        assert found.coefficients[full].value == pytest.approx(c[full], rel=0.05), name
    assert found.coefficients["envoy.memory.allocator"].value == pytest.approx(1.1, rel=0.05)


def dump(tmp_path: Path) -> Path:
    from envoy.config.cluster.v3 import cluster_pb2
    from envoy.config.endpoint.v3 import endpoint_pb2
    from envoy.config.listener.v3 import listener_pb2
    from envoy.config.route.v3 import route_pb2
    from google.protobuf.json_format import MessageToDict

    def told(message: Any) -> dict[str, Any]:
        return MessageToDict(message, preserving_proto_field_name=True)

    clusters = [told(cluster_pb2.Cluster.FromString(make.cluster(i))) for i in range(4)]
    clusters[0]["filters"] = [
        {"name": "istio.metadata_exchange", "typed_config": {"@type": "type.googleapis.com/udpa.type.v1.TypedStruct"}}
    ]
    hosts = [told(endpoint_pb2.ClusterLoadAssignment.FromString(make.assignment(i, 3))) for i in range(4)]
    made = [make.http_listener(8080), make.inbound_listener(2)]
    listeners = [told(listener_pb2.Listener.FromString(value)) for _, value in made]
    routes = told(route_pb2.RouteConfiguration.FromString(make.routes(8080, 4)))
    path = tmp_path / "dump.json"
    sections = [
        {"dynamic_active_clusters": [{"cluster": cluster} for cluster in clusters]},
        {"dynamic_endpoint_configs": [{"endpoint_config": each} for each in hosts]},
        {"dynamic_listeners": [{"name": "x", "active_state": {"listener": each}} for each in listeners]},
        {"dynamic_route_configs": [{"route_config": routes}]},
    ]
    path.write_text(json.dumps({"configs": sections}))
    return path


def test_a_dump_is_counted_and_istios_own_filters_are_left_out(tmp_path: Path) -> None:
    found = dumps.load(dump(tmp_path))
    shape = found.shape
    assert (shape.clusters, shape.tls_clusters, shape.assignments, shape.endpoints) == (4, 4, 4, 12)
    assert (shape.listeners, shape.managers, shape.filter_chains, shape.virtual_hosts) == (2, 5, 2, 5)
    assert found.left_out == {"istio.metadata_exchange": 1}
    from envoy.config.cluster.v3 import cluster_pb2

    read_back = cluster_pb2.Cluster.FromString(found.resources["CDS"][make.cluster_name(1)])
    assert read_back == cluster_pb2.Cluster.FromString(make.cluster(1))


@pytest.mark.parametrize("text", ["", "[]", '{"configs": []}', '{"configs": [{"dynamic_active_clusters": 3}]}'])
def test_what_is_no_dump_is_said_so(tmp_path: Path, text: str) -> None:
    path = tmp_path / "dump.json"
    path.write_text(text)
    with pytest.raises(InputError):
        dumps.load(path)


def test_a_dump_without_an_envoy_is_predicted_only(tmp_path: Path) -> None:
    out = tmp_path / "c.yaml"
    arguments = ["calibrate", "--config-dump", str(dump(tmp_path)), "--release", "1.24", "--out", str(out)]
    told = CliRunner().invoke(app, arguments)
    assert told.exit_code == 0, told.output
    written = yaml.safe_load(out.read_text())
    assert not any(c["fitted"] for c in written["coefficients"].values())
    (entry,) = written["fit"].values()
    assert set(entry) == {"predicted"}
    assert load(out, "1.24")["cds.miss"] == shipped("1.24")["cds.miss"]


@pytest.mark.envoy
def test_a_real_envoy_grows_with_clusters_as_shipped() -> None:
    run = proxies.Run("clusters", (proxies.clusters(0, 100), proxies.clusters(100, 300)))
    idle, seen = asyncio.run(proxies.measure(Path(os.environ["PUSHSIM_ENVOY"]), run))
    known = shipped("1.30")
    per = known["envoy.memory.cluster"] + 2 * known["envoy.memory.cluster_worker"] + known["envoy.memory.tls"]
    assert seen[1].allocated / 200 == pytest.approx(per, rel=0.2)
    assert idle.private == pytest.approx(known["envoy.memory.base"], rel=0.3)


# ---- the verb


def test_calibrate_lists_every_coefficient() -> None:
    told = CliRunner().invoke(app, ["calibrate", "--list"])
    assert told.exit_code == 0
    assert all(f"{name}: " in told.stdout for name in DEFAULTS)


def test_calibrate_from_metrics_writes_a_file_that_loads(tmp_path: Path) -> None:
    out = tmp_path / "c.yaml"
    told = CliRunner().invoke(app, ["calibrate", "--prometheus", str(PAGE), "--release", "1.24", "--out", str(out)])
    assert told.exit_code == 0, told.output
    calibration = load(out, "1.24")
    assert calibration.coefficients["push.services"].fitted
    assert calibration.machine["cores"] >= 1
    assert not list(tmp_path.glob("*.partial"))


def test_the_speed_alone_is_written_with_all_else_as_shipped(
    binary: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_istiod, "measured_speed", lambda *_: 0.75)
    out = tmp_path / "speed.yaml"
    line = ["calibrate", "--speed-only", "--istiod-binary", str(binary("normal")), "--out", str(out)]
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 0 and "cpu_speed 0.75" in done.output, done.output
    release = fitting.minor(detect_release(binary("normal")))
    found = load(out, release)
    assert found.cpu_speed == 0.75
    assert {n: c.value for n, c in found.coefficients.items()} == {
        n: c.value for n, c in shipped(release).coefficients.items()
    }


def test_an_interrupted_calibration_keeps_what_was_fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(of_envoy, "from_envoy", interrupted)
    out = tmp_path / "c.yaml"
    arguments = ["calibrate", "--prometheus", str(PAGE), "--envoy", "/bin/true", "--release", "1.24", "--out", str(out)]
    told = CliRunner().invoke(app, arguments)
    assert told.exit_code == 130
    assert load(out, "1.24").coefficients["push.services"].fitted


@pytest.mark.parametrize(
    "arguments",
    [
        ["--prometheus", str(PAGE), "--out", "x", "--window", "soon"],
        [],
        ["--prometheus", str(PAGE)],
        ["--prometheus", "/nowhere", "--out", "x"],
        ["--prometheus", str(PAGE), "--out", "x", "--speed-only"],
    ],
)
def test_calibrate_says_what_is_missing(arguments: list[str]) -> None:
    told = CliRunner().invoke(app, ["calibrate", *arguments])
    assert isinstance(told.exception, InputError)


@pytest.mark.istiod
@pytest.mark.parametrize("name", ["many proxies, few services", "few proxies, many services"])
def test_a_real_istiods_cache_hits_and_misses_as_often_as_simulated(name: str, istiod_binary: Path) -> None:
    data = dict(controlplane.probes(0.2))[name]
    data["istiod"]["env"]["PILOT_XDS_CACHE_STATS"] = "true"
    release = fitting.minor(detect_release(istiod_binary))
    scenario = Scenario(data, Path()).replaced({"istiod.release": release})
    variant = scenario.variant(scenario.variant_names[0])
    parts, _ = controlplane.simulated_parts(variant)
    amounts = sum(parts.values(), Counter())
    real = asyncio.run(_cache_reads(variant, istiod_binary))
    for outcome in ("hit", "miss"):
        simulated = sum(amounts[f"{xds}.{outcome}"] for xds in ("cds", "eds", "rds"))
        assert simulated == pytest.approx(real[outcome], rel=0.1), outcome


async def _cache_reads(variant: Variant, binary: Path) -> dict[str, float]:
    """`xds_cache_reads` of an istiod after all parts of a probe."""
    cluster = stub.Cluster.of(variant.mesh)
    settings = istiod.Settings(binary, variant.mesh.mesh_config, variant.mesh.env)
    async with stub.serve(cluster) as url, istiod.run(settings, url) as server:
        await quiet(server, cluster, None, 0.3)
        mode = rules(server.release).agent_mode
        async with Recorder.connect(server, variant.mesh.proxies, mode) as recorder:
            await quiet(server, cluster, recorder.fleet, 0.3)
            for changes in controlplane.groups(variant).values():
                for timed in changes:
                    cluster.write(timed.change)
                    await quiet(server, cluster, recorder.fleet, 0.3)
        scrape = read_openmetrics(await server.metrics_text())
        return {outcome: scrape.total("xds_cache_reads", type=outcome) for outcome in ("hit", "miss")}
