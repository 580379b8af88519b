"""The ADS client of one proxy as a state machine without I/O: bytes in, a Response and the requests to send out.

A client speaks SotW or delta, as Envoy does (and as the recordings' proxies did):

1. CDS first, a wildcard. Then EDS for the EDS clusters in it, then LDS (a wildcard) once the endpoints are there, or at
   once if there are none to ask for; then RDS for the routes that the listeners' HTTP connection managers name.
2. Every response is acknowledged at once. SotW acknowledges with the complete current name list: istiod ignores a
   request whose nonce is not the last it sent for that type, names and all, so a list sent while a push is on its way
   counts only when it is repeated with that push's nonce. Delta acknowledges with the nonce alone.
3. When CDS or LDS change what there is to watch, EDS and RDS follow: SotW sends the new list (also an empty one), delta
   a spontaneous request of what to subscribe and unsubscribe.

A response is `solicited` if it answers a change of subscription that we sent since the last `mark_quiet`: it holds a
name we had newly asked for, or (SotW istiods that answer a shortened list, but not of ECDS) just the list and nothing
given up.

The protocol's own rules (`reference/istiod-standalone.md` §4) are istiod's, not Envoy's documentation's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError

from pushsim.ads import reading
from pushsim.ads.reading import Payload, Resource
from pushsim.mesh import COMMON, ON_DEMAND, TYPE_URLS, Mode, Proxy, Xds

#: Which type's resources name the resources of which other types.
CHILD: dict[Xds, tuple[Xds, ...]] = {"CDS": ("EDS", "SDS"), "LDS": ("RDS", "SDS", "ECDS")}
#: Types without names: all there is.
_WILDCARDS: frozenset[Xds] = frozenset({"CDS", "LDS", "NDS"})
METHODS: dict[Mode, str] = {
    "sotw": "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
    "delta": "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
}


class ProtocolError(Exception):
    """What came is not an ADS response of a type we asked for."""


@dataclass(frozen=True, slots=True)
class Response:
    """One response of istiod, measured and named, not decoded.

    size_bytes: the whole message, without gRPC framing.
    names:      of the resources in it, sorted; `removed_names`: delta's removed resources, sorted.
    solicited:  we had asked for it; otherwise istiod pushed it.
    version, nonce: istiod's, as sent.
    altered:    names of resources that this proxy did not have, had otherwise, or has no more.
    altered_hosts: RDS: the virtual hosts in which the altered routes differ.
    data:       the message itself.
    """

    xds: Xds
    size_bytes: int
    names: tuple[str, ...]
    removed_names: tuple[str, ...]
    solicited: bool
    version: str
    nonce: str
    altered: frozenset[str]
    altered_hosts: frozenset[str]
    mode: Mode
    data: bytes = field(repr=False)

    @property
    def resources(self) -> tuple[Resource, ...]:
        """The resources, decoded now, in the order they came."""
        return reading.resources(self.data, self.mode)

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
            **proxy.metadata,
            **(metadata or {}),
        }
    )
    return found


@dataclass(slots=True)
class _Watch:
    """One type's subscription on this stream.

    names:            what is subscribed to; always empty for wildcards.
    version, nonce:   of the last response; no nonce, no response on this stream yet.
    requested:        a request was sent on this stream.
    asked, shortened: names newly subscribed to, and whether some were given up, since the last answer or `mark_quiet`.
    opening_over:     the first request on this stream is answered, or will not be.
    held:             the resources we have: a hash of each by name (for SotW's CDS and LDS the payload's own).
    versions:         delta: of what we have, where istiod gave one; told on reconnection.
    hosts:            RDS: a hash of each virtual host, by route.
    children:         CDS, LDS in delta: what each resource names, by type.
    counts:           delta: how many resources name each.
    named:            SotW: by type that names them (CDS, LDS), the names it had last.
    """

    names: set[str] = field(default_factory=set)
    version: str = ""
    nonce: str = ""
    requested: bool = False
    asked: set[str] = field(default_factory=set)
    shortened: bool = False
    opening_over: bool = False
    held: dict[str, int] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    hosts: dict[str, Mapping[str, int]] = field(default_factory=dict)
    children: dict[tuple[str, Xds], tuple[str, ...]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    named: dict[Xds, frozenset[str]] = field(default_factory=dict)

    def drop(self, name: str) -> None:
        """The resource is not ours any more."""
        self.held.pop(name, None)
        self.versions.pop(name, None)
        self.hosts.pop(name, None)


class AdsClient:
    """One proxy's ADS stream. `connect`, then `receive` each message; both return the requests to send, in order.

    The stream's life is the caller's: after it broke, `connect` again. Subscriptions are then named anew, and delta
    tells which resources it still holds. on_demand: which of these types it asks for where it has something to.
    """

    def __init__(
        self,
        proxy: Proxy,
        release: str,
        mode: Mode,
        metadata: Mapping[str, Any] | None = None,
        on_demand: Collection[Xds] = ON_DEMAND,
    ) -> None:
        self.proxy = proxy
        self._asks = frozenset((*COMMON, *on_demand))
        self.mode = mode
        self._node = node(proxy, release, metadata)
        self._watches: dict[Xds, _Watch] = {xds: _Watch() for xds in TYPE_URLS}
        self._connected = False

    @property
    def synced(self) -> bool:
        """The first conversation is over: all common types there was something to ask of were asked for and answered.

        Others need not be: istiod has no answer to names of what there is not.
        """
        watches = [self._watches[xds] for xds in COMMON]
        return self._watches["LDS"].requested and all(watch.nonce or not watch.requested for watch in watches)

    @property
    def answered(self) -> bool:
        """Whether istiod has answered on this stream."""
        return bool(self._watches["CDS"].nonce)

    def connect(self) -> list[bytes]:
        """The requests that open a stream, the first or after a broken one."""
        for watch in self._watches.values():
            watch.nonce, watch.requested, watch.asked, watch.shortened = "", False, set(), False
            watch.opening_over = False
        self._connected = True
        return [self._request("CDS", first=True)]

    def mark_quiet(self) -> None:
        """All is quiet: what was not answered will not be, so whatever comes now is a push."""
        for watch in self._watches.values():
            watch.asked, watch.shortened, watch.opening_over = set(), False, watch.requested

    def receive(self, data: bytes) -> tuple[Response, list[bytes]]:
        """One message of istiod: what it was, and the requests it calls for. Raises ProtocolError."""
        response, payload = self._read(data)
        xds, watch = response.xds, self._watches[response.xds]
        watch.version, watch.nonce = response.version, response.nonce
        watch.asked.difference_update(response.names, response.removed_names)
        self._hold(watch, xds, payload, response.removed_names)
        requests = [self._acknowledge(xds)]
        for child in CHILD.get(xds, ()):
            if child in self._asks:
                requests += self._follow(xds, child, payload, response.removed_names)
        if not self._watches["LDS"].requested and (xds == "EDS" or not self._watches["EDS"].requested):
            requests.append(self._request("LDS"))
            if self.proxy.captures_dns and "NDS" in self._asks:  # xds_proxy.go, handleUpstreamRequest
                requests.append(self._request("NDS"))
        return response, requests

    def reject(self, data: bytes, message: str) -> tuple[Response, list[bytes]]:
        """As `receive`, but refuse the configuration (NACK) and keep the one before. Raises ProtocolError."""
        response, _ = self._read(data)
        self._watches[response.xds].nonce = response.nonce
        return response, [self._acknowledge(response.xds, message)]

    def _read(self, data: bytes) -> tuple[Response, Payload]:
        if not self._connected:
            raise ProtocolError("a message came before the stream was opened")
        try:
            read = reading.read(data, self.mode)
        except (DecodeError, KeyError, IndexError) as problem:
            raise ProtocolError(f"not an ADS response of a type we asked for: {problem}") from None
        xds, payload, removed = read.xds, read.payload, read.removed
        watch = self._watches[xds]
        solicited = self._solicited(xds, watch, payload.names, removed)
        altered = self._altered(watch, xds, payload, removed)
        hosts = _altered_hosts(watch, altered, payload) if altered and xds == "RDS" else _NOTHING
        response = Response(
            xds, len(data), payload.names, removed, solicited, read.version, read.nonce, altered, hosts, self.mode, data
        )
        return response, payload

    def _whole(self, xds: Xds) -> bool:
        """Whether a response of that type is all there is: what is not in it is gone."""
        return self.mode == "sotw" and xds in _WILDCARDS

    def _altered(self, watch: _Watch, xds: Xds, payload: Payload, removed: tuple[str, ...]) -> frozenset[str]:
        if self._whole(xds):
            if payload.digests is watch.held:
                return _NOTHING
            return frozenset(name for name, _ in payload.digests.items() ^ watch.held.items())
        held = watch.held
        changed = [name for name, digest in payload.digests.items() if held.get(name) != digest]
        return frozenset([*changed, *(name for name in removed if name in held)])

    def _hold(self, watch: _Watch, xds: Xds, payload: Payload, removed: tuple[str, ...]) -> None:
        """What we have from here on."""
        if self._whole(xds):
            watch.held = payload.digests
            return
        watch.held.update(payload.digests)
        watch.versions.update(payload.versions)
        watch.hosts.update(payload.hosts)
        for name in removed:
            watch.drop(name)

    def _solicited(self, xds: Xds, watch: _Watch, names: tuple[str, ...], removed: tuple[str, ...]) -> bool:
        if not (watch.nonce or watch.opening_over):
            return True
        # of secrets there may be fewer than are asked for; an answer to a shortened list of extensions comes after the
        # push that shortened it, and looks the same
        all_of_them = watch.names == set(names) or (xds == "SDS" and names and watch.names.issuperset(names))
        shortened = self.mode == "sotw" and watch.shortened and xds != "ECDS"
        answers = not watch.asked.isdisjoint((*names, *removed)) or (shortened and not watch.asked and all_of_them)
        if answers and all_of_them:
            watch.shortened = False  # a list that also has new names is answered once
        return bool(answers)

    def _follow(self, xds: Xds, child: Xds, payload: Payload, removed: tuple[str, ...]) -> list[bytes]:
        """Subscribe to what the resources of CDS or LDS name of a type now, if that has changed."""
        watch = self._watches[child]
        had = frozenset(watch.names) if watch.requested else frozenset()
        if self.mode == "sotw":
            watch.named[xds] = payload.named.get(child, frozenset())
            now = watch.named[xds] if len(watch.named) == 1 else frozenset().union(*watch.named.values())
            added, gone = set(now - had), set(had - now)
        else:
            added, gone = _recount(self._watches[xds], watch, child, payload, removed)
            if not watch.requested:
                added, gone = set(watch.counts), set()
        if not added and not gone:
            return []
        if not watch.requested:
            watch.names = set(added)
        else:
            watch.names |= added
            watch.names -= gone
        watch.asked = (watch.asked | added) - gone
        watch.shortened = bool(gone)
        for name in gone:
            watch.drop(name)
        return [self._request(child, added, gone)]

    def _request(self, xds: Xds, added: Iterable[str] = (), gone: Iterable[str] = (), first: bool = False) -> bytes:
        watch = self._watches[xds]
        if self.mode == "sotw":
            request = self._sotw(xds)
        else:
            request = discovery_pb2.DeltaDiscoveryRequest(
                type_url=TYPE_URLS[xds],
                resource_names_subscribe=sorted(added),
                resource_names_unsubscribe=sorted(gone),
                initial_resource_versions={} if watch.requested else self._initial(watch),
            )
        watch.requested = True
        if first:
            request.node.CopyFrom(self._node)
        return bytes(request.SerializeToString())

    @staticmethod
    def _initial(watch: _Watch) -> dict[str, str]:
        return {name: watch.versions.get(name, "") for name in watch.held}

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


_NOTHING: frozenset[str] = frozenset()


def _altered_hosts(watch: _Watch, altered: Iterable[str], payload: Payload) -> frozenset[str]:
    """The virtual hosts that routes differ in from those we have."""
    pairs = ((payload.hosts.get(route, {}), watch.hosts.get(route, {})) for route in altered)
    return frozenset(host for new, old in pairs for host, _ in new.items() ^ old.items())


def _recount(
    parent: _Watch, watch: _Watch, xds: Xds, payload: Payload, removed: Iterable[str]
) -> tuple[set[str], set[str]]:
    """Take in what a delta's resources name of a type; returns what is named newly, and what by none any more."""
    touched: dict[str, bool] = {}

    def count(children: Iterable[str], by: int) -> None:
        for child in children:
            touched.setdefault(child, watch.counts[child] > 0)
            watch.counts[child] += by

    for name, children in payload.children.items():
        before, now = parent.children.get((name, xds), ()), children.get(xds, ())
        if before != now:
            count(before, -1)
            count(now, 1)
            parent.children[name, xds] = now
    for name in removed:
        count(parent.children.pop((name, xds), ()), -1)
    added = {child for child, had in touched.items() if not had and watch.counts[child] > 0}
    gone = {child for child, had in touched.items() if had and watch.counts[child] <= 0}
    for child in touched:
        if watch.counts[child] <= 0:
            del watch.counts[child]
    return added, gone
