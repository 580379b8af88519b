"""Where a replay's changes are written, and which istiod it watches: ours with a stub API, or somebody's that runs.

A `Board` takes changes: `stub.Cluster` does, `Nobody` leaves the cluster alone (`--observe`), `Kubernetes` writes to a
real API server, into namespaces of its own. A `Server` is the istiod: our own `Replicas`, or a `Remote` one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pushsim.errors import EnvironmentProblem
from pushsim.istiod import Pages
from pushsim.mesh import Change, Ref


class Board(Protocol):
    """What changes are written to."""

    @property
    def version(self) -> int:
        """Counts writes."""

    def held(self, ref: Ref) -> Mapping[str, Any] | None:
        """The object as it is, None if there is none."""

    async def write_in_order(self, change: Change) -> None:
        """Write a change, object by object."""

    def delivered(self) -> bool:
        """Whether istiod has been told all of it, as far as can be known."""


class Watchable(Protocol):
    """An istiod, or all of them, of which it can be seen whether something is under way."""

    @property
    def pids(self) -> Sequence[int]:
        """Its process ids, as far as they are on this machine."""

    @property
    def alive(self) -> bool:
        """Whether all that should run is known to."""

    async def pages(self) -> Pages:
        """Its metrics, none if they can't be had. Raises EnvironmentProblem."""

    def problem(self, what: str) -> EnvironmentProblem:
        """An error about it."""


class Server(Watchable, Protocol):
    """The istiods of a replay. ours: they are our own processes, and nobody else's."""

    ours: bool

    def cpu_s(self) -> Sequence[float]:
        """CPU seconds of each replica so far; none if they are not on this machine. Raises EnvironmentProblem."""

    def resident(self) -> Sequence[int]:
        """Resident bytes of each that runs; none if they are not on this machine. Raises EnvironmentProblem."""

    async def gone(self) -> EnvironmentProblem:
        """Returns when one has ended that was not to: the error that tells it."""


class Nobody:
    """Nothing is written: the cluster's own changes are watched."""

    version = 0

    def held(self, _ref: Ref) -> Mapping[str, Any] | None:
        """Nothing is known of it."""
        return None

    async def write_in_order(self, _change: Change) -> None:
        """Nothing."""

    def delivered(self) -> bool:
        """There is nothing to deliver."""
        return True
