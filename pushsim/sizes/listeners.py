"""LDS: a sidecar's outbound listeners and virtualOutbound; what inbound and gateway listeners share with them.

Sources: pilot/pkg/networking/core/listener.go, listener_builder.go, networkfilter.go, tls.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import groupby
from typing import Any as Json

from envoy_data_plane.envoy.config.core.v3 import CidrRange, TrafficDirection
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, FilterChainMatch
from envoy_data_plane.envoy.config.listener.v3 import Listener as EnvoyListener
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.extensions.filters.network.tcp_proxy.v3 import (
    TcpProxy,
    TcpProxyTunnelingConfig,
    TcpProxyWeightedCluster,
    TcpProxyWeightedClusterClusterWeight,
)
from envoy_data_plane.envoy.type.v3 import HashPolicy, HashPolicySourceIp

from pushsim.extensions import Place
from pushsim.hosts import matches, resolve, resolve_all
from pushsim.mesh import Object, Port, Service
from pushsim.resources import BLACK_HOLE, Listener
from pushsim.sizes import extensions, filters
from pushsim.sizes.assignments import address
from pushsim.sizes.clusters import config_path, istio_metadata
from pushsim.sizes.domains import SUFFIX
from pushsim.sizes.http import HttpParts, connection_manager
from pushsim.sizes.policy import Spec, subset_spec, whole_policy
from pushsim.sizes.settings import ANYTHING
from pushsim.sizes.statnames import service_of, stat_name
from pushsim.sizes.wire import duration, encoded, made, packed

PLAINTEXT_ALPN = ("http/1.1", "h2c")
_CONNECT_TIMEOUT = timedelta(seconds=15)


class ListenerBuilder:
    """Builds listeners of one proxy.

    tcp_policies: network filters of authorization, which go before the metrics of inbound TCP chains.
    """

    def __init__(self, parts: HttpParts, tcp_policies: Sequence[Filter] = ()) -> None:
        self.parts, self.sizing, self.settings = parts, parts.sizing, parts.settings
        self.tcp_policies = tcp_policies

    # ---- pieces

    def tcp_metrics(self, *, inbound: bool, gateway: bool = False) -> list[Filter]:
        if (metrics := self.parts.metrics.filter(inbound=inbound)) is None:
            return []
        config = filters.stats(self.sizing, metrics, inbound=inbound, gateway=gateway, tcp=True)
        return [made(Filter, name="istio.stats", typed_config=config)]

    def tcp_proxy(
        self, cluster: str, prefix: str, *, inbound: bool = False, gateway: bool = False,
        rules: Sequence[Object] = (), subset: str = "", weights: Sequence[tuple[str, int]] = (), logged: bool = True,
    ) -> Filter:  # fmt: skip
        """A TCP proxy to one cluster or to weighted ones; rules: the DestinationRules of where it goes to."""
        proxy = made(TcpProxy, stat_prefix=prefix)
        if weights:
            parts = [TcpProxyWeightedClusterClusterWeight(name=name, weight=weight) for name, weight in weights]
            proxy.weighted_clusters = TcpProxyWeightedCluster(clusters=parts)
        else:
            proxy.cluster = cluster
        if rules:
            self._shape(proxy, rules, subset)
        if logged:
            proxy.access_log = self.parts.logs.http(inbound=inbound, gateway=gateway)
        config = packed(proxy, "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy")
        return made(Filter, name="envoy.filters.network.tcp_proxy", typed_config=config)

    def _shape(self, proxy: TcpProxy, rules: Sequence[Object], subset: str) -> None:
        """What DestinationRules say of connections: the whole rule of timeouts, a subset's own of the rest."""
        policy = whole_policy(rules)
        tcp = (policy.get("connectionPool") or {}).get("tcp") or {}
        if tcp.get("idleTimeout") and self.sizing.tcp_idle:
            proxy.idle_timeout = duration(tcp["idleTimeout"])
        if tcp.get("maxConnectionDuration") and self.sizing.connection_duration:
            proxy.max_downstream_connection_duration = duration(tcp["maxConnectionDuration"])
        own = (subset_spec(rules, subset).get("trafficPolicy") or {}) if subset else policy
        balancer = own.get("loadBalancer") or policy.get("loadBalancer") or {}
        if (balancer.get("consistentHash") or {}).get("useSourceIp"):
            proxy.hash_policy = [HashPolicy(source_ip=HashPolicySourceIp())]
        if (tunnel := own.get("tunnel")) and self.sizing.connection_duration:
            host = f"{tunnel.get('targetHost') or ''}:{tunnel.get('targetPort') or 0}"
            post = tunnel.get("protocol") == "POST"
            proxy.tunneling_config = made(TcpProxyTunnelingConfig, hostname=host, use_post=post)

    def chain(self, *stack: Filter, match: FilterChainMatch | None = None, name: str = "") -> FilterChain:
        """A filter chain of an outbound or gateway listener."""
        timeout = _CONNECT_TIMEOUT if self.sizing.chain_timeout else None
        return made(
            FilterChain,
            filter_chain_match=match,
            filters=list(stack),
            name=name,
            transport_socket_connect_timeout=timeout,
        )

    def authn(self) -> list[Filter]:
        """The network filter that copies the peer's identity, where the release has it."""
        return [filters.network_authn()] if self.sizing.authn_filter else []

    def plugins(self, place: Place) -> list[Filter]:
        """The network filters of WasmPlugins."""
        return extensions.network_filters(self.parts.plugins, self.sizing, place)

    def http_manager(self, prefix: str, place: Place, **how: Json) -> list[Filter]:
        """An HTTP connection manager, after the network filters of WasmPlugins."""
        return [*self.plugins(place), connection_manager(self.parts, prefix, place, **how)]

    # ---- outbound

    def virtual_outbound(self, listener: Listener) -> EnvoyListener:
        """The listener that iptables sends everything to: what no other listener takes goes to one cluster."""
        port = self.settings.listen_port
        black = made(
            FilterChain,
            name="virtualOutbound-blackhole",
            filter_chain_match=made(FilterChainMatch, destination_port=port),
            filters=[*self.tcp_metrics(inbound=False), self.tcp_proxy(BLACK_HOLE, BLACK_HOLE, logged=False)],
        )
        rest = made(FilterChain, name="virtualOutbound-catchall-tcp", filters=self.catch_all(listener))
        built = made(
            EnvoyListener,
            name="virtualOutbound",
            address=address("0.0.0.0", port),
            use_original_dst=True,
            filter_chains=[black, rest],
            traffic_direction=TrafficDirection.OUTBOUND,
            access_log=self.parts.logs.listener(inbound=False),
        )
        self.limit(built)
        return built

    def catch_all(self, listener: Listener) -> list[Filter]:
        """Traffic for nobody known: passed on, or dropped with REGISTRY_ONLY."""
        cluster = listener.unknown or self.settings.unknown
        return [*self.tcp_metrics(inbound=False), self.tcp_proxy(cluster, cluster)]

    def outbound(self, listener: Listener) -> EnvoyListener:
        """`0.0.0.0_PORT` for HTTP, `ADDRESS_PORT` for TCP and for sniffed ports."""
        built = made(
            EnvoyListener,
            name=listener.name,
            address=address(listener.bind, listener.port),
            traffic_direction=TrafficDirection.OUTBOUND,
            bind_to_port=None if listener.bound else False,
            access_log=self.parts.logs.listener(inbound=False) if self.sizing.listener_logs else [],
        )
        sniffs = self.settings.sniffs_outbound
        chains: list[FilterChain] = []
        if listener.kind in ("tcp", "auto"):
            chains += self._tcp_chains(listener)
        if listener.kind == "http" or (listener.kind == "auto" and sniffs):
            chains.append(self._http_chain(listener))
        self._inspect(
            built,
            listener.kind != "tcp" and sniffs and not _is_alone(listener),
            any(c.filter_chain_match and c.filter_chain_match.server_names for c in chains),
        )
        matched = [chain for chain in chains if chain.filter_chain_match is not None]
        default = [chain for chain in chains if chain.filter_chain_match is None]
        if default and not matched:
            built.filter_chains = default[:1]
        else:
            built.filter_chains = matched
            built.default_filter_chain = (
                default[0]
                if default
                else made(
                    FilterChain,
                    name="PassthroughFilterChain",
                    filter_chain_match=made(FilterChainMatch),
                    filters=self.catch_all(listener),
                )
            )
        return built

    def _inspect(self, built: EnvoyListener, http: bool, names: bool) -> None:
        tls = names or (http and self.sizing.inspects_tls_outbound)
        built.listener_filters = [filters.tls_inspector(self.sizing)] if tls else []
        if http:
            built.listener_filters.append(filters.http_inspector())
            built.listener_filters_timeout = self.settings.protocol_detection_timeout
            built.continue_on_listener_filters_timeout = True
        elif self.sizing.tcp_filters_timeout:
            built.listener_filters_timeout = timedelta(0)
            built.continue_on_listener_filters_timeout = True

    def _http_chain(self, listener: Listener) -> FilterChain:
        plain = list(self.plaintext_alpn(PLAINTEXT_ALPN))
        match = made(FilterChainMatch, transport_protocol="raw_buffer", application_protocols=plain)
        if _is_alone(listener) or listener.bound or not self.settings.sniffs_outbound:
            match = None  # type: ignore[assignment]
        protocol = listener.services[0][1].protocol if listener.services else ""
        place = Place("SIDECAR_OUTBOUND", True, listener.port)
        stack = self.http_manager(f"outbound_{listener.name}", place, route=listener.route, protocol=protocol)
        return self.chain(*stack, match=match)

    def _tcp_chains(self, listener: Listener) -> list[FilterChain]:
        """Chains of TCP and TLS services: what VirtualServices say, else straight to the service."""
        found: list[FilterChain] = []
        ranges: dict[str, list[CidrRange]] = {}
        for host, written in listener.cidrs:
            ranges.setdefault(host, []).append(_cidr(written))
        matched = set[bytes]()
        for service, port in listener.services:
            if port.http:
                continue
            of = ranges.get(service.hostname, [])  # a service in several ranges is one for each
            for chain in self._routed(listener, service, port, [of.pop(0)] if of else []):
                match = encoded(chain.filter_chain_match) if chain.filter_chain_match else b""
                if not match or match not in matched:  # mergeTCPFilterChains
                    found.append(chain)
                matched.add(match)
        return found

    def _direct(self, listener: Listener, service: Service, port: Port, ranges: Sequence[CidrRange]) -> FilterChain:
        cluster = f"outbound|{port.number}||{service.hostname}"
        prefix = self.prefix(cluster, service, Port("", port.number, port.protocol))
        shared = listener.bind == "0.0.0.0" and (bool(ranges) or is_anywhere(service))
        names = self._told_by(service) if port.protocol in ("HTTPS", "TLS") and shared else []
        match = made(FilterChainMatch, server_names=names, prefix_ranges=list(ranges)) if names or ranges else None
        proxy = self.tcp_proxy(cluster, prefix, rules=listener.rules_of(service.hostname))
        before = [*self.plugins(Place("SIDECAR_OUTBOUND", False, port.number)), *self.tcp_metrics(inbound=False)]
        return self.chain(*before, *filters.network_stack(proxy, port, prefix, cluster, self.settings), match=match)

    def _told_by(self, service: Service) -> list[str]:
        absolute = [f"{alias}." for alias in service.aliases] if self.sizing.absolute_domains else []
        return alias_names(service) + absolute

    def prefix(self, cluster: str, service: Service, port: Port, subset: str = "") -> str:
        """The statistics' prefix of a TCP proxy: the cluster, or as the mesh config asks."""
        if pattern := self.settings.mesh.get("outboundClusterStatName"):
            return stat_name(pattern, service, port, self.sizing, subset=subset)
        return f"{cluster};" if self.sizing.tcp_prefix_delimited else cluster

    def _routed(
        self, listener: Listener, service: Service, port: Port, ranges: Sequence[CidrRange]
    ) -> list[FilterChain]:
        """Chains of VirtualServices for a service's port, and straight to it for what they leave over.

        Source: pilot/pkg/networking/core/tls.go (buildSidecarOutboundTLSFilterChainOpts, and that of TCP).
        """
        routing = [written for written in listener.virtual_services if _names(written, service.hostname)]
        if port.protocol in ("HTTPS", "TLS"):
            found: dict[tuple[str, ...], FilterChain] = {}
            for written, route, match in _matches(routing, "tls", listener):
                told = (*_texts(match, "sniHosts"), "|", *_texts(match, "destinationSubnets"))
                if told not in found:
                    found[told] = self.routed_chain(listener, written, route, match, port, ranges)
            return [*found.values()] or [self._direct(listener, service, port, ranges)]
        chains: list[FilterChain] = []
        for _, of in groupby(_matches(routing, "tcp", listener), lambda found: id(found[1])):
            subnets: list[str] = []
            for written, route, match in of:
                if not match.get("destinationSubnets"):
                    return [*chains, self.routed_chain(listener, written, route, match, port, ranges)]
                subnets += _texts(match, "destinationSubnets")
            chains.append(self.routed_chain(listener, written, route, {"destinationSubnets": subnets}, port))
            chains[-1].metadata = None
        return [*chains, self._direct(listener, service, port, ranges)]

    def routed_chain(
        self,
        listener: Listener,
        written: Object,
        route: Mapping[str, Json],
        match: Mapping[str, Json],
        port: Port,
        ranges: Sequence[CidrRange] = (),
        *,
        gateway: bool = False,
    ) -> FilterChain:
        """A chain of a VirtualService's tcp or tls route; of weighted ones the first tells what connections are."""
        targets, first = [], ("", "")
        for item in route.get("route") or ():
            destination = item.get("destination") or {}
            host = resolve(str(destination.get("host") or ""), written.ref.namespace)
            first = first if first[0] else (host, str(destination.get("subset") or ""))
            number = (destination.get("port") or {}).get("number") or dict(listener.only_ports).get(host, port.number)
            targets.append(
                (f"outbound|{number}|{destination.get('subset') or ''}|{host}", int(item.get("weight") or 0))
            )
        place = Place("GATEWAY" if gateway else "SIDECAR_OUTBOUND", False, port.number)
        before = [*self.plugins(place), *self.tcp_metrics(inbound=False, gateway=gateway)]
        rules = listener.rules_of(first[0])
        if len(targets) == 1:
            cluster = targets[0][0]
            prefix = self.prefix(cluster, service_of(first[0], listener.services), port, first[1])
            proxy = self.tcp_proxy(cluster, prefix, gateway=gateway, rules=rules, subset=first[1])
        else:
            prefix = f"{written.ref.name}.{written.ref.namespace}"
            weights = [target for target in targets if target[1] > 0]
            cluster = weights[0][0]
            proxy = self.tcp_proxy("", prefix, weights=weights, gateway=gateway, rules=rules)
        names = [name for name in _texts(match, "sniHosts") if name != "*"]
        subnets = [_cidr(text) for text in _texts(match, "destinationSubnets")] or [*ranges]
        chosen = made(FilterChainMatch, server_names=sorted(names), prefix_ranges=subnets) if names or subnets else None
        stack = filters.network_stack(proxy, port, prefix, cluster, self.settings)
        built = self.chain(*before, *stack, match=chosen)
        built.metadata = istio_metadata({"config": config_path(written, self.sizing, "virtual-service")})
        return built

    def limit(self, built: EnvoyListener) -> None:
        """MAX_CONNECTIONS_PER_SOCKET_EVENT_LOOP, on listeners that accept connections themselves."""
        limit = self.settings.number("MAX_CONNECTIONS_PER_SOCKET_EVENT_LOOP", self.sizing.connections_per_event)
        if limit > 0:
            built.max_connections_to_accept_per_socket_event = limit

    def plaintext_alpn(self, alpn: tuple[str, ...]) -> tuple[str, ...]:
        """What a chain matches, of which plain HTTP may be of version 1.0 too."""
        return ("http/1.0", *alpn) if alpn == PLAINTEXT_ALPN and self.settings.http10 else alpn


