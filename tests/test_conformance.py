"""`pushsim conform` on a folder: what is scored, told and answered, on recordings that are right and on forged ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pushsim.cli import main
from pushsim.conformance import run_folder
from pushsim.errors import InputError
from pushsim.recordings import ASPECTS, byte_tolerance

VECTORS = Path(__file__).parent / "vectors"
CASE = "headless"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One case with a recording of two releases."""
    (tmp_path / "cases").mkdir()
    shutil.copy(VECTORS / "cases" / f"{CASE}.yaml", tmp_path / "cases")
    (tmp_path / CASE).mkdir()
    for name in ("1.16-sotw", "1.24-delta"):
        shutil.copy(VECTORS / CASE / f"{name}.json", tmp_path / CASE)
    return tmp_path


def forge(folder: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / CASE / f"{name}.json"
    run = json.loads(path.read_text())
    change(run)
    path.write_text(json.dumps(run))


def responses(run: dict[str, Any]) -> list[dict[str, Any]]:
    told = [run["connect"], *(step["responses"] for step in run["steps"])]
    return [response for by_proxy in told for of_proxy in by_proxy.values() for response in of_proxy]


def enlarge(run: dict[str, Any], share: float) -> None:
    """More bytes than the tolerance allows, in that share of the responses, the first ones."""
    found = responses(run)
    for response in found[: round(share * len(found))]:
        response["size_bytes"] += round(byte_tolerance(response["size_bytes"]) * 2)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(["conform", *arguments])
    return int(ended.value.code or 0), capsys.readouterr().out


def test_equal_recordings_exit_with_0_and_the_unproven_are_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = run(capsys, str(folder), "--jobs", "1")
    assert code == 0
    assert "unproven (no recordings here): 1.13, 1.14, 1.15, 1.17" in out
    assert [line.split()[:2] for line in out.splitlines() if line.startswith("1.")] == [
        ["1.16", "sotw"],
        ["1.24", "delta"],
    ]


@pytest.mark.parametrize(("share", "right"), [(0.005, True), (0.02, False)])
def test_bytes_of_a_recording_are_right_if_99_percent_of_its_responses_are(
    folder: Path, capsys: pytest.CaptureFixture[str], share: float, right: bool
) -> None:
    forge(folder, "1.24-delta", lambda recorded: enlarge(recorded, share))
    code, out = run(capsys, str(folder), "--jobs", "1")
    assert code == (0 if right else 1)
    assert (f"{CASE} 1.24 delta: on connecting" in out) is not right
    assert (" B, got " in out) is not right
    table = run_folder(folder)
    assert table.exact is right
    equal, checked = table.totals("bytes", "1.24", "delta")
    assert 0 < checked - equal == round(share * checked)
    assert table.totals("bytes", "1.16", "sotw")[0] == table.totals("bytes", "1.16", "sotw")[1]
    assert all(len(set(table.totals(aspect))) == 1 for aspect in ASPECTS if aspect != "bytes")


def test_a_difference_names_step_proxy_both_answers_and_our_rule(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    number, proxy = 0, ""

    def drop(recorded: dict[str, Any]) -> None:
        nonlocal number, proxy
        number, proxy = next(
            (i, name)
            for i, step in enumerate(recorded["steps"])
            for name, of_proxy in step["responses"].items()
            if of_proxy
        )
        del recorded["steps"][number]["responses"][proxy][0]

    forge(folder, "1.16-sotw", drop)
    code, out = run(capsys, str(folder), "--jobs", "1")
    assert code == 1
    head = next(line for line in out.splitlines() if line.startswith(f"{CASE} 1.16 sotw: "))
    assert f"step {number} (" in head and f"{proxy}: pushes" in head
    told = out[out.index(head) :].splitlines()[1:4]
    assert [line.split()[0] for line in told] == ["expected", "got", "because"]
    code, out = run(capsys, str(folder), "--json")
    cells = {(cell["release"], cell["mode"]): cell for cell in json.loads(out)["cells"]}
    assert code == 1 and not cells["1.16", "sotw"]["exact"] and cells["1.24", "delta"]["exact"]
    assert proxy in cells["1.16", "sotw"]["first_difference"]


def test_processes_say_the_same_as_one_and_what_is_wrong_with_a_file(folder: Path) -> None:
    told: list[float] = []
    table = run_folder(folder, jobs=2, progress=told.append)
    assert table.to_json() == run_folder(folder).to_json()
    assert told == sorted(told) and told[-1] == 1.0
    (folder / CASE / "1.24-delta.json").write_text("{")
    with pytest.raises(InputError, match=r"1\.24-delta\.json.*cannot be read"):
        run_folder(folder, jobs=2)


def test_an_interrupt_keeps_what_was_compared(folder: Path) -> None:
    def interrupt(share: float) -> None:
        raise KeyboardInterrupt

    table = run_folder(folder, progress=interrupt)
    assert table.scores and not table.complete
    assert run_folder(folder).complete


def test_a_recording_that_says_no_mode_is_bad_input(folder: Path) -> None:
    (folder / CASE / "1.24-full.json").write_text("{}")
    with pytest.raises(InputError, match="RELEASE-sotw or RELEASE-delta"):
        run_folder(folder)
