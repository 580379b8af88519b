"""What an istiod's own metrics tell of its costs: averages over everything it did, so few coefficients, coarsely.

Wall time of a push is not CPU time: where istiod waits for cores, it is longer. So what is told from times has at least
the error given here, and the time of a Send is taken off.
"""

from __future__ import annotations

import math
from dataclasses import replace

from pushsim.calibrate.counters import Window
from pushsim.calibrate.fitting import Findings, compared
from pushsim.cost import DEFAULTS, Coefficient, shipped
from pushsim.cost.prices import marshalled
from pushsim.errors import InputError, Problem

#: Least error of what is told from wall times, and of memory at one moment.
_TIMES, _MEMORY = 0.5, 0.3
#: xDS type to the coefficients its generator's time is made of.
_GENERATORS = {
    "cds": ("cds.miss", "cds.inbound", "cds.static", "cds.walked", "cds.parsed"),
    "eds": ("eds.miss", "eds.endpoints", "eds.hit", "eds.walked"),
    "lds": ("lds.tcp", "lds.http", "lds.inbound", "lds.chains", "lds.ports"),
    "rds": ("rds.hosts", "rds.keys", "rds.routes", "rds.scanned"),
}
#: Bytes that one unit of a generator's main coefficient comes to (reference §6.3): a cluster, an endpoint with its
#: share of an assignment, an HTTP listener, a virtual host.
_TYPICAL_BYTES = {"cds": 1100.0, "eds": 240.0, "lds": 2900.0, "rds": 600.0}
_MAIN = {"cds": "cds.miss", "eds": "eds.endpoints", "lds": "lds.http", "rds": "rds.hosts"}
_URLS = {
    "cds": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
    "eds": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
    "lds": "type.googleapis.com/envoy.config.listener.v3.Listener",
    "rds": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
}


def from_window(window: Window, release: str) -> Findings:
    """Coefficients told by a window of metrics. Raises InputError if it tells none."""
    found: dict[str, Coefficient] = {}
    fit: dict[str, dict[str, float]] = {}
    known = shipped(release)
    source = f"[M] metrics of the user's istiod, {window.seconds:.0f} s"

    def told(name: str, value: float, error: float) -> None:
        found[name] = replace(DEFAULTS[name], value=value, error=error, source=source, fitted=True)

    services = window.scrape.total("pilot_services")
    contexts = window.scrape.histogram("pilot_pushcontext_init_seconds")
    if contexts is not None and contexts.mean and services:
        units = services * (1 + math.log2(services) / 10)
        predicted = units * known["push.services"] * known["gc"] / 1e6
        fit["pilot_pushcontext_init_seconds, mean (s)"] = compared(contexts.mean, predicted)
        told("push.services", contexts.mean * 1e6 / known["gc"] / units, _TIMES)
    for xds, names in _GENERATORS.items():
        times = window.scrape.histogram("pilot_xds_push_time", type=xds)
        sizes = window.scrape.histogram("pilot_xds_config_size_bytes", type=_URLS[xds])
        if times is None or sizes is None or not times.count or not sizes.sum:
            continue
        measured = times.sum / times.count
        size = sizes.sum / sizes.count
        per_byte = known[_MAIN[xds]] / _TYPICAL_BYTES[xds] + known[marshalled(xds.upper())] / 1e3
        predicted = size * per_byte * known["gc"] / 1e6
        fit[f"pilot_xds_push_time of {xds}, mean (s)"] = compared(measured, predicted)
        for name in names:
            told(name, known[name] * measured / predicted, max(_TIMES, known.coefficients[name].error))
    resident = window.scrape.total("process_resident_memory_bytes")
    connections = window.scrape.total("pilot_xds")
    rest = known["memory.runtime"] + known["memory.base"] + known["memory.services"] * services
    if resident and connections:
        fit["process_resident_memory_bytes"] = compared(resident, rest + known["memory.connections"] * connections)
        if resident > rest * (1 + _MEMORY):  # what the connections take is more than what the rest may be off by
            told("memory.connections", (resident - rest) / connections, _MEMORY)
    if not fit:
        message = "has neither times nor sizes of pushes, nor memory with connections"
        raise InputError(Problem(message, window.source, remedy="take metrics of an istiod with proxies connected"))
    return Findings(found, fit)
