"""`pushsim sweep`: a scenario over a grid of knobs, policies and seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pushsim.cli.options import Engine, Jobs, Json, cores, note, print_json, scenario_at

if TYPE_CHECKING:
    from pushsim.sweeps import Sweep


def sweep(
    scenario: Annotated[str, typer.Argument(metavar="SCENARIO", help="A scenario file, or a bundled one's name.")],
    vary: Annotated[
        list[str],
        typer.Option("--vary", metavar="KNOB=VALUES", help="a,b,c or 1..5 (repeatable): env, field, replicas, policy."),
    ],
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="So many, from the scenario's own on.")] = 1,
    out: Annotated[str | None, typer.Option("--out", metavar="DIR", help="Keeps the runs; resumes there.")] = None,
    scheduler: Annotated[
        str | None, typer.Option("--scheduler", metavar="tcp://HOST:PORT", help="A Dask scheduler instead of --jobs.")
    ] = None,
    delay: Annotated[str, typer.Option("--delay", help="The figure to keep low.")] = "received_s.p99",
    cost: Annotated[str, typer.Option("--cost", help="The other figure to keep low.")] = "istiod_cpu_cores.mean",
    engine: Engine = "auto",
    jobs: Jobs = 0,
    json: Json = False,
) -> None:
    """Run a scenario over every combination of knobs, policies and seeds; say which settings are worth choosing.

    A run that is in --out already is not run again; Ctrl-C keeps what there is.

    Example: pushsim sweep aisuite-small --vary PILOT_DEBOUNCE_AFTER=50ms,100ms,1s --vary policy=none,namespace
    --vary replicas=1..2 --seeds 3 --out sweeps/small
    """
    from pushsim.errors import not_there
    from pushsim.sweeps import parse_vary
    from pushsim.sweeps import sweep as run
    from pushsim.thresholds import expected

    loaded = scenario_at(scenario)
    known = expected(loaded.sources)
    for option, path in (("--delay", delay), ("--cost", cost)):
        if path not in known:  # before runs take their time
            raise not_there(path, known, "figure", option)
    with _bar(quiet=json) as progress:
        found = run(
            loaded,
            parse_vary(vary),
            seeds=seeds,
            out=out,
            jobs=jobs or cores(),
            scheduler=scheduler,
            engine=engine,
            progress=progress,
        )
    if json:
        print_json(_told(found, delay, cost))
    else:
        _print(found, delay, cost)
    if not found.complete:
        if out:
            note(f"{len(found.frame)} runs are kept; the same command does the rest")
        raise KeyboardInterrupt


class _bar:  # noqa: N801 - a context manager that reads as a word
    """Runs done of all, and when the last will be, on a terminal; nothing elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            "runs,",
            TimeElapsedColumn(),
            "gone,",
            TimeRemainingColumn(),
            "left",
        )
        self._progress = Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal)
        self._task = self._progress.add_task("runs", total=None)

    def __enter__(self) -> Any:
        self._progress.start()
        return lambda done, of: self._progress.update(self._task, completed=done, total=of)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def _told(found: Sweep, delay: str, cost: str) -> dict[str, Any]:
    best = found.front(delay, cost) if len(found.frame) else []
    chosen = found.recommended(delay, cost) if best else None

    def plain(choice: Any) -> dict[str, Any]:
        return {"settings": dict(choice.settings), delay: choice.delay, cost: choice.cost}

    return {
        **found.asked,
        "complete": found.complete,
        "runs": len(found.frame),
        "front": [plain(choice) for choice in best],
        "recommended": plain(chosen) if chosen else None,
        "sentence": found.sentence(delay, cost) if best else "",
        "no_effect": found.idle(),
    }


def _print(found: Sweep, delay: str, cost: str) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    from pushsim.figures import shown, unit

    console = Console(highlight=False)
    console.print(f"{len(found.frame)} runs; {found.caption()}", markup=False)
    if not len(found.frame):
        return
    best = found.front(delay, cost)
    chosen = found.recommended(delay, cost)
    table = Table(*(Column(name, overflow="fold") for name in (*found.knobs, delay, cost, "")))
    for choice in sorted(found.choices(delay, cost), key=lambda choice: (choice.delay, choice.cost)):
        mark = "recommended" if choice == chosen else "front" if choice in best else ""
        figures = (shown(choice.delay, unit(delay)), shown(choice.cost, unit(cost)))
        table.add_row(*(escape(choice.settings[name]) for name in found.knobs), *figures, mark)
    console.print(table)
    console.print(found.sentence(delay, cost), markup=False)
    for knob in found.idle():
        note(f"{knob} changes no figure of any run")
