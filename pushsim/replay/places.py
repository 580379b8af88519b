"""Where a replay's changes are written, and which istiod it watches: ours with a stub API, or somebody's that runs.

A `Board` takes changes: `stub.Cluster` does, `Nobody` leaves the cluster alone (`--observe`), `Kubernetes` writes to a
real API server, into namespaces of its own. A `Server` is the istiod: `istiod.Istiod` or `istiod.Remote`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from pushsim.errors import EnvironmentProblem
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


class Server(Protocol):
    """An istiod that is watched."""

    release: str
    grpc: str

    @property
    def pid(self) -> int:
        """Its process id, 0 if it is not on this machine."""

    @property
    def alive(self) -> bool:
        """Whether it is known to run."""

    async def metrics_text(self) -> str:
        """Its metrics, "" if they can't be had."""

    def problem(self, what: str) -> EnvironmentProblem:
        """An error about it."""

    async def gone(self) -> None:
        """Returns when it has ended."""


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
