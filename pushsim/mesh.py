"""Istio's nouns: the objects an API server holds, the proxies of a mesh, and changes to both.

Objects stay as their manifests say (`Object.body`); what istiod makes of them is the business of
`registry`. Everything here is a value: frozen, hashable by identity of content where that is cheap,
never changed in place. No I/O, no clock, no randomness.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

ProxyType = Literal["sidecar", "router", "waypoint", "ztunnel"]
Mode = Literal["sotw", "delta"]
Xds = Literal["CDS", "EDS", "LDS", "RDS", "SDS", "ECDS", "NDS"]

#: In the order istiod pushes them, but for ECDS and NDS, which have none (pilot/pkg/xds/ads.go, orderWatchedResources).
XDS: tuple[Xds, ...] = ("CDS", "EDS", "LDS", "RDS", "SDS", "ECDS", "NDS")
TYPE_URLS: Mapping[Xds, str] = {
    "CDS": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
    "EDS": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
    "LDS": "type.googleapis.com/envoy.config.listener.v3.Listener",
    "RDS": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
    "SDS": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
    "ECDS": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
    "NDS": "type.googleapis.com/istio.networking.nds.v1.NameTable",
}
#: Those that every proxy has; the others come `ON_DEMAND`: where a proxy has something to ask for.
COMMON: tuple[Xds, ...] = XDS[:4]
ON_DEMAND: frozenset[Xds] = frozenset(XDS[4:])

#: The label that tells which node a workload is on.
HOSTNAME = "kubernetes.io/hostname"

#: The labels of a Service whose clients stay with the endpoint that they had: by cookie, by header.
SESSION, SESSION_HEADER = "istio.io/persistent-session", "istio.io/persistent-session-header"

#: Cluster-scoped kinds: their `Ref.namespace` is "".
CLUSTER_SCOPED = frozenset({"Namespace", "Node"})


class Ref(NamedTuple):
    """Which object: Kubernetes kind (`Service`, `VirtualService`, …), namespace ("" if cluster-scoped) and name.

    Kinds are unique here: `Gateway` is Istio's, and kinds we do not model never become a Ref.
    """

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return "/".join(part for part in self if part)


class ConfigKey(NamedTuple):
    """istiod's ConfigKey: what a PushRequest says has changed.

    `kind` is istiod's kind, not Kubernetes': a Service is `ServiceEntry` with its FQDN as name;
    `Endpoints` (1.31+), `DNSName`; config kinds carry their own.
    """

    kind: str
    name: str
    namespace: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name} ({self.namespace})"


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Object:
    """One Kubernetes or Istio object as an API server would hold it.

    `body` is the whole manifest (apiVersion, kind, metadata with name and namespace filled in, spec, …) as plain
    JSON values; treat it as read-only. `source` says where it was read ("mesh.yaml, document 3"), for messages;
    it is not part of the object's identity.
    """

    ref: Ref
    body: Mapping[str, Any]
    source: str = ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Object) and self.ref == other.ref and self.body == other.body

    def __hash__(self) -> int:
        return hash(self.ref)

    @property
    def metadata(self) -> Mapping[str, Any]:
        return self.body.get("metadata") or {}

    @property
    def labels(self) -> Mapping[str, str]:
        return self.metadata.get("labels") or {}

    @property
    def annotations(self) -> Mapping[str, str]:
        return self.metadata.get("annotations") or {}

    @property
    def selects(self) -> Mapping[str, str]:
        """The labels of the workloads that a policy is for (`spec.selector.matchLabels`); empty for all of them."""
        return (self.spec.get("selector") or {}).get("matchLabels") or {}

    @property
    def spec(self) -> Mapping[str, Any]:
        return self.body.get("spec") or {}

    @property
    def status(self) -> Mapping[str, Any]:
        return self.body.get("status") or {}

    @property
    def creation(self) -> str:
        """RFC 3339 creation timestamp, "" if the manifest has none (sorts first, as Go's zero time does)."""
        return str(self.metadata.get("creationTimestamp") or "")


@dataclass(frozen=True, slots=True)
class Proxy:
    """One Envoy that will connect: `name` and `namespace` are its pod's.

    `labels` are the pod's (istiod prefers the registry's, these are the fallback). `ip` is INSTANCE_IPS[0]. `metadata`
    is what its agent adds to its node's of its own settings, by Istio's names (`DNS_CAPTURE`, `DNS_AUTO_ALLOCATE`).
    """

    name: str
    namespace: str
    ip: str
    type: ProxyType = "sidecar"
    labels: Mapping[str, str] = field(default_factory=dict)
    service_account: str = "default"
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def captures_dns(self) -> bool:
        """Whether its agent answers DNS, and so asks for names (NDS): a sidecar's only (initLocalDNSServer)."""
        return bool(self.metadata) and self.type == "sidecar" and truth(self.metadata.get("DNS_CAPTURE"))

    @property
    def allocates_addresses(self) -> bool:
        """Whether ServiceEntries without an address have for it the one that istiod allocated (GetAddressForProxy)."""
        told = self.metadata
        return bool(told) and truth(told.get("DNS_CAPTURE")) and truth(told.get("DNS_AUTO_ALLOCATE"))

    @property
    def naming(self) -> tuple[bool, bool] | None:
        """What its own settings decide of what it is sent; None without any."""
        return (self.captures_dns, self.allocates_addresses) if self.metadata else None

    @property
    def id(self) -> str:
        """`name.namespace`, the key of recordings and of `--explain`."""
        return f"{self.name}.{self.namespace}"

    def __hash__(self) -> int:
        return hash((self.name, self.namespace))


_BOOLEANS = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}


