"""States of proxies by number, shared by groups that differ only in what is their own."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pushsim import planner as ask
from pushsim.conversation import selector_keys
from pushsim.mesh import Change, ConfigKey, Mesh
from pushsim.plan import ProxyState, recomputes_targets
from pushsim.planners.work import shape_of
from pushsim.registry import Registry, Target
from pushsim.releases import Rules
from pushsim.requests import PROXY_UPDATE, PushRequest


@dataclass(frozen=True, slots=True)
class _Own:
    """What of a state is a group's own: its services, their keys, how many of its ports they use, its labels, and the
    clusters made for it."""

    targets: tuple[Target, ...]
    labels: Mapping[str, str]
    base: frozenset[str]
    keys: frozenset[ConfigKey]
    inbound: int


class States:
    """The states of all groups' proxies.

    A state is numbered by what groups may share (scope, names, listeners) and by the version of what is their own:
    how often that has changed. Gateways, and groups in which single proxies tell, share with nobody.

    Args:
        groups: of the planner.
        changes: those to come, for the labels that selectors ask for.
        mesh: as istiod starts with it.
        rules: the release.
    """

    def __init__(self, groups: Sequence[ask.Group], changes: Iterable[Change], mesh: Mesh, rules: Rules) -> None:
        self._groups, self._rules = groups, rules
        written = [*mesh.objects.values(), *(o for change in changes for o in change.apply)]
        self._asked = sorted(selector_keys(o for o in written if o.ref.kind not in ("Service", "Gateway")))
        self._own: list[list[_Own]] = [[] for _ in groups]
        self._states: dict[int, ProxyState] = {}
        self._versions: list[int] = []
        self._numbers: dict[tuple[object, ...], int] = {}
        self._shapes: dict[tuple[int, int], ask.Shape] = {}

    def of(self, group: int, number: int) -> ProxyState:
        """That state, as the proxies of a group have it."""
        state, own, proxy = self._states[number], self._own_at(group, number), self._groups[group].proxies[0]
        if state.proxy is proxy:
            return state
        return replace(state, proxy=proxy, targets=own.targets, labels=own.labels, base=own.base)

    def number(self, group: int, state: ProxyState) -> int:
        """The number of a state."""
        version = self._version(group, state)
        told: tuple[object, ...] = (group, id(state.gateway), id(state.previous_gateway))
        if state.proxy.type == "sidecar":
            told = tuple(state.labels.get(key) for key in self._asked)
        parts = (state.scope, state.previous, state.watched, state.clusters, state.listening)
        key = (version, told, *map(id, parts))
        if key not in self._numbers:
            self._numbers[key] = len(self._versions)
            self._states[len(self._versions)] = state
            self._versions.append(version)
        return self._numbers[key]

    def _version(self, group: int, state: ProxyState) -> int:
        known = self._own[group]
        for version, own in enumerate(known):
            if own.targets == state.targets and own.labels == state.labels and own.base == state.base:
                return version
        keys = frozenset(target.service.key for target in state.targets)
        inbound = len({target.target_port for target in state.targets})
        known.append(_Own(state.targets, state.labels, state.base, keys, inbound))
        return len(known) - 1

    def shares(self, group: int, number: int, request: PushRequest, registry: Registry) -> bool:
        """Whether a request does to a group in that state what it does to others: nothing in it is its own matter."""
        own, proxy = self._own_at(group, number), self._groups[group].proxies[0]
        if proxy.type != "sidecar" or PROXY_UPDATE in request.reasons or not request.keys.isdisjoint(own.keys):
            return False
        if request.endpoints_only(self._rules) or not recomputes_targets(request, proxy, self._rules):
            return True
        return registry.targets(proxy) == own.targets

    def _own_at(self, group: int, number: int) -> _Own:
        return self._own[group][self._versions[number]]

    def targets(self, group: int, number: int) -> int:
        """How many service ports the proxies of a group have in that state."""
        return len(self._own_at(group, number).targets)

    def keep(self, numbers: Collection[int]) -> None:
        """Forget all other states, but not their shapes that were asked for."""
        kept = set(numbers)
        self._states = {number: state for number, state in self._states.items() if number in kept}
        self._numbers = {key: number for key, number in self._numbers.items() if number in kept}

    def shape(self, group: int, number: int) -> ask.Shape:
        """What the proxies of a group hold in that state."""
        key = (number, self._own_at(group, number).inbound)
        if key not in self._shapes:
            self._shapes[key] = shape_of(self._states[number], key[1])
        return self._shapes[key]
