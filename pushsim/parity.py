"""Parity: one scenario simulated and replayed, side by side with the error; and answers compared one change at a time.

Two questions. Is *what* is sent the same? The scenario's first changes are written one by one, each once all is quiet,
and every response to every proxy is compared: type, names, removed names, bytes. Are the *times and costs* right? The
scenario is replayed as it is, several times over, and the simulation's figures stand beside the real ones and their
spread.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pushsim import releases, runs
from pushsim.cases import Case
from pushsim.errors import EnvironmentProblem, InputError, Problem
from pushsim.figures import number_at
from pushsim.istiod import RECORDING
from pushsim.mesh import XDS
from pushsim.metrics import BOUNDS, CONVERGED, shares
from pushsim.record import converse
from pushsim.recordings import ASPECTS, Difference, Score, conform
from pushsim.replay import adapted, allot, release_of, replay
from pushsim.result import Result, tidy
from pushsim.scenario import Scenario
from pushsim.settings import Variant

#: By path into a SUMMARY: how far the simulated figure may be from the mean of the real ones, as a share of it; for
#: shares at bucket bounds, in points. Where a path is not named, that of its first part holds.
TOLERANCES: Mapping[str, float] = {
    "responses": 0.05,
    "fan_out_mean": 0.05,
    "proxy_pushes": 0.05,
    "merged_pushes": 0.05,
    "bytes_sent": 0.02,
    "converged_s.mean": 0.2,
    "converged_share": 0.05,
    "received_s.p50": 0.2,
    "received_s.p99": 0.2,
    "istiod_cpu_cores.mean": 0.25,
    "istiod_heap_bytes.max": 0.2,
}

#: Told what is being done, and the share (0…1) of it that is done.
Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: simulated, real (one a run), and how far it may be off.

    points: the error is a difference (of shares), not a share of the real mean.
    """

    metric: str
    simulated: float | None
    real: tuple[float, ...]
    tolerance: float
    points: bool = False

    @property
    def mean(self) -> float | None:
        """The real mean, None if no run has the figure."""
        return statistics.fmean(self.real) if self.real else None

    @property
    def error(self) -> float | None:
        """Simulated minus real, as a share of real (or in points); None where one of them has no figure."""
        if self.simulated is None or self.mean is None:
            return None
        if self.points:
            return self.simulated - self.mean
        if self.mean == 0:
            return 0.0 if self.simulated == 0 else None
        return self.simulated / self.mean - 1

    @property
    def within(self) -> bool:
        """Whether the error is tolerable; figures that only one side has are not compared."""
        if self.simulated is None or self.mean is None:
            return True
        return self.error is not None and abs(self.error) <= self.tolerance

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        spread = {"min": min(self.real), "max": max(self.real), "mean": self.mean} if self.real else None
        return {
            "metric": self.metric,
            "simulated": self.simulated,
            "real": spread,
            "runs": list(self.real),
            "error": self.error,
            "tolerance": self.tolerance,
            "within": self.within,
        }


@dataclass(frozen=True)
class Compared:
    """One variant: its simulation, its replays, the figures of both; `exact`: answers change by change, if asked."""

    variant: str
    simulated: Result
    real: tuple[Result, ...]
    rows: tuple[Row, ...]
    exact: Score | None = None
    changes: int = 0

    @property
    def within(self) -> bool:
        """Whether all is within tolerance."""
        return all(row.within for row in self.rows) and (self.exact is None or equal(self.exact))

    @property
    def valid(self) -> bool:
        """Whether the clients of every run kept up."""
        return all(result.summary.get("valid", True) for result in self.real)

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        found: dict[str, Any] = {"within": self.within, "valid": self.valid}
        found["rows"] = [row.to_json() for row in self.rows]
        if (score := self.exact) is not None:
            found["exact"] = {
                "changes": self.changes,
                **{aspect: {"equal": score.equal[aspect], "checked": score.checked[aspect]} for aspect in ASPECTS},
                "differences": [_difference(each) for each in score.differences[:20]],
            }
        found["cpu_speed"] = self.simulated.identity["calibration"]["cpu_speed"]
        found["notes"] = sorted({note for result in self.real for note in result.summary.get("notes", ())})
        found["machine"] = self.real[0].run.get("machine") if self.real else None
        found["istiod_cores"] = self.real[0].run.get("istiod_cores") if self.real else None
        return found


