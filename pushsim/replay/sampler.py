"""What istiods take of the machine while counted: CPU, resident memory, heap, and what others take beside them."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

import psutil

from pushsim.errors import EnvironmentProblem
from pushsim.replay.places import Server

HEAP = "go_memstats_heap_inuse_bytes"
_HEAP = re.compile(rf"^{HEAP} (\S+)", re.MULTILINE)
_CPU = re.compile(r"^process_cpu_seconds_total (\S+)", re.MULTILINE)
_RSS = re.compile(r"^process_resident_memory_bytes (\S+)", re.MULTILINE)
EVERY_S = 1.0
#: Pages of metrics asked for to learn what one costs istiod.
_TRIED = 8


@dataclass
class Samples:
    """Taken every second.

    cpu_s:     each replica's CPU seconds so far, our scrapes' among them: `scrapes` of `scrape_s` each.
    rss, heap: of each replica that ran, sample after sample.
    others_s:  CPU seconds that others took on their cores since the first sample.
    """

    at_s: list[float] = field(default_factory=list)
    cpu_s: list[Sequence[float]] = field(default_factory=list)
    rss: list[float] = field(default_factory=list)
    heap: list[float] = field(default_factory=list)
    scrape_s: float = 0.0
    scrapes: int = 0
    others_s: float = 0.0

    @property
    def spent_s(self) -> float:
        """CPU seconds between the first sample and the last, without our scrapes; the mean of the replicas."""
        if not self.cpu_s:
            return 0.0
        each = (last - first for first, last in zip(self.cpu_s[0], self.cpu_s[-1], strict=True))
        return max(0.0, fmean(each) - self.scrapes * self.scrape_s)

    @property
    def per_second(self) -> list[list[float]]:
        """Cores that each replica used between samples."""
        pairs = zip(self.at_s, self.at_s[1:], self.cpu_s, self.cpu_s[1:], strict=False)
        return [
            [max(0.0, (late - early - self.scrape_s) / (b - a)) for early, late in zip(was, now, strict=True)]
            for a, b, was, now in pairs
            if b > a
        ]


class Sampler:
    """Samples istiods' processes (of one elsewhere, what its metrics say of that) and metrics.

    cores: those they run on, None if they share all.
    """

    def __init__(self, istiod: Server, cores: Sequence[int] | None) -> None:
        self.istiod, self._cores = istiod, cores
        self._told: Sequence[float] = (0.0,)
        self._busy = 0.0
        self.samples = Samples()

    def cpu_s(self) -> Sequence[float]:
        """Each replica's CPU seconds so far. Raises EnvironmentProblem if one is gone."""
        return self.istiod.cpu_s() if self.istiod.ours else self._told

    async def weigh(self) -> None:
        """Learn what one of our scrapes costs; call it when all is quiet."""
        before = fmean(self.cpu_s())
        for _ in range(_TRIED):
            await self.istiod.pages()
        self.samples.scrape_s = (fmean(self.cpu_s()) - before) / _TRIED

    async def run(self) -> None:
        """Sample every second until cancelled."""
        self.begin()
        try:
            while True:
                await self.sample()
                await asyncio.sleep(EVERY_S)
        except EnvironmentProblem:
            return  # whoever waits for istiod tells

    def begin(self) -> None:
        """Count from now."""
        self.samples = Samples(scrape_s=self.samples.scrape_s)
        self._busy = self._others()

    async def sample(self) -> None:
        """One sample."""
        samples, pages = self.samples, (await self.istiod.pages()).live
        samples.heap += _told(_HEAP, pages)
        samples.scrapes += 1
        if not self.istiod.ours:
            if not (cpu_s := _told(_CPU, pages)):
                return
            self._told = cpu_s
            samples.rss += _told(_RSS, pages)
        self.stop()

    def stop(self) -> None:
        """A last sample, of the processes alone."""
        samples = self.samples
        samples.at_s.append(time.monotonic())
        samples.cpu_s.append(self.cpu_s())
        samples.rss += self.istiod.resident()
        samples.others_s = self._others() - self._busy

    def _others(self) -> float:
        """Seconds that the istiods' cores have spent on others."""
        if self._cores is None:
            return 0.0
        every = psutil.cpu_times(percpu=True)
        busy = sum(sum(every[core]) - every[core].idle - getattr(every[core], "iowait", 0.0) for core in self._cores)
        return float(busy) - sum(self.cpu_s())


def _told(pattern: re.Pattern[str], pages: Sequence[str]) -> list[float]:
    """What each page tells of it."""
    return [float(found[1]) for page in pages if (found := pattern.search(page))]
