"""The front of the package: resources in, bytes out, each shape built once.

Two things make it cheap. A protobuf's length depends on the lengths of its strings, not on what they say, so clusters
are built once per *shape* (all names replaced by their lengths); endpoints and virtual hosts are measured one by one
and added up. And a resource that was priced before, for a proxy with the same policies, is found by identity.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.listener.v3 import Listener as EnvoyListener

from pushsim.extensions import Plugins
from pushsim.mesh import ON_DEMAND, Mode, Object, Proxy, Xds
from pushsim.releases import rules
from pushsim.resources import (
    Added,
    Credential,
    Extension,
    InboundCluster,
    Listener,
    LoadAssignment,
    NameTable,
    OutboundCluster,
    Resource,
    RouteConfiguration,
    StaticCluster,
)
from pushsim.sizes import clusters, envoyfilters, extensions, gateway, jwt, rbac, tls
from pushsim.sizes.assignments import EndpointMeter, grouped
from pushsim.sizes.configurations import ConfigurationMeter
from pushsim.sizes.endpointtls import EndpointTls
from pushsim.sizes.envelope import Envelope
from pushsim.sizes.envoyfilters import Patch, doing, merge_cluster
from pushsim.sizes.http import HttpParts
from pushsim.sizes.inbound import Inbound
from pushsim.sizes.listenerpatches import by_name, patched
from pushsim.sizes.listeners import ListenerBuilder, alias_names, is_anywhere
from pushsim.sizes.names import name_table
from pushsim.sizes.peers import EndpointModes, MtlsModes, namespace_modes, selected, workload_modes
from pushsim.sizes.policy import policy_for, spread_of
from pushsim.sizes.releases import sizing_of
from pushsim.sizes.resolved import near
from pushsim.sizes.routepatches import shapes_routes
from pushsim.sizes.settings import settled
from pushsim.sizes.telemetry import applying_telemetries, telemetry
from pushsim.sizes.wire import length
from pushsim.sizes.written import length_of_written
from pushsim.spreading import spread_over

#: By kind of listener, what EnvoyFilters call where it is; others are a sidecar's outbound ones.
_CONTEXTS = {"gateway": "GATEWAY", "virtualInbound": "SIDECAR_INBOUND", "inbound": "SIDECAR_INBOUND"}
#: Fields by which a policy picks workloads.
_SELECTING = ("selector", "workloadSelector", "targetRef", "targetRefs")


@dataclass(frozen=True)
class Policies:
    """The configuration objects that apply to a proxy beyond a resource: its namespace's and the root namespace's.

    Oldest first, selectors not yet applied. peer_authentications hold those of the services' namespaces too.
    """

    peer_authentications: tuple[Object, ...] = ()
    authorization_policies: tuple[Object, ...] = ()
    request_authentications: tuple[Object, ...] = ()
    telemetries: tuple[Object, ...] = ()
    envoy_filters: tuple[Object, ...] = ()
    wasm_plugins: tuple[Object, ...] = ()
    proxy_configs: tuple[Object, ...] = ()
    root_namespace: str = "istio-system"

    @cached_property
    def selective(self) -> bool:
        """Whether any is for selected workloads only."""
        objects = chain(
            self.peer_authentications,
            self.authorization_policies,
            self.request_authentications,
            self.telemetries,
            self.envoy_filters,
            self.wasm_plugins,
            self.proxy_configs,
        )
        return any(written.spec.get(field) for written in objects for field in _SELECTING)


@dataclass(eq=False)
class _View:
    """What policies mean for one kind of proxy (namespace, labels, type), worked out once."""

    modes: MtlsModes
    namespaces: Mapping[str, str]
    endpoints: EndpointModes
    patches: tuple[Patch, ...]
    by_name: bool
    builder: ListenerBuilder
    filters: tuple[Object, ...]
    key: tuple[object, ...]
    told: Mapping[Xds, int]

    def disabled(self, namespace: str) -> bool:
        """Whether a namespace's services take no mTLS at all."""
        return (self.namespaces.get(namespace) or self.namespaces.get("") or "") == "DISABLE"


