"""What istiod takes of the machine while it is counted: CPU, resident memory, heap, and what others take beside it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

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

    cpu_s: istiod's CPU seconds so far, our scrapes' among them: `scrapes` of `scrape_s` each. others_s: CPU seconds
    that others took on its cores since the first sample.
    """

    at_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    rss: list[int] = field(default_factory=list)
    heap: list[int] = field(default_factory=list)
    scrape_s: float = 0.0
    scrapes: int = 0
    others_s: float = 0.0

    @property
    def spent_s(self) -> float:
        """CPU seconds between the first sample and the last, without our scrapes."""
        return max(0.0, self.cpu_s[-1] - self.cpu_s[0] - self.scrapes * self.scrape_s) if self.cpu_s else 0.0

    @property
    def per_second(self) -> list[float]:
        """Cores used between samples."""
        pairs = zip(self.at_s, self.at_s[1:], self.cpu_s, self.cpu_s[1:], strict=False)
        return [max(0.0, (d - c - self.scrape_s) / (b - a)) for a, b, c, d in pairs if b > a]


class Sampler:
    """Samples an istiod's process (of one elsewhere, what its metrics say of that) and its metrics.

    cores: those it runs on, None if it shares all.
    """

    def __init__(self, istiod: Server, cores: Sequence[int] | None) -> None:
        self.istiod, self._cores = istiod, cores
        self._process = psutil.Process(istiod.pid) if istiod.pid else None
        self._told = 0.0
        self._busy = 0.0
        self.samples = Samples()

    def cpu_s(self) -> float:
        """istiod's CPU seconds so far. Raises EnvironmentProblem if it is gone."""
        if self._process is None:
            return self._told
        try:
            times = self._process.cpu_times()
        except psutil.Error:
            raise self.istiod.problem("it died") from None
        return float(times.user + times.system)

    async def weigh(self) -> None:
        """Learn what one of our scrapes costs; call it when all is quiet."""
        before = self.cpu_s()
        for _ in range(_TRIED):
            await self.istiod.metrics_text()
        self.samples.scrape_s = (self.cpu_s() - before) / _TRIED

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
        samples, text = self.samples, await self.istiod.metrics_text()
        if found := _HEAP.search(text):
            samples.heap.append(int(float(found[1])))
        samples.scrapes += 1
        if self._process is None:
            if not (found := _CPU.search(text)):
                return
            self._told = float(found[1])
            if found := _RSS.search(text):
                samples.rss.append(int(float(found[1])))
        self.stop()

    def stop(self) -> None:
        """A last sample, of the process alone."""
        samples = self.samples
        samples.at_s.append(time.monotonic())
        samples.cpu_s.append(self.cpu_s())
        if self._process is None:
            return
        try:
            samples.rss.append(self._process.memory_info().rss)
        except psutil.Error:
            raise self.istiod.problem("it died") from None
        samples.others_s = self._others() - self._busy

    def _others(self) -> float:
        """Seconds that istiod's cores have spent on others."""
        if self._cores is None:
            return 0.0
        every = psutil.cpu_times(percpu=True)
        busy = sum(sum(every[core]) - every[core].idle - getattr(every[core], "iowait", 0.0) for core in self._cores)
        return float(busy) - self.cpu_s()
