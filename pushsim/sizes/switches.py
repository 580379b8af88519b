"""What decides the bytes of resources and differs between istiod releases: the fields of a `Sizing`.

Each has its place in Istio's source; the builders read facts, never version numbers. `releases` has a value for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pushsim.mesh import SESSION, SESSION_HEADER
from pushsim.spreading import Priorities


@dataclass(frozen=True)
class Sizing:
    """The bytes-deciding facts of one istiod release.

    ignores:               variables of istiod's environment that other releases know (pilot/pkg/features).

    Clusters (pilot/pkg/networking/core/cluster_builder.go and neighbours):
    alt_stat_name:         clusters and HTTP stat prefixes end in `;` (EnableDelimitedStatsTagRegex).
    config_version:        API version in `/apis/networking.istio.io/<v>/…` of metadata (gvk of the release).
    metadata_exchange:     how the TCP metadata exchange filter is sent (filters.go, tcpMx); empty: not at all.
    exchange_alpn:         `istio-peer-exchange` is offered by ALPN.
    original_port_metadata: outbound clusters carry `default_original_port` (addNetworkingMetadata).
    locality_weighted:     common_lb_config has locality_weighted_lb_config unless the rule says otherwise.
    failover_priorities:   what failoverPriority may hold: keys of labels; values, too; and beside it `failover` counts.
    inline_priorities:     it counts for clusters that hold their endpoints.
    panic_threshold:       outbound clusters switch the panic threshold off (SendUnhealthyEndpoints).
    session_labels:        Services with one of these keep sessions: clients may stay with endpoints that drain.
    session_routes:        their virtual hosts say how: never; by cookie; by header, too; only if that is switched on.
    sessions_of_routes:    routes of VirtualServices say so, too, of their destinations.
    session_ttl:           cookies of sessions live for two minutes.
    track_remaining:       circuit breakers track what remains (DISABLE_TRACK_REMAINING_CB_METRICS).
    inbound_cleanup:       cleanup interval of inbound clusters. empty_common_lb: clusters have a common_lb_config
                           though it says nothing.
    external_inbound:      inbound clusters name services though the first is external (until 1.23).
    ingress_metadata:      services: clusters of a Sidecar's ingress listeners name their service, filter chains the
                           Sidecar; empty: clusters have an empty list of services.
    original_dst_cleanup:  headless outbound clusters are cleaned up after a minute.
    original_dst_assignment: clusters by DNS keep their hosts where a rule makes them ORIGINAL_DST.
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
    workload_label:        endpoints have a label that says what they are of: all, those ready for mTLS, or none.
    mode_label:            endpoints that are ready for mTLS are labelled with that.
    unlabelled:            labels that go with telemetry's: none, that of mTLS, or that of what is not ready for it.
    canonical_default:     the workload label has the canonical name injection would have set.
    entry_health:          endpoints of ServiceEntries say HEALTHY. inline_health: those inline in clusters do.
    host_cluster_id:       the host name of a ServiceEntry without endpoints names the cluster, as all endpoints do.
    subset_tls_inherits:   those of a subset that sets no TLS mode take that of the whole DestinationRule.
    tls_by_labels:         endpoints take the TLS mode of a rule's first subset that has their labels, whichever subset
                           the cluster is of, and none but DISABLE and ISTIO_MUTUAL matter to them.

    Listeners (listener.go, listener_builder.go, listener_inbound.go):
    http_exchange, stats:  metadata exchange and Prometheus filters: WebAssembly or native, or no exchange.
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
    inbound_retry:         inbound routes retry on reset. inbound_pools: Sidecars say how many connections there may be.
    trusts_own_domain:     servers accept their own trust domain only.
    tcp_prefix_delimited:  TCP stat prefixes end in `;` too.
    cluster_raw, json_options: default access logs name the cluster raw; JSON ones carry format options.
    zipkin_service:        Zipkin is an HTTP service with URI, timeout and headers, no plain collector cluster.
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

    Telemetry (pilot/pkg/model/{telemetry,telemetry_logging}.go, tracing.go, proxy_headers.go):
    reads:                 newer fields of Istio's API that make a difference.
    metrics_by_mode:       all metrics are switched off by mode, and by overrides that match no metric too.
    log_merging:           how logs of Telemetry objects add up; each: by mode, and those switched off count as logs;
                           present: filters of any mode, and those switched off do not; one: the last filter for all.
    log_newline, builtin_log: text formats without end get one; the provider `envoy` takes the mesh config's format.
    log_formatters, otel_formatters: commands that take a formatter: all, or requests without query; OpenTelemetry's.
    log_state:             filter state that services are sent: of peers, of WebAssembly; otel: both to OpenTelemetry.
    otel_labels:           OpenTelemetry's logs have Envoy's own labels: always, or if the environment asks for them.
    tracer_names, tracers_only: tracers are called as Envoy calls them; providers of other kinds switch tracing off.
    lightstep, opencensus: tracers; Lightstep's own, or OpenTelemetry's, renamed or not; with neither istiod dies of it.
    datadog_host:          Datadog is told the host. istio_tags_switch: PILOT_ENABLE_ISTIO_TAGS.
    mesh_sampling:         Telemetry objects without a percentage sample as the default config has it, else nothing.
    spawning, gateway_spans: who is told that upstream requests have spans of their own; gateways do by default.
    skips_exchange:        whose metadata exchange may keep to the mesh.
    certificate_details:   gateways say what they tell of certificates only where they tell anything.

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
    weightless_unnamed:    a route of which one destination alone has a weight is like one without others.
    total_weight:          weighted clusters say their sum. present_match: a header's presence is asked for in words.
    hashed_spread:         hashed routes too retry on another host.
    missing_headers_empty: a withoutHeaders match treats a missing header as an empty one.
    plain_shadow_host:     mirrors keep the host (disable_shadow_host_suffix_append).
    cors_preflights:       CORS policies say what becomes of unmatched preflights.

    Responses (pilot/pkg/xds/ads.go, delta.go, discovery.go):
    nonce_has_version:     nonces start with the push version.
    identifier:            length of control_plane.identifier without the pod's name; 0 where none is sent.
    """

    ignores: frozenset[str] = frozenset(
        ("MAX_CONNECTIONS_PER_SOCKET_EVENT_LOOP", "PILOT_ENABLE_INBOUND_PASSTHROUGH", "ISTIO_GATEWAY_STRIP_HOST_PORT",
         "PILOT_ENABLE_PROTOCOL_SNIFFING_FOR_INBOUND", "PILOT_ENABLE_PROTOCOL_SNIFFING_FOR_OUTBOUND")
    )  # fmt: skip
    alt_stat_name: bool = True
    config_version: str = "v1"
    metadata_exchange: Literal["message", "struct", ""] = "struct"
    exchange_alpn: bool = True
    original_port_metadata: bool = False
    locality_weighted: bool = False
    failover_priorities: Priorities = "both"
    inline_priorities: bool = False
    panic_threshold: bool = False
    session_labels: tuple[str, ...] = (SESSION, SESSION_HEADER)
    session_routes: Literal["never", "cookie", "always", "switched"] = "switched"
    sessions_of_routes: bool = True
    session_ttl: bool = False
    track_remaining: bool = True
    inbound_cleanup: Literal["never", "minute", ""] = "never"
    empty_common_lb: bool = True
    external_inbound: bool = False
    ingress_metadata: Literal["services", "none", "empty"] = "services"
    original_dst_cleanup: bool = False
    original_dst_assignment: bool = False
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
    workload_label: Literal["always", "ready", ""] = "always"
    mode_label: bool = True
    unlabelled: Literal["", "mode", "unready"] = "mode"
    canonical_default: bool = True
    entry_health: bool = False
    inline_health: bool = True
    host_cluster_id: bool = False
    tls_by_labels: bool = False
    subset_tls_inherits: bool = False
    http_exchange: Literal["wasm", "struct", ""] = "struct"
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
    inbound_pools: bool = True
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
    weightless_unnamed: bool = False
    total_weight: bool = False
    present_match: bool = True
    missing_headers_empty: bool = True
    plain_shadow_host: bool = False
    cors_preflights: bool = True
    plugin_environment: bool = True
    plugin_rbac: bool = True
    plugin_types: bool = True
    plugin_suffix: str = ""
    reads: frozenset[str] = frozenset(
        ("zipkin.enable64bitTraceId", "zipkin.path", "opentelemetry", "opentelemetry.http", "opentelemetry.grpc",
         "proxyHeaders", "setCurrentClientCertDetails", "inboundTrafficPolicy", "mirrors",
         "directResponse")
    )  # fmt: skip
    metrics_by_mode: bool = True
    log_merging: Literal["each", "present", "one"] = "each"
    log_newline: Literal["all", "providers", ""] = "all"
    builtin_log: bool = True
    log_formatters: Literal["all", "query"] = "all"
    log_state: Literal["peer", "otel", "wasm"] = "peer"
    otel_labels: Literal["always", "asked", "never"] = "never"
    otel_formatters: bool = True
    tracer_names: bool = True
    tracers_only: bool = True
    lightstep: Literal["own", "renamed", "opentelemetry", ""] = "opentelemetry"
    opencensus: bool = False
    datadog_host: bool = True
    mesh_sampling: bool = True
    istio_tags_switch: bool = False
    spawning: Literal["manager", "router"] = "manager"
    gateway_spans: Literal["always", "on", "off", ""] = ""
    skips_exchange: Literal["all", "sidecars", ""] = "sidecars"
    certificate_details: bool = True
    plugin_failures: Literal["", "open", "policy"] = "open"
    nonce_has_version: bool = True
    identifier: int = 139
