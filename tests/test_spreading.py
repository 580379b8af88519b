"""How endpoints are spread over localities: weights, priorities, and proxies that differ in where they are."""

from pathlib import Path

import pytest
from test_planner import Asking, from_conversation

from pushsim.cases import load_case
from pushsim.mesh import Endpoint
from pushsim.spreading import Locality, Spread, asked_by, asked_by_mesh, placed, spread, spread_over

VECTORS = Path(__file__).parent / "vectors"
HERE = placed("r/z1")


def endpoint(locality, **labels):
    return Endpoint("10.1.0.1", 80, "http", labels=tuple(labels.items()), locality=locality)


def group(locality, *members, weight=1):
    return Locality(locality, members or (endpoint(locality),), weight)


def told(setting, *groups, near=HERE, fails_over=True, by="both", labelled=True):
    """(locality, endpoints, weight, priority) of each group as a proxy gets them."""
    found = spread_over(groups, Spread(setting, fails_over), near, by=by, labelled=labelled)
    return [(g.label, len(g.members), g.weight, g.priority) for g in found]


def test_distribute_gives_each_locality_its_share_rounded_up_and_leaves_out_the_others():
    setting = {"distribute": [{"from": "q/*", "to": {"*": 100}}, {"from": "r/z1/*", "to": {"r/*": 80, "q/z": 20}}]}
    groups = group("r/z1", weight=3), group("r/z2/s", weight=4), group("q/z", weight=9), group("p")
    assert told(setting, *groups) == [("r/z1", 1, 35, 0), ("r/z2/s", 1, 46, 0), ("q/z", 1, 20, 0), ("p", 0, 1, 0)]
    assert told(setting, *groups, near=placed("x/y"))[0] == ("r/z1", 1, 3, 0)


def test_failover_prefers_what_is_near_then_the_region_it_names():
    setting = {"failover": [{"from": "r", "to": "q"}]}
    groups = group("p"), group("q/z1"), group("r/z1"), group("r/z1/s"), group("r/z2")
    assert [g[3] for g in told(setting, *groups)] == [4, 3, 0, 1, 2]
    assert [g[3] for g in told({}, *groups)] == [3, 3, 0, 1, 2]
    assert [g[3] for g in told({}, *groups, near={})] == [0, 0, 0, 0, 0]
    assert [g[3] for g in told(setting, *groups, fails_over=False)] == [0] * 5
    assert [g[3] for g in told(None, *groups)] == [0] * 5


def test_failover_priority_splits_localities_by_labels():
    old, new = endpoint("r/z1", version="1"), endpoint("r/z1", version="2")
    groups, near = [group("r/z1", old, new, old, weight=3)], {**HERE, "version": "2"}
    assert told({"failoverPriority": ["version"]}, *groups, near=near) == [("r/z1", 1, 1, 0), ("r/z1", 2, 2, 1)]
    by_value = {"failoverPriority": ["version=1"]}
    assert told(by_value, *groups, near=near) == [("r/z1", 2, 2, 0), ("r/z1", 1, 1, 1)]
    assert told(by_value, *groups, near=near, by="keys") == [("r/z1", 3, 3, 0)]
    assert told(by_value, *groups, near=near, labelled=False) == [("r/z1", 3, 3, 0)]
    both = {**by_value, "failover": [{"from": "r", "to": "q"}]}
    elsewhere = group("p", endpoint("p", version="1"))
    assert [g[3] for g in told(both, *groups, elsewhere, near=near)] == [0, 2, 1]
    assert [g[3] for g in told(both, *groups, elsewhere, near=near, by="values")] == [0, 1, 0]


def test_the_rule_comes_before_the_service_and_that_before_the_mesh():
    mesh, off = {"localityLbSetting": {"distribute": [1]}}, {"localityLbSetting": {"enabled": False}}
    assert spread({}, "zone", mesh, outlier=False) == Spread({}, False)
    assert spread({"enabled": False}, "", mesh, outlier=True).setting is None
    assert spread(None, "zone", off, outlier=False).fails_over
    assert spread(None, "", mesh, outlier=True) == Spread(mesh["localityLbSetting"], True)
    assert spread(None, "", off, outlier=True).setting is None


def test_only_a_mesh_that_spreads_endpoints_asks_where_proxies_are():
    case = load_case(VECTORS / "cases" / "localities.yaml")
    assert asked_by(case.mesh.objects.values()) == asked_by_mesh({"localityLbSetting": {"enabled": True}}) == set()
    asked = frozenset().union(*(asked_by(step.apply) for step in case.steps))
    assert {"version", "kubernetes.io/hostname", *placed("r/z/s")} <= asked


@pytest.mark.parametrize("mode", ["sotw", "delta"])
@pytest.mark.parametrize("release", ["1.14", "1.19", "1.24", "1.30"])
@pytest.mark.parametrize("name", ["localities", "localities-distribute"])
def test_the_planner_tells_proxies_in_several_localities_apart(release, mode, name):
    case = load_case(VECTORS / "cases" / f"{name}.yaml")
    asking = Asking(Asking.variant(release, mode, case.mesh, case.steps))
    answers = from_conversation(release, mode, case.mesh, case.steps)
    first = next(answers)
    assert asking.greetings == first
    for number, want in enumerate(answers):
        assert asking.step(number, case.steps[number], forgetting=True) == want
