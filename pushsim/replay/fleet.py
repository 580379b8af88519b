"""The proxies of a mesh, connected to one istiod, and when all of it is quiet."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from pushsim.ads import AdsClient, Response
from pushsim.errors import EnvironmentProblem
from pushsim.istiod import Istiod
from pushsim.mesh import Mode, Proxy
from pushsim.replay.streams import open_channel, serve_stream
from pushsim.stub import Cluster
from pushsim.units import SECOND_NS, UnitError, duration

#: istiod's counters that move when it takes in an event, pushes or sends. Which of them exist depends on the release.
ACTIVITY = frozenset(
    {
        "pilot_inbound_updates",
        "pilot_push_triggers",
        "pilot_debounce_time_count",
        "pilot_pushcontext_init_seconds_count",
        "pilot_proxy_queue_time_count",
        "pilot_proxy_convergence_time_count",
        "pilot_xds_pushes",
        "pilot_xds_expired_nonce",
    }
)
_SAMPLE = re.compile(r"^(\w+)(?:\{[^}]*\})? (\S+)", re.MULTILINE)
POLL_S = 0.03


def totals(metrics: str) -> dict[str, float]:
    """The sums over all labels of the metrics named in `ACTIVITY`, from Prometheus' text format."""
    sums: dict[str, float] = defaultdict(float)
    for name, value in _SAMPLE.findall(metrics):
        if name in ACTIVITY:
            sums[name] += float(value)
    return dict(sums)


def still_for_s(env: Mapping[str, str]) -> float:
    """How long nothing must move until all is quiet, in seconds: two debounces and what handlers take."""
    try:
        debounce = duration(env.get("PILOT_DEBOUNCE_AFTER", "100ms")) / SECOND_NS
    except UnitError:
        debounce = 0.1
    return 2 * debounce + 0.1


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


async def quiet(istiod: Istiod, cluster: Cluster, fleet: Fleet | None, still_s: float, within_s: float = 120) -> None:
    """Wait until events are on the wire and, for `still_s`, neither istiod's counters nor our streams have moved.

    Raises EnvironmentProblem if istiod dies, a stream ends, or it is not quiet `within_s` seconds from now.
    """
    loop = asyncio.get_running_loop()
    start = since = loop.time()
    last: Any = None
    while True:
        if not istiod.alive:
            raise istiod.problem("it died")
        try:
            if fleet is not None:
                fleet.check()
        except EnvironmentProblem as problem:
            raise istiod.problem(str(problem)) from None
        state = (totals(await istiod.metrics_text()), fleet.received if fleet else 0, cluster.version)
        waiting = not cluster.delivered() or (fleet is not None and not fleet.synced)
        now = loop.time()
        if waiting or state != last:
            last, since = state, now
        elif now - since >= still_s:
            return
        if now - start > within_s:
            raise istiod.problem(f"it is not quiet after {within_s:g} s")
        await asyncio.sleep(POLL_S)
