"""What a real istiod's CPU time and heap hang on: designed small meshes, driven by our stub and clients.

A probe is a scenario that makes much of few kinds of work: many connections, many services, many endpoints, scopes,
gateways. It is run twice: on the real istiod, whose CPU time is read around each part (the connecting, then each kind
of change, one change after another); and simulated, for the amounts of work in each part. CPU time, not wall clock:
a busy machine makes it somewhat dearer (caches, shared cores), but not by the time it waits. istiod's own profiles say
which piece of its work the CPU time went to.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from pushsim import istiod, stub
from pushsim.calibrate import profiles
from pushsim.control import Machine, knobs
from pushsim.cost import OF_CACHE, Prices, shipped
from pushsim.metrics import read_openmetrics
from pushsim.observed import amounts_of
from pushsim.planners import planners
from pushsim.releases import rules
from pushsim.replay.fleet import Fleet, Recorder
from pushsim.replay.quiet import quiet, still_for_s
from pushsim.scenario import Scenario
from pushsim.settings import Timed, Variant
from pushsim.simulation import Simulation
from pushsim.units import SECOND_NS

Progress = Callable[[str], None]

#: Simulated time between two moments of changes: each is a push of its own, as on the real istiod.
_APART_NS = 2 * SECOND_NS
#: Nothing has moved for that long: what a change caused is over (two debounces, and what a busy machine adds).
_STILL_S = 0.35
#: Until a profile that was asked for has begun. How long one is: while all connect, and for each push of a part.
_BEGUN_S, _CONNECTING_S, _PUSH_S = 0.1, 3, 0.6
CONNECT = "connect"
#: All proxies connect at once.
_UNLIMITED = {"PILOT_MAX_REQUESTS_PER_SECOND": "100000", "PILOT_PUSH_THROTTLE": "100"}


@dataclass(frozen=True, slots=True)
class Heap:
    """istiod's memory, in bytes.

    live: what a forced collection leaves; goal: the heap at which the collector next runs, the highest seen; resident:
    of the process, the highest seen; beside: what of that is not heap (code, stacks, the runtime's own).
    """

    live: int
    goal: int
    resident: int
    beside: int


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a probe: CPU time of the real istiod in seconds, and the amounts of work simulated for it.

    contexts_s: seconds that it says it took to make PushContexts, which it does one after another.
    pieces:     seconds of CPU time by piece of its work (see `profiles.pieces`), as far as its profile has it.
    """

    probe: str
    name: str
    cpu_s: float
    contexts_s: float
    amounts: Mapping[str, float]
    pieces: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Probed:
    """A probe's parts, and its heap: with nobody connected, and with all.

    held: amounts of memory of both by coefficient; passing: what comes and goes of it, at its simulated highest.
    """

    probe: str
    parts: tuple[Part, ...]
    alone: Heap
    full: Heap
    held_alone: Mapping[str, float]
    held_full: Mapping[str, float]
    passing: Mapping[str, float]


def _scenario(question: str, apps: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    generate = {"namespaces": more.pop("namespaces", 4), "apps": apps, **more.pop("generate", {})}
    return {
        "mesh": {"generate": generate},
        "istiod": {"profile": "bare", "cpus": 2, "env": {**_UNLIMITED, **more.pop("env", {})}},
        "duration": "10s",
        "churn": more.pop("churn"),
        "variants": {question: more.pop("policy", [])},
    }


def _at(count: int) -> list[str]:
    return [f"{place + 1}s" for place in range(count)]


def probes(size: float = 1.0) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and scenarios. size: scales services and proxies, for a slow machine or a quick look."""

    def n(count: int) -> int:
        return max(2, round(count * size))

    client = {"name": "client", "namespaces": ["ns-000"], "per_namespace": 1, "ports": {"http": 8080}}
    few = {**client, "pods": n(10)}
    quiet_app = {"name": "app", "sidecar": False}
    ready: dict[str, Any] = {"source": "crash-loop", "at": _at(4), "down": "1500ms", "select": {"names": ["app*"]}}
    new: dict[str, Any] = {"source": "services", "at": _at(6), "sidecar": False, "pods": 2, "namespaces": ["ns-001"]}
    routes: dict[str, Any] = {"source": "config-push", "at": _at(4), "select": {"names": ["app*"]}, "name": "routes"}
    rules = {**routes, "kind": "DestinationRule", "name": "rules"}
    churn: list[dict[str, Any]] = [ready, new, routes, rules]

    def app(ports: dict[str, int], total: int, pods: int = 2, **more: Any) -> dict[str, Any]:
        return {**quiet_app, "ports": ports, "total": n(total), "pods": pods, **more}

    crowd = {**client, "pods": n(250)}
    yield "many proxies, few services", _scenario("many", [crowd, app({"http": 80}, 5)], churn=churn)
    yield "few proxies, many services", _scenario("services", [few, app({"http": 80}, 1500, 1)], churn=churn)
    yield (
        "many services, nothing cached",
        _scenario("uncached", [few, app({"http": 80}, 600, 1)], churn=churn, env={"PILOT_ENABLE_XDS_CACHE": "false"}),
    )
    yield "TCP services", _scenario("tcp", [few, app({"tcp": 5432}, 500)], churn=churn)
    yield "sniffed services", _scenario("sniffed", [few, app({"web": 8080}, 300)], churn=churn)
    ports = {f"http-{p}": 9000 + p for p in range(8)}
    yield "services on many ports", _scenario("ports", [few, app(ports, 120)], churn=churn)
    yield "many endpoints", _scenario("endpoints", [few, app({"http": 80}, 30, n(100))], churn=churn)
    many = [{"name": "app", "total": n(600), "ports": {"http": 80}, "pods": 1, "sidecar": False}]
    scoped = [{**client, "namespaces": [], "pods": 2}, *many]
    scoped_churn = [{**each, "at": _at(3)} for each in churn]
    yield (
        "a Sidecar per namespace",
        _scenario("scoped", scoped, namespaces=n(60), churn=scoped_churn, policy=["namespace"]),
    )
    yield (
        "many proxies, one root Sidecar",
        _scenario(
            "spared",
            [{**client, "namespaces": [], "pods": n(20)}, app({"http": 80}, 200, 1)],
            namespaces=n(20),
            churn=churn,
            policy=[{"root-sidecar": {"hosts": ["./*"]}}],
        ),
    )
    yield (
        "one root Sidecar",
        _scenario("root", scoped, namespaces=n(60), churn=scoped_churn, policy=[{"root-sidecar": {"hosts": ["./*"]}}]),
    )
    for name, per_namespace, services in (("fifty", 12, 50), ("hundreds of", 10, 250)):
        everywhere = {**client, "namespaces": [], "pods": n(per_namespace)}
        yield (
            f"many proxies, {name} services",
            _scenario("crowded", [everywhere, app({"http": 80}, services)], namespaces=10, churn=churn),
        )
    burst = [{**change, "at": _at(1) * n(40)} for change in (routes, rules, new)]
    yield (
        "many changes in one push",
        _scenario("burst", [{**client, "pods": 2}, app({"http": 80}, 60)], churn=[ready, new, routes, rules, *burst]),
    )
    spread = [{**client, "namespaces": []}, app({"http": 80}, 400, 1)]
    yield (
        "a proxy in each of many namespaces",
        _scenario("spread", spread, namespaces=n(40), churn=scoped_churn),
    )
    yield (
        "gateways",
        _scenario(
            "gateways",
            [app({"http": 80}, 300)],
            generate={"gateways": {"count": n(10), "virtual_services": "all"}},
            churn=[ready, new, routes],
        ),
    )


def groups(variant: Variant) -> dict[str, tuple[Timed, ...]]:
    """A variant's changes by the source that causes them, one source after another, evenly spaced.

    What is written at one moment stays together.
    """
    by_source: dict[str, list[Timed]] = {}
    for timed in variant.changes:
        by_source.setdefault(timed.source, []).append(timed)
    found: dict[str, tuple[Timed, ...]] = {}
    moments = itertools.count(1)
    for source, changes in by_source.items():
        at = {at_ns: _APART_NS * next(moments) for at_ns in dict.fromkeys(timed.at_ns for timed in changes)}
        found[source] = tuple(replace(timed, at_ns=at[timed.at_ns]) for timed in changes)
    return found


def simulated_parts(variant: Variant) -> tuple[dict[str, Counter[str]], Machine]:
    """Amounts of work of the connecting and of each of `groups`, after all before it; and the machine at the end."""
    connecting, before, machine = simulated(variant, ())
    found = {CONNECT: connecting}
    so_far: tuple[Timed, ...] = ()
    for source, changes in groups(variant).items():
        so_far += changes
        _, work, machine = simulated(variant, so_far)
        found[source] = work - before
        before = work
    return found, machine


def simulated(variant: Variant, changes: Sequence[Timed]) -> tuple[Counter[str], Counter[str], Machine]:
    """Amounts of work of the connecting, and of these of its changes, by driver; and the machine at the end."""
    settings = variant.settings
    machine = Machine(
        planners(variant),
        [timed.change for timed in changes],
        cpus=settings.cpus,
        knobs=knobs(settings.release, settings.cpus, {**istiod.ENVIRONMENT, **settings.env}),
        prices=Prices(shipped(settings.release)),
        clients=replace(settings.clients, reconnect_ns=None),
        seed=1,
        detail=False,
    )
    connecting: Counter[str] = Counter()
    Simulation(
        machine,
        changes,
        warmup_ns=0,
        duration_ns=_APART_NS * (len(changes) + 2),
        settled=lambda now: connecting.update(amounts_of(machine, machine.sums)) or {},
    ).run()
    return connecting, amounts_of(machine, machine.sums), machine


def cpu_seconds(process: psutil.Process) -> float:
    """CPU time of a process: from the scheduler, to the nanosecond, where there is one (psutil's ticks are 10 ms)."""
    try:
        threads = Path(f"/proc/{process.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9
    except (OSError, ValueError, IndexError):
        times = process.cpu_times()
        return float(times.user + times.system)


class _Watched:
    """A running istiod with its clients: waits until all is over, and reads its CPU time."""

    def __init__(self, server: istiod.Istiod, cluster: stub.Cluster) -> None:
        self.server, self.cluster = server, cluster
        self.fleet: Fleet | None = None
        self._process = psutil.Process(server.pid)
        self.idle_share = 0.0

    def cpu_s(self) -> float:
        return cpu_seconds(self._process)

    async def over(self) -> None:
        """Until events are on the wire, and for a while neither a response came nor istiod worked."""
        since, last = time.monotonic(), (-1, -1.0)
        while True:
            await asyncio.sleep(0.05)
            if not self.server.alive:
                raise self.server.problem("it died")
            if self.fleet is not None:
                await self.fleet.look()
            received, spent = self.fleet.received if self.fleet else 0, self.cpu_s()
            waiting = not self.cluster.delivered() or (self.fleet is not None and not self.fleet.synced)
            if waiting or received != last[0] or spent - last[1] > 0.02:
                since, last = time.monotonic(), (received, spent)
            elif time.monotonic() - since > _STILL_S:
                return

    async def measured(self, work: Callable[[], Any], seconds: int) -> tuple[float, dict[str, float]]:
        """CPU seconds that something costs, without what istiod burns anyway; and by piece, in its first `seconds`."""
        profile = asyncio.create_task(self.server.cpu_profile(seconds))
        try:
            before, begun = self.cpu_s(), time.monotonic()
            await asyncio.sleep(_BEGUN_S)
            await work()
            await self.over()
            spent = max(0.0, self.cpu_s() - before - self.idle_share * (time.monotonic() - begun))
            return spent, profiles.pieces(await profile)
        finally:
            profile.cancel()

    async def measure_idle(self, seconds: float = 2.0) -> None:
        """What it burns at rest, as a share of a core."""
        before = self.cpu_s()
        await asyncio.sleep(seconds)
        self.idle_share = (self.cpu_s() - before) / seconds

    async def contexts_s(self) -> float:
        """Seconds that it has spent on PushContexts so far."""
        made = read_openmetrics(await self.server.metrics_text()).histogram("pilot_pushcontext_init_seconds")
        return made.sum if made else 0.0

    async def goal(self) -> int:
        """The heap at which the collector next runs."""
        return round(read_openmetrics(await self.server.metrics_text()).total("go_memstats_next_gc_bytes"))

    async def heap(self, goal: int = 0) -> Heap:
        """Its memory now, after a collection; `goal` is the highest seen before."""
        for _ in range(2):  # what is pooled lives through one collection
            await self.server.collect_garbage()
        scrape = read_openmetrics(await self.server.metrics_text())
        resident = self._process.memory_info().rss
        held = scrape.total("go_memstats_heap_sys_bytes") - scrape.total("go_memstats_heap_released_bytes")
        next_goal = round(scrape.total("go_memstats_next_gc_bytes"))
        live = round(scrape.total("go_memstats_heap_alloc_bytes"))
        return Heap(live, max(goal, next_goal), resident, round(resident - held))


async def probe(name: str, data: Mapping[str, Any], binary: Path, release: str, progress: Progress) -> Probed:
    """Run one probe on a real istiod, and simulate it. Raises EnvironmentProblem."""
    scenario = Scenario(data, Path()).replaced({"istiod.release": release})
    variant = scenario.variant(scenario.variant_names[0])
    by_source = groups(variant)
    cluster = stub.Cluster.of(variant.mesh)
    settings = istiod.Settings(binary, variant.mesh.mesh_config, variant.mesh.env)
    spent: dict[str, tuple[float, dict[str, float]]] = {}
    contexts: dict[str, float] = {}
    async with stub.serve(cluster) as url, istiod.run(settings, url) as server:
        watched = _Watched(server, cluster)
        await quiet(server, cluster, None, still_for_s({}))
        await watched.over()
        await watched.measure_idle()
        alone = await watched.heap()
        progress(f"{name}: {len(variant.mesh.proxies)} proxies connect")

        mode = variant.settings.mode or rules(release).agent_mode
        async with Recorder.connect(server, variant.mesh.proxies, mode) as recorder:

            async def connect() -> None:
                watched.fleet = recorder.fleet

            spent[CONNECT] = await watched.measured(connect, _CONNECTING_S)
            goal = await watched.goal()
            for source, changes in by_source.items():
                progress(f"{name}: {len(changes)} changes of {source}")

                async def write(changes: Sequence[Timed] = changes) -> None:
                    for _, together in itertools.groupby(changes, key=lambda timed: timed.at_ns):
                        for timed in together:
                            cluster.write(timed.change)
                        await asyncio.sleep(0.1)
                        await watched.over()

                before_s = await watched.contexts_s()
                moments = len({timed.at_ns for timed in changes})
                spent[source] = await watched.measured(write, 1 + round(_PUSH_S * moments))
                contexts[source] = await watched.contexts_s() - before_s
                goal = max(goal, await watched.goal())
                recorder.take()
            full = await watched.heap(goal)
    amounts, machine = simulated_parts(variant)
    parts = tuple(
        Part(name, part, cpu_s, contexts.get(part, 0.0), dict(amounts[part]), pieces)
        for part, (cpu_s, pieces) in spent.items()
    )
    passing = {name: float(level.highest) for name, level in machine.tally.held(0).items()}
    planner = machine.replicas[0].planner
    names = sum(planner.shape(machine.group_of[c], machine.state[c], -1).names for c in range(machine.total))
    stored: dict[str, float] = {"memory.base": 1, **planner.inventory()}
    scopes = stored.pop("memory.scopes")  # nobody has them before somebody connects
    cached = {name: passing.pop(name) for name in OF_CACHE}  # it does not go
    connected: dict[str, float] = {"memory.connections": len(variant.mesh.proxies), "memory.names": names}
    connected |= {"memory.scopes": scopes, **cached}
    return Probed(name, parts, alone, full, stored, {**stored, **connected}, passing)
