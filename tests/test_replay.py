"""Replaying a scenario: with a program that behaves like an istiod, and with a real one where there is one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from envoy.service.discovery.v3 import discovery_pb2
from replayed import SMALL, left_running

from pushsim.ads import AdsClient, Response
from pushsim.control.limiter import REPLICA, draw
from pushsim.errors import EnvironmentProblem, InputError
from pushsim.mesh import TYPE_URLS, Change, Object, Proxy, Ref, Xds
from pushsim.replay import adapted, allot, release_of, replay, writing
from pushsim.replay import fleet as fleet_module
from pushsim.replay.cores import Cores
from pushsim.replay.fleet import Fleet, Target
from pushsim.replay.http2 import GrpcStream
from pushsim.replay.log import Log
from pushsim.replay.shown import Subject, Written, shown, subject_of
from pushsim.result import load
from pushsim.scenario import Scenario
from pushsim.units import SECOND_NS

Binary = Callable[[str], Path]


def scenario(**values: Any) -> Scenario:
    return Scenario.loads(SMALL).replaced(values)


def test_a_replay_fills_a_result_and_leaves_nothing_running(binary: Binary, tmp_path: Path) -> None:
    told: list[tuple[str, str]] = []
    (result,) = replay(
        scenario(), binary("normal"), out=tmp_path / "out", progress=lambda n, p, s: told.append((n, p)), workers=2
    ).values()
    summary = result.summary
    assert result.complete and summary["source"] == "replayed" and summary["changes"] == 4
    # new services push everything to eight proxies; their endpoints may come with them or in a push of their own
    assert summary["connect"]["responses"] == {"CDS": 8, "EDS": 8, "LDS": 8, "RDS": 8}
    assert 0 < summary["responses"]["CDS"] == summary["responses"]["LDS"] <= 8 * summary["merged_pushes"]
    assert summary["bytes_sent"] == sum(result.frame()["size_bytes"] * result.frame()["proxies"])
    assert set(summary["received_s"]) == {"p50", "p90", "p99", "max"} and 0 < summary["received_s"]["p50"] < 5
    assert summary["churn"] == {"services": {"changes": 4}}
    sent = sum(summary["responses"].values())
    assert result.timeline["changes"].sum() == 4 and result.timeline["responses"].sum() == sent
    assert result.proxies["responses"].sum() == sent and result.proxies["proxies"].sum() == 8
    assert result.timeline["bytes_sent"].sum() == result.proxies["bytes_sent"].sum() == summary["bytes_sent"]
    assert "sidecar_memory_bytes" not in summary and "queued_s" not in summary  # what can't be known is absent
    assert summary["clients"]["fleet_cpu_s"] > 0 and summary["istiod_cpu_cores"]["mean"] >= 0
    assert load(tmp_path / "out" / "as-is").summary == summary
    assert ("as-is", "counting") in told and ("as-is", "draining") in told
    assert not left_running()


def test_a_row_per_response_tells_when_a_change_was_received(binary: Binary) -> None:
    (result,) = replay(scenario(), binary("normal"), detail="proxy").values()
    frame = result.frame()
    assert len(frame) == sum(result["responses." + xds] for xds in ("CDS", "EDS", "LDS", "RDS"))
    assert frame["received_s"].notna().any() and frame["proxy"].nunique() == 8
    assert frame["received_s"].max() == pytest.approx(result["received_s.max"])


def test_refused_streams_come_back_and_are_counted(binary: Binary) -> None:
    (result,) = replay(scenario(), binary("refuse-some")).values()
    assert result["connect.streams_refused"] >= 1 and result["connect.responses.CDS"] == 8


def test_proxies_that_reject_are_counted_and_keep_what_they_have(binary: Binary) -> None:
    (result,) = replay(scenario(**{"clients.nack": {"share": 1.0}}), binary("normal")).values()
    assert result["rejects"] == sum(result["responses." + xds] for xds in ("CDS", "EDS", "LDS", "RDS"))
    assert result["responses.CDS"] == result["responses.RDS"]


def test_slow_proxies_receive_later(binary: Binary) -> None:
    slow = scenario(**{"clients.slow": {"share": 1.0, "delay": "300ms"}})
    (result,) = replay(slow, binary("normal")).values()
    assert result["received_s.p50"] > 0.3


def test_recycled_connections_are_counted(binary: Binary) -> None:
    (result,) = replay(scenario(**{"clients.reconnect": {"every": "500ms"}}), binary("normal")).values()
    assert result["reconnects"] > 4


# ---- restarts and replicas


@pytest.fixture
def soon_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """An istiod that restarts takes streams again as soon as it is ready."""
    monkeypatch.setattr(writing, "RESTART_NS", 0)


def restarting(**values: Any) -> Scenario:
    """One restart while changes are written."""
    return Scenario.loads(SMALL.replace("churn: [", f"churn: [{RESTART}, ")).replaced(values)


RESTART = "{source: istiod-restart, rate: 1/s, arrivals: even, start: 300ms, until: 400ms}"


@pytest.mark.usefixtures("soon_back")
def test_a_restarted_istiod_has_its_proxies_again_and_what_it_counted_is_kept(binary: Binary, tmp_path: Path) -> None:
    (result,) = replay(restarting(duration="5s"), binary("normal"), out=tmp_path, keep_log=True).values()
    summary = result.summary
    assert result.complete and summary["restarts"] == 1 and summary["changes"] == 4
    # all lose their streams, are refused while nobody is there, and wait ever longer: the end may come first
    assert 0 < summary["reconnects"] <= 8 <= summary["streams_refused"]
    assert 0.1 < summary["reconnected_s"]["p50"] <= summary["reconnected_s"]["max"] < 30
    assert summary["istiod_cpu_cores"]["mean"] > 0
    logs = sorted((tmp_path / "as-is").glob("*.log"))
    assert [log.name for log in logs] == ["istiod-0-1.log", "istiod.log"] and all(
        "starting" in f.read_text() for f in logs
    )
    assert not left_running()


def test_what_several_istiods_send_is_told_apart_and_their_figures_are_of_each(binary: Binary, tmp_path: Path) -> None:
    asked = scenario(**{"istiod.replicas": 2})
    (result,) = replay(asked, binary("normal"), detail="proxy", out=tmp_path, keep_log=True).values()
    (alone,) = replay(scenario(), binary("normal")).values()
    names = [proxy.id for proxy in asked.mesh.proxies]
    drawn = {name: draw(asked.seed, REPLICA, number, 0) % 2 for number, name in enumerate(names)}
    frame = result.frame()
    assert set(drawn.values()) == {0, 1}
    assert {(p, r) for p, r in zip(frame["proxy"], frame["replica"], strict=True)} == set(drawn.items())
    assert result["connect.responses.CDS"] == 8 and result["reconnects"] == 0
    if len(allot(1, replicas=2).istiod or (0, 1)) == 1:
        assert "2 istiods shared 1 core(s): each had a part of one" in result["notes"]
    # each replica pushes to its own, and may push a service apart from its endpoints
    pushed = [log.read_text().count("Push debounce stable") for log in (tmp_path / "as-is").glob("istiod*.log")]
    assert len(pushed) == 2 and min(pushed) > 0 and result["merged_pushes"] == sum(pushed)
    assert result["istiod_memory_bytes.max"] < 1.5 * alone["istiod_memory_bytes.max"]


@pytest.mark.usefixtures("soon_back")
def test_an_istiod_that_does_not_start_again_is_told(binary: Binary) -> None:
    (result,) = replay(restarting(), binary("start-once")).values()
    assert not result.complete and "no such thing as a mesh" in result.run["ended"]
    assert not left_running()


def test_a_proxy_that_waits_to_connect_again_does_not_do_so_earlier_for_its_age() -> None:
    async def refused() -> int:
        fleet = Fleet([Target("127.0.0.1:1")], lambda _member, _response, _at: None, again=True)
        fleet.point(0, "")
        fleet.add(AdsClient(PROXIES[0], "1.24", "sotw"))
        while not fleet.refused:
            await asyncio.sleep(0)
        fleet.recycle(0)
        for _ in range(50):
            await asyncio.sleep(0)
        await fleet.close()
        return fleet.refused

    assert asyncio.run(refused()) == 1


def test_what_arrives_is_told_however_long_others_take_to_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All proxies share a thread, where each would have a core: each read takes a second here."""
    now = 0
    streams: list[Callable[[bytes], None]] = []
    told: list[tuple[int, int]] = []
    message = discovery_pb2.DiscoveryResponse(type_url=TYPE_URLS["CDS"], version_info="1", nonce="n")

    class Stream(GrpcStream):
        def __init__(self, method: str, authority: str, on_message: Callable[[bytes], None], *more: Any, **named: Any):
            super().__init__(method, authority, on_message, *more, **named)
            streams.append(on_message)

    class Client(AdsClient):
        def receive(self, data: bytes) -> Any:
            nonlocal now
            now += SECOND_NS
            return super().receive(data)

    async def converse() -> None:
        server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        fleet = Fleet([Target(f"{host}:{port}")], lambda member, _, at: told.append((member.number, at)))
        for proxy in PROXIES[:2]:
            fleet.add(Client(proxy, "1.24", "sotw"))
        while fleet.connects < 2:
            await asyncio.sleep(0)
        for on_message in streams:
            on_message(message.SerializeToString())
        while len(told) < 2:
            await asyncio.sleep(0)
        await fleet.close()
        server.close()

    monkeypatch.setattr(fleet_module, "GrpcStream", Stream)
    monkeypatch.setattr(fleet_module, "time", SimpleNamespace(monotonic_ns=lambda: now))
    asyncio.run(converse())
    assert told == [(0, 0), (1, 0)] and now == 2 * SECOND_NS


