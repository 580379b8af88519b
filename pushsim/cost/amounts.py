"""Totals that are linear in the coefficients: memory of istiod and Envoy, CPU of both; each with its bounds.

Bounds are the worst case: every coefficient at the same end of its interval. They are wide, and they are honest: the
errors of the coefficients are not known to be independent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from pushsim.cost.calibration import Calibration
from pushsim.planner import NO_COUNTS, Counts, Response, Shape


class Bounds(NamedTuple):
    """A total and the interval that its coefficients' errors allow."""

    low: float
    value: float
    high: float

    def __add__(self, other: object) -> Bounds:
        """Both totals together, at the same end of their intervals."""
        if not isinstance(other, Bounds):
            return NotImplemented
        return Bounds(self.low + other.low, self.value + other.value, self.high + other.high)

    def times(self, low: float, value: float, high: float) -> Bounds:
        """Scaled by a factor with bounds of its own."""
        return Bounds(self.low * low, self.value * value, self.high * high)


def total(calibration: Calibration, amounts: Mapping[str, float]) -> Bounds:
    """Σ amount · coefficient, in the coefficients' own unit. Names in sorted order, so that sums are reproducible."""
    low = value = high = 0.0
    for name in sorted(amounts):
        coefficient = calibration.coefficients[name]
        lowest, highest = coefficient.interval
        low += amounts[name] * lowest
        value += amounts[name] * coefficient.value
        high += amounts[name] * highest
    return Bounds(low, value, high)


def _factor(calibration: Calibration, name: str) -> tuple[float, float, float]:
    low, high = calibration.interval(name)
    return low, calibration[name], high


def istiod_cpu(calibration: Calibration, amounts: Mapping[str, float]) -> Bounds:
    """CPU seconds of istiod for amounts by driver, garbage collection included."""
    scale = {"us": 1e-6, "ns": 1e-9}
    seconds = Bounds(0.0, 0.0, 0.0)
    for unit, per in scale.items():
        of_unit = {name: amount for name, amount in amounts.items() if calibration.coefficients[name].unit == unit}
        seconds += total(calibration, of_unit).times(per, per, per)
    low, value, high = _factor(calibration, "gc")
    speed = calibration.cpu_speed
    return seconds.times(low / speed, value / speed, high / speed)


#: Coefficients of what the cache holds.
OF_CACHE = ("memory.cache", "memory.entries")


class Holding(NamedTuple):
    """What an istiod replica holds.

    inventory: what `Planner.inventory` counts; connections: proxies connected to it, and names the resource names they
    watch in all; passing: bytes that come and go, by coefficient: memory.making of responses being generated,
    memory.flight of those on their way out, memory.spare of gRPC's buffers around these, and `OF_CACHE`; busy: share
    of its cores that it works on.
    """

    inventory: Counts
    connections: float
    names: float
    passing: Mapping[str, float] = NO_COUNTS
    busy: float = 0.0


def istiod_memory(calibration: Calibration, of: Holding) -> Bounds:
    """Bytes of one istiod replica at their highest: Go gives memory back over minutes."""
    beside = {"memory.runtime": 1, "memory.tls": of.connections}
    return istiod_heap(calibration, of) + total(calibration, beside)


def istiod_heap(calibration: Calibration, of: Holding) -> Bounds:
    """Bytes of its heap in use, with connections that are plaintext, as in a replay.

    The collector lets it grow to twice what lives: so coefficients are twice that. What is allocated while it marks
    counts as living, too (`gc.growth`): much where it is busy; idle cores are soon done with marking.
    """
    passing = dict(of.passing)
    held = {"memory.base": 1, "memory.connections": of.connections, "memory.names": of.names, **of.inventory}
    held |= {name: passing.pop(name, 0) for name in OF_CACHE}  # it does not go
    grown = (1 + of.busy * growth for growth in _factor(calibration, "gc.growth"))
    return total(calibration, held).times(*grown) + total(calibration, passing)


