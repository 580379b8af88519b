"""`pushsim published`: published measurements beside what we predict for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pushsim.cli.options import Json, print_json

if TYPE_CHECKING:
    from pushsim.published import Row


def published(
    case: Annotated[list[int] | None, typer.Option("--case", help="Only this case (repeatable).")] = None,
    write: Annotated[
        str | None, typer.Option("--write", metavar="FILE", help="Write the table into the marked block of this file.")
    ] = None,
    json: Json = False,
) -> None:
    """Run our scenarios for published measurements: published, predicted, error. Misses stay in the table.

    An error is shown where a figure was held out; `used` where a coefficient or an assumption was chosen from it.

    Example: pushsim published --case 1 --case 6

    Example: pushsim published --write README.md
    """
    from pushsim.cli.progress import bars
    from pushsim.published import published as run

    with bars(["published cases"], quiet=json) as progress:
        rows = run(case or (), write=write, progress=lambda _, share: progress("published cases", share))
    if json:
        print_json({"rows": [_plain(row) for row in rows]})
        return
    from rich.console import Console
    from rich.table import Column, Table

    from pushsim.published import told

    shown = Table(*(Column(name, overflow="fold") for name in ("case", "figure", "published", "predicted", "error")))
    for row in rows:
        shown.add_row(*told(row))
    Console(highlight=False).print(shown)


def _plain(row: Row) -> dict[str, Any]:
    return {
        "case": row.case,
        "source": row.source,
        "figure": row.figure,
        "use": row.use,
        "published": list(row.published) if row.published else None,
        "predicted": row.predicted,
        "error": row.error if row.use == "hold" else None,
        "verdict": row.verdict,
    }
