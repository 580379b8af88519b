"""Run a scenario's variants and bring back their Results: the one way in for `simulate` and all that builds on it."""

from __future__ import annotations

import gc
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

from pushsim import cost
from pushsim.control import Machine, knobs
from pushsim.cost import Calibration, Prices
from pushsim.observed import Observed, connect_summary
from pushsim.planner import Planner
from pushsim.result import Result, tidy
from pushsim.settings import Settings, Variant
from pushsim.simulation import Simulation

Engine = Literal["auto", "simpy", "kernel"]
Detail = Literal["group", "proxy"]

#: Told the variant's name and the share (0…1) of it that is done.
Progress = Callable[[str, float], None]
#: Makes the planners of a variant, one per istiod replica.
Planners = Callable[[Variant], Sequence[Planner]]


class Asked(Protocol):
    """What of a `scenario.Scenario` a run needs."""

    path: str
    id: str
    seed: int
    duration_ns: int
    warmup_ns: int
    variant_names: tuple[str, ...]

    def variant(self, name: str) -> Variant:
        """That variant's mesh, changes and settings."""


def simulate(
    scenario: Asked,
    variants: Sequence[str] | None = None,
    *,
    engine: Engine = "auto",
    out: str | Path | None = None,
    progress: Progress | None = None,
    detail: Detail = "group",
    planners: Planners | None = None,
) -> dict[str, Result]:
    """Simulate the scenario's variants (all, or those named, in that order).

    engine:   "simpy" is the readable reference; "auto" takes the fastest there is. Both give the same answer.
    out:      folder for one result folder per variant, each written as soon as its variant is done.
    progress: called now and then; what it raises ends the run, and KeyboardInterrupt keeps what there is.
    detail:   "proxy" keeps a row per response instead of one per group of equal proxies.
    planners: Istio's semantics, for tests; by default those of `planners.planners`.

    Returns Results by variant. After an interrupt the last of them has `complete` False and later variants are absent.
    Raises InputError for what is wrong with the scenario's settings.
    """
    results: dict[str, Result] = {}
    for name in scenario.variant_names if variants is None else variants:
        begun = time.perf_counter()
        told = (lambda share, name=name: progress(name, share)) if progress else None
        result = run(
            scenario.variant(name),
            seed=scenario.seed,
            warmup_ns=scenario.warmup_ns,
            duration_ns=scenario.duration_ns,
            identity={"id": scenario.id},
            engine=engine,
            detail=detail,
            progress=told,
            planners=planners,
        )
        seconds = time.perf_counter() - begun
        result = _with_run(result, {"scenario_path": str(scenario.path), "seconds": round(seconds, 3)})
        results[name] = result
        if out is not None:
            result.save(Path(out) / name)
        if not result.complete:
            break
    return results


def run(
    variant: Variant,
    *,
    seed: int,
    warmup_ns: int,
    duration_ns: int,
    identity: Mapping[str, Any] | None = None,
    engine: Engine = "auto",
    detail: Detail = "group",
    progress: Callable[[float], None] | None = None,
    planners: Planners | None = None,
) -> Result:
    """Simulate one variant. The same arguments give the same Result, `run` aside."""
    settings = variant.settings
    calibration = calibration_of(settings)
    machine = Machine(
        (planners or _planners)(variant),
        [timed.change for timed in variant.changes],
        cpus=settings.cpus,
        knobs=knobs(settings.release, settings.cpus, settings.env),
        prices=Prices(calibration),
        clients=settings.clients,
        seed=seed,
        detail=detail == "proxy",
    )
    simulation = Simulation(
        machine,
        variant.changes,
        warmup_ns=warmup_ns,
        duration_ns=duration_ns,
        progress=progress,
        settled=lambda now: connect_summary(machine, now),
    )
    with _few_collections():
        timeline = simulation.run()
    counted = timeline.counted if timeline.counted >= 0 else 0
    observed = Observed(
        machine,
        variant.changes,
        calibration,
        counted,
        timeline.ended,
        settings.workers,
        settings.memory_limit_bytes,
        timeline.spent_before,
    )
    summary = observed.summary()
    summary["connect"] = timeline.connect
    scenario = {
        **(identity or {}),
        "seed": seed,
        "release": settings.release,
        "duration_s": duration_ns / 1e9,
        "warmup_s": warmup_ns / 1e9,
    }
    return Result(
        variant.name,
        tidy(summary),
        tidy(
            {
                "scenario": scenario,
                "mode": settings.mode,
                "versions": {"pushsim": _version()},
                "calibration": {
                    "name": calibration.name,
                    "istio": calibration.istio,
                    "cpu_speed": calibration.cpu_speed,
                },
            }
        ),
        timeline.complete,
        observed.rows(),
        {"engine": "simpy", "date": datetime.now(UTC).isoformat(timespec="seconds"), "host": platform.node()},
    )


def calibration_of(settings: Settings) -> Calibration:
    """The calibration the settings name, or the shipped one of the nearest release."""
    if settings.calibration is None:
        return cost.shipped(settings.release)
    return cost.load(Path(settings.calibration), settings.release)


@contextmanager
def _few_collections() -> Iterator[None]:
    """A run makes millions of values and hardly a cycle: looking for cycles as often as usual costs a third of it."""
    usual = gc.get_threshold()
    gc.set_threshold(200_000, 20, 20)
    try:
        yield
    finally:
        gc.set_threshold(*usual)


def _planners(variant: Variant) -> Sequence[Planner]:
    made: Sequence[Planner] = import_module("pushsim.planners").planners(variant)
    return made


def _with_run(result: Result, more: Mapping[str, Any]) -> Result:
    run = {**result.run, **more}
    return Result(result.variant, result.summary, result.identity, result.complete, result.rows, run)


def _version() -> str:
    from pushsim import __version__

    return __version__
