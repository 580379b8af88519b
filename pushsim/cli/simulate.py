"""`pushsim simulate`, `check`, `schema`, `scenarios`: scenario files, run and validated."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pushsim.cli.options import Engine, Jobs, Json, cores, note, print_json, scenario_at
from pushsim.cli.progress import bars
from pushsim.figures import HEADLINES, number_at, shown, unit

if TYPE_CHECKING:
    from pushsim.live import Live
    from pushsim.result import Result, Results
    from pushsim.scenario import Scenario


def simulate(
    scenario: Annotated[str, typer.Argument(metavar="SCENARIO", help="A scenario file, or a bundled one's name.")],
    variant: Annotated[
        list[str] | None, typer.Option("--variant", help="Only this variant, or a --policy text (repeatable).")
    ] = None,
    out: Annotated[str | None, typer.Option("--out", metavar="DIR", help="Write a result folder per variant.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Another seed than the scenario's.")] = None,
    engine: Engine = "auto",
    detail: Annotated[
        Literal["group", "proxy"], typer.Option("--detail", help="Rows per group of equal proxies, or per response.")
    ] = "group",
    assumptions: Annotated[
        bool, typer.Option("--assumptions", help="Run again with each stated assumption halved and doubled.")
    ] = False,
    serve: Annotated[
        str | None,
        typer.Option("--serve", metavar=":PORT", help="Metrics for Prometheus on loopback, until Ctrl-C."),
    ] = None,
    jobs: Jobs = 0,
    json: Json = False,
) -> None:
    """Simulate a scenario's variants: pushes, bytes, delays, CPU and memory. Ctrl-C keeps what there is.

    Example: pushsim simulate aisuite

    Example: pushsim simulate my-mesh.yaml --out results/my-mesh --json

    Example: pushsim simulate aisuite-small --serve :9464
    """
    from pushsim import policies
    from pushsim.errors import InputError
    from pushsim.runs import simulate as run

    loaded = scenario_at(scenario)
    if seed is not None:
        loaded = loaded.replaced({"seed": seed})  # here, so that what is printed has it, too
    names = list(dict.fromkeys(variant or loaded.variant_names))
    for name in names:
        try:
            policies.resolve(name, loaded)
        except InputError as error:
            mine = (replace(each, field="--variant") if each.field == "--policy" else each for each in error.problems)
            raise InputError(mine) from None
    with _served(serve) as live:
        watch = live.update if live else None
        at_once = jobs or cores()
        with bars(names, quiet=json) as progress:
            results = run(
                loaded,
                names,
                engine=engine,
                out=out,
                progress=progress,
                detail=detail,
                jobs=at_once,
                watch=watch,
                tables=out is not None or live is not None,
            )
        whole = results.complete and len(results) == len(names)
        if json:
            print_json(summary_json(loaded, results, whole=whole))
        else:
            print_results(loaded, results)
            _print_published(loaded, results)
            if assumptions and not loaded.assumptions:
                note("the scenario states no `assumptions`: there is none to halve and double")
            elif assumptions:
                _print_assumptions(loaded, names[:2], at_once)
        if out:
            _tell_of_others(Path(out), results)
        if live and results.complete:
            live.done(results)
            _until_interrupted()
    if not whole:
        if out:
            note("what there is was kept, marked complete: false")
        raise KeyboardInterrupt


def _tell_of_others(out: Path, results: Results) -> None:
    """A folder that held results before has them still: whoever reads it whole reads those, too."""
    if others := sorted({path.parent.name for path in out.glob("*/result.json")} - {*results}):
        note(f"{out} still holds other variants of an earlier run: {', '.join(others)}")


@contextmanager
def _served(port: str | None) -> Iterator[Live | None]:
    """The run's metrics served on that port within the block; nothing without one."""
    if port is None:
        yield None
        return
    from pushsim.live import Live, port_of, serving

    live = Live()
    with serving(live, port_of(port)) as address:
        note(f"metrics at {address}")
        yield live


def _until_interrupted() -> None:
    note("done; metrics are served until Ctrl-C")
    sys.stdout.flush()
    with suppress(KeyboardInterrupt):
        Event().wait()


def summary_json(scenario: Scenario, results: Results, *, whole: bool) -> dict[str, Any]:
    """What `--json` prints (see the formats); `whole`: no variant is missing or was cut short."""
    from pushsim import __version__

    return {
        "pushsim": __version__,
        "scenario": {
            "path": scenario.path,
            "id": scenario.id,
            "seed": scenario.seed,
            "release": scenario.release,
            "duration_s": scenario.duration_ns / 1e9,
        },
        "complete": whole,
        "variants": results.to_json(),
    }


