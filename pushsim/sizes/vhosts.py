"""RDS of gateways: virtual hosts of VirtualServices, measured again only where these have changed.

Source: pilot/pkg/networking/core/gateway.go (buildGatewayHTTPRouteConfig).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any as Json
from typing import NamedTuple

from envoy_data_plane.envoy.config.route.v3 import Route, VirtualHost, VirtualHostTlsRequirementType
from envoy_data_plane.envoy.config.route.v3 import RouteConfiguration as EnvoyRoutes

from pushsim.memo import same
from pushsim.mesh import Object, Proxy, Ref
from pushsim.resources import RouteConfiguration
from pushsim.sizes.gateway import Server, bound, name_of, shared_hosts, spec_of, written_hosts
from pushsim.sizes.matches import RouteTranslator, resource_hashes
from pushsim.sizes.routepatches import RoutePatches
from pushsim.sizes.sessions import sessions_of
from pushsim.sizes.settings import Settings
from pushsim.sizes.switches import Sizing
from pushsim.sizes.wire import framed, length, made

#: What a translator may ask of a host: which port is meant, how its requests are hashed, its alias, its sessions.
_Lookups = tuple[Callable[..., Json], Callable[..., Json], Callable[..., Json], Callable[..., Json]]
#: What a translator asked, and was answered.
_Answers = list[tuple[tuple[Json, ...], Json]]


class _Asked:
    """A question that is asked of another, remembered with its answers."""

    def __init__(self, of: Callable[..., Json]) -> None:
        self._of, self.answers = of, _Answers()

    def __call__(self, *arguments: Json) -> Json:
        answer = self._of(*arguments)
        self.answers.append((arguments, answer))
        return answer


class _Translated(NamedTuple):
    """A VirtualService's routes at a server, and what that hangs on.

    answers: to each question of its translator; hosts: those that both have; routes: one object as long as they are
    the same.
    """

    written: Object
    gateway: Object
    answers: tuple[_Answers, ...]
    hosts: tuple[str, ...]
    routes: tuple[Route, ...]


@dataclass(slots=True)
class _Host:
    """A virtual host: its domains, the routes in it, and whether TLS is required.

    sources: of which VirtualService, port and gateway the routes are; those of the same are the very same to istiod.
    """

    name: str
    domains: tuple[str, ...]
    routes: list[tuple[Route, ...]] = field(default_factory=list)
    sources: list[tuple[Object, int, Ref]] = field(default_factory=list)
    secure: bool = False


class GatewayRoutes:
    """Lengths of the route configurations of gateways.

    Args:
        sizing, settings: of the release and the mesh.
        patches: what EnvoyFilters make of all that it measures.
    """

    def __init__(self, sizing: Sizing, settings: Settings, patches: RoutePatches | None = None) -> None:
        self._sizing, self._settings = sizing, settings
        self._patches = RoutePatches() if patches is None else patches
        self._translated: dict[Hashable, _Translated] = {}
        self._lengths: dict[Hashable, tuple[tuple[tuple[Route, ...], ...], int]] = {}

    def length(self, resource: RouteConfiguration, proxy: Proxy) -> int:
        """That of one; hosts with the same routes share one virtual host."""
        if not resource.servers:
            return self._configuration(made(EnvoyRoutes, name=resource.name, validate_clusters=False))
        built = made(
            EnvoyRoutes,
            name=resource.name,
            validate_clusters=False,
            ignore_port_in_host_matching=self._sizing.ignores_ports != "",
        )
        if self._sizing.body_limit == "all":
            built.max_direct_response_body_size_bytes = 1048576
        hosts = _collapsed(self._hosts(resource, proxy))
        if hosts:
            where = (resource.name, resource.servers, proxy.namespace)
            return self._configuration(built) + sum(self._framed(host, where) for host in hosts)
        number = int(spec_of(resource.servers[0])["port"]["number"])
        nowhere = made(VirtualHost, name=f"blackhole:{number}", domains=["*"])
        return self._configuration(built) + self._framed_host(nowhere)

    def _hosts(self, resource: RouteConfiguration, proxy: Proxy) -> dict[str, _Host]:
        ports = {service.hostname: port.number for service, port in resource.services}.get
        keeping = sessions_of((of for of, _ in resource.services), self._sizing, self._settings)
        lookups = (ports, resource_hashes(resource), dict(resource.aliases).get, dict(keeping).get)
        told = (proxy.namespace, tuple(sorted(proxy.labels.items())))
        hosts: dict[str, _Host] = {}
        # by VirtualService and Gateway, as the first server with routes has them: istiod makes them once
        first: dict[tuple[Ref, Ref], tuple[int, tuple[Route, ...]]] = {}
        for server in resource.servers:
            spec = spec_of(server)
            port, secure = int(spec["port"]["number"]), bool((spec.get("tls") or {}).get("httpsRedirect"))
            for written in resource.virtual_services:
                key = (written.ref, server[0].ref, server[1], told)
                found = self._translated.get(key)
                if found is None or not _still(found, written, server, lookups):
                    found = self._translated[key] = self._translate(written, server, port, proxy, lookups)
                if not found.hosts:
                    continue
                made_for, routes = first.get((written.ref, server[0].ref), (port, found.routes))
                if not routes:
                    continue
                first[written.ref, server[0].ref] = made_for, routes
                for host in found.hosts:
                    of = hosts.get(host)
                    if of is None:
                        of = hosts[host] = self._host(host, port)
                    of.routes.append(routes)
                    of.sources.append((written, made_for, server[0].ref))
                    of.secure |= secure
            for host in map(str.lower, written_hosts(server)) if secure else ():
                hosts.setdefault(host, self._host(host, port)).secure = True
        return hosts

    def _translate(self, written: Object, server: Server, port: int, proxy: Proxy, lookups: _Lookups) -> _Translated:
        gateway, asked = server[0], tuple(map(_Asked, lookups))
        hosts = tuple(map(str.lower, shared_hosts(server, written))) if bound(written, gateway) else ()
        routes: list[Route] = []
        if hosts:
            ports, hashes, aliases, sessions = asked
            translator = RouteTranslator(
                self._sizing,
                self._settings,
                port,
                ports=ports,
                hashes=hashes,
                aliases=aliases,
                sessions=sessions,
                gateway=name_of(gateway),
            )
            routes = translator.routes(written, proxy)
        return _Translated(written, gateway, tuple(of.answers for of in asked), hosts, tuple(routes))

    def _host(self, host: str, port: int) -> _Host:
        """One with its domains: of two wildcards in a name, Envoy knows none (buildGatewayVirtualHostDomains)."""
        other = str(port) if host.startswith("*") else "*"
        portless = self._sizing.ignores_ports or self._settings.strips_ports or host == "*"
        with_port = () if portless else (f"{host}:{other}",)
        return _Host(f"{host}:{port}", (host, *with_port))

    def _configuration(self, built: EnvoyRoutes) -> int:
        """Length of one whose virtual hosts are measured apart."""
        return length(self._patches.configuration(built))

    def _framed_host(self, built: VirtualHost) -> int:
        host = self._patches.host(built)
        return 0 if host is None else framed(length(host))

    def _framed(self, host: _Host, where: Hashable) -> int:
        key, routes = (where, host.name, host.domains, host.secure), tuple(host.routes)
        known = self._lengths.get(key)
        if known is None or not same(known[0], routes):
            virtual = made(VirtualHost, name=host.name, domains=[*host.domains])
            virtual.include_request_attempt_count = self._settings.counts_attempts(self._sizing)
            virtual.routes = [route for of in routes for route in of]
            if host.secure:
                virtual.require_tls = VirtualHostTlsRequirementType.ALL
            known = self._lengths[key] = routes, self._framed_host(virtual)
        return known[1]


def _still(found: _Translated, written: Object, server: Server, lookups: _Lookups) -> bool:
    """Whether a translation is of these very objects, and would be answered the same."""
    return (
        found.written is written
        and found.gateway is server[0]
        and all(
            of(*asked) == answer for of, known in zip(lookups, found.answers, strict=True) for asked, answer in known
        )
    )


def _collapsed(hosts: Mapping[str, _Host]) -> list[_Host]:
    """Those with the same routes as one, that of the most specific name (collapseDuplicateRoutes, MoreSpecific)."""
    kept: dict[object, _Host] = {}
    for _, host in sorted(hosts.items(), key=lambda of: (of[0].startswith("*"), -len(of[0]), of[0])):
        key = (tuple(host.sources), host.secure)
        known = kept.setdefault(key, host)
        if known is not host:
            known.domains += host.domains
    return list(kept.values())
