"""`pushsim conform`: our answers against recordings of real istiods."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from pushsim.cli.options import Json, print_json


def conform(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Holds cases/NAME.yaml and NAME/R-MODE.json.")],
    release: Annotated[
        list[str] | None, typer.Option("--release", "-r", help="Only this release (repeatable).")
    ] = None,
    mode: Annotated[Literal["sotw", "delta"] | None, typer.Option("--mode", help="Only this mode.")] = None,
    case: Annotated[str, typer.Option("--case", help="Only cases whose name fits this glob.")] = "*",
    json: Json = False,
) -> None:
    """Compare what pushsim says with what real istiods sent; exit 1 on a difference.

    Example: pushsim conform vectors/ --release 1.24 --case 'gateway-*'
    """
    from pushsim.conformance import ASPECTS, run_folder

    table = run_folder(folder, releases=release or [], mode=mode, pattern=case, progress=_progress(json))
    if json:
        print_json(table.to_json())
    else:
        for line in table.lines():
            typer.echo(line)
        for aspect in ASPECTS:
            equal, checked = table.totals(aspect)
            share = f" ({100 * equal / checked:.3f} %)" if checked else ""
            typer.echo(f"{aspect:10} {equal} of {checked} equal{share}")
    if not table.exact:
        raise typer.Exit(1)


def _progress(quiet: bool) -> Any:
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=quiet or not console.is_terminal)
