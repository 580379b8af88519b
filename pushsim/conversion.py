"""Kubernetes Services and ServiceEntries to istiod's services and endpoints (`kube.ConvertService` and the like)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pushsim.mesh import RESOLUTIONS, Endpoint, Object, Port, Resolution, Service
from pushsim.releases import Rules

EXPORT_TO_ANNOTATION = "networking.istio.io/exportTo"
DISTRIBUTION = "networking.istio.io/traffic-distribution"
#: Service accounts of a Service's workloads: as they are, and those of its namespace.
_CANONICAL, _ACCOUNTS = "alpha.istio.io/canonical-serviceaccounts", "alpha.istio.io/kubernetes-serviceaccounts"
#: What addresses of Unix domain sockets begin with.
SOCKET = "unix://"
SERVICE_NAME_LABEL = "kubernetes.io/service-name"
TLS_MODE_LABEL = "security.istio.io/tlsMode"

#: protocol.Parse of istio/istio pkg/config/protocol, by lower-case name.
_NAMES = ("HTTP", "HTTP2", "HTTP_PROXY", "HTTPS", "GRPC", "GRPC-Web", "TCP", "TLS", "UDP", "Mongo", "Redis", "MySQL")
_PROTOCOLS = {name.lower(): name for name in _NAMES}
#: Never sniffed: SMTP, DNS, MySQL, MongoDB.
_WELL_KNOWN = frozenset({25, 53, 3306, 27017})


def pairs(mapping: Mapping[str, Any] | None) -> tuple[tuple[str, str], ...]:
    """A mapping as sorted pairs, hashable."""
    return tuple(sorted((str(k), str(v)) for k, v in (mapping or {}).items()))


def selects(selector: Iterable[tuple[str, str]], labels: Mapping[str, str]) -> bool:
    """Whether every pair of the selector is among the labels."""
    for key, value in selector:  # noqa: SIM110, as it is asked of every service for every proxy: half the time
        if labels.get(key) != value:
            return False
    return True


def parse_protocol(name: str) -> str:
    """Istio's name of a protocol, `auto` (Unsupported) if it is none."""
    return _PROTOCOLS.get(name.lower(), "auto")


def port_protocol(spec: Mapping[str, Any], rules: Rules) -> str:
    """Protocol of a Kubernetes Service port: UDP, then appProtocol, then the name's prefix, else sniffed."""
    if spec.get("protocol") == "UDP":
        return "UDP"
    name = str(spec.get("appProtocol") or spec.get("name") or "")
    for known, protocol in rules.app_protocols:
        if spec.get("appProtocol") == known:
            return protocol
    if name.lower().startswith("grpc-web"):
        return "GRPC-Web"
    protocol = parse_protocol(name.partition("-")[0])
    return "TCP" if protocol == "auto" and spec["port"] in _WELL_KNOWN else protocol


def fqdn(name: str, namespace: str) -> str:
    """Host name of a Kubernetes Service."""
    return f"{name}.{namespace}.svc.cluster.local"


def kubernetes_service(body: Object, rules: Rules, trust_domain: str) -> Service:
    """A Kubernetes Service as istiod converts it.

    Source: istio/istio pilot/pkg/serviceregistry/kube/conversion.go.
    """
    spec, annotations = body.spec, body.annotations
    external = str(spec.get("externalName") or "") if spec.get("type") == "ExternalName" else ""
    cluster_ip = str(spec.get("clusterIP") or "")
    resolution: Resolution = "EDS"
    addresses: tuple[str, ...] = (cluster_ip,) if cluster_ip else ("0.0.0.0",)
    if external:
        resolution, addresses = "ALIAS" if rules.external_name_aliases else "DNS", ("0.0.0.0",)
    elif cluster_ip == "None":
        resolution, addresses = "PASSTHROUGH", ("0.0.0.0",)
    elif len(spec.get("clusterIPs") or ()) > 1:
        addresses = tuple(spec["clusterIPs"])
    ports = spec.get("ports") or ()
    outside: list[str] = []
    if spec.get("type") == "LoadBalancer":
        ingress = (body.status.get("loadBalancer") or {}).get("ingress") or ()
        outside = [str(item.get("ip") or item.get("hostname") or "") for item in ingress]
    known = dict(rules.distributions)
    wishes = (str(of.get(key) or "") for of, key in ((spec, "trafficDistribution"), (annotations, DISTRIBUTION)))
    extras = {
        "externalName": external,
        "externalAddresses": ",".join([*outside, *map(str, spec.get("externalIPs") or ())]),
        "trafficDistribution": next(filter(None, (known.get(wish.lower(), "") for wish in wishes)), ""),
        "internalTrafficPolicy": "Local" if spec.get("internalTrafficPolicy") == "Local" else "",
        "publishNotReadyAddresses": str(rules.unready_published and bool(spec.get("publishNotReadyAddresses"))),
    }
    return Service(
        hostname=fqdn(body.ref.name, body.ref.namespace),
        namespace=body.ref.namespace,
        name=body.ref.name,
        ports=tuple(Port(str(p.get("name") or ""), int(p["port"]), port_protocol(p, rules)) for p in ports),
        resolution=resolution,
        export_to=export_to(annotations.get(EXPORT_TO_ANNOTATION), rules),
        addresses=addresses,
        labels=pairs(body.labels),
        selector=pairs(spec.get("selector")),
        type=str(spec.get("type") or "ClusterIP"),
        external=bool(external),
        accounts=(
            *_listed(annotations.get(_CANONICAL)),
            *(account(name, body.ref.namespace, trust_domain) for name in _listed(annotations.get(_ACCOUNTS))),
        ),
        extras=pairs(extras),
        created=body.creation,
        target_ports=tuple((str(p.get("name") or ""), p.get("targetPort")) for p in ports),
    )


