"""What istiods have in common that are told and push the same.

Replicas come apart where one pushes as two what another pushes as one, and meet again: a push is the same for both if
what there was before it holds the same, and it is made of the same. Then they follow one course from there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import NamedTuple

from pushsim import planner as ask
from pushsim.context import PushContext
from pushsim.mesh import Change, ConfigKey, Ref
from pushsim.plan import Istiod, Push
from pushsim.planners.answers import Answers
from pushsim.planners.needs import Need, Needs
from pushsim.planners.showing import Named
from pushsim.requests import PushRequest
from pushsim.visibility import Scopes

#: What of a context says nothing of what it holds.
_NO_CONTENT = frozenset({"number", "scopes_at", "memo"})
_HELD = tuple(field.name for field in fields(PushContext) if field.name not in _NO_CONTENT)


class Moments:
    """Numbers of all that istiods have been told: equal for those that were told the same in the same order."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[int, int, Ref | None], int] = {}

    def after(self, moment: int, change: int, written: Change) -> int:
        """The number of a moment and a change (or a part of it, known by what it writes first) that is told then."""
        first = written.apply[0].ref if written.apply else None
        return self._numbers.setdefault((moment, change, first), len(self._numbers) + 1)


class Step(NamedTuple):
    """A push: the moment it is made, the request, the changes that are pushed, and all that never were before it."""

    moment: int
    request: PushRequest
    changes: tuple[int, ...]
    waiting: frozenset[int] = frozenset()


class Since(NamedTuple):
    """Since when a push holds what it holds, and proxies have the scopes that they have.

    parts:  of what its context holds, the moments at which they were made.
    scopes: those of the context that its scopes were made of.
    taken:  those of the scopes that proxies have.
    """

    parts: tuple[int, ...]
    scopes: tuple[int, ...]
    taken: tuple[int, ...]

    @classmethod
    def start(cls, push: Push) -> Since:
        """Of an istiod that has been told nothing."""
        parts = (0,) * len(_parts(push.context))
        return cls(parts, parts, parts)

    def then(self, moment: int, before: Push, made: Push, taken: Scopes) -> Since:
        """The same after another push. taken: the scopes that proxies have then."""
        old, new = _parts(before.context), _parts(made.context)
        parts = tuple(at if a is b else moment for at, a, b in zip(self.parts, old, new, strict=True))
        scopes = self.scopes if made.scopes is before.scopes else parts
        return Since(parts, scopes, scopes if taken is made.scopes else self.taken)


def _parts(context: PushContext) -> list[object]:
    """What a context holds, one by one; kinds of policies are made anew one by one."""
    return [*(getattr(context, name) for name in _HELD if name != "policies"), *context.policies.values()]


class Shared:
    """What all courses of a run share: the numbers of moments, where each push was made first, and what keys name."""

    def __init__(self) -> None:
        self.moments, self.courses = Moments(), 0
        self._named: dict[frozenset[ConfigKey], Named] = {}
        self.made: dict[tuple[Since, Step], tuple[Course, int]] = {}

    def course(self) -> int:
        """The number of a new course."""
        self.courses += 1
        return self.courses

    def named(self, keys: frozenset[ConfigKey]) -> Named:
        """What these keys name: one object for all changes that come again and again."""
        return self._named.get(keys) or self._named.setdefault(keys, Named.by(keys))


class Met(NamedTuple):
    """A course that a planner may follow from now on: the number of its last push there, and what states are there."""

    course: Course
    push: int
    states: Mapping[tuple[int, int], int]


