"""The proxies of a run: those that are there, those that changes bring, and how they are grouped."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from pushsim import planner as ask
from pushsim.conversation import Conversation
from pushsim.mesh import Change, Mesh, Object, Proxy, Ref
from pushsim.registry import Registry
from pushsim.registry.workloads import pod_locality
from pushsim.topology import proxy_of


class Places:
    """The localities of proxies, by number; all that a mesh and its changes have one of are known from the start."""

    def __init__(self, conversation: Conversation, mesh: Mesh, changes: Iterable[Change]) -> None:
        self._registry, self._by_instance = conversation.istiod.registry, conversation.istiod.rules.locality_of_instance
        self._numbers: dict[str, int] = {}
        objects = dict(mesh.objects)
        self._first = {ref: pod_locality(pod, objects) for ref, pod in objects.items() if ref.kind == "Pod"}
        self._later = set[str]()
        for change in changes:
            objects |= {written.ref: written for written in change.apply if written.ref.kind in ("Pod", "Node")}
            for written in change.apply:
                if written.ref.kind == "Pod":
                    self._later.add(name := pod_locality(written, objects))
                    self._first.setdefault(written.ref, name)

    def first(self, proxy: Proxy) -> int:
        """Where a proxy is when its pod is there first."""
        ref = Ref("Pod", proxy.namespace, proxy.name)
        there = ref in self._registry.store.objects
        return self._number(proxy, self._first.get(ref, ""), self._registry if there else None)

    def now(self, proxy: Proxy, pod: Object, registry: Registry) -> int:
        """Where a proxy is whose pod is there (again)."""
        return self._number(proxy, pod_locality(pod, registry.store.objects), registry)

    def _number(self, proxy: Proxy, name: str, registry: Registry | None) -> int:
        if self._by_instance and registry is not None and not registry.targets(proxy):
            name = ""  # until 1.16, and on 1.19, it is that of the proxy's first service instance
        return self._numbers.setdefault(name, len(self._numbers))

    @property
    def count(self) -> int:
        """How many localities there may be."""
        return len(self._numbers.keys() | self._later | ({""} if self._by_instance else set()))


def groups_of(conversation: Conversation, arriving: Collection[str], places: Places) -> Sequence[ask.Group]:
    """Proxies that are equal in all that decides, those that are to arrive the last of their groups."""
    groups: list[ask.Group] = []
    for outcome in conversation.classes:
        ordered = sorted(outcome.members, key=lambda p: p.id in arriving)
        localities = tuple(map(places.first, ordered))
        groups.append(ask.Group(tuple(ordered), sum(p.id in arriving for p in ordered), localities))
    return [replace(group, places=places.count) for group in groups]


def late_proxies(mesh: Mesh, changes: Iterable[Change]) -> tuple[Proxy, ...]:
    """Proxies of pods that changes bring."""
    known = {proxy.id for proxy in mesh.proxies}
    written = (o for change in changes for o in change.apply if o.ref.kind == "Pod")
    found: dict[str, Proxy] = {}
    for pod in written:
        proxy = proxy_of(pod)
        if proxy is not None and proxy.id not in known:
            found.setdefault(proxy.id, proxy)
    return tuple(found.values())


def proxy_id(ref: Ref) -> str:
    """The id of the proxy that may be in a pod; "" for anything else."""
    return f"{ref.name}.{ref.namespace}" if ref.kind == "Pod" else ""
