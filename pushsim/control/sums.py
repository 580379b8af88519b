"""What uses of plans came to in all, so that plans which nobody takes any more need not be kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pushsim.control.tally import UNSET, Plan, PushRecord
from pushsim.cost import envoy_work
from pushsim.mesh import Xds


class Merged:
    """Which changes an interval of pushes contains. `pushes` may grow."""

    def __init__(self, pushes: Sequence[PushRecord]) -> None:
        self._pushes, self._seen = pushes, 0
        self._of: dict[tuple[int, int], tuple[int, ...]] = {}
        self._known: tuple[tuple[int, int, int], tuple[int, ...]] | None = None

    def changes(self, plan: Plan) -> tuple[int, ...]:
        """The changes of its pushes that were made while counting, in order."""
        key = (plan.replica, plan.first, plan.last)
        if self._known is None or self._known[0] != key:  # many plans in a row are of one interval
            for push in self._pushes[self._seen :]:
                self._of[push.replica, push.number] = push.changes
            self._seen = len(self._pushes)
            numbers = range(max(0, plan.first), plan.last + 1) if plan.first != UNSET else range(0)
            found = dict.fromkeys(c for number in numbers for c in self._of.get((plan.replica, number), ()))
            self._known = key, tuple(found)
        return self._known[1]

    def causes(self, plan: Plan) -> tuple[int, ...]:
        """The changes that caused it."""
        return tuple(plan.planned.causes) or self.changes(plan)


@dataclass(slots=True)
class Sums:
    """What uses of plans came to, while counting.

    responses, bytes_sent: those sent, by type, solicited ones included.
    amounts: istiod's work, by cost driver.
    envoy:   of sidecars and of gateways, Envoy's work, by coefficient.
    caused:  proxy pushes, bytes and core ns, by the changes that caused them together.
    """

    responses: Counter[Xds] = field(default_factory=Counter)
    bytes_sent: int = 0
    amounts: Counter[str] = field(default_factory=Counter)
    envoy: tuple[Counter[str], Counter[str]] = field(default_factory=lambda: (Counter(), Counter()))
    caused: dict[tuple[int, ...], list[int]] = field(default_factory=dict)

    def with_plans(self, plans: Iterable[Plan], merged: Merged, gateway: Sequence[bool]) -> Sums:
        """These and what became of some plans. gateway: by group."""
        sums = Sums(
            Counter(self.responses),
            self.bytes_sent,
            Counter(self.amounts),
            (Counter(self.envoy[0]), Counter(self.envoy[1])),
            {numbers: list(amounts) for numbers, amounts in self.caused.items()},
        )
        sums.add(plans, merged, gateway)
        return sums

    def add(self, plans: Iterable[Plan], merged: Merged, gateway: Sequence[bool]) -> None:
        """Add what became of some plans."""
        for plan in plans:
            plan.add_amounts(self.amounts)
            if plan.taken or any(plan.sent):
                self._add(plan, merged, self.envoy[gateway[plan.group]])

    def _add(self, plan: Plan, merged: Merged, envoy: Counter[str]) -> None:
        size = 0
        for response, times in zip(plan.planned.responses, plan.sent, strict=True):
            if times:
                self.responses[response.xds] += times
                size += response.size_bytes * times
                for name, amount in envoy_work(response, first=plan.first == UNSET).items():
                    envoy[name] += amount * times
        self.bytes_sent += size
        if plan.first != UNSET:
            amounts = self.caused.setdefault(merged.causes(plan), [0, 0, 0])
            amounts[0] += plan.taken if plan.planned.needed else 0
            amounts[1] += size
            amounts[2] += plan.core_ns()
