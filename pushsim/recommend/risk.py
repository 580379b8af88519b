"""How far observed calls may be trusted: what was seen seldom, and what may not have been seen at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pushsim.mesh import Ref
from pushsim.topology.calls import host_of

if TYPE_CHECKING:
    from pushsim.topology.calls import Graph

_DAY_S = 86400
#: Seen no more often than this, a call is told as rare.
RARE = 3


@dataclass(frozen=True, slots=True)
class Risk:
    """What hangs on calls that were rare or never seen.

    unseen_share:   share of the calls that go to destinations not seen so far, by Good and Turing's estimate (those
                    seen once, of all); None if calls were not counted or none was seen.
    unseen_per_day: a destination that is called more often than this would have been seen, with 95 % confidence (no
                    event in T bounds a Poisson rate by 3/T); None if it is not known how long was watched.
    rare:           hosts seen at most `RARE` times.
    silent:         no call was ever seen from there.
    """

    unseen_share: float | None
    unseen_per_day: float | None
    rare: tuple[str, ...]
    silent: bool

    def __str__(self) -> str:
        if self.silent:
            said = "no call was seen from here"
        elif self.unseen_share is None:
            said = "calls were not counted"
        else:
            said = f"{100 * self.unseen_share:.2g} % of the calls may go elsewhere"
        if self.unseen_per_day is not None:
            said += f"; not seen: what is called less than {self.unseen_per_day:.2g} times a day"
        else:
            said += "; how long was watched is not known (--watched)"
        return said + (f"; rare: {', '.join(self.rare)}" if self.rare else "")


def risk_of(graph: Graph, edges: Sequence[tuple[Ref, Ref]]) -> Risk:
    """The risk of a Sidecar that is made of these edges of the graph."""
    watched = graph.graph.get("watched_s")
    counts = {edge: graph.edges[edge].get("calls") for edge in edges}
    known = [count for count in counts.values() if count is not None]
    total = sum(known)
    once = sum(count for count in known if count <= 1)
    rare = sorted({host_of(callee) for (_, callee), count in counts.items() if count is not None and count <= RARE})
    share = min(1.0, once / total) if total and len(known) == len(counts) else None
    return Risk(share, 3 / watched * _DAY_S if watched else None, tuple(rare), not edges)
