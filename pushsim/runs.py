"""Run a scenario's variants and bring back their Results: the one way in for `simulate` and all that builds on it."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, get_args

from pushsim import cost, releases
from pushsim.collecting import few_collections
from pushsim.control import Machine, knobs
from pushsim.cost import Calibration, Prices
from pushsim.errors import InputError, chosen, writing
from pushsim.given import as_path, loaded, texts
from pushsim.moments import connect_summary, so_far
from pushsim.observed import Observed
from pushsim.planner import Planner
from pushsim.result import Result, Results, tidy
from pushsim.settings import Settings, Variant
from pushsim.simulation import Simulation
from pushsim.tabulate import tables
from pushsim.workers import Progress, Share, interruptible, side_by_side

if TYPE_CHECKING:
    from pushsim.kernel import Kernel

Engine = Literal["auto", "simpy", "kernel"]
Detail = Literal["group", "proxy"]

#: Changes times proxies from which on it pays to load compiled code.
_MANY_PUSHES = 20_000

#: Makes the planners of a variant, one per istiod replica.
Planners = Callable[[Variant], Sequence[Planner]]

#: Shown the name of a run and the part of its SUMMARY that is known before it ends.
Watch = Callable[[str, Mapping[str, Any]], None]
#: How often, in seconds, a run is shown at most.
_WATCH_S = 1.0


@dataclass(frozen=True, slots=True)
class How:
    """How a run is made, whatever is asked.

    engine, detail, tables, watch: as for `simulate`.
    planners: Istio's semantics; default: those of `planners.planners`.
    calibration: default: that of the scenario's settings.
    """

    engine: Engine = "auto"
    detail: Detail = "group"
    tables: bool = True
    planners: Planners | None = None
    watch: Watch | None = None
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        """Raises InputError."""
        chosen(self.engine, get_args(Engine), "engine")
        chosen(self.detail, get_args(Detail), "detail")


USUAL = How()


class Asked(Protocol):
    """What of a `scenario.Scenario` a run needs."""

    path: str
    id: str
    seed: int
    duration_ns: int
    warmup_ns: int
    question: str
    variant_names: tuple[str, ...]

    def variant(self, name: str) -> Variant:
        """That variant's mesh, changes and settings."""

    def replaced(self, values: Mapping[str, Any]) -> Asked:
        """The same with these fields set."""


def simulate(
    scenario: Asked | str | Path,
    variants: Sequence[str] | None = None,
    *,
    seed: int | None = None,
    engine: Engine = "auto",
    out: str | Path | None = None,
    progress: Progress | None = None,
    detail: Detail = "group",
    jobs: int = 1,
    watch: Watch | None = None,
    tables: bool = True,
) -> Results:
    """Simulate the scenario's variants (all, or those named, in that order).

    scenario: one that is loaded, a scenario file, or the name of a bundled one.
    variants: names, or `--policy` texts.
    seed:     another one than the scenario's.
    engine:   "simpy" is the readable reference, "kernel" is compiled; "auto" takes the one for large runs where it is
              worth loading. Both give the same answer.
    out:      folder for one result folder per variant, each written as soon as its variant is done.
    progress: called now and then; what it raises ends the run, and KeyboardInterrupt keeps what there is.
    detail:   "proxy" keeps a row per response instead of one per group of equal proxies.
    jobs:     so many variants at once, each in a process of its own; the answers are the same.
    watch:    shown a run while it runs (then in this process), each second or so.
    tables:   False for the summary alone, all tables empty: for who makes many runs and asks for no more.

    Returns the Results by variant. After an interrupt the last has `complete` False and later variants are absent;
    where it came before the first had begun, KeyboardInterrupt is raised.
    Raises InputError for what is wrong with the scenario's settings.
    """
    question = cast(Asked, scenario) if hasattr(scenario, "variant_names") else loaded(cast(str, scenario))
    if seed is not None:
        question = question.replaced({"seed": seed})
    names = list(question.variant_names) if variants is None else list(dict.fromkeys(texts(variants, "variants")))
    folder = Path(as_path(out, "out")) if out is not None else None
    if folder is not None:
        with writing(folder):  # before what is to be kept in it takes its time
            folder.mkdir(parents=True, exist_ok=True)
    asked = {name: (question, name, How(engine, detail, tables, watch=watch), folder) for name in names}
    results = side_by_side(_saved, asked, 1 if watch else jobs, progress, attrgetter("complete"))
    return Results(results, question.question)


