"""The ADS client of one proxy as a state machine without I/O: bytes in, a Response and the requests to send out.

A client speaks SotW or delta, as Envoy does (and as the recordings' proxies did):

1. CDS first, a wildcard. Then EDS for the EDS clusters in it, then LDS (a wildcard) once the endpoints are there, or at
   once if there are none to ask for; then RDS for the routes that the listeners' HTTP connection managers name.
2. Every response is acknowledged at once. SotW acknowledges with the complete current name list: istiod ignores a
   request whose nonce is not the last it sent for that type, names and all, so a list sent while a push is on its way
   counts only when it is repeated with that push's nonce. Delta acknowledges with the nonce alone.
3. When CDS or LDS change what there is to watch, EDS and RDS follow: SotW sends the new list (also an empty one), delta
   a spontaneous request of what to subscribe and unsubscribe.

A response is `solicited` if it answers a change of subscription that we sent since the last `settle`: it holds a
name we had newly asked for, or (SotW istiods that answer a shortened list) just the list and nothing given up.

The protocol's own rules (`reference/istiod-standalone.md` §4) are istiod's, not Envoy's documentation's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError

from pushsim.mesh import Mode, Proxy, Xds

TYPE_URLS: dict[Xds, str] = {
    "CDS": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
    "EDS": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
    "LDS": "type.googleapis.com/envoy.config.listener.v3.Listener",
    "RDS": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
}
_XDS: dict[str, Xds] = {url: xds for xds, url in TYPE_URLS.items()}
#: Which type's resources name the resources of which other type.
CHILD: dict[Xds, Xds] = {"CDS": "EDS", "LDS": "RDS"}
METHODS: dict[Mode, str] = {
    "sotw": "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
    "delta": "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
}
HCM = f"type.googleapis.com/{HttpConnectionManager.DESCRIPTOR.full_name}"


class ProtocolError(Exception):
    """What came is not an ADS response of a type we asked for."""


class Resource(NamedTuple):
    """One resource as it came: its name, its type and the serialised message."""

    name: str
    type_url: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """One response of istiod, measured and named, not decoded.

    size_bytes: the whole message, without gRPC framing.
    names:      of the resources in it, sorted; `removed_names`: delta's removed resources, sorted.
    solicited:  we had asked for it; otherwise istiod pushed it.
    version, nonce: istiod's, as sent. `resources`: raw, in the order they came.
    """

    xds: Xds
    size_bytes: int
    names: tuple[str, ...]
    removed_names: tuple[str, ...]
    solicited: bool
    version: str
    nonce: str
    resources: tuple[Resource, ...] = field(repr=False)

    def as_recorded(self) -> dict[str, Any]:
        """This response as a recording holds it (`vectors/README.md`)."""
        return {
            "xds": self.xds,
            "resources": len(self.names),
            "removed": len(self.removed_names),
            "size_bytes": self.size_bytes,
            "solicited": self.solicited,
            "names": list(self.names),
            "removed_names": list(self.removed_names),
        }


def node(proxy: Proxy, release: str, metadata: Mapping[str, Any] | None = None) -> Any:
    """The `envoy.config.core.v3.Node` of a proxy, as its agent would describe it to an istiod of this release.

    `metadata` is laid over the usual one.
    """
    found = base_pb2.Node(id=f"{proxy.type}~{proxy.ip}~{proxy.id}~{proxy.namespace}.svc.cluster.local")
    found.metadata.update(
        {
            "CLUSTER_ID": "Kubernetes",
            "NAMESPACE": proxy.namespace,
            "INSTANCE_IPS": proxy.ip,
            "LABELS": dict(proxy.labels),
            "SERVICE_ACCOUNT": proxy.service_account,
            "MESH_ID": "cluster.local",
            "ISTIO_VERSION": release,
            **(metadata or {}),
        }
    )
    return found


@dataclass(slots=True)
class _Watch:
    """One type's subscription on this stream.

    names:            what is subscribed to; always empty for the wildcards CDS and LDS.
    version, nonce:   of the last response; no nonce, no response on this stream yet.
    requested:        a request was sent on this stream.
    asked, shortened: names newly subscribed to, and whether some were given up, since the last answer or `settle`.
    held:             delta: the resources we have, with their versions; told on reconnection.
    """

    names: set[str] = field(default_factory=set)
    version: str = ""
    nonce: str = ""
    requested: bool = False
    asked: set[str] = field(default_factory=set)
    shortened: bool = False
    held: dict[str, str] = field(default_factory=dict)


class AdsClient:
    """One proxy's ADS stream. `connect`, then `receive` each message; both return the requests to send, in order.

    The stream's life is the caller's: after it broke, `connect` again. Subscriptions are then named anew, and delta
    tells which resources it still holds.
    """

    def __init__(self, proxy: Proxy, release: str, mode: Mode, metadata: Mapping[str, Any] | None = None) -> None:
        self.proxy = proxy
        self.mode = mode
        self._node = node(proxy, release, metadata)
        self._watches: dict[Xds, _Watch] = {xds: _Watch() for xds in TYPE_URLS}
        self._children: dict[Xds, dict[str, tuple[str, ...]]] = {xds: {} for xds in CHILD}
        self._connected = False

    @property
    def synced(self) -> bool:
        """The first conversation is over: every type there was something to ask of was asked for and answered."""
        watches = self._watches.values()
        return self._watches["LDS"].requested and all(watch.nonce or not watch.requested for watch in watches)

    def connect(self) -> list[bytes]:
        """The requests that open a stream, the first or after a broken one."""
        for watch in self._watches.values():
            watch.nonce, watch.requested, watch.asked, watch.shortened = "", False, set(), False
        self._connected = True
        return [self._request("CDS", first=True)]

    def settle(self) -> None:
        """All is quiet: what was not answered will not be, so whatever comes now is a push."""
        for watch in self._watches.values():
            watch.asked, watch.shortened = set(), False

    def receive(self, data: bytes) -> tuple[Response, list[bytes]]:
        """One message of istiod: what it was, and the requests it calls for. Raises ProtocolError."""
        response = self._read(data)
        xds, watch = response.xds, self._watches[response.xds]
        watch.version, watch.nonce = response.version, response.nonce
        watch.asked.difference_update(response.names, response.removed_names)
        requests = [self._acknowledge(xds)]
        if xds in CHILD:
            requests += self._follow(xds, response)
        if not self._watches["LDS"].requested and (xds == "EDS" or not self._watches["EDS"].requested):
            requests.append(self._request("LDS"))
        return response, requests

    def reject(self, data: bytes, message: str) -> tuple[Response, list[bytes]]:
        """As `receive`, but refuse the configuration (NACK) and keep the one before. Raises ProtocolError."""
        response = self._read(data)
        self._watches[response.xds].nonce = response.nonce
        return response, [self._acknowledge(response.xds, message)]

    def _read(self, data: bytes) -> Response:
        if not self._connected:
            raise ProtocolError("a message came before the stream was opened")
        removed: tuple[str, ...] = ()
        try:
            if self.mode == "sotw":
                sotw = discovery_pb2.DiscoveryResponse.FromString(data)
                xds, version, nonce = _XDS[sotw.type_url], sotw.version_info, sotw.nonce
                resources = tuple(Resource(name_of(any.value), any.type_url, any.value) for any in sotw.resources)
            else:
                delta = discovery_pb2.DeltaDiscoveryResponse.FromString(data)
                xds, version, nonce = _XDS[delta.type_url], delta.system_version_info, delta.nonce
                removed = tuple(sorted(delta.removed_resources))
                resources = tuple(Resource(r.name, r.resource.type_url, r.resource.value) for r in delta.resources)
                held = self._watches[xds].held
                held.update((resource.name, resource.version) for resource in delta.resources)
                for name in removed:
                    held.pop(name, None)
        except (DecodeError, KeyError, IndexError) as problem:
            raise ProtocolError(f"not an ADS response of a type we asked for: {problem}") from None
        names = tuple(sorted(resource.name for resource in resources))
        solicited = self._solicited(self._watches[xds], names, removed)
        return Response(xds, len(data), names, removed, solicited, version, nonce, resources)

    def _solicited(self, watch: _Watch, names: tuple[str, ...], removed: tuple[str, ...]) -> bool:
        if not watch.nonce or not watch.asked.isdisjoint(names) or not watch.asked.isdisjoint(removed):
            return True
        if self.mode == "sotw" and watch.shortened and not watch.asked and watch.names == set(names):
            watch.shortened = False
            return True
        return False

    def _follow(self, xds: Xds, response: Response) -> list[bytes]:
        """Subscribe to what the resources of CDS or LDS name now, if that has changed."""
        find = _cluster_children if xds == "CDS" else _listener_children
        found = {resource.name: find(resource.value) for resource in response.resources}
        if self.mode == "sotw":
            self._children[xds] = found
        else:
            self._children[xds].update(found)
            for name in response.removed_names:
                self._children[xds].pop(name, None)
        wanted = {name for names in self._children[xds].values() for name in names}
        watch = self._watches[CHILD[xds]]
        had = watch.names if watch.requested else set()
        added, gone = wanted - had, had - wanted
        watch.names = wanted
        if not added and not gone:
            return []
        watch.asked = (watch.asked | added) - gone
        watch.shortened = bool(gone)
        for name in gone:
            watch.held.pop(name, None)
        return [self._request(CHILD[xds], added, gone)]

    def _request(self, xds: Xds, added: Iterable[str] = (), gone: Iterable[str] = (), first: bool = False) -> bytes:
        watch = self._watches[xds]
        if self.mode == "sotw":
            request = self._sotw(xds)
        else:
            request = discovery_pb2.DeltaDiscoveryRequest(
                type_url=TYPE_URLS[xds],
                resource_names_subscribe=sorted(added),
                resource_names_unsubscribe=sorted(gone),
                initial_resource_versions={} if watch.requested else watch.held,
            )
        watch.requested = True
        if first:
            request.node.CopyFrom(self._node)
        return bytes(request.SerializeToString())

    def _acknowledge(self, xds: Xds, error: str = "") -> bytes:
        if self.mode == "sotw":
            request = self._sotw(xds)
        else:
            request = discovery_pb2.DeltaDiscoveryRequest(
                type_url=TYPE_URLS[xds], response_nonce=self._watches[xds].nonce
            )
        if error:
            request.error_detail.code = 3
            request.error_detail.message = error
        return bytes(request.SerializeToString())

    def _sotw(self, xds: Xds) -> Any:
        watch = self._watches[xds]
        return discovery_pb2.DiscoveryRequest(
            type_url=TYPE_URLS[xds],
            resource_names=sorted(watch.names),
            response_nonce=watch.nonce,
            version_info=watch.version,
        )


def name_of(value: bytes) -> str:
    """The name of a serialised cluster, endpoint assignment, listener or route configuration: field 1 of each."""
    if not value or value[0] != 0x0A:
        return ""
    length, at, shift = 0, 1, 0
    while True:
        byte = value[at]
        length |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value[at : at + length].decode()


@lru_cache(65536)
def _cluster_children(value: bytes) -> tuple[str, ...]:
    cluster = cluster_pb2.Cluster.FromString(value)
    if cluster.type != cluster_pb2.Cluster.EDS:
        return ()
    return (cluster.eds_cluster_config.service_name or cluster.name,)


@lru_cache(16384)
def _listener_children(value: bytes) -> tuple[str, ...]:
    listener = listener_pb2.Listener.FromString(value)
    chains = [*listener.filter_chains]
    if listener.HasField("default_filter_chain"):
        chains.append(listener.default_filter_chain)
    routes: dict[str, None] = {}
    for chain in chains:
        for network_filter in chain.filters:
            if network_filter.typed_config.type_url == HCM:
                manager = HttpConnectionManager.FromString(network_filter.typed_config.value)
                if manager.HasField("rds"):
                    routes[manager.rds.route_config_name] = None
    return tuple(routes)
