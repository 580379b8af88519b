"""Which cores the istiods have for themselves, and which are left for their clients."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pushsim.errors import InputError, Problem


@dataclass(frozen=True, slots=True)
class Cores:
    """Which cores istiod, all replicas of it, has for itself, and which the clients. None: the system does not pin."""

    istiod: tuple[int, ...] | None
    clients: tuple[int, ...] | None

    @property
    def shared(self) -> bool:
        """Whether they get into each other's way."""
        return self.istiod is None or not set(self.istiod).isdisjoint(self.clients or ())

    def of_each(self, replicas: int) -> list[Sequence[int] | None]:
        """Which cores each replica may use: as many of its own as there are, or else one with others."""
        if self.istiod is None:
            return [None] * replicas
        own = len(self.istiod) // replicas
        if not own:
            return [(self.istiod[number % len(self.istiod)],) for number in range(replicas)]
        return [self.istiod[number * own : (number + 1) * own] for number in range(replicas)]

    def cpus(self, replicas: int) -> float | None:
        """A replica's share of them; below 1 where replicas share a core. None: the system does not pin."""
        if self.istiod is None:
            return None
        return len(self.istiod) // replicas or len(self.istiod) / replicas


def allot(cpus: float, wanted: Sequence[int] | None = None, replicas: int = 1) -> Cores:
    """Cores for istiods with `cpus`: those wanted, else the last ones, and at least one is left for the clients.

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
        taken = tuple(mine[-max(1, min(math.ceil(cpus) * replicas, len(mine) - 1)) :])
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
