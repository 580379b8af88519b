"""Python's garbage collector, told that it has little to find."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def few_collections() -> Iterator[None]:
    """What runs here makes millions of values and hardly a cycle; looking for cycles as usual would cost half of it.

    Garbage of an earlier run, if there was one, is collected first. What there is then, and what is left afterwards, is
    not looked at again before the next run begins, or the process ends: that alone would take seconds.
    """
    usual = gc.get_threshold()
    if gc.get_freeze_count():
        gc.unfreeze()
        gc.collect()
    gc.freeze()
    gc.set_threshold(1_000_000, 20, 20)
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.freeze()
