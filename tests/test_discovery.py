"""discoverySelectors: what an istiod does not watch it neither serves nor pushes for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsim import releases
from pushsim.mesh import Change, Mesh, Object, Ref
from pushsim.registry import Registry
from pushsim.topology import Generate, generate

SELECTORS = [{"matchExpressions": [{"key": "team", "operator": "In", "values": ["x", "y"]}]}]
MESH = generate(
    Generate.model_validate(
        {
            "namespaces": [{"name": "a", "labels": {"team": "x"}}, {"name": "b", "labels": {"team": "z"}}],
            "apps": [{"name": "web"}],
            "gateways": {"count": 1},
        }
    ),
    1,
)


def registry(release: str, env: dict[str, str] | None = None, selectors: object = SELECTORS) -> Registry:
    mesh = Mesh(MESH.objects, MESH.proxies, {"discoverySelectors": selectors}, env or {})
    return Registry(mesh, releases.rules(release))


def hosts(held: Registry) -> set[str]:
    return {service.hostname.partition(".svc")[0] for service in held.services()}


def namespace(name: str, **labels: str) -> Change:
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    return Change((Object(Ref("Namespace", "", name), body),))


def test_unselected_namespaces_are_not_there() -> None:
    held = registry("1.24")
    assert hosts(held) == {"web.a"}
    moved = MESH.objects[Ref("Service", "b", "web")]
    assert held.handle(Change((Object(moved.ref, {**moved.body, "metadata": {**moved.metadata, "labels": {}}}),))) == ()
    assert held.handle(Change(delete=(moved.ref,))) == ()
    held.handle(namespace("b", team="x"))
    assert hosts(held) == {"web.a"}, "it was deleted while nobody looked"


@pytest.mark.parametrize(
    ("release", "env", "scoped"),
    [
        ("1.14", {}, False),
        ("1.14", {"ENABLE_ENHANCED_RESOURCE_SCOPING": "true"}, False),
        ("1.20", {}, False),
        ("1.20", {"ENABLE_ENHANCED_RESOURCE_SCOPING": "true"}, True),
        ("1.24", {}, True),
        ("1.24", {"ENABLE_ENHANCED_RESOURCE_SCOPING": "false"}, False),
        ("1.26", {"ENABLE_ENHANCED_RESOURCE_SCOPING": "false"}, True),
    ],
)
def test_configuration_is_hidden_where_the_release_scopes_it(release: str, env: dict[str, str], scoped: bool) -> None:
    seen = {ref.namespace for ref in registry(release, env).store.of_kind("VirtualService")}
    assert seen == ({"a"} if scoped else {"a", "b"})


def test_a_label_brings_a_namespace_in_and_takes_it_out() -> None:
    held = registry("1.24")
    requests = held.handle(namespace("b", team="y"))
    assert hosts(held) == {"web.a", "web.b"}
    assert any(key.name == "web.b.svc.cluster.local" for request in requests for key in request.keys)
    assert held.handle(namespace("b", team="y", other="1")) == ()
    copy = held.fork()
    requests = held.handle(namespace("b"))
    assert hosts(held) == {"web.a"} and hosts(copy) == {"web.a", "web.b"}
    assert any(key.name == "web.b.svc.cluster.local" for request in requests for key in request.keys)
    assert len(held.endpoints.shards) == len(registry("1.24").endpoints.shards)


@given(st.lists(st.sampled_from(["x", "y", "z", ""]), min_size=1, max_size=6))
def test_the_way_to_a_label_does_not_matter(labels: list[str]) -> None:
    held = registry("1.24")
    for label in labels:
        held.handle(namespace("b", **({"team": label} if label else {})))
    assert hosts(held) == ({"web.a", "web.b"} if labels[-1] in ("x", "y") else {"web.a"})
    without = {o.ref for o in registry("1.24", selectors=[]).store.of_kind("VirtualService").values()}
    seen = set(held.store.of_kind("VirtualService"))
    assert seen == {ref for ref in without if ref.namespace == "a" or labels[-1] in ("x", "y")}
