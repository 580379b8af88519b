"""HTTP connection managers: what every HTTP chain of a listener holds.

Source: pilot/pkg/networking/core/listener_builder.go (buildHTTPConnectionManager), tracing.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import Any as Json

from envoy_data_plane.envoy.config.core.v3 import Http1ProtocolOptions, Http2ProtocolOptions, HttpService, HttpUri
from envoy_data_plane.envoy.config.listener.v3 import Filter
from envoy_data_plane.envoy.config.route.v3 import RouteConfiguration
from envoy_data_plane.envoy.config.trace.v3 import TracingHttp, ZipkinConfig, ZipkinConfigCollectorEndpointVersion
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpConnectionManagerForwardClientCertDetails,
    HttpConnectionManagerPathWithEscapedSlashesAction,
    HttpConnectionManagerSetCurrentClientCertDetails,
    HttpConnectionManagerTracing,
    HttpConnectionManagerUpgradeConfig,
    HttpFilter,
    Rds,
    RequestIdExtension,
)
from envoy_data_plane.envoy.extensions.request_id.uuid.v3 import UuidRequestIdConfig
from envoy_data_plane.envoy.type.metadata.v3 import (
    MetadataKey,
    MetadataKeyPathSegment,
    MetadataKind,
    MetadataKindRequest,
)
from envoy_data_plane.envoy.type.tracing.v3 import CustomTag, CustomTagLiteral, CustomTagMetadata
from envoy_data_plane.envoy.type.v3 import Percent

from pushsim.extensions import Place, Plugins
from pushsim.mesh import Proxy, truth
from pushsim.sizes import extensions, filters
from pushsim.sizes.clusters import aggregated
from pushsim.sizes.releases import Sizing
from pushsim.sizes.settings import Settings, dig
from pushsim.sizes.telemetry import AccessLogs, Metrics, Tracing
from pushsim.sizes.wire import HCM, made, packed

_SPANS = "/api/v2/spans"
_DRY_RUN = {
    "allow_policy.name": "istio_dry_run_allow_shadow_effective_policy_id",
    "allow_policy.result": "istio_dry_run_allow_shadow_engine_result",
    "deny_policy.name": "istio_dry_run_deny_shadow_effective_policy_id",
    "deny_policy.result": "istio_dry_run_deny_shadow_engine_result",
}


@dataclass(frozen=True, eq=False)
class HttpParts:
    """What a proxy's HTTP chains share, worked out once: its plugins, its policies' filters, telemetry, tracing.

    policies: HTTP filters of authentication and authorization, in order. stats: metrics filters by direction.
    """

    proxy: Proxy
    sizing: Sizing
    settings: Settings
    plugins: Plugins
    tracing: Tracing
    logs: AccessLogs
    metrics: Metrics = field(default=Metrics())
    policies: Sequence[HttpFilter] = field(default=())


def connection_manager(
    parts: HttpParts,
    stat_prefix: str,
    place: Place,
    *,
    route: str = "",
    routes: RouteConfiguration | None = None,
    http2: bool = False,
    protocol: str = "",
    named: bool = False,
) -> Filter:
    """The HTTP connection manager of one filter chain, with its routes by name (`route`) or inline (`routes`).

    named: somebody wrote the prefix of its statistics, which ends as it is written.
    """
    sizing, settings = parts.sizing, parts.settings
    inbound, gateway = place.context == "SIDECAR_INBOUND", place.context == "GATEWAY"
    manager = made(
        HttpConnectionManager,
        stat_prefix=f"{stat_prefix};" if sizing.alt_stat_name and not named else stat_prefix,
        use_remote_address=gateway,
        upgrade_configs=[made(HttpConnectionManagerUpgradeConfig, upgrade_type="websocket")],
        stream_idle_timeout=timedelta(0),
        path_with_escaped_slashes_action=HttpConnectionManagerPathWithEscapedSlashesAction.KEEP_UNCHANGED,
        proxy_100_continue=sizing.proxy_100_continue,
    )
    _normalization(manager, settings)
    if route:
        manager.rds = made(Rds, config_source=aggregated(), route_config_name=route)
    else:
        manager.route_config = routes
    if inbound or gateway:
        manager.server_name = "istio-envoy"
        details = HttpConnectionManagerForwardClientCertDetails
        manager.forward_client_cert_details = details.SANITIZE_SET if gateway else details.APPEND_FORWARD
        manager.set_current_client_cert_details = HttpConnectionManagerSetCurrentClientCertDetails(
            subject=True, uri=True, dns=True, cert=gateway
        )
    if gateway:
        manager.http_protocol_options = made(Http1ProtocolOptions)
    if http2:
        manager.http2_protocol_options = made(Http2ProtocolOptions)
    if not parts.tracing.disabled:
        manager.tracing = _tracing(parts, client=not inbound)
    identifier = UuidRequestIdConfig(use_request_id_for_trace_sampling=True)
    manager.request_id_extension = made(
        RequestIdExtension, typed_config=packed(identifier, "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig")
    )
    manager.access_log = parts.logs.http(inbound=inbound, gateway=gateway)
    manager.http_filters = _filters(parts, place, protocol)
    return made(Filter, name="envoy.filters.network.http_connection_manager", typed_config=packed(manager, HCM))


def _filters(parts: HttpParts, place: Place, protocol: str) -> list[HttpFilter]:
    sizing = parts.sizing
    inbound, gateway = place.context == "SIDECAR_INBOUND", place.context == "GATEWAY"
    found = [filters.http_exchange(sizing, inbound=inbound)]
    if inbound or gateway:
        found += parts.policies
    found += extensions.http_filters(parts.plugins, sizing, place)
    grpc, web = protocol in ("GRPC", "GRPC-Web"), protocol == "GRPC-Web"
    found += filters.common_http(sizing, inbound=inbound, grpc=grpc, grpc_web=web)
    if (metrics := parts.metrics.filter(inbound=inbound)) is not None:
        config = filters.stats(sizing, metrics, inbound=inbound, gateway=gateway, tcp=False)
        found.append(made(HttpFilter, name="istio.stats", typed_config=config))
    return [*found, filters.router()]


def _normalization(manager: HttpConnectionManager, settings: Settings) -> None:
    wish = str(dig(settings.mesh, "pathNormalization", "normalization") or "DEFAULT")
    manager.normalize_path = wish != "NONE"
    if wish in ("MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"):
        manager.merge_slashes = True
    if wish == "DECODE_AND_MERGE_SLASHES":
        action = HttpConnectionManagerPathWithEscapedSlashesAction.UNESCAPE_AND_FORWARD
        manager.path_with_escaped_slashes_action = action


def _tracing(parts: HttpParts, *, client: bool) -> HttpConnectionManagerTracing:
    tracing, settings = parts.tracing, parts.settings
    tags = _istio_tags(parts.sizing.cluster_id_tag, parts.proxy.namespace, *_canonical(parts.proxy))
    if not truth(settings.env.get("PILOT_ENABLE_ISTIO_TAGS"), True):
        tags = ()
    custom = [made(CustomTag, tag=name, literal=CustomTagLiteral(value=value)) for name, value in tracing.tags]
    built = made(
        HttpConnectionManagerTracing,
        client_sampling=Percent(value=100.0),
        random_sampling=Percent(value=tracing.sampling),
        overall_sampling=Percent(value=100.0),
        custom_tags=[*tags, *custom],
    )
    if tracing.zipkin is not None:
        host, cluster = tracing.zipkin
        config = ZipkinConfig(
            collector_endpoint_version=ZipkinConfigCollectorEndpointVersion.HTTP_JSON,
            trace_id_128bit=True,
            shared_span_context=False,
        )
        if parts.sizing.zipkin_service:
            uri = HttpUri(uri=f"http://{host}{_SPANS}", cluster=cluster, timeout=timedelta(seconds=5))
            config.collector_service = HttpService(http_uri=uri)
        else:
            config.collector_cluster, config.collector_hostname, config.collector_endpoint = cluster, host, _SPANS
        built.provider = TracingHttp(
            name="envoy.tracers.zipkin", typed_config=packed(config, "envoy.config.trace.v3.ZipkinConfig")
        )
    return built


def _canonical(proxy: Proxy) -> tuple[str, str]:
    """Revision and service as injection labels them; without labels istiod says so."""
    labels: Mapping[str, Json] = proxy.labels
    service = labels.get("service.istio.io/canonical-name") or "unknown"
    return str(labels.get("service.istio.io/canonical-revision") or "latest"), str(service)


@lru_cache
def _istio_tags(cluster_id: bool, namespace: str, revision: str, service: str) -> tuple[CustomTag, ...]:
    """Tags that say who and where (buildCustomTagsFromProxyConfig, buildServiceTags)."""
    dry_run = [
        made(
            CustomTag,
            tag=f"istio.authorization.dry_run.{name}",
            metadata=made(
                CustomTagMetadata,
                kind=made(MetadataKind, request=MetadataKindRequest()),
                metadata_key=made(MetadataKey, key="envoy.filters.http.rbac", path=[MetadataKeyPathSegment(key=path)]),
            ),
        )
        for name, path in _DRY_RUN.items()
    ]
    literals = {"canonical_revision": revision, "canonical_service": service, "mesh_id": "cluster.local"}
    if cluster_id:
        literals["cluster_id"] = "Kubernetes"
    literals["namespace"] = namespace
    own = [
        made(CustomTag, tag=f"istio.{name}", literal=CustomTagLiteral(value=value)) for name, value in literals.items()
    ]
    return (*dry_run, *own)
