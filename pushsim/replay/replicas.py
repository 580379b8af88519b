"""The istiods of a replay: a process of one binary for each replica, any of which can end and start again.

A restart is a crash: the process is killed, and what its counters and clock had come to is kept, so that sums over all
pages and processes go on rising. The new process listens on a port of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from pushsim.errors import EnvironmentProblem
from pushsim.istiod import Istiod, Pages

#: Runs an istiod: that replica's, for the so manieth time; the callback is told of the process before it is ready.
Running = Callable[[int, int, Callable[[Istiod], None]], AbstractAsyncContextManager[Istiod]]


class _Replica:
    """One of them.

    process: the one that it is now, ready or not; None between two. server: the same once it is ready.
    past, spent_s: the last page of metrics of those before it, and their CPU seconds.
    """

    def __init__(self) -> None:
        self.process: Istiod | None = None
        self.server: Istiod | None = None
        self.past: tuple[str, ...] = ()
        self.spent_s = 0.0
        self.begun = 0
        self.open = AsyncExitStack()
        self.watching: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    def began(self, process: Istiod) -> None:
        self.process = process

    async def pages(self) -> Pages:
        async with self._turn:
            live = () if self.server is None else (await self.server.metrics_text(),)
            return Pages(live, self.past)

    async def end(self) -> None:
        """End its process, with a last look at what it has counted."""
        async with self._turn:
            assert self.server is not None and self.watching is not None, "it runs"
            page, spent_s, server = await self.server.metrics_text(), self.server.taken().cpu_s, self.server
            self.watching.cancel()
            self.server = self.process = None
            self.past, self.spent_s = (*self.past, page), self.spent_s + spent_s
            await server.kill()
            await self.open.aclose()


class Replicas:
    """Running istiods, by number."""

    ours = True

    def __init__(self, count: int, running: Running) -> None:
        self._replicas = [_Replica() for _ in range(count)]
        self._running = running
        self._lost: EnvironmentProblem | None = None
        self._changed = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def run(cls, count: int, running: Running) -> AsyncIterator[Replicas]:
        """So many, ready, while the context is open. Raises what `istiod.run` raises."""
        found = cls(count, running)
        try:
            for number in range(count):
                await found.begin(number)
            yield found
        finally:
            await asyncio.gather(*(replica.open.aclose() for replica in found._replicas))

    @property
    def addresses(self) -> list[str]:
        """Where each takes streams, "" while it is not there."""
        return ["" if replica.server is None else replica.server.grpc for replica in self._replicas]

    async def begin(self, number: int) -> str:
        """Start that replica; its address once it is ready. Raises EnvironmentProblem, and `gone` tells it, too."""
        replica = self._replicas[number]
        try:
            running = self._running(number, replica.begun, replica.began)
            server = await replica.open.enter_async_context(running)
        except EnvironmentProblem as problem:
            self._lose(problem)
            raise
        replica.server = server
        replica.begun += 1
        replica.watching = asyncio.create_task(self._watch(server))
        replica.open.callback(replica.watching.cancel)
        return server.grpc

    async def end(self, number: int) -> None:
        """End that replica, which runs, as a crash would."""
        await self._replicas[number].end()

    async def _watch(self, server: Istiod) -> None:
        self._lose(await server.gone())

    def _lose(self, problem: EnvironmentProblem) -> None:
        self._lost = self._lost or problem
        self._changed.set()

    # ---- as places.Server

    @property
    def pids(self) -> list[int]:
        """Of those that run."""
        return [replica.process.pid for replica in self._replicas if replica.process is not None]

    @property
    def alive(self) -> bool:
        """Whether none has ended that was not to."""
        return self._lost is None

    async def pages(self) -> Pages:
        """The metrics of all."""
        read = await asyncio.gather(*(replica.pages() for replica in self._replicas))
        return Pages(tuple(p for one in read for p in one.live), tuple(p for one in read for p in one.past))

    def cpu_s(self) -> list[float]:
        """CPU seconds of each replica, all its processes together."""
        return [
            replica.spent_s + (0.0 if replica.process is None else replica.process.taken().cpu_s)
            for replica in self._replicas
        ]

    def resident(self) -> list[int]:
        """Resident bytes of each that runs."""
        return [replica.process.taken().resident for replica in self._replicas if replica.process is not None]

    def problem(self, what: str) -> EnvironmentProblem:
        """An error about the one that was lost, or else about the first that runs."""
        if self._lost is not None:
            return self._lost
        running = (replica.process for replica in self._replicas if replica.process is not None)
        first = next(running, None)
        return EnvironmentProblem(f"no istiod runs: {what}") if first is None else first.problem(what)

    async def gone(self) -> EnvironmentProblem:
        """Returns when one has ended that was not to, or did not start again."""
        await self._changed.wait()
        assert self._lost is not None
        return self._lost
