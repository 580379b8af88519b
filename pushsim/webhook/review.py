"""One AdmissionReview (admission.k8s.io/v1) answered: a JSON Patch that does what the policy does to that object.

It fails open: whatever is wrong, the object is let in as it is, with a warning. Source: Kubernetes, Dynamic Admission
Control, "Response"; RFC 6902 for the patch.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pushsim.mesh import Mesh, Object, Ref
from pushsim.policies import Policy

Outcome = Literal["patched", "unchanged", "ignored", "failed", "malformed"]

_VERSION = "admission.k8s.io/v1"
_NOWHERE = Mesh()


@dataclass(frozen=True, slots=True)
class Answer:
    """status: HTTP's; body: of the response; outcome: for the metrics."""

    status: int
    body: bytes
    outcome: Outcome


def answer(policy: Policy, request: bytes) -> Answer:
    """The answer to the body of a POST; never raises."""
    try:
        review = json.loads(request)
    except (ValueError, RecursionError) as error:
        return _malformed(f"the body is no JSON: {error}")
    asked = review.get("request") if isinstance(review, dict) else None
    if not isinstance(asked, dict) or not isinstance(asked.get("uid"), str) or not asked["uid"]:
        return _malformed("the body is no AdmissionReview: it has no request.uid")
    if review.get("apiVersion") != _VERSION or review.get("kind") != "AdmissionReview":
        return _malformed(f"the body is not {_VERSION} AdmissionReview")
    uid = asked["uid"]
    subject = asked.get("object")
    if not _is_service(asked) or not isinstance(subject, dict):
        return _let_in(uid, "ignored")
    try:
        operations = patch(policy, subject, str(asked.get("namespace") or ""))
    except Exception as error:  # whatever a policy of the user's own may raise
        return _let_in(uid, "failed", warning=f"pushsim: not altered: {type(error).__name__}: {error}")
    return _let_in(uid, "patched" if operations else "unchanged", operations)


def _is_service(asked: Mapping[str, Any]) -> bool:
    kind = asked.get("kind")
    wanted = isinstance(kind, Mapping) and kind.get("kind") == "Service" and not kind.get("group")
    return wanted and asked.get("operation") in ("CREATE", "UPDATE") and not asked.get("subResource")


def patch(policy: Policy, subject: Mapping[str, Any], namespace: str) -> list[dict[str, Any]]:
    """JSON Patch that makes of a Service what the policy makes of it; empty if it leaves it as it is.

    Raises ValueError if the policy makes another object of it.
    """
    from jsonpatch import make_patch

    metadata = subject.get("metadata") or {}
    # generateName: the API server has not named it yet
    ref = Ref("Service", str(metadata.get("namespace") or namespace), str(metadata.get("name") or ""))
    before = Object(ref, subject)
    after = policy.admit(before, _NOWHERE)
    if after is before:
        return []
    if after.ref != ref:
        raise ValueError(f"the policy made {after.ref} of {ref}")
    made: list[dict[str, Any]] = make_patch(subject, after.body).patch
    return made


def _let_in(uid: str, outcome: Outcome, operations: list[dict[str, Any]] | None = None, warning: str = "") -> Answer:
    response: dict[str, Any] = {"uid": uid, "allowed": True}
    if operations:
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(json.dumps(operations).encode()).decode()
    if warning:
        response["warnings"] = [warning[:256]]  # the API server cuts longer ones
    body = {"apiVersion": _VERSION, "kind": "AdmissionReview", "response": response}
    return Answer(200, json.dumps(body).encode(), outcome)


def _malformed(message: str) -> Answer:
    return Answer(400, json.dumps({"error": message[:500]}).encode(), "malformed")
