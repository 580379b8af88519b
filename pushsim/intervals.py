"""Figures over seeds: means and ratios with the interval that so few seeds allow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

#: Confidence of every interval.
CONFIDENCE = 0.95


class Interval(NamedTuple):
    """An estimate of an amount, and its confidence interval, cut at nothing; of one seed alone three equal figures."""

    value: float
    low: float
    high: float


def _half_width(deviations: Sequence[float]) -> float:
    """Student's t times the standard error of a mean of such deviations from it."""
    from scipy.stats import t

    count = len(deviations)
    variance = math.fsum(deviation**2 for deviation in deviations) / (count - 1)
    return float(t.ppf((1 + CONFIDENCE) / 2, count - 1)) * math.sqrt(variance / count)


def mean(values: Sequence[float]) -> Interval:
    """The mean, with Student's t interval."""
    value = math.fsum(values) / len(values)
    if len(values) < 2:
        return Interval(value, value, value)
    half = _half_width([one - value for one in values])
    return Interval(value, max(0.0, value - half), value + half)


def ratio(values: Sequence[float], base: Sequence[float]) -> Interval | None:
    """Σ values / Σ base of the same seeds, with the interval of the ratio estimator; None if the base is nothing.

    The seeds are paired: what a seed makes of both alike does not widen the interval. Source: Cochran, Sampling
    Techniques, §6.4 (linearised variance of a ratio of means).
    """
    below = math.fsum(base)
    if below == 0:
        return None
    value = math.fsum(values) / below
    if len(values) < 2:
        return Interval(value, value, value)
    scale = below / len(base)
    half = _half_width([(one - value * other) / scale for one, other in zip(values, base, strict=True)])
    return Interval(value, max(0.0, value - half), value + half)
