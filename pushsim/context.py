"""PushContext: the indexes istiod builds for a push, and keeps until a change of that kind (reference §1.11, §4)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pushsim.hosts import resolve
from pushsim.mesh import ConfigKey, Endpoint, Object, Ref, Service
from pushsim.registry import Host, Registry, delegates
from pushsim.releases import Rules
from pushsim.requests import PushRequest
from pushsim.rules_index import RuleIndex

Shards = Mapping[Host, Mapping[str, tuple[Endpoint, ...]]]

_PUBLIC, _PRIVATE, _NONE = "*", ".", "~"
MESH_GATEWAY = "mesh"
POLICY_KINDS = (
    "AuthorizationPolicy",
    "RequestAuthentication",
    "PeerAuthentication",
    "Telemetry",
    "EnvoyFilter",
    "WasmPlugin",
    "ProxyConfig",
)


def audience(own: frozenset[str], default: frozenset[str], namespace: str, *, default_list: bool) -> frozenset[str]:
    """Namespaces an object is shown to: `{"*"}` for all, empty for nobody.

    own, default: exportTo of the object and of the mesh; default_list: the default may name namespaces (1.30.3+).
    Source: reference §4.2.
    """
    if not own:
        if not default_list:
            if _PRIVATE in default:
                return frozenset({namespace})
            return frozenset({_PUBLIC}) if _PUBLIC in default else frozenset()
        own = default
    if _PUBLIC in own:
        return frozenset({_PUBLIC})
    if _NONE in own:
        return frozenset()
    return frozenset(namespace if value == _PRIVATE else value for value in own)


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """A VirtualService with its delegates merged in.

    hosts:        FQDNs or wildcards.
    gateways:     resolved names, `mesh` if none are written.
    shown_to:     as `audience`.
    destinations: by host, the ports routed to; 0 stands for all.
    sources:      (destinations, sourceNamespaces) of each http route, for the sourceNamespace rule.
    delegates:    the keys of the delegates it names.
    """

    key: ConfigKey
    written: Object
    hosts: tuple[str, ...]
    gateways: frozenset[str]
    shown_to: frozenset[str]
    http: tuple[tuple[tuple[tuple[str, int], ...], tuple[str, ...], bool], ...]
    other: tuple[tuple[str, int], ...]
    delegates: tuple[ConfigKey, ...]
    merged: tuple[Object, ...]

    def destinations(self, namespace: str | None) -> dict[str, set[int]]:
        """Destination hosts with ports; http routes meant for another sourceNamespace left out if one is given."""
        found: dict[str, set[int]] = {}
        for pairs, source_namespaces, conditional in self.http:
            if namespace is not None and conditional and namespace not in source_namespaces:
                continue
            for host, port in pairs:
                found.setdefault(host, set()).add(port)
        for host, port in self.other:
            found.setdefault(host, set()).add(port)
        return found


class ServiceIndex:
    """Services by host and by who sees them."""

    def __init__(self, services: Iterable[Service], default: frozenset[str], rules: Rules) -> None:
        tie = (
            (lambda s: (s.created, f"{s.name}.{s.namespace}"))
            if rules.default_scope == "legacy"
            else (lambda s: (s.created, s.name, s.namespace))
        )
        self.default, self._rules = default, rules
        self.ordered: tuple[Service, ...] = tuple(sorted(services, key=tie))
        self.by_host: dict[str, list[Service]] = defaultdict(list)
        self.by_namespace: dict[str, list[Service]] = defaultdict(list)
        self.exact: dict[str, dict[str, Service]] = defaultdict(dict)
        self.shown_to: dict[int, frozenset[str]] = {}
        for service in self.ordered:
            self.by_host[service.hostname].append(service)
            self.by_namespace[service.namespace].append(service)
            self.shown_to[id(service)] = audience(
                service.export_to, default, service.namespace, default_list=rules.default_export_list
            )
            known = self.exact[service.hostname].get(service.namespace)
            if (
                known is None
                or rules.index_duplicate == "last"
                or (known.registry != "Kubernetes" and service.registry == "Kubernetes")
            ):
                self.exact[service.hostname][service.namespace] = service
        #: hosts that every namespace sees alike: one service, exported to all.
        self.common = {
            host: found[0]
            for host, found in self.by_host.items()
            if len(found) == 1 and _PUBLIC in self.shown_to[id(found[0])]
        }

    def visible(self, service: Service, namespace: str) -> bool:
        """istiod's IsServiceVisible, which knows no `~` (§4.3)."""
        own = service.export_to
        if not own:
            default = self.default
            if self._rules.default_export_list:
                own = default
            else:
                return service.namespace == namespace if _PRIVATE in default else _PUBLIC in default
        return _PUBLIC in own or (_PRIVATE in own and service.namespace == namespace) or namespace in own

    def candidates(self, host: str, namespace: str) -> list[Service]:
        """Services of a host that a namespace sees: its private ones, those exported to it, the public ones."""
        found = self.by_host.get(host, [])
        shown = self.shown_to
        if len(found) == 1:
            return found if shown[id(found[0])] & {_PUBLIC, namespace} else []
        own = [s for s in found if _PUBLIC not in shown[id(s)] and namespace in shown[id(s)]]
        if not self._rules.default_export_list:
            own.sort(key=lambda s: s.namespace != namespace)
        return own + [s for s in found if _PUBLIC in shown[id(s)]]


