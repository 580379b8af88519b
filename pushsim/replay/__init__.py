"""Replay: the same scenario on a real istiod, and the same Result.

`run` drives one variant through its phases: its istiods (`replicas`) with the stub API as their cluster, a fleet of
`ads` clients in processes of their own (`worker`, `fleet`, `http2`), the changes and restarts on time. `shown` finds
what each response shows, `summary` makes the Result.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pushsim import releases
from pushsim.envoy import detect_version
from pushsim.errors import InputError, Problem
from pushsim.istiod import detect_release
from pushsim.replay.cores import Cores, allot
from pushsim.replay.fleet import Target
from pushsim.replay.kubernetes import Access, prefixed
from pushsim.replay.remote import Remote
from pushsim.replay.run import Progress as RunProgress
from pushsim.replay.run import Record, run, run_on
from pushsim.replay.summary import result_of
from pushsim.result import Result
from pushsim.runs import Detail
from pushsim.scenario import Scenario
from pushsim.settings import Variant

#: Told a variant's name, the phase it is in, and the share (0…1) of the scenario's time that is done.
Progress = Callable[[str, str, float], None]


def adapted(scenario: Scenario, release: str, cores: Cores) -> Scenario:
    """The scenario for a binary's release, with as many cpus as an istiod gets cores: what both runners then run."""
    values: dict[str, object] = {}
    if releases.rules(scenario.release).minor != releases.rules(release).minor:
        values["istiod.release"] = release
    cpus = cores.cpus(scenario.settings.replicas)
    if cpus is not None and scenario.settings.cpus != cpus:
        values["istiod.cpus"] = cpus
    return scenario.replaced(values) if values else scenario


def release_of(binary: Path) -> str:
    """The release of a binary; raises EnvironmentProblem (no such binary) and InputError (a release not known)."""
    release = detect_release(binary)
    try:
        return releases.rules(release).release
    except InputError:
        problem = Problem(f"says that it is release {release!r}, which is not known", str(binary), "", "take another")
        raise InputError(problem) from None


def replay(
    scenario: Scenario,
    binary: Path,
    variants: Sequence[str] | None = None,
    *,
    out: str | Path | None = None,
    progress: Progress | None = None,
    detail: Detail = "group",
    cores: Sequence[int] | None = None,
    workers: int = 0,
    keep_log: bool = False,
    envoy: Path | None = None,
) -> dict[str, Result]:
    """Replay the scenario's variants (all, or those named, in that order), each on istiods of its own.

    binary:   a pilot-discovery; the scenario is adapted to its release and cores (`adapted`).
    out:      folder for one result folder per variant, each written as soon as its variant is done.
    cores:    istiod's, by number; default: the last ones, as many as `istiod.cpus` says, one is left for the clients.
    workers:  client processes; default: one for each of their cores. keep_log: istiod's log goes into the folder, too.
    envoy:    an Envoy that rides along as one more proxy; see `riding`.

    Returns Results by variant. After an interrupt, or where istiod died, the last of them has `complete` False and
    `run["ended"]` says why; later variants are absent. Raises EnvironmentProblem and InputError where nothing began.
    """
    release = release_of(binary)
    own = allot(scenario.settings.cpus, cores, scenario.settings.replicas)
    asked = adapted(scenario, release, own)
    mode = asked.settings.mode or releases.rules(release).agent_mode

    def one(variant: Variant, log_file: Path | None, told: RunProgress) -> Record:
        return asyncio.run(
            run(
                variant,
                binary,
                release,
                mode,
                seed=asked.seed,
                warmup_ns=asked.warmup_ns,
                duration_ns=asked.duration_ns,
                cores=own,
                workers=workers,
                log_file=log_file,
                envoy=envoy,
                progress=told,
            )
        )

    if envoy is not None:
        detect_version(envoy)  # before anything is started
    return _each(asked, variants, one, out, progress, detail, keep_log=keep_log)


@dataclass(frozen=True, slots=True)
class Running:
    """An istiod that runs already: where its clients connect, the page of its metrics ("" if there is none for us).

    release: "" to learn it from the metrics. access: how changes are written; None: nothing is (only watched).
    """

    target: Target
    metrics: str = ""
    release: str = ""
    access: Access | None = None


def replay_on(
    scenario: Scenario,
    running: Running,
    variants: Sequence[str] | None = None,
    *,
    out: str | Path | None = None,
    progress: Progress | None = None,
    detail: Detail = "group",
    workers: int = 0,
) -> dict[str, Result]:
    """Replay on an istiod that runs: as `replay`, but of its process only what its metrics tell is known.

    With access, the scenario's mesh is written into namespaces of its own first and deleted at the end. Without, only
    the scenario's proxies connect, and whatever the cluster's own changes bring is measured.
    """

    def one(variant: Variant, _log_file: Path | None, told: RunProgress) -> Record:
        if running.access is not None:
            variant = prefixed(variant, running.access.prefix)
        return asyncio.run(_on(scenario, variant, running, workers, told))

    return _each(scenario, variants, one, out, progress, detail)


def _each(
    scenario: Scenario,
    variants: Sequence[str] | None,
    one: Callable[[Variant, Path | None, RunProgress], Record],
    out: str | Path | None,
    progress: Progress | None,
    detail: Detail,
    *,
    keep_log: bool = False,
) -> dict[str, Result]:
    """Run variant after variant, and write each result as soon as it is there; one that ended early is the last."""
    results: dict[str, Result] = {}
    for name in scenario.variant_names if variants is None else variants:
        folder = Path(out) / name if out is not None else None
        log_file = None
        if keep_log and folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            log_file = folder / "istiod.log"
        variant, begun = scenario.variant(name), time.perf_counter()
        record = one(variant, log_file, partial(progress, name) if progress is not None else _silent)
        result = result_of(
            variant,
            record,
            {"id": scenario.id, "seed": scenario.seed},
            warmup_ns=scenario.warmup_ns,
            duration_ns=scenario.duration_ns,
            detail=detail == "proxy",
            more={"scenario_path": scenario.path, "seconds": round(time.perf_counter() - begun, 3)},
        )
        results[name] = result
        if folder is not None:
            result.save(folder)
        if not result.complete:
            break
    return results


async def _on(scenario: Scenario, variant: Variant, running: Running, workers: int, told: RunProgress) -> Record:
    remote = Remote(running.target.address, running.metrics, running.release)
    try:
        await remote.identify()
        mode = variant.settings.mode or releases.rules(remote.release).agent_mode
        return await run_on(
            variant,
            remote,
            running.target,
            mode,
            seed=scenario.seed,
            warmup_ns=scenario.warmup_ns,
            duration_ns=scenario.duration_ns,
            access=running.access,
            workers=workers,
            progress=told,
        )
    finally:
        await remote.close()


def _silent(_phase: str, _share: float) -> None:
    """No progress."""


__all__ = [
    "Access",
    "Cores",
    "Progress",
    "Running",
    "Target",
    "adapted",
    "allot",
    "release_of",
    "replay",
    "replay_on",
]
