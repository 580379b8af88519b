"""Workloads to pods: what the deployment, stateful set, daemon set and job controllers would run, all of it ready.

Names have the shape that Kubernetes gives them, but come from hashes, so that they are the same in every process.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pushsim.manifests.kinds import WORKLOADS, owner_of
from pushsim.mesh import Object, Ref

#: Kubernetes' alphabet for generated names (apimachinery util/rand: no vowels, no look-alikes).
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
POD_NETWORK = "10.128.0.0/9"
SERVICE_NETWORK = "172.16.0.0/12"


def stable_suffix(length: int, *identity: object) -> str:
    """A generated-name suffix in Kubernetes' alphabet, the same for the same identity in any process."""
    number = int.from_bytes(hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).digest()[:16])
    suffix = ""
    for _ in range(length):
        number, digit = divmod(number, len(_ALPHABET))
        suffix += _ALPHABET[digit]
    return suffix


class Addresses:
    """Hands out synthetic addresses, none twice: by hash of the name, so that other objects do not move them."""

    def __init__(self, network: str, taken: Iterable[str]) -> None:
        self._network = ipaddress.IPv4Network(network)
        self._taken = set(taken)

    def give(self, *identity: str) -> str:
        """The address of this identity."""
        digest = hashlib.sha256("/".join(identity).encode()).digest()
        slot = int.from_bytes(digest[:8])
        while (address := str(self._network[1 + slot % (self._network.num_addresses - 2)])) in self._taken:
            slot += 1
        self._taken.add(address)
        return address


def taken_addresses(objects: Iterable[Object]) -> set[str]:
    """Every pod, service and endpoint address that the manifests give."""
    taken: set[str] = set()
    for o in objects:
        if o.ref.kind == "Pod":
            taken.add(str(o.status.get("podIP")))
        elif o.ref.kind == "Service":
            taken.add(str(o.spec.get("clusterIP")))
        elif o.ref.kind == "EndpointSlice":
            taken.update(a for e in o.body.get("endpoints") or () for a in e.get("addresses") or ())
        elif o.ref.kind == "Endpoints":
            taken.update(str(a.get("ip")) for s in o.body.get("subsets") or () for a in s.get("addresses") or ())
    return taken


def pod_count(workload: Object, nodes: int, minimum: int = 0) -> int:
    """How many pods a workload runs: replicas (an HPA's minReplicas if larger), a Job's parallelism, one per node.

    Defaults are Kubernetes': one replica, parallelism one, never more than the completions left.
    """
    spec = workload.spec
    match workload.ref.kind:
        case "DaemonSet":
            return max(nodes, 1)
        case "Job":
            if spec.get("suspend"):
                return 0
            parallelism, completions = spec.get("parallelism"), spec.get("completions")
            return min(1 if parallelism is None else parallelism, completions if completions is not None else 1_000_000)
        case "CronJob":
            return 0
    count = 1 if spec.get("replicas") is None else int(spec["replicas"])
    return count if spec.get("replicas") == 0 else max(count, minimum)  # replicas 0 switches an HPA off


def minimum_replicas(objects: Iterable[Object]) -> dict[Ref, int]:
    """minReplicas (1 if absent) by the workload that each HorizontalPodAutoscaler scales."""
    minima: dict[Ref, int] = {}
    for hpa in objects:
        if hpa.ref.kind == "HorizontalPodAutoscaler":
            target = hpa.spec.get("scaleTargetRef") or {}
            minimum = hpa.spec.get("minReplicas")
            minima[Ref(target.get("kind", ""), hpa.ref.namespace, target.get("name", ""))] = (
                1 if minimum is None else minimum
            )
    return minima


