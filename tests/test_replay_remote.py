"""Replaying on an istiod that runs already: watched only, and written to through a kubeconfig."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pushsim import istiod
from pushsim.cli import main
from pushsim.errors import EnvironmentProblem, InputError
from pushsim.mesh import Change, Object, Ref
from pushsim.replay import Access, Running, Target, replay_on
from pushsim.replay.kubernetes import Kubernetes, client_of, prefixed, written
from pushsim.scenario import Scenario
from pushsim.stub import Cluster, serve

SMALL = """
# Does a replay on a running istiod work?
mesh:
  generate:
    namespaces: 2
    apps: [{name: app, per_namespace: 2, pods: 2}]
istiod: {release: "1.24", env: {PILOT_MAX_REQUESTS_PER_SECOND: 1000, PILOT_DEBOUNCE_AFTER: 20ms}}
proxies: {mode: sotw}
churn: [{source: services, rate: 2/s, arrivals: even, start: 0s, until: 1s}]
clients: {reconnect: {every: never}}
duration: 1s
warmup: 0s
"""


def kubeconfig(folder: Path, url: str) -> Path:
    path = folder / "kubeconfig"
    contexts = [{"name": name, "context": {"cluster": "c", "user": "u"}} for name in ("stub", "other")]
    whole = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": contexts,
        "current-context": "other",
    }
    path.write_text(json.dumps(whole))
    return path


@contextmanager
def running(binary: Path) -> Iterator[tuple[Cluster, str, istiod.Istiod]]:
    """A writable cluster and an istiod of somebody else's, on a thread of their own."""
    cluster = Cluster()
    told: list[Any] = []
    ready, end = threading.Event(), asyncio.Event()

    async def serving() -> None:
        async with (
            serve(cluster, writable=True) as url,
            istiod.run(istiod.Settings(binary), url) as server,
        ):
            told.extend([url, server, asyncio.get_running_loop()])
            ready.set()
            await end.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serving()))
    thread.start()
    try:
        assert ready.wait(60)
        url, server, _ = told
        yield cluster, url, server
    finally:
        told[2].call_soon_threadsafe(end.set)
        thread.join(30)


def names(cluster: Cluster, kind: str) -> set[str]:
    from pushsim.stub.resources import BY_KIND

    return {str(o["metadata"]["name"]) for o in cluster.objects(BY_KIND[kind])}


def test_a_running_istiod_is_written_to_and_left_as_it_was(binary: Callable[[str], Path], tmp_path: Path) -> None:
    with running(binary("normal")) as (cluster, url, server):
        before, kinds = cluster.version, ("Namespace", "Service", "EndpointSlice")
        access = Access("stub", str(kubeconfig(tmp_path, url)), "load-")
        there = Running(Target(server.grpc), f"http://{server.monitoring}/metrics", "1.24.6", access)
        (result,) = replay_on(Scenario.loads(SMALL), there).values()
        left = {kind: names(cluster, kind) for kind in kinds}
        assert cluster.version > before
        assert result.complete and result["changes"] == 2 and result["connect.responses.CDS"] == 8
        assert result["responses.CDS"] in (8, 16)  # two new services, in one push or two
        assert result["received_s.max"] > 0 and "istiod_cpu_cores" not in result.summary
        assert left == {kind: set() for kind in kinds}


