"""Typed xDS resources by the thousand for an Envoy to hold: each as istiod writes it for a sidecar, of equal shape.

They are what a recording of istiod 1.24 (without its own filters, which stock Envoy does not have) holds for an HTTP
service with auto mTLS; see `sizes` for what decides their bytes.
"""

from __future__ import annotations

from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.filters.http.grpc_stats.v3 import config_pb2 as grpc_stats_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.listener.http_inspector.v3 import http_inspector_pb2
from envoy.extensions.filters.listener.original_dst.v3 import original_dst_pb2
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2
from envoy.extensions.transport_sockets.raw_buffer.v3 import raw_buffer_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2

_NO_LIMIT = 4294967295
_TLS = ("istio-http/1.0", "istio-http/1.1", "istio-h2")
_ANY_TLS = ("istio", "istio-peer-exchange", *_TLS)


def _host(index: int) -> str:
    return f"service-{index:05d}.tenant-{index % 50:03d}.svc.cluster.local"


def cluster_name(index: int) -> str:
    """The name of the `index`th cluster."""
    return f"outbound|8080||{_host(index)}"


def _ads(source: Any) -> None:
    source.ads.SetInParent()
    source.initial_fetch_timeout.SetInParent()
    source.resource_api_version = 2


def _secret(config: Any, name: str) -> None:
    config.name = name
    api = config.sds_config.api_config_source
    api.api_type, api.set_node_on_first_message_only, api.transport_api_version = 2, True, 2
    api.grpc_services.add().envoy_grpc.cluster_name = "sds-grpc"
    config.sds_config.initial_fetch_timeout.SetInParent()
    config.sds_config.resource_api_version = 2


def _versions(common: Any) -> None:
    common.tls_params.tls_minimum_protocol_version, common.tls_params.tls_maximum_protocol_version = 3, 4


def cluster(index: int, *, tls: bool = True, http2: bool = False) -> bytes:
    """A cluster whose endpoints come over EDS; `tls` with the two transport sockets of auto mTLS."""
    name = cluster_name(index)
    made = cluster_pb2.Cluster(name=name, type=3, lb_policy=1, alt_stat_name=f"{name};")
    made.connect_timeout.seconds = 10
    made.common_lb_config.SetInParent()
    made.eds_cluster_config.service_name = name
    _ads(made.eds_cluster_config.eds_config)
    limits = made.circuit_breakers.thresholds.add(track_remaining=True)
    for field in ("max_connections", "max_pending_requests", "max_requests", "max_retries"):
        getattr(limits, field).value = _NO_LIMIT
    space = f"tenant-{index % 50:03d}"
    service = {"host": _host(index), "name": f"service-{index:05d}", "namespace": space}
    made.metadata.filter_metadata["istio"].update({"services": [service], "default_original_port": 8080})
    if http2:
        options = http_protocol_options_pb2.HttpProtocolOptions()
        options.explicit_http_config.http2_protocol_options.SetInParent()
        made.typed_extension_protocol_options["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"].Pack(options)
    if tls:
        context = tls_pb2.UpstreamTlsContext(sni=f"outbound_.8080_._.{_host(index)}")
        common = context.common_tls_context
        _versions(common)
        common.alpn_protocols.append("istio")
        _secret(common.tls_certificate_sds_secret_configs.add(), "default")
        combined = common.combined_validation_context
        identity = f"spiffe://cluster.local/ns/{space}/sa/default"
        combined.default_validation_context.match_subject_alt_names.add(exact=identity)
        _secret(combined.validation_context_sds_secret_config, "ROOTCA")
        mutual = made.transport_socket_matches.add(name="tlsMode-istio")
        mutual.match.update({"tlsMode": "istio"})
        mutual.transport_socket.name = "envoy.transport_sockets.tls"
        mutual.transport_socket.typed_config.Pack(context)
        plain = made.transport_socket_matches.add(name="tlsMode-disabled")
        plain.match.SetInParent()
        plain.transport_socket.name = "envoy.transport_sockets.raw_buffer"
        plain.transport_socket.typed_config.Pack(raw_buffer_pb2.RawBuffer())
    return bytes(made.SerializeToString())


