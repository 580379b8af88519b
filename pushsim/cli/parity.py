"""`pushsim parity`: simulated against real."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pushsim.cli.options import Json, print_json, scenario_at
from pushsim.cli.replay import Binary, CoreList, core_numbers, given, told

if TYPE_CHECKING:
    from pushsim.parity import Compared, Parity


def parity(
    scenario: Annotated[str, typer.Argument(metavar="SCENARIO", help="A scenario file, or a bundled one's name.")],
    istiod_binary: Binary = None,
    variant: Annotated[
        list[str] | None, typer.Option("--variant", help="Only this variant, or a --policy text (repeatable).")
    ] = None,
    repeat: Annotated[int, typer.Option("--repeat", min=0, help="Replays of each variant; 0: answers only.")] = 5,
    one_by_one: Annotated[
        int, typer.Option("--one-by-one", min=0, help="Changes to compare one at a time, response by response.")
    ] = 10,
    tolerance: Annotated[
        list[str] | None,
        typer.Option("--tolerance", metavar="[PATH=]SHARE", help="How far a figure (or all) may be off, like 0.2."),
    ] = None,
    cores: CoreList = None,
    workers: Annotated[
        int, typer.Option("--workers", min=0, help="Client processes. [default: one per core]", show_default=False)
    ] = 0,
    cpu_speed: Annotated[
        float | None,
        typer.Option("--cpu-speed", min=0.01, help="This machine's, as calibrations have it. [default: measured]"),
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", metavar="DIR", help="Write parity.json, parity.svg and all results.")
    ] = None,
    json: Json = False,
) -> None:
    """Simulate a scenario and replay it on a real istiod; print both and the error; exit 1 past a tolerance.

    First the answers: so many changes are written one at a time, and every response to every proxy is compared. Then
    times and costs: each variant is replayed as it is, and the real figures' spread stands beside the error. Machines
    differ, and one from hour to hour: how fast this one is for istiod is measured beside the replays (a minute for each
    variant), by other work, and simulated so.

    Example: pushsim parity aisuite-small --istiod-binary ./pilot-discovery --repeat 3 --out results/parity/small

    Example: pushsim parity my-mesh.yaml --istiod-binary ./pilot-discovery --tolerance received_s.p99=0.3
    """
    from pushsim.errors import EnvironmentProblem
    from pushsim.parity import parity as run
    from pushsim.parity import tolerances_of

    binary, tolerances = given(istiod_binary), _tolerances(tolerance or [])
    tolerances_of(tolerances)  # before anything runs
    loaded = scenario_at(scenario)
    with told(quiet=json) as progress:

        def tell(what: str, share: float) -> None:
            if progress is not None:
                progress(scenario, what, share)

        found = run(
            loaded,
            binary,
            variant,
            repeat=repeat,
            one_by_one=one_by_one,
            tolerances=tolerances,
            cores=core_numbers(cores),
            workers=workers,
            cpu_speed=cpu_speed,
            out=out,
            progress=tell,
        )
    if out is not None:
        _write(found, Path(out))
    if json:
        print_json(found.to_json())
    else:
        _print(found)
    if found.ended and found.ended != "interrupted":
        raise EnvironmentProblem(found.ended)
    if not found.complete:
        raise KeyboardInterrupt
    if not found.within:
        raise typer.Exit(1)


def _tolerances(texts: list[str]) -> dict[str, float]:
    from pushsim.errors import InputError, Problem

    found = {}
    for text in texts:
        path, _, share = text.rpartition("=")
        try:
            found[path] = float(share.removesuffix("%")) / (100 if share.endswith("%") else 1)
        except ValueError:
            remedy = "write 0.2, 20% or received_s.p99=0.2"
            raise InputError(Problem(f"{text!r} is no tolerance", field="--tolerance", remedy=remedy)) from None
    return found


def _write(found: Parity, folder: Path) -> None:
    from pushsim.errors import writing

    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        text = jsonlib.dumps(found.to_json(), indent=1, ensure_ascii=False)
        (folder / "parity.json").write_text(text + "\n", encoding="utf-8")
    if any(compared.real for compared in found.variants.values()):
        from pushsim.plots import parity_details

        parity_details(found).save(folder / "parity.svg")


def _print(found: Parity) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    asked = found.scenario
    console.print(f"Istio {found.release}, {found.mode}, cores: {asked.settings.cpus:g}, id {asked.id}")
    for compared in found.variants.values():
        _print_one(compared, console)


def _print_one(compared: Compared, console: object) -> None:
    from rich.console import Console
    from rich.table import Table

    from pushsim.figures import shown, unit
    from pushsim.recordings import ASPECTS

    assert isinstance(console, Console)
    if (score := compared.exact) is not None:
        told = ", ".join(f"{aspect} {score.equal[aspect]} of {score.checked[aspect]}" for aspect in ASPECTS)
        console.print(f"[bold]{compared.variant}[/bold], {compared.changes} changes one at a time: {told} equal")
        for each in compared.to_json()["exact"]["differences"][:5]:
            console.print(f"  {each['name']}, {each['proxy']}: {each['aspect']}: only real {each['only_real']}, "
                          f"only simulated {each['only_simulated']} ({each['why']})")  # fmt: skip
    if not compared.rows:
        return
    runs = len(compared.real)
    columns = ("", "simulated", "real", f"spread of {runs}", "error", "")
    speed = compared.simulated.identity["calibration"]["cpu_speed"]
    table = Table(*columns, title=f"{compared.variant}, cpu_speed {speed:.2f}", title_justify="left")
    for row in compared.rows:
        of = "" if row.points else unit(row.metric)
        spread = f"{shown(min(row.real), of)} … {shown(max(row.real), of)}" if runs > 1 and row.real else ""
        error = "-" if row.error is None else f"{100 * row.error:+.1f} {'points' if row.points else '%'}"
        verdict = "" if row.within else f"over {100 * row.tolerance:g}"
        table.add_row(row.metric, shown(row.simulated, of), shown(row.mean, of), spread, error, verdict)
    console.print(table)
    for text in compared.to_json()["notes"]:
        console.print(f"{compared.variant}: {text}")