def boolean(text: str) -> bool | None:
    """A boolean as istiod reads one (Go's ParseBool), in any case; None for anything else."""
    return _BOOLEANS.get(text.lower())


def truth(written: object, default: bool = False) -> bool:
    """A boolean as YAML, metadata or an environment variable has it; what is empty or left out is the default."""
    if written is None or written == "":
        return default
    return boolean(str(written)) or False


@dataclass(frozen=True, slots=True)
class Change:
    """Objects written (created or replaced whole, in this order) and deleted together: one step of a case.

    mesh_config: fields of MeshConfig that are written over what there was; None if the MeshConfig stays as it is.
    """

    apply: tuple[Object, ...] = ()
    delete: tuple[Ref, ...] = ()
    name: str = ""
    mesh_config: Mapping[str, Any] | None = None


#: After a Service is written, Kubernetes' EndpointSlice controller takes a moment [E]: istiod has it by then.
SLICES_LATER_NS = 10_000_000


def in_parts(change: Change) -> tuple[Change, ...]:
    """A change as it reaches the API server, each part SLICES_LATER_NS after the one before.

    The EndpointSlices of a Service are written by their controller, later than the Service: two parts for a change that
    writes both (what it deletes goes with the second), else one.
    """
    services = {(o.ref.namespace, o.ref.name) for o in change.apply if o.ref.kind == "Service"}
    slices = tuple(o for o in change.apply if o.ref.kind == "EndpointSlice")
    if not any((o.ref.namespace, o.labels.get("kubernetes.io/service-name")) in services for o in slices):
        return (change,)
    first = replace(change, apply=tuple(o for o in change.apply if o.ref.kind != "EndpointSlice"), delete=())
    return first, Change(slices, change.delete)


@dataclass(frozen=True, slots=True)
class Mesh:
    """All objects and proxies, with the mesh config and environment istiod runs with.

    objects:     by Ref, in the order they were created.
    proxies:     every Envoy that connects.
    mesh_config: Istio's MeshConfig, laid over the profile's.
    env:         istiod's environment variables, by Istio's own names.
    """

    objects: Mapping[Ref, Object] = field(default_factory=dict)
    proxies: tuple[Proxy, ...] = ()
    mesh_config: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Mesh of {len(self.objects)} objects and {len(self.proxies)} proxies>"

    def of_kind(self, *kinds: str) -> Iterable[Object]:
        """The objects of these Kubernetes kinds, in creation order."""
        return (o for o in self.objects.values() if o.ref.kind in kinds)

    def after(self, change: Change) -> Mesh:
        """The mesh with the change applied; proxies stay connected as they are."""
        objects = dict(self.objects)
        for written in change.apply:
            objects[written.ref] = written
        for ref in change.delete:
            objects.pop(ref, None)
        return Mesh(objects, self.proxies, {**self.mesh_config, **(change.mesh_config or {})}, self.env)


class Port(NamedTuple):
    """A port of a service: `protocol` is Istio's (HTTP, HTTP2, GRPC, HTTPS, TLS, TCP, UDP, …; `auto` means sniffed)."""

    name: str
    number: int
    protocol: str

    @property
    def http(self) -> bool:
        """Istio's IsHTTP: an HTTP listener and an RDS route, no TCP listener."""
        return self.protocol in HTTP_PROTOCOLS

    @property
    def auto(self) -> bool:
        """Protocol unknown: sniffed, a listener with both an HTTP and a TCP chain."""
        return self.protocol == "auto"


