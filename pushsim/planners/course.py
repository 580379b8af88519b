"""What istiods have in common that are told and push the same."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from pushsim import planner as ask
from pushsim.mesh import Change, Ref
from pushsim.plan import Istiod
from pushsim.planners.answers import Answers
from pushsim.requests import PushRequest


class Moments:
    """Numbers of all that istiods have been told: equal for those that were told the same in the same order."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[int, int, Ref | None], int] = {}

    def after(self, moment: int, change: int, written: Change) -> int:
        """The number of a moment and a change (or a part of it, known by what it writes first) that is told then."""
        first = written.apply[0].ref if written.apply else None
        return self._numbers.setdefault((moment, change, first), len(self._numbers) + 1)


class Step(NamedTuple):
    """A push: the moment it is made, the request, and the changes that are pushed."""

    moment: int
    request: PushRequest
    changes: tuple[int, ...]


class _Need(NamedTuple):
    """What one planner still needs: see `planner.Planner.keep`."""

    states: Collection[tuple[int, int]]
    push: int
    since: int


class Course:
    """Pushes, made once for all istiods that make the same, and what their proxies are answered.

    PushContexts are made of the registry of an istiod that belongs to no planner and goes with the first that pushes:
    so what has not changed is the very same in all of them.

    Args:
        istiod: one that has pushed nothing yet; it is nobody else's from now on.
        answers: likewise.
        moments: of the run.
        planners: how many planners follow it.
    """

    def __init__(self, istiod: Istiod, answers: Answers, moments: Moments, planners: int) -> None:
        self.answers, self.moments = answers, moments
        self._istiod, self._planners = istiod, planners
        self._pushed = 0
        self._steps: dict[int, tuple[Step, ask.Push]] = {}  # all that not everybody has made are among them
        self._needs: dict[int, _Need] = {}  # by planner

    def push(
        self, planner: int, number: int, step: Step, told: Sequence[Change], istiod: Istiod
    ) -> tuple[Course, ask.Push]:
        """A planner makes its push of that number: what it follows from then on, and the push.

        Args:
            told: changes since its last push, in order.
            istiod: its own, after them.
        """
        if number == self._pushed:
            for change in told:
                self._istiod.handle(change, services_first=True)
            before = self._istiod.latest
            made = self.answers.pushed(step.request, step.changes, before, self._istiod.push(step.request))
            self._steps[number] = step, made
            self._pushed += 1
            return self, made
        known, made = self._steps[number]
        if known == step:
            return self, made
        self._planners -= 1
        self._needs.pop(planner, None)
        apart = Course(istiod.fork(), self.answers.fork(number), self.moments, 1)
        apart._pushed = number
        return apart.push(planner, number, step, (), istiod)

    def keep(self, planner: int, states: Collection[tuple[int, int]], push: int, since: int) -> None:
        """Forget what no planner needs any more."""
        self._needs[planner] = _Need(states, push, since)
        if len(self._needs) == self._planners:
            needs = self._needs.values()
            oldest, earliest = min(need.push for need in needs), min(need.since for need in needs)
            self.answers.keep(set().union(*(need.states for need in needs)), oldest, earliest)
            self._steps = {number: step for number, step in self._steps.items() if number > oldest}
