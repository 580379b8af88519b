"""Fields that Istio's objects and its MeshConfig have not: a slip of the pen, or newer than we know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pushsim.errors import Problem
from pushsim.manifests.meshconfig import FIELDS

#: All fields of these kinds' specs, and of a Sidecar's listeners (istio.io/api networking/v1, of Istio 1.31).
_FIELDS: Mapping[str, Mapping[str, frozenset[str]]] = {
    kind: {path: frozenset(names.split()) for path, names in paths.items()}
    for kind, paths in {
        "Sidecar": {
            "": "workloadSelector ingress egress inboundConnectionPool outboundTrafficPolicy",
            "egress": "port bind captureMode hosts",
            "ingress": "port bind captureMode defaultEndpoint tls connectionPool",
        },
        "VirtualService": {"": "hosts gateways http tls tcp exportTo"},
        "DestinationRule": {"": "host trafficPolicy subsets exportTo workloadSelector"},
        "ServiceEntry": {
            "": "hosts addresses ports location resolution endpoints workloadSelector exportTo subjectAltNames"
        },
        "Gateway": {"": "servers selector"},
        "WorkloadEntry": {"": "address ports labels network locality weight serviceAccount"},
    }.items()
}


def unknown_fields(body: Mapping[str, Any], kind: str, where: str) -> list[Problem]:
    """Fields of a checked Istio object's spec that its kind has not: a slip of the pen, or newer than we know.

    `kubectl apply` refuses them, but where it is told not to, or the object comes by another way, they are dropped.
    """
    found: list[Problem] = []
    spec: dict[str, Any] = body.get("spec") or {}
    for path, names in _FIELDS.get(kind, {}).items():
        parts = {"spec.": spec} if not path else _items(spec, path)
        for at, part in parts.items():
            found += _unknown(part, names, where, at, f"a {kind}")
    return found


def _unknown(part: Any, names: frozenset[str], where: str, prefix: str, of: str) -> Iterator[Problem]:
    for name in sorted(map(str, part.keys() - names)) if isinstance(part, dict) else ():
        from pushsim.problems import nearest

        yield Problem(
            f"is no field of {of}, so it is left out", where, f"{prefix}{name}", nearest(name, names, "fields")
        )


def _items(spec: Mapping[str, Any], path: str) -> dict[str, Any]:
    return {f"spec.{path}[{number}].": item for number, item in enumerate(spec.get(path) or ())}


def unknown_mesh_config(config: Mapping[str, Any], where: str, prefix: str = "") -> list[Problem]:
    """Fields that a MeshConfig, or the ProxyConfig in it, has not; istiod warns of them and leaves them out."""
    parts = {path: config.get(path) if path else config for path in FIELDS}
    return [
        problem
        for path, part in parts.items()
        for problem in _unknown(part, FIELDS[path], where, f"{prefix}{path}." if path else prefix, "a MeshConfig")
    ]
