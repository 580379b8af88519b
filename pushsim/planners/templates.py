"""Plans by example: proxies in one state get the same for the same pushes, but for what is made of their own services.

A sidecar's own are the first block of its clusters and that of its listeners. The lengths of messages are sums over
blocks, so what one proxy is sent tells what the others are sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pushsim import planner as ask
from pushsim.blocks import Block
from pushsim.generators import Generators
from pushsim.mesh import Xds
from pushsim.plan import Plan, ProxyState, Push
from pushsim.planners.work import count_inbound
from pushsim.pricing import Pricing


@dataclass(frozen=True, slots=True)
class Own:
    """What responses to a sidecar hold of its own.

    kind:  equal for proxies whose responses differ in nothing but the bytes of their own blocks.
    bytes: of its own block, by type.
    """

    kind: tuple[int, ...]
    bytes: Mapping[Xds, int]


def own_of(like: Plan, state: ProxyState, push: Push, pricing: Pricing) -> Own | None:
    """A sidecar's own in a push; None if the push changes what it remembers of its own, or leaves some of it out.

    Args:
        like: the plan of one that was in the same state.
        state: its state after the push, if it is like that one's.
    """
    generators = Generators(state.view, push.context)
    clusters, listeners = generators.base_clusters(), generators.virtual_listeners()
    if state.mode == "delta" and _names(clusters) != state.base:
        return None
    if generators.own_endpoint:
        return None
    routes = tuple(block for response in like.responses if response.xds == "RDS" for block in response.blocks)
    inbound = clusters.total(count_inbound, "inbound")
    return Own(
        (len(clusters), inbound, *pricing.told(routes, state, push)),
        {
            "CDS": pricing.framed("CDS", (clusters,), state, push),
            "LDS": pricing.framed("LDS", (listeners,), state, push),
        },
    )


def derived(like: ask.Planned, example: Own, own: Own) -> ask.Planned:
    """What a proxy gets, from what another of that kind does."""
    if own.bytes == example.bytes:
        return like
    more = {xds: own.bytes[xds] - example.bytes[xds] for xds in own.bytes}
    return replace(
        like, responses=tuple(replace(r, size_bytes=r.size_bytes + more.get(r.xds, 0)) for r in like.responses)
    )


def _names(block: Block) -> frozenset[str]:
    return block.memo.once(lambda: frozenset(cluster.name for cluster in block), "names")
