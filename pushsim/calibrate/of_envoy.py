"""Memory and CPU of proxies, from a real Envoy."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, pstdev

from pushsim import envoy
from pushsim.calibrate import meshes, proxies
from pushsim.calibrate.fitting import WIDTH, Findings, Progress, compared, found, minor, settled, slower, told
from pushsim.cost import DEFAULTS, Calibration, envoy_memory, shipped
from pushsim.cost.fit import Measurement, fit
from pushsim.istiod import detect_release


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
    cpu = settled(measured, known, slower(measured, known))
    coefficients |= told(cpu, source)
    held = fit(_of_runs(plain))
    for short in ("allocator", "message"):
        name = f"envoy.memory.{short}"
        coefficients[name] = found(name, held.estimates[name], source)
    whole = held.estimates["envoy.memory.allocator"].value
    once = sum(memory.estimates[name].value for name in memory.estimates if ".once_" in name)
    base = fmean(idle.private for idle in idles) + once * whole
    spread = pstdev([idle.private for idle in idles]) / base
    coefficients["envoy.memory.base"] = replace(
        DEFAULTS["envoy.memory.base"], value=base, error=max(0.05, WIDTH * spread), source=source, fitted=True
    )
    everything = fit([*proxies.of_memory(plain), *_with_statistics(seen)]).estimates
    coefficients["envoy.memory.stats"] = found("envoy.memory.stats", everything["envoy.memory.stats"], source)
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
