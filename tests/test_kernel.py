"""The compiled engine against the reference: equal logs, equal results."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from fake_planner import Asking, FakePlanner
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numba import config
from strategies import scripts

from pushsim import kernel, runs
from pushsim.control import Knobs, Machine
from pushsim.control.state import CLOSED, CONNECTED, DEQUEUED, PUBLISHED, PUSHED, SPARED
from pushsim.cost import Prices, shipped
from pushsim.kernel import Kernel, KernelMachine, queue
from pushsim.kernel.store import Store
from pushsim.mesh import Change, Mesh
from pushsim.settings import ISTIOD_RESTART, Clients, Settings, Timed, Variant
from pushsim.simulation import Simulation

MS = 1_000_000
S = 1_000_000_000


@dataclass(frozen=True)
class Case:
    sizes: tuple[int, ...]
    planner: dict[str, Any]
    changes: tuple[Timed, ...]
    cpus: float
    knobs: Knobs
    clients: Clients
    replicas: int
    seed: int
    warmup: int
    locked_us: float = 27


@st.composite
def cases(draw: st.DrawFn) -> Case:
    sizes = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    services = draw(st.integers(1, 8))
    groups = len(sizes)
    kinds = ("ep", "svc", "cfg", "no", "join", "leave", "proxy", ISTIOD_RESTART)
    weights = (6, 4, 3, 1, 1, 1, 2, draw(st.sampled_from([0, 0, 1])))
    pool = [kind for kind, weight in zip(kinds, weights, strict=True) for _ in range(weight)]

    def change(at: int) -> Timed:
        kind = draw(st.sampled_from(pool))
        if kind == ISTIOD_RESTART:
            return Timed(at, "restarts", Change(name=ISTIOD_RESTART))
        if kind in ("join", "leave", "proxy"):
            group = draw(st.integers(0, groups - 1))
            return Timed(at, "pods", Change(name=f"{kind}:{group}.{draw(st.integers(0, sizes[group] - 1))}"))
        return Timed(at, "config", Change(name=f"{kind}:{draw(st.integers(0, services - 1))}"))

    # Many at once, many a few ms apart, some far apart: quiet, merging and overload.
    gaps = draw(st.lists(st.sampled_from([0, 1, 3 * MS, 40 * MS, 110 * MS, S, 7 * S]), max_size=25))
    at, changes = 0, []
    for gap in gaps:
        at += gap
        changes.append(change(at))
    slow = draw(st.sampled_from([0, 0, 300 * MS]))
    return Case(
        sizes,
        {
            "services": services,
            "unscoped": draw(st.booleans()),
            "late": draw(st.integers(0, sizes[0])) if draw(st.booleans()) else 0,
            "lazy_scopes": draw(st.booleans()),
            "solicited": draw(st.booleans()),
            "sotw": draw(st.booleans()),
            "localities": draw(st.integers(1, 3)),
            "gateways": draw(st.integers(0, 1)),
            "times": draw(st.sampled_from([1, 30])),  # a Send waits for what is more than the write quota
        },
        tuple(changes),
        draw(st.sampled_from([0.003, 0.05, 1, 2.5, 16])),
        Knobs(
            debounce_after_ns=draw(st.sampled_from([10 * MS, 100 * MS])),
            debounce_max_ns=draw(st.sampled_from([50 * MS, S])),
            eds_debounce=draw(st.booleans()),
            throttle=draw(st.integers(1, 6)),
            streams_per_s=draw(st.sampled_from([2, 20, 1000])),
            cached=frozenset({"CDS", "EDS", "RDS"}) if draw(st.booleans()) else frozenset({"EDS"}),
            keepalive_ns=draw(st.sampled_from([S, 30 * S])),
        ),
        Clients(
            slow_share=0.5 if slow else 0,
            slow_delay_ns=slow,
            nack_share=draw(st.sampled_from([0, 0.3])),
            reconnect_ns=draw(st.sampled_from([None, 8 * S])),
        ),
        draw(st.integers(1, 3)),
        draw(st.sampled_from([0, 1, 2, 3, -1, 1 << 63, (1 << 64) + 5])),
        draw(st.sampled_from([0, 50 * MS, 3 * S])),
        draw(st.sampled_from([0, 27, 3000])),
    )


def priced(locked_us: float) -> Prices:
    """As shipped, with so much of a response under locks."""
    of = shipped("1.24")
    locked = replace(of.coefficients["send.locked"], value=locked_us)
    return Prices(replace(of, coefficients={**of.coefficients, "send.locked": locked}))


def ran(case: Case, machine_type: Any, engine: Any) -> tuple[Any, Any]:
    planners = [FakePlanner(case.sizes, **case.planner) for _ in range(case.replicas)]
    machine = machine_type(
        planners,
        [timed.change for timed in case.changes],
        cpus=case.cpus,
        knobs=case.knobs,
        prices=priced(case.locked_us),
        clients=case.clients,
        seed=case.seed,
        keep_log=True,
    )
    timeline = engine(machine, case.changes, warmup_ns=case.warmup, duration_ns=20 * S).run()
    assert all(replica.queue.longest <= sum(case.sizes) for replica in machine.replicas), "merging bounds the queue"
    return machine, timeline


def logs(case: Case, machine_type: Any, engine: Any) -> tuple[list[tuple[int, ...]], Any]:
    machine, timeline = ran(case, machine_type, engine)
    phases = (timeline.epoch, timeline.counted, timeline.ended, timeline.spent_before)
    return machine.log, (phases, machine.tally.gauges, machine.tally.away)


def say_the_same(case: Case) -> None:
    """Both engines log the same, in the same phases."""
    expected, phases = logs(case, Machine, Simulation)
    found, found_phases = logs(case, KernelMachine, Kernel)
    assert found == expected
    assert found_phases == phases


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases())
def test_logs_of_both_engines_are_equal(case: Case) -> None:
    say_the_same(case)


def test_proxy_updates_before_the_first_push_wait_as_all_events_do() -> None:
    changes = tuple(
        Timed(0, "pods", Change(name=name)) for name in ("proxy:0.0", "proxy:0.1", "ep:0", "proxy:0.0", "cfg:0")
    )
    knobs = Knobs(eds_debounce=False, throttle=1, streams_per_s=20)
    say_the_same(Case((3,), {"services": 2}, changes, 0.05, knobs, Clients(), 1, 0, 0))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases())
def test_gauges_are_what_the_log_tells_of_queue_and_throttle(case: Case) -> None:
    assume(not any(timed.change.name.startswith("proxy:") for timed in case.changes))  # the log has no ProxyUpdates
    machine, timeline = ran(case, KernelMachine, Kernel)
    home: dict[int, int] = {}
    waits, holds = set[int](), set[int]()  # connections that a push waits for, and that have a slot
    told, at, integrals = iter(machine.log), timeline.counted, [0, 0]
    entry = next(told, None)
    for gauge in machine.tally.gauges:
        while entry is not None and entry[0] < gauge[0]:
            now, kind, who, *_ = entry
            if now > at:
                integrals = [integrals[0] + len(waits - holds) * (now - at), integrals[1] + len(holds) * (now - at)]
                at = now
            if kind == CONNECTED:
                home[who] = entry[3]
            elif kind == PUBLISHED:
                waits |= {c for c, replica in home.items() if replica == who}
            elif kind == DEQUEUED:
                waits.discard(who)
                holds.add(who)
            elif kind in (PUSHED, SPARED, CLOSED):
                holds.discard(who)
                if kind == CLOSED:
                    waits.discard(who)
                    home.pop(who)
            entry = next(told, None)
        rest = gauge[0] - at
        assert gauge[1:] == (integrals[0] + len(waits - holds) * rest, integrals[1] + len(holds) * rest)


@st.composite
def waves(draw: st.DrawFn) -> Case:
    """Many proxies of which few are concerned by a push: what is dequeued next to each other is spared alike."""
    sizes = tuple(draw(st.lists(st.integers(1, 40), min_size=2, max_size=6)))
    gap = draw(st.sampled_from([2 * MS, 150 * MS, S]))
    kinds = draw(st.lists(st.sampled_from(["ep", "ep", "ep", "svc", "cfg"]), min_size=1, max_size=12))
    changes = tuple(
        Timed(number * gap, "config", Change(name=f"{kind}:{draw(st.integers(0, 7))}"))
        for number, kind in enumerate(kinds)
    )
    return Case(
        sizes,
        {"services": 8, "solicited": draw(st.booleans()), "lazy_scopes": draw(st.booleans())},
        changes,
        draw(st.sampled_from([0.003, 0.5, 2, 16])),
        Knobs(
            debounce_after_ns=draw(st.sampled_from([MS, 100 * MS])),
            debounce_max_ns=S,
            throttle=draw(st.integers(1, 100)),
            streams_per_s=1000,
        ),
        Clients(),
        draw(st.integers(1, 3)),
        draw(st.integers(0, 5)),
        draw(st.sampled_from([0, S])),
    )


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(waves())
def test_logs_of_both_engines_are_equal_where_most_are_spared(case: Case) -> None:
    say_the_same(case)


def result(case: Case, engine: runs.Engine, detail: runs.Detail, *, tables: bool = True) -> Any:
    def planners(variant: Variant) -> Sequence[FakePlanner]:
        return [FakePlanner(case.sizes, **case.planner) for _ in range(variant.settings.replicas)]

    env = {"PILOT_PUSH_THROTTLE": str(case.knobs.throttle), "PILOT_DEBOUNCE_MAX": "1s"}
    wanted = Settings(cpus=case.cpus, replicas=case.replicas, env=env, clients=case.clients)
    variant = Variant("v", Mesh(), case.changes, wanted)
    asking = Asking((variant,), case.seed, case.warmup, 20 * S)
    return runs.run(asking, "v", runs.How(engine, detail, planners=planners, tables=tables))


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases(), st.sampled_from(["group", "proxy"]))
def test_results_of_both_engines_are_equal_to_the_byte(case: Case, detail: runs.Detail) -> None:
    expected, found = (result(case, engine, detail) for engine in ("simpy", "kernel"))
    assert found.text() == expected.text()
    assert found.rows.equals(expected.rows)
    assert found.timeline.equals(expected.timeline)
    assert (expected.run["engine"], found.run["engine"]) == ("simpy", "kernel")


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases() | waves(), st.integers(1, 3), st.sampled_from([3, 1 << 30]))
def test_results_are_equal_where_plans_are_let_go_all_the_time(case: Case, kept: int, share: int) -> None:
    let_go = mock.patch("pushsim.control.machine.KEPT_PUSHES", kept)
    with let_go, mock.patch("pushsim.kernel.observing._SHARE_GONE", share):
        expected, found = (result(case, engine, "group") for engine in ("simpy", "kernel"))
        summed = result(case, "kernel", "group", tables=False)
    assert found.text() == expected.text()
    assert found.tables == expected.tables
    assert summed.summary == expected.summary


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    scripts(most=6), st.integers(0, 2), st.sampled_from([0.002, 4]), st.sampled_from([30 * MS, S]), st.integers(1, 4)
)
def test_results_are_equal_with_istio_s_own_semantics(script: Any, seed: int, cpus: float, gap: int, kept: int) -> None:
    """The compiled engine asks once for those that are alike, the reference asks for every group."""
    release, mesh, changes = script
    timed = tuple(Timed(n * gap, "test", change) for n, change in enumerate(changes))
    env = {"PILOT_PUSH_THROTTLE": "3"}
    variant = Variant("v", mesh, timed, Settings(release=release, cpus=cpus, replicas=2, env=env))
    asking = Asking((variant,), seed)
    with mock.patch("pushsim.control.machine.KEPT_PUSHES", kept):
        expected, found = (runs.run(asking, "v", runs.How(engine)) for engine in ("simpy", "kernel"))
        summed = runs.run(asking, "v", runs.How("kernel", tables=False))
    assert found.text() == expected.text()
    assert found.rows.equals(expected.rows)
    assert summed.summary == expected.summary


def test_compiled_code_that_another_process_has_dropped_meanwhile_is_no_error(tmp_path: Path) -> None:
    gone = tmp_path / "loop.run-1.py311.nbi"
    with mock.patch.object(
        Path, "glob", side_effect=lambda pattern: [gone] if pattern.endswith(".nbi") else [tmp_path]
    ):
        kernel._drop_stale()


@pytest.mark.skipif(bool(config.DISABLE_JIT), reason="nothing is lent to compiled code")
def test_arrays_that_were_lent_to_compiled_code_are_freed():
    store = Store(1, 4, 1, 1, log=False, details=False, margin=64)
    assert queue.slot_of(store.k, 0, 0, 0, 0, 0) >= 0
    arrays = weakref.ref(store.a.entries)
    del store
    gc.collect()
    assert arrays() is None