def expand(workload: Object, count: int, nodes: list[str], addresses: Callable[[str, str], str]) -> list[Object]:
    """The workload's pods 0 to count-1, running and ready; `addresses` gives each (namespace, name) its IP."""
    kind, namespace, name = workload.ref
    template = workload.spec.get("template") or {}
    metadata = template.get("metadata") or {}
    labels = dict(metadata.get("labels") or {})
    owner = {"apiVersion": workload.body["apiVersion"], "kind": kind, "name": name, "controller": True}
    prefix = name
    if kind == "Deployment":
        template_hash = stable_suffix(10, template)
        prefix = f"{name}-{template_hash}"
        labels["pod-template-hash"] = template_hash
        owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": prefix, "controller": True}
    elif kind == "Job":
        labels |= {"job-name": name, "batch.kubernetes.io/job-name": name}
    pods = []
    for i in range(count):
        pod_name = f"{name}-{i}" if kind == "StatefulSet" else f"{prefix}-{stable_suffix(5, namespace, prefix, i)}"
        pod_labels = dict(labels)
        if kind == "StatefulSet":
            pod_labels |= {"statefulset.kubernetes.io/pod-name": pod_name, "apps.kubernetes.io/pod-index": str(i)}
        ip = addresses(namespace, pod_name)
        spec = dict(template.get("spec") or {})
        if nodes and not spec.get("nodeName"):
            spec["nodeName"] = nodes[i % len(nodes)]
        if kind == "StatefulSet":
            spec |= {"hostname": pod_name, "subdomain": workload.spec.get("serviceName", "")}
        body: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": pod_name,
                "namespace": namespace,
                "labels": pod_labels,
                **({"annotations": metadata["annotations"]} if metadata.get("annotations") else {}),
                "generateName": f"{prefix}-",
                "ownerReferences": [owner],
            },
            "spec": spec,
            "status": {
                "phase": "Running",
                "podIP": ip,
                "podIPs": [{"ip": ip}],
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }
        source = f"{workload.ref} of {workload.source}" if workload.source else str(workload.ref)
        pods.append(Object(Ref("Pod", namespace, pod_name), body, source))
    return pods


#: What a controller adds to the labels of its pods.
_CONTROLLERS_OWN = frozenset(
    {
        "pod-template-hash",
        "controller-revision-hash",
        "statefulset.kubernetes.io/pod-name",
        "apps.kubernetes.io/pod-index",
        "job-name",
        "batch.kubernetes.io/job-name",
    }
)


def workload_of(ref: Ref, pods: Sequence[Object]) -> Object:
    """A workload as its pods (one at least) show it: so many replicas of the first one's template."""
    first = pods[0]
    metadata = {
        "labels": {key: value for key, value in first.labels.items() if key not in _CONTROLLERS_OWN},
        "annotations": dict(first.annotations),
    }
    spec = {key: value for key, value in first.spec.items() if key not in ("nodeName", "hostname", "subdomain")}
    template = {"metadata": metadata, "spec": spec}
    body = {
        "apiVersion": "apps/v1",
        "kind": ref.kind,
        "metadata": {"name": ref.name, "namespace": ref.namespace},
        "spec": {"replicas": len(pods), "serviceName": first.spec.get("subdomain", ""), "template": template},
    }
    return Object(ref, body, first.source)


def to_expand(objects: Mapping[Ref, Object]) -> list[Object]:
    """The workloads whose pods the manifests do not already show.

    Left out: those owned by a workload that is given too (a Deployment's ReplicaSets, a CronJob's Jobs) and those that
    own pods which are given.
    """
    pods_of = {
        (p.ref.namespace, *identity)
        for p in objects.values()
        if p.ref.kind == "Pod"
        for identity in (
            owner_of(p.body),
            *((o.get("kind", ""), o.get("name", "")) for o in p.metadata.get("ownerReferences") or ()),
        )
    }
    return [
        o
        for o in objects.values()
        if o.ref.kind in WORKLOADS
        and (o.ref.namespace, o.ref.kind, o.ref.name) not in pods_of
        and not any(
            Ref(owner.get("kind", ""), o.ref.namespace, owner.get("name", "")) in objects
            for owner in o.metadata.get("ownerReferences") or ()
        )
    ]


def same_template(pod: Object, template: Mapping[str, Any]) -> bool:
    """Would the controller keep this pod under the template? Labels, annotations, images and ports decide.

    A running pod has more than its template (injected containers, defaults), so the template must be part of it.
    """
    metadata = template.get("metadata") or {}
    if not ((metadata.get("labels") or {}).items() <= pod.labels.items()):
        return False
    if not ((metadata.get("annotations") or {}).items() <= pod.annotations.items()):
        return False
    running = {c.get("name"): c for c in pod.spec.get("containers") or ()}
    return all(
        c.get("name") in running
        and c.get("image") in (running[c["name"]].get("image"), "auto")
        and {p.get("containerPort") for p in c.get("ports") or ()}
        <= {p.get("containerPort") for p in running[c["name"]].get("ports") or ()}
        and (c.get("env") or []) == [e for e in running[c["name"]].get("env") or [] if e in (c.get("env") or [])]
        for c in (template.get("spec") or {}).get("containers") or ()
    )
