"""What is known of a machine at any moment of its run: sums and histograms, no quantiles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pushsim.control.cores import SECOND
from pushsim.control.machine import Machine
from pushsim.control.sums import Sums
from pushsim.control.tally import Tally
from pushsim.mesh import COMMON, XDS, Xds
from pushsim.metrics import BOUNDS, Histogram


def sent(sums: Sums) -> dict[str, Any]:
    """Responses by type and bytes sent, solicited ones included."""
    return {"responses": by_type(sums.responses), "bytes_sent": sums.bytes_sent}


def by_type(counts: Mapping[Xds, int]) -> dict[Xds, int]:
    """How many there are of each type; of those on demand, only where there are some."""
    return {xds: counts.get(xds, 0) for xds in XDS if xds in COMMON or counts.get(xds)}


def histograms(tally: Tally) -> dict[str, Any]:
    """istiod's histograms of delays, under its names: bounds, counts by bucket, sum in s."""
    found = {}
    for metric, samples in (
        ("pilot_proxy_convergence_time", tally.converged),
        ("pilot_proxy_queue_time", tally.queued),
        ("pilot_debounce_time", tally.debounced),
    ):
        histogram = Histogram.of_ns(BOUNDS[metric], samples)
        found[metric] = {"le": list(histogram.bounds), "counts": list(histogram.counts), "sum": histogram.sum}
    return found


def so_far(machine: Machine) -> dict[str, Any]:
    """The part of a SUMMARY that is known while the machine runs."""
    tally = machine.tally
    counts = {"merged_pushes": len(tally.pushes), "proxy_pushes": tally.pushed, "proxies_considered": tally.considered}
    connected = sum(level.value for level in tally.connected)
    delays = {"histograms": histograms(tally), "connect": {"connections": connected}}
    return {"source": "simulated", **counts, **sent(machine.sums), "rejects": tally.rejected, **delays}


def connect_summary(machine: Machine, now: int) -> dict[str, Any]:
    """The `connect` section: what it took until all proxies were connected and quiet."""
    for replica in machine.replicas:
        replica.cores.advance(now)
    spent = sum(sum(replica.cores.spent) / replica.cores.parts for replica in machine.replicas)
    return {
        "seconds": now / SECOND,
        "connections": machine.tally.connects,
        "streams_refused": machine.tally.refused,
        **sent(machine.sums),
        "istiod_cpu_s": spent / SECOND / len(machine.replicas),
    }
