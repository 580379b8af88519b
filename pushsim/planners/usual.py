"""What groups are sent of their own in any full push, as long as nothing that decides it changes.

A sidecar's own hangs on its services, its Sidecar, policies and DestinationRules (`templates`). Groups of which it is
all the same are sent the same in all, if they are in one state: a plan for one of them is one for all.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import NamedTuple

from pushsim import planner as ask
from pushsim.generators import Generators, listening_endpoints
from pushsim.memo import Memo
from pushsim.mesh import Object
from pushsim.plan import Plan, ProxyState, Push
from pushsim.planners.templates import Own, Part, names, own_of
from pushsim.planners.work import of_base_clusters
from pushsim.pricing import Pricing
from pushsim.visibility import Scope


class _Usual(NamedTuple):
    """What a group's own usually is, with that Sidecar, and its number; None: it may be otherwise by and by."""

    of: object  # which must live, since it is told from others by identity
    kind: int
    own: Own | None
    sidecar: Object | None


class Usuals:
    """What groups are usually sent of their own.

    Args:
        start: istiod as it starts: as its policies are then.
        pricing: of the run.
        addresses: those of all proxies.
    """

    def __init__(self, start: Push, pricing: Pricing, addresses: frozenset[str]) -> None:
        self._start, self._pricing, self._addresses = start, pricing, addresses
        self._known: dict[int, _Usual] = {}
        self._kinds, self._numbers = Memo(), count()

    def kind(self, of: object, state: Callable[[], ProxyState]) -> int:
        """A number, equal for groups of which it is the same.

        Args:
            of: see `States.own`.
            state: of its sidecars.
        """
        return self._of(of, state).kind

    def own(self, of: object, state: ProxyState, like: Plan, push: Push, work: ask.Counts) -> Own | None:
        """A group's own in a plan like that: what it usually is, or that of this push (see `templates.own_of`).

        Args:
            of: see `States.own`.
            state: after the push.
            work: before the responses, as far as it hangs on its own services.
        """
        known = self._holding(of, lambda: state, state.scope, push)
        if known is None or self._pricing.asks(r.blocks for r in like.responses if r.xds == "RDS"):
            return own_of(like, state, push, self._pricing, work)
        types = {response.xds for response in like.responses}
        if types <= {"EDS"}:
            return Own({}, work, {})
        return Own(known.told, work, {xds: part for xds, part in known.parts.items() if xds in types})

    def _holding(self, of: object, state: Callable[[], ProxyState], scope: Scope, push: Push) -> Own | None:
        """What a group's own usually is, if nothing that decides it is otherwise in a push. scope: after that."""
        known, context = self._of(of, state), push.context
        same = (
            known.sidecar is scope.sidecar
            and context.policies is self._start.context.policies
            and context.rule_index is self._start.context.rule_index
        )
        if not same or known.own is None or not listening_endpoints(scope).isdisjoint(self._addresses):
            return None
        return known.own

    def holds(self, of: object, state: ProxyState, own: Own, push: Push) -> bool:
        """Whether a push sends what is usual to a group, so that it does to all of its kind.

        Args:
            of: see `States.own`.
            state: after the push. own: the group's, in that push.
        """
        known = self._holding(of, lambda: state, state.scope, push)
        return (
            known is not None
            and own.told == known.told
            and all(known.parts.get(xds) == part for xds, part in own.parts.items())
        )

    def _of(self, of: object, state: Callable[[], ProxyState]) -> _Usual:
        return self._known.get(id(of)) or self._look_at(of, state())

    def _look_at(self, of: object, state: ProxyState) -> _Usual:
        own, sidecar = self._own(state), state.scope.sidecar
        key = (id(of),) if own is None else (own.kind, *map(_told, own.parts.values()), state.base)
        kind = self._kinds.once(lambda: next(self._numbers), *key, of=(sidecar,))
        known = self._known[id(of)] = _Usual(of, kind, own, sidecar)
        return known

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