def summaries(
    asked: Mapping[str, tuple[Asked, str]], *, engine: Engine = "auto", jobs: int = 1, progress: Progress | None = None
) -> dict[str, Mapping[str, Any]]:
    """The SUMMARYs of runs, each a scenario and a variant of it, by their names.

    An interrupt is raised: a run that was cut short has figures, but none to go by.
    """
    how = How(engine, tables=False)
    runs = {name: (scenario, variant, how) for name, (scenario, variant) in asked.items()}
    results = side_by_side(run, runs, jobs, progress, attrgetter("complete"))
    if len(results) < len(runs) or not all(result.complete for result in results.values()):
        raise KeyboardInterrupt
    return {name: result.summary for name, result in results.items()}


def _saved(scenario: Asked, name: str, how: How, out: Path | None, progress: Share) -> Result:
    result = run(scenario, name, how, progress)
    if out is not None:
        result.save(out / name)
    return result


@few_collections()
def run(scenario: Asked, name: str, how: How = USUAL, progress: Share | None = None) -> Result:
    """Simulate one variant (or any `--policy` text). The same arguments give the same Result, its `run` aside."""
    with interruptible(progress) as told:
        told(0.0)  # building takes its time, and nothing is told while it does
        return _run(scenario, name, how, told)


def _run(scenario: Asked, name: str, how: How, told: Share) -> Result:
    begun = time.perf_counter()
    variant = scenario.variant(name)
    settings = variant.settings
    calibration = how.calibration or calibration_of(settings)
    try:
        its_knobs = knobs(settings.release, settings.cpus, settings.env)
    except InputError as error:
        raise InputError(replace(problem, where=scenario.path) for problem in error.problems) from None
    made = (how.planners or _planners)(variant)
    pushes = len(variant.changes) * sum(group.size for group in made[0].groups)
    engine = how.engine
    if engine == "auto":
        engine = "kernel" if pushes >= _MANY_PUSHES else "simpy"
    machine_type, engine_type = engines(engine)
    machine = machine_type(
        made,
        [timed.change for timed in variant.changes],
        cpus=settings.cpus,
        knobs=its_knobs,
        prices=Prices(calibration),
        clients=settings.clients,
        seed=scenario.seed,
        detail=how.detail == "proxy",
        rows=how.tables,
    )
    simulation = engine_type(
        machine,
        variant.changes,
        warmup_ns=scenario.warmup_ns,
        duration_ns=scenario.duration_ns,
        progress=_watched(told, how.watch, variant.name, machine) if how.watch else told,
        settled=lambda now: connect_summary(machine, now),
    )
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
        cost.keeps_all_stats(variant.mesh.mesh_config),
    )
    summary = observed.summary()
    summary["connect"] = timeline.connect
    summary["notes"] = [*variant.notes, *summary["notes"]]
    identity = {
        "scenario": {
            "id": scenario.id,
            "variants": list(scenario.variant_names),
            "seed": scenario.seed,
            "release": settings.release,
            "duration_s": scenario.duration_ns / 1e9,
            "warmup_s": scenario.warmup_ns / 1e9,
        },
        "mode": settings.mode or releases.rules(settings.release).agent_mode,
        "versions": {"pushsim": _version()},
        "calibration": {
            "name": calibration.name,
            "istio": calibration.istio,
            "cpu_speed": calibration.cpu_speed,
        },
    }
    found = tables(observed) if how.tables else {}
    about = {
        "engine": engine,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "scenario_path": str(scenario.path),
        "question": scenario.question,
        "seconds": round(time.perf_counter() - begun, 3),
    }
    return Result(variant.name, tidy(summary), tidy(identity), timeline.complete, found, about)


def _watched(progress: Share, watch: Watch, name: str, machine: Machine) -> Share:
    """Progress that also shows the run, no more often than `_WATCH_S`."""
    shown = -_WATCH_S

    def told(share: float) -> None:
        nonlocal shown
        if time.monotonic() - shown >= _WATCH_S:
            watch(name, so_far(machine))
            shown = time.monotonic()
        progress(share)

    return told


def engines(engine: Engine) -> tuple[type[Machine], Callable[..., Simulation | Kernel]]:
    """The machine and the driver of an engine."""
    if engine == "simpy":
        return Machine, Simulation
    from pushsim.kernel import Kernel, KernelMachine

    return KernelMachine, Kernel


def calibration_of(settings: Settings) -> Calibration:
    """The calibration the settings name, or the shipped one of the nearest release."""
    if settings.calibration is None:
        return cost.shipped(settings.release)
    return cost.load(Path(settings.calibration), settings.release)


def _planners(variant: Variant) -> Sequence[Planner]:
    made: Sequence[Planner] = import_module("pushsim.planners").planners(variant)
    return made


def _version() -> str:
    from pushsim import __version__

    return __version__
