"""The proxy that resources are made for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

from pushsim.context import MergedRule, PushContext, applying, shapes_connections
from pushsim.conversion import parse_protocol
from pushsim.dependencies import View, attached
from pushsim.memo import Memo
from pushsim.mesh import HOSTNAME, ConfigKey, Object, Port, Service
from pushsim.resources import BLACK_HOLE, PASSTHROUGH
from pushsim.sizes.envoyfilters import Patch, patches
from pushsim.sizes.envoyfilters import applying as applying_filters
from pushsim.visibility import EgressListener


class Recipient:
    """One proxy (or all proxies that are equal to it) in one push.

    Args:
        view: the proxy, with the scope it has.
        context: the push; younger than the scope's, where the push rebuilt no scopes.
    """

    def __init__(self, view: View, context: PushContext) -> None:
        self.view, self.scope, self.context = view, view.scope, context
        self.rules = context.rules
        self.sidecar = view.proxy.type == "sidecar"
        self.filtered = view.proxy.type == "router" and context.filter_gateways

    @cached_property
    def told(self) -> tuple[tuple[str, str], ...]:
        """Its labels, as far as they tell it from other proxies of its scope: where a DestinationRule selects some."""
        return tuple(sorted(self.view.proxy.labels.items())) if self.context.rule_index.selective else ()

    @cached_property
    def filters(self) -> tuple[Object, ...]:
        """The EnvoyFilters that are applied to it, in that order."""
        return applying_filters(self.context.policies["EnvoyFilter"], self.view.proxy, self.context.root)

    @cached_property
    def patches(self) -> tuple[Patch, ...]:
        """What these do to it."""
        filters, release = self.filters, self.rules.release
        return self.context.memo.once(lambda: patches(filters, release), "patches", of=filters) if filters else ()

    @cached_property
    def node(self) -> str | None:
        """Where it runs, if what it is sent hangs on that."""
        if not self.context.services.node_local:
            return None
        return self.view.proxy.labels.get(HOSTNAME, "")

    @property
    def content(self) -> tuple[object, ...]:
        """All of its scope and labels that decides its outbound resources, told apart by identity."""
        return (self.scope,) if self.told else self.scope.content

    @cached_property
    def unknown(self) -> str:
        """The cluster that takes outbound traffic for nobody known, "" where no Sidecar says so.

        Source: pilot/pkg/networking/core/listener_builder.go (buildOutboundCatchAllNetworkFiltersOnly).
        """
        sidecar = self.scope.sidecar
        policy = sidecar.spec.get("outboundTrafficPolicy") if sidecar else None
        if policy is None:
            return ""
        if policy.get("mode") != "ALLOW_ANY":  # REGISTRY_ONLY is what an empty policy says
            return BLACK_HOLE
        if not (proxy := policy.get("egressProxy")):
            return PASSTHROUGH
        number = (proxy.get("port") or {}).get("number") or 0
        return f"outbound|{number}|{proxy.get('subset') or ''}|{proxy.get('host') or ''}"

    @property
    def ingress(self) -> tuple[Mapping[str, Any], ...]:
        """The ingress listeners of its Sidecar, which stand for the ports of its services where there are any."""
        return tuple(self.scope.sidecar.spec.get("ingress") or ()) if self.scope.sidecar else ()

    def ingress_service(self) -> Service:
        """What an ingress listener serves that is no port of a service: istiod's dummy service of a Sidecar.

        Source: pilot/pkg/networking/core/cluster.go (findOrCreateService).
        """
        assert self.scope.sidecar is not None, "a Sidecar has ingress listeners"
        name, namespace = self.scope.sidecar.ref.name, self.scope.namespace
        return Service(f"{name}.{namespace}", namespace, name, (), "EDS", external=True)

    def rule_for(self, service: Service) -> MergedRule | None:
        """The DestinationRule this proxy uses for a service."""
        if not self.scope.context.rule_index.by_key:
            return None
        return applying(self.scope.rules_for(service), self.view.proxy.labels)

    def connections(self, hosts: Iterable[str]) -> tuple[tuple[str, tuple[Object, ...]], ...]:
        """By host, the DestinationRules that shape TCP proxies to it (buildOutboundNetworkFilters)."""
        if not self.scope.context.rule_index.connections:
            return ()
        found = []
        for host in dict.fromkeys(hosts):
            rule = applying(self.scope.rules_on(host), self.view.proxy.labels)
            if rule is not None and any(map(shapes_connections, rule.sources)):
                found.append((host, rule.sources))
        return tuple(found)

    def addresses(self, service: Service) -> tuple[str, ...]:
        """The addresses a service has for it (GetAddressForProxy); one that was allocated counts only for some."""
        if service.auto_address and self.view.proxy.allocates_addresses:
            return (service.auto_address,)
        return service.addresses

    def places(self, service: Service) -> tuple[str, ...]:
        """The addresses it is shown a service at: a ServiceEntry with several is a service for each.

        Where a scope has one service of a host they have become one (`default_scope: merged`), with the first of them.
        """
        addresses = self.addresses(service)
        if service.registry == "Kubernetes" or (self.scope.sidecar is None and self.rules.default_scope == "merged"):
            return addresses[:1]
        return addresses

    def memo_of(self, service: Service) -> Memo:
        """What is made of a service of its scope: kept as long as the service stays as it is."""
        return self.scope.context.services.memo_of(service) or self.scope.memo

    def has_clusters(self, service: Service) -> bool:
        """With PILOT_FILTER_GATEWAY_CLUSTER_CONFIG, a router has clusters only of services its routes name."""
        return self.attaches(service.key)

    def attaches(self, key: ConfigKey) -> bool:
        """The same, of the service that a key names: 1.30's delta asks so, whichever of the host its scope holds."""
        return not self.filtered or attached(self.view, key)

    def services(self) -> Iterator[Service]:
        """Services that it has clusters of."""
        return (service for service in self.scope.all_services if self.has_clusters(service))

    def services_by_host(self) -> Mapping[str, Service]:
        """The same by host, of several services of a host the last; one object for all scopes of the same content."""
        if self.filtered:
            return {service.hostname: service for service in self.services()}
        return self.scope.memo_of_content.once(
            lambda: {service.hostname: service for service in self.scope.all_services}, "by host", of=self.scope.content
        )


def ingress_port(listener: Mapping[str, Any]) -> Port:
    """The port of an ingress listener."""
    written = listener.get("port") or {}
    protocol = parse_protocol(str(written.get("protocol") or ""))
    return Port(str(written.get("name") or ""), int(written.get("number") or 0), protocol)


def gateway_names(servers: tuple[tuple[Object, int], ...]) -> list[str]:
    """`namespace/name` of the Gateways of these servers, sorted."""
    return sorted({f"{gateway.ref.namespace}/{gateway.ref.name}" for gateway, _ in servers})


def services_of(egress: EgressListener) -> Iterator[Service]:
    """The services one egress listener imports."""
    for host in egress.hosts():
        yield from egress.services(host)
