"""Published figures beside predicted ones: value, error, and whether an assumption was chosen from the figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from pushsim.given import Asked, loaded
from pushsim.runs import summaries
from pushsim.scenario import Assumption, Figure, Published, Scenario
from pushsim.workers import Progress

Summaries = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One published figure and what a run predicts.

    published: (low, high), in the metric's unit. predicted: None if the run has no such figure.
    error: relative, to the nearer end of the published range; 0 within it, None if there is no prediction.
    """

    variant: str
    metric: str
    published: tuple[float, float]
    at_least: bool
    predicted: float | None
    error: float | None
    used: bool


def value_of(summary: Mapping[str, Any], path: str) -> float | None:
    """A figure of a SUMMARY by its dotted path; a mapping is summed; None if it is absent."""
    found: Any = summary
    for part in path.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return float(sum(found.values())) if isinstance(found, Mapping) else float(found)


def error_of(figure: Figure, predicted: float) -> float:
    """How far a prediction is off, relative to the nearer end of what was published."""
    low, high = figure.value
    if predicted < low:
        return predicted / low - 1
    return 0.0 if figure.at_least or predicted <= high else predicted / high - 1


def compare(published: Published, summaries: Summaries) -> list[Comparison]:
    """Every published figure of the variants that were run."""
    rows = []
    for figure in published.figures:
        if figure.variant not in summaries:
            continue
        predicted = value_of(summaries[figure.variant], figure.metric)
        error = None if predicted is None else error_of(figure, predicted)
        rows.append(
            Comparison(
                figure.variant,
                figure.metric,
                (figure.value[0], figure.value[1]),
                figure.at_least,
                predicted,
                error,
                figure.role == "used",
            )
        )
    return rows


def readings(published: Published, summaries: Summaries) -> list[tuple[str, str, float, bool]]:
    """(variant, what is counted, rate per second, whether the table goes by it), where a rate can be read so or so."""
    told = published.readings
    if told is None:
        return []
    found = []
    for variant, summary in summaries.items():
        span = value_of(summary, "span_s")
        for path in told.of:
            total = value_of(summary, path)
            if total is not None and span:
                found.append((variant, path, total / span, path == told.table))
    return found


def assumptions(
    scenario: Asked, variants: Sequence[str] | None = None, *, jobs: int = 1, progress: Progress | None = None
) -> list[tuple[str, str, Mapping[str, float | None]]]:
    """Each of the scenario's stated assumptions halved and doubled, and what the published figures then are.

    variants: default: the first two. progress: told an assumption's field.

    Returns rows (field, "x 0.5" or "x 2", predicted figures by `VARIANT: METRIC`). Raises InputError.
    """
    rows, scenario = [], loaded(scenario)
    for assumption in scenario.assumptions:

        def ran(changed: Scenario, names: Sequence[str], field: str = assumption.field) -> Summaries:
            told = (lambda _, share: progress(field, share)) if progress else None
            return summaries({name: (changed, name) for name in names}, jobs=jobs, progress=told)

        rows += sensitivity(scenario, assumption, variants or scenario.variant_names[:2], ran)
    return rows


def sensitivity(
    scenario: Scenario,
    assumption: Assumption,
    variants: Sequence[str],
    run: Callable[[Scenario, Sequence[str]], Summaries],
) -> list[tuple[str, str, Mapping[str, float | None]]]:
    """An assumption halved and doubled: (field, "x 0.5" or "x 2", predicted figures by `VARIANT: METRIC`)."""
    published = scenario.published
    figures = [f for f in published.figures if f.variant in variants] if published else []

    def predicted(summaries: Summaries) -> dict[str, float | None]:
        return {f"{f.variant}: {f.metric}": value_of(summaries.get(f.variant, {}), f.metric) for f in figures}

    rows: list[tuple[str, str, Mapping[str, float | None]]] = []
    for factor, label in ((Fraction(1, 2), "x 0.5"), (Fraction(2), "x 2")):
        rows.append((assumption.field, label, predicted(run(scenario.scaled(assumption.field, factor), variants))))
    return rows
