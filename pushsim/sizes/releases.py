"""What each istiod release puts into its resources: one frozen `Sizing` value per release, each made from another.

Releases nobody recorded follow the source, or share a neighbour's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pushsim.errors import InputError, Problem
from pushsim.mesh import SESSION
from pushsim.sizes.switches import Sizing

_1_24 = Sizing()
_1_23 = replace(
    _1_24,
    external_inbound=True,
    session_labels=(SESSION,),
    config_version="v1alpha3",
    warmup=False,
    stat_service_name=False,
    locality_weighted=True,
    chain_timeout=False,
    gateway_filters_timeout=True,
    retries_503=True,
    ingress_metadata="none",
    reads=_1_24.reads - {"zipkin.path", "opentelemetry.grpc", "setCurrentClientCertDetails"},
    log_state="wasm",
)
_1_22 = replace(
    _1_23,
    session_routes="always",
    proxy_protocol="tls",
    alt_stat_name=False,
    inbound_cleanup="",
    proxy_100_continue=False,
    small_tls_buffer=False,
    passthrough_ranges=True,
    inbound_retry=False,
    cluster_raw=False,
    hashed_spread=True,
    cors_preflights=False,
    nonce_has_version=False,
    otel_labels="asked",
    otel_formatters=False,
    opencensus=True,
)
_1_21 = replace(
    _1_22,
    session_ttl=True,
    path_templates=False,
    revocation_files=False,
    json_options=False,
    missing_headers_empty=False,
    client_protocol_first=False,
    reads=_1_22.reads - {"opentelemetry.http", "inboundTrafficPolicy"},
    spawning="router",
)
_1_20 = replace(
    _1_21,
    sessions_of_routes=False,
    inbound_pools=False,
    ignores=_1_21.ignores - {"PILOT_ENABLE_INBOUND_PASSTHROUGH"},
    cluster_id_tag=False,
    concurrent_streams=False,
    proxy_protocol="",
    auto_sni=False,
    jwt_cookies=False,
    system_roots=False,
    tcp_idle=False,
    jwt_filter="istio_authn",
    lightstep="renamed",
    certificate_details=False,
)
_1_19 = replace(
    _1_20,
    reads=_1_20.reads - {"mirrors"},
    failover_priorities="values",
    ignores=_1_20.ignores | {"PILOT_DISABLE_MX_ALPN"},
    passthrough_authz=True,
    plugin_types=False,
    route_cors=True,
    bad_provider="all",
    provider_authority="cluster",
    metadata_exchange="message",
    authn_filter=True,
    header_string_match=False,
)
_1_18 = replace(
    _1_19,
    ignores=_1_19.ignores
    - {"PILOT_ENABLE_PROTOCOL_SNIFFING_FOR_INBOUND", "PILOT_ENABLE_PROTOCOL_SNIFFING_FOR_OUTBOUND"},
    skips_verification=False,
    mesh_ciphers=False,
    stat_target_port=False,
    ingress_metadata="empty",
    plugin_failures="",
    hides_wildcards=True,
    alpn_override=False,
    external_metadata=False,
    http_exchange="wasm",
    tcp_filters_timeout=False,
    gateway_filters_timeout=False,
    listener_logs=True,
    reads=_1_19.reads - {"proxyHeaders"},
    otel_labels="always",
    istio_tags_switch=True,
    skips_exchange="",
    tls_by_labels=True,
)
_1_17 = replace(
    _1_18,
    failover_priorities="keys",  # values: #43535
    session_routes="cookie",
    weightless_unnamed=True,
    ignores=_1_18.ignores - {"ISTIO_GATEWAY_STRIP_HOST_PORT"},
    unlabelled="unready",
    checked_headers="request",
    tls_defaults=False,
    revocation=False,
    original_port_metadata=True,
    canonical_default=False,
    entry_health=True,
    inline_health=False,
    body_limit="sidecar",
    specific_routes=False,
    hides_wildcards=False,
    append_action=False,
    total_weight=True,
    present_match=False,
    reads=_1_18.reads - {"zipkin.enable64bitTraceId"},
    log_formatters="query",
    tracers_only=False,
    lightstep="opentelemetry",
)
_1_16 = replace(
    _1_17,
    session_labels=(),
    session_routes="never",
    ignores=_1_17.ignores | {"PILOT_ENABLE_PERSISTENT_SESSION_FILTER"},
    claim_headers=False,
    sni_by_port=False,
    google_re2=True,
    authn_filter=False,
    stats="wasm",
    grpc_stats="grpc",
    body_limit="",
    mesh_sampling=False,
    datadog_host=False,
)
_1_15 = replace(
    _1_16,
    inbound_cleanup="minute",
    original_dst_cleanup=True,
    passthrough_idle=False,
    ignores_ports="gateways",
    hash_algorithms=False,
    reads=_1_16.reads - {"opentelemetry"},
    metrics_by_mode=False,
    log_merging="present",
    log_newline="providers",
    tracer_names=False,
    lightstep="own",
)
_1_14 = replace(
    _1_15,
    reads=_1_15.reads - {"directResponse"},
    ignores_ports="",
    gateway_exchange_alpn=False,
    gateway_exchange=False,
    total_weight=False,
    original_dst_cleanup=False,
    original_dst_assignment=True,
    empty_common_lb=False,
    http2_streams=True,
    grpc_timeouts="stream",
    connection_duration=False,
    log_merging="one",
    log_newline="",
    builtin_log=False,
)
_1_13 = replace(
    _1_14,
    ignores=_1_14.ignores | {"PILOT_ENABLE_ALPN_FILTER"},
    plugin_environment=False,
    plugin_rbac=False,
)
_1_25 = replace(
    _1_24,
    plugin_failures="policy",
    identifier=0,
    host_cluster_id=True,
    more_sources=("source.serviceAccount",),
    dns_resolver=True,
    dns_jitter=True,
    inspects_tls_outbound=False,
    reads=_1_24.reads | {"enableIstioTags", "preserveHttp1HeaderCase"},
)
_1_26 = replace(
    _1_25,
    ignores=_1_25.ignores - {"MAX_CONNECTIONS_PER_SOCKET_EVENT_LOOP"},
    connections_per_event=1,
    reads=_1_25.reads | {"omitEmptyValues", "retries.backoff"},
    log_formatters="query",
    gateway_spans="off",
    skips_exchange="all",
)
_1_27 = replace(
    _1_26,
    ignores=_1_26.ignores | {"ENABLE_INBOUND_RETRY_POLICY"},
    unlabelled="",
    absolute_domains=True,
    several_certificates=True,
    quotes="accounts",
    retry_budget="alone",
    lightstep="",
)
_1_28 = replace(
    _1_27,
    plain_shadow_host=True,
    quotes="all",
    claims_as_lists=True,
    authority_credentials=True,
    upgrades_first=True,
    reads=_1_27.reads | {"zipkin.traceContextOption", "xForwardedPort"},
    gateway_spans="on",
)
_1_29 = replace(
    _1_28,
    track_remaining=False,
    zipkin_service=True,
    reads=_1_28.reads | {"formatter"},
    log_state="otel",
)
_1_30 = replace(
    _1_29,
    inline_priorities=True,
    plugin_suffix="~istio-translated-wasmplugin",
    more_sources=("source.serviceAccount", "source.trustDomain"),
    providers_apart=True,
    retry_budget="merged",
    reads=_1_29.reads | {"disableContextPropagation"},
)
_1_31 = replace(_1_30, panic_threshold=True, http2_keepalive=True, gateway_spans="always", subset_tls_inherits=True)

#: 1.13 is priced as 1.14, but for extensions. 1.19, 1.21, 1.23, 1.25, 1.28 and 1.29 follow the source, between recorded
#: ones.
SIZINGS: Mapping[str, Sizing] = {
    "1.13": _1_13, "1.14": _1_14, "1.15": _1_15, "1.16": _1_16, "1.17": _1_17, "1.18": _1_18, "1.19": _1_19,
    "1.20": _1_20, "1.21": _1_21, "1.22": _1_22, "1.23": _1_23, "1.24": _1_24, "1.25": _1_25, "1.26": _1_26,
    "1.27": _1_27, "1.28": _1_28, "1.29": _1_29, "1.30": _1_30, "1.31": _1_31,
}  # fmt: skip


def sizing_of(release: str) -> Sizing:
    """The value of a release ("1.24") or of one of its patches ("1.24.6"); raises InputError naming the known ones."""
    minor = ".".join(release.split(".")[:2])
    for key in (release, minor):
        if key in SIZINGS:
            return SIZINGS[key]
    raise InputError(Problem(f"unknown release {release!r}", remedy=f"known are {', '.join(SIZINGS)}"))
