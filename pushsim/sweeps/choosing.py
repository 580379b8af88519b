"""What is worth choosing: the Pareto front of delay against CPU, its knee, and the trade-off in a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pushsim.figures import shown, unit


@dataclass(frozen=True)
class Choice:
    """Settings with what they come to. settings: knob and value, policy included."""

    settings: Mapping[str, str]
    delay: float
    cost: float

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.settings.items())


def front(choices: Sequence[Choice]) -> list[Choice]:
    """Those that no other beats in delay and cost at once, the fastest first; of equals, the first.

    >>> [c.delay for c in front([Choice({}, 1, 5), Choice({}, 2, 3), Choice({}, 2, 4), Choice({}, 3, 3)])]
    [1, 2]
    """
    best: list[Choice] = []
    for choice in sorted(choices, key=lambda choice: (choice.delay, choice.cost)):
        if not best or choice.cost < best[-1].cost:
            best.append(choice)
    return best


def knee(points: Sequence[tuple[float, float]]) -> int | None:
    """Where a falling or rising curve bends most: the point farthest from the straight line between its ends.

    points: (x, y) by rising x; both are measured in their own range. None where there is no bend: fewer than three
    points, or all on the line. Source: the distance of Satopää et al., Finding a "Kneedle" in a Haystack (2011).
    """
    if len(points) < 3:
        return None
    (x0, y0), (x1, y1) = points[0], points[-1]
    high, low = max(y for _, y in points), min(y for _, y in points)
    if x1 == x0 or high == low:
        return None

    def off_the_line(point: tuple[float, float]) -> float:
        along = (point[0] - x0) / (x1 - x0)
        return abs((point[1] - (y0 + along * (y1 - y0))) / (high - low))

    place = max(range(len(points)), key=lambda number: off_the_line(points[number]))
    return place if off_the_line(points[place]) > 1e-9 else None


def recommended(best: Sequence[Choice]) -> Choice | None:
    """The knee of a front; without one, the choice least above the least delay and the least cost, both together."""
    if not best:
        return None
    place = knee([(choice.delay, choice.cost) for choice in best])
    if place is not None:
        return best[place]
    least_delay = min((choice.delay for choice in best if choice.delay > 0), default=1.0)
    least_cost = min((choice.cost for choice in best if choice.cost > 0), default=1.0)
    return min(best, key=lambda choice: choice.delay / least_delay + choice.cost / least_cost)


def sentence(best: Sequence[Choice], delay: str, cost: str) -> str:
    """What is recommended, and what the ends of the front would give and take instead."""
    chosen = recommended(best)
    if chosen is None:
        return "No setting can be recommended: no run has both figures."
    d, c = unit(delay), unit(cost)
    told = [
        f"{chosen}: {delay} {shown(chosen.delay, d)} at {shown(chosen.cost, c)} {c if c == 'cores' else ''}".strip()
    ]
    fastest, cheapest = best[0], best[-1]
    if fastest is not chosen:
        told.append(
            f"{fastest} is faster by {shown(chosen.delay - fastest.delay, d)} and costs "
            f"{_times(fastest.cost, chosen.cost)} as much {cost}"
        )
    if cheapest is not chosen:
        told.append(
            f"{cheapest} costs {_times(cheapest.cost, chosen.cost)} as much and is slower by "
            f"{shown(cheapest.delay - chosen.delay, d)}"
        )
    if len(best) == 1:
        told.append("no other setting is faster or cheaper")
    return "; ".join(told) + "."


def _times(value: float, base: float) -> str:
    return f"{value / base:.2f} times" if base else "more than nothing:"
