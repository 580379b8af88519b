"""The same seeded workload under several policies, or from several checkouts: what each costs, saves and breaks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import inf
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pushsim import intervals, thresholds
from pushsim.breaks import Break, Sight, broken, unseen_calls
from pushsim.errors import InputError, Problem, at_least_one, expected, reason, within
from pushsim.figures import HEADLINES, number_at, numbers, shown, unit
from pushsim.given import texts
from pushsim.intervals import Interval
from pushsim.result import Result, tidy
from pushsim.runs import Engine, How, run
from pushsim.scenario import Scenario
from pushsim.workers import Progress, Share, side_by_side
from pushsim.zones import cross_zone_share, per_month

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Arm:
    """One column: a scenario under a policy (any `--policy` text)."""

    name: str
    scenario: Scenario
    policy: str


@dataclass(frozen=True)
class Column:
    """What one arm came to.

    summaries: a SUMMARY per seed. complete: no run of it was interrupted.
    breaks:    what works in the first arm and not here.
    notes:     what its figures leave out.
    share:     of the traffic that crosses a zone, None if the mesh tells no zones.
    """

    name: str
    summaries: tuple[Mapping[str, Any], ...]
    breaks: tuple[Break, ...] = ()
    notes: tuple[str, ...] = ()
    complete: bool = True
    share: float | None = None

    def values(self, path: str) -> list[float] | None:
        """A figure by seed, None if a seed has none."""
        found = [number_at(summary, path) for summary in self.summaries]
        known = [value for value in found if value is not None]
        return known if known and len(known) == len(found) else None

    def figure(self, path: str) -> Interval | None:
        """A figure's mean over the seeds, None if a seed has none."""
        values = self.values(path)
        return intervals.mean(values) if values else None


@dataclass(frozen=True, repr=False)
class Comparison:
    """All arms; the first is what the others are compared with.

    unseen: calls of the call graph that find no destination in the first either.
    """

    scenario: Scenario
    seeds: tuple[int, ...]
    columns: tuple[Column, ...]
    price_per_gb: float | None = None
    unseen: int = 0
    calls: int | None = None
    _cache: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def complete(self) -> bool:
        """No run was interrupted."""
        return all(column.complete for column in self.columns)

    @property
    def figures(self) -> pd.DataFrame:
        """Every figure: column, metric (dotted path of SUMMARY), value (mean over seeds), unit, low, high (95 %).

        With one seed, low and high are the value. `breaks` is not among them: see the columns' own.
        """
        import pandas as pd

        paths = dict.fromkeys(path for column in self.columns for path, _ in numbers(column.summaries[0]))
        rows = [
            (column.name, path, of.value, unit(path), of.low, of.high)
            for column in self.columns
            for path in paths
            if (of := column.figure(path)) is not None
        ]
        return pd.DataFrame(rows, columns=["column", "metric", "value", "unit", "low", "high"])

    def __repr__(self) -> str:
        """The main figures, one a line, one column each; `figures` has all, `columns` what each breaks."""
        import pandas as pd

        rows = {
            title: [shown(of.value if (of := column.figure(path)) else None, unit(path)) for column in self.columns]
            for title, path in HEADLINES
        }
        names = [column.name for column in self.columns]
        breaks = {"breaks": ["-" if number == 0 else len(each.breaks) for number, each in enumerate(self.columns)]}
        return pd.DataFrame.from_dict({**rows, **breaks}, orient="index", columns=names).to_string()

    def judge(
        self, fail_on: str | Sequence[str], baseline: str | Path | thresholds.Summaries | None = None
    ) -> list[thresholds.Verdict]:
        """Whether each condition holds (formats.md), for each column it is about.

        baseline: SUMMARYs by variant for `increase(...)`, or the file that holds them; default: the first column.

        Raises InputError: a condition, its variant or its figure is not known, or the file holds no results.
        """
        before = baseline_of(baseline, self.scenario) if isinstance(baseline, str | Path) else baseline
        conditions = [thresholds.parse(text) for text in texts(fail_on, "fail_on")]
        return thresholds.judge(conditions, self.summaries(), before)

    def ratio(self, column: Column, path: str) -> Interval | None:
        """A figure as a multiple of the first column's."""
        values, base = column.values(path), self.columns[0].values(path)
        return intervals.ratio(values, base) if values and base and len(values) == len(base) else None

    def summaries(self) -> dict[str, dict[str, Any]]:
        """By column, a SUMMARY of means over the seeds, with `breaks` and, if there is a price, `money`."""
        if "summaries" not in self._cache:
            self._cache["summaries"] = {column.name: self._summary(column) for column in self.columns}
        found: dict[str, dict[str, Any]] = self._cache["summaries"]
        return found

    def _summary(self, column: Column) -> dict[str, Any]:
        summary = _mean_of(column.summaries) if len(column.summaries) > 1 else dict(column.summaries[0])
        counts = dict.fromkeys(("call", "gateway-route", "mesh-route", "routing"), 0)
        for each in column.breaks:
            counts[each.kind] += 1
        summary["breaks"] = {
            "calls": counts["call"],
            "routes": sum(counts.values()) - counts["call"],
            "all": sum(counts.values()),
        }
        if column.share is not None:
            summary["cross_zone_share"] = column.share
        if self.price_per_gb is not None and column.share is not None:
            spent = per_month(summary["bytes_sent_per_s"], column.share, self.price_per_gb)
            summary["money"] = {"per_month": spent}
        if column.notes:
            summary["notes"] = list(column.notes)
        tidied: dict[str, Any] = tidy(summary)
        return tidied

    def to_json(self) -> dict[str, Any]:
        """What `compare --format json` prints: as `simulate --json`, with intervals, ratios and breaks."""
        from pushsim import __version__

        scenario, summaries = self.scenario, self.summaries()
        told = {}
        for column in self.columns:
            known = [
                path for path, _ in numbers(summaries[column.name]) if not path.startswith(("histograms.", "bounds."))
            ]
            spans = {path: found for path in known if len(self.seeds) > 1 and (found := column.figure(path))}
            ratios = {path: found for path in known if (found := self.ratio(column, path))}
            told[column.name] = {
                **summaries[column.name],
                "complete": column.complete,
                "intervals": {path: [found.low, found.high] for path, found in spans.items()},
                "ratios": {path: list(found) for path, found in ratios.items()},
                "broken": [_break_json(each) for each in column.breaks],
            }
        head = {
            "path": scenario.path,
            "id": scenario.id,
            "seed": scenario.seed,
            "seeds": list(self.seeds),
            "release": scenario.release,
            "duration_s": scenario.duration_ns / 1e9,
        }
        whole: dict[str, Any] = tidy({"pushsim": __version__, "scenario": head, "variants": told})
        return whole


