"""Scenarios: the contract's example loads; every mistake is told; identity, dump, schema, fields, bundled ones."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

import pushsim
from pushsim.environment import ENVIRONMENT
from pushsim.errors import InputError, Problem
from pushsim.manifests.document import parse_text
from pushsim.mesh import Ref
from pushsim.policies import EXPORT_TO
from pushsim.scenario import Scenario, bundled, check, checked, schema
from pushsim.scenario.bundle import folder
from pushsim.scenario.model import Model
from pushsim.settings import ISTIOD_RESTART
from pushsim.topology import Section
from pushsim.units import SECOND_NS, UnitError, bytes_text, duration, duration_text, quantity, rate, rate_text

#: formats.md's own example, with shorter churn so that it is built in a moment.
EXAMPLE = """\
# What does one root Sidecar save a multi-tenant serving mesh?
mesh:
  manifests: [../mesh/]
  generate:
    namespaces: 6
    apps:
    - {name: predictor, per_namespace: 8, pods: 2, ports: {http: 8080}, labels: {role: predictor}, sidecar: true}
    gateways: {count: 4, namespace: istio-system, virtual_services: all}
    calls: {model: layered, out_degree: 3}
  inject: detect
istiod:
  release: "1.24"
  replicas: 1
  cpus: 16
  env: {PILOT_DEBOUNCE_AFTER: 100ms, PILOT_PUSH_THROTTLE: 100}
  mesh_config: {defaultServiceExportTo: ["*"]}
  profile: default
  calibration: calibration.yaml
