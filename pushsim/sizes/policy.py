"""DestinationRule traffic policies, applied to a cluster as istiod does.

Source: pilot/pkg/networking/core/cluster_traffic_policy.go and pilot/pkg/networking/util/util.go (merging).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from envoy_data_plane.envoy.config.cluster.v3 import (
    CircuitBreakers,
    CircuitBreakersThresholds,
    Cluster,
    ClusterCommonLbConfigLocalityWeightedLbConfig,
    ClusterDiscoveryType,
    ClusterLbPolicy,
    ClusterLeastRequestLbConfig,
    ClusterMaglevLbConfig,
    ClusterRingHashLbConfig,
    ClusterRoundRobinLbConfig,
    ClusterSlowStartConfig,
    OutlierDetection,
    UpstreamConnectionOptions,
)
from envoy_data_plane.envoy.config.core.v3 import (
    Http1ProtocolOptions,
    Http2ProtocolOptions,
    HttpProtocolOptions,
    RuntimeDouble,
    TcpKeepalive,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import HttpProtocolOptions as Upstream
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptionsExplicitHttpConfig,
    HttpProtocolOptionsUseDownstreamHttpConfig,
)
from envoy_data_plane.envoy.type.v3 import Percent

from pushsim.mesh import Object, Port
from pushsim.sizes.releases import Sizing
from pushsim.sizes.settings import Settings
from pushsim.sizes.wire import duration, made

Spec = Mapping[str, Any]
UNLIMITED = 4294967295
_STREAMS = 1073741824
_PARTS = ("connectionPool", "loadBalancer", "outlierDetection", "tls", "proxyProtocol", "tunnel")


def policy_for(rules: Sequence[Object], subset: str, port: Port) -> Spec:
    """The traffic policy of a port (and subset) after merging rules, port-level settings and the subset's own."""
    base: Spec = next((rule.spec["trafficPolicy"] for rule in rules if rule.spec.get("trafficPolicy")), {})
    merged = _at_port(base, port)
    if subset:
        own = subset_spec(rules, subset).get("trafficPolicy") or {}
        merged = {**merged, **_at_port(own, port)}
    return merged


def tls_mode(rules: Sequence[Object], subset: str, port: Port, sizing: Sizing) -> str | None:
    """The TLS mode a rule sets for endpoints: of the subset alone if one is named (mtls_checker.go)."""
    written = whole_policy(rules)
    if subset:
        written = subset_spec(rules, subset).get("trafficPolicy") or {}
    found = written.get("tls")
    for level in written.get("portLevelSettings") or ():
        own = level.get("tls")
        if (level.get("port") or {}).get("number") != port.number or own is None:
            continue
        if sizing.port_tls_endpoints or str(own.get("mode") or "DISABLE") == "DISABLE":
            found = own
        break
    return None if found is None else str(found.get("mode") or "DISABLE")


def consistent_hash(rules: Sequence[Object], subset: str, port: int | None) -> Spec | None:
    """consistentHash for requests to a host: of the subset's port, the subset, the port, or the rule, whichever has it.

    port is None where a destination names none (hashForHTTPDestination and hashForService of route/route.go).
    """
    written = whole_policy(rules)
    own = (subset_spec(rules, subset).get("trafficPolicy") or {}) if subset else {}
    for policy in (own, written):
        levels = [p for p in policy.get("portLevelSettings") or () if (p.get("port") or {}).get("number") == port]
        for part in (*levels[:1], policy) if policy is own else levels[:1]:
            found: Spec | None = (part.get("loadBalancer") or {}).get("consistentHash")
            if found is not None:
                return found
    return (written.get("loadBalancer") or {}).get("consistentHash")


def whole_policy(rules: Sequence[Object]) -> Spec:
    """The trafficPolicy of a host's rules: of the first that has one."""
    return next((rule.spec["trafficPolicy"] for rule in rules if rule.spec.get("trafficPolicy")), {})


def subset_spec(rules: Sequence[Object], subset: str) -> Spec:
    """The subset's entry: the first rule that has it."""
    return next((s for rule in rules for s in rule.spec.get("subsets") or () if s.get("name") == subset), {})


def _at_port(policy: Spec, port: Port) -> Spec:
    """A policy with its port-level settings applied: a port's entry replaces all parts."""
    for level in policy.get("portLevelSettings") or ():
        if (level.get("port") or {}).get("number") == port.number:
            return {part: level[part] for part in _PARTS if level.get(part) is not None}
    return {part: policy[part] for part in _PARTS if policy.get(part) is not None}


