"""Python's garbage collector, told that it has little to find."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

#: Among fewer values than these, some 800 MB, garbage is not looked for.
_FEW = 1_800_000
#: How many values there were after it was last looked for.
_searched = 0


@contextmanager
def no_collections() -> Iterator[None]:
    """Without looking for cycles while values are made that all stay: that would take half the time, or twice it."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def few_collections() -> Iterator[None]:
    """What runs here makes millions of values and hardly a cycle; looking for cycles as usual would cost half of it.

    What earlier runs have left is searched for garbage first if it is much, and twice as much as there was after the
    last search. What there is then, and what is left afterwards, is not looked at again before the next run begins, or
    the process ends: that alone would take seconds.
    """
    global _searched
    usual = gc.get_threshold()
    if gc.get_freeze_count() > max(_FEW, 2 * _searched):
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        _searched = gc.get_freeze_count()
    gc.freeze()
    gc.set_threshold(10_000_000, 20, 20)
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.freeze()