def test_a_running_istiod_is_watched_and_nothing_is_written(
    binary: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text(SMALL)
    with running(binary("normal")) as (cluster, _, server):
        before = cluster.version
        line = ["replay", str(scenario), "--istiod", server.grpc, "--release", "1.24.6", "--observe", "--json"]
        with pytest.raises(SystemExit) as ended:
            main(line)
        assert cluster.version == before
    told = json.loads(capsys.readouterr().out)
    assert ended.value.code == 0
    summary = told["variants"]["as-is"]
    assert summary["changes"] == 0 and summary["connect"]["responses"]["LDS"] == 8
    assert "proxy_pushes" not in summary  # there was no page of metrics


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ([], "watched or written to"),
        (["--observe", "--context", "stub"], "watched or written to"),
        (["--observe", "--token-file", __file__], "over TLS only"),
        (["--observe"], "release of the istiod at 127.0.0.1:1 is not known"),
        (["--context", "unnamed", "--release", "1.24", "--kubeconfig", "KUBECONFIG"], "no context 'unnamed'"),
    ],
)
def test_what_was_not_said_is_bad_input(
    line: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario, config = tmp_path / "scenario.yaml", kubeconfig(tmp_path, "http://127.0.0.1:1")
    scenario.write_text(SMALL)
    given = [str(config) if part == "KUBECONFIG" else part for part in line]
    with pytest.raises(SystemExit) as ended:
        main(["replay", str(scenario), "--istiod", "127.0.0.1:1", *given])
    assert ended.value.code == 2 and message in capsys.readouterr().err


def variant(policy: str = "") -> Any:
    return Scenario.loads(SMALL).variant(policy or "as-is")


def test_the_prefix_goes_before_every_namespace_and_what_names_one() -> None:
    def made(kind: str, name: str, **spec: Any) -> Object:
        body = {"kind": kind, "metadata": {"name": name, "namespace": "ns-000"}, "spec": spec}
        return Object(Ref(kind, "ns-000", name), body)

    from dataclasses import replace

    from pushsim.settings import Timed

    given = variant()
    rule = made("DestinationRule", "r", host="app-0.ns-001.svc.cluster.local")
    sidecar = made("Sidecar", "s", egress=[{"hosts": ["ns-001/*", "./*", "ns-0010/*", "*/ns-001.example.com"]}])
    change = Change((rule, sidecar), (Ref("Service", "ns-001", "app-0"),))
    found = prefixed(replace(given, changes=(Timed(0, "changes", change),)), "p-")
    rule, sidecar = found.changes[0].change.apply
    assert rule.spec["host"] == "app-0.p-ns-001.svc.cluster.local" and rule.ref.namespace == "p-ns-000"
    assert sidecar.spec["egress"][0]["hosts"] == ["p-ns-001/*", "./*", "ns-0010/*", "*/ns-001.example.com"]
    assert found.changes[0].change.delete == (Ref("Service", "p-ns-001", "app-0"),)
    assert {proxy.namespace for proxy in found.mesh.proxies} == {"p-ns-000", "p-ns-001"}
    service = next(iter(found.mesh.of_kind("Service")))
    assert "selector" not in service.spec and "clusterIP" not in service.spec
    assert service.labels["app.kubernetes.io/managed-by"] == "pushsim"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("istiod: {", "istiod: {replicas: 2, ", "one running istiod is measured"),
        ("churn: [", "churn: [{source: istiod-restart, rate: 2/s}, ", "not ours to restart"),
    ],
)
def test_what_takes_istiods_of_our_own_is_bad_input(old: str, new: str, message: str) -> None:
    there = Running(Target("127.0.0.1:1"), "", "1.24.6", Access("stub"))
    with pytest.raises(InputError, match=message):
        replay_on(Scenario.loads(SMALL.replace(old, new)), there)


def test_what_would_change_the_whole_mesh_is_refused() -> None:
    with pytest.raises(InputError, match=r"Sidecar/istio-system.*whole mesh"):
        prefixed(variant("root-sidecar"), "p-")


def test_a_namespace_that_exists_is_not_touched(tmp_path: Path) -> None:
    namespace = Ref("Namespace", "", "p-ns-000")
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace.name}}

    async def main_() -> None:
        cluster = Cluster([Object(namespace, body)])
        async with serve(cluster, writable=True) as url:
            access = Access("stub", str(kubeconfig(tmp_path, url)), "p-")
            before = cluster.version
            with pytest.raises(InputError, match="p-ns-000 exists already"):
                async with written(access, prefixed(variant(), "p-").mesh):
                    pass
            assert cluster.version == before

    asyncio.run(main_())


def test_a_dry_run_comes_first_and_what_was_created_goes_even_after_an_error(tmp_path: Path) -> None:
    async def main_() -> None:
        cluster = Cluster()
        async with serve(cluster, writable=True) as url:
            access = Access("stub", str(kubeconfig(tmp_path, url)), "p-")
            with pytest.raises(RuntimeError):
                async with written(access, prefixed(variant(), "p-").mesh):
                    assert names(cluster, "Namespace") >= {"p-ns-000", "p-ns-001"}
                    raise RuntimeError
            assert not names(cluster, "Namespace") and not names(cluster, "Service")

    asyncio.run(main_())


def test_an_api_server_that_refuses_is_an_environment_problem(tmp_path: Path) -> None:
    async def main_() -> None:
        async with serve(Cluster()) as url:  # read-only
            board = Kubernetes(client_of(Access("stub", str(kubeconfig(tmp_path, url)))))
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}
            one = Object(Ref("Namespace", "", "x"), body)
            with pytest.raises(EnvironmentProblem, match=r"would not write Namespace/x.*read-only"):
                await board.put(one)

    asyncio.run(main_())
