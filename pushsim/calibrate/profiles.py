"""CPU profiles of istiod (pprof): which piece of its work its CPU time went to.

istiod serves them as Go does (/debug/pprof/profile): samples of stacks, 100 in a second of CPU time, as a gzipped
message of google/pprof's profile.proto, of which this reads what it needs. A sample is of the first piece whose
functions its stack has, so garbage collection is apart from the work that it interrupts.
"""

from __future__ import annotations

import gzip
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

#: Seconds of CPU time that a sample stands for.
SAMPLE_S = 0.01
#: Garbage collection, which is no piece of the work.
COLLECTING = "collecting"
#: Sending, with what Go's scheduler does for streams. Where streams are opened, that is in it, too.
SENDING = "sending"

#: By piece: its functions, in order of precedence.
_FUNCTIONS = {
    COLLECTING: r"runtime\.(gc[A-Z]\w*|bgsweep|bgscavenge|deductSweepCredit|sweepone|wbBufFlush)$",
    "listeners": r"xds\.\(?\*?LdsGenerator\)?\.Generate\w*$",
    "routes": r"xds\.\(?\*?RdsGenerator\)?\.Generate\w*$",
    "clusters": r"xds\.\(?\*?CdsGenerator\)?\.Generate\w*$",
    "endpoints": r"xds\.\(?\*?EdsGenerator\)?\.Generate\w*$",
    "other generators": r"Generator\)?\.Generate\w*$",
    "proxies": r"\.(computeProxyState|\w*[pP]roxyNeedsPush|updateProxy)$",
    SENDING: r"xds\.\(\*DiscoveryServer\)\.(push(Connection|DeltaXds|Xds)\w*|Stream\w*|process\w*Request|receive\w*)$"
    r"|grpc\.\(\*Server\)\.|grpc/internal/transport\.|runtime\.(mcall|schedule|findRunnable|mstart\w*)$",
}
#: By piece: the coefficients that its time is made of, or what their names begin with. What is marshalled is so in its
#: generator. A response's locks are a share of its work, and counted there.
PIECES: Mapping[str, tuple[str, ...]] = {
    "listeners": ("lds.",),
    "routes": ("rds.",),
    "clusters": ("cds.hit", "cds.miss", "cds.inbound", "cds.static", "cds.parsed", "cds.marshalled"),
    "endpoints": ("eds.hit", "eds.miss", "eds.endpoints", "eds.marshalled"),
    "proxies": ("proxy.", "scope."),
    SENDING: ("send.responses", "send.bytes", "send.acks", "cds.walked", "eds.walked"),
}


def pieces(profile: bytes) -> dict[str, float]:
    """Seconds of CPU time by piece of istiod's work; "" is all that is of none. Raises ValueError if it is no profile.

    Source: https://github.com/google/pprof/blob/main/proto/profile.proto
    """
    found: Counter[str] = Counter()
    for stack, nanoseconds in _samples(profile):
        found[piece_of(stack)] += nanoseconds
    return {piece: total / 1e9 for piece, total in found.items()}


def piece_of(stack: Iterable[str]) -> str:
    """The piece of a stack of functions; "" if of none."""
    functions = list(stack)
    return next((piece for piece, known in _known() if any(map(known.search, functions))), "")


@cache
def _known() -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((piece, re.compile(functions)) for piece, functions in _FUNCTIONS.items())


def _samples(profile: bytes) -> Iterator[tuple[list[str], int]]:
    """Stacks, innermost function first, and the last value of each (CPU time in ns)."""
    message = _profile_class()()
    try:
        message.ParseFromString(gzip.decompress(profile))
    except Exception as problem:  # gzip and protobuf have several
        raise ValueError(f"no CPU profile: {problem}") from None
    if not message.string_table:
        raise ValueError("no CPU profile: it is empty")
    names = {function.id: message.string_table[function.name] for function in message.function}
    places = {place.id: [names[line.function_id] for line in place.line] for place in message.location}
    for sample in message.sample:
        yield [name for place in sample.location_id for name in places[place]], sample.value[-1]


@cache
def _profile_class() -> Any:
    """The part of google/pprof's Profile that is read here."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="pushsim/profile.proto", package="pushsim", syntax="proto3")
    messages = {
        "Sample": [("location_id", 1, "uint64*"), ("value", 2, "int64*")],
        "Line": [("function_id", 1, "uint64")],
        "Location": [("id", 1, "uint64"), ("line", 4, "Line*")],
        "Function": [("id", 1, "uint64"), ("name", 2, "int64")],
        "Profile": [
            ("sample", 2, "Sample*"),
            ("location", 4, "Location*"),
            ("function", 5, "Function*"),
            ("string_table", 6, "string*"),
        ],
    }
    plain = {"uint64": field.TYPE_UINT64, "int64": field.TYPE_INT64, "string": field.TYPE_STRING}
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for known, number, kind in fields:
            label = field.LABEL_REPEATED if kind.endswith("*") else field.LABEL_OPTIONAL
            added = message.field.add(name=known, number=number, label=label)
            of = kind.removesuffix("*")
            added.type = plain.get(of, field.TYPE_MESSAGE)
            if of not in plain:
                added.type_name = f".pushsim.{of}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("pushsim.Profile"))
