"""EnvoyFilter patches of routes: what they merge into route configurations, virtual hosts and routes, put or take away.

Source: pilot/pkg/networking/core/envoyfilter/rc_patch.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from typing import TypeVar

from betterproto2 import Message
from envoy_data_plane.envoy.config.route.v3 import Route, RouteConfiguration, VirtualHost

from pushsim.sizes.envoyfilters import Patch, Spec, inserts
from pushsim.sizes.wire import encoded, made
from pushsim.sizes.written import merge_written, read

_M = TypeVar("_M", bound=Message)
_KINDS = ("ROUTE_CONFIGURATION", "VIRTUAL_HOST", "HTTP_ROUTE")
_ACTIONS = {"ROUTE": "route", "REDIRECT": "redirect", "DIRECT_RESPONSE": "direct_response"}


class RoutePatches:
    """Those of one route configuration.

    Args:
        known: all patches of the proxy.
        context: SIDECAR_INBOUND, SIDECAR_OUTBOUND or GATEWAY.
        name: of the route configuration.
    """

    def __init__(self, known: Sequence[Patch] = (), context: str = "", name: str = "") -> None:
        self._known = tuple(p for p in known if p.apply_to in _KINDS and p.fits(context) and _fits(p, context, name))
        self.by_name = any(_wanted(p).get("vhost") for p in self._known)

    def configuration(self, built: RouteConfiguration) -> RouteConfiguration:
        """A route configuration, of which the virtual hosts may be told apart, with what is merged and added."""
        if not self._known:
            return built
        merged = _merged(built, self._merging("ROUTE_CONFIGURATION"))
        added = (read(VirtualHost, patch.value) for patch in self._of("VIRTUAL_HOST") if patch.operation == "ADD")
        kept = [host for each in built.virtual_hosts if (host := self.host(each)) is not None]
        merged.virtual_hosts = [*kept, *(host for host in added if host is not None)]
        return merged

    def host(self, built: VirtualHost) -> VirtualHost | None:
        """A virtual host with its routes; None if it is removed. See `replaces` for one without its domains."""
        host = built
        for patch in self._of("VIRTUAL_HOST"):
            if not _at_host(patch, host):
                continue
            if patch.operation == "REMOVE":
                return None
            if patch.operation == "REPLACE":
                host = read(VirtualHost, patch.value) or host
            elif patch.operation == "MERGE":
                host = _merged(host, (patch,))
        of_routes = [patch for patch in self._of("HTTP_ROUTE") if _at_host(patch, host)]
        if of_routes:
            host = copy(host)
            kept = (self._route(route, of_routes) for route in host.routes)
            host.routes = _inserted([route for route in kept if route is not None], of_routes)
        return host

    def replaces(self, name: str, domains: Sequence[str]) -> bool:
        """Whether a virtual host is removed, or another is in its place."""
        gone = [patch for patch in self._of("VIRTUAL_HOST") if patch.operation in ("REMOVE", "REPLACE")]
        return bool(gone) and any(_at_host(p, made(VirtualHost, name=name, domains=[*domains])) for p in gone)

    def _route(self, route: Route, patches: Sequence[Patch]) -> Route | None:
        """A route with what is merged into it; None if it is removed."""
        for patch in patches:
            if _at_route(patch, route):
                if patch.operation == "REMOVE":
                    return None
                if patch.operation == "MERGE":
                    route = _merged(route, (patch,))
        return route

    def _of(self, kind: str) -> Iterator[Patch]:
        return (patch for patch in self._known if patch.apply_to == kind)

    def _merging(self, kind: str) -> list[Patch]:
        return [patch for patch in self._of(kind) if patch.operation == "MERGE"]


def shapes_routes(patches: Iterable[Patch]) -> bool:
    """Whether any of them is for routes."""
    return any(patch.apply_to in _KINDS for patch in patches)


def _inserted(routes: list[Route], patches: Iterable[Patch]) -> list[Route]:
    """Routes with those that patches put beside them; some only where there is a certain one."""
    for patch in patches:
        asks = patch.operation != "ADD" and (_wanted(patch).get("vhost") or {}).get("route") is not None
        if inserts(patch) and (not asks or any(_at_route(patch, route) for route in routes)):
            new = read(Route, patch.value)
            routes = routes if new is None else [*routes, new]
    return routes


def _merged(built: _M, patches: Iterable[Patch]) -> _M:
    merged = type(built).parse(encoded(built))  # sealed ones know no fields, and parts may be others', too
    for patch in patches:
        merge_written(merged, patch.value)
    return merged


def _wanted(patch: Patch) -> Spec:
    wanted: Spec = patch.match.get("routeConfiguration") or {}
    return wanted


def _fits(patch: Patch, context: str, name: str) -> bool:
    """Whether a patch is for a route configuration (routeConfigurationMatch)."""
    wanted, port = _wanted(patch), name.split("|")[1] if name.startswith("inbound|") else name
    if context == "GATEWAY":
        parts = name.split(".")  # http.PORT, or https.PORT.NAME.GATEWAY.NAMESPACE
        port = parts[1] if len(parts) > 1 else ""
        of = (parts[2], "/".join(reversed(parts[3:5]))) if len(parts) == 5 else ("", "")
        if any(
            wanted.get(field) not in (None, "", is_) for field, is_ in zip(("portName", "gateway"), of, strict=True)
        ):
            return False
    return wanted.get("name") in (None, "", name) and str(wanted.get("portNumber") or port) == port


def _at_host(patch: Patch, host: VirtualHost) -> bool:
    wanted = _wanted(patch).get("vhost") or {}
    return wanted.get("name") in (None, "", host.name) and wanted.get("domainName") in (None, "", *host.domains)


def _at_route(patch: Patch, route: Route) -> bool:
    wanted = (_wanted(patch).get("vhost") or {}).get("route") or {}
    action = _ACTIONS.get(str(wanted.get("action") or ""))
    return wanted.get("name") in (None, "", route.name) and (not action or getattr(route, action) is not None)
