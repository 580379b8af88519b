"""VirtualServices, delegates merged in, by gateway and by who sees them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

from pushsim.audience import PUBLIC, audience
from pushsim.hosts import resolve, resolve_all
from pushsim.memo import Memo
from pushsim.mesh import ConfigKey, Object, Ref
from pushsim.registry import delegates, merged
from pushsim.releases import Rules

#: The gateway that stands for all sidecars.
MESH_GATEWAY = "mesh"

#: A host routed to, and its port; 0 stands for all.
Destination = tuple[str, int]


class HttpRoute(NamedTuple):
    """An http route: where to, and for which sourceNamespaces only (empty: for all)."""

    destinations: tuple[Destination, ...]
    source_namespaces: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Route:
    """A VirtualService with its delegates merged in.

    written:   the VirtualService, the http routes of its delegates in it.
    hosts:     FQDNs or wildcards.
    gateways:  resolved names, `mesh` if none are written.
    shown_to:  as `audience`.
    http:      its own http routes and those of its delegates.
    other:     destinations of its tcp and tls routes.
    delegates: the keys of the delegates it names.
    """

    key: ConfigKey
    written: Object
    hosts: tuple[str, ...]
    gateways: frozenset[str]
    shown_to: frozenset[str]
    http: tuple[HttpRoute, ...]
    other: tuple[Destination, ...]
    delegates: tuple[ConfigKey, ...]

    def destinations(self, namespace: str | None) -> dict[str, set[int]]:
        """Destination hosts with ports; http routes meant for another sourceNamespace left out if one is given."""
        found: dict[str, set[int]] = {}
        for route in self.http:
            if namespace is None or not route.source_namespaces or namespace in route.source_namespaces:
                for host, port in route.destinations:
                    found.setdefault(host, set()).add(port)
        for host, port in self.other:
            found.setdefault(host, set()).add(port)
        return found


class RouteIndex:
    """All VirtualServices of a PushContext.

    routes: roots, oldest first.
    sourced: whether some http route is for some sourceNamespaces only.
    layer4: whether there are tcp or tls routes.
    memo: what is made of it, by whoever makes it.

    Args:
        objects: every VirtualService.
        default: mesh-wide defaultVirtualServiceExportTo.
        rules: the release.
        before: the index before: routes of VirtualServices that are still the same are taken over.
    """

    def __init__(
        self, objects: Mapping[Ref, Object], default: frozenset[str], rules: Rules, before: RouteIndex | None = None
    ) -> None:
        self._objects, self._default, self._rules, self.memo = objects, default, rules, Memo()
        ordered = sorted(objects.values(), key=lambda o: (o.creation, o.ref.name, o.ref.namespace))
        known = before.routes if before is not None and before._default == default else ()
        same = {id(route.written): route for route in known if not route.delegates}  # `known` keeps them alive
        self.routes: tuple[Route, ...] = tuple(
            same.get(id(o)) or self._route(o) for o in ordered if o.spec.get("hosts")
        )
        self.layer4 = any(route.other for route in self.routes)
        self.sourced = any(http.source_namespaces for route in self.routes for http in route.http)
        public: dict[str, list[Route]] = {}
        self._private: dict[tuple[str, str], list[Route]] = {}
        self._at_home: dict[tuple[str, str], list[int]] = {}
        self.by_gateway: dict[str, list[Route]] = defaultdict(list)
        for place, route in enumerate(self.routes):
            for gateway in route.gateways:
                self.by_gateway[gateway].append(route)
                self._at_home.setdefault((gateway, route.written.ref.namespace), []).append(place)
                if PUBLIC in route.shown_to:
                    public.setdefault(gateway, []).append(route)
                else:
                    for namespace in route.shown_to:
                        self._private.setdefault((gateway, namespace), []).append(route)
        self._public = {gateway: tuple(routes) for gateway, routes in public.items()}

    def visible(self, gateway: str, namespace: str) -> tuple[Route, ...]:
        """Routes of a gateway (or `mesh`) a namespace sees: private, exported to it, public; oldest first in each.

        One object for all namespaces that see only public ones.
        """
        public, private = self._public.get(gateway, ()), self._private.get((gateway, namespace))
        return (*_own_first(private, namespace), *public) if private else public

    def tcp(self, gateway: str, namespace: str) -> tuple[Route, ...]:
        """Of the routes that are `visible`, in that order, those with tcp or tls routes."""

        def found() -> tuple[Route, ...]:
            seen = self.visible(gateway, namespace)
            return tuple(r for r in seen if r.written.spec.get("tcp") or r.written.spec.get("tls"))

        return self.memo.once(found, "tcp", gateway, namespace)

    def destinations_of_gateway(self, gateway: str) -> frozenset[str]:
        """Hosts that the routes of a gateway name: those for its namespace, where that alone is its proxies'."""
        routes, rules = self.by_gateway.get(gateway, ()), self._rules
        at_home = rules.gateways_at_home and rules.source_namespace
        home = gateway.partition("/")[0] if at_home else None
        return self.memo.once(lambda: frozenset(h for r in routes for h in r.destinations(home)), "to", gateway)

    def visible_of(self, gateway: str, namespace: str, owners: Iterable[str]) -> tuple[Route, ...]:
        """Of the routes that are `visible`, in that order, those written in some namespaces."""
        places = sorted(chain.from_iterable(self._at_home.get((gateway, owner), ()) for owner in owners))
        found = [self.routes[place] for place in places]
        private = [r for r in found if PUBLIC not in r.shown_to and namespace in r.shown_to]
        return (*_own_first(private, namespace), *(r for r in found if PUBLIC in r.shown_to))

    def _route(self, written: Object) -> Route:
        named = delegates(written)
        written = merged(written, self._objects, self._default, self._rules)
        namespace, spec = written.ref.namespace, written.spec
        gateways = frozenset(gateway_name(str(g), namespace) for g in spec.get("gateways") or ())
        return Route(
            key=ConfigKey("VirtualService", written.ref.name, namespace),
            written=written,
            hosts=tuple(resolve_all(spec.get("hosts") or (), namespace)),
            gateways=gateways or frozenset({MESH_GATEWAY}),
            shown_to=self._shown_to(written),
            http=tuple(_http_route(item, namespace, self._rules) for item in spec.get("http") or ()),
            other=tuple(
                _destination(route["destination"], namespace)
                for protocol in ("tcp", "tls")
                for item in spec.get(protocol) or ()
                for route in item.get("route") or ()
                if route.get("destination")
            ),
            delegates=tuple(ConfigKey("VirtualService", ref.name, ref.namespace) for ref in named),
        )

    def _shown_to(self, written: Object) -> frozenset[str]:
        own = frozenset(map(str, written.spec.get("exportTo") or ()))
        return audience(own, self._default, written.ref.namespace, default_list=self._rules.default_export_list)


