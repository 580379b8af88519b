"""What groups are sent of their own in any full push, as long as nothing that decides it changes.

A sidecar's own hangs on its services, its Sidecar, policies and DestinationRules (`templates`). Groups of which it is
all the same are sent the same in all, if they are in one state: a plan for one of them is one for all.
"""

from __future__ import annotations

from itertools import count
from typing import NamedTuple

from pushsim.generators import Generators
from pushsim.memo import Memo
from pushsim.mesh import Object
from pushsim.plan import ProxyState, Push
from pushsim.planners.templates import Own, Part, names
from pushsim.planners.work import of_base_clusters
from pushsim.pricing import Pricing


class _Usual(NamedTuple):
    """What a group's own usually is, with that Sidecar, and its number; None: it may be otherwise by and by."""

    kind: int
    own: Own | None
    sidecar: Object | None


class Usuals:
    """What groups are usually sent of their own.

    Args:
        start: istiod as it starts: as its policies are then.
        pricing: of the run.
    """

    def __init__(self, start: Push, pricing: Pricing) -> None:
        self._start, self._pricing = start, pricing
        self._known: dict[tuple[int, int], _Usual] = {}
        self._kinds, self._numbers = Memo(), count()

    def kind(self, group: int, version: int, state: ProxyState) -> int:
        """A number, equal for groups of which it is the same.

        Args:
            version: of what is the group's own.
            state: of its sidecars.
        """
        return self._of(group, version, state).kind

    def holds(self, group: int, version: int, state: ProxyState, own: Own, push: Push) -> bool:
        """Whether a push sends what is usual to a group, so that it does to all of its kind.

        Args:
            state: after the push. own: the group's, in that push.
        """
        known, context = self._of(group, version, state), push.context
        return (
            known.own is not None
            and known.sidecar is state.scope.sidecar
            and context.policies is self._start.context.policies
            and context.rule_index is self._start.context.rule_index
            and not Generators(state.view, context).listens_by_endpoint
            and own.told == known.own.told
            and all(known.own.parts.get(xds) == part for xds, part in own.parts.items())
        )

    def _of(self, group: int, version: int, state: ProxyState) -> _Usual:
        if (group, version) not in self._known:
            own, sidecar = self._own(state), state.scope.sidecar
            key = (group, version) if own is None else (own.kind, *map(_told, own.parts.values()), state.base)
            kind = self._kinds.once(lambda: next(self._numbers), *key, of=(sidecar,))
            self._known[group, version] = _Usual(kind, own, sidecar)
        return self._known[group, version]

    def _own(self, state: ProxyState) -> Own | None:
        push, generators = self._start, Generators(state.view, self._start.context)
        if push.context.rule_index.by_key:
            return None  # some may come to apply to its services
        clusters, listeners = generators.base_clusters(), generators.virtual_listeners()
        if state.mode == "delta" and names(clusters) != state.base:
            return None
        of_clusters = Part(
            len(clusters), self._pricing.framed("CDS", (clusters,), state, push), of_base_clusters(clusters)
        )
        of_listeners = Part(len(listeners), self._pricing.framed("LDS", (listeners,), state, push), {})
        return Own(self._pricing.told((), state, push), {}, {"CDS": of_clusters, "LDS": of_listeners})


def _told(part: Part) -> tuple[object, ...]:
    return part.resources, part.bytes, *sorted(part.work.items())
