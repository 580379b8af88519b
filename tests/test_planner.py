"""The planner, which shares plans among groups and lets go of the past, against the plain conversation."""

import gc
from collections import defaultdict
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from strategies import scripts

from pushsim import releases
from pushsim.calibrate import controlplane
from pushsim.conversation import Conversation
from pushsim.manifests import parse_objects
from pushsim.mesh import Change, Mesh, Object, Proxy, Ref
from pushsim.planner import Counts, localities_of
from pushsim.planners import IstioPlanner, begun, planners
from pushsim.planners.work import ScopeWork
from pushsim.pricing import Pricing
from pushsim.requests import PushRequest
from pushsim.scenario import Scenario
from pushsim.settings import Settings, Timed, Variant

FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


NO_ENV = MappingProxyType({})


def told(response):
    return (response.xds, response.resources, response.removed, response.solicited, response.size_bytes)


def from_conversation(release, mode, mesh, changes):
    """By proxy, the responses when it connects, then those to each change."""
    rules = releases.rules(release)
    conversation, pricing = Conversation(mesh, rules, mode, changes), Pricing(mesh, rules, mode)
    for outcomes in chain([conversation.classes], (conversation.step(change).outcomes for change in changes)):
        yield {
            proxy.id: [
                (r.xds, r.count, len(r.removed), r.solicited, pricing.size(r, outcome.plan.state, outcome.push))
                for r in outcome.plan.responses
            ]
            for outcome in outcomes
            for proxy in outcome.members
        }


class Asking:
    """A planner that is asked group by group, one push per change."""

    @staticmethod
    def variant(release, mode, mesh, changes, env=NO_ENV):
        timed = tuple(Timed(n, "test", change) for n, change in enumerate(changes))
        return Variant("v", mesh, timed, Settings(release=release, mode=mode, env=env))

    def __init__(self, variant, planner=None, *, spared_first=False):
        self.planner, self.spared_first = planner or planners(variant)[0], spared_first
        greetings = [self.planner.connect(group, -1) for group in range(len(self.planner.groups))]
        self.states = [planned.state for planned in greetings]
        self.greetings = {
            proxy.id: [*map(told, planned.responses)]
            for group, planned in zip(self.planner.groups, greetings, strict=True)
            for proxy in group.proxies[: group.size - group.late]
        }
        self.requests, self.pushed, self.waiting = 0, -1, []
        self.begun, self.plans = None, []

    def step(self, number, change, *, forgetting):
        """What each group gets, by proxy."""
        self.handle(number, change)
        self.push()
        return self.answer(forgetting=forgetting)

    def handle(self, number, change):
        """A change is written. ProxyUpdates, which bypass the push, are left out."""
        handled = self.planner.handle(number, change)
        assume(not any(request.proxies for request in handled.requests))
        self.waiting += range(self.requests, self.requests + len(handled.requests))
        self.requests += len(handled.requests)
        return handled

    def push(self, but=0):
        """All that waits is pushed, but so many of the newest requests."""
        count = len(self.waiting) - but
        pushed, self.waiting = self.waiting[:count], self.waiting[count:]
        if pushed:
            self.begun = self.planner.push(pushed)

    def answer(self, *, forgetting, but=0):
        """What each group gets for all pushes that it has got nothing for, but so many of the newest, by proxy."""
        first, push = self.pushed + 1, self.begun.number - but if self.begun else -1
        if first > push:
            return {proxy.id: [] for group in self.planner.groups for proxy in group.proxies}
        self.pushed, before, answers = push, list(self.states), {}
        if self.spared_first:  # as the compiled engine asks: then some are told what others were
            for group in {group for group, state in enumerate(before) if self.planner.alike(group, state) >= 0}:
                if group not in self.planner.apart():
                    self.planner.spared(group, before[group], first, push)
        plans = [self.planner.plan(g, state, first, push, False) for g, state in enumerate(before)]
        self._kin_are_spared_together(first, push, before, plans)
        self._untouched_stay_as_they_are(first, push, before, plans)
        self.states, self.plans = [planned.state for planned in plans], plans
        for group, planned in zip(self.planner.groups, plans, strict=True):
            answers |= {proxy.id: [*map(told, planned.responses)] for proxy in group.proxies}
        if forgetting:
            self.planner.keep(set(enumerate(self.states)), push, push + 1)
        return answers

    def keep(self):
        """All that is not asked about yet is kept, but what was before it may be forgotten."""
        if self.begun:
            newest, since = self.begun.number, self.pushed + 1
            push = newest if since >= newest else newest - 1  # the newest may be left out
            self.planner.keep(set(enumerate(self.states)), push, min(since, push + 1))

    def connect(self, group):
        """What a proxy gets that comes now."""
        return self.planner.connect(group, self.begun.number if self.begun else -1)

    def _kin_are_spared_together(self, first, push, before, plans):
        apart = {*self.planner.concerned(first, push), *self.planner.apart()}
        kin = defaultdict(set)
        for group, (state, planned) in enumerate(zip(before, plans, strict=True)):
            if group not in apart and (number := self.planner.alike(group, state)) >= 0:
                kin[number].add(planned.needed)
        assert all(len(needed) == 1 for needed in kin.values())
        common = [(g, planned) for g, planned in enumerate(plans) if planned.common and g not in apart]
        said = {self.planner.alike(group, before[group]): (group, planned) for group, planned in common}
        for group, (state, planned) in enumerate(zip(before, plans, strict=True)):
            if group not in apart and (of := said.get(self.planner.alike(group, state))) is not None:
                like, first_said = of
                assert replace(planned, common=True) == first_said
                assert self.planner.alike(group, planned.state) == self.planner.alike(like, planned.state)

    def _untouched_stay_as_they_are(self, first, push, before, plans):
        touched = self.planner.touched(first, push)
        if touched is None:
            return
        others = set(range(len(before))) - {*touched, *self.planner.apart()}
        steady = {group: self.planner.steady(group, before[group]) for group in others}
        told = {}
        for group, number in steady.items():
            if number >= 0:
                spared = self.planner.spared(group, before[group], first, push)
                assert plans[group].idle and spared == (plans[group].state, number)
                assert plans[group].work == told.setdefault(number, plans[group].work)
                assert self.planner.alike(group, plans[group].state) == self.planner.alike(group, before[group])
        for group in range(len(before)):
            if self.planner.alike(group, before[group]) >= 0 and group not in self.planner.apart():
                spared = self.planner.spared(group, before[group], first, push)
                if spared is not None:
                    assert group not in touched
                    assert plans[group].idle and plans[group].state == spared.state
                    assert plans[group].work == told.setdefault(spared.like, plans[group].work)
                    steady[group] = spared.like
        taken_up = {plans[group].scope is not None for group, number in steady.items() if number >= 0}
        if True in taken_up:
            assert len(taken_up) == 1
            scopes = self.planner.scopes(push)
            for group, number in steady.items():
                assert number < 0 or plans[group].scope is scopes.scopes[scopes.slots[group]]


