"""Who caused what: pushes, bytes and CPU by the changes behind them, shared and alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cached_property
from typing import TypeVar

from pushsim.control.machine import Machine
from pushsim.control.tally import UNSET, Plan, PushRecord

_Key = TypeVar("_Key")
#: Proxy pushes, bytes and core ns.
Share = list[Fraction]
NO_SHARE: Share = [Fraction(0)] * 3


class Attribution:
    """What a machine that has run spent, by the changes that caused it.

    What several changes caused together is split evenly among them (`caused_by`), or counted only where all of them
    are one cause's (`caused_alone`): the latter is what would surely not have been without that cause.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def caused_by(self, causes_of: Callable[[int], Sequence[_Key]]) -> dict[_Key, Share]:
        """Proxy pushes, bytes and core ns by what caused them; `causes_of` a change by its number.

        What several changes caused together is split evenly among them, and a change's part among its causes.
        """
        sums: dict[tuple[_Key, int], list[int]] = {}  # by cause and into how many parts the amounts are divided
        for numbers, amounts in self.by_changes.items():
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
        for numbers, amounts in self.by_changes.items():
            causes = {cause for number in numbers for cause in causes_of(number)}
            if len(causes) == 1:
                (cause,) = causes
                share = found.get(cause, NO_SHARE)
                found[cause] = [so_far + amount for so_far, amount in zip(share, amounts, strict=True)]
        return found

    @cached_property
    def by_changes(self) -> dict[tuple[int, ...], list[int]]:
        """Proxy pushes, bytes and core ns by the changes that caused them together."""
        found: dict[tuple[int, ...], list[int]] = {}
        for plan, numbers in self.caused:
            amounts = found.setdefault(numbers, [0, 0, 0])
            amounts[0] += plan.taken if plan.planned.needed else 0
            amounts[1] += sent_bytes(plan)
            amounts[2] += plan.core_ns()
        return found

    @cached_property
    def caused(self) -> list[tuple[Plan, tuple[int, ...]]]:
        """The plans of pushes that were used while counting, with the changes that caused them."""
        merged = Merged(self._machine.tally.pushes)
        used = (plan for plan in self._machine.plans if plan.first != UNSET and (plan.taken or any(plan.sent)))
        return [(plan, tuple(plan.planned.causes) or merged.changes(plan)) for plan in used]


class Merged:
    """Which changes an interval of pushes contains."""

    def __init__(self, pushes: Sequence[PushRecord]) -> None:
        self._of = {(push.replica, push.number): push.changes for push in pushes}
        self._known: dict[tuple[int, int, int], tuple[int, ...]] = {}

    def changes(self, plan: Plan) -> tuple[int, ...]:
        """The changes of its pushes that were made while counting, in order."""
        key = (plan.replica, plan.first, plan.last)
        if key not in self._known:
            numbers = range(max(0, plan.first), plan.last + 1) if plan.first != UNSET else range(0)
            found = dict.fromkeys(c for number in numbers for c in self._of.get((plan.replica, number), ()))
            self._known[key] = tuple(found)
        return self._known[key]


def sent_bytes(plan: Plan) -> int:
    """Bytes sent by all uses of a plan."""
    return sum(times * r.size_bytes for times, r in zip(plan.sent, plan.planned.responses, strict=True))
