"""Python's garbage collector, told that it has little to find."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def few_collections() -> Iterator[None]:
    """What runs here makes millions of values and hardly a cycle; looking for cycles as usual would cost half of it.

    What there is already is not looked at again; afterwards all is as before.
    """
    usual = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(200_000, 20, 20)
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()
