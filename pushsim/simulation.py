"""The reference engine: simpy drives `control.Machine` through time, and does nothing else.

Two long-lived processes, the operator (connect, warm up, count, drain) and the writer (the scenario's changes), and an
alarm for each thing the machine waits for. Time is an integer of ns since the first proxy asked for a stream. At equal
times simpy's priorities give the machine's order: operator and writer, ticks, ends of jobs, wakes.

Phases: all proxies connect, until the machine is settled at a whole second (`epoch`); the warm-up is simulated from
there; counting starts after it and lasts for the duration, and on until everything that was written is delivered.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import simpy
from simpy.events import EventPriority

from pushsim.control.cores import NEVER, SECOND
from pushsim.control.machine import Machine
from pushsim.settings import Timed

#: How often, in simulated time, the operator looks whether a run that has had its duration is drained.
DRAIN_POLL_NS = SECOND // 10

#: Called every simulated second with the share of the scenario's time that is done (0…1); may raise KeyboardInterrupt.
Progress = Callable[[float], None]


@dataclass
class Timeline:
    """When the phases of a run began, in ns; UNSET is -1. `complete` is False for a run that was interrupted."""

    epoch: int = -1
    counted: int = -1
    ended: int = -1
    complete: bool = False
    spent_before: list[int] = field(default_factory=list)  # core time before counting, by replica, in parts
    connect: dict[str, Any] = field(default_factory=dict)


class _Alarm:
    """Fires `action` whenever `due()` has come. Late alarms are left to fire for nothing: cheaper than to cancel."""

    def __init__(
        self, env: simpy.Environment, rank: int, due: Callable[[], int], action: Callable[[int], None]
    ) -> None:
        self.env, self.rank, self.due, self.action = env, rank, due, action
        self.at = NEVER

    def arm(self) -> None:
        """See that it fires no later than it is due."""
        due = self.due()
        if due < self.at:
            self.at = due
            event = simpy.Event(self.env)
            event._ok, event._value = True, None
            event.callbacks.append(self._fire)
            self.env.schedule(event, cast(EventPriority, self.rank), due - self.env.now)

    def _fire(self, _: simpy.Event) -> None:
        now = int(self.env.now)
        if self.at == now:
            self.at = NEVER
        if self.due() <= now:
            self.action(now)
        else:
            self.arm()


class Simulation:
    """One run of a machine with simpy."""

    def __init__(
        self,
        machine: Machine,
        changes: Sequence[Timed],
        *,
        warmup_ns: int,
        duration_ns: int,
        progress: Progress | None = None,
        settled: Callable[[int], dict[str, Any]] | None = None,
    ) -> None:
        self.machine, self.changes = machine, changes
        self.warmup, self.duration = warmup_ns, duration_ns
        self.progress, self.on_settled = progress, settled
        self.timeline = Timeline()
        self.env = simpy.Environment()
        self.restarts = 0
        replicas = range(len(machine.replicas))
        self.alarms: list[_Alarm] = []
        for number in replicas:
            self._alarm(2 + number, machine.tick_due, machine.tick, number)
        for number in replicas:
            self._alarm(2 + len(replicas) + number, machine.finish_due, machine.finish, number)
        wake = _Alarm(self.env, 2 + 2 * len(replicas), machine.wake_due, self._told(machine.wake))
        self.alarms.append(wake)

    def run(self) -> Timeline:
        """Simulate to the end; an interrupt ends it early and keeps what there is."""
        try:
            self.env.run(self.env.process(self._operate()))
            self.timeline.complete = True
        except KeyboardInterrupt:
            self.timeline.ended = int(self.env.now)
            self.machine.stop_counting(self.timeline.ended)
        return self.timeline

    def _operate(self) -> Generator[simpy.Event, None, None]:
        env, machine, timeline = self.env, self.machine, self.timeline
        machine.connect_all(0)
        self._rearm()
        while not machine.settled:
            yield env.timeout(SECOND)
            self._tell(0.0)
        timeline.epoch = self.now
        if self.on_settled:
            timeline.connect = self.on_settled(self.now)
        machine.start_aging(self.now)
        counting = env.timeout(self.warmup)
        env.process(self._write())
        self._rearm()
        yield counting
        machine.start_counting(self.now)
        timeline.counted = self.now
        timeline.spent_before = [sum(replica.cores.spent) for replica in machine.replicas]
        end = self.now + self.duration
        while self.now < end:
            yield env.timeout(min(SECOND, end - self.now))
            self._tell((self.now - timeline.counted) / max(1, self.duration))
        while not machine.drained:
            yield env.timeout(DRAIN_POLL_NS)
            self._tell(1.0)
        timeline.ended = self.now
        machine.stop_counting(self.now)

    def _write(self) -> Generator[simpy.Event, None, None]:
        env, epoch = self.env, self.timeline.epoch
        for number, timed in enumerate(self.changes):
            if timed.at_ns >= self.warmup + self.duration:
                break  # later than the scenario
            if epoch + timed.at_ns > self.now:
                yield env.timeout(epoch + timed.at_ns - self.now)
            if timed.marker:
                self.machine.restart(self.now, self.restarts % len(self.machine.replicas))
                self.restarts += 1
            else:
                self.machine.write(self.now, number)
            self._rearm()

    @property
    def now(self) -> int:
        return int(self.env.now)

    def _alarm(self, rank: int, due: Callable[[int], int], action: Callable[[int, int], None], number: int) -> None:
        self.alarms.append(_Alarm(self.env, rank, lambda: due(number), self._told(lambda now: action(now, number))))

    def _told(self, action: Callable[[int], None]) -> Callable[[int], None]:
        def told(now: int) -> None:
            action(now)
            self._rearm()

        return told

    def _rearm(self) -> None:
        for alarm in self.alarms:
            alarm.arm()

    def _tell(self, share: float) -> None:
        self.machine.gauge(self.now)
        if self.progress:
            self.progress(min(1.0, share))
