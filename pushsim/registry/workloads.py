"""WorkloadEntries and Pods as the workloads of a service."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

from pushsim.conversion import TLS_MODE_LABEL, selects
from pushsim.manifests.endpoints import is_ready
from pushsim.mesh import HOSTNAME, Object, Ref, Service
from pushsim.registry.store import Store

#: Resolutions of services whose clusters hold their endpoints.
DNS = frozenset({"DNS", "DNS_ROUND_ROBIN"})
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
        "ports": _named_ports(pod),
        "probed": True,
    }


def _named_ports(pod: Object) -> dict[str, int]:
    """Container ports of TCP by name, the first of each (getPortMap)."""
    containers = pod.spec.get("containers") or ()
    ports = [port for container in containers for port in container.get("ports") or () if port.get("name")]
    tcp = (port for port in reversed(ports) if port.get("protocol", "TCP") == "TCP")
    return {str(port["name"]): int(port["containerPort"]) for port in tcp}


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


def serving_ip(pod: Object) -> str:
    """The address under which istiod's cache has a pod, "" while it is not ready.

    Source: pilot/pkg/serviceregistry/kube/controller/pod.go (shouldPodBeInEndpoints, IsPodReady).
    """
    there = is_ready(pod) and not pod.body["metadata"].get("deletionTimestamp")
    return str(pod.status.get("podIP") or "") if there else ""


def is_named(workload: Object) -> bool:
    """Whether it is a WorkloadEntry without an IP address of its own, but a name or a socket (DNSServiceEntryOnly)."""
    return workload.ref.kind == "WorkloadEntry" and _is_name(str(workload.spec.get("address") or ""))


@lru_cache(maxsize=1 << 14)
def _is_name(address: str) -> bool:
    try:
        ip_address(address or "0.0.0.0")
    except ValueError:
        return True
    return False


def selected_by(service: Service, workload: Object | None) -> bool:
    """Whether a service selects a Pod or WorkloadEntry; by name, only ServiceEntries by DNS do."""
    if workload is None or not selects(service.selector, workload_labels(workload)):
        return False
    return service.resolution in DNS or not is_named(workload)


def selected_entries(store: Store, namespace: str, service: Service) -> list[Object]:
    """The WorkloadEntries of a namespace that a service selects."""
    return [o for o in store.placed("WorkloadEntry", namespace).values() if selected_by(service, o)]


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
