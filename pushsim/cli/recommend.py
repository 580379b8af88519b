"""`pushsim recommend`: from observed calls to Sidecar and exportTo objects, ready to apply."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pushsim.cli.options import Inject, Json, Namespace, Release, note, print_json, say_if_unproven, standard_input

if TYPE_CHECKING:
    from pushsim.recommend import Proposal, Recommendation


def recommend(
    mesh: Annotated[
        list[str], typer.Argument(metavar="MESH...", help="Manifests: files, folders or -; or a scenario.")
    ],
    calls: Annotated[
        str | None,
        typer.Option("--calls", help="CSV, or JSON of Prometheus, Kiali or Envoy. [default: the scenario's]"),
    ] = None,
    per: Annotated[
        Literal["namespace", "workload"],
        typer.Option("--per", help="workload: Sidecars of workloads beside those of namespaces."),
    ] = "namespace",
    silent: Annotated[
        bool, typer.Option("--silent", help="With --per workload: those never seen to call, too. They then see little.")
    ] = False,
    budget: Annotated[
        int | None, typer.Option("--budget", min=1, help="At most so many objects, the most saving first.")
    ] = None,
    watched: Annotated[
        str | None, typer.Option("--watched", help="How long calls were watched, where the file does not say: 168h.")
    ] = None,
    export_to: Annotated[bool, typer.Option("--export-to/--no-export-to", help="Propose exportTo, too.")] = True,
    max_hosts: Annotated[
        int, typer.Option("--max-hosts", min=1, help="Egress hosts of a Sidecar, above which wildcards are used.")
    ] = 50,
    slack: Annotated[
        float, typer.Option("--slack", min=0, help="A wildcard may add so many services for each one needed.")
    ] = 0.1,
    release: Release = None,
    inject: Inject = "detect",
    namespace: Namespace = "default",
    out: Annotated[str | None, typer.Option("--out", metavar="FILE", help="Write the objects there.")] = None,
    json: Json = False,
) -> None:
    """Propose Sidecars and exportTo from observed calls: YAML on standard output, what it saves on standard error.

    Example: pushsim recommend mesh/ --calls istio_requests_total.json --watched 168h --budget 10 > scopes.yaml

    Example: pushsim recommend ecommerce --per workload --json
    """
    from pushsim.errors import writing
    from pushsim.recommend import Limits
    from pushsim.recommend import recommend as run
    from pushsim.scenario import Scenario
    from pushsim.verbs import evidence

    question = Scenario.load(mesh[0]) if len(mesh) == 1 and Scenario.is_one(mesh[0]) else mesh
    read = evidence(
        question, calls, watched=watched, release=release, namespace=namespace, inject=inject, stdin=standard_input()
    )
    say_if_unproven(read.settings.release)
    for text in read.notes:
        note(text)
    found = run(
        read.mesh,
        read.calls,
        read.settings,
        workloads=per == "workload",
        silent=silent,
        export_to=export_to,
        limits=Limits(slack, max_hosts),
        budget=budget,
    )
    if out is not None:
        with writing(out):
            Path(out).write_text(found.yaml(), encoding="utf-8")
    if json:
        print_json(found.to_json())
        return
    if out is None:
        sys.stdout.write(found.yaml())
    _print(found)


def _print(found: Recommendation, most: int = 20) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    from pushsim.figures import amount

    console = Console(stderr=True, highlight=False, markup=False)
    columns = ("object", "proxies", "hosts", "saves", "pushes spared", "calls kept", "risk")
    table = Table(*(Column(n, justify="left" if n == "object" else "right", overflow="fold") for n in columns))
    for each in found.proposals[:most]:
        cells = (each.proxies, each.hosts, amount(each.saved_bytes), each.spared, *_trust(each))
        table.add_row(str(each.subject.ref), *map(str, cells))
    console.print(table)
    if len(found.proposals) > most:
        console.print(f"… {len(found.proposals)} objects in all")
    console.print(
        f"configuration of all proxies: {amount(found.bytes_before)} -> {amount(found.bytes_after)}; "
        f"proxy pushes if each service changes once: {found.pushes_before:,} -> {found.pushes_after:,}"
    )
    console.print(f"{100 * found.coverage:.4g} % of the observed traffic is attributed and keeps its destination")
    for what, why in found.left_out[:most]:
        console.print(f"left out: {what}: {why}", soft_wrap=True)
    if len(found.left_out) > most:
        console.print(f"left out: {len(found.left_out)} in all")


def _trust(proposal: Proposal) -> tuple[object, str]:
    """Calls that it keeps, and what share of the calls may go elsewhere."""
    if proposal.risk is None:
        return "-", "-"
    if proposal.risk.silent:
        return 0, "no call seen"
    share = proposal.risk.unseen_share
    return proposal.calls, "not counted" if share is None else f"{100 * share:.2g} %"
