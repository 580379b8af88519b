"""A process that carries a share of the fleet, and the handle its parent has on it.

They speak over a socket pair: a length, then a pickled (verb, arguments) one way and a pickled answer the other. The
process ends when the socket does, so it never outlives its parent; an interrupt at the terminal is the parent's.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from pushsim.ads import AdsClient, Response
from pushsim.errors import EnvironmentProblem
from pushsim.mesh import Mode, Proxy
from pushsim.replay.fleet import Fleet, Manners, Member, Seen, Target
from pushsim.replay.log import Log

#: A proxy of the fleet: its number and how it behaves.
Joining = tuple[int, Proxy, Manners]


@dataclass(frozen=True, slots=True)
class State:
    """How a fleet is: counts since it began, who is in a first conversation (`Fleet`), and its CPU seconds."""

    received: int
    synced: bool
    conversing: bool
    refused: int
    connects: int
    ended: int
    rejected: int
    cpu_s: float
    failed: str = ""


@dataclass(frozen=True)
class Orders:
    """What a worker is to do: connect to `targets` as proxies of that release, on those cores (None: any).

    gap_s: so long after each other its proxies connect. metadata: laid over the usual one of each node.
    """

    targets: Sequence[Target]
    release: str
    mode: Mode
    seed: int
    cores: Sequence[int] | None = None
    gap_s: float = 0.0
    metadata: Mapping[str, Any] | None = None


class _Worker:
    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self.log = Log()
        self.fleet = Fleet(
            orders.targets,
            self._came,
            again=True,
            seed=orders.seed,
        )

    def _came(self, member: Member, response: Response, at: int) -> None:
        self.log.note(at, member.number, response, member.replica, again=member.streams > 0)

    def add(self, joining: Sequence[Joining], after_s: float) -> None:
        orders = self.orders
        for place, (number, proxy, manners) in enumerate(joining):
            client = AdsClient(proxy, orders.release, orders.mode, orders.metadata)
            self.fleet.add(client, manners, after_s + place * orders.gap_s, number)

    def remove(self, proxy: str) -> None:
        self.fleet.remove(proxy)

    def recycle(self, age_s: float) -> None:
        self.fleet.recycle(age_s)

    def point(self, replica: int, address: str) -> None:
        self.fleet.point(replica, address)

    def away(self) -> list[tuple[int, int]]:
        return self.fleet.away

    def mark_quiet(self) -> None:
        self.fleet.mark_quiet()

    def state(self) -> State:
        fleet, failed = self.fleet, str(self.fleet.failed or "")
        cpu_s = time.process_time()
        return State(
            fleet.received,
            fleet.synced,
            fleet.conversing,
            fleet.refused,
            fleet.connects,
            fleet.ended,
            fleet.rejected,
            cpu_s,
            failed,
        )

    def take(self) -> Log:
        """What was received since the last call."""
        log, self.log = self.log, Log()
        return log


async def _serve(end: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=end)
    worker: _Worker | None = None
    try:
        while True:
            verb, arguments = await _receive(reader)
            if worker is None:
                worker, answer = _Worker(*arguments), None
            else:
                answer = getattr(worker, verb)(*arguments)
            writer.write(_packed(answer))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        return
    finally:
        if worker is not None:
            await worker.fleet.close()


def main(descriptor: int) -> None:
    """The process: serves the socket of that file descriptor until it is closed."""
    import gc

    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    raise_file_limit()
    runner: Any = asyncio
    try:
        import uvloop

        runner = uvloop
    except ImportError:
        pass
    runner.run(_serve(socket.socket(fileno=descriptor)))


def raise_file_limit() -> None:
    """As many open files as the system lets us have: a proxy is a connection."""
    if sys.platform != "win32":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _packed(value: Any) -> bytes:
    body = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    return struct.pack(">Q", len(body)) + body


async def _receive(reader: asyncio.StreamReader) -> Any:
    (length,) = struct.unpack(">Q", await reader.readexactly(8))
    return pickle.loads(await reader.readexactly(length))


class Worker:
    """The parent's handle: `ask` calls a method of the worker's."""

    def __init__(self, process: asyncio.subprocess.Process, reader: Any, writer: Any) -> None:
        self.process, self._reader, self._writer = process, reader, writer
        self._turn = asyncio.Lock()

    async def ask(self, verb: str, *arguments: Any) -> Any:
        """The answer; raises EnvironmentProblem if the process is gone."""
        try:
            async with self._turn:
                self._writer.write(_packed((verb, arguments)))
                await self._writer.drain()
                return await _receive(self._reader)
        except (asyncio.IncompleteReadError, ConnectionError):
            raise EnvironmentProblem("a process of the replay's clients died; was it out of memory?") from None

    async def stop(self) -> None:
        """End the process and wait for it."""
        self._writer.close()
        try:
            async with asyncio.timeout(5):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


async def start(orders: Orders) -> Worker:
    """Start a worker."""
    ours, theirs = socket.socketpair()
    code = f"import sys; sys.path[:] = {sys.path!r}; from pushsim.replay.worker import main; main({theirs.fileno()})"
    with theirs:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            code,
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    reader, writer = await asyncio.open_connection(sock=ours)
    worker = Worker(process, reader, writer)
    try:
        if orders.cores is not None and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(process.pid, orders.cores)
        await worker.ask("begin", orders)
    except BaseException:
        await worker.stop()
        raise
    return worker


class Workers:
    """The whole fleet, spread over processes; see `Fleet` for what its methods mean."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = workers
        self._of: dict[str, Worker] = {}
        self._next = 0

    @classmethod
    @asynccontextmanager
    async def start(cls, count: int, orders: Orders) -> AsyncIterator[Workers]:
        """So many processes, while the context is open; each proxy of theirs connects `count` gaps after another."""
        started: list[Worker] = []
        try:
            for _ in range(count):
                started.append(await start(replace(orders, gap_s=orders.gap_s * count)))
            yield cls(started)
        finally:
            await asyncio.gather(*(worker.stop() for worker in started))

    async def add(self, joining: Sequence[Joining], after_s: float = 0.0) -> None:
        """These proxies join."""
        shares: list[list[Joining]] = [[] for _ in self._workers]
        for one in joining:
            place = self._next % len(self._workers)
            self._next += 1
            shares[place].append(one)
            self._of[one[1].id] = self._workers[place]
        await asyncio.gather(
            *(w.ask("add", share, after_s) for w, share in zip(self._workers, shares, strict=True) if share)
        )

    async def remove(self, proxy: str) -> None:
        """That proxy goes."""
        worker = self._of.pop(proxy, None)
        if worker is not None:
            await worker.ask("remove", proxy)

    async def recycle(self, age_s: float) -> None:
        """Streams end at that age from now on."""
        await self._all("recycle", age_s)

    async def point(self, replica: int, address: str) -> None:
        """That replica takes streams there, or ("") none."""
        await self._all("point", replica, address)

    async def away(self) -> list[tuple[int, int]]:
        """When streams were lost, and how long until their proxies were answered on the next, in ns."""
        return [one for found in await self._all("away") for one in found]

    async def mark_quiet(self) -> None:
        """All is quiet."""
        await self._all("mark_quiet")

    async def state(self) -> State:
        """How all of them are."""
        states: list[State] = await self._all("state")
        failed = next((state.failed for state in states if state.failed), "")
        if failed:
            raise EnvironmentProblem(failed)
        return State(
            received=sum(state.received for state in states),
            synced=all(state.synced for state in states),
            conversing=any(state.conversing for state in states),
            refused=sum(state.refused for state in states),
            connects=sum(state.connects for state in states),
            ended=sum(state.ended for state in states),
            rejected=sum(state.rejected for state in states),
            cpu_s=sum(state.cpu_s for state in states),
        )

    async def look(self) -> Seen:
        """How they are, for `quiet`."""
        state = await self.state()
        return Seen(state.received, not state.conversing, not state.ended and not state.refused)

    async def take(self) -> Log:
        """What was received since the last call."""
        logs: list[Log] = await self._all("take")
        merged = logs[0]
        for log in logs[1:]:
            merged = merged.merged(log)
        return merged

    async def _all(self, verb: str, *arguments: Any) -> list[Any]:
        return list(await asyncio.gather(*(worker.ask(verb, *arguments) for worker in self._workers)))
