"""Who caused what: pushes, bytes and CPU by the changes behind them, shared and alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import TypeVar

_Key = TypeVar("_Key")
#: Proxy pushes, bytes and core ns.
Share = list[Fraction]
NO_SHARE: Share = [Fraction(0)] * 3


class Attribution:
    """What a machine that has run spent, by the changes that caused it (`control.sums.Sums.caused`).

    What several changes caused together is split evenly among them (`caused_by`), or counted only where all of them
    are one cause's (`caused_alone`): the latter is what would surely not have been without that cause.
    """

    def __init__(self, caused: Mapping[tuple[int, ...], Sequence[int]]) -> None:
        self._caused = caused

    def caused_by(self, causes_of: Callable[[int], Sequence[_Key]]) -> dict[_Key, Share]:
        """Proxy pushes, bytes and core ns by what caused them; `causes_of` a change by its number.

        What several changes caused together is split evenly among them, and a change's part among its causes.
        """
        sums: dict[tuple[_Key, int], list[int]] = {}  # by cause and into how many parts the amounts are divided
        for numbers, amounts in self._caused.items():
            for number in numbers:
                causes = causes_of(number)
                for cause in causes:
                    undivided = sums.setdefault((cause, len(numbers) * len(causes)), [0, 0, 0])
                    for place, amount in enumerate(amounts):
                        undivided[place] += amount
        found: dict[_Key, Share] = {}
        for (cause, parts), undivided in sums.items():
            share = found.get(cause, NO_SHARE)
            found[cause] = [so_far + Fraction(amount, parts) for so_far, amount in zip(share, undivided, strict=True)]
        return found

    def caused_alone(self, causes_of: Callable[[int], Sequence[_Key]]) -> dict[_Key, Share]:
        """Proxy pushes, bytes and core ns that one cause alone is behind."""
        found: dict[_Key, Share] = {}
        for numbers, amounts in self._caused.items():
            causes = {cause for number in numbers for cause in causes_of(number)}
            if len(causes) == 1:
                (cause,) = causes
                share = found.get(cause, NO_SHARE)
                found[cause] = [so_far + amount for so_far, amount in zip(share, amounts, strict=True)]
        return found