def assignment(index: int, endpoints: int, *, mtls: bool = True) -> bytes:
    """The endpoints of a cluster, in one locality."""
    made = endpoint_pb2.ClusterLoadAssignment(cluster_name=cluster_name(index))
    if endpoints:
        group = made.endpoints.add()
        group.locality.region, group.locality.zone = "region", "zone-a"
        group.load_balancing_weight.value = endpoints
        for number in range(endpoints):
            host = group.lb_endpoints.add(health_status=1)
            host.load_balancing_weight.value = 1
            place = (index * 64 + number) % (1 << 24)
            address = host.endpoint.address.socket_address
            address.address = f"10.{place >> 16 & 255}.{place >> 8 & 255}.{place & 255}"
            address.port_value = 8080
            if mtls:
                host.metadata.filter_metadata["envoy.transport_socket_match"].update({"tlsMode": "istio"})
            workload = f"service-{index:05d};tenant-{index % 50:03d};service-{index:05d};v1;Kubernetes"
            host.metadata.filter_metadata["istio"].update({"workload": workload})
    return bytes(made.SerializeToString())


def _manager(name: str, route: str = "", cluster_of: str = "") -> Any:
    made = http_connection_manager_pb2.HttpConnectionManager(
        stat_prefix=f"{name};", proxy_100_continue=True, path_with_escaped_slashes_action=1
    )
    if route:
        made.rds.route_config_name = route
        _ads(made.rds.config_source)
    else:
        made.route_config.name = cluster_of
        made.route_config.validate_clusters.SetInParent()
        host = made.route_config.virtual_hosts.add(name="inbound|http|8080", domains=["*"])
        _route(host, cluster_of)
    stats = grpc_stats_pb2.FilterConfig(emit_filter_state=True)
    stats.stats_for_all_methods.SetInParent()
    for kind, message in (
        ("grpc_stats", stats),
        ("fault", fault_pb2.HTTPFault()),
        ("cors", cors_pb2.Cors()),
        ("router", router_pb2.Router()),
    ):
        made.http_filters.add(name=f"envoy.filters.http.{kind}").typed_config.Pack(message)
    made.use_remote_address.SetInParent()
    made.upgrade_configs.add(upgrade_type="websocket")
    made.stream_idle_timeout.SetInParent()
    made.normalize_path.value = True
    tracing = made.tracing
    tracing.client_sampling.value = tracing.overall_sampling.value = 100
    tracing.random_sampling.value = 1
    for tag, text in (
        ("istio.canonical_revision", "latest"),
        ("istio.canonical_service", "service"),
        ("istio.cluster_id", "Kubernetes"),
        ("istio.mesh_id", "cluster.local"),
        ("istio.namespace", "tenant-000"),
    ):
        tracing.custom_tags.add(tag=tag).literal.value = text
    return made


def _http(chain: Any, manager: Any) -> None:
    chain.filters.add(name="envoy.filters.network.http_connection_manager").typed_config.Pack(manager)


def _tcp(chain: Any, cluster_of: str) -> None:
    proxy = tcp_proxy_pb2.TcpProxy(stat_prefix=cluster_of, cluster=cluster_of)
    chain.filters.add(name="envoy.filters.network.tcp_proxy").typed_config.Pack(proxy)


def _inspectors(made: Any) -> None:
    inspector = tls_inspector_pb2.TlsInspector()
    inspector.initial_read_buffer_size.value = 512
    made.listener_filters.add(name="envoy.filters.listener.tls_inspector").typed_config.Pack(inspector)
    made.listener_filters.add(name="envoy.filters.listener.http_inspector").typed_config.Pack(
        http_inspector_pb2.HttpInspector()
    )
    made.listener_filters_timeout.SetInParent()
    made.continue_on_listener_filters_timeout = True


def _listener(name: str, address: str, port: int) -> Any:
    made = listener_pb2.Listener(name=name, traffic_direction=2)
    made.address.socket_address.address, made.address.socket_address.port_value = address, port
    made.bind_to_port.SetInParent()
    return made


def _sniffed(made: Any, name: str, route: str) -> None:
    chain = made.filter_chains.add()
    chain.filter_chain_match.transport_protocol = "raw_buffer"
    chain.filter_chain_match.application_protocols.extend(["http/1.1", "h2c"])
    chain.transport_socket_connect_timeout.seconds = 15
    _http(chain, _manager(f"outbound_{name}", route=route))
    _inspectors(made)


def http_listener(port: int) -> tuple[str, bytes]:
    """`0.0.0.0_PORT`: HTTP by its route, anything else passes through. It does not bind its port."""
    name = f"0.0.0.0_{port}"
    made = _listener(name, "0.0.0.0", port)
    _sniffed(made, name, str(port))
    made.default_filter_chain.name = "PassthroughFilterChain"
    _tcp(made.default_filter_chain, "PassthroughCluster")
    return name, bytes(made.SerializeToString())


