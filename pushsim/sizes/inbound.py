"""LDS: virtualInbound, the listener of everything that comes to a pod, and ingress listeners that bind their port.

Sources: pilot/pkg/networking/core/listener_inbound.go, filterchain_options.go, pilot/pkg/security/authn/utils/utils.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from envoy_data_plane.envoy.config.core.v3 import CidrRange, TrafficDirection, TransportSocket
from envoy_data_plane.envoy.config.listener.v3 import (
    Filter,
    FilterChain,
    FilterChainMatch,
    ListenerFilter,
    ListenerFilterChainMatchPredicate,
)
from envoy_data_plane.envoy.config.listener.v3 import Listener as EnvoyListener
from envoy_data_plane.envoy.config.route.v3 import (
    Decorator,
    RetryPolicy,
    Route,
    RouteAction,
    RouteActionMaxStreamDuration,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)

from pushsim.extensions import Place
from pushsim.mesh import Port, Service
from pushsim.resources import BLACK_HOLE, Listener
from pushsim.sizes import filters, tls
from pushsim.sizes.assignments import address
from pushsim.sizes.clusters import config_path, istio_metadata
from pushsim.sizes.envoyfilters import Patch
from pushsim.sizes.listeners import PLAINTEXT_ALPN, ListenerBuilder
from pushsim.sizes.peers import MtlsModes
from pushsim.sizes.routepatches import RoutePatches
from pushsim.sizes.statnames import stat_name
from pushsim.sizes.wire import made

_HTTP_ALPN = ("istio-http/1.0", "istio-http/1.1", "istio-h2")
_TCP_ALPN = ("istio-peer-exchange", "istio")
ALL_ALPN = ("istio", "istio-peer-exchange", *_HTTP_ALPN)
_ZERO = timedelta(0)


class Option(NamedTuple):
    """One way in: whether it is HTTP, over which transport, with which ALPN, and whether we end TLS."""

    http: bool
    transport: str = "raw_buffer"
    alpn: tuple[str, ...] = ()
    ends_tls: bool = False


def options(mode: str, kind: str) -> tuple[Option, ...]:
    """The chains of a port, by mTLS mode (STRICT, PERMISSIVE, DISABLE) and protocol (http, tcp, auto)."""
    if mode == "STRICT":
        if kind == "auto":
            return Option(True, "tls", _HTTP_ALPN, True), Option(False, "tls", (), True)
        return (Option(kind == "http", "tls", (), True),)
    if mode == "PERMISSIVE":
        if kind == "http":
            return Option(True, "tls", ALL_ALPN, True), Option(True)
        if kind == "tcp":
            return Option(False, "tls", ALL_ALPN, True), Option(False, "tls"), Option(False)
        return (
            Option(True, "tls", _HTTP_ALPN, True),
            Option(True, alpn=PLAINTEXT_ALPN),
            Option(False, "tls", _TCP_ALPN, True),
            Option(False),
            Option(False, "tls"),
        )
    if kind == "auto":
        return Option(True, alpn=PLAINTEXT_ALPN), Option(False)
    return (Option(kind == "http"),)


class Inbound:
    """Builds the inbound listeners of one proxy; patches: those of EnvoyFilters."""

    def __init__(
        self, builder: ListenerBuilder, modes: MtlsModes, passthrough: str, patches: Sequence[Patch] = ()
    ) -> None:
        self.builder, self.modes = builder, modes
        self.sizing, self.settings = builder.sizing, builder.settings
        self.passthrough, self.patches = passthrough, patches

    def build(self, listener: Listener) -> EnvoyListener:
        """The chains of each port; virtualInbound has black hole and passthrough (by port, with own mTLS modes) too."""
        virtual = listener.kind == "virtualInbound"
        chains = [self._black_hole()] if virtual else []
        for port, mode in self.modes.passthrough(listener.target_ports) if virtual else ():
            for option in options(mode, "auto"):
                chains.append(self._chain(option, port, self.passthrough, None, Port("virtualInbound", 0, "auto")))
        ports: dict[int, tuple[Service, Port, str]] = {}
        for service, port_, target, bind in listener.served():
            ports.setdefault(target, (service, port_, bind))
        for target, (service, port_, bind) in sorted(ports.items()):
            kind = "http" if port_.http else "auto" if port_.auto and self.settings.sniffs_inbound else "tcp"
            for option in options(self.modes.of(target), kind):
                chains.append(self._chain(option, target, f"inbound|{target}||", service, port_, bind))
                if listener.rules and self.sizing.ingress_metadata == "services":
                    chains[-1].metadata = istio_metadata(
                        {"config": config_path(listener.rules[0], self.sizing, "sidecar")}
                    )
        inspectors = self._inspectors(chains)
        if not self.settings.sniffs_inbound:
            inspectors = [inspector for inspector in inspectors if inspector.name != filters.http_inspector().name]
        built = made(
            EnvoyListener,
            name=listener.name,
            address=address(listener.bind, self.settings.inbound_listen_port if virtual else listener.port),
            traffic_direction=TrafficDirection.INBOUND,
            continue_on_listener_filters_timeout=True,
            filter_chains=chains,
            listener_filters=[*([filters.original_dst()] if virtual else []), *inspectors],
            listener_filters_timeout=self.settings.protocol_detection_timeout,
            access_log=self.builder.parts.logs.listener(inbound=True),
        )
        self.builder.limit(built)
        return built

    def _exchange(self) -> list[Filter]:
        return filters.tcp_exchange_filter(self.sizing)

    def _first(self) -> list[Filter]:
        """What every chain with a destination starts with."""
        return [*self.builder.authn(), *self._exchange()]

    def _black_hole(self) -> FilterChain:
        proxy = self.builder.tcp_proxy(BLACK_HOLE, BLACK_HOLE, logged=False)
        return made(
            FilterChain,
            name="virtualInbound-blackhole",
            filter_chain_match=made(FilterChainMatch, destination_port=self.settings.inbound_listen_port),
            filters=[*self._exchange(), *self.builder.tcp_metrics(inbound=True), proxy],
        )

    def _chain(
        self, option: Option, target: int, cluster: str, service: Service | None, port: Port, bind: str = ""
    ) -> FilterChain:
        """A chain for a port at an address; without one, for what no service serves."""
        passthrough = not bind
        match = made(
            FilterChainMatch,
            destination_port=target or None,
            transport_protocol=option.transport,
            application_protocols=list(self.builder.plaintext_alpn(option.alpn)),
        )
        if passthrough and self.sizing.passthrough_ranges:
            match.prefix_ranges = [CidrRange(address_prefix="0.0.0.0", prefix_len=0)]
        name = f"{bind}_{target}"
        if passthrough:
            name = "virtualInbound-catchall-http" if option.http else "virtualInbound"
        host = service.hostname if service else ""
        return made(
            FilterChain,
            name=name,
            filter_chain_match=match,
            filters=self._http(cluster, host, port, target, bind) if option.http else self._tcp(cluster, service, port),
            transport_socket=self._server_tls(http=option.http) if option.ends_tls else None,
        )

    def _tcp(self, cluster: str, service: Service | None, port: Port) -> list[Filter]:
        builder, prefix = self.builder, cluster
        if pattern := self.settings.mesh.get("inboundClusterStatName"):
            prefix = stat_name(pattern, service, port, self.sizing, target=None)
        proxy = builder.tcp_proxy(cluster, prefix, inbound=True)
        plugins = builder.plugins(Place("SIDECAR_INBOUND", False, port.number))
        stack = filters.network_stack(proxy, port, prefix, cluster, self.settings)
        return [*self._first(), *builder.tcp_policies, *plugins, *builder.tcp_metrics(inbound=True), *stack]

    def _http(self, cluster: str, host: str, port: Port, target: int, bind: str) -> list[Filter]:
        prefix = f"inbound_{bind}_{target}" if bind else cluster
        manager = self.builder.http_manager(
            prefix,
            Place("SIDECAR_INBOUND", True, target),
            routes=self._routes(cluster, host, port),
            http2=port.protocol in ("HTTP2", "GRPC", "GRPC-Web"),
            protocol=port.protocol,
        )
        return [*self._first(), *manager]

    def _routes(self, cluster: str, host: str, port: Port) -> RouteConfiguration:
        action = made(
            RouteAction,
            cluster=cluster,
            timeout=_ZERO,
            max_stream_duration=RouteActionMaxStreamDuration(max_stream_duration=_ZERO, grpc_timeout_header_max=_ZERO),
        )
        if (
            self.sizing.inbound_retry
            and self.settings.enabled("ENABLE_INBOUND_RETRY_POLICY", True)
            and port.protocol not in ("GRPC", "GRPC-Web")
        ):
            action.retry_policy = made(RetryPolicy, retry_on="reset-before-request", num_retries=2)
        route = made(
            Route,
            name="default",
            match=made(RouteMatch, prefix="/"),
            route=action,
            decorator=Decorator(operation=f"{host}:{port.number}/*"),
        )
        virtual_host = made(VirtualHost, name=f"inbound|http|{port.number}", domains=["*"], routes=[route])
        built = made(RouteConfiguration, name=cluster, virtual_hosts=[virtual_host], validate_clusters=False)
        return RoutePatches(self.patches, "SIDECAR_INBOUND", cluster).configuration(built)

    def _server_tls(self, *, http: bool) -> TransportSocket:
        aliases = [str(alias) for alias in self.settings.mesh.get("trustDomainAliases") or ()]
        domains = [self.settings.trust_domain, *aliases] if self.sizing.trusts_own_domain or aliases else []
        if self.settings.enabled("PILOT_SKIP_VALIDATE_TRUST_DOMAIN", False):
            domains = []
        return tls.downstream_socket(tls.mesh_server(domains, self.sizing, self.settings, http=http))

    def _inspectors(self, chains: Sequence[FilterChain]) -> list[ListenerFilter]:
        """TLS and HTTP inspectors, off on ports whose chains do not ask for them."""
        wants: dict[int, tuple[bool, bool]] = {}
        for chain in chains:
            match = chain.filter_chain_match or made(FilterChainMatch)
            port = match.destination_port or 0
            tls_, http = wants.get(port, (False, False))
            plain = any(name in PLAINTEXT_ALPN for name in match.application_protocols)
            wants[port] = (tls_ or match.transport_protocol == "tls", http or plain)
        found = []
        if any(wish[0] for wish in wants.values()):
            usual = wants.get(0, (False, False))[0]
            others = tuple(p for p, wish in sorted(wants.items()) if p and wish[0] != usual)
            found.append(filters.tls_inspector(self.sizing, others))
            if not usual:  # it is for these ports alone
                predicate = found[-1].filter_disabled
                found[-1].filter_disabled = ListenerFilterChainMatchPredicate(not_match=predicate)
        if any(wish[1] for wish in wants.values()):
            found.append(filters.http_inspector(tuple(p for p, wish in wants.items() if not wish[1])))
        return found
