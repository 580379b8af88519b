"""HTTP connection managers: what every HTTP chain of a listener holds.

Source: pilot/pkg/networking/core/listener_builder.go (buildHTTPConnectionManager), gateway.go,
pilot/pkg/networking/util/proxy_headers.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any as Json

from envoy_data_plane.envoy.config.core.v3 import (
    Http1ProtocolOptions,
    Http1ProtocolOptionsHeaderKeyFormat,
    Http2ProtocolOptions,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.config.listener.v3 import Filter
from envoy_data_plane.envoy.config.route.v3 import RouteConfiguration
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpConnectionManagerForwardClientCertDetails,
    HttpConnectionManagerPathWithEscapedSlashesAction,
    HttpConnectionManagerServerHeaderTransformation,
    HttpConnectionManagerSetCurrentClientCertDetails,
    HttpConnectionManagerUpgradeConfig,
    HttpFilter,
    Rds,
    RequestIdExtension,
)
from envoy_data_plane.envoy.extensions.request_id.uuid.v3 import UuidRequestIdConfig

from pushsim.extensions import Place, Plugins
from pushsim.mesh import Proxy, truth
from pushsim.sizes import extensions, filters, sessions
from pushsim.sizes.accesslogs import AccessLogs
from pushsim.sizes.clusters import aggregated
from pushsim.sizes.settings import Settings, dig
from pushsim.sizes.switches import Sizing
from pushsim.sizes.telemetry import Metrics
from pushsim.sizes.tracing import Tracing, traced
from pushsim.sizes.wire import HCM, blob, made, packed, typed_struct

_DETAILS = HttpConnectionManagerForwardClientCertDetails
#: Both enums say UNDEFINED too, by 0 and by absence.
_CERTIFICATES = {
    "SANITIZE": _DETAILS.SANITIZE,
    "FORWARD_ONLY": _DETAILS.FORWARD_ONLY,
    "APPEND_FORWARD": _DETAILS.APPEND_FORWARD,
    "SANITIZE_SET": _DETAILS.SANITIZE_SET,
    "ALWAYS_FORWARD_ONLY": _DETAILS.ALWAYS_FORWARD_ONLY,
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
        use_remote_address=gateway or (not inbound and settings.enabled("PILOT_SIDECAR_USE_REMOTE_ADDRESS", False)),
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
    _headers(manager, parts, place)
    if http2:
        manager.http2_protocol_options = made(Http2ProtocolOptions)
    spans = parts.tracing.spans(inbound=inbound)
    if spans is not None:
        manager.tracing = traced(spans, parts.proxy, settings, sizing)
    identifier = UuidRequestIdConfig(use_request_id_for_trace_sampling=spans is None or spans.by_request_id)
    manager.request_id_extension = made(
        RequestIdExtension, typed_config=packed(identifier, "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig")
    )
    manager.access_log = parts.logs.http(inbound=inbound, gateway=gateway, tcp=False)
    manager.http_filters = _filters(parts, place, protocol)
    return made(Filter, name="envoy.filters.network.http_connection_manager", typed_config=packed(manager, HCM))


def _filters(parts: HttpParts, place: Place, protocol: str) -> list[HttpFilter]:
    sizing = parts.sizing
    inbound, gateway = place.context == "SIDECAR_INBOUND", place.context == "GATEWAY"
    found = [_exchange(parts, place)] if sizing.http_exchange else []
    if inbound or gateway:
        found += parts.policies
    found += extensions.http_filters(parts.plugins, sizing, place)
    grpc, web = protocol in ("GRPC", "GRPC-Web"), protocol == "GRPC-Web"
    alpn = not inbound and parts.settings.enabled("PILOT_ENABLE_ALPN_FILTER", True)
    found += filters.common_http(sizing, alpn=alpn, grpc=grpc, grpc_web=web)
    if (metrics := parts.metrics.filter(inbound=inbound)) is not None:
        config = filters.stats(sizing, metrics, inbound=inbound, gateway=gateway, tcp=False)
        found.append(made(HttpFilter, name="istio.stats", typed_config=config))
    if not inbound and parts.settings.enabled(sessions.SWITCH, False):
        found.append(filters.sessions())
    return [*found, _router(parts, inbound=inbound)]


def _exchange(parts: HttpParts, place: Place) -> HttpFilter:
    """Metadata exchange; outbound it may be told to leave requests alone that leave the mesh."""
    skipping = {"SIDECAR_OUTBOUND": "sidecars", "GATEWAY": "all"}.get(place.context)
    mode = dig(parts.settings.proxy_config("proxyHeaders"), "metadataExchangeHeaders", "mode")
    if mode != "IN_MESH" or skipping is None or parts.sizing.skips_exchange not in (skipping, "all"):
        return filters.http_exchange(parts.sizing, inbound=place.context == "SIDECAR_INBOUND")
    fields = {
        "upstream_discovery": [{"istio_headers": {}}, {"workload_discovery": {}}],
        "upstream_propagation": [{"istio_headers": {"skip_external_clusters": True}}],
    }
    config = typed_struct("io.istio.http.peer_metadata.Config", fields)
    return made(HttpFilter, name="istio.metadata_exchange", typed_config=config)


def _router(parts: HttpParts, *, inbound: bool) -> HttpFilter:
    """The last HTTP filter; two switches of it are asked for."""
    spans = parts.tracing.spans(inbound=inbound)
    child = parts.sizing.spawning == "router" and spans is not None and spans.spawns
    quiet = "proxyHeaders" in parts.sizing.reads and _off(
        parts.settings.proxy_config("proxyHeaders"), "envoyDebugHeaders"
    )
    if not child and not quiet:
        return filters.router()
    # to set start_child_span is deprecated, of which Python would warn
    config = blob("envoy.extensions.filters.http.router.v3.Router", 2 * (child + quiet))
    return made(HttpFilter, name="envoy.filters.http.router", typed_config=config)


def _off(headers: Mapping[str, Json], field: str) -> bool:
    return truth(dig(headers, field, "disabled"), False)


def _headers(manager: HttpConnectionManager, parts: HttpParts, place: Place) -> None:
    """What becomes of headers, and of HTTP/1: proxyHeaders and gatewayTopology of the default config."""
    sizing, settings = parts.sizing, parts.settings
    inbound, gateway = place.context == "SIDECAR_INBOUND", place.context == "GATEWAY"
    headers = settings.proxy_config("proxyHeaders") if "proxyHeaders" in sizing.reads else {}
    if _off(headers, "server"):
        manager.server_header_transformation = HttpConnectionManagerServerHeaderTransformation.PASS_THROUGH
    else:
        manager.server_name = str(dig(headers, "server", "value") or ("istio-envoy" if inbound or gateway else ""))
    if _off(headers, "requestId"):
        manager.generate_request_id = False
    details = _DETAILS.SANITIZE
    if gateway:
        topology = settings.proxy_config("gatewayTopology")
        manager.strip_any_host_port = True if settings.strips_ports else None
        manager.xff_num_trusted_hops = int(topology.get("numTrustedProxies") or 0)
        details = _CERTIFICATES.get(str(topology.get("forwardClientCertDetails")), _DETAILS.SANITIZE_SET)
    elif inbound:
        details = _CERTIFICATES.get(str(headers.get("forwardedClientCert")), _DETAILS.APPEND_FORWARD)
    manager.forward_client_cert_details = details
    setting = not sizing.certificate_details or details in (_DETAILS.APPEND_FORWARD, _DETAILS.SANITIZE_SET)
    if inbound or (gateway and setting):
        wish = (
            (headers.get("setCurrentClientCertDetails") or {})
            if inbound and "setCurrentClientCertDetails" in sizing.reads
            else {}
        )
        manager.set_current_client_cert_details = HttpConnectionManagerSetCurrentClientCertDetails(
            subject=truth(wish.get("subject"), True),
            uri=truth(wish.get("uri"), True),
            dns=truth(wish.get("dns"), True),
            cert=truth(wish.get("cert"), gateway),
            chain=truth(wish.get("chain"), False),
        )
    http10 = settings.http10
    cased = "preserveHttp1HeaderCase" in sizing.reads and truth(headers.get("preserveHttp1HeaderCase"), False)
    if gateway or http10 or cased:
        manager.http_protocol_options = made(Http1ProtocolOptions, accept_http_10=http10)
    if cased and manager.http_protocol_options is not None:
        formatter = "envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig"
        manager.http_protocol_options.header_key_format = Http1ProtocolOptionsHeaderKeyFormat(
            stateful_formatter=TypedExtensionConfig(name="preserve_case", typed_config=blob(formatter))
        )
    if "xForwardedPort" in sizing.reads:
        manager.append_x_forwarded_port = truth(dig(headers, "xForwardedPort", "enabled"), False)


def _normalization(manager: HttpConnectionManager, settings: Settings) -> None:
    wish = str(dig(settings.mesh, "pathNormalization", "normalization") or "DEFAULT")
    manager.normalize_path = wish != "NONE"
    if wish in ("MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"):
        manager.merge_slashes = True
    if wish == "DECODE_AND_MERGE_SLASHES":
        action = HttpConnectionManagerPathWithEscapedSlashesAction.UNESCAPE_AND_FORWARD
        manager.path_with_escaped_slashes_action = action
