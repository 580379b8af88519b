"""`pushsim compare`: the same workload under several policies or from several checkouts, and the gate for CI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pushsim.cli.options import Engine, Jobs, Json, cores, note, print_json, tell_notes
from pushsim.cli.progress import bars

if TYPE_CHECKING:
    from pushsim.compare import Comparison
    from pushsim.thresholds import Verdict

Format = Literal["table", "json", "markdown", "junit", "sarif"]


def compare(
    scenario: Annotated[str, typer.Argument(metavar="SCENARIO", help="A scenario file, or a bundled one's name.")],
    policy: Annotated[
        list[str] | None,
        typer.Option("--policy", "-p", help="A policy, variant or YAML file, joined with + (repeatable)."),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="So many seeds, for confidence intervals.")] = 1,
    mesh: Annotated[
        list[str] | None,
        typer.Option("--mesh", metavar="NAME=DIR", help="Manifests instead of the scenario's own (repeatable)."),
    ] = None,
    price_per_gb: Annotated[
        float | None, typer.Option("--price-per-gb", min=0, help="Price of a GB that crosses a zone.")
    ] = None,
    fail_on: Annotated[
        list[str] | None,
        typer.Option("--fail-on", metavar="CONDITION", help="Exit 1 if it holds (repeatable)."),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", metavar="FILE", help="JSON of an earlier run, for increase(…). [default: column 1]"),
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="How to print it; --json is json.")] = "table",
    engine: Engine = "auto",
    jobs: Jobs = 0,
    json: Json = False,
) -> None:
    """Compare policies, or a pull request's base and head: cost, savings, and what breaks. Exit 1 if a --fail-on holds.

    Example: pushsim compare aisuite --policy none --policy namespace+gateway-filter --seeds 5 --price-per-gb 0.02

    Example: pushsim compare ci.yaml --mesh base=old/ --mesh head=new/ --fail-on 'increase(bytes_sent) > 10%'
    """
    from pushsim import thresholds
    from pushsim.compare import arms, baseline_of, conditions_on
    from pushsim.compare import compare as run
    from pushsim.errors import CheckFailed
    from pushsim.scenario import Scenario

    form = "json" if json else form
    asked = Scenario.load(scenario)
    before = baseline_of(baseline, asked) if baseline else None
    columns = arms(asked, policy or (), _meshes(mesh or []))
    conditions = conditions_on(columns, fail_on or (), before)
    if baseline and not any(condition.increase for condition in conditions):
        note("--baseline is for --fail-on 'increase(…) > N%', and there is none")
    tell_notes(*(column.scenario for column in columns))
    first = columns[0].scenario.seed
    names = [f"{column.name}, seed {seed}" for seed in range(first, first + seeds) for column in columns]
    with bars(names, quiet=form != "table") as progress:
        found = run(
            columns,
            seeds=seeds,
            jobs=jobs or cores(),
            price_per_gb=price_per_gb,
            engine=engine,
            progress=progress,
        )
    if not found.columns:
        raise KeyboardInterrupt
    verdicts = thresholds.judge(conditions, found.summaries(), before) if found.complete else []
    _print(found, verdicts, form)
    if not found.complete:
        raise KeyboardInterrupt
    if reasons := thresholds.failures(verdicts):
        raise CheckFailed(reasons)


def _meshes(written: list[str]) -> dict[str, str]:
    from pushsim.errors import InputError, Problem

    found: dict[str, str] = {}
    for text in written:
        name, sign, folder = text.partition("=")
        if not sign or not name or not folder or name in found:
            message = f"{text!r} is not NAME=DIR" if name not in found else f"{name!r} is given twice"
            raise InputError(Problem(message, field="--mesh", remedy="write --mesh base=DIR --mesh head=DIR"))
        found[name] = folder
    return found


def _print(found: Comparison, verdicts: list[Verdict], form: Format) -> None:
    from pushsim import formats

    match form:
        case "json":
            whole = found.to_json()
            if verdicts:
                whole["failed"] = [str(verdict) for verdict in verdicts if verdict.met]
            print_json(whole)
        case "markdown":
            typer.echo(formats.markdown(found, verdicts), nl=False)
        case "junit":
            typer.echo(formats.junit(found, verdicts), nl=False)
        case "sarif":
            typer.echo(formats.sarif(found, verdicts), nl=False)
        case _:
            _print_table(found, verdicts)


def _print_table(found: Comparison, verdicts: list[Verdict], most: int = 20) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    from pushsim import formats

    scenario, console = found.scenario, Console(highlight=False, markup=False)
    console.print(scenario.question or scenario.path)
    console.print(f"Istio {scenario.release}, {scenario.duration_ns / 1e9:g} s simulated, id {scenario.id}")
    table = Table(Column(overflow="fold"), *(Column(column.name, overflow="fold") for column in found.columns))
    for row in formats.table(found):
        table.add_row(*row)
    console.print(table)
    for column in found.columns:
        if column.breaks:
            console.print(f"{column.name} breaks:")
            for each in column.breaks[:most]:
                console.print(f"  {each}", soft_wrap=True)
            if len(column.breaks) > most:
                console.print(f"  … {len(column.breaks)} in all: --format json has them")
    for text in formats.footnotes(found):
        console.print(text, soft_wrap=True)
    for verdict in verdicts:
        console.print(f"{'fails' if verdict.met else 'ok'}: {verdict}", soft_wrap=True)
