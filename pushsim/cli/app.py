"""The verbs of `pushsim`, gathered. Their modules import nothing heavy before they run."""

from __future__ import annotations

from typing import Annotated

import typer

from pushsim.cli.calibrate import calibrate
from pushsim.cli.churn import churn
from pushsim.cli.compare import compare
from pushsim.cli.conform import conform
from pushsim.cli.diff import diff_releases
from pushsim.cli.doctor import doctor
from pushsim.cli.export import export
from pushsim.cli.imports import imports, inspect
from pushsim.cli.parity import parity
from pushsim.cli.plan import plan
from pushsim.cli.policies import policies
from pushsim.cli.published import published
from pushsim.cli.recommend import recommend
from pushsim.cli.record import record
from pushsim.cli.replay import replay
from pushsim.cli.report import report
from pushsim.cli.simulate import check, scenarios, schema, simulate
from pushsim.cli.size import size
from pushsim.cli.sweep import sweep
from pushsim.cli.webhook import webhook

app = typer.Typer(
    name="pushsim",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
VERBS = (
    plan,
    simulate,
    replay,
    parity,
    compare,
    recommend,
    size,
    webhook,
    diff_releases,
    sweep,
    report,
    export,
    inspect,
    calibrate,
    churn,
    published,
    conform,
    record,
    doctor,
    check,
    schema,
    scenarios,
    policies,
)
for verb in VERBS:
    app.command()(verb)
app.add_typer(imports, name="import")


def _tell_version(asked: bool) -> None:
    if asked:
        from pushsim import __version__

        typer.echo(f"pushsim {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (anywhere on the line).")
    ] = False,
) -> None:
    """Predict what an Istio configuration change or scoping policy costs to push."""  # `main` takes --debug itself
