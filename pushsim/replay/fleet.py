"""The proxies of a mesh, connected to one istiod."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from pushsim.ads import AdsClient, Response
from pushsim.istiod import Istiod
from pushsim.mesh import Mode, Proxy
from pushsim.replay.streams import open_channel, serve_stream


class Fleet:
    """Connected proxies and what each got since `take` was last called."""

    def __init__(self, clients: Iterable[AdsClient]) -> None:
        self.clients = {client.proxy.id: client for client in clients}
        self.received = 0
        self._taken: dict[str, list[Response]] = {name: [] for name in self.clients}
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def synced(self) -> bool:
        """Whether every proxy is through its first conversation."""
        return all(client.synced for client in self.clients.values())

    def take(self) -> dict[str, list[Response]]:
        """What each proxy got since the last call, in order (every proxy is a key). Call it when all is quiet."""
        taken, self._taken = self._taken, {name: [] for name in self.clients}
        for client in self.clients.values():
            client.settle()
        return taken

    def check(self) -> None:
        """Raise what ended a stream, if one ended (EnvironmentProblem)."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and (problem := task.exception()):
                raise problem

    def _note(self, client: AdsClient, response: Response) -> None:
        self.received += 1
        self._taken[client.proxy.id].append(response)

    @classmethod
    @asynccontextmanager
    async def connect(cls, istiod: Istiod, proxies: Iterable[Proxy], mode: Mode) -> AsyncIterator[Fleet]:
        """Every proxy with a stream of its own on one connection, while the context is open."""
        fleet = cls(AdsClient(proxy, istiod.release, mode) for proxy in proxies)
        channel = open_channel(istiod.grpc)
        try:
            for client in fleet.clients.values():
                fleet._tasks.append(asyncio.create_task(serve_stream(channel, client, fleet._note)))
            yield fleet
        finally:
            for task in fleet._tasks:
                task.cancel()
            await asyncio.gather(*fleet._tasks, return_exceptions=True)
            await channel.close()
