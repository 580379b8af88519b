"""Python's garbage collector, told that it has little to find."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_kept = False


def kept() -> None:
    """What an earlier run has left is in use again: of what runs here, only what is made anew may become garbage."""
    global _kept
    _kept = True


@contextmanager
def few_collections() -> Iterator[None]:
    """What runs here makes millions of values and hardly a cycle; looking for cycles as usual would cost half of it.

    Garbage of an earlier run, if there was one, is collected first; what that run said is `kept` is not searched. What
    there is then, and what is left afterwards, is not looked at again before the next run begins, or the process ends:
    that alone would take seconds.
    """
    global _kept
    usual = gc.get_threshold()
    if gc.get_freeze_count():
        if not _kept:
            gc.unfreeze()
        gc.collect()
    gc.freeze()
    gc.set_threshold(1_000_000, 20, 20)
    _kept = False
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        if not _kept:
            gc.freeze()
