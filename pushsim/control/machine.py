"""istiod, all replicas of it, and the connections of all proxies: one machine without a clock.

A driver tells it what time it is and what happens then; the machine says when it next wants to be told (`due_*`).

    write(now, change)       a change is written to the API server: each replica's handlers get it
    tick(now, replica)       the debounce timer of a replica fires        due: tick_due(replica)
    finish(now, replica)     a job ends on the cores of a replica         due: finish_due(replica)
    wake(now)                somebody has waited long enough              due: wake_due()
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

from pushsim.control.cores import NEVER, NEXT, PREEMPTED
from pushsim.control.debounce import Batch
from pushsim.control.limiter import AGE, RING, draw
from pushsim.control.replica import HANDLES, RESTS, UNSET, WATCHES, WOKEN, Begun, Replica
from pushsim.control.state import (
    ACCEPT,
    ACCEPTING,
    ACKING,
    ARRIVE,
    ASK,
    AWAY,
    CLOSE,
    CONTEXT,
    ENQUEUING,
    GONE,
    HANDLING,
    IDLE,
    KEPT_PUSHES,
    LOOK,
    LOOKING,
    POLLED,
    PUBLISHED,
    READING,
    RESTART_NS,
    SCOPING,
    SENDING,
    SERVING,
    SLICES,
    UNBLOCK,
    UP,
    WRITTEN,
    YIELDING,
)
from pushsim.control.streams import Streams
from pushsim.control.tally import PushRecord
from pushsim.mesh import SLICES_LATER_NS, in_parts


class Machine(Streams):
    """See the module."""

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
        parts = in_parts(self.changes[change])
        for replica in self.replicas:
            replica.inboxes[0].append(change)
            self._listen(now, replica, 0)
        for place in range(1, len(parts)):
            self.following += 1
            self._set(now + place * SLICES_LATER_NS, SLICES, change, place)

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
        if job != PREEMPTED:
            self._finished(now, replica, job >> 32, job & 0xFFFFFFFF)
        replica.cores.fill()

    def _finished(self, now: int, replica: Replica, kind: int, argument: int) -> None:
        if kind == SERVING:
            self._generated(now, argument)
        elif kind == SENDING:
            self._written(now, argument)
        elif kind == HANDLING:
            self._handled(now, replica, argument)
        elif kind == CONTEXT:
            self._publish(now, replica, argument)
        elif kind == ENQUEUING:
            self._push_returned(now, replica, argument)
        elif kind == ACCEPTING:
            self._accepted(now, replica, argument)
        elif kind == READING:
            self._read(argument)
            if self.phase[argument] == IDLE:
                self._next_on(now, argument)
        elif kind == SCOPING:
            self._scope_built(now, replica, argument)
        elif kind == ACKING:
            self._acked(replica, argument)
        elif kind == YIELDING:
            self._resumed(now, replica, argument)
        else:
            assert kind == LOOKING
            self.looks[argument] = False

    def wake_due(self) -> int:
        """When a proxy, a Send or an istiod has waited long enough."""
        return self._wakes[0][0] if self._wakes else NEVER

    def wake(self, now: int) -> None:
        """A proxy, a Send or an istiod has waited long enough."""
        _, _, kind, who, generation, a, b = self._next_wake()
        if kind == UP:
            self._come_up(now, self.replicas[who])
            return
        if kind == SLICES:
            self.following -= 1
            for replica in self.replicas:
                replica.inboxes[a].append(who)
                self._listen(now, replica, a)
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
            self._ask(who, self.plans[a], b)
            self._start(now, self.replicas[self.home[who]], READING, who, 1, POLLED)
        elif kind == UNBLOCK:
            self._sent(now, who)
        elif kind == LOOK:
            self._keep_alive(now, who)
        else:
            self._close(now, who, 1)

    def restart(self, now: int, number: int) -> None:
        """That istiod's process ends; its proxies connect anew, and it serves again after RESTART_NS."""
        replica = self.replicas[number]
        if not replica.up:
            return
        accepting = [job & 0xFFFFFFFF for job in replica.cores.jobs if job >> 32 == ACCEPTING]
        replica.cores.stop(now)
        replica.up = False
        replica.fresh()
        if replica.pushes:
            replica.published = replica.pushes - 1  # the new process starts from the newest context
        for c in range(self.total):
            if self.home[c] == number:
                self._forget(now, c, to_push=False)
        for c in accepting:
            if self.phase[c] == AWAY:
                self._set(now, ARRIVE, c)
        for level in self.tally.held(number).values():
            level.add(now, -level.value)
        self._set(now + RESTART_NS, UP, number)

    @property
    def settled(self) -> bool:
        """All are connected and nothing is to be done, but to look whether they are still there."""
        jobs = (job for replica in self.replicas for job in replica.cores.jobs)
        return not self.expected and self.drained and all(job >> 32 == LOOKING for job in jobs)

    @property
    def drained(self) -> bool:
        """Nothing is on its way from a change to a proxy."""
        return not self.following and all(replica.drained for replica in self.replicas)

    def gauge(self, now: int) -> None:
        """The integrals of the levels of queues and throttles are noted."""
        for replica in self.replicas:
            self._gauge(now, replica)
        waiting, slots = (sum(level.integral for level in of) for of in (self.tally.waiting, self.tally.slots))
        self.tally.gauges.append((now, waiting, slots))

    def start_counting(self, now: int) -> None:
        """All that was observed so far is forgotten."""
        for replica in self.replicas:
            replica.cores.advance(now)
            replica.cores.woken = 0
        for plan in self.plans:
            plan.reset()
        self._uses.clear()
        self.tally.start_counting(now)
        self._begin_sums()
        for c in range(self.total):
            self.shaped_at[c] = now

    def stop_counting(self, now: int) -> None:
        """Levels and dwell times up to now are accounted."""
        for replica in self.replicas:
            replica.cores.advance(now)
        for c in range(self.total):
            if self.phase[c] >= IDLE:
                self._dwelt(now, c)

    # ---- from a change to the queue

    def _listen(self, now: int, replica: Replica, watch: int) -> None:
        """What came over a watch wakes who reads it, if he rests: he waits like all that comes from the network."""
        if replica.handling[watch] == RESTS and replica.inboxes[watch] and replica.up:
            replica.handling[watch] = WOKEN
            self._start(now, replica, HANDLING, watch, 1, POLLED)

    def _handle(self, now: int, replica: Replica, watch: int) -> None:
        """All that has come over a watch is read, and handled: one change at once, several after the first line.

        client-go reads, stores and handles in goroutines that wake each other. Who reads a second change takes
        `runnext` from who is to handle the first, so that he is the last of the line, and handles all there is then.
        """
        replica.handling[watch] = HANDLES
        inbox, first, work_ns = replica.inboxes[watch], replica.requested, 0
        several = len(inbox) > 1
        while inbox:
            change = inbox.popleft()
            handled = replica.planner.handle(change, in_parts(self.changes[change])[watch])
            for number, request in enumerate(handled.requests, replica.requested):
                replica.unpushed[number] = request, change
            replica.requested += len(handled.requests)
            work_ns += self._work(handled.work)
            if replica.number == 0:
                for place, (group, member) in enumerate(handled.joined):
                    if handled.located:
                        self.locality[self.offset[group] + member] = handled.located[place]
                    self._join(now, self.offset[group] + member)
                for group, member in handled.left:
                    self._close(now, self.offset[group] + member, 2)
        replica.submitting[watch] = range(first, replica.requested)
        if several:
            replica.cores.wait(HANDLING << 32 | watch, work_ns)
        else:
            self._start(now, replica, HANDLING, watch, work_ns)

    def _handled(self, now: int, replica: Replica, watch: int) -> None:
        """Who reads a watch has its core, or its handler is done: its requests go to the debouncer, or around it."""
        if replica.handling[watch] == WOKEN:
            self._handle(now, replica, watch)
            return
        replica.handling[watch] = RESTS
        for number in replica.submitting[watch]:
            request, _ = replica.unpushed[number]
            if request.evicts is not None:
                replica.cache.clear(now, request.evicts())
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
        self._listen(now, replica, watch)

    def _start_push(self, now: int, replica: Replica, batch: Batch) -> None:
        """Push() begins: its work, if it has any, the PushContext among it."""
        push = replica.planner.push(batch.requests)
        changes = tuple(dict.fromkeys(replica.unpushed.pop(number)[1] for number in batch.requests))
        replica.begun[push.number] = Begun(batch, push, changes)
        replica.pushes += 1
        replica.running += 1
        replica.preparing.add(push.number)
        if push.work:
            self._start(now, replica, CONTEXT, push.number, self._work(push.work), NEXT)
        else:
            self._publish(now, replica, push.number)

    def _publish(self, now: int, replica: Replica, number: int) -> None:
        """The PushContext is ready: the cache is cleared, Start is now, every connection is enqueued."""
        batch, push, changes = replica.begun[number]
        if push.evict_all:
            replica.cache.clear_all(now)
        else:
            replica.cache.clear(now, push.evicts())
        self._cached(now, replica)
        replica.preparing.discard(push.number)
        replica.published = max(replica.published, push.number)
        self._note(now, PUBLISHED, replica.number, push.number, len(batch.requests))
        self.tally.pushes.append(PushRecord(replica.number, push.number, changes, batch.since, now, batch.held))
        begin = draw(self.seed, RING, replica.number, push.number) % self.total if self.total else 0
        self._enqueue_all(now, replica, push.number, begin)
        self._start(now, replica, ENQUEUING, number, self._work({"push.connections": replica.connected}))
        if push.number % KEPT_PUSHES == 0 or replica.planner.may_meet():
            self._let_go(replica)
        self._dispatch(now, replica)

    def _enqueue_all(self, now: int, replica: Replica, push: int, begin: int) -> None:
        """A push for every connection of a replica, in the order of the ring from that place on."""
        enqueue, home, number = replica.queue.enqueue, self.home, replica.number
        for c in (*self.ring[begin:], *self.ring[:begin]):
            if home[c] == number:
                enqueue(c, push, now)

    def _let_go(self, replica: Replica) -> None:
        """The planner may forget states that no proxy is in, and pushes that no event ends with."""
        used, oldest, since = self._in_use(replica)
        replica.planner.keep(used, oldest, since)
        self._forget_plans(replica, {state for _, state in used}, oldest)

    def _push_returned(self, now: int, replica: Replica, number: int) -> None:
        """Push() returns: the debouncer may begin the next."""
        replica.running -= 1
        since = replica.begun.pop(number).batch.since
        if since == UNSET:
            return
        self.tally.debounced.append(now - since)
        batch = replica.debouncer.finished(now)
        if batch:
            self._start_push(now, replica, batch)

    def _come_up(self, now: int, replica: Replica) -> None:
        """A restarted istiod serves again; what it had not pushed is in its first Push."""
        replica.up = True
        replica.limiter.next = now
        for number, (request, _) in replica.unpushed.items():
            if not request.proxies:
                replica.debouncer.submit(now, number)
        for watch in range(WATCHES):
            self._listen(now, replica, watch)
