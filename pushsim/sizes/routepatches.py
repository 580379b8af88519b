"""EnvoyFilter patches of routes: what they merge into route configurations, virtual hosts and routes, or add to them.

A value with parts that have no published type is added with an estimate of its length. REMOVE and REPLACE of virtual
hosts and routes count as nothing.

Source: pilot/pkg/networking/core/envoyfilter/rc_patch.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from typing import TypeVar

from betterproto2 import Message
from envoy_data_plane.envoy.config.route.v3 import Route, RouteConfiguration, VirtualHost

from pushsim.sizes.envoyfilters import Patch, Spec, inserts, merge_written, written_length
from pushsim.sizes.wire import encoded, framed, length

_M = TypeVar("_M", bound=Message)
_KINDS = ("ROUTE_CONFIGURATION", "VIRTUAL_HOST", "HTTP_ROUTE")
_ACTIONS = {"ROUTE": "route", "REDIRECT": "redirect", "DIRECT_RESPONSE": "direct_response"}


class RoutePatches:
    """Those of one route configuration.

    Args:
        known: all patches of the proxy.
        context: SIDECAR_OUTBOUND or GATEWAY.
        name: of the route configuration.
    """

    def __init__(self, known: Sequence[Patch] = (), context: str = "", name: str = "") -> None:
        self._known = tuple(p for p in known if p.apply_to in _KINDS and p.fits(context) and _fits(p, context, name))
        self.by_name = any(_wanted(p).get("vhost") for p in self._known)

    def configuration(self, built: RouteConfiguration) -> int:
        """Length of a route configuration, of which the virtual hosts may be told apart, and what is added to it."""
        added = (p.value for p in self._of("VIRTUAL_HOST") if p.operation == "ADD")
        merging = [p for p in self._of("ROUTE_CONFIGURATION") if p.operation == "MERGE"]
        return _merged_length(built, merging) + sum(framed(written_length(VirtualHost, value)) for value in added)

    def host(self, built: VirtualHost) -> int:
        """Length of a virtual host with its routes."""
        if not self._known:
            return length(built)
        patches = [p for p in self._of("HTTP_ROUTE") if _at_host(p, built.name)]
        routes = sum(framed(_merged_length(route, _merging(patches, route))) for route in built.routes)
        for patch in patches:
            route = (_wanted(patch).get("vhost") or {}).get("route")
            if inserts(patch) and (
                patch.operation == "ADD" or not route or any(_at_route(patch, r) for r in built.routes)
            ):
                routes += framed(written_length(Route, patch.value))
        bare = copy(built)
        bare.routes = []
        merging = [p for p in self._of("VIRTUAL_HOST") if p.operation == "MERGE" and _at_host(p, built.name)]
        return _merged_length(bare, merging) + routes

    def _of(self, kind: str) -> Iterator[Patch]:
        return (patch for patch in self._known if patch.apply_to == kind)


def shapes_routes(patches: Iterable[Patch]) -> bool:
    """Whether any of them is for routes."""
    return any(patch.apply_to in _KINDS for patch in patches)


def _merging(patches: Iterable[Patch], route: Route) -> list[Patch]:
    return [p for p in patches if p.operation == "MERGE" and _at_route(p, route)]


def _merged_length(built: _M, patches: Sequence[Patch]) -> int:
    if not patches:
        return length(built)
    merged = type(built).parse(encoded(built))  # sealed ones know no fields
    more = sum(merge_written(merged, patch.value) for patch in patches)
    return length(merged) + more


def _wanted(patch: Patch) -> Spec:
    wanted: Spec = patch.match.get("routeConfiguration") or {}
    return wanted


def _fits(patch: Patch, context: str, name: str) -> bool:
    """Whether a patch is for a route configuration (routeConfigurationMatch)."""
    wanted, port = _wanted(patch), name
    if context == "GATEWAY":
        parts = name.split(".")  # http.PORT, or https.PORT.NAME.GATEWAY.NAMESPACE
        port = parts[1] if len(parts) > 1 else ""
        of = (parts[2], "/".join(reversed(parts[3:5]))) if len(parts) == 5 else ("", "")
        if any(
            wanted.get(field) not in (None, "", is_) for field, is_ in zip(("portName", "gateway"), of, strict=True)
        ):
            return False
    return wanted.get("name") in (None, "", name) and str(wanted.get("portNumber") or port) == port


def _at_host(patch: Patch, name: str) -> bool:
    return (_wanted(patch).get("vhost") or {}).get("name") in (None, "", name)


def _at_route(patch: Patch, route: Route) -> bool:
    wanted = (_wanted(patch).get("vhost") or {}).get("route") or {}
    action = _ACTIONS.get(str(wanted.get("action") or ""))
    return wanted.get("name") in (None, "", route.name) and (not action or getattr(route, action) is not None)