def _destination(written: Mapping[str, Any], namespace: str) -> tuple[str, int]:
    port = (written.get("port") or {}).get("number") or 0
    return resolve(str(written.get("host") or ""), namespace), int(port)


class RouteIndex:
    """VirtualServices, delegates merged, by gateway and by who sees them."""

    def __init__(self, objects: Mapping[Ref, Object], default: frozenset[str], rules: Rules) -> None:
        ordered = sorted(objects.values(), key=lambda o: (o.creation, o.ref.name, o.ref.namespace))
        self.routes = tuple(
            _route(written, objects, default, rules) for written in ordered if written.spec.get("hosts")
        )
        self.by_gateway: dict[str, list[Route]] = defaultdict(list)
        self.destinations_of_gateway: dict[str, set[str]] = defaultdict(set)
        for route in self.routes:
            for gateway in route.gateways:
                self.by_gateway[gateway].append(route)
                if gateway != MESH_GATEWAY:
                    self.destinations_of_gateway[gateway].update(route.destinations(None))

    def visible(self, gateway: str, namespace: str) -> list[Route]:
        """Routes of a gateway (or `mesh`) a namespace sees: private, exported to it, public; oldest first in each."""
        found = self.by_gateway.get(gateway, [])
        private = [r for r in found if _PUBLIC not in r.shown_to and namespace in r.shown_to]
        private.sort(key=lambda r: r.written.ref.namespace != namespace)
        return private + [r for r in found if _PUBLIC in r.shown_to]


def _route(written: Object, objects: Mapping[Ref, Object], default: frozenset[str], rules: Rules) -> Route:
    namespace, spec = written.ref.namespace, written.spec
    merged: list[Object] = []
    http = []
    for item in spec.get("http") or ():
        items, owner = [item], namespace
        if item.get("delegate"):
            ref = Ref(
                "VirtualService",
                str(item["delegate"].get("namespace") or namespace),
                str(item["delegate"].get("name")),
            )
            delegate = objects.get(ref)
            shown = delegate is not None and bool(
                audience(
                    frozenset(map(str, delegate.spec.get("exportTo") or ())),
                    default,
                    ref.namespace,
                    default_list=rules.default_export_list,
                )
                & {_PUBLIC, namespace}
            )
            if delegate is None or not shown:
                continue
            merged.append(delegate)
            items, owner = list(delegate.spec.get("http") or ()), ref.namespace
        for one in items:
            targets = [r["destination"] for r in one.get("route") or () if r.get("destination")]
            targets += [m for m in [one.get("mirror"), *(x.get("destination") for x in one.get("mirrors") or ())] if m]
            sources = [str(m["sourceNamespace"]) for m in one.get("match") or () if m.get("sourceNamespace")]
            http.append((tuple(_destination(t, owner) for t in targets), tuple(sources), bool(sources)))
    other = tuple(
        _destination(r["destination"], namespace)
        for protocol in ("tcp", "tls")
        for one in spec.get(protocol) or ()
        for r in one.get("route") or ()
        if r.get("destination")
    )
    gateways = frozenset(_gateway_name(str(g), namespace) for g in spec.get("gateways") or ()) or {MESH_GATEWAY}
    return Route(
        key=ConfigKey("VirtualService", written.ref.name, namespace),
        written=written,
        hosts=tuple(resolve(str(h), namespace) for h in spec.get("hosts") or ()),
        gateways=frozenset(gateways),
        shown_to=audience(
            frozenset(map(str, spec.get("exportTo") or ())), default, namespace, default_list=rules.default_export_list
        ),
        http=tuple(http),
        other=other,
        delegates=tuple(ConfigKey("VirtualService", ref.name, ref.namespace) for ref in delegates(written)),
        merged=(written, *merged),
    )


def _gateway_name(name: str, namespace: str) -> str:
    if name == MESH_GATEWAY or "/" in name:
        return name if not name.startswith("./") else f"{namespace}/{name[2:]}"
    if "." in name:  # legacy name.namespace.svc…
        parts = name.split(".")
        return f"{parts[1]}/{parts[0]}"
    return f"{namespace}/{name}"


