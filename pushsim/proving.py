"""The verbs of the command line that run real processes, as functions with the same options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pushsim.calibrate import needs_its_extra, save
from pushsim.cases import load_case
from pushsim.cost import Calibration
from pushsim.errors import InputError, Problem
from pushsim.given import Asked, Paths, as_paths, loaded
from pushsim.istiod import detect_release
from pushsim.mesh import Mode
from pushsim.parity import Parity
from pushsim.parity import parity as proving
from pushsim.record import MODES, random_case_file, record_case
from pushsim.replay import Access, Progress, Running, replay_on
from pushsim.replay import replay as replaying
from pushsim.replay.fleet import target_of
from pushsim.result import Results
from pushsim.runs import Detail


def replay(
    scenario: Asked,
    istiod_binary: str | Path | None = None,
    variants: Sequence[str] | None = None,
    *,
    out: str | Path | None = None,
    cores: Sequence[int] | None = None,
    workers: int = 0,
    detail: Detail = "group",
    keep_log: bool = False,
    envoy: str | Path | None = None,
    istiod: str | None = None,
    observe: bool = False,
    context: str | None = None,
    kubeconfig: str = "",
    namespace_prefix: str = "pushsim-",
    metrics: str = "",
    release: str = "",
    ca: str | Path | None = None,
    cert: str | Path | None = None,
    key: str | Path | None = None,
    server_name: str | None = None,
    token_file: str | Path | None = None,
    progress: Progress | None = None,
) -> Results:
    """The scenario on a real istiod, into the same results as `simulate`'s.

    istiod_binary: a pilot-discovery, run on this machine. variants: names, or `--policy` texts; default: all.
    out:      a folder for one result folder per variant, each written as soon as its variant is done.
    cores:    istiod's, by number. workers: client processes.
    detail:   "proxy" keeps a row per response. keep_log: istiod's log goes into the result folder, too.
    envoy:    an Envoy that rides along as one more proxy: its memory and CPU go into the result. istiod then runs
              without its own filters, which a stock Envoy can't load.
    istiod:   HOST:PORT of one that runs already, instead; `observe` it, or write to the kubeconfig's `context`, into
              namespaces of one's own (`namespace_prefix`), deleted at the end.
    metrics:  the page of its metrics. release: its release; default: as its metrics say.
    ca, cert, key, server_name, token_file: how it is spoken to over TLS.

    After an interrupt, or where istiod died, the last result has `complete` False; later variants are absent. Raises
    EnvironmentProblem and InputError where nothing began.
    """
    asked = loaded(scenario)
    if istiod is None:
        if istiod_binary is None:
            raise InputError(Problem("no istiod given", remedy="give istiod_binary, or istiod=HOST:PORT"))
        binary = Path(istiod_binary)
        results = replaying(
            asked,
            binary,
            variants,
            out=out,
            progress=progress,
            detail=detail,
            cores=cores,
            workers=workers,
            keep_log=keep_log,
            envoy=Path(envoy) if envoy is not None else None,
        )
        return Results(results, asked.question)
    if observe == (context is not None):
        remedy = "give --observe to write nothing, or --context NAME to write to that cluster"
        raise InputError(Problem("is it to be watched or written to?", field="--istiod", remedy=remedy))
    access = Access(context, kubeconfig, namespace_prefix) if context is not None else None
    running = Running(target_of(istiod, ca, cert, key, server_name, token_file), metrics, release, access)
    results = replay_on(asked, running, variants, out=out, progress=progress, detail=detail, workers=workers)
    return Results(results, asked.question)


def parity(
    scenario: Asked,
    istiod_binary: str | Path,
    variants: Sequence[str] | None = None,
    *,
    repeat: int = 5,
    one_by_one: int = 10,
    tolerances: Mapping[str, float] | None = None,
    cores: Sequence[int] | None = None,
    workers: int = 0,
    cpu_speed: float | None = None,
    out: str | Path | None = None,
) -> Parity:
    """Simulated and replayed, side by side with the error of every figure.

    istiod_binary, variants: as for `replay`.
    repeat:     how often each variant is replayed. one_by_one: so many changes are compared response by response first.
    tolerances: by figure ("received_s.p99"), or "" for all, as shares. cores, workers: as for `replay`.
    cpu_speed:  this machine's, as a calibration has it. None: measured beside the replays.
    out:        a folder for the results of all runs.

    Raises EnvironmentProblem and InputError where nothing began.
    """
    return proving(
        loaded(scenario),
        Path(istiod_binary),
        variants,
        repeat=repeat,
        one_by_one=one_by_one,
        tolerances=tolerances,
        cores=cores,
        workers=workers,
        cpu_speed=cpu_speed,
        out=out,
    )


def record(
    cases: Paths = (),
    *,
    istiod_binary: str | Path,
    out: str | Path,
    seeds: Sequence[int] = (),
    kinds: Literal["all", "core"] = "all",
    steps: int = 24,
    mode: Mode | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """What a real istiod sends to every proxy of cases, step by step, in the recordings' format.

    istiod_binary: a pilot-discovery. cases: case files.
    seeds: of random cases that are made first, of so many `steps` and these `kinds` of objects.
    out:   a folder; gets CASE/RELEASE-MODE.json. mode: only this one.

    Returns the files written, each when it is whole. Raises InputError and EnvironmentProblem.
    """
    paths = as_paths(cases, "cases")
    if not paths and not seeds:
        raise InputError(
            Problem(
                "no case given", remedy="name case files, or seeds of random cases, as `pushsim record --random 7` does"
            )
        )
    binary, folder = Path(istiod_binary), Path(out)
    read = [load_case(path) for path in paths]
    detect_release(binary)  # before anything is written
    written = [random_case_file(seed, folder, steps=steps, kinds=kinds) for seed in seeds]
    for case in [*read, *map(load_case, written)]:
        written += record_case(case, binary, folder, (mode,) if mode else MODES, progress)
    return written


def calibrate(
    istiod_binary: str | Path | None = None,
    prometheus: Paths = (),
    config_dump: Paths = (),
    envoy: str | Path | None = None,
    release: str | None = None,
    *,
    out: str | Path | None = None,
    window: str | None = None,
    repeats: int = 2,
    size: float = 1.0,
    speed_only: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Calibration:
    """The cost model fitted to one's own istiod and proxies; what they do not tell is kept, marked as not fitted.

    istiod_binary: a pilot-discovery: its CPU and memory, by probes run `repeats` times, scaled by `size`.
    speed_only:    just `cpu_speed`, of this machine for that istiod's work; all else as shipped.
    prometheus:    an istiod's metrics, a server or pages, over a `window`. config_dump: of proxies; wants `envoy`.
    envoy:         an Envoy: memory and CPU of proxies.
    release:       default: the binary's, else the newest.
    out:           the file to write; on an interrupt, too, with what was fitted by then.

    Raises EnvironmentProblem, InputError, KeyboardInterrupt.
    """
    needs_its_extra()
    from pushsim.calibrate.whole import fitted

    found, whole = fitted(
        istiod_binary,
        as_paths(prometheus, "prometheus"),
        as_paths(config_dump, "config_dump"),
        envoy,
        release,
        window=window,
        repeats=repeats,
        size=size,
        speed_only=speed_only,
        progress=progress,
    )
    if out is not None and found.fit:
        save(found, Path(out))
    if not whole:
        raise KeyboardInterrupt
    return found
