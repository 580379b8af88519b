"""A sweep and the folder it is kept in.

    DIR/sweep.json      what was asked: scenario, knobs, seeds, version, and whether all runs are there
    DIR/runs/KEY.json   the result of each run, written as soon as it is done
    DIR/sweep.parquet   all runs, one a row: knobs, policy, seed, then every figure by its dotted path

A sweep that was ended finds its runs there and does the rest; so does a wider one of the same scenario.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pushsim import __version__, intervals
from pushsim.errors import InputError, Problem, at_least_one, expected, writing
from pushsim.figures import figures
from pushsim.files import write_whole
from pushsim.given import Asked, as_path, loaded, texts
from pushsim.problems import nearest
from pushsim.runs import Engine
from pushsim.scenario import Scenario
from pushsim.sweeps import choosing
from pushsim.sweeps.choosing import Choice
from pushsim.sweeps.executing import execute
from pushsim.sweeps.grid import POLICY, Point, grid, parse_vary

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1

#: From the write of a change to the proxy that has it, debouncing included: `converged` starts after the debounce.
DELAY = "received_s.p99"
COST = "istiod_cpu_cores.mean"

#: Told how many runs are done, of how many; those that were there already count.
Progress = Callable[[int, int], None]

_ASKED, _TABLE, _RUNS = "sweep.json", "sweep.parquet", "runs"


#: Delays, which runs without any push do not have.
_DELAYS = {f"{of}_s.{at}" for of in ("converged", "received", "completed") for at in ("p50", "p90", "p99", "max")}


@dataclass(frozen=True, repr=False)
class Sweep:
    """All runs of a sweep.

    frame:    one run a row: key, the knobs (as text), policy, seed, then figures by dotted path; what a run can't know
              is null. Rows are in the grid's order.
    knobs:    names of the columns that were varied, policy included, seeds not.
    asked:    scenario (path, id), version, and what else sweep.json says.
    complete: all runs of the grid are there.
    """

    frame: pd.DataFrame
    knobs: tuple[str, ...]
    asked: Mapping[str, Any]
    complete: bool = True

    def estimates(self, metric: str) -> pd.DataFrame:
        """A figure by setting: the knobs, then value (mean over seeds), low and high (95 %), seeds. Raises InputError.

        A setting of which a run has no such figure is left out; one without any push has a delay of 0.
        """
        import pandas as pd

        values = self._figure(metric)
        rows = []
        for settings, of in self.frame.assign(_value=values).groupby(list(self.knobs), sort=False, dropna=False):
            if of["_value"].notna().all():
                rows.append((*settings, *intervals.mean([float(one) for one in of["_value"]]), len(of)))
        return pd.DataFrame(rows, columns=[*self.knobs, "value", "low", "high", "seeds"])

    def _figure(self, metric: str) -> pd.Series[Any]:
        if metric not in self.frame:
            if metric in _DELAYS and not self.frame["proxy_pushes"].any():  # no run pushes anything
                return self.frame["proxy_pushes"] * 0.0
            known = [str(name) for name in self.frame.select_dtypes("number") if name not in ("seed", *self.knobs)]
            raise InputError(Problem(f"the sweep has no figure {metric!r}", remedy=nearest(metric, known, "figures")))
        values = self.frame[metric]
        return values.where(self.frame["proxy_pushes"] > 0, 0.0) if metric.split(".")[0].endswith("_s") else values

    def choices(self, delay: str = DELAY, cost: str = COST) -> list[Choice]:
        """Each setting with its mean delay and cost."""
        knobs = list(self.knobs)
        both = self.estimates(delay).merge(self.estimates(cost), on=knobs, suffixes=("", "_cost"))
        return [
            Choice({knob: str(row[knob]) for knob in knobs}, float(row["value"]), float(row["value_cost"]))
            for row in both.to_dict("records")
        ]

    def front(self, delay: str = DELAY, cost: str = COST) -> list[Choice]:
        """The settings that no other beats in both, the fastest first."""
        return choosing.front(self.choices(delay, cost))

    def recommended(self, delay: str = DELAY, cost: str = COST) -> Choice | None:
        """The knee of the front."""
        return choosing.recommended(self.front(delay, cost))

    def sentence(self, delay: str = DELAY, cost: str = COST) -> str:
        """The recommendation and its trade-off."""
        return choosing.sentence(self.front(delay, cost), delay, cost)

    def idle(self) -> list[str]:
        """Knobs that change no figure of any run."""
        told = [name for name in self.frame.columns if name not in ("key", "seed", *self.knobs)]
        found = []
        for knob in self.knobs:
            others = [name for name in (*self.knobs, "seed") if name != knob]
            groups = self.frame.groupby(others, dropna=False, sort=False)[told]
            if self.frame[knob].nunique() > 1 and (groups.nunique(dropna=False) <= 1).all(axis=None):
                found.append(knob)
        return found

    def caption(self) -> str:
        """Where the figures come from, in a line."""
        seeds = sorted(set(self.frame["seed"]))
        told = f"seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0]}" if seeds else "no run"
        scenario = self.asked.get("scenario", {})
        parts = ["simulated", f"Istio {scenario.get('release')}", told, f"{scenario.get('duration_s'):g} s"]
        parts += [f"scenario {scenario.get('id')}", f"pushsim {self.asked.get('pushsim')}"]
        return ", ".join(parts) + ("" if self.complete else ", not all runs")

    def __repr__(self) -> str:
        head = f"{len(self.frame)} runs over {', '.join(self.knobs)}; {self.caption()}"
        return f"{head}\n{self.sentence()}" if len(self.frame) else head


def sweep(
    scenario: Asked,
    vary: Mapping[str, Sequence[Any]] | Sequence[str],
    *,
    seeds: int = 1,
    out: str | Path | None = None,
    jobs: int = 1,
    scheduler: str | None = None,
    engine: Engine = "auto",
    progress: Progress | None = None,
) -> Sweep:
    """Run a scenario over every combination of knobs, policies and seeds.

    vary:      knob to values ({"PILOT_DEBOUNCE_AFTER": ["50ms", "1s"], "policy": ["none", "namespace"]}), or texts as
               on the command line ("replicas=1..5"). See `sweeps.grid`.
    seeds:     so many, from the scenario's own on.
    out:       folder that keeps the runs: what is there already is not run again.
    jobs:      runs at once, each in a process of its own.
    scheduler: instead, a Dask scheduler (tcp://HOST:PORT) whose workers have the same pushsim, and the scenario's files
               at the same place.
    progress:  told after each run; may raise KeyboardInterrupt.

    The numbers are the same however it is run. After an interrupt the Sweep has what there is, and `complete` False.
    Raises InputError, EnvironmentProblem.
    """
    scenario = loaded(scenario)
    knobs = dict(vary) if isinstance(vary, Mapping) else parse_vary(texts(vary, "vary"))
    for name, values in knobs.items():
        expected(values, Iterable, f"vary[{name!r}]", "a list of values")
        knobs[name] = [values] if isinstance(values, str) else list(values)
    points = grid(scenario, knobs, seeds)
    names = (*(name for name in knobs if name != POLICY), POLICY)
    asked = _asked(scenario, knobs, seeds)
    folder = Path(as_path(out, "out")) if out is not None else None
    at_least_one(jobs, "jobs")
    kept = _begin(folder, asked, points) if folder else {}
    left = [point for point in {p.key: p for p in points}.values() if point.key not in kept]
    complete = True
    try:
        _tell(progress, points, kept)
        with closing(_closable(execute(left, engine=engine, jobs=jobs, scheduler=scheduler))) as done:
            for key, text in done:
                if not json.loads(text)["complete"]:
                    raise KeyboardInterrupt
                kept[key] = text
                if folder:
                    write_whole(folder / _RUNS / f"{key}.json", text)
                _tell(progress, points, kept)
    except KeyboardInterrupt:
        complete = False
    found = Sweep(_frame(points, names, kept), names, asked, complete)
    if folder:
        _finish(folder, found)
    return found


def load(folder: str | Path) -> Sweep:
    """The sweep that is kept in that folder; InputError if there is none."""
    import pandas as pd

    folder = Path(folder)
    try:
        asked = json.loads((folder / _ASKED).read_text(encoding="utf-8"))
        if asked.get("format") != FORMAT:
            remedy = "run the sweep anew: the runs that are there are taken over"
            raise InputError(Problem(f"is of format {asked.get('format')}", str(folder / _ASKED), "format", remedy))
        frame = pd.read_parquet(folder / _TABLE)
    except (OSError, ValueError) as error:
        remedy = "make one with `pushsim sweep … --out DIR`"
        raise InputError(Problem(f"is no sweep: {error}", str(folder), remedy=remedy)) from None
    names = (*(name for name in asked["vary"] if name != POLICY), POLICY)
    return Sweep(frame, names, asked, bool(asked.get("complete")))


def _closable(done: Iterator[tuple[str, str]]) -> Any:
    return done  # generators all: `closing` ends what they have running


def _tell(progress: Progress | None, points: Sequence[Point], texts: Mapping[str, str]) -> None:
    if progress:
        progress(sum(point.key in texts for point in points), len(points))


def _asked(scenario: Scenario, knobs: Mapping[str, Sequence[Any]], seeds: int) -> dict[str, Any]:
    about = {
        "path": scenario.path,
        "id": scenario.id,
        "release": scenario.release,
        "duration_s": scenario.duration_ns / 1e9,
    }
    vary = {name: [str(value) for value in values] for name, values in knobs.items()}
    return {"format": FORMAT, "pushsim": __version__, "scenario": about, "vary": vary, "seeds": seeds}


def _begin(folder: Path, asked: Mapping[str, Any], points: Sequence[Point]) -> dict[str, str]:
    """The folder, made if need be, and the runs of this grid that it has."""
    texts: dict[str, str] = {}
    with writing(folder):
        (folder / _RUNS).mkdir(parents=True, exist_ok=True)
        write_whole(folder / _ASKED, json.dumps({**asked, "complete": False}, indent=1, ensure_ascii=False) + "\n")
        for point in points:
            path = folder / _RUNS / f"{point.key}.json"
            if path.exists():
                texts[point.key] = path.read_text(encoding="utf-8")
    return texts


def _finish(folder: Path, found: Sweep) -> None:
    partial = folder / f".{_TABLE}.tmp"
    found.frame.to_parquet(partial, index=False)
    partial.replace(folder / _TABLE)
    text = json.dumps({**found.asked, "complete": found.complete}, indent=1, ensure_ascii=False)
    write_whole(folder / _ASKED, text + "\n")


def _frame(points: Sequence[Point], names: Sequence[str], texts: Mapping[str, str]) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for point in points:
        if point.key in texts:
            told = {POLICY: point.policy, **point.knobs}
            summary = json.loads(texts[point.key])
            for identity in ("format", "scenario", "calibration", "calibration_file"):
                summary.pop(identity, None)
            row = {"key": point.key, **{name: told[name] for name in names}, "seed": point.seed}
            rows.append(row | {path: float(value) for path, value, _, _ in figures(summary)})
    head = ["key", *names, "seed"]
    frame = pd.DataFrame(rows, columns=None if rows else head)
    figures_ = sorted(name for name in frame.columns if name not in head)
    return frame[[*head, *figures_]]