def _own_first(routes: Iterable[Route], namespace: str) -> list[Route]:
    return sorted(routes, key=lambda route: route.written.ref.namespace != namespace)


def _http_route(item: Mapping[str, Any], namespace: str, rules: Rules) -> HttpRoute:
    named = [route.get("destination") for route in item.get("route") or ()]
    several = (item.get("mirrors") or ()) if rules.mirrors else ()
    named += [item.get("mirror"), *(mirror.get("destination") for mirror in several)]
    sources = [str(match["sourceNamespace"]) for match in item.get("match") or () if match.get("sourceNamespace")]
    return HttpRoute(tuple(_destination(to, namespace) for to in named if to), tuple(sources))


def _destination(written: Mapping[str, Any], namespace: str) -> Destination:
    port = (written.get("port") or {}).get("number") or 0
    return resolve(str(written.get("host") or ""), namespace), int(port)


def gateway_name(name: str, namespace: str) -> str:
    """`namespace/name` of a Gateway that a VirtualService of a namespace names, also in a match; `mesh` as it is."""
    if name == MESH_GATEWAY or "/" in name:
        return name if not name.startswith("./") else f"{namespace}/{name[2:]}"
    if "." in name:  # legacy name.namespace.svc…
        parts = name.split(".")
        return f"{parts[1]}/{parts[0]}"
    return f"{namespace}/{name}"
