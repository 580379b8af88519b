"""`pushsim record`: what a real istiod sends, in the recordings' format."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from pushsim.cli.options import Json, print_json


def record(
    istiod_binary: Annotated[
        str,
        typer.Option(
            "--istiod-binary", envvar="PUSHSIM_ISTIOD", metavar="PATH", help="A pilot-discovery, 1.14 to 1.31."
        ),
    ],
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Gets CASE/RELEASE-MODE.json, as `conform` reads.")],
    cases: Annotated[list[str] | None, typer.Argument(metavar="CASE...", help="Case files.")] = None,
    seeds: Annotated[
        list[int] | None, typer.Option("--random", metavar="SEED", help="Make a random case first (repeatable).")
    ] = None,
    kinds: Annotated[
        Literal["all", "core"], typer.Option("--kinds", help="Kinds of objects in random cases; core: fewer.")
    ] = "all",
    steps: Annotated[int, typer.Option("--steps", min=1, help="Changes in a random case.")] = 24,
    mode: Annotated[Literal["sotw", "delta"] | None, typer.Option("--mode", help="Only this xDS mode.")] = None,
    json: Json = False,
) -> None:
    """Record what a real istiod sends to every proxy of a case, step by step, on loopback; exit 3 if it can't be run.

    A recording is written when it is whole: Ctrl-C keeps those that are, and ends istiod.

    Example: pushsim record tests/vectors/cases/services.yaml --istiod-binary ./pilot-discovery --out recorded

    Example: pushsim record --random 7 --random 8 --istiod-binary ./pilot-discovery --out recorded
    """
    from pushsim.proving import record as run

    with _telling(json) as tell:
        written = run(
            cases or (), istiod_binary=istiod_binary, out=out, seeds=seeds or (), kinds=kinds, steps=steps, mode=mode,
            progress=tell,
        )  # fmt: skip
    if json:
        print_json({"written": [str(path) for path in written]})
    else:
        for path in written:
            typer.echo(str(path))


class _telling:  # noqa: N801 - a context manager that reads as a word
    """Says where the recording is: one changing line on a terminal, a line per case and mode elsewhere."""

    def __init__(self, quiet: bool) -> None:
        from rich.console import Console
        from rich.status import Status

        console = Console(stderr=True, highlight=False)
        self._status = Status("", console=console) if console.is_terminal and not quiet else None
        self._console = None if quiet else console

    def __enter__(self) -> _telling:
        if self._status:
            self._status.start()
        return self

    def __call__(self, text: str) -> None:
        if self._status:
            self._status.update(text)
        elif self._console and ": step " not in text:
            self._console.print(text, markup=False, soft_wrap=True)

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()
