"""A proxy's /config_dump: what it holds, and, fed to a real Envoy, what that takes.

Istio's own filters are left out, for stock Envoy can't load them; so is what refers to certificates in files.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from google.protobuf import descriptor_pool, json_format

from pushsim.ads.children import HCM
from pushsim.calibrate import proxies
from pushsim.calibrate.fitting import Findings, calibration, compared, told
from pushsim.cost import envoy_memory
from pushsim.cost.amounts import held_by
from pushsim.cost.fit import Measurement, Prior, fit
from pushsim.envoy import at_rest, options_of
from pushsim.errors import InputError, Problem
from pushsim.mesh import Xds
from pushsim.planner import Shape

#: Bytes: what fitting does not explain of a proxy's heap.
_ERROR = 0.05
_TLS = "envoy.transport_sockets.tls"
_REMEDY = "save it with `istioctl proxy-config all POD -o json` or `curl localhost:15000/config_dump?include_eds`"
_MESSAGES: Mapping[Xds, Any] = {
    "CDS": cluster_pb2.Cluster,
    "EDS": endpoint_pb2.ClusterLoadAssignment,
    "LDS": listener_pb2.Listener,
    "RDS": route_pb2.RouteConfiguration,
}


@dataclass(frozen=True)
class Dump:
    """A proxy's configuration: serialised resources by type and name, what they hold, and what was left out."""

    name: str
    resources: Mapping[Xds, Mapping[str, bytes]]
    shape: Shape
    left_out: Mapping[str, int]


def load(path: Path) -> Dump:
    """Read a dump. Raises InputError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        sections = data["configs"]
    except OSError as problem:
        raise InputError(Problem(f"cannot be read: {problem.strerror}", str(path), remedy=_REMEDY)) from None
    except (ValueError, KeyError, TypeError):
        raise InputError(Problem("is no /config_dump of an Envoy", str(path), remedy=_REMEDY)) from None
    left_out: dict[str, int] = {}
    resources: dict[Xds, dict[str, bytes]] = {xds: {} for xds in _MESSAGES}
    counted = dict.fromkeys(Shape.__dataclass_fields__, 0)
    try:
        bodies = list(_bodies(sections))
    except (KeyError, TypeError, AttributeError) as problem:
        raise InputError(Problem(f"is no /config_dump of an Envoy: {problem}", str(path), remedy=_REMEDY)) from None
    for xds, body in bodies:
        message = _parsed(xds, _without_unknown(body, left_out), path)
        name = message.cluster_name if xds == "EDS" else message.name
        resources[xds][name] = message.SerializeToString()
        for what, count in _counts(xds, message).items():
            counted[what] += count
    if not resources["CDS"]:
        raise InputError(Problem("holds no clusters", str(path), remedy=_REMEDY))
    return Dump(path.name, resources, Shape(**counted), left_out)


def _bodies(sections: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Xds, dict[str, Any]]]:
    """The dynamic resources in a dump, as JSON."""
    for section in sections:
        for each in section.get("dynamic_active_clusters", ()):
            yield "CDS", each["cluster"]
        for each in section.get("dynamic_endpoint_configs", ()):
            yield "EDS", each["endpoint_config"]
        for each in section.get("dynamic_listeners", ()):
            if "active_state" in each:
                yield "LDS", each["active_state"]["listener"]
        for each in section.get("dynamic_route_configs", ()):
            yield "RDS", each["route_config"]


def _parsed(xds: Xds, body: dict[str, Any], path: Path) -> Any:
    try:
        return json_format.ParseDict(
            {key: value for key, value in body.items() if key != "@type"}, _MESSAGES[xds](), ignore_unknown_fields=True
        )
    except json_format.ParseError as problem:
        name = body.get("name") or body.get("cluster_name") or "?"
        raise InputError(Problem(f"{name}: {problem}", str(path), remedy="leave that resource out")) from None


def _without_unknown(value: Any, left_out: dict[str, int]) -> Any:
    """Without filters of types that only Istio's Envoy knows."""
    if isinstance(value, dict):
        return {key: _without_unknown(inner, left_out) for key, inner in value.items()}
    if not isinstance(value, list):
        return value
    kept = []
    for inner in value:
        if isinstance(inner, dict) and _istios(inner):
            left_out[inner["name"]] = left_out.get(inner["name"], 0) + 1
        else:
            kept.append(_without_unknown(inner, left_out))
    return kept


