"""`pushsim import`: meshes from elsewhere; `pushsim inspect`: what proxies really have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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

imports = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

To = Annotated[str, typer.Option("--to", metavar="FILE", help="The file to write; - is standard output.")]


@imports.callback()
def import_() -> None:
    """Make manifests of a live cluster or of istiod's debug pages, and a scenario of a file of pilot-load.

    Example: pushsim import cluster --to mesh.json && pushsim plan mesh.json --change new-service.yaml
    """


@imports.command("pilot-load")
def pilot_load(
    path: Annotated[str, typer.Argument(metavar="FILE", help="A cluster file of pilot-load.")],
    to: To = "-",
    duration: Annotated[str, typer.Option("--duration", help="Simulated time that is counted.")] = "5m",
    release: Annotated[str, typer.Option("--release", "-r", help="Istio release.")] = "1.24",
) -> None:
    """A cluster file of pilot-load to a scenario.

    Example: pushsim import pilot-load cluster.yaml --to scenario.yaml && pushsim simulate scenario.yaml
    """
    from pushsim.importers import from_pilot_load

    found = from_pilot_load(path, duration=duration, release=release)
    for text in found.notes:
        note(text)
    _write(found.text, to)


@imports.command("debug")
def debug(
    paths: Annotated[list[str], typer.Argument(metavar="PAGE...", help="registryz endpointShardz configz adsz mesh.")],
    to: To = "-",
) -> None:
    """Pages of istiod's /debug, saved as they are, to manifests.

    Example: for p in registryz endpointShardz configz adsz mesh; do curl -s localhost:15014/debug/$p > $p.json; done;
    pushsim import debug *.json --to mesh.json
    """
    from pushsim.importers import from_debug

    _write(from_debug(paths), to)


@imports.command("cluster")
def cluster(
    to: To = "-",
    kubeconfig: Annotated[str | None, typer.Option("--kubeconfig", help="[default: as kubectl finds it]")] = None,
    context: Annotated[str | None, typer.Option("--context", help="Of the kubeconfig. [default: its own]")] = None,
    page: Annotated[int, typer.Option("--page", min=1, help="Objects of one page.")] = 500,
) -> None:
    """A live cluster to manifests: read-only, in pages, without Secrets.

    Example: pushsim import cluster --context staging --to mesh.json
    """
    from rich.console import Console
    from rich.status import Status

    from pushsim.cluster import read

    console = Console(stderr=True, highlight=False)
    status = Status("", console=console)
    if console.is_terminal:
        status.start()
    try:
        text = read(kubeconfig, context=context, page=page, progress=lambda kind, n: status.update(f"{kind}: {n}"))
    finally:
        status.stop()
    _write(text, to)


def _write(text: str, to: str) -> None:
    from pushsim.errors import writing

    if to == "-":
        typer.echo(text, nl=False)
        return
    with writing(to):
        Path(to).write_text(text, encoding="utf-8")
    typer.echo(to)


def inspect(
    mesh: Annotated[list[str], typer.Argument(metavar="MESH...", help="Manifests: files, folders or -.")],
    dump: Annotated[str, typer.Option("--dump", metavar="FILE", help="A config_dump, or istiod's /debug/adsz.")],
    proxy: Annotated[str, typer.Option("--proxy", metavar="POD.NS", help="Whose config_dump; of adsz, only it.")] = "",
    release: Release = None,
    mode: XdsMode = None,
    inject: Inject = "detect",
    namespace: Namespace = "default",
    json: Json = False,
) -> None:
    """Compare what proxies really have with what they would have; exit 1 on a difference.

    Example: pushsim inspect mesh.json --dump adsz.json --release 1.24

    Example: istioctl proxy-config all web-0.shop -o json > dump.json

    Example: pushsim inspect mesh/ --dump dump.json --proxy web-0.shop
    """
    from dataclasses import asdict, replace

    from pushsim import releases
    from pushsim.files import load
    from pushsim.importers import inspect as compare
    from pushsim.settings import PROFILES, overlay

    say_if_unproven(release or releases.NEWEST)
    loaded = load(mesh, namespace=namespace, inject=inject, stdin=standard_input())
    for text in loaded.notes:
        note(text)
    there = loaded.mesh
    if not there.mesh_config:
        there = replace(there, mesh_config=overlay(PROFILES["default"], {}))
    found = compare(there, dump, proxy=proxy, release=release or releases.NEWEST, mode=mode)
    if json:
        print_json([asdict(held) for held in found])
    else:
        for held in found:
            typer.echo(f"{held.proxy} {held.xds}: {held.equal} equal")
            for what, names in (("only in the proxy", held.only_held), ("only predicted", held.only_predicted)):
                if names:
                    typer.echo(f"  {what}: {', '.join(names)}")
    if any(held.only_held or held.only_predicted for held in found):
        raise typer.Exit(1)
