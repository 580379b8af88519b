"""`Asker`: who asks."""

from __future__ import annotations

from dataclasses import dataclass

from pushsim.plan import Istiod
from pushsim.planners.showing import Named


@dataclass(slots=True)
class Asker:
    """An istiod that asks, as it is now.

    named:  what the changes that it has been told name.
    moment: equal for those that have been told the same.
    """

    istiod: Istiod
    named: dict[int, Named]
    moment: int