def _istios(filter_: Mapping[str, Any]) -> bool:
    name = filter_.get("name")
    config = filter_.get("typed_config")
    if not isinstance(name, str) or not isinstance(config, dict):
        return False
    url = str(config.get("@type", ""))
    return name.startswith("istio") or "TypedStruct" in url or not _known(url)


@lru_cache(None)
def _known(url: str) -> bool:
    """Whether there are Python messages of that type; they are imported."""
    full = url.rpartition("/")[2]
    package = full.rpartition(".")[0]
    try:
        found = importlib.import_module(package)
        for module in pkgutil.iter_modules(found.__path__, f"{package}."):
            importlib.import_module(module.name)
        descriptor_pool.Default().FindMessageTypeByName(full)
    except (ImportError, KeyError, AttributeError):
        return False
    return True


def _counts(xds: Xds, message: Any) -> dict[str, int]:
    """What a resource adds to a proxy's shape."""
    if xds == "CDS":
        sockets = [match.transport_socket.name for match in message.transport_socket_matches]
        tls = _TLS in [*sockets, message.transport_socket.name]
        inline = sum(len(group.lb_endpoints) for group in message.load_assignment.endpoints)
        return {"clusters": 1, "tls_clusters": int(tls), "endpoints": inline}
    if xds == "EDS":
        hosts = sum(len(group.lb_endpoints) for group in message.endpoints)
        return {"assignments": int(hosts > 0), "endpoints": hosts}
    if xds == "LDS":
        chains = [*message.filter_chains, message.default_filter_chain]
        managers = sum(f.typed_config.type_url == HCM for chain in chains for f in chain.filters)
        secure = sum(chain.transport_socket.name == _TLS for chain in chains)
        return {"listeners": 1, "managers": managers, "filter_chains": secure}
    return {"virtual_hosts": len(message.virtual_hosts)}


def from_dumps(
    paths: Sequence[Path], envoy: Path | None, release: str, found: Findings, progress: Callable[[str], None]
) -> Findings:
    """What dumps tell: with an Envoy, coefficients of the user's own shapes; without one, only what is predicted."""
    dumped = [load(path) for path in paths]
    known = calibration(release, found)
    entries: dict[str, dict[str, float]] = {}
    measured: list[Measurement] = []
    for dump in dumped:
        predicted = envoy_memory(known, dump.shape, 2)
        if envoy is None:
            entries[f"proxy of {dump.name} (private bytes)"] = {"predicted": predicted.value}
            continue
        progress(f"{dump.name}: {dump.shape.clusters} clusters, {dump.shape.listeners} listeners")
        grown, private = asyncio.run(_fed(envoy, release, dump))
        entries[f"proxy of {dump.name} (private bytes)"] = compared(private, predicted.value)
        measured.append(Measurement(dump.name, held_by(dump.shape, 2), grown, _ERROR * grown))
    if not measured:
        return Findings({}, entries)
    names = {name for m in measured for name in m.amounts}
    priors = {name: Prior(known[name], 1 + max(0.05, known.coefficients[name].error)) for name in names}
    return Findings(told(fit(measured, priors), "[M] the user's own configuration in an Envoy"), entries)


async def _fed(binary: Path, release: str, dump: Dump) -> tuple[float, float]:
    """What an Envoy allocates for a dump, and its private memory then."""
    run = proxies.Run(dump.name, (), 2, options_of(release))
    async with proxies.running(binary, run) as (started, feed):
        before = await at_rest(started, feed)
        for xds, resources in dump.resources.items():
            feed.put(xds, resources)
        feed.push("CDS", "LDS")
        after = await at_rest(started, feed)
    return after.allocated - before.allocated, after.private


__all__ = ["Dump", "from_dumps", "load"]
