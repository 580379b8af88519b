"""The state of a cluster: objects, a resource version that counts writes, the log of events, and who watches."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pushsim.mesh import Change, Mesh, Object, Ref
from pushsim.stub.resources import BY_KIND, RESOURCES, Resource, definition, resource_of, uid_of


@dataclass(frozen=True, slots=True)
class Event:
    """One write: what it did, the object after it (as it was, if deleted), and before it (None if created)."""

    version: int
    type: Literal["ADDED", "MODIFIED", "DELETED"]
    resource: Resource
    body: Mapping[str, Any]
    before: Mapping[str, Any] | None = None


@dataclass(slots=True)
class Watch:
    """One open watch: which collection, and up to which resource version its events are on the wire."""

    resource: Resource
    sent: int
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class Expired(Exception):
    """The events after this resource version are compacted away: the client must list again (410 Gone)."""


def _pods_of(slice_: Object) -> Iterable[tuple[str, str]]:
    """Namespace and name of the Pods that an EndpointSlice names."""
    for endpoint in slice_.body.get("endpoints") or ():
        target = endpoint.get("targetRef") or {}
        if target.get("kind") == "Pod":
            yield str(target.get("namespace", slice_.ref.namespace)), str(target.get("name"))


class Cluster:
    """The objects of a cluster, the log of writes, and who watches. Not thread-safe: one event loop owns it."""

    def __init__(self, objects: Iterable[Object] = (), history: int = 200_000) -> None:
        self.version = 1
        self.watches: list[Watch] = []
        self.requests: dict[str, int] = {}
        self.unknown: set[str] = set()
        self._history = history
        self._log: list[Event] = []
        self._compacted = 1
        self._store: dict[Resource, dict[tuple[str, str], Mapping[str, Any]]] = {r: {} for r in RESOURCES}
        definitions = self._store[BY_KIND["CustomResourceDefinition"]]
        for resource in RESOURCES:
            if resource.crd:
                body = definition(resource)
                definitions["", body["metadata"]["name"]] = body
        self.write(Change(tuple(objects)))

    @classmethod
    def of(cls, mesh: Mesh) -> Cluster:
        """The cluster that holds a mesh's objects."""
        return cls(mesh.objects.values())

    def write(self, change: Change) -> int:
        """Apply a change as one write to every watcher; returns the resource version after it.

        Every write is an event, also one that changes nothing: istiod has its own filters for those, and that is what
        the recordings' "no-op" steps mean. Deleting what is not there is none. Raises InputError for a kind not served.
        """
        for written in change.apply:
            self._put(written)
        for ref in change.delete:
            resource = resource_of(ref)
            before = self._store[resource].pop((ref.namespace, ref.name), None)
            if before is not None:
                self.version += 1
                gone = {**before, "metadata": {**before["metadata"], "resourceVersion": str(self.version)}}
                self._log.append(Event(self.version, "DELETED", resource, gone, before))
        if len(self._log) > 2 * self._history:
            self.compact(self._log[-self._history].version)
        for watch in self.watches:
            watch.wake.set()
        return self.version

    def _put(self, written: Object) -> None:
        resource = resource_of(written.ref, written.source)
        key = (written.ref.namespace, written.ref.name)
        before = self._store[resource].get(key)
        metadata = dict(written.metadata)
        metadata.setdefault("uid", uid_of(str(written.ref)))
        self.version += 1
        metadata["resourceVersion"] = str(self.version)
        body = {**_defaulted(written), "metadata": metadata}
        self._store[resource][key] = body
        self._log.append(Event(self.version, "MODIFIED" if before else "ADDED", resource, body, before))

    def compact(self, version: int | None = None) -> None:
        """Forget the events up to this resource version (all, by default): whoever still needs them gets 410 Gone."""
        self._compacted = self.version if version is None else version
        self._log = [event for event in self._log if event.version > self._compacted]
        for watch in self.watches:
            watch.wake.set()

    def objects(self, resource: Resource, namespace: str = "") -> list[Mapping[str, Any]]:
        """The objects of a collection, by namespace and name; of all namespaces if none is given."""
        store = self._store[resource]
        return [store[key] for key in sorted(store) if not namespace or key[0] == namespace]

    def get(self, resource: Resource, namespace: str, name: str) -> Mapping[str, Any] | None:
        """One object, None if there is none."""
        return self._store[resource].get((namespace, name))

    def held(self, ref: Ref) -> Mapping[str, Any] | None:
        """The object of a reference, None if there is none. Raises InputError for a kind not served."""
        return self.get(resource_of(ref), ref.namespace, ref.name)

    def since(self, resource: Resource, version: int) -> list[Event]:
        """The events of a collection after a resource version, oldest first; raises Expired if some are compacted."""
        if version < self._compacted:
            raise Expired
        start = len(self._log)
        while start and self._log[start - 1].version > version:
            start -= 1
        return [event for event in self._log[start:] if event.resource is resource]

    async def write_in_order(self, change: Change, pause_s: float = 0.0) -> None:
        """Apply a change object by object, each on the wire before the next is written, as `kubectl apply` would.

        Objects of different collections reach a client over different connections: what a client makes of two of them
        can still depend on which it handles first. pause_s: how long the EndpointSlices of Pods that the change has
        written before them are held back, for their controller knows the Pods first, and so does every client.
        """
        parts = [Change((written,)) for written in change.apply] + [Change((), (ref,)) for ref in change.delete]
        pods: set[tuple[str, str]] = set()
        for part in parts:
            for written in part.apply:
                if written.ref.kind == "Pod":
                    pods.add((written.ref.namespace, written.ref.name))
                elif pods and written.ref.kind == "EndpointSlice" and not pods.isdisjoint(_pods_of(written)):
                    await asyncio.sleep(pause_s)
                    pods.clear()
            self.write(part)
            while not self.delivered():
                await asyncio.sleep(0)

    def delivered(self) -> bool:
        """Whether every open watch has every event of its collection on the wire."""
        return all(watch.sent >= self.version or not self.since(watch.resource, watch.sent) for watch in self.watches)


def _defaulted(written: Object) -> Mapping[str, Any]:
    """An object as an API server keeps it: ports of Services have protocol and targetPort, no selector is empty."""
    if written.ref.kind != "Service" or not written.spec:
        return written.body
    spec = {key: value for key, value in written.spec.items() if key != "selector" or value}
    if spec.get("ports"):
        spec["ports"] = [{"protocol": "TCP", "targetPort": port.get("port"), **port} for port in spec["ports"]]
    return {**written.body, "spec": spec}
