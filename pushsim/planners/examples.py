"""`Examples`: what sidecars are sent, told from what another one was sent for the same pushes.

One plan is made for all who are in a state, and, if nothing in it hangs on their namespace, for those of other
namespaces, too (`plan.kindred`). What is a proxy's own is told for each (`templates`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

from pushsim import planner as ask
from pushsim.dependencies import decide
from pushsim.plan import Plan, ProxyState, Push, answered, kindred, recomputes_targets, refresh
from pushsim.planners.cells import Cells
from pushsim.planners.states import States
from pushsim.planners.templates import Own, Template
from pushsim.planners.touching import Touching
from pushsim.planners.usual import Usuals
from pushsim.pricing import Pricing
from pushsim.releases import Rules
from pushsim.requests import PushRequest

#: What somebody gets, and what in it is its own, if others are answered by its example.
Answer = tuple[ask.Planned, Own | None]
#: What a plan is to the machine.
Telling = Callable[[Plan], ask.Planned]


@dataclass(frozen=True, slots=True)
class Asked:
    """Who is asked about, in which state, and for which pushes: their merged request, and the last as it is made."""

    group: int
    state: int
    first: int
    last: int
    request: PushRequest
    push: Push

    @property
    def interval(self) -> tuple[int, int]:
        """Numbers of the first and the last push."""
        return self.first, self.last


class Examples:
    """See the module.

    Args:
        states, touching: of the course.
        usuals, pricing, cells: for all runs.
        rules: the release.
    """

    def __init__(
        self, states: States, touching: Touching, usuals: Usuals, pricing: Pricing, cells: Cells, rules: Rules
    ) -> None:
        self._states, self._touching, self._usuals = states, touching, usuals
        self._pricing, self._cells, self._rules = pricing, cells, rules
        self._known: dict[tuple[int, int, int], tuple[Plan, Template | None]] = {}  # by state and interval
        self._kindred: dict[tuple[Hashable, int, int], tuple[Plan, Template, ProxyState]] = {}  # and the state before
        self._templates: dict[tuple[int, int, int, tuple[int, ...]], Template] = {}  # and kind

    def keep(self, push: int) -> None:
        """Nobody will ask about intervals that end before that push."""
        self._known = {key: example for key, example in self._known.items() if key[2] >= push}
        self._kindred = {key: known for key, known in self._kindred.items() if key[2] >= push}
        self._templates = {key: template for key, template in self._templates.items() if key[2] >= push}

    def answer(self, asked: Asked, tell: Telling) -> Answer | None:
        """What a sidecar gets for pushes that do to it what they do to others in its state; None if no example says."""
        place = asked.state, *asked.interval
        example = self._known.get(place)
        if example is None:
            like, planned, template = self._example(asked, tell)
            self._known[place] = like, template
            return planned, template.own if template is not None else None
        like, template = example
        if template is None:
            return None
        after = self._states.as_of(asked.group, asked.state, like.state)
        own = self._own(asked, like, after)
        if own is None:
            return None
        of_kind = template if own.kind == template.own.kind else self._templates.get((*place, own.kind))
        if of_kind is None:
            of_kind = template.told(like, own, after, asked.push, self._pricing, None)
            self._templates[*place, own.kind] = of_kind
        return of_kind.of(own), own

    def _example(self, asked: Asked, tell: Telling) -> tuple[Plan, ask.Planned, Template | None]:
        """The plan that is the example for all in a state, from that for a state of another namespace if one is known.

        No template: it is an example for nobody.
        """
        before, push, request = self._states.of(asked.group, asked.state), asked.push, asked.request
        after = refresh(before, request, push)
        key = kindred(before, after, request, push)
        known = self._kindred.get((key, *asked.interval)) if key is not None else None
        if known is not None:
            found = self._from_kindred(asked, *known[:2], before, after)
            if found is not None:
                return found[0], found[1].planned, found[1]
        decision = decide(after.view, request)
        made = answered(after, decision, push)
        planned = tell(made)
        own = self._own(asked, made, made.state)
        if own is None:
            return made, planned, None
        template = Template(planned, own)
        if key is not None and decision.needed:
            made = replace(made, state=self._states.of(asked.group, planned.state))  # of parts that are known by now
            self._kindred[key, *asked.interval] = made, template, before
        return made, planned, template

    def _from_kindred(
        self, asked: Asked, like: Plan, template: Template, before: ProxyState, refreshed: ProxyState
    ) -> tuple[Plan, Template] | None:
        after = like.state.refreshed(refreshed)
        made, push = replace(like, state=after), asked.push
        own = self._own(asked, made, after)
        if own is None:
            return None
        told = template.told(made, own, after, push, self._pricing, self._cells)
        planned = replace(
            told.planned,
            state=self._states.number(asked.group, after),
            scope=self._touching.scope_of(after, push) if after.scope is not before.scope else None,
        )
        return made, replace(told, planned=planned)

    def _own(self, asked: Asked, like: Plan, state: ProxyState) -> Own | None:
        """What of a plan like that is a group's own; None if it is not like it. state: its own after the push."""
        work = targeting(state, asked.request, self._rules)
        return self._usuals.own(self._states.own(asked.group, asked.state), state, like, asked.push, work)


def targeting(state: ProxyState, request: PushRequest, rules: Rules) -> ask.Counts:
    """The work of looking up a proxy's services again; none where its state is not computed."""
    if request.endpoints_only(rules):
        return {}
    return {"proxy.targets": len(state.targets) * recomputes_targets(request, state.proxy, rules)}
