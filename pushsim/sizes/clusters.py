"""CDS: typed Envoy clusters as istiod writes them.

Sources: pilot/pkg/networking/core/cluster.go, cluster_builder.go, cluster_tls.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any as Json

from envoy_data_plane.envoy.config.cluster.v3 import (
    CircuitBreakers,
    Cluster,
    ClusterCommonLbConfig,
    ClusterDiscoveryType,
    ClusterEdsClusterConfig,
    ClusterLbPolicy,
    ClusterTransportSocketMatch,
    Filter,
)
from envoy_data_plane.envoy.config.core.v3 import (
    AggregatedConfigSource,
    ApiVersion,
    BindConfig,
    ConfigSource,
    HealthStatus,
    HealthStatusSet,
    Http1ProtocolOptions,
    HttpProtocolOptions,
    Metadata,
    ProxyProtocolConfig,
    ProxyProtocolConfigVersion,
    SocketAddress,
    TransportSocket,
    UpstreamHttpProtocolOptions,
)
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints
from envoy_data_plane.envoy.extensions.transport_sockets.proxy_protocol.v3 import ProxyProtocolUpstreamTransport
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import HttpProtocolOptions as Upstream
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import HttpProtocolOptionsExplicitHttpConfig
from envoy_data_plane.envoy.type.v3 import Percent

from pushsim.mesh import Object, Port, ProxyType, Service
from pushsim.resources import BLACK_HOLE, PASSTHROUGH, InboundCluster, OutboundCluster, StaticCluster
from pushsim.sizes import policy, tls
from pushsim.sizes.assignments import address
from pushsim.sizes.filters import tcp_exchange
from pushsim.sizes.resolved import resolve
from pushsim.sizes.settings import Settings
from pushsim.sizes.statnames import stat_name
from pushsim.sizes.switches import Sizing
from pushsim.sizes.wire import length, made, packed, struct

#: Endpoints that a client with a session may go on with.
_IN_SESSION = [HealthStatus.HEALTHY, HealthStatus.DRAINING, HealthStatus.UNKNOWN, HealthStatus.DEGRADED]
_HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
#: The longest Go duration in seconds: an inbound cluster is never cleaned up (cluster_builder.go, maxSecondsValue).
_FOREVER_S = 9223372035


def config_path(obj: Object, sizing: Sizing, kind: str) -> str:
    """How metadata names the object behind a resource (util.AddConfigInfoMetadata)."""
    namespace, name = obj.ref.namespace, obj.ref.name
    return f"/apis/networking.istio.io/{sizing.config_version}/namespaces/{namespace}/{kind}/{name}"


def istio_metadata(fields: Mapping[str, Json]) -> Metadata:
    """Filter metadata under `istio`."""
    return made(Metadata, filter_metadata={"istio": struct(fields)})


def aggregated() -> ConfigSource:
    """A resource that comes over ADS too."""
    return made(
        ConfigSource,
        ads=AggregatedConfigSource(),
        initial_fetch_timeout=timedelta(0),
        resource_api_version=ApiVersion.V3,
    )


def outbound(
    cluster: OutboundCluster,
    proxy: ProxyType,
    sizing: Sizing,
    settings: Settings,
    *,
    mtls_disabled: bool = False,
    near: Mapping[str, str] = MappingProxyType({}),
) -> Cluster:
    """`outbound|port|subset|host`.

    mtls_disabled: a namespace or mesh-wide PeerAuthentication of the service says DISABLE.
    near:          labels of the proxy, with those that tell where it is.
    """
    service, port, subset = cluster.service, cluster.port, cluster.subset
    built = _named(cluster.name, ClusterDiscoveryType.from_string(cluster.discovery), sizing)
    if pattern := settings.mesh.get("outboundClusterStatName"):
        built.alt_stat_name = _stat_name(pattern, service, port, sizing, subset=subset)
    options = _protocol(port, proxy, sizing, sniffs=settings.sniffs_outbound)
    sni_dnat = cluster.name.startswith("outbound_.")
    rule = policy.policy_for(cluster.rules, subset, port, budgets=sizing.retry_budget == "merged")
    if (cluster.begins or cluster.discovery) == "ORIGINAL_DST":
        if sizing.original_dst_cleanup:
            built.cleanup_interval = timedelta(seconds=60)
    elif cluster.endpoints:
        resolve(built, cluster, policy.spread_of(service, rule, settings), near, sizing, settings)
        if built.type == ClusterDiscoveryType.ORIGINAL_DST and not sizing.original_dst_assignment:
            built.load_assignment = None
    if sizing.upgrades_first:
        options = policy.upgraded(options, rule, port, sizing, settings)
    options = policy.apply_pool(built, options, rule, sizing, settings)
    if not sizing.upgrades_first:
        options = policy.upgraded(options, rule, port, sizing, settings)
    policy.apply_outlier(built, rule.get("outlierDetection"))
    policy.apply_balancer(built, service, port, rule, sizing, settings)
    if not sni_dnat and not subset and any(map(service.labelled, sizing.session_labels)):
        assert built.common_lb_config is not None, "every cluster begins with one"
        built.common_lb_config.override_host_status = made(HealthStatusSet, statuses=_IN_SESSION)
    if not sni_dnat:
        security = rule.get("tls")
        if not (proxy == "sidecar" and tls.withheld(cluster.rules, security)):
            options = _security(built, cluster, options, security, sizing, settings, mtls_disabled)
        _speak_proxy_protocol(built, rule.get("proxyProtocol"), sizing)
    if built.type == ClusterDiscoveryType.ORIGINAL_DST:
        built.lb_policy = ClusterLbPolicy.CLUSTER_PROVIDED
    elif built.type == ClusterDiscoveryType.EDS:
        built.eds_cluster_config = made(ClusterEdsClusterConfig, service_name=cluster.name, eds_config=aggregated())
    built.filters = _exchange(sizing)
    fields: dict[str, Json] = {"services": [_service(service)]} if settings.telemetry_label else {}
    if sizing.original_port_metadata:
        fields["default_original_port"] = port.number
    if service.external and not subset and sizing.external_metadata:
        fields["external"] = True
    if cluster.rules:
        fields["config"] = config_path(cluster.rules[0], sizing, "destination-rule")
        if subset:
            fields["subset"] = subset
        if sizing.alpn_override and (rule.get("tls") or {}).get("mode") in ("SIMPLE", "MUTUAL"):
            fields["alpn_override"] = "false"
    built.metadata = istio_metadata(fields) if fields else None
    return _finished(built, options, sizing, settings)


def inbound(cluster: InboundCluster, rules: tuple[Object, ...], sizing: Sizing, settings: Settings) -> Cluster:
    """`inbound|port||`: one per target port; its protocol is that of the first service on it."""
    path = cluster.endpoint.removeprefix("unix://")
    host, _, number = (path, "", "") if path.startswith("/") else cluster.endpoint.rpartition(":")
    localhost = host in ("127.0.0.1", "[::1]") or (settings.inbound_localhost and not host)
    fixed = localhost or bool(host)
    built = _named(cluster.name, ClusterDiscoveryType.STATIC if fixed else ClusterDiscoveryType.ORIGINAL_DST, sizing)
    options: Upstream | None = None
    fields: dict[str, Json] | None = None
    rule: Mapping[str, Json] = {}
    if cluster.services:
        first, port = cluster.services[0]
        if pattern := settings.mesh.get("inboundClusterStatName"):
            built.alt_stat_name = _stat_name(pattern, first, port, sizing, target=cluster.target_port)
        options = _protocol(port, "sidecar", sizing, sniffs=settings.sniffs_inbound)
        hosts = {service.hostname: service for service, p in cluster.services if p.number == port.number}
        listed = "services" if not cluster.ingress else sizing.ingress_metadata
        told = sizing.external_inbound or not first.external
        if settings.telemetry_label and listed == "services" and told:
            fields = {"services": [_service(service) for service in hosts.values()]}
        elif settings.telemetry_label and listed == "empty":
            fields = {"services": []}
        if any(rule.spec.get("trafficPolicy") is not None for rule in rules):
            rule = policy.policy_for(rules, "", port)
            if fields is not None:
                fields["config"] = config_path(rules[0], sizing, "destination-rule")
    if sizing.inbound_pools and (pool := _inbound_pool(cluster)) is not None:
        rule = {**rule, "connectionPool": pool}
    options = policy.apply_pool(built, options, rule, sizing, settings)
    if fixed:
        where = address(host or "127.0.0.1", int(number or cluster.target_port))
        endpoint = made(LbEndpoint, endpoint=made(Endpoint, address=where))
        built.load_assignment = ClusterLoadAssignment(
            cluster_name=cluster.name, endpoints=[made(LocalityLbEndpoints, lb_endpoints=[endpoint])]
        )
    else:
        built.lb_policy = ClusterLbPolicy.CLUSTER_PROVIDED
    if not localhost:
        built.upstream_bind_config = _loopback()
    if not fixed:
        if sizing.inbound_cleanup == "never":
            built.cleanup_interval = timedelta(seconds=_FOREVER_S)
        elif sizing.inbound_cleanup == "minute":
            built.cleanup_interval = timedelta(seconds=60)
    built.metadata = istio_metadata(fields) if fields else None
    return _finished(built, options, sizing, settings)


def _inbound_pool(cluster: InboundCluster) -> Mapping[str, Json] | None:
    """The connectionPool of a Sidecar for an inbound port (InboundConnectionPoolForPort)."""
    spec: Mapping[str, Json] = cluster.sidecar.spec if cluster.sidecar else {}
    for listener in spec.get("ingress") or ():
        if (listener.get("port") or {}).get("number") == cluster.target_port and listener.get("connectionPool"):
            return listener["connectionPool"]  # type: ignore[no-any-return]
    return spec.get("inboundConnectionPool")


def static(cluster: StaticCluster, sizing: Sizing, settings: Settings) -> Cluster:
    """BlackHoleCluster, PassthroughCluster, InboundPassthroughCluster…"""
    if cluster.name == BLACK_HOLE:
        black = made(Cluster, name=cluster.name, type=ClusterDiscoveryType.STATIC)
        black.alt_stat_name = f"{cluster.name};" if sizing.alt_stat_name else ""
        black.connect_timeout = settings.connect_timeout
        return black
    built = made(Cluster, name=cluster.name, type=ClusterDiscoveryType.ORIGINAL_DST)
    built.lb_policy = ClusterLbPolicy.CLUSTER_PROVIDED
    # the inbound one is made from the outbound one, whose stat name it keeps
    built.alt_stat_name = f"{PASSTHROUGH};" if sizing.alt_stat_name else ""
    options = made(Upstream, use_downstream_protocol_config=policy.use_downstream(sizing))
    if sizing.passthrough_idle:
        options.common_http_protocol_options = made(HttpProtocolOptions, idle_timeout=timedelta(minutes=5))
    policy.apply_pool(built, None, {}, sizing, settings)
    if cluster.name == PASSTHROUGH:
        built.filters = _exchange(sizing)
    else:
        built.upstream_bind_config = _loopback()
    return _finished(built, options, sizing, settings)


def _exchange(sizing: Sizing) -> list[Filter]:
    """TCP metadata exchange, unless it is switched off."""
    if not sizing.metadata_exchange:
        return []
    return [made(Filter, name="istio.metadata_exchange", typed_config=tcp_exchange(sizing))]


def _loopback() -> BindConfig:
    return made(BindConfig, source_address=SocketAddress(address="127.0.0.6", port_value=0))


def _named(name: str, kind: ClusterDiscoveryType, sizing: Sizing) -> Cluster:
    built = made(Cluster, name=name, type=kind, common_lb_config=made(ClusterCommonLbConfig))
    built.alt_stat_name = f"{name};" if sizing.alt_stat_name else ""
    return built


def _stat_name(pattern: str, service: Service, port: Port, sizing: Sizing, *, subset: str = "", target: int = 0) -> str:
    """The stat name that the mesh config asks for."""
    return f"{stat_name(pattern, service, port, sizing, subset=subset, target=target)}{';' * sizing.alt_stat_name}"


def _finished(built: Cluster, options: Upstream | None, sizing: Sizing, settings: Settings) -> Cluster:
    common = built.common_lb_config
    outbound_cluster = built.name.startswith("outbound")
    if (
        common is not None
        and outbound_cluster
        and (settings.sends_unhealthy or (sizing.panic_threshold and common.healthy_panic_threshold is None))
    ):
        common.healthy_panic_threshold = Percent(value=0.0)
    if common is not None and not sizing.empty_common_lb and not length(common):
        built.common_lb_config = None
    if built.circuit_breakers is not None and not sizing.track_remaining:
        built.circuit_breakers = made(CircuitBreakers, thresholds=list(built.circuit_breakers.thresholds))
        for limits in built.circuit_breakers.thresholds:
            limits.track_remaining = False
    if options is not None:
        if options.explicit_http_config is None and options.use_downstream_protocol_config is None:
            explicit = made(HttpProtocolOptionsExplicitHttpConfig, http_protocol_options=made(Http1ProtocolOptions))
            options.explicit_http_config = explicit
        built.typed_extension_protocol_options = {_HTTP: packed(options, _HTTP)}
    return built


def _service(service: Service) -> Mapping[str, str]:
    """What telemetry wants to know of a service (buildServiceMetadata)."""
    return {"host": service.hostname, "name": service.name, "namespace": service.namespace}


def _protocol(port: Port, proxy: ProxyType, sizing: Sizing, *, sniffs: bool) -> Upstream | None:
    """setUpstreamProtocol: HTTP/2 as declared; a sidecar follows its client where the protocol is sniffed."""
    options = made(Upstream)
    if port.protocol in ("HTTP2", "GRPC", "GRPC-Web"):
        policy.http2(options, sizing)
        return options
    if port.auto and proxy == "sidecar" and sniffs:
        options.use_downstream_protocol_config = policy.use_downstream(sizing)
        return options
    return None


def _security(
    built: Cluster,
    cluster: OutboundCluster,
    options: Upstream | None,
    written: Mapping[str, Json] | None,
    sizing: Sizing,
    settings: Settings,
    mtls_disabled: bool,
) -> Upstream | None:
    """The transport socket, or the two that an endpoint's tlsMode label chooses between (auto mTLS)."""
    name_sni = f"outbound_.{cluster.port.number}_.{cluster.subset}_.{cluster.service.hostname}"
    mode = (written or {}).get("mode")
    if written is not None and mode != "ISTIO_MUTUAL":
        if mode in ("SIMPLE", "MUTUAL"):
            options = _auto_sni(options, written, sizing)
            sans = written.get("subjectAltNames") or (
                cluster.accounts if cluster.service.registry == "External" else ()
            )
            if not written.get("caCertificates") and sizing.system_roots:
                written = {**written, "caCertificates": "system"}
            context = tls.originated(written, sans, sizing, settings, http2=policy.is_http2(options))
            built.transport_socket = tls.upstream_socket(context)
        return options
    service = cluster.service
    auto = written is None
    own = policy.own_policy(cluster.rules, cluster.subset)
    passthrough = service.resolution == "PASSTHROUGH" or policy.passes_through(own)
    plain = mtls_disabled or (passthrough and not cluster.all_mtls)
    if auto and (service.external or not settings.auto_mtls or plain):
        return options
    sans = (written or {}).get("subjectAltNames") or cluster.accounts
    sni = (written or {}).get("sni") or name_sni
    context = tls.istio_mutual(sni, sans, http2=policy.is_http2(options), exchange=sizing.exchange_alpn)
    socket = tls.upstream_socket(context)
    if not auto or built.type == ClusterDiscoveryType.ORIGINAL_DST:
        built.transport_socket = socket
        return options
    built.transport_socket_matches = [
        made(
            ClusterTransportSocketMatch,
            name="tlsMode-istio",
            match=struct({"tlsMode": "istio"}),
            transport_socket=socket,
        ),
        made(ClusterTransportSocketMatch, name="tlsMode-disabled", match=struct({}), transport_socket=tls.raw_buffer()),
    ]
    return options


