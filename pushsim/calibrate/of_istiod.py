"""CPU and memory of istiod, from a real one; and how fast a machine is for it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from pushsim.calibrate import controlplane, profiles
from pushsim.calibrate.fitting import WIDTH, Findings, Progress, compared, minor, settled, slower, told
from pushsim.cost import DEFAULTS, Calibration, Coefficient, table
from pushsim.cost.fit import Estimate, Fit, Measurement, predict
from pushsim.istiod import detect_release

#: CPU time is read to a millisecond or two; it scatters by this share of itself from run to run.
_CPU_FLOOR_US, _CPU_SHARE = 3000.0, 0.08
#: A profile with fewer samples divides nothing.
_LEAST_SAMPLES = 15
_HEAP_FLOOR, _HEAP_SHARE = 2e6, 0.05
#: The probes that tell how fast a machine is: much work in little time, with caches and without.
_TELLING = ("many proxies, few services", "a proxy in each of many namespaces")
#: What making a PushContext costs.
_OF_CONTEXTS = (
    "push.contexts",
    "push.services",
    "push.endpoints",
    "push.listed",
    "push.virtual_services",
    "push.destination_rules",
    "push.configs",
)
#: It is timed to some part of this, by what else ran meanwhile.
_CONTEXTS_FLOOR_US = 500.0
#: What is no coefficient of the model.
_PLAIN = "plain stream"


def from_istiod(binary: Path, progress: Progress, *, repeats: int = 2, size: float = 1.0) -> Findings:
    """CPU and memory of istiod from a real one (minutes). Raises EnvironmentProblem."""
    version = detect_release(binary)
    probed = []
    for number in range(repeats):
        head = f"probe {number + 1} of {repeats}"
        probed += _probed(binary, minor(version), controlplane.probes(size), head, progress)
    return of_istiod(probed, version)


def _probed(
    binary: Path, release: str, probes: Iterable[tuple[str, dict[str, Any]]], head: str, progress: Progress
) -> list[controlplane.Probed]:
    """Probes run one after another on a real istiod."""
    found = []
    for name, data in probes:
        progress(f"{head}: {name}")
        found.append(asyncio.run(controlplane.probe(name, data, binary, release, progress)))
    return found


def of_istiod(probed: Sequence[controlplane.Probed], version: str) -> Findings:
    """Coefficients from probes of an istiod of that version."""
    known = table(minor(version))
    source = f"[M] istiod {version}: our probes, CPU time (plaintext streams), heap after a collection"
    work = [_cpu(known, part, number) for number, each in enumerate(probed) for part in each.parts]
    contexts = [_contexts(known, part, number) for number, each in enumerate(probed) for part in each.parts]
    contexts = [measurement for measurement in contexts if measurement.value]
    pieces = [of for number, each in enumerate(probed) for part in each.parts for of in _pieces(known, part, number)]
    measured = [*work, *contexts, *pieces]
    times = slower(work, known)
    fitted, short = _brought_to_the_sum(settled(measured, known, times), work)
    coefficients = _slowed(known, times * short) | told(fitted, source)
    entries = _summed([*work, *contexts], fitted.predicted, _entry)
    entries |= _summed(pieces, fitted.predicted, _of_piece)
    for probe in dict.fromkeys(each.probe for each in probed):
        mine = [m for m in work if m.name.startswith(f"istiod CPU, {probe}: ")]
        rest = [m for m in measured if not m.name.partition(", ")[2].startswith(f"{probe}: ")]
        if not rest:
            continue
        others = settled(rest, known, times).estimates
        before = {name: Estimate(times * known[name], 0.0, False) for name in known.coefficients}
        said = sum(predict(m.amounts, {**before, **others}) for m in mine)
        entries[f"held out: istiod CPU, {probe} (s)"] = compared(sum(m.value for m in mine) / 1e6, said / 1e6)
    heap = _heap(probed, known)
    fitted_heap = settled(heap, known)
    coefficients |= told(fitted_heap, source)
    for name in ("memory.flight", "memory.spare"):  # a probe's pushes are over before the collector sees what they held
        coefficients.pop(name, None)
    beside = [each.full.beside for each in probed]
    coefficients["memory.runtime"] = replace(
        DEFAULTS["memory.runtime"],
        value=fmean(beside),
        error=max(0.1, WIDTH * pstdev(beside) / fmean(beside)),
        source=source,
        fitted=True,
    )
    entries |= {f"istiod heap, {name} (bytes)": compared(*pair) for name, pair in fitted_heap.predicted.items()}
    return Findings(coefficients, entries)


def _brought_to_the_sum(fitted: Fit, work: Sequence[Measurement]) -> tuple[Fit, float]:
    """A fit with all estimates times what brings the predicted CPU time to the measured; and that factor.

    Errors are shares of what was measured, so what scatters below the line weighs more than what scatters above it, and
    a fit comes out low.
    """
    short = sum(m.value for m in work) / sum(fitted.predicted[m.name][1] for m in work)
    estimates = {
        name: replace(each, value=short * each.value, error=short * each.error)
        for name, each in fitted.estimates.items()
    }
    predicted = {name: (value, short * said) for name, (value, said) in fitted.predicted.items()}
    return replace(fitted, estimates=estimates, predicted=predicted), short


def _slowed(known: Calibration, times: float) -> dict[str, Coefficient]:
    """Coefficients of istiod's work as they are where all takes so many times as long: of what is not told."""
    return {
        name: replace(c, value=times * c.value, source=f"{c.source}; times {times:.2f}, as all that was measured")
        for name, c in known.coefficients.items()
        if c.part == "istiod cpu"
    }