def test_replicas_share_the_cores_that_there_are() -> None:
    four = Cores((2, 3, 4, 5), (0, 1))
    assert four.of_each(2) == [(2, 3), (4, 5)] and four.cpus(2) == 2
    assert four.of_each(3) == [(2,), (3,), (4,)] and four.cpus(3) == 1
    one = Cores((1,), (0,))
    assert one.of_each(2) == [(1,), (1,)] and one.cpus(2) == 0.5
    assert Cores(None, None).of_each(2) == [None, None] and Cores(None, None).cpus(2) is None
    asked = adapted(scenario(**{"istiod.replicas": 2}), "1.24.6", one)
    assert asked.settings.cpus == 0.5 and adapted(asked, "1.24.6", one) is asked


def test_an_istiod_that_dies_is_told_and_what_came_before_is_kept(binary: Binary, tmp_path: Path) -> None:
    (result,) = replay(scenario(), binary("die"), out=tmp_path / "out").values()
    assert not result.complete and "about to die" in result.run["ended"] and "exit code 7" in result.run["ended"]
    kept = load(tmp_path / "out" / "as-is")
    assert not kept.complete and kept.summary["connect"]["responses"]["CDS"] == 8
    assert any("it died" in note for note in kept.summary["notes"])
    assert not left_running()


