"""EDS: ClusterLoadAssignments, measured endpoint by endpoint.

Sources: pilot/pkg/xds/endpoints/endpoint_builder.go (earlier pilot/pkg/xds/eds.go), pilot/pkg/networking/util/util.go
(AppendLbEndpointMetadata).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from envoy_data_plane.envoy.config.core.v3 import Address, HealthStatus, Metadata, Pipe, SocketAddress
from envoy_data_plane.envoy.config.core.v3 import Locality as EnvoyLocality
from envoy_data_plane.envoy.config.endpoint.v3 import Endpoint as EnvoyEndpoint
from envoy_data_plane.envoy.config.endpoint.v3 import LbEndpoint, LocalityLbEndpoints

from pushsim.conversion import SOCKET
from pushsim.mesh import Endpoint, Service
from pushsim.sizes.switches import Sizing
from pushsim.sizes.wire import framed, length, made, struct, text
from pushsim.spreading import Locality

_NAME = "service.istio.io/canonical-name"
_REVISION = "service.istio.io/canonical-revision"


def address(host: str, port: int) -> Address:
    """A socket address; a host that is a path is a Unix domain socket (util.BuildAddress)."""
    if (path := host.removeprefix(SOCKET)).startswith("/"):
        return made(Address, pipe=Pipe(path=path))
    return made(Address, socket_address=SocketAddress(address=host, port_value=port))


def workload(endpoint: Endpoint, service: Service, sizing: Sizing) -> str:
    """`name;namespace;canonical name;canonical revision;cluster`, the label telemetry reads."""
    labels = dict(endpoint.labels)
    name, revision = labels.get(_NAME, ""), labels.get(_REVISION, "")
    workload_name = endpoint.workload
    namespace = service.namespace if workload_name else ""
    if sizing.canonical_default:
        # pkg/kube/labels.CanonicalService: what injection would have said
        name = name or labels.get("app.kubernetes.io/name") or labels.get("app") or workload_name
        revision = revision or labels.get("app.kubernetes.io/version") or labels.get("version") or ""
        revision = "" if revision == "latest" else revision
    if service.registry == "External":
        nowhere = endpoint.address == service.hostname and not sizing.host_cluster_id
    else:  # what an ExternalName Service names (ExternalNameEndpoints)
        nowhere = ("externalName", endpoint.address) in service.extras
    cluster = "" if nowhere else "Kubernetes"
    return f"{workload_name};{namespace};{name};{revision};{cluster}"


def lb_endpoint(
    endpoint: Endpoint, service: Service, sizing: Sizing, *, mtls: bool = True, inline: bool = False
) -> LbEndpoint:
    """One endpoint, with the label that makes a client speak mTLS to it unless it must not."""
    metadata, ready = {}, endpoint.tls == "istio" and mtls
    if sizing.workload_label == "always" or (sizing.workload_label == "ready" and ready):
        metadata["istio"] = struct({"workload": workload(endpoint, service, sizing)})
    if ready and sizing.mode_label:
        metadata["envoy.transport_socket_match"] = struct({"tlsMode": endpoint.tls})
    unhealthy = not endpoint.healthy
    known = (endpoint.probed or sizing.entry_health) and not (inline and not sizing.inline_health)
    health = HealthStatus.UNHEALTHY if unhealthy else HealthStatus.HEALTHY if known else HealthStatus.UNKNOWN
    return made(
        LbEndpoint,
        endpoint=made(EnvoyEndpoint, address=address(endpoint.address, endpoint.port)),
        health_status=health,
        metadata=made(Metadata, filter_metadata=metadata) if metadata or sizing.unlabelled != "unready" else None,
        load_balancing_weight=endpoint.weight or 1,
    )


def envoy_locality(label: str) -> EnvoyLocality:
    """`region/zone/subzone` as Envoy's Locality."""
    region, zone, sub_zone = (*label.split("/"), "", "", "")[:3]
    return EnvoyLocality(region=region, zone=zone, sub_zone=sub_zone)


def localities(
    groups: Iterable[Locality], service: Service, sizing: Sizing, *, inline: bool = True
) -> list[LocalityLbEndpoints]:
    """Hosts by locality; those inline in a DNS cluster by default."""
    return [
        made(
            LocalityLbEndpoints,
            locality=envoy_locality(group.label),
            lb_endpoints=[lb_endpoint(e, service, sizing, inline=inline) for e in group.members],
            load_balancing_weight=group.weight,
            priority=group.priority,
        )
        for group in groups
    ]


def grouped(endpoints: Iterable[Endpoint], left_out: Callable[[Endpoint], bool] = lambda _: False) -> list[Locality]:
    """Endpoints by locality, also of those of which all are left out (which weigh nothing: refreshWeight)."""
    groups: dict[str, list[Endpoint]] = {}
    for endpoint in endpoints:
        group = groups.setdefault(endpoint.locality, [])
        if not left_out(endpoint):
            group.append(endpoint)
    ordered = sorted(groups.items())
    return [Locality(label, tuple(group), sum(e.weight or 1 for e in group) or None) for label, group in ordered]


class EndpointMeter:
    """Lengths of endpoints by shape: two addresses of equal length weigh the same."""

    def __init__(self, sizing: Sizing) -> None:
        self._sizing = sizing
        self._known: dict[tuple[object, ...], int] = {}

    def assignment(
        self, name: str, groups: Iterable[Locality], service: Service | None, *, mtls: Callable[[Endpoint], bool]
    ) -> int:
        """Length of the ClusterLoadAssignment: name, then a group per locality."""
        total = text(len(name))
        if service is None:
            return total
        for group in groups:
            members = sum(framed(self._endpoint(e, service, mtls(e))) for e in group.members)
            total += framed(self._frame(group) + members)
        return total

    def _frame(self, group: Locality) -> int:
        key = ("locality", group.label, group.weight, group.priority)
        if key not in self._known:
            where = envoy_locality(group.label)
            frame = made(
                LocalityLbEndpoints, locality=where, load_balancing_weight=group.weight, priority=group.priority
            )
            self._known[key] = length(frame)
        return self._known[key]

    def _endpoint(self, endpoint: Endpoint, service: Service, mtls: bool) -> int:
        label = workload(endpoint, service, self._sizing)
        key = (
            len(endpoint.address), endpoint.port.bit_length(), len(label), endpoint.tls if mtls else "",
            endpoint.healthy, endpoint.weight, endpoint.probed,
        )  # fmt: skip
        if key not in self._known:
            self._known[key] = length(lb_endpoint(endpoint, service, self._sizing, mtls=mtls))
        return self._known[key]


__all__ = ["EndpointMeter", "address", "envoy_locality", "grouped", "lb_endpoint", "localities", "workload"]
