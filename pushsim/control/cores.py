"""istiod's cores under processor sharing, in integers.

All jobs get the same share: min(1, cores / jobs) of a core. Instead of counting down every job, one clock of *service*
runs for all: it says how much work each job present has received since the replica began, in sixteenths of a ns of a
core. A job that starts when the clock shows V and needs w ns is done when it shows V + 16·w.

Rounding rule (both engines): the clock is read only when a job starts or ends or the machine asks; each time it has
advanced by floor(16 · elapsed ns · share). A job ends in the first whole nanosecond in which the clock has reached its
mark; jobs with equal marks end in the order in which they started. Cores are a fraction rounded to thousandths.
"""

from __future__ import annotations

from fractions import Fraction
from heapq import heappop, heappush

#: Later than anything: no event is due.
NEVER = 1 << 62
#: The service clock's ticks in one nanosecond of a core.
TICKS = 16
SECOND = 1_000_000_000


class Cores:
    """Cores of one replica. `spent[s]` is what was worked in second s of the run, in ns of a core times `parts`."""

    def __init__(self, cpus: float) -> None:
        share = Fraction(round(cpus * 1000), 1000)
        self.whole, self.parts = share.numerator, share.denominator
        self.now = 0
        self.clock = 0
        self.jobs: list[tuple[int, int, int]] = []  # (mark, order of start, job)
        self.started = 0
        self.spent: list[int] = [0]
        self._second_ends = SECOND

    def start(self, now: int, job: int, work_ns: int) -> None:
        """A job that needs work_ns (>= 1) ns of a core starts."""
        self.advance(now)
        heappush(self.jobs, (self.clock + TICKS * work_ns, self.started, job))
        self.started += 1

    def due(self) -> int:
        """When the next job ends, NEVER if there is none."""
        if not self.jobs:
            return NEVER
        left = self.jobs[0][0] - self.clock
        if left <= 0:
            return self.now
        wanted = len(self.jobs) * self.parts
        if wanted <= self.whole:
            return self.now - (-left // TICKS)
        return self.now - (-left * wanted // (TICKS * self.whole))

    def finish(self, now: int) -> int:
        """The job that is due at `now` ends; it is returned."""
        self.advance(now)
        return heappop(self.jobs)[2]

    def advance(self, now: int) -> None:
        """Let time pass until `now`."""
        elapsed = now - self.now
        if elapsed <= 0:
            return
        jobs = len(self.jobs)
        if jobs:
            wanted = jobs * self.parts
            if wanted <= self.whole:
                self.clock += TICKS * elapsed
                rate = wanted
            else:
                self.clock += TICKS * elapsed * self.whole // wanted
                rate = self.whole
            if now < self._second_ends:
                self.spent[-1] += elapsed * rate
            else:
                self._spread(now, rate)
        elif now >= self._second_ends:
            self._spread(now, 0)
        self.now = now

    def stop(self, now: int) -> None:
        """All jobs are dropped: the process ends."""
        self.advance(now)
        self.jobs.clear()

    def _spread(self, now: int, rate: int) -> None:
        """Work over the ends of seconds, second by second."""
        since = self.now
        while now >= self._second_ends:
            self.spent[-1] += (self._second_ends - since) * rate
            since = self._second_ends
            self._second_ends += SECOND
            self.spent.append(0)
        self.spent[-1] += (now - since) * rate