def test_an_istiod_that_exits_at_start_shows_its_last_lines(binary: Binary) -> None:
    with pytest.raises(EnvironmentProblem, match=r"(?s)before it was ready.*no such thing as a mesh"):
        replay(scenario(), binary("exit"))


def test_what_is_no_envoy_is_told_before_anything_starts(binary: Binary, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="no Envoy at"):
        replay(scenario(), binary("exit"), envoy=tmp_path / "nothing")


@pytest.mark.istiod
@pytest.mark.envoy
def test_a_real_envoy_rides_along(istiod_binary: Path) -> None:
    envoy = Path(os.environ["PUSHSIM_ENVOY"])
    asked = scenario(**{"istiod.release": release_of(istiod_binary), "duration": "3s"})
    (result,) = replay(asked, istiod_binary, envoy=envoy).values()
    told = result.summary["envoy"]
    assert result.complete and told["proxy"] in {proxy.id for proxy in asked.mesh.proxies}
    assert told["updates_rejected"] == 0 and told["updates_accepted"] >= result["merged_pushes"], told
    assert 10e6 < told["memory_bytes"]["connected"] <= 1.2 * told["memory_bytes"]["ended"] < 500e6
    assert 0 < told["cpu_cores"]["mean"] < 2
    assert told["allocated_bytes"]["connected"] < told["memory_bytes"]["connected"]
    assert any("rode along" in note for note in result.summary["notes"])
    assert not left_running()


