"""Policies: what each installs, admits and sets; how they compose; how they are written and what a mistake says."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsim import policies
from pushsim.errors import InputError
from pushsim.mesh import Mesh, Object, Ref
from pushsim.policies import EXPORT_TO, POLICIES, Policy, parse, resolve
from pushsim.policies.scoping import sidecar
from pushsim.scenario import Scenario, build
from pushsim.settings import Settings
from pushsim.topology import Generate, generate

MESH = generate(
    Generate.model_validate(
        {
            "namespaces": [{"name": "a"}, {"name": "b"}, {"name": "kubeflow"}],
            "apps": [
                {"name": "web", "labels": {"role": "web"}, "namespaces": ["a", "b"]},
                {"name": "train", "labels": {"kind": "training"}, "namespaces": ["b"]},
            ],
            "gateways": {"count": 1},
        }
    ),
    1,
)


def installed(written: list[Any], mesh: Mesh = MESH) -> dict[str, Any]:
    return {str(held.ref): held.spec for held in parse(written).install(mesh)}


def service(name: str = "train", namespace: str = "b", annotations: dict[str, str] | None = None) -> Object:
    held = MESH.objects[Ref("Service", namespace, name)]
    return Object(held.ref, {**held.body, "metadata": {**held.metadata, "annotations": annotations or {}}})


def test_none_does_nothing() -> None:
    policy = parse(["none"])
    assert policy.install(MESH) == () and not policy.admits
    assert policy.control_plane(Settings()) == Settings()
    assert all(policy.admit(held, MESH) is held for held in MESH.objects.values())


def test_root_sidecar_and_namespace() -> None:
    assert installed([{"root-sidecar": {"hosts": ["istio-system/*", "./*"]}}]) == {
        "Sidecar/istio-system/default": {"egress": [{"hosts": ["istio-system/*", "./*"]}]}
    }
    assert installed(["namespace"]) == {
        "Sidecar/istio-system/default": {"egress": [{"hosts": ["./*", "istio-system/*"]}]}
    }
    elsewhere = Mesh(MESH.objects, MESH.proxies, {"rootNamespace": "mesh"})
    assert list(installed(["namespace"], elsewhere)) == ["Sidecar/mesh/default"]


def test_a_root_sidecar_takes_the_place_of_the_one_that_counts() -> None:
    # Two default Sidecars in one namespace: the older counts, so a new one beside it would do nothing.
    old = sidecar("istio-system", "mine", ["*/*"])
    selected = sidecar("istio-system", "aaa", ["*/*"], {"app": "x"})
    mesh = Mesh({**MESH.objects, old.ref: old, selected.ref: selected})
    assert list(installed(["root-sidecar"], mesh)) == ["Sidecar/istio-system/mine"]


def test_workload_selector_goes_where_such_pods_are() -> None:
    written = {"workload-selector": {"labels": {"role": "web"}, "hosts": ["./*"]}}
    found = installed([written])
    assert list(found) == ["Sidecar/a/selected", "Sidecar/b/selected"]
    assert found["Sidecar/a/selected"]["workloadSelector"] == {"labels": {"role": "web"}}


def test_egress_list_names_what_is_called() -> None:
    text = """
        mesh: {generate: {namespaces: 3, apps: [{name: f}, {name: g}], calls: {out_degree: 2, local: 0}}}
        duration: 1s
        variants: {e: [egress-list]}
    """
    scenario = Scenario.loads(text)
    mesh = scenario.variant("e").mesh
    graph = scenario.calls()
    assert graph is not None
    for caller, callee in graph.edges:
        hosts = mesh.objects[Ref("Sidecar", caller.namespace, "default")].spec["egress"][0]["hosts"]
        fqdn = f"{callee.namespace}/{callee.name}.{callee.namespace}.svc.cluster.local"
        assert fqdn in hosts or caller.namespace == callee.namespace
    with pytest.raises(InputError, match="knows no calls"):
        parse(["egress-list"]).prepared(lambda: None)
    assert installed([{"egress-list": {"hosts": {"a": ["b/*"]}, "base": ["./*"]}}])["Sidecar/a/default"] == {
        "egress": [{"hosts": ["./*", "b/*"]}]
    }


def test_exclude_hosts_keeps_what_the_root_sidecar_says() -> None:
    assert installed([{"exclude-hosts": {"hosts": ["kubeflow/*"]}}])["Sidecar/istio-system/default"] == {
        "egress": [{"hosts": ["*/*", "~kubeflow/*"]}]
    }
    both = [{"root-sidecar": {"hosts": ["a/*"]}}, {"exclude-hosts": {"hosts": ["kubeflow/*"]}}]
    assert installed(both)["Sidecar/istio-system/default"]["egress"][0]["hosts"] == ["a/*", "~kubeflow/*"]


def test_export_to_by_nature() -> None:
    policy = parse([{"export-to": {"value": "~", "services": {"labels": {"kind": "training"}}}}])
    admitted = policy.admit(service(), MESH)
    assert admitted.annotations[EXPORT_TO] == "~"
    assert EXPORT_TO not in service().annotations, "the object given is not altered"
    assert policy.admit(admitted, MESH) is admitted, "admitting twice changes nothing"
    assert policy.admit(service("web"), MESH).annotations == {}
    gateway = MESH.objects[Ref("Service", "istio-system", "istio-ingressgateway")]
    assert parse(["export-to"]).admit(gateway, MESH) is gateway, "system namespaces only if named"


def test_export_to_respects_what_somebody_wrote() -> None:
    theirs = service(annotations={EXPORT_TO: "a"})
    assert parse([{"export-to": {"value": "~"}}]).admit(theirs, MESH) is theirs
    forced = parse([{"export-to": {"value": [".", "a"], "override": True}}]).admit(theirs, MESH)
    assert forced.annotations[EXPORT_TO] == ".,a"


@given(
    value=st.sampled_from(["~", ".", "*", "a"]),
    override=st.booleans(),
    held=st.sampled_from([None, "~", ".", "b"]),
)
def test_admit_is_idempotent(value: str, override: bool, held: str | None) -> None:
    policy = parse([{"export-to": {"value": value, "override": override}}])
    once = policy.admit(service(annotations={EXPORT_TO: held} if held else None), MESH)
    assert policy.admit(once, MESH) is once


def test_control_plane_policies() -> None:
    before = Settings(env={"A": "1"}, mesh_config={"defaultConfig": {"x": 1}, "trustDomain": "t"})
    assert parse(["default-export-to"]).control_plane(before).mesh_config["defaultServiceExportTo"] == ["."]
    assert parse(["gateway-filter"]).control_plane(before).env == {
        "A": "1",
        "PILOT_FILTER_GATEWAY_CLUSTER_CONFIG": "true",
    }
    assert len(parse(["discovery-selectors"]).control_plane(before).mesh_config["discoverySelectors"]) == 2
    knobs = {"PILOT_DEBOUNCE_AFTER": "1s", "ENABLE": True, "replicas": 3, "cpus": "500m", "mode": "sotw",
             "defaultConfig": {"y": 2}}  # fmt: skip
    after = parse([{"knobs": knobs}]).control_plane(before)
    assert after.env == {"A": "1", "PILOT_DEBOUNCE_AFTER": "1s", "ENABLE": "true"}
    assert (after.replicas, after.cpus, after.mode) == (3, 0.5, "sotw")
    assert after.mesh_config == {"defaultConfig": {"x": 1, "y": 2}, "trustDomain": "t"}
    assert before.env == {"A": "1"}


def test_composition_is_in_order() -> None:
    policy = resolve("namespace+export-to+gateway-filter")
    assert [held.ref.kind for held in policy.install(MESH)] == ["Sidecar"]
    assert policy.admits and policy.admit(service(), MESH).annotations[EXPORT_TO] == "."
    assert "PILOT_FILTER_GATEWAY_CLUSTER_CONFIG" in policy.control_plane(Settings()).env
    last = parse([{"root-sidecar": {"hosts": ["a/*"]}}, "namespace"]).install(MESH)
    assert [held.spec["egress"][0]["hosts"] for held in last] == [["./*", "istio-system/*"]]


def test_a_function_of_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("our_policies")

    class Mine(Policy):
        hosts: list[str]

        def install(self, mesh: Mesh) -> tuple[Object, ...]:
            return (sidecar("a", "mine", self.hosts),)

    module.mine = lambda hosts=("./*",): Mine(hosts=list(hosts))  # type: ignore[attr-defined]
    module.wrong = lambda: 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "our_policies", module)
    assert resolve("our_policies:mine").install(MESH)[0].spec["egress"] == [{"hosts": ["./*"]}]
    assert installed([{"our_policies:mine": {"hosts": ["b/*"]}}])["Sidecar/a/mine"]["egress"] == [{"hosts": ["b/*"]}]
    for text in ("our_policies:wrong", "our_policies:absent", "no_such_module:f"):
        with pytest.raises(InputError):
            resolve(text)


def test_every_mistake_of_a_list_is_told_with_its_place() -> None:
    written = [
        {"root-sidecar": {"hosts": ["a"]}},
        {"root-sidecars": {}},
        {"export-to": {"service": 1, "services": {"labels": {"a b": "c"}}}},
        {"knobs": {"replica": 2}},
        3,
        "workload-selector",
    ]
    with pytest.raises(InputError) as failed:
        parse(written, "s.yaml", "variants.x")
    told = [(problem.field, problem.remedy) for problem in failed.value.problems]
    assert told == [
        ("variants.x[0].root-sidecar.hosts[0]", "it is 'a'"),
        ("variants.x[1]", "did you mean root-sidecar?"),
        ("variants.x[2].export-to.services.labels", ""),
        ("variants.x[2].export-to.service", "did you mean services?"),
        ("variants.x[3].knobs", ""),
        ("variants.x[4]", "write name or {name: {parameter: value}}"),
        ("variants.x[5].workload-selector.labels", "add it"),
    ]
    with pytest.raises(InputError, match="did you mean namespace"):
        resolve("namspace")


def test_policies_describe_themselves() -> None:
    rows = {name: (about, parameters) for name, about, parameters in policies.described()}
    assert set(rows) == set(POLICIES)
    assert all(about for about, _ in rows.values())
    assert rows["export-to"][1]["value"].startswith("'.'")
    assert "documents" not in rows["files"][1]


def variant(written: list[Any], mesh: Mesh = MESH) -> Any:
    return build.variant("x", build.Base(mesh, ()), parse(written), Settings())


def test_ambient_takes_the_sidecars_and_says_what_it_leaves_out() -> None:
    moved = variant([{"ambient": {"namespaces": ["a"]}}])
    assert {proxy.namespace for proxy in MESH.proxies} == {"a", "b", "istio-system", "kubeflow"} - {"kubeflow"}
    assert {proxy.namespace for proxy in moved.mesh.proxies} == {"b", "istio-system"}
    assert moved.mesh.objects[Ref("Namespace", "", "a")].labels["istio.io/dataplane-mode"] == "ambient"
    assert "istio-injection" not in moved.mesh.objects[Ref("Namespace", "", "a")].labels
    assert moved.mesh.objects[Ref("Namespace", "", "b")] is MESH.objects[Ref("Namespace", "", "b")]
    assert any("lower bounds" in note for note in moved.notes)
    policy = parse(["ambient"])
    once = {ref: policy.admit(held, MESH) for ref, held in MESH.objects.items()}
    assert all(policy.admit(held, MESH) is held for held in once.values()), "admitting twice changes nothing"


def test_tenant_ingress_moves_the_routes() -> None:
    moved = variant([{"tenant-ingress": {"namespaces": ["b"], "replicas": 2}}]).mesh
    routers = [proxy for proxy in moved.proxies if proxy.type == "router"]
    assert sorted(proxy.namespace for proxy in routers) == ["b", "b", "istio-system"]
    assert len({proxy.ip for proxy in moved.proxies}) == len(moved.proxies), "no address is given twice"
    bound = {str(held.ref): held.spec["gateways"] for held in moved.of_kind("VirtualService")}
    assert bound["VirtualService/a/web"] == ["istio-system/gateway"]
    assert bound["VirtualService/b/web"] == bound["VirtualService/b/train"] == ["b/tenant-ingress"]
    gateway = moved.objects[Ref("Gateway", "b", "tenant-ingress")].spec
    assert gateway["servers"] == MESH.objects[Ref("Gateway", "istio-system", "gateway")].spec["servers"]
    assert all(gateway["selector"].items() <= proxy.labels.items() for proxy in routers if proxy.namespace == "b")


def test_a_policy_that_the_release_cannot_follow_says_so() -> None:
    policy = parse([{"exclude-hosts": {"hosts": ["a/*"]}}, "ambient"])
    assert any("1.24 knows no `~`" in note for note in policy.notes(Settings(release="1.24")))
    assert not any("`~`" in note for note in policy.notes(Settings(release="1.31")))
