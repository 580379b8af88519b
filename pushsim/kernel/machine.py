"""`KernelMachine`: the machine of `control`, of which what happens most often is compiled.

Changes, debouncing, contexts and streams are handled by the very code of `control.Machine`; its state is in flat
arrays, on which compiled code serves connections (`serving`). Whatever a proxy gets is asked of the planner once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from pushsim.control.cache import BY_LOCALITY
from pushsim.control.knobs import Knobs
from pushsim.control.replica import UNSET, Replica
from pushsim.control.state import GONE, REPLYING, ROUTINE, SLICES, UP, WRITING, Wake
from pushsim.control.streams import KEEPALIVE_WORK, OPENING_WORK
from pushsim.control.tally import Level, Plan
from pushsim.cost import Runtime
from pushsim.kernel import asking, loop, parts, queue, serving, streams
from pushsim.kernel.arrays import (
    ACK,
    ASKS,
    CACHE,
    ENTRIES,
    EXPECTED,
    FIRST,
    FLIGHT,
    FOLLOWING,
    HAS,
    K_MEMBERS,
    K_TICK,
    KEEPALIVE,
    LAST,
    LATENCY,
    LOOK_NS,
    MAKING,
    N_ASK_HEAD,
    N_ASKED,
    N_CLOSING,
    N_GATEWAY,
    N_GENERATION,
    N_GROUP,
    N_HEARD,
    N_HOME,
    N_KIN,
    N_LOCALITY,
    N_LOOKS,
    N_NACK,
    N_NEWEST,
    N_OFFERED,
    N_PHASE,
    N_PLAN,
    N_PUSHING,
    N_READ_AT,
    N_READ_BEFORE,
    N_READABLE,
    N_SHAPE,
    N_SHAPED_AT,
    N_SLOW,
    N_STATE,
    N_TO_MAKE,
    N_WAITING,
    N_YIELDS,
    NOW,
    OPENING,
    P_FIRST,
    REPLICA,
    REPLY,
    SEED,
    SLOTS,
    SPARE,
    START,
    THROTTLE,
    WAITING,
    WAKES,
    WHO,
    X_PLAN,
)
from pushsim.kernel.planning import Planning
from pushsim.kernel.replica import ArrayCores, ArrayLevel, KernelReplica
from pushsim.kernel.serving import CLOSING, DONE, JOB, PLAN, ROOM, TICK, WAKE
from pushsim.kernel.store import Store
from pushsim.mesh import XDS
from pushsim.planner import Planner, localities_of

#: Lists of `State` that are columns of `Arrays.conn` here.
COLUMNS = {
    "home": N_HOME,
    "phase": N_PHASE,
    "state": N_STATE,
    "shape": N_SHAPE,
    "shaped_at": N_SHAPED_AT,
    "generation": N_GENERATION,
    "closing": N_CLOSING,
    "last_start": N_PUSHING + START,  # of the newest event, whether or not there is one now
    "read_at": N_READ_AT,
    "read_before": N_READ_BEFORE,
    "to_make": N_TO_MAKE,
    "locality": N_LOCALITY,
    "heard": N_HEARD,
    "looks": N_LOOKS,
}


class KernelMachine(Planning):
    """See the module, and `Machine`."""

    def __init__(self, planners: Sequence[Planner], *args: Any, knobs: Knobs, **options: Any) -> None:
        groups = planners[0].groups
        total = sum(group.size for group in groups)
        log, details = bool(options.get("keep_log")), bool(options.get("detail"))
        # One event may dispatch to all slots, and each push leaves a few entries.
        localities, margin = localities_of(groups), 8 * knobs.throttle + 64
        self.store = Store(len(planners), total, len(groups), localities, log=log, details=details, margin=margin)
        super().__init__(planners, *args, knobs=knobs, **options)
        a, tally = self.store.a, self.tally
        for name, column in COLUMNS.items():
            a.conn[:, column] = list(getattr(self, name))
            setattr(self, name, a.conn[:, column])
        for told, column in ((self.group_of, N_GROUP), (self.slow, N_SLOW), (self.nack, N_NACK)):
            a.conn[:, column] = told
        a.conn[:, N_GATEWAY], a.ring[:] = self.gateway, self.ring
        a.s[LATENCY], a.s[REPLY], a.s[THROTTLE] = self.prices.latency_ns, self.prices.reply_ns, knobs.throttle
        a.s[ACK] = self.prices.ack_ns
        a.cached[:] = [(xds in knobs.cached) * (localities if xds in BY_LOCALITY else 1) for xds in XDS]
        a.s[SEED] = np.uint64(self.seed & (1 << 64) - 1).astype(np.int64)
        a.s[OPENING] = self.prices.work_ns(OPENING_WORK)
        a.s[LOOK_NS], a.s[KEEPALIVE] = self.prices.work_ns(KEEPALIVE_WORK), knobs.keepalive_ns

        def levels(kind: int) -> list[Level]:
            return [ArrayLevel(self.store, kind, number) for number in range(len(planners))]

        tally.making, tally.flight, tally.cache, tally.spare = map(levels, (MAKING, FLIGHT, CACHE, SPARE))
        tally.waiting, tally.slots, tally.entries = map(levels, (WAITING, SLOTS, ENTRIES))
        self._begin_observing()
        self._apart: list[set[int]] = [set() for _ in planners]
        # plans that need not be kept: by replica those that may yet be taken, and all that will be taken no more
        self._passing: list[list[Plan]] = [[] for _ in planners]
        self._gone: list[Plan] = []
        self._place = np.argsort(a.ring)

    def _replica(self, number: int, planner: Planner, cpus: float, runtime: Runtime, knobs: Knobs) -> Replica:
        cores = ArrayCores(cpus, runtime, self.store, number)
        return KernelReplica(number, planner, cores, knobs, self.total, self.store)

    def connect_all(self, now: int) -> None:
        gap = max(1, self.replicas[0].limiter.gap // len(self.replicas))
        coming = self.store.a.ring[self.phase[self.store.a.ring] != GONE]
        self.store.room_for_wakes(len(coming))
        streams.arrive_all(self.store.k, now, coming, gap)

    # ---- the loop

    def run(self, until: int) -> None:
        """Run all events before `until`."""
        store = self.store
        store.room_for_seconds(until)
        store.room()
        going_on, c, ticks = False, -1, store.a.replicas[:, K_TICK]
        ticks[:] = [replica.debouncer.due for replica in self.replicas]
        while True:
            status = loop.run(store.k, until, store.margin, going_on, c)
            going_on, c = False, -1
            if status == DONE:
                return
            s = store.a.s
            now, number = int(s[NOW]), int(s[REPLICA])
            if status in (PLAN, CLOSING):
                going_on, c = True, self._prepare(status)
            elif status == TICK:
                self.tick(now, number)
            elif status == JOB:
                self.finish(now, number)
            elif status == WAKE:
                self.wake(now)
            else:
                assert status == ROOM  # which is made below
            ticks[:] = [replica.debouncer.due for replica in self.replicas]
            self._make_room()

    def _attend(self, status: int) -> None:
        """Do what compiled code cannot, and let it end the event."""
        while status != DONE:
            s = self.store.a.s
            now, number = int(s[NOW]), int(s[REPLICA])
            c = self._prepare(status)  # which may make arrays anew
            status = loop.resume(self.store.k, now, number, c)

    def _prepare(self, status: int) -> int:
        """Do what compiled code cannot; the connection that is to take its event then, -1 for none."""
        s = self.store.a.s
        now, c, number = int(s[NOW]), int(s[WHO]), int(s[REPLICA])
        if status == PLAN:
            self._plan_for(c)
            return c
        self._close(now, c, int(self.closing[c]))
        s[NOW], s[REPLICA] = now, number  # closing may have dispatched
        return -1

    def _handle(self, now: int, replica: Replica, watch: int) -> None:
        super()._handle(now, replica, watch)
        self._tell_apart(replica)

    def _tell_apart(self, replica: Replica) -> None:
        groups = set(replica.planner.apart())
        if groups != self._apart[replica.number]:
            self._apart[replica.number] = groups
            apart = self.store.a.apart[replica.number]
            apart[:] = False
            apart[list(groups)] = True

    def _make_room(self) -> None:
        store = self.store
        if not loop.has_room(store.k, 2 * store.margin):
            self._stow()
            store.room()

    # ---- what `Machine` does with connections

    @property
    def expected(self) -> int:
        """Wakes that are set, but for `ROUTINE`."""
        return int(self.store.a.s[EXPECTED])

    @expected.setter
    def expected(self, count: int) -> None:
        self.store.a.s[EXPECTED] = count

    @property
    def following(self) -> int:
        """Answers that a push still has to be followed by."""
        return int(self.store.a.s[FOLLOWING])

    @following.setter
    def following(self, count: int) -> None:
        self.store.a.s[FOLLOWING] = count

    @property
    def settled(self) -> bool:
        self._take_up_cores()
        return super().settled

    def wake_due(self) -> int:
        raise NotImplementedError  # compiled code knows

    def restart(self, now: int, number: int) -> None:
        self._take_up_cores()
        self.store.a.replicas[number, K_MEMBERS] = -1  # all will be gone
        super().restart(now, number)

    def _dispatch(self, now: int, replica: Replica) -> None:
        self._make_room()
        self._attend(loop.resume(self.store.k, now, replica.number, -1))

    def _next_on(self, now: int, c: int) -> None:
        number = int(self.home[c])
        status = serving.next_on(self.store.k, now, c)
        if status != DONE:
            self._attend(status)
        elif number != UNSET:
            self._dispatch(now, self.replicas[number])

    def _accepted(self, now: int, replica: Replica, c: int) -> None:
        before = self.home[c]
        super()._accepted(now, replica, c)
        if before == UNSET and self.home[c] != UNSET:
            self.store.add_member(replica.number, int(self._place[c]))

    def _forget(self, now: int, c: int, *, to_push: bool) -> None:
        self.store.drop_member(int(self.home[c]), int(self._place[c]))
        super()._forget(now, c, to_push=to_push)

    def _enqueue_all(self, now: int, replica: Replica, push: int, begin: int) -> None:
        self.store.know_members(replica.number)
        queue.enqueue_all(self.store.k, now, replica.number, push, begin)

    def _ask(self, c: int, plan: Plan, step: int) -> None:
        self.store.room()
        asking.ask(self.store.k, c, queue.use(self.store.k, c, plan.number), step)

    def _read(self, c: int) -> None:
        asking.read(self.store.k, c)

    def _takes(self, plan: Plan) -> None:
        self.store.a.used[plan.number] += 1

    def _abandon(self, c: int) -> bool:
        a = self.store.a
        while a.conn[c, N_ASK_HEAD] >= 0:
            place = int(a.conn[c, N_ASK_HEAD])
            self.following -= int(a.plans[a.uses[a.asks[place, 0], X_PLAN], P_FIRST] >= 0)
            a.conn[c, N_ASK_HEAD] = a.asks[place, 2]
            a.asks[place, 2], a.s[ASKS] = a.s[ASKS], place
        if self.phase[c] == WRITING or (self.phase[c] == REPLYING and a.plans[a.conn[c, N_PLAN], P_FIRST] >= 0):
            self.following -= 1
        a.conn[c, N_ASKED] = a.conn[c, N_READABLE] = a.conn[c, N_TO_MAKE] = a.conn[c, N_YIELDS] = 0
        a.conn[c, N_NEWEST:] = UNSET
        held = bool(a.conn[c, N_OFFERED + HAS])
        a.conn[c, N_PUSHING + HAS] = a.conn[c, N_OFFERED + HAS] = 0
        return held

    def _takes_up(self, now: int, c: int, state: int) -> None:
        super()._takes_up(now, c, state)
        self._room_to_dwell(int(self.shape[c]))
        replica = self.replicas[self.home[c]]
        kin = self._kin(replica.number, self.group_of[c], state)  # which may make arrays anew
        self.store.a.conn[c, N_KIN] = kin
        self._tell_apart(replica)

    def _dwelt(self, now: int, c: int) -> None:
        serving.dwelt(self.store.k, now, c)

    def _in_use(self, replica: Replica) -> tuple[set[tuple[int, int]], int, int]:
        conn = self.store.a.conn
        here = conn[conn[:, N_HOME] == replica.number]
        events = [here[here[:, event + HAS] > 0, event : event + START] for event in (N_WAITING, N_OFFERED)]
        firsts, lasts = ([int(e[:, column].min()) for e in events if e.size] for column in (FIRST, LAST))
        used = np.unique(here[:, N_GROUP] << 32 | here[:, N_STATE]).tolist()
        states = {(each >> 32, each & 0xFFFFFFFF) for each in used}
        return states, min([replica.published, *lasts]), min([*replica.unpublished(), *firsts])

    def _forget_plans(self, replica: Replica, states: Collection[int], oldest: int) -> None:
        super()._forget_plans(replica, states, oldest)
        self.store.keep(replica.number, oldest)
        self._part_with(replica.number, oldest)
        self._tell_apart(replica)

    def _set(self, at: int, kind: int, who: int, a: int = 0, b: int = 0) -> None:
        generation = 0 if kind in (UP, SLICES) else int(self.generation[who])
        arrays = self.store.a
        if arrays.s[WAKES] + self.store.margin >= len(arrays.wakes):
            self.store.room_for_wakes(1)
        parts.set_wake(self.store.k, at, kind, who, generation, a, b)
        if kind not in ROUTINE:
            self.expected += 1

    def _next_wake(self) -> Wake:
        first = self.store.a.wakes[0].tolist()
        parts.drop_wake(self.store.k)
        if first[2] not in ROUTINE:
            self.expected -= 1
        wake: Wake = tuple(first)
        return wake

    def _note(self, now: int, kind: int, who: int, first: int = 0, last: int = 0) -> None:
        if self.log is not None:
            self.store.room()
            queue.note(self.store.k, now, kind, who, first, last)