def test_what_can_not_be_replayed_is_bad_input(binary: Binary, tmp_path: Path) -> None:
    envoy = tmp_path / "envoy"
    envoy.write_text("#!/bin/sh\necho envoy  version: abc/1.36.4/Clean/RELEASE\n")
    envoy.chmod(0o755)
    with pytest.raises(InputError, match="no core 99"):
        allot(1, [99])
    with pytest.raises(InputError, match="an Envoy stays with one istiod"):
        replay(restarting(), binary("normal"), envoy=envoy)


def command(binary: Path, out: Path, file: Path, text: str = SMALL) -> list[str]:
    file.write_text(text.replace("duration: 1s", "duration: 60s"))
    line = ["replay", str(file), "--istiod-binary", str(binary), "--out", str(out)]
    return [sys.executable, "-c", f"from pushsim.cli import main; main({line!r})"]


def is_program(process: psutil.Process, name: str) -> bool:
    """Whether it runs, and its command line has that name."""
    try:
        return name in " ".join(process.cmdline())
    except psutil.Error:
        return False


def wait_for(process: subprocess.Popen[str], name: str) -> psutil.Process:
    """The child whose command line says that it is the istiod, once it serves."""
    own = psutil.Process(process.pid)
    while process.poll() is None:
        for child in own.children(recursive=True):
            try:
                if name in " ".join(child.cmdline()) and child.net_connections("tcp"):
                    return child
            except psutil.Error:
                continue
    raise AssertionError(process.communicate())


@pytest.mark.parametrize("when", ["at once", "with istiod"])
def test_an_interrupt_leaves_whole_files_and_no_process(binary: Binary, tmp_path: Path, when: str) -> None:
    line = command(binary("normal"), tmp_path / "out", tmp_path / "scenario.yaml")
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        found = wait_for(process, "fake_istiod.py")
        children = psutil.Process(process.pid).children(recursive=True)
        if when == "with istiod":
            while len(found.net_connections("tcp")) < 12:  # listening, watching, and eight streams
                pass
            children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    psutil.wait_procs(children, timeout=10)
    assert not [child for child in children if child.is_running()]
    kept = tmp_path / "out" / "as-is" / "result.json"
    if kept.exists():
        assert json.loads(kept.read_text())["complete"] is False


def test_an_interrupt_in_the_middle_of_a_restart_leaves_no_process(binary: Binary, tmp_path: Path) -> None:
    text = SMALL.replace("churn: [", f"churn: [{RESTART}, ")
    line = command(binary("normal"), tmp_path / "out", tmp_path / "scenario.yaml", text)
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        first = wait_for(process, "fake_istiod.py")
        while process.poll() is None and is_program(first, "fake_istiod.py"):
            pass
        while not any(is_program(c, "fake_istiod.py") for c in psutil.Process(process.pid).children(recursive=True)):
            pass
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    kept = json.loads((tmp_path / "out" / "as-is" / "result.json").read_text())
    assert kept["complete"] is False


