"""WorkloadEntries and Pods as the workloads of a service."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pushsim.conversion import selects
from pushsim.mesh import Object
from pushsim.registry.store import Store


def workload_labels(body: Object) -> dict[str, str]:
    """Labels of a Pod; of a WorkloadEntry, its metadata labels laid over its spec labels."""
    if body.ref.kind == "Pod":
        return dict(body.labels)
    return {**(body.spec.get("labels") or {}), **body.labels}


def entry_workload(entry: Object) -> dict[str, Any]:
    """A WorkloadEntry as an item of a ServiceEntry's `endpoints`."""
    return {**entry.spec, "labels": workload_labels(entry)}


def pod_workload(pod: Object) -> dict[str, Any]:
    """A Pod as an item of a ServiceEntry's `endpoints`."""
    return {
        "address": pod.status.get("podIP"),
        "labels": dict(pod.labels),
        "serviceAccount": pod.spec.get("serviceAccountName") or "default",
    }


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
    """The name istiod gives a pod's workload: its controller's, a ReplicaSet's without the hash, else the pod's."""
    for owner in pod.metadata.get("ownerReferences") or ():
        if owner.get("controller"):
            name = str(owner.get("name"))
            hashed = owner.get("kind") == "ReplicaSet" and "pod-template-hash" in pod.labels
            return name.removesuffix("-" + pod.labels["pod-template-hash"]) if hashed else name
    return pod.ref.name