@pytest.mark.parametrize("mode", ["sotw", "delta"])
@FEW
@given(script=scripts(), forgetting=st.booleans(), spared_first=st.booleans())
def test_the_planner_answers_as_the_conversation_does(mode, script, forgetting, spared_first):
    release, mesh, changes = script
    asking = Asking(Asking.variant(release, mode, mesh, changes), spared_first=spared_first)
    answers = from_conversation(release, mode, mesh, changes)
    assert asking.greetings == next(answers)
    for number, want in enumerate(answers):
        assert asking.step(number, changes[number], forgetting=forgetting) == want


@pytest.mark.parametrize("mode", ["sotw", "delta"])
@FEW
@given(script=scripts())
def test_runs_that_differ_in_knobs_begin_with_the_same_and_end_alike(mode, script):
    release, mesh, changes = script
    shared = begun(Asking.variant(release, mode, mesh, changes))

    def answers(variant):
        asking = Asking(variant)
        return asking.greetings, [asking.step(n, change, forgetting=False) for n, change in enumerate(changes)]

    first, second = (
        answers(Asking.variant(release, mode, mesh, changes, {"PILOT_DEBOUNCE_AFTER": after})) for after in ("1s", "2s")
    )
    assert first == second
    assert begun(Asking.variant(release, mode, mesh, changes, {"PILOT_PUSH_THROTTLE": "7"})) is shared
    named = begun(Asking.variant(release, mode, mesh, changes, {"POD_NAME": "istiod-0"}))
    assert named is not shared
    reordered = replace(mesh, objects=dict(reversed(mesh.objects.items())))
    assert begun(Asking.variant(release, mode, reordered, changes)) is not named


@pytest.mark.parametrize("mode", ["sotw", "delta"])
@FEW
@given(script=scripts())
def test_scopes_that_are_taken_up_cost_what_building_them_from_what_they_hold_does(mode, script):
    release, mesh, changes = script
    asking, rules = Asking(Asking.variant(release, mode, mesh, changes), spared_first=True), releases.rules(release)
    conversation, before = Conversation(mesh, rules, mode, changes), -1
    for number, change in enumerate(changes):
        asking.step(number, change, forgetting=False)
        outcomes, push = conversation.step(change).outcomes, asking.pushed
        if push == before or asking.planner.touched(push, push) is None:
            continue
        before, taken_up = push, asking.planner.scopes(push)
        group_of = {p.id: n for n, group in enumerate(asking.planner.groups) for p in group.proxies}
        for outcome in outcomes:
            for proxy in outcome.members:
                group, scopes = group_of[proxy.id], outcome.push.scopes
                if taken_up.slots[group] >= 0 and group not in asking.planner.apart():
                    held = ScopeWork.of(scopes.of(proxy, outcome.plan.state.labels))
                    work = held.counts(len(scopes.context.services.ordered), rules)
                    assert taken_up.scopes[taken_up.slots[group]].work == work


@st.composite
def days_of_replicas(draw, changes):
    """By replica, what it does after each change, mostly the same. And whose turn it is, again and again."""
    kinds = st.sets(
        st.sampled_from(["connect", "push", "push all but this", "keep", "meet", "answer", "answer later", "forget"])
    )
    kinds |= st.just({"push", "answer"})
    usual = draw(st.lists(kinds, min_size=changes, max_size=changes))
    unusual = st.dictionaries(st.integers(0, changes - 1), kinds, max_size=2) if changes else st.just({})
    replicas = [
        [own.get(n, kind) for n, kind in enumerate(usual)] for own in draw(st.lists(unusual, min_size=2, max_size=4))
    ]
    turns = draw(st.permutations([number for number in range(len(replicas)) for _ in range(changes)]))
    return replicas, turns


