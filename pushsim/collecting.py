"""Python's garbage collector, told that it has little to find."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

#: How many values there were after garbage was last looked for; for fewer than twice these, some 800 MB, it never is.
_searched = 900_000


@contextmanager
def few_collections() -> Iterator[None]:
    """What runs here makes millions of values and hardly a cycle; looking for cycles as usual would cost half of it.

    What earlier runs have left is searched for garbage first if it has become twice as much as there was after the
    last search. What there is then, and what is left afterwards, is not looked at again before the next run begins, or
    the process ends: that alone would take seconds.
    """
    global _searched
    usual = gc.get_threshold()
    if gc.get_freeze_count() > 2 * _searched:
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        _searched = max(_searched, gc.get_freeze_count())
    gc.freeze()
    gc.set_threshold(1_000_000, 20, 20)
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.freeze()