def _listed(annotation: str | None) -> list[str]:
    return str(annotation).split(",") if annotation else []


def export_to(annotation: str | None, rules: Rules) -> frozenset[str]:
    """The exportTo annotation's values; empty if there is none."""
    values = annotation.split(",") if annotation else ()
    return frozenset(value.strip() if rules.export_to_trimmed else value for value in values)


def _single(address: str) -> str:
    """An address as it was written, but a range of one is that."""
    return str(address).removesuffix("/128" if ":" in str(address) else "/32")


def service_entry_services(body: Object) -> tuple[Service, ...]:
    """One service per host of a ServiceEntry (per address too, where it has several, they share one service here).

    Source: istio/istio pilot/pkg/serviceregistry/serviceentry/conversion.go.
    """
    spec = body.spec
    written = spec.get("ports") or ()
    ports = tuple(Port(str(p["name"]), int(p["number"]), parse_protocol(str(p.get("protocol") or ""))) for p in written)
    addresses = tuple(map(_single, spec.get("addresses") or ()))
    return tuple(
        Service(
            hostname=str(host),
            namespace=body.ref.namespace,
            name=str(host),
            ports=ports,
            resolution=RESOLUTIONS[str(spec.get("resolution") or "NONE")],
            registry="External",
            export_to=frozenset(str(value) for value in spec.get("exportTo") or ()),
            addresses=addresses or ("0.0.0.0",),
            labels=pairs(body.labels),
            selector=pairs((spec.get("workloadSelector") or {}).get("labels")),
            type="",
            external=str(spec.get("location") or "MESH_EXTERNAL") == "MESH_EXTERNAL",
            accounts=tuple(str(a) for a in spec.get("subjectAltNames") or ()),
            created=body.creation,
            target_ports=tuple((str(p["name"]), p.get("targetPort")) for p in written),
        )
        for host in spec.get("hosts") or ()
    )


def account(service_account: str, namespace: str, trust_domain: str) -> str:
    """SPIFFE identity of a service account."""
    return f"spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}"


def workload_endpoints(
    entry: Mapping[str, Any], service: Service, namespace: str, trust_domain: str
) -> tuple[Endpoint, ...]:
    """Endpoints of one WorkloadEntry (or inline `endpoints` item) of a ServiceEntry host: one per port.

    A host with several addresses is a service for each, and all have them. Beside a WorkloadEntry's fields an entry may
    say its `workload` name, its `tlsMode` in place of what follows from label and service account, and that it is
    `probed`.
    """
    own_ports = entry.get("ports") or {}
    targets = dict(service.target_ports)
    labels, service_account = entry.get("labels") or {}, entry.get("serviceAccount")
    address = str(entry.get("address") or service.hostname)
    unix, address = address.startswith(SOCKET), address.removeprefix(SOCKET)
    several = service.registry == "External" and service.resolution != "DNS_ROUND_ROBIN"
    return tuple(
        Endpoint(
            address=address,
            port=0 if unix else number,
            port_name=port.name,
            labels=pairs(labels),
            account=account(str(service_account), namespace, trust_domain) if service_account else "",
            locality=str(entry.get("locality") or ""),
            tls=str(entry.get("tlsMode", labels.get(TLS_MODE_LABEL) or ("istio" if service_account else ""))),
            workload=str(entry.get("workload") or ""),
            weight=int(entry.get("weight") or 0),
            network=str(entry.get("network") or ""),
            probed=bool(entry.get("probed")),
        )
        for _ in (service.addresses if several else ("",))
        for port in service.ports
        if port.protocol != "UDP" and (number := entry_port(own_ports, port, targets.get(port.name))) is not None
    )


def entry_port(own: Mapping[str, Any], port: Port, target: Any) -> int | None:
    """The port of a WorkloadEntry behind a service's port, None if its target is a name that the entry lacks.

    own: the entry's ports by name. Source: serviceInstanceFromWorkloadInstance of both registries.
    """
    if isinstance(target, str) and not target.isdigit():
        return int(own[target]) if target in own else None
    return int(own.get(port.name) or target or port.number)


def named_target_port(pod: Object, name: str) -> int | None:
    """The number of a container port called `name`, None if the pod has none."""
    for container in [*(pod.spec.get("containers") or ()), *(pod.spec.get("initContainers") or ())]:
        for port in container.get("ports") or ():
            if port.get("name") == name:
                return int(port["containerPort"])
    return None
