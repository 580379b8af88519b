"""One istiod: its parts, side by side, and nothing they do together (that is `machine`)."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from pushsim.control.cache import XdsCache
from pushsim.control.cores import Cores
from pushsim.control.debounce import Batch, Debouncer
from pushsim.control.knobs import Knobs
from pushsim.control.limiter import RequestLimiter
from pushsim.control.queue import PushQueue
from pushsim.planner import Planner, Push, Request, localities_of

UNSET = -1
WATCHES = 2
#: What who reads a watch does: waits for something to come; waits for a core to read it; handles what he read.
RESTS, WOKEN, HANDLES = range(3)


class Begun(NamedTuple):
    """A Push call, what the planner made of it, and the changes in it."""

    batch: Batch
    push: Push
    changes: tuple[int, ...]


class Replica:
    """State of one istiod replica.

    free:      throttle slots that are free.
    inboxes:   changes that came over a watch and were not read yet, in order; handling: what who reads it does (RESTS,
               WOKEN, HANDLES); submitting: the requests he will submit when he is done. The first parts of changes come
               over one watch, the EndpointSlices of their Services over another (`mesh.in_parts`).
    requested: so many requests its planner has returned.
    unpushed:  those that no Push has taken yet, by number, with the change that each is of.
    begun:     Push calls that have not returned, by number; pushes: how many have begun.
    published: number of the newest published PushContext, UNSET before the first.
    preparing: numbers of pushes whose PushContext is being made.
    built:     keys of scopes that are built; holder and line: who builds and who waits, by lock.
    """

    def __init__(self, number: int, planner: Planner, cores: Cores, knobs: Knobs, connections: int) -> None:
        self.number = number
        self.planner = planner
        self.knobs = knobs
        self.cores = cores
        self.connections = connections
        self.localities = localities_of(planner.groups)
        self.limiter = RequestLimiter(knobs.streams_per_s)
        self.inboxes: tuple[deque[int], ...] = tuple(deque() for _ in range(WATCHES))
        self.submitting = [range(0)] * WATCHES
        self.unpushed: dict[int, tuple[Request, int]] = {}
        self.requested = self.pushes = 0
        self.published = UNSET
        self.up = True
        self.connected = 0
        self.fresh()

    def fresh(self) -> None:
        """As after the start of the process."""
        self.queue = PushQueue(self.connections)
        self.debouncer = Debouncer(self.knobs.debounce_after_ns, self.knobs.debounce_max_ns)
        self.cache = XdsCache(self.knobs.cached, self.localities, self.knobs.cache_entries)
        self.free = self.knobs.throttle
        self.handling = [RESTS] * WATCHES
        self.built: set[int] = set()
        self.holder: dict[int, int] = {}
        self.line: dict[int, deque[int]] = {}
        self.begun: dict[int, Begun] = {}
        self.running = 0
        self.preparing: set[int] = set()

    def unpublished(self) -> list[int]:
        """Numbers of the pushes that have begun and are not published, and the next one."""
        return [*self.preparing, self.pushes]

    @property
    def drained(self) -> bool:
        """Nothing is on its way from a change to a proxy."""
        return (
            self.up
            and self.handling == [RESTS] * WATCHES
            and not any(self.inboxes)
            and not self.debouncer.pending
            and not self.running
            and not len(self.queue)
            and self.free == self.knobs.throttle
        )
