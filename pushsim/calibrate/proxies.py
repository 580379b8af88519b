"""What a real Envoy's memory and CPU hang on: feeds it designed configurations of several sizes and fits the slopes.

Each run is an Envoy of its own with so many worker threads, to which configuration is added step by step; every step
tells how much the heap grew and how long Envoy worked. Memory is fitted on what Envoy has allocated, which is exact;
how much more its process holds (the allocator's slack, what a push needs for a moment) is a factor of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from pushsim import envoy
from pushsim.calibrate import resources as make
from pushsim.cost.fit import Measurement
from pushsim.envoy import at_rest
from pushsim.errors import EnvironmentProblem
from pushsim.mesh import Xds
from pushsim.replay.feeding import Feed, serve

#: Told what is being measured, in words.
Progress = Callable[[str], None]

_STATIC = ("PassthroughCluster", "InboundPassthroughCluster")


Resources = Mapping[Xds, Mapping[str, bytes]]


@dataclass(frozen=True, slots=True)
class Step:
    """Something fed: resources by type, the types then pushed, and what an Envoy holds more of afterwards.

    held: by memory coefficient (without its prefix; `…_worker` is multiplied by the workers). work: CPU, likewise. What
    is no coefficient's name (`once_…`, `plain`) is told apart, and belongs to none.
    """

    name: str
    put: Resources
    push: Sequence[Xds]
    held: Mapping[str, float] = field(default_factory=dict)
    work: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """An Envoy with so many workers and options of `envoy.Settings`, and what it is fed."""

    name: str
    steps: tuple[Step, ...]
    workers: int = 2
    options: Mapping[str, bool | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Seen:
    """A step as it was seen: bytes that Envoy allocated and that its process grew by, CPU seconds, bytes received."""

    run: Run
    step: Step
    allocated: int
    private: int
    cpu_s: float
    received: int


@dataclass(frozen=True, slots=True)
class Idle:
    """An Envoy with nothing to do: bytes allocated, private to the process, and resident."""

    allocated: int
    private: int
    resident: int


def clusters(first: int, last: int, *, tls: bool = True) -> Step:
    """Clusters `first` to `last` with empty assignments are added to those before."""
    count = last - first
    held = {"cluster": count, "cluster_worker": count}
    if tls:
        held |= {"tls": count, "once_tls": 0 if first else 1}
    return Step(
        f"{count} clusters {'with' if tls else 'without'} TLS",
        {
            "CDS": {make.cluster_name(i): make.cluster(i, tls=tls) for i in range(first, last)},
            "EDS": {make.cluster_name(i): make.assignment(i, 0) for i in range(first, last)},
        },
        ("CDS",),
        held,
        {"cluster" if tls else "plain": count, "unchanged": first, "assignment": last},
    )


def endpoints(count: int, before: int, after: int) -> Step:
    """So many clusters have `after` endpoints each instead of `before`."""
    return Step(
        f"{count * after} endpoints",
        {"EDS": {make.cluster_name(i): make.assignment(i, after) for i in range(count)}},
        ("EDS",),
        {"endpoint": count * (after - before), "assignment": 0 if before else count},
        {"assignment": count},
    )


def again(xds: Xds, count: int) -> Step:
    """The same resources once more."""
    return Step(f"{xds} unchanged", {}, (xds,), {}, {"unchanged": count} if xds in ("CDS", "LDS") else {})


def tcp_listeners(first: int, last: int) -> Step:
    """TCP listeners are added."""
    count = last - first
    put = dict(make.tcp_listener(i) for i in range(first, last))
    held = {"listener": count, "listener_worker": count}
    return Step(f"{count} TCP listeners", {"LDS": put}, ("LDS",), held, {"listener": count, "unchanged": first})


def http_listeners(first: int, last: int) -> Step:
    """HTTP listeners are added, each with a route configuration of its own that has one virtual host."""
    count = last - first
    ports = range(10_000 + first, 10_000 + last)
    held = {"listener": count, "listener_worker": count, "manager": count, "once_http": 0 if first else 1}
    work = {"listener": count, "unchanged": first, "route": last}
    put = dict(make.http_listener(port) for port in ports)
    routes = {str(port): make.routes(port, 0) for port in ports}
    return Step(f"{count} HTTP listeners", {"LDS": put, "RDS": routes}, ("LDS",), held, work)


def inbound(before: int, after: int) -> Step:
    """The inbound listener has two chains, one of them with TLS, for each of `after` ports instead of `before`."""
    count = after - before
    put: Resources = {"LDS": dict([make.inbound_listener(after)])}
    first = 0 if before else 1
    held = {"manager": 2 * count, "chain": count, "once_http": first, "once_tls": first}
    return Step(f"{count} inbound ports", put, ("LDS",), held, {"listener": 1})


def hosts(before: int, after: int, *, extra: int = 0) -> Step:
    """The route configuration 10000 has that many virtual hosts, each with `extra` routes beside the first."""
    held = {"host": after - before, "path": after * extra}
    put: Resources = {"RDS": {"10000": make.routes(10_000, after, extra=extra)}}
    return Step(f"{after} virtual hosts, {1 + extra} routes each", put, ("RDS",), held, {"route": 1})


def design(options: Mapping[str, bool | str] | None = None) -> Iterator[Run]:
    """The runs that tell Envoy's coefficients apart: each at several sizes, with one to eight workers.

    options: of `envoy.Settings`, as the Istio release in question sets them (`envoy.options_of`).
    """
    chosen = options or {}
    for workers in (1, 2, 4, 8):
        for tls in (False, True):
            sizes = (0, 200, 500, 1000)
            steps = [clusters(a, b, tls=tls) for a, b in pairwise(sizes)]
            yield Run(f"clusters, {'TLS' if tls else 'no TLS'}", (*steps, again("CDS", sizes[-1])), workers, chosen)
        grown = [endpoints(300, a, b) for a, b in ((0, 1), (1, 4), (4, 16))]
        yield Run("endpoints", (clusters(0, 300), *grown), workers, chosen)
        few = [tcp_listeners(a, b) for a, b in ((0, 100), (100, 300))]
        yield Run("TCP listeners", (*few, again("LDS", 300)), workers, chosen)
        yield Run("HTTP listeners", (http_listeners(0, 50), http_listeners(50, 150)), workers, chosen)
    for workers in (1, 4):
        yield Run("inbound ports", tuple(inbound(a, b) for a, b in ((0, 1), (1, 11), (11, 41))), workers, chosen)
        routed = [hosts(0, 300), hosts(300, 1200), hosts(1200, 1200, extra=2)]
        yield Run("virtual hosts", (clusters(0, 50), http_listeners(0, 1), *routed, again("RDS", 1)), workers, chosen)
    for workers in (1, 4):
        everything = {**chosen, "stats": "all"}
        yield Run("clusters, all statistics", (clusters(0, 300), clusters(300, 800)), workers, everything)


@asynccontextmanager
async def running(binary: Path, run: Run) -> AsyncIterator[tuple[envoy.Envoy, Feed]]:
    """An Envoy with a run's settings, connected to a feed of its own that holds the static clusters."""
    async with serve(Feed()) as feed:
        options = dict(run.options)
        settings = envoy.Settings(binary, feed.address, feed.address, workers=run.workers, **options)  # type: ignore[arg-type]
        feed.put("CDS", {name: make.passthrough(name) for name in _STATIC})
        async with envoy.run(settings) as started:
            await at_rest(started, feed)
            yield started, feed


