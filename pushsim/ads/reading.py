"""Reads ADS responses: names, digests and what they name in turn, with as little decoding as that takes.

A push of one type is often the same bytes for many proxies but for its nonce. The outer message has its fields in order
(protobuf's own serialisers write them so): version, resources, type, nonce, and the rest. So the resources are one
stretch of bytes; its hash says whether it was read before. What is not laid out so is decoded whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from sys import intern
from typing import Any, NamedTuple

from envoy.service.discovery.v3 import discovery_pb2

from pushsim.ads.children import Named, children
from pushsim.mesh import TYPE_URLS, Mode, Xds

XDS: dict[str, Xds] = {url: xds for xds, url in TYPE_URLS.items()}

#: Field 4, length-delimited, and its value: what comes after the last resource in both kinds of response.
_AFTER: tuple[bytes, ...] = tuple(b"\x22" + bytes([len(url)]) + url.encode() for url in TYPE_URLS.values())
#: So far from the end the type is looked for: nonce, control plane and removed names come after it.
_TAIL = 4096
#: Stretches that are remembered, and what is remembered of them does not hold their bytes.
_REMEMBERED = 4096


class Resource(NamedTuple):
    """One resource as it came: its name, its version (delta), its type and the serialised message."""

    name: str
    version: str
    type_url: str
    value: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Payload:
    """The resources of a response, the same object for the same bytes.

    names:     sorted. digests: a hash of each resource's message by its name, comparable within this process.
    versions:  of a delta's resources, where they have one.
    children:  by resource of CDS or LDS what it names; named: all of them, by type.
    hosts:     by route of RDS, a hash of each of its virtual hosts by name.
    any_bytes: the messages' lengths, as pilot_xds_config_size_bytes sums them.
    """

    names: tuple[str, ...] = ()
    digests: dict[str, int] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    children: Mapping[str, Named] = field(default_factory=dict)
    named: Mapping[Xds, frozenset[str]] = field(default_factory=dict)
    hosts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    any_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Message:
    """One response, apart."""

    xds: Xds
    version: str
    nonce: str
    removed: tuple[str, ...]
    payload: Payload


_EMPTY = Payload()
_known: dict[tuple[Mode, Xds, int], Payload] = {}


def read(data: bytes, mode: Mode) -> Message:
    """One response; raises protobuf's DecodeError, KeyError (another type) or IndexError (a broken resource)."""
    outer = discovery_pb2.DiscoveryResponse if mode == "sotw" else discovery_pb2.DeltaDiscoveryResponse
    stretch, rest = _split(data)
    if stretch is None:
        head = outer.FromString(data)
        payload = _payload(head.resources, mode, XDS[head.type_url])
    else:
        head = outer.FromString(rest)
        xds = XDS[head.type_url]
        if not stretch:
            payload = _EMPTY
        else:
            key = (mode, xds, hash(stretch))
            found = _known.get(key)
            if found is None:
                found = _payload(outer.FromString(stretch).resources, mode, xds)
                if len(_known) >= _REMEMBERED:
                    del _known[next(iter(_known))]
                _known[key] = found
            payload = found
    xds = XDS[head.type_url]
    if mode == "sotw":
        return Message(xds, head.version_info, head.nonce, (), payload)
    return Message(xds, head.system_version_info, head.nonce, tuple(sorted(head.removed_resources)), payload)


def resources(data: bytes, mode: Mode) -> tuple[Resource, ...]:
    """The resources of a response, in the order they came."""
    if mode == "sotw":
        sotw = discovery_pb2.DiscoveryResponse.FromString(data)
        return tuple(Resource(name_of(any.value), "", any.type_url, any.value) for any in sotw.resources)
    delta = discovery_pb2.DeltaDiscoveryResponse.FromString(data)
    return tuple(Resource(r.name, r.version, r.resource.type_url, r.resource.value) for r in delta.resources)


def _split(data: bytes) -> tuple[memoryview | None, bytes]:
    """The stretch of resources, and the message without it; no stretch if it is not laid out as expected."""
    start = max(0, len(data) - _TAIL)
    end = max(data.rfind(mark, start) for mark in _AFTER)
    if end < 0:
        return None, data
    begin = 0
    if data[0] == 0x0A:  # field 1, the version
        length, begin = _varint(data, 1)
        begin += length
    if begin > end or (begin < end and data[begin] != 0x12):  # field 2, a resource
        return None, data
    return memoryview(data)[begin:end], data[:begin] + data[end:]


def _payload(listed: Sequence[Any], mode: Mode, xds: Xds) -> Payload:
    names: list[str] = []
    digests: dict[str, int] = {}
    versions: dict[str, str] = {}
    named: dict[str, Named] = {}
    hosts: dict[str, Mapping[str, int]] = {}
    size = 0
    for one in listed:
        if mode == "sotw":
            value = one.value
            name = "" if xds == "NDS" else intern(name_of(value))  # the one table of names has none
        else:
            value = one.resource.value
            name = intern(one.name)
            if one.version:
                versions[name] = one.version
        size += len(value)
        names.append(name)
        digests[name] = hash(value)
        if xds in ("CDS", "LDS"):
            named[name] = children(xds, value)
        elif xds == "RDS":
            hosts[name] = _virtual_hosts(value)
    every: dict[Xds, set[str]] = {}
    for of in named.values():
        for child, those in of.items():
            every.setdefault(child, set()).update(those)
    whole = {child: frozenset(those) for child, those in every.items()}
    return Payload(tuple(sorted(names)), digests, versions, named, whole, hosts, size)


@lru_cache(4096)
def _virtual_hosts(value: bytes) -> Mapping[str, int]:
    """A hash of each virtual host of a route configuration (its field 2) by name."""
    found: dict[str, int] = {}
    at, whole = 0, memoryview(value)
    while at < len(value):
        tag, at = _varint(value, at)
        match tag & 7:
            case 0:
                _, at = _varint(value, at)
            case 1:
                at += 8
            case 5:
                at += 4
            case _:
                length, at = _varint(value, at)
                if tag == 0x12:
                    part = whole[at : at + length]
                    found[intern(name_of(bytes(part[:512])))] = hash(part)
                at += length
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at that place, and the place after it."""
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at


def name_of(value: bytes) -> str:
    """The name of a serialised resource: field 1 of all that have one."""
    if not value or value[0] != 0x0A:
        return ""
    length, at = _varint(value, 1)
    return value[at : at + length].decode()
