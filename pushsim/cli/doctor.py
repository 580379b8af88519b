"""`pushsim doctor`: what can be run here."""

from __future__ import annotations

from typing import Annotated

import typer

from pushsim.cli.options import Json, print_json
from pushsim.cli.replay import Binary


def doctor(
    istiod_binary: Binary = None,
    proxies: Annotated[int, typer.Option("--proxies", min=0, help="How many are to be replayed.")] = 200,
    json: Json = False,
) -> None:
    """Say what can be run on this machine: extras, an istiod and its release, ports, limits, memory, cores.

    Looks only; exit 3 if something keeps a replay from running, with what to do about it.

    Example: pushsim doctor --istiod-binary ./pilot-discovery --proxies 2000
    """
    from dataclasses import asdict

    from pushsim.doctor import doctor as look

    checks = look(istiod_binary, proxies=proxies)
    fine = all(check.verdict != "problem" for check in checks)
    if json:
        print_json({"fine": fine, "checks": [asdict(check) for check in checks]})
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            remedy = f" ({check.remedy})" if check.remedy else ""
            typer.echo(f"{check.verdict:8} {check.name:{width}}  {check.found}{remedy}")
    if not fine:
        raise typer.Exit(3)
