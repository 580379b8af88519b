"""Which cores istiod has for itself, and which are left for its clients."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pushsim.errors import InputError, Problem


@dataclass(frozen=True, slots=True)
class Cores:
    """Which cores istiod has for itself, and which the clients have. None: the system does not pin."""

    istiod: tuple[int, ...] | None
    clients: tuple[int, ...] | None

    @property
    def shared(self) -> bool:
        """Whether they get into each other's way."""
        return self.istiod is None or not set(self.istiod).isdisjoint(self.clients or ())


def allot(cpus: float, wanted: Sequence[int] | None = None) -> Cores:
    """Cores for an istiod with `cpus`: those wanted, else the last ones, and at least one is left for the clients.

    Raises InputError for cores that there are not.
    """
    if not hasattr(os, "sched_getaffinity"):
        return Cores(None, None)
    mine = sorted(os.sched_getaffinity(0))
    if wanted is not None:
        if missing := sorted(set(wanted) - set(mine)):
            raise InputError(Problem(f"there is no core {missing[0]}", field="--cores", remedy=f"choose from {mine}"))
        taken = tuple(sorted(set(wanted)))
    else:
        taken = tuple(mine[-max(1, min(math.ceil(cpus), len(mine) - 1)) :])
    return Cores(taken, tuple(core for core in mine if core not in taken) or taken)


@contextlib.contextmanager
def pinned(cores: Sequence[int] | None) -> Iterator[None]:
    """This process, too, keeps off istiod's cores."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
