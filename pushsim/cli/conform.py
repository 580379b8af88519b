"""`pushsim conform`: our answers against recordings of real istiods."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from pushsim.cli.options import Jobs, Json, cores, note, print_json
from pushsim.cli.progress import bars


def conform(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Holds cases/NAME.yaml and NAME/R-MODE.json.")],
    release: Annotated[
        list[str] | None, typer.Option("--release", "-r", help="Only this release (repeatable).")
    ] = None,
    mode: Annotated[Literal["sotw", "delta"] | None, typer.Option("--mode", help="Only this mode.")] = None,
    case: Annotated[str, typer.Option("--case", help="Only cases whose name fits this glob.")] = "*",
    jobs: Jobs = 0,
    json: Json = False,
) -> None:
    """Compare what pushsim says with what real istiods sent; exit 1 on a difference.

    Scored separately: pushes, names, removed names and solicited answers, by step and proxy, all of which must be
    equal; and the bytes of each response, right within 2 % or 8 B, which must be so in 99 % of a recording's responses.

    Example: pushsim conform vectors/ --release 1.24 --case 'gateway-*'
    """
    from pushsim.conformance import run_folder

    with bars(["conform"], quiet=json) as tell:
        table = run_folder(
            folder,
            releases=release or [],
            mode=mode,
            case=case,
            jobs=jobs or cores(),
            progress=lambda share: tell("conform", share),
        )
    if json:
        print_json(table.to_json())
    else:
        for line in table.lines():
            typer.echo(line)
    if not table.complete:
        note(f"{len(table.scores)} of {table.planned} recordings compared")
        raise KeyboardInterrupt
    if not table.exact:
        raise typer.Exit(1)
