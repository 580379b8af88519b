"""Values that are made once, and kept as long as their owner lives."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from operator import is_
from typing import Any, TypeVar

_T = TypeVar("_T")


def same(some: Sequence[object], others: Sequence[object]) -> bool:
    """Whether these are the very same objects, in the same order."""
    return len(some) == len(others) and all(map(is_, some, others))


class Memo:
    """Values made once each.

    A key has values, compared as usual, and `of`: objects told apart by identity, which are kept alive with the value
    (an id alone could be that of a later object).
    """

    __slots__ = ("_made",)

    def __init__(self) -> None:
        self._made: dict[tuple[Hashable, ...], tuple[Any, tuple[object, ...]]] = {}

    def made(self, full: tuple[Hashable, ...]) -> Any:
        """The value of a key that `once` has made, None if it has not; `full`: the ids of `of`, then the key."""
        entry = self._made.get(full)
        return None if entry is None else entry[0]

    def keep(self, full: tuple[Hashable, ...], value: Any, of: tuple[object, ...]) -> None:
        """Remember the value of a key, as `once` would; `full`: as above."""
        self._made[full] = (value, of)

    def once(self, make: Callable[[], _T], *key: Hashable, of: tuple[object, ...] = ()) -> _T:
        """The value of a key; `make` makes it when it is asked for first."""
        full = (*map(id, of), *key) if of else key
        entry = self._made.get(full)
        if entry is None:
            entry = self._made[full] = (make(), of)
        value: _T = entry[0]
        return value

    def latest(self, make: Callable[[], _T], *key: Hashable, of: Sequence[object]) -> _T:
        """The value of a key as made of these very objects; of each key only the last is kept."""
        full = ("latest", *key)
        entry = self._made.get(full)
        if entry is None or not same(entry[1], of):
            entry = self._made[full] = (make(), tuple(of))
        value: _T = entry[0]
        return value
