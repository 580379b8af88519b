"""Kubernetes and Istio objects as an API server would hold them, after sidecar injection.

What many objects have in common (labels, spec of equal pods, conditions) is one shared dict: bodies are read-only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pushsim.agents import metadata_of
from pushsim.mesh import Object, Proxy, ProxyType, Ref
from pushsim.topology.seeds import suffix

Body = dict[str, Any]

#: Kubernetes' limit of endpoints per EndpointSlice (--max-endpoints-per-slice).
SLICE_SIZE = 100
_EPOCH = datetime(2024, 1, 1)  # UTC

API = {
    **dict.fromkeys(("Namespace", "Node", "Service", "Pod", "Secret"), "v1"),
    "EndpointSlice": "discovery.k8s.io/v1",
    **dict.fromkeys(("Gateway", "VirtualService", "DestinationRule", "Sidecar"), "networking.istio.io/v1beta1"),
}

READY: Body = {"ready": True, "serving": True, "terminating": False}
UNREADY: Body = {"ready": False, "serving": False, "terminating": False}
TERMINATING: Body = {"ready": False, "serving": True, "terminating": True}
_POD_READY: list[Body] = [{"type": "Ready", "status": "True"}]
_POD_UNREADY: list[Body] = [{"type": "Ready", "status": "False"}]
#: How injection leaves its mark in a pod: the container by which `detect` knows a sidecar.
_SIDECAR_CONTAINER: Body = {"name": "istio-proxy", "image": "istio/proxyv2", "args": ["proxy", "sidecar"]}
_ROUTER_CONTAINER: Body = {"name": "istio-proxy", "image": "istio/proxyv2", "args": ["proxy", "router"]}


def timestamp(seconds: int) -> str:
    """RFC 3339 time that many seconds after the first object of every synthetic mesh."""
    return f"{(_EPOCH + timedelta(seconds=seconds)).isoformat()}Z"


def seconds_since(created: str) -> int:
    """The inverse of `timestamp`, rounded down; 0 for an empty or unreadable one."""
    try:
        return int((datetime.fromisoformat(created) - _EPOCH.replace(tzinfo=UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0


def make(
    kind: str,
    namespace: str,
    name: str,
    created: str,
    *,
    labels: Mapping[str, str] | None = None,
    meta: Mapping[str, Any] | None = None,
    **rest: Any,
) -> Object:
    """An object of that kind; `meta` adds to its metadata, `rest` are its other top-level fields."""
    metadata: Body = {"name": name, "namespace": namespace} if namespace else {"name": name}
    if labels:
        metadata["labels"] = labels
    if meta:
        metadata.update(meta)
    metadata["creationTimestamp"] = created
    body = {"apiVersion": API[kind], "kind": kind, "metadata": metadata, **rest}
    return Object(Ref(kind, namespace, name), body)


def edited(subject: Object, *, metadata: Mapping[str, Any] | None = None, **fields: Any) -> Object:
    """The object with these top-level fields (and metadata fields) replaced; everything else is shared."""
    body = {**subject.body, **fields}
    if metadata is not None:
        body["metadata"] = {**subject.metadata, **metadata}
    return Object(subject.ref, body, subject.source)


@dataclass(frozen=True, slots=True)
class Template:
    """What all pods of one service have in common. ports: (name, port, targetPort) each."""

    service: str
    namespace: str
    labels: Mapping[str, str]
    ports: Sequence[tuple[str, int, int]]
    sidecar: bool = True
    router: bool = False
    headless: bool = False
    account: str = "default"
    pod_labels: Mapping[str, str] = field(default_factory=dict)
    owner: Mapping[str, Any] = field(default_factory=dict)
    specs: dict[str, Body] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        namespace: str,
        service: str,
        labels: Mapping[str, str],
        ports: Sequence[tuple[str, int, int]],
        *,
        replica_set: str,
        sidecar: bool = True,
        router: bool = False,
        headless: bool = False,
        account: str = "default",
    ) -> Template:
        """The template with the labels and owner that Kubernetes and injection give its pods."""
        own = {"app": service, **labels}
        pod = dict(own)
        owner: Body = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": service, "controller": True}
        if not headless:
            pod["pod-template-hash"] = replica_set
            owner = {**owner, "kind": "ReplicaSet", "name": f"{service}-{replica_set}"}
        if sidecar or router:
            pod["service.istio.io/canonical-name"] = service
            pod["service.istio.io/canonical-revision"] = "latest"
        if sidecar:
            pod["security.istio.io/tlsMode"] = "istio"
        meta = {"generateName": f"{owner['name']}-", "ownerReferences": [owner]}
        return cls(service, namespace, own, ports, sidecar, router, headless, account, pod, meta)

    @property
    def stem(self) -> str:
        """What its pods' names begin with, before the random or ordinal end."""
        owner: Body = self.owner["ownerReferences"][0]
        return str(owner["name"])

    def service_object(self, address: str, created: str, **spec: Any) -> Object:
        """The Service itself; address is its cluster IP (ignored if headless)."""
        ports = [{"name": n, "port": p, "targetPort": t, "protocol": "TCP"} for n, p, t in self.ports]
        ip = "None" if self.headless else address
        body = {"clusterIP": ip, "type": "ClusterIP", "selector": {"app": self.service}, "ports": ports, **spec}
        return make("Service", self.namespace, self.service, created, labels=self.labels, spec=body)

    def pod(self, name: str, address: str, node: str, created: str, *, ready: bool = True) -> Object:
        """A pod on that node with that IP."""
        spec = self.specs.get(node)
        if spec is None:
            app = {"name": "app", "image": "app", "ports": [{"containerPort": target} for _, _, target in self.ports]}
            containers = [app] if not self.router else [_ROUTER_CONTAINER]
            if self.sidecar:
                containers = [app, _SIDECAR_CONTAINER]
            spec = {"nodeName": node, "serviceAccountName": self.account, "containers": containers}
            self.specs[node] = spec
        status = {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": _POD_READY if ready else _POD_UNREADY,
        }
        return make(
            "Pod", self.namespace, name, created, labels=self.pod_labels, meta=self.owner, spec=spec, status=status
        )

    def slices(self, endpoints: Sequence[Body], created: str, word: int) -> Iterator[Object]:
        """EndpointSlices that hold these endpoints, at least one; word seeds their names."""
        for at in range(0, max(1, len(endpoints)), SLICE_SIZE):
            yield self.slice(f"{self.service}-{suffix(word - 1 - at)}", endpoints[at : at + SLICE_SIZE], created)

    def slice(self, name: str, endpoints: Sequence[Body], created: str) -> Object:
        """One EndpointSlice."""
        labels = {"kubernetes.io/service-name": self.service}
        ports = [{"name": n, "port": t, "protocol": "TCP"} for n, _, t in self.ports]
        return make(
            "EndpointSlice",
            self.namespace,
            name,
            created,
            labels=labels,
            addressType="IPv4",
            endpoints=list(endpoints),
            ports=ports,
        )


