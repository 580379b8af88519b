"""One variant on real istiods: start them, connect everybody, warm up, count, drain, stop."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

from pushsim import istiod, stub
from pushsim.agents import configured
from pushsim.control import knobs
from pushsim.control.limiter import NACK, SLOW, draw
from pushsim.errors import EnvironmentProblem, InputError, Problem
from pushsim.istiod import Istiod
from pushsim.mesh import Mode, Proxy
from pushsim.replay.cores import Cores, pinned
from pushsim.replay.fleet import Manners, Target
from pushsim.replay.kubernetes import Access, written
from pushsim.replay.log import Log
from pushsim.replay.places import Board, Nobody, Server
from pushsim.replay.quiet import DRAIN_WITHIN_S, Watched, asleep, quiet, still_for_s
from pushsim.replay.remote import Remote
from pushsim.replay.replicas import Replicas
from pushsim.replay.riding import Beside, Ride, Rider, passenger, riding, without_filters
from pushsim.replay.sampler import Sampler, Samples
from pushsim.replay.shown import Written
from pushsim.replay.worker import Joining, Orders, State, Workers
from pushsim.replay.writing import Writer
from pushsim.settings import Timed, Variant
from pushsim.topology import proxy_of
from pushsim.units import SECOND_NS, UnitError, duration

_T = TypeVar("_T")

#: Told which phase a run is in, and the share (0…1) of the scenario's time that is done.
Progress = Callable[[str, float], None]

#: How long all may take to connect.
CONNECT_WITHIN_S = 1800.0
_STEP_S = 0.25

#: istiod's log line of each Push that was debounced (pilot/pkg/xds/discovery.go, all releases).
_DEBOUNCED = re.compile(r"Push debounce stable\[\d+\] (\d+) for .*: (\S+) since last change, (\S+) since last push")


@dataclass(frozen=True, slots=True)
class Debounced:
    """A Push that istiod's log tells of: when (ns of the monotonic clock), events merged, seconds since the first."""

    at_ns: int
    events: int
    quiet_s: float
    since_s: float


@dataclass
class Record:
    """All that was seen of a run. Times in ns of the monotonic clock, -1 where the run did not get so far.

    proxies: by number. connect: the log until all were quiet; log: after that. before, after: pages of metrics, of all
    processes there had been. away: when streams were lost, and for how long. restarts: of istiods, while counted.
    ride: what an Envoy beside the proxies took.
    ended: what ended the run early: None, an EnvironmentProblem, or KeyboardInterrupt.
    """

    release: str = ""
    mode: Mode = "sotw"
    cores: Cores = field(default_factory=lambda: Cores(None, None))
    proxies: list[Proxy] = field(default_factory=list)
    written: list[tuple[Timed, Written]] = field(default_factory=list)
    connect: Log = field(default_factory=Log)
    log: Log = field(default_factory=Log)
    debounced: list[Debounced] = field(default_factory=list)
    begun: int = -1
    connected: int = -1
    counted: int = -1
    ended_at: int = -1
    before: Sequence[str] = ()
    after: Sequence[str] = ()
    away: Sequence[tuple[int, int]] = ()
    restarts: int = 0
    connect_cpu_s: float = 0.0
    connect_state: State | None = None
    state_before: State | None = None
    state_after: State | None = None
    own_cpu_s: float = 0.0
    samples: Samples = field(default_factory=Samples)
    ride: Ride | None = None
    ended: BaseException | None = None


async def run(
    variant: Variant,
    binary: Path,
    release: str,
    mode: Mode,
    *,
    seed: int,
    warmup_ns: int,
    duration_ns: int,
    cores: Cores,
    workers: int = 0,
    log_file: Path | None = None,
    envoy: Path | None = None,
    progress: Progress = lambda _phase, _share: None,
) -> Record:
    """Replay a variant, with an Envoy beside its proxies if one is given.

    An interrupt or istiod's death ends it early, and what there is is kept (`Record.ended`).
    Raises InputError for what can't be replayed, and EnvironmentProblem for an istiod that does not start.
    """
    if envoy is not None:
        if any(timed.marker for timed in variant.changes):
            remedy = "leave out --envoy, or istiod-restart"
            raise InputError(Problem("an Envoy stays with one istiod, which restarts", field="churn", remedy=remedy))
        variant = replace(variant, settings=without_filters(variant.settings))
    settings = variant.settings
    cluster = stub.Cluster.of(variant.mesh)
    one = _Run(variant, cluster, release, mode, seed, warmup_ns, duration_ns, cores, progress)
    shares = cores.of_each(settings.replicas)
    with pinned(cores.clients):
        async with contextlib.AsyncExitStack() as stack:
            url = await stack.enter_async_context(stub.serve(cluster))

            def running(
                number: int, again: int, begun: Callable[[Istiod], None]
            ) -> contextlib.AbstractAsyncContextManager[Istiod]:
                own = istiod.Settings(binary, settings.mesh_config, settings.env, shares[number])
                return istiod.run(own, url, _named(log_file, number, again), one.line, begun)

            server = await stack.enter_async_context(Replicas.run(settings.replicas, running))
            targets = [Target(address) for address in server.addresses]
            orders = Orders(targets, release, mode, seed, cores.clients, one.gap_s)
            fleet = await stack.enter_async_context(Workers.start(workers or len(cores.clients or (0,)), orders))
            if envoy is not None:
                who, address = passenger(variant), server.addresses[0]
                rides = riding(envoy, address, who, release, mode, settings.workers)
                one.rider = await stack.enter_async_context(rides)
            await one.go(server, fleet)
    return one.record