def _speak_proxy_protocol(built: Cluster, written: Mapping[str, Json] | None, sizing: Sizing) -> None:
    """Transport sockets that say first whom they speak for (applyUpstreamProxyProtocol)."""
    if written is None or not sizing.proxy_protocol:
        return
    version = ProxyProtocolConfigVersion.from_string(str(written.get("version") or "V1"))

    def wrapped(socket: TransportSocket) -> TransportSocket:
        around = made(
            ProxyProtocolUpstreamTransport, config=ProxyProtocolConfig(version=version), transport_socket=socket
        )
        full_name = "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport"
        name = "envoy.transport_sockets.upstream_proxy_protocol"
        return made(TransportSocket, name=name, typed_config=packed(around, full_name))

    for match in built.transport_socket_matches:
        assert match.transport_socket is not None, "all have one"
        match.transport_socket = wrapped(match.transport_socket)
    if built.transport_socket is not None:
        built.transport_socket = wrapped(built.transport_socket)
    elif not built.transport_socket_matches and sizing.proxy_protocol == "all":
        plain = tls.raw_buffer()
        built.transport_socket = wrapped(made(TransportSocket, name="raw_buffer", typed_config=plain.typed_config))


def _auto_sni(options: Upstream | None, written: Mapping[str, Json], sizing: Sizing) -> Upstream | None:
    """Without an SNI in the rule Envoy takes the request's host (setAutoSniAndAutoSanValidation)."""
    if not sizing.auto_sni or written.get("sni"):
        return options
    options = options or made(Upstream)
    validate = not written.get("subjectAltNames") and not written.get("insecureSkipVerify")
    options.upstream_http_protocol_options = UpstreamHttpProtocolOptions(auto_sni=True, auto_san_validation=validate)
    return options