def endpoint(pod: Ref, address: str, node: str, zone: str, conditions: Body = READY) -> Body:
    """An EndpointSlice's entry for that pod."""
    body: Body = {"addresses": [address], "conditions": conditions, "nodeName": node}
    if zone:
        body["zone"] = zone
    body["targetRef"] = {"kind": "Pod", "namespace": pod.namespace, "name": pod.name}
    return body


def with_readiness(pod: Object, ready: bool) -> Object:
    """The pod with its Ready condition set so."""
    return edited(pod, status={**pod.status, "conditions": _POD_READY if ready else _POD_UNREADY})


def proxy_of(pod: Object) -> Proxy | None:
    """The proxy that connects from that pod: it has an `istio-proxy` container, as injection leaves it. Else None."""
    containers: Iterable[Mapping[str, Any]] = [
        *(pod.spec.get("containers") or ()),
        *(pod.spec.get("initContainers") or ()),
    ]
    for container in containers:
        if container.get("name") == "istio-proxy":
            kind: ProxyType = "router" if "router" in (container.get("args") or ()) else "sidecar"
            address = str(pod.status.get("podIP") or "")
            account = str(pod.spec.get("serviceAccountName") or "default")
            return Proxy(pod.ref.name, pod.ref.namespace, address, kind, pod.labels, account, metadata_of(pod))
    return None
