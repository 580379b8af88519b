"""Fitting: coefficients are recovered from what they make, and priors keep what the data do not tell."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pushsim.cost.fit import Measurement, Prior, fit, predict

NAMES = ("a", "b", "c")


def measured(true: dict[str, float], count: int, noise: float, seed: int) -> list[Measurement]:
    chance = random.Random(seed)
    found = []
    for number in range(count):
        amounts = {name: chance.uniform(0, 100) for name in true}
        total = sum(amounts[name] * true[name] for name in true)
        seen = total * (1 + noise * chance.gauss(0, 1))
        found.append(Measurement(str(number), amounts, seen, max(1e-6, noise * total)))
    return found


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.tuples(*[st.floats(0.1, 1000)] * 3), st.integers(0, 10**6))
def test_what_made_exact_totals_is_found_again(values: tuple[float, float, float], seed: int) -> None:
    true = dict(zip(NAMES, values, strict=True))
    found = fit(measured(true, 12, 0.0, seed))
    for name in NAMES:
        assert found.estimates[name].value == pytest.approx(true[name], rel=1e-3, abs=1e-3)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.tuples(*[st.floats(1, 100)] * 3), st.integers(0, 10**6))
def test_noisy_totals_find_them_within_their_errors(values: tuple[float, float, float], seed: int) -> None:
    true = dict(zip(NAMES, values, strict=True))
    priors = {name: Prior(true[name] * 1.5, 2.0) for name in NAMES}
    found = fit(measured(true, 60, 0.05, seed), priors)
    for name in NAMES:
        estimate = found.estimates[name]
        assert abs(estimate.value - true[name]) < 6 * estimate.error + 0.02 * true[name]
        assert estimate.value > 0


def test_a_prior_keeps_what_the_data_do_not_tell() -> None:
    together = [Measurement(str(n), {"a": n, "b": 2 * n}, 50.0 * n, 0.5 * n) for n in range(1, 10)]
    found = fit(together, {"a": Prior(10, 2), "b": Prior(20, 2)})
    assert predict({"a": 1, "b": 2}, found.estimates) == pytest.approx(50, rel=0.01)
    assert not found.estimates["a"].told
    assert found.estimates["a"].value == pytest.approx(10, rel=0.2)


def test_what_the_data_tell_is_said_so() -> None:
    found = fit([Measurement("m", {"a": 10.0}, 300.0, 3.0)], {"a": Prior(10, 2)})
    assert found.estimates["a"].told
    assert found.estimates["a"].value == pytest.approx(30, rel=0.02)
    assert found.predicted["m"][0] == 300.0


def test_measurements_that_contradict_each_other_widen_the_errors() -> None:
    agreeing = [Measurement(str(n), {"a": 1.0}, 100.0, 1.0) for n in range(10)]
    quarrelling = [Measurement(str(n), {"a": 1.0}, 100.0 + (20 if n % 2 else -20), 1.0) for n in range(10)]
    assert fit(quarrelling).estimates["a"].error > 10 * fit(agreeing).estimates["a"].error
    assert fit(quarrelling).scatter > 10


def test_nothing_is_fitted_to_nothing_nor_without_a_prior_for_each() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        fit([])
    with pytest.raises(ValueError, match="no prior for b"):
        fit([Measurement("m", {"a": 1, "b": 1}, 1, 1)], {"a": Prior(1)})