async def run_on(
    variant: Variant,
    remote: Remote,
    target: Target,
    mode: Mode,
    *,
    seed: int,
    warmup_ns: int,
    duration_ns: int,
    access: Access | None = None,
    workers: int = 0,
    progress: Progress = lambda _phase, _share: None,
) -> Record:
    """As `run`, on an istiod that runs: changes go through `access`, or nobody writes anything (None).

    Raises what `run` and `kubernetes.written` raise.
    """
    cores = Cores(None, None)
    if variant.settings.replicas != 1:
        remedy = "set istiod.replicas: 1"
        raise InputError(Problem("one running istiod is measured", field="istiod.replicas", remedy=remedy))
    if access is not None and any(timed.marker for timed in variant.changes):
        remedy = "leave out istiod-restart, or give --istiod-binary"
        raise InputError(Problem("an istiod that runs is not ours to restart", field="churn", remedy=remedy))
    async with contextlib.AsyncExitStack() as stack:
        board: Board = Nobody()
        if access is not None:
            progress("writing the mesh", 0.0)
            board = await stack.enter_async_context(written(access, variant.mesh))
        else:
            variant = replace(variant, changes=())
        one = _Run(variant, board, remote.release, mode, seed, warmup_ns, duration_ns, cores, progress)
        fleet = await stack.enter_async_context(
            Workers.start(workers or 1, Orders([target], remote.release, mode, seed, None, one.gap_s))
        )
        await one.go(remote, fleet)
    return one.record


