"""The result folder and its bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsim.errors import EnvironmentProblem, InputError
from pushsim.result import DETAIL, FORMAT, ROWS, Result, Results, load, load_all, tidy

SUMMARY = {
    "source": "simulated",
    "changes": 3,
    "converged_s": {"p50": 0.1, "p99": 1 / 3},
    "bounds": {"a.b": [1.0, 2.0]},
}


def result(**more: object) -> Result:
    return Result("v", SUMMARY, {"scenario": {"id": "x", "seed": 1}, "versions": {"pushsim": "0"}}, **more)  # type: ignore[arg-type]


def test_a_saved_result_is_read_as_it_was(tmp_path: Path) -> None:
    rows = pa.table([[1]] * len(ROWS), names=ROWS.names).select([0, 1]).slice(0, 1)
    saved = result(complete=False, tables={"rows": rows}, run={"host": "h", "seconds": 1.5})
    back = load(saved.save(tmp_path / "a" / "v"))
    assert back.text() == saved.text()
    assert back.identity == saved.identity
    assert (back.variant, back.complete, back.run) == ("v", False, {"host": "h", "seconds": 1.5})
    assert back.table("rows").equals(rows)


def test_what_the_run_does_not_hang_on_is_not_in_result_json(tmp_path: Path) -> None:
    folder = result(run={"host": "here", "date": "today"}).save(tmp_path)
    text = (folder / "result.json").read_text()
    assert "here" not in text
    assert "today" not in text
    assert json.loads(text)["format"] == FORMAT
    assert text == result(run={"host": "there"}).text()


def test_floats_have_nine_significant_digits() -> None:
    assert tidy({"a": [1 / 3, 1e300 / 7, -0.0]}) == {"a": [0.333333333, 1.42857143e299, 0.0]}
    assert '"p99": 0.333333333\n' in result().text()


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_tidying_twice_changes_nothing_and_costs_little(value: float) -> None:
    once = tidy(value)
    assert tidy(once) == once
    assert once == pytest.approx(value, rel=1e-8)


def test_figures_are_found_by_path() -> None:
    assert result()["converged_s.p99"] == 1 / 3
    assert result().paths() == ["changes", "converged_s.p50", "converged_s.p99"]
    for path in ("converged_s.p999", "nope", "changes.p50"):
        with pytest.raises(KeyError):
            result()[path]


def test_a_folder_that_is_none_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="result folder"):
        load(tmp_path)
    (tmp_path / "result.json").write_text('{"format": 99}')
    with pytest.raises(InputError, match="format"):
        load(tmp_path)


def test_a_folder_of_the_first_format_is_read(tmp_path: Path) -> None:
    result().save(tmp_path)
    whole = json.loads((tmp_path / "result.json").read_text()) | {"format": 1}
    (tmp_path / "result.json").write_text(json.dumps(whole))
    assert load(tmp_path)["changes"] == 3
    assert load(tmp_path).timeline.empty


def test_a_newer_folder_says_that_pushsim_is_to_be_updated(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"format": 99}')
    with pytest.raises(InputError, match="update pushsim"):
        load(tmp_path)


def test_a_folder_that_cannot_be_written_is_the_environments_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match="cannot be written"):
        result().save(tmp_path / "file" / "v")
    with pytest.raises(EnvironmentProblem, match="a file has that name"):
        result().save(tmp_path / "file")


def test_the_columns_of_the_contract() -> None:
    wanted = "push changes group proxies xds resources removed size_bytes queued_at_ns first_sent_ns last_sent_ns"
    assert set(wanted.split()) <= set(ROWS.names)
    assert {*ROWS.names, "proxy", "solicited", "converged_s", "received_s"} <= set(DETAIL.names)


@pytest.mark.parametrize(
    ("look", "told"),
    [
        (lambda r: r["scopd"], "there is no variant 'scopd' (did you mean scoped?)"),
        (lambda r: r[["scoped"]], "there is no variant ['scoped'] (known: scoped)"),
        (lambda r: r["scoped"]["converged_s.p98"], "scoped: there is no figure 'converged_s.p98' (did you mean c"),
        (lambda r: r["scoped"][0], "scoped: there is no figure 0 (known: changes, converged_s.p50"),
        (lambda r: r.frame("rows", ["pushes"]), "rows: there is no column 'pushes' (did you mean push?)"),
        (lambda r: r.frame("row"), "there is no table 'row' (did you mean rows?)"),
        (lambda r: r["scoped"].table("churn", ["nope"]), "churn: there is no column 'nope' (known: source, "),
        (lambda r: r["scoped"].totals("xd"), "rows: there is no column 'xd' (did you mean xds?)"),
        (lambda r: r["scoped"].totals(["xds"]), "rows: there is no column ['xds'] (known: push, "),
        (lambda r: r.frame("rows", 5), "columns must be a name or a list of names, not int 5"),
    ],
)
@pytest.mark.parametrize("stored", [False, True])
def test_a_name_that_a_result_has_not_is_told_with_those_it_has(tmp_path, look, told, stored) -> None:
    found = Results([Result("scoped", SUMMARY)])
    if stored:
        found = load_all(found.save(tmp_path))
    with pytest.raises(InputError) as error:
        look(found)
    assert str(error.value).startswith(told)
    assert isinstance(error.value, KeyError) or "must be" in told  # as mappings promise


def test_results_are_a_mapping_that_may_lack_a_name() -> None:
    found = Results([Result("scoped", SUMMARY)])
    assert found.get("nope") is None
    assert "nope" not in found
    assert found.frame("rows", "push").columns.to_list() == ["variant", "push"]


@pytest.mark.parametrize("field", ["scenario", "versions", "calibration"])
def test_a_result_whose_parts_are_something_else_is_told(tmp_path: Path, field: str) -> None:
    folder = result().save(tmp_path)
    whole = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({**whole, field: 7}))
    with pytest.raises(InputError, match=rf"result.json: {field}: is no mapping \(run it anew\)"):
        load(folder)
