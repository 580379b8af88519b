"""Simulated against real: the table, its tolerances, the verb, the plot."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import replayed

from pushsim.calibrate import of_istiod
from pushsim.cli import main
from pushsim.errors import InputError
from pushsim.figures import number_at
from pushsim.parity import TOLERANCES, Row, at_speed, compare, parity, tolerances_of
from pushsim.result import load
from pushsim.scenario import Scenario

ROOT = Path(__file__).parent.parent
SMALL = replayed.SMALL.replace("rate: 4/s", "rate: 2/s")


def histogram(*counts: int) -> dict[str, Any]:
    return {"pilot_proxy_convergence_time": {"counts": [*counts, *[0] * (9 - len(counts))]}}


def test_the_table_holds_errors_against_the_mean_and_points_for_shares() -> None:
    ours = {"bytes_sent": 103.0, "responses": {"CDS": 10}, "histograms": histogram(9, 1)}
    ours["istiod_memory_bytes"] = {"max": 9}
    heap = {"max": 10}
    real = [
        {"bytes_sent": sent, "responses": {"CDS": 10}, "histograms": histogram(8, 2), "istiod_heap_bytes": heap}
        for sent in (99.0, 101.0)
    ]
    rows = {row.metric: row for row in compare(ours, real, TOLERANCES)}
    bytes_sent = rows["bytes_sent"]
    assert (bytes_sent.mean, bytes_sent.error, bytes_sent.within) == (100.0, pytest.approx(0.03), False)
    assert rows["responses.CDS"].error == 0 and rows["responses.CDS"].within
    share = rows["converged_share.le_0.1"]
    assert share.error == pytest.approx(0.1) and not share.within and rows["converged_share.le_0.5"].error == 0
    assert rows["istiod_heap_bytes.max"].error == pytest.approx(-0.1)  # what we have for it is all of its memory
    assert rows["received_s.p99"].error is None and rows["received_s.p99"].within  # nobody has a figure
    assert rows["bytes_sent"].to_json()["real"] == {"min": 99.0, "max": 101.0, "mean": 100.0}


def test_the_published_table_and_its_summary_say_what_their_files_say() -> None:
    made = runpy.run_path(str(ROOT / "results" / "parity_runs.py"))
    assert (ROOT / "results" / "parity" / "README.md").read_text() == made["table"]()
    assert made["summary"]() in (ROOT / "README.md").read_text()


def test_nothing_where_something_is_real_is_an_error() -> None:
    assert not Row("x", 5.0, (0.0,), 0.1).within and Row("x", 0.0, (0.0,), 0.1).within


def test_tolerances_are_for_all_or_for_one_that_there_is() -> None:
    assert set(tolerances_of({"": 0.5}).values()) == {0.5}
    assert tolerances_of({"received_s.p99": 0.9})["received_s.p99"] == 0.9
    with pytest.raises(InputError, match=r"no figure 'recieved_s.p99'.*received_s.p99"):
        tolerances_of({"recieved_s.p99": 0.9})


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parity") / "small.yaml"
    path.write_text(SMALL)
    return path


def test_the_verb_writes_results_json_and_plot_and_exits_by_its_tolerance(
    binary: Callable[[str], Path], written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    line = ["parity", str(written), "--istiod-binary", str(binary("normal")), "--repeat", "1", "--one-by-one", "0"]
    line += ["--cpu-speed", "0.5"]
    with pytest.raises(SystemExit) as ended:
        main([*line, "--out", str(out), "--tolerance", "100000%", "--json"])
    told = json.loads(capsys.readouterr().out)
    outside = [row for found in told["variants"].values() for row in found["rows"] if not row["within"]]
    assert not outside
    assert ended.value.code == 0 and told == json.loads((out / "parity.json").read_text())
    assert told["variants"]["as-is"]["cpu_speed"] == 0.5
    assert told["within"] and told["variants"]["as-is"]["machine"]["cores"]
    assert (out / "parity.svg").read_text().startswith("<?xml")
    assert load(out / "as-is" / "real-1").summary["source"] == "replayed"
    assert load(out / "as-is" / "simulated").summary["source"] == "simulated"
    with pytest.raises(SystemExit) as ended:
        main([*line, "--tolerance", "bytes_sent=0.001%"])
    assert ended.value.code == 1 and "bytes_sent" in capsys.readouterr().out


def test_an_istiod_that_dies_is_told_with_what_was_compared(binary: Callable[[str], Path], written: Path) -> None:
    found = parity(Scenario.load(written), binary("die"), repeat=2, one_by_one=0, cpu_speed=1.0)
    assert not found.complete and "about to die" in found.ended and found.variants["as-is"].real == ()


def test_each_variant_is_simulated_as_fast_as_the_machine_was_beside_its_replays(
    binary: Callable[[str], Path], written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds = iter([0.5, 1.0])
    monkeypatch.setattr(of_istiod, "measured_speed", lambda *_: next(speeds))
    found = parity(Scenario.load(written), binary("normal"), repeat=1, one_by_one=0).variants["as-is"]
    assert found.to_json()["cpu_speed"] == 0.75 and next(speeds, None) is None
    slower, as_fast = (at_speed(Scenario.load(written), "as-is", speed).summary for speed in (0.75, 1.0))
    for figure in ("istiod_cpu_cores.mean", "converged_s.mean"):
        assert number_at(found.simulated.summary, figure) == number_at(slower, figure) != number_at(as_fast, figure)


def test_an_interrupt_after_the_replays_loses_none_of_them(
    binary: Callable[[str], Path], written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds = iter([0.5])

    def measured(*_: object) -> float:
        if (speed := next(speeds, None)) is None:
            raise KeyboardInterrupt
        return speed

    monkeypatch.setattr(of_istiod, "measured_speed", measured)
    found = parity(Scenario.load(written), binary("normal"), repeat=1, one_by_one=0)
    compared = found.variants["as-is"]
    assert not found.complete and found.ended == "interrupted" and len(compared.real) == 1 and compared.rows
    assert compared.to_json()["cpu_speed"] == 0.5


@pytest.mark.istiod
@pytest.mark.parametrize("streams_per_s", [1000, 1])  # a limiter that refuses streams decides nothing of who gets what
def test_answers_are_those_of_a_real_istiod(istiod_binary: Path, streams_per_s: int) -> None:
    asked = Scenario.loads(
        SMALL.replace("proxies: {mode: sotw}", "").replace("SECOND: 1000", f"SECOND: {streams_per_s}")
    )
    found = parity(asked, istiod_binary, repeat=0, one_by_one=2)
    score = found.variants["as-is"].exact
    assert score is not None and found.within, score.differences
    assert score.checked["bytes"] > 8 and score.equal == score.checked
