"""Says what can be run here: is there an istiod, of which release, and will ports, limits, cores and memory do.

Looks only at this machine, starts nothing but `BINARY version`, and changes nothing.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pushsim.errors import EnvironmentProblem

Verdict = Literal["ok", "warning", "problem"]

#: What each extra is for, and a module of each of its packages.
EXTRAS: dict[str, tuple[str, tuple[str, ...]]] = {
    "replay": ("replay, record, parity", ("aiohttp", "hpack", "psutil", "envoy.service.discovery.v3.discovery_pb2")),
    "calibrate": ("calibrate", ("aiohttp", "hpack", "psutil", "trustme")),
    "notebooks": ("plots and reports", ("matplotlib", "jinja2")),
    "distributed": ("sweeps on several machines", ("distributed",)),
    "cluster": ("reading a live cluster", ("lightkube",)),
    "webhook": ("the admission webhook", ("aiohttp", "jsonpatch")),
}
RELEASES = (14, 31)
FILES_BESIDE = 256
MEMORY_PER_PROXY = 2 << 20
MEMORY_OF_ISTIOD = 512 << 20


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: what it is, how it is, and what to do about it ("" if nothing)."""

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""


def doctor(
    istiod_binary: str | Path | None = None, *, ports: tuple[int, ...] = (0, 0, 0, 0), proxies: int = 200
) -> list[Check]:
    """What can be run on this machine; never raises.

    istiod_binary: a pilot-discovery; None takes that of PUSHSIM_ISTIOD.
    proxies:       how many are to be replayed. ports: those the replay is to use (0: any).

    Returns a Check each: name, verdict ("ok", "warning" or "problem"), what was found, and what to do. Nothing but a
    "problem" keeps a replay from running.
    """
    named = istiod_binary or os.environ.get("PUSHSIM_ISTIOD")
    binary = Path(named) if named else None
    extras = [_extra(name, purpose, modules) for name, (purpose, modules) in EXTRAS.items()]
    if extras[0].verdict != "ok":
        return [_python(), *extras]
    looks: list[Callable[[], Check]] = [
        lambda: _binary(binary),
        lambda: _ports(ports),
        lambda: _open_files(proxies),
        lambda: _memory(proxies),
        _cores,
        _orphans,
    ]
    return [_python(), *extras, *(look() for look in looks)]


def extras_with(module: str, verb: str) -> list[str]:
    """The extras that bring a module: those that the verb is named with, else all; none for what is in no extra."""
    top = module.partition(".")[0]
    having = {
        name: (name, *purpose.split(", "))
        for name, (purpose, modules) in EXTRAS.items()
        if top in (known.partition(".")[0] for known in modules)
    }
    return [name for name, verbs in having.items() if verb in verbs] or list(having)


def _python() -> Check:
    return Check("python", "ok", ".".join(map(str, sys.version_info[:3])))


def _extra(name: str, purpose: str, modules: tuple[str, ...]) -> Check:
    missing = []
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError:
            missing.append(module.partition(".")[0])
    if missing:
        verdict: Verdict = "problem" if name == "replay" else "warning"
        return Check(f"extra {name}", verdict, f"no {', '.join(missing)}", f"for {purpose}: install pushsim[{name}]")
    return Check(f"extra {name}", "ok", "installed")


def _binary(path: Path | None) -> Check:
    from pushsim.istiod import detect_release

    if path is None:
        remedy = "give --istiod-binary PATH or set PUSHSIM_ISTIOD; `pilot-discovery` is in every istiod image"
        return Check("istiod", "problem", "no binary given", remedy)
    try:
        release = detect_release(path)
    except EnvironmentProblem as problem:
        return Check("istiod", "problem", str(problem), "give the path of a pilot-discovery built for this machine")
    parts = release.split(".")
    if len(parts) < 2 or parts[0] != "1" or not parts[1].isdigit():
        return Check("istiod", "warning", f"{path} says it is {release!r}", "name its release with --release")
    if not RELEASES[0] <= int(parts[1]) <= RELEASES[1]:
        known = f"1.{RELEASES[0]} to 1.{RELEASES[1]}"
        return Check("istiod", "warning", f"{path} is {release}", f"proven for {known}: expect differences")
    return Check("istiod", "ok", f"{path} is {release}")


def _ports(ports: tuple[int, ...]) -> Check:
    from pushsim.istiod import free_ports

    try:
        free_ports(ports)
    except EnvironmentProblem as problem:
        return Check("ports", "problem", str(problem), "end what listens there, or leave the ports to pushsim")
    wanted = ", ".join(str(port) for port in ports if port) or "any"
    return Check("ports", "ok", f"{wanted}: free on loopback")


def _open_files(proxies: int) -> Check:
    if sys.platform == "win32":
        return Check("open files", "warning", "unknown here")
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = proxies + FILES_BESIDE  # a connection each, in one process; the soft limit is raised as far as need be
    if hard == resource.RLIM_INFINITY:
        return Check("open files", "ok", "no limit")
    if hard < wanted:
        return Check("open files", "problem", f"limit {hard}, {wanted} wanted", f"ulimit -Hn {wanted}, as root")
    return Check("open files", "ok", f"limit {hard}, {wanted} wanted")


def _memory(proxies: int) -> Check:
    import psutil

    available, wanted = psutil.virtual_memory().available, MEMORY_OF_ISTIOD + proxies * MEMORY_PER_PROXY
    found = f"{available / 2**30:.1f} GiB available, about {wanted / 2**30:.1f} for {proxies} proxies"
    if available < wanted:
        return Check("memory", "warning", found, "replay fewer proxies, or free memory")
    return Check("memory", "ok", found)


def _cores() -> Check:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if count < 2:
        return Check("cores", "warning", str(count), "istiod and its clients share it: trust no times")
    return Check("cores", "ok", str(count))


def _orphans() -> Check:
    if sys.platform == "linux":
        return Check("cleaning up", "ok", "istiod ends with pushsim, even if that is killed")
    return Check("cleaning up", "warning", f"on {sys.platform}, killing pushsim leaves its istiod", "end it by its id")
