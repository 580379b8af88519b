"""Synthetic meshes and churn: same seed, same bytes; whole, consistent objects; sources apart from each other."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping
from fractions import Fraction
from ipaddress import ip_address, ip_network
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from pushsim.errors import InputError
from pushsim.mesh import Change, Mesh, Object, Ref
from pushsim.settings import ISTIOD_RESTART
from pushsim.topology import (
    SOURCES,
    AnySource,
    Dated,
    Generate,
    Stream,
    call_graph,
    generate,
    proxy_of,
    read_calls,
    run,
)
from pushsim.topology.churn import unique_names
from pushsim.topology.objects import SLICE_SIZE
from pushsim.units import SECOND_NS

SMALL: dict[str, Any] = {
    "namespaces": [{"name": "ns", "count": 3}, {"name": "shared", "labels": {"team": "core"}}],
    "apps": [
        {"name": "web", "per_namespace": 2, "pods": [1, 3], "labels": {"role": "web"}},
        {"name": "db", "per_namespace": 1, "pods": 2, "headless": True, "sidecar": False, "ports": {"tcp": 5432}},
    ],
    "gateways": {"count": 2, "virtual_services": ["web"]},
}
sources = TypeAdapter(list[AnySource]).validate_python


def small(seed: int = 1) -> Mesh:
    return generate(Generate.model_validate(SMALL), seed)


def churn(written: list[dict[str, Any]], seconds: int = 600, seed: int = 1, mesh: Mesh | None = None) -> list[Dated]:
    return list(run(sources(written), mesh or small(), seed, 0, seconds * SECOND_NS))


def digest(mesh: Mesh) -> str:
    bodies = [[str(ref), held.body] for ref, held in mesh.objects.items()]
    return hashlib.sha256(json.dumps([bodies, [p.id + p.ip for p in mesh.proxies]]).encode()).hexdigest()


def test_a_mesh_is_the_same_for_a_seed_and_differs_by_seed() -> None:
    assert digest(small()) == digest(small())
    assert digest(small()) != digest(small(2))


def test_streams_are_pinned() -> None:
    # Published results name a seed: a numpy or Python that draws otherwise must not pass unnoticed.
    stream = Stream(1, "x")
    assert stream.word() == 9927425073265066408
    assert stream.exponential(Fraction(SECOND_NS)) == 474033888
    assert stream.sample(10, 3) == [2, 5, 7]
    assert Stream(1, "y").word() != Stream(2, "x").word() != 9927425073265066408


@given(st.integers(0, 2**32), st.integers(1, 50), st.data())
def test_samples_are_distinct_and_in_range(seed: int, population: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, population))
    found = Stream(seed, "s").sample(population, count)
    assert len(set(found)) == count and all(0 <= pick < population for pick in found) and found == sorted(found)


def test_hash_seed_does_not_matter() -> None:
    code = "import tests.test_topology as t; print(t.digest(t.small()), t.fingerprint(t.everything()))"
    found = set()
    for hash_seed in ("0", "77"):
        env = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": "."}
        found.add(subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True).stdout)
    assert len(found) == 1


@given(
    namespaces=st.integers(1, 4),
    per_namespace=st.integers(0, 3),
    pods=st.integers(0, 4),
    gateways=st.integers(0, 2),
    headless=st.booleans(),
    seed=st.integers(0, 5),
)
@settings(max_examples=40)
def test_objects_fit_together(
    namespaces: int, per_namespace: int, pods: int, gateways: int, headless: bool, seed: int
) -> None:
    app = {"name": "a", "per_namespace": [per_namespace, per_namespace + 1], "pods": pods, "headless": headless}
    spec = Generate.model_validate({"namespaces": namespaces, "apps": [app], "gateways": {"count": gateways}})
    mesh = generate(spec, seed)
    consistent(mesh.objects)
    created = [held.creation for held in mesh.objects.values()]
    assert created == sorted(created) and len(set(created)) == len(created)
    from_pods = [proxy for pod in mesh.of_kind("Pod") if (proxy := proxy_of(pod))]
    assert from_pods == list(mesh.proxies)
    assert sum(proxy.type == "router" for proxy in mesh.proxies) == gateways


def consistent(objects: Mapping[Ref, Object]) -> None:
    """Addresses are unique and in range; an endpoint is a pod with that address; every namespace is there."""
    pods = {ref: held for ref, held in objects.items() if ref.kind == "Pod"}
    ips = [held.status["podIP"] for held in pods.values()]
    assert len(set(ips)) == len(ips)
    assert all(ip_address(ip) in ip_network("10.0.0.0/8") for ip in ips)
    services = {ref: held for ref, held in objects.items() if ref.kind == "Service"}
    vips = [held.spec["clusterIP"] for held in services.values() if held.spec["clusterIP"] != "None"]
    assert len(set(vips)) == len(vips)
    assert all(ip_address(ip) in ip_network("172.16.0.0/12") for ip in vips)
    listed: dict[Ref, set[Ref]] = defaultdict(set)
    for ref, held in objects.items():
        if ref.namespace:
            assert Ref("Namespace", "", ref.namespace) in objects
        if ref.kind == "EndpointSlice":
            service = Ref("Service", ref.namespace, held.labels["kubernetes.io/service-name"])
            assert service in services
            assert len(held.body["endpoints"]) <= SLICE_SIZE
            for entry in held.body["endpoints"]:
                pod = Ref("Pod", ref.namespace, entry["targetRef"]["name"])
                assert pods[pod].status["podIP"] == entry["addresses"][0]
                ready = pods[pod].status["conditions"][0]["status"] == "True"
                assert not entry["conditions"]["ready"] or ready
                listed[service].add(pod)
    for ref, held in pods.items():
        assert any(ref in listed[service] for service in listed), f"{ref} is in no slice"
        assert held.spec["nodeName"] in {node.name for node in objects if node.kind == "Node"} | {"node-000"}


def test_many_pods_are_split_into_slices() -> None:
    spec = Generate.model_validate({"apps": [{"name": "big", "pods": 250}]})
    slices = list(generate(spec, 1).of_kind("EndpointSlice"))
    assert [len(part.body["endpoints"]) for part in slices] == [100, 100, 50]
    assert len({part.ref for part in slices}) == 3


def test_total_spreads_evenly_and_apps_stay_where_they_belong() -> None:
    spec = {"namespaces": 4, "apps": [{"name": "a", "total": 10}, {"name": "core", "namespaces": ["ns-001"]}]}
    mesh = generate(Generate.model_validate(spec), 1)
    count = Counter(service.ref.namespace for service in mesh.of_kind("Service"))
    assert count == {"ns-000": 3, "ns-001": 4, "ns-002": 2, "ns-003": 2}


def test_a_mesh_beside_another_takes_no_address_of_it() -> None:
    first = small()
    second = generate(
        Generate.model_validate({"namespaces": [{"name": "b"}], "apps": [{"name": "b", "pods": 5}]}), 1, first
    )
    taken = {pod.status["podIP"] for pod in first.of_kind("Pod")}
    assert not taken & {pod.status["podIP"] for pod in second.of_kind("Pod")}


def test_two_apps_of_one_name_are_an_error() -> None:
    spec = {"apps": [{"name": "a"}, {"name": "a-0", "per_namespace": 1}, {"name": "b", "per_namespace": 2}]}
    generate(Generate.model_validate(spec), 1)
    clash = {"apps": [{"name": "a", "per_namespace": 2}, {"name": "a-0"}]}
    with pytest.raises(InputError, match="two generated objects"):
        generate(Generate.model_validate(clash), 1)


@pytest.mark.parametrize("model", ["layered", "random", "scale-free"])
def test_call_graphs(model: str) -> None:
    calls = {"model": model, "out_degree": 2}
    apps = [{"name": "front", "per_namespace": 2}, {"name": "back", "per_namespace": 3}]
    spec = Generate.model_validate({"namespaces": 4, "apps": apps, "calls": calls, "gateways": {"count": 1}})
    mesh = generate(spec, 1)
    graph = call_graph(spec, mesh, 1)
    assert sorted(graph.edges) == sorted(call_graph(spec, mesh, 1).edges)
    assert all(ref in mesh.objects for ref in graph.nodes)
    inner = [(a, b) for a, b in graph.edges if a.namespace != "istio-system"]
    assert inner and all(a != b for a, b in inner)
    if model == "layered":
        assert all(a.name.startswith("front") and b.name.startswith("back") for a, b in inner)


def test_calls_from_csv() -> None:
    graph = read_calls("source,destination,rate\na/x,b.y.svc.cluster.local,2.5\n", "calls.csv")
    assert list(graph.edges(data="rate")) == [(Ref("Service", "a", "x"), Ref("Service", "y", "b"), 2.5)]
    with pytest.raises(InputError) as failed:
        read_calls("source,destination,rate\nx,b/y,1\na/x,b/y,much\n", "calls.csv")
    assert [problem.field for problem in failed.value.problems] == ["line 2: source", "line 3: rate"]


# Churn

ALL: list[dict[str, Any]] = [
    {"source": "rollout", "rate": "2/m"},
    {"source": "scale", "rate": "2/m", "hold": "20s"},
    {"source": "crash-loop", "rate": "6/m", "failures": 2},
    {"source": "hpa-annotation", "period": "30s", "share": 0.5},
    {"source": "training-job", "rate": "2/m", "services": 4, "lifetime": "30s"},
    {"source": "services", "rate": "4/m", "sidecar": True, "ready_after": "2s"},
    {"source": "node-add", "rate": "1/m"},
    {"source": "headless-statefulset", "rate": "2/m"},
    {"source": "config-push", "rate": "4/m"},
    {"source": "certificate-rotation", "rate": "1/m"},
    {"source": "istiod-restart", "at": ["10s", "5s"]},
    {"source": "namespace-onboarding", "rate": "1/m"},
]


def everything() -> list[Dated]:
    return churn(ALL)


def fingerprint(changes: list[Dated]) -> str:
    rows = [
        [at, source, [held.body for held in change.apply], change.delete, change.name] for at, source, change in changes
    ]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def test_every_source_is_here_and_writes_whole_consistent_objects() -> None:
    assert {entry["source"] for entry in ALL} == set(SOURCES)
    changes = everything()
    assert {dated.source for dated in changes} == set(SOURCES)
    assert [dated.at_ns for dated in changes] == sorted(dated.at_ns for dated in changes)
    assert all(0 <= dated.at_ns < 600 * SECOND_NS for dated in changes)
    objects = dict(small().objects)
    for dated in changes:
        for held in dated.change.apply:
            assert held.body["metadata"]["name"] == held.ref.name and held.body["kind"] == held.ref.kind
            assert held.creation
            before = objects.get(held.ref)
            if before is not None and held.ref.kind != "Pod":
                assert held.creation == before.creation, "a rewritten object keeps its age"
            objects[held.ref] = held
        for ref in dated.change.delete:
            del objects[ref]  # what is deleted was there
    consistent(objects)


@pytest.mark.parametrize("left_out", sorted(SOURCES))
def test_removing_a_source_moves_no_other(left_out: str) -> None:
    whole = everything()
    rest = churn([entry for entry in ALL if entry["source"] != left_out])

    def times(changes: list[Dated], source: str) -> list[int]:
        return [dated.at_ns for dated in changes if dated.source == source]

    for source in sorted(set(SOURCES) - {left_out, "crash-loop", "rollout", "scale"}):
        assert times(whole, source) == times(rest, source)
    for source in {"crash-loop", "rollout", "scale"} - {left_out}:  # their pods may be gone by another's doing
        first = times(rest, source)[0]
        assert first == times(whole, source)[0]


def test_the_mesh_itself_is_never_altered() -> None:
    mesh = small()
    before = digest(mesh)
    churn(ALL, mesh=mesh)
    assert digest(mesh) == before


@given(count=st.integers(1, 200), per=st.sampled_from(["s", "m"]))
@settings(max_examples=30)
def test_even_arrivals_are_exact(count: int, per: str) -> None:
    unit = {"s": 1, "m": 60}[per]
    written = {"source": "istiod-restart", "rate": f"{count}/{per}", "arrivals": "even"}
    times = [dated.at_ns for dated in churn([written], seconds=2 * unit)]
    assert len(times) == 2 * count
    assert times == [round(Fraction(k * unit * SECOND_NS, count)) for k in range(2 * count)]


def test_poisson_arrivals_have_the_rate_and_the_spread() -> None:
    times = [d.at_ns for d in churn([{"source": "istiod-restart", "rate": "10/s"}], seconds=2000)]
    gaps = [b - a for a, b in pairwise(times)]
    mean = sum(gaps) / len(gaps) / SECOND_NS
    deviation = (sum((gap / SECOND_NS - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert mean == pytest.approx(0.1, rel=0.02)
    assert deviation == pytest.approx(0.1, rel=0.03)


def test_when_a_source_runs() -> None:
    written = [{"source": "istiod-restart", "rate": "1/s", "arrivals": "even", "start": "2s", "until": "5s"}]
    found = list(run(sources(written), small(), 1, 10 * SECOND_NS, 60 * SECOND_NS))
    assert [d.at_ns // SECOND_NS for d in found] == [12, 13, 14]
    assert {d.change for d in found} == {Change(name=ISTIOD_RESTART)}


def test_a_training_job_comes_and_goes() -> None:
    written = {"source": "training-job", "at": ["0s"], "services": 5, "lifetime": "60s", "spread": "5s",
               "ready_after": "2s", "labels": {"kind": "training"}}  # fmt: skip
    changes = churn([written])
    made = [d for d in changes if any(held.ref.kind == "Service" for held in d.change.apply)]
    gone = [d for d in changes if any(ref.kind == "Service" for ref in d.change.delete)]
    assert [d.at_ns // SECOND_NS for d in made] == [0, 1, 2, 3, 4]
    assert [d.at_ns // SECOND_NS for d in gone] == [60, 61, 62, 63, 64]
    service = made[0].change.apply[0]
    assert service.labels["kind"] == "training"
    assert all(proxy_of(held) is None for d in made for held in d.change.apply if held.ref.kind == "Pod")
    everything_made = {held.ref for d in changes for held in d.change.apply}
    assert everything_made == {ref for d in gone for ref in d.change.delete}


def test_a_rollout_replaces_every_pod_without_a_gap() -> None:
    mesh = generate(Generate.model_validate({"apps": [{"name": "a", "pods": 3}]}), 1)
    changes = churn([{"source": "rollout", "at": ["0s"]}], mesh=mesh)
    old = {pod.ref for pod in mesh.of_kind("Pod")}
    slice_ref = next(iter(mesh.of_kind("EndpointSlice"))).ref
    for dated in changes:
        for held in dated.change.apply:
            if held.ref == slice_ref:
                assert sum(entry["conditions"]["ready"] for entry in held.body["endpoints"]) >= 3 - 1
    deleted = {ref for d in changes for ref in d.change.delete}
    assert deleted == old
    assert len({held.ref for d in changes for held in d.change.apply if held.ref.kind == "Pod"} - old) == 3


def test_rollouts_that_overlap_leave_as_many_pods_as_there_were() -> None:
    """As a Deployment keeps its replicas, however often it is changed before it is done."""
    mesh = generate(Generate.model_validate({"apps": [{"name": "a", "pods": 3}]}), 1)
    pods = {pod.ref for pod in mesh.of_kind("Pod")}
    for dated in churn([{"source": "rollout", "at": ["0s", "4s", "8s", "12s", "20s"]}], seconds=300, mesh=mesh):
        pods |= {held.ref for held in dated.change.apply if held.ref.kind == "Pod"}
        pods -= {*dated.change.delete}
        assert len(pods) <= 3 + 5, "one more for each that goes on"
    assert len(pods) == 3


def test_hpa_noise_changes_annotations_alone() -> None:
    mesh = small()
    for dated in churn([{"source": "hpa-annotation", "share": 1}], seconds=30, mesh=mesh):
        (held,) = dated.change.apply
        before = mesh.objects[held.ref]
        assert held.annotations and held.spec == before.spec and held.labels == before.labels


def test_two_sources_of_one_name_are_numbered_and_differ() -> None:
    two = sources([{"source": "crash-loop", "rate": "1/s"}, {"source": "crash-loop", "rate": "1/s"}])
    assert unique_names(two) == ["crash-loop", "crash-loop-2"]
    found = list(run(two, small(), 1, 0, 20 * SECOND_NS))
    by = {name: [d.at_ns for d in found if d.source == name][:5] for name in unique_names(two)}
    assert by["crash-loop"] != by["crash-loop-2"]


def test_dated_changes_of_the_scenario_meet_the_churning_world() -> None:
    mesh = small()
    written = Object(Ref("Sidecar", "ns-000", "default"), {"metadata": {"name": "default", "namespace": "ns-000"}})
    gone = next(iter(mesh.of_kind("Service"))).ref
    extra = [Dated(5 * SECOND_NS, "changes", Change((written,), (gone,), "step"))]
    (dated,) = run([], mesh, 1, 0, 10 * SECOND_NS, extra)
    assert dated.source == "changes" and dated.change.delete == (gone,)
    assert dated.change.apply[0].creation > max(held.creation for held in mesh.objects.values())
