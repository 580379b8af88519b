"""LDS and RDS of gateways: servers merged on a port, the routes of the VirtualServices bound to them.

Source: pilot/pkg/networking/core/gateway.go, listener.go (buildGatewayListener), tls.go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from itertools import islice
from typing import Any as Json

from envoy_data_plane.envoy.config.core.v3 import TrafficDirection, TransportSocket
from envoy_data_plane.envoy.config.listener.v3 import FilterChain, FilterChainMatch
from envoy_data_plane.envoy.config.listener.v3 import Listener as EnvoyListener

from pushsim.extensions import Place
from pushsim.gateways import passed_hosts
from pushsim.hosts import matches, resolve, resolve_all, subset_of
from pushsim.mesh import HTTP_PROTOCOLS, Object, Port
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
    own = written.ref.namespace
    return name_of(gateway) in {name if "/" in name else f"{own}/{name}" for name in names}


def server_hosts(server: Server, namespace: str) -> list[str]:
    """The hosts of a server that VirtualServices of a namespace may use (`ns/host`, `./host`, `*/host`, `host`)."""
    gateway, _ = server
    found = []
    for host in spec_of(server).get("hosts") or ():
        scope, _, name = str(host).rpartition("/")
        if scope in ("", "*", namespace) or (scope == "." and gateway.ref.namespace == namespace):
            found.append(name)
    return found


def listener(resource: Listener, builder: ListenerBuilder) -> EnvoyListener:
    """A gateway's listener: one chain for plain HTTP, one per TLS server, chains of TCP and TLS routes."""
    sizing = builder.sizing
    chains: list[FilterChain] = []
    names, place = False, Place("GATEWAY", True, resource.port)
    for server in resource.servers:
        spec = spec_of(server)
        protocol = str((spec.get("port") or {}).get("protocol") or "").upper()
        security = spec.get("tls") or {}
        mode = str(security.get("mode") or "")
        if protocol in HTTP_PROTOCOLS and mode not in ("SIMPLE", "MUTUAL", "ISTIO_MUTUAL", "OPTIONAL_MUTUAL"):
            if not any(chain.name == "http" for chain in chains):
                prefix = f"outbound_{resource.name}"
                route = resource.route or f"http.{resource.port}"
                manager = builder.http_manager(prefix, place, route=route)
                chains.append(builder.chain(*builder.authn(), *manager, name="http"))
        elif protocol == "HTTPS" and mode not in ("PASSTHROUGH", "AUTO_PASSTHROUGH"):
            names = True
            prefix = str(spec.get("name") or f"outbound_{resource.name}")
            manager = builder.http_manager(prefix, place, route=_route_name(server))
            chain = builder.chain(*builder.authn(), *manager, match=_sni(spec))
            chain.transport_socket = _server_socket(spec)
            chains.append(chain)
        else:
            found = _tcp_chains(resource, server, spec, builder)
            authorized = mode != "AUTO_PASSTHROUGH" or sizing.passthrough_authz
            for chain in found:
                chain.filters = [*builder.authn(), *(builder.tcp_policies if authorized else ()), *chain.filters]
            names = names or any(chain.filter_chain_match or chain.transport_socket for chain in found)
            chains += found
    for chain in chains:
        chain.name = ""
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


def _route_name(server: Server) -> str:
    gateway, _ = server
    port = spec_of(server)["port"]
    return f"https.{port['number']}.{port.get('name') or ''}.{gateway.ref.name}.{gateway.ref.namespace}"


def _sni(spec: Spec) -> FilterChainMatch | None:
    hosts = sorted({str(host).rpartition("/")[2] for host in spec.get("hosts") or ()})
    return None if not hosts or "*" in hosts else made(FilterChainMatch, server_names=hosts)


def _server_socket(spec: Spec) -> TransportSocket:
    return tls.downstream_socket(tls.gateway_server(spec.get("tls") or {}))


def _tcp_chains(resource: Listener, server: Server, spec: Spec, builder: ListenerBuilder) -> list[FilterChain]:
    security, number = spec.get("tls") or {}, int((spec.get("port") or {}).get("number") or 0)
    port = Port(str((spec.get("port") or {}).get("name") or ""), number, "TCP")
    mode = security.get("mode")
    if mode == "AUTO_PASSTHROUGH":
        hosts = passed_hosts(server)
        return [
            _sni_chain(builder, f"outbound_.{p.number}_.{subset}_.{s.hostname}", p)
            for s, p in resource.services
            if any(subset_of(s.hostname, host) for host in hosts)
            for subset in ("", *_subsets(resource, s.hostname))
        ]
    routed = ((written, *of) for written in resource.virtual_services for of in layer4(server, written))
    if security and mode in (None, "PASSTHROUGH"):
        chains = [builder.routed_chain(resource, *of, port, gateway=True) for of in routed]
    else:
        chains = [
            builder.routed_chain(resource, written, route, {}, port, gateway=True)
            for written, route, _ in islice(routed, 1)
        ]
    for chain in chains:
        chain.metadata = None
        if security and mode not in (None, "PASSTHROUGH"):
            chain.filter_chain_match, chain.transport_socket = _sni(spec), _server_socket(spec)
    return chains


def _subsets(resource: Listener, hostname: str) -> list[str]:
    """Subsets of the DestinationRules for a service behind AUTO_PASSTHROUGH servers."""
    rules = (r for r in resource.rules if matches(hostname, resolve(str(r.spec.get("host")), r.ref.namespace)))
    return list(dict.fromkeys(str(subset["name"]) for rule in rules for subset in rule.spec.get("subsets") or ()))


def _sni_chain(builder: ListenerBuilder, cluster: str, port: Port) -> FilterChain:
    match = made(FilterChainMatch, server_names=[cluster], application_protocols=list(ALL_ALPN))
    before = [*builder.tcp_metrics(inbound=False, gateway=True), *filters.sniffers(port, cluster)]
    return builder.chain(*before, builder.tcp_proxy(cluster, cluster, gateway=True), match=match)


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
    tls = security and security.get("mode") in (None, "PASSTHROUGH")
    for route in written.spec.get("tls" if tls else "tcp") or ():
        for match in route.get("match") or (() if tls else ANYTHING):
            if int(match.get("port") or number) == number:
                yield route, match