def test_an_istiod_that_is_killed_is_exit_3_with_its_last_lines(binary: Binary, tmp_path: Path) -> None:
    line = command(binary("normal"), tmp_path / "out", tmp_path / "scenario.yaml")
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        found = wait_for(process, "fake_istiod.py")
        while len(found.net_connections("tcp")) < 12:
            pass
        found.kill()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 3 and "signal SIGKILL" in said and "it died" in said, said
    assert json.loads((tmp_path / "out" / "as-is" / "result.json").read_text())["complete"] is False


def test_the_binary_decides_release_and_cores() -> None:
    asked = scenario()
    assert adapted(asked, "1.24.6", Cores((1,), (0,))) is asked
    other = adapted(asked, "1.16.7", Cores((1, 2), (0,)))
    assert (other.release, other.settings.cpus) == ("1.16.7", 2)


# ---- who shows what


def response(
    xds: Xds, *altered: str, hosts: tuple[str, ...] = (), version: str = "1", solicited: bool = False
) -> Response:
    return Response(xds, 10, altered, (), solicited, version, "n", frozenset(altered), frozenset(hosts), "delta", b"")


def log_of(*entries: tuple[int, int, Response]) -> Log:
    log = Log()
    for entry in entries:
        log.note(*entry)
    return log


HOST = "a.ns.svc.cluster.local"
CLUSTER = f"outbound|80||{HOST}"
PROXIES = [Proxy("p", "ns", "10.0.0.1"), Proxy("q", "other", "10.0.0.2"), Proxy("g", "ns", "10.0.0.3", "router")]


def test_a_change_is_received_with_the_first_response_that_alters_a_resource_of_its_host() -> None:
    log = log_of(
        (90, 0, response("CDS", CLUSTER)),  # before it was written
        (110, 0, response("CDS", "outbound|80||b.ns.svc.cluster.local")),
        (120, 0, response("EDS", CLUSTER, solicited=True)),
        (130, 0, response("CDS", CLUSTER, version="2")),
        (140, 0, response("EDS", CLUSTER, version="2")),
        (150, 1, response("RDS", "80", hosts=(f"{HOST}:80",), version="2")),
    )
    found = shown(log, [Written(7, 100, Subject(frozenset({HOST})))], PROXIES)
    assert list(found.received) == [30, 50] and found.completed == {7: 50} and found.by_row == {3: 30, 5: 50}


def test_a_proxy_that_was_away_is_shown_what_it_missed_when_it_is_answered_again() -> None:
    log, asked = Log(), response("CDS", CLUSTER, solicited=True)
    log.note(110, 0, asked)  # its first stream: all is new to it
    log.note(140, 1, asked, again=True)
    found = shown(log, [Written(0, 100, Subject(frozenset({HOST})))], PROXIES)
    assert list(found.received) == [40]


def test_pushes_of_two_istiods_that_have_the_same_name_are_two() -> None:
    log = Log()
    log.note(90, 0, response("CDS", "x", version="5"), replica=0)
    log.note(120, 1, response("CDS", CLUSTER, version="5"), replica=1)
    assert list(shown(log, [Written(0, 100, Subject(frozenset({HOST})))], PROXIES).received) == [20]


def test_what_was_written_after_the_first_proxy_had_a_push_is_not_in_it_unless_it_is_endpoints() -> None:
    changes = [Written(0, 100, Subject(frozenset({HOST})))]
    late = log_of((90, 0, response("CDS", "x", version="5")), (120, 1, response("CDS", CLUSTER, version="5")))
    assert not len(shown(late, changes, PROXIES).received)
    live = log_of((90, 0, response("EDS", "x", version="5")), (120, 1, response("EDS", CLUSTER, version="5")))
    assert list(shown(live, changes, PROXIES).received) == [20]


