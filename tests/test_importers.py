"""Importers: pilot-load's files, istiod's debug pages, a config_dump, a live cluster."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pushsim import cluster, files, istiod, stub
from pushsim.cases import load_case
from pushsim.cli import main
from pushsim.errors import EnvironmentProblem, InputError
from pushsim.importers import from_debug, from_pilot_load, inspect
from pushsim.importers.debug import page_of
from pushsim.mesh import Mesh
from pushsim.replay.fleet import Recorder
from pushsim.replay.quiet import quiet, still_for_s
from pushsim.scenario import Scenario

CASES = Path(__file__).parent / "vectors" / "cases"

# ---- pilot-load

LOAD = """
jitter: {workloads: 110ms, config: 2s}
nodeMetadata: {}
namespaces:
- name: mesh
  replicas: 3
  applications:
  - {name: big, replicas: 2, pods: 4, type: sidecar, configs: [{name: virtualservice}], labels: {tier: big}}
  - {name: small, pods: 1}
- name: front
  applications: [{name: gate, type: gateway, pods: 2, configs: [tls-secret]}]
nodes: [{name: node, count: 5}]
"""


def test_a_cluster_file_is_a_scenario_of_the_same_size(tmp_path):
    (tmp_path / "c.yaml").write_text(LOAD)
    found = from_pilot_load(tmp_path / "c.yaml")
    scenario = Scenario.loads(found.text)
    mesh = scenario.variant("as-is").mesh
    sidecars = [proxy for proxy in mesh.proxies if proxy.type == "sidecar"]
    assert len(sidecars) == 3 * 2 * 4
    assert len(mesh.proxies) - len(sidecars) == 2
    pods = [held for held in mesh.of_kind("Pod") if held.ref.namespace.startswith("mesh-")]
    assert len(pods) == 3 * (2 * 4 + 1)
    assert len(list(mesh.of_kind("Node"))) == 5
    assert len(list(mesh.of_kind("VirtualService"))) == 3 * 2
    rates = {source.source: float(source.rate) for source in scenario.model.churn}
    assert rates == {"scale": pytest.approx(1 / 0.11), "config-push": pytest.approx(0.5)}
    assert any("configs" in note for note in found.notes)
    assert scenario.question.startswith("What does pilot-load's c.yaml cost")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1", "namespaces"),
        ("namespaces: [{applications: [{type: nonesuch}]}]", r"namespaces\[0\]\.applications\[0\]\.type"),
        ("namespaces: [{replicas: many}]", r"namespaces\[0\]\.replicas"),
        ("namespaces: [{name: a}]\njitter: {workloads: often}", r"jitter\.workloads"),
    ],
)
def test_what_is_wrong_with_a_cluster_file_is_told_with_its_field(tmp_path, text, told):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match=told):
        from_pilot_load(tmp_path / "c.yaml")


@pytest.mark.manifests
def test_pilot_loads_own_files_are_read(real_manifests):
    counts = {}
    for path in sorted((real_manifests / "pilot-load").glob("*.yaml")):
        found = from_pilot_load(path)
        scenario = Scenario.loads(found.text)
        counts[path.stem] = (scenario, found.notes)
    assert {"basic", "big", "gateway", "ambient"} <= set(counts)
    apps = counts["big"][0].value("mesh.generate.apps")
    assert apps[0]["per_namespace"] * apps[0]["pods"] == 2000
    assert counts["gateway"][0].value("mesh.generate.gateways.count") == 1
    assert any("ambient" in note for note in counts["ambient"][1])


# ---- istiod's pages, from a real one


def pages(binary: Path, case_name: str, mode: str) -> tuple[Mesh, str, dict[str, Any]]:
    """The mesh of a case, the release, and the pages of a real istiod to which its proxies are connected."""
    case = load_case(CASES / f"{case_name}.yaml")
    settings = istiod.Settings(binary, case.mesh.mesh_config, {**istiod.RECORDING, **case.mesh.env})
    still = still_for_s(case.mesh.env)

    async def ask() -> tuple[str, dict[str, Any]]:
        there = stub.Cluster.of(case.mesh)
        async with stub.serve(there) as url, istiod.run(settings, url) as server:
            await quiet(server, there, None, still)
            async with Recorder.connect(server, case.mesh.proxies, mode) as recorder:
                await quiet(server, there, recorder.fleet, still)
                names = ["registryz", "endpointShardz", "configz", "adsz", "syncz", "mesh"]
                asked = [*names, f"config_dump?proxyID={sidecar_of(case.mesh)}"]
                return server.release, {path.split("?")[0]: await server.debug(path) for path in asked}

    release, found = asyncio.run(ask())
    return case.mesh, release, found


def sidecar_of(mesh: Mesh) -> str:
    return next(proxy.id for proxy in mesh.proxies if proxy.type == "sidecar")


def saved(folder: Path, found: Mapping[str, Any]) -> list[Path]:
    for name, page in found.items():
        (folder / f"{name}.json").write_text(json.dumps(page))
    return [folder / f"{name}.json" for name in found if name != "config_dump"]


@pytest.mark.istiod
@pytest.mark.parametrize(("name", "mode"), [("services", "delta"), ("headless", "sotw"), ("service-entries", "delta")])
def test_a_real_istiods_pages_give_its_mesh_and_its_proxies_have_what_we_predict(istiod_binary, name, mode, tmp_path):
    mesh, release, found = pages(istiod_binary, name, mode)
    (tmp_path / "mesh.json").write_text(from_debug(saved(tmp_path, found)))
    back = files.load([str(tmp_path / "mesh.json")]).mesh
    assert {proxy.id: (proxy.type, proxy.ip) for proxy in back.proxies} == {
        proxy.id: (proxy.type, proxy.ip) for proxy in mesh.proxies
    }
    ours = {held.ref: held.spec for held in back.of_kind("Service", "ServiceEntry", "Sidecar")}
    for held in mesh.of_kind("Service", "ServiceEntry", "Sidecar"):
        assert held.ref in ours
    for imported in (mesh, back):
        compared = inspect(imported, tmp_path / "adsz.json", release=release, mode=mode)
        assert {held.xds for held in compared} >= {"EDS", "RDS"}  # CDS and LDS: with delta, from 1.17 on
        wrong = [held for held in compared if held.only_held or held.only_predicted]
        assert wrong == [], imported is back
    one = inspect(back, tmp_path / "config_dump.json", proxy=sidecar_of(mesh), release=release, mode=mode)
    assert {held.xds for held in one} >= {"CDS", "LDS"}
    assert [held for held in one if held.only_held or held.only_predicted] == []


def test_pages_are_known_by_their_shape():
    assert page_of([{"Attributes": {}, "hostname": "a"}]) == "registryz"
    assert page_of([{"proxy": "a.b", "cluster_id": "c"}]) == "syncz"
    assert page_of([{"kind": "Sidecar", "spec": {}}]) == "configz"
    assert page_of([]) == "configz"
    assert page_of({"totalClients": 0, "clients": []}) == "adsz"
    assert page_of({"a.b": {"b": {"Shards": {}}}}) == "endpointz"
    assert page_of({"rootNamespace": "istio-system"}) == "mesh"
    for other in ({}, {"a": 1}, [1], "x", [{"a": 1}]):
        assert page_of(other) is None


def test_what_is_no_page_is_told(tmp_path):
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.json").write_text('{"a": 1}')
    (tmp_path / "c.json").write_text("[]")
    for name, told in (("a", "no JSON"), ("b", "no page"), ("c", "registryz"), ("d", "cannot be read")):
        with pytest.raises(InputError, match=told):
            from_debug([tmp_path / f"{name}.json"])
    with pytest.raises(InputError, match="neither"):
        inspect(Mesh(), tmp_path / "b.json")


CONFIG_DUMP = {
    "configs": [
        {"@type": "…ClustersConfigDump", "static_clusters": [{"cluster": {"name": "xds-grpc"}}],
         "dynamic_active_clusters": [{"cluster": {"name": n}} for n in ("BlackHoleCluster", "outbound|80||x")]},
        {"@type": "…ListenersConfigDump",
         "dynamic_listeners": [{"name": "l", "active_state": {"listener": {"name": "l"}}}]},
    ]
}  # fmt: skip


def test_the_verb_says_what_only_one_side_has(tmp_path, capsys):
    (tmp_path / "dump.json").write_text(json.dumps(CONFIG_DUMP))
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a-0", "namespace": "a"},
        "spec": {"containers": [{"name": "istio-proxy", "image": "proxyv2"}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
    }
    (tmp_path / "mesh.json").write_text(json.dumps(pod))
    arguments = ["inspect", str(tmp_path / "mesh.json"), "--dump", str(tmp_path / "dump.json"), "--release", "1.24"]
    (tmp_path / "none.json").write_text('{"totalClients": 0, "clients": []}')
    for proxy, told in (([], "any proxy"), (["--proxy", "a-0.a"], "a-0.a")):
        with pytest.raises(SystemExit) as ended:
            main([*arguments[:3], str(tmp_path / "none.json"), *proxy])
        assert ended.value.code == 2
        assert f"none.json: holds nothing of {told} to compare" in capsys.readouterr().err
    for more, code in ((["--proxy", "a-0.a", "--json"], 1), (["--proxy", "a-1.a"], 2), ([], 2)):
        with pytest.raises(SystemExit) as ended:
            main([*arguments, *more])
        assert ended.value.code == code
        if code == 1:
            told = {held["xds"]: held for held in json.loads(capsys.readouterr().out)}
            assert told["CDS"]["only_held"] == ["outbound|80||x"]
            assert told["CDS"]["equal"] == 1
            assert "PassthroughCluster" in told["CDS"]["only_predicted"]
            assert "EDS" not in told
    assert "did you mean a-0.a" in capsys.readouterr().err


# ---- a live cluster


def kubeconfig(folder: Path, url: str) -> Path:
    path = folder / "kubeconfig"
    context = {"name": "here", "context": {"cluster": "stub", "user": "me"}}
    whole = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "stub", "cluster": {"server": url}}],
        "users": [{"name": "me", "user": {}}],
        "contexts": [context],
        "current-context": "here",
    }
    path.write_text(json.dumps(whole))
    return path


def test_a_live_cluster_is_read_in_pages_and_only_read(tmp_path):
    case = load_case(CASES / "services.yaml")
    there = stub.Cluster.of(case.mesh)
    told: list[tuple[str, int]] = []

    async def main_() -> str:
        async with stub.serve(there) as url:
            path = kubeconfig(tmp_path, url)
            return await asyncio.to_thread(cluster.read, path, page=2, progress=lambda *n: told.append(n))

    (tmp_path / "mesh.json").write_text(asyncio.run(main_()))
    back = files.load([str(tmp_path / "mesh.json")]).mesh
    assert set(back.objects) == set(case.mesh.objects)
    assert all(held.body["spec"] == back.objects[held.ref].body["spec"] for held in case.mesh.of_kind("Service"))
    services = sum(ref.kind == "Service" for ref in case.mesh.objects)
    assert ("Service", services) in told
    assert there.requests["api/v1/services"] == -(-services // 2)
    assert "api/v1/secrets" not in there.requests


def test_a_list_that_expires_is_begun_anew_and_given_up_in_the_end(tmp_path):
    case = load_case(CASES / "services.yaml")
    there = stub.Cluster.of(case.mesh)
    writes = iter(range(100))

    def disturb(kind: str, count: int) -> None:
        if kind == "Service" and count == 2 and next(writes) < disturbances:
            there._put(next(iter(case.mesh.of_kind("Service"))))

    async def main_() -> str:
        async with stub.serve(there) as url:
            return await asyncio.to_thread(cluster.read, kubeconfig(tmp_path, url), page=2, progress=disturb)

    disturbances = 2
    assert json.loads(asyncio.run(main_()))["items"]
    disturbances = 100
    with pytest.raises(EnvironmentProblem, match="list of Service expires"):
        asyncio.run(main_())


def test_a_cluster_that_is_not_there_is_the_environments_fault(tmp_path):
    path = kubeconfig(tmp_path, "http://127.0.0.1:9")
    with pytest.raises(EnvironmentProblem, match="cannot be reached"):
        cluster.read(path)
    with pytest.raises(InputError, match="context"):
        cluster.read(path, context="elsewhere")
    with pytest.raises(InputError, match="cannot be used"):
        cluster.read(tmp_path / "none")
