"""`pushsim export`: results for other tools."""

from __future__ import annotations

from typing import Annotated

import typer


def export(
    results: Annotated[list[str], typer.Argument(metavar="RESULT...", help="Result folders, or folders of them.")],
    to: Annotated[
        str, typer.Option("--to", metavar="FILE", help="Its ending is the form: csv parquet json om prom txt graphml.")
    ],
    table: Annotated[
        str | None, typer.Option("--table", help="summary, rows, timeline, churn, services, proxies, fan_out, delays.")
    ] = None,
) -> None:
    """Write results as CSV, Parquet, JSON, metrics under istiod's own names (.prom, .om), or GraphML.

    Example: pushsim export results/small --to small.prom

    Example: pushsim export results/small --table services --to services.csv
    """
    from pushsim.exports import export as write
    from pushsim.result import load_all

    typer.echo(str(write(load_all(*results), to, table=table)))
