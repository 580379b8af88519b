"""From the queue to a proxy: slots, connections, responses (reference §1.6 to §1.8)."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from pushsim.control.cores import LOCKED
from pushsim.control.queue import Event
from pushsim.control.replica import UNSET, Replica
from pushsim.control.state import (
    ASK,
    BLOCKED,
    DEQUEUED,
    IDLE,
    POLLED,
    PUSHED,
    PUSHING,
    REPLYING,
    SCOPING,
    SERVING,
    SPARED,
    UNBLOCK,
    WRITING,
)
from pushsim.control.tally import Plan
from pushsim.control.wire import Wire
from pushsim.cost import Price
from pushsim.mesh import XDS
from pushsim.planner import Planned, Response, Scope


class Serving(Wire):
    """How connections work off events and requests."""

    def _close(self, now: int, c: int, how: int) -> None:
        raise NotImplementedError  # streams

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
        self._gauge(now, replica)

    def _gauge(self, now: int, replica: Replica) -> None:
        """The levels of the queue and of the throttle are what they are now."""
        waiting, slots = self.tally.waiting[replica.number], self.tally.slots[replica.number]
        waiting.add(now, len(replica.queue) - waiting.value)
        slots.add(now, replica.knobs.throttle - replica.free - slots.value)

    def _begin_push(self, now: int, event: Event) -> None:
        """The connection takes the event: what the proxy gets is decided, on its state and the merged interval."""
        c = event.connection
        plan = self._plan(self.replicas[self.home[c]], c, event)
        plan.taken += 1
        if plan.planned.needed or plan.planned.responses:
            use = self._use(plan, c)
            use.taken += 1
            if use.queued_at == UNSET or event.start < use.queued_at:
                use.queued_at = event.start
        self._moves_to(now, c, plan)
        self.phase[c], self.plan[c], self.step[c], self.event[c] = PUSHING, plan, 0, event
        self.wired[c] = 0
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
        work, self.to_make[c], job = before_ns, 0, SERVING << 32 | c
        if step < plan.pushed or self.phase[c] == REPLYING:
            response, price = plan.planned.responses[step], plan.prices[step]
            resources = units = 0
            if response.view is not None:
                resources, units = replica.cache.read(
                    response.xds, response.view, self.last_start[c], response.size_bytes, self.locality[c]
                )
                if resources:
                    plan.missed_resources[step] += resources
                    plan.missed_units[step] += units
                    self._cached(now, replica)
            self.to_make[c] = response.size_bytes
            if response.xds != "EDS" or plan.pushed > 1 or self.phase[c] == REPLYING:
                job |= LOCKED  # a line of the log says it; what a push of endpoints alone sends is not logged
            work += price.work_ns(resources, units)
            if self.slow[c] or self.phase[c] == REPLYING:
                work += price.write_ns + price.ack_ns
        replica.cores.start(now, job, max(1, work), POLLED if self.phase[c] == REPLYING else 0)

    def _runs(self, replica: Replica, job: int) -> None:
        """A job gets a core: a connection's begins to generate, unless it did already."""
        c = job & 0xFFFFFFFF
        if job >> 32 == SERVING and self.to_make[c]:
            self.tally.making[replica.number].add(replica.cores.now, self.to_make[c])
            self.to_make[c] = 0

    def _generated(self, now: int, c: int) -> None:
        """The connection has worked: a response is to be sent, or there was none to make."""
        plan, step = self._current(c), self.step[c]
        if self.phase[c] == PUSHING and step >= plan.pushed:
            self._pushed(now, c)
            return
        home, size_bytes = self.home[c], plan.planned.responses[step].size_bytes
        self.tally.making[home].add(now, -size_bytes)
        self.tally.flight[home].add(now, size_bytes)
        self.tally.spare[home].add(now, plan.prices[step].spare_bytes)
        if self.phase[c] != PUSHING or not self._blocks(now, c):
            self._send(now, c)

    def _send(self, now: int, c: int) -> None:
        """Send takes the response, unless a slow proxy has not read the one before."""
        if self.slow[c] and self.read_before[c] > now:
            self._set(self.read_before[c], UNBLOCK, c)
        else:
            self._sent(now, c)

    def _sent(self, now: int, c: int) -> None:
        """Send has returned: the stream's writer has the response."""
        step = self.step[c]
        if self.phase[c] == REPLYING:
            self._replied(now, c, self._on_wire(now, c, step, UNSET))
            return
        self.step[c] = step + 1
        plan = self._current(c)
        if plan.renews[step]:
            self.newest[c, plan.planned.responses[step].xds] = plan.last
        last = step + 1 == plan.pushed
        if self.slow[c]:
            event = self.event[c]
            assert event is not None
            self._on_wire(now, c, step, now - event.start if last else UNSET)
            self.wired[c] = step + 1
        if last:
            self._pushed(now, c)
        else:
            self._serve(now, c, 0)

    def _pushed(self, now: int, c: int) -> None:
        """pushConnection returns: convergence, MarkDone, the slot, then whoever waits; what is not written is, then."""
        plan, event = self._current(c), self.event[c]
        assert event is not None
        self.took[c] = now - event.start
        if plan.planned.needed:
            self.tally.pushed += 1
            self.tally.converged.append(self.took[c])
        self._note(now, PUSHED if plan.planned.needed else SPARED, c, event.first, event.last)
        replica = self.replicas[self.home[c]]
        self.event[c] = None
        replica.queue.done(c)
        replica.free += 1
        if self.wired[c] < plan.pushed:
            self._leave(replica, c)
        else:
            self._follow_up(now, c)
        self._dispatch(now, replica)

    def _written(self, now: int, c: int) -> None:
        """The stream's writer has written all that was sent of a push: the next Send goes on, or the push is over."""
        self._write_all(now, c)
        if self.phase[c] == BLOCKED:
            self.phase[c] = PUSHING
            self._send(now, c)
        else:
            self.following -= 1
            self._follow_up(now, c)

    def _follow_up(self, now: int, c: int) -> None:
        """A push is on its way; the proxy may ask for what follows from it."""
        plan = self._current(c)
        if plan.pushed < len(plan.planned.responses):
            self.following += 1
            heard = max(now + self.prices.latency_ns, self.read_at[c])
            self._set(heard + self.prices.reply_ns, ASK, c, plan.number, plan.pushed)
        self.phase[c] = IDLE
        self._next_on(now, c)

    # ---- requests of a proxy

    def _ask(self, c: int, plan: Plan, step: int) -> None:
        """A proxy asks for that response of a plan; it is answered when it is read and the connection is idle."""
        self.asked[c].append((plan, step))

    def _read(self, c: int) -> None:
        """istiod has read what a proxy asks."""
        self.readable[c] = min(self.readable[c] + 1, len(self.asked[c]))

    def _abandon(self, c: int) -> bool:
        """All that a stream was at and that waited for it is dropped; whether it held a slot for an offered event."""
        self.following -= sum(plan.first != UNSET for plan, _ in self.asked[c]) + (self.phase[c] == WRITING)
        if self.phase[c] == REPLYING and self._current(c).first != UNSET:
            self.following -= 1
        self.asked[c].clear()
        self.readable[c] = self.to_make[c] = 0
        self.yields[c] = False
        for xds in XDS if self.sotw else ():
            self.newest.pop((c, xds), None)
        held = self.offered[c] is not None
        self.event[c] = self.offered[c] = None
        return held

    def _next_on(self, now: int, c: int) -> None:
        """The connection's loop: it ends, or takes a request, else an event that is offered."""
        if self.closing[c]:
            self._close(now, c, self.closing[c])
            return
        if self.readable[c]:
            self.readable[c] -= 1
            plan, step = self.asked[c].popleft()
            if self._is_stale(c, plan, step):
                self._goes_on(now, c, plan, step)
                self._next_on(now, c)
                return
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
        self._goes_on(received_at, c, self._current(c), self.step[c])
        self.phase[c] = IDLE
        self._next_on(now, c)

    def _goes_on(self, now: int, c: int, plan: Plan, step: int) -> None:
        """A request is dealt with; the proxy may have more to ask."""
        if step + 1 < len(plan.planned.responses):
            self._set(now + self.prices.reply_ns, ASK, c, plan.number, step + 1)
        elif plan.first != UNSET:
            self.following -= 1

    def _is_stale(self, c: int, plan: Plan, step: int) -> bool:
        """Whether a request names a nonce that is not the last: istiod ignores it (pilot_xds_expired_nonce).

        The proxy has the newer response by then, or will, and what it asks when it has is all that it wants.
        """
        newest = self.newest.get((c, plan.planned.responses[step].xds), UNSET)
        return plan.first != UNSET and newest > plan.last

    # ---- plans

    def _takes(self, plan: Plan) -> None:
        """A proxy connects with that plan."""
        plan.taken += 1

    def _forget_plans(self, replica: Replica, states: Collection[int], oldest: int) -> None:
        """No proxy of a replica will be in other states, nor take an interval that ends before the oldest push."""
        n = replica.number
        plans, planned, shapes = self._plan_of[n], self._planned[n], self._shapes[n]
        self._plan_of[n] = {key: plan for key, plan in plans.items() if key[1] in states and key[3] >= oldest}
        self._planned[n] = {key: plan for key, plan in planned.items() if key[2] >= oldest}
        self._shapes[n] = {key: shape for key, shape in shapes.items() if key[2] >= oldest}
        greeted = self._connect_plan
        self._connect_plan = {key: plan for key, plan in greeted.items() if key[0] != n or key[1] >= oldest}

    def _in_use(self, replica: Replica) -> tuple[set[tuple[int, int]], int, int]:
        """Groups with states of a replica's connections, and the oldest pushes that events end and begin with.

        Events are those that wait and those that are offered; others will begin with pushes that are not published yet.
        """
        queue, mine = replica.queue, [c for c in range(self.total) if self.home[c] == replica.number]
        waiting = [(queue.first[c], queue.last[c]) for c in mine if queue.first[c] != UNSET]
        events = [*waiting, *((event.first, event.last) for c in mine if (event := self.offered[c]) is not None)]
        oldest = min([replica.published, *(last for _, last in events)])
        since = min([*replica.unpublished(), *(first for first, _ in events)])
        return {(self.group_of[c], int(self.state[c])) for c in mine}, oldest, since

    def _plan(self, replica: Replica, c: int, event: Event) -> Plan:
        group, state = self.group_of[c], int(self.state[c])
        plans, key = self._plan_of[replica.number], (group, state, event.first, event.last, event.forced)
        plan = plans.get(key)
        if plan is None:
            planned = replica.planner.plan(group, state, event.first, event.last, bool(event.forced))
            known, which = self._planned[replica.number], (id(planned), event.first, event.last)  # the plan keeps it
            plan = known.get(which)
            if plan is None:
                plan = known[which] = self._priced(planned, replica, c, event.first, event.last)
            plans[key] = plan
        return plan

    def _priced(self, planned: Planned, replica: Replica, c: int, first: int, last: int) -> Plan:
        prices = tuple(map(self._price, planned.responses))
        pushed = sum(not response.solicited for response in planned.responses)
        asked = {response.xds for response in planned.responses[pushed:]} if self.sotw and first != UNSET else set()
        renews = tuple(response.xds in asked for response in planned.responses[:pushed])
        work = self.prices.work_ns(planned.work)
        number = len(self.plans)
        plan = Plan(planned, replica.number, self.group_of[c], first, last, prices, work, pushed, renews, number)
        plan.reset()
        self.plans.append(plan)
        return plan

    def _price(self, response: Response) -> Price:
        """A response's price, once for all plans that share it."""
        known = self._price_of.get(id(response))
        if known is None or known[0] is not response:
            known = self._price_of[id(response)] = response, self.prices.response(response)
        return known[1]

    def _scope(self, c: int) -> Scope:
        scope = self._current(c).planned.scope
        assert scope is not None
        return scope
