"""Published measurements beside what we predict for them: cases, their figures, and the table of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from pushsim.cost import Bounds, Calibration, Holding, envoy_cpu, envoy_memory, istiod_cpu, istiod_memory, shipped
from pushsim.cost.amounts import total
from pushsim.errors import InputError, Problem, expected
from pushsim.figures import shown, unit
from pushsim.files import write_block
from pushsim.planner import Shape
from pushsim.publication import compare, value_of
from pushsim.runs import summaries
from pushsim.scenario import Scenario
from pushsim.units import quantity

Use = Literal["hold", "fit", "shape", "limit"]
#: Told the case that is being run, and the share of it that is done.
Progress = Callable[[str, float], None]

#: Pages of its binary that are in a process's resident memory beside what is its own; measured on the same Envoys.
BINARY_BYTES = 45e6
_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Row:
    """One published figure: its range, what is predicted for it (None: why not), and how the two may be compared."""

    case: int
    source: str
    figure: str
    use: Use | None
    published: tuple[float, float] | None
    at_least: bool
    predicted: float | None
    unit: str
    why: str = ""

    @property
    def error(self) -> float | None:
        """Relative, to the nearer end of what was published; 0 within it."""
        if self.predicted is None or self.published is None:
            return None
        low, high = self.published
        if self.predicted < low:
            return self.predicted / low - 1
        return 0.0 if self.at_least or self.predicted <= high else self.predicted / high - 1

    @property
    def verdict(self) -> str:
        """The error where the figure was held out; `used` where something was chosen from it; else the direction."""
        if self.predicted is None:
            return f"not predictable: {self.why}"
        error = self.error
        assert error is not None
        if self.use == "fit":
            return "used"
        if self.use in ("shape", "limit"):
            return "same order" if -0.67 < error < 2 else ("lower" if error < 0 else "higher")
        return f"{100 * error:+.0f} %"


def cases() -> list[dict[str, Any]]:
    """All cases, in order."""
    found: list[dict[str, Any]] = yaml.safe_load((_HERE / "cases.yaml").read_text(encoding="utf-8"))
    return found


def table(numbers: Sequence[int] = (), progress: Progress | None = None) -> list[Row]:
    """The rows of these cases, or of all. Raises InputError for a case there is not."""
    for number in numbers:
        expected(number, int, "a case", "a number")
    every = cases()
    known = {case["case"] for case in every}
    unknown = sorted(set(numbers) - known)
    if unknown:
        raise InputError(Problem(f"there is no case {unknown[0]}", field="--case", remedy=f"0 to {max(known)}"))
    return [row for case in every if not numbers or case["case"] in numbers for row in _rows(case, progress)]


def published(
    cases: Sequence[int] = (), *, write: str | Path | None = None, progress: Progress | None = None
) -> list[Row]:
    """Our scenarios for published measurements, run: published, predicted, error.

    cases: numbers of those to run; default: all.
    write: a Markdown file whose marked block gets the table.

    Returns a Row per figure: what was published and what is predicted, in the row's `unit`, and the error as a share.
    Raises InputError: there is no such case, or that file has no such block.
    """
    rows = table(cases, progress)
    if write is not None:
        write_block(Path(write), "published", markdown(rows))
    return rows


def _rows(case: Mapping[str, Any], progress: Progress | None) -> Iterator[Row]:
    number, source = int(case["case"]), str(case["source"])
    if "why" in case:
        yield Row(number, source, "", None, None, False, None, "", str(case["why"]))
        return
    ran: Mapping[str, Mapping[str, Any]] = {}
    if "scenario" in case:
        scenario = _scenario(str(case["scenario"]))
        wanted = _variants(scenario, case)
        told = (lambda variant, share: progress(f"case {number}: {variant}", share)) if progress else None
        ran = summaries({name: (scenario, name) for name in wanted}, progress=told)
        if scenario.published is not None:
            for each in compare(scenario.published, ran):
                use: Use = "fit" if each.used else "hold"
                figure = f"{each.metric}, {each.variant}"
                yield Row(number, source, figure, use, each.published, each.at_least, each.predicted, unit(each.metric))
    for figure in case.get("figures", ()):
        low, high = figure["published"] if isinstance(figure["published"], list) else [figure["published"]] * 2
        predicted, of_unit = _predicted(figure, shipped(str(case.get("release", "1.24"))), ran)
        published = (float(quantity(low)), float(quantity(high)))
        yield Row(number, source, figure["name"], figure["use"], published, False, predicted, of_unit)


def _scenario(name: str) -> Scenario:
    return Scenario.load(_HERE / name if name.endswith(".yaml") else name)


def _variants(scenario: Scenario, case: Mapping[str, Any]) -> list[str]:
    """Those that a figure is about."""
    named = {figure["variant"] for figure in case.get("figures", ()) if "variant" in figure}
    if scenario.published is not None:
        named |= {figure.variant for figure in scenario.published.figures}
    return [name for name in scenario.variant_names if name in named]


def _predicted(
    figure: Mapping[str, Any], known: Calibration, summaries: Mapping[str, Mapping[str, Any]]
) -> tuple[float | None, str]:
    """What is predicted for a figure, and its unit."""
    if "path" in figure:
        return value_of(summaries[figure["variant"]], figure["path"]), unit(figure["path"])
    if "istiod" in figure:
        held = dict(figure["istiod"])
        connections, names = held.pop("memory.connections"), held.pop("memory.names")
        return istiod_memory(known, Holding(held, connections, names)).value, "B"
    if "envoy" in figure:
        memory = _envoy(known, figure["envoy"], all_stats=bool(figure.get("all_stats"))).value
        memory += BINARY_BYTES if figure.get("binary") else 0
        return memory + (known["agent.memory"] if figure.get("agent") else 0), "B"
    if "ratio" in figure:
        large, small = (_envoy(known, shape).value + known["agent.memory"] for shape in figure["ratio"])
        return large / small, ""
    if "slope" in figure:
        return total(known, figure["slope"]).value * known["envoy.memory.allocator"], "B"
    if "proxy_cpu" in figure:
        return envoy_cpu(known, figure["proxy_cpu"]).value, "s"
    return istiod_cpu(known, figure["cpu"]).value, "s"


def _envoy(known: Calibration, shape: Mapping[str, int], *, all_stats: bool = False) -> Bounds:
    return envoy_memory(known, Shape(**shape), 2, all_stats=all_stats)


def told(row: Row) -> tuple[str, str, str, str, str]:
    """A row as people read it: case and source, figure, published, predicted, error."""
    where = f"{row.case} {row.source}"
    if row.published is None:
        return where, "", "", "", row.verdict
    low, high = (shown(value, row.unit) for value in row.published)
    published = f"at least {low}" if row.at_least else low if low == high else f"{low} to {high}"
    return where, row.figure, published, shown(row.predicted, row.unit), row.verdict


def markdown(rows: Sequence[Row]) -> str:
    """The table for README."""
    lines = ["| case | figure | published | predicted | error |", "|---|---|---|---|---|"]
    lines += [f"| {' | '.join(told(row))} |" for row in rows if row.published is not None]
    without = [row for row in rows if row.published is None]
    if without:
        listed = "; ".join(f"{row.case} {row.source} ({row.why})" for row in without)
        lines += ["", f"Not predictable: {listed}."]
    return "\n".join(lines) + "\n"
