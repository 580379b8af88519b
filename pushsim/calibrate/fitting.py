"""From measurements on real processes to coefficients: what was told, how well, and how it fits."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, median, pstdev
from typing import Any

from pushsim import envoy
from pushsim.calibrate import controlplane, meshes, proxies
from pushsim.cost import DEFAULTS, Calibration, Coefficient, envoy_memory, shipped, table
from pushsim.cost.fit import Estimate, Fit, Measurement, Prior, fit, predict
from pushsim.istiod import detect_release

Progress = Callable[[str], None]

#: Standard errors that a coefficient's `error` spans.
_WIDTH = 1.0
#: CPU time is read to a millisecond or two; it scatters by this share of itself from run to run.
_CPU_FLOOR_US, _CPU_SHARE = 3000.0, 0.08
_HEAP_FLOOR, _HEAP_SHARE = 2e6, 0.05
#: Where to look for what is no coefficient of the model (us); and how little and how much an error may say.
_UNKNOWN_US = 200.0
_LEAST_ERROR, _MOST_ERROR = 0.1, 0.85
#: What is not told is as good as fixed.
_FIXED = 1.0001


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


def _found(name: str, estimate: Estimate, source: str) -> Coefficient:
    relative = _WIDTH * estimate.error / estimate.value
    return replace(DEFAULTS[name], value=estimate.value, error=relative, source=source, fitted=True)


def told(fitted: Fit, source: str) -> dict[str, Coefficient]:
    """The coefficients that a fit told."""
    return {
        name: _found(name, estimate, source)
        for name, estimate in fitted.estimates.items()
        if name in DEFAULTS and estimate.told
    }


def _priors(measurements: Sequence[Measurement], known: Calibration, times: float) -> dict[str, Prior]:
    """What was known: `times` the value, as good as its error; of what is no coefficient, next to nothing."""
    names = {name for measurement in measurements for name in measurement.amounts}
    return {name: _prior(known.coefficients.get(name), times) for name in names}


def _prior(known: Coefficient | None, times: float) -> Prior:
    if known is None:
        return Prior(_UNKNOWN_US, 20.0)
    return Prior(times * known.value, 1 / (1 - min(max(known.error, _LEAST_ERROR), _MOST_ERROR)))


def _slower(measurements: Sequence[Measurement], known: Calibration) -> float:
    """How many times as long as was known all takes on this machine."""
    estimates = {name: Estimate(known[name], 0.0, False) for name in known.coefficients}
    predicted = [(m.value, predict(m.amounts, estimates)) for m in measurements]
    return median(value / said for value, said in predicted if value and said)


def _settled(measurements: Sequence[Measurement], known: Calibration, times: float = 1.0) -> Fit:
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


# ---- Envoy


def from_envoy(binary: Path, release: str, progress: Progress) -> Findings:
    """Memory and CPU of proxies from a real Envoy (minutes). Raises EnvironmentProblem."""
    version = envoy.detect_version(binary)
    runs = list(proxies.design(envoy.options_of(release)))
    idles, seen = proxies.measure_all(binary, runs, progress)
    return of_envoy(idles, seen, version, release)


def of_envoy(idles: Sequence[proxies.Idle], seen: Sequence[proxies.Seen], version: str, release: str) -> Findings:
    """Coefficients from what was seen of an Envoy of that version."""
    source = f"[M] Envoy {version} fed by us, as Istio {release} sets it up"
    known = shipped(release)
    plain = [each for each in seen if each.run.options.get("stats") != "all"]
    memory = fit(proxies.of_memory(plain))
    coefficients = told(memory, source)
    measured = proxies.of_cpu(plain)
    cpu = _settled(measured, known, _slower(measured, known))
    coefficients |= told(cpu, source)
    held = fit(_of_runs(plain))
    for short in ("allocator", "message"):
        name = f"envoy.memory.{short}"
        coefficients[name] = _found(name, held.estimates[name], source)
    whole = held.estimates["envoy.memory.allocator"].value
    once = sum(memory.estimates[name].value for name in memory.estimates if ".once_" in name)
    base = fmean(idle.private for idle in idles) + once * whole
    spread = pstdev([idle.private for idle in idles]) / base
    coefficients["envoy.memory.base"] = replace(
        DEFAULTS["envoy.memory.base"], value=base, error=max(0.05, _WIDTH * spread), source=source, fitted=True
    )
    everything = fit([*proxies.of_memory(plain), *_with_statistics(seen)]).estimates
    coefficients["envoy.memory.stats"] = _found("envoy.memory.stats", everything["envoy.memory.stats"], source)
    entries = {f"Envoy heap, {name} (bytes)": compared(*pair) for name, pair in memory.predicted.items()}
    return Findings(coefficients, entries)


def _of_runs(seen: Sequence[proxies.Seen]) -> list[Measurement]:
    """How much private memory grew in each run: with what Envoy allocated, and with the largest response."""
    runs: dict[int, list[proxies.Seen]] = {}
    for each in seen:
        runs.setdefault(id(each.run), []).append(each)
    found = []
    for number, of_run in enumerate(runs.values()):
        allocated, private = (sum(getattr(each, what) for each in of_run) for what in ("allocated", "private"))
        amounts = {
            "envoy.memory.allocator": allocated,
            "envoy.memory.message": max(each.received for each in of_run),
        }
        found.append(Measurement(f"{of_run[0].run.name} ({number})", amounts, private, max(5e5, 0.05 * private)))
    return found


def _with_statistics(seen: Sequence[proxies.Seen]) -> list[Measurement]:
    found = []
    for measurement, each in zip(proxies.of_memory(seen), (s for s in seen if any(s.step.held.values())), strict=True):
        if each.run.options.get("stats") == "all":
            amounts = {**measurement.amounts, "envoy.memory.stats": each.step.held["cluster"]}
            found.append(replace(measurement, amounts=amounts))
    return found


def held_out(binary: Path, envoy_binary: Path, found: Calibration, progress: Progress) -> Findings:
    """Proxies of a whole mesh, told by a real istiod, against what the coefficients say. Raises EnvironmentProblem."""
    release = minor(detect_release(binary))
    held = asyncio.run(meshes.hold(meshes.mesh(), binary, envoy_binary, release, progress))
    entries = {}
    for each in held:
        predicted = envoy_memory(found, each.shape, each.workers).value
        entries[f"held out: Envoy of a mesh, {each.name} (private bytes)"] = compared(each.memory.private, predicted)
    return Findings({}, entries)


# ---- istiod


def from_istiod(binary: Path, progress: Progress, *, repeats: int = 2, size: float = 1.0) -> Findings:
    """CPU and memory of istiod from a real one (minutes). Raises EnvironmentProblem."""
    version = detect_release(binary)
    probed = []
    for number in range(repeats):
        for name, data in controlplane.probes(size):
            progress(f"probe {number + 1} of {repeats}: {name}")
            probed.append(asyncio.run(controlplane.probe(name, data, binary, minor(version), progress)))
    return of_istiod(probed, version)


def of_istiod(probed: Sequence[controlplane.Probed], version: str) -> Findings:
    """Coefficients from probes of an istiod of that version."""
    known = table(minor(version))
    source = f"[M] istiod {version}: our probes, CPU time (plaintext streams), heap after a collection"
    work = [_cpu(known, part, number) for number, each in enumerate(probed) for part in each.parts]
    slower = _slower(work, known)
    fitted = _settled(work, known, slower)
    coefficients = told(fitted, source)
    entries = _by_probe(work, fitted.predicted, "istiod CPU")
    for probe in dict.fromkeys(each.probe for each in probed):
        mine = [m for m in work if m.name.startswith(f"{probe}: ")]
        rest = [m for m in work if m not in mine]
        if not rest:
            continue
        others = _settled(rest, known, slower).estimates
        before = {name: Estimate(slower * known[name], 0.0, False) for name in known.coefficients}
        said = sum(predict(m.amounts, {**before, **others}) for m in mine)
        entries[f"held out: istiod CPU, {probe} (s)"] = compared(sum(m.value for m in mine) / 1e6, said / 1e6)
    heap = _heap(probed)
    fitted_heap = _settled(heap, known)
    coefficients |= told(fitted_heap, source)
    coefficients.pop("memory.spare", None)  # a probe's pushes are over before the collector sees what they held
    beside = [each.full.beside for each in probed]
    coefficients["memory.runtime"] = replace(
        DEFAULTS["memory.runtime"],
        value=fmean(beside),
        error=max(0.1, _WIDTH * pstdev(beside) / fmean(beside)),
        source=source,
        fitted=True,
    )
    entries |= {f"istiod heap, {name} (bytes)": compared(*pair) for name, pair in fitted_heap.predicted.items()}
    return Findings(coefficients, entries)


def _cpu(known: Calibration, part: controlplane.Part, number: int) -> Measurement:
    """A part's CPU time in us before garbage collection; amounts of ns coefficients count in thousands."""
    scale = {"us": 1.0, "ns": 1e-3}
    worked = {name: amount for name, amount in part.amounts.items() if amount and known[name]}
    amounts = {name: amount * scale[known.coefficients[name].unit] for name, amount in worked.items()}
    if "stream.opened" in amounts:  # without TLS and authentication it is another thing
        amounts["plain stream"] = amounts.pop("stream.opened")
    value = part.cpu_s * 1e6 / known["gc"]
    return Measurement(f"{part.probe}: {part.name} ({number})", amounts, value, max(_CPU_FLOOR_US, _CPU_SHARE * value))


