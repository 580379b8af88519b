"""An istiod that runs somewhere, as a replay sees it: an address, and a page of metrics."""

from __future__ import annotations

import asyncio
import re

import aiohttp

from pushsim.errors import EnvironmentProblem, InputError, Problem
from pushsim.istiod import Pages

#: How istiod's metrics name its release: istio_build from 1.4 on, pilot_info before 1.20.
_BUILD = re.compile(r'^(?:istio_build|pilot_info)\{[^}]*(?:tag|version)="v?(\d+\.\d+\.\d+[^"]*)"', re.MULTILINE)


class Remote:
    """An istiod that runs somewhere: its address, and the page of its metrics, "" if it can't be read."""

    ours = False
    alive = True
    pids: tuple[int, ...] = ()

    def __init__(self, address: str, metrics: str, release: str = "") -> None:
        self.grpc, self.release = address, release
        self._metrics = metrics
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))

    async def pages(self) -> Pages:
        """Its metrics, none if no page was named; EnvironmentProblem if it was and can't be read."""
        return Pages((await self._page(),)) if self._metrics else Pages(())

    async def _page(self) -> str:
        try:
            async with self._session.get(self._metrics) as response:
                if response.status != 200:
                    raise self.problem(f"{self._metrics} answers {response.status}")
                return await response.text()
        except (aiohttp.ClientError, TimeoutError, OSError) as problem:
            raise self.problem(f"can't read its metrics at {self._metrics}: {problem}") from None

    def problem(self, what: str) -> EnvironmentProblem:
        """An error about it."""
        return EnvironmentProblem(f"the istiod at {self.grpc}: {what}")

    async def gone(self) -> EnvironmentProblem:
        """Never known."""
        await asyncio.Event().wait()
        raise AssertionError

    def cpu_s(self) -> tuple[float, ...]:
        """Only its metrics tell."""
        return ()

    def resident(self) -> tuple[int, ...]:
        """Only its metrics tell."""
        return ()

    async def identify(self) -> None:
        """Learn its release from its metrics, unless it was given. Raises InputError if they do not tell."""
        if self.release:
            return
        if found := _BUILD.search("".join((await self.pages()).live)):
            self.release = found[1]
            return
        remedy = "give --release, or --metrics URL of its port 15014"
        raise InputError(Problem(f"the release of the istiod at {self.grpc} is not known", remedy=remedy))

    async def close(self) -> None:
        """Let go of its connections."""
        await self._session.close()
