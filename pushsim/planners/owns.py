"""What of states is groups' own, by version: how often that has changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass

from pushsim.mesh import ConfigKey
from pushsim.plan import ProxyState
from pushsim.registry import Target


@dataclass(frozen=True, slots=True)
class Own:
    """What of a state is a group's own: its services, their keys, how many of its ports they use, its labels, and the
    clusters made for it."""

    targets: tuple[Target, ...]
    labels: Mapping[str, str]
    base: frozenset[str]
    keys: frozenset[ConfigKey]
    inbound: int

    @classmethod
    def of(cls, state: ProxyState) -> Own:
        """That of a state."""
        keys = frozenset(target.service.key for target in state.targets)
        inbound = len({target.target_port for target in state.targets})
        return cls(state.targets, state.labels, state.base, keys, inbound)

    def says_the_same(self, other: ProxyState | Own) -> bool:
        """Whether it is the own of a state, or like another one."""
        return self.targets == other.targets and self.labels == other.labels and self.base == other.base


class Owns:
    """What groups have had of their own: of most, what they began with and nothing since. Copies share that.

    Args:
        first: by group, what those begin with that are there at the start.
    """

    def __init__(self, first: Mapping[int, Own]) -> None:
        self._first = {group: (own,) for group, own in first.items()}
        self._since: dict[int, tuple[Own, ...]] = {}  # of groups that have had another, all
        self._first_of_key: dict[ConfigKey, list[int]] = {}  # groups with a service of that key
        #: how many versions were added
        self.added = 0
        self._since_of_key: dict[ConfigKey, frozenset[int]] = {}
        for group, own in first.items():
            for key in own.keys:
                self._first_of_key.setdefault(key, []).append(group)

    def fork(self) -> Owns:
        """An independent copy."""
        other = copy(self)
        other._since, other._since_of_key = dict(self._since), dict(self._since_of_key)
        return other

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Owns) and self._first is other._first and self._since == other._since

    __hash__ = None  # type: ignore[assignment]

    def of(self, group: int) -> tuple[Own, ...]:
        """What a group has had, by version."""
        return self._since.get(group) or self._first.get(group) or ()

    def add(self, group: int, state: ProxyState | Own) -> int:
        """The version of what a group has of its own in a state, which it never had before."""
        own, known = state if isinstance(state, Own) else Own.of(state), self.of(group)
        self.added += 1
        self._since[group] = (*known, own)
        for key in own.keys:
            self._since_of_key[key] = self._since_of_key.get(key, frozenset()) | {group}
        return len(known)

    def concerned(self, keys: Iterable[ConfigKey]) -> set[int]:
        """Groups whose services these keys name, or named once."""
        found = set[int]()
        for key in keys:
            found.update(self._first_of_key.get(key, ()), self._since_of_key.get(key, ()))
        return found
