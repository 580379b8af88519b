"""What stands on the page. The template escapes every text; pictures escape their own; no script but ours may run."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pushsim import plots
from pushsim.errors import writing
from pushsim.figures import HEADLINES, number_at, shown, unit
from pushsim.given import as_results
from pushsim.plots import Plot
from pushsim.result import Results
from pushsim.tables import COLUMNS

if TYPE_CHECKING:
    import pandas as pd

#: Rows of a long table that are shown; the rest is in the result folder.
MOST = 100


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table: what is shown, and what it is sorted by."""

    text: str
    value: float | str | None = None
    numeric: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A sortable table: its title, what it shows, (heading, meaning) of each column, rows, how many were left out."""

    title: str
    about: str
    columns: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[Cell]]
    left_out: int = 0


def report(results: Results, to: str | Path, *, title: str = "") -> Path:
    """Write results as one HTML page that needs no network; returns its path.

    results: as `simulate` or `load` give them. to: the file. title: default: the scenario's question.

    Raises EnvironmentProblem if it can't be written.
    """
    results = as_results(results)
    path = Path(to)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(html(results, title=title), encoding="utf-8")
    return path


def html(results: Results, *, title: str = "") -> str:
    """The page as text: the same results make the same page, dates of their runs included."""
    environment = Environment(
        loader=PackageLoader("pushsim.reports", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = resources.files("pushsim.reports").joinpath("sort.js").read_text(encoding="utf-8")
    style = resources.files("pushsim.reports").joinpath("page.css").read_text(encoding="utf-8")
    return environment.get_template("page.html.j2").render(
        title=title or results.question or "What it costs to push",
        caption=results.caption(),
        notes=[(name, note) for name, result in results.items() for note in result.summary.get("notes") or ()],
        incomplete=[name for name, result in results.items() if not result.complete],
        main=_main(results),
        pictures=[(plot, Markup(plot.inline_svg())) for plot in pictures(results)],
        tables=[_figures(results), *_tables(results)],
        made=_made(results),
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def pictures(results: Results) -> list[Plot]:
    """The plots of a report: of what these results know."""
    made = [plots.before_after(results), plots.cdf(results)]
    if not results.timeline.empty:
        made.append(plots.timeline(results))
    if not results.fan_out.empty:
        made.append(plots.fan_out(results))
    return [*made, plots.memory(results)]


def _main(results: Results) -> Table:
    rows = []
    for title, path in HEADLINES:
        values = [number_at(result.summary, path) for result in results.values()]
        rows.append([Cell(title, title), *(_cell(value, unit(path), value, values[0]) for value in values)])
    columns = [("", ""), *((name, "") for name in results)]
    return Table("Main figures", "The first variant is the baseline; in brackets the change against it.", columns, rows)


def _cell(value: float | None, kind: str, sorted_by: float | None, base: float | None) -> Cell:
    text = shown(value, kind)
    if value is not None and base and value != base:
        text += f" ({100 * (value / base - 1):+.0f} %)"
    return Cell(text, sorted_by, True)


def _figures(results: Results) -> Table:
    rows = [
        [
            Cell(variant, variant),
            Cell(metric, metric),
            Cell(shown(value, kind), value, True),
            Cell(f"{shown(low, kind)} to {shown(high, kind)}" if low == low else "", low if low == low else None, True),
        ]
        for variant, metric, value, kind, low, high in results.summary.itertuples(index=False)
    ]
    about = "Bounds come from the errors of the coefficients, where they allow one."
    return Table("All figures", about, [(name, "") for name in ("variant", "metric", "value", "bounds")], rows)


def _tables(results: Results) -> Iterable[Table]:
    for name, title, about in (
        ("churn", "Sources of change", "What changes caused together is split evenly among them."),
        ("services", "Dearest services", "The pushes, bytes and CPU that changes of each object caused."),
        ("proxies", "Proxies", "Groups of equal proxies, and what was sent to them."),
    ):
        frame = results.frame(name)
        if name in ("services", "proxies") and len(frame):
            frame = frame.sort_values("bytes_sent", ascending=False, kind="stable")
        if len(frame):
            yield _table(title, about, frame, COLUMNS[name])


def _table(title: str, about: str, frame: pd.DataFrame, meanings: Mapping[str, str]) -> Table:
    columns = [(str(name), meanings.get(str(name), "")) for name in frame.columns]
    units = [unit(str(name)) for name in frame.columns]
    rows = [
        [_any(value, kind) for value, kind in zip(row, units, strict=True)]
        for row in frame.head(MOST).itertuples(index=False)
    ]
    return Table(title, about, columns, rows, max(0, len(frame) - MOST))


def _any(value: Any, kind: str) -> Cell:
    if isinstance(value, str):
        return Cell(value, value)
    return (
        Cell("-", None, True)
        if value != value or value is None
        else Cell(shown(float(value), kind), float(value), True)
    )


def _made(results: Results) -> Table:
    """How each result was made: what it hangs on, then when and where."""
    paths = {
        "scenario": ("scenario", "id"),
        "Istio": ("scenario", "release"),
        "xDS mode": ("mode",),
        "seed": ("scenario", "seed"),
        "seconds counted": ("scenario", "duration_s"),
        "seconds of warm-up": ("scenario", "warmup_s"),
        "calibration": ("calibration", "name"),
        "pushsim": ("versions", "pushsim"),
    }
    columns = [
        ("variant", ""),
        ("source", ""),
        *((name, "") for name in paths),
        ("file", ""),
        ("date", ""),
        ("complete", ""),
    ]
    rows = []
    for name, result in results.items():
        told = [_at(result.identity, path) for path in paths.values()]
        run = [str(result.run.get(key, "")) for key in ("scenario_path", "date")]
        texts = [name, str(result.summary.get("source", "")), *told, *run, "yes" if result.complete else "no"]
        rows.append([Cell(text, text) for text in texts])
    return Table(
        "How this was made", "The same scenario, seed and version give the same figures, on any machine.", columns, rows
    )


def _at(identity: Mapping[str, Any], path: Sequence[str]) -> str:
    found: Any = identity
    for part in path:
        found = found.get(part, "") if isinstance(found, Mapping) else ""
    return f"{found:g}" if isinstance(found, float) else str(found)
