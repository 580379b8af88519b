"""The reference engine: phases, what it counts, determinism, overload, interruption."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_planner import Asking, FakePlanner

from pushsim import runs
from pushsim.control import Cores, Machine
from pushsim.control.cores import TICKS
from pushsim.cost import istiod_cpu
from pushsim.mesh import Change, Mesh
from pushsim.observed import Observed
from pushsim.planner import Planner
from pushsim.result import Result, load
from pushsim.scenario import Scenario
from pushsim.settings import ISTIOD_RESTART, Clients, Settings, Timed, Variant

S = 1_000_000_000
MS = 1_000_000


def fakes(*sizes: int, **options: object) -> runs.Planners:
    def made(variant: Variant) -> Sequence[Planner]:
        return [FakePlanner(sizes, **options) for _ in range(variant.settings.replicas)]  # type: ignore[arg-type]

    return made


def timed(*changes: tuple[int, str], source: str = "changes") -> tuple[Timed, ...]:
    return tuple(Timed(at, source, Change(name=name)) for at, name in changes)


def run(
    changes: Sequence[Timed],
    planners: runs.Planners,
    *,
    seed: int = 1,
    seconds: int = 10,
    warmup: int = 1,
    progress: Callable[[float], None] | None = None,
    detail: runs.Detail = "group",
    **settings: object,
) -> Result:
    variant = Variant("v", Mesh(), tuple(changes), Settings(**settings))  # type: ignore[arg-type]
    asking = Asking((variant,), seed, warmup * S, seconds * S)
    return runs.run(asking, "v", runs.How(detail=detail, planners=planners), progress)


def churn(count: int, seconds: int, services: int, seed: int = 3) -> tuple[Timed, ...]:
    rng = random.Random(seed)
    kinds = ("ep", "svc", "cfg", "no")
    drawn = [
        Timed(
            rng.randrange(seconds * S), rng.choice("ab"), Change(name=f"{rng.choice(kinds)}:{rng.randrange(services)}")
        )
        for _ in range(count)
    ]
    return tuple(sorted(drawn, key=lambda change: change.at_ns))


def test_one_endpoint_change_is_one_push_of_one_type_to_those_who_import_it() -> None:
    result = run(timed((2 * S, "ep:0")), fakes(5, 7, services=2))
    summary = result.summary
    assert summary["changes"] == summary["merged_pushes"] == 1
    assert (summary["proxies_considered"], summary["proxy_pushes"], summary["fan_out_mean"]) == (12, 5, 5)
    assert summary["responses"] == {"CDS": 0, "EDS": 5, "LDS": 0, "RDS": 0}
    assert summary["bytes_sent"] == 5 * 200
    assert summary["churn"]["changes"]["proxy_pushes"] == 5
    assert 0.1 < result["received_s.max"] < 0.12
    assert 0.1 <= result["debounced_s.p50"] < 0.105
    assert result["converged_s.max"] < 0.01
    assert summary["span_s"] == 10


def test_connecting_is_apart_and_warm_up_is_not_counted() -> None:
    result = run(timed((S // 2, "svc:0"), (2 * S, "svc:1")), fakes(5, services=2))
    assert result["connect.responses.CDS"] == 5
    assert result["connect.connections"] == 5
    assert (result["changes"], result["merged_pushes"], result["responses.CDS"]) == (1, 1, 5)


def test_changes_after_the_duration_are_not_written_and_those_before_are_drained() -> None:
    result = run(timed((11 * S - 1, "svc:0"), (11 * S, "svc:1")), fakes(4, services=2))
    assert result["changes"] == 1
    assert result["proxy_pushes"] == 4
    assert 10 < result["span_s"] < 11


def test_rows_add_up_to_the_summary() -> None:
    changes = churn(60, 20, 20)
    result = run(changes, fakes(10, 10, 5, services=20, gateways=1, solicited=True), seconds=19)
    frame = result.frame()
    by_type = frame.groupby("xds")["proxies"].sum().to_dict()
    assert by_type == {xds: count for xds, count in result["responses"].items() if count}
    assert (frame["proxies"] * frame["size_bytes"]).sum() == result["bytes_sent"]
    assert (frame["first_sent_ns"] <= frame["last_sent_ns"]).all()
    assert (frame["queued_at_ns"] <= frame["first_sent_ns"]).all()
    parts = result.summary["churn"]
    assert sum(part["proxy_pushes"] for part in parts.values()) == pytest.approx(result["proxy_pushes"], abs=2)
    assert sum(part["changes"] for part in parts.values()) == result["changes"]


def test_detail_has_a_row_per_response_and_the_same_summary() -> None:
    changes = churn(40, 20, 20)
    planners = fakes(6, 6, services=20)
    coarse, fine = run(changes, planners, seconds=19), run(changes, planners, seconds=19, detail="proxy")
    assert fine.text() == coarse.text()
    frame = fine.frame()
    assert len(frame) == sum(coarse["responses"].values())
    assert frame["converged_s"].notna().sum() == coarse["proxy_pushes"]
    assert frame["received_s"].max() == pytest.approx(coarse["received_s.max"], rel=1e-8)
    assert set(frame["proxy"]) == {f"p{n}.ns-{g}" for n in range(6) for g in range(2)}


def test_same_seed_same_bytes_other_seed_other_times() -> None:
    changes = churn(60, 20, 20)
    planners = fakes(20, 20, services=20, unscoped=True)
    clients = Clients(slow_share=0.2, slow_delay_ns=30 * MS, nack_share=0.1, reconnect_ns=30 * S)
    one, two = (run(changes, planners, cpus=1, replicas=2, clients=clients, seconds=19) for _ in range(2))
    other = run(changes, planners, cpus=1, replicas=2, clients=clients, seconds=19, seed=2)
    assert one.text() == two.text()
    assert one.rows.equals(two.rows)
    assert one.text() != other.text()


def test_same_bytes_in_any_process(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import test_simulation as t\n"
        "print(t.run(t.churn(30, 10, 9), t.fakes(5, 4, services=9), seconds=9).text())\n"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code, str(Path(__file__).parent)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[1],
        ).stdout
        for seed in ("0", "77")
    }
    assert len(texts) == 1


def test_steady_churn_is_held_back_until_the_maximum_and_the_notes_say_so() -> None:
    changes = timed(*((2 * S + n * 50 * MS, "svc:0") for n in range(500)))  # 25 s of one every 50 ms
    result = run(changes, fakes(3, services=2, unscoped=True), seconds=40)
    assert result["debounces_held_to_max"] == 2
    assert result["merged_pushes"] == 3
    assert 10 <= result["debounced_s.max"] < 10.2
    assert any("PILOT_DEBOUNCE_MAX" in note for note in result["notes"])
    calm = run(timed(*((2 * S + n * 150 * MS, "svc:0") for n in range(20))), fakes(3, services=2), seconds=10)
    assert calm["debounces_held_to_max"] == 0
    assert calm["notes"] == []


def test_overload_merges_keeps_the_queue_bounded_and_comes_to_an_end() -> None:
    changes = timed(*((S + n * 110 * MS, f"svc:{n % 50}") for n in range(90)))
    env = {"PILOT_PUSH_THROTTLE": "2"}
    busy = run(changes, fakes(100, services=1000, unscoped=True), cpus=0.25, env=env, seconds=10)
    idle = run(changes, fakes(100, services=1000, unscoped=True), cpus=64, seconds=10)
    assert busy["queue_longest"] <= 100
    assert busy["proxy_pushes"] < idle["proxy_pushes"] / 2, "merged"
    assert busy["converged_s.p99"] > 5 * idle["converged_s.p99"]
    assert busy["istiod_cpu_cores.mean"] == pytest.approx(0.25, rel=0.15)
    assert busy["istiod_cpu_cores.p99"] <= 0.25 + 1e-6


def test_fan_out_takes_as_long_as_its_work_on_the_cores() -> None:
    """Reference §8.2: the last of N proxies is done after about N·w/C."""
    sizes, cpus = 200, 2
    result = run(timed((2 * S, "svc:0")), fakes(sizes, services=500, unscoped=True), cpus=cpus, seconds=10)
    cpu_s = result["istiod_cpu_cores.mean"] * result["span_s"]
    assert result["converged_s.max"] == pytest.approx(cpu_s / cpus, rel=0.1)


def test_slow_clients_hold_slots_and_delay_others_but_use_no_core() -> None:
    planners = fakes(20, services=50, unscoped=True)
    changes = timed(*((2 * S + n * 300 * MS, "svc:0") for n in range(10)))
    env = {"PILOT_PUSH_THROTTLE": "2"}
    slow = Clients(slow_share=0.3, slow_delay_ns=500 * MS)
    hindered, free = (run(changes, planners, env=env, clients=c) for c in (slow, Clients()))
    assert hindered["queued_s.p99"] > 10 * max(free["queued_s.p99"], 0.001)
    per_response = hindered["istiod_cpu_cores.mean"] * hindered["span_s"] / sum(hindered["responses"].values())
    # merged pushes have fewer responses, which share the same handlers and contexts
    assert per_response < 1.5 * free["istiod_cpu_cores.mean"] * free["span_s"] / sum(free["responses"].values())


def test_replicas_share_the_proxies_and_each_does_all_pushes() -> None:
    changes = timed(*((2 * S + n * S, f"svc:{n}") for n in range(5)))
    one = run(changes, fakes(60, services=50, unscoped=True))
    three = run(changes, fakes(60, services=50, unscoped=True), replicas=3)
    assert three["merged_pushes"] == 3 * one["merged_pushes"]
    assert three["proxy_pushes"] == one["proxy_pushes"]
    assert three["istiod_cpu_cores.mean"] < 0.6 * one["istiod_cpu_cores.mean"]
    assert set(three.frame()["replica"]) == {0, 1, 2}


def test_a_restart_brings_a_storm_of_reconnects_and_no_change_is_lost() -> None:
    changes = timed((2 * S, "svc:0"), (3 * S, ISTIOD_RESTART), (4 * S, "svc:1"), (50 * S, "svc:2"))
    result = run(changes, fakes(40, services=5, unscoped=True), seconds=60)
    assert result["reconnects"] == 40
    assert result["responses.CDS"] >= 40 + 40 + 40  # svc:0, connecting anew, svc:2; svc:1 for those that are back
    assert result["streams_refused"] > 0
    away = result.summary["reconnected_s"]
    # 40 proxies, 25 streams a second, and an istiod that serves again after 5 s: all are back soon after that
    assert 5 < away["p50"] <= away["max"] < 60, away
    assert any(f"the last after {away['max']:.3g} s" in note for note in result["notes"])


def test_an_interrupt_keeps_what_there_is(tmp_path: Path) -> None:
    def stop(share: float) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    changes = timed(*((S + n * S, f"svc:{n}") for n in range(9)))
    result = run(changes, fakes(4, services=10, unscoped=True), progress=stop)
    assert not result.complete
    assert 4 <= result["merged_pushes"] <= 7
    assert not load(result.save(tmp_path / "v")).complete


def test_an_interrupt_that_python_loses_ends_the_run() -> None:
    """Who presses Ctrl-C while a weak reference's callback runs is not heard by Python itself."""
    told: list[float] = []

    def lost(share: float) -> None:
        told.append(share)
        held = FakePlanner([1])
        reference = weakref.ref(held, lambda _: signal.raise_signal(signal.SIGINT))
        del held
        assert reference() is None

    result = run(timed((2 * S, "svc:0")), fakes(2, services=1), progress=lost)
    assert not result.complete
    assert len(told) == 1


