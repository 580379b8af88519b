"""The grammar of --fail-on and --slo, and what a condition finds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsim.errors import InputError
from pushsim.runs import simulate
from pushsim.scenario import Scenario
from pushsim.thresholds import SOMETIMES_ABSENT, expected, failures, increase, judge, parse

SUMMARIES = {
    "a": {"converged_s": {"p99": 6.0}, "bytes_sent": 100, "churn": {"training-job": {"changes": 3}}},
    "b": {"bytes_sent": 150, "istiod_memory_bytes": {"max": 2 * 2**30}},
}


@pytest.mark.parametrize(
    ("text", "variant", "path", "op", "number", "is_increase"),
    [
        ("converged_s.p99 > 5", "", "converged_s.p99", ">", 5, False),
        ("converged_s.p99>5s", "", "converged_s.p99", ">", 5, False),
        ("a: converged_s.p99 >= 500ms", "a", "converged_s.p99", ">=", 0.5, False),
        ("converged_s.p99 < 5m", "", "converged_s.p99", "<", 300, False),
        ("istiod_cpu_cores.mean < 500m", "", "istiod_cpu_cores.mean", "<", 0.5, False),
        ("bytes_sent_per_s > 5M", "", "bytes_sent_per_s", ">", 5e6, False),
        ("istiod_memory_bytes.max > 2Gi", "", "istiod_memory_bytes.max", ">", 2**31, False),
        ("churn.training-job.changes == 3", "", "churn.training-job.changes", "==", 3, False),
        ("increase(bytes_sent) > 10%", "", "bytes_sent", ">", 10, True),
        ("increase( head/none : bytes_sent ) <= -2.5 %", "head/none", "bytes_sent", "<=", -2.5, True),
        ("namespace+export-to:bytes_sent != 0", "namespace+export-to", "bytes_sent", "!=", 0, False),
    ],
)
def test_the_grammar(text: str, variant: str, path: str, op: str, number: float, is_increase: bool) -> None:
    found = parse(text)
    assert (found.variant, found.path, found.op, found.number, found.increase) == (
        variant, path, op, number, is_increase,
    )  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["", "bytes_sent", "bytes_sent >", "> 5", "bytes_sent > five", "bytes_sent > 10%", "increase(bytes_sent) > 10",
     "increase(bytes_sent > 10%", "bytes_sent) > 10", "bytes_sent = 5", "bytes_sent > 5 or x > 2", "bytes_sent > 5Q"],
)  # fmt: skip
def test_what_is_no_condition_is_bad_input(text: str) -> None:
    with pytest.raises(InputError, match=r"^fail_on: "):
        parse(text)


@given(st.text(max_size=40))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        assert parse(text).path
    except InputError as error:
        assert error.problems[0].remedy


def test_a_condition_without_variant_is_judged_in_each() -> None:
    verdicts = judge([parse("bytes_sent > 120")], SUMMARIES)
    assert [(v.variant, v.value, v.met) for v in verdicts] == [("a", 100, False), ("b", 150, True)]
    assert failures(verdicts) == "b: bytes_sent is 150 (bytes_sent > 120)"


def test_an_absent_figure_meets_nothing() -> None:
    verdicts = judge([parse("converged_s.p99 >= 0")], SUMMARIES)
    assert [(v.variant, v.met) for v in verdicts] == [("a", True), ("b", False)]
    assert "has no converged_s.p99" in str(verdicts[1])
    assert judge([parse("gateway_memory_bytes.max > 1")], SUMMARIES)[0].value is None


@pytest.mark.parametrize("text", ["bytes_snt > 1", "a:istiod_memory_bytes.max > 1Gi", "bytes_sent.p99 > 1"])
def test_an_unknown_path_lists_the_known_ones(text: str) -> None:
    with pytest.raises(InputError, match=r"known:.*bytes_sent") as failed:
        judge([parse(text)], SUMMARIES)
    assert failed.value.exit_code == 2


def test_the_figures_that_are_expected_are_those_of_a_run() -> None:
    scenario = Scenario.loads("""
mesh: {generate: {namespaces: 2, apps: [{name: web, pods: 2}], gateways: {count: 1}}}
churn: [{source: rollout, rate: 1/s}]
changes: [{at: 1s, delete: [{kind: Service, name: web, namespace: ns-000}]}]
duration: 5s
""")
    known, found = set(expected(scenario.sources)), set(simulate(scenario)["as-is"].paths())
    assert found <= known
    on_demand = {f"{of}responses.{xds}" for of in ("", "connect.") for xds in ("NDS", "SDS", "ECDS")}
    assert known - found <= SOMETIMES_ABSENT | on_demand


def test_increase_is_against_the_baseline() -> None:
    rise = [parse("increase(bytes_sent) > 10%")]
    assert [(v.variant, v.value) for v in judge(rise, SUMMARIES)] == [("b", 50.0)], "else against the first"
    assert [v.value for v in judge(rise, SUMMARIES, {"a": {"bytes_sent": 80}, "b": {"bytes_sent": 150}})] == [25, 0]
    assert [v.value for v in judge(rise, SUMMARIES, {"only": {"bytes_sent": 50}})] == [100, 200]
    with pytest.raises(InputError, match="no variant 'b'"):
        judge(rise, SUMMARIES, {"a": {"bytes_sent": 80}, "c": {"bytes_sent": 150}})
    with pytest.raises(InputError, match="is the first"):
        judge([parse("increase(a:bytes_sent) > 10%")], SUMMARIES)
    with pytest.raises(InputError, match="did you mean a"):
        judge([parse("A: bytes_sent > 1")], SUMMARIES)


def test_from_nothing_to_something_is_more_than_any_percentage() -> None:
    assert increase(0, 1) == float("inf") and increase(0, 0) == 0 and increase(None, 1) is None
    assert judge([parse("increase(bytes_sent) > 1000000%")], {"a": {"bytes_sent": 1}}, {"a": {"bytes_sent": 0}})[0].met


@pytest.mark.parametrize("text", ["increase(bytes_sent) > 10%", "breaks.all > 0"])
def test_one_variant_alone_is_compared_with_nothing(text: str) -> None:
    with pytest.raises(InputError, match="compares variants, and there is one"):
        judge([parse(text)], {"b": {**SUMMARIES["b"], "breaks": {"all": 0}}})


def test_a_baseline_without_the_figure_is_told_lest_the_gate_hold_for_ever() -> None:
    rise = [parse("increase(bytes_sent) > 10%")]
    for before in ({}, {"bytes_sent": "many"}, {"bytes_sent": None}):
        with pytest.raises(InputError, match="the baseline has no number 'bytes_sent' of a"):
            judge(rise, SUMMARIES, {"a": before, "b": {"bytes_sent": 1}})
    with pytest.raises(InputError, match="of a"):
        judge(rise, SUMMARIES, {"only": {}})
    quiet = judge([parse("increase(queued_s.p99) > 10%")], SUMMARIES, {"a": {}, "b": {}})
    assert [(v.value, v.met) for v in quiet] == [(None, False), (None, False)], "where nothing was pushed there is none"