@dataclass
class Parity:
    """All variants compared. complete: False if it was interrupted or an istiod died; `ended` says which."""

    scenario: Scenario
    release: str
    mode: str
    variants: dict[str, Compared] = field(default_factory=dict)
    complete: bool = True
    ended: str = ""

    @property
    def within(self) -> bool:
        """Whether every variant is within tolerance."""
        return all(compared.within for compared in self.variants.values())

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it and parity.json holds it."""
        from pushsim import __version__

        scenario = self.scenario
        whole = {
            "pushsim": __version__,
            "scenario": {"path": scenario.path, "id": scenario.id, "seed": scenario.seed, "release": self.release},
            "mode": self.mode,
            "complete": self.complete,
            "within": self.within,
            "variants": {name: compared.to_json() for name, compared in self.variants.items()},
        }
        tidied: dict[str, Any] = tidy(whole)
        return tidied


def equal(score: Score) -> bool:
    """Whether everything is equal, and every size within 2 %."""
    return all(score.equal[aspect] == checked for aspect, checked in score.checked.items())


def parity(
    scenario: Scenario,
    binary: Path,
    variants: Sequence[str] | None = None,
    *,
    repeat: int = 5,
    one_by_one: int = 10,
    tolerances: Mapping[str, float] | None = None,
    cores: Sequence[int] | None = None,
    workers: int = 0,
    cpu_speed: float | None = None,
    out: str | Path | None = None,
    progress: Progress = lambda _what, _share: None,
) -> Parity:
    """Simulate and replay the scenario's variants (all, or those named) and compare.

    repeat:     how often each is replayed; 0 compares answers only. one_by_one: changes that are compared one at a
                time; 0 leaves that out. tolerances: laid over `TOLERANCES`. cores, workers: as for `replay`.
    cpu_speed:  of this machine, as a calibration file has it; None: measured before and after each variant's replays,
                by work that is in none of them, as machines differ, and one from hour to hour.
    out:        folder for the results: VARIANT/simulated and VARIANT/real-N.

    Raises InputError and EnvironmentProblem, as `replay` does.
    """
    release = release_of(binary)
    settings = scenario.settings
    asked = adapted(scenario, release, allot(settings.cpus, cores, settings.replicas))
    mode = asked.settings.mode or releases.rules(release).agent_mode
    found = Parity(asked, release, mode)
    known = tolerances_of(tolerances or {})
    gauge = _gauge(binary, asked, cpu_speed if repeat else 1.0, progress)
    before = gauge()
    for name in asked.variant_names if variants is None else variants:
        folder = Path(out) / name if out is not None else None
        score = None
        if one_by_one:
            progress(f"{name}: one change at a time", 0.0)
            score = answers(asked.variant(name), binary, release, one_by_one)
        real: list[Result] = []
        for number in range(1, repeat + 1):
            told = partial(_headed, progress, f"{name}: run {number} of {repeat}")
            result = replay(asked, binary, [name], cores=cores, workers=workers, progress=told)[name]
            if folder is not None:
                result.save(folder / f"real-{number}")
            if not result.complete:
                found.complete, found.ended = False, str(result.run["ended"])
                break
            real.append(result)
        after = before
        if found.complete:
            try:
                after = gauge()
            except (KeyboardInterrupt, EnvironmentProblem) as problem:  # what was replayed is told all the same
                found.complete, found.ended = False, str(problem) or "interrupted"
        progress(f"{name}: simulating", 0.0)
        simulated = at_speed(asked, name, statistics.fmean((before, after)))
        before = after
        if folder is not None:
            simulated.save(folder / "simulated")
        rows = tuple(compare(simulated.summary, [result.summary for result in real], known)) if real else ()
        found.variants[name] = Compared(name, simulated, tuple(real), rows, score, one_by_one)
        if not found.complete:
            break
    return found


def _gauge(binary: Path, scenario: Scenario, given: float | None, progress: Progress) -> Callable[[], float]:
    """What tells how fast this machine now is."""
    if given is not None:
        return lambda: given
    from pushsim.calibrate.of_istiod import measured_speed

    return partial(measured_speed, binary, runs.calibration_of(scenario.settings), lambda what: progress(what, 0.0))


def at_speed(scenario: Scenario, variant: str, cpu_speed: float) -> Result:
    """Simulate a variant with cores so fast. Raises KeyboardInterrupt."""
    calibration = replace(runs.calibration_of(scenario.settings), cpu_speed=cpu_speed)
    result = runs.run(scenario, variant, replace(runs.USUAL, calibration=calibration))
    if not result.complete:
        raise KeyboardInterrupt
    return result


def _headed(progress: Progress, head: str, _variant: str, phase: str, share: float) -> None:
    progress(f"{head}: {phase}", share)


def answers(variant: Variant, binary: Path, release: str, changes: int) -> Score:
    """Write the variant's first changes one by one on a real istiod, and compare every response with ours."""
    import asyncio

    settings = variant.settings
    env = {
        name: value for name, value in settings.env.items() if name not in RECORDING
    }  # who gets what hangs on neither
    mesh = replace(variant.mesh, mesh_config=settings.mesh_config, env=env)
    steps = tuple(
        replace(timed.change, name=timed.change.name or f"{timed.source} {number}")
        for number, timed in enumerate([t for t in variant.changes if not t.marker][:changes])
    )
    case = Case(variant.name, "", mesh, steps)
    rules = releases.rules(release)
    mode = settings.mode or rules.agent_mode
    recording = asyncio.run(converse(case, binary, mode)).recording()
    return conform(case, recording, rules, mode)


