"""Conformance with recordings of real istiods, a test per release and mode (`tests/vectors/README.md`)."""

import copy
import functools
import json
import os
from pathlib import Path

import pytest

from pushsim import releases
from pushsim.cases import Case, load_case
from pushsim.conversation import Conversation
from pushsim.manifests import parse_objects
from pushsim.mesh import Change, Mesh, Proxy
from pushsim.recordings import conform, recorded, step_record

VECTORS = Path(os.environ.get("PUSHSIM_VECTORS") or Path(__file__).parent / "vectors")
#: Small cases that between them hold every kind of resource: pricing all of the folder takes minutes.
PRICED = (
    "default-export-to", "destination-rules", "gateway-routing", "policies", "service-entries", "virtual-services",
    "shapes", "no-auto-mtls", "dns-capture", "credentials", "extensions", "corners",
)  # fmt: skip

cached_case = functools.cache(load_case)


def cells():
    found = {tuple(path.stem.rsplit("-", 1)) for path in VECTORS.glob("*/*.json")}
    return sorted(found, key=lambda cell: ([int(part) for part in cell[0].split(".")], cell[1]))


def recordings(release, mode):
    """(case, recording, rules) of every case recorded on a release in a mode."""
    for path in sorted(VECTORS.glob(f"*/{release}-{mode}.json")):
        run = json.loads(path.read_text())
        yield cached_case(VECTORS / "cases" / f"{path.parent.name}.yaml"), run, releases.rules(run["istio"])


def told(case, difference):
    d = difference
    return (
        f"{case.name} step {d.step} ({d.name}), {d.proxy}: {d.aspect}\n  only recorded: {d.expected}\n"
        f"  only ours: {d.got}\n  because {d.why}"
    )


def test_every_release_said_to_be_proven_is_recorded_here():
    rules = {releases.rules(json.loads(p.read_text())["istio"]).release for p in VECTORS.glob("*/*.json")}
    assert rules >= releases.RECORDED
    assert {mode for _, mode in cells()} == {"sotw", "delta"}


@pytest.mark.parametrize(("release", "mode"), cells(), ids=["-".join(cell) for cell in cells()])
def test_who_gets_what(release, mode):
    ran = 0
    for case, run, rules in recordings(release, mode):
        score = conform(case, run, rules, mode, sizes=False)
        assert score.checked["pushes"] == (len(case.steps) + 1) * len(case.mesh.proxies)
        assert not score.differences, "\n".join(told(case, d) for d in score.differences[:3])
        assert score.exact
        ran += 1
    assert ran


@pytest.mark.parametrize(("release", "mode"), cells(), ids=["-".join(cell) for cell in cells()])
def test_bytes(release, mode):
    checked = equal = 0
    cases = {}
    for case, run, rules in recordings(release, mode):
        if case.name in PRICED or "PUSHSIM_VECTORS" in os.environ:
            score = conform(case, run, rules, mode)
            checked, equal = checked + score.checked["bytes"], equal + score.equal["bytes"]
            if score.equal["bytes"] < score.checked["bytes"]:
                cases[case.name] = f"{score.equal['bytes']} of {score.checked['bytes']}"
    assert checked
    assert equal >= 0.99 * checked, f"{equal} of {checked} within 2 % or 8 bytes: {cases}"


# the comparison itself notices what it should


def some_step(run, wanted):
    """The first (step, proxy, responses) of a recording that has a response as wanted."""
    for number, step in enumerate(run["steps"]):
        for proxy, responses in step["responses"].items():
            for index, response in enumerate(responses):
                if wanted(response):
                    return number, proxy, responses, index
    raise AssertionError("no such response")


def drop(responses, index):
    del responses[index]


def add(responses, index):
    responses.append(responses[index])


def rename(responses, index):
    responses[index]["names"] = [*responses[index]["names"][1:], "outbound|1||nowhere.example.com"]


def unremove(responses, index):
    responses[index]["removed_names"] = []


def turn(responses, index):
    responses[index]["solicited"] ^= True


@pytest.mark.parametrize(
    ("tamper", "wanted", "aspect"),
    [
        (drop, lambda r: not r["solicited"], "pushes"),
        (add, lambda r: not r["solicited"], "pushes"),
        (rename, lambda r: r["names"] and not r["solicited"], "names"),
        (unremove, lambda r: r["removed_names"], "removed"),
        (turn, lambda r: r["solicited"], "solicited"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_forged_recording_is_found_out(tamper, wanted, aspect):
    case = cached_case(VECTORS / "cases" / "services.yaml")
    real = json.loads((VECTORS / "services" / "1.24-delta.json").read_text())
    rules = releases.rules(real["istio"])
    forged = copy.deepcopy(real)
    number, proxy, responses, index = some_step(forged, wanted)
    tamper(responses, index)
    score = conform(case, forged, rules, "delta", sizes=False)
    assert [(d.step, d.proxy) for d in score.differences] == [(number, proxy)]
    assert not score.exact
    assert score.equal[aspect] == score.checked[aspect] - 1


@pytest.mark.parametrize("services_first", [False, True])
def test_either_order_of_istiods_handlers_conforms(services_first):
    """A Service written with its own slice: whichever of the two istiod handled first, its recording is right."""
    case, rules = cached_case(VECTORS / "cases" / "random-009.yaml"), releases.rules("1.24.6")
    ours, other = (Conversation(case.mesh, rules, "sotw", case.steps) for _ in range(2))
    connect = {p.id: recorded(o, None) for o in ours.classes for p in o.members}
    steps, told_apart = [], 0
    for change in case.steps:
        step = step_record(ours.step(change, services_first=services_first), None)
        told_apart += step != step_record(other.step(change), None)
        steps.append(step)
    assert bool(told_apart) == services_first, "the case has no race that shows"
    assert conform(case, {"connect": connect, "steps": steps}, rules, "sotw", sizes=False).exact


@pytest.mark.parametrize("services_first", [False, True])
def test_what_a_race_left_may_show_later(services_first):
    """A Service deleted while its slice is written: if the slice comes last, istiod knows its endpoints ever after."""

    def body(kind, spec, version="v1", **labels):
        return {
            "apiVersion": version,
            "kind": kind,
            "metadata": {"name": "s", "namespace": "a", "labels": labels},
        } | spec

    def slice_of(*addresses):
        endpoints = [{"addresses": [address]} for address in addresses]
        told = {"addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "http", "port": 8080}]}
        labels = {"kubernetes.io/service-name": "s"}
        return parse_objects([body("EndpointSlice", told, "discovery.k8s.io/v1", **labels)])[0]

    ports = [{"name": "http", "port": 80}]
    service = parse_objects([body("Service", {"spec": {"clusterIP": "10.0.0.1", "ports": ports}})])[0]
    mesh = Mesh({o.ref: o for o in (service, slice_of("10.9.0.1"))}, (Proxy("gw", "b", "10.1.0.1", "router"),))
    steps = (
        Change((slice_of("10.9.0.2"),), (service.ref,), name="race"),
        Change((slice_of("10.9.0.3"),), name="later"),
    )
    case, rules = Case("race", "", mesh, steps), releases.rules("1.15")
    ours = Conversation(mesh, rules, "sotw", steps)
    connect = {p.id: recorded(o, None) for o in ours.classes for p in o.members}
    told = [step_record(ours.step(change, services_first=services_first), None) for change in steps]
    assert bool(told[1]["responses"]["gw.b"]) != services_first
    assert conform(case, {"connect": connect, "steps": told}, rules, "sotw", sizes=False).exact
