"""RDS: route configurations of sidecars, measured virtual host by virtual host.

Source: pilot/pkg/networking/core/httproute.go, route/route.go (BuildSidecarVirtualHostWrapper).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import chain
from typing import Any as Json
from typing import NamedTuple

from envoy_data_plane.envoy.config.route.v3 import (
    DirectResponseAction,
    Route,
    RouteAction,
    RouteMatch,
    VirtualHost,
)
from envoy_data_plane.envoy.config.route.v3 import (
    RouteConfiguration as EnvoyRoutes,
)

from pushsim.blocks import Block
from pushsim.hosts import resolve_all
from pushsim.mesh import Object, Port, Proxy, Service
from pushsim.resources import BLACK_HOLE, Asked, RouteConfiguration, Source
from pushsim.sizes.closest import closest_of, split_hosts
from pushsim.sizes.domains import PLAIN, Naming, called, domains, is_alias, taken
from pushsim.sizes.envelope import Envelope
from pushsim.sizes.matches import RouteTranslator, default_route, resource_hashes
from pushsim.sizes.policy import consistent_hash
from pushsim.sizes.routepatches import RoutePatches
from pushsim.sizes.seen import Seen, Sum
from pushsim.sizes.sessions import Session, session_length, sessions_of
from pushsim.sizes.settings import Settings
from pushsim.sizes.switches import Sizing
from pushsim.sizes.wire import framed, length, made, texts

Spec = Mapping[str, Json]
#: Sizes of services' virtual hosts that are kept.
_REMEMBERED = 1 << 18
#: Sums over the services of a route that are kept.
_SUMS = 1 << 12
_NONE = frozenset[str]()


class _Services(NamedTuple):
    """A route's services by host, addresses that are domains of others, and the length of their virtual hosts.

    sessions: of the services that keep some.
    """

    of: object
    by_host: dict[str, tuple[Service, Port]]
    taken: Mapping[str, frozenset[str]]
    seen: Seen
    sessions: tuple[tuple[str, Session], ...]


def _framed_by(envelope: Envelope, name: str, size: int) -> int:
    return envelope.framed("RDS", [(name, size)])


class RouteMeter:
    """Lengths of route configurations; a virtual host is measured once per shape.

    Args:
        sizing, settings: of the release and the mesh.
        patches: what EnvoyFilters make of all that it measures.
    """

    def __init__(self, sizing: Sizing, settings: Settings, patches: RoutePatches | None = None) -> None:
        self._sizing, self._settings = sizing, settings
        self._patches = RoutePatches() if patches is None else patches
        self._known: dict[tuple[object, ...], int] = {}
        self._hosts: dict[tuple[int, int, Naming, frozenset[str]], tuple[Service, Seen]] = {}
        self._sums: dict[tuple[int, Naming], _Services] = {}
        self._routes: dict[tuple[object, ...], tuple[Object, int]] = {}

    # ---- sidecars

    def sidecar(self, route: RouteConfiguration, proxy: Proxy) -> int:
        """Length of the route configuration `PORT` or `HOST:PORT` of a sidecar."""
        return self.seen(route, proxy).of(proxy.namespace)

    def framed(self, routes: Block, proxy: Proxy, envelope: Envelope) -> int:
        """What a sidecar's route configurations add to a response; measured once for all namespaces."""
        of = [resource for resource in routes if isinstance(resource, RouteConfiguration)]
        told = asked_by(routes).of(proxy)

        def seen() -> Seen:
            total = Sum()
            for route in of:
                size = self.seen(route, proxy)
                frame = partial(_framed_by, envelope, route.name)
                elsewhere = frame(size.elsewhere)
                total.add(elsewhere, {where: frame(size.of(where)) - elsewhere for where in size.own})
            return total.seen

        return routes.memo.once(seen, "seen", told, of=(envelope, self)).of(proxy.namespace)

    def seen(self, route: RouteConfiguration, proxy: Proxy) -> Seen:
        """Length of a sidecar's route configuration for all sidecars that have what it asks for."""
        host, number = route.sniffed, route.name.rpartition(":")[2]
        port = int(number) if number.isdigit() else 0
        if not route.known and not route.virtual_services and port == 0 and not route.every_port:
            return Seen(length(self._patches.configuration(EnvoyRoutes(name=route.name, validate_clusters=False))), {})
        around = self._frame(route.name)
        if not host:
            around += self._catch_all(route.unknown or self._settings.unknown)
        if route.every_port:
            return self._every_port(route, proxy, around)
        naming = Naming(sniffed=True) if host else PLAIN
        services = self._services_of(route, naming=naming)
        if not route.virtual_services and not route.rules:
            return Seen(services.seen.elsewhere + around, services.seen.own)
        shaped = self._shaped(route, proxy, port, services, naming=naming)
        own = Counter(services.seen.own)
        own.update(shaped.own)
        return Seen(services.seen.elsewhere + shaped.elsewhere + around, own)

    def _services_of(self, route: RouteConfiguration, *, naming: Naming) -> _Services:
        """The services of a route, and their virtual hosts where nothing else shapes them.

        Proxies of all namespaces share the tuple of services, so it is summed up once and corrected for each: services
        of the proxy's own namespace have more domains.
        """
        key = (id(route.services), naming)
        known = self._sums.get(key)
        if known is None or known.of is not route.services:
            if len(self._sums) > _SUMS:
                self._sums.clear()
            by_host = {service.hostname: (service, port) for service, port in route.services}
            total, others = Sum(), taken(service for service, _ in by_host.values())
            for host, (service, port) in by_host.items():
                total.add(*self._framed_service(service, port, others.get(host, _NONE), naming=naming))
            known = self._sums[key] = _Services(
                route.services,
                by_host,
                others,
                total.seen,
                sessions_of((of for of, _ in by_host.values()), self._sizing, self._settings),
            )
        return known

    def _every_port(self, route: RouteConfiguration, proxy: Proxy, around: int) -> Seen:
        """A route with all ports of its services, each a virtual host; what has no port in its name is port 80's.

        Unless another port of the service comes first, which takes these names and loses them (mergeAllVirtualHosts).
        """
        total, groups = Sum(), dict[tuple[int, bool], list[tuple[Service, Port]]]()
        for service, port in route.services:
            plain = port.number == 80 == next(p.number for p in service.ports if p.http or p.auto)
            groups.setdefault((port.number, plain), []).append((service, port))
        hosts = tuple({service.hostname: None for service, _ in route.services})
        for (number, plain), pairs in groups.items():
            naming, of = Naming(ports=True, only=not plain), replace(route, services=tuple(pairs), others=hosts)
            services = self._services_of(of, naming=naming)
            parts = [services.seen]
            if route.virtual_services or route.rules:
                parts.append(self._shaped(of, proxy, number, services, naming=naming))
            for part in parts:
                total.add(*part)
        total.add(around)
        return total.seen

    def _shaped(
        self,
        route: RouteConfiguration,
        proxy: Proxy,
        port: int,
        of: _Services,
        *,
        naming: Naming,
    ) -> Seen:
        """What VirtualServices and DestinationRules add to the virtual hosts, or take from them."""
        total, services = Sum(), of.by_host
        lost = dict(of.taken)
        shaped = self._virtual_services(total, route, proxy, port, of, lost, naming=naming)
        rules = {host: of for host, of in route.rules if of and host in services}
        for host in shaped | rules.keys() | {host for host, but in lost.items() if but != of.taken.get(host)}:
            service, p = services[host]
            total.add(*self._framed_service(service, p, of.taken.get(host, _NONE), naming=naming), times=-1)
            if host not in shaped and not is_alias(service):
                total.add(*self._seen(service, p, rules.get(host, ()), lost.get(host, _NONE), naming=naming))
        return total.seen

    def _frame(self, name: str) -> int:
        key = ("frame", len(name))
        if key not in self._known:
            self._known[key] = self._framing(name)
        return self._known[key]

    def _framing(self, name: str) -> int:
        sizing = self._sizing
        frame = made(EnvoyRoutes, name=name, validate_clusters=False)
        frame.ignore_port_in_host_matching = sizing.ignores_ports == "all"
        if sizing.body_limit:
            frame.max_direct_response_body_size_bytes = 1048576
        return length(self._patches.configuration(frame))

    def _framed_service(self, service: Service, port: Port, but: frozenset[str], *, naming: Naming) -> Seen:
        """The virtual host of a service in its frame, nothing for an alias: as seen from elsewhere, and from home."""
        if is_alias(service):
            return Seen(0, {})
        key = (id(service), port.number, naming, but)
        known = self._hosts.get(key)
        if known is None or known[0] is not service:
            if len(self._hosts) > _REMEMBERED:
                self._hosts.clear()
            known = self._hosts[key] = (service, self._seen(service, port, (), but, naming=naming))
        return known[1]

    def _seen(
        self, service: Service, port: Port, rules: Sequence[Object], but: frozenset[str], *, naming: Naming
    ) -> Seen:
        return Seen.at_homes(service, lambda where: self._service(service, port, rules, where, but, naming=naming))

    def _service(
        self,
        service: Service,
        port: Port,
        rules: Sequence[Object],
        namespace: str,
        but: frozenset[str],
        *,
        naming: Naming,
    ) -> int:
        names = self._domains(service, port.number, namespace, but, naming=naming)
        size = texts(names) + session_length(service, self._sizing, self._settings)
        hashing = consistent_hash(rules, "", port.number) if rules else None
        name = f"{service.hostname}:{port.number}"
        key = (self._as_matched(name) or len(service.hostname), port.number, size, repr(hashing) if hashing else "")
        if key not in self._known:
            cluster = f"outbound|{port.number}||{service.hostname}"
            only = default_route(cluster, f"{name}/*", self._sizing, self._settings, hashing)
            self._known[key] = self._framed(name, names, self._host(name, [only]) + size)
        return self._known[key]

    def _named(
        self, service: Service, port: int, but: frozenset[str], naming: Naming, size: int, namespace: str
    ) -> int:
        """A virtual host of a service that is so long without its domains, in its frame."""
        names = self._domains(service, port, namespace, but, naming=naming)
        return self._framed(f"{service.hostname}:{port}", names, size + texts(names))

    def _host(self, name: str, routes: Sequence[Route]) -> int:
        """A virtual host without its domains."""
        counted = self._settings.counts_attempts(self._sizing)
        built = made(VirtualHost, name=name, routes=list(routes), include_request_attempt_count=counted)
        host = self._patches.host(built)
        return 0 if host is None else length(host)

    def _framed(self, name: str, domains: Sequence[str], size: int) -> int:
        """A virtual host of that length in its frame: nothing if it is removed, and another if that is in its place."""
        if not self._patches.replaces(name, domains):
            return framed(size)
        host = self._patches.host(made(VirtualHost, name=name, domains=[*domains]))
        return 0 if host is None else framed(length(host))

    def _domains(
        self, service: Service, port: int, namespace: str, but: frozenset[str], *, naming: Naming
    ) -> list[str]:
        return domains(service, port, namespace, self._sizing, but, naming)

    def _catch_all(self, cluster: str) -> int:
        key = ("catch-all", cluster)
        if key not in self._known:
            if cluster != BLACK_HOLE:
                zero = timedelta(0)
                action = made(RouteAction, cluster=cluster, timeout=zero, max_grpc_timeout=zero)
                only = made(Route, name="allow_any", match=made(RouteMatch, prefix="/"), route=action)
            else:
                answer = DirectResponseAction(status=502)
                only = made(Route, name="block_all", match=made(RouteMatch, prefix="/"), direct_response=answer)
            self._known[key] = self._framed(only.name, ["*"], self._host(only.name, [only]) + texts(["*"]))
        return self._known[key]

    # ---- VirtualServices

    def _virtual_services(
        self,
        total: Sum,
        route: RouteConfiguration,
        proxy: Proxy,
        port: int,
        of: _Services,
        lost: dict[str, frozenset[str]],
        *,
        naming: Naming,
    ) -> set[str]:
        """Add the virtual hosts that VirtualServices shape; the services among them.

        A domain is of the first virtual host that has it: `lost`, by service, which are of others (see `domains`).
        """
        services, shaped, named = of.by_host, set[str](), set[str]()
        hosts_of = [
            (written, resolve_all(written.spec.get("hosts") or (), written.ref.namespace))
            for written in route.virtual_services
        ]
        here = dict.fromkeys((*services, *route.others))
        closest = closest_of(hosts_of, services) if self._sizing.specific_routes else {}
        for written, hosts in hosts_of:
            taken = shaped | {name for name, best in closest.items() if best is not written}
            known, others = split_hosts(hosts, here, taken)
            matching = [host for host in known if host in services]
            if closest and self._sizing.hides_wildcards:
                others = [host for host in others if not host.startswith("*")]
            if not matching and (port != 80 or route.every_port):
                continue
            told = Asked.by((written,), "http").of(proxy)
            for host in others if not (naming.sniffed or naming.only) else ():
                name = f"{host}:{port}"
                bodies = self._bodies(route, written, proxy, port, told, name, of.sessions)
                owners = called(host, services)
                if bodies and name not in named and shaped.isdisjoint(owners):
                    named.add(name)
                    lost |= {owner: lost.get(owner, _NONE) | {host} for owner in owners}
                    own = [host] if self._sizing.ignores_ports == "all" else [host, name]
                    total.add(self._framed(name, own, self._named_host(name) + bodies + texts(own)))
            for host in matching:
                (service, _), name, but = services[host], f"{host}:{port}", lost.get(host, _NONE)
                bodies = self._bodies(route, written, proxy, port, told, name, of.sessions)
                if not bodies:
                    break
                standing = [of for of, (s, _) in services.items() if host in s.aliases] if is_alias(service) else []
                given = not shaped.isdisjoint(standing)
                lost |= {owner: lost.get(owner, _NONE) | {f"{host}/"} for owner in standing}
                shaped.add(host)
                if name not in named and not given:
                    named.add(name)
                    size = self._named_host(name) + bodies + session_length(service, self._sizing, self._settings)
                    measure = partial(self._named, service, port, but, naming, size)
                    total.add(*Seen.at_homes(service, measure))
        return shaped

    def _named_host(self, name: str) -> int:
        """A virtual host with neither domains nor routes."""
        key = ("host", self._as_matched(name) or len(name.encode()))
        if key not in self._known:
            self._known[key] = self._host(name, [])
        return self._known[key]

    def _as_matched(self, host: str) -> str:
        """The name of a virtual host if some patch names it; else only its length counts."""
        return host if self._patches.by_name else ""

    def _bodies(
        self,
        route: RouteConfiguration,
        written: Object,
        proxy: Proxy,
        port: int,
        told: Source,
        host: str,
        sessions: tuple[tuple[str, Session], ...],
    ) -> int:
        """Length of a VirtualService's routes in a virtual host, 0 if it has none for this proxy."""
        key = (id(written), port, told, route.rules, self._as_matched(host), sessions)
        known = self._routes.get(key)
        if known is None or known[0] is not written:
            if len(self._routes) > _SUMS:
                self._routes.clear()
            translator = RouteTranslator(
                self._sizing, self._settings, port,
                ports=lambda _: None, hashes=resource_hashes(route), sessions=dict(sessions).get,
            )  # fmt: skip
            routes = translator.routes(written, proxy)
            known = self._routes[key] = (written, self._host(host, routes) - self._host(host, ()))
        return known[1]


def asked_by(resources: Block) -> Asked:
    """What the VirtualServices of the route configurations among these resources ask of a sidecar."""

    def asked() -> Asked:
        routes = (resource for resource in resources if isinstance(resource, RouteConfiguration))
        return Asked.by(dict.fromkeys(chain.from_iterable(route.virtual_services for route in routes)), "http")

    return resources.memo.once(asked, "asked")