@pytest.mark.parametrize("mode", ["sotw", "delta"])
@FEW
@given(script=scripts(most=6), data=st.data())
def test_replicas_that_are_alike_for_a_while_answer_as_each_does_alone(mode, script, data):
    """They are told the same in the same order, and push and plan now the same of it, now not."""
    release, mesh, changes = script
    days, turns = data.draw(days_of_replicas(len(changes)))
    variant = Asking.variant(release, mode, mesh, changes)
    together = replace(variant, settings=replace(variant.settings, replicas=len(days)))

    def turn(asking, number, kinds):
        handled, seen = asking.handle(number, changes[number]), []
        if "connect" in kinds:
            seen += [[*map(told, asking.connect(group).responses)] for group in range(len(asking.states))]
        if "push" in kinds:
            asking.push(but=len(handled.requests) if "push all but this" in kinds else 0)
            seen.append(asking.begun and asking.begun.work)
        if "keep" in kinds or ("meet" in kinds and asking.planner.may_meet()):
            asking.keep()
        if "answer" in kinds:
            seen.append(asking.answer(forgetting="forget" in kinds, but="answer later" in kinds))
            seen += [(p.needed, p.work, p.causes, p.scope and p.scope.work) for p in asking.plans]
            seen += [[response.shows for response in p.responses] for p in asking.plans]
        return seen

    replicas = [Asking(variant, planner) for planner in planners(together)]
    found = [[] for _ in days]
    for replica in turns:
        number = len(found[replica])
        found[replica].append(turn(replicas[replica], number, days[replica][number]))
    for day, answers in zip(days, found, strict=True):
        alone = Asking(variant)
        assert answers == [turn(alone, number, kinds - {"forget", "keep", "meet"}) for number, kinds in enumerate(day)]