proxies: {mode: delta, workers: 2, memory_limit: 512Mi}
clients: {slow: {share: 0.01, delay: 500ms}, nack: {share: 0}, reconnect: {every: 30m}}
calls: calls.csv
churn:
- {source: training-job, rate: 1/s, services: 5, lifetime: 2m, labels: {kind: training}}
- {source: rollout, rate: 40/h}
- {source: hpa-annotation, period: 15s, share: 0.1}
changes:
- {at: 5s, apply: [change.yaml], delete: [{kind: Sidecar, namespace: ns-001, name: default}]}
duration: 1m
warmup: 30s
seed: 1
variants:
  unscoped: []
  root-sidecar: [{root-sidecar: {hosts: [istio-system/*, kubeflow/*, ./*]}}]
  hidden-training:
  - {root-sidecar: {hosts: [istio-system/*, kubeflow/*, ./*]}}
  - {export-to: {value: "~", services: {labels: {kind: training}}}}
"""
MANIFEST = """\
apiVersion: v1
kind: Service
metadata: {name: legacy, namespace: ns-001}
spec: {clusterIP: 172.30.0.1, ports: [{name: http, port: 80}], selector: {app: legacy}}
"""
CHANGE = """\
apiVersion: networking.istio.io/v1beta1
kind: DestinationRule
metadata: {name: legacy, namespace: ns-001}
spec: {host: legacy}
"""
MINIMAL = "mesh: {generate: {namespaces: 2, apps: [{name: a}]}}\nduration: 10s\n"


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The example with the files it names."""
    (tmp_path / "mesh").mkdir()
    (tmp_path / "mesh" / "legacy.yaml").write_text(MANIFEST)
    where = tmp_path / "scenarios"
    where.mkdir()
    (where / "change.yaml").write_text(CHANGE)
    (where / "calibration.yaml").write_text("format: 1\n")
    (where / "calls.csv").write_text("source,destination,rate\nns-000/predictor-0,ns-001/legacy,3\n")
    path = where / "example.yaml"
    path.write_text(EXAMPLE)
    return path


def problems_in(text: str) -> tuple[Problem, ...]:
    with pytest.raises(InputError) as failed:
        Scenario.loads(text)
    return failed.value.problems


def problems(text: str) -> list[tuple[str, str]]:
    return [(problem.field, problem.remedy) for problem in problems_in(text)]


def test_the_contracts_example(example: Path) -> None:
    assert check(example) == []
    scenario = Scenario.load(example)
    assert scenario.question == "What does one root Sidecar save a multi-tenant serving mesh?"
    assert (scenario.seed, scenario.duration_ns, scenario.warmup_ns) == (1, 60 * SECOND_NS, 30 * SECOND_NS)
    assert scenario.variant_names == ("unscoped", "root-sidecar", "hidden-training")
    unscoped, scoped, hidden = (scenario.variant(name) for name in scenario.variant_names)
    settings = unscoped.settings
    assert settings.env == {"PILOT_DEBOUNCE_AFTER": "100ms", "PILOT_PUSH_THROTTLE": "100"}
    assert settings.mesh_config["enablePrometheusMerge"] is True, "the profile lies under the scenario's own"
    assert settings.mesh_config["defaultServiceExportTo"] == ["*"]
    assert (settings.mode, settings.workers, settings.memory_limit_bytes) == ("delta", 2, 512 * 2**20)
    assert (settings.clients.slow_share, settings.clients.slow_delay_ns) == (0.01, SECOND_NS // 2)
    assert settings.clients.reconnect_ns == 1800 * SECOND_NS
    assert settings.calibration is not None and Path(settings.calibration).is_file()
    assert unscoped.mesh.mesh_config == settings.mesh_config
    root = Ref("Sidecar", "istio-system", "default")
    assert root not in unscoped.mesh.objects and root in scoped.mesh.objects
    assert Counter(c.source for c in unscoped.changes) == Counter(c.source for c in hidden.changes)
    written = [c for c in unscoped.changes if c.source == "changes"]
    assert [c.at_ns for c in written] == [35 * SECOND_NS], "dated from where counting starts"
    assert {held.ref.kind for held in written[0].change.apply} == {"DestinationRule"}
    assert written[0].change.delete == (Ref("Sidecar", "ns-001", "default"),)


def test_a_service_created_later_is_admitted_too(example: Path) -> None:
    scenario = Scenario.load(example)
    plain, hidden = scenario.variant("unscoped"), scenario.variant("hidden-training")
    made = [held for c in hidden.changes for held in c.change.apply if held.ref.kind == "Service"]
    training = [held for held in made if held.labels.get("kind") == "training"]
    assert training and all(held.annotations[EXPORT_TO] == "~" for held in training)
    assert all(held.labels.get("kind") == "training" for held in made if EXPORT_TO in held.annotations)
    untouched = [(a, b) for a, b in zip(plain.changes, hidden.changes, strict=True) if a.source == "rollout"]
    assert all(a.change is b.change for a, b in untouched), "what a policy leaves alone is shared"


def test_variants_are_the_same_every_time(example: Path) -> None:
    first, second = Scenario.load(example), Scenario.load(example)
    assert first.id == second.id
    assert first.variant("root-sidecar") == second.variant("root-sidecar")


def test_policy_text_in_place_of_a_variant(example: Path, tmp_path: Path) -> None:
    scenario = Scenario.load(example)
    assert scenario.variant("root-sidecar+gateway-filter").settings.env["PILOT_FILTER_GATEWAY_CLUSTER_CONFIG"] == "true"
    listed = tmp_path / "policy.yaml"
    listed.write_text('- {export-to: {value: "."}}\n- {files: {paths: [objects]}}\n')
    (tmp_path / "objects").mkdir()
    (tmp_path / "objects" / "rule.yaml").write_text(CHANGE)
    both = scenario.variant(str(listed)).mesh
    assert Ref("DestinationRule", "ns-001", "legacy") in both.objects
    assert both.objects[Ref("Service", "ns-001", "legacy")].annotations[EXPORT_TO] == "."
    alone = scenario.variant(str(tmp_path / "objects")).mesh.objects
    assert alone[Ref("DestinationRule", "ns-001", "legacy")].creation
    with pytest.raises(InputError, match="did you mean root-sidecar"):
        scenario.variant("root-sidcar")


@pytest.mark.parametrize(
    "edit",
    [
        ("seed: 1", "seed: 2"),
        ("duration: 1m", "duration: 2m"),
        ("cpus: 16", "cpus: 15"),
        ("rate: 40/h", "rate: 41/h"),
        ("[istio-system/*, kubeflow/*, ./*]}}]", "[istio-system/*, ./*]}}]"),
    ],
)
def test_identity_moves_with_what_matters(example: Path, edit: tuple[str, str]) -> None:
    before = Scenario.load(example).id
    example.write_text(EXAMPLE.replace(*edit))
    assert Scenario.load(example).id != before


@pytest.mark.parametrize("name", ["change.yaml", "calls.csv", "calibration.yaml", "../mesh/legacy.yaml"])
def test_identity_moves_with_the_contents_of_files(example: Path, name: str) -> None:
    before = Scenario.load(example).id
    path = example.parent / name
    path.write_text(path.read_text() + "\n# more\n")
    assert Scenario.load(example).id != before


def test_identity_stays_for_what_does_not_matter(example: Path) -> None:
    before = Scenario.load(example).id
    text = EXAMPLE.replace("1m\n", "60s\n").replace("512Mi", "536870912").replace("40/h", "40 / h")
    text += "assumptions: [{field: istiod.cpus, why: a guess}]\npublished: {source: somebody}\n"
    (example.parent / "renamed.yaml").write_text(text.replace("# What", "# Why"))
    assert Scenario.load(example.parent / "renamed.yaml").id == before


def test_dump_loads_to_the_same(example: Path) -> None:
    scenario = Scenario.load(example)
    text = scenario.dump()
    again = Scenario.loads(text, example.parent)
    assert again.id == scenario.id and again.question == scenario.question and again.dump() == text


def test_all_mistakes_of_a_file_at_once() -> None:
    text = """
mesh:
  generate:
    namespace: 3
    apps: [{name: Web}, {pods: 1}, {name: b, ports: {http: 99999}, labels: {"a b": c}}]
istiod: {release: 1.30, cpus: none}
clients: {slow: {share: 2}}
churn: [{source: rolout}, {source: rollout, rate: 3}, {source: services, live_time: 3s}, {source: istiod-restart}, {}]
changes: [{at: 5}]
duration: 10
variants: {a: [namspace], b/c: []}
assumptions: [{field: istiod.cpu, why: x}]
colour: blue
"""
    found = problems(text)
    assert ("mesh.generate.namespace", "did you mean namespaces?") in found
    assert ("churn[0]", "did you mean rollout?") in found
    assert ("churn[1].rate", "add the unit: 3/s") in found
    assert ("churn[2].live_time", "did you mean lifetime?") in found
    assert ("duration", "add the unit: 10s") in found
    assert ("istiod.release", 'put it in quotes: "1.30" would else become 1.3') in found
    assert ("variants.a[0]", "did you mean namespace?") in found
    assert {field for field, _ in found} >= {
        "mesh.generate.apps[0].name",
        "mesh.generate.apps[1].name",
        "mesh.generate.apps[2].ports.http",
        "mesh.generate.apps[2].labels",
        "istiod.cpus",
        "clients.slow.share",
        "churn[3]",
        "churn[4]",
        "changes[0].at",
        "variants",
        "colour",
    }


def test_sections_that_contradict_each_other() -> None:
    text = MINIMAL + (
        "churn: [{source: headless-statefulset, rate: 1/m}]\n"
        "variants: {x: []}\n"
        "published: {source: s, figures: [{metric: converged_s.p99, variant: y, value: 5s}]}\n"
        "assumptions: [{field: istiod.cpu, why: w}, {field: istiod.release, why: w}, "
        "{field: churn.nothing.rate, why: w}]\n"
    )
    text = text.replace("apps: [{name: a}]", "apps: [{name: a}], gateways: {count: 1, virtual_services: [b]}")
    assert [field for field, _ in problems(text)] == [
        "published.figures[0].variant",
        "assumptions[0].field",
        "assumptions[1].field",
        "assumptions[2].field",
        "mesh.generate.gateways.virtual_services",
        "churn[0]",
    ]


def test_a_release_there_is_not_is_told_with_its_place() -> None:
    (found,) = problems_in(MINIMAL + "istiod: {release: '1.2'}\n")
    assert (found.where, found.field) == ("scenario", "istiod.release")
    assert "1.24" in found.remedy


@pytest.mark.parametrize(
    ("text", "field", "said"),
    [
        ("mesh: []\n", "mesh", "must be a mapping"),
        ("mesh:\n", "mesh", "must be a mapping"),
        ("mesh: {manifests: mesh}\n", "mesh.manifests", "must be a list"),
        (MINIMAL + "churn: {source: rollout}\n", "churn", "must be a list"),
        (MINIMAL + "churn: [rollout]\n", "churn[0]", "must be a mapping"),
        (MINIMAL + "istiod: {env: {A: [1]}}\n", "istiod.env.A", "must be text, a number, true or false"),
        ("apiVersion: v1\nkind: Service\n", "", "is a manifest, and no scenario"),
        ("# nothing yet\n", "", "is empty, and no scenario"),
    ],
)
def test_a_wrong_shape_is_told_in_yamls_words(text: str, field: str, said: str) -> None:
    (found,) = problems_in(text)
    assert (found.field, found.message) == (field, said) and found.remedy


def test_what_is_no_file_of_text_is_told(tmp_path: Path) -> None:
    (found,) = check(tmp_path)
    assert "Is a directory" in found.message and "mesh: {manifests: [" in found.remedy
    (tmp_path / "s.yaml").write_text(MINIMAL + "calls: calls.csv\n")
    (tmp_path / "calls.csv").write_bytes(b"source,\xff")
    for ask in (lambda: check(tmp_path / "s.yaml"), lambda: Scenario.load(tmp_path / "s.yaml").calls()):
        try:
            (found,) = ask() or ()
        except InputError as error:
            (found,) = error.problems
        assert (found.where, found.message) == (str(tmp_path / "calls.csv"), "is not text (byte 7 is not UTF-8)")


def test_istiods_settings_are_checked_by_themselves() -> None:
    text = """
istiod:
  env: {PILOT_DEBOUNCE_AFTER: 100, PILOT_HTTP10: yess, PILOT_PUSH_THROTTLE: -1, PILOT_TRACE_SAMPLING: a lot}
  mesh_config:
    defaultServiceExportTO: ["*"]
    accessLogFile: true
    connectTimeout: 10
    outboundTrafficPolicy: {mode: REGISTRYONLY}
    defaultConfig: {proxyMetadat: {}}
"""
    prefix = "istiod.mesh_config"
    assert problems(MINIMAL + text) == [
        ("istiod.env.PILOT_DEBOUNCE_AFTER", "add the unit: 100s"),
        ("istiod.env.PILOT_HTTP10", "write true or false"),
        ("istiod.env.PILOT_PUSH_THROTTLE", "write a number of 0 or more (0 is automatic)"),
        ("istiod.env.PILOT_TRACE_SAMPLING", "write a number"),
        (f"{prefix}.accessLogFile", "put it in quotes"),
        (f"{prefix}.connectTimeout", "add the unit: 10s"),
        (f"{prefix}.outboundTrafficPolicy.mode", "did you mean REGISTRY_ONLY? "
         "write one of REGISTRY_ONLY, ALLOW_ANY, ALLOW_ANY_DYNAMIC_DNS"),
        (f"{prefix}.defaultServiceExportTO", "did you mean defaultServiceExportTo?"),
        (f"{prefix}.defaultConfig.proxyMetadat", "did you mean proxyMetadata?"),
    ]  # fmt: skip


def test_istiods_mesh_config_is_read_as_istiod_reads_it() -> None:
    written = "{proxyListenPort: '15009', outbound_traffic_policy: {mode: 1}}"
    text = (
        f"istiod: {{mesh_config: {written}}}\nvariants: {{given: [], knobs: [{{knobs: {{accessLogEncoding: 1}}}}]}}\n"
    )
    scenario = Scenario.loads(MINIMAL + text)
    settings = scenario.variant("given").settings.mesh_config
    assert settings["proxyListenPort"] == 15009 and settings["outboundTrafficPolicy"] == {"mode": "ALLOW_ANY"}
    assert scenario.variant("knobs").settings.mesh_config["accessLogEncoding"] == "JSON"


@pytest.mark.parametrize("knob", ["PILOT_DEBOUNCE_MAX: 1", "enableTracing: 'yes'", "accessLogEncoding: xml"])
def test_istiods_settings_are_checked_in_a_policy_too(knob: str) -> None:
    (found,) = problems_in(MINIMAL + f"variants: {{a: [{{knobs: {{{knob}}}}}]}}\n")
    assert knob.split(":")[0] in found.message and found.field.startswith("variants.a[0]")


def test_check_tells_what_is_not_modelled(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(MINIMAL + "istiod: {env: {PILOT_ENABLE_AMBIENT: true}}\n")
    found, notes = checked(tmp_path / "s.yaml")
    assert found == [] and "PILOT_ENABLE_AMBIENT is not modelled" in notes[0]


def test_what_of_the_environment_changes_nothing_is_told() -> None:
    scenario = Scenario.loads(MINIMAL + "istiod: {env: {PILOT_DEBOUNCE_AFTR: 1s, PILOT_PUSH_THROTTLE: 5}}\n")
    said = "istiod.env.PILOT_DEBOUNCE_AFTR is not modelled: it changes nothing in a simulation"
    assert scenario.notes == (f"{said} (did you mean PILOT_DEBOUNCE_AFTER?)",)


def test_the_environment_that_a_simulation_goes_by_is_what_its_modules_read() -> None:
    package = Path(pushsim.__file__).parent
    modules = ("control", "context", "registry", "releases", "sizes", "visibility")
    files = [file for name in modules for file in package.glob(f"{name}/*.py")]
    known = r'"((?:PILOT|ENABLE|MAX|ISTIO_GATEWAY|ISTIO_ENABLE|GRPC_KEEPALIVE)_[A-Z_0-9]+|REVISION)"'
    read = {name for file in files for name in re.findall(known, file.read_text())}
    assert read == ENVIRONMENT.keys()


def test_what_a_scenario_lists_and_nothing_comes_of_is_told() -> None:
    text = """
churn:
- {source: rollout, rate: 1/s, select: {labels: {kind: none}}}
- {source: scale, at: [1m]}
- {source: crash-loop, at: [1s]}
changes:
- {at: 2s, delete: [{kind: Service, name: aa, namespace: ns-000}, {kind: Service, name: a, namespace: ns-001}]}
- {at: 1s, delete: [{kind: Sidecar, name: default, namespace: istio-system}, {kind: Deployment, name: a}]}
- {at: 10s, delete: [{kind: Service, name: a, namespace: ns-000}]}
variants: {unscoped: [], scoped: [root-sidecar]}
"""
    scenario = Scenario.loads(MINIMAL + text)
    idle = "changes nothing in 10s: nothing fits its selection, or it comes too seldom or late"
    always = (
        f"churn rollout {idle}",
        f"churn scale {idle}",
        "changes[2] never happens: it is at 10s, and the run ends at 10s",
    )
    gone = "changes at 1s: there is no Deployment/default/a to delete"
    missed = "changes at 2s: there is no Service/ns-000/aa to delete (did you mean a?)"
    sidecar = "changes at 1s: there is no Sidecar/istio-system/default to delete"
    assert scenario.variant("unscoped").notes == (*always, sidecar, gone, missed)
    assert scenario.variant("scoped").notes == (*always, gone, missed), "the policy has installed it"


@pytest.mark.parametrize(
    ("generate", "said"),
    [
        ("namespaces: 2, apps: [{name: a, pods: 10000000}]", "would make 20,000,000 pods of 2 services"),
        ("namespaces: 1000000000", "would make 1,000,000,000 namespaces"),
        ("namespaces: [{name: a, count: 900000}]", "would make 900,000 namespaces"),
        ("apps: [{name: a, per_namespace: [0, 2000000], pods: 0}]", "would make 0 pods of 1,000,000 services"),
        ("gateways: {count: 1000000}", "would make 1,000,000 pods of 0 services"),
    ],
)
def test_a_mesh_larger_than_anybody_means_is_told_before_it_is_made(generate: str, said: str) -> None:
    (found,) = problems_in(f"mesh: {{generate: {{{generate}}}}}\n")
    assert (found.field, found.message) == ("mesh.generate", said)
    assert "mesh.generate.at_most" in found.remedy


def test_churn_that_would_come_more_often_than_anybody_means_is_told_before_it_is_made() -> None:
    churn = "churn: [{source: rollout, rate: 10000000/s}, {source: hpa-annotation, period: 1us}, {source: scale}]\n"
    found = problems_in(MINIMAL + churn)
    assert [(problem.field, problem.message) for problem in found] == [
        ("churn[0]", "would come 400,000,000 times in this run"),
        ("churn[1]", "would come 40,000,000 times in this run"),
    ]


@pytest.mark.parametrize(
    ("more", "field", "said"),
    [
        ("churn: [{source: services, services: 1000000, pods: 4, at: [1s]}]", "churn[0]", "would write 5,000,000 obj"),
        ("churn: [{source: services, pods: 1000000000, at: [1s]}]", "churn[0]", "would write 1,000,000,001 objects "),
        ("churn: [{source: scale, by: 1000000000}]", "churn[0]", "would write 1,000,000,000 objects whenever it comes"),
        ("churn: [{source: crash-loop, failures: 1000000000, up: 0s, down: 0s}]", "churn[0]", "would write 1,000,000"),
        ("churn: [{source: training-job, services: 5000, rate: 100/s}]", "churn[0]", "would write 40,000,000 objects"),
        ("duration: 9000h", "duration", "the run would last 9000h30s"),
        ("istiod: {replicas: 100000}", "istiod.replicas", "input should be less than or equal to 1000"),
        ("variants: {a: [{knobs: {replicas: 100000}}]}", "variants.a[0].knobs.replicas", "input should be less than "),
    ],
)  # fmt: skip
def test_numbers_that_no_run_would_come_through_are_told(more: str, field: str, said: str) -> None:
    given = MINIMAL.replace("duration: 10s\n", "") if "duration" in more else MINIMAL
    (found,) = problems_in(f"{given}{more}\n")
    assert (found.field, found.message[: len(said)]) == (field, said) and found.remedy


def test_calls_that_nobody_would_draw_are_told_before_they_are_drawn() -> None:
    (found,) = problems_in("mesh: {generate: {apps: [{name: a, total: 9}], calls: {out_degree: 100000000}}}\n")
    assert (found.field, found.message) == ("mesh.generate", "would make 900,000,000 calls")


def test_a_crash_loop_that_goes_on_for_ever_ends_with_the_run() -> None:
    Scenario.loads(MINIMAL + "churn: [{source: crash-loop, failures: 1000000000, at: [1s]}]\n")


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (MINIMAL + "seed: true\n", "seed"),
        (MINIMAL + "istiod: {replicas: yes}\n", "istiod.replicas"),
        (MINIMAL + "clients: {slow: {share: true}}\n", "clients.slow.share"),
        (MINIMAL + "churn: [{source: scale, by: on}]\n", "churn[0].by"),
        (MINIMAL + "variants: {a: [{knobs: {replicas: true}}]}\n", "variants.a[0].knobs.replicas"),
        ("mesh: {generate: {namespaces: true}}\n", "mesh.generate.namespaces"),
        ("mesh: {generate: {apps: [{name: a, pods: true}]}}\n", "mesh.generate.apps[0].pods"),
        ("mesh: {generate: {apps: [{name: a, pods: [true, 2]}]}}\n", "mesh.generate.apps[0].pods[0]"),
        ("mesh: {generate: {apps: [{name: a, ports: {http: true}}]}}\n", "mesh.generate.apps[0].ports.http"),
        ("mesh: {generate: {gateways: {virtual_services: true}}}\n", "mesh.generate.gateways.virtual_services"),
    ],
)
def test_true_is_no_number(text: str, field: str) -> None:
    (found,) = problems_in(text)
    assert (found.field, found.message, found.remedy) == (field, "must be a number, not true", "write it in digits")


def sections(of: type[Section] = Section) -> Iterator[type[Section]]:
    for each in of.__subclasses__():
        if each.__module__.startswith("pushsim."):
            yield each
            yield from sections(each)


def test_no_field_of_any_section_takes_true_for_a_number() -> None:
    taken = []
    for section in sections():
        for name, field in section.model_fields.items():
            with suppress(ValidationError):
                value = TypeAdapter(Annotated[field.annotation, field]).validate_python(True)
                if not (value is True or value == "true"):
                    taken.append(f"{section.__name__}.{name}: {value!r}")
    assert not taken


def test_what_a_mesh_may_have_at_most_is_no_part_of_the_question() -> None:
    asked = MINIMAL.replace("namespaces: 2", "namespaces: 2, at_most: 6")
    assert Scenario.loads(asked).id == Scenario.loads(MINIMAL).id
    assert problems(asked.replace("at_most: 6", "at_most: 5"))


def test_a_kind_that_cannot_be_deleted_is_refused() -> None:
    text = "changes: [{at: 1s, delete: [{kind: Sidecr, name: a}, {kind: HorizontalPodAutoscaler, name: a}]}]\n"
    (first, remedy), (second, _) = problems(MINIMAL + text)
    assert (first, remedy) == ("changes[0].delete[0].kind", "did you mean Sidecar?")
    assert second == "changes[0].delete[1].kind"


def test_deleting_a_workload_deletes_its_pods(tmp_path: Path) -> None:
    deployment = """---
apiVersion: apps/v1
kind: Deployment
metadata: {name: a}
spec: {replicas: 2, template: {metadata: {labels: {app: a}}, spec: {containers: [{name: c, image: i}]}}}
"""
    (tmp_path / "mesh.yaml").write_text(MANIFEST.replace("legacy", "a").replace("ns-001", "default") + deployment)
    text = "mesh: {manifests: [mesh.yaml], inject: all}\nchanges: [{at: 1s, delete: [{kind: Deployment, name: a}]}]\n"
    (timed,) = Scenario.loads(text + "duration: 10s\n", tmp_path).variant("as-is").changes
    assert [ref.kind for ref in timed.change.delete] == ["Pod", "Pod"]
    assert [held.ref.kind for held in timed.change.apply] == ["EndpointSlice"]


SCALED = """---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: a}}
spec:
  replicas: {0}
  template: {{metadata: {{labels: {{app: a}}}}, spec: {{containers: [{{name: c, image: i}}]}}}}
"""


def test_changes_follow_on_from_those_before_them(tmp_path: Path) -> None:
    """Whatever order they are listed in: a Deployment that is scaled up and down again has the pods it had."""
    service = MANIFEST.replace("legacy", "a").replace("ns-001", "default")
    (tmp_path / "mesh.yaml").write_text(service + SCALED.format(2))
    (tmp_path / "five.yaml").write_text(SCALED.format(5))
    (tmp_path / "two.yaml").write_text(SCALED.format(2))
    text = """mesh: {manifests: [mesh.yaml], inject: all}
changes: [{at: 2s, apply: [two.yaml]}, {at: 1s, apply: [five.yaml]}, {at: 3s, apply: [five.yaml, two.yaml]}]
duration: 10s
"""
    variant = Scenario.loads(text, tmp_path).variant("as-is")
    up, down, both = (timed.change for timed in variant.changes)
    pods = [held.ref for held in up.apply if held.ref.kind == "Pod"]
    assert len(pods) == 3 and sorted(down.delete) == sorted(both.delete) == sorted(pods)
    before = {ref: held.body for ref, held in variant.mesh.objects.items()}
    assert {ref: held.body for ref, held in variant.mesh.after(up).after(down).objects.items()} == before


def test_deleting_a_service_deletes_its_slices(tmp_path: Path) -> None:
    service = MANIFEST.replace("legacy", "a").replace("ns-001", "default")
    (tmp_path / "mesh.yaml").write_text(service + SCALED.format(2))
    text = "mesh: {manifests: [mesh.yaml], inject: all}\nchanges: [{at: 1s, delete: [{kind: Service, name: a}]}]\n"
    (timed,) = Scenario.loads(text + "duration: 10s\n", tmp_path).variant("as-is").changes
    assert [ref.kind for ref in timed.change.delete] == ["Service", "EndpointSlice"]
    assert not timed.change.apply


def test_workloads_of_one_service_that_are_deleted_together_leave_it_no_endpoint(tmp_path: Path) -> None:
    deployments = "".join(
        f"""---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec: {{template: {{metadata: {{labels: {{app: a}}}}, spec: {{containers: [{{name: c, image: i}}]}}}}}}
"""
        for name in ("a", "b")
    )
    (tmp_path / "mesh.yaml").write_text(MANIFEST.replace("legacy", "a").replace("ns-001", "default") + deployments)
    both = "[{kind: Deployment, name: a}, {kind: Deployment, name: b}]"
    text = f"mesh: {{manifests: [mesh.yaml], inject: all}}\nchanges: [{{at: 1s, delete: {both}}}]\nduration: 10s\n"
    (timed,) = Scenario.loads(text, tmp_path).variant("as-is").changes
    assert [ref.kind for ref in timed.change.delete] == ["Pod", "Pod"]
    assert [held.body["endpoints"] for held in timed.change.apply] == [[]]


def test_files_that_are_missing_are_all_named(tmp_path: Path) -> None:
    text = (
        MINIMAL.replace("mesh: {", "mesh: {manifests: [absent/], ")
        + "calls: no.csv\nchanges: [{at: 1s, apply: [no.yaml]}]\n"
    )
    path = tmp_path / "s.yaml"
    path.write_text(text)
    found = check(path)
    assert [problem.field for problem in found] == ["mesh.manifests[0]", "calls", "changes[0].apply[0]"]
    assert all(problem.where == str(path) and str(tmp_path) in problem.remedy for problem in found)


def test_check_reads_manifests_and_changes(example: Path) -> None:
    (example.parent / "change.yaml").write_text(CHANGE.replace("{host: legacy}", "[]"))
    (example.parent / "calls.csv").write_text("from,to\n")
    assert check(example)
    (example.parent.parent / "mesh" / "legacy.yaml").write_text("{{ .Values.name }}\n")
    assert any("Helm" in problem.message for problem in check(example))


@pytest.mark.parametrize(
    "text", ["", "[]", "3", "mesh: {}", "mesh: [", "a: 1\n---\nb: 2\n", "\x00", "variants: {a: 1}"]
)
def test_what_is_no_scenario_is_an_input_error(text: str) -> None:
    with pytest.raises(InputError):
        Scenario.loads(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from([*Model.model_fields, "generate", "apps", "source", "rate", "x"]), inner, max_size=4
            )
        ),
        max_leaves=12,
    )
)
def test_no_value_ends_in_anything_but_an_input_error(value: Any) -> None:
    try:
        Scenario(value, Path())
    except InputError as error:
        assert error.problems


def test_one_variant_as_is_by_default() -> None:
    scenario = Scenario.loads(MINIMAL)
    assert scenario.variant_names == ("as-is",)
    variant = scenario.variant("as-is")
    assert variant.changes == () and len(variant.mesh.proxies) == 2


def test_connection_age_follows_the_profile() -> None:
    def age(extra: str) -> int | None:
        return Scenario.loads(MINIMAL + extra).variant("as-is").settings.clients.reconnect_ns

    assert age("") == 1800 * SECOND_NS
    assert age("istiod: {profile: bare}\n") is None
    assert age("clients: {reconnect: {every: never}}\n") is None
    assert age("istiod: {profile: bare}\nclients: {reconnect: {every: 5m}}\n") == 300 * SECOND_NS
    assert Scenario.loads(MINIMAL + "istiod: {profile: bare}\n").variant("as-is").settings.mesh_config == {}


def test_markers_reach_the_runner() -> None:
    scenario = Scenario.loads(MINIMAL + "churn: [{source: istiod-restart, at: [2s]}]\n")
    (timed,) = scenario.variant("as-is").changes
    assert timed.marker == ISTIOD_RESTART and timed.at_ns == 32 * SECOND_NS
    assert Scenario.loads(MINIMAL).variant("as-is").changes == ()


def test_gateways_have_certificates_that_are_renewed_in_turn(tmp_path: Path) -> None:
    path = tmp_path / "certificates.yaml"
    gateways = "gateways: {count: 1, certificates: 2}"
    path.write_text(
        f"mesh: {{generate: {{namespaces: 1, apps: [{{name: a, total: 1, pods: 1}}], {gateways}}}}}\n"
        "churn: [{source: certificate-rotation, rate: 1/s, arrivals: even, secrets: 2}]\nduration: 3s\nwarmup: 0s\n"
    )
    variant = Scenario.load(path).variant("as-is")
    held = {secret.ref: secret.body["data"] for secret in variant.mesh.of_kind("Secret")}
    (gateway,) = variant.mesh.of_kind("Gateway")
    asked = [server["tls"]["credentialName"] for server in gateway.spec["servers"] if "tls" in server]
    assert [ref.name for ref in held] == asked == ["gateway-certificate-0", "gateway-certificate-1"]
    written = [secret for timed in variant.changes for secret in timed.change.apply]
    assert [secret.ref for secret in written] == [*held, next(iter(held))]
    for secret in written:
        assert secret.body["data"] != held[secret.ref], "it is another certificate"


def test_fields_are_found_set_and_scaled(example: Path) -> None:
    scenario = Scenario.load(example)
    assert scenario.value("mesh.generate.apps.predictor.per_namespace") == 8
    assert scenario.value("mesh.generate.apps[0].per_namespace") == 8
    assert scenario.value("churn.hpa-annotation.arrivals") == "poisson", "defaults have a value too"
    twice = scenario.scaled("mesh.generate.apps.predictor.per_namespace", 2)
    assert twice.value("mesh.generate.apps.predictor.per_namespace") == 16 and twice.id != scenario.id
    assert scenario.scaled("churn.rollout.rate", "1/2").value("churn.rollout.rate") == "20/h"
    assert scenario.scaled("churn.training-job.lifetime", Fraction(1, 2)).value("churn.training-job.lifetime") == "1m"
    assert scenario.scaled("proxies.memory_limit", 2).value("proxies.memory_limit") == "1Gi"
    assert scenario.replaced({"istiod.cpus": 2}).variant("unscoped").settings.cpus == 2.0
    assert scenario.replaced({"istiod.env.PILOT_PUSH_THROTTLE": 7}).settings.env["PILOT_PUSH_THROTTLE"] == "7"
    assert Scenario.loads(MINIMAL).replaced({"clients.slow.share": 0.5}).settings.clients.slow_share == 0.5
    for path in ("istiod.cpu", "churn.rolout.rate", "mesh.generate.apps.b.pods"):
        with pytest.raises(InputError):
            scenario.value(path)
    with pytest.raises(InputError, match="amount"):
        scenario.scaled("istiod.release", 2)


def test_the_schema_accepts_what_we_accept(example: Path) -> None:
    described = schema()
    jsonschema.Draft202012Validator.check_schema(described)
    validator = jsonschema.Draft202012Validator(described)
    for path in [example, *sorted(folder().glob("*.yaml"))]:
        (document,) = parse_text(path.read_bytes(), str(path))
        assert [error.message for error in validator.iter_errors(document.data)] == [], path
    for wrong in (
        {},
        {"mesh": {"generate": {"namespace": 1}}},
        {"mesh": {}, "variants": {"a": [{"root-sidecar": {"host": 1}}]}},
    ):
        assert not validator.is_valid(wrong)


@pytest.mark.parametrize("name", [name for name, _ in bundled()])
def test_bundled_scenarios_are_sound(name: str) -> None:
    text = (folder() / f"{name}.yaml").read_text()
    assert text.startswith("# ") and Scenario.load(name).question.endswith("?"), "each opens with its question"
    assert check(name) == []
    assert len(Scenario.load(name).variant_names) >= 2


def test_bundled_scenarios_have_the_sizes_they_claim() -> None:
    small = Scenario.load("aisuite-small").variant("unscoped")
    assert len([s for s in small.mesh.of_kind("Service") if s.ref.namespace != "istio-system"]) == 200
    assert Counter(proxy.type for proxy in small.mesh.proxies) == {"sidecar": 200, "router": 1}
    assert len(small.changes) == 60 and small.changes[-1].at_ns == (5 + 15) * SECOND_NS - SECOND_NS // 4
    hidden = Scenario.load("aisuite-small").variant("hidden-training")
    assert all(c.change.apply[0].annotations[EXPORT_TO] == "~" for c in hidden.changes)
    aisuite = Scenario.load("aisuite")
    assert len(aisuite.variant("unscoped").mesh.proxies) == 939 and len(aisuite.variant_names) == 4
    assert aisuite.published is not None and aisuite.assumptions
    hold = Scenario.load("debounce-hold").variant("as-is").changes
    assert {b.at_ns - a.at_ns for a, b in pairwise(hold)} == {SECOND_NS // 25}


def test_a_field_that_is_given_twice_is_told_with_its_line() -> None:
    (problem,) = problems_in(MINIMAL + "seed: 1\nduration: 20s\n")
    assert str(problem) == (
        "scenario, document 1: 'duration' is given twice in one mapping (line 4) (keep one of the two)"
    )


def test_an_unknown_bare_name_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean aisuite"):
        Scenario.load("aisuit")
    with pytest.raises(InputError, match="cannot be read"):
        Scenario.load("no/such.yaml")


# Units


@given(st.integers(0, 10**18))
def test_durations_round_trip(nanoseconds: int) -> None:
    assert duration(duration_text(nanoseconds)) == nanoseconds


@given(st.integers(0, 2**60))
def test_byte_counts_round_trip(count: int) -> None:
    assert quantity(bytes_text(count)) == count


@given(st.integers(1, 10**6), st.sampled_from(["s", "m", "h", "d"]), st.integers(0, 3))
def test_rates_round_trip(count: int, unit: str, digits: int) -> None:
    per_second = rate(f"{Fraction(count, 10**digits).__float__():.{digits}f}/{unit}")
    assert rate(rate_text(per_second)) == per_second


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1h30m", 5400 * SECOND_NS),
        ("1.5s", 1_500_000_000),
        ("100ms", 10**8),
        ("2us", 2000),
        ("0", 0),
        (".5s", 5 * 10**8),
    ],
)
def test_durations_as_go_reads_them(text: str, expected: int) -> None:
    assert duration(text) == expected


@pytest.mark.parametrize("text", ["", "s", "10", 10, "-1s", "1 s", "1d", None, True, "1s1", "1e3s", [1]])
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(UnitError) as failed:
        duration(text)
    assert failed.value.remedy


@pytest.mark.parametrize(
    ("text", "expected"),
    [("500m", Fraction(1, 2)), ("2Gi", 2 * 2**30), ("1e3", 1000), ("1.5k", 1500), (0.1, Fraction(1, 10)), (4, 4)],
)
def test_quantities_as_kubernetes_reads_them(text: object, expected: Fraction) -> None:
    assert quantity(text) == expected


@pytest.mark.parametrize("text", ["", "m", "2GB", "1/s", True, None, float("inf"), float("nan"), -1, "-1"])
def test_what_is_no_quantity(text: object) -> None:
    with pytest.raises(UnitError):
        quantity(text)


def test_rates() -> None:
    assert rate("10/s") == 10 and rate("40/h") == Fraction(1, 90) and rate("0.5 / m") == Fraction(1, 120)
    assert re.fullmatch(r"\S+/\S", rate_text(Fraction(1, 3)))


@pytest.mark.parametrize(
    ("content", "field", "remedy"),
    [
        (
            "coefficients: {handler.events: {value: fast}}\n",
            "coefficients.handler.events.value",
            "correct it",
        ),
        ("coefficients: {no.such: {value: 1}}\n", "coefficients.no.such", "`pushsim calibrate --list` shows all names"),
        ("- 1\n", "", "see `pushsim calibrate --help`"),
        ("cpu_speed: -1\n", "cpu_speed", "1.0 is the reference"),
    ],
)
def test_check_reads_the_calibration_that_a_scenario_names(content, field, remedy, tmp_path) -> None:
    (tmp_path / "mine.yaml").write_text(content)
    (tmp_path / "scenario.yaml").write_text(MINIMAL + "istiod: {calibration: mine.yaml}\n")
    (found,) = check(tmp_path / "scenario.yaml")
    assert (found.where, found.field, found.remedy) == (str(tmp_path / "mine.yaml"), field, remedy)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("istiod: {cpus: 1e-9}", "istiod.cpus: input should be greater than or equal to 0.001 (it is 1e-09)"),
        ("duration: 2562048h", "duration: '2562048h' is not a duration (Go's end at 292 years)"),
        ("duration: .inf", "duration: inf is not a duration (write it as Go does: 100ms, 10s, 1m30s, 1h)"),
    ],
)
def test_numbers_that_no_run_could_take_are_told(more: str, told: str) -> None:
    with pytest.raises(InputError) as error:
        Scenario.loads(f"mesh: {{generate: {{namespaces: 1, apps: [{{name: web}}]}}}}\n{more}\n")
    assert str(error.value) == f"scenario: {told}"
