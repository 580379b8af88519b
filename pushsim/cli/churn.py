"""`pushsim churn`: what churn there is, from istiod's own counters; and what each source of a scenario's costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pushsim.cli.options import Jobs, Json, cores, print_json

if TYPE_CHECKING:
    from pushsim.result import Result
    from pushsim.scenario import Scenario

#: What a source is told by, and how it is printed.
_COSTS = ("proxy_pushes", "bytes_sent", "istiod_cpu_s")


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
    from pushsim.runs import simulate
    from pushsim.scenario import Scenario

    loaded = Scenario.load(path)
    name = variant or loaded.variant_names[0]
    whole = simulate(loaded, [name], jobs=1)[name]
    rows = []
    for label, without in _without_each(loaded):
        rest = simulate(without, [name], jobs=jobs or cores())[name]
        rows.append(_row(label, whole, rest))
    if json:
        print_json({"scenario": path, "variant": name, "sources": rows})
    else:
        _print(path, name, rows)


def _without_each(scenario: Scenario) -> list[tuple[str, Scenario]]:
    """The scenario without each of its sources in turn; the others' times and choices stay as they are.

    Sources of one name are told apart by number, so each keeps the name it has, lest its random stream change.
    """
    from pushsim.topology.churn import unique_names

    sources = scenario.model.churn
    names = unique_names(sources)
    written = scenario.value("churn")
    told = [{**each, "name": name} for each, name in zip(written, names, strict=True)]
    return [
        (name, scenario.replaced({"churn": [*told[:place], *told[place + 1 :]]})) for place, name in enumerate(names)
    ]


def _row(label: str, whole: Result, rest: Result) -> dict[str, Any]:
    caused = whole.summary["churn"].get(label, {})
    span, span_rest = whole.summary["span_s"], rest.summary["span_s"]
    saved = {
        "proxy_pushes": whole.summary["proxy_pushes"] - rest.summary["proxy_pushes"],
        "bytes_sent": whole.summary["bytes_sent"] - rest.summary["bytes_sent"],
        "istiod_cpu_s": whole.summary["istiod_cpu_cores"]["mean"] * span
        - rest.summary["istiod_cpu_cores"]["mean"] * span_rest,
    }
    p99 = {when: each.summary.get("converged_s", {}).get("p99") for when, each in (("with", whole), ("without", rest))}
    return {
        "source": label,
        "changes": caused.get("changes", 0),
        "caused": {key: caused.get(key, 0) for key in _COSTS},
        "saved": saved,
        "converged_p99_s": p99,
    }


def _print(path: str, variant: str, rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "source", "changes", "pushes", "bytes", "CPU", "without it:", "", "", "P99", title=f"{path}, {variant}"
    )
    for row in rows:
        caused, saved, p99 = row["caused"], row["saved"], row["converged_p99_s"]
        table.add_row(
            row["source"],
            f"{row['changes']:,}",
            *_costs(caused),
            *(f"-{text}" if not text.startswith("-") else f"+{text[1:]}" for text in _costs(saved)),
            " to ".join("-" if value is None else f"{value:.3g} s" for value in p99.values()),
        )
    console = Console(highlight=False)
    console.print(table)
    console.print("caused: a push of several changes is split evenly among them; without it: simulated again without")


def _costs(costs: dict[str, Any]) -> list[str]:
    from pushsim.figures import shown, unit

    return [shown(costs[key], unit(key)) for key in _COSTS]