def auto_listener(index: int) -> tuple[str, bytes]:
    """`VIP_PORT` of a service whose protocol is sniffed."""
    place = 256 + index
    address = f"172.{16 + (place >> 16)}.{place >> 8 & 255}.{place & 255}"
    name = f"{address}_8080"
    made = _listener(name, address, 8080)
    _sniffed(made, name, "8080")
    _tcp(made.default_filter_chain, cluster_name(index))
    return name, bytes(made.SerializeToString())


def tcp_listener(index: int) -> tuple[str, bytes]:
    """`VIP_PORT` of a TCP service."""
    place = 256 + index
    address = f"172.{16 + (place >> 16)}.{place >> 8 & 255}.{place & 255}"
    name = f"{address}_5432"
    made = _listener(name, address, 5432)
    _tcp(made.filter_chains.add(), cluster_name(index))
    return name, bytes(made.SerializeToString())


def inbound_listener(ports: int, *, first: int = 9000, tls: bool = True) -> tuple[str, bytes]:
    """`virtualInbound` with two chains (mTLS and plain) for each of so many ports; it does not bind its port."""
    name = "virtualInbound"
    made = _listener(name, "0.0.0.0", 15006)
    made.listener_filters.add(name="envoy.filters.listener.original_dst").typed_config.Pack(
        original_dst_pb2.OriginalDst()
    )
    _inspectors(made)
    for port in range(first, first + ports):
        for secure in (True, False) if tls else (False,):
            chain = made.filter_chains.add(name=f"0.0.0.0_{port}")
            chain.filter_chain_match.destination_port.value = port
            chain.filter_chain_match.transport_protocol = "tls" if secure else "raw_buffer"
            if secure:
                chain.filter_chain_match.application_protocols.extend(_ANY_TLS)
                _server_tls(chain.transport_socket)
            manager = _manager(f"inbound_0.0.0.0_{port}", cluster_of="InboundPassthroughCluster")
            _http(chain, manager)
    _tcp(made.default_filter_chain, "InboundPassthroughCluster")
    return name, bytes(made.SerializeToString())


def _server_tls(socket: Any) -> None:
    context = tls_pb2.DownstreamTlsContext()
    common = context.common_tls_context
    _versions(common)
    common.alpn_protocols.extend(["h2", "http/1.1"])
    _secret(common.tls_certificate_sds_secret_configs.add(), "default")
    combined = common.combined_validation_context
    combined.default_validation_context.match_subject_alt_names.add(prefix="spiffe://cluster.local/")
    _secret(combined.validation_context_sds_secret_config, "ROOTCA")
    context.require_client_certificate.value = True
    socket.name = "envoy.transport_sockets.tls"
    socket.typed_config.Pack(context)


def passthrough(name: str) -> bytes:
    """A cluster to wherever the connection was going."""
    made = cluster_pb2.Cluster(name=name, type=4, lb_policy=6, alt_stat_name=f"{name};")
    made.connect_timeout.seconds = 10
    return bytes(made.SerializeToString())


def _route(host: Any, cluster_of: str, path: str = "/") -> None:
    route = host.routes.add(name="default")
    route.match.prefix = path
    route.route.cluster = cluster_of
    route.route.timeout.SetInParent()
    retry = route.route.retry_policy
    retry.retry_on = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
    retry.num_retries.value = 2
    retry.retry_host_predicate.add(name="envoy.retry_host_predicates.previous_hosts").typed_config.Pack(
        previous_hosts_pb2.PreviousHostsPredicate()
    )
    retry.host_selection_retry_max_attempts = 5
    route.route.max_stream_duration.max_stream_duration.SetInParent()
    route.route.max_stream_duration.grpc_timeout_header_max.SetInParent()
    route.decorator.operation = f"{cluster_of}{path}*"


def routes(port: int, hosts: int, *, extra: int = 0) -> bytes:
    """The route configuration `PORT` with so many virtual hosts of one route, each with so many routes beside it."""
    made = route_pb2.RouteConfiguration(name=str(port), max_direct_response_body_size_bytes={"value": 1048576})
    made.validate_clusters.SetInParent()
    for index in range(hosts):
        name = f"service-{index:05d}.tenant-{index % 50:03d}"
        address = f"172.{16 + (index >> 16)}.{index >> 8 & 255}.{index & 255}"
        domains = [_host(index), f"{name}.svc", name, address]
        host = made.virtual_hosts.add(name=f"{_host(index)}:{port}", domains=domains)
        host.include_request_attempt_count = True
        for number in range(extra):
            _route(host, cluster_name(index), f"/v{number}/")
        _route(host, cluster_name(index))
    host = made.virtual_hosts.add(name="allow_any", domains=["*"])
    _route(host, "PassthroughCluster")
    return bytes(made.SerializeToString())