def test_kinds_without_hosts_are_shown_where_they_reach() -> None:
    def written(kind: str, namespace: str) -> Subject:
        body = {"kind": kind, "metadata": {"name": "x", "namespace": namespace}, "spec": {}}
        return subject_of(Change((Object(Ref(kind, namespace, "x"), body),)), lambda _: None)

    log = log_of((110, 0, response("LDS", "l")), (111, 1, response("LDS", "l")), (112, 2, response("LDS", "l")))
    for kind, namespace, delays in [
        ("AuthorizationPolicy", "ns", [10, 12]),
        ("AuthorizationPolicy", "istio-system", [10, 11, 12]),
        ("Gateway", "other", [12]),
        ("Sidecar", "other", [11]),
        ("ConfigMap", "ns", []),
    ]:
        found = shown(log, [Written(0, 100, written(kind, namespace))], PROXIES)
        assert list(found.received) == delays, kind


def test_the_subject_of_services_slices_rules_and_what_is_deleted() -> None:
    def made(kind: str, name: str, labels: Any = None, **spec: Any) -> Object:
        body = {"kind": kind, "metadata": {"name": name, "namespace": "ns", "labels": labels or {}}, "spec": spec}
        return Object(Ref(kind, "ns", name), body)

    held = {o.ref: o.body for o in [made("EndpointSlice", "a-1", {"kubernetes.io/service-name": "a"})]}
    change = Change((made("Service", "b"), made("DestinationRule", "r", host="c")), tuple(held))
    assert subject_of(change, held.get).hosts == {f"{n}.ns.svc.cluster.local" for n in "abc"}
    altered = made("VirtualService", "v", hosts=["new.example.com"])
    before = made("VirtualService", "v", hosts=["old.example.com"]).body
    assert subject_of(Change((altered,)), lambda _: before).hosts == {"new.example.com", "old.example.com"}


def test_logs_of_several_workers_become_one_in_order() -> None:
    one = log_of((1, 0, response("CDS", "x")), (5, 0, response("EDS", "y", version="2")))
    other = log_of((3, 1, response("EDS", "y", version="2")), (4, 1, response("LDS", solicited=True)))
    both = one.merged(other)
    assert list(both.at) == [1, 3, 4, 5] and list(both.proxy) == [0, 1, 1, 0]
    names = {number: name for (_, name), number in both.versions.items()}
    assert [names[v] for v in both.version] == ["1", "2", "1", "2"]
    assert both.altered[1] == both.altered[3] != both.altered[0] and both.altered[2] == -1


@pytest.mark.istiod
@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.usefixtures("soon_back")
def test_a_real_istiod_restarts(istiod_binary: Path, replicas: int) -> None:
    asked = restarting(**{"proxies.mode": "delta", "istiod.replicas": replicas, "duration": "5s"})
    (result,) = replay(asked, istiod_binary).values()
    summary = result.summary
    assert result.complete and summary["restarts"] == 1 and summary["changes"] == 4
    assert 0 < summary["reconnects"] <= 8 and ("reconnected_s" in summary)
    assert summary["responses"]["CDS"] >= summary["pilot_xds_pushes"]["CDS"] >= summary["reconnects"]
    assert summary["istiod_memory_bytes"]["max"] < 400 << 20  # of one
    assert not left_running()


@pytest.mark.istiod
def test_a_real_istiod_is_replayed(istiod_binary: Path) -> None:
    (result,) = replay(scenario(**{"proxies.mode": "delta"}), istiod_binary).values()
    summary = result.summary
    assert result.complete and summary["changes"] == 4
    assert summary["pilot_xds_pushes"] == summary["responses"]
    assert summary["proxy_pushes"] >= 8 and summary["converged_s"]["mean"] > 0
    assert summary["received_s"]["p50"] > 0.02 and summary["istiod_heap_bytes"]["max"] > 1 << 20
