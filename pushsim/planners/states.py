"""States of proxies by number, shared by groups that differ only in what is their own."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from itertools import count

from pushsim import planner as ask
from pushsim.context import PushContext
from pushsim.gateways import MergedGateway
from pushsim.memo import same as are_same
from pushsim.mesh import ConfigKey
from pushsim.names import ClusterNames
from pushsim.plan import ASKS_NOTHING, Listening, Plan, ProxyState, recomputes_targets
from pushsim.planners.owns import Own, Owns
from pushsim.planners.work import shape_of
from pushsim.registry import Registry
from pushsim.releases import Rules
from pushsim.requests import PROXY_UPDATE, PushRequest
from pushsim.visibility import Scope, Scopes, alike


@dataclass(frozen=True, slots=True)
class Numbers:
    """Where numbers come from, so that each means one thing in all courses of a run: see `planner.Planner`."""

    states: count[int] = field(default_factory=count)
    alike: count[int] = field(default_factory=count)
    scopes: count[int] = field(default_factory=lambda: count(1))

    def fork(self) -> Numbers:
        """The same again, for another run."""
        return Numbers(copy(self.states), copy(self.alike), copy(self.scopes))


class States:
    """The states of all groups' proxies.

    A state is numbered by what groups may share (scope, names, listeners) and by the version of what is their own:
    how often that has changed. Gateways, and groups in which single proxies tell, share with nobody.

    Args:
        groups: of the planner; first: by group, the first conversation before any push.
        asked: label keys that tell proxies apart (see `Conversation.asked`).
        rules: the release.
        numbers: of the run.
    """

    def __init__(
        self,
        groups: Sequence[ask.Group],
        first: Sequence[Plan],
        asked: Sequence[str],
        rules: Rules,
        numbers: Numbers,
    ) -> None:
        self._groups, self._rules, self._given = groups, rules, numbers
        self._asked = asked
        there = ((number, plan) for number, plan in enumerate(first) if groups[number].late < groups[number].size)
        self._owns = Owns({number: Own.of(plan.state) for number, plan in there})
        self._states: dict[int, ProxyState] = {}
        self._versions: dict[int, int] = {}
        self._numbers: dict[tuple[object, ...], int] = {}
        self._names: dict[frozenset[str], ClusterNames] = {}
        self._listening: dict[Hashable, Listening] = {}
        self._gateways: dict[int, list[MergedGateway]] = {}  # by group
        self._group_of: dict[int, int] = {}  # by state, the first that was in it
        self._others: list[ProxyState] = []  # whose parts have other identities: what is in `_numbers` must live
        self._alike: dict[tuple[int, int, int, int], int] = {}
        self._steadied: dict[int, int] = {}
        self._same: dict[int, int] = {}  # numbers of what has another as well, and that one
        self._of_namespace: dict[str, list[int]] = {}
        for number, group in enumerate(groups):
            if group.proxies[0].type == "sidecar":
                self._of_namespace.setdefault(group.proxies[0].namespace, []).append(number)
        self._started = False
        self._changed: set[int] = set()

    def fork(self, numbers: Numbers) -> States:
        """An independent copy."""
        other = copy(self)
        other._given = numbers
        other._owns = self._owns.fork()
        other._changed = set(self._changed)
        other._states, other._versions, other._numbers = dict(self._states), dict(self._versions), dict(self._numbers)
        other._alike, other._steadied, other._same = dict(self._alike), dict(self._steadied), dict(self._same)
        other._names, other._listening = dict(self._names), dict(self._listening)
        other._gateways = {group: list(of) for group, of in self._gateways.items()}
        other._group_of, other._others = dict(self._group_of), list(self._others)
        return other

    def adopts(self, other: States) -> bool:
        """Take over states that there are elsewhere, if groups have had the same of their own there; else False."""
        if self._owns != other._owns:
            return False
        for number in other._states.keys() - self._states.keys():
            group = other._group_of[number]
            self._enter(number, group, other._versions[number], self._of_shared_parts(group, other._states[number]))
        for number, one in other._same.items():
            self._join(number, one)
        for number, steady in other._steadied.items():  # which may have a later scope there than here
            self._join(steady, self._steadied.setdefault(number, steady))
        self._changed |= other._changed
        return True

    def one(self, number: int) -> int:
        """The number that a state goes by: it may have several, from several courses, or since it was not like others.

        All that is told of states goes by it; who has another may go on asking by that.
        """
        while number in self._same:
            number = self._same[number]
        return number

    def _enter(self, number: int, group: int, version: int, state: ProxyState) -> None:
        """A state has that number, and goes by it if it has no older one."""
        self._states[number], self._versions[number], self._group_of[number] = state, version, group
        self._join(number, self._numbers.setdefault(self._key(group, version, state), number))

    def _join(self, number: int, other: int) -> None:
        """Two numbers are of states that say the same."""
        first, later = sorted((self.one(number), self.one(other)))
        if first != later:
            self._same[later] = first

    def of(self, group: int, number: int) -> ProxyState:
        """That state, as the proxies of a group have it."""
        return self.as_of(group, number, self._states[number])

    def as_of(self, group: int, number: int, state: ProxyState) -> ProxyState:
        """A state, or what pushes made of it that changed nobody's own, as the proxies of a group have it."""
        own, proxy = self._own_at(group, number), self._groups[group].proxies[0]
        if state.proxy is proxy:
            return state
        return state.owned(proxy, own.labels, own.targets, own.base)

    def number(self, group: int, state: ProxyState) -> int:
        """The number of a state; states that say the same have one, however their proxies came to it."""
        version, state = self._version(group, state), _steadied(state)
        key = self._key(group, version, state)
        if key not in self._numbers:
            same = self._of_shared_parts(group, state)
            shared = self._key(group, version, same)
            if shared not in self._numbers:
                self._enter(next(self._given.states), group, version, same)
            self._numbers[key] = self._numbers[shared]
            self._others.append(state)
        return self.one(self._numbers[key])

    def _key(self, group: int, version: int, state: ProxyState) -> tuple[object, ...]:
        """Equal for states that say the same, if their parts are the very same objects."""
        told: tuple[object, ...] = (group, id(state.gateway), id(state.previous_gateway))
        if state.proxy.type == "sidecar":
            told = (state.proxy.naming, *(state.labels.get(key) for key in self._asked))
        return version, told, state.asks if state.asks is not ASKS_NOTHING else None, *_parts(state)

    def _of_shared_parts(self, group: int, state: ProxyState) -> ProxyState:
        """That state, its parts the very objects in which other states have the same ones."""
        names, given = self._names, (state.watched, state.clusters, state.listening)
        watched, clusters = (names.setdefault(of.names, of) for of in given[:2])
        listening = self._listening.setdefault(state.listening.content, state.listening)
        same = state
        if not are_same(given, (watched, clusters, listening)):
            same = replace(state, watched=watched, clusters=clusters, listening=listening)
        if state.proxy.type == "sidecar":
            return same
        known = self._gateways.setdefault(group, [])
        before, now = _same_of(state.previous_gateway, known), _same_of(state.gateway, known)
        return replace(same, gateway=now, previous_gateway=before)

    def met(
        self, other: States, used: Iterable[tuple[int, int]], had: Scopes, have: Scopes
    ) -> dict[tuple[int, int], int]:
        """Numbers here of states of another course, by group and number there.

        Args:
            used: of these, groups, each with a state that one of its proxies is in.
            had: the scopes that its proxies had taken up last. Settled ones that have older ones hold the same.
            have: those of this course that hold the same.
        """
        self._know_by(have)
        found: dict[tuple[int, int], int] = {}
        shared: dict[tuple[int, int], int] = {}  # by number, and version of what is groups' own
        for group, number in used:
            sidecar = self._groups[group].proxies[0].type == "sidecar"
            of = number, self._version(group, other._own_at(group, number))
            if sidecar and of in shared:
                found[group, number] = shared[of]
                continue
            state = other.of(group, number)
            if (state.steady and sidecar) or state.scope is had.of(state.proxy, state.labels):
                state = replace(state, scope=have.of(state.proxy, state.labels))
            found[group, number] = shared[of] = self.number(group, state)
        return found

    def _know_by(self, scopes: Scopes) -> None:
        """Steady states that say the same with the scopes of another push are known by these, too."""
        for number, state in self._states.items():
            if not state.steady or state.proxy.type != "sidecar":
                continue
            own, scope = state.scope, scopes.of(state.proxy, state.labels)
            if scope is not own and alike(scope, own) and are_same(scope.routed, own.routed):
                self._others.append(replace(state, scope=scope))
                key = self._key(self._group_of[number], self._versions[number], self._others[-1])
                self._join(number, self._numbers.setdefault(key, number))

    def _version(self, group: int, state: ProxyState | Own) -> int:
        known = self._owns.of(group)
        for version, own in enumerate(known):
            if own.says_the_same(state):
                if self._started and version + 1 < len(known):
                    self._changed.add(group)
                return version
        if self._started:
            self._changed.add(group)
        return self._owns.add(group, state)

    def shares(self, group: int, number: int, request: PushRequest, registry: Registry) -> bool:
        """Whether a request does to a group in that state what it does to others: nothing in it is its own matter."""
        own, proxy = self._own_at(group, number), self._groups[group].proxies[0]
        if proxy.type != "sidecar" or PROXY_UPDATE in request.reasons or not request.keys.isdisjoint(own.keys):
            return False
        if request.endpoints_only(self._rules) or not recomputes_targets(request, proxy, self._rules):
            return True
        return registry.targets(proxy) == own.targets

    def alike(self, group: int, number: int, kind: int) -> int:
        """A number for groups with as many services and ports of their own, of that kind, in the same state."""
        own = self._own_at(group, number)
        key = (number, len(own.targets), own.inbound, kind)
        if key not in self._alike:
            self._alike[key] = next(self._given.alike)
        return self._alike[key]

    def own(self, group: int, number: int) -> object:
        """What is a group's own in that state: one object in all courses that have it from one."""
        return self._own_at(group, number)

    @property
    def recorded(self) -> int:
        """How many versions of what is groups' own there have been since the start."""
        return self._owns.added

    def concerned(self, request: PushRequest) -> set[int]:
        """Groups whose own services a request is about."""
        return self._owns.concerned(request.keys)

    def steadied(self, group: int, number: int) -> int:
        """That state without the scope before its own, which is nothing to pushes that make it take up a new one."""
        if self._states[number].steady:
            return number
        if number not in self._steadied:
            self._steadied[number] = self.number(group, replace(self.of(group, number), previous=None))
        return self.one(self._steadied[number])

    def steady(self, group: int, number: int) -> int:
        """See `planner.Planner`; proxies whose scope holds what the one before held, by how many services they have."""
        is_sidecar = self._groups[group].proxies[0].type == "sidecar"
        return self.targets(group, number) if is_sidecar and self._states[number].steady else -1

    def depended_on(self, number: int, keys: Iterable[ConfigKey]) -> bool:
        """Whether the scope before that of a state depended on one of these."""
        previous = self._states[number].previous
        return previous is not None and any(previous.depends_on(key) for key in keys)

    def _is_relabelled(self, group: int) -> bool:
        """Whether its labels have ever changed: it may have another scope than it began with."""
        first, *others = self._owns.of(group)
        return any(own.labels != first.labels for own in others)

    @property
    def changed(self) -> set[int]:
        """Groups of which what is their own has changed for some proxies, and may not have for others."""
        return self._changed

    def start(self) -> None:
        """The first push is made: whoever connects from now on is apart."""
        self._started = True

    def astray(self, namespace: str, registry: Registry) -> tuple[set[int], set[int]]:
        """The groups of a namespace, and those of them that belong to other services by now."""
        here = self._of_namespace.get(namespace, ())
        known = ((group, owns[-1].targets) for group in here if (owns := self._owns.of(group)))
        return set(here), {g for g, targets in known if registry.targets(self._groups[g].proxies[0]) != targets}

    def _own_at(self, group: int, number: int) -> Own:
        return self._owns.of(group)[self._versions[number]]

    def targets(self, group: int, number: int) -> int:
        """How many service ports the proxies of a group have in that state."""
        return len(self._own_at(group, number).targets)

    def keep(self, used: Collection[tuple[int, int]], scopes: Scopes) -> None:
        """Forget all other states.

        used: groups, each with a state that one of its proxies is in.
        scopes: what proxies had after a push that all have taken. Settled ones that have older scopes were spared
                by all pushes since, so these hold the same.
        """
        kept = {of for _, number in used for of in (number, self.one(number))}
        changed = (of for of in used if of[0] in self._changed)
        behind = {group for group, number in changed if self._versions[number] + 1 < len(self._owns.of(group))}
        relabelled = {group for group in self._changed if self._is_relabelled(group)}
        self._changed &= behind | relabelled  # all others have taken up what has changed
        newer = {id(state.scope): scope for n in kept if (scope := _later(state := self._states[n], scopes))}
        self._versions = {n: version for n, version in self._versions.items() if n in kept}
        self._alike = {key: number for key, number in self._alike.items() if key[0] in kept}
        self._group_of = {n: group for n, group in self._group_of.items() if n in kept}
        self._same = {n: one for n in self._same if (one := self.one(n)) in kept}
        self._numbers, self._others = {}, []
        states, self._states = self._states, {}
        for number in kept:
            self._enter(number, self._group_of[number], self._versions[number], _renewed(states[number], newer))
        self._steadied = {n: self.one(m) for n, m in self._steadied.items() if n in kept and self.one(m) in kept}
        self._forget_parts()

    def _forget_parts(self) -> None:
        """Of what states share, only what some state has."""
        used = {id(part) for state in self._states.values() for part in _shareable(state)}
        self._names = {of: names for of, names in self._names.items() if id(names) in used}
        self._listening = {of: listening for of, listening in self._listening.items() if id(listening) in used}
        self._gateways = {group: [g for g in known if id(g) in used] for group, known in self._gateways.items()}
        self._others.clear()

    def shape(self, group: int, number: int, context: PushContext) -> ask.Shape:
        """What the proxies of a group hold in that state, with the endpoints of a push."""
        state, inbound = self._states[number], self._own_at(group, number).inbound
        held = state.scope.content if state.proxy.type == "sidecar" else (state.scope,)
        of = (*held, state.clusters, state.listening, state.gateway)
        return context.memo.once(lambda: shape_of(state, inbound, context), "shape", inbound, of=of)


