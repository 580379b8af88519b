"""The fixed filters of listeners, network and HTTP, release by release.

Source: pilot/pkg/xds/filters/filters.go, pilot/pkg/networking/core/listener_builder.go (buildHTTPConnectionManager).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache
from json import dumps
from typing import Any as Json

from envoy_data_plane.envoy.config.core.v3 import AsyncDataSource, DataSource
from envoy_data_plane.envoy.config.listener.v3 import (
    Filter,
    ListenerFilter,
    ListenerFilterChainMatchPredicate,
    ListenerFilterChainMatchPredicateMatchSet,
)
from envoy_data_plane.envoy.extensions.filters.http.cors.v3 import Cors
from envoy_data_plane.envoy.extensions.filters.http.fault.v3 import HttpFault
from envoy_data_plane.envoy.extensions.filters.http.grpc_stats.v3 import FilterConfig as GrpcStats
from envoy_data_plane.envoy.extensions.filters.http.grpc_web.v3 import GrpcWeb
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.http.wasm.v3 import Wasm as HttpWasm
from envoy_data_plane.envoy.extensions.filters.listener.http_inspector.v3 import HttpInspector
from envoy_data_plane.envoy.extensions.filters.listener.original_dst.v3 import OriginalDst
from envoy_data_plane.envoy.extensions.filters.listener.tls_inspector.v3 import TlsInspector
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.extensions.filters.network.mongo_proxy.v3 import MongoProxy
from envoy_data_plane.envoy.extensions.filters.network.redis_proxy.v3 import (
    RedisProxy,
    RedisProxyConnPoolSettings,
    RedisProxyPrefixRoutes,
    RedisProxyPrefixRoutesRoute,
)
from envoy_data_plane.envoy.extensions.filters.network.wasm.v3 import Wasm as NetworkWasm
from envoy_data_plane.envoy.extensions.wasm.v3 import PluginConfig, VmConfig
from envoy_data_plane.envoy.type.v3 import Int32Range
from envoy_data_plane.google.protobuf import Any, StringValue

from pushsim.mesh import Port
from pushsim.sizes.sessions import FILTER
from pushsim.sizes.settings import Settings
from pushsim.sizes.switches import Sizing
from pushsim.sizes.telemetry import MetricsFilter
from pushsim.sizes.wire import blob, framed, made, packed, typed_struct

_EXCHANGE = "envoy.tcp.metadataexchange.config.MetadataExchange"
_H = "envoy.extensions.filters.http."
_L = "envoy.extensions.filters.listener."
_N = "envoy.extensions.filters.network."
#: Length of Istio's ALPN filter config: three overrides (filters.go, Alpn), as its dumps show.
ALPN_LENGTH = 97


@lru_cache
def tcp_exchange(sizing: Sizing) -> Any:
    """Istio's TCP metadata exchange: `protocol: istio-peer-exchange` as a message (21 bytes) or a TypedStruct."""
    if sizing.metadata_exchange == "message":
        return blob(_EXCHANGE, 21)
    return typed_struct(_EXCHANGE, {"protocol": "istio-peer-exchange", "enable_discovery": True})


@lru_cache
def tcp_exchange_filter(sizing: Sizing) -> list[Filter]:
    """The same as a network filter, unless it is switched off."""
    if not sizing.metadata_exchange:
        return []
    return [made(Filter, name="istio.metadata_exchange", typed_config=tcp_exchange(sizing))]


def _null_vm(code: str, *, root: str = "", vm: str = "", configuration: Any | None = None) -> PluginConfig:
    """A WebAssembly plugin compiled into the proxy."""
    source = AsyncDataSource(local=DataSource(inline_string=code))
    config = VmConfig(vm_id=vm, runtime="envoy.wasm.runtime.null", code=source)
    return PluginConfig(root_id=root, vm_config=config, configuration=configuration)


