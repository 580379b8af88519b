"""`pushsim report`: results as one self-contained page."""

from __future__ import annotations

from typing import Annotated

import typer


def report(
    results: Annotated[list[str], typer.Argument(metavar="RESULT...", help="Result folders, or folders of them.")],
    to: Annotated[str, typer.Option("--to", metavar="FILE", help="The page to write.")] = "report.html",
    title: Annotated[str, typer.Option("--title", help="Its title. [default: the question asked]")] = "",
) -> None:
    """Write one HTML page about results: figures, plots, tables, and how they were made. It needs no network.

    Example: pushsim simulate aisuite-small --out results/small && pushsim report results/small --to small.html
    """
    from pushsim.reports import report as write
    from pushsim.result import load_all

    typer.echo(str(write(load_all(*results), to, title=title)))
