"""Options that several verbs share, and how results are printed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from pushsim.scenario import Scenario

Release = Annotated[
    str | None,
    typer.Option(
        "--release", "-r", help="Istio release or patch. [default: 1.31, a candidate without recordings; 1.30 has them]"
    ),
]
XdsMode = Annotated[
    Literal["sotw", "delta"] | None, typer.Option("--mode", help="xDS mode. [default: what that release's agent uses]")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Namespace of objects that name none.")]
Inject = Annotated[
    Literal["all", "labelled", "detect"],
    typer.Option(
        "--inject",
        help="Which pods have a proxy. labelled: those that Istio's labels inject; detect: these and any with one.",
    ),
]
Engine = Annotated[
    Literal["auto", "simpy", "kernel"],
    typer.Option("--engine", help="kernel is compiled, for large runs; auto: the faster. Answers are the same."),
]
Jobs = Annotated[
    int,
    typer.Option("--jobs", min=0, help="Runs at once, each in a process. [default: all cores]", show_default=False),
]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def print_json(value: Any) -> None:
    """Print JSON as scripts read it: keys in order of making, no escapes."""
    json.dump(value, sys.stdout, ensure_ascii=False, separators=(", ", ": "))
    sys.stdout.write("\n")


def note(text: str) -> None:
    """Say something beside the answer, on standard error."""
    print(f"note: {text}", file=sys.stderr)


def say_if_unproven(release: str) -> None:
    """Say in a line that a release has no recordings, if it has none."""
    from pushsim.releases import unproven

    if told := unproven(release):
        note(told)


def scenario_at(path: str) -> Scenario:
    """The scenario in that file, or the bundled one; on standard error, what reading its manifests had to say."""
    from pushsim.scenario import Scenario

    found = Scenario.load(path)
    tell_notes(found)
    return found


def tell_notes(*scenarios: Scenario) -> None:
    """What reading the manifests of scenarios had to say, each thing once."""
    for text in dict.fromkeys(text for scenario in scenarios for text in scenario.notes):
        note(text)


def standard_input() -> Callable[[], bytes]:
    """Reads all of standard input, once. Raises InputError if it is closed, or was read before."""
    left = [sys.stdin]

    def read() -> bytes:
        from pushsim.errors import InputError, Problem

        if not left:
            raise InputError(Problem("standard input was read already", "-", remedy="give - once, and files beside it"))
        if (given := left.pop()) is None:
            raise InputError(Problem("standard input is closed", remedy="pipe something into it, or name a file"))
        return given.buffer.read()

    return read
