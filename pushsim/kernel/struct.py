"""The arrays as one value that compiled functions hand on as a pointer: a tuple of sixty arrays is copied each time.

numba counts every use of an array or a struct, atomically, and that takes longer than what is done here with them. So
compiled functions are lent both: Python owns the struct, which owns the arrays, while they run, and nothing is counted.
"""

# numba tells mypy nothing of how it is extended
# mypy: disable-error-code="no-untyped-call,untyped-decorator,override"
from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import config, njit
from numba.core import cgutils, types
from numba.core.typing.templates import AttributeTemplate
from numba.experimental import structref
from numba.extending import (
    NativeValue,
    infer_getattr,
    lower_getattr_generic,
    models,
    register_model,
    unbox,
)

from pushsim.kernel.arrays import Arrays

_F = TypeVar("_F", bound=Callable[..., Any])
_INNER: Any = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


#: LLVM's level: ours are as fast by any, and ready a sixth sooner by this one.
_OPTIMIZED = 1


def called(function: _F) -> _F:
    """A function that is compiled once and cached, and that Python calls."""
    made: _F = _soon_ready(njit(cache=True)(function))
    return made


def compiled(function: _F) -> _F:
    """The same that only compiled functions call: it needs no way in from Python, which takes long to compile."""
    made: _F = _soon_ready(njit(cache=True, **_INNER)(function))
    return made


def _soon_ready(dispatcher: Any) -> Any:
    """The same, compiled for types only: numba would do so anew for each constant that is handed to it."""
    if config.DISABLE_JIT:  # type: ignore[attr-defined]
        return dispatcher
    make = dispatcher.compile

    def compile_for(given: Any) -> Any:
        usual = config.OPT  # type: ignore[attr-defined]
        config.OPT = type(usual)(min(usual, _OPTIMIZED))  # type: ignore[attr-defined]
        try:
            return make(tuple(map(types.unliteral, given)))
        finally:
            config.OPT = usual  # type: ignore[attr-defined]

    dispatcher.compile = compile_for
    return dispatcher


@structref.register
class _OwnerType(types.StructRef):
    """The compiled type of the struct that owns the arrays."""


class _Owner(structref.StructRefProxy):
    """Its face to Python, which has none."""


structref.define_proxy(_Owner, _OwnerType, list(Arrays._fields))


class _LentType(types.Type):
    """Its compiled type: a pointer to the arrays of an owner."""

    def __init__(self, owner: Any) -> None:
        self.owner = owner
        super().__init__(name=f"Lent[{owner}]")


register_model(_LentType)(models.OpaqueModel)


class _Lent:
    """What compiled functions are given."""

    def __init__(self, owner: Any) -> None:
        self.owner = owner
        self._numba_type_ = _LentType(owner._numba_type_)  # where numba looks first


@unbox(_LentType)
def _unbox(typ: _LentType, lent: Any, c: Any) -> NativeValue:
    owner = c.pyapi.object_getattr_string(lent, "owner")
    meminfo = c.pyapi.object_getattr_string(owner, "_meminfo")
    counted = types.MemInfoPointer(types.voidptr)
    pointer = c.unbox(counted, meminfo).value
    data = c.context.nrt.meminfo_data(c.builder, pointer)
    c.context.nrt.decref(c.builder, counted, pointer)  # unboxing counted it
    c.pyapi.decref(meminfo)
    c.pyapi.decref(owner)
    return NativeValue(data)


@infer_getattr
class _ArrayOf(AttributeTemplate):
    key = _LentType

    def generic_resolve(self, typ: _LentType, name: str) -> Any:
        """The type of an array."""
        return typ.owner.field_dict.get(name)


@lower_getattr_generic(_LentType)
def _array_of(context: Any, builder: Any, typ: _LentType, pointer: Any, name: str) -> Any:
    """An array, without its owner."""
    payload = typ.owner.get_data_type()
    kind = context.data_model_manager[payload].get_value_type().as_pointer()
    fields = cgutils.create_struct_proxy(payload)(context, builder, ref=builder.bitcast(pointer, kind))
    array = context.make_array(typ.owner.field_dict[name])(context, builder, getattr(fields, name))
    array.meminfo = cgutils.get_null_value(array.meminfo.type)
    array.parent = cgutils.get_null_value(array.parent.type)
    return array._getvalue()


@called
def _owner(a: Arrays) -> Any:
    return _Owner(*a)


def struct_of(a: Arrays) -> Any:
    """These arrays for compiled functions."""
    return a if config.DISABLE_JIT else _Lent(_owner(a))  # type: ignore[attr-defined]
