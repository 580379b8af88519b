"""istiod, all replicas of it, and the connections of all proxies: one machine without a clock.

A driver tells it what time it is and what happens then; the machine says when it next wants to be told (`due_*`).

    write(now, change)       a change is written to the API server: each replica's handlers get it
    tick(now, replica)       the debounce timer of a replica fires        due: tick_due(replica)
    finish(now, replica)     a job ends on the cores of a replica         due: finish_due(replica)
    wake(now)                a proxy or a Send has waited long enough     due: wake_due()
    restart(now, replica)    that istiod's process ends and starts anew

Order at one nanosecond (both engines): writes, ticks by replica, ends of jobs by replica, wakes; each runs to its end,
consequences without delay included, before the next is looked for. Within one replica jobs end in the order of
`cores`; wakes come in the order in which they were set.

A push of one proxy, as istiod does it (reference §1.6-§1.8, and the traps of §8.4): a throttle slot is taken, then the
queue's head dequeued; the slot is held while the connection is busy answering requests, through the decision, the
scope, every generator and every Send, and given back after what was merged meanwhile has gone to the tail. What the
proxy gets is asked of the planner when its connection takes the event, for the interval merged at the dequeue and the
state the proxy then has. Answers to requests run on the connection without a slot.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush

from pushsim.control.cores import NEVER, SECOND
from pushsim.control.debounce import Batch
from pushsim.control.knobs import Knobs
from pushsim.control.limiter import AGE, GRACE, NACK, ORDER, REPLICA, RING, SLOW, backoff_ns, draw
from pushsim.control.queue import Event
from pushsim.control.replica import UNSET, Replica
from pushsim.control.tally import Plan, PushRecord, Sent, Tally
from pushsim.cost import Prices
from pushsim.mesh import Change
from pushsim.planner import Counts, Planned, Planner, Scope
from pushsim.settings import Clients

#: Phases of a connection. GONE: its pod does not exist. AWAY: between two streams.
GONE, AWAY, IDLE, PUSHING, REPLYING = range(5)
#: Kinds of jobs on the cores; a job is KIND << 32 | argument.
HANDLING, CONTEXT, ENQUEUING, ACCEPTING, SCOPING, SERVING = range(6)
#: Kinds of wakes.
ARRIVE, ACCEPT, ASK, UNBLOCK, CLOSE, UP = range(6)
#: Kinds of entries of the log.
WRITTEN, PUBLISHED, DEQUEUED, SPARED, SENT, PUSHED, CONNECTED, CLOSED = range(8)
LOG_NAMES = ("written", "published", "dequeued", "spared", "sent", "pushed", "connected", "closed")

#: A started pod's proxy connects, and a restarted istiod serves again, after so long [E].
POD_START_NS = 2 * SECOND
RESTART_NS = 5 * SECOND
#: grpc-go ends a stream at its age ± 10 %, plus a grace of up to 10 s (reference §2.3).
AGE_GRACE_NS = 10 * SECOND

Entry = tuple[int, int, int, int, int]


class Machine:
    """See the module. `log`, if kept, has (time, kind, proxy or replica or change, first, last) for every step."""

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
    ) -> None:
        groups = planners[0].groups
        self.group_of = [number for number, group in enumerate(groups) for _ in range(group.size)]
        self.offset = [0]
        for group in groups:
            self.offset.append(self.offset[-1] + group.size)
        total = self.total = self.offset[-1]
        self.changes = changes
        self.prices, self.seed = prices, seed
        self.replicas = [Replica(n, planner, cpus, knobs, total) for n, planner in enumerate(planners)]
        self.tally = Tally(len(planners), detail=detail)
        self.log: list[Entry] | None = [] if keep_log else None
        self.written: dict[int, int] = {}
        self.plans: list[Plan] = []
        self._plan_of: dict[tuple[int, int, int, int, int, int], Plan] = {}
        self._connect_plan: dict[tuple[int, int], Plan] = {}  # by the planner's own value, which the plan keeps alive
        self._wakes: list[tuple[int, int, int, int, int, int, int]] = []
        self._waked = 0
        self.expected = 0  # wakes that are set, closes by age aside
        self.following = 0  # answers that a push still has to be followed by
        self.aging = False
        self.reconnect_ns = clients.reconnect_ns or 0
        self.slow = [clients.slow_delay_ns if self._shared(SLOW, c, clients.slow_share) else 0 for c in range(total)]
        self.nack = [self._shared(NACK, c, clients.nack_share) for c in range(total)]
        self.ring = sorted(range(total), key=lambda c: (draw(seed, ORDER, c, 0), c))
        # one entry a connection
        self.home = [UNSET] * total
        self.phase = [AWAY] * total
        self.generation = [0] * total
        self.state = [UNSET] * total
        self.state_since = [0] * total
        self.closing = bytearray(total)
        self.plan: list[Plan | None] = [None] * total
        self.step = [0] * total
        self.event: list[Event | None] = [None] * total  # what is being pushed
        self.offered: list[Event | None] = [None] * total  # dequeued, slot held, but the connection is busy
        self.asked: list[deque[tuple[Plan, int]]] = [deque() for _ in range(total)]
        self.missed = [0] * total
        self.last_start = [0] * total
        self.read_at = [0] * total
        self.read_before = [0] * total
        for number, group in enumerate(groups):
            for c in range(self.offset[number + 1] - group.late, self.offset[number + 1]):
                self.phase[c] = GONE

    # ---- what the driver calls

    def connect_all(self, now: int) -> None:
        """All proxies whose pods exist come in, as fast as the limiters admit them."""
        gap = max(1, self.replicas[0].limiter.gap // len(self.replicas))
        coming = [c for c in self.ring if self.phase[c] != GONE]
        for place, c in enumerate(coming):
            self._set(now + place * gap, ARRIVE, c)

    def start_aging(self, now: int) -> None:
        """Streams have been open for a while: each ends after what is left of its age, then at full age."""
        self.aging = self.reconnect_ns > 0
        if self.aging:
            for c in range(self.total):
                if self.phase[c] >= IDLE:
                    left = draw(self.seed, AGE, c, self.generation[c]) % self.reconnect_ns
                    self._set(now + left, CLOSE, c)

    def write(self, now: int, change: int) -> None:
        """A change is written to the API server."""
        self._note(now, WRITTEN, change)
        self.written[change] = now
        for replica in self.replicas:
            replica.inbox.append(change)
            self._handle_next(now, replica)

    def tick_due(self, replica: int) -> int:
        """When the debounce timer of that replica fires."""
        return self.replicas[replica].debouncer.due

    def tick(self, now: int, replica: int) -> None:
        """The debounce timer of that replica fires."""
        batch = self.replicas[replica].debouncer.tick(now)
        if batch:
            self._start_push(now, self.replicas[replica], batch)

    def finish_due(self, replica: int) -> int:
        """When the next job ends on the cores of that replica."""
        return self.replicas[replica].cores.due()

    def finish(self, now: int, number: int) -> None:
        """The job that is due ends on the cores of that replica."""
        replica = self.replicas[number]
        job = replica.cores.finish(now)
        kind, argument = job >> 32, job & 0xFFFFFFFF
        if kind == SERVING:
            self._generated(now, argument)
        elif kind == HANDLING:
            self._handled(now, replica)
        elif kind == CONTEXT:
            self._publish(now, replica, argument)
        elif kind == ENQUEUING:
            self._push_returned(now, replica, argument)
        elif kind == ACCEPTING:
            self._accepted(now, replica, argument)
        else:
            self._scope_built(now, replica, argument)

    def wake_due(self) -> int:
        """When a proxy, a Send or an istiod has waited long enough."""
        return self._wakes[0][0] if self._wakes else NEVER

    def wake(self, now: int) -> None:
        """A proxy, a Send or an istiod has waited long enough."""
        _, _, kind, who, generation, a, b = heappop(self._wakes)
        if kind != CLOSE:
            self.expected -= 1
        if kind == UP:
            self._come_up(now, self.replicas[who])
            return
        if generation != self.generation[who]:
            if kind == ASK and self.plans[a].first != UNSET:
                self.following -= 1
            return
        if kind == ARRIVE:
            self._arrive(now, who, a)
        elif kind == ACCEPT:
            self._accept(now, who, a)
        elif kind == ASK:
            self.asked[who].append((self.plans[a], b))
            if self.phase[who] == IDLE:
                self._next_on(now, who)
        elif kind == UNBLOCK:
            self._sent(now, who)
        else:
            self._close(now, who, 1)

    def restart(self, now: int, number: int) -> None:
        """That istiod's process ends; its proxies connect anew, and it serves again after RESTART_NS."""
        replica = self.replicas[number]
        if not replica.up:
            return
        accepting = [job & 0xFFFFFFFF for _, _, job in sorted(replica.cores.jobs) if job >> 32 == ACCEPTING]
        replica.cores.stop(now)
        replica.up = False
        replica.fresh()
        if replica.begun:
            replica.published = replica.begun[-1].number  # the new process starts from the newest context
        for c in range(self.total):
            if self.home[c] == number:
                self._forget(now, c, to_push=False)
        for c in accepting:
            if self.phase[c] == AWAY:
                self._set(now, ARRIVE, c)
        self.tally.flight[number].add(now, -self.tally.flight[number].value)
        self.tally.cache[number].add(now, -self.tally.cache[number].value)
        self._set(now + RESTART_NS, UP, number)

    @property
    def settled(self) -> bool:
        """All are connected and nothing is to be done."""
        return not self.expected and self.drained and not any(replica.cores.jobs for replica in self.replicas)

    @property
    def drained(self) -> bool:
        """Nothing is on its way from a change to a proxy."""
        return not self.following and all(replica.drained for replica in self.replicas)

    def start_counting(self, now: int) -> None:
        """All that was observed so far is forgotten."""
        for replica in self.replicas:
            replica.cores.advance(now)
        for plan in self.plans:
            plan.reset()
        self.tally.start_counting(now)
        for c in range(self.total):
            self.state_since[c] = now

    def stop_counting(self, now: int) -> None:
        """Levels and dwell times up to now are accounted."""
        for replica in self.replicas:
            replica.cores.advance(now)
        for c in range(self.total):
            if self.phase[c] >= IDLE:
                self._dwelt(now, c)

    # ---- from a change to the queue

    def _handle_next(self, now: int, replica: Replica) -> None:
        """The handler takes the next change, if it is idle and there is one."""
        if replica.handling != UNSET or not replica.inbox or not replica.up:
            return
        replica.handling = replica.inbox.popleft()
        handled = replica.planner.handle(replica.handling, self.changes[replica.handling])
        for request in handled.requests:
            replica.unpushed[len(replica.requests)] = None
            replica.requests.append(request)
            replica.of.append(replica.handling)
        replica.submitting = len(handled.requests)
        if replica.number == 0:
            for group, member in handled.joined:
                self._join(now, self.offset[group] + member)
            for group, member in handled.left:
                self._close(now, self.offset[group] + member, 2)
        self._start(now, replica, HANDLING, 0, self._work(handled.work))

    def _handled(self, now: int, replica: Replica) -> None:
        """A handler is done: its requests go to the debouncer, or around it."""
        replica.handling = UNSET
        for number in range(len(replica.requests) - replica.submitting, len(replica.requests)):
            request = replica.requests[number]
            if request.evicts is not None:
                replica.cache.clear(now, request.evicts)
                self._cached(now, replica)
            if request.proxies:
                replica.unpushed.pop(number, None)
                for group, member in request.proxies:
                    c = self.offset[group] + member
                    if self.home[c] == replica.number:
                        replica.queue.enqueue(c, replica.published, now, 1)
            elif request.endpoints_only and not replica.knobs.eds_debounce:
                self._start_push(now, replica, Batch((number,), UNSET, held=False))
            else:
                replica.debouncer.submit(now, number)
        self._dispatch(now, replica)
        self._handle_next(now, replica)

    def _start_push(self, now: int, replica: Replica, batch: Batch) -> None:
        """Push() begins: the PushContext, unless it is reused."""
        push = replica.planner.push(batch.requests)
        for number in batch.requests:
            replica.unpushed.pop(number, None)
        place = len(replica.batches)
        replica.batches.append(batch)
        replica.begun.append(push)
        replica.running += 1
        if push.work:
            self._start(now, replica, CONTEXT, place, self._work(push.work))
        else:
            self._publish(now, replica, place)

    def _publish(self, now: int, replica: Replica, place: int) -> None:
        """The PushContext is ready: the cache is cleared, Start is now, every connection is enqueued."""
        batch, push = replica.batches[place], replica.begun[place]
        if push.evict_all:
            replica.cache.clear_all(now)
        else:
            replica.cache.clear(now, push.evicts)
        self._cached(now, replica)
        replica.published = max(replica.published, push.number)
        self._note(now, PUBLISHED, replica.number, push.number, len(batch.requests))
        changes = tuple(dict.fromkeys(replica.of[number] for number in batch.requests))
        self.tally.pushes.append(PushRecord(replica.number, push.number, changes, batch.since, now, batch.held))
        begin = draw(self.seed, RING, replica.number, push.number) % self.total if self.total else 0
        enqueue, home, number = replica.queue.enqueue, self.home, replica.number
        for c in (*self.ring[begin:], *self.ring[:begin]):
            if home[c] == number:
                enqueue(c, push.number, now)
        self._start(now, replica, ENQUEUING, place, self._work({"push.connections": replica.connected}))
        self._dispatch(now, replica)

    def _push_returned(self, now: int, replica: Replica, place: int) -> None:
        """Push() returns: the debouncer may begin the next."""
        replica.running -= 1
        since = replica.batches[place].since
        if since == UNSET:
            return
        self.tally.debounced.append(now - since)
        batch = replica.debouncer.finished(now)
        if batch:
            self._start_push(now, replica, batch)

    # ---- from the queue to a proxy

    def _dispatch(self, now: int, replica: Replica) -> None:
        """While a slot is free and somebody waits: take the slot, dequeue, offer the event to the connection."""
        queue, tally = replica.queue, self.tally
        while replica.free and queue.line:
            replica.free -= 1
            event = queue.dequeue()
            tally.considered += 1
            tally.queued.append(now - event.start)
            self._note(now, DEQUEUED, event.connection, event.first, event.last)
            if self.phase[event.connection] == IDLE:
                self._begin_push(now, event)
            else:
                self.offered[event.connection] = event

    def _begin_push(self, now: int, event: Event) -> None:
        """The connection takes the event: what the proxy gets is decided, on its state and the merged interval."""
        c = event.connection
        plan = self._plan(self.replicas[self.home[c]], c, event)
        plan.taken += 1
        if plan.queued_at == UNSET or event.start < plan.queued_at:
            plan.queued_at = event.start
        self._moves_to(now, c, plan.planned.state)
        self.phase[c], self.plan[c], self.step[c], self.event[c] = PUSHING, plan, 0, event
        self.last_start[c] = event.start
        self._begin(now, c, plan)

    def _begin(self, now: int, c: int, plan: Plan) -> None:
        """Proxy state first: its scope may have to be built, or waited for."""
        scope = plan.planned.scope
        replica = self.replicas[self.home[c]]
        if scope is None or scope.key in replica.built:
            self._serve(now, c, plan.work_ns)
        elif scope.lock in replica.holder:
            replica.line.setdefault(scope.lock, deque()).append(c)
        else:
            replica.holder[scope.lock] = c
            self._start(now, replica, SCOPING, c, self._work(scope.work))

    def _scope_built(self, now: int, replica: Replica, c: int) -> None:
        """A scope is built; who waited for its lock goes on, the first that needs another one builds that."""
        scope = self._scope(c)
        replica.built.add(scope.key)
        del replica.holder[scope.lock]
        self._serve(now, c, self._current(c).work_ns)
        line = replica.line.get(scope.lock)
        while line:
            waiting = line.popleft()
            self._begin(now, waiting, self._current(waiting))
            if scope.lock in replica.holder:
                break

    def _serve(self, now: int, c: int, before_ns: int) -> None:
        """The connection works: `before_ns`, then the response it is at, if there is one to make."""
        plan, step = self._current(c), self.step[c]
        replica = self.replicas[self.home[c]]
        work = before_ns
        if step < plan.pushed or self.phase[c] == REPLYING:
            response, price = plan.planned.responses[step], plan.prices[step]
            resources = units = 0
            if response.view is not None:
                resources, units = replica.cache.missing(response.xds, response.view)
                if resources:
                    plan.missed_resources[step] += resources
                    plan.missed_units[step] += units
            self.missed[c] = resources
            self.tally.flight[replica.number].add(now, response.size_bytes)
            work += price.work_ns(resources, units)
        replica.cores.start(now, SERVING << 32 | c, max(1, work))

    def _generated(self, now: int, c: int) -> None:
        """The connection has worked: a response is to be sent, or there was none to make."""
        plan, step = self._current(c), self.step[c]
        if self.phase[c] == PUSHING and step >= plan.pushed:
            self._pushed(now, c)
            return
        response = plan.planned.responses[step]
        if self.missed[c] and response.view is not None:
            replica = self.replicas[self.home[c]]
            replica.cache.fill(response.xds, response.view, self.last_start[c], response.size_bytes)
            self._cached(now, replica)
        if self.slow[c] and self.read_before[c] > now:
            self._set(self.read_before[c], UNBLOCK, c)
        else:
            self._sent(now, c)

    def _sent(self, now: int, c: int) -> None:
        """Send has returned."""
        plan, step = self._current(c), self.step[c]
        response = plan.planned.responses[step]
        received_at = now + self.prices.latency_ns
        if self.slow[c]:
            received_at = max(now, self.read_at[c]) + self.slow[c]
            self.read_before[c], self.read_at[c] = self.read_at[c], received_at
        plan.sent[step] += 1
        if plan.first_sent[step] == UNSET:
            plan.first_sent[step] = now
        plan.last_sent[step] = now
        tally = self.tally
        tally.flight[self.home[c]].add(now, -response.size_bytes)
        tally.rejected += self.nack[c]
        first = UNSET
        for change in response.shows:
            written = self.written[change]
            if written >= tally.since:
                delay = received_at - written
                tally.received.append(delay)
                first = max(first, delay)
                if delay > tally.completed.get(change, UNSET):
                    tally.completed[change] = delay
        self._note(now, SENT, c, plan.last, step)
        event = self.event[c]
        last_of_push = event is not None and step + 1 == plan.pushed
        if tally.details is not None:
            converged = now - event.start if event is not None and last_of_push else UNSET
            tally.details.append(Sent(plan, step, c, now, converged, first))
        if self.phase[c] == REPLYING:
            self._replied(now, c, received_at)
        elif last_of_push:
            self._pushed(now, c)
        else:
            self.step[c] = step + 1
            self._serve(now, c, 0)

    def _pushed(self, now: int, c: int) -> None:
        """pushConnection returns: convergence, MarkDone, the slot, then whoever waits."""
        plan, event = self._current(c), self.event[c]
        assert event is not None
        if plan.planned.needed:
            self.tally.pushed += 1
            self.tally.converged.append(now - event.start)
        self._note(now, PUSHED if plan.planned.needed else SPARED, c, event.first, event.last)
        if plan.pushed < len(plan.planned.responses):
            self.following += 1
            heard = max(now + self.prices.latency_ns, self.read_at[c])
            self._set(heard + self.prices.reply_ns, ASK, c, plan.number, plan.pushed)
        replica = self.replicas[self.home[c]]
        self.event[c] = None
        self.phase[c] = IDLE
        replica.queue.done(c)
        replica.free += 1
        self._next_on(now, c)
        self._dispatch(now, replica)

    # ---- requests of a proxy

    def _next_on(self, now: int, c: int) -> None:
        """The connection's loop: it ends, or takes a request, else an event that is offered."""
        if self.closing[c]:
            self._close(now, c, self.closing[c])
            return
        if self.asked[c]:
            plan, step = self.asked[c].popleft()
            self.phase[c], self.plan[c], self.step[c] = REPLYING, plan, step
            if step == 0 and plan.first == UNSET:
                self._begin(now, c, plan)
            else:
                self._serve(now, c, 0)
            return
        offered = self.offered[c]
        if offered is not None:
            self.offered[c] = None
            self._begin_push(now, offered)

    def _replied(self, now: int, c: int, received_at: int) -> None:
        """An answer is sent; the proxy may ask for what follows from it."""
        plan, step = self._current(c), self.step[c]
        if step + 1 < len(plan.planned.responses):
            self._set(received_at + self.prices.reply_ns, ASK, c, plan.number, step + 1)
        elif plan.first != UNSET:
            self.following -= 1
        self.phase[c] = IDLE
        self._next_on(now, c)

    # ---- streams

    def _join(self, now: int, c: int) -> None:
        """The proxy's pod was created: it connects when it has started."""
        if self.phase[c] == GONE:
            self.phase[c] = AWAY
            self._set(now + POD_START_NS, ARRIVE, c)
        elif self.closing[c] == 2:
            self.closing[c] = 1

    def _arrive(self, now: int, c: int, attempt: int) -> None:
        """A proxy asks a replica for a stream: admitted after a wait, or refused and back after a while."""
        if self.phase[c] != AWAY:
            return
        count = self.generation[c]
        replica = self.replicas[draw(self.seed, REPLICA, c, count * 64 + attempt) % len(self.replicas)]
        admitted = replica.limiter.arrive(now) if replica.up else NEVER
        if admitted != NEVER:
            self._set(admitted, ACCEPT, c, replica.number)
            return
        self.tally.refused += 1
        wait = backoff_ns(self.seed, c, count * 64 + min(attempt, 63), attempt)
        self._set(now + wait, ARRIVE, c, attempt + 1)

    def _accept(self, now: int, c: int, number: int) -> None:
        """The stream is admitted: TLS, authentication, metadata."""
        replica = self.replicas[number]
        if not replica.up:
            self._set(now + backoff_ns(self.seed, c, self.generation[c], 0), ARRIVE, c, 1)
            return
        self.home[c] = UNSET
        self._start(now, replica, ACCEPTING, c, self._work({"stream.opened": 1}))

    def _accepted(self, now: int, replica: Replica, c: int) -> None:
        """The connection is registered: it is pushed from now on, and its first requests are answered."""
        if self.phase[c] != AWAY:
            return
        planned = replica.planner.connect(self.group_of[c], replica.published)
        plan = self._connect_plan.get((replica.number, id(planned)))
        if plan is None:
            plan = self._connect_plan[replica.number, id(planned)] = self._priced(planned, replica, c, UNSET, UNSET)
        plan.taken += 1
        self.tally.connects += 1
        self.tally.connected[replica.number].add(now, 1)
        replica.connected += 1
        self.home[c] = replica.number
        self.phase[c] = IDLE
        self.closing[c] = 0
        self.last_start[c] = 0
        self.read_at[c] = self.read_before[c] = 0
        self.state[c], self.state_since[c] = planned.state, now
        self._note(now, CONNECTED, c, replica.number)
        if self.aging:
            age = self.reconnect_ns * 9 // 10 + draw(self.seed, AGE, c, self.generation[c]) % (self.reconnect_ns // 5)
            self._set(now + age + draw(self.seed, GRACE, c, self.generation[c]) % AGE_GRACE_NS, CLOSE, c)
        if planned.responses:
            self.asked[c].append((plan, 0))
            self._next_on(now, c)

    def _close(self, now: int, c: int, how: int) -> None:
        """The stream ends (1), or its pod does (2): at once if the connection is idle, else when it is."""
        if self.phase[c] in (PUSHING, REPLYING):
            self.closing[c] = max(how, self.closing[c])
            return
        if self.phase[c] == IDLE:
            self._forget(now, c, to_push=True)
        if how == 2:
            self.phase[c] = GONE
            self.generation[c] += 1

    def _forget(self, now: int, c: int, *, to_push: bool) -> None:
        """The stream is gone, and all that waits for it; the proxy comes back unless its pod is gone."""
        replica = self.replicas[self.home[c]]
        self._note(now, CLOSED, c, replica.number)
        self._dwelt(now, c)
        for plan, _ in self.asked[c]:
            if plan.first != UNSET:
                self.following -= 1
        if self.phase[c] == REPLYING and self._current(c).first != UNSET:
            self.following -= 1
        self.asked[c].clear()
        gone = self.closing[c] == 2
        self.closing[c] = 0
        self.home[c] = UNSET
        self.event[c] = None
        self.phase[c] = GONE if gone else AWAY
        self.generation[c] += 1
        self.tally.connected[replica.number].add(now, -1)
        replica.connected -= 1
        replica.queue.drop(c)
        held = self.offered[c] is not None
        self.offered[c] = None
        if not gone:
            self._set(now, ARRIVE, c)
        if held and to_push:
            replica.free += 1
            self._dispatch(now, replica)

    def _come_up(self, now: int, replica: Replica) -> None:
        """A restarted istiod serves again; what it had not pushed is in its first Push."""
        replica.up = True
        replica.limiter.next = now
        for number in replica.unpushed:
            if not replica.requests[number].proxies:
                replica.debouncer.submit(now, number)
        self._handle_next(now, replica)

    # ---- small things

    def _plan(self, replica: Replica, c: int, event: Event) -> Plan:
        group, state = self.group_of[c], self.state[c]
        key = (replica.number, group, state, event.first, event.last, event.forced)
        plan = self._plan_of.get(key)
        if plan is None:
            planned = replica.planner.plan(group, state, event.first, event.last, bool(event.forced))
            plan = self._plan_of[key] = self._priced(planned, replica, c, event.first, event.last)
        return plan

    def _priced(self, planned: Planned, replica: Replica, c: int, first: int, last: int) -> Plan:
        prices = tuple(self.prices.response(response) for response in planned.responses)
        pushed = sum(not response.solicited for response in planned.responses)
        work = self.prices.work_ns(planned.work)
        plan = Plan(planned, replica.number, self.group_of[c], first, last, prices, work, pushed, len(self.plans))
        plan.reset()
        self.plans.append(plan)
        return plan

    def _scope(self, c: int) -> Scope:
        scope = self._current(c).planned.scope
        assert scope is not None
        return scope

    def _current(self, c: int) -> Plan:
        plan = self.plan[c]
        assert plan is not None
        return plan

    def _moves_to(self, now: int, c: int, state: int) -> None:
        if state != self.state[c]:
            self._dwelt(now, c)
            self.state[c] = state

    def _dwelt(self, now: int, c: int) -> None:
        key = (self.home[c], self.group_of[c], self.state[c])
        self.tally.dwell[key] += now - self.state_since[c]
        self.state_since[c] = now

    def _work(self, counts: Counts) -> int:
        for name, amount in counts.items():
            self.tally.amounts[name] += amount
        return self.prices.work_ns(counts)

    def _start(self, now: int, replica: Replica, kind: int, argument: int, work_ns: int) -> None:
        replica.cores.start(now, kind << 32 | argument, work_ns)

    def _cached(self, now: int, replica: Replica) -> None:
        level = self.tally.cache[replica.number]
        level.add(now, replica.cache.bytes - level.value)

    def _set(self, at: int, kind: int, who: int, a: int = 0, b: int = 0) -> None:
        generation = 0 if kind == UP else self.generation[who]
        heappush(self._wakes, (at, self._waked, kind, who, generation, a, b))
        self._waked += 1
        if kind != CLOSE:
            self.expected += 1

    def _note(self, now: int, kind: int, who: int, first: int = 0, last: int = 0) -> None:
        if self.log is not None:
            self.log.append((now, kind, who, first, last))

    def _shared(self, purpose: int, c: int, share: float) -> bool:
        return draw(self.seed, purpose, c, 0) % 1_000_000 < round(share * 1_000_000)
