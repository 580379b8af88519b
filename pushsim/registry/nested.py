"""Mappings by key that copies of a registry share."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from types import MappingProxyType
from typing import Any, Generic, TypeVar

_Key = TypeVar("_Key", bound=Hashable)
_Inner = TypeVar("_Inner", bound=Hashable)
_T = TypeVar("_T")

_NOTHING: Mapping[Any, Any] = MappingProxyType({})


class Nested(Generic[_Key, _Inner, _T]):
    """Mappings by key; a copy shares each of them with its original until one of both writes to it.

    >>> first = Nested()
    >>> first.to_write("a")[1] = 2
    >>> other = first.fork()
    >>> other.to_write("a")[1] = 3
    >>> first.of("a")[1], other.of("a")[1]
    (2, 3)
    """

    __slots__ = ("_mine", "_of")

    def __init__(self) -> None:
        self._of: dict[_Key, dict[_Inner, _T]] = {}
        self._mine: set[_Key] = set()  # of these, the mapping is nobody else's

    def fork(self) -> Nested[_Key, _Inner, _T]:
        """An independent copy."""
        other: Nested[_Key, _Inner, _T] = Nested()
        other._of, self._mine = dict(self._of), set()
        return other

    def of(self, key: _Key) -> Mapping[_Inner, _T]:
        """The mapping of a key."""
        return self._of.get(key, _NOTHING)

    def to_write(self, key: _Key) -> dict[_Inner, _T]:
        """The same, to be written to now."""
        if key not in self._mine:
            self._of[key] = dict(self._of.get(key, ()))
            self._mine.add(key)
        return self._of[key]

    def put(self, key: _Key, mapping: dict[_Inner, _T]) -> None:
        """That is the mapping of a key from now on; nobody else has it."""
        self._of[key] = mapping
        self._mine.add(key)