@dataclass(frozen=True, slots=True, eq=False)
class PushContext:
    """All a push reads of the configuration. Indexes of kinds that did not change are shared with the one before.

    number:    counts pushes, 0 for the one istiod starts with.
    scopes_at: number of the push that last rebuilt the scopes: two contexts with the same one share them.
    endpoints: by host and namespace, then shard, as of this push: what EDS sends.
    instances: the same as of the last push that rebuilt the services: what clusters and headless listeners hold;
    accounts:  likewise the service accounts.
    """

    number: int
    scopes_at: int
    rules: Rules
    root: str
    mesh_config: Mapping[str, Any]
    filter_gateways: bool
    services: ServiceIndex
    routes: RouteIndex
    rule_index: RuleIndex
    sidecars: Mapping[str, tuple[Object, ...]]
    gateways: tuple[Object, ...]
    policies: Mapping[str, tuple[Object, ...]]
    endpoints: Shards
    instances: Shards
    accounts: Mapping[Host, frozenset[str]]

    def endpoints_of(self, service: Service) -> tuple[Endpoint, ...]:
        """A service's endpoints in all shards, as of this push."""
        return _all_shards(self.endpoints, service)

    def instances_of(self, service: Service) -> tuple[Endpoint, ...]:
        """A service's endpoints in all shards, as of the last push that rebuilt the services."""
        return _all_shards(self.instances, service)


def _all_shards(shards: Shards, service: Service) -> tuple[Endpoint, ...]:
    found = tuple(shards.get((service.hostname, service.namespace), {}).values())
    return found[0] if len(found) == 1 else tuple(e for endpoints in found for e in endpoints)


def _default(mesh_config: Mapping[str, Any], field: str) -> frozenset[str]:
    return frozenset(str(value) for value in mesh_config.get(field) or ()) or frozenset({_PUBLIC})


def _sidecars(objects: Iterable[Object]) -> dict[str, tuple[Object, ...]]:
    ordered = sorted(objects, key=lambda o: ("workloadSelector" not in o.spec, o.creation, o.ref.name, o.ref.namespace))
    found: dict[str, list[Object]] = defaultdict(list)
    for written in ordered:
        found[written.ref.namespace].append(written)
    return {namespace: tuple(sidecars) for namespace, sidecars in found.items()}


_SERVICE_KINDS = frozenset({"ServiceEntry", "DNSName"})
_SCOPE_KINDS = frozenset({"ServiceEntry", "DNSName", "VirtualService", "DestinationRule", "Sidecar"})
_AUTHN_KINDS = frozenset({"PeerAuthentication", "RequestAuthentication"})


def build_context(
    registry: Registry, env: Mapping[str, str], previous: PushContext | None, request: PushRequest
) -> PushContext:
    """istiod's InitContext: what changed kinds invalidate is built anew, the rest taken over."""
    rules, config = registry.rules, registry.mesh_config
    kinds = {key.kind for key in request.keys}
    fresh = previous is None or request.everything(rules)
    number = 0 if previous is None else previous.number + 1
    endpoints = dict(registry.endpoints)
    if not fresh and previous is not None and request.endpoints_only(rules):
        return replace(previous, number=number, endpoints=endpoints)
    root = str(config.get("rootNamespace") or "istio-system")

    objects = registry.of_kind

    def ordered(kind: str) -> tuple[Object, ...]:
        return tuple(sorted(objects(kind).values(), key=lambda o: (o.creation, o.ref.name, o.ref.namespace)))

    services = routes = rule_index = sidecars = gateways = None
    policies: dict[str, tuple[Object, ...]] = {}
    scopes_at = number
    if not fresh and previous is not None:
        services = None if kinds & _SERVICE_KINDS else previous.services
        routes = None if "VirtualService" in kinds else previous.routes
        rule_index = None if "DestinationRule" in kinds else previous.rule_index
        rebuilds = _SCOPE_KINDS | (_AUTHN_KINDS if rules.peer_authentication_deps else frozenset())
        if not kinds & rebuilds:
            scopes_at = previous.scopes_at
        sidecars = None if kinds & rebuilds else previous.sidecars
        gateways = None if "Gateway" in kinds else previous.gateways
        policies = {k: v for k, v in previous.policies.items() if k not in kinds}
        if "WasmPlugin" in policies and "TrafficExtension" in kinds:
            del policies["WasmPlugin"]
    return PushContext(
        number=number,
        scopes_at=scopes_at,
        rules=rules,
        root=root,
        mesh_config=config,
        filter_gateways=str(env.get("PILOT_FILTER_GATEWAY_CLUSTER_CONFIG", "")).lower() == "true",
        services=services or ServiceIndex(registry.services(), _default(config, "defaultServiceExportTo"), rules),
        routes=routes
        or RouteIndex(objects("VirtualService"), _default(config, "defaultVirtualServiceExportTo"), rules),
        rule_index=rule_index
        or RuleIndex(
            objects("DestinationRule").values(), _default(config, "defaultDestinationRuleExportTo"), root, rules
        ),
        sidecars=_sidecars(objects("Sidecar").values()) if sidecars is None else sidecars,
        gateways=ordered("Gateway") if gateways is None else gateways,
        policies=previous.policies
        if previous is not None and len(policies) == len(POLICY_KINDS)
        else {kind: policies[kind] if kind in policies else ordered(kind) for kind in POLICY_KINDS},
        endpoints=endpoints,
        instances=endpoints if services is None or previous is None else previous.instances,
        accounts=dict(registry.accounts) if services is None or previous is None else previous.accounts,
    )
