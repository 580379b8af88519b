"""Random cases: the same from the same seed, readable as case files, and what fidelity tests need of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from pushsim.cases import load_case, parse_case
from pushsim.mesh import Ref
from pushsim.randomcase import Kinds, random_case, to_yaml

CORE = {
    "Node", "Namespace", "Service", "Pod", "EndpointSlice", "Sidecar", "DestinationRule", "Gateway", "ServiceEntry",
    "VirtualService", "AuthorizationPolicy", "PeerAuthentication", "Telemetry", "EnvoyFilter",
}  # fmt: skip


@pytest.mark.parametrize("kinds", ["all", "core"])
def test_a_seed_is_a_case(kinds: Kinds) -> None:
    assert random_case(5, kinds=kinds) == random_case(5, kinds=kinds) != random_case(6, kinds=kinds)


@pytest.mark.parametrize(("kinds", "expected"), [("all", "69f6892513e963d1"), ("core", "73d9835ffb0691bb")])
def test_a_seed_means_the_same_in_every_version(kinds: Kinds, expected: str) -> None:
    digest = hashlib.sha256(to_yaml(random_case(1, kinds=kinds)).encode()).hexdigest()
    assert digest[:16] == expected


def test_a_written_case_is_read_back_as_it_was(tmp_path: Path) -> None:
    body = random_case(2)
    path = tmp_path / "two.yaml"
    path.write_text(to_yaml(body))
    assert load_case(path) == parse_case(body, "two", str(path))


@pytest.mark.parametrize("seed", range(20))
def test_every_case_holds_together(seed: int) -> None:
    case = parse_case(random_case(seed), "random")
    assert len(case.steps) == 24 and len({p.id for p in case.mesh.proxies}) == len(case.mesh.proxies)
    assert len({p.ip for p in case.mesh.proxies}) == len(case.mesh.proxies)
    for proxy in case.mesh.proxies:
        pod = case.mesh.objects[Ref("Pod", proxy.namespace, proxy.name)]
        assert pod.status["podIP"] == proxy.ip and pod.labels == proxy.labels
    mesh = case.mesh
    for step in case.steps:
        assert step.apply or step.delete
        assert all(ref in mesh.objects for ref in step.delete), "only what is there is deleted"
        written = [o.ref for o in step.apply]
        assert len(set(written)) == len(written) and not set(written) & set(step.delete)
        mesh = mesh.after(step)


def test_every_service_has_an_address_that_is_one() -> None:
    for seed in range(60):
        case = parse_case(random_case(seed), "random")
        written = [*case.mesh.objects.values(), *(o for step in case.steps for o in step.apply)]
        given = {o.spec.get("clusterIP") for o in written if o.ref.kind == "Service"} - {"None", None, ""}
        assert all(IPv4Address(address) for address in given), f"seed {seed}: {sorted(given)}"


def test_all_kinds_come_up_and_core_has_only_its_own() -> None:
    def seen(kinds: Kinds) -> Counter[str]:
        found: Counter[str] = Counter()
        for seed in range(15):
            case = parse_case(random_case(seed, kinds=kinds), "random")
            found.update(o.ref.kind for o in case.mesh.objects.values())
            found.update(o.ref.kind for step in case.steps for o in step.apply)
        return found

    assert set(seen("core")) == CORE
    assert set(seen("all")) == CORE | {"WorkloadEntry", "RequestAuthentication", "ProxyConfig", "WasmPlugin"}
