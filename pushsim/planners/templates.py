"""Plans by example: proxies in one state get the same for the same pushes, but for what is made of their own services.

A sidecar's own are the first block of its clusters and that of its listeners (`plan.likewise`). All figures of a
response are sums over blocks, so what one proxy is sent tells what the others are sent; lengths, where policies and
labels mean the same for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from pushsim import planner as ask
from pushsim.blocks import Block
from pushsim.generators import Generators
from pushsim.mesh import Xds
from pushsim.plan import Plan, ProxyState, Push, likewise
from pushsim.planners.cells import Cells
from pushsim.planners.work import of_base_clusters
from pushsim.pricing import Pricing


@dataclass(frozen=True, slots=True)
class Part:
    """A proxy's own part of a response: its resources and their bytes, and the work that only it decides."""

    resources: int
    bytes: int
    work: ask.Counts


_NONE = Part(0, 0, ask.NO_COUNTS)
#: Types of which each sidecar has some resources of its own.
_WITH_OWN = frozenset[Xds](("CDS", "LDS"))


@dataclass(frozen=True, slots=True)
class Own:
    """What an answer to a sidecar holds of its own.

    told:  by type, equal for proxies that get the same resources in the same lengths.
    work:  before the responses, as far as it hangs on its own services.
    parts: by type, its own part of that response.
    """

    told: Mapping[Xds, int]
    work: ask.Counts
    parts: Mapping[Xds, Part]

    @property
    def kind(self) -> tuple[int, ...]:
        """Equal for proxies whose answers differ in nothing but their own parts."""
        return tuple(self.told.values())


@dataclass(frozen=True, slots=True)
class Template:
    """An answer, with what it holds of one proxy's own."""

    planned: ask.Planned
    own: Own

    def of(self, own: Own) -> ask.Planned:
        """The answer to another proxy of the same kind."""
        if own == self.own:
            return self.planned
        responses = tuple(self._of(response, own) for response in self.planned.responses)
        return replace(self.planned, work={**self.planned.work, **own.work}, responses=responses)

    def _of(self, like: ask.Response, own: Own) -> ask.Response:
        before, now = self.own.parts.get(like.xds, _NONE), own.parts.get(like.xds, _NONE)
        if before == now:
            return like
        return ask.Response(
            like.xds,
            like.resources - before.resources + now.resources,
            like.size_bytes - before.bytes + now.bytes,
            like.removed,
            like.solicited,
            like.view,
            {**like.work, **now.work},
            like.shows,
        )

    def told(self, like: Plan, own: Own, state: ProxyState, push: Push, pricing: Pricing, views: Cells | None) -> Self:
        """That of another kind: of types that it is told otherwise, lengths are measured anew.

        Args:
            like: the plan that this is of.
            own, state: of the other proxy; its state after the push.
            views: routes are cached by namespace, and it is of another one.
        """
        mine = self.of(own)
        others = {xds for xds, told in own.told.items() if self.own.told.get(xds) != told}
        made = like.responses if others.isdisjoint(_WITH_OWN) else likewise(like, state, push).responses
        responses = []
        for response, of in zip(mine.responses, made, strict=True):
            size, view = response.size_bytes, response.view
            if response.xds in others:
                size = pricing.size(of, state, push)
            if views is not None and response.xds == "RDS":
                view = views.view(of, state)
            same = size == response.size_bytes and view is response.view
            responses.append(response if same else replace(response, size_bytes=size, view=view))
        return replace(self, planned=replace(mine, responses=tuple(responses)), own=own)


def own_of(like: Plan, state: ProxyState, push: Push, pricing: Pricing, work: ask.Counts) -> Own | None:
    """A sidecar's own in a push; None if the push changes what it remembers of its own, or leaves some of it out.

    Args:
        like: the plan of one that was in the same state.
        state: its state after the push, if it is like that one's.
        work: before the responses, as far as it hangs on its own services.
    """
    types = {response.xds for response in like.responses}
    if types <= {"EDS"}:
        return Own({}, work, {})
    generators = Generators(state.view, push.context)
    parts: dict[Xds, Part] = {}
    if "CDS" in types:
        clusters = generators.base_clusters()
        if state.mode == "delta" and names(clusters) != state.base:
            return None
        size = pricing.framed("CDS", (clusters,), state, push)
        parts["CDS"] = Part(len(clusters), size, of_base_clusters(clusters))
    if "LDS" in types:
        if generators.own_endpoint:
            return None
        listeners = generators.virtual_listeners()
        parts["LDS"] = Part(len(listeners), pricing.framed("LDS", (listeners,), state, push), {})
    routes = tuple(block for response in like.responses if response.xds == "RDS" for block in response.blocks)
    return Own(pricing.told(routes, state, push), work, parts)


def names(block: Block) -> frozenset[str]:
    """Names of a block's resources."""
    return block.memo.once(lambda: frozenset(cluster.name for cluster in block), "names")
