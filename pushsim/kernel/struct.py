"""The arrays as one value that compiled functions hand on as a pointer: a tuple of sixty arrays is copied each time."""

from __future__ import annotations

from typing import Any

from numba import config, njit
from numba.core import types
from numba.experimental import structref

from pushsim.kernel.arrays import Arrays


@structref.register
class _ArraysType(types.StructRef):
    """Its compiled type."""


class _Struct(structref.StructRefProxy):
    """Its face to Python, which has none."""


structref.define_proxy(_Struct, _ArraysType, list(Arrays._fields))  # type: ignore[no-untyped-call]


@njit(cache=True)
def _struct(a: Arrays) -> Any:
    return _Struct(*a)  # type: ignore[no-untyped-call]


def struct_of(a: Arrays) -> Any:
    """These arrays for compiled functions."""
    return a if config.DISABLE_JIT else _struct(a)  # type: ignore[attr-defined]
