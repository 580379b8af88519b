"""Blocks: resources that proxies share as one object, with what is made of them (their bytes, their names)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator

from pushsim.memo import Memo
from pushsim.resources import Resource


class Block:
    """Some resources, or smaller blocks as one.

    parts: the smaller blocks; the smallest of clusters and assignments are of one host each, or of hosts nobody knows.
    memo:  what is made of it, by whoever makes it; kept as long as the block is.

    >>> len(Block.joined([Block(), Block()]))
    0
    """

    __slots__ = ("__weakref__", "_count", "_resources", "memo", "parts")

    def __init__(self, resources: Iterable[Resource] = ()) -> None:
        self._resources = tuple(resources)
        self.parts: tuple[Block, ...] = ()
        self._count = len(self._resources)
        self.memo = Memo()

    @classmethod
    def joined(cls, parts: Iterable[Block]) -> Block:
        """These blocks as one."""
        block = cls()
        block.parts = tuple(parts)
        block._count = sum(map(len, block.parts))
        return block

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Resource]:
        yield from self._resources
        for part in self.parts:
            yield from part

    def total(self, measure: Callable[[Block], int], *key: Hashable, of: tuple[object, ...] = ()) -> int:
        """Sum of a measure over its smallest blocks; each is measured once for a key (see `memo`)."""
        return self._total(measure, (*map(id, of), *key), of)

    def _total(self, measure: Callable[[Block], int], full: tuple[Hashable, ...], of: tuple[object, ...]) -> int:
        known: int | None = self.memo.made(full)
        if known is None:
            parts = self.parts
            known = sum([part._total(measure, full, of) for part in parts]) if parts else measure(self)
            self.memo.keep(full, known, of)
        return known


#: A response holds several of them.
Blocks = tuple[Block, ...]
