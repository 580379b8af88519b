"""Streams: who connects where and when, and what is left when a stream ends (reference §2)."""

from __future__ import annotations

from pushsim.control.cores import NEVER, SECOND
from pushsim.control.limiter import AGE, GRACE, REPLICA, backoff_ns, draw
from pushsim.control.replica import UNSET, Replica
from pushsim.control.serving import Serving
from pushsim.control.state import (
    ACCEPT,
    ACCEPTING,
    AGE_GRACE_NS,
    ARRIVE,
    AWAY,
    BLOCKED,
    CLOSE,
    CLOSED,
    CONNECTED,
    GONE,
    IDLE,
    LOOK,
    LOOKING,
    POD_START_NS,
    POLLED,
    PUSHING,
    REPLYING,
    WRITING,
)
from pushsim.planner import Counts

#: What it takes to open a stream.
OPENING_WORK: Counts = {"stream.opened": 1}
#: What it takes to look whether a stream is still alive.
KEEPALIVE_WORK: Counts = {"stream.keepalives": 1}
#: A ping has to be answered within this time (keepaliveTimeout); then it is looked again.
KEEPALIVE_TIMEOUT_NS = 10 * SECOND


class Streams(Serving):
    """How proxies come and go."""

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
        self._start(now, replica, ACCEPTING, c, self._work(OPENING_WORK), POLLED)

    def _accepted(self, now: int, replica: Replica, c: int) -> None:
        """The connection is registered: it is pushed from now on, and its first requests are answered."""
        if self.phase[c] != AWAY:
            return
        planned = replica.planner.connect(self.group_of[c], replica.published)
        key = (replica.number, replica.published, id(planned))
        plan = self._connect_plan.get(key)
        if plan is None:
            plan = self._connect_plan[key] = self._priced(planned, replica, c, UNSET, UNSET)
        self._takes(plan)
        self.tally.connects += 1
        if self.lost_at[c] >= self.tally.since:
            self.tally.away.append(now - self.lost_at[c])
        self.tally.connected[replica.number].add(now, 1)
        replica.connected += 1
        self.home[c] = replica.number
        self.phase[c] = IDLE
        self.closing[c] = 0
        self.last_start[c] = 0
        self.read_at[c] = self.read_before[c] = 0
        self._takes_up(now, c, planned.state)
        self._note(now, CONNECTED, c, replica.number)
        self.heard[c], self.looks[c] = now, False
        self._set(now + replica.knobs.keepalive_ns, LOOK, c)
        if self.aging:
            age = self.reconnect_ns * 9 // 10 + draw(self.seed, AGE, c, self.generation[c]) % (self.reconnect_ns // 5)
            self._set(now + age + draw(self.seed, GRACE, c, self.generation[c]) % AGE_GRACE_NS, CLOSE, c)
        if planned.responses:
            self._ask(c, plan, 0)
            self._read(c)
            self._next_on(now, c)

    def _keep_alive(self, now: int, c: int) -> None:
        """The keepalive timer fires: after a silence, which the answer ends, it pings (grpc-go, http2Server.keepalive).

        Who still waits for a core to look does not wait for another.
        """
        replica = self.replicas[self.home[c]]
        silence = replica.knobs.keepalive_ns
        due = self.heard[c] + silence
        if now >= due:
            self.heard[c], due = now, now + min(silence, KEEPALIVE_TIMEOUT_NS)
        if not self.looks[c]:
            self.looks[c] = True
            self._start(now, replica, LOOKING, c, self._work(KEEPALIVE_WORK), POLLED)
        self._set(due, LOOK, c)

    def _close(self, now: int, c: int, how: int) -> None:
        """The stream ends (1), or its pod does (2): at once if the connection is idle, else when it is."""
        if self.phase[c] in (PUSHING, REPLYING, WRITING, BLOCKED):
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
        held = self._abandon(c)
        gone = self.closing[c] == 2
        self.closing[c] = 0
        self.home[c] = UNSET
        self.lost_at[c] = UNSET if gone else now
        self.phase[c] = GONE if gone else AWAY
        self.generation[c] += 1
        self.tally.connected[replica.number].add(now, -1)
        replica.connected -= 1
        replica.queue.drop(c)
        if not gone:
            self._set(now, ARRIVE, c)
        if held and to_push:
            replica.free += 1
            self._dispatch(now, replica)
        else:
            self._gauge(now, replica)
