"""A mesh in motion: which service has which pods right now, and the objects each step of a pod's life rewrites.

Every method that changes something returns the objects it wrote, whole, as an API server would hold them then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pushsim.mesh import Mesh, Object, Ref
from pushsim.topology.generate import pod_addresses, service_addresses
from pushsim.topology.objects import (
    READY,
    SLICE_SIZE,
    TERMINATING,
    UNREADY,
    Body,
    Template,
    edited,
    endpoint,
    make,
    seconds_since,
    timestamp,
    with_readiness,
)
from pushsim.topology.seeds import suffix

_SERVICE_OF = "kubernetes.io/service-name"


@dataclass(slots=True)
class Workload:
    """A service with its pods (oldest first), the EndpointSlices that list them, and pods a rollout is replacing."""

    service: Ref
    pods: list[Ref] = field(default_factory=list)
    slices: list[Ref] = field(default_factory=list)
    leaving: set[Ref] = field(default_factory=set)

    @property
    def living(self) -> bool:
        return bool(self.pods) and bool(self.slices)


class World:
    """The objects of a mesh as they are now. now_s: seconds since the start, at which new objects are created."""

    def __init__(self, mesh: Mesh) -> None:
        self.objects: dict[Ref, Object] = dict(mesh.objects)
        self.workloads: dict[Ref, Workload] = {}
        self.nodes: list[tuple[str, str]] = []
        pod_ips, service_ips, newest = [], [], 0
        for held in mesh.objects.values():
            newest = max(newest, seconds_since(held.creation))
            match held.ref.kind:
                case "Service":
                    self.workloads[held.ref] = Workload(held.ref)
                    service_ips.append(str(held.spec.get("clusterIP") or ""))
                case "Pod":
                    pod_ips.append(str(held.status.get("podIP") or ""))
                case "Node":
                    self.nodes.append((held.ref.name, held.labels.get("topology.kubernetes.io/zone", "")))
        for part in mesh.of_kind("EndpointSlice"):
            service = Ref("Service", part.ref.namespace, part.labels.get(_SERVICE_OF, ""))
            if service in self.workloads:
                self.workloads[service].slices.append(part.ref)
                self.workloads[service].pods.extend(pod for pod in _pods(part) if pod in self.objects)
        self.nodes = self.nodes or [("node-000", "")]
        self.pod_ips, self.service_ips = pod_addresses(pod_ips), service_addresses(service_ips)
        self._first_s, self.now_s = newest + 1, 0
        self._placed = 0

    @property
    def created(self) -> str:
        """creationTimestamp of an object created now: later than any of the mesh's own."""
        return timestamp(self._first_s + self.now_s)

    def put(self, *written: Object) -> tuple[Object, ...]:
        for held in written:
            self.objects[held.ref] = held
        return written

    def remove(self, refs: Iterable[Ref]) -> tuple[Ref, ...]:
        gone = tuple(ref for ref in refs if self.objects.pop(ref, None) is not None)
        for ref in gone:
            if ref.kind == "Service":
                self.workloads.pop(ref, None)
        return gone

    # A service's life

    def deploy(self, template: Template, pods: int, word: int, *, ready: bool) -> tuple[Object, ...]:
        """Creates a Service with its EndpointSlice and pods."""
        service = template.service_object("" if template.headless else next(self.service_ips), self.created)
        workload = self.workloads[service.ref] = Workload(service.ref)
        written = list(self.put(service))
        entries: list[Body] = []
        for index in range(pods):
            end = str(index) if template.headless else suffix(word + index)
            ip, (node, zone) = next(self.pod_ips), self._node()
            pod = template.pod(f"{template.stem}-{end}", ip, node, self.created, ready=ready)
            entries.append(endpoint(pod.ref, ip, node, zone, READY if ready else UNREADY))
            workload.pods.append(pod.ref)
            written.extend(self.put(pod))
        for part in template.slices(entries, self.created, word):
            workload.slices.append(part.ref)
            written.extend(self.put(part))
        return tuple(written)

    def undeploy(self, service: Ref) -> tuple[Ref, ...]:
        """Deletes a Service with all that `deploy` made."""
        workload = self.workloads.get(service)
        return self.remove([service, *workload.slices, *workload.pods]) if workload else ()

    # A pod's life

    def start_pod(self, service: Ref, name: str, model: Object | None) -> tuple[Object, ...]:
        """A pod like that one is scheduled and has an IP; it is not ready yet."""
        workload = self.workloads.get(service)
        if workload is None or model is None or not workload.slices:
            return ()
        ip, (node, zone) = next(self.pod_ips), self._node()
        status = {**model.status, "podIP": ip, "podIPs": [{"ip": ip}]}
        meta = {k: v for k, v in model.metadata.items() if k not in ("uid", "resourceVersion")}
        meta |= {"name": name, "creationTimestamp": self.created}
        spec = {**model.spec, "nodeName": node}
        body = {**model.body, "metadata": meta, "spec": spec, "status": status}
        pod = with_readiness(Object(Ref("Pod", service.namespace, name), body), ready=False)
        workload.pods.append(pod.ref)
        entry = endpoint(pod.ref, ip, node, zone, UNREADY)
        return self.put(pod, self._with_entry(workload, entry))

    def set_ready(self, service: Ref, pods: Sequence[Ref], ready: bool) -> tuple[Object, ...]:
        """These pods pass (or fail) their readiness probe; those that are gone are left out."""
        alive = [self.objects[pod] for pod in pods if pod in self.objects]
        written = [with_readiness(pod, ready) for pod in alive]
        chosen = {pod.ref: READY if ready else UNREADY for pod in alive}
        return self.put(*written, *self._rewritten(service, chosen))

    def terminate(self, service: Ref, pod: Ref) -> tuple[Object, ...]:
        """The pod is asked to end: its endpoint is no longer ready."""
        return self.put(*self._rewritten(service, {pod: TERMINATING})) if pod in self.objects else ()

    def end_pod(self, service: Ref, pod: Ref) -> tuple[tuple[Object, ...], tuple[Ref, ...]]:
        """The pod is gone: (slices rewritten, pod deleted)."""
        workload = self.workloads.get(service)
        if workload is None or pod not in self.objects:
            return (), ()
        workload.pods = [other for other in workload.pods if other != pod]
        return self.put(*self._rewritten(service, {pod: None})), self.remove([pod])

    # The rest

    def annotate(self, ref: Ref, annotations: Mapping[str, str]) -> tuple[Object, ...]:
        """Writes annotations, and nothing else."""
        held = self.objects.get(ref)
        if held is None:
            return ()
        return self.put(edited(held, metadata={"annotations": {**held.annotations, **annotations}}))

    def write(self, kind: str, namespace: str, name: str, **fields: Any) -> tuple[Object, ...]:
        """Creates that object, or replaces these fields of it."""
        held = self.objects.get(Ref(kind, namespace, name))
        return self.put(edited(held, **fields) if held else make(kind, namespace, name, self.created, **fields))

    def dated(self, held: Object) -> Object:
        """The object with the creationTimestamp an API server gives it: that of the one it replaces, else now."""
        before = self.objects.get(held.ref)
        created = self.created if before is None else before.creation
        return held if held.creation or not created else edited(held, metadata={"creationTimestamp": created})

    def _node(self) -> tuple[str, str]:
        self._placed += 1
        return self.nodes[self._placed % len(self.nodes)]

    def _with_entry(self, workload: Workload, entry: Body) -> Object:
        """The first slice with room, with the entry added; a new slice if none has."""
        for ref in workload.slices:
            part = self.objects[ref]
            entries = part.body.get("endpoints") or []
            if len(entries) < SLICE_SIZE:
                return edited(part, endpoints=[*entries, entry])
        ref = Ref("EndpointSlice", workload.service.namespace, f"{workload.service.name}-{len(workload.slices)}")
        model = self.objects[workload.slices[0]]
        workload.slices.append(ref)
        meta = {"name": ref.name, "creationTimestamp": self.created}
        return Object(ref, edited(model, metadata=meta, endpoints=[entry]).body)

    def _rewritten(self, service: Ref, conditions: Mapping[Ref, Body | None]) -> Iterator[Object]:
        """The service's slices that list one of these pods, with its conditions set, or dropped for None."""
        workload = self.workloads.get(service)
        for ref in workload.slices if workload else ():
            part = self.objects.get(ref)
            if part is None:
                continue
            entries, differs = [], False
            for entry in part.body.get("endpoints") or ():
                pod = _pod(entry, ref.namespace)
                if pod in conditions:
                    wanted = conditions[pod]
                    differs = True
                    if wanted is None:
                        continue
                    entry = {**entry, "conditions": wanted}
                entries.append(entry)
            if differs:
                yield edited(part, endpoints=entries)


def _pod(entry: Mapping[str, Any], namespace: str) -> Ref:
    target = entry.get("targetRef") or {}
    return Ref(target.get("kind") or "Pod", target.get("namespace") or namespace, target.get("name") or "")


def _pods(part: Object) -> Iterator[Ref]:
    seen = set()
    for entry in part.body.get("endpoints") or ():
        pod = _pod(entry, part.ref.namespace)
        if pod not in seen:
            seen.add(pod)
            yield pod
