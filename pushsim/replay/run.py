"""One variant on one real istiod: start it, connect everybody, warm up, count, drain, stop."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from pushsim import istiod, stub
from pushsim.control import knobs
from pushsim.control.limiter import NACK, SLOW, draw
from pushsim.control.state import POD_START_NS
from pushsim.errors import EnvironmentProblem, InputError, Problem
from pushsim.istiod import Remote, has_work
from pushsim.mesh import SLICES_LATER_NS, Change, Mode, Proxy, in_parts
from pushsim.replay.cores import Cores, pinned
from pushsim.replay.fleet import Manners, Target
from pushsim.replay.kubernetes import Access, written
from pushsim.replay.log import Log
from pushsim.replay.places import Board, Nobody, Server
from pushsim.replay.quiet import LOOK_EVERY_S, Stillness, Watched, quiet, still_for_s
from pushsim.replay.riding import Beside, Ride, Rider, passenger, riding, without_filters
from pushsim.replay.sampler import Sampler, Samples
from pushsim.replay.shown import Subject, Written, subject_of
from pushsim.replay.worker import Joining, Orders, State, Workers
from pushsim.settings import Timed, Variant
from pushsim.topology import proxy_of
from pushsim.units import SECOND_NS, UnitError, duration

_T = TypeVar("_T")

#: Told which phase a run is in, and the share (0…1) of the scenario's time that is done.
Progress = Callable[[str, float], None]

#: How long all may take to connect, and to drain after the last change.
CONNECT_WITHIN_S, DRAIN_WITHIN_S = 1800.0, 600.0
#: How long to wait for quiet where others write, too.
OTHERS_WITHIN_S = 30.0
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

    proxies: by number. connect: the log until all were quiet; log: after that. before, after: istiod's metrics.
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
    before: str = ""
    after: str = ""
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
        variant = replace(variant, settings=without_filters(variant.settings))
    cluster = stub.Cluster.of(variant.mesh)
    one = _Run(variant, cluster, release, mode, seed, warmup_ns, duration_ns, cores, progress)
    settings = istiod.Settings(binary, variant.settings.mesh_config, variant.settings.env, cores.istiod)
    orders = Orders(Target(""), release, mode, seed, cores.clients, one.gap_s)
    with pinned(cores.clients):
        async with (
            stub.serve(cluster) as url,
            istiod.run(settings, url, log_file, one.line) as server,
            Workers.start(workers or len(cores.clients or (0,)), replace(orders, target=Target(server.grpc))) as fleet,
            contextlib.AsyncExitStack() as stack,
        ):
            if envoy is not None:
                who, threads = passenger(variant), variant.settings.workers
                one.rider = await stack.enter_async_context(riding(envoy, server.grpc, who, release, mode, threads))
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
    async with contextlib.AsyncExitStack() as stack:
        board: Board = Nobody()
        if access is not None:
            progress("writing the mesh", 0.0)
            board = await stack.enter_async_context(written(access, variant.mesh))
        else:
            variant = replace(variant, changes=())
        one = _Run(variant, board, remote.release, mode, seed, warmup_ns, duration_ns, cores, progress)
        fleet = await stack.enter_async_context(
            Workers.start(workers or 1, Orders(target, remote.release, mode, seed, None, one.gap_s))
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
        if settings.replicas != 1:
            remedy = "set istiod.replicas: 1"
            raise InputError(Problem("a replay runs one istiod", field="istiod.replicas", remedy=remedy))
        if any(timed.marker for timed in variant.changes):
            remedy = "leave out istiod-restart"
            raise InputError(Problem("a replay does not restart istiod", field="churn", remedy=remedy))
        self.variant, self.seed = variant, seed
        self.warmup_ns, self.duration_ns, self.progress = warmup_ns, duration_ns, progress
        self.board = board
        self.record = Record(release=release, mode=mode, cores=cores, proxies=_everybody(variant))
        self.number = {proxy.id: number for number, proxy in enumerate(self.record.proxies)}
        self.still_s = still_for_s(settings.env)
        known = knobs(release, len(cores.istiod) if cores.istiod else settings.cpus, settings.env)
        self.gap_s = 1.0 / known.streams_per_s
        self.counting = asyncio.Event()
        self.rider: Rider | None = None
        self.root = str(variant.settings.mesh_config.get("rootNamespace", "istio-system"))

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
        if record.ended_at < 0:
            record.ended_at = time.monotonic_ns()
        with contextlib.suppress(EnvironmentProblem):
            log = await fleet.take()
            if record.connected < 0:
                record.connect = log
            else:
                record.log = log
            if record.state_after is None:
                record.state_after = await fleet.state()

    async def _phases(self, server: Server, fleet: Workers) -> None:
        record = self.record
        sampler = Sampler(server, record.cores.istiod)
        if server.pid:
            await quiet(server, self.board, None, self.still_s)
        await self._connect(server, fleet, sampler)
        epoch = time.monotonic_ns()
        reconnect_ns = self.variant.settings.clients.reconnect_ns
        if reconnect_ns:
            await fleet.recycle(reconnect_ns / SECOND_NS)
        writing = asyncio.create_task(self._write(epoch, fleet))
        sampling: asyncio.Task[None] | None = None
        try:
            await self._until(epoch + self.warmup_ns, writing, "warming up", -1)
            record.before, record.state_before = await server.metrics_text(), await fleet.state()
            if self.rider is not None:
                await self.rider.begin()
            record.own_cpu_s = time.process_time()
            record.counted = time.monotonic_ns()
            self.counting.set()
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
        await _asleep(server, self.board, fleet, self.still_s)
        sampler.stop()
        if self.rider is not None:
            record.ride = await self.rider.end()
        record.own_cpu_s = time.process_time() - record.own_cpu_s
        record.state_after = await fleet.state()
        record.ended_at = time.monotonic_ns()
        if server.pid:
            await quiet(server, self.board, self._watched(fleet), self.still_s, DRAIN_WITHIN_S)
        record.after = await server.metrics_text()

    async def _connect(self, server: Server, fleet: Workers, sampler: Sampler) -> None:
        record, clients = self.record, self.variant.settings.clients
        there = len(self.variant.mesh.proxies)
        slow = Manners(delay_s=clients.slow_delay_ns / SECOND_NS)
        joining: list[Joining] = []
        for number, proxy in enumerate(record.proxies[:there]):
            manners = slow if self._chosen(SLOW, number, clients.slow_share) else Manners()
            joining.append((number, proxy, replace(manners, nack=self._chosen(NACK, number, clients.nack_share))))
        cpu_s, record.begun = sampler.cpu_s(), time.monotonic_ns()
        await fleet.add(joining)
        end = time.monotonic() + CONNECT_WITHIN_S
        while not (state := await fleet.state()).synced:
            self.progress(f"connecting {there} proxies", min(1.0, state.connects / max(1, there)))
            if time.monotonic() > end:
                raise server.problem(f"not all {there} proxies are connected after {CONNECT_WITHIN_S:.0f} s")
            await asyncio.sleep(_STEP_S)
        await _asleep(server, self.board, fleet, self.still_s)
        record.connect_cpu_s = sampler.cpu_s() - cpu_s
        if server.pid:
            await quiet(server, self.board, self._watched(fleet), self.still_s)
        record.connect_state = await fleet.state()
        record.connect = await fleet.take()
        record.connected = time.monotonic_ns()
        await fleet.settle()
        await sampler.weigh()

    def _watched(self, fleet: Workers) -> Watched:
        return fleet if self.rider is None else Beside(fleet)

    def _chosen(self, purpose: int, number: int, share: float) -> bool:
        return draw(self.seed, purpose, number, 0) < share * (1 << 63)

    async def _write(self, epoch: int, fleet: Workers) -> None:
        """Write each change at its time, and let pods' proxies come and go."""
        for number, timed in enumerate(self.variant.changes):
            if timed.at_ns >= self.warmup_ns + self.duration_ns:
                return  # later than the scenario
            await asyncio.sleep(max(0.0, (epoch + timed.at_ns - time.monotonic_ns()) / SECOND_NS))
            if timed.at_ns >= self.warmup_ns:
                await self.counting.wait()  # one due at that very moment is counted
            subject = self._subject(timed)
            gone = [f"{ref.name}.{ref.namespace}" for ref in timed.change.delete if ref.kind == "Pod"]
            new = [o for o in timed.change.apply if o.ref.kind == "Pod" and self.board.held(o.ref) is None]
            self.record.written.append((timed, Written(number, time.monotonic_ns(), subject)))
            await self._apply(timed.change)
            for proxy in gone:
                await fleet.remove(proxy)
            joining = [(self.number[p.id], p, Manners()) for o in new if (p := proxy_of(o)) is not None]
            if joining:
                await fleet.add(joining, POD_START_NS / SECOND_NS)

    async def _apply(self, change: Change) -> None:
        """Write a change; a Service's EndpointSlices follow a bit later, as their controller would write them."""
        first, *later = in_parts(change)
        await self.board.write_in_order(first)
        for part in later:
            await asyncio.sleep(SLICES_LATER_NS / SECOND_NS)
            await self.board.write_in_order(part)

    def _subject(self, timed: Timed) -> Subject:
        return subject_of(timed.change, self.board.held, root=self.root)

    async def _until(self, at_ns: int, writing: asyncio.Task[None], phase: str, since: int) -> None:
        """Wait until then; what goes wrong with the writing is raised at once."""
        while (left := at_ns - time.monotonic_ns()) > 0:
            if writing.done():
                writing.result()
            share = (time.monotonic_ns() - since) / self.duration_ns if since >= 0 else 0.0
            self.progress(phase, min(1.0, share))
            await asyncio.sleep(min(_STEP_S, left / SECOND_NS))


