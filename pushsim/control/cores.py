"""istiod's cores as Go's scheduler shares them out, in integers.

GOMAXPROCS jobs run at once; the others wait in line. Nobody is interrupted for a short job: whoever has a core keeps
it, and so does what follows from a job that ends (its next response, or the goroutine it wakes: Go's `runnext`), until
its slice ends; then it goes to the end of the second line. Slices are ended by sysmon, which looks every 10 ms and
takes the core from whoever had it at its last look already: a slice has 10 to 20 ms. While garbage is marked, the
marking worker takes the core whenever a job ends (findRunnableGCWorker), and what sysmon saw is not what it sees: then
slices end only after the marking. The first line is the local run queues'. The second
is Go's global queue: what comes from the network (events of the API server, requests of proxies) gets there, because
the network is polled by a processor that has nothing else to do, or by sysmon. It is looked at when the first line is
empty, and each 61st time (golang/go src/runtime/proc.go: findRunnable, schedule, sysmon, retake). So under load a
push goes on while what was just written waits for the end of the round. What a timer wakes (the debouncer's Push) is
the first of the first line: whoever gives up a core looks at the timers and then at `runnext` (checkTimers, goready).

Pushes share locks: of istiod's log, its metrics, its cache. They are held for an instant, but who is in such an instant
when its slice ends keeps the lock while it waits in the second line. All others that come to it then wait for it, their
cores are free for the second line, and what was just written is handled in the middle of a round. Afterwards they are
woken one at a time, the next whenever somebody has passed (sync.Mutex, unlockSlow). One lock stands for all of them; it
is held in the last `locked` ticks of a job that is LOCKED. Seen in execution traces of an overloaded istiod 1.24.

Instead of counting down every job, one clock of *service* runs for all that run: it says how much work each of them has
received since the replica began, in sixteenths of a ns of a core. A job that starts when the clock shows V and needs w
ns is done when it shows V + 16·w. With less than a core for each of them (a CPU limit) they get equal shares. What
collecting garbage costs is in w, evenly; who works while garbage is marked pays all of it (see `Runtime`), so w is
done later then, and sooner else: on the average V + 16·w.

Cores that rest go on marking, and pay what is left to be paid of it, as one core; so prices hold exactly on one core,
on several on the average. The collector finds that fast, and begins the next as late as it may (`Runtime.late_ns`).

Who starts when all cores rest takes longer, by rest / (rest + half) of `wake_ns`, in whole thousandths, which `woken`
adds up. That is measured; it is the same where somebody else keeps the cores awake, and on one core as on two.

Rounding rule (both engines): the clock is read only when a job starts or ends or the machine asks; each time it has
advanced by floor(16 · elapsed ns · share). A job ends in the first whole nanosecond in which the clock has reached its
mark; jobs with equal marks end in the order in which they started. Cores are a fraction rounded to thousandths.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from fractions import Fraction
from heapq import heappop, heappush
from typing import NamedTuple

from pushsim.cost import PACE, Runtime

NO_RUNTIME = Runtime()
#: Later than anything: no event is due.
NEVER = 1 << 62
#: The service clock's ticks in one nanosecond of a core.
TICKS = 16
SECOND = 1_000_000_000
THOUSAND = 1000
#: How often sysmon looks who has which core (usleep in sysmon; forcePreemptNS is as long).
SYSMON = TICKS * 10_000_000
#: Instead of a line: a job is the first of the first line.
NEXT = 3
#: The line of those that wait for the lock.
LOCK = 2
#: Added to a job that needs the lock at its end.
LOCKED = 1 << 40
NOBODY = -1
#: Each so many times the second line is looked at first.
FAIR = 61
#: So many that wait in the second line go over to the first at once, if that is empty (globrunqget).
BATCH = 128
#: What `finish` returns where no job has ended: its slice has, or it waits for the lock.
PREEMPTED = -1


class Marking(NamedTuple):
    """How garbage is marked: for so many ticks of the clock; how much work PACE ns do then, and all of them."""

    ticks: int
    pace: int
    work: int


class Cores:
    """Cores of one replica. `spent[s]` is what was worked in second s of the run, in ns of a core times `parts`.

    What collecting garbage costs is not their concern, only when it is marked and paid: see `Prices`.
    """

    def __init__(self, cpus: float, runtime: Runtime = NO_RUNTIME) -> None:
        share = Fraction(round(cpus * 1000), 1000)
        self.whole, self.parts = share.numerator, share.denominator
        self.most = max(1, -(-self.whole // self.parts))
        self.cycle, self.fast = TICKS * runtime.cycle_ns, runtime.fast
        marking, late = TICKS * runtime.marking_ns, TICKS * runtime.late_ns
        marked = marking * runtime.slow // PACE  # work that is done in a marking, and in a cycle
        self.per_cycle = marked + (self.cycle - marking) * self.fast // PACE
        late_marked = self.per_cycle - (self.cycle - late) * self.fast // PACE
        self.usual = Marking(marking, runtime.slow, marked)
        self.late = Marking(late, runtime.crawl, late_marked) if runtime.late_ns else self.usual
        self.ended_at_rest = range(1)  # numbers of the latest cycles whose markings did: as it starts, none is due
        self.wake_ns, self.half_ns = runtime.wake_ns, runtime.half_ns
        self.locked = TICKS * runtime.locked_ns
        self.holder = self.woken_next = NOBODY  # who has the lock and no core; who was woken to take it
        self.clock = self.usual.ticks
        self.rests_since, self.rested = 0, self.clock  # when the last job ended; what the clock showed then
        self.woken = 0  # thousandths
        self.now = 0
        self.running: list[tuple[int, int, int, int, int]] = []  # (mark, order of start, job, ticks left, slice's end)
        self.lines: tuple[deque[tuple[int, int]], ...] = (deque(), deque(), deque())  # (job, ticks)
        self.started = 0
        self.picked = 0
        self.vacated = 0  # the end of the slice of the core that the last job left, 0 if another has taken it
        self.spent: list[int] = [0]
        self.runs: Callable[[int], None] = lambda job: None  # told of each job that gets a core, new or again
        self._second_ends = SECOND

    @property
    def jobs(self) -> list[int]:
        """All jobs, those that run by their ends, then those that wait."""
        return [job for _, _, job, _, _ in sorted(self.running)] + [job for line in self.lines for job, _ in line]

    def start(self, now: int, job: int, work_ns: int, line: int = 0) -> None:
        """A job that needs work_ns (>= 1) ns of a core starts: on a core that is free, else it waits in that line."""
        self.advance(now)
        if not self.running:
            rest = now - self.rests_since
            cold = THOUSAND * rest // (rest + self.half_ns)
            self.woken += cold
            work_ns += self.wake_ns * cold // THOUSAND
        ticks = TICKS * work_ns
        if len(self.running) == self.most:
            if line == NEXT:
                self.lines[0].appendleft((job, ticks))
            else:
                self.lines[line].append((job, ticks))
        elif self.vacated and self.vacated <= self.clock:
            self.vacated = 0
            self.lines[1].append((job, ticks))
        else:
            self._run(job, ticks, self.vacated or self._slice_ends())
            self.vacated = 0

    def wait(self, job: int, work_ns: int, line: int = 0) -> None:
        """A job waits in that line, even if a core is free until `fill`."""
        self.lines[line].append((job, TICKS * work_ns))

    def due(self) -> int:
        """When the next job or slice ends, NEVER if there is none."""
        if not self.running:
            return NEVER
        left = self.running[0][0] - self.clock
        if left <= 0:
            return self.now
        wanted = len(self.running) * self.parts
        if wanted <= self.whole:
            return self.now - (-left // TICKS)
        return self.now - (-left * wanted // (TICKS * self.whole))

    def finish(self, now: int) -> int:
        """The job that is due at `now` ends; it is returned, without LOCKED, or PREEMPTED. `fill` must follow."""
        self.advance(now)
        _, _, job, left, self.vacated = heappop(self.running)
        self.rests_since, self.rested = now, self.clock
        line = 1
        if left:
            if job & LOCKED and left <= self.locked and self.holder == NOBODY:
                self.holder = job
        elif job & LOCKED and not self._passes(job):
            left, line = self.locked, LOCK
        else:
            return job & ~LOCKED
        self.vacated = 0
        self.lines[line].append((job, left))
        return PREEMPTED

    def _passes(self, job: int) -> bool:
        """Whether a job gets the lock, at its end; then the next of those that wait for it is woken."""
        free = self.holder in (NOBODY, job)
        if self.woken_next == job:
            self.woken_next = NOBODY
        if free:
            self.holder = NOBODY
            if self.lines[LOCK] and self.woken_next == NOBODY:
                waiting = self.lines[LOCK].popleft()
                self.woken_next = waiting[0]
                self.lines[0].append(waiting)
        return free

    def fill(self) -> None:
        """Who waits gets the cores that are free."""
        self.vacated = 0
        local, polled, _ = self.lines
        while len(self.running) < self.most and (local or polled):
            self.picked += 1
            if polled and self.picked % FAIR == 0:
                self._run(*polled.popleft(), self._slice_ends())
                continue
            if not local:
                for _ in range(min(len(polled) // self.most + 1, len(polled), BATCH)):
                    local.append(polled.popleft())
            self._run(*local.popleft(), self._slice_ends())

    def _slice_ends(self) -> int:
        """When the core is taken from who gets it now: at sysmon's second look, from the end of marking on."""
        since = self.clock
        if self.cycle:
            number, at = divmod(since, self.cycle)
            since += max(0, self._marking(number).ticks - at)
        return (since // SYSMON + 2) * SYSMON

    def _run(self, job: int, ticks: int, slice_ends: int) -> None:
        self.runs(job & ~LOCKED)
        done = self._done(self.clock) + ticks
        mark = min(self._reaches(done), slice_ends)
        heappush(self.running, (mark, self.started, job, max(0, done - self._done(mark)), slice_ends))
        self.started += 1

    def _marking(self, number: int) -> Marking:
        """How garbage is marked in the cycle of that number."""
        return self.late if number - 1 in self.ended_at_rest else self.usual

    def _done(self, clock: int) -> int:
        """How much work, as it is priced, is done when the clock shows that."""
        if not self.cycle:
            return clock
        number, since = divmod(clock, self.cycle)
        marking = self._marking(number)
        if since < marking.ticks:
            of_cycle = min(marking.work, since * marking.pace // PACE)
        else:
            of_cycle = marking.work + (since - marking.ticks) * self.fast // PACE
        return number * self.per_cycle + of_cycle

    def _reaches(self, done: int) -> int:
        """What the clock shows when so much is done."""
        if not self.cycle:
            return done
        number, rest = divmod(done, self.per_cycle)
        marking = self._marking(number)
        if rest <= marking.work:
            return number * self.cycle + min(marking.ticks, -(-rest * PACE // marking.pace))
        return number * self.cycle + marking.ticks - ((marking.work - rest) * PACE // self.fast)

    def advance(self, now: int) -> None:
        """Let time pass until `now`."""
        elapsed = now - self.now
        if elapsed <= 0:
            return
        running, rate = len(self.running), 0
        if running:
            wanted = running * self.parts
            if wanted <= self.whole:
                self.clock += TICKS * elapsed
                rate = wanted
            else:
                self.clock += TICKS * elapsed * self.whole // wanted
                rate = self.whole
        elif self.cycle:
            self._mark(now)
        self._spend(now, rate)

    def _mark(self, now: int) -> None:
        """Cores that rest until `now` go on marking as one that works, until that is done: what is left to be paid."""
        number, since = divmod(self.rested, self.cycle)
        marking = self._marking(number)
        left, costs = marking.ticks - since, PACE - marking.pace
        if left <= 0 or costs <= 0:
            return
        rate = min(self.whole, self.parts)
        ends = self.rests_since - (left * costs // -PACE * self.parts // (TICKS * rate))
        if now < ends:
            worked = TICKS * (now - self.rests_since) * rate // self.parts
            self.clock = self.rested + worked * PACE // costs
        else:
            self.clock = self.rested + left
            known = self.ended_at_rest
            self.ended_at_rest = range(known.start if number - 1 in known else number, number + 1)
        if self.now < ends:
            self._spend(min(now, ends), rate)

    def stop(self, now: int) -> None:
        """All jobs are dropped: the process ends."""
        self.advance(now)
        self.rests_since, self.rested = now, self.clock
        self.running.clear()
        self.holder = self.woken_next = NOBODY
        for line in self.lines:
            line.clear()

    def _spend(self, until: int, rate: int) -> None:
        """So much of a core is worked until then, second by second."""
        while until >= self._second_ends:
            self.spent[-1] += (self._second_ends - self.now) * rate
            self.now = self._second_ends
            self._second_ends += SECOND
            self.spent.append(0)
        self.spent[-1] += (until - self.now) * rate
        self.now = until