class Sizer:
    """Prices resources and responses of one istiod.

    Args:
        release: "1.13" to "1.31", or a patch of one of them.
        mesh_config: Istio's MeshConfig as istiod sees it; what is absent has istiod's own default.
        env: istiod's environment.
        mode: SotW or delta.

    Raises InputError for a release that is not known, naming those that are.
    """

    def __init__(
        self, release: str, *, mesh_config: Mapping[str, Any], env: Mapping[str, str] | None = None, mode: Mode = "sotw"
    ) -> None:
        self.sizing, self.settings = settled(sizing_of(release), mesh_config, env or {})
        self._rules = rules(release)
        self._env = env or {}
        self._envelope = Envelope(self.sizing, mode, self._env)
        self._endpoints = EndpointMeter(self.sizing)
        self._configurations = ConfigurationMeter(self.sizing, self.settings)
        self._views: dict[tuple[object, ...], _View] = {}
        self._last: tuple[Proxy, Policies, _View] | None = None
        self._by_policies: dict[int, tuple[Policies, dict[tuple[object, ...], _View]]] = {}
        self._shapes: dict[tuple[object, ...], int] = {}
        self._told: dict[tuple[object, ...], int] = {}

    def in_mode(self, mode: Mode) -> Sizer:
        """The same in another mode: resources are priced once for both."""
        other = copy(self)
        other._envelope = Envelope(self.sizing, mode, self._env)
        return other

    def response_bytes(self, xds: Xds, resources: Sequence[tuple[str, int]], removed: Sequence[str] = ()) -> int:
        """Length of a whole response, of (name, `resource_bytes`) pairs and removed names."""
        return self._envelope.length(xds, resources, removed)

    def resource_bytes(self, resource: Resource, proxy: Proxy, policies: Policies) -> int:
        """Length of a resource's value, as this proxy gets it."""
        return self._measure(resource, proxy, self._view(proxy, policies))

    def framed_bytes(self, xds: Xds, resources: Iterable[Resource], proxy: Proxy, policies: Policies) -> int:
        """What resources add to the length of a response."""
        view = self._view(proxy, policies)
        if xds == "RDS":
            known = self._configurations.framed(resources, proxy, view.patches, self._envelope)
            if known is not None:
                return known
        priced = [(resource.name, self._measure(resource, proxy, view)) for resource in resources]
        return self._envelope.framed(xds, priced)

    def numbers(self, proxy: Proxy, policies: Policies) -> Mapping[Xds, int]:
        """By type; proxies of equal numbers get the same resources of a type in equal lengths."""
        return self._view(proxy, policies).told

    def number_asked(self, xds: Xds, proxy: Proxy, policies: Policies, asked: frozenset[str]) -> int:
        """The same where resources ask the proxy for labels of these keys."""
        labels = tuple((key, proxy.labels.get(key)) for key in sorted(asked))
        known = self._view(proxy, policies).told[xds]
        return self._told.setdefault((xds, known, labels), len(self._told))

    def _measure(self, resource: Resource, proxy: Proxy, view: _View) -> int:
        match resource:
            case OutboundCluster():
                return self._outbound(resource, proxy, view)
            case InboundCluster():
                return self._inbound(resource, view)
            case StaticCluster():
                return self._static(resource, proxy, view)
            case Added():
                return length_of_written(Cluster if resource.xds == "CDS" else EnvoyListener, resource.value)
            case LoadAssignment():
                return self._assignment(resource, proxy, view)
            case Listener():
                return self._listener(resource, view)
            case NameTable():
                return name_table(resource)
            case Credential():
                return length(tls.secret(resource, revocation=self.sizing.revocation))
            case Extension():
                return extensions.extension(resource, self.sizing)
            case RouteConfiguration():
                return self._configurations.length(resource, proxy, view.patches, view.key)

    def _assignment(self, resource: LoadAssignment, proxy: Proxy, view: _View) -> int:
        service, port = resource.service, resource.port
        # hosts of a DNS service are in its cluster (EndpointBuilder.IsDNSCluster)
        if service is None or port is None or service.resolution.startswith("DNS"):
            return self._endpoints.assignment(resource.name, (), None, mtls=lambda _: True)
        policy = policy_for(resource.rules, resource.subset, port)
        tls_of = EndpointTls(resource, port, service.namespace, view.endpoints, self.sizing)
        filtered = (tls_of.plain,) if resource.name.startswith("outbound_.") else ()
        groups = spread_over(
            grouped(resource.endpoints, *filtered),
            spread_of(service, policy, self.settings),
            proxy.labels,
            by=self.sizing.failover_priorities,
        )
        return self._endpoints.assignment(resource.name, groups, service, mtls=tls_of.mutual)

    # ---- clusters

    def _outbound(self, resource: OutboundCluster, proxy: Proxy, view: _View) -> int:
        service, port = resource.service, resource.port
        disabled = view.disabled(service.namespace)
        context = "GATEWAY" if proxy.type == "router" else "SIDECAR_OUTBOUND"
        merging = doing(view.patches, "MERGE", "CLUSTER", context)
        key = (
            "outbound", proxy.type, resource.discovery, len(resource.name), len(service.hostname), len(service.name),
            len(service.namespace), port.number, port.protocol, len(port.name), resource.subset, service.external,
            service.distribution, any(map(service.labelled, self.sizing.session_labels)),
            service.registry, service.resolution, resource.all_mtls, disabled, resource.rules,
            tuple(len(account) for account in resource.accounts), resource.endpoints,
            (view.filters, service.hostname, resource.name) if merging else (), near(resource, proxy, self.settings),
        )  # fmt: skip
        if key not in self._shapes:
            built = clusters.outbound(
                resource, proxy.type, self.sizing, self.settings, mtls_disabled=disabled, near=proxy.labels
            )
            self._shapes[key] = length(merge_cluster(built, merging))
        return self._shapes[key]

    def _inbound(self, resource: InboundCluster, view: _View) -> int:
        hosts = [service.hostname for service, _ in resource.services]  # which of them are the same counts
        shape = tuple(
            (hosts.index(s.hostname), len(s.hostname), len(s.name), len(s.namespace), s.registry, s.external, p.number,
             p.protocol, len(p.name))
            for s, p in resource.services
        )  # fmt: skip
        merging = doing(view.patches, "MERGE", "CLUSTER", "SIDECAR_INBOUND")
        own = (resource.name, resource.ingress, resource.endpoint, resource.rules, resource.sidecar)
        of = (view.filters, *(service.hostname for service, _ in resource.services)) if merging else ()
        key = ("inbound", *own, shape, of)
        if key not in self._shapes:
            built = clusters.inbound(resource, resource.rules, self.sizing, self.settings)
            hosts = [service.hostname for service, _ in resource.services]
            self._shapes[key] = length(merge_cluster(built, merging, hosts))
        return self._shapes[key]

    def _static(self, resource: StaticCluster, proxy: Proxy, view: _View) -> int:
        context = "GATEWAY" if proxy.type == "router" else "SIDECAR_OUTBOUND"
        if resource.name.startswith("Inbound"):
            context = "SIDECAR_INBOUND"
        merging = doing(view.patches, "MERGE", "CLUSTER", context)
        key = ("static", resource.name, proxy.type, view.filters if merging else ())
        if key not in self._shapes:
            built = clusters.static(resource, self.sizing, self.settings)
            self._shapes[key] = length(merge_cluster(built, merging))
        return self._shapes[key]

    # ---- listeners

    def _listener(self, resource: Listener, view: _View) -> int:
        named = resource if view.by_name or self.settings.names_stats else None
        key = ("listener", named, _listener_shape(resource), view.told["LDS"])
        if key not in self._shapes:
            self._shapes[key] = self._built_listener(resource, view)
        return self._shapes[key]

    def _built_listener(self, resource: Listener, view: _View) -> int:
        builder = view.builder
        match resource.kind:
            case "virtualOutbound":
                built = builder.virtual_outbound(resource)
            case "virtualInbound" | "inbound":
                built = Inbound(builder, view.modes, self._inbound_passthrough, view.patches).build(resource)
            case "gateway":
                built = gateway.listener(resource, builder)
            case _:
                built = builder.outbound(resource)
        context = _CONTEXTS.get(resource.kind, "SIDECAR_OUTBOUND")
        return length(patched(built, view.patches, context))

    @property
    def _inbound_passthrough(self) -> str:
        return "InboundPassthroughClusterIpv4" if self.sizing.passthrough_ranges else "InboundPassthroughCluster"

    # ---- views

    def _view(self, proxy: Proxy, policies: Policies) -> _View:
        """All blocks of all responses of one proxy are priced in a row."""
        last = self._last
        if last is None or last[0] is not proxy or last[1] is not policies:
            last = self._last = (proxy, policies, self._found_view(proxy, policies))
        return last[2]

    def _found_view(self, proxy: Proxy, policies: Policies) -> _View:
        known = self._by_policies.get(id(policies))
        if known is None or known[0] is not policies:
            known = self._by_policies[id(policies)] = (policies, {})
        views = known[1]
        labels = (
            proxy.labels.items() if policies.selective else ((key, len(value)) for key, value in proxy.labels.items())
        )
        who = (proxy.namespace, proxy.type, tuple(sorted(labels)))
        if who not in views:
            views[who] = self._make(proxy, policies)
        return views[who]

    def _make(self, proxy: Proxy, policies: Policies) -> _View:
        root = policies.root_namespace
        applying = [p for p in policies.authorization_policies if selected(p, proxy)]
        requests = [p for p in policies.request_authentications if selected(p, proxy)]
        telemetries = applying_telemetries(policies.telemetries, proxy, root)
        filters = envoyfilters.applying(policies.envoy_filters, proxy, root)
        patches = envoyfilters.patches(filters, self._rules.release)
        plugins = Plugins(policies.wasm_plugins, proxy, self._rules)
        modes = workload_modes(policies.peer_authentications, proxy.namespace, proxy.labels, root)
        labels = tuple(sorted((key, len(value)) for key, value in proxy.labels.items()))
        key = (
            proxy.type, len(proxy.namespace), labels, *applying, None, *requests, None, *telemetries, None,
            modes.mode, *sorted(modes.ports.items()), *filters, None, *plugins.applying,
        )  # fmt: skip
        full = (key, proxy.namespace, policies.peer_authentications)
        if full in self._views:
            return self._views[full]
        sizing, type = self.sizing, proxy.type
        told = telemetry(telemetries, self.settings, sizing)
        parts = HttpParts(
            proxy=proxy,
            sizing=sizing,
            settings=self.settings,
            plugins=plugins,
            tracing=told.tracing,
            logs=told.logs,
            metrics=told.metrics,
            policies=(
                *jwt.http_filters(requests, sizing, gateway=type == "router"),
                *rbac.http_filters(applying, sizing, self.settings),
            ),
        )
        by_type: dict[Xds, tuple[object, ...]] = {
            "CDS": (type, policies.peer_authentications, filters),
            "EDS": (policies.peer_authentications, root),
            "LDS": key,
            "RDS": (type, proxy.namespace, key if type == "router" else filters if shapes_routes(patches) else ()),
            **dict.fromkeys(ON_DEMAND, ()),
        }
        view = self._views[full] = _View(
            modes,
            namespace_modes(policies.peer_authentications, root),
            EndpointModes(policies.peer_authentications, root),
            patches,
            by_name(patches),
            ListenerBuilder(parts, rbac.tcp_filters(applying, sizing, self.settings)),
            filters,
            key,
            {xds: self._told.setdefault((xds, *by), len(self._told)) for xds, by in by_type.items()},
        )
        return view


