"""What each istiod release puts into its resources: one frozen `Sizing` value per release.

A value holds the facts that decide bytes and differ between releases, each with its place in Istio's source; the
builders read facts, never version numbers. Releases nobody recorded follow the source, or share a neighbour's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from pushsim.errors import InputError, Problem


@dataclass(frozen=True)
class Sizing:
    """The bytes-deciding facts of one istiod release.

    Clusters (pilot/pkg/networking/core/cluster_builder.go and neighbours):
    alt_stat_name:         clusters and HTTP stat prefixes end in `;` (EnableDelimitedStatsTagRegex).
    config_version:        API version in `/apis/networking.istio.io/<v>/…` of metadata (gvk of the release).
    metadata_exchange:     how the TCP metadata exchange filter is sent (filters.go, tcpMx).
    exchange_alpn:         `istio-peer-exchange` is offered by ALPN.
    original_port_metadata: outbound clusters carry `default_original_port` (addNetworkingMetadata).
    locality_weighted:     common_lb_config has locality_weighted_lb_config unless the rule says otherwise.
    panic_threshold:       outbound clusters switch the panic threshold off (SendUnhealthyEndpoints).
    track_remaining:       circuit breakers track what remains (DISABLE_TRACK_REMAINING_CB_METRICS).
    inbound_cleanup:       cleanup interval of inbound clusters. empty_common_lb: clusters have a common_lb_config
                           though it says nothing.
    ingress_metadata:      services: clusters of a Sidecar's ingress listeners name their service, filter chains the
                           Sidecar; empty: clusters have an empty list of services.
    original_dst_cleanup:  headless outbound clusters are cleaned up after a minute.
    connection_duration, tcp_idle: maxConnectionDuration and tcp.idleTimeout of a rule reach the cluster.
    concurrent_streams, http2_keepalive: so do maxConcurrentStreams and http2KeepAlive, of HTTP/2 clusters.
    client_protocol_first: useClientProtocol keeps a cluster from an upgrade to HTTP/2 (shouldH2Upgrade).
    upgrades_first:        that comes before the connection pool, and not where the protocol is known (applyH2Upgrade).
    retry_budget:          a rule's retryBudget reaches the cluster: the rule's or a subset's alone, or merged, too.
    warmup, hash_algorithms: `warmup` of a load balancer, ringHash and maglev of its consistentHash are known.
    proxy_protocol:        rules may ask for the PROXY protocol: around TLS and mTLS sockets, or all.
    stat_target_port, stat_service_name: patterns of stat names know %TARGET_PORT% and %SERVICE_NAME%.
    passthrough_idle:      passthrough clusters have an idle timeout.
    http2_streams:         HTTP/2 options limit concurrent streams.
    dns_resolver, dns_jitter: DNS clusters name the c-ares resolver; their refresh is jittered.
    alpn_override, external_metadata: clusters with TLS origination, and of external services, say so.
    revocation:            secrets come with staples and revocation lists.
    auto_sni, system_roots: TLS origination takes the host as SNI (ENABLE_AUTO_SNI), and the system's roots.

    Endpoints (pilot/pkg/xds/endpoints/endpoint_builder.go):
    canonical_default:     the workload label has the canonical name injection would have set.
    entry_health:          endpoints of ServiceEntries say HEALTHY. inline_health: those inline in clusters do.
    host_cluster_id:       the host name of a ServiceEntry without endpoints names the cluster, as all endpoints do.
    port_tls_endpoints:    any TLS setting of a port decides about its endpoints' tlsMode, not only DISABLE.

    Listeners (listener.go, listener_builder.go, listener_inbound.go):
    http_exchange, stats:  metadata exchange and Prometheus filters: WebAssembly or native.
    passthrough_authz:     gateways authorize what AUTO_PASSTHROUGH servers let through.
    grpc_stats:            HTTP chains have the gRPC statistics filter: all, or those of gRPC ports.
    authn_filter:          inbound and gateway chains start with the `istio_authn` network filter.
    cluster_id_tag:        tracing tags name the cluster.
    proxy_100_continue:    HTTP connection managers pass 100-continue on.
    chain_timeout:         outbound chains have a transport socket connect timeout.
    tcp_filters_timeout:   outbound TCP listeners say how long listener filters may take.
    gateway_filters_timeout: gateway listeners too.
    small_tls_buffer:      the TLS inspector starts with a small buffer.
    inspects_tls_outbound: HTTP listeners inspect TLS.
    connections_per_event: connections accepted per socket event (MAX_CONNECTIONS_PER_SOCKET_EVENT_LOOP), 0 for none.
    listener_logs:         outbound listeners log connections that match no chain.
    passthrough_ranges:    inbound passthrough chains match 0.0.0.0/0.
    inbound_retry:         inbound routes retry on reset.
    trusts_own_domain:     servers accept their own trust domain only.
    tcp_prefix_delimited:  TCP stat prefixes end in `;` too.
    cluster_raw, json_options: default access logs name the cluster raw; JSON ones carry format options.
    zipkin_service:        Zipkin is an HTTP service with URI and timeout, no plain collector cluster.
    jwt_filter:            where RBAC finds claims: Istio's own filter behind Envoy's, or Envoy's alone.
    header_string_match:   RBAC header matchers are string matchers.
    path_templates:        RBAC paths may have segments `{*}` and `{**}`.
    more_sources:          what else RBAC may ask of who calls. quotes: of which names regular expressions are quoted.
    providers_apart:       CUSTOM policies may ask several providers, each by its own name.
    bad_provider:          policies without a provider are denied rule by rule, or everything is.
    provider_authority:    what names a gRPC provider: its host or its cluster.
    checked_headers:       what says which headers a provider is sent: the filter, or its request.
    claims_as_lists:       JWT rules may say which claims are lists.
    claim_headers:         and which become headers. jwt_cookies: which cookies tokens are in.
    tls_defaults, mesh_ciphers: the mesh config may say what TLS offers: outside of the mesh (tlsDefaults), and within.
    gateway_exchange_alpn, gateway_exchange: TCP servers of a gateway that end the mesh's own TLS offer metadata
                           exchange, and have its filter.
    revocation_files:      TLS settings may name a file of revoked certificates.
    skips_verification:    TLS origination may trust anybody (insecureSkipVerify).
    several_certificates:  a Gateway's server may have several certificates. authority_credentials: and another
                           Secret's authority.
    sni_by_port:           names of connections that gateways pass on are told apart by port, not by server.

    plugin_rbac:           filters asked for by name may be access control, too.

    Extensions (pilot/pkg/model/extensions.go):
    plugin_environment:    WasmPlugins tell the agent by environment variables how to fetch them.
    plugin_types:          WasmPlugins may be network filters. plugin_suffix: what their name ends with.
    plugin_failures:       what says that a plugin fails open.

    Routes (httproute.go, route/route.go, route/retry/retry.go):
    retries_503:           503 is retried by default. body_limit: whose routes set the direct response limit.
    specific_routes:       of VirtualServices, the most specific host shapes a service, not the oldest. hides_wildcards:
                           none but services are served under wildcards on a port where some service is shaped (1.18).
    ignores_ports:         whose hosts match without port, so that domains have none (IgnorePortInHostMatching).
    absolute_domains:      each host also with a trailing dot (PILOT_ENABLE_ABSOLUTE_FQDN_VHOST_DOMAIN).
    grpc_timeouts:         which field takes a default route's gRPC timeout: max_grpc_timeout or max_stream_duration.
    google_re2:            regular expressions name their engine.
    route_cors:            CORS is a part of the route, not of its filter's configuration.
    append_action:         header operations are an enum, not a boolean.
    total_weight:          weighted clusters say their sum. present_match: a header's presence is asked for in words.
    hashed_spread:         hashed routes too retry on another host.
    missing_headers_empty: a withoutHeaders match treats a missing header as an empty one.
    plain_shadow_host:     mirrors keep the host (disable_shadow_host_suffix_append).
    cors_preflights:       CORS policies say what becomes of unmatched preflights.

    Responses (pilot/pkg/xds/ads.go, delta.go, discovery.go):
    nonce_has_version:     nonces start with the push version.
    identifier:            length of control_plane.identifier without the pod's name; 0 where none is sent.
    """

    alt_stat_name: bool = True
    config_version: str = "v1"
    metadata_exchange: Literal["message", "struct"] = "struct"
    exchange_alpn: bool = True
    original_port_metadata: bool = False
    locality_weighted: bool = False
    panic_threshold: bool = False
    track_remaining: bool = True
    inbound_cleanup: Literal["never", "minute", ""] = "never"
    empty_common_lb: bool = True
    ingress_metadata: Literal["services", "none", "empty"] = "services"
    original_dst_cleanup: bool = False
    connection_duration: bool = True
    tcp_idle: bool = True
    concurrent_streams: bool = True
    http2_keepalive: bool = False
    client_protocol_first: bool = True
    upgrades_first: bool = False
    retry_budget: Literal["", "alone", "merged"] = ""
    warmup: bool = True
    hash_algorithms: bool = True
    proxy_protocol: Literal["", "tls", "all"] = "all"
    stat_target_port: bool = True
    stat_service_name: bool = True
    passthrough_idle: bool = True
    http2_streams: bool = False
    dns_resolver: bool = False
    dns_jitter: bool = False
    alpn_override: bool = True
    external_metadata: bool = True
    revocation: bool = True
    auto_sni: bool = True
    system_roots: bool = True
    canonical_default: bool = True
    entry_health: bool = False
    inline_health: bool = True
    host_cluster_id: bool = False
    port_tls_endpoints: bool = True
    http_exchange: Literal["wasm", "struct"] = "struct"
    stats: Literal["wasm", "message"] = "message"
    passthrough_authz: bool = False
    grpc_stats: Literal["always", "grpc"] = "always"
    authn_filter: bool = False
    cluster_id_tag: bool = True
    proxy_100_continue: bool = True
    chain_timeout: bool = True
    tcp_filters_timeout: bool = True
    gateway_filters_timeout: bool = False
    small_tls_buffer: bool = True
    inspects_tls_outbound: bool = True
    connections_per_event: int = 0
    listener_logs: bool = False
    passthrough_ranges: bool = False
    inbound_retry: bool = True
    trusts_own_domain: bool = True
    tcp_prefix_delimited: bool = False
    cluster_raw: bool = True
    json_options: bool = True
    zipkin_service: bool = False
    jwt_filter: Literal["jwt_authn", "istio_authn"] = "jwt_authn"
    header_string_match: bool = True
    path_templates: bool = True
    more_sources: tuple[str, ...] = ()
    quotes: Literal["all", "accounts", ""] = ""
    providers_apart: bool = False
    bad_provider: Literal["rules", "all"] = "rules"
    provider_authority: Literal["host", "cluster"] = "host"
    checked_headers: Literal["filter", "request"] = "filter"
    claims_as_lists: bool = False
    tls_defaults: bool = True
    mesh_ciphers: bool = True
    gateway_exchange_alpn: bool = True
    gateway_exchange: bool = True
    revocation_files: bool = True
    skips_verification: bool = True
    several_certificates: bool = False
    authority_credentials: bool = False
    sni_by_port: bool = True
    claim_headers: bool = True
    jwt_cookies: bool = True
    retries_503: bool = False
    body_limit: Literal["all", "sidecar", ""] = "all"
    specific_routes: bool = True
    hides_wildcards: bool = False
    ignores_ports: Literal["all", "gateways", ""] = "all"
    absolute_domains: bool = False
    grpc_timeouts: Literal["grpc", "stream"] = "grpc"
    hashed_spread: bool = False
    google_re2: bool = False
    route_cors: bool = False
    append_action: bool = True
    total_weight: bool = False
    present_match: bool = True
    missing_headers_empty: bool = True
    plain_shadow_host: bool = False
    cors_preflights: bool = True
    plugin_environment: bool = True
    plugin_rbac: bool = True
    plugin_types: bool = True
    plugin_suffix: str = ""
    plugin_failures: Literal["", "open", "policy"] = "open"
    nonce_has_version: bool = True
    identifier: int = 139


_1_24 = Sizing()
_1_23 = replace(
    _1_24,
    config_version="v1alpha3",
    warmup=False,
    stat_service_name=False,
    locality_weighted=True,
    chain_timeout=False,
    gateway_filters_timeout=True,
    retries_503=True,
    ingress_metadata="none",
)
_1_22 = replace(
    _1_23,
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
)
_1_21 = replace(
    _1_22,
    path_templates=False,
    revocation_files=False,
    json_options=False,
    missing_headers_empty=False,
    client_protocol_first=False,
)
_1_20 = replace(
    _1_21,
    cluster_id_tag=False,
    concurrent_streams=False,
    proxy_protocol="",
    auto_sni=False,
    jwt_cookies=False,
    system_roots=False,
    tcp_idle=False,
    jwt_filter="istio_authn",
)
_1_19 = replace(
    _1_20,
    passthrough_authz=True,
    plugin_types=False,
    route_cors=True,
    bad_provider="all",
    gateway_exchange=False,
    provider_authority="cluster",
    metadata_exchange="message",
    authn_filter=True,
    header_string_match=False,
)
_1_18 = replace(
    _1_19,
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
)
_1_17 = replace(
    _1_18,
    checked_headers="request",
    tls_defaults=False,
    revocation=False,
    original_port_metadata=True,
    canonical_default=False,
    entry_health=True,
    inline_health=False,
    port_tls_endpoints=False,
    body_limit="sidecar",
    specific_routes=False,
    hides_wildcards=False,
    append_action=False,
    total_weight=True,
    present_match=False,
)
_1_16 = replace(
    _1_17,
    claim_headers=False,
    sni_by_port=False,
    google_re2=True,
    authn_filter=False,
    stats="wasm",
    grpc_stats="grpc",
    body_limit="",
)
_1_15 = replace(
    _1_16,
    inbound_cleanup="minute",
    original_dst_cleanup=True,
    passthrough_idle=False,
    ignores_ports="gateways",
    hash_algorithms=False,
)
_1_14 = replace(
    _1_15,
    ignores_ports="",
    gateway_exchange_alpn=False,
    total_weight=False,
    original_dst_cleanup=False,
    empty_common_lb=False,
    http2_streams=True,
    grpc_timeouts="stream",
    connection_duration=False,
)
_1_13 = replace(_1_14, plugin_environment=False, plugin_rbac=False)
_1_25 = replace(
    _1_24,
    plugin_failures="policy",
    identifier=0,
    host_cluster_id=True,
    more_sources=("source.serviceAccount",),
    dns_resolver=True,
    dns_jitter=True,
    inspects_tls_outbound=False,
)
_1_26 = replace(_1_25, connections_per_event=1)
_1_27 = replace(_1_26, absolute_domains=True, several_certificates=True, quotes="accounts", retry_budget="alone")
_1_28 = replace(
    _1_27,
    plain_shadow_host=True,
    quotes="all",
    claims_as_lists=True,
    authority_credentials=True,
    upgrades_first=True,
)
_1_29 = replace(_1_28, track_remaining=False, zipkin_service=True)
_1_30 = replace(
    _1_29,
    plugin_suffix="~istio-translated-wasmplugin",
    more_sources=("source.serviceAccount", "source.trustDomain"),
    providers_apart=True,
    retry_budget="merged",
)
_1_31 = replace(_1_30, panic_threshold=True, http2_keepalive=True)

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
