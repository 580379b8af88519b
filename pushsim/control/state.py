"""The machine's state: what is remembered of every connection, flat, and how it is written down."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial
from heapq import heappop, heappush

from pushsim.control.cores import SECOND, Cores
from pushsim.control.knobs import Knobs
from pushsim.control.limiter import NACK, ORDER, SLOW, draw
from pushsim.control.queue import Event
from pushsim.control.replica import UNSET, Replica
from pushsim.control.sums import Merged, Sums
from pushsim.control.tally import Plan, Sends, Tally, Use, Uses, uses_of
from pushsim.cost import Price, Prices, Runtime
from pushsim.mesh import Change, Xds
from pushsim.planner import Counts, Planner, Response, Shape
from pushsim.settings import Clients

#: Phases of a connection. GONE: its pod does not exist. AWAY: between two streams.
#: WRITING: what it was pushed is on its way from Send to the wire. BLOCKED: a push waits in Send.
GONE, AWAY, IDLE, PUSHING, REPLYING, WRITING, BLOCKED = range(7)
#: Kinds of jobs on the cores; a job is KIND << 32 | argument.
HANDLING, CONTEXT, ENQUEUING, ACCEPTING, SCOPING, SERVING, SENDING, READING, ACKING, YIELDING, LOOKING = range(11)
#: The line in which what comes from the network waits for a core.
POLLED = 1
#: Kinds of wakes.
ARRIVE, ACCEPT, ASK, UNBLOCK, LOOK, CLOSE, UP, SLICES = range(8)
#: Those that are always set as long as a stream is open.
ROUTINE = (LOOK, CLOSE)
#: Kinds of entries of the log.
WRITTEN, PUBLISHED, DEQUEUED, SPARED, SENT, PUSHED, CONNECTED, CLOSED = range(8)
LOG_NAMES = ("written", "published", "dequeued", "spared", "sent", "pushed", "connected", "closed")

#: After so many pushes, what no proxy will be planned from any more is let go.
KEPT_PUSHES = 32
#: A started pod's proxy connects, and a restarted istiod serves again, after so long [E].
POD_START_NS = 2 * SECOND
RESTART_NS = 5 * SECOND
#: grpc-go ends a stream at its age ± 10 %, plus a grace of up to 10 s (reference §2.3).
AGE_GRACE_NS = 10 * SECOND

Entry = tuple[int, int, int, int, int]
#: A wake: when, order of setting, kind, who, generation of who, two arguments.
Wake = tuple[int, int, int, int, int, int, int]


class State:
    """State of all replicas and connections; no rules.

    `log`, if kept, has (time, kind, proxy or replica or change, first, last) for every step. `rows`: whether `uses` are
    asked for; `plans` need not be kept otherwise.
    """

    def __init__(
        self,
        planners: Sequence[Planner],
        changes: Sequence[Change],
        *,
        cpus: float,
        knobs: Knobs,
        prices: Prices,
        clients: Clients,
        seed: int,
        detail: bool = False,
        keep_log: bool = False,
        rows: bool = True,
    ) -> None:
        groups = planners[0].groups
        self.group_of = [number for number, group in enumerate(groups) for _ in range(group.size)]
        self.gateway = [group.gateway for group in groups for _ in range(group.size)]
        self.locality = [n for group in groups for n in group.localities or (0,) * group.size]
        self.offset = [0]
        for group in groups:
            self.offset.append(self.offset[-1] + group.size)
        total = self.total = self.offset[-1]
        self.changes = changes
        self.prices, self.seed = prices, seed
        self.replicas: list[Replica] = []
        runtime = prices.runtime(planners[0].inventory(), total / len(planners), cpus)
        for number, planner in enumerate(planners):
            replica = self._replica(number, planner, cpus, runtime, knobs)
            replica.cores.runs = partial(self._runs, replica)
            self.replicas.append(replica)
        self.tally = Tally(len(planners), detail=detail)
        self.rows = rows or detail
        self._gateway_groups = [group.gateway for group in groups]
        self._begin_sums()
        self.log: list[Entry] | None = [] if keep_log else None
        self.written: dict[int, int] = {}
        self.plans: list[Plan] = []
        # by replica, then by group, state and event
        self._plan_of: list[dict[tuple[int, int, int, int, int], Plan]] = [{} for _ in planners]
        self._price_of: dict[int, tuple[Response, Price]] = {}  # by id
        # by replica: plans by the planner's own value and interval (groups may share them);
        # shapes by group, state and push
        self._planned: list[dict[tuple[int, int, int], Plan]] = [{} for _ in planners]
        self._shapes: list[dict[tuple[int, int, int], int]] = [{} for _ in planners]
        self._shape_numbers: dict[Shape, int] = {}
        # by replica and push, and by the planner's own value, which the plan keeps alive
        self._connect_plan: dict[tuple[int, int, int], Plan] = {}
        self._uses: dict[tuple[int, int], Use] = {}  # by number of a plan, and group
        self._wakes: list[Wake] = []
        self._waked = 0
        self.expected = 0  # wakes that are set, but for ROUTINE
        self.following = 0  # what still follows from a push or a change: writes, answers, EndpointSlices
        self.aging = False
        self.reconnect_ns = clients.reconnect_ns or 0
        self.slow = [clients.slow_delay_ns if self._shared(SLOW, c, clients.slow_share) else 0 for c in range(total)]
        self.nack = [self._shared(NACK, c, clients.nack_share) for c in range(total)]
        self.ring = sorted(range(total), key=lambda c: (draw(seed, ORDER, c, 0), c))
        # one entry a connection
        self.home = [UNSET] * total
        self.phase = [AWAY] * total
        self.generation = [0] * total
        self.lost_at = [UNSET] * total  # when its stream ended, while it has none
        self.state = [UNSET] * total
        self.shape = [UNSET] * total
        self.shaped_at = [0] * total  # when it took that shape, or counting began
        self.closing = bytearray(total)
        self.plan: list[Plan | None] = [None] * total
        self.step = [0] * total
        self.event: list[Event | None] = [None] * total  # what is being pushed
        self.offered: list[Event | None] = [None] * total  # dequeued, slot held, but the connection is busy
        self.asked: list[deque[tuple[Plan, int]]] = [deque() for _ in range(total)]
        self.readable = [0] * total  # of these, so many are read from the network
        self.sotw = planners[0].sotw
        self.newest: dict[tuple[int, Xds], int] = {}  # the push whose response made older requests stale, see `Serving`
        self.wired = [0] * total  # the first response of its plan that is not on the wire yet
        self.yields = [False] * total  # its writer has given up its core, see `Wire`
        self.to_make = [0] * total  # bytes that it will generate when it gets a core
        self.took = [0] * total  # from the Start of its push until that was pushed
        self.last_start = [0] * total
        self.read_at = [0] * total
        self.read_before = [0] * total
        self.heard = [0] * total  # when istiod heard from it last
        self.looks = [False] * total  # istiod is to look whether it is still there
        for number, group in enumerate(groups):
            for c in range(self.offset[number + 1] - group.late, self.offset[number + 1]):
                self.phase[c] = GONE

    def _begin_sums(self) -> None:
        """Nothing has become of any plan yet."""
        self._past, self.merged = Sums(), Merged(self.tally.pushes)

    @property
    def sums(self) -> Sums:
        """What uses of plans came to while counting."""
        return self._past.with_plans(self.plans, self.merged, self._gateway_groups)

    def _runs(self, replica: Replica, job: int) -> None:
        raise NotImplementedError  # serving

    def _replica(self, number: int, planner: Planner, cpus: float, runtime: Runtime, knobs: Knobs) -> Replica:
        return Replica(number, planner, Cores(cpus, runtime), knobs, self.total)

    def _takes_up(self, now: int, c: int, state: int) -> None:
        """A proxy has connected, and is in this state."""
        home = int(self.home[c])
        self.state[c], self.shaped_at[c] = state, now
        self.shape[c] = self._shape_of(home, self.group_of[c], state, self.replicas[home].published)

    def _moves_to(self, now: int, c: int, plan: Plan) -> None:
        """A proxy takes what it gets for some pushes; one that gets nothing holds what it held."""
        self.state[c] = plan.planned.state
        if plan.planned.responses:
            shape = self._shape_of(int(self.home[c]), self.group_of[c], plan.planned.state, plan.last)
            if shape != self.shape[c]:
                self._dwelt(now, c)
                self.shape[c] = shape

    def _shape_of(self, home: int, group: int, state: int, push: int) -> int:
        """Number of the shape of a state as of a push; asked for while the planner still knows both."""
        shapes, key = self._shapes[home], (group, state, push)
        number = shapes.get(key)
        if number is None:
            shape = self.replicas[home].planner.shape(group, state, push)
            number = shapes[key] = self._shape_numbers.setdefault(shape, len(self._shape_numbers))
        return number

    @property
    def shapes(self) -> list[Shape]:
        """All shapes, by number."""
        return list(self._shape_numbers)

    def _dwelt(self, now: int, c: int) -> None:
        self.tally.dwell[self.home[c], self.gateway[c], self.shape[c]] += now - self.shaped_at[c]
        self.shaped_at[c] = now

    def _work(self, counts: Counts) -> int:
        for name, amount in counts.items():
            self.tally.amounts[name] += amount
        return self.prices.work_ns(counts)

    def _start(self, now: int, replica: Replica, kind: int, argument: int, work_ns: int, line: int = 0) -> None:
        replica.cores.start(now, kind << 32 | argument, work_ns, line)

    def uses(self) -> tuple[Uses, Sends]:
        """What became of plans while counting, by group."""
        return uses_of(self._uses.items())

    def _use(self, plan: Plan, c: int) -> Use:
        key = (plan.number, self.group_of[c])
        use = self._uses.get(key)
        if use is None:
            count = len(plan.planned.responses)
            use = self._uses[key] = Use(0, UNSET, [0] * count, [UNSET] * count, [UNSET] * count)
        return use

    def _cached(self, now: int, replica: Replica) -> None:
        cache, entries = self.tally.cache[replica.number], self.tally.entries[replica.number]
        cache.add(now, replica.cache.bytes - cache.value)
        entries.add(now, replica.cache.resources - entries.value)

    def _set(self, at: int, kind: int, who: int, a: int = 0, b: int = 0) -> None:
        generation = 0 if kind in (UP, SLICES) else self.generation[who]
        heappush(self._wakes, (at, self._waked, kind, who, generation, a, b))
        self._waked += 1
        if kind not in ROUTINE:
            self.expected += 1

    def _next_wake(self) -> Wake:
        """The wake that is due."""
        wake = heappop(self._wakes)
        if wake[2] not in ROUTINE:
            self.expected -= 1
        return wake

    def _note(self, now: int, kind: int, who: int, first: int = 0, last: int = 0) -> None:
        if self.log is not None:
            self.log.append((now, kind, who, first, last))

    def _shared(self, purpose: int, c: int, share: float) -> bool:
        return draw(self.seed, purpose, c, 0) % 1_000_000 < round(share * 1_000_000)
