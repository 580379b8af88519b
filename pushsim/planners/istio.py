"""`IstioPlanner`: one istiod replica.

It knows what that istiod has been told, and numbers its requests. Pushes and answers it has in common with others, as
long as they push the same (`Course`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from copy import copy as shallow
from dataclasses import replace
from functools import partial

from pushsim import planner as ask
from pushsim.conversation import Conversation
from pushsim.memo import Memo
from pushsim.mesh import Change, ConfigKey, Mesh, Mode, Object
from pushsim.planners.answers import Answers
from pushsim.planners.askers import Asker
from pushsim.planners.cells import HOST_KINDS, Cells
from pushsim.planners.course import Course, Shared, Step
from pushsim.planners.proxies import Places, groups_of, late_proxies, proxy_id
from pushsim.planners.states import Numbers, States
from pushsim.planners.templates import Own
from pushsim.planners.touching import Touching
from pushsim.planners.work import inventory_of
from pushsim.pricing import Pricing
from pushsim.releases import Rules
from pushsim.requests import PushRequest

#: By what is asked and kind, an answer and what in it is its own.
_Firsts = dict[tuple[tuple[int, ...], tuple[int, ...]], tuple[Own, ask.Planned]]


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
        late = late_proxies(mesh, changes)
        everyone = replace(mesh, proxies=(*mesh.proxies, *late))
        conversation = Conversation(everyone, rules, mode, changes)
        istiod, start = conversation.istiod, conversation.istiod.latest
        self._rules = rules = istiod.rules
        first = [outcome.plan for outcome in conversation.classes]
        self._places = Places(conversation, mesh, changes)
        self._groups = groups_of(conversation, {proxy.id for proxy in late}, self._places)
        everybody = [(p, (n, at)) for n, group in enumerate(self._groups) for at, p in enumerate(group.proxies)]
        self._place = {proxy.id: place for proxy, place in everybody}
        self._by_ip = {proxy.ip: proxy.id for proxy, _ in everybody}
        pricing, self._cells = Pricing(mesh, rules, istiod.mode, built), Cells()
        numbers = Numbers()
        states = States(self._groups, first, conversation.asked, rules, numbers)
        touching = Touching(self._groups, [plan.state.labels for plan in first], start, rules, numbers)
        answers = Answers(self._groups, first, start, states, touching, pricing, self._cells, rules, numbers)
        self._follow(Course(istiod, answers, Shared(), {0}), 0, Asker(istiod, {}, 0))
        for number, group in enumerate(self._groups):
            if group.late < group.size:
                self.connect(number, -1)

    def forks(self, count: int) -> list[IstioPlanner]:
        """Independent copies of one that has been told nothing yet: the replicas of a run."""
        istiod = self._asker.istiod
        course = Course(istiod.fork(), self._course.answers.fork(), Shared(), range(count))
        copies = [shallow(self) for _ in range(count)]
        for number, copy in enumerate(copies):
            copy._follow(course, number, Asker(istiod.fork(), {}, 0))
        return copies

    def _follow(self, course: Course, number: int, asker: Asker) -> None:
        """Nothing is handled yet."""
        self._course, self._number, self._asker = course, number, asker
        self._requests: dict[int, tuple[PushRequest, int]] = {}  # that are not pushed, by number, with the change
        self._requested = 0
        self._told: list[Change] = []  # since the last push
        self._pushes = self._ahead = 0  # so many of its pushes the course has not made
        self._waiting, self._pushed = set[int](), set[int]()  # changes that are to be pushed for the first time; others
        self._meant: dict[tuple[int, int], int] = {}  # by group and number, what the course calls a state
        self._astray: set[int] = set()  # groups whose proxies may belong to other services when they are pushed next
        # what it was answered first; what `keep` lets go is no more in them
        self._connected: dict[tuple[int, int], ask.Planned] = {}
        self._plans: dict[tuple[int, int, int, int, bool], ask.Planned] = {}
        # of each kind the first answer, for those that are told the same: by state and push, and by state and interval
        self._greetings: _Firsts = {}
        self._examples: _Firsts = {}

    @property
    def groups(self) -> Sequence[ask.Group]:
        return self._groups

    @property
    def sotw(self) -> bool:
        return self._asker.istiod.mode == "sotw"

    # ---- handlers and pushes

    def handle(self, change: int, written: Change) -> ask.Handled:
        asker, istiod, named = self._asker, self._asker.istiod, self._asker.named
        before = istiod.registry.store.objects
        gone = [self._place[i] for i in (proxy_id(r) for r in written.delete if r in before) if i in self._place]
        new = [o for o in written.apply if o.ref.kind == "Pod" and o.ref not in before]
        pods = {i: o for o in new if (i := proxy_id(o.ref)) in self._place}
        joined = [self._place[i] for i in pods]
        requests = []
        keys: set[ConfigKey] = set()
        touched = istiod.registry.retargeted(written)
        self._told.append(written)
        asker.moment = self._course.shared.moments.after(asker.moment, change, written)
        # a Service is there before the EndpointSlice controller writes its slices
        asked = istiod.handle(written, services_first=True)
        for namespace in touched:
            here, astray = self._course.answers.states.astray(namespace, istiod.registry)
            self._astray = self._astray - here | astray
        for request in asked:
            own = self._by_ip.get(request.proxy) if request.proxy else None
            if request.proxy and (own is None or self._place[own] in joined):
                continue  # nobody with that address is connected
            if not request.proxy:  # one for a proxy takes no Push
                self._requests[self._requested] = request, change
                if change not in self._pushed:
                    self._waiting.add(change)
            self._requested += 1
            keys |= request.keys
            hosts = [key.name for key in request.keys if key.kind in HOST_KINDS]
            owners = self._course.answers.came.owners_of_hosts(hosts, istiod.latest.context)
            requests.append(
                ask.Request(
                    endpoints_only=request.endpoints_only(self._rules),
                    evicts=partial(self._cells.evicted, owners) if hosts else None,
                    proxies=(self._place[own],) if own is not None else (),
                    keys=len(request.keys),
                )
            )
        if change in named:
            keys |= named[change].keys
        named[change] = self._course.shared.named(frozenset(keys))
        endpoints = sum(len(o.body.get("endpoints") or ()) for o in written.apply if o.ref.kind == "EndpointSlice")
        located = [self._located(place, pod) for place, pod in zip(joined, pods.values(), strict=True)]
        work = {"handler.events": len(written.apply) + len(written.delete), "handler.endpoints": endpoints}
        return ask.Handled(tuple(requests), work, tuple(joined), tuple(gone), tuple(located))

    def _located(self, place: tuple[int, int], pod: Object) -> int:
        """The number of the locality of a proxy whose pod is there."""
        group, member = place
        return self._places.now(self._groups[group].proxies[member], pod, self._asker.istiod.registry)

    def push(self, requests: Sequence[int]) -> ask.Push:
        istiod, number = self._asker.istiod, self._pushes
        pushed = [self._requests.pop(r) for r in requests]
        merged = istiod.merge(request for request, _ in pushed) or PushRequest(forced=True)
        changes = tuple(dict.fromkeys(change for _, change in pushed))
        step = Step(self._asker.moment, merged, changes, frozenset(self._waiting))
        self._course, made = self._course.push(self._number, self._at(number), step, self._told, istiod)
        istiod.adopt(self._course.answers.at(self._at(number)))
        self._told, self._pushes = [], number + 1
        self._waiting.difference_update(changes)
        self._pushed.update(changes)
        return replace(made, number=number)

    def _at(self, push: int) -> int:
        """The number of a push in the course."""
        return push if push < 0 else push - self._ahead

    def _in(self, group: int, state: int) -> int:
        """The number of a state in the course."""
        return self._course.answers.states.one(self._meant.get((group, state), state))

    def _now(self, planned: ask.Planned) -> ask.Planned:
        """An answer, with the number that its state goes by now."""
        state = self._course.answers.states.one(planned.state)
        return planned if state == planned.state else replace(planned, state=state)

    def may_meet(self) -> bool:
        return self._course.older(self._number) is not None

    def keep(self, states: Collection[tuple[int, int]], push: int, since: int) -> None:
        told = {(group, self._in(group, state)) for group, state in states}
        met = self._course.met(self._number, told, self._at(push), self._at(since))
        if met is None:
            self._course.keep(self._number, told, self._at(push), self._at(since))
            self._meant = {of: meant for of, meant in self._meant.items() if of in states}
        else:
            self._meant = {(group, state): met.states[group, self._in(group, state)] for group, state in states}
            self._course, self._ahead = met.course, push - met.push
            self._asker.istiod.adopt(self._course.answers.at(met.push))
        self._connected = {key: planned for key, planned in self._connected.items() if key[1] >= push}
        self._plans = {key: planned for key, planned in self._plans.items() if key[3] >= push}
        self._examples = {key: first for key, first in self._examples.items() if key[0][2] >= push}
        self._greetings.clear()

    def concerned(self, first: int, last: int) -> Collection[int]:
        return self._course.answers.concerned(self._at(first), self._at(last))

    def touched(self, first: int, last: int) -> Collection[int] | None:
        return self._course.answers.touched(self._at(first), self._at(last))

    def spared(self, group: int, state: int, first: int, last: int) -> ask.Spared | None:
        answers = self._course.answers
        spared = answers.spared(group, self._in(group, state), self._at(first), self._at(last))
        return spared and spared._replace(state=answers.states.one(spared.state))

    def scopes(self, push: int) -> ask.Scopes:
        return self._course.answers.touching.scopes(self._at(push))

    # ---- proxies

    def connect(self, group: int, push: int) -> ask.Planned:
        if (group, push) not in self._connected:
            planned, own = self._course.answers.connect(group, self._at(push), self._asker)
            self._connected[group, push] = _shared(self._greetings, (planned.state, push), planned, own)
        planned = self._connected[group, push] = self._now(self._connected[group, push])
        return planned

    def plan(self, group: int, state: int, first: int, last: int, forced: bool) -> ask.Planned:
        answers, begin, end = self._course.answers, self._at(first), self._at(last)
        state = answers.steadied(group, self._in(group, state), begin, end, forced=forced)
        key = (group, state, first, last, forced)
        if key not in self._plans:
            answer = answers.plan(group, state, begin, end, forced, self._asker)
            self._plans[key] = _shared(self._examples, (state, first, last), *answer)
        planned = self._plans[key] = self._now(self._plans[key])
        return planned

    def alike(self, group: int, state: int) -> int:
        return self._course.answers.alike(group, self._in(group, state))

    def steady(self, group: int, state: int) -> int:
        return self._course.answers.states.steady(group, self._in(group, state))

    def apart(self) -> Collection[int]:
        return self._course.answers.states.changed | self._astray

    def shape(self, group: int, state: int, push: int) -> ask.Shape:
        return self._course.answers.shape(group, self._in(group, state), self._at(push))

    def inventory(self) -> ask.Counts:
        return inventory_of(self._asker.istiod.registry, self._course.answers.scopes(self._at(self._pushes - 1)))


def _shared(firsts: _Firsts, asked: tuple[int, ...], planned: ask.Planned, own: Own | None) -> ask.Planned:
    """An answer: the very one that the first of its kind got, if that was told the same."""
    if own is None or planned.common:
        return planned
    known, first = firsts.setdefault((asked, own.kind), (own, planned))
    return first if known == own else planned