async def _asleep(server: Server, board: Board, fleet: Workers, still_s: float) -> None:
    """Wait until istiod sleeps and nothing comes any more, without asking istiod for anything."""
    within_s = DRAIN_WITHIN_S if server.pid else OTHERS_WITHIN_S
    stillness, end = Stillness(still_s), time.monotonic() + within_s
    while True:
        under_way = has_work(server.pid) or not board.delivered()
        state = await fleet.state()
        if stillness.look((state.received, board.version), under_way=under_way or not state.synced):
            return
        if time.monotonic() > end:
            if not server.pid:
                return  # others' changes go on
            raise server.problem(f"what was written is not delivered after {DRAIN_WITHIN_S:.0f} s")
        await asyncio.sleep(LOOK_EVERY_S)


async def _while_alive(server: Server, work: Coroutine[Any, Any, _T]) -> _T:
    """Do it; raises EnvironmentProblem as soon as istiod ends."""
    doing, dying = asyncio.create_task(work), asyncio.create_task(server.gone())
    try:
        await asyncio.wait({doing, dying}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise server.problem("it died")
        return doing.result()
    finally:
        for task in (doing, dying):
            task.cancel()
        await asyncio.gather(doing, dying, return_exceptions=True)


def _everybody(variant: Variant) -> list[Proxy]:
    """The proxies there are, and after them those of pods that changes bring."""
    found = {proxy.id: proxy for proxy in variant.mesh.proxies}
    for timed in variant.changes:
        for one in timed.change.apply:
            if one.ref.kind == "Pod" and (proxy := proxy_of(one)) is not None:
                found.setdefault(proxy.id, proxy)
    return list(found.values())