def _by_probe(
    work: Sequence[Measurement], predicted: Mapping[str, tuple[float, float]], what: str
) -> dict[str, dict[str, float]]:
    """Measured and predicted by probe and part, summed over repeats, in seconds."""
    sums: dict[str, list[float]] = {}
    for measurement in work:
        name = measurement.name.rpartition(" (")[0]
        pair = sums.setdefault(f"{what}, {name} (s)", [0.0, 0.0])
        for place, value in enumerate(predicted[measurement.name]):
            pair[place] += value / 1e6
    return {name: compared(*pair) for name, pair in sums.items()}


def _heap(probed: Sequence[controlplane.Probed]) -> list[Measurement]:
    """The heap as far as it grows between collections: twice what lives, alone and connected; and its peak."""
    found = []
    for number, each in enumerate(probed):
        for name, heap, held in (
            ("alone", 2 * each.alone.live, each.held_alone),
            ("connected", 2 * each.full.live, each.held_full),
            ("peak", each.full.goal, {**each.held_full, **each.passing}),
        ):
            error = max(_HEAP_FLOOR, _HEAP_SHARE * heap)
            found.append(Measurement(f"{each.probe}: {name} ({number})", held, heap, error))
    return found


def minor(version: str) -> str:
    """`1.24` of `1.24.6`."""
    return ".".join(version.split(".")[:2])