def thresholds() -> CircuitBreakersThresholds:
    """Circuit breakers that never open (getDefaultCircuitBreakerThresholds)."""
    return made(
        CircuitBreakersThresholds,
        max_connections=UNLIMITED,
        max_pending_requests=UNLIMITED,
        max_requests=UNLIMITED,
        max_retries=UNLIMITED,
        track_remaining=True,
    )


def http2_options(sizing: Sizing) -> Http2ProtocolOptions:
    """HTTP/2 towards the hosts."""
    return made(Http2ProtocolOptions, max_concurrent_streams=_STREAMS if sizing.http2_streams else None)


def use_downstream(sizing: Sizing) -> HttpProtocolOptionsUseDownstreamHttpConfig:
    """The upstream protocol follows the client's."""
    return made(
        HttpProtocolOptionsUseDownstreamHttpConfig,
        http_protocol_options=made(Http1ProtocolOptions),
        http2_protocol_options=http2_options(sizing),
    )


def http2(options: Upstream, sizing: Sizing) -> None:
    """Make an upstream HTTP/2."""
    options.explicit_http_config = made(
        HttpProtocolOptionsExplicitHttpConfig, http2_protocol_options=http2_options(sizing)
    )


def is_http2(options: Upstream | None) -> bool:
    """Whether the cluster speaks HTTP/2 to its hosts."""
    explicit = options.explicit_http_config if options is not None else None
    return explicit is not None and explicit.http2_protocol_options is not None


def apply_pool(
    cluster: Cluster, options: Upstream | None, pool: Spec, sizing: Sizing, settings: Settings
) -> Upstream | None:
    """connectionPool: timeouts, keepalive, circuit breakers, HTTP options."""
    http, tcp = pool.get("http") or {}, pool.get("tcp") or {}
    limits = thresholds()
    for field, source, key in (
        ("max_requests", http, "http2MaxRequests"),
        ("max_pending_requests", http, "http1MaxPendingRequests"),
        ("max_retries", http, "maxRetries"),
        ("max_connections", tcp, "maxConnections"),
    ):
        if int(source.get(key) or 0) > 0:
            setattr(limits, field, int(source[key]))
    cluster.connect_timeout = duration(tcp["connectTimeout"]) if tcp.get("connectTimeout") else settings.connect_timeout
    cluster.circuit_breakers = made(CircuitBreakers, thresholds=[limits])
    for keepalive in (settings.mesh.get("tcpKeepalive"), tcp.get("tcpKeepalive")):
        if keepalive is not None:
            _keepalive(cluster, keepalive)
    idle = http.get("idleTimeout") or (tcp.get("idleTimeout") if sizing.tcp_idle else None)
    per_connection, streams = int(http.get("maxRequestsPerConnection") or 0), int(http.get("maxConcurrentStreams") or 0)
    longest = tcp.get("maxConnectionDuration") if sizing.connection_duration else None
    if idle or per_connection or streams or longest:
        options = options or Upstream()
        common = made(HttpProtocolOptions, max_requests_per_connection=per_connection or None)
        common.idle_timeout = duration(idle) if idle else None
        common.max_connection_duration = duration(longest) if longest else None
        options.common_http_protocol_options = common
        explicit = options.explicit_http_config
        if explicit is not None and explicit.http2_protocol_options is not None and streams:
            explicit.http2_protocol_options.max_concurrent_streams = streams
    if http.get("useClientProtocol"):
        options = options or Upstream()
        options.explicit_http_config = None
        options.use_downstream_protocol_config = use_downstream(sizing)
    return options


def upgrades(pool: Spec, port: Port, settings: Settings) -> bool:
    """h2UpgradePolicy of the rule or the mesh (shouldH2Upgrade)."""
    http = pool.get("http") or {}
    if http.get("useClientProtocol"):
        return False
    wish = str(http.get("h2UpgradePolicy") or "DEFAULT")
    if wish != "DEFAULT":
        return wish == "UPGRADE"
    return port.http and settings.mesh.get("h2UpgradePolicy") == "UPGRADE"


def _keepalive(cluster: Cluster, spec: Spec) -> None:
    if cluster.upstream_connection_options is None:
        cluster.upstream_connection_options = UpstreamConnectionOptions(tcp_keepalive=TcpKeepalive())
    keepalive = cluster.upstream_connection_options.tcp_keepalive
    assert keepalive is not None  # an empty message is false: no `or` on messages
    if spec.get("probes"):
        keepalive.keepalive_probes = int(spec["probes"])
    if spec.get("time"):
        keepalive.keepalive_time = int(duration(spec["time"]).total_seconds())
    if spec.get("interval"):
        keepalive.keepalive_interval = int(duration(spec["interval"]).total_seconds())