def conditions_on(
    columns: Sequence[Arm], fail_on: Sequence[str], baseline: thresholds.Summaries | None = None
) -> list[thresholds.Threshold]:
    """The conditions, parsed, before anything is run; InputError for one that no answer could be judged by."""
    conditions = [thresholds.parse(text) for text in fail_on]
    known = {arm.name: thresholds.expected(arm.scenario.sources, compared=True) for arm in columns}
    thresholds.check(conditions, known, baseline)
    return conditions


def baseline_of(path: str | Path, asked: Scenario) -> thresholds.Summaries:
    """The SUMMARYs of `--format json`, `simulate --json` or a result folder's result.json, by variant.

    Raises InputError where they are of another scenario, or of a run that was cut short. The mesh and the release may
    differ: what that changes is what is asked.
    """
    remedy = f"write one with `pushsim compare {asked.path or 'SCENARIO'} … --format json > FILE`"
    try:
        held = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(Problem(f"cannot be read: {reason(error)}", str(path), remedy=remedy)) from None
    variants = held.get("variants") if isinstance(held, dict) else None
    if variants is None and isinstance(held, dict) and "variant" in held:
        variants = {str(held["variant"]): held}
    if not isinstance(variants, dict) or not variants or not all(isinstance(one, dict) for one in variants.values()):
        raise InputError(Problem("holds no `variants`", str(path), remedy=remedy))
    of = held.get("scenario") if isinstance(held.get("scenario"), dict) else {}
    problems = [
        Problem(f"is of a run that was cut short: {name}", str(path), remedy=remedy)
        for name, one in variants.items()
        if one.get("complete") is False
    ]
    here = {"path": Path(asked.path).stem, "seed": asked.seed, "duration_s": asked.duration_ns / 1e9}
    there = {**of, "path": Path(str(of.get("path") or asked.path)).stem}
    problems += [
        Problem(f"is of another scenario: {there[key]} there, {value} here", str(path), f"scenario.{key}", remedy)
        for key, value in here.items()
        if there.get(key, value) != value
    ]
    if problems:
        raise InputError(problems)
    return variants


def _break_json(each: Break) -> dict[str, Any]:
    return {
        "kind": each.kind,
        "subject": str(each.subject),
        "destination": each.destination,
        "namespace": each.namespace,
        "object": str(each.cause) if each.cause else None,
        "file": each.file,
        "why": each.why,
    }


