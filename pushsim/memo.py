"""Values that are made once, and kept as long as their owner lives, and all that they are made of."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from operator import is_
from typing import Any, TypeVar
from weakref import ref

_T = TypeVar("_T")


def same(some: Sequence[object], others: Sequence[object]) -> bool:
    """Whether these are the very same objects, in the same order."""
    return some is others or (len(some) == len(others) and all(map(is_, some, others)))


class Memo:
    """Values made once each.

    A key has values, compared as usual, and `of`: objects told apart by identity. A value is forgotten when one of them
    is no more, since nobody can ask for it then; those to which there are no weak references are kept alive with it
    (an id alone could be that of a later object).
    """

    __slots__ = ("__weakref__", "_made")

    def __init__(self) -> None:
        self._made: dict[tuple[Hashable, ...], tuple[Any, tuple[object, ...]]] = {}

    def made(self, full: tuple[Hashable, ...]) -> Any:
        """The value of a key that `once` has made, None if it has not; `full`: the ids of `of`, then the key."""
        entry = self._made.get(full)
        return None if entry is None else entry[0]

    def keep(self, full: tuple[Hashable, ...], value: Any, of: tuple[object, ...]) -> None:
        """Remember the value of a key, as `once` would, and all of `of`; `full`: as above."""
        self._made[full] = (value, of)

    def once(self, make: Callable[[], _T], *key: Hashable, of: tuple[object, ...] = ()) -> _T:
        """The value of a key; `make` makes it when it is asked for first."""
        full = (*map(id, of), *key) if of else key
        entry = self._made.get(full)
        if entry is None:
            entry = self._made[full] = (make(), self._held(full, of) if of else of)
        value: _T = entry[0]
        return value

    def _held(self, full: tuple[Hashable, ...], of: tuple[object, ...]) -> tuple[object, ...]:
        """What is kept of the objects that a value is made of."""
        forget = partial(_forget, ref(self), full)
        return tuple(ref(each, forget) if type(each).__weakrefoffset__ else each for each in of)

    def latest(self, make: Callable[[], _T], *key: Hashable, of: Sequence[object]) -> _T:
        """The value of a key as made of these very objects; of each key only the last is kept."""
        full = ("latest", *key)
        entry = self._made.get(full)
        if entry is None or not same(entry[1], of):
            entry = self._made[full] = (make(), tuple(of))
        value: _T = entry[0]
        return value


def _forget(memo: ref[Memo], full: tuple[Hashable, ...], _: object) -> None:
    known = memo()
    if known is not None:
        known._made.pop(full, None)
