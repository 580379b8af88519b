"""The proxies of a run: those that are there, those that changes bring, and how they are grouped."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from pushsim import planner as ask
from pushsim.conversation import Conversation
from pushsim.mesh import Change, Mesh, Proxy, Ref
from pushsim.topology import proxy_of


def groups_of(conversation: Conversation, arriving: Collection[str]) -> Sequence[ask.Group]:
    """Proxies that are equal in all that decides, those that are to arrive the last of their groups."""
    groups: list[ask.Group] = []
    for outcome in conversation.classes:
        ordered = sorted(outcome.members, key=lambda p: p.id in arriving)
        groups.append(ask.Group(tuple(ordered), sum(p.id in arriving for p in ordered)))
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
