"""What the generators make: one value per xDS resource, with a name and all that decides its bytes.

`generators` (who gets which resources) makes them, `sizes` (how many bytes) reads them. They hold references to the
objects they were made from, so that two proxies with the same resource share one value and `sizes` can price it once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pushsim.conversion import SOCKET
from pushsim.mesh import Endpoint, Object, Port, Proxy, Service

#: Where a listener of every address binds.
ANY_ADDRESS = "0.0.0.0"

#: Clusters that drop traffic, and that pass it on to where it was going.
BLACK_HOLE, PASSTHROUGH = "BlackHoleCluster", "PassthroughCluster"

#: How Envoy finds a cluster's hosts.
Discovery = Literal["EDS", "ORIGINAL_DST", "STRICT_DNS", "LOGICAL_DNS", "STATIC"]


@dataclass(frozen=True, slots=True)
class OutboundCluster:
    """`outbound|PORT|SUBSET|HOST`: one port of one service, or one subset of it.

    rules:     the DestinationRules merged into the one that applies, oldest first; empty if none does.
    accounts:  SPIFFE identities of its endpoints, sorted (the subject alternative names).
    endpoints: inline endpoints, for DNS clusters only.
    all_mtls:  for PASSTHROUGH services only: it has endpoints, and all of them speak mTLS (tlsMode label `istio`).
    begins:    its discovery before a policy makes it ORIGINAL_DST, which leaves some of what there was; None: the same.
    """

    name: str
    service: Service
    port: Port
    subset: str
    discovery: Discovery
    rules: tuple[Object, ...] = ()
    accounts: tuple[str, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    all_mtls: bool = False
    begins: Discovery | None = None


@dataclass(frozen=True, slots=True)
class InboundCluster:
    """`inbound|TARGETPORT||`: one per distinct target port of the services that select the proxy.

    rules:    the DestinationRules merged into the one that applies to the first of these services.
    ingress:  it is of an ingress listener of a Sidecar.
    endpoint: where that leads: `127.0.0.1:PORT` or `0.0.0.0:PORT`, the pod's own address, or `unix:///PATH`; "" to
              wherever it was sent to.
    sidecar:  the proxy's Sidecar, which may say how many connections there may be.
    """

    name: str
    target_port: int
    services: tuple[tuple[Service, Port], ...]
    rules: tuple[Object, ...] = ()
    ingress: bool = False
    endpoint: str = ""
    sidecar: Object | None = None


@dataclass(frozen=True, slots=True)
class StaticCluster:
    """BlackHoleCluster, PassthroughCluster, InboundPassthroughCluster(Ipv4)."""

    name: str


@dataclass(frozen=True, slots=True)
class Added:
    """A cluster or listener that a patch of an EnvoyFilter adds, as it is written there."""

    xds: Literal["CDS", "LDS"]
    name: str
    value: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LoadAssignment:
    """An EDS ClusterLoadAssignment. service is None where the cluster is known no more: an empty assignment.

    endpoints are those of the port (and subset), in the order of the endpoint shards.
    """

    name: str
    service: Service | None
    port: Port | None
    subset: str
    rules: tuple[Object, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()


class Source(NamedTuple):
    """A proxy as routes ask for it (see `Asked`): labels of these keys, and its namespace, "" if none asks."""

    labels: tuple[tuple[str, str | None], ...] = ()
    namespace: str = ""

    def fits(self, match: Mapping[str, Any]) -> bool:
        """Whether a match of a route is for it (sourceMatchHTTP, matchTCP, matchTLS)."""
        wanted, labels = match.get("sourceLabels") or {}, dict(self.labels)
        return all(labels.get(key) == value for key, value in wanted.items()) and (
            match.get("sourceNamespace") in (None, "", self.namespace)
        )


NOBODY = Source()


class Asked(NamedTuple):
    """What routes ask of a proxy: labels of these keys, ascending, and whether its namespace."""

    labels: tuple[str, ...]
    namespace: bool

    @classmethod
    def by(cls, virtual_services: Iterable[Object], *kinds: Literal["http", "tcp", "tls"]) -> Asked:
        """What routes of these kinds ask, in the matches that they are for."""
        routes = (r for written in virtual_services for kind in kinds for r in written.spec.get(kind) or ())
        matches = [match for route in routes for match in route.get("match") or () if match]
        keys = sorted({key for match in matches for key in match.get("sourceLabels") or ()})
        return cls(tuple(keys), any(match.get("sourceNamespace") for match in matches))

    def of(self, proxy: Proxy) -> Source:
        """What that proxy tells."""
        labels = tuple((key, proxy.labels.get(key)) for key in self.labels)
        return Source(labels, proxy.namespace if self.namespace else "")


@dataclass(frozen=True, slots=True)
class Listener:
    """An LDS listener.

    kind:      virtualOutbound | virtualInbound | http (0.0.0.0_PORT with an RDS route) | tcp (VIP_PORT) |
               auto (VIP_PORT, sniffed: HTTP chain with its own RDS route, and TCP) | gateway |
               inbound (an ingress listener of a Sidecar that binds its port itself).
    route:     of a sidecar's, the RDS route it names, "" if none.
    services:  the (service, port) pairs behind it: outbound ones, or for virtualInbound the proxy's own.
    target_ports, binds: for inbound ones, the target port of each entry of `services`, and its address if not any.
    servers:   for a gateway, the (Gateway, index of the server in it) pairs merged into this port.
    virtual_services: VirtualServices that shape it (tcp/tls routes).
    source:    what these ask of a sidecar, and are told: labels, and its namespace.
    rules:     for a gateway the DestinationRules of its services; for virtualInbound the Sidecar whose ingress
               listeners are in it.
    connections: the DestinationRules that shape TCP proxies, by host: of services, and of destinations of routes.
    only_ports: for a gateway, by host the port of services that have no other, which routes lead to that name none.
    cidrs:     destination ranges by host, where a service's address is one (the listener then binds 0.0.0.0).
    bound:     binds its port itself (captureMode NONE), instead of getting what iptables redirects.
    unknown:   of a sidecar's: the cluster that takes traffic for nobody known, as its Sidecar's outboundTrafficPolicy
               says; "" leaves it to the mesh config.
    """

    name: str
    kind: Literal["virtualOutbound", "virtualInbound", "inbound", "http", "tcp", "auto", "gateway"]
    bind: str
    port: int
    route: str = ""
    services: tuple[tuple[Service, Port], ...] = ()
    target_ports: tuple[int, ...] = ()
    binds: tuple[str, ...] = ()
    servers: tuple[tuple[Object, int], ...] = ()
    virtual_services: tuple[Object, ...] = ()
    source: Source = NOBODY
    rules: tuple[Object, ...] = ()
    connections: tuple[tuple[str, tuple[Object, ...]], ...] = ()
    only_ports: tuple[tuple[str, int], ...] = ()
    cidrs: tuple[tuple[str, str], ...] = ()
    bound: bool = False
    unknown: str = ""

    def served(self) -> Iterator[tuple[Service, Port, int, str]]:
        """Of an inbound one, the service ports with target port and address."""
        binds = self.binds or (ANY_ADDRESS,) * len(self.services)
        for (service, port), target, bind in zip(self.services, self.target_ports, binds, strict=True):
            yield service, port, target, bind

    def rules_of(self, host: str) -> tuple[Object, ...]:
        """The DestinationRules of a host that shape TCP proxies to it."""
        return next((rules for name, rules in self.connections if name == host), ())


@dataclass(frozen=True, slots=True)
class RouteConfiguration:
    """An RDS route: `PORT`, `HOST:PORT` (sniffed) or `http.PORT` / `https.…` (gateway).

    services:         the (service, port) pairs that have a virtual host here; for a gateway, those that its routes
                      name, as far as they have a single port.
    virtual_services: the VirtualServices whose hosts have one here, in the order istiod applies them.
    servers:          for a gateway, the (Gateway, server index) pairs of the port.
    known:            False for a name that nothing generates any more (an empty or catch-all configuration is sent).
    rules:            the DestinationRules that hash (consistentHash), by host; hosts without one may be left out.
    unknown:          as of a Listener.
    others:           hosts of services that have the port for another protocol, where there are VirtualServices: these
                      give them no virtual host.
    aliases:          for a gateway, what ExternalName Services that its routes name stand for, by host.
    every_port:       of a listener that takes requests for any port (HTTP_PROXY): services have a virtual host each.
    """

    name: str
    services: tuple[tuple[Service, Port], ...] = ()
    virtual_services: tuple[Object, ...] = ()
    servers: tuple[tuple[Object, int], ...] = ()
    known: bool = True
    rules: tuple[tuple[str, tuple[Object, ...]], ...] = ()
    unknown: str = ""
    others: tuple[str, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()
    every_port: bool = False

    @property
    def sniffed(self) -> str:
        """The host whose port it is for, where that port is sniffed; "" of all others."""
        return "" if self.name.startswith(SOCKET) else self.name.rpartition(":")[0]

    @property
    def cached(self) -> bool:
        """Whether istiod's cache has it: a sidecar's for a port, unless a VirtualService there asks who sends.

        Source: pilot/pkg/networking/core/route/route_cache.go (Cacheable).
        """
        return self.name.isdigit() and not any(Asked.by(self.virtual_services, "http"))

    def rules_of(self, host: str) -> tuple[Object, ...]:
        """The DestinationRules of a host that decide how requests to it are hashed."""
        return next((rules for name, rules in self.rules if name == host), ())


@dataclass(frozen=True, slots=True)
class Named:
    """What the agent of a proxy that captures DNS answers for a host: addresses, and the Kubernetes service it is."""

    host: str
    addresses: tuple[str, ...]
    registry: str
    short: str = ""
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class NameTable:
    """The one resource of NDS; it has no name."""

    hosts: tuple[Named, ...]
    name: str = ""


@dataclass(frozen=True, slots=True)
class Credential:
    """A secret that a proxy has from istiod: a certificate with its key, or an authority's (`-cacert`)."""

    name: str
    authority: bool
    written: Object


@dataclass(frozen=True, slots=True)
class Extension:
    """A filter that Envoy asks for by its name: of a WasmPlugin, or as an EnvoyFilter says it.

    secret: the Secret that the plugin's image is pulled with, if it names one and there is one.
    """

    name: str
    written: Object | Mapping[str, Any]
    secret: Object | None = None


Resource = (
    NameTable
    | Extension
    | Credential
    | OutboundCluster
    | InboundCluster
    | StaticCluster
    | Added
    | LoadAssignment
    | Listener
    | RouteConfiguration
)
