"""Numbers of a scenario that are taken for slips of the pen; those of a generated mesh are where it is described."""

from __future__ import annotations

from collections.abc import Iterator

from pushsim.errors import Problem
from pushsim.scenario.model import Model
from pushsim.units import SECOND_NS, duration_text

#: More of one churn source than any run would come through, in all and at once, and a longer run: slips of the pen.
MOST_ARRIVALS = 10_000_000
MOST_AT_ONCE = 500_000
MOST_NS = 366 * 24 * 3600 * SECOND_NS


def slips(model: Model, where: str) -> Iterator[Problem]:
    """Numbers larger than anybody means, which no run would come through."""
    if (span := model.warmup + model.duration) > MOST_NS:
        remedy = "what comes seldom may come more often: a year is the longest"
        yield Problem(f"the run would last {duration_text(span)}", where, "duration", remedy)
    for index, source in enumerate(model.churn):
        arrivals = len(source.at) if source.at is not None else int(span / source.gap())
        field, each = f"churn[{index}]", source.writes(span)
        if arrivals > MOST_ARRIVALS:
            remedy = f"give it less often, or a shorter duration: {MOST_ARRIVALS:,} at most"
            yield Problem(f"would come {arrivals:,} times in this run", where, field, remedy)
        elif each > MOST_AT_ONCE:
            remedy = f"give fewer: {MOST_AT_ONCE:,} at most"
            yield Problem(f"would write {each:,} objects whenever it comes", where, field, remedy)
        elif arrivals * each > MOST_ARRIVALS:
            remedy = f"give fewer, less often, or a shorter duration: {MOST_ARRIVALS:,} at most"
            yield Problem(f"would write {arrivals * each:,} objects in this run", where, field, remedy)