def apply_outlier(cluster: Cluster, spec: Spec | None) -> None:
    """outlierDetection."""
    if spec is None:
        return
    out = OutlierDetection(enforcing_success_rate=0)
    if spec.get("consecutive5xxErrors") is not None:
        out.consecutive_5xx = int(spec["consecutive5xxErrors"])
        out.enforcing_consecutive_5xx = 100 if out.consecutive_5xx else 0
    if spec.get("consecutiveGatewayErrors") is not None:
        out.consecutive_gateway_failure = int(spec["consecutiveGatewayErrors"])
        out.enforcing_consecutive_gateway_failure = 100 if out.consecutive_gateway_failure else 0
    if spec.get("interval"):
        out.interval = duration(spec["interval"])
    if spec.get("baseEjectionTime"):
        out.base_ejection_time = duration(spec["baseEjectionTime"])
    if spec.get("maxEjectionPercent"):
        out.max_ejection_percent = int(spec["maxEjectionPercent"])
    if spec.get("splitExternalLocalOriginErrors"):
        out.split_external_local_origin_errors = True
        if spec.get("consecutiveLocalOriginFailures"):
            out.consecutive_local_origin_failure = int(spec["consecutiveLocalOriginFailures"])
            out.enforcing_consecutive_local_origin_failure = 100
        out.enforcing_local_origin_success_rate = 0
    cluster.outlier_detection = out
    if cluster.common_lb_config is not None:
        cluster.common_lb_config.healthy_panic_threshold = Percent(value=float(spec.get("minHealthPercent") or 0))


def apply_balancer(cluster: Cluster, spec: Spec, settings: Settings) -> None:
    """loadBalancer: the policy, slow start, consistent hashing, locality weights."""
    local = settings.mesh.get("localityLbSetting") or {}
    own = spec.get("localityLbSetting") or {}
    effective = own or (local if settings.locality_lb else {})
    failover = cluster.outlier_detection is not None and (
        effective.get("failover") or effective.get("failoverPriority")
    )
    if cluster.common_lb_config is not None and (failover or effective.get("distribute")):
        cluster.common_lb_config.locality_weighted_lb_config = ClusterCommonLbConfigLocalityWeightedLbConfig()
    if cluster.type == ClusterDiscoveryType.ORIGINAL_DST:
        cluster.lb_policy = ClusterLbPolicy.CLUSTER_PROVIDED
        return
    simple = str(spec.get("simple") or "UNSPECIFIED")
    warmup = _slow_start(spec)
    if simple == "RANDOM":
        cluster.lb_policy = ClusterLbPolicy.RANDOM
    elif simple == "PASSTHROUGH":
        cluster.lb_policy, cluster.type = ClusterLbPolicy.CLUSTER_PROVIDED, ClusterDiscoveryType.ORIGINAL_DST
        cluster.load_assignment = None
    elif simple == "ROUND_ROBIN":
        cluster.lb_policy = ClusterLbPolicy.ROUND_ROBIN
        cluster.round_robin_lb_config = ClusterRoundRobinLbConfig(slow_start_config=warmup) if warmup else None
    else:
        cluster.lb_policy = ClusterLbPolicy.LEAST_REQUEST
        cluster.least_request_lb_config = ClusterLeastRequestLbConfig(slow_start_config=warmup) if warmup else None
    if (hashing := spec.get("consistentHash")) is not None:
        _hashing(cluster, hashing)


def _slow_start(spec: Spec) -> ClusterSlowStartConfig | None:
    warmup = spec.get("warmup")
    if warmup:
        return ClusterSlowStartConfig(
            slow_start_window=duration(warmup["duration"]),
            aggression=RuntimeDouble(default_value=float(warmup.get("aggression") or 1), runtime_key="("),
            min_weight_percent=Percent(value=float(warmup.get("minimumPercent") or 10)),
        )
    if spec.get("warmupDurationSecs"):
        return ClusterSlowStartConfig(slow_start_window=duration(spec["warmupDurationSecs"]))
    return None


def _hashing(cluster: Cluster, spec: Spec) -> None:
    cluster.round_robin_lb_config = cluster.least_request_lb_config = None
    if spec.get("maglev") is not None:
        cluster.lb_policy = ClusterLbPolicy.MAGLEV
        size = int(spec["maglev"].get("tableSize") or 0)
        cluster.maglev_lb_config = ClusterMaglevLbConfig(table_size=size) if size else None
        return
    cluster.lb_policy = ClusterLbPolicy.RING_HASH
    ring = spec.get("ringHash")
    if ring is None:
        size = int(spec.get("minimumRingSize") or 1024)
    else:
        size = int(ring.get("minimumRingSize") or 0)
    cluster.ring_hash_lb_config = ClusterRingHashLbConfig(minimum_ring_size=size) if size else None