class Course:
    """Pushes, made once for all istiods that make the same, and what their proxies are answered.

    PushContexts are made of the registry of an istiod that belongs to no planner and goes with the first that pushes:
    so what has not changed is the very same in all of them.

    Args:
        istiod: one that has pushed nothing yet; it is nobody else's from now on.
        answers: likewise.
        shared: of the run.
        planners: numbers of the planners that follow it.
        since: what the istiod's last push holds.
    """

    def __init__(
        self, istiod: Istiod, answers: Answers, shared: Shared, planners: Iterable[int], since: Since | None = None
    ) -> None:
        self.answers, self.shared = answers, shared
        self._istiod, self._number = istiod, shared.course()
        self._made = dict.fromkeys(planners, 0)  # by planner, how many pushes it has made
        self._pushed = 0
        self._steps: dict[int, tuple[Step, ask.Push]] = {}  # all that not everybody has made are among them
        self._needs = Needs()
        self._since = since or Since.start(istiod.latest)
        self._signs: dict[int, tuple[Since, Step]] = {}
        # courses that have left this one with a push that others may yet make, too, and who these are
        self._apart: dict[tuple[int, Step], Course] = {}
        self._awaited: set[int] = set()

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
            self._steps[number] = step, self._make(number, step)
            self._pushed += 1
        known, made = self._steps[number]
        if known != step:
            return self._leave(planner, number, step, istiod).push(planner, number, step, (), istiod)
        self._made[planner] = number + 1
        self._stays(planner, number)
        return self, made

    def _make(self, number: int, step: Step) -> ask.Push:
        before, sign = self._istiod.latest, (self._since, step)
        after = self._istiod.push(step.request)
        made = self.answers.pushed(step.request, step.changes, before, after)
        self._since = self._since.then(step.moment, before, after, self.answers.touching.after(number))
        self._signs[number] = sign
        known = self.shared.made.get(sign)
        if known is None or known[0]._number > self._number:
            self.shared.made[sign] = self, number
        return made

    # ---- coming apart

    def _leave(self, planner: int, number: int, step: Step, istiod: Istiod) -> Course:
        """The course of a planner that makes another push of that number."""
        apart = self._apart.get((number, step))
        if apart is not None and not apart.answers.adopts(self.answers, number):
            for other in set(apart._awaited):
                apart._never(other)
            apart = None
        if apart is None:
            apart = Course(istiod.fork(), self.answers.fork(number), self.shared, (), self._signs[number][0])
            apart._pushed = number
            apart._awaited = self._awaited.union(other for other, made in self._made.items() if made <= number)
            self._apart[number, step] = apart
        apart._made[planner] = number
        apart._awaited.discard(planner)
        self._gone(planner, to=apart)
        return apart

    def _gone(self, planner: int, to: Course) -> None:
        """A planner follows another course."""
        del self._made[planner]
        self._needs.drop(planner)
        for apart in self._apart.values():
            if apart is not to:
                apart._never(planner)
        self._let_go()

    def _stays(self, planner: int, number: int) -> None:
        """A planner has made its push of that number here."""
        for (at, _), apart in self._apart.items():
            if at == number:
                apart._never(planner)
        self._let_go()

    def _never(self, planner: int) -> None:
        """A planner will not come."""
        self._awaited.discard(planner)
        for apart in self._apart.values():
            apart._never(planner)
        self._let_go()

    def _let_go(self) -> None:
        self._apart = {key: apart for key, apart in self._apart.items() if apart._awaited}
        if not self._made and not self._awaited:
            self._forget_signs(self._pushed)

    # ---- meeting again

    def older(self, planner: int) -> tuple[Course, int] | None:
        """An older course that has made the last push of a planner, and its number there, if they may meet with it.

        They may if scopes are made anew with it: so the planner has been told of none of them.
        """
        number = self._made[planner] - 1
        known = self.shared.made.get(self._signs[number]) if number in self._signs else None
        if known is None or known[0]._number >= self._number or self._needs.push >= number:
            return None
        scopes, touching = self.answers.at(number).scopes, self.answers.touching
        fresh = scopes is touching.after(number) is not touching.after(number - 1)
        if not fresh or scopes is self.answers.at(number - 1).scopes or not known[0]._can_be_met(known[1]):
            return None
        return known

    def met(self, planner: int, states: Collection[tuple[int, int]], push: int, since: int) -> Met | None:
        """An older course that a planner can go on with: if nothing is to be planned of what was before its last push.

        Args:
            states, push, since: see `planner.Planner.keep`.
        """
        number, older = self._made[planner] - 1, self.older(planner)
        if older is None or not push == since == number:
            return None
        other, at = older
        before = self.answers.touching.after(number - 1)
        found = other.answers.states.met(self.answers.states, states, before, other.answers.touching.after(at - 1))
        other._made[planner] = at + 1
        other._needs.tell(planner, Need({(group, found[group, state]) for group, state in states}, at, at))
        self._gone(planner, to=other)
        return Met(other, at, found)

    def _can_be_met(self, number: int) -> bool:
        """Whether it still knows what hangs on that push and on those before it, and who leaves later leaves anew."""
        return max(self._needs.push, self._needs.since) <= number and all(at <= number for at, _ in self._apart)

    # ---- forgetting

    def keep(self, planner: int, states: Collection[tuple[int, int]], push: int, since: int) -> None:
        """Forget what no planner needs any more."""
        self._needs.tell(planner, Need(states, push, since))
        needed = None if self._awaited else self._needs.together(len(self._made))
        if needed is not None:
            self.answers.keep(*needed)
            self._steps = {number: step for number, step in self._steps.items() if number > needed.push}
            self._forget_signs(needed.push)

    def _forget_signs(self, oldest: int) -> None:
        for number in [number for number in self._signs if number < oldest]:
            sign = self._signs.pop(number)
            if self.shared.made.get(sign) == (self, number):
                del self.shared.made[sign]
