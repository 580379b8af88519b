"""The proxies of a run: those that are there, those that changes bring, and how they are grouped."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from pushsim import planner as ask
from pushsim.conversation import Conversation
from pushsim.mesh import Change, Mesh, Proxy, Ref
from pushsim.registry.workloads import pod_locality
from pushsim.topology import proxy_of


def groups_of(
    conversation: Conversation, arriving: Collection[str], mesh: Mesh, changes: Iterable[Change]
) -> Sequence[ask.Group]:
    """Proxies that are equal in all that decides, those that are to arrive the last of their groups."""
    come = (written for change in changes for written in change.apply if written.ref.kind in ("Pod", "Node"))
    objects = {written.ref: written for written in come} | dict(mesh.objects)
    groups: list[ask.Group] = []
    numbers: dict[str, int] = {}  # of localities
    for outcome in conversation.classes:
        ordered = sorted(outcome.members, key=lambda p: p.id in arriving)
        named = (pod_locality(objects.get(Ref("Pod", proxy.namespace, proxy.name)), objects) for proxy in ordered)
        localities = tuple(numbers.setdefault(name, len(numbers)) for name in named)
        groups.append(ask.Group(tuple(ordered), sum(p.id in arriving for p in ordered), localities))
    return groups


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
