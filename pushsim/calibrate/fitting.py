"""From measurements on real processes to coefficients: what was told, how well, and how it fits."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from pushsim.cost import DEFAULTS, Calibration, Coefficient, shipped
from pushsim.cost.fit import Estimate, Fit, Measurement, Prior, fit, predict

Progress = Callable[[str], None]

#: Standard errors that a coefficient's `error` spans.
WIDTH = 1.0
#: Where to look for what is no coefficient of the model (us); and how little and how much an error may say.
_UNKNOWN_US = 200.0
_LEAST_ERROR, _MOST_ERROR = 0.1, 0.85
#: What is not told is as good as fixed.
_FIXED = 1.0001
#: What probes do not tell from what always comes with it (a batch that is pushed), but changes at once and apart do.
_KNOWN_APART = frozenset({"rest.wakes"})


@dataclass(frozen=True)
class Findings:
    """Coefficients that some data told, and how well they explain it: {metric: {measured, predicted, error}}."""

    coefficients: Mapping[str, Coefficient] = field(default_factory=dict)
    fit: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __add__(self, other: object) -> Findings:
        """Both; of a coefficient that both found, the latter's."""
        if not isinstance(other, Findings):
            return NotImplemented
        return Findings({**self.coefficients, **other.coefficients}, {**self.fit, **other.fit})


def calibration(release: str, findings: Findings, name: str = "calibrated") -> Calibration:
    """A whole calibration: what was found, and the shipped values of the rest, marked as not fitted."""
    rest = {name: replace(c, fitted=False) for name, c in shipped(release).coefficients.items()}
    coefficients = {**rest, **findings.coefficients}
    return Calibration(name, release, 1.0, coefficients, machine(), findings.fit)


def machine() -> dict[str, Any]:
    """This machine: its CPU and how many of its cores we may use."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = (line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line)
        model = next(models, model)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"cpu": model, "cores": cores}


def compared(measured: float, predicted: float) -> dict[str, float]:
    """An entry of a calibration's `fit`: error is relative."""
    return {"measured": measured, "predicted": predicted, "error": predicted / measured - 1 if measured else 0.0}


def found(name: str, estimate: Estimate, source: str) -> Coefficient:
    """A coefficient as a fit estimates it."""
    relative = WIDTH * estimate.error / estimate.value
    return replace(DEFAULTS[name], value=estimate.value, error=relative, source=source, fitted=True)


def told(fitted: Fit, source: str) -> dict[str, Coefficient]:
    """The coefficients that a fit told."""
    return {
        name: found(name, estimate, source)
        for name, estimate in fitted.estimates.items()
        if name in DEFAULTS and estimate.told
    }


def _priors(measurements: Sequence[Measurement], known: Calibration, times: float) -> dict[str, Prior]:
    """What was known: `times` the value, as good as its error; of what is no coefficient, next to nothing."""
    names = {name for measurement in measurements for name in measurement.amounts}
    priors = {name: _prior(known.coefficients.get(name), times) for name in names}
    return priors | {name: replace(priors[name], factor=_FIXED) for name in _KNOWN_APART & names}


def _prior(known: Coefficient | None, times: float) -> Prior:
    if known is None:
        return Prior(_UNKNOWN_US, 20.0)
    return Prior(times * known.value, 1 / (1 - min(max(known.error, _LEAST_ERROR), _MOST_ERROR)))


def slower(measurements: Sequence[Measurement], known: Calibration) -> float:
    """How many times as long as was known all takes on this machine."""
    estimates = {name: Estimate(known[name], 0.0, False) for name in known.coefficients}
    predicted = [(m.value, predict(m.amounts, estimates)) for m in measurements]
    return median(value / said for value, said in predicted if value and said)


def settled(measurements: Sequence[Measurement], known: Calibration, times: float = 1.0) -> Fit:
    """A fit in which what the data do not tell is `times` its known value, so that the others go with it."""
    priors = _priors(measurements, known, times)
    while True:
        fitted = fit(measurements, priors)
        loose = {
            name: replace(priors[name], factor=_FIXED)
            for name, estimate in fitted.estimates.items()
            if not estimate.told and name in known.coefficients and priors[name].factor != _FIXED
        }
        if not loose:
            return fitted
        priors |= loose


def minor(version: str) -> str:
    """`1.24` of `1.24.6`."""
    return ".".join(version.split(".")[:2])
