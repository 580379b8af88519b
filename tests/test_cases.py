"""Case files: explicit meshes with steps."""

import pytest

from pushsim.cases import RECORDING_ENV, load_case
from pushsim.errors import InputError
from pushsim.mesh import Proxy, Ref

CASE = """
about: one
manifests:
- {apiVersion: v1, kind: Namespace, metadata: {name: a}}
proxies: [{name: p, namespace: a, ip: 10.0.0.1, labels: {x: y}}]
meshConfig: {rootNamespace: root}
env: {PILOT_X: true, PILOT_N: 5}
steps:
- name: first
  apply:
  - {apiVersion: v1, kind: Service, metadata: {name: s, namespace: a}, spec: {ports: [{port: 1}]}}
  - {apiVersion: v1, kind: Service, metadata: {name: s, namespace: a}, spec: {ports: [{port: 2}]}}
  delete: [{kind: Namespace, name: a}]
"""


def test_a_case_is_read_as_it_stands(tmp_path):
    (tmp_path / "c.yaml").write_text(CASE)
    case = load_case(tmp_path / "c.yaml")
    assert (case.name, case.about) == ("c", "one")
    assert case.mesh.proxies == (Proxy("p", "a", "10.0.0.1", "sidecar", {"x": "y"}),)
    assert case.mesh.mesh_config == {"rootNamespace": "root"}
    assert case.mesh.env == {**RECORDING_ENV, "PILOT_X": "true", "PILOT_N": "5"}
    (step,) = case.steps
    assert [o.spec["ports"][0]["port"] for o in step.apply] == [1, 2], "a step may write one object twice, in order"
    assert step.delete == (Ref("Namespace", "", "a"),) and step.name == "first"


def test_all_problems_of_a_case_at_once(tmp_path):
    bad = CASE.replace("ip: 10.0.0.1", "type: pod").replace("kind: Service", "kind: ''", 1).replace("about:", "abuot:")
    (tmp_path / "c.yaml").write_text(bad)
    with pytest.raises(InputError) as error:
        load_case(tmp_path / "c.yaml")
    said = str(error.value)
    for text in ("abuot", "proxies[0].ip", "proxies[0].type", "steps[0].apply[0]: kind"):
        assert text in said


@pytest.mark.manifests
def test_every_recorded_case_loads(real_manifests):
    folder = real_manifests.parent / "vectors" / "cases"
    if not folder.is_dir():
        pytest.skip("the folder of real manifests has no vectors folder beside it")
    cases = [load_case(path) for path in sorted(folder.glob("*.yaml"))]
    assert cases and all(case.mesh.proxies and case.steps for case in cases)