def test_simulate_runs_the_variants_asked_for_and_writes_their_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pushsim.planners.planners", fakes(4, services=3))
    cpus = {"one": 1, "two": 8}
    changes = timed((2 * S, "svc:0"))
    variants = tuple(Variant(name, Mesh(), changes, Settings(cpus=number)) for name, number in cpus.items())
    asking = Asking(variants, duration_ns=5 * S)
    told: list[tuple[str, float]] = []
    results = runs.simulate(asking, out=tmp_path, progress=lambda name, share: told.append((name, share)))
    assert list(results) == ["one", "two"]
    assert {name for name, _ in told} == {"one", "two"}
    assert load(tmp_path / "two").text() == results["two"].text()
    assert "seconds" in load(tmp_path / "two").run
    assert list(runs.simulate(asking, ["two"])) == ["two"]


def test_types_on_demand_are_counted_where_somebody_asks_for_them() -> None:
    """A sidecar and a gateway: each new service is a table of names, each renewed certificate a secret."""
    capture = "defaultConfig: {proxyMetadata: {ISTIO_META_DNS_CAPTURE: 'true'}}"
    text = (
        "mesh:\n  generate:\n    namespaces: 1\n    apps: [{name: a, total: 1, pods: 3}]\n"
        "    gateways: {count: 2, certificates: 3}\n"
        f"istiod: {{release: '1.24', mesh_config: {{{capture}}}}}\n"
        "churn:\n- {source: services, at: [1s, 3s], pods: 0}\n- {source: certificate-rotation, at: [5s], secrets: 3}\n"
        "duration: 10s\nwarmup: 1s\n"
    )
    results = []
    for engine in ("simpy", "kernel"):
        results.append(runs.run(Scenario.loads(text), "as-is", runs.How(engine)))
    first, second = results
    assert first.text() == second.text() and first.rows.equals(second.rows)
    responses = first.summary["responses"]
    assert list(responses) == ["CDS", "EDS", "LDS", "RDS", "SDS", "NDS"]
    assert responses["NDS"] == 2 * 3 and responses["SDS"] == 2
    assert first.summary["connect"]["responses"] | {"NDS": 3, "SDS": 2} == first.summary["connect"]["responses"]
    of_secrets = [row for row in first.rows.to_dict("records") if row["xds"] == "SDS"]
    assert [(row["resources"], row["proxies"]) for row in of_secrets] == [(1, 2)]
    assert 5300 < of_secrets[0]["size_bytes"] < 5900, "a chain and a key"
    without = Scenario.loads(text.replace("'true'", "'false'"))
    assert "NDS" not in runs.run(without, "as-is").summary["responses"]


