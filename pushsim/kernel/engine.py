"""`Kernel`: drives a `KernelMachine` through the phases of a run, as `simulation.Simulation` does a `Machine`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pushsim.control.cores import SECOND
from pushsim.kernel.machine import KernelMachine
from pushsim.settings import Timed
from pushsim.simulation import DRAIN_POLL_NS, Progress, Timeline


class Kernel:
    """One run of a compiled machine. See `Simulation`."""

    def __init__(
        self,
        machine: KernelMachine,
        changes: Sequence[Timed],
        *,
        warmup_ns: int,
        duration_ns: int,
        progress: Progress | None = None,
        settled: Callable[[int], dict[str, Any]] | None = None,
    ) -> None:
        self.machine, self.warmup, self.duration = machine, warmup_ns, duration_ns
        self.progress, self.on_settled = progress, settled
        self.changes = [(n, timed) for n, timed in enumerate(changes) if timed.at_ns < warmup_ns + duration_ns]
        self.timeline = Timeline()
        self.now = self.restarts = self._written = 0

    def run(self) -> Timeline:
        """Simulate to the end; an interrupt ends it early and keeps what there is."""
        try:
            self._operate()
            self.timeline.complete = True
        except KeyboardInterrupt:
            self.timeline.ended = self.now
            self.machine.stop_counting(self.now)
        return self.timeline

    def _operate(self) -> None:
        machine, timeline = self.machine, self.timeline
        machine.connect_all(0)
        while not machine.settled:
            self._advance(self.now + SECOND)
            self._tell(0.0)
        timeline.epoch = self.now
        if self.on_settled:
            machine.take_up()
            timeline.connect = self.on_settled(self.now)
        machine.start_aging(self.now)
        if not self.warmup:
            self._write()
        self._advance(self.now + self.warmup)
        machine.start_counting(self.now)
        timeline.counted = self.now
        machine.take_up()
        timeline.spent_before = [sum(replica.cores.spent) for replica in machine.replicas]
        end = self.now + self.duration
        while self.now < end:
            self._advance(min(self.now + SECOND, end))
            self._tell((self.now - timeline.counted) / max(1, self.duration))
        while not machine.drained:
            self._advance(self.now + DRAIN_POLL_NS)
            self._tell(1.0)
        timeline.ended = self.now
        machine.stop_counting(self.now)

    def _advance(self, until: int) -> None:
        """Run to that time, but not what happens at it: whoever called comes first, then those that write."""
        while True:
            due = self._due()
            if due >= until:
                break
            if due > self.now:
                self.machine.run(due)
                self.now = due
            self._write()
        self.machine.run(until)
        self.now = until

    def _due(self) -> int:
        if self.timeline.epoch < 0 or self._written == len(self.changes):
            return 1 << 62
        return max(self.now, self.timeline.epoch + self.changes[self._written][1].at_ns)

    def _write(self) -> None:
        """Write what is due now."""
        machine = self.machine
        while self._due() <= self.now:
            number, timed = self.changes[self._written]
            self._written += 1
            if timed.marker:
                machine.restart(self.now, self.restarts % len(machine.replicas))
                self.restarts += 1
            else:
                machine.write(self.now, number)

    def _tell(self, share: float) -> None:
        self.machine.gauge(self.now)
        if self.progress:
            self.progress(min(1.0, share))
