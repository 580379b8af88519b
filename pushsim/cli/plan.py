"""`pushsim plan`: which proxies a change would push, with what, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from pushsim.cli.options import (
    Inject,
    Json,
    Namespace,
    Release,
    XdsMode,
    note,
    print_json,
    say_if_unproven,
    standard_input,
)
from pushsim.figures import amount

if TYPE_CHECKING:
    from pushsim.mesh import Proxy
    from pushsim.preview import Group, Preview


def plan(
    mesh: Annotated[list[str] | None, typer.Argument(metavar="MESH...", help="Manifests: files, folders or -.")] = None,
    change: Annotated[
        list[str] | None, typer.Option("--change", "-c", help="File or folder of objects to write (repeatable).")
    ] = None,
    delete: Annotated[
        list[str] | None,
        typer.Option("--delete", "-d", help="[group/]Kind/[namespace/]name of an object to delete (repeatable)."),
    ] = None,
    release: Release = None,
    mode: XdsMode = None,
    explain: Annotated[
        str | None,
        typer.Option(
            "--explain", metavar="POD.NS", help="One proxy's reasoning, rule by rule (rules: pushsim/dependencies.py)."
        ),
    ] = None,
    inject: Inject = "detect",
    namespace: Namespace = "default",
    case: Annotated[str | None, typer.Option("--case", help="A case file: mesh, proxies and steps in one.")] = None,
    json: Json = False,
) -> None:
    """Say which proxies a change would push, which xDS types and bytes, and which rule lets it through.

    Example: pushsim plan mesh/ --change new-service.yaml --release 1.24

    Example: kubectl get svc,endpointslices,pods,ns -A -o yaml | pushsim plan - --delete Sidecar/istio-system/default
    """
    from pushsim import releases
    from pushsim.asking import asked
    from pushsim.errors import InputError, NotThere
    from pushsim.preview import preview, preview_case

    wanted = releases.rules(release or releases.NEWEST)
    say_if_unproven(wanted.release)
    if case is not None:
        from pushsim.cases import load_case

        answer = preview_case(load_case(case, mesh, change, delete), release=wanted.release, mode=mode)
        if json:
            print_json(answer)
        else:
            for step in answer["steps"]:
                sent = {p: r for p, r in step["responses"].items() if r}
                typer.echo(f"{step['name']}: {len(sent)} of {len(step['responses'])} proxies")
                for proxy, responses in sent.items():
                    types = " ".join(f"{'*' if r['solicited'] else ''}{r['xds']}:{r['resources']}" for r in responses)
                    typer.echo(f"  {proxy}  {types}  because {responses[0]['why']}")
        return
    question = asked(mesh or (), change or (), delete or (), namespace=namespace, inject=inject, stdin=standard_input())
    for text in question.notes:
        note(text)
    answer_of = preview(question.mesh, question.change, release=wanted.release, mode=mode)
    if json:
        print_json(answer_of.to_json())
    elif explain is not None:
        try:
            typer.echo("\n".join(answer_of.explain(explain)))
        except NotThere as error:
            raise InputError(replace(each, field="--explain") for each in error.problems) from None
    else:
        _print(answer_of)


def _print(answer: Preview) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    *head, counts = str(answer).splitlines()
    for line in head:
        console.print(line, soft_wrap=True, markup=False)
    console.print(counts, style="bold", markup=False)
    for group in answer.pushed:
        console.print()
        console.print(f"[bold green]pushed[/bold green]  {members(group.proxies)}", soft_wrap=True)
        console.print(f"  {_types(group)}", soft_wrap=True)
        for rule in group.why:
            console.print(f"  because {rule}", soft_wrap=True, markup=False)
    for group in answer.spared:
        console.print()
        console.print(f"[bold]spared[/bold]  {members(group.proxies)}", soft_wrap=True)
        for rule in group.why:
            console.print(f"  because {rule}", soft_wrap=True, markup=False)


def _types(group: Group) -> str:
    return " · ".join(
        f"{t.xds}{' (asked for)' if t.solicited else ''} {t.resources}"
        + (f" -{t.removed}" if t.removed else "")
        + f" ({amount(t.size_bytes)})"
        for t in group.types
    )


def members(proxies: Sequence[Proxy], most: int = 12) -> str:
    """How many proxies, and the first of them by name."""

    def named(proxy: Proxy) -> str:
        return proxy.id if proxy.type == "sidecar" else f"{proxy.id} ({proxy.type})"

    count = len(proxies)
    shown = ", ".join(named(proxy) for proxy in proxies[:most])
    return f"{count} {'proxy' if count == 1 else 'proxies'}: {shown}" + (", …" if count > most else "")