def _ahead_s(cores: Cores) -> float:
    """How much more of collecting garbage is paid by now than prices say, evenly, of what was worked."""
    return (cores.clock - cores._done(cores.clock)) / TICKS / 1e9


@pytest.mark.parametrize("variant", ["root-sidecar", "hidden-training"])
def test_all_of_istiods_core_time_is_some_drivers(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Observed] = []
    ahead: list[float] = []
    summary, start = Observed.summary, Machine.start_counting

    def seeing(observed: Observed) -> dict[str, Any]:
        seen.append(observed)
        return summary(observed)

    def counting(machine: Machine, now: int) -> None:
        start(machine, now)
        ahead.append(_ahead_s(machine.replicas[0].cores))

    monkeypatch.setattr(Observed, "summary", seeing)
    monkeypatch.setattr(Machine, "start_counting", counting)
    text = (Path(__file__).parents[1] / "scenarios" / "aisuite-small.yaml").read_text()
    one_core = Scenario.loads(text.replace("cpus: 2", "cpus: 1"))  # on several, what collecting costs holds on average
    runs.simulate(one_core, [variant], engine="simpy")
    (observed,) = seen
    cores = observed.machine.replicas[0].cores
    spent_s = (sum(cores.spent) - observed.spent_before[0]) / cores.parts / 1e9 - (_ahead_s(cores) - ahead[0])
    assert istiod_cpu(observed.calibration, observed.amounts()).value == pytest.approx(spent_s, rel=0.01)