def compare(
    simulated: Mapping[str, Any], real: Sequence[Mapping[str, Any]], tolerances: Mapping[str, float]
) -> Iterator[Row]:
    """The table of one variant."""

    def row(path: str, of_simulated: str | None = None) -> Row:
        values = tuple(float(value) for summary in real if (value := number_at(summary, path)) is not None)
        return Row(path, number_at(simulated, of_simulated or path), values, _tolerance(path, tolerances))

    yield row("merged_pushes")
    yield row("proxy_pushes")
    yield row("fan_out_mean")
    for told in (row(f"responses.{xds}") for xds in XDS):
        if told.simulated is not None or told.real:
            yield told
    yield row("bytes_sent")
    yield row("converged_s.mean")
    theirs = [shares(summary) for summary in real]
    ours = shares(simulated)
    for place, bound in enumerate(BOUNDS[CONVERGED]):
        values = tuple(share[place] for share in theirs if share)
        yield Row(
            f"converged_share.le_{bound:g}",
            ours[place] if ours else None,
            values,
            _tolerance("converged_share", tolerances),
            points=True,
        )
    yield row("received_s.p50")
    yield row("received_s.p99")
    yield row("istiod_cpu_cores.mean")
    heap = "istiod_heap_bytes.max"
    yield row(heap, heap if number_at(simulated, heap) is not None else "istiod_memory_bytes.max")


def _tolerance(path: str, tolerances: Mapping[str, float]) -> float:
    return tolerances.get(path, tolerances.get(path.partition(".")[0], 0.0))


def tolerances_of(given: Mapping[str, float]) -> dict[str, float]:
    """`TOLERANCES` with those given over them; "" is for all. Raises InputError for one that is not known."""
    from pushsim.problems import nearest

    found = dict(TOLERANCES)
    if "" in given:
        found = dict.fromkeys(found, given[""])
    for path, value in given.items():
        if path and path not in found and path.partition(".")[0] not in found:
            remedy = nearest(path, [*found], "figures")
            raise InputError(Problem(f"there is no figure {path!r}", field="--tolerance", remedy=remedy))
        if path:
            found[path] = value
    return found


def _difference(found: Difference) -> dict[str, Any]:
    return {
        "change": found.step,
        "name": found.name,
        "proxy": found.proxy,
        "aspect": found.aspect,
        "only_real": [_told(response) for response in found.expected],
        "only_simulated": [_told(response) for response in found.got],
        "why": found.why,
    }


def _told(signature: Any) -> str:
    """A response in short: `CDS 3 names -1 (asked for)`."""
    xds, solicited, names, removed = signature
    listed = ", ".join(names[:3]) + (f" … {len(names)} in all" if len(names) > 3 else "")
    gone = f" without {', '.join(removed[:3])}" if removed else ""
    return f"{xds}{' (asked for)' if solicited else ''}: {listed}{gone}"
