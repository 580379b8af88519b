"""`pushsim replay`: a scenario on a real istiod."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pushsim.cli.options import Json, note, print_json, scenario_at

if TYPE_CHECKING:
    from pushsim.replay import Progress

Binary = Annotated[
    Path | None,
    typer.Option(
        "--istiod-binary", envvar="PUSHSIM_ISTIOD", metavar="PATH", help="A pilot-discovery, as in every istiod image."
    ),
]
CoreList = Annotated[
    str | None, typer.Option("--cores", metavar="N,N…", help="Cores for istiod alone. [default: the last ones]")
]


def replay(
    scenario: Annotated[str, typer.Argument(metavar="SCENARIO", help="A scenario file, or a bundled one's name.")],
    istiod_binary: Binary = None,
    variant: Annotated[
        list[str] | None, typer.Option("--variant", help="Only this variant, or a --policy text (repeatable).")
    ] = None,
    out: Annotated[str | None, typer.Option("--out", metavar="DIR", help="Write a result folder per variant.")] = None,
    cores: CoreList = None,
    workers: Annotated[
        int, typer.Option("--workers", min=0, help="Client processes. [default: one per core]", show_default=False)
    ] = 0,
    detail: Annotated[
        Literal["group", "proxy"], typer.Option("--detail", help="Rows per group of equal proxies, or per response.")
    ] = "group",
    keep_log: Annotated[bool, typer.Option("--keep-log", help="Keep istiod's log in the result folder.")] = False,
    envoy: Annotated[
        Path | None,
        typer.Option("--envoy", metavar="PATH", help="An Envoy that rides along as a proxy."),
    ] = None,
    istiod: Annotated[
        str | None,
        typer.Option("--istiod", metavar="HOST:PORT", help="Drive this istiod, which runs already, instead."),
    ] = None,
    observe: Annotated[
        bool, typer.Option("--observe", help="With --istiod: write nothing, only connect, watch and measure.")
    ] = False,
    context: Annotated[
        str | None, typer.Option("--context", help="With --istiod: the kubeconfig's context to write to, by its name.")
    ] = None,
    kubeconfig: Annotated[str, typer.Option("--kubeconfig", metavar="FILE", help="[default: as kubectl]")] = "",
    namespace_prefix: Annotated[
        str, typer.Option("--namespace-prefix", help="Before each namespace that is created there.")
    ] = "pushsim-",
    metrics: Annotated[
        str, typer.Option("--metrics", metavar="URL", help="Its metrics page, like http://HOST:15014/metrics.")
    ] = "",
    release: Annotated[str, typer.Option("--release", "-r", help="Its release. [default: as its metrics say]")] = "",
    ca: Annotated[
        str | None, typer.Option("--ca", metavar="FILE", help="Speak TLS (15012), with this authority.")
    ] = None,
    cert: Annotated[str | None, typer.Option("--cert", metavar="FILE", help="Client certificate.")] = None,
    key: Annotated[str | None, typer.Option("--key", metavar="FILE", help="Its key.")] = None,
    server_name: Annotated[str | None, typer.Option("--server-name", help="Name in istiod's certificate.")] = None,
    token_file: Annotated[
        str | None, typer.Option("--token-file", metavar="FILE", help="A service account token.")
    ] = None,
    json: Json = False,
) -> None:
    """Run a scenario's variants on a real istiod on this machine, with a stub API as its cluster, and measure.

    One ADS stream per proxy; the changes are written on time; each replica is a process with cores of its own, and
    `istiod.cpus` is their number. Nothing listens beyond loopback, and nothing is left running. Ctrl-C keeps what
    there is.

    Example: pushsim replay aisuite-small --istiod-binary ./pilot-discovery --variant unscoped --out results/real

    Example: pushsim replay my-mesh.yaml --istiod 127.0.0.1:15010 --metrics http://127.0.0.1:15014/metrics --observe
    """
    from pushsim.cli.simulate import print_results, summary_json
    from pushsim.errors import EnvironmentProblem
    from pushsim.proving import replay as run
    from pushsim.replay import adapted, allot, release_of

    loaded = shown = scenario_at(scenario)
    binary, wanted = None, core_numbers(cores)
    if istiod is None:
        binary = given(istiod_binary)
        given_cores = allot(loaded.settings.cpus, wanted, loaded.settings.replicas)
        shown = adapted(loaded, release_of(binary), given_cores)
    with told(quiet=json) as progress:
        results = run(
            loaded,
            binary,
            variant,
            out=out,
            cores=wanted,
            workers=workers,
            detail=detail,
            keep_log=keep_log,
            envoy=envoy,
            istiod=istiod,
            observe=observe,
            context=context,
            kubeconfig=kubeconfig,
            namespace_prefix=namespace_prefix,
            metrics=metrics,
            release=release,
            ca=ca,
            cert=cert,
            key=key,
            server_name=server_name,
            token_file=token_file,
            progress=progress,
        )
    if json:
        print_json({"source": "replayed", **summary_json(shown, results, whole=results.complete)})
    else:
        print_results(shown, results, "replayed")
    last = next(reversed(list(results.values())), None)
    if last is not None and not last.complete:
        ended = str(last.run["ended"])
        if ended != "interrupted":
            raise EnvironmentProblem(ended + ("\nwhat came until then was kept" if out else ""))
        if out:
            note("what there is was kept, marked complete: false")
        raise KeyboardInterrupt


def given(binary: Path | None) -> Path:
    """The binary, wherever it was named; raises InputError if it was not."""
    from pushsim.errors import InputError, Problem

    if binary is None:
        remedy = "give --istiod-binary PATH or set PUSHSIM_ISTIOD; `pilot-discovery` is in every istiod image"
        raise InputError(Problem("no istiod binary given", remedy=remedy))
    return binary


def core_numbers(text: str | None) -> list[int] | None:
    """`2,3` as numbers; raises InputError."""
    from pushsim.errors import InputError, Problem

    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(Problem(f"{text!r} is no list of cores", field="--cores", remedy="write 2,3")) from None


@contextmanager
def told(*, quiet: bool) -> Iterator[Progress | None]:
    """A line of progress on a terminal: the variant, the phase, and how far it is."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield None
        return
    with Bar(console=console, transient=True) as bar:
        task = bar.add_task("starting istiod", total=1.0)
        yield lambda name, phase, share: bar.update(task, description=f"{name}: {phase}", completed=share)