class _Run:
    """The phases of one run."""

    def __init__(
        self,
        variant: Variant,
        board: Board,
        release: str,
        mode: Mode,
        seed: int,
        warmup_ns: int,
        duration_ns: int,
        cores: Cores,
        progress: Progress,
    ) -> None:
        settings = variant.settings
        self.variant, self.seed = variant, seed
        self.warmup_ns, self.duration_ns, self.progress = warmup_ns, duration_ns, progress
        self.board = board
        self.record = Record(release=release, mode=mode, cores=cores, proxies=_everybody(variant))
        self.still_s = still_for_s(settings.env)
        known = knobs(release, cores.cpus(settings.replicas) or settings.cpus, settings.env)
        self.gap_s = 1.0 / known.streams_per_s / settings.replicas
        self.writer = Writer(variant, board, self.record.proxies, warmup_ns, warmup_ns + duration_ns)
        self.record.written = self.writer.written
        self.rider: Rider | None = None

    def line(self, text: str) -> None:
        """A line of istiod's log."""
        if "debounce stable" in text and (found := _DEBOUNCED.search(text)):
            with contextlib.suppress(UnitError):
                quiet_s, since_s = (duration(part) / SECOND_NS for part in found.groups()[1:])
                self.record.debounced.append(Debounced(time.monotonic_ns(), int(found[1]), quiet_s, since_s))

    async def go(self, server: Server, fleet: Workers) -> None:
        record = self.record
        try:
            await _while_alive(server, self._phases(server, fleet))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            record.ended = KeyboardInterrupt()
        except EnvironmentProblem as problem:
            record.ended = problem
        record.restarts = self.writer.restarts
        if record.ended_at < 0:
            record.ended_at = time.monotonic_ns()
        with contextlib.suppress(EnvironmentProblem):
            log = await fleet.take()
            if record.connected < 0:
                record.connect = log
            else:
                record.log = log
            record.away = await fleet.away()
            if record.state_after is None:
                record.state_after = await fleet.state()

    async def _phases(self, server: Server, fleet: Workers) -> None:
        record = self.record
        sampler = Sampler(server, record.cores.istiod)
        if server.ours:
            await quiet(server, self.board, None, self.still_s)
        await self._connect(server, fleet, sampler)
        epoch = time.monotonic_ns()
        reconnect_ns = self.variant.settings.clients.reconnect_ns
        if reconnect_ns:
            await fleet.recycle(reconnect_ns / SECOND_NS)
        writing = asyncio.create_task(self.writer.write(epoch, fleet, server))
        sampling: asyncio.Task[None] | None = None
        try:
            await self._until(epoch + self.warmup_ns, writing, "warming up", -1)
            record.before, record.state_before = (await server.pages()).all, await fleet.state()
            if self.rider is not None:
                await self.rider.begin()
            record.own_cpu_s = time.process_time()
            record.counted = time.monotonic_ns()
            self.writer.counting.set()
            sampling = asyncio.create_task(sampler.run())
            record.samples = sampler.samples
            await asyncio.sleep(0)
            end = epoch + self.warmup_ns + self.duration_ns
            await self._until(end, writing, "counting", record.counted)
            await writing
        finally:
            writing.cancel()
            if sampling is not None:
                sampling.cancel()
                record.samples = sampler.samples
        self.progress("draining", 1.0)
        await asleep(server, self.board, fleet, self.still_s)
        sampler.stop()
        if self.rider is not None:
            record.ride = await self.rider.end()
        record.own_cpu_s = time.process_time() - record.own_cpu_s
        record.state_after = await fleet.state()
        record.ended_at = time.monotonic_ns()
        if server.ours:
            await quiet(server, self.board, self._watched(fleet), self.still_s, DRAIN_WITHIN_S)
        record.after = (await server.pages()).all

    async def _connect(self, server: Server, fleet: Workers, sampler: Sampler) -> None:
        record, clients = self.record, self.variant.settings.clients
        there = len(self.variant.mesh.proxies)
        slow = Manners(delay_s=clients.slow_delay_ns / SECOND_NS)
        joining: list[Joining] = []
        for number, proxy in enumerate(record.proxies[:there]):
            manners = slow if self._chosen(SLOW, number, clients.slow_share) else Manners()
            joining.append((number, proxy, replace(manners, nack=self._chosen(NACK, number, clients.nack_share))))
        cpu_s, record.begun = fmean(sampler.cpu_s()), time.monotonic_ns()
        await fleet.add(joining)
        end = time.monotonic() + CONNECT_WITHIN_S
        while not (state := await fleet.state()).synced:
            self.progress(f"connecting {there} proxies", min(1.0, state.connects / max(1, there)))
            if time.monotonic() > end:
                raise server.problem(f"not all {there} proxies are connected after {CONNECT_WITHIN_S:.0f} s")
            await asyncio.sleep(_STEP_S)
        await asleep(server, self.board, fleet, self.still_s)
        record.connect_cpu_s = fmean(sampler.cpu_s()) - cpu_s
        if server.ours:
            await quiet(server, self.board, self._watched(fleet), self.still_s)
        record.connect_state = await fleet.state()
        record.connect = await fleet.take()
        record.connected = time.monotonic_ns()
        await fleet.mark_quiet()
        await sampler.weigh()

    def _watched(self, fleet: Workers) -> Watched:
        return fleet if self.rider is None else Beside(fleet)

    def _chosen(self, purpose: int, number: int, share: float) -> bool:
        return draw(self.seed, purpose, number, 0) < share * (1 << 63)

    async def _until(self, at_ns: int, writing: asyncio.Task[None], phase: str, since: int) -> None:
        """Wait until then; what goes wrong with the writing is raised at once."""
        while (left := at_ns - time.monotonic_ns()) > 0:
            if writing.done():
                writing.result()
            share = (time.monotonic_ns() - since) / self.duration_ns if since >= 0 else 0.0
            self.progress(phase, min(1.0, share))
            await asyncio.sleep(min(_STEP_S, left / SECOND_NS))


async def _while_alive(server: Server, work: Coroutine[Any, Any, _T]) -> _T:
    """Do it; raises EnvironmentProblem as soon as istiod ends."""
    doing, dying = asyncio.create_task(work), asyncio.create_task(server.gone())
    try:
        await asyncio.wait({doing, dying}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise dying.result()
        return doing.result()
    finally:
        for task in (doing, dying):
            task.cancel()
        await asyncio.gather(doing, dying, return_exceptions=True)


def _named(log_file: Path | None, number: int, again: int) -> Path | None:
    """The file of one process's log: the first one's, or one beside it."""
    if log_file is None or number == again == 0:
        return log_file
    return log_file.with_stem(f"{log_file.stem}-{number}-{again}")


def _everybody(variant: Variant) -> list[Proxy]:
    """The proxies there are, and after them those of pods that changes bring."""
    found = {proxy.id: proxy for proxy in variant.mesh.proxies}
    for timed in variant.changes:
        for one in timed.change.apply:
            if one.ref.kind == "Pod" and (proxy := proxy_of(one)) is not None:
                found.setdefault(proxy.id, proxy)
    return list(configured(replace(variant.mesh, proxies=tuple(found.values()))))
