"""DestinationRule traffic policies, applied to a cluster as istiod does.

Source: pilot/pkg/networking/core/cluster_traffic_policy.go and pilot/pkg/networking/util/util.go (merging).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from envoy_data_plane.envoy.config.cluster.v3 import (
    CircuitBreakers,
    CircuitBreakersThresholds,
    CircuitBreakersThresholdsRetryBudget,
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
    KeepaliveSettings,
    RuntimeDouble,
    TcpKeepalive,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import HttpProtocolOptions as Upstream
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptionsExplicitHttpConfig,
    HttpProtocolOptionsUseDownstreamHttpConfig,
)
from envoy_data_plane.envoy.type.v3 import Percent

from pushsim.mesh import Object, Port, Service
from pushsim.sizes.settings import Settings
from pushsim.sizes.switches import Sizing
from pushsim.sizes.wire import duration, made
from pushsim.spreading import Spread, spread

Spec = Mapping[str, Any]
UNLIMITED = 4294967295
_STREAMS = 1073741824
#: What settings of a port say anew, whether they name it or not; and what they do not touch.
_OF_PORTS = ("connectionPool", "loadBalancer", "outlierDetection", "tls")
_PARTS = (*_OF_PORTS, "proxyProtocol", "tunnel", "retryBudget")


def policy_for(rules: Sequence[Object], subset: str, port: Port, *, budgets: bool = True) -> Spec:
    """The traffic policy of a port (and subset) after merging rules, port-level settings and the subset's own.

    budgets: whether that merges retry budgets, too; else a rule's and its subset's are both lost where both have a
    policy.
    """
    base, own = whole_policy(rules), own_policy(rules, subset) if subset else {}
    merged, more = _at_port(base, port), _at_port(own, port)
    if not base or not own:
        return merged or more
    if _level(own, port) is not None:
        merged = {part: value for part, value in merged.items() if part not in _OF_PORTS}
    merged = {**merged, **more}
    return merged if budgets else {part: value for part, value in merged.items() if part != "retryBudget"}


def consistent_hash(rules: Sequence[Object], subset: str, port: int | None) -> Spec | None:
    """consistentHash for requests to a host: of the subset's port, the subset, the port, or the rule, whichever has it.

    port is None where a destination names none (hashForHTTPDestination and hashForService of route/route.go).
    """
    written = whole_policy(rules)
    own = own_policy(rules, subset) if subset else {}
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


def own_policy(rules: Sequence[Object], subset: str) -> Spec:
    """The trafficPolicy of a subset itself, or without one that of the rule."""
    return (subset_spec(rules, subset).get("trafficPolicy") or {}) if subset else whole_policy(rules)


def passes_through(policy: Spec) -> bool:
    """Whether a policy leaves it to the client where requests go."""
    return (policy.get("loadBalancer") or {}).get("simple") == "PASSTHROUGH"


def _level(policy: Spec, port: Port) -> Spec | None:
    """A policy's settings for a port."""
    levels = policy.get("portLevelSettings") or ()
    return next((level for level in levels if (level.get("port") or {}).get("number") == port.number), None)


def _at_port(policy: Spec, port: Port) -> Spec:
    """A policy with its port-level settings applied: a port's entry replaces all parts."""
    level = _level(policy, port)
    parts, of = (_PARTS, policy) if level is None else (_OF_PORTS, level)
    return {part: of[part] for part in parts if of.get(part) is not None}


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
    options.use_downstream_protocol_config = None
    options.explicit_http_config = made(
        HttpProtocolOptionsExplicitHttpConfig, http2_protocol_options=http2_options(sizing)
    )


def is_http2(options: Upstream | None) -> bool:
    """Whether the cluster speaks HTTP/2 to its hosts."""
    explicit = options.explicit_http_config if options is not None else None
    return explicit is not None and explicit.http2_protocol_options is not None


def apply_pool(
    cluster: Cluster, options: Upstream | None, policy: Spec, sizing: Sizing, settings: Settings
) -> Upstream | None:
    """connectionPool and retryBudget: timeouts, keepalive, circuit breakers, HTTP options."""
    pool = policy.get("connectionPool") or {}
    http, tcp = pool.get("http") or {}, pool.get("tcp") or {}
    limits = thresholds()
    if sizing.retry_budget and (budget := policy.get("retryBudget")) is not None:
        percent, least = budget.get("percent"), int(budget.get("minRetryConcurrency") or 3)
        share = Percent(value=20.0 if percent is None else float(percent))
        limits.retry_budget = CircuitBreakersThresholdsRetryBudget(budget_percent=share, min_retry_concurrency=least)
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
    per_connection = int(http.get("maxRequestsPerConnection") or 0)
    streams = int(http.get("maxConcurrentStreams") or 0) if sizing.concurrent_streams else 0
    longest = tcp.get("maxConnectionDuration") if sizing.connection_duration else None
    alive = http.get("http2KeepAlive") if sizing.http2_keepalive else None
    if idle or per_connection or streams or longest or alive is not None:
        options = options or Upstream()
        common = made(HttpProtocolOptions, max_requests_per_connection=per_connection or None)
        common.idle_timeout = duration(idle) if idle else None
        common.max_connection_duration = duration(longest) if longest else None
        options.common_http_protocol_options = common
        explicit = options.explicit_http_config
        if explicit is not None and explicit.http2_protocol_options is not None:
            if streams:
                explicit.http2_protocol_options.max_concurrent_streams = streams
            if alive is not None:
                explicit.http2_protocol_options.connection_keepalive = _http2_keepalive(alive)
    if http.get("useClientProtocol"):
        options = options or Upstream()
        options.explicit_http_config = None
        options.use_downstream_protocol_config = use_downstream(sizing)
    return options


