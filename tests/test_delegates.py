"""Delegates merged into the VirtualService that names them: what istiod keeps of both, and where they conflict."""

from typing import Any

import pytest

from pushsim.context.routes import RouteIndex
from pushsim.mesh import Object, Ref
from pushsim.releases import rules


def virtual_service(name: str, namespace: str, **spec: Any) -> Object:
    ref = Ref("VirtualService", namespace, name)
    return Object(ref, {"kind": ref.kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec})


def merged(item: dict[str, Any], *http: dict[str, Any], **delegate: Any) -> list[dict[str, Any]]:
    """The http routes of a root in `a` whose one item names a delegate in `b` with these routes."""
    named = {**item, "delegate": {"name": "part", "namespace": "b"}}
    root = virtual_service("root", "a", hosts=["x.com"], http=[named])
    part = virtual_service("part", "b", http=list(http), **delegate)
    index = RouteIndex({o.ref: o for o in (root, part)}, frozenset({"*"}), rules("1.24"))
    route = next(route for route in index.routes if route.key.name == "root")
    return list(route.written.spec["http"])


TO = [{"destination": {"host": "s"}}]
FQDN = [{"destination": {"host": "s.b.svc.cluster.local"}}]


def test_a_delegates_route_is_completed_by_the_roots() -> None:
    own = [{"uri": {"prefix": "/a/b"}, "headers": {"h": {"exact": "1"}}}]
    (route,) = merged(
        {"name": "r", "timeout": "3s", "retries": {"attempts": 1}, "match": [{"uri": {"prefix": "/a"}}]},
        {"name": "d", "route": TO, "timeout": "1s", "match": own},
    )
    assert route == {"name": "r-d", "timeout": "1s", "retries": {"attempts": 1}, "route": FQDN, "match": own}


def test_mirrors_are_in_the_delegates_namespace() -> None:
    (route,) = merged({}, {"route": TO, "mirror": {"host": "m"}, "mirrors": [{"destination": {"host": "n"}}]})
    assert route["mirror"] == {"host": "m.b.svc.cluster.local"}
    assert route["mirrors"] == [{"destination": {"host": "n.b.svc.cluster.local"}}]


@pytest.mark.parametrize(
    ("root", "leaf", "kept"),
    [
        ({"uri": {"prefix": "/a"}}, {"uri": {"prefix": "/a/b"}}, True),
        ({"uri": {"prefix": "/a/b"}}, {"uri": {"prefix": "/a"}}, False),
        ({"uri": {"prefix": "/a"}}, {"uri": {"exact": "/a"}}, True),
        ({"uri": {"exact": "/a"}}, {"uri": {"prefix": "/a"}}, False),
        ({"uri": {"exact": "/a"}}, {"uri": {"exact": "/a"}}, True),
        ({"uri": {"regex": "/a"}}, {"uri": {"regex": "/a"}}, False),
        ({"uri": {"prefix": "/a"}}, {"method": {"exact": "GET"}}, True),
        ({"headers": {"h": {"exact": "1"}}}, {"headers": {"h": {"exact": "2"}}}, False),
        ({"headers": {"h": {"exact": "1"}}}, {"headers": {"g": {"exact": "2"}}}, True),
        ({"queryParams": {"q": {"exact": "1"}}}, {"queryParams": {"q": {"exact": "2"}}}, False),
        ({"port": 80}, {"port": 81}, False),
        ({"sourceNamespace": "a"}, {"uri": {"exact": "/"}}, False),
        ({"sourceLabels": {"app": "a"}}, {"sourceLabels": {"app": "b"}}, False),
        ({"ignoreUriCase": True}, {"uri": {"exact": "/"}}, False),
        ({"gateways": ["a/g"]}, {"gateways": ["a/g", "mesh"]}, False),
        ({"gateways": ["a/g", "mesh"]}, {"gateways": ["mesh"]}, True),
    ],
)
def test_a_match_beyond_the_roots_is_a_conflict(root: dict[str, Any], leaf: dict[str, Any], kept: bool) -> None:
    routes = merged({"match": [root]}, {"route": TO, "match": [leaf]})
    assert bool(routes) is kept
    if kept:
        (match,) = routes[0]["match"]
        assert root.keys() | leaf.keys() == match.keys()
        assert all(match[key] == leaf[key] for key in leaf if key != "headers")


def test_one_of_the_roots_matches_is_enough() -> None:
    roots = [{"uri": {"exact": "/x"}}, {"uri": {"prefix": "/a"}}]
    (route,) = merged({"match": roots}, {"route": TO, "match": [{"uri": {"exact": "/a/1"}}]})
    assert route["match"] == [{"uri": {"exact": "/a/1"}}]


@pytest.mark.parametrize("more", [{"exportTo": ["."]}, {"hosts": ["y.com"]}])
def test_a_delegate_that_is_hidden_or_none_leaves_nothing(more: dict[str, Any]) -> None:
    assert merged({}, {"route": TO}, **more) == []
