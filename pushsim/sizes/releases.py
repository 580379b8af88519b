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
    inbound_cleanup:       cleanup interval of inbound clusters.
    dns_resolver, dns_jitter: DNS clusters name the c-ares resolver; their refresh is jittered.
    auto_sni, system_roots: TLS origination takes the host as SNI (ENABLE_AUTO_SNI), and the system's roots.

    Endpoints (pilot/pkg/xds/endpoints/endpoint_builder.go):
    canonical_default:     the workload label has the canonical name injection would have set.
    entry_health:          endpoints of ServiceEntries say HEALTHY. inline_health: those inline in clusters do.
    entry_workload:        endpoints of ServiceEntries name the entry as their workload.

    Listeners (listener.go, listener_builder.go, listener_inbound.go):
    http_exchange, stats:  metadata exchange and Prometheus filters: WebAssembly or native.
    grpc_stats:            HTTP chains have the gRPC statistics filter.
    cluster_id_tag:        tracing tags name the cluster.
    proxy_100_continue:    HTTP connection managers pass 100-continue on.
    always_request_id:     a request ID extension also without tracing.
    chain_timeout:         outbound chains have a transport socket connect timeout.
    tcp_filters_timeout:   outbound TCP listeners say how long listener filters may take.
    gateway_filters_timeout: gateway listeners too.
    small_tls_buffer:      the TLS inspector starts with a small buffer.
    inspects_tls_outbound: HTTP listeners inspect TLS.
    connections_per_event: connections accepted per socket event (MAX_CONNECTIONS_PER_SOCKET_EVENT_LOOP), 0 for none.
    passthrough_ranges:    inbound passthrough chains match 0.0.0.0/0.
    inbound_retry:         inbound routes retry on reset.
    trusts_own_domain:     servers accept their own trust domain only.
    tcp_prefix_delimited:  TCP stat prefixes end in `;` too.
    header_string_match:   RBAC header matchers are string matchers.
    normalized_claims:     JWT payloads are normalised.

    Routes (httproute.go, route/route.go, route/retry/retry.go):
    retries_503:           503 is retried by default. body_limit: the direct response limit is set.
    ignores_ports:         hosts match without port, so domains have none (IgnorePortInHostMatching).
    absolute_domains:      each host also with a trailing dot (PILOT_ENABLE_ABSOLUTE_FQDN_VHOST_DOMAIN).
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
    dns_resolver: bool = False
    dns_jitter: bool = False
    auto_sni: bool = True
    system_roots: bool = True
    canonical_default: bool = True
    entry_health: bool = False
    inline_health: bool = True
    entry_workload: bool = False
    http_exchange: Literal["wasm", "struct"] = "struct"
    stats: Literal["wasm", "message"] = "message"
    grpc_stats: bool = True
    cluster_id_tag: bool = True
    proxy_100_continue: bool = True
    always_request_id: bool = True
    chain_timeout: bool = True
    tcp_filters_timeout: bool = True
    gateway_filters_timeout: bool = False
    small_tls_buffer: bool = True
    inspects_tls_outbound: bool = True
    connections_per_event: int = 0
    passthrough_ranges: bool = False
    inbound_retry: bool = True
    trusts_own_domain: bool = True
    tcp_prefix_delimited: bool = False
    header_string_match: bool = True
    normalized_claims: bool = True
    retries_503: bool = False
    body_limit: bool = True
    ignores_ports: bool = True
    absolute_domains: bool = False
    plain_shadow_host: bool = False
    cors_preflights: bool = True
    nonce_has_version: bool = True
    identifier: int = 143


_1_24 = Sizing()
_1_22 = replace(
    _1_24,
    alt_stat_name=False,
    config_version="v1alpha3",
    inbound_cleanup="",
    locality_weighted=True,
    cluster_id_tag=False,
    proxy_100_continue=False,
    chain_timeout=False,
    small_tls_buffer=False,
    passthrough_ranges=True,
    inbound_retry=False,
    gateway_filters_timeout=True,
    retries_503=True,
    cors_preflights=False,
    nonce_has_version=False,
)
_1_20 = replace(_1_22)
_1_17 = replace(
    _1_20,
    metadata_exchange="message",
    original_port_metadata=True,
    canonical_default=False,
    entry_health=True,
    http_exchange="wasm",
    stats="wasm",
    grpc_stats=False,
    tcp_filters_timeout=False,
    body_limit=False,
    header_string_match=False,
    normalized_claims=False,
)
_1_16 = replace(_1_17)
_1_14 = replace(_1_16, ignores_ports=False)
_1_25 = replace(_1_24, identifier=0)
_1_27 = replace(_1_25, absolute_domains=True, connections_per_event=1)
_1_30 = replace(
    _1_27, track_remaining=False, panic_threshold=True, dns_resolver=True, dns_jitter=True, inspects_tls_outbound=False,
    plain_shadow_host=True, entry_workload=True,
)  # fmt: skip
_1_31 = replace(_1_30)

SIZINGS: Mapping[str, Sizing] = {
    "1.13": _1_14, "1.14": _1_14, "1.15": _1_16, "1.16": _1_16, "1.17": _1_17, "1.18": _1_20, "1.19": _1_20,
    "1.20": _1_20, "1.21": _1_22, "1.22": _1_22, "1.23": _1_24, "1.24": _1_24, "1.25": _1_25, "1.26": _1_25,
    "1.27": _1_27, "1.28": _1_27, "1.29": _1_30, "1.30": _1_30, "1.31": _1_31,
}  # fmt: skip


def sizing_of(release: str) -> Sizing:
    """The value of a release ("1.24") or of one of its patches ("1.24.6"); raises InputError naming the known ones."""
    minor = ".".join(release.split(".")[:2])
    for key in (release, minor):
        if key in SIZINGS:
            return SIZINGS[key]
    raise InputError(Problem(f"unknown release {release!r}", remedy=f"known are {', '.join(SIZINGS)}"))
