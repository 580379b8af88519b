"""Integer prices of istiod's CPU work: what both engines multiply, so that both come to the same nanosecond.

Rounding rule: every coefficient, times the GC factor and over cpu_speed, becomes a whole number of picoseconds; amounts
times prices are summed in integers; a piece of work is that sum rounded to the nearest nanosecond (half up), and at
least 1 ns. Nothing after that is a float.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from pushsim.cost.calibration import Calibration
from pushsim.cost.coefficients import DEFAULTS
from pushsim.planner import Counts, Response

#: xDS type to the coefficients of its cached part: hit and miss per resource, hit and miss per unit ("" for free).
CACHED: Mapping[str, tuple[str, str, str, str]] = {
    "CDS": ("cds.hit", "cds.miss", "", ""),
    "EDS": ("eds.hit", "eds.miss", "", "eds.endpoints"),
    "LDS": ("lds.http", "lds.http", "", ""),
    "RDS": ("rds.hit", "rds.miss", "rds.keys", "rds.hosts"),
    "SDS": ("sds.hit", "sds.miss", "", ""),
}

#: xDS type to the coefficient of a byte of it that is marshalled: of others, `send.marshalled`.
MARSHALLED: Mapping[str, str] = {xds: f"{xds.lower()}.marshalled" for xds in ("CDS", "EDS", "LDS", "RDS")}


def marshalled(xds: str) -> str:
    """The coefficient of marshalling a byte of that type."""
    return MARSHALLED.get(xds, "send.marshalled")


#: Sizes of the buffers in gRPC's pool, and up to which size none is taken from it (grpc-go, mem: from v1.66 on).
BUFFERS = (256, 4 << 10, 16 << 10, 32 << 10, 1 << 20)
UNPOOLED = 1 << 10

#: From so many cores on, whole ones mark garbage, and all others are left alone.
WHOLE_MARKERS = 4


class Price(NamedTuple):
    """A response's work in picoseconds until Send returns: hit_ps if all its cached part hits, and what misses add.

    resource_ps per missing resource, unit_ps per missing unit, and byte_ps per byte that had to be marshalled:
    size_bytes · (missing resources) // (cached resources). write_ns, ack_ns: work of writing it and of receiving its
    ACK, which others do later: the stream's writer and its reader. All else of sending (log, metrics, encoding) is
    done before Send returns. spare_bytes: what the buffer it is
    in has beside it, until it is written.
    """

    hit_ps: int
    resource_ps: int
    unit_ps: int
    byte_ps: int
    size_bytes: int
    cached: int
    write_ns: int
    ack_ns: int
    spare_bytes: int

    def work_ns(self, resources: int, units: int) -> int:
        """Work in ns of a core with so many resources and units missing in the cache."""
        marshalled = self.size_bytes * resources // self.cached if self.cached else 0
        return to_ns(self.hit_ps + resources * self.resource_ps + units * self.unit_ps + marshalled * self.byte_ps)


#: How much is allocated at the most of what may be between two collections, before marking begins (golang/go
#: src/runtime/mgcpacer.go: trigger, maxTrigger).
LATEST = 0.95
#: The unit of `Runtime.slow` and `Runtime.fast`.
PACE = 1024


class Runtime(NamedTuple):
    """What Go's runtime and the machine do to work, in ns of a core.

    cycle, marking: garbage is collected once in `cycle_ns` of work, 0 for never, and marked in the first `marking_ns`
    of them. wake, half: what the first job after a rest costs beside its own work if the rest was long, and the rest
    after which it is half of that. locked: how much of making a response is under locks. slow, fast: how much work, as
    it is priced, PACE ns of a core do while garbage is marked, and while it is not. late, crawl: `marking` and `slow`
    in a cycle after one whose marking ended while cores rested; 0: the same.
    """

    cycle_ns: int = 0
    marking_ns: int = 0
    wake_ns: int = 0
    half_ns: int = 1
    locked_ns: int = 0
    slow: int = PACE
    fast: int = PACE
    late_ns: int = 0
    crawl: int = PACE


def to_ns(work_ps: int) -> int:
    """Picoseconds to nanoseconds, half up, at least one."""
    return max(1, (work_ps + 500) // 1000)


def _paces(marking: float, factor: float) -> tuple[int, int]:
    """`Runtime.slow` and `Runtime.fast`, on the average PACE.

    Args:
        marking: share of the work in which garbage is marked. factor: what work costs with collecting, without it 1.
            Where that is more than fits in the marking, an eighth of the work is still done then.
    """
    if not 0 < marking < 1:
        return PACE, PACE
    slow = max(1 / 8, (1 - factor * (1 - marking)) / marking)
    return round(PACE * slow), round(PACE * (1 - marking * slow) / (1 - marking))


class Prices:
    """Prices of one calibration. `ps[name]` is the price of one of driver `name`."""

    def __init__(self, calibration: Calibration) -> None:
        factor = calibration["gc"] / calibration.cpu_speed
        scale = {"us": 1e6, "ns": 1e3}
        self.ps: dict[str, int] = {
            name: round(calibration[name] * scale[c.unit] * factor)
            for name, c in DEFAULTS.items()
            if c.part == "istiod cpu"
        }
        self.reply_ns = max(1, round(calibration["client.reply"] * 1e6))
        self.ack_ns = to_ns(self.ps["send.acks"])
        self._written = calibration["send.written"]
        self.pooled = bool(calibration["send.pooled"])
        self.latency_ns = round(calibration["client.latency"] * 1e6)
        self._of = calibration

    def runtime(self, inventory: Counts, connections: float, cpus: float) -> Runtime:
        """Of an istiod with such an inventory and so many connections on so many cores.

        With GOGC=100 as much is allocated in between as lives, or counts as living: half of the heap, as memory
        coefficients are of its highest. Responses, names and the cache are left out, and so is that an overloaded
        istiod allocates more in its time: either is about twofold, so that its cycles are as long. A quarter of the
        cores marks: from 4 cores on whole ones do, and the others are left alone, so there they are 0 (golang/go
        src/runtime/mgcpacer.go: startCycle). What collecting costs is in the prices, evenly; where a cycle is known,
        all of it is paid while garbage is marked, by whoever works then: the marking worker takes its share of the
        core, and who allocates has to assist. Where cores rest, and mark meanwhile, the collector finds marking fast,
        and begins it at LATEST of the way: whoever works then pays for all of it while the rest is allocated.
        """
        of = self._of
        held = {"memory.base": 1, "memory.connections": connections, **inventory}
        cores = max(1, math.ceil(cpus))
        living = sum(of[name] * amount for name, amount in held.items()) / 2 * (1 + of["gc.growth"])
        cycle_ns = round(1000 * living / (of["gc.allocated"] * cores))
        cycle = (cycle_ns, round(of["gc.marking"] * cycle_ns)) if cores < WHOLE_MARKERS else (0, 0)
        slow, fast = _paces(of["gc.marking"], of["gc"])
        late = max(0.0, 1 - LATEST / of["gc"])
        crawl, _ = _paces(late, of["gc"])
        rest = self.ps["rest.wakes"] // 1000, max(1, round(of["rest.half"] * 1e6))
        return Runtime(*cycle, *rest, self.ps["send.locked"] // 1000, slow, fast, round(late * cycle[0]), crawl)

    def total_ps(self, counts: Counts) -> int:
        """Σ amount · price."""
        return sum(amount * self.ps[name] for name, amount in counts.items())

    def work_ns(self, counts: Counts) -> int:
        """Work of some amounts, in ns of a core."""
        return to_ns(self.total_ps(counts))

    def _spare(self, size_bytes: int) -> int:
        """Bytes of the pooled buffer that a message does not fill."""
        if not self.pooled or size_bytes <= UNPOOLED:
            return 0
        return next((size - size_bytes for size in BUFFERS if size >= size_bytes), 0)

    def response(self, response: Response) -> Price:
        """Price of generating, marshalling and sending a response, and of receiving its ACK."""
        ps = self.ps
        byte_ps = ps[marshalled(response.xds)]
        base = self.total_ps(response.work)
        sending = ps["send.responses"] + response.size_bytes * ps["send.bytes"]
        written = round(self._written * sending)
        base += sending - written
        later = (to_ns(written), self.ack_ns, self._spare(response.size_bytes))
        view = response.view
        if view is None:
            return Price(base + response.size_bytes * byte_ps, 0, 0, 0, response.size_bytes, 0, *later)
        hit, miss, unit_hit, unit_miss = CACHED[response.xds]
        resources, units = view.total_resources, view.total_units
        unit_hit_ps, unit_miss_ps = ps.get(unit_hit, 0), ps.get(unit_miss, 0)
        base += resources * ps[hit] + units * unit_hit_ps
        uncached = max(0, response.resources - resources)
        if uncached and response.resources:  # the uncached resources' share of the bytes is marshalled every time
            base += response.size_bytes * uncached // response.resources * byte_ps
        cached_bytes = response.size_bytes * resources // max(1, resources + uncached)
        per = (ps[miss] - ps[hit], unit_miss_ps, byte_ps)
        return Price(base, *per, cached_bytes, resources, *later)
