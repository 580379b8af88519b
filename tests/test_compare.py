"""compare: figures over seeds, the gate's exit codes, and the formats that other tools read."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from junitparser import JUnitXml

from pushsim.cli import main
from pushsim.compare import arms, baseline_of, compare
from pushsim.errors import InputError
from pushsim.intervals import mean, ratio
from pushsim.mesh import Mesh
from pushsim.result import Result
from pushsim.scenario import Scenario
from pushsim.simulation import Simulation
from pushsim.topology import Generate, generate
from pushsim.zones import cross_zone_share, per_month

TEXT = """\
# What | does <scoping> save a small shop?
mesh:
  generate:
    namespaces: 3
    apps: [{name: web, pods: 2}, {name: pay}]
    gateways: {count: 1, virtual_services: [web]}
    calls: {out_degree: 2, local: 0}
istiod: {release: "1.24", cpus: 2}
churn: [{source: rollout, rate: 2/s, ready_after: 1s, grace: 1s}]
duration: 3s
warmup: 1s
variants:
  unscoped: []
  scoped: [{root-sidecar: {hosts: [./*, istio-system/*]}}]
"""

SIDECAR = """\
# One Sidecar for all.
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: istio-system}
spec: {egress: [{hosts: [./*, istio-system/*]}]}
"""
OTHER = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scenario, and two checkouts of its manifests: `head` has lost the Sidecar."""
    made = tmp_path_factory.mktemp("compare")
    (made / "ci.yaml").write_text(TEXT)
    for name, texts in {"base": (SIDECAR, OTHER), "head": (OTHER,)}.items():
        (made / name).mkdir()
        for number, text in enumerate(texts):
            (made / name / f"{number}-{'sidecar' if text is SIDECAR else 'other'}.yaml").write_text(text)
    return made


def run(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(folder / "ci.yaml"), "--jobs", "1", *arguments])
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


# ---- figures


@settings(deadline=None)  # the first one imports scipy
@given(st.lists(st.tuples(st.floats(1, 1e6), st.floats(1, 1e6)), min_size=2, max_size=8))
def test_intervals_hold_what_they_are_about(pairs: list[tuple[float, float]]) -> None:
    values, base = [a for a, _ in pairs], [b for _, b in pairs]
    found = mean(values)
    assert 0 <= found.low <= found.value * (1 + 1e-12) and found.value <= found.high * (1 + 1e-12)
    of_itself = ratio(base, base)
    assert of_itself is not None and of_itself == pytest.approx((1, 1, 1))
    doubled = ratio([2 * b for b in base], base)
    assert doubled is not None and doubled == pytest.approx((2, 2, 2)), "what a seed does to both is not counted"


def test_intervals_are_students() -> None:
    # scipy.stats.t.interval(0.95, 4, 3, sem([1, 2, 3, 4, 5])) = (1.0368, 4.9632)
    assert mean([1, 2, 3, 4, 5]) == pytest.approx((3, 1.0367568385, 4.9632431615))
    assert mean([7]) == (7, 7, 7) and ratio([1], [2]) == (0.5, 0.5, 0.5) and ratio([1, 2], [0, 0]) is None


def test_money_is_what_crosses_a_zone() -> None:
    spec = {"namespaces": 1, "apps": [{"name": "web", "pods": 30}], "nodes": 6, "zones": 3}
    mesh = generate(Generate.model_validate(spec), 1)
    assert cross_zone_share(mesh) == pytest.approx(2 / 3)
    assert cross_zone_share(generate(Generate.model_validate({**spec, "zones": 1}), 1)) == 0
    assert cross_zone_share(Mesh()) is None
    here = generate(Generate.model_validate({**spec, "apps": [{"name": "istiod", "pods": 1, "sidecar": False}]}), 1)
    pods = {ref: held for ref, held in here.objects.items() if ref.kind == "Pod"}
    with_istiod = Mesh({**mesh.objects, **pods}, mesh.proxies)
    assert cross_zone_share(with_istiod) == pytest.approx(2 / 3), "one istiod, a third of the proxies beside it"
    assert per_month(1e9 / 3600, 0.5, 0.02) == pytest.approx(730 * 0.5 * 0.02)


def test_seeds_are_averaged_and_one_seed_is_what_simulate_says(folder: Path) -> None:
    scenario = Scenario.load(folder / "ci.yaml")
    found = compare(arms(scenario), seeds=3)
    unscoped, scoped = found.columns
    pushes = scoped.values("proxy_pushes")
    assert pushes is not None and len(pushes) == 3
    figure, saved = scoped.figure("proxy_pushes"), found.ratio(scoped, "proxy_pushes")
    assert figure is not None and figure.value == pytest.approx(sum(pushes) / 3)
    assert saved is not None and saved.value < 0.6 and saved.low < saved.value < saved.high
    assert found.summaries()["scoped"]["proxy_pushes"] == pytest.approx(figure.value)
    alone = compare(arms(scenario), seeds=1).columns[0]
    assert Result("unscoped", alone.summaries[0]).text() == Result("unscoped", unscoped.summaries[0]).text()
    assert {each.kind for each in scoped.breaks} == {"call"} and unscoped.breaks == ()


def test_processes_give_the_same_answer(folder: Path) -> None:
    scenario = Scenario.load(folder / "ci.yaml")
    apart = compare(arms(scenario), seeds=2, jobs=2)
    assert apart.complete
    assert json.dumps(apart.to_json()) == json.dumps(compare(arms(scenario), seeds=2).to_json())


# ---- the gate

GATE = ("--mesh", "base={}/base", "--mesh", "head={}/head", "--policy", "none")


def gate(folder: Path, *more: str) -> list[str]:
    return [*(part.format(folder) for part in GATE), *more]


def test_a_sidecar_taken_out_turns_the_gate_red_and_its_revert_green(capsys: Any, folder: Path, tmp_path: Path) -> None:
    rise = ("--fail-on", "increase(proxy_pushes) > 10%")
    code, printed, said = run(capsys, folder, *gate(folder, *rise))
    assert code == 1
    assert re.fullmatch(r"pushsim: head: proxy_pushes rose by \d+(\.\d+)? % \(increase\(.*> 10%\)\n", said)
    assert run(capsys, folder, *gate(folder, *rise)) == (code, printed, said), "a gate never flaps"
    (folder / "reverted").mkdir(exist_ok=True)
    for file in (folder / "base").iterdir():
        (folder / "reverted" / file.name).write_text(file.read_text())
    reverted = [part.replace("/head", "/reverted") for part in gate(folder, *rise)]
    assert run(capsys, folder, *reverted)[0] == 0


def test_an_added_sidecar_that_breaks_calls_is_stopped(capsys: Any, folder: Path) -> None:
    swapped = ("--mesh", f"base={folder}/head", "--mesh", f"head={folder}/base", "--policy", "none")
    code, printed, said = run(capsys, folder, *swapped, "--fail-on", "breaks.calls > 0", "--format", "json")
    assert code == 1 and said.count("\n") == 1 and "head: breaks.calls is" in said
    broken = json.loads(printed)["variants"]["head"]["broken"]
    assert {each["object"] for each in broken} == {"Sidecar/istio-system/default"}
    assert {Path(each["file"]).name for each in broken} == {"0-sidecar.yaml, document 1"}


def test_a_stored_baseline(capsys: Any, folder: Path, tmp_path: Path) -> None:
    _, printed, _ = run(capsys, folder, "--policy", "scoped", "--format", "json")
    stored = tmp_path / "baseline.json"
    stored.write_text(printed)
    rise = ("--baseline", str(stored), "--fail-on", "increase(bytes_sent) > 5%")
    assert run(capsys, folder, "--policy", "scoped", *rise)[0] == 0
    code, _, said = run(capsys, folder, "--policy", "unscoped", *rise)
    assert code == 1 and "unscoped: bytes_sent rose by" in said


@pytest.mark.parametrize(
    ("altered", "told"),
    [
        ({"duration_s": 600.0}, "is of another scenario: 600.0 there, "),
        ({"seed": 7}, "scenario.seed: is of another scenario: 7 there, 1 here (write one with `pushsim compare "),
        ({"path": "elsewhere/other.yaml"}, "scenario.path: is of another scenario: other there, "),
        ({"path": "elsewhere/ci.yaml", "id": "another mesh", "release": "1.20"}, ""),
        ({"complete": False}, "is of a run that was cut short: scoped (write one"),
    ],
)
def test_a_baseline_of_something_else_is_refused(folder: Path, tmp_path: Path, altered: Any, told: str) -> None:
    asked = Scenario.load(folder / "ci.yaml")
    head = {"path": asked.path, "id": asked.id, "seed": asked.seed, "duration_s": asked.duration_ns / 1e9} | altered
    (tmp_path / "b.json").write_text(
        json.dumps({"scenario": head, "variants": {"scoped": {"complete": altered.get("complete", True)}}})
    )
    if not told:
        assert baseline_of(tmp_path / "b.json", asked)
        return
    with pytest.raises(InputError, match=re.escape(told)):
        baseline_of(tmp_path / "b.json", asked)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--fail-on", "converged_s.p98 > 5"], "known: .*converged_s.p99"),
        (["--fail-on", "nobody: bytes_sent > 5"], "known variants: scoped, unscoped"),
        (["--fail-on", "increase(bytes_sent) > 5"], "percentage"),
        (["--fail-on", "churn.rollouts.changes > 1"], "did you mean churn."),
        (["--policy", "scoped", "--fail-on", "increase(bytes_sent) > 5%"], "compares variants"),
        (["--baseline", "/no/such.json"], "/no/such.json"),
        (["--mesh", "base"], "NAME=DIR"),
        (["--mesh", "base=/no/such"], "is not there"),
        (["--policy", "namespac"], "did you mean namespace"),
    ],
)
def test_wrong_input_is_told_before_anything_is_run_and_is_exit_2(
    capsys: Any, monkeypatch: pytest.MonkeyPatch, folder: Path, arguments: list[str], told: str
) -> None:
    monkeypatch.setattr(Simulation, "run", None)
    code, _, said = run(capsys, folder, *arguments)
    assert code == 2 and re.search(told, said)


# ---- formats


def test_junit_is_read_by_a_junit_parser(capsys: Any, folder: Path) -> None:
    conditions = ("--fail-on", "bytes_sent > 1", "--fail-on", "scoped: converged_s.p99 > 1h")
    code, printed, _ = run(capsys, folder, "--format", "junit", *conditions)
    assert code == 1
    ElementTree.fromstring(printed)
    read = JUnitXml.fromstring(printed.encode())
    assert (read.tests, read.failures, read.errors) == (3, 2, 0)
    cases = {(suite.name, case.name): case.is_failure for suite in read for case in suite}
    assert cases == {
        ("unscoped", "bytes_sent > 1"): True,
        ("scoped", "bytes_sent > 1"): True,
        ("scoped", "scoped: converged_s.p99 > 1h"): False,
    }


def test_markdown_is_a_table_that_renders(capsys: Any, folder: Path) -> None:
    code, printed, _ = run(capsys, folder, "--format", "markdown", "--fail-on", "bytes_sent > 1", "--seeds", "2")
    assert code == 1
    lines = printed.splitlines()
    assert lines[0] == r"### What \| does &lt;scoping&gt; save a small shop?"
    rows = [re.split(r"(?<!\\)\|", line) for line in lines[2 : lines.index("", 2)]]
    assert {len(row) for row in rows} == {5}, "every row has the header's cells"
    assert rows[1][1:-1] == [" --- ", " ---: ", " ---: "]
    assert any("proxy pushes" in row[1] and "<br>" in row[3] for row in rows)
    assert sum("**fails**" in line for line in lines) == 2
    assert printed.count("<details>") == printed.count("</details>") == 1


#: What SARIF 2.1.0 asks of the parts we write (§3.13, §3.14, §3.19, §3.27, §3.28, §3.30), in our own words; the
#: standard's own schema is used where PUSHSIM_SARIF_SCHEMA names it.
LOCATION = {
    "type": "object",
    "required": ["physicalLocation"],
    "properties": {
        "physicalLocation": {
            "type": "object",
            "required": ["artifactLocation", "region"],
            "properties": {
                "artifactLocation": {"type": "object", "required": ["uri"], "properties": {"uri": {"type": "string"}}},
                "region": {"type": "object", "properties": {"startLine": {"type": "integer", "minimum": 1}}},
            },
        },
        "logicalLocations": {"type": "array", "items": {"type": "object", "required": ["fullyQualifiedName"]}},
    },
}
RESULT = {
    "type": "object",
    "required": ["message", "ruleId", "ruleIndex", "level", "locations"],
    "properties": {
        "message": {"type": "object", "required": ["text"], "properties": {"text": {"type": "string", "minLength": 1}}},
        "level": {"enum": ["none", "note", "warning", "error"]},
        "locations": {"type": "array", "items": LOCATION, "minItems": 1},
    },
    "additionalProperties": {"type": ["string", "integer"]},
}
STRUCTURE = {
    "type": "object",
    "required": ["version", "runs"],
    "properties": {
        "version": {"const": "2.1.0"},
        "$schema": {"type": "string", "format": "uri"},
        "runs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["tool", "results"],
                "properties": {"results": {"type": "array", "items": RESULT}},
            },
        },
    },
    "additionalProperties": False,
}


def test_sarif_says_what_fails_and_where(capsys: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    swapped = ("--mesh", "base=head", "--mesh", "head=base", "--policy", "none", "--fail-on", "bytes_sent > 1")
    code, printed, _ = run(capsys, Path(), *swapped, "--format", "sarif")
    log = json.loads(printed)
    assert code == 1
    jsonschema.validate(log, STRUCTURE)
    if schema := os.environ.get("PUSHSIM_SARIF_SCHEMA"):
        jsonschema.validate(log, json.loads(Path(schema).read_text()))
    rules = [rule["id"] for rule in log["runs"][0]["tool"]["driver"]["rules"]]
    results = log["runs"][0]["results"]
    assert all(rules[result["ruleIndex"]] == result["ruleId"] for result in results)
    assert {result["ruleId"] for result in results if result["level"] == "error"} == {"threshold"}
    broken = [result["locations"][0] for result in results if result["ruleId"] == "broken-call"]
    assert broken
    for place in broken:
        physical = place["physicalLocation"]
        assert (physical["artifactLocation"]["uri"], physical["region"]["startLine"]) == ("base/0-sidecar.yaml", 3)
        assert place["logicalLocations"][0]["fullyQualifiedName"] == "Sidecar/istio-system/default"