@lru_cache
def network_authn() -> Filter:
    """Copies the peer's identity for later filters (pilot/pkg/security/authn, IstioNetworkAuthenticationFilter)."""
    return made(Filter, name="istio_authn", typed_config=typed_struct("io.istio.network.authn.Config"))


def network_stack(proxy: Filter, port: Port, prefix: str, cluster: str, settings: Settings) -> list[Filter]:
    """A TCP proxy after a filter that reads its protocol along the way, or the Redis proxy in its place.

    Only Mongo's is on by default (networkfilter.go, buildNetworkFiltersStack).
    """
    match port.protocol.upper():
        case "MONGO" if settings.enabled("PILOT_ENABLE_MONGO_FILTER", True):
            body = packed(MongoProxy(stat_prefix=prefix), _N + "mongo_proxy.v3.MongoProxy")
            return [made(Filter, name="envoy.filters.network.mongo_proxy", typed_config=body), proxy]
        case "MYSQL" if settings.enabled("PILOT_ENABLE_MYSQL_FILTER", False):
            body = blob(_N + "mysql_proxy.v3.MySQLProxy", framed(len(prefix.encode())))
            return [made(Filter, name="envoy.filters.network.mysql_proxy", typed_config=body), proxy]
        case "REDIS" if settings.enabled("PILOT_ENABLE_REDIS_FILTER", False):
            redis = made(
                RedisProxy,
                stat_prefix=prefix,
                settings=RedisProxyConnPoolSettings(op_timeout=timedelta(seconds=5)),
                latency_in_micros=True,
                prefix_routes=RedisProxyPrefixRoutes(catch_all_route=RedisProxyPrefixRoutesRoute(cluster=cluster)),
            )
            body = packed(redis, _N + "redis_proxy.v3.RedisProxy")
            return [made(Filter, name="envoy.filters.network.redis_proxy", typed_config=body)]
    return [proxy]


@lru_cache
def http_exchange(sizing: Sizing, *, inbound: bool) -> HttpFilter:
    """Metadata exchange over HTTP headers: a WebAssembly plugin, later the peer_metadata filter."""
    if sizing.http_exchange == "wasm":
        plugin = HttpWasm(config=_null_vm("envoy.wasm.metadata_exchange", configuration=blob(_EXCHANGE)))
        return made(HttpFilter, name="istio.metadata_exchange", typed_config=packed(plugin, _H + "wasm.v3.Wasm"))
    way = "downstream" if inbound else "upstream"
    methods: list[Mapping[str, Json]] = [{"istio_headers": {}}, {"workload_discovery": {}}]
    fields = {f"{way}_discovery": methods, f"{way}_propagation": [{"istio_headers": {}}]}
    config = typed_struct("io.istio.http.peer_metadata.Config", fields)
    return made(HttpFilter, name="istio.metadata_exchange", typed_config=config)


@lru_cache
def common_http(sizing: Sizing, *, alpn: bool, grpc: bool = False, grpc_web: bool = False) -> tuple[HttpFilter, ...]:
    """The filters between the policies and the router: gRPC statistics, ALPN, fault, CORS."""
    found = []
    if grpc_web:
        found.append(
            made(
                HttpFilter,
                name="envoy.filters.http.grpc_web",
                typed_config=packed(GrpcWeb(), _H + "grpc_web.v3.GrpcWeb"),
            )
        )
    if grpc or sizing.grpc_stats == "always":
        stats = packed(
            made(GrpcStats, emit_filter_state=True, stats_for_all_methods=False), _H + "grpc_stats.v3.FilterConfig"
        )
        found.append(made(HttpFilter, name="envoy.filters.http.grpc_stats", typed_config=stats))
    if alpn:
        overrides = blob("istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig", ALPN_LENGTH)
        found.append(made(HttpFilter, name="istio.alpn", typed_config=overrides))
    found.append(
        made(
            HttpFilter, name="envoy.filters.http.fault", typed_config=packed(made(HttpFault), _H + "fault.v3.HTTPFault")
        )
    )
    found.append(made(HttpFilter, name="envoy.filters.http.cors", typed_config=packed(Cors(), _H + "cors.v3.Cors")))
    return tuple(found)


