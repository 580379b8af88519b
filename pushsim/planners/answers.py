"""`Answers`: what proxies are sent by istiods that push the same, priced.

States and pushes have numbers; plans are remembered by (group, state, interval of pushes). Groups that differ only in
what is their own share states, and what is decided of them.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from copy import copy as shallow
from dataclasses import replace
from functools import partial

from pushsim import planner as ask
from pushsim.plan import (
    Plan,
    ProxyState,
    Push,
    Response,
    plan,
    takes_up_scope,
)
from pushsim.planners.askers import Asker
from pushsim.planners.cells import Came, Cells
from pushsim.planners.examples import Answer, Asked, Examples, targeting
from pushsim.planners.intervals import Intervals
from pushsim.planners.showing import shown_by
from pushsim.planners.states import Numbers, States
from pushsim.planners.templates import Own, Template
from pushsim.planners.touching import Touching
from pushsim.planners.usual import Usuals
from pushsim.planners.work import of_push, of_response
from pushsim.pricing import Pricing
from pushsim.releases import Rules
from pushsim.requests import PushRequest
from pushsim.visibility import Scope


class Answers:
    """See the module, and `planner.Planner` for what is said of groups, states and pushes.

    Whatever hangs on what istiods have been told since the push is asked of the one that asks.

    Args:
        groups: of the planners; first: by group, the first conversation before any push.
        start: istiod as it starts.
        states, touching: at the start.
        pricing, cells: for all runs.
        rules: the release.
        numbers: of the run.
    """

    def __init__(
        self,
        groups: Sequence[ask.Group],
        first: Sequence[Plan],
        start: Push,
        states: States,
        touching: Touching,
        pricing: Pricing,
        cells: Cells,
        rules: Rules,
        numbers: Numbers,
    ) -> None:
        self._groups, self._first, self._start, self._rules, self._given = groups, first, start, rules, numbers
        self.states, self.touching, self._pricing, self._cells = states, touching, pricing, cells
        # by their numbers; without what `keep` lets go
        self._pushed: dict[int, int] = {}  # by change, the first push of it
        self._intervals = Intervals(rules)
        self.came = Came()
        self._pushes: dict[int, Push] = {}
        self._connected: dict[tuple[int, int, int], Answer] = {}  # by group, push and moment
        self._plans: dict[tuple[int, int, int, int, bool, int], Answer] = {}  # by moment, too
        self._alike: dict[tuple[int, ...], ask.Planned] = {}  # what is common to those that are alike
        self._touched: dict[tuple[int, int], Collection[int] | None] = {}
        self._concerned: dict[tuple[int, int, int], Collection[int]] = {}  # with what is recorded of groups' own
        self._spares: dict[tuple[int, int, int, int], ask.Spared | None] = {}
        self._idle: dict[tuple[int, int, int], ask.Planned] = {}  # of who is spared, by number of the like and interval
        self._greetings: dict[Hashable, Template] = {}  # by state, push and kind
        self._usuals = Usuals(start, pricing, frozenset(proxy.ip for group in groups for proxy in group.proxies))
        self._examples = self._no_examples()

    def fork(self, pushes: int | None = None) -> Answers:
        """An independent copy, as it was before the push of that number; None: for another run."""
        copy = shallow(self)
        numbers = copy._given = self._given.fork() if pushes is None else self._given
        if pushes is None:
            pushes = 0
        copy.states, copy.touching = self.states.fork(numbers), self.touching.fork(numbers, pushes)
        copy._pushed = {change: number for change, number in self._pushed.items() if number < pushes}
        copy._intervals, copy.came = self._intervals.fork(pushes), self.came.fork()
        copy._pushes = {number: push for number, push in self._pushes.items() if number < pushes}
        copy._connected = {}
        copy._plans, copy._alike, copy._spares, copy._idle, copy._greetings = {}, {}, {}, {}, {}
        copy._touched, copy._concerned = {}, {}
        copy._examples = copy._no_examples()
        copy._lead_to(self, pushes)
        return copy

    def _no_examples(self) -> Examples:
        return Examples(self.states, self.touching, self._usuals, self._pricing, self._cells, self._rules)

    def adopts(self, other: Answers, pushes: int) -> bool:
        """Take over what was planned elsewhere since it came apart from there before that push; False if it cannot."""
        if not self.states.adopts(other.states):
            return False
        self._lead_to(other, pushes)
        return True

    def _lead_to(self, other: Answers, pushes: int) -> None:
        """Proxies may yet go where plans of earlier pushes lead."""
        self._plans |= {key: answer for key, answer in other._plans.items() if key[3] < pushes}
        self._spares |= {key: spared for key, spared in other._spares.items() if key[3] < pushes}
        self._connected |= {key: answer for key, answer in other._connected.items() if key[1] < pushes}

    # ---- pushes

    def pushed(self, request: PushRequest, changes: tuple[int, ...], before: Push, made: Push) -> ask.Push:
        """The next push is made: of what, and what there was before it and is after it."""
        number = self._intervals.add(request, changes)
        for change in changes:
            self._pushed.setdefault(change, number)
        self.states.start()
        self._pushes[number] = made
        self.touching.pushed(number, request, made)
        everything = request.everything(self._rules) or "EnvoyFilter" in request.kinds
        evicts = partial(
            self._cells.evicted, self.came.owners_of_keys(request.keys, max(changes, default=-1), before, made)
        )
        return ask.Push(number, of_push(before.context, made.context, request, self._rules), evicts, everything)

    def at(self, push: int) -> Push:
        """That push; -1: istiod as it starts."""
        return self._pushes[push] if push >= 0 else self._start

    def scopes(self, push: int) -> Sequence[Scope]:
        """Those that all groups have as of a push, connected or not, labelled as they were at the start."""
        scopes = self.at(push).scopes
        return list(dict.fromkeys(scopes.of(made.state.proxy, made.state.labels) for made in self._first))

    def keep(self, states: Collection[tuple[int, int]], push: int, since: int) -> None:
        """See `planner.Planner`."""
        self._pushes = {number: made for number, made in self._pushes.items() if number >= push}
        self._connected = {key: answer for key, answer in self._connected.items() if key[1] >= push}
        self._plans = {key: answer for key, answer in self._plans.items() if key[3] >= push}
        self._alike = {key: planned for key, planned in self._alike.items() if key[-1] >= push}
        self._spares = {key: spared for key, spared in self._spares.items() if key[3] >= push}
        self._idle = {key: planned for key, planned in self._idle.items() if key[2] >= push}
        led_to = {(key[0], planned.state) for key, (planned, _) in (*self._plans.items(), *self._connected.items())}
        led_to |= {(key[0], spared.state) for key, spared in self._spares.items() if spared is not None}
        led_to.update(states, (key[:2] for key in self._plans))
        self.states.keep(led_to, self.touching.after(since - 1))  # everybody has taken that
        self.touching.keep(since)
        self._greetings.clear()
        self._intervals.keep(push)
        self._touched = {key: groups for key, groups in self._touched.items() if key[1] >= push}
        self._concerned.clear()
        self._examples.keep(push)

    def concerned(self, first: int, last: int) -> Collection[int]:
        """See `planner.Planner`."""
        key = (first, last, self.states.recorded)
        if key not in self._concerned:
            self._concerned[key] = self.states.concerned(self._intervals.request(first, last))
        return self._concerned[key]

    def touched(self, first: int, last: int) -> Collection[int] | None:
        """See `planner.Planner`."""
        if (first, last) not in self._touched:
            groups = self.touching.touched(first, last)
            self._touched[first, last] = None if groups is None else groups.union(self.concerned(first, last))
        return self._touched[first, last]

    def spared(self, group: int, state: int, first: int, last: int) -> ask.Spared | None:
        """See `planner.Planner`.

        If it takes up a new scope, its old one is the previous one then, and holds the same. If not, it is still judged
        by a previous one that may hold something else.
        """
        key = (group, state, first, last)
        if key not in self._spares:
            self._spares[key] = self._known_to_be_spared(*key)
        return self._spares[key]

    def _known_to_be_spared(self, group: int, state: int, first: int, last: int) -> ask.Spared | None:
        if not self.touching.spares(group, first, last) or group in self.concerned(first, last):
            return None
        request = self._intervals.request(first, last)
        if takes_up_scope(request, self._rules):
            state = self.states.steadied(group, state)
        elif self.states.depended_on(state, request.keys):
            return None
        return ask.Spared(state, self.states.targets(group, state))

    def shape(self, group: int, state: int, push: int) -> ask.Shape:
        """See `planner.Planner`."""
        return self.states.shape(group, state, self.at(push).context)

    # ---- proxies

    def _seen(self, push: int, asker: Asker) -> Push:
        """A push as an istiod makes it that may have been told more since than others."""
        return replace(self.at(push), registry=asker.istiod.registry)

    def connect(self, group: int, push: int, asker: Asker) -> Answer:
        """See `planner.Planner`."""
        key = (group, push, asker.moment if push >= 0 else 0)
        if key not in self._connected:
            made, at = self._first[group], self._start
            if push >= 0:
                at = self._seen(push, asker)
                made = asker.istiod.connect(self._groups[group].proxies[0], at)
            self._connected[key] = self._greeted(group, push, made, at)
        return self._connected[key]

    def _greeted(self, group: int, push: int, made: Plan, at: Push) -> Answer:
        """A first conversation, from that of another sidecar that is in the same state thereafter."""
        number, state = self.states.number(group, made.state), made.state
        work = {"proxy.targets": len(state.targets)}
        own = None
        if state.proxy.type == "sidecar":
            own = self._usuals.own(self.states.own(group, number), state, made, at, work)
        key = (number, push, own and own.kind)
        if own is not None and (known := self._greetings.get(key)) is not None:
            return known.of(own), own
        responses = tuple(self._response(r, state, at, (), first=True) for r in made.responses)
        planned = ask.Planned(True, number, responses, {"proxy.states": 1, **work}, self.touching.scope_of(state, at))
        if own is not None:
            self._greetings[key] = Template(planned, own)
        return planned, own

    def steadied(self, group: int, state: int, first: int, last: int, *, forced: bool) -> int:
        """The state from which all is planned that is planned from that one for an interval."""
        takes_up = takes_up_scope(self._intervals.request(first, last, forced), self._rules)
        return self.states.steadied(group, state) if takes_up else state

    def plan(self, group: int, state: int, first: int, last: int, forced: bool, asker: Asker) -> Answer:
        """See `planner.Planner`, of a state that is `steadied` for the interval."""
        key = (group, state, first, last, forced, asker.moment)
        if key not in self._plans:
            request = self._intervals.request(first, last, forced)
            shared = self.states.shares(group, state, request, asker.istiod.registry)
            usual = self.alike(group, state), first, last
            plain = state, self.states.targets(group, state), first, last
            planned, own = (self._alike.get(usual) or self._alike.get(plain)) if shared else None, None
            spared = self._spares.get(key[:4]) if shared and not forced else None
            if planned is None and spared is not None:
                planned = self._like_others(group, spared, first, last)
            if planned is None:
                asked = Asked(group, state, first, last, request, self._seen(last, asker))
                tell = partial(self._planned, asked, asker)
                found = self._examples.answer(asked, tell) if shared else None
                planned, own = found or (tell(plan(self.states.of(group, state), request, asked.push)), None)
                none_own = all(response.xds == "EDS" for response in planned.responses)
                if shared and (none_own or (own and self._is_usual(group, planned, own, last))):
                    planned = self._alike[plain if none_own else usual] = replace(planned, common=True)
            if spared is not None:
                self._idle.setdefault((spared.like, first, last), planned)
            self._plans[key] = planned, own
        return self._plans[key]

    def _like_others(self, group: int, spared: ask.Spared, first: int, last: int) -> ask.Planned | None:
        """What somebody gets who is spared as one was that was planned for: that, but for state and scope."""
        known = self._idle.get((spared.like, first, last))
        if known is None:
            return None
        scope = self.touching.scope_in(group, last) if known.scope is not None else None
        return replace(known, state=spared.state, scope=scope)

    def alike(self, group: int, state: int) -> int:
        """See `planner.Planner`."""
        if self._groups[group].proxies[0].type != "sidecar":
            return -1
        kind = self._usuals.kind(self.states.own(group, state), lambda: self.states.of(group, state))
        return self.states.alike(group, state, kind)

    def _is_usual(self, group: int, planned: ask.Planned, own: Own, push: int) -> bool:
        """Whether an answer holds of a group's own what it usually does, so that all of its number get it."""
        of, state = self.states.own(group, planned.state), self.states.of(group, planned.state)
        return self._usuals.holds(of, state, own, self.at(push))

    def _planned(self, asked: Asked, asker: Asker, planned: Plan) -> ask.Planned:
        push, named, request = self.at(asked.last), asker.named, asked.request
        before, after, decision = self.states.of(asked.group, asked.state), planned.state, planned.decision
        work = {"proxy.filters": 1, "proxy.keys": len(request.keys)}
        if not request.endpoints_only(self._rules):
            work |= {"proxy.states": 1, **targeting(after, request, self._rules)}
        scope = self.touching.scope_of(after, push) if after.scope is not before.scope else None
        if not decision.needed:
            after = self._spared(asked.group, before, after, *asked.interval)
        number = asked.state if after is before else self.states.number(asked.group, after)
        if not decision.needed:
            return ask.Planned(False, number, work=work, scope=scope)
        changes = self._intervals.changes(*asked.interval)
        shown = shown_by(planned, before, {c: named[c] for c in changes if self._pushed[c] >= asked.first})
        return ask.Planned(
            needed=True,
            state=number,
            responses=tuple(self._response(r, after, push, shown.get(i, ())) for i, r in enumerate(planned.responses)),
            work=work,
            scope=scope,
            causes=tuple(c for c in changes if named[c].lets_through(decision)),
        )

    def _spared(self, group: int, before: ProxyState, after: ProxyState, first: int, last: int) -> ProxyState:
        """The state of one that is spared; if the pushes do not touch it, it may keep the scope that it had."""
        if after.scope is before.scope or after.proxy.type != "sidecar" or after.targets != before.targets:
            return after
        key = self.at(last).scopes.key(after.proxy, after.labels)
        if not self.touching.untouched(key, first, last) or group in self.concerned(first, last):
            return after
        return before if before.steady else replace(before, previous=None)

    # ---- responses as the machine knows them

    def _response(
        self, response: Response, state: ProxyState, push: Push, shows: tuple[int, ...], *, first: bool = False
    ) -> ask.Response:
        return ask.Response(
            response.xds,
            response.count,
            self._pricing.size(response, state, push),
            len(response.removed),
            response.solicited,
            self._cells.view(response, state),
            of_response(response, state, first=first),
            shows,
        )
