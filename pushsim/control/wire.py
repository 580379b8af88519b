"""A stream's writer: from Send to the wire (grpc-go, internal/transport: loopyWriter.run).

Each stream's connection has a goroutine that writes. Send wakes it, so that it waits in the line of whoever has
something to do at once. Before it writes less than MIN_BATCH bytes it gives up its core once, so that more may come
(runtime.Gosched): it goes to the second line then, as what comes from the network does. An ACK makes it write such a
small frame, a ping (bdpEstimator), so while istiod is busy it often waits there, and with it whatever is sent
meanwhile. A Send that finds WRITE_QUOTA bytes unwritten waits for it.

Not modelled: a second ping before the first is answered, pings for requests that are answered, and what else the writer
could write while a push still generates, on a core that is free. Seen in execution traces of an overloaded istiod 1.24.
"""

from __future__ import annotations

from pushsim.control.cores import NEXT
from pushsim.control.replica import UNSET, Replica
from pushsim.control.state import ACKING, BLOCKED, POLLED, SENDING, SENT, WRITING, YIELDING, State
from pushsim.control.tally import Plan, Sent

#: A stream's write quota (grpc-go, internal/transport: defaultWriteQuota): Send waits while as much is not written.
WRITE_QUOTA = 64 * 1024
#: With less than that to write, the writer yields first (grpc-go, internal/transport: minBatchSize).
MIN_BATCH = 1000


class Wire(State):
    """How responses are written."""

    def _current(self, c: int) -> Plan:
        plan = self.plan[c]
        assert plan is not None
        return plan

    def _unwritten_bytes(self, c: int) -> int:
        """How much has been sent and is not written."""
        responses = self._current(c).planned.responses
        return sum(responses[step].size_bytes for step in range(self.wired[c], self.step[c]))

    def _unwritten_ns(self, c: int) -> int:
        """Work of writing that."""
        prices = self._current(c).prices
        return max(1, sum(prices[step].write_ns for step in range(self.wired[c], self.step[c])))

    def _blocks(self, now: int, c: int) -> bool:
        """Whether a Send of the connection's push has to wait; until all that was sent before is written."""
        if self._unwritten_bytes(c) < WRITE_QUOTA:
            return False
        self.phase[c] = BLOCKED
        if not self.yields[c]:
            self._write(now, self.replicas[self.home[c]], c)
        return True

    def _leave(self, replica: Replica, c: int) -> None:
        """A push has been sent, and is written when the writer gets a core."""
        self.following += 1
        self.phase[c] = WRITING
        if not self.yields[c]:
            line = POLLED if self._unwritten_bytes(c) < MIN_BATCH else 0
            replica.cores.wait(SENDING << 32 | c, self._unwritten_ns(c), line)

    def _write(self, now: int, replica: Replica, c: int) -> None:
        """The writer goes on where a core has just been left."""
        self._start(now, replica, SENDING, c, self._unwritten_ns(c), NEXT)

    def _acked(self, replica: Replica, c: int) -> None:
        """ACKs are read; unless the writer has more to write, it yields for the ping."""
        if self.home[c] == replica.number and not self.yields[c] and self.phase[c] not in (BLOCKED, WRITING):
            self.yields[c] = True
            replica.cores.wait(YIELDING << 32 | c, 1, POLLED)

    def _resumed(self, now: int, replica: Replica, c: int) -> None:
        """The writer has a core again: it writes what has come, unless that is a push which goes on."""
        if self.home[c] == replica.number and self.yields[c]:
            self.yields[c] = False
            if self.phase[c] in (BLOCKED, WRITING):
                self._write(now, replica, c)

    def _write_all(self, now: int, c: int) -> None:
        """What has been sent is written; its ACKs come over the network, and are soon there."""
        plan = self._current(c)
        for step in range(self.wired[c], self.step[c]):
            self._on_wire(now, c, step, self.took[c] if step + 1 == plan.pushed else UNSET)
        if acks_ns := sum(price.ack_ns for price in plan.prices[self.wired[c] : self.step[c]]):
            self.replicas[self.home[c]].cores.wait(ACKING << 32 | c, acks_ns, POLLED)
        self.wired[c] = self.step[c]

    def _on_wire(self, now: int, c: int, step: int, converged: int) -> int:
        """A response is written: when the proxy has it. converged: of the last of a push."""
        plan = self._current(c)
        response = plan.planned.responses[step]
        received_at = now + self.prices.latency_ns
        if self.slow[c]:
            received_at = max(now, self.read_at[c]) + self.slow[c]
            self.read_before[c], self.read_at[c] = self.read_at[c], received_at
        self.heard[c] = received_at
        plan.sent[step] += 1
        use = self._use(plan, c)
        use.sent[step] += 1
        if use.first_sent[step] == UNSET:
            use.first_sent[step] = now
        use.last_sent[step] = now
        tally = self.tally
        tally.flight[self.home[c]].add(now, -response.size_bytes)
        tally.spare[self.home[c]].add(now, -plan.prices[step].spare_bytes)
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
        if tally.details is not None:
            tally.details.append(Sent(plan, step, c, now, converged, first))
        return received_at
