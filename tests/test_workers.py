"""Runs side by side: their progress."""

import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.process import BaseProcess

import pytest
from replayed import left_running

from pushsim import workers
from pushsim.workers import side_by_side


def _quiet(value: int, progress: Callable[[float], None]) -> int:
    progress(value / 10)
    return value


def test_a_run_that_has_returned_is_told_as_done_whatever_it_said_last():
    told: list[tuple[str, float]] = []
    found = side_by_side(_quiet, {"a": (3,), "b": (5,)}, 2, lambda name, share: told.append((name, share)))
    assert found == {"a": 3, "b": 5}
    for name in found:
        assert [share for one, share in told if one == name][-1] == 1.0


def _deaf(progress: Callable[[float], None]) -> int:
    progress(0.1)
    threading.Event().wait()
    return 1


def test_a_run_that_does_not_hear_an_interrupt_is_ended_and_the_others_are_kept(monkeypatch) -> None:
    monkeypatch.setattr(workers, "GRACE_S", 0.2)
    before, done = set(left_running()), set()

    def interrupted(name: str, share: float) -> None:
        done.update({name} if share == 1.0 or name == "deaf" else set())
        if done == {"quiet", "deaf"}:
            raise KeyboardInterrupt

    found = side_by_side(_quiet_or_deaf, {"quiet": ("quiet",), "deaf": ("deaf",)}, 2, interrupted)
    assert found == {"quiet": 4}
    assert set(left_running()) <= before


def _until_stopped(value: int, progress: Callable[[float], None]) -> int:
    while value != 4:
        progress(0.1)
        threading.Event().wait(0.01)
    return _quiet(value, progress)


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_was_done_before_an_interrupt_is_kept(jobs: int) -> None:
    done = set()

    def interrupted(name: str, share: float) -> None:
        done.update({name} if share == 1.0 or name == "long" else set())
        if done == {"short", "long"}:
            raise KeyboardInterrupt

    assert side_by_side(_until_stopped, {"short": (4,), "long": (5,)}, jobs, interrupted) == {"short": 4}


def test_an_interrupt_that_leaves_nothing_is_told() -> None:
    def interrupted(name: str, share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        side_by_side(_until_stopped, {"long": (5,)}, 1, interrupted)


def _quiet_or_deaf(name: str, progress: Callable[[float], None]) -> int:
    return _deaf(progress) if name == "deaf" else _quiet(4, progress)


@pytest.mark.parametrize("hears", ["child", "parent"])
def test_a_ctrl_c_while_processes_begin_is_the_parents_alone(monkeypatch: pytest.MonkeyPatch, hears: str) -> None:
    """A terminal sends it to all: a process that only begins must not end by it, and take the others with it."""
    usual = BaseProcess.start

    def start(self: BaseProcess) -> None:
        usual(self)
        assert self.pid is not None
        os.kill(self.pid if hears == "child" else os.getpid(), signal.SIGINT)

    monkeypatch.setattr(BaseProcess, "start", start)
    if hears == "child":
        assert side_by_side(_quiet, {"a": (3,), "b": (4,)}, 2) == {"a": 3, "b": 4}
    else:
        with pytest.raises(KeyboardInterrupt):
            side_by_side(_until_stopped, {"a": (5,), "b": (6,)}, 2)
