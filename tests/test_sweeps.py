"""Sweeps: the grid, the choice, resuming, lost workers, the same numbers however they are run."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pushsim as ps
from pushsim import plots
from pushsim.cli import main
from pushsim.errors import EnvironmentProblem, InputError
from pushsim.sweeps import Choice, Sweep, executing, front, grid, knee, load, parse_vary, sweep

TINY = """
# How long to debounce?
mesh: {generate: {namespaces: 2, apps: [{name: web, pods: 1}]}}
istiod: {cpus: 1, env: {PILOT_PUSH_THROTTLE: 50}}
churn: [{source: services, rate: 3/s, prefix: training}]
duration: 2s
warmup: 1s
seed: 5
"""
VARY = {"PILOT_DEBOUNCE_AFTER": ["50ms", "400ms"], "policy": ["none", "namespace"]}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="module")
def unbroken(tiny: Path) -> Sweep:
    return sweep(tiny, VARY, seeds=2)


# ---- the grid


def test_ranges_and_lists_are_read():
    assert parse_vary(["replicas=1..3", "policy=none, namespace"]) == {
        "replicas": ["1", "2", "3"],
        "policy": ["none", "namespace"],
    }
    for wrong in (["replicas"], ["=1"], ["cpus="], ["cpus=3..1"], ["a=1", "a=2"]):
        with pytest.raises(InputError):
            parse_vary(wrong)


def test_a_grid_is_every_combination_with_every_seed(tiny):
    points = grid(ps.Scenario.load(tiny), {**VARY, "churn.services.rate": ["1/s"], "replicas": [1, 2]}, seeds=3)
    assert len(points) == len({point.key for point in points}) == 2 * 2 * 2 * 3
    assert {point.seed for point in points} == {5, 6, 7}
    one = points[-1]
    assert one.scenario.settings.env == {"PILOT_PUSH_THROTTLE": "50", "PILOT_DEBOUNCE_AFTER": "400ms"}
    assert one.scenario.settings.replicas == 2
    assert one.scenario.value("churn.services.rate") == "1/s"
    assert (one.policy, one.scenario.seed) == ("namespace", 7)


@pytest.mark.parametrize(
    ("vary", "told"),
    [
        ({"replicsa": [1]}, "replicas"),
        ({"churn.services.rat": ["1/s"]}, "rate"),
        ({"policy": ["nonesuch"]}, "nonesuch"),
        ({"replicas": ["many"]}, "replicas"),
        ({"replicas": [1, 1]}, "twice"),
    ],
)
def test_a_knob_or_value_that_is_none_is_told_before_anything_is_run(tiny, vary, told):
    with pytest.raises(InputError, match=told):
        grid(ps.Scenario.load(tiny), vary)


def test_a_key_tells_policies_of_one_name_apart_by_their_contents(tmp_path, tiny):
    scenario = ps.Scenario.load(tiny)
    path = tmp_path / "p.yaml"
    keys = set()
    for hosts in ("./*", "istio-system/*"):
        path.write_text(f"- root-sidecar: {{hosts: ['{hosts}']}}\n")
        keys.add(grid(scenario, {"policy": [str(path)]})[0].key)
    assert len(keys) == 2


# ---- choosing

choices = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=30)


@given(choices)
def test_nothing_on_the_front_is_beaten_and_all_else_is(pairs):
    best = front([Choice({}, *pair) for pair in pairs])
    for delay, cost in pairs:
        beaten = any(d <= delay and c <= cost and (d, c) != (delay, cost) for d, c in pairs)
        assert any((each.delay, each.cost) == (delay, cost) for each in best) is not beaten
    assert [each.delay for each in best] == sorted({each.delay for each in best})


def test_the_knee_is_where_the_curve_bends():
    assert knee([(0, 100), (1, 20), (2, 12), (10, 0)]) == 1
    assert knee([(0, 0), (1, 1), (2, 2)]) is None
    assert knee([(0, 0), (1, 1)]) is None
    assert knee([(0, 5), (1, 5), (2, 5)]) is None


@given(st.floats(0.01, 100), st.floats(0.01, 100))
def test_the_knee_does_not_hang_on_the_units(sx, sy):
    curve = [(0.0, 9.0), (1.0, 4.0), (2.0, 2.5), (5.0, 1.0), (9.0, 0.0)]
    assert knee([(x * sx, y * sy) for x, y in curve]) == knee(curve)


# ---- running


def test_a_sweep_has_a_row_per_run_and_says_what_to_choose(unbroken):
    assert unbroken.complete
    assert len(unbroken.frame) == 8
    assert list(unbroken.frame)[:4] == ["key", "PILOT_DEBOUNCE_AFTER", "policy", "seed"]
    assert unbroken.frame["bytes_sent"].gt(0).all()
    estimates = unbroken.estimates("received_s.p99").set_index(["PILOT_DEBOUNCE_AFTER", "policy"])
    slow, quick = estimates.loc[("400ms", "none")], estimates.loc[("50ms", "none")]
    assert slow["value"] > quick["value"] + 0.2
    assert quick["low"] <= quick["value"] <= quick["high"]
    assert quick["seeds"] == 2
    chosen = unbroken.recommended()
    assert chosen in unbroken.front()
    assert str(chosen) in unbroken.sentence()
    assert chosen.settings["policy"] == "namespace"
    with pytest.raises(InputError, match=r"received_s\.p99"):
        unbroken.estimates("received_s.p9")


def test_a_knob_without_effect_is_told(tiny, unbroken):
    assert unbroken.idle() == []
    assert sweep(tiny, {"PILOT_NONESUCH": ["1", "2"]}).idle() == ["PILOT_NONESUCH"]


def test_its_plots_mark_the_knee_and_the_choice(unbroken):
    curve, best = plots.sweep_curve(unbroken, "PILOT_DEBOUNCE_AFTER"), plots.pareto(unbroken)
    assert curve.figure.axes[0].get_ylim()[0] == 0
    assert best.about == unbroken.sentence()
    for plot in (curve, best, plots.sweep_curve(unbroken, "policy", "bytes_sent")):
        assert "seeds 5 to 6" in plot.svg()
    with pytest.raises(InputError, match="PILOT_DEBOUNCE_AFTER"):
        plots.sweep_curve(unbroken, "PILOT_DEBOUNCE")


def test_what_was_stopped_at_half_is_resumed_and_equals_an_unbroken_sweep(tiny, unbroken, tmp_path):
    def stop(done: int, of: int) -> None:
        if done >= of / 2:
            raise KeyboardInterrupt

    half = sweep(tiny, VARY, seeds=2, out=tmp_path / "s", progress=stop)
    assert (half.complete, len(half.frame)) == (False, 4)
    assert not load(tmp_path / "s").complete
    told: list[int] = []
    whole = sweep(tiny, VARY, seeds=2, out=tmp_path / "s", progress=lambda done, of: told.append(done))
    assert told == [4, 5, 6, 7, 8]
    assert whole.complete
    pd.testing.assert_frame_equal(whole.frame, unbroken.frame)
    back = load(tmp_path / "s")
    pd.testing.assert_frame_equal(back.frame, unbroken.frame)
    assert (back.knobs, back.complete, back.caption()) == (whole.knobs, True, whole.caption())


def test_a_folder_that_is_no_sweep_says_how_to_make_one(tmp_path):
    with pytest.raises(InputError, match="pushsim sweep"):
        load(tmp_path)
    (tmp_path / "sweep.json").write_text('{"format": 9}')
    with pytest.raises(InputError, match="format 9"):
        load(tmp_path)


def test_a_lost_process_costs_only_its_runs(tiny, unbroken, tmp_path, monkeypatch):
    """The first process to come to the second seed kills itself, once."""
    monkeypatch.setenv("PUSHSIM_TEST_ONCE", str(tmp_path / "once"))
    monkeypatch.setattr(executing, "run_one", dying_once)
    found = sweep(tiny, VARY, seeds=2, jobs=2)
    assert (tmp_path / "once").exists()
    pd.testing.assert_frame_equal(found.frame, unbroken.frame)


def test_a_run_that_always_loses_its_process_is_named(tiny, monkeypatch):
    monkeypatch.setattr(executing, "run_one", dying)
    with pytest.raises(EnvironmentProblem, match=r"policy=as-is, seed 5: its process was lost 3 times"):
        sweep(tiny, {"policy": ["as-is"]}, jobs=2)


def dying(task: executing.Task) -> tuple[str, str]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def dying_once(task: executing.Task) -> tuple[str, str]:
    once = Path(os.environ["PUSHSIM_TEST_ONCE"])
    if task[1].seed == 6 and not once.exists():
        once.touch()
        dying(task)
    return REAL(task)


REAL = executing.run_one


# ---- Dask


def test_a_local_dask_cluster_gives_the_same_numbers(tiny, unbroken):
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1") as cluster:
        found = sweep(tiny, VARY, seeds=2, scheduler=cluster.scheduler_address)
    pd.testing.assert_frame_equal(found.frame, unbroken.frame)


def test_a_scheduler_and_workers_of_their_own_give_the_same_numbers_and_may_lose_a_worker(tiny, unbroken):
    code = textwrap.dedent("""
        import asyncio, sys
        from distributed import Scheduler, Worker

        async def main():
            if sys.argv[1] == "scheduler":
                server = Scheduler(host="127.0.0.1", port=0, dashboard=False)
            else:
                server = Worker(sys.argv[1], nthreads=1, dashboard=False, host="127.0.0.1")
            async with server:
                print(server.address, flush=True)
                await server.finished()

        if __name__ == "__main__":
            asyncio.run(main())
    """)

    def start(argument: str) -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen([sys.executable, "-c", code, argument], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    processes = []
    try:
        scheduler, address = start("scheduler")
        processes.append(scheduler)
        workers = [start(address)[0] for _ in range(2)]
        processes += workers

        def lose_one(done: int, of: int) -> None:
            if done == 2:
                workers[0].kill()

        found = sweep(tiny, VARY, seeds=2, scheduler=address, progress=lose_one)
        assert workers[0].wait() == -signal.SIGKILL
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()
            process.stdout.close()
    pd.testing.assert_frame_equal(found.frame, unbroken.frame)


def test_a_scheduler_that_is_not_there_is_the_environments_fault(tiny, monkeypatch):
    monkeypatch.setattr(executing, "CONNECT_S", 0.2)
    with pytest.raises(EnvironmentProblem, match="no Dask scheduler"):
        sweep(tiny, VARY, scheduler="tcp://127.0.0.1:9")


# ---- the verb


def test_the_verb_prints_the_front_and_a_sentence(tiny, tmp_path, capsys):
    arguments = ["sweep", str(tiny), "--vary", "policy=none,namespace", "--out", str(tmp_path / "o"), "--jobs", "1"]
    for more in ([], ["--json"]):
        with pytest.raises(SystemExit) as ended:
            main([*arguments, *more])
        assert ended.value.code == 0
        printed = capsys.readouterr().out
    told = json.loads(printed)
    assert (told["runs"], told["complete"], told["recommended"]["settings"]) == (2, True, {"policy": "namespace"})
    with pytest.raises(SystemExit) as ended:
        main(["sweep", str(tiny), "--vary", "nonesuch=1"])
    assert ended.value.code == 2


def test_a_sweep_that_is_told_to_end_keeps_its_runs_and_leaves_no_process(tiny, tmp_path):
    """By SIGTERM, as by Ctrl-C: a supervisor, a CI job or `timeout` sends that."""
    code = "from pushsim.cli import main; main()"
    asked = ["sweep", str(tiny), "--vary", "PILOT_PUSH_THROTTLE=1..400", "--jobs", "2", "--out", str(tmp_path / "o")]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *asked], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        assert process.stderr is not None
        while not any((tmp_path / "o").glob("runs/*.json")):
            with contextlib.suppress(subprocess.TimeoutExpired):
                pytest.fail(f"it ended by itself: {process.wait(0.1)}")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 130
        rest = process.stderr.read()  # up to its end: nobody has it open any more
        assert b"are kept; the same command does the rest" in rest
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stderr.close()
