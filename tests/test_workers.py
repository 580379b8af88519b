"""Runs side by side: their progress."""

from collections.abc import Callable

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
