"""LDS and RDS of gateways: servers merged on a port, the routes of the VirtualServices bound to them.

Source: pilot/pkg/networking/core/gateway.go, listener.go (buildGatewayListener), tls.go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any as Json

from envoy_data_plane.envoy.config.core.v3 import TrafficDirection, TransportSocket
from envoy_data_plane.envoy.config.listener.v3 import FilterChain, FilterChainMatch
from envoy_data_plane.envoy.config.listener.v3 import Listener as EnvoyListener

from pushsim.context import gateway_name
from pushsim.conversion import parse_protocol
from pushsim.extensions import Place
from pushsim.gateways import passed_hosts, route_name, terminates
from pushsim.hosts import matches, resolve, resolve_all, subset_of
from pushsim.mesh import HTTP_PROTOCOLS, Object, Port, Service
from pushsim.resources import Listener
from pushsim.sizes import filters, tls
from pushsim.sizes.assignments import address
from pushsim.sizes.inbound import ALL_ALPN
from pushsim.sizes.listeners import ListenerBuilder
from pushsim.sizes.settings import ANYTHING
from pushsim.sizes.wire import made

Spec = Mapping[str, Json]
Server = tuple[Object, int]


def spec_of(server: Server) -> Spec:
    """What is written of a server."""
    gateway, index = server
    found: Spec = gateway.spec["servers"][index]
    return found


def name_of(gateway: Object) -> str:
    """`namespace/name` of a Gateway."""
    return f"{gateway.ref.namespace}/{gateway.ref.name}"


def bound(written: Object, gateway: Object) -> bool:
    """Whether a VirtualService names a Gateway."""
    names = [str(name) for name in written.spec.get("gateways") or ()]
    return name_of(gateway) in {gateway_name(name, written.ref.namespace) for name in names}


def server_hosts(server: Server, namespace: str) -> list[str]:
    """The hosts of a server that VirtualServices of a namespace may use (`ns/host`, `./host`, `*/host`, `host`)."""
    gateway, _ = server
    found = []
    for host in spec_of(server).get("hosts") or ():
        scope, _, name = str(host).rpartition("/")
        if scope in ("", "*", namespace) or (scope == "." and gateway.ref.namespace == namespace):
            found.append(name)
    return found


def written_hosts(server: Server) -> list[str]:
    """A server's hosts as gateways merge them: with the Gateway's namespace for ".", without one for any.

    Source: pilot/pkg/model/gateway.go (sanitizeServerHostNamespace).
    """
    gateway, _ = server
    found = []
    for host in map(str, spec_of(server).get("hosts") or ()):
        scope, slash, name = host.partition("/")
        if host == "*/*":
            return ["*"]
        found.append(f"{gateway.ref.namespace}/{name}" if scope == "." else name if slash and scope == "*" else host)
    return found


def listener(resource: Listener, builder: ListenerBuilder) -> EnvoyListener:
    """A gateway's listener: one chain for plain HTTP (each for servers that say which address they bind), one per TLS
    server, chains of TCP and TLS routes.
    """
    sizing = builder.sizing
    chains: list[FilterChain] = []
    place, plain, passed = Place("GATEWAY", True, resource.port), set[str](), set[tuple[str, str]]()
    for server in resource.servers:
        spec = spec_of(server)
        protocol = parse_protocol(str((spec.get("port") or {}).get("protocol") or ""))
        mode = str((spec.get("tls") or {}).get("mode") or "")
        if protocol in HTTP_PROTOCOLS:
            route = route_name(server, resource.port)
            if route not in plain:
                manager = builder.http_manager(f"outbound_{resource.name}", place, route=route, protocol=protocol)
                chains.append(builder.chain(*builder.authn(), *manager))
            plain.add(route)
        elif protocol == "HTTPS" and terminates(server):
            name = str(spec.get("name") or "")
            prefix, route = name or f"outbound_{resource.name}", route_name(server, resource.port)
            manager = builder.http_manager(prefix, place, route=route, named=bool(name))
            chain = builder.chain(*builder.authn(), *manager, match=_sni(spec))
            chain.transport_socket = _server_socket(spec, builder, http=True)
            chains.append(chain)
        else:
            if not sizing.sni_by_port:
                passed.clear()
            found = _tcp_chains(resource, server, spec, builder, passed)
            authorized = mode != "AUTO_PASSTHROUGH" or sizing.passthrough_authz
            for chain in found:
                chain.filters = [*builder.authn(), *(builder.tcp_policies if authorized else ()), *chain.filters]
            chains += found
    names = any(chain.filter_chain_match or chain.transport_socket for chain in chains)
    built = made(
        EnvoyListener,
        name=resource.name,
        address=address(resource.bind, resource.port),
        traffic_direction=TrafficDirection.OUTBOUND,
        filter_chains=chains,
        listener_filters=[filters.tls_inspector(sizing)] if names else [],
        access_log=builder.parts.logs.listener(inbound=False),
    )
    if sizing.gateway_filters_timeout:
        built.listener_filters_timeout = timedelta(0)
    builder.limit(built)
    return built


def _sni(spec: Spec) -> FilterChainMatch | None:
    hosts = sorted({str(host).rpartition("/")[2] for host in spec.get("hosts") or ()})
    return None if not hosts or "*" in hosts else made(FilterChainMatch, server_names=hosts)


def _server_socket(spec: Spec, builder: ListenerBuilder, *, http: bool) -> TransportSocket:
    context = tls.gateway_server(spec.get("tls") or {}, builder.sizing, builder.settings, http=http)
    return tls.downstream_socket(context)


def _tcp_chains(
    resource: Listener, server: Server, spec: Spec, builder: ListenerBuilder, passed: set[tuple[str, str]]
) -> list[FilterChain]:
    """Chains of a TCP or TLS server; `passed`: names that TLS is passed on by at an address, of which each has one."""
    written, security, ends = spec.get("port") or {}, spec.get("tls") or {}, terminates(server)
    protocol = parse_protocol(str(written.get("protocol") or ""))
    port = Port(str(written.get("name") or ""), int(written.get("number") or 0), protocol)
    if security.get("mode") == "AUTO_PASSTHROUGH":
        hosts = passed_hosts(server)
        return [
            _sni_chain(builder, f"outbound_.{p.number}_.{subset}_.{s.hostname}", s, p, subset)
            for s, p in resource.services
            if any(subset_of(s.hostname, host) for host in hosts)
            for subset in ("", *_subsets(resource, s.hostname))
        ]
    chains = []
    for of in resource.virtual_services:
        for route, match in layer4(server, of):
            if security and not ends:
                told = {(str(name), str(spec.get("bind") or "")) for name in match.get("sniHosts") or ()}
                if told & passed:
                    continue
                passed |= told
                chains.append(builder.routed_chain(resource, of, route, match, port, gateway=True))
            elif not chains:
                chains = [builder.routed_chain(resource, of, route, {}, port, gateway=True)]
    for chain in chains:
        chain.metadata = None
        if ends:
            chain.filter_chain_match, chain.transport_socket = _sni(spec), _server_socket(spec, builder, http=False)
            if security.get("mode") == "ISTIO_MUTUAL" and builder.sizing.gateway_exchange:
                chain.filters = [*filters.tcp_exchange_filter(builder.sizing), *chain.filters]
    return chains


def _subsets(resource: Listener, hostname: str) -> list[str]:
    """Subsets of the DestinationRules for a service behind AUTO_PASSTHROUGH servers."""
    rules = (r for r in resource.rules if matches(hostname, resolve(str(r.spec.get("host")), r.ref.namespace)))
    return list(dict.fromkeys(str(subset["name"]) for rule in rules for subset in rule.spec.get("subsets") or ()))


def _sni_chain(builder: ListenerBuilder, cluster: str, service: Service, port: Port, subset: str) -> FilterChain:
    match = made(FilterChainMatch, server_names=[cluster], application_protocols=list(ALL_ALPN))
    prefix = builder.prefix(cluster, service, port, subset)
    proxy = builder.tcp_proxy(cluster, prefix, gateway=True)
    stack = filters.network_stack(proxy, port, prefix, cluster, builder.settings)
    return builder.chain(*builder.tcp_metrics(inbound=False, gateway=True), *stack, match=match)


def shared_hosts(server: Server, written: Object) -> list[str]:
    """The intersection of a server's hosts and a VirtualService's (host.Names.Intersection)."""
    theirs = resolve_all(written.spec.get("hosts") or (), written.ref.namespace)
    found: dict[str, None] = {}
    for mine in server_hosts(server, written.ref.namespace):
        for other in theirs:
            if matches(mine, other):
                found[other if subset_of(other, mine) else mine] = None
    return list(found)


def terminating(resource: Listener) -> list[Spec]:
    """TLS of the servers of a gateway's listener that have a filter chain which terminates it."""
    found = []
    for server in resource.servers:
        spec = spec_of(server)
        protocol, security = str((spec.get("port") or {}).get("protocol") or "").upper(), spec.get("tls") or {}
        if security.get("mode") in (None, "PASSTHROUGH", "AUTO_PASSTHROUGH"):
            continue
        if protocol == "HTTPS" or any(any(layer4(server, written)) for written in resource.virtual_services):
            found.append(security)
    return found


def layer4(server: Server, written: Object) -> Iterator[tuple[Spec, Spec]]:
    """The tcp routes of a VirtualService for a server, or its tls routes where TLS passes through; with matches.

    Source: pilot/pkg/networking/core/gateway.go (buildGatewayNetworkFiltersFromTCPRoutes, …FromTLSRoutes).
    """
    gateway, _ = server
    spec = spec_of(server)
    security, number = spec.get("tls") or {}, int((spec.get("port") or {}).get("number") or 0)
    if not bound(written, gateway) or not shared_hosts(server, written):
        return
    tls, own = security and security.get("mode") in (None, "PASSTHROUGH"), written.ref.namespace
    for route in written.spec.get("tls" if tls else "tcp") or ():
        for match in route.get("match") or (() if tls else ANYTHING):
            named = [gateway_name(str(name), own) for name in match.get("gateways") or ()]
            if int(match.get("port") or number) == number and (not named or name_of(gateway) in named):
                yield route, match
