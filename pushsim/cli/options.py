"""Options that several verbs share, and how results are printed."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated, Any, Literal

import typer

Release = Annotated[str | None, typer.Option("--release", "-r", help="Istio release or patch. [default: newest]")]
XdsMode = Annotated[
    Literal["sotw", "delta"] | None, typer.Option("--mode", help="xDS mode. [default: what that release's agent uses]")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Namespace of objects that name none.")]
Inject = Annotated[
    Literal["all", "labelled", "detect"],
    typer.Option("--inject", help="Which pods have a proxy: all, by Istio's labels, or as detected."),
]


Jobs = Annotated[int, typer.Option("--jobs", min=0, help="Runs at once, each in a process. [default: all cores]")]


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


def stdin_bytes() -> bytes:
    """All of standard input."""
    return sys.stdin.buffer.read()
