"""`pushsim size`: the smallest istiod, and the proxies' memory, that keep a promise."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pushsim.cli.options import Jobs, Json, cores, print_json, scenario_at
from pushsim.cli.progress import bars

if TYPE_CHECKING:
    from pushsim.scenario import Scenario
    from pushsim.sizing import Size


def size(
    scenario: Annotated[str, typer.Argument(metavar="SCENARIO", help="A scenario file, or a bundled one's name.")],
    slo: Annotated[list[str], typer.Option("--slo", metavar="CONDITION", help="What must hold (repeatable).")],
    policy: Annotated[
        list[str] | None, typer.Option("--policy", "-p", help="Size for this policy. [default: every variant]")
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="It must hold with so many seeds.")] = 1,
    min_replicas: Annotated[int, typer.Option("--min-replicas", min=1, help="At least so many istiods.")] = 1,
    max_replicas: Annotated[int, typer.Option("--max-replicas", min=1, help="At most so many istiods.")] = 6,
    max_cpus: Annotated[float, typer.Option("--max-cpus", min=0.1, help="At most so many cores each.")] = 32.0,
    risk: Annotated[
        float, typer.Option("--risk", min=1e-9, max=0.5, help="Probability to run over a memory limit.")
    ] = 0.01,
    jobs: Jobs = 0,
    json: Json = False,
) -> None:
    """Find the smallest replicas x cores x memory that keep a promise, for each policy. Exit 1 if none does.

    Example: pushsim size aisuite --slo 'converged_s.p99 < 5s' --slo 'istiod_cpu_cores.p99 < 16'
    """
    from pushsim import thresholds
    from pushsim.errors import CheckFailed, InputError, Problem
    from pushsim.sizing import size as run

    if max_replicas < min_replicas:
        raise InputError(Problem("is less than --min-replicas", field="--max-replicas", remedy="give more"))
    conditions = [thresholds.parse(text, "--slo") for text in slo]
    loaded = scenario_at(scenario)
    names = policy or list(loaded.variant_names)
    with bars(names, quiet=json) as progress:
        found = run(
            loaded,
            conditions,
            names,
            seeds=seeds,
            min_replicas=min_replicas,
            max_replicas=max_replicas,
            max_cpus=max_cpus,
            risk=risk,
            jobs=jobs or cores(),
            progress=progress,
        )
    if json:
        told = {name: _to_json(one) for name, one in found.items()}
        print_json({"slo": slo, "risk": risk, "complete": len(found) == len(names), "policies": told})
    else:
        _print(loaded, slo, found, risk)
    if len(found) < len(names):
        raise KeyboardInterrupt
    missed = [f"{name}: {one.replicas} x {one.cpus:g} cores do not keep {', '.join(slo)}" for name, one in found.items()
              if not one.met]  # fmt: skip
    if missed:
        raise CheckFailed("; ".join(missed))


def _to_json(one: Size) -> dict[str, Any]:
    return {"cores": one.cores, **{key: value for key, value in asdict(one).items() if key != "policy"}}


def _print(scenario: Scenario, slo: list[str], found: dict[str, Size], risk: float) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    from pushsim.figures import shown, unit

    console = Console(highlight=False, markup=False)
    console.print(scenario.question or scenario.path)
    console.print(f"smallest that keeps {' and '.join(slo)}")
    table = Table(Column(overflow="fold"), *found)
    sizes = list(found.values())
    rows: list[tuple[str, list[str]]] = [
        ("istiod: replicas x cores", [f"{s.replicas} x {s.cpus:g}" if s.met else "none" for s in sizes]),
        ("cores in all", [_cores(s, sizes[0]) for s in sizes]),
    ]
    rows += [(path, [shown(s.figures[path], unit(path)) for s in sizes]) for path in sizes[0].figures] if sizes else []
    for kind in ("istiod", "sidecar", "gateway"):
        if any(kind in s.memory for s in sizes):
            rows.append((f"{kind} memory, request / limit", [_memory(s, kind) for s in sizes]))
    for title, cells in rows:
        table.add_row(title, *cells)
    console.print(table)
    console.print(
        f"limits are run over with a probability of at most {100 * risk:g} %, as far as the coefficients' errors tell"
    )


def _cores(one: Size, first: Size) -> str:
    if one is first or not (one.met and first.met):
        return f"{one.cores:g}" if one.met else "-"
    return f"{one.cores:g} (saves {100 * (1 - one.cores / first.cores):.0f} %)"


def _memory(one: Size, kind: str) -> str:
    held = one.memory.get(kind)
    if held is None:
        return "-"
    return f"{held.request_bytes >> 20}Mi ({100 * held.over_request:.2g} % over) / {held.limit_bytes >> 20}Mi"