def _cpu(known: Calibration, part: controlplane.Part, number: int) -> Measurement:
    """A part's CPU time in us before garbage collection; amounts of ns coefficients count in thousands."""
    scale = {"us": 1.0, "ns": 1e-3}
    worked = {name: amount for name, amount in part.amounts.items() if amount and known[name]}
    amounts = {name: amount * scale[known.coefficients[name].unit] for name, amount in worked.items()}
    if "stream.opened" in amounts:  # without TLS and authentication it is another thing
        amounts[_PLAIN] = amounts.pop("stream.opened")
    value = part.cpu_s * 1e6 / known["gc"]
    name = f"istiod CPU, {part.probe}: {part.name} ({number})"
    return Measurement(name, amounts, value, max(_CPU_FLOOR_US, _CPU_SHARE * value))


def _contexts(known: Calibration, part: controlplane.Part, number: int) -> Measurement:
    """The time in us that a part's PushContexts took, before garbage collection: one core does nothing else then."""
    amounts = {name: n for name, n in part.amounts.items() if n and name in _OF_CONTEXTS}
    value = part.contexts_s * 1e6 / known["gc"]
    name = f"istiod PushContext, {part.probe}: {part.name} ({number})"
    return Measurement(name, amounts, value, max(_CONTEXTS_FLOOR_US, _CPU_SHARE * value))


def _pieces(known: Calibration, part: controlplane.Part, number: int) -> Iterator[Measurement]:
    """The CPU time in us of each piece of a part's work, as its profile divides it: no garbage collection is in it.

    A profile has samples of a hundredth of a second, and may miss some of the time, so it tells shares.
    """
    seen = sum(part.pieces.values())
    if seen < _LEAST_SAMPLES * profiles.SAMPLE_S:
        return
    amounts = _cpu(known, part, number).amounts
    for piece, prefixes in profiles.PIECES.items():
        mine = {name: n for name, n in amounts.items() if name.startswith(prefixes)}
        if not mine or (piece == profiles.SENDING and part.name == controlplane.CONNECT):
            continue
        us = 1e6 * part.cpu_s / seen
        value, chance = us * part.pieces.get(piece, 0.0), us * profiles.SAMPLE_S
        error = math.hypot(math.sqrt(max(value, chance) * chance), _CPU_SHARE * value)
        yield Measurement(f"istiod profile, {part.probe}: {part.name}, {piece} ({number})", mine, value, error)


def _of_piece(measurement: Measurement) -> str:
    """Where a calibration's `fit` has what was measured and predicted of a piece, over all probes."""
    return f"istiod profiles: {_entry(measurement).rpartition(', ')[2]}"


def _summed(
    work: Sequence[Measurement], predicted: Mapping[str, tuple[float, float]], entry: Callable[[Measurement], str]
) -> dict[str, dict[str, float]]:
    """Measured and predicted in seconds, summed over all that have one entry."""
    sums: dict[str, list[float]] = {}
    for measurement in work:
        pair = sums.setdefault(entry(measurement), [0.0, 0.0])
        for place, value in enumerate(predicted[measurement.name]):
            pair[place] += value / 1e6
    return {name: compared(*pair) for name, pair in sums.items()}


def _entry(measurement: Measurement) -> str:
    """Where a calibration's `fit` has what was measured and predicted of a part."""
    return f"{measurement.name.rpartition(' (')[0]} (s)"


def measured_speed(binary: Path, known: Calibration, progress: Progress) -> float:
    """How fast this machine now is for istiod's work (less than a minute). Raises EnvironmentProblem.

    A calibration's `cpu_speed`: 0.5 where istiod needs twice the CPU time that it needed where `known` was measured.
    """
    release = minor(detect_release(binary))
    telling = [probe for probe in controlplane.probes() if probe[0] in _TELLING]
    return speed(_probed(binary, release, telling, "how fast this machine is", progress), known)


def speed(probed: Sequence[controlplane.Probed], known: Calibration) -> float:
    """As `measured_speed`, of these probes.

    What was off by a share of itself when `known` was fitted is taken to be off by it now, so that it is the machines
    that are compared. What plaintext streams cost is no coefficient: parts that open some tell nothing.
    """
    coefficients = {name: Estimate(known[name], 0.0, False) for name in known.coefficients}
    then = now = 0.0
    for measurement in (_cpu(known, part, number) for number, each in enumerate(probed) for part in each.parts):
        if _PLAIN in measurement.amounts:
            continue
        off = known.fit.get(_entry(measurement), {}).get("error", 0.0)
        then += predict(measurement.amounts, coefficients) / (1 + off)
        now += measurement.value
    return then / now


def _heap(probed: Sequence[controlplane.Probed], known: Calibration) -> list[Measurement]:
    """The heap as far as it grows between collections: twice what lives, alone and connected; and its peak."""
    found, growth = [], 1 + known["gc.growth"]
    for number, each in enumerate(probed):
        for name, heap, held in (
            ("alone", 2 * each.alone.live, each.held_alone),
            ("connected", 2 * each.full.live, each.held_full),
            ("peak", each.full.goal, {**{name: growth * n for name, n in each.held_full.items()}, **each.passing}),
        ):
            error = max(_HEAP_FLOOR, _HEAP_SHARE * heap)
            found.append(Measurement(f"{each.probe}: {name} ({number})", held, heap, error))
    return found