def _listener_shape(resource: Listener) -> tuple[object, ...]:
    """All of a listener that decides its length beside the proxy: lengths of names, not the names."""
    match resource.kind:
        case "virtualOutbound":
            return (resource.kind, resource.unknown)
        case "virtualInbound" | "inbound":
            ports: dict[int, tuple[object, ...]] = {}
            for service, port, target, at in resource.served():
                ports.setdefault(target, (len(service.hostname), port.number, port.protocol, len(at)))
            return (resource.kind, tuple(sorted(ports.items())), resource.rules)
        case "http":
            first = resource.services[0][1].protocol if resource.services else ""
            socket = (len(resource.name), resource.bind, resource.port, resource.bound)
            return (resource.kind, *socket, first, resource.unknown)
        case "gateway":
            return (resource.kind, resource)
        case _:
            pairs = tuple(
                (*map(len, alias_names(service)), port.number, port.protocol, service.resolution, is_anywhere(service))
                for service, port in resource.services
            )
            bind = resource.bind if resource.bind == "0.0.0.0" else len(resource.bind)
            return (
                resource.kind, len(resource.name), bind, resource.port, len(resource.route), resource.bound,
                resource.connections, resource.source, resource.virtual_services, resource.cidrs, pairs,
                resource.unknown, pairs and resource.virtual_services and resource.services,
            )  # fmt: skip
