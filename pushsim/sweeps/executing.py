"""Runs of a sweep, carried out on local processes or on a Dask cluster; whoever does it, the answer is the same text.

A worker that is lost costs the runs it was at, and they are given to another; a run that takes its worker with it three
times is given up.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context
from typing import Any, cast

from pushsim import __version__
from pushsim.errors import EnvironmentProblem, InputError, Problem
from pushsim.runs import Engine, How, run
from pushsim.scenario import Scenario
from pushsim.sweeps.grid import Point
from pushsim.workers import deaf, interrupt_held

#: How often a run may lose its worker.
ATTEMPTS = 3
#: How long a scheduler may take to answer, in seconds.
CONNECT_S = 10
#: A scheduler's address.
_ADDRESS = re.compile(r"inproc://.+|\w+://.+:\d+")

#: What a run is made of, as workers get it: key, scenario, policy, engine.
Task = tuple[str, Scenario, str, Engine]


def run_one(task: Task) -> tuple[str, str]:
    """Carry out one run, wherever: its key and the text of its result.json."""
    key, scenario, policy, engine = task
    return key, run(scenario, policy, How(engine, tables=False)).text()


def execute(points: Sequence[Point], *, engine: Engine, jobs: int, scheduler: str | None) -> Iterator[tuple[str, str]]:
    """(key, text of result.json) of each run, as it is done.

    Raises InputError and what else a run may raise; EnvironmentProblem if the scheduler can't be reached, or a run
    loses its worker too often. Closing the iterator ends what is still running.
    """
    tasks: dict[str, Task] = {point.key: (point.key, point.scenario, point.policy, engine) for point in points}
    names = {point.key: point.name for point in points}
    if scheduler is not None:
        return _on_dask(tasks, names, scheduler)
    if jobs <= 1:
        return (run_one(task) for task in tasks.values())
    return _in_processes(tasks, names, jobs)


def _in_processes(tasks: dict[str, Task], names: dict[str, str], jobs: int) -> Iterator[tuple[str, str]]:
    left, lost = dict(tasks), Counter[str]()
    while left:
        pool = ProcessPoolExecutor(min(jobs, len(left)), get_context("spawn"), deaf)
        try:
            waiting = list(left.items())
            at_work: dict[Future[tuple[str, str]], str] = {}
            while waiting or at_work:
                while waiting and len(at_work) < jobs:  # no more than are at work: if a process dies, these are suspect
                    key, task = waiting.pop(0)
                    with interrupt_held():
                        at_work[pool.submit(run_one, task)] = key
                for future in wait(at_work, return_when=FIRST_COMPLETED).done:
                    key, text = future.result()
                    del at_work[future], left[key]
                    yield key, text
        except BrokenProcessPool:
            lost.update(at_work.values())
            _give_up(lost, names)
        finally:
            _end(pool)


def _give_up(lost: Counter[str], names: dict[str, str]) -> None:
    for key, times in lost.items():
        if times >= ATTEMPTS:
            raise EnvironmentProblem(
                f"{names[key]}: its process was lost {times} times (killed, or out of memory?); run with fewer jobs"
            )


def _end(pool: ProcessPoolExecutor) -> None:
    """End the pool's processes, whatever they are at."""
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()


def _on_dask(tasks: dict[str, Task], names: dict[str, str], scheduler: str) -> Iterator[tuple[str, str]]:
    import distributed
    from distributed.scheduler import KilledWorker

    if not _ADDRESS.fullmatch(scheduler):  # Dask itself says so after a while, and with a traceback
        raise InputError(Problem(f"{scheduler!r} is no address", field="--scheduler", remedy="write tcp://HOST:PORT"))
    try:
        client: Any = cast(Any, distributed.Client)(scheduler, timeout=CONNECT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise EnvironmentProblem(
            f"no Dask scheduler at {scheduler}: {error}; start one with `dask scheduler`"
        ) from None
    with client:
        _check_versions(client, scheduler)
        futures = [client.submit(run_one, task, key=f"pushsim-{key}", pure=False) for key, task in tasks.items()]
        try:
            for future in cast(Any, distributed.as_completed)(futures, loop=client.loop):
                try:
                    found: tuple[str, str] = future.result()
                except KilledWorker:
                    key = str(future.key).removeprefix("pushsim-")
                    raise EnvironmentProblem(f"{names[key]}: the cluster lost its worker too often") from None
                future.release()
                yield found
        finally:
            with suppress(Exception):  # the scheduler may be what was lost
                client.cancel(futures, force=True)


def _check_versions(client: Any, scheduler: str) -> None:
    """Workers of another version would give other answers under the same key."""
    try:
        found = client.run(version)
    except Exception as error:
        raise EnvironmentProblem(f"the workers of {scheduler} cannot run pushsim: {error}; install it there") from None
    wrong = sorted({other for other in found.values() if other != __version__})
    if wrong:
        remedy = "install the same version everywhere"
        raise EnvironmentProblem(f"workers of {scheduler} have pushsim {', '.join(wrong)}, not {__version__}: {remedy}")


def version() -> str:
    """pushsim's version, where this runs."""
    return __version__
