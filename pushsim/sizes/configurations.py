"""RDS: lengths of route configurations, with what EnvoyFilters make of them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import TypeVar

from pushsim.blocks import Block
from pushsim.memo import Memo
from pushsim.mesh import Proxy
from pushsim.resources import Resource, RouteConfiguration
from pushsim.sizes.envelope import Envelope
from pushsim.sizes.envoyfilters import Patch
from pushsim.sizes.routepatches import RoutePatches, shapes_routes
from pushsim.sizes.routes import RouteMeter
from pushsim.sizes.settings import Settings
from pushsim.sizes.switches import Sizing
from pushsim.sizes.vhosts import GatewayRoutes

_M = TypeVar("_M", RouteMeter, GatewayRoutes)


class ConfigurationMeter:
    """Lengths of route configurations, of sidecars and gateways, patched or not.

    Args:
        sizing, settings: of the release and the mesh.
    """

    def __init__(self, sizing: Sizing, settings: Settings) -> None:
        self._sizing, self._settings = sizing, settings
        self._routes, self._hosts = RouteMeter(sizing, settings), GatewayRoutes(sizing, settings)
        self._patched, self._lengths = Memo(), Memo()

    def framed(
        self, resources: Iterable[Resource], proxy: Proxy, patches: tuple[Patch, ...], envelope: Envelope
    ) -> int | None:
        """What a block of a sidecar's adds to a response, measured once for all; None if they are to be told apart."""
        if proxy.type != "sidecar" or not isinstance(resources, Block) or shapes_routes(patches):
            return None
        return self._routes.framed(resources, proxy, envelope)

    def length(
        self, resource: RouteConfiguration, proxy: Proxy, patches: tuple[Patch, ...], key: tuple[object, ...]
    ) -> int:
        """That of one. key: what, of the policies for the proxy, decides about a gateway's."""
        if proxy.type == "sidecar":
            meter = self._patched_by(patches, self._routes, "SIDECAR_OUTBOUND", resource.name)
            return meter.sidecar(resource, proxy)
        told = (resource.name, resource.servers, resource.known, resource.rules, resource.unknown, resource.aliases)
        held: tuple[object, ...] = (*chain.from_iterable(resource.services), *resource.virtual_services)
        hosts = self._patched_by(patches, self._hosts, "GATEWAY", resource.name)
        return self._lengths.latest(lambda: hosts.length(resource, proxy), proxy.namespace, key, told, of=held)

    def _patched_by(self, patches: tuple[Patch, ...], plain: _M, context: str, name: str) -> _M:
        """Where a configuration of that name is measured: as by `plain`, but for what patches make of it."""
        if not shapes_routes(patches):
            return plain

        def made() -> _M:
            return type(plain)(self._sizing, self._settings, RoutePatches(patches, context, name))

        return self._patched.once(made, context, name, of=patches)
