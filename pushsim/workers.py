"""Runs side by side, each in a process of its own; an interrupt ends them all and keeps what they have."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import active_children, get_context
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from typing import Any, TypeVar

from pushsim.errors import InputError, at_least_one

_T = TypeVar("_T")

#: Told the name of a run and the share (0…1) of it that is done.
Progress = Callable[[str, float], None]

#: Told the share (0…1) of one run that is done; may raise KeyboardInterrupt.
Share = Callable[[float], None]

#: How often, in seconds, progress is asked for.
_POLL_S = 0.1
#: How long, in seconds, runs have to stop by themselves after an interrupt, and keep what they have.
GRACE_S = 20.0

_told: Queue[tuple[str, float]]
_stop: Event


@contextmanager
def interruptible(progress: Share | None) -> Iterator[Share]:
    """Progress that raises an interrupt which Python lost since the block began; what such a one broke raises it, too.

    One that arrives while the callback of a weak reference, a destructor or a callback of C runs (as a compiler's) is
    handed to sys.unraisablehook, which prints it, and work goes on as if nobody had pressed Ctrl-C.
    """
    usual, lost = sys.unraisablehook, list[BaseException]()

    def keep(unraisable: sys.UnraisableHookArgs) -> None:
        if isinstance(unraisable.exc_value, KeyboardInterrupt):
            lost.append(unraisable.exc_value)
        else:
            usual(unraisable)

    def told(share: float) -> None:
        if lost:
            raise KeyboardInterrupt
        if progress is not None:
            progress(share)

    sys.unraisablehook = keep
    try:
        yield told
    except Exception as error:
        if lost:  # numba misses what it did not do while it compiled, and says so with no word of the interrupt
            raise KeyboardInterrupt from error
        raise
    finally:
        sys.unraisablehook = usual


@contextmanager
def interrupt_held() -> Iterator[None]:
    """Processes that are begun in the block never hear a Ctrl-C, which a terminal sends to all: the parent alone does.

    One that comes meanwhile is heard at the end of the block.
    """
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def side_by_side(
    run: Callable[..., _T],
    runs: Mapping[str, tuple[Any, ...]],
    jobs: int,
    progress: Progress | None = None,
    whole: Callable[[_T], bool] = lambda _: True,
) -> dict[str, _T]:
    """Call `run(*arguments, progress)` for each of `runs`, at most `jobs` at once; results by name, in their order.

    It must call progress(share) now and then, and may be told by it to stop (KeyboardInterrupt). A single run, or a
    single job, is run in this process; else `run` and its arguments are pickled. After an interrupt, runs that had not
    begun are absent, and those that did not stop in `GRACE_S` seconds; if none is left, KeyboardInterrupt is raised.
    What else a run raises is raised here.
    A run that has returned is told as done (1.0), last of all that is told of it.
    whole: False of a result that was cut short by an interrupt.
    """
    at_least_one(jobs, "jobs")
    if progress is not None and not callable(progress):
        raise InputError("progress must be a function of a name and a share, or None")
    tell = progress or _untold
    if min(jobs, len(runs)) > 1:
        results = _at_once(run, runs, jobs, tell)
    else:
        results = _one_by_one(run, runs, tell, whole)
    if runs and not results:
        raise KeyboardInterrupt
    return results


def _one_by_one(
    run: Callable[..., _T], runs: Mapping[str, tuple[Any, ...]], progress: Progress, whole: Callable[[_T], bool]
) -> dict[str, _T]:
    results: dict[str, _T] = {}
    with suppress(KeyboardInterrupt):
        for name, arguments in runs.items():
            results[name] = run(*arguments, partial(progress, name))
            if not whole(results[name]):
                break
            progress(name, 1.0)
    return results


def _at_once(
    run: Callable[..., _T], runs: Mapping[str, tuple[Any, ...]], jobs: int, progress: Progress
) -> dict[str, _T]:
    context = get_context("spawn")
    told, stop, others = context.Queue(), context.Event(), set(active_children())
    with ProcessPoolExecutor(min(jobs, len(runs)), context, _begin, (told, stop)) as pool:
        futures: dict[str, Future[_T]] = {}
        try:
            with interrupt_held():
                futures |= {name: pool.submit(_call, run, name, arguments) for name, arguments in runs.items()}
            _watch(futures, told, progress)
        except BaseException as error:
            stop.set()
            for future in futures.values():
                future.cancel()
            if not isinstance(error, KeyboardInterrupt):
                raise
            try:
                wait(futures.values(), GRACE_S)
            finally:
                if not all(future.done() for future in futures.values()):
                    for process in set(active_children()) - others:
                        process.terminate()
        return {name: result for name, future in futures.items() if (result := _result(future)) is not None}


def _watch(futures: Mapping[str, Future[_T]], told: Queue[tuple[str, float]], progress: Progress) -> None:
    """Until all are done, or one has failed."""
    left = dict(futures)
    while left:
        wait(left.values(), _POLL_S, FIRST_COMPLETED)
        done = [name for name, future in left.items() if future.done()]
        while not told.empty():
            name, share = told.get()
            if name in left:
                progress(name, share)
        for name in done:
            left.pop(name).result()
            progress(name, 1.0)  # what the run said last may still be on its way


def _untold(name: str, share: float) -> None:
    """Progress that nobody asked for."""


def _result(future: Future[_T]) -> _T | None:
    try:
        return future.result()
    except (CancelledError, BrokenProcessPool, KeyboardInterrupt):  # it had not begun, did not stop, or has no part
        return None


def _begin(told: Queue[tuple[str, float]], stop: Event) -> None:
    """In each process."""
    global _told, _stop
    _told, _stop = told, stop
    deaf()


def deaf() -> None:
    """In each process: the parent alone hears of an interrupt."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _call(run: Callable[..., _T], name: str, arguments: tuple[Any, ...]) -> _T:
    def progress(share: float) -> None:
        if _stop.is_set():
            raise KeyboardInterrupt
        _told.put((name, share))

    return run(*arguments, progress)
