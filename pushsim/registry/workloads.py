"""WorkloadEntries and Pods as the workloads of a service."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from pushsim.conversion import TLS_MODE_LABEL, selects
from pushsim.mesh import HOSTNAME, Object, Ref
from pushsim.registry.store import Store

_LOCALITY_LABELS = (
    ("topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"),
    ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"),
    ("topology.istio.io/subzone", ""),
)


def workload_labels(body: Object) -> dict[str, str]:
    """Labels of a Pod; of a WorkloadEntry, its metadata labels laid over its spec labels."""
    if body.ref.kind == "Pod":
        return dict(body.labels)
    return {**(body.spec.get("labels") or {}), **body.labels}


def entry_workload(entry: Object) -> dict[str, Any]:
    """A WorkloadEntry as an item of a ServiceEntry's `endpoints`."""
    return {**entry.spec, "labels": workload_labels(entry), "workload": entry.ref.name}


def pod_workload(pod: Object, store: Store) -> dict[str, Any]:
    """A Pod as an item of a ServiceEntry's `endpoints`."""
    return {
        "address": pod.status.get("podIP"),
        "labels": dict(pod.labels),
        "serviceAccount": pod.spec.get("serviceAccountName") or "default",
        "locality": pod_locality(pod, store.objects),
        "tlsMode": pod.labels.get(TLS_MODE_LABEL) or "",
        "workload": workload_name(pod),
        "probed": True,
    }


def pod_locality(pod: Object | None, objects: Mapping[Ref, Object]) -> str:
    """`region/zone/subzone` of a pod: its label's, else its node's; "" without a pod, whatever node a slice names."""
    if pod is None:
        return ""
    if told := pod.labels.get("istio-locality", "").replace(".", "/"):
        return told.rstrip("/")
    node = objects.get(Ref("Node", "", str(pod.spec.get("nodeName") or "")))
    return _node_locality(node) if node else ""


@lru_cache(maxsize=1 << 14)
def labels_on_node(pod: Object, node: str) -> Mapping[str, str]:
    """A pod's labels with that of its node (AugmentLabels)."""
    return {**pod.labels, HOSTNAME: node}


@lru_cache(maxsize=1 << 12)
def _node_locality(node: Object) -> str:
    zones = node.labels
    return "/".join(zones.get(label) or zones.get(old) or "" for label, old in _LOCALITY_LABELS).rstrip("/")


def selected_entries(store: Store, namespace: str, selector: Iterable[tuple[str, str]]) -> list[Object]:
    """The WorkloadEntries of a namespace that a selector picks."""
    return [o for o in store.placed("WorkloadEntry", namespace).values() if selects(selector, workload_labels(o))]


def selected_pods(store: Store, namespace: str, selector: Iterable[tuple[str, str]]) -> list[Object]:
    """The Pods with an address of a namespace that a selector picks."""
    pods = store.placed("Pod", namespace).values()
    return [o for o in pods if o.status.get("podIP") and selects(selector, o.labels)]


def picks(selector: Iterable[tuple[str, str]], *versions: Object | None) -> bool:
    """Whether a selector picks any version of a Pod or WorkloadEntry."""
    return any(o is not None and selects(selector, workload_labels(o)) for o in versions)


def workload_name(pod: Object) -> str:
    """The name istiod gives a pod's workload: its controller's, a ReplicaSet's without the hash, else the pod's.

    It looks for a controller only if the pod's name was generated, as controllers do (GetDeployMetaFromPod).
    """
    if not pod.metadata.get("generateName"):
        return pod.ref.name
    for owner in pod.metadata.get("ownerReferences") or ():
        if owner.get("controller"):
            name = str(owner.get("name"))
            hashed = owner.get("kind") == "ReplicaSet" and "pod-template-hash" in pod.labels
            return name.removesuffix("-" + pod.labels["pod-template-hash"]) if hashed else name
    return pod.ref.name