def _parts(state: ProxyState) -> Iterator[int]:
    """What groups may share of a state, told apart by identity."""
    return map(id, (state.scope, state.previous, state.watched, state.clusters, state.listening))


def _steadied(state: ProxyState) -> ProxyState:
    """That state, without a scope before its own of which all says the same that is asked of it."""
    scope, previous = state.scope, state.previous
    if previous is None or state.proxy.type != "sidecar":
        return state
    same = scope.memo.once(lambda: alike(scope, previous), "like the one before", of=(previous,))
    return replace(state, previous=None) if same else state


def _same_of(gateway: MergedGateway, known: list[MergedGateway]) -> MergedGateway:
    """One of those known that says the same in the same order, else that one, which is known then."""
    for same in known:
        if same is gateway or (same == gateway and list(same.routes) == list(gateway.routes)):
            return same
    known.append(gateway)
    return gateway


def _shareable(state: ProxyState) -> tuple[object, ...]:
    """What of it may say the same as that of another."""
    return state.watched, state.clusters, state.listening, state.gateway, state.previous_gateway


def _later(state: ProxyState, scopes: Scopes) -> Scope | None:
    """The scope of a state, if it is steady, as a later push made it that has spared it."""
    later = scopes.context.number > state.scope.context.number
    if not later or not state.steady or state.proxy.type != "sidecar":
        return None
    return scopes.of(state.proxy, state.labels)


def _renewed(state: ProxyState, newer: Mapping[int, Scope]) -> ProxyState:
    """A state with later scopes that hold the same: of its own if it is steady, else of the one before."""
    own, previous = id(state.scope) if state.steady else 0, id(state.previous)
    if own in newer:
        return replace(state, scope=newer[own])
    return replace(state, previous=newer[previous]) if previous in newer else state
