"""Messages as they are written in manifests (the values of EnvoyFilters), and how istiod merges them into others.

Types that nobody publishes for Python are as long as we estimate them from their JSON. What has no field of that name
is left out, and what can't be read at all is no patch (xds.BuildXDSObjectFromStruct, not strict).

Source: pilot/pkg/model/envoyfilter.go, pkg/proto/merge/merge.go, pilot/pkg/networking/util/util.go (MergeAnyWithAny).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any as Json
from typing import TypeVar

from betterproto2 import Message
from envoy_data_plane.google.protobuf import Any
from envoy_data_plane.message_pool import default_message_pool

from pushsim.sizes.wire import encoded, framed, text, typed_struct_of, varint

_M = TypeVar("_M", bound=Message)
_URLS: dict[str, type[Json]] = default_message_pool.url_to_type


class _Estimated:
    """A message of a type that nobody publishes, written as so many bytes."""

    to_dict = Message.to_dict

    def __init__(self, content: bytes) -> None:
        self._content = content

    @classmethod
    def from_dict(cls, value: Mapping[str, Json], *, ignore_unknown_fields: bool = False) -> _Estimated:
        """See `betterproto2.Message`."""
        return cls(bytes(estimate(value)))

    def __bytes__(self) -> bytes:
        return self._content


class _TypedStruct(_Estimated):
    """udpa.type.v1.TypedStruct and xds.type.v3.TypedStruct: what istiod has no Go type for."""

    @classmethod
    def from_dict(cls, value: Mapping[str, Json], *, ignore_unknown_fields: bool = False) -> _Estimated:
        """See `betterproto2.Message`."""
        url = value.get("type_url") or value.get("typeUrl") or ""
        return cls(typed_struct_of(str(url), value.get("value")))


def read(kind: type[_M], value: Mapping[str, Json]) -> _M | None:
    """A message as it is written; None if it can't be read."""
    for url in _types(value):
        if url not in _URLS:
            _URLS[url] = _published(url.rpartition("/")[2])
    try:
        return kind.from_dict(dict(value), ignore_unknown_fields=True)
    except Exception:  # whatever its reader says of it
        return None


def _types(value: Json) -> Iterator[str]:
    """All types that are named in a message."""
    if isinstance(value, Mapping):
        if "@type" in value:
            yield str(value["@type"])
        for part in value.values():
            yield from _types(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _types(part)


def _published(name: str) -> type[Json]:
    """The class of a message by its full name, or one that stands for it."""
    if name.endswith(".TypedStruct"):
        return _TypedStruct
    package, _, own = name.rpartition(".")
    try:
        return getattr(import_module(f"envoy_data_plane.{package}"), own)  # type: ignore[no-any-return]
    except (ImportError, AttributeError):
        return _Estimated


def length_of_written(kind: type[Message], value: Mapping[str, Json]) -> int:
    """Length of a message as it is written, 0 if it can't be read."""
    found = read(kind, value)
    return 0 if found is None else len(encoded(found))


def merge_written(target: Message, value: Mapping[str, Json]) -> None:
    """Merge a message as it is written into another of its type."""
    source = read(type(target), value)
    if source is not None:
        merge(target, source)


def merge(target: Message, source: Message) -> None:
    """Protobuf's merge: what is set replaces, messages merge, lists and maps grow; durations replace."""
    known: Mapping[str, Json] = type(target)._betterproto.meta_by_field_name  # type: ignore[arg-type]
    for part in dataclasses.fields(target):  # type: ignore[arg-type]
        new, old = getattr(source, part.name), getattr(target, part.name)
        if new is None or new == target._get_field_default(part.name):
            continue
        if isinstance(new, Message) and isinstance(old, Message):
            merge(old, new)
        elif isinstance(new, list):
            setattr(target, part.name, [*old, *new])
        elif isinstance(new, dict):
            setattr(target, part.name, {**old, **new})
        else:
            for other, meta in known.items():
                if meta.group and meta.group == known[part.name].group:
                    setattr(target, other, None)
            setattr(target, part.name, new)


def merge_any(target: Any, source: Any) -> None:
    """Merge what two of one type hold; of a type that nobody publishes, one is written after the other."""
    kind = _URLS.get(target.type_url)
    if target.type_url != source.type_url:
        return
    if kind is None or not issubclass(kind, Message):
        target.value += source.value
        return
    merged = kind.parse(target.value)
    merge(merged, kind.parse(source.value))
    target.value = encoded(merged)


def estimate(value: Json) -> int:
    """Length of a message given as JSON, without its type: a tag of one byte per field."""
    if isinstance(value, Mapping):
        if "@type" in value:
            rest = {key: item for key, item in value.items() if key != "@type"}
            return text(len(str(value["@type"]))) + framed(estimate(rest))
        return sum(_field(item) for item in value.values())
    return _field(value)


def _field(value: Json) -> int:
    if isinstance(value, bool):
        return 2
    if isinstance(value, int):
        return 1 + varint(abs(value))
    if isinstance(value, float):
        return 9
    if isinstance(value, Mapping):
        return framed(estimate(value))
    if isinstance(value, list | tuple):
        return sum(_field(item) for item in value)
    return text(len(str(value).encode()))
