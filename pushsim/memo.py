"""Values that are made once: kept as long as their owner lives (`Memo`), or the most recently used ones (`Recent`).

A key has values, compared as usual, and `of`: objects told apart by identity, which are kept alive with the value (an
id alone could be that of a later object).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

_T = TypeVar("_T")
_Key = tuple[Hashable, ...]


class Memo:
    """Values made once each."""

    def __init__(self) -> None:
        self._made: dict[_Key, tuple[Any, tuple[object, ...]]] = {}

    def once(self, make: Callable[[], _T], *key: Hashable, of: tuple[object, ...] = ()) -> _T:
        """The value of a key; `make` makes it when it is asked for first."""
        full = (*map(id, of), *key)
        entry = self._made.get(full)
        if entry is None:
            entry = self._made[full] = (make(), of)
        value: _T = entry[0]
        return value


class Recent:
    """The values used last, as long as their weights sum up to no more than a limit.

    Args:
        limit: of the sum; a single value that is heavier is kept until the next one comes.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._weight = limit, 0
        self._made: OrderedDict[_Key, tuple[Any, int, tuple[object, ...]]] = OrderedDict()

    def once(self, make: Callable[[], _T], *key: Hashable, of: tuple[object, ...] = (), weight: int = 1) -> _T:
        """The value of a key; `make` makes it when it is not known, or no more."""
        full = (*map(id, of), *key)
        entry = self._made.get(full)
        if entry is None:
            entry = self._made[full] = (make(), weight, of)
            self._weight += weight
            while self._weight > self._limit and len(self._made) > 1:
                _, (_, dropped, _) = self._made.popitem(last=False)
                self._weight -= dropped
        else:
            self._made.move_to_end(full)
        value: _T = entry[0]
        return value
