"""`pushsim policies`: the scoping policies by name."""

from __future__ import annotations

import typer

from pushsim.cli.options import Json, print_json


def policies(json: Json = False) -> None:
    """List scoping policies with their parameters and defaults, and what is not modelled of them.

    Example: pushsim policies
    """
    from pushsim.policies import described

    if json:
        print_json({name: {"about": about, "parameters": parameters} for name, about, parameters in described()})
        return
    for name, about, parameters in described():
        typer.echo(f"{name}: {about}")
        for parameter, told in parameters.items():
            typer.echo(f"    {parameter}: {told}")
    typer.echo("module:function: what a Python function of your own returns, a pushsim.policies.Policy")
    typer.echo("PATH: a YAML file with a list of policies, or a file or folder of objects to install")
    typer.echo("Join them with `+`: --policy namespace+export-to. Parameters are written in files: pushsim schema")
