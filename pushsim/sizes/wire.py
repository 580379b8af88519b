"""Protobuf arithmetic: what a message weighs, without building it where its parts are known.

Lengths are bytes. A string's length is its UTF-8 length; Istio's names are ASCII.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import cache
from typing import Any as Json
from typing import ParamSpec, TypeVar, cast

from betterproto2 import Message
from envoy_data_plane.google.protobuf import Any, ListValue, NullValue, Struct, Value

TYPE_PREFIX = "type.googleapis.com/"
HCM = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"

_P = ParamSpec("_P")
_M = TypeVar("_M", bound=Message)


def varint(value: int) -> int:
    """Length of an unsigned varint."""
    return max(1, (value.bit_length() + 6) // 7)


def framed(length: int, tag: int = 1) -> int:
    """A length-delimited field: tag (1 byte up to field 15, else 2), its length, its content."""
    return tag + varint(length) + length


def text(length: int, tag: int = 1) -> int:
    """A string field, which proto3 leaves out when it is empty."""
    return framed(length, tag) if length else 0


def texts(values: Iterable[str], tag: int = 1) -> int:
    """A repeated string field."""
    known = tuple(values)
    joined = "".join(known)
    if joined.isascii() and max(map(len, known), default=0) < 1 << 7:
        return len(joined) + len(known) * (tag + 1)  # thousands of short names, as delta takes them back
    return sum(framed(len(value.encode()), tag) for value in known)


def made(message: Callable[_P, _M], *positional: _P.args, **given: _P.kwargs) -> _M:
    """A message as dataclasses make it, of keyword arguments alone, which type checkers check.

    For the types that most resources have: pydantic would validate what type checkers have seen, and before it
    validates the first of a type it prepares the schemas of that and of all that it might hold, for a third of a second
    a process.

    Raises:
        TypeError: an argument is not one of its fields, by name.
    """
    kind = cast(type[_M], message)
    defaults = kind._betterproto.default_gen  # type: ignore[arg-type]
    if positional or not given.keys() <= defaults.keys():
        raise TypeError(f"{kind.__name__} is made of its fields, by name")
    new = kind.__new__(kind)
    vars(new).update({name: default() for name, default in defaults.items() if name not in given}, **given)
    new.__post_init__()
    return new


def encoded(message: Message) -> bytes:
    """The message on the wire.

    betterproto2 builds a pydantic validator anew for each message that it serialises, nested ones too, half a
    millisecond each: a gateway's 500 routes would take seconds. Ours were checked when they were made, by pydantic or
    by a type checker.
    """
    validate, Message._validate = Message._validate, _no_validation  # type: ignore[method-assign, assignment]
    try:
        return bytes(message)
    finally:
        Message._validate = validate  # type: ignore[method-assign]


def sealed(message: _M) -> _M:
    """A message that is written as this one is, but at once: for what thousands hold, and nobody reads or changes."""
    new = made(type(message))
    new._unknown_fields = encoded(message)
    return new


def _no_validation(_: Message) -> None:
    pass


def _default(self: Message, field_name: str) -> Json:
    return self._betterproto.default_gen[field_name]()  # type: ignore[arg-type]


# betterproto2 resolves all annotations of a message's class again for each of its fields, and sets up the filters of
# warnings anew for each default that it compares a field with: together half a second a process.
Message._type_hints = classmethod(cache(Message._type_hints.__func__))  # type: ignore[assignment, arg-type, attr-defined]
Message._get_field_default = _default  # type: ignore[method-assign]


def length(message: Message) -> int:
    """The message's length on the wire."""
    return len(encoded(message))


def packed(message: Message, full_name: str) -> Any:
    """google.protobuf.Any as istiod fills it (protoconv.MessageToAny)."""
    return Any(type_url=TYPE_PREFIX + full_name, value=encoded(message))


def blob(full_name: str, size: int = 0) -> Any:
    """An Any around a message whose Python type nobody publishes: only its length counts."""
    return Any(type_url=TYPE_PREFIX + full_name, value=bytes(size))


def value(plain: Json) -> Value:
    """A google.protobuf.Value from plain JSON."""
    if plain is None:
        return Value(null_value=NullValue(0))
    if isinstance(plain, bool):
        return Value(bool_value=plain)
    if isinstance(plain, int | float):
        return Value(number_value=float(plain))
    if isinstance(plain, str):
        return Value(string_value=plain)
    if isinstance(plain, Mapping):
        return Value(struct_value=struct(plain))
    return Value(list_value=ListValue(values=[value(item) for item in plain]))


def struct(plain: Mapping[str, Json]) -> Struct:
    """A google.protobuf.Struct from plain JSON."""
    return Struct(fields={key: value(item) for key, item in plain.items()})


def typed_struct(type_name: str, plain: Mapping[str, Json] | None = None) -> Any:
    """istiod's wrapping of filters it has no Go type for (protoconv.TypedStruct, TypedStructWithFields)."""
    return Any(type_url=TYPE_PREFIX + "udpa.type.v1.TypedStruct", value=typed_struct_of(TYPE_PREFIX + type_name, plain))


def typed_struct_of(type_url: str, plain: Mapping[str, Json] | None) -> bytes:
    """A TypedStruct {type_url = 1, value = 2}: it has no Python type, so its two fields are written by hand."""
    body = _bytes_field(1, type_url.encode())
    return body if plain is None else body + _bytes_field(2, encoded(struct(plain)))


def _bytes_field(number: int, content: bytes) -> bytes:
    head, left = bytearray([number << 3 | 2]), len(content)
    while left > 0x7F:
        head.append(left & 0x7F | 0x80)
        left >>= 7
    head.append(left)
    return bytes(head) + content


_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


def duration(written: str) -> timedelta:
    """A Go duration ("1h30m", "250ms", "5s")."""
    seconds, number, unit = 0.0, "", ""
    for character in written + "0":
        if character.isdigit() or character in ".-+":
            if unit:
                seconds += float(number) * _UNITS[unit]
                number, unit = "", ""
            number += character
        else:
            unit += character
    return timedelta(seconds=seconds)
