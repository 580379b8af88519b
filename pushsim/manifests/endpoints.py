"""Services and their EndpointSlices: what the endpoint slice controller and the service allocator would write."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pushsim.manifests.workloads import stable_suffix
from pushsim.mesh import Object, Ref

#: kube-controller-manager's --max-endpoints-per-slice.
MAX_ENDPOINTS = 100
SERVICE_NAME = "kubernetes.io/service-name"

Ports = tuple[tuple[str, int, str, str], ...]  # name, number, protocol, appProtocol; one slice has one such tuple


def is_ready(pod: Object) -> bool:
    """Has an address, runs and is Ready; without any condition in the manifest a running pod counts as ready."""
    conditions = {c.get("type"): c.get("status") for c in pod.status.get("conditions") or ()}
    return is_running(pod) and conditions.get("Ready", "False" if conditions else "True") == "True"


def is_running(pod: Object) -> bool:
    """Has an address and has not ended."""
    return bool(pod.status.get("podIP")) and pod.status.get("phase") not in ("Succeeded", "Failed", "Pending")


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """A non-empty equality selector matches labels that hold all of it."""
    return bool(selector) and selector.items() <= labels.items()


def with_cluster_ip(service: Object, ip: str) -> Object:
    """The Service with an allocated clusterIP."""
    spec = {**service.spec, "clusterIP": ip, "clusterIPs": [ip]}
    return Object(service.ref, {**service.body, "spec": spec}, service.source)


def needs_cluster_ip(service: Object) -> bool:
    """The API server would allocate an address: none given, not headless, not ExternalName."""
    return not service.spec.get("clusterIP") and service.spec.get("type") != "ExternalName"


def selector_of(service: Object) -> Mapping[str, str]:
    """The selector by which endpoints are found; empty for ExternalName."""
    return {} if service.spec.get("type") == "ExternalName" else service.spec.get("selector") or {}


def slices(service: Object, pods: Iterable[Object], existing: Sequence[Object] = ()) -> list[Object]:
    """The Service's EndpointSlices for these pods (all pods of its namespace will do).

    Pods keep the place they have in `existing` slices (as the controller does, to change few slices); new ones fill
    the first slice of their ports that has room. Named targetPorts resolve per pod, so pods whose ports differ land in
    different slices (endpointslice reconciler, one set per port mapping).
    """
    selector, wanted = selector_of(service), {}
    for pod in pods:
        if pod.ref.namespace == service.ref.namespace and is_running(pod) and selects(selector, pod.labels):
            wanted[pod.ref.name] = (_ports(service, pod), _endpoint(service, pod))
    filled: list[tuple[Object | None, Ports, list[dict[str, Any]]]] = []
    for old in existing:
        ports = _ports_of(old)
        kept = []
        for endpoint in old.body.get("endpoints") or ():
            target = endpoint.get("targetRef") or {}
            if target.get("kind", "Pod") != "Pod" or not target.get("name"):
                kept.append(endpoint)  # not by a pod: somebody else's endpoint
            elif target["name"] in wanted and (wanted[target["name"]][0] == ports or not ports):
                kept.append(wanted.pop(target["name"])[1])
        filled.append((old, ports, kept))
    for ports, endpoint in wanted.values():
        room = next((f for f in filled if f[1] == ports and len(f[2]) < MAX_ENDPOINTS), None)
        if room is None:
            room = next((f for f in filled if not f[2] and not f[1]), None)
            if room is not None:  # the placeholder that an empty Service has
                filled.remove(room)
            room = (room[0] if room else None, ports, [])
            filled.append(room)
        room[2].append(endpoint)
    if not filled:
        filled.append((None, (), []))  # the controller keeps one empty slice
    return [_slice(service, i, *content) for i, content in enumerate(filled)]


def from_endpoints(endpoints: Object) -> list[Object]:
    """A v1 Endpoints object as EndpointSlices, one per subset, as the mirroring controller would write it."""
    converted = []
    for i, subset in enumerate(endpoints.body.get("subsets") or ()):
        entries = [
            {
                "addresses": [address.get("ip", "")],
                "conditions": {"ready": ready},
                **{key: address[key] for key in ("targetRef", "nodeName", "hostname") if address.get(key)},
            }
            for key, ready in (("addresses", True), ("notReadyAddresses", False))
            for address in subset.get(key) or ()
        ]
        ports = tuple(
            (p.get("name", ""), p.get("port", 0), p.get("protocol", "TCP"), p.get("appProtocol", ""))
            for p in subset.get("ports") or ()
        )
        converted.append(_slice(endpoints, i, None, ports, entries))
    return converted


def _slice(owner: Object, index: int, old: Object | None, ports: Ports, endpoints: list[dict[str, Any]]) -> Object:
    namespace, name = owner.ref.namespace, owner.ref.name
    if old is not None and old.body.get("endpoints", []) == endpoints and (_ports_of(old) == ports):
        return old
    slice_name = old.ref.name if old else f"{name}-{stable_suffix(5, namespace, name, index)}"
    first = next((a for e in endpoints for a in e["addresses"]), "")
    body: dict[str, Any] = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": slice_name,
            "namespace": namespace,
            "labels": {SERVICE_NAME: name, "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"},
        },
        "addressType": "IPv6" if ":" in first else "IPv4",
    }
    body = {
        **(old.body if old else body),
        "endpoints": endpoints,
        "ports": [
            {
                **({"name": port_name} if port_name else {}),
                "port": number,
                "protocol": protocol,
                **({"appProtocol": app} if app else {}),
            }
            for port_name, number, protocol, app in ports
        ],
    }
    return Object(Ref("EndpointSlice", namespace, slice_name), body, f"endpoints of {owner.ref}")


def _ports_of(slice_: Object) -> Ports:
    return tuple(
        (p.get("name") or "", p.get("port") or 0, p.get("protocol") or "TCP", p.get("appProtocol") or "")
        for p in slice_.body.get("ports") or ()
    )


def _ports(service: Object, pod: Object) -> Ports:
    resolved = []
    for port in service.spec.get("ports") or ():
        protocol = port.get("protocol") or "TCP"
        number = port.get("targetPort") or port.get("port") or 0
        if isinstance(number, str):
            number = int(number) if number.isdigit() else _named_port(pod, number, protocol)
        if number:
            resolved.append((port.get("name") or "", number, protocol, port.get("appProtocol") or ""))
    return tuple(resolved)


def _named_port(pod: Object, name: str, protocol: str) -> int:
    """The containerPort of that name, 0 if the pod has none (such a port is left out of its slice)."""
    spec = pod.spec
    containers = [
        *(spec.get("containers") or ()),
        *(c for c in spec.get("initContainers") or () if c.get("restartPolicy")),
    ]
    for port in (p for c in containers for p in c.get("ports") or ()):
        if port.get("name") == name and (port.get("protocol") or "TCP") == protocol:
            return int(port.get("containerPort") or 0)
    return 0


def _endpoint(service: Object, pod: Object) -> dict[str, Any]:
    ready = is_ready(pod) or bool(service.spec.get("publishNotReadyAddresses"))
    hostname, subdomain = pod.spec.get("hostname"), pod.spec.get("subdomain")
    return {
        "addresses": [pod.status["podIP"]],
        "conditions": {"ready": ready, "serving": is_ready(pod), "terminating": False},
        **({"hostname": hostname} if hostname and subdomain == service.ref.name else {}),
        **({"nodeName": pod.spec["nodeName"]} if pod.spec.get("nodeName") else {}),
        "targetRef": {"kind": "Pod", "name": pod.ref.name, "namespace": pod.ref.namespace},
    }
