"""What istiods have in common that are told and push the same: their PushContexts, made once for all of them."""

from __future__ import annotations

from pushsim.mesh import Change
from pushsim.plan import Istiod, Push
from pushsim.requests import PushRequest

#: Changes that an istiod was told since its last push, and the request that it pushes then.
_Step = tuple[tuple[Change, ...], PushRequest]


class Course:
    """Where istiods stand that have been told and have pushed the same.

    Contexts are made of the registry of an istiod that belongs to none of them and goes with the first that pushes:
    so whoever has the same contexts has the very same.

    push: their last one.

    Args:
        istiod: one that has been told and has pushed all of that; it is nobody else's from now on.
    """

    def __init__(self, istiod: Istiod) -> None:
        self._istiod: Istiod | None = istiod
        self._ways: list[tuple[_Step, Course]] = []
        self.push: Push = istiod.latest

    def step(self, told: tuple[Change, ...], request: PushRequest, istiod: Istiod) -> Course:
        """Where one of these istiods stands after its next push.

        Args:
            told: changes since the last push, in order; istiod: that istiod as it is after them.
            request: what it pushes.
        """
        for step, course in self._ways:
            if step == (told, request):
                return course
        leading, self._istiod = self._istiod, None
        if leading is None:  # it has gone another way
            leading = istiod.fork()
        else:
            for change in told:
                leading.handle(change, services_first=True)
        leading.push(request)
        course = Course(leading)
        self._ways.append(((told, request), course))
        return course