def private(namespace, port):
    """A service that only its own namespace sees."""
    metadata = {"name": "a", "namespace": namespace, "annotations": {"networking.istio.io/exportTo": "."}}
    spec = {"clusterIP": "10.0.0.9", "selector": {"app": "a"}, "ports": [{"name": "http", "port": port}]}
    return parse_objects([{"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}])


@pytest.mark.parametrize("mode", ["sotw", "delta"])
def test_replicas_that_came_apart_meet_again(mode):
    """One pushes as one what the other pushes as two; where both have the same again, they share what they say."""

    ports = [("n", 81), ("o", 71), ("n", 82), ("o", 72), ("n", 83), ("o", 73)]
    changes = [Change(apply=private(*of)) for of in ports]
    proxies = tuple(Proxy(of, of, f"10.1.0.{n}") for n, of in enumerate("nop"))
    mesh = Mesh({o.ref: o for of in (private("n", 80), private("o", 70)) for o in of}, proxies)
    variant = Asking.variant("1.24", mode, mesh, changes)
    together = replace(variant, settings=replace(variant.settings, replicas=3))
    askings = [*(Asking(variant, planner) for planner in planners(together)), Asking(variant)]
    for number, change in enumerate(changes):
        answers = []
        for replica, asking in enumerate(askings):
            asking.handle(number, change)
            if number or not 0 < replica < 3:
                asking.push()
                assert asking.planner.may_meet() == (number in (2, 3) and 0 < replica < 3)
                if number == 3:
                    asking.keep()
                    assert not asking.planner.may_meet()
                answers.append(asking.answer(forgetting=False))
        assert number == 1 or all(answer == answers[-1] for answer in answers)
        first, *others, _ = (asking.states for asking in askings)
        assert others[0] == others[1]  # they came apart from the first together
        assert (others[0] == first) == (number >= 3) or not number


@pytest.mark.parametrize("mode", ["sotw", "delta"])
def test_replicas_that_came_apart_tell_what_is_a_proxys_own_apart(mode):
    """To one a service has become another twice, to the other once: then its proxies' own is not the same."""

    def service(name, *ports):
        metadata = {"name": name, "namespace": "n"}
        listed = [{"name": f"http-{port}", "port": port} for port in ports]
        spec = {"clusterIP": "10.0.0.9", "selector": {"app": name}, "ports": listed}
        return parse_objects([{"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}])

    def both(*ports):
        return [*service("a", *ports), *service("c", ports[0])]

    written = [service("b", 91), service("b", 92), both(81), service("b", 93), both(82, 83, 84), service("b", 94)]
    changes = [Change(apply=tuple(of)) for of in written]
    proxies = tuple(Proxy(of, "n", f"10.1.0.{n}", labels={"app": of}) for n, of in enumerate("ac", 1))
    mesh = Mesh({o.ref: o for o in (*both(80), *service("b", 90))}, proxies)
    variant = Asking.variant("1.24", mode, mesh, changes)
    together = replace(variant, settings=replace(variant.settings, replicas=2))
    pushing, (soon, late) = ({0, 1, 2, 3}, {1, 4, 5}), planners(together)
    askings = [(Asking(variant, planner), Asking(variant)) for planner in (soon, late)]
    for number, change in enumerate(changes):
        for pushes, (asking, alone) in zip(pushing, askings, strict=True):
            for each in (asking, alone):
                each.handle(number, change)
            if number in pushes:
                asking.push()
                alone.push()
                assert asking.answer(forgetting=False) == alone.answer(forgetting=False)


@pytest.mark.parametrize("mode", ["sotw", "delta"])
def test_a_state_has_one_number_though_replicas_that_came_apart_gave_it_two(mode):
    """Two come to it where they have come apart, by a push of before; then a third goes from the one to the other."""
    ports = [("n", 81), ("o", 71), ("o", 72), ("o", 73)]
    changes = [Change(apply=private(*of)) for of in ports]
    proxies = tuple(Proxy(of, of, f"10.1.0.{n}") for n, of in enumerate("no"))
    mesh = Mesh({o.ref: o for of in (private("n", 80), private("o", 70)) for o in of}, proxies)
    variant = Asking.variant("1.24", mode, mesh, changes)
    together = replace(variant, settings=replace(variant.settings, replicas=3))
    askings = [Asking(variant, planner) for planner in planners(together)]
    for asking in askings:
        asking.step(0, changes[0], forgetting=False)
        asking.handle(1, changes[1])
        asking.push()

    def spared(asking):
        """In n, by the push of the second change, which it is the first to take up another scope with."""
        return asking.planner.spared(0, asking.states[0], 1, 1).state

    def leave(asking):
        for number in (2, 3):
            asking.handle(number, changes[number])
        asking.push()

    stays, leaves, follows = askings
    stays.handle(2, changes[2])
    stays.push()
    leave(leaves)
    told = spared(leaves)
    assert spared(stays) != told
    leave(follows)
    planned = follows.planner.plan(0, follows.states[0], 1, 1, False)
    assert planned.state == spared(follows) == told


@pytest.mark.parametrize("mode", ["sotw", "delta"])
def test_states_that_become_the_same_go_by_one_number(mode):
    """Of two groups, one was spared by a push, the other came with it: what they take up then is the same."""
    of_o = {"name": "a", "namespace": "o", "labels": {"kubernetes.io/service-name": "a"}}
    endpoints = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": of_o, "addressType": "IPv4"}
    endpoints |= {"endpoints": [{"addresses": ["10.2.0.1"]}], "ports": [{"name": "http", "port": 70}]}
    changes = [Change(apply=of) for of in (private("o", 71), parse_objects([endpoints]), private("o", 72))]
    proxies = tuple(Proxy(of, "n", f"10.1.0.{n}", labels={"app": of}) for n, of in enumerate("ab"))
    pods = [Object(Ref("Pod", "n", of.name), {"metadata": {"labels": of.labels}}) for of in proxies]
    mesh = Mesh({o.ref: o for of in (private("n", 80), private("o", 70), pods) for o in of}, proxies)
    asking = Asking(Asking.variant("1.24", mode, mesh, changes))
    planner, groups = asking.planner, range(2)
    asking.step(0, changes[0], forgetting=False)
    spared, came = asking.states[0], asking.connect(1).state
    assert spared != came
    planner.keep({(0, spared), (1, spared), (1, came)}, 0, 1)
    for number in (1, 2):
        asking.handle(number, changes[number])
        asking.push()
        for state in (came, spared):
            told = [planner.plan(group, state, number, number, False) for group in groups]
            told += [planner.spared(group, state, number, number) for group in groups]
            assert {each.state for each in told} == {spared}
            assert planner.alike(1, state) == planner.alike(1, spared)


def test_who_comes_apart_later_than_others_takes_along_what_its_proxies_have_become_since():
    def service(port):
        metadata = {"name": "a", "namespace": "n"}
        spec = {"clusterIP": "10.0.0.9", "selector": {"app": "a"}, "ports": [{"name": "http", "port": port}]}
        return parse_objects([{"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}])

    changes = [Change(apply=service(port)) for port in (81, 82, 83)]
    mesh = Mesh({o.ref: o for o in service(80)}, (Proxy("p", "n", "10.1.0.1"),))
    variant = Asking.variant("1.24", "delta", mesh, changes)
    together = replace(variant, settings=replace(variant.settings, replicas=3))
    first, second, third = (Asking(variant, planner) for planner in planners(together))
    alone = Asking(variant)

    def both(asking):
        for number in (1, 2):
            asking.handle(number, changes[number])
        asking.push()

    for asking in (first, second, third, alone):
        asking.handle(0, changes[0])
        asking.push()
    first.step(1, changes[1], forgetting=False)
    both(second)
    answers = []
    for asking in (third, alone):
        asking.states[0], asking.pushed = asking.connect(0).state, 0
        both(asking)
        answers.append(asking.answer(forgetting=False))
    assert answers[0] == answers[1]


def hosted(namespace, port, created):
    """A ServiceEntry of the host x.com."""
    metadata = {"name": "e", "namespace": namespace, "creationTimestamp": f"2024-01-01T00:0{created}:00Z"}
    spec = {"hosts": ["x.com"], "addresses": ["10.9.0.1"], "resolution": "STATIC"}
    spec |= {"ports": [{"name": "tcp", "number": port, "protocol": "TCP"}], "endpoints": [{"address": "10.9.1.1"}]}
    return {"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": metadata, "spec": spec}


def two_listeners():
    """A Sidecar of namespace a: by port, x.com of another namespace."""
    port = {"name": "tcp", "protocol": "TCP"}
    egress = [{"hosts": [f"{of}/x.com"], "port": port | {"number": n}} for of, n in (("a", 9000), ("b", 80))]
    metadata = {"name": "default", "namespace": "a"}
    return {"apiVersion": "networking.istio.io/v1", "kind": "Sidecar", "metadata": metadata, "spec": {"egress": egress}}


@pytest.mark.parametrize(
    ("release", "scoped"), [("1.13", []), ("1.20", []), ("1.13", [two_listeners()]), ("1.24", [two_listeners()])]
)
def test_a_scope_changes_by_a_service_that_its_proxies_are_not_pushed_for(release, scoped):
    """A host's service in another namespace than that which the scope depends on: the next push shows it."""
    policy = {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": {"namespace": "a"}}
    policy["metadata"]["name"] = "own"
    objects = parse_objects([hosted("a", 9000, 0), *scoped])
    changes = [Change(apply=parse_objects([item])) for item in (hosted("b", 80, 1), policy)]
    mesh = Mesh({o.ref: o for o in objects}, (Proxy("p", "a", "10.1.0.1"),))
    asking = Asking(Asking.variant(release, "sotw", mesh, changes))
    greeted, spared, pushed = from_conversation(release, "sotw", mesh, changes)
    assert spared == {"p.a": []}
    own, later = ({xds: count for xds, count, *_ in of["p.a"]}["LDS"] for of in (greeted, pushed))
    assert later == own + 1
    assert [asking.step(number, change, forgetting=False) for number, change in enumerate(changes)] == [spared, pushed]


def test_a_replica_that_has_been_told_more_since_a_push_answers_by_that():
    def written(kind, name, spec, labels=None, **more):
        metadata = {"name": name, "namespace": "n", "labels": labels or {}}
        return {"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": spec, **more}

    def service(name, selector, port):
        return written("Service", name, {"clusterIP": "10.0.0.9", "selector": selector, "ports": [{"port": port}]})

    pod = written("Pod", "p", {}, {"app": "p"}, status={"podIP": "10.1.0.1"})
    objects = parse_objects([pod, service("other", {"app": "q"}, 80)])
    more = (service("other", {"app": "q"}, 81), service("own", {"app": "p"}, 8080))
    changes = [Change(apply=parse_objects([item])) for item in more]
    variant = Asking.variant("1.24", "sotw", Mesh({o.ref: o for o in objects}, (Proxy("p", "n", "10.1.0.1"),)), changes)
    first, second = (
        Asking(variant, planner) for planner in planners(replace(variant, settings=Settings(mode="sotw", replicas=2)))
    )
    for asking in (first, second):
        asking.handle(0, changes[0])
        asking.push()
    second.handle(1, changes[1])

    def told_all(asking):
        return [*map(told, asking.connect(0).responses)], asking.answer(forgetting=False)

    answers = [told_all(asking) for asking in (first, second)]
    alone = Asking(variant)
    alone.handle(0, changes[0])
    alone.push()
    alone.handle(1, changes[1])
    assert answers[1] == told_all(alone)
    assert answers[0][0] != answers[1][0]
    assert answers[0][1] != answers[1][1]


def test_what_is_first_read_while_a_push_prepares_its_context_is_evicted_by_it():
    def service(port):
        metadata = {"name": "a", "namespace": "n"}
        spec = {"clusterIP": "10.0.0.9", "selector": {"app": "a"}, "ports": [{"name": "http", "port": port}]}
        return parse_objects([{"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}])

    change = Change(apply=service(81))
    mesh = Mesh({o.ref: o for o in service(80)}, (Proxy("p", "n", "10.1.0.1"),))
    (planner,) = planners(Asking.variant("1.24", "sotw", mesh, [change]))
    handled = planner.handle(0, change)
    push = planner.push(range(len(handled.requests)))
    read = [r.view.cells for r in planner.connect(0, push.number).responses if r.view is not None]
    assert read
    evicted = push.evicts()
    for cells in read:
        assert set(cells.tolist()) <= {*evicted.cells.tolist(), *evicted.outdated.tolist()}


@pytest.mark.parametrize(
    ("match", "cached"),
    [({"uri": {"prefix": "/a"}}, True), ({"sourceLabels": {"app": "x"}}, False), ({"sourceNamespace": "o"}, False)],
)
def test_routes_are_cached_unless_a_virtual_service_asks_who_sends(match, cached):
    metadata = {"name": "a", "namespace": "n"}
    spec = {"clusterIP": "10.0.0.9", "ports": [{"name": "http", "port": 80}]}
    http = [{"match": [match], "route": [{"destination": {"host": "a"}}]}]
    objects = parse_objects(
        [
            {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec},
            {
                "apiVersion": "networking.istio.io/v1",
                "kind": "VirtualService",
                "metadata": {"name": "elsewhere", "namespace": "n"},
                "spec": {"hosts": ["b.example.com"], "http": http},
            },
        ]
    )
    mesh = Mesh({o.ref: o for o in objects}, (Proxy("p", "n", "10.1.0.1"),))
    (planner,) = planners(Asking.variant("1.24", "sotw", mesh, []))
    routes = next(response for response in planner.connect(0, -1).responses if response.xds == "RDS")
    assert (routes.view is not None) == cached
    assert ("rds.hosts" in routes.work) != cached


def test_what_comes_leaves_entries_in_the_cache_and_what_changes_drops_those_that_know_it():
    def service(name, target):
        spec = {"clusterIP": f"10.0.0.{ord(name)}", "ports": [{"name": "http", "port": 80, "targetPort": target}]}
        return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "n"}, "spec": spec}

    def config(kind, name, **spec):
        api = "networking.istio.io/v1"
        return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": "n"}, "spec": spec}

    def route(retries):
        to = [{"destination": {"host": "a"}}]
        return config("VirtualService", "v", hosts=["a"], http=[{"route": to, "retries": {"attempts": retries}}])

    def rule(**policy):
        return config("DestinationRule", "d", host="a", trafficPolicy=policy)

    hashing = {"loadBalancer": {"consistentHash": {"useSourceIp": True}}}
    services = [service("b", 1), service("b", 2), service("a", 2)]
    written = [*services, route(1), route(2), rule(), rule(**hashing), rule(**hashing, tls={"mode": "SIMPLE"}), rule()]
    changes = [Change(parse_objects([each])) for each in written]
    mesh = Mesh({o.ref: o for o in parse_objects([service("a", 1)])}, (Proxy("p", "n", "10.1.0.1"),))
    (planner,) = planners(Asking.variant("1.24", "sotw", mesh, changes))
    (cell,) = next(r.view.cells for r in planner.connect(0, -1).responses if r.xds == "RDS").tolist()
    found = []
    for number, change in enumerate(changes):
        first = sum(len(of) for of, _ in found)
        requests = planner.handle(number, change).requests
        push = planner.push(range(first, first + len(requests)))
        evicted = push.evicts()
        since = dict(zip(evicted.cells.tolist(), evicted.since.tolist(), strict=True)).get(cell)
        found.append((requests, "stays" if cell in evicted.outdated.tolist() else since))
    outcomes = [outcome for _, outcome in found]
    assert outcomes == ["stays", 0, -1, "stays", 3, None, "stays", 6, 6]


@pytest.mark.parametrize("mode", ["sotw", "delta"])
def test_who_was_pushed_and_who_connects_are_in_one_state_if_it_says_the_same(mode):
    """However a proxy came to its listeners and clusters; so what it costs to plan does not grow with a run's age."""

    def service(namespace, port, export_to):
        metadata = {"name": "a", "namespace": namespace, "annotations": {"networking.istio.io/exportTo": export_to}}
        spec = {"clusterIP": "10.0.0.9", "selector": {"app": "a"}, "ports": [{"name": "http", "port": port}]}
        return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}

    ports = [("n", 80), ("o", 70), ("n", 81), ("n", 80), ("o", 71)]
    written = [parse_objects([service(of, port, "*" if of == "n" else ".")]) for of, port in ports]
    mesh = Mesh({o.ref: o for of in written[:2] for o in of}, (Proxy("p", "n", "10.1.0.1"),))
    changes = [Change(apply=of) for of in written[2:]]
    asking = Asking(Asking.variant("1.24", mode, mesh, changes))
    pushed = [asking.step(number, change, forgetting=True) for number, change in enumerate(changes)]
    assert [bool(of["p.n"]) for of in pushed] == [True, True, False]
    assert asking.connect(0).state == asking.states[0]


def test_a_proxy_update_is_not_kept():
    """It takes no Push, and has the endpoints of the whole mesh with it."""

    def pod(version):
        metadata = {"name": "p", "namespace": "n", "labels": {"version": version}}
        status = {"podIP": "10.1.0.1", "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": status}

    objects = parse_objects([pod("v1")])
    changes = [Change(apply=parse_objects([pod("v2")]))]
    mesh = Mesh({o.ref: o for o in objects}, (Proxy("p", "n", "10.1.0.1", labels={"version": "v1"}),))
    (planner,) = planners(Asking.variant("1.24", "sotw", mesh, changes))
    (update,) = planner.handle(0, changes[0]).requests
    assert update.proxies
    gc.collect()
    assert not [each for each in gc.get_objects() if isinstance(each, PushRequest) and each.proxy]


def test_a_group_that_is_relabelled_stays_apart():
    """It may have another Sidecar than it began with: what is said of those that are spared alike is not said of it."""

    def pod(version):
        metadata = {"name": "p", "namespace": "n", "labels": {"version": version}}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": {"podIP": "10.1.0.1"}}

    def sidecar(version):
        metadata = {"name": version, "namespace": "n"}
        spec = {"workloadSelector": {"labels": {"version": version}}, "egress": [{"hosts": [f"{version}/*"]}]}
        return {"apiVersion": "networking.istio.io/v1", "kind": "Sidecar", "metadata": metadata, "spec": spec}

    def service(port):
        metadata = {"name": "a", "namespace": "v2"}
        spec = {"clusterIP": "10.0.0.9", "selector": {"app": "a"}, "ports": [{"name": "http", "port": port}]}
        return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}

    objects = parse_objects([pod("v1"), sidecar("v1"), sidecar("v2"), service(80)])
    changes = [Change(apply=parse_objects([item])) for item in (service(81), pod("v2"), service(82))]
    mesh = Mesh({o.ref: o for o in objects}, (Proxy("p", "n", "10.1.0.1", labels={"version": "v1"}),))
    (planner,) = planners(Asking.variant("1.24", "sotw", mesh, changes))
    requests = [
        request for number, change in enumerate(changes[:2]) for request in planner.handle(number, change).requests
    ]
    pushed = planner.push([number for number, request in enumerate(requests) if not request.proxies]).number
    state = planner.connect(0, pushed).state
    planner.keep({(0, state)}, pushed, pushed + 1)
    planner.handle(2, changes[2])
    after = planner.push([len(requests)]).number
    assert planner.plan(0, state, after, after, False).needed
    assert 0 in planner.apart()


@pytest.mark.parametrize("release", ["1.14", "1.17", "1.24", "1.30"])
def test_one_of_several_alike_that_is_relabelled_is_a_group_of_its_own(release):
    """Whatever comes before that, as its inbound clusters are of another service afterwards."""

    def pod(name, version):
        metadata = {"name": name, "namespace": "n", "labels": {"version": version, "any": version}}
        address = f"10.1.0.{name[1:]}"
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": {"podIP": address}}

    def service(version):
        metadata = {"name": version, "namespace": "n"}
        spec = {"clusterIP": f"10.0.0.{version[1:]}", "selector": {"version": version}, "ports": [{"port": 80}]}
        return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}

    pods = [pod(f"p{n}", "v1") for n in (1, 2, 3)]
    objects = parse_objects([*pods, service("v1"), service("v2")])
    twins = tuple(Proxy(f"p{n}", "n", f"10.1.0.{n}", labels={"version": "v1"}) for n in (1, 2, 3))
    mesh = Mesh({o.ref: o for o in objects}, twins)
    groups = [["p1"], ["p2"], ["p3"]]
    for changes, expected in (
        ([], [["p1", "p2", "p3"]]),
        ([[pod("p2", "v2")]], [["p1", "p3"], ["p2"]]),
        ([[pod("p1", "v2")], [pod("p1", "v1")], [pod("p2", "v1"), pod("p3", "v2")]], groups),
        (
            [[{**pods[0], "metadata": {**pods[0]["metadata"], "labels": {"version": "v1", "any": "v3"}}}]],
            [["p1", "p2", "p3"]],
        ),
    ):
        made = [Change(apply=parse_objects(written)) for written in changes]
        (planner,) = planners(Asking.variant(release, "sotw", mesh, made))
        assert [[proxy.name for proxy in group.proxies] for group in planner.groups] == expected


def test_what_a_delta_push_walks_is_counted_and_at_connecting_nothing_is_walked() -> None:
    data = dict(controlplane.probes(0.02))["TCP services"]
    for release, walked in (("1.24", True), ("1.20", False)):  # delta, SotW
        scenario = Scenario(data, Path()).replaced({"istiod.release": release})
        variant = scenario.variant(scenario.variant_names[0])
        parts, machine = controlplane.simulated_parts(variant)
        assert parts["connect"]["cds.walked"] == 0
        assert (parts["services"]["cds.walked"] > 0) == walked
        assert parts["routes"]["cds.parsed"] == 0, "VirtualServices are no matter of delta CDS: all clusters are made"
        assert parts["services"]["cds.parsed"] == parts["services"]["cds.walked"]
        assert parts["services"]["lds.ports"] >= parts["services"]["lds.tcp"] - 2 * len(machine.group_of)


def test_a_virtual_host_is_prepared_once_for_each_time_its_route_is_read() -> None:
    data = dict(controlplane.probes(0.02))["many services, nothing cached"]
    scenario = Scenario(data, Path())
    parts, _ = controlplane.simulated_parts(scenario.variant(scenario.variant_names[0]))
    for work in parts.values():
        assert work["rds.keys"] == work["rds.hosts"], "all miss"


def test_localities_of_proxies_are_those_of_their_nodes() -> None:
    generate = {"namespaces": 2, "apps": [{"name": "a", "total": 40, "pods": 3}], "zones": 2}
    data = {"mesh": {"generate": generate}, "duration": "1s", "variants": {"v": []}}
    variant = Scenario(data, Path()).variant("v")
    objects = variant.mesh.objects
    zone_of: dict[int, set[str]] = {}
    for group in planners(variant)[0].groups:
        for proxy, locality in zip(group.proxies, group.localities, strict=True):
            node = objects[Ref("Node", "", objects[Ref("Pod", proxy.namespace, proxy.name)].spec["nodeName"])]
            zone_of.setdefault(locality, set()).add(node.labels["topology.kubernetes.io/zone"])
    assert sorted(zone_of) == [0, 1]
    assert all(len(zones) == 1 for zones in zone_of.values())
    assert zone_of[0] != zone_of[1]


@pytest.mark.parametrize(("release", "served", "alone"), [("1.16", "z", ""), ("1.17", "z", "z"), ("1.24", "z", "z")])
def test_a_proxy_is_where_its_pod_is_and_comes_back_where_that_comes_back(
    release: str, served: str, alone: str
) -> None:
    """Until 1.16 istiod knows where a proxy is from its service instances: it has none, it is nowhere."""

    def node(name: str) -> Object:
        body = {"metadata": {"name": name, "labels": {"topology.kubernetes.io/region": name}}}
        return Object(Ref("Node", "", name), body)

    def pod(name: str, node: str) -> Object:
        spec = {"nodeName": node, "containers": [{"name": "istio-proxy"}]}
        body = {
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": spec,
            "status": {"podIP": "10.1.0." + str(len(name))},
        }
        return Object(Ref("Pod", "ns", name), body)

    ports = [{"name": "http", "port": 80}]
    service = Object(
        Ref("Service", "ns", "a"), {"metadata": {"name": "a"}, "spec": {"selector": {"app": "a"}, "ports": ports}}
    )
    objects = [node("z"), node("y"), pod("a", "z"), pod("alone", "z"), service]
    proxies = (
        Proxy("a", "ns", "10.1.0.1", "sidecar", {"app": "a"}),
        Proxy("alone", "ns", "10.1.0.5", "sidecar", {"app": "alone"}),
    )
    mesh = Mesh({o.ref: o for o in objects}, proxies, {}, {})
    changes = [Change((), (Ref("Pod", "ns", "a"),)), Change((pod("a", "y"),))]
    planner = IstioPlanner(mesh, changes, releases.rules(release))
    where = {proxy.name: n for g in planner.groups for proxy, n in zip(g.proxies, g.localities, strict=True)}
    assert (where["a"] == where["alone"]) == (served == alone)
    assert planner.handle(0, changes[0]).located == ()
    (back,) = planner.handle(1, changes[1]).located
    assert back not in where.values() and back < localities_of(planner.groups)


def test_an_istiod_holds_a_scope_for_each_namespace_of_its_proxies_and_an_address_once_whatever_its_ports() -> None:
    def held(policy: str, ports: int) -> Counts:
        app = {"name": "app", "per_namespace": 3, "pods": 2, "ports": {f"http-{n}": 8000 + n for n in range(ports)}}
        mesh = {"generate": {"namespaces": 4, "apps": [app]}}
        data = {"mesh": mesh, "duration": "1s", "churn": [], "variants": {"asked": (policy and [policy]) or []}}
        return planners(Scenario(data, Path()).variant("asked"))[0].inventory()

    everything = held("", 1)
    assert everything["memory.scopes"] == 4 * everything["memory.services"]
    assert held("namespace", 1)["memory.scopes"] < everything["memory.scopes"]
    assert everything["memory.endpoints"] == 24 == held("", 3)["memory.endpoints"]


def test_pushes_of_endpoints_alone_make_no_push_context() -> None:
    data = {
        "mesh": {"generate": {"namespaces": 1, "apps": [{"name": "app", "total": 2, "pods": 2}]}},
        "duration": "9s",
        "churn": [
            {"source": "crash-loop", "at": ["1s"], "down": "1s"},
            {"source": "config-push", "at": ["5s"]},
        ],
        "variants": {"unscoped": []},
    }
    variant = Scenario(data, Path()).variant("unscoped")
    parts, _ = controlplane.simulated_parts(variant)
    assert (parts["crash-loop"]["push.batches"], parts["crash-loop"]["push.contexts"]) == (2, 0)
    assert parts["config-push"]["push.contexts"] == parts["config-push"]["push.batches"] == 1


def _routing(name: str, *hosts: str, routes: int = 1) -> dict[str, object]:
    http = [{"route": [{"destination": {"host": hosts[0]}}]}] * routes
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": name, "namespace": "ns"},
        "spec": {"hosts": list(hosts), "http": http},
    }


def test_routes_of_virtual_services_are_translated_where_istiod_does() -> None:
    """At port 80 all, elsewhere those of hosts with the port; of a sniffed route its host's; cached or not."""

    def app(name: str, port: dict[str, object]) -> dict[str, object]:
        spec = {"clusterIP": f"10.0.0.{len(name)}", "ports": [port], "selector": {"app": name}}
        return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "ns"}, "spec": spec}

    written = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns"}},
        *(app("a" * n, {"name": "http", "port": port}) for n, port in ((1, 80), (2, 8080), (3, 8080))),
        *(app("s" * n, {"name": "any", "port": 9000}) for n in (5, 6, 7)),
        _routing("one", "aa", routes=2),
        _routing("two", "aaa", "sssss"),
        _routing("wild", "*.ns.svc.cluster.local", routes=3),
        _routing("elsewhere", "example.com", routes=5),
    ]
    mesh = Mesh({o.ref: o for o in parse_objects(written)}, (Proxy("p", "ns", "10.1.0.1"),))
    (planner,) = planners(Asking.variant("1.24", "delta", mesh, []))
    planned = planner.connect(0, -1)
    routes = next(each for each in planned.responses if each.xds == "RDS")
    assert routes.work["rds.routes"] == (2 + 1 + 3 + 5) + (2 + 1 + 3) + (1 + 3 + 3 + 3), "80, 8080, three sniffed"
    assert routes.work["rds.scanned"] == 3 * 3


@pytest.mark.parametrize(("release", "listed"), [("1.19", 3 * 4 + 2 * 2), ("1.20", 0)])
def test_instances_are_listed_by_looking_through_a_namespace_until_1_19(release: str, listed: int) -> None:
    """One EndpointSlice of each service, for each port: 3 services with 4 ports in one namespace, 2 with 2."""

    def service(name: str, namespace: str, *ports: int) -> list[Object]:
        spec = {"clusterIP": "10.0.0.9", "ports": [{"name": f"http-{port}", "port": port} for port in ports]}
        metadata = {"name": name, "namespace": namespace}
        return parse_objects([{"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}])

    written = [*service("a", "n", 1), *service("b", "n", 1, 2), *service("c", "o", 1), *service("d", "o", 1)]
    mesh = Mesh({o.ref: o for o in written}, (Proxy("p", "n", "10.1.0.1"),))
    changes = [Change(apply=[*service("e", "n", 1)]), Change(apply=[_rule()])]
    asking = Asking(Asking.variant(release, "delta", mesh, changes))
    asking.handle(0, changes[0])
    asking.push()
    assert asking.begun.work.get("push.listed", 0) == listed
    asking.handle(1, changes[1])
    asking.push()
    assert "push.listed" not in asking.begun.work, "the services stay as they are"


def _rule() -> Object:
    spec = {"host": "a.n.svc.cluster.local", "trafficPolicy": {"connectionPool": {"tcp": {"maxConnections": 7}}}}
    metadata = {"name": "a", "namespace": "n"}
    written = {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": metadata, "spec": spec}
    (parsed,) = parse_objects([written])
    return parsed
