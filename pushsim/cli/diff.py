"""`pushsim diff-releases`: what an upgrade of istiod changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pushsim.cli.options import (
    Inject,
    Json,
    Namespace,
    XdsMode,
    note,
    print_json,
    say_if_unproven,
    scenario_at,
    standard_input,
)
from pushsim.cli.plan import members
from pushsim.cli.progress import bars
from pushsim.figures import amount

if TYPE_CHECKING:
    from pushsim.diff import ReleaseDiff, ScenarioDiff, Side
    from pushsim.preview import Preview


def diff_releases(
    old: Annotated[str, typer.Option("--from", metavar="RELEASE", help="Istio release or patch there is.")],
    new: Annotated[str, typer.Option("--to", metavar="RELEASE", help="Istio release or patch to come.")],
    mesh: Annotated[list[str] | None, typer.Argument(metavar="MESH...", help="Manifests: files, folders or -.")] = None,
    change: Annotated[
        list[str] | None, typer.Option("--change", "-c", help="File or folder of objects to write (repeatable).")
    ] = None,
    delete: Annotated[
        list[str] | None,
        typer.Option("--delete", "-d", help="[group/]Kind/[namespace/]name of an object to delete (repeatable)."),
    ] = None,
    scenario: Annotated[
        str | None, typer.Option("--scenario", help="Instead of MESH and changes: a scenario file, or a bundled one.")
    ] = None,
    variant: Annotated[str | None, typer.Option("--variant", help="Of the scenario. [default: its first]")] = None,
    mode: XdsMode = None,
    inject: Inject = "detect",
    namespace: Namespace = "default",
    json: Json = False,
) -> None:
    """Say what an upgrade of istiod changes: who is pushed more or less, and by which rule and pull request.

    Example: pushsim diff-releases mesh/ --change new-service.yaml --from 1.14 --to 1.24

    Example: pushsim diff-releases --scenario aisuite-small --from 1.14 --to 1.24
    """
    from pushsim import releases
    from pushsim.asking import asked
    from pushsim.diff import diff_releases as run
    from pushsim.diff import diff_scenario
    from pushsim.errors import InputError, Problem

    for release in (old, new):
        say_if_unproven(releases.rules(release).release)
    if scenario is not None:
        if mesh or change or delete:
            raise InputError(
                Problem("a scenario has a mesh and changes of its own", field="--scenario", remedy="give one")
            )
        loaded = scenario_at(scenario)
        if mode is not None:
            loaded = loaded.replaced({"proxies.mode": mode})
        with bars([old, new], quiet=json) as tell:
            found = diff_scenario(loaded, old, new, variant=variant, progress=tell)
        if not found.results.complete:
            raise KeyboardInterrupt
        if json:
            print_json(found.to_json())
        else:
            _print_scenario(found)
        return
    question = asked(mesh or (), change or (), delete or (), namespace=namespace, inject=inject, stdin=standard_input())
    for text in question.notes:
        note(text)
    with bars(["rules"], quiet=json) as tell:
        share = lambda done: tell("rules", done)  # noqa: E731
        answer = run(question.mesh, question.change, old, new, mode=mode, progress=share)
    if json:
        print_json(answer.to_json())
    else:
        _print(answer)


def _print(answer: ReleaseDiff) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    for preview in (answer.old, answer.new):
        console.print(_headline(preview))
    changed = sum(len(shift.proxies) for shift in answer.shifts)
    everyone = sum(len(group.proxies) for group in answer.new.groups)
    console.print(f"[bold]{changed} of {everyone} proxies get something else[/bold]")
    for shift in answer.shifts:
        console.print()
        console.print(members(shift.proxies), soft_wrap=True, markup=False)
        for preview, side in ((answer.old, shift.before), (answer.new, shift.after)):
            console.print(f"  {preview.rules.release:8} {_types(side)}", soft_wrap=True, markup=False)
            for reason in side.why[:3]:
                console.print(f"           because {reason}", soft_wrap=True, markup=False)
        for rule in shift.rules:
            console.print(f"  rule: {rule}", soft_wrap=True, markup=False)
            console.print(f"        {rule.about}", soft_wrap=True, markup=False)
        if not shift.rules:
            console.print("  several rules together: putting back any one of them alone changes nothing here")


def _headline(preview: Preview) -> str:
    pushed = sum(len(group.proxies) for group in preview.pushed)
    size = sum(group.size_bytes * len(group.proxies) for group in preview.pushed)
    return f"Istio {preview.rules.release}, {preview.mode}: {pushed} proxies pushed, {amount(size)}"


def _types(side: Side) -> str:
    told = (
        f"{t.xds}{' (asked for)' if t.solicited else ''} {t.resources}{f' -{t.removed}' if t.removed else ''}"
        for t in side.types
    )
    return f"{' · '.join(told)}, {amount(side.size_bytes)}" if side.types else "nothing"


def _print_scenario(found: ScenarioDiff) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    console, counts = Console(highlight=False), found.counts()
    old, new = counts.columns
    console.print(found.results.question)
    table = Table(Column(overflow="fold"), "", old, new, "change")
    for (kind, what), row in zip(counts.index, counts.itertuples(index=False), strict=True):
        before, after = (int(value) for value in row)
        shown = (amount(value) if what == "bytes sent" else f"{value:,}" for value in (before, after))
        table.add_row(kind, what, *shown, _change(before, after))
    console.print(table)
    console.print(
        f"{len(found.rules)} rules differ between {old} and {new} (--json lists them with their pull requests)"
    )


def _change(before: int, after: int) -> str:
    if before == after:
        return "same"
    return f"{100 * (after / before - 1):+.0f} %" if before else "new"
