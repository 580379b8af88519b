"""Fits coefficients to measurements: non-negative least squares, weighted, with errors, and priors if there are any.

A measurement is a total (CPU seconds, bytes) of known amounts; the coefficients are what it is the sum of. A prior
keeps what the data cannot tell apart where it was: it is one more measurement, of that coefficient alone, good to a
factor. Factors are what estimates of costs are good to, so with priors the logarithms are fitted. What comes out says
whether the data told a coefficient, or the prior did.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares, nnls

#: The data tell a coefficient if they take that much of its error, or move it by so many of its standard deviations (in
#: logarithms, what is near nothing keeps its error); without a prior, if its error is below itself.
TAKEN, MOVED = 0.4, 1.5
_Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Measurement:
    """A total, and the amounts it is made of.

    name:    what was measured, for reports.
    amounts: by coefficient; value: the total, in the coefficients' unit; error: its standard error, in the same unit.
    """

    name: str
    amounts: Mapping[str, float]
    value: float
    error: float


@dataclass(frozen=True, slots=True)
class Prior:
    """What is known of a coefficient before: its value, good to a factor (above 1) at one standard deviation."""

    value: float
    factor: float = 2.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """A coefficient as fitted: its value and standard error, and whether the data tell it (see `TAKEN`)."""

    value: float
    error: float
    told: bool


@dataclass(frozen=True)
class Fit:
    """Estimates by coefficient; measured and predicted totals by measurement; scatter: rms of (residual / error)."""

    estimates: Mapping[str, Estimate]
    predicted: Mapping[str, tuple[float, float]]
    scatter: float


def fit(measurements: Sequence[Measurement], priors: Mapping[str, Prior] | None = None) -> Fit:
    """Fit all coefficients that the measurements name. Errors grow with the scatter, where it is above 1.

    priors: of each coefficient, or none at all. Raises ValueError without measurements, or where a prior is missing.
    """
    if not measurements:
        raise ValueError("nothing was measured")
    names = sorted({name for m in measurements for name, amount in m.amounts.items() if amount})
    design = np.asarray([[m.amounts.get(name, 0.0) / m.error for name in names] for m in measurements], dtype=float)
    target = np.asarray([m.value / m.error for m in measurements], dtype=float)
    if priors is None:
        solution, relative, told = _plain(design, target)
    else:
        missing = [name for name in names if name not in priors]
        if missing:
            raise ValueError(f"no prior for {', '.join(missing)}")
        solution, relative, told = _with_priors(design, target, [priors[name] for name in names])
    residuals = design @ solution - target
    freedom = len(measurements) if priors is not None else max(1, len(measurements) - len(names))
    scatter = float(np.sqrt((residuals**2).sum() / freedom))
    errors = solution * relative * max(1.0, scatter) if priors is not None else relative * max(1.0, scatter)
    estimates = {
        name: Estimate(float(value), float(error), bool(seen))
        for name, value, error, seen in zip(names, solution, errors, told, strict=True)
    }
    predicted = {m.name: (m.value, predict(m.amounts, estimates)) for m in measurements}
    return Fit(estimates, predicted, scatter)


def predict(amounts: Mapping[str, float], estimates: Mapping[str, Estimate]) -> float:
    """The total of some amounts; what was not estimated counts nothing."""
    return float(sum(amount * estimates[name].value for name, amount in amounts.items() if name in estimates))


def _plain(design: _Matrix, target: _Matrix) -> tuple[_Matrix, _Matrix, Sequence[bool]]:
    """Values, standard errors, and whether each is above its error."""
    scale = np.sqrt((design**2).sum(axis=0))
    scaled = design / scale
    solution = nnls(scaled, target, maxiter=100 * design.shape[1] + 1000)[0] / scale
    errors = np.sqrt(np.maximum(0, np.diag(np.linalg.pinv(scaled.T @ scaled)))) / scale
    return solution, errors, [bool(e < v) for e, v in zip(errors, solution, strict=True)]


def _with_priors(design: _Matrix, target: _Matrix, priors: Sequence[Prior]) -> tuple[_Matrix, _Matrix, Sequence[bool]]:
    """Values, standard errors relative to them, and whether the data tell each."""
    start = np.asarray([prior.value for prior in priors])
    width = np.asarray([math.log(prior.factor) for prior in priors])

    def residuals(logs: _Matrix) -> _Matrix:
        return np.concatenate([design @ (start * np.exp(logs)) - target, logs / width])

    def slopes(logs: _Matrix) -> _Matrix:
        return np.vstack([design * (start * np.exp(logs)), np.diag(1 / width)])

    solved: Any = least_squares(residuals, np.zeros(len(start)), jac=slopes, x_scale="jac", max_nfev=2000)
    left = np.sqrt(np.diag(np.linalg.inv(slopes(solved.x).T @ slopes(solved.x))))
    told = (left < (1 - TAKEN) * width) | (np.abs(solved.x) > MOVED * width)
    return start * np.exp(solved.x), left, [bool(each) for each in told]
