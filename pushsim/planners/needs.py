"""What planners that follow one course still need of it."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple


class Need(NamedTuple):
    """What somebody still needs: see `planner.Planner.keep`."""

    states: Collection[tuple[int, int]]
    push: int
    since: int


class Needs:
    """What each of some planners still needs.

    push, since: all before these is forgotten.
    """

    def __init__(self) -> None:
        self._of: dict[int, Need] = {}  # by planner
        self.push = self.since = 0

    def tell(self, planner: int, need: Need) -> None:
        """That is what a planner needs from now on."""
        self._of[planner] = need

    def drop(self, planner: int) -> None:
        """A planner needs nothing any more."""
        self._of.pop(planner, None)

    def together(self, planners: int) -> Need | None:
        """What so many planners need together; None if not all have told, or most of the rest is needed yet.

        As long as what is the oldest is needed, little would be forgotten.
        """
        needs = self._of.values()
        if len(needs) != planners:
            return None
        push, since = min(need.push for need in needs), min(need.since for need in needs)
        if (push, since) == (self.push, self.since):
            return None
        self.push, self.since = push, since
        return Need(set().union(*(need.states for need in needs)), push, since)
