"""`IstioPlanner`: one istiod replica.

It numbers requests, pushes and states, remembers plans by (group, state, interval of pushes), prices responses, and
says which cells of the cache and how much work they stand for. Groups that differ only in what is their own share
states, and what is decided of them.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from copy import copy as shallow
from dataclasses import replace
from functools import partial

from pushsim import planner as ask
from pushsim.conversation import Conversation
from pushsim.memo import Memo
from pushsim.mesh import Change, ConfigKey, Mesh, Mode
from pushsim.plan import (
    Plan,
    ProxyState,
    Push,
    Response,
    answered,
    decided,
    kindred,
    plan,
    recomputes_targets,
    takes_up_scope,
)
from pushsim.planners.cells import HOST_KINDS, Cells, owners_of_hosts, owners_of_keys
from pushsim.planners.course import Course
from pushsim.planners.intervals import Intervals
from pushsim.planners.proxies import groups_of, late_proxies, proxy_id
from pushsim.planners.settling import Settling
from pushsim.planners.showing import Named, shown_by
from pushsim.planners.states import States
from pushsim.planners.templates import Own, Template, own_of
from pushsim.planners.work import inventory_of, of_push, of_response
from pushsim.pricing import Pricing
from pushsim.releases import Rules
from pushsim.requests import PushRequest


class IstioPlanner:
    """See `planner.Planner`; its methods are documented there.

    Args:
        mesh: as it is at the start, with the environment and mesh config of the control plane.
        changes: those to come.
        rules: the release.
        mode: the xDS mode; None for the release's own.
        built: what pricing has built, for planners to share.
    """

    def __init__(
        self, mesh: Mesh, changes: Sequence[Change], rules: Rules, mode: Mode | None = None, built: Memo | None = None
    ) -> None:
        self._rules = rules
        late = late_proxies(mesh, changes)
        everyone = replace(mesh, proxies=(*mesh.proxies, *late))
        conversation = Conversation(everyone, rules, mode, changes)
        self._istiod = conversation.istiod
        self._course = Course(self._istiod)
        self._start = self._istiod.latest
        self._first = [outcome.plan for outcome in conversation.classes]
        self._groups = groups_of(conversation, {proxy.id for proxy in late})
        everybody = [(p, (n, at)) for n, group in enumerate(self._groups) for at, p in enumerate(group.proxies)]
        self._place = {proxy.id: place for proxy, place in everybody}
        self._by_ip = {proxy.ip: proxy.id for proxy, _ in everybody}
        self._pricing, self._cells = Pricing(mesh, rules, self._istiod.mode, built), Cells()
        self._states = States(self._groups, changes, everyone, rules)
        labels = [plan.state.labels for plan in self._first]
        self._settling = Settling(self._groups, labels, self._start, rules)
        self._connected: dict[tuple[int, int], ask.Planned] = {}
        self._begin()
        for number, group in enumerate(self._groups):
            if group.late < group.size:
                self.connect(number, -1)

    def forks(self, count: int) -> list[IstioPlanner]:
        """Independent copies of one that has handled nothing yet: the replicas of a run."""
        course = Course(self._istiod.fork())
        return [self._fork(course) for _ in range(count)]

    def _fork(self, course: Course) -> IstioPlanner:
        copy = shallow(self)
        copy._course = course
        copy._istiod, copy._states = self._istiod.fork(), self._states.fork()
        copy._settling, copy._connected = self._settling.fork(), dict(self._connected)
        copy._begin()
        return copy

    def _begin(self) -> None:
        """Nothing is handled yet."""
        # by their numbers; what `keep` lets go is no more in the dictionaries
        self._requests: list[tuple[PushRequest, int]] = []
        self._told: list[Change] = []  # since the last push
        self._named: dict[int, Named] = {}
        self._pushed: dict[int, int] = {}  # by change, the first push of it
        self._intervals = Intervals(self._rules)
        self._pushes: dict[int, Push] = {}
        self._plans: dict[tuple[int, int, int, int, bool], ask.Planned] = {}
        self._alike: dict[tuple[int, int, int, int], ask.Planned] = {}  # of whom nothing is told that is their own
        self._touched: dict[tuple[int, int], Collection[int] | None] = {}
        self._greetings: dict[Hashable, Template] = {}  # by state, push and kind
        self._examples: dict[tuple[int, int, int], tuple[Plan, Template | None]] = {}  # by state and interval
        self._kindred: dict[tuple[Hashable, int, int], tuple[Plan, Template, ProxyState]] = {}  # and the state before
        self._templates: dict[tuple[int, int, int, tuple[int, ...]], Template] = {}  # and kind

    @property
    def groups(self) -> Sequence[ask.Group]:
        return self._groups

    @property
    def sotw(self) -> bool:
        return self._istiod.mode == "sotw"

    # ---- handlers and pushes

    def handle(self, change: int, written: Change) -> ask.Handled:
        before = self._istiod.registry.store.objects
        gone = [self._place[i] for i in (proxy_id(r) for r in written.delete if r in before) if i in self._place]
        new = [o for o in written.apply if o.ref.kind == "Pod" and o.ref not in before]
        joined = [self._place[i] for i in (proxy_id(o.ref) for o in new) if i in self._place]
        requests = []
        keys: set[ConfigKey] = set()
        touched = self._istiod.registry.retargeted(written)
        self._told.append(written)
        # a Service is there before the EndpointSlice controller writes its slices
        asked = self._istiod.handle(written, services_first=True)
        self._states.disturb(touched, self._istiod.registry)
        for request in asked:
            own = self._by_ip.get(request.proxy) if request.proxy else None
            if request.proxy and (own is None or self._place[own] in joined):
                continue  # nobody with that address is connected
            self._requests.append((request, change))
            keys |= request.keys
            hosts = [key.name for key in request.keys if key.kind in HOST_KINDS]
            owners = frozenset(owners_of_hosts(hosts, self._istiod.latest.context))
            requests.append(
                ask.Request(
                    endpoints_only=request.endpoints_only(self._rules),
                    evicts=partial(self._cells.evicted, owners) if hosts else None,
                    proxies=(self._place[own],) if own is not None else (),
                    keys=len(request.keys),
                )
            )
        if change in self._named:
            keys |= self._named[change].keys
        self._named[change] = Named.by(frozenset(keys))
        endpoints = sum(len(o.body.get("endpoints") or ()) for o in written.apply if o.ref.kind == "EndpointSlice")
        work = {"handler.events": len(written.apply) + len(written.delete), "handler.endpoints": endpoints}
        return ask.Handled(tuple(requests), work, tuple(joined), tuple(gone))

    def push(self, requests: Sequence[int]) -> ask.Push:
        merged = self._istiod.merge(self._requests[r][0] for r in requests) or PushRequest(forced=True)
        changes = tuple(dict.fromkeys(self._requests[r][1] for r in requests))
        number = self._intervals.add(merged, changes)
        for change in changes:
            self._pushed.setdefault(change, number)
        before = self._istiod.latest.context
        self._states.start()
        self._course = self._course.step(tuple(self._told), merged, self._istiod)
        self._told.clear()
        made = self._pushes[number] = self._istiod.adopt(self._course.push)
        self._settling.pushed(number, merged, made)
        everything = merged.everything(self._rules) or any(key.kind == "EnvoyFilter" for key in merged.keys)
        evicts = partial(self._cells.evicted, frozenset(owners_of_keys(merged.keys, made)))
        context = made.context
        work = context.memo.once(lambda: of_push(before, context, merged.keys), "work")  # its course tells the rest
        return ask.Push(number, work, evicts, everything)

    def keep(self, states: Collection[tuple[int, int]], push: int, since: int) -> None:
        taken = since - 1  # by everybody
        self._states.keep(states, self._settling.after(taken))
        self._settling.keep(since)
        self._pushes = {number: made for number, made in self._pushes.items() if number >= push}
        self._connected = {key: planned for key, planned in self._connected.items() if key[1] >= push}
        self._greetings.clear()
        self._plans = {key: planned for key, planned in self._plans.items() if key[3] >= push}
        self._alike = {key: planned for key, planned in self._alike.items() if key[3] >= push}
        self._intervals.keep(push)
        self._touched = {key: groups for key, groups in self._touched.items() if key[1] >= push}
        self._examples = {key: example for key, example in self._examples.items() if key[2] >= push}
        self._kindred = {key: known for key, known in self._kindred.items() if key[2] >= push}
        self._templates = {key: template for key, template in self._templates.items() if key[2] >= push}

    # ---- proxies

    def connect(self, group: int, push: int) -> ask.Planned:
        if (group, push) not in self._connected:
            made, at = self._first[group], self._start
            if push >= 0:
                at = self._pushes[push]
                made = self._istiod.connect(self._groups[group].proxies[0], at)
            self._connected[group, push] = self._greeted(group, push, made, at)
        return self._connected[group, push]

    def _greeted(self, group: int, push: int, made: Plan, at: Push) -> ask.Planned:
        """A first conversation, from that of another sidecar that is in the same state thereafter."""
        number, state = self._states.number(group, made.state), made.state
        work = {"proxy.targets": len(state.targets)}
        own = own_of(made, state, at, self._pricing, work) if state.proxy.type == "sidecar" else None
        key = (number, push, own.kind if own else None)
        if own is not None and (known := self._greetings.get(key)) is not None:
            return known.of(own)
        responses = tuple(self._response(r, state, at, ()) for r in made.responses)
        planned = ask.Planned(True, number, responses, {"proxy.states": 1, **work}, self._scope(state, at))
        if own is not None:
            self._greetings[key] = Template(planned, own)
        return planned

    def plan(self, group: int, state: int, first: int, last: int, forced: bool) -> ask.Planned:
        request = self._intervals.request(first, last, forced)
        if takes_up_scope(request, self._rules):
            state = self._states.settle(group, state)
        key = (group, state, first, last, forced)
        if key not in self._plans:
            shared = self._states.shares(group, state, request, self._istiod.registry)
            alike = (state, self._states.targets(group, state), first, last)
            planned = self._alike.get(alike) if shared else None
            if planned is None:
                planned = self._by_example(group, state, first, last, request) if shared else None
                planned = planned or self._plan(group, state, first, last, request)
                if shared and all(response.xds == "EDS" for response in planned.responses):
                    planned = self._alike[alike] = replace(planned, common=True)
            self._plans[key] = planned
        return self._plans[key]

    def alike(self, group: int, state: int) -> int:
        return self._states.alike(group, state)

    def concerned(self, first: int, last: int) -> Collection[int]:
        return self._states.concerned(self._intervals.request(first, last))

    def settled(self, group: int, state: int) -> int:
        return self._states.settled(group, state)

    def touched(self, first: int, last: int) -> Collection[int] | None:
        if (first, last) not in self._touched:
            groups = self._settling.touched(first, last)
            self._touched[first, last] = None if groups is None else groups.union(self.concerned(first, last))
        return self._touched[first, last]

    def scopes(self, push: int) -> ask.Scopes:
        return self._settling.scopes(push)

    def apart(self) -> Collection[int]:
        return self._states.apart

    def _by_example(self, group: int, state: int, first: int, last: int, request: PushRequest) -> ask.Planned | None:
        """What a sidecar gets for pushes that do to it what they do to others in its state, as another's plan tells."""
        push, example = self._pushes[last], self._examples.get((state, first, last))
        if example is None:
            like, planned, template = self._example(group, state, first, last, request)
            self._examples[state, first, last] = like, template
            return planned
        like, template = example
        after = self._states.as_of(group, state, like.state)
        own = self._own(like, after, request, push) if template is not None else None
        if template is None or own is None:
            return None
        of_kind = self._templates.get((state, first, last, own.kind))
        if of_kind is None:
            of_kind = (
                template if own.kind == template.own.kind else template.told(like, own, after, push, self._pricing)
            )
            self._templates[state, first, last, own.kind] = of_kind
        return of_kind.of(own)

    def _example(
        self, group: int, state: int, first: int, last: int, request: PushRequest
    ) -> tuple[Plan, ask.Planned, Template | None]:
        """The plan that is the example for all in a state, from that for a state of another namespace if one is known.

        No template: it is an example for nobody.
        """
        before, push = self._states.of(group, state), self._pushes[last]
        after, decision = decided(before, request, push)
        key = kindred(before, after, request) if decision.needed else None
        known = self._kindred.get((key, first, last)) if key is not None else None
        if known is not None:
            found = self._from_kindred(group, *known[:2], before, after, request, push)
            if found is not None:
                return found[0], found[1].planned, found[1]
        made = answered(after, decision, push)
        planned = self._planned(group, state, before, made, first, last, request)
        own = self._own(made, made.state, request, push)
        template = Template(planned, own) if own is not None else None
        if key is not None and template is not None:
            self._kindred[key, first, last] = made, template, before
        return made, planned, template

    def _from_kindred(
        self,
        group: int,
        like: Plan,
        template: Template,
        before: ProxyState,
        refreshed: ProxyState,
        request: PushRequest,
        push: Push,
    ) -> tuple[Plan, Template] | None:
        mine = {name: getattr(refreshed, name) for name in ("proxy", "labels", "targets", "base", "scope", "previous")}
        after = replace(like.state, **mine)
        made = replace(like, state=after)
        own = self._own(made, after, request, push)
        if own is None:
            return None
        told = template.told(made, own, after, push, self._pricing)
        planned = replace(
            told.planned,
            state=self._states.number(group, after),
            scope=self._scope(after, push) if after.scope is not before.scope else None,
            responses=tuple(
                replace(r, view=self._cells.view(of, after)) if r.xds == "RDS" else r  # cached by namespace
                for r, of in zip(told.planned.responses, made.responses, strict=True)
            ),
        )
        return made, replace(told, planned=planned)

    def _own(self, like: Plan, state: ProxyState, request: PushRequest, push: Push) -> Own | None:
        return own_of(like, state, push, self._pricing, self._targeting(state, request))

    def _targeting(self, state: ProxyState, request: PushRequest) -> ask.Counts:
        """The work of looking up its services again; none where the state is not computed."""
        if request.endpoints_only(self._rules):
            return {}
        return {"proxy.targets": len(state.targets) if recomputes_targets(request, state.proxy, self._rules) else 0}

    def _plan(self, group: int, state: int, first: int, last: int, request: PushRequest) -> ask.Planned:
        before = self._states.of(group, state)
        return self._planned(group, state, before, plan(before, request, self._pushes[last]), first, last, request)

    def _planned(
        self, group: int, state: int, before: ProxyState, planned: Plan, first: int, last: int, request: PushRequest
    ) -> ask.Planned:
        push = self._pushes[last]
        after, decision = planned.state, planned.decision
        work = {"proxy.filters": 1, "proxy.keys": len(request.keys)}
        if not request.endpoints_only(self._rules):
            work |= {"proxy.states": 1, **self._targeting(after, request)}
        scope = self._scope(after, push) if after.scope is not before.scope else None
        if not decision.needed:
            after = self._spared(group, before, after, first, last)
        number = state if after is before else self._states.number(group, after)
        if not decision.needed:
            return ask.Planned(False, number, work=work, scope=scope)
        changes = self._intervals.changes(first, last)
        shown = shown_by(planned, before, {c: self._named[c] for c in changes if self._pushed[c] >= first})
        return ask.Planned(
            needed=True,
            state=number,
            responses=tuple(self._response(r, after, push, shown.get(i, ())) for i, r in enumerate(planned.responses)),
            work=work,
            scope=scope,
            causes=tuple(c for c in changes if self._named[c].lets_through(decision)),
        )

    def _spared(self, group: int, before: ProxyState, after: ProxyState, first: int, last: int) -> ProxyState:
        """The state of one that is spared; if the pushes do not touch it, it may keep the scope that it had."""
        if after.scope is before.scope or after.proxy.type != "sidecar" or after.targets != before.targets:
            return after
        key = self._pushes[last].scopes.key(after.proxy, after.labels)
        if not self._settling.untouched(key, first, last) or group in self.concerned(first, last):
            return after
        return before if before.settled else replace(before, previous=None)

    # ---- states, scopes and responses as the machine knows them

    def _scope(self, state: ProxyState, push: Push) -> ask.Scope:
        """The scope a proxy takes up, with the work of building it, to be paid by its first user."""
        return self._settling.scope(push.scopes, push.scopes.key(state.proxy, state.labels))

    def _response(self, response: Response, state: ProxyState, push: Push, shows: tuple[int, ...]) -> ask.Response:
        return ask.Response(
            response.xds,
            response.count,
            self._pricing.size(response, state, push),
            len(response.removed),
            response.solicited,
            self._cells.view(response, state),
            of_response(response, state),
            shows,
        )

    # ---- what is held

    def shape(self, group: int, state: int, push: int) -> ask.Shape:
        return self._states.shape(group, state, self._pushes[push].context if push >= 0 else self._start.context)

    def inventory(self) -> ask.Counts:
        return inventory_of(self._istiod.registry)