def held_by(shape: Shape, workers: int) -> dict[str, float]:
    """What an Envoy of that shape allocates memory for, by coefficient."""
    return {
        "envoy.memory.cluster": shape.clusters,
        "envoy.memory.cluster_worker": shape.clusters * workers,
        "envoy.memory.tls": shape.tls_clusters,
        "envoy.memory.assignment": shape.assignments,
        "envoy.memory.endpoint": shape.endpoints,
        "envoy.memory.listener": shape.listeners,
        "envoy.memory.listener_worker": shape.listeners * workers,
        "envoy.memory.manager": shape.managers,
        "envoy.memory.chain": shape.filter_chains,
        "envoy.memory.host": shape.virtual_hosts,
    }


def largest_response(shape: Shape) -> int:
    """About how many bytes the largest response is that a proxy of that shape gets: its clusters, or its routes, …

    Bytes of typical resources (reference §6.3); what many proxies hold is counted, not what each was sent.
    """
    return max(
        1100 * shape.clusters,
        50 * shape.assignments + 200 * shape.endpoints,
        3000 * shape.listeners,
        600 * shape.virtual_hosts,
    )


def envoy_memory(calibration: Calibration, shape: Shape, workers: int, *, all_stats: bool = False) -> Bounds:
    """Bytes that an Envoy which holds `shape` with `workers` worker threads has for itself.

    Pages of its binary, which the Envoys of a node share, are not among them; what it took to decode the largest
    response, which the allocator keeps, is. all_stats: see `keeps_all_stats`.
    """
    amounts = held_by(shape, workers)
    if all_stats:
        amounts["envoy.memory.stats"] = shape.clusters
    allocated = total(calibration, amounts).times(*_factor(calibration, "envoy.memory.allocator"))
    return allocated + total(calibration, {"envoy.memory.base": 1, "envoy.memory.message": largest_response(shape)})


def proxy_memory(calibration: Calibration, shape: Shape, workers: int, *, all_stats: bool = False) -> Bounds:
    """Bytes of an istio-proxy container: its Envoy's and the agent's."""
    envoy = envoy_memory(calibration, shape, workers, all_stats=all_stats)
    return envoy + total(calibration, {"agent.memory": 1})


#: A statistic of a cluster as Envoy names it, which an istio-proxy does not keep unless told to.
_STATISTIC = "cluster.outbound|8080||reviews.default.svc.cluster.local.upstream_rq_total"


def keeps_all_stats(mesh_config: Mapping[str, Any]) -> bool:
    """Whether proxies keep the statistics of their clusters: `defaultConfig.proxyStatsMatcher` of a MeshConfig."""
    matcher = (mesh_config.get("defaultConfig") or {}).get("proxyStatsMatcher") or {}
    return (
        any(_STATISTIC.startswith(prefix) for prefix in matcher.get("inclusionPrefixes") or ())
        or any(_STATISTIC.endswith(suffix) for suffix in matcher.get("inclusionSuffixes") or ())
        or any(re.fullmatch(regex, _STATISTIC) for regex in matcher.get("inclusionRegexps") or ())
    )


#: xDS type to the coefficient of one of its resources, where it is added or altered; others cost as their bytes do.
_ENVOY_RESOURCE = {
    "CDS": "envoy.cpu.cluster",
    "EDS": "envoy.cpu.assignment",
    "LDS": "envoy.cpu.listener",
    "RDS": "envoy.cpu.route",
}


def envoy_work(response: Response, *, first: bool) -> dict[str, int]:
    """Amounts of Envoy's work for a response, by coefficient.

    A push repeats clusters and listeners that Envoy already has; it finds them unchanged by their hash. How many are
    altered the response does not say, so a push is taken to alter one for each change it shows; the `first`
    responses of a connection are all new.
    """
    altered = response.resources if first else min(response.resources, len(response.shows))
    if response.xds == "NDS":
        return {}  # its agent keeps it
    work = {"envoy.cpu.byte": response.size_bytes}
    if (of_resource := _ENVOY_RESOURCE.get(response.xds)) is not None:
        work |= {of_resource: altered, "envoy.cpu.unchanged": response.resources - altered}
    return work


def envoy_cpu(calibration: Calibration, amounts: Mapping[str, float]) -> Bounds:
    """CPU seconds of Envoys for amounts from `envoy_work`."""
    seconds = Bounds(0.0, 0.0, 0.0)
    for unit, per in {"us": 1e-6, "ns": 1e-9}.items():
        of_unit = {name: amount for name, amount in amounts.items() if calibration.coefficients[name].unit == unit}
        seconds += total(calibration, of_unit).times(per, per, per)
    return seconds