def check(
    path: Annotated[list[str], typer.Argument(metavar="FILE...", help="Scenario files, or bundled ones' names.")],
    json: Json = False,
) -> None:
    """Validate scenario files without running them; exit 2 if one is wrong.

    Example: pushsim check scenarios/*.yaml
    """
    from pushsim.errors import InputError
    from pushsim.scenario import checked

    problems, told = [], {}
    for file in path:
        wrong, notes = checked(file)
        problems += wrong
        told[file] = {"valid": not wrong, "problems": [asdict(problem) for problem in wrong], "notes": list(notes)}
        for text in notes:
            note(f"{file}: {text}")
    if json:
        print_json({"valid": not problems, "files": told})
    if problems:
        raise InputError(problems)
    if json:
        return
    typer.echo(f"{len(path)} {'file is' if len(path) == 1 else 'files are'} valid")


def schema() -> None:
    """Print the JSON Schema of scenario files, for editors.

    Example: pushsim schema > scenario.schema.json
    """
    from pushsim.scenario import schema as described

    jsonlib.dump(described(), sys.stdout, indent=1)
    sys.stdout.write("\n")


def scenarios(json: Json = False) -> None:
    """List the bundled scenarios and the questions they answer.

    Example: pushsim scenarios
    """
    from pushsim.scenario import bundled

    found = bundled()
    if json:
        print_json(dict(found))
        return
    width = max(len(name) for name, _ in found)
    for name, question in found:
        typer.echo(f"{name:{width}}  {question}")


def print_results(scenario: Scenario, results: Mapping[str, Result], how: str = "simulated") -> None:
    """The table of a run's variants, and what their notes say; `how` they were run."""
    from rich.console import Console
    from rich.table import Column, Table

    console = Console(highlight=False)
    console.print(f"[bold]{scenario.question}[/bold]" if scenario.question else scenario.path)
    console.print(
        f"Istio {scenario.release}, seed {scenario.seed}, {scenario.duration_ns / 1e9:g} s {how}, id {scenario.id}"
    )
    heads = (name if result.complete else f"{name} (interrupted)" for name, result in results.items())
    table = Table(Column(overflow="fold"), *(Column(head, overflow="fold") for head in heads))
    for title, path in HEADLINES:
        table.add_row(title, *(shown(number_at(result.summary, path), unit(path)) for result in results.values()))
    console.print(table)
    for name, result in results.items():
        for text in result.summary.get("notes") or ():
            console.print(f"{name}: {text}")


def _print_published(scenario: Scenario, results: Mapping[str, Result]) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    from pushsim.publication import compare, readings

    if scenario.published is None:
        return
    summaries = {name: result.summary for name, result in results.items()}
    columns = [Column(name, overflow="fold") for name in ("variant", "figure", "published", "predicted", "error")]
    table = Table(*columns, title=scenario.published.source)
    for row in compare(scenario.published, summaries):
        low, high = (shown(value, unit(row.metric)) for value in row.published)
        told = f"at least {low}" if row.at_least else low if low == high else f"{low} to {high}"
        error = "used" if row.used else "-" if row.error is None else f"{100 * row.error:+.0f} %"
        table.add_row(row.variant, row.metric, told, shown(row.predicted, unit(row.metric)), error)
    console = Console(highlight=False)
    console.print(table)
    console.print("used: an assumption was chosen from this figure, so agreement proves nothing")
    for variant, path, rate, by in readings(scenario.published, summaries):
        console.print(f"{variant}: {rate:.3g} {path} a second{' (what the table goes by)' if by else ''}")


def _print_assumptions(scenario: Scenario, variants: list[str], jobs: int) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    from pushsim.publication import assumptions

    with bars([assumption.field for assumption in scenario.assumptions], quiet=False) as progress:
        rows = assumptions(scenario, variants, jobs=jobs, progress=progress)
    columns = list(rows[0][2]) if rows else []
    folded = [Column(name, overflow="fold") for name in columns]
    table = Table(Column("assumption", no_wrap=True), "", *folded, title="each assumption halved and doubled")
    for field, label, figures in rows:
        short = ".".join(field.split(".")[-2:])  # the scenario file says in full which field it is
        table.add_row(short, label, *(shown(figures[column], unit(column.split(": ")[-1])) for column in columns))
    Console(highlight=False).print(table)


__all__ = ["check", "print_results", "scenarios", "schema", "simulate", "summary_json"]