def _mean_of(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Numbers averaged; of a list of numbers, each place; other values, and figures that a seed lacks, left out."""
    first, found = summaries[0], dict[str, Any]()
    for key, value in first.items():
        values = [summary.get(key) for summary in summaries]
        if isinstance(value, Mapping):
            present = [one for one in values if isinstance(one, Mapping)]
            if len(present) == len(values):
                found[key] = _mean_of(present)
        elif isinstance(value, str):
            found[key] = value
        elif isinstance(value, int | float) and None not in values:
            numbers = [float(one) for one in values if isinstance(one, int | float)]
            found[key] = intervals.mean(numbers).value
    return found


def arms(scenario: Scenario, policies: Sequence[str] = (), meshes: Mapping[str, str] | None = None) -> list[Arm]:
    """The columns of a comparison: each policy (default: the scenario's variants) on each mesh (default: its own).

    meshes: folder by name; it takes the place of the scenario's `mesh.manifests`.

    Raises:
        InputError: a folder is missing, or two columns would have one name.
    """
    names = list(dict.fromkeys(policies)) or list(scenario.variant_names)
    if not meshes:
        return [Arm(name, scenario, name) for name in names]
    expected(meshes, Mapping, "meshes", "folders by name", 'write {"base": "old/", "head": "new/"}')
    found = []
    for name, folder in meshes.items():
        if not Path(folder).exists():
            message = f"{folder} is not there"
            raise InputError(Problem(message, field=f"--mesh {name}", remedy="give a folder of manifests"))
        there = scenario.replaced({"mesh.manifests": [str(Path(folder).resolve())]})
        found += [Arm(name if len(names) == 1 else f"{name}/{policy}", there, policy) for policy in names]
    return found


def compare(
    columns: Sequence[Arm],
    *,
    seeds: int = 1,
    jobs: int = 1,
    price_per_gb: float | None = None,
    engine: Engine = "auto",
    progress: Progress | None = None,
) -> Comparison:
    """Run every arm with so many seeds (the scenario's own and the next ones), and find what each breaks.

    jobs:     runs at once, each in a process; the answer is the same.
    progress: told `NAME, seed N` and the share of it that is done.

    Returns the Comparison; after an interrupt, of what there is.
    """
    at_least_one(seeds, "seeds")
    if price_per_gb is not None:
        within(price_per_gb, 0, inf, "price_per_gb")
    first = columns[0].scenario
    numbers = tuple(range(first.seed, first.seed + seeds))
    runs = {f"{arm.name}, seed {seed}": (arm.scenario, arm.policy, seed, engine) for seed in numbers for arm in columns}
    results: dict[str, Result] = side_by_side(_run, runs, jobs, progress, attrgetter("complete"))
    before, made, unseen, calls = None, [], 0, None
    for arm in columns:
        of_arm = [results[name] for seed in numbers if (name := f"{arm.name}, seed {seed}") in results]
        if not of_arm:
            break
        variant = arm.scenario.variant(arm.policy)
        graph, sight = arm.scenario.calls(), Sight(variant)
        found: tuple[Break, ...] = ()
        if before is None:
            before = sight.outlook(graph)
            unseen, calls = unseen_calls(before), graph.number_of_edges() if graph is not None else None
        else:
            found = broken(before, sight, graph)
        told_notes = [note for result in of_arm for note in result.summary.get("notes") or ()]
        made.append(
            Column(
                arm.name,
                tuple(result.summary for result in of_arm),
                found,
                tuple(dict.fromkeys(told_notes)),
                len(of_arm) == len(numbers) and all(result.complete for result in of_arm),
                cross_zone_share(variant.mesh),
            )
        )
    return Comparison(first, numbers, tuple(made), price_per_gb, unseen, calls)


def _run(scenario: Scenario, policy: str, seed: int, engine: Engine, progress: Share) -> Result:
    return run(_seeded(scenario, seed), policy, How(engine, tables=False), progress)


def _seeded(scenario: Scenario, seed: int) -> Scenario:
    """The scenario with that seed; arms of one seed that follow each other in a process share its mesh and churn."""
    known = _known(scenario.id, scenario.path, seed)
    if not known:
        known.append(scenario if seed == scenario.seed else scenario.replaced({"seed": seed}))
    return known[0]


@lru_cache(maxsize=2)
def _known(identity: str, path: str, seed: int) -> list[Scenario]:
    return []