def _is_alone(listener: Listener) -> bool:
    """Whether an HTTP listener has an address of its own or is a proxy: no traffic comes to it that is not HTTP."""
    proxy = bool(listener.services) and listener.services[0][1].protocol == "HTTP_PROXY"
    return listener.kind == "http" and (proxy or listener.bind != "0.0.0.0")


def is_anywhere(service: Service) -> bool:
    """Whether it has no address of its own, so that TLS for it is told by names."""
    return not service.addresses or "0.0.0.0" in service.addresses


def alias_names(service: Service) -> list[str]:
    """Its host, and those of its aliases with their short names, as clients of other namespaces know them."""
    found = [service.hostname]
    for alias in service.aliases:
        short = alias.removesuffix(SUFFIX)
        found += [alias, short, f"{short}.svc"] if short != alias else [alias]
    return found


def _names(written: Object, hostname: str) -> bool:
    """Whether a VirtualService has a host, or a wildcard for it."""
    hosts = resolve_all(written.spec.get("hosts") or (), written.ref.namespace)
    return any(matches(host, hostname) for host in hosts)


def _matches(routing: Iterable[Object], kind: str, at: Listener) -> Iterator[tuple[Object, Spec, Spec]]:
    """Routes of a kind, each with the matches that are for a listener; a tcp route without any matches everything."""
    for written in routing:
        for route in written.spec.get(kind) or ():
            for match in route.get("match") or (ANYTHING if kind == "tcp" else ()):
                if int(match.get("port") or at.port) == at.port and _for_mesh(match) and at.source.fits(match):
                    yield written, route, match


def _texts(match: Spec, field: str) -> list[str]:
    return [str(item) for item in match.get(field) or ()]


def _for_mesh(match: Mapping[str, Json]) -> bool:
    gateways = match.get("gateways") or ()
    return not gateways or "mesh" in gateways


def _cidr(text: str) -> CidrRange:
    prefix, _, bits = text.partition("/")
    return CidrRange(address_prefix=prefix, prefix_len=int(bits or (128 if ":" in prefix else 32)))


__all__ = ["HttpFilter", "ListenerBuilder"]
