"""CPU profiles of istiod: read as google/pprof writes them, and divided into pieces of its work."""

import gzip
from collections.abc import Sequence

import pytest

from pushsim.calibrate import profiles

XDS = "istio.io/istio/pilot/pkg/xds."
CORE = "istio.io/istio/pilot/pkg/networking/core."
#: Functions under which a push runs, innermost first.
PUSH = (XDS + "(*DiscoveryServer).pushConnectionDelta", XDS + "(*DiscoveryServer).StreamDeltas", "runtime.goexit")
WRITER = "google.golang.org/grpc/internal/transport.(*loopyWriter).run"


def _number(number: int) -> bytes:
    """A protobuf varint."""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def _field(field: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _number(field << 3) + _number(value)
    return _number(field << 3 | 2) + _number(len(value)) + value


def profile(samples: Sequence[tuple[Sequence[str], int]]) -> bytes:
    """A profile as Go writes it, by the numbers of fields in profile.proto: stacks and their milliseconds."""
    names = sorted({name for stack, _ in samples for name in stack})
    strings = ["", "samples", "count", "cpu", "nanoseconds", *names]
    kinds = [_field(1, _field(1, 1) + _field(2, 2)), _field(1, _field(1, 3) + _field(2, 4))]
    functions = [_field(5, _field(1, 1 + n) + _field(2, strings.index(name))) for n, name in enumerate(names)]
    places = [_field(4, _field(1, 101 + n) + _field(4, _field(1, 1 + n) + _field(2, 7))) for n in range(len(names))]
    taken = [
        _field(
            2,
            _field(1, b"".join(_number(101 + names.index(name)) for name in stack))
            + _field(2, _number(ms // 10) + _number(ms * 10**6)),
        )
        for stack, ms in samples
    ]
    return gzip.compress(b"".join([*kinds, *taken, *places, *functions, *(_field(6, s.encode()) for s in strings)]))


def test_time_goes_to_the_innermost_of_the_pieces_that_matter() -> None:
    found = profiles.pieces(
        profile(
            [
                ((CORE + "(*ListenerBuilder).buildInbound", XDS + "LdsGenerator.Generate", *PUSH), 30),
                (("istio.io/istio/pilot/pkg/util/protoconv.MessageToAny", XDS + "LdsGenerator.Generate", *PUSH), 20),
                (("runtime.gcAssistAlloc", "runtime.mallocgc", XDS + "RdsGenerator.Generate", *PUSH), 10),
                ((XDS + "(*EdsGenerator).GenerateDeltas", *PUSH), 40),
                ((XDS + "CdsGenerator.GenerateDeltas", *PUSH), 70),
                ((XDS + "(*DiscoveryServer).computeProxyState", *PUSH), 50),
                (("syscall.write", WRITER, "runtime.goexit"), 60),
                (("runtime.futex", "runtime.findRunnable", "runtime.schedule", "runtime.mcall"), 80),
                (("k8s.io/client-go/tools/cache.(*processorListener).run", "runtime.goexit"), 90),
            ]
        )
    )
    assert found == pytest.approx(
        {
            "listeners": 0.05,
            "collecting": 0.01,
            "endpoints": 0.04,
            "clusters": 0.07,
            "proxies": 0.05,
            "sending": 0.14,
            "": 0.09,
        }
    )


def test_what_is_no_profile_is_said_to_be_none() -> None:
    for data in (b"", b"Unknown profile", gzip.compress(b"\xff\xff")):
        with pytest.raises(ValueError, match="no CPU profile"):
            profiles.pieces(data)


def test_each_coefficient_is_of_one_piece_alone() -> None:
    prefixes = [prefix for piece in profiles.PIECES.values() for prefix in piece]
    clashes = [(a, b) for a in prefixes for b in prefixes if a is not b and a.startswith(b)]
    assert len(set(prefixes)) == len(prefixes) and not clashes