#: protocol.Instance.IsHTTP of istio/istio pkg/config/protocol.
HTTP_PROTOCOLS = frozenset({"HTTP", "HTTP2", "HTTP_PROXY", "GRPC", "GRPC-Web"})

Resolution = Literal["EDS", "DNS", "DNS_ROUND_ROBIN", "PASSTHROUGH", "ALIAS"]
#: What a ServiceEntry's resolution becomes.
RESOLUTIONS: Mapping[str, Resolution] = {
    "STATIC": "EDS",
    "DNS": "DNS",
    "DNS_ROUND_ROBIN": "DNS_ROUND_ROBIN",
    "NONE": "PASSTHROUGH",
    "DYNAMIC_DNS": "DNS",
}


@dataclass(frozen=True, slots=True)
class Service:
    """istiod's model.Service: what a Kubernetes Service or one host of a ServiceEntry becomes.

    Equality is istiod's `Service.Equals` (who is pushed for an update hangs on it), so fields that Equals ignores are
    `compare=False`.

    hostname:     FQDN (`b.ns-b.svc.cluster.local`) or the ServiceEntry's host.
    export_to:    values of exportTo as written, empty if none.
    resolution:   EDS (ClientSideLB), DNS, DNS_ROUND_ROBIN, PASSTHROUGH (headless, ServiceEntry NONE) or ALIAS
                  (ExternalName).
    addresses:    cluster IPs or the ServiceEntry's addresses; empty for headless.
    auto_address: the address istiod allocated in process (240.240.x.y), "" if none.
    target_ports: targetPort by port name, as written: an int, a name, or absent.
    accounts:     service accounts named on the object itself (not those of endpoints).
    aliases:      in a PushContext, hosts of the ExternalName Services that stand for it.
    """

    hostname: str
    namespace: str
    name: str
    ports: tuple[Port, ...]
    resolution: Resolution
    registry: Literal["Kubernetes", "External"] = "Kubernetes"
    export_to: frozenset[str] = frozenset()
    addresses: tuple[str, ...] = ()
    auto_address: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    selector: tuple[tuple[str, str], ...] = ()
    type: str = "ClusterIP"
    external: bool = False
    accounts: tuple[str, ...] = ()
    extras: tuple[tuple[str, str], ...] = ()
    aliases: tuple[str, ...] = ()
    created: str = field(default="", compare=False)
    target_ports: tuple[tuple[str, int | str | None], ...] = field(default=(), compare=False)

    @property
    def headless(self) -> bool:
        """A Kubernetes Service with clusterIP None."""
        return self.registry == "Kubernetes" and self.resolution == "PASSTHROUGH"

    def port(self, number: int) -> Port | None:
        """The first of its ports with that number; none of UDP, which has no cluster (PortList.GetByPort)."""
        return next((port for port in self.ports if port.number == number and port.protocol != "UDP"), None)

    @property
    def node_local(self) -> bool:
        """Whether each proxy is to know its endpoints on its own node alone."""
        return ("internalTrafficPolicy", "Local") in self.extras

    @property
    def distribution(self) -> str:
        """What its wish to be called near by means (trafficDistribution): `zone`, `node`, "" if it has none."""
        return next((value for key, value in self.extras if key == "trafficDistribution"), "")

    def labelled(self, label: str) -> bool:
        """Whether it has a label that is not empty."""
        return any(key == label and value for key, value in self.labels)

    @property
    def key(self) -> ConfigKey:
        """The key of a change to this service."""
        return ConfigKey("ServiceEntry", self.hostname, self.namespace)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of one service port: istiod's IstioEndpoint.

    account is a SPIFFE identity ("" if the endpoint has no known pod); locality "region/zone/subzone";
    tls is the `security.istio.io/tlsMode` label ("" for plaintext). One that is not healthy is sent to proxies only if
    `sent_unhealthy`; never while it is `terminating`; while it is `draining`, if its service keeps sessions. `host` and
    `subdomain` are its pod's name in DNS, if it has one of its own. `node` is where it runs, if istiod looks at that.
    `probed`: it is of a Pod or a slice, which say whether it is healthy, as WorkloadEntries and ServiceEntries do not.
    """

    address: str
    port: int
    port_name: str
    labels: tuple[tuple[str, str], ...] = ()
    account: str = ""
    locality: str = ""
    healthy: bool = True
    terminating: bool = False
    draining: bool = False
    sent_unhealthy: bool = False
    tls: str = ""
    weight: int = 0
    workload: str = ""
    network: str = ""
    node: str = ""
    host: str = ""
    subdomain: str = ""
    probed: bool = True