async def measure(binary: Path, run: Run) -> tuple[Idle, list[Seen]]:
    """Feed one Envoy a run's steps. Raises EnvironmentProblem."""
    async with running(binary, run) as (started, feed):
        before = await at_rest(started, feed)
        idle = Idle(before.allocated, before.private, before.resident)
        seen = []
        spent, received = started.cpu_s(), sum(feed.bytes_sent.values())
        for step in run.steps:
            for xds, resources in step.put.items():
                feed.put(xds, resources)
            feed.push(*step.push)
            after = await at_rest(started, feed)
            now, got = started.cpu_s(), sum(feed.bytes_sent.values())
            grown = after.allocated - before.allocated, after.private - before.private
            seen.append(Seen(run, step, *grown, now - spent, got - received))
            before, spent, received = after, now, got
    return idle, seen


def measure_all(binary: Path, runs: Sequence[Run], progress: Progress) -> tuple[list[Idle], list[Seen]]:
    """All runs, one after another."""
    idles, seen = [], []
    for number, run in enumerate(runs, 1):
        progress(f"Envoy run {number} of {len(runs)}: {run.name}, {run.workers} workers {dict(run.options) or ''}")
        try:
            idle, steps = asyncio.run(measure(binary, run))
        except TimeoutError as problem:
            raise EnvironmentProblem(f"{run.name}: {problem}") from None
        idles.append(idle)
        seen += steps
    return idles, seen


def of_memory(seen: Sequence[Seen]) -> list[Measurement]:
    """What the steps say of memory that Envoy allocates, by coefficient."""
    found = []
    for number, each in enumerate(seen):
        amounts = {
            f"envoy.memory.{name}": amount * (each.run.workers if name.endswith("_worker") else 1)
            for name, amount in each.step.held.items()
        }
        if any(amounts.values()):
            name = f"{each.run.name}, {each.run.workers} workers: {each.step.name} ({number})"
            found.append(Measurement(name, amounts, each.allocated, max(20_000.0, 0.03 * each.allocated)))
    return found


def of_cpu(seen: Sequence[Seen]) -> list[Measurement]:
    """What the steps say of CPU time, in us, by coefficient; bytes count in ns."""
    found = []
    for number, each in enumerate(seen):
        amounts = {f"envoy.cpu.{name}": amount for name, amount in each.step.work.items() if amount}
        amounts["envoy.cpu.byte"] = each.received / 1000
        name = f"{each.run.name}, {each.run.workers} workers: {each.step.name} ({number})"
        found.append(Measurement(name, amounts, each.cpu_s * 1e6, max(15_000.0, 0.15 * each.cpu_s * 1e6)))
    return found
