"""What each source of a scenario's churn causes, and what would be saved without it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pushsim.runs import summaries
from pushsim.scenario import Scenario
from pushsim.topology.churn import unique_names
from pushsim.workers import Progress

#: What a source is told by.
COSTS = ("proxy_pushes", "bytes_sent", "istiod_cpu_s")
#: The run with all sources.
WHOLE = "with all sources"

Summary = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Caused:
    """One source of churn.

    changes: that it writes.
    caused:  pushes of proxies, bytes and CPU seconds; a push of several changes is split evenly among them.
    saved:   the same, less in a simulation without this source.
    converged_p99_s: with it, and without.
    """

    source: str
    changes: int
    caused: Mapping[str, float]
    saved: Mapping[str, float]
    converged_p99_s: Mapping[str, float | None]


def caused(
    scenario: Scenario, variant: str | None = None, *, jobs: int = 1, progress: Progress | None = None
) -> list[Caused]:
    """Each source of the scenario's churn, under one variant (default: the first). Raises InputError.

    progress: told each of `runs_of` and the share of it that is done.
    """
    name = variant or scenario.variant_names[0]
    asked = {WHOLE: (scenario, name)} | {_without(source): (less, name) for source, less in _without_each(scenario)}
    found = summaries(asked, jobs=jobs, progress=progress)
    whole = found[WHOLE]
    names = unique_names(scenario.model.churn)
    return [_caused(source, whole, found[_without(source)]) for source in names]


def runs_of(scenario: Scenario) -> list[str]:
    """What `caused` simulates, by name."""
    return [WHOLE, *map(_without, unique_names(scenario.model.churn))]


def _without(source: str) -> str:
    return f"without {source}"


def _without_each(scenario: Scenario) -> Iterator[tuple[str, Scenario]]:
    """The scenario without each of its sources in turn; the others' times and choices stay as they are.

    Sources of one name are told apart by number, so each keeps the name it has, lest its random stream change.
    """
    names = unique_names(scenario.model.churn)
    told = [{**each, "name": name} for each, name in zip(scenario.value("churn"), names, strict=True)]
    for place, name in enumerate(names):
        yield name, scenario.replaced({"churn": [*told[:place], *told[place + 1 :]]})


def _caused(source: str, whole: Summary, rest: Summary) -> Caused:
    own = whole["churn"].get(source, {})
    saved = {key: whole[key] - rest[key] for key in ("proxy_pushes", "bytes_sent")}
    saved["istiod_cpu_s"] = _cpu_s(whole) - _cpu_s(rest)
    p99 = {when: each.get("converged_s", {}).get("p99") for when, each in (("with", whole), ("without", rest))}
    return Caused(source, own.get("changes", 0), {key: own.get(key, 0) for key in COSTS}, saved, p99)


def _cpu_s(summary: Summary) -> float:
    return float(summary["istiod_cpu_cores"]["mean"] * summary["span_s"])
