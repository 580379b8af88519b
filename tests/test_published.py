"""Published measurements: every case is predicted or says why not, errors are honest, the table is where it belongs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pushsim.cli.app import app
from pushsim.cost import DEFAULTS
from pushsim.errors import InputError
from pushsim.planner import Shape
from pushsim.published import Row, cases, markdown, table


def row(use: str, published: tuple[float, float], predicted: float | None, *, at_least: bool = False) -> Row:
    return Row(1, "s", "f", use, published, at_least, predicted, "", "")  # type: ignore[arg-type]


def test_errors_are_to_the_nearer_end_and_only_of_what_was_held_out() -> None:
    assert row("hold", (10, 20), 15).verdict == "+0 %"
    assert row("hold", (10, 20), 5).verdict == "-50 %"
    assert row("hold", (10, 20), 30).verdict == "+50 %"
    assert row("hold", (30, 30), 300, at_least=True).verdict == "+0 %"
    assert row("fit", (10, 10), 30).verdict == "used"
    assert row("shape", (10, 10), 15).verdict == "same order"
    assert row("shape", (10, 10), 50).verdict == "higher"
    assert row("limit", (10, 10), 1).verdict == "lower"
    assert Row(3, "s", "", None, None, False, None, "", "no").verdict == "not predictable: no"


def test_every_case_is_there_once_and_predicted_or_says_why_not() -> None:
    every = cases()
    assert [case["case"] for case in every] == list(range(32))
    for case in every:
        if "why" in case:
            assert "figures" not in case
            continue
        figures = case.get("figures", ())
        assert figures or "scenario" in case
        for figure in figures:
            assert figure["use"] in ("hold", "fit", "shape", "limit")
            for shape in [figure["envoy"]] if "envoy" in figure else figure.get("ratio", ()):
                Shape(**shape)
            for named in ("istiod", "cpu", "slope", "proxy_cpu"):
                assert set(figure.get(named, ())) <= set(DEFAULTS)


def test_what_needs_no_run_is_predicted_from_the_shipped_calibration() -> None:
    rows = table([1, 2, 6, 15, 28])
    assert [each.case for each in rows] == [1, 1, 1, 1, 2, 6, 15, 15, 28]
    assert all(each.predicted and each.published for each in rows)
    assert {each.use for each in rows if each.case == 1} == {"fit", "hold"}


def test_readme_has_what_is_predicted_now() -> None:
    """Of the cases that take little time; `pushsim published --write README.md` makes the whole table."""
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    held = [line for line in readme.splitlines() if line.startswith("| ")]
    rows = markdown(table([1, 2, 5, 6, 15, 28])).splitlines()[2:]
    assert len(rows) > 9 and [row for row in rows if row not in held] == []


def test_a_case_there_is_not_is_said_so() -> None:
    with pytest.raises(InputError, match="no case 99"):
        table([99])


def test_the_table_goes_into_the_marked_block_and_nowhere_else(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- published: begin -->\nold\n<!-- published: end -->\nafter\n")
    told = CliRunner().invoke(app, ["published", "--case", "15", "--case", "3", "--write", str(readme), "--json"])
    assert told.exit_code == 0, told.output
    assert len(json.loads(told.stdout)["rows"]) == 3
    text = readme.read_text()
    assert text.startswith("before\n<!-- published: begin -->\n| case |")
    assert text.endswith("<!-- published: end -->\nafter\n")
    assert "old" not in text
    assert markdown(table([3, 15])) in text


def test_a_file_without_a_block_is_left_alone(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("nothing\n")
    told = CliRunner().invoke(app, ["published", "--case", "15", "--write", str(readme)])
    assert isinstance(told.exception, InputError)
    assert readme.read_text() == "nothing\n"