@lru_cache
def sessions() -> HttpFilter:
    """The stateful session filter, which routes make something of."""
    config = blob(_H + "stateful_session.v3.StatefulSession")
    return made(HttpFilter, name=FILTER, typed_config=config)


@lru_cache
def router() -> HttpFilter:
    """The last HTTP filter."""
    return made(
        HttpFilter, name="envoy.filters.http.router", typed_config=packed(made(Router), _H + "router.v3.Router")
    )


@lru_cache
def stats(sizing: Sizing, metrics: MetricsFilter, *, inbound: bool, gateway: bool, tcp: bool) -> Any:
    """The Prometheus metrics filter (pilot/pkg/model/telemetry.go, generateStatsConfig).

    Its config is Istio's stats.PluginConfig: empty, or 2 bytes where the host header must not be used as a fallback
    (inbound and gateways), and overrides; as a WebAssembly plugin it was JSON, without the interval.
    """
    strict = inbound or gateway
    if sizing.stats == "message":
        return blob("stats.PluginConfig", (2 if strict else 0) + metrics.length)
    written: dict[str, Json] = {"disable_host_header_fallback": True} if strict else {}
    if metrics.overrides:
        written["metrics"] = [override.plain for override in metrics.overrides]
    text = StringValue(value=dumps(written, separators=(",", ":"), ensure_ascii=False))
    root = "stats_inbound" if inbound else "stats_outbound"
    plugin = _null_vm(
        "envoy.wasm.stats",
        root=root,
        vm=f"tcp_{root}" if tcp else root,
        configuration=packed(text, "google.protobuf.StringValue"),
    )
    if tcp:
        return packed(NetworkWasm(config=plugin), "envoy.extensions.filters.network.wasm.v3.Wasm")
    return packed(HttpWasm(config=plugin), _H + "wasm.v3.Wasm")


@lru_cache
def original_dst() -> ListenerFilter:
    """Restores the address a connection was made to."""
    return made(
        ListenerFilter,
        name="envoy.filters.listener.original_dst",
        typed_config=packed(OriginalDst(), _L + "original_dst.v3.OriginalDst"),
    )


def tls_inspector(sizing: Sizing, off_ports: tuple[int, ...] = ()) -> ListenerFilter:
    """Recognises TLS; switched off on ports that need none of it."""
    buffer = 512 if sizing.small_tls_buffer else None
    config = packed(TlsInspector(initial_read_buffer_size=buffer), _L + "tls_inspector.v3.TlsInspector")
    return made(
        ListenerFilter,
        name="envoy.filters.listener.tls_inspector",
        typed_config=config,
        filter_disabled=_ports(off_ports),
    )


def http_inspector(off_ports: tuple[int, ...] = ()) -> ListenerFilter:
    """Recognises HTTP."""
    config = packed(HttpInspector(), _L + "http_inspector.v3.HttpInspector")
    return made(
        ListenerFilter,
        name="envoy.filters.listener.http_inspector",
        typed_config=config,
        filter_disabled=_ports(off_ports),
    )


def _ports(ports: tuple[int, ...]) -> ListenerFilterChainMatchPredicate | None:
    rules = [
        made(ListenerFilterChainMatchPredicate, destination_port_range=Int32Range(start=port, end=port + 1))
        for port in sorted(ports)
    ]
    if len(rules) < 2:
        return rules[0] if rules else None
    return made(
        ListenerFilterChainMatchPredicate, or_match=made(ListenerFilterChainMatchPredicateMatchSet, rules=rules)
    )


__all__ = [
    "common_http", "http_exchange", "http_inspector", "network_stack", "original_dst", "router", "sessions", "stats",
    "tcp_exchange", "tcp_exchange_filter", "tls_inspector",
]  # fmt: skip
