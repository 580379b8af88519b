"""`pushsim churn`: what churn there is, from istiod's own counters; and what each source of a scenario's costs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from pushsim.cli.options import Jobs, Json, cores, print_json, scenario_at
from pushsim.cli.progress import bars


def churn(
    scenario: Annotated[
        str | None, typer.Argument(metavar="[SCENARIO]", help="Attribute this scenario's churn.")
    ] = None,
    prometheus: Annotated[
        list[str] | None,
        typer.Option("--prometheus", metavar="URL|FILE", help="An istiod's metrics: a server, or one or two pages."),
    ] = None,
    window: Annotated[str | None, typer.Option("--window", help="Time that --prometheus covers, like 1h.")] = None,
    variant: Annotated[str | None, typer.Option("--variant", help="Of the scenario. [default: the first]")] = None,
    jobs: Jobs = 0,
    json: Json = False,
) -> None:
    """Turn istiod's counters into a scenario's churn section; or say what each source of a scenario causes and costs.

    Example: pushsim churn --prometheus http://prometheus:9090 --window 24h

    Example: pushsim churn aisuite --variant unscoped
    """
    from pushsim.errors import InputError, Problem

    if (scenario is None) == (not prometheus):
        raise InputError(Problem("give a scenario or --prometheus, and not both", remedy="see --help"))
    if prometheus:
        _section(prometheus, window, json=json)
        return
    assert scenario is not None
    _attributed(scenario, variant, jobs, json=json)


def _section(sources: list[str], window: str | None, *, json: bool) -> None:
    from pushsim.calibrate.churning import churn_of
    from pushsim.calibrate.counters import read, seconds

    found = churn_of(read(sources, seconds(window)))
    if json:
        print_json({"churn": list(found.sources), "reasons": list(found.reasons), "notes": list(found.notes)})
    else:
        typer.echo(found.section(), nl=False)


def _attributed(path: str, variant: str | None, jobs: int, *, json: bool) -> None:
    from pushsim.errors import InputError, Problem
    from pushsim.sources import caused, runs_of

    loaded = scenario_at(path)
    name = variant or loaded.variant_names[0]
    if not loaded.model.churn:
        raise InputError(Problem("has no churn to attribute", path, "churn", "write [{source: rollout, rate: 40/h}]"))
    with bars(runs_of(loaded), quiet=json) as progress:
        rows = [asdict(each) for each in caused(loaded, name, jobs=jobs or cores(), progress=progress)]
    if json:
        print_json({"scenario": path, "variant": name, "sources": rows})
    else:
        _print(path, name, rows)


def _print(path: str, variant: str, rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    columns = ("source", "changes", "pushes", "bytes", "CPU", "P99")
    table = Table(*(Column(name, overflow="fold") for name in columns), title=f"{path}, {variant}")
    for row in rows:
        p99 = ["-" if value is None else f"{value:.3g} s" for value in row["converged_p99_s"].values()]
        table.add_row(row["source"], f"{row['changes']:,}", *_costs(row["caused"]), p99[0])
        table.add_row("  without it", "", *map(_less, _costs(row["saved"])), p99[1])
    console = Console(highlight=False)
    console.print(table)
    console.print("caused: a push of several changes is split evenly among them; P99: of converged, with all sources")
    console.print("without it: what there would be less or more, simulated again without; P99: then")


def _less(text: str) -> str:
    """What is saved, as what there would be less."""
    nothing = text.split()[0] == "0"
    return text if nothing else f"+{text[1:]}" if text.startswith("-") else f"-{text}"


def _costs(costs: dict[str, Any]) -> list[str]:
    from pushsim.figures import shown, unit
    from pushsim.sources import COSTS

    return [shown(costs[key], unit(key)) for key in COSTS]
