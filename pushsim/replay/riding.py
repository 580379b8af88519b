"""A real Envoy rides along: one more proxy of the same istiod, pushed as the others are; what that takes of it.

istiod runs without its own filters then (`envoy.WITHOUT_FILTERS`, no metrics provider): a stock Envoy can't load them.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from google.protobuf.json_format import MessageToDict

from pushsim import ads, envoy
from pushsim.envoy import Envoy, Memory, at_rest
from pushsim.errors import InputError, Problem
from pushsim.mesh import Mode, Proxy
from pushsim.replay.feeding import Feed, serve
from pushsim.replay.fleet import Seen
from pushsim.replay.quiet import Watched
from pushsim.settings import Settings, Variant

_UPDATES = "(cds|lds|rds)[.]update_(success|rejected)"


@dataclass(frozen=True, slots=True)
class Ride:
    """What an Envoy took.

    connected, ended: its memory when counting began, with all that was connected and quiet, and at the end.
    cpu_s, span_s: CPU seconds while counted, and how long that was.
    accepted, rejected: updates of clusters, listeners and routes meanwhile.
    """

    proxy: str
    version: str
    workers: int
    connected: Memory
    ended: Memory
    cpu_s: float
    span_s: float
    accepted: int
    rejected: int


class Rider:
    """An Envoy that rides along."""

    def __init__(self, started: Envoy, proxy: str, version: str, workers: int) -> None:
        self._started, self._who = started, (proxy, version, workers)
        self._memory: Memory | None = None
        self._updates = (0, 0)
        self._cpu_s = self._at_s = 0.0

    async def begin(self) -> None:
        """Count from now. Raises EnvironmentProblem if it is gone, or never comes to rest."""
        self._memory = await at_rest(self._started)
        self._updates = await self._told()
        self._cpu_s, self._at_s = self._started.cpu_s(), time.monotonic()

    async def end(self) -> Ride:
        """What it took since then."""
        assert self._memory is not None, "it has begun"
        cpu_s, span_s = self._started.cpu_s() - self._cpu_s, time.monotonic() - self._at_s
        ended = await at_rest(self._started)
        accepted, rejected = (now - was for now, was in zip(await self._told(), self._updates, strict=True))
        return Ride(*self._who, self._memory, ended, cpu_s, span_s, accepted, rejected)

    async def _told(self) -> tuple[int, int]:
        told = await self._started.stats(_UPDATES)
        success, rejected = (
            sum(value for name, value in told.items() if name.endswith(end)) for end in ("success", "rejected")
        )
        return success, rejected


class Beside:
    """Proxies beside which an Envoy is pushed, too: not all that istiod has sent comes to them."""

    def __init__(self, fleet: Watched) -> None:
        self._fleet = fleet

    async def look(self) -> Seen:
        """How they are now."""
        return (await self._fleet.look())._replace(lossless=False)


def without_filters(settings: Settings) -> Settings:
    """Settings of an istiod whose proxies get nothing that stock Envoy can't load."""
    config = {**settings.mesh_config, "defaultProviders": {}}
    return replace(settings, mesh_config=config, env={**settings.env, **envoy.WITHOUT_FILTERS})


def passenger(variant: Variant) -> Proxy:
    """Whom the Envoy stands beside: the first sidecar. Raises InputError if there is none."""
    for proxy in variant.mesh.proxies:
        if proxy.type == "sidecar":
            return proxy
    raise InputError(Problem("the mesh has no sidecar", field="--envoy", remedy="leave it out"))


@asynccontextmanager
async def riding(
    binary: Path, address: str, proxy: Proxy, release: str, mode: Mode, workers: int
) -> AsyncIterator[Rider]:
    """An Envoy that is that proxy to the istiod at an address, while the context is open. Raises EnvironmentProblem."""
    version = envoy.detect_version(binary)
    node = MessageToDict(ads.node(proxy, release), preserving_proto_field_name=True) | {"cluster": proxy.id}
    async with serve(Feed()) as secrets:
        settings = envoy.Settings(
            binary,
            address,
            secrets.address,
            node,
            workers=workers,
            delta=mode == "delta",
            **envoy.options_of(release),  # type: ignore[arg-type]
        )
        async with envoy.run(settings) as started:
            yield Rider(started, proxy.id, version, workers)
