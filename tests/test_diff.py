"""What an upgrade changes: found, attributed to the rules that make it, and counted over a scenario."""

import json
from dataclasses import fields

import pytest
from hypothesis import HealthCheck, given, settings
from strategies import known_releases, scripts

from pushsim import Scenario
from pushsim.cli import main
from pushsim.diff import diff_releases, diff_scenario
from pushsim.errors import InputError
from pushsim.manifests import parse_objects
from pushsim.mesh import Change, Mesh, Proxy
from pushsim.preview import preview
from pushsim.releases import KNOWN, Rules, differences, rules
from pushsim.releases.differences import abouts

PROXIES = (Proxy("web-0", "shop", "10.1.0.1"), Proxy("gw-0", "istio-system", "10.1.0.2", "router"))


def service(name, export_to):
    metadata = {"name": name, "namespace": "shop", "annotations": {"networking.istio.io/exportTo": export_to}}
    ports = [{"name": "http", "port": 80}]
    spec = {"clusterIP": "10.0.0.9", "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


NEW_HIDDEN = Change(parse_objects([service("hidden", ".")]), name="new hidden service")


def test_the_rule_that_spares_a_gateway_is_named_with_its_pull_request():
    found = diff_releases(Mesh({}, PROXIES), NEW_HIDDEN, "1.14", "1.24", mode="sotw")
    (shift,) = (s for s in found.shifts if s.proxies == (PROXIES[1],))
    assert "CDS" in {pushed.xds for pushed in shift.before.types}
    assert shift.after.types == () and shift.after.size_bytes == 0 < shift.before.size_bytes
    assert [rule.field for rule in shift.rules] == ["router_service"]
    assert "#42422" in shift.rules[0].pulls and shift.rules[0].since == "1.17.0"


def test_without_a_mode_the_agents_own_is_one_of_the_rules():
    mesh = Mesh({o.ref: o for o in parse_objects([service("there", "*")])}, PROXIES[:1])
    found = diff_releases(mesh, NEW_HIDDEN, "1.21", "1.22")
    assert (found.old.mode, found.new.mode) == ("sotw", "delta")
    assert ["agent_mode"] in [[rule.field for rule in shift.rules] for shift in found.shifts]


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(scripts(most=1), known_releases())
def test_only_what_differs_is_told_and_putting_a_named_rule_back_makes_a_difference(script, other):
    release, mesh, (change,) = script
    found = diff_releases(mesh, change, release, other, mode="delta")
    before, after = (preview(mesh, change, release=name, mode="delta") for name in (release, other))

    def got(answer):
        shapes = {g: sorted((t.xds, t.solicited, t.resources, t.removed) for t in g.types) for g in answer.groups}
        return {proxy.id: shape for group, shape in shapes.items() for proxy in group.proxies}

    differing = {id for id, types in got(before).items() if types != got(after)[id]}
    assert {proxy.id for shift in found.shifts for proxy in shift.proxies} == differing
    assert not diff_releases(mesh, change, release, release, mode="delta").shifts
    known = {rule.field for rule in differences(rules(release), rules(other))}
    assert {rule.field for shift in found.shifts for rule in shift.rules} <= known
    json.dumps(found.to_json())


def test_every_rule_says_what_it_is_about():
    assert {field.name for field in fields(Rules)} <= abouts().keys()


@pytest.mark.parametrize("old, new", [("1.14", "1.24"), ("1.30", "1.31")])
def test_differences_are_those_of_the_values_and_turn_round(old, new):
    found = differences(rules(old), rules(new))
    names = {f.name for f in fields(Rules)} - {"release", "flags"}
    assert {r.field for r in found} == {n for n in names if getattr(rules(old), n) != getattr(rules(new), n)}
    back = differences(rules(new), rules(old))
    assert [(r.field, r.before, r.after, r.since) for r in back] == [
        (r.field, r.after, r.before, r.since) for r in found
    ]
    assert all(rule.since in KNOWN or rule.since == "" for rule in found)
    assert not differences(rules(old), rules(old))


SCENARIO = """
# What does it cost?
mesh: {generate: {namespaces: 2, apps: [{name: web, pods: 2}], gateways: {count: 1}}}
churn: [{source: rollout, rate: 1/s}]
duration: 3s
"""


def test_counts_of_a_scenario_are_those_of_its_summaries():
    found = diff_scenario(Scenario.loads(SCENARIO), "1.14", "1.24")
    counts = found.counts()
    assert list(counts.columns) == ["1.14", "1.24"]
    for release, result in found.results.items():
        sums = counts[release].groupby(level="counted").sum()
        assert sums["proxy pushes"] == result["proxy_pushes"] > 0
        assert sums["bytes sent"] == result["bytes_sent"]
        for xds, number in result["responses"].items():
            assert sums.get(f"{xds} responses", 0) == number
    assert {"sidecar", "router"} == set(counts.index.get_level_values("type"))
    told = {(row["type"], row["counted"]): row["1.24"] for row in found.to_json()["counts"]}
    assert told == counts["1.24"].to_dict()


def test_an_unknown_release_lists_the_known_ones():
    with pytest.raises(InputError, match=r"1\.99.*known: 1\.13"):
        diff_releases(Mesh(), Change(), "1.99", "1.24")
    with pytest.raises(InputError, match=r"1\.99.*known: 1\.13"):
        diff_scenario(Scenario.loads(SCENARIO), "1.14", "1.99")


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(["diff-releases", *arguments])
    return int(ended.value.code or 0), *capsys.readouterr()


def test_the_verb(capsys, tmp_path):
    mesh, change, scenario = tmp_path / "mesh.yaml", tmp_path / "change.yaml", tmp_path / "scenario.yaml"
    status = {"podIP": "10.1.0.1", "phase": "Running"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-0", "namespace": "shop"}, "status": status}
    pod["spec"] = {"containers": [{"name": "istio-proxy", "image": "i"}]}
    mesh.write_text(f"{json.dumps(pod)}\n---\n{json.dumps(service('there', '*'))}\n")
    change.write_text(json.dumps(service("hidden", ".")))
    scenario.write_text(SCENARIO)
    asked = (str(mesh), "--change", str(change), "--from", "1.14", "--to", "1.24")
    code, printed, _ = run(capsys, *asked, "--json")
    answer = json.loads(printed)
    assert (code, answer["from"]["mode"], answer["to"]["mode"]) == (0, "sotw", "delta")
    code, printed, _ = run(capsys, *asked)
    assert code == 0 and "web-0.shop" in printed and "rule: " in printed
    code, printed, _ = run(capsys, "--scenario", str(scenario), "--from", "1.14", "--to", "1.24")
    assert code == 0 and "proxy pushes" in printed and "%" in printed
    assert run(capsys, str(mesh), "--from", "1.14", "--to", "1.24")[0] == 2
    assert run(capsys, str(mesh), "--scenario", str(scenario), "--from", "1.14", "--to", "1.24")[0] == 2
    code, _, said = run(capsys, *asked[:-1], "1.99")
    assert code == 2 and "known: " in said
