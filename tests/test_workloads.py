"""What istiod calls a pod's workload."""

from __future__ import annotations

from typing import Any

import pytest

from pushsim.mesh import Object, Ref
from pushsim.registry.workloads import workload_name

OWNED = {"ownerReferences": [{"kind": "ReplicaSet", "name": "web-5d", "controller": True}]}
HASHED = {"labels": {"pod-template-hash": "5d"}}


@pytest.mark.parametrize(
    ("metadata", "name"),
    [
        ({**OWNED, **HASHED, "generateName": "web-5d-"}, "web"),
        ({**OWNED, "generateName": "web-5d-"}, "web-5d"),
        ({**OWNED, **HASHED}, "web-5d-x"),  # as a real 1.24 names it: the pod's name was not generated
        ({"generateName": "web-5d-"}, "web-5d-x"),
    ],
)
def test_a_workload_is_named_after_a_controller_only_if_it_made_the_pod(metadata: dict[str, Any], name: str) -> None:
    pod = Object(Ref("Pod", "ns", "web-5d-x"), {"metadata": {"name": "web-5d-x", **metadata}})
    assert workload_name(pod) == name