def _http2_keepalive(spec: Spec) -> KeepaliveSettings:
    interval, timeout = (duration(spec[key]) if spec.get(key) else None for key in ("interval", "timeout"))
    return made(KeepaliveSettings, interval=interval, timeout=timeout)


def upgraded(options: Upstream | None, policy: Spec, port: Port, sizing: Sizing, settings: Settings) -> Upstream | None:
    """HTTP/2 where h2UpgradePolicy asks for it (applyH2Upgrade)."""
    given = options is not None and (
        options.explicit_http_config is not None or options.use_downstream_protocol_config is not None
    )
    if not _upgrades(policy, port, sizing, settings) or (sizing.upgrades_first and given):
        return options
    options = options if options is not None else made(Upstream)
    http2(options, sizing)
    return options


def _upgrades(policy: Spec, port: Port, sizing: Sizing, settings: Settings) -> bool:
    """h2UpgradePolicy of the rule or the mesh (shouldH2Upgrade)."""
    http = (policy.get("connectionPool") or {}).get("http") or {}
    if http.get("useClientProtocol") and sizing.client_protocol_first:
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


def spread_of(service: Service, rule: Spec, settings: Settings) -> Spread:
    """How endpoints of a service are spread over localities where this policy applies."""
    own = (rule.get("loadBalancer") or {}).get("localityLbSetting")
    return spread(own, service.distribution, settings.mesh, outlier=rule.get("outlierDetection") is not None)


def _weighs_localities(how: Spread, sizing: Sizing, settings: Settings) -> bool:
    """Whether localities have weights."""
    if sizing.locality_weighted:
        return how.setting is not None
    if settings.enabled("ENABLE_LOCALITY_WEIGHTED_LB_CONFIG", False):
        return True
    found = how.setting or {}
    fails_over = how.fails_over and any(found.get(key) for key in ("failover", "failoverPriority"))
    return fails_over or bool(found.get("distribute"))


def apply_balancer(
    cluster: Cluster, service: Service, port: Port, rule: Spec, sizing: Sizing, settings: Settings
) -> None:
    """loadBalancer: the policy, slow start, consistent hashing, locality weights."""
    common, spec = cluster.common_lb_config, rule.get("loadBalancer") or {}
    assert common is not None, "all that are outbound have one"
    if _weighs_localities(spread_of(service, rule, settings), sizing, settings):
        common.locality_weighted_lb_config = ClusterCommonLbConfigLocalityWeightedLbConfig()
    if service.distribution:
        common.healthy_panic_threshold = Percent(value=0.0)
    if cluster.type == ClusterDiscoveryType.ORIGINAL_DST:
        cluster.lb_policy = ClusterLbPolicy.CLUSTER_PROVIDED
        return
    if port.protocol == "Redis" and settings.enabled("PILOT_ENABLE_REDIS_FILTER", False):
        cluster.lb_policy = ClusterLbPolicy.MAGLEV
        return
    simple = str(spec.get("simple") or "UNSPECIFIED")
    warmup = _slow_start(spec, sizing)
    if simple == "RANDOM":
        cluster.lb_policy = ClusterLbPolicy.RANDOM
    elif simple == "ROUND_ROBIN":
        cluster.lb_policy = ClusterLbPolicy.ROUND_ROBIN
        cluster.round_robin_lb_config = ClusterRoundRobinLbConfig(slow_start_config=warmup) if warmup else None
    else:
        cluster.lb_policy = ClusterLbPolicy.LEAST_REQUEST
        cluster.least_request_lb_config = ClusterLeastRequestLbConfig(slow_start_config=warmup) if warmup else None
    if (hashing := spec.get("consistentHash")) is not None:
        _hashing(cluster, hashing, sizing)


def _slow_start(spec: Spec, sizing: Sizing) -> ClusterSlowStartConfig | None:
    warmup = spec.get("warmup") if sizing.warmup else None
    if warmup:
        aggression, least = warmup.get("aggression"), warmup.get("minimumPercent")
        value = 1.0 if aggression is None else float(aggression)
        return ClusterSlowStartConfig(
            slow_start_window=duration(warmup["duration"]),
            aggression=RuntimeDouble(default_value=value, runtime_key="("),
            min_weight_percent=Percent(value=10.0 if least is None else float(least)),
        )
    if spec.get("warmupDurationSecs"):
        return ClusterSlowStartConfig(slow_start_window=duration(spec["warmupDurationSecs"]))
    return None


def _hashing(cluster: Cluster, spec: Spec, sizing: Sizing) -> None:
    """Its algorithm, and the size of its table if that is said: else what there was stays."""
    maglev, ring = (spec.get(kind) if sizing.hash_algorithms else None for kind in ("maglev", "ringHash"))
    if maglev is not None:
        cluster.lb_policy, size = ClusterLbPolicy.MAGLEV, int(maglev.get("tableSize") or 0)
    else:
        cluster.lb_policy = ClusterLbPolicy.RING_HASH
        size = int(spec.get("minimumRingSize") or 1024) if ring is None else int(ring.get("minimumRingSize") or 0)
    if not size:
        return
    cluster.round_robin_lb_config = cluster.least_request_lb_config = None
    if maglev is not None:
        cluster.maglev_lb_config = ClusterMaglevLbConfig(table_size=size)
    else:
        cluster.ring_hash_lb_config = ClusterRingHashLbConfig(minimum_ring_size=size)
