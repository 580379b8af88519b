"""PushContext, and what of it a request makes anew."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pushsim.audience import PUBLIC
from pushsim.context.routes import RouteIndex
from pushsim.context.rules import RuleIndex
from pushsim.context.services import ServiceIndex
from pushsim.memo import Memo
from pushsim.mesh import Endpoint, Object, Service
from pushsim.registry import Registry
from pushsim.releases import Rules
from pushsim.requests import PushRequest
from pushsim.shards import ByHost, Shards
from pushsim.spreading import ASKED_BY_DISTRIBUTION, asked_by_mesh

#: Kinds that are read as they are, not indexed.
POLICY_KINDS = (
    "AuthorizationPolicy",
    "RequestAuthentication",
    "PeerAuthentication",
    "Telemetry",
    "EnvoyFilter",
    "WasmPlugin",
    "ProxyConfig",
)
_SERVICE_KINDS = frozenset({"ServiceEntry", "DNSName"})
_SCOPE_KINDS = frozenset({"ServiceEntry", "DNSName", "VirtualService", "DestinationRule", "Sidecar"})
_AUTHN_KINDS = frozenset({"PeerAuthentication", "RequestAuthentication"})


@dataclass(frozen=True, slots=True, eq=False)
class PushContext:
    """All a push reads of the configuration. Indexes of kinds that did not change are shared with the one before.

    number:    counts pushes, 0 for the one istiod starts with.
    scopes_at: number of the push that last rebuilt the scopes: two contexts with the same one share them.
    sidecars:  by namespace, those with a selector first, then the oldest first.
    policies:  by kind, the oldest first.
    endpoints: as of this push: what EDS sends.
    instances: as of the last push that rebuilt the services: what clusters and headless listeners hold, until 1.19
               also of those that are not ready;
    accounts:  likewise the service accounts.
    memo:      what is made of it for many proxies, by whoever makes it.
    """

    number: int
    scopes_at: int
    rules: Rules
    root: str
    mesh_config: Mapping[str, Any]
    filter_gateways: bool
    unready_sent: bool
    services: ServiceIndex
    routes: RouteIndex
    rule_index: RuleIndex
    sidecars: Mapping[str, tuple[Object, ...]]
    gateways: tuple[Object, ...]
    policies: Mapping[str, tuple[Object, ...]]
    endpoints: Shards
    instances: Shards
    accounts: ByHost[frozenset[str]]
    memo: Memo = field(default_factory=Memo)

    @property
    def spreads_by(self) -> frozenset[str]:
        """Labels of a proxy that decide how endpoints are spread over localities for it."""
        near = ASKED_BY_DISTRIBUTION if self.services.distributed else frozenset[str]()
        return self.rule_index.spreads_by | asked_by_mesh(self.mesh_config) | near

    def endpoints_of(self, service: Service) -> tuple[Endpoint, ...]:
        """A service's endpoints in all shards, as of this push."""
        return _all_shards(self.endpoints, service)

    def instances_of(self, service: Service) -> tuple[Endpoint, ...]:
        """A service's endpoints in all shards, as of the last push that rebuilt the services."""
        return _all_shards(self.instances, service)


def build_context(
    registry: Registry, env: Mapping[str, str], previous: PushContext | None, request: PushRequest
) -> PushContext:
    """istiod's InitContext: what changed kinds invalidate is built anew, the rest taken over.

    Args:
        registry: as it is now.
        env: istiod's environment: PILOT_FILTER_GATEWAY_CLUSTER_CONFIG.
        previous: the context before; None for the one istiod starts with.
        request: the merged request that is to be pushed.
    """
    number = 0 if previous is None else previous.number + 1
    endpoints = registry.endpoints.shards.copy()
    if previous is None or request.everything(registry.rules):
        return _new_context(registry, env, number, endpoints, previous)
    if request.endpoints_only(registry.rules):
        return replace(previous, number=number, endpoints=endpoints, memo=Memo())
    return _renewed(registry, previous, request.kinds, number, endpoints)


def _instances(registry: Registry, endpoints: Shards) -> Shards:
    """What InstancesByPort finds: a copy of it, or the copy there is already of the same."""
    of = registry.endpoints
    return endpoints if of.instances is of.shards else of.instances.copy()


def _new_context(
    registry: Registry, env: Mapping[str, str], number: int, endpoints: Shards, previous: PushContext | None
) -> PushContext:
    config = registry.mesh_config
    return PushContext(
        number=number,
        scopes_at=number,
        rules=registry.rules,
        root=str(config.get("rootNamespace") or "istio-system"),
        mesh_config=config,
        filter_gateways=str(env.get("PILOT_FILTER_GATEWAY_CLUSTER_CONFIG", "")).lower() == "true",
        unready_sent=registry.unready_sent,
        services=_services(registry, previous.services if previous else None),
        routes=_routes(registry, previous.routes if previous else None),
        rule_index=_rules(registry),
        sidecars=_sidecars(registry),
        gateways=_ordered(registry, "Gateway"),
        policies={kind: _ordered(registry, kind) for kind in POLICY_KINDS},
        endpoints=endpoints,
        instances=_instances(registry, endpoints),
        accounts=registry.endpoints.accounts.copy(),
    )


def _renewed(
    registry: Registry, previous: PushContext, kinds: frozenset[str], number: int, endpoints: Shards
) -> PushContext:
    scoping = _SCOPE_KINDS | _AUTHN_KINDS if registry.rules.peer_authentication_deps else _SCOPE_KINDS
    rescoped = bool(kinds & scoping)
    served = bool(kinds & _SERVICE_KINDS)
    stale = kinds | {"WasmPlugin"} if "TrafficExtension" in kinds else kinds
    policies = {kind: _ordered(registry, kind) for kind in POLICY_KINDS if kind in stale}
    return replace(
        previous,
        number=number,
        scopes_at=number if rescoped else previous.scopes_at,
        services=_services(registry, previous.services) if served else previous.services,
        routes=_routes(registry, previous.routes) if "VirtualService" in kinds else previous.routes,
        rule_index=_rules(registry) if "DestinationRule" in kinds else previous.rule_index,
        sidecars=_sidecars(registry) if rescoped else previous.sidecars,
        gateways=_ordered(registry, "Gateway") if "Gateway" in kinds else previous.gateways,
        policies={**previous.policies, **policies} if policies else previous.policies,
        endpoints=endpoints,
        instances=_instances(registry, endpoints) if served else previous.instances,
        accounts=registry.endpoints.accounts.copy() if served else previous.accounts,
        memo=Memo(),
    )


def _services(registry: Registry, before: ServiceIndex | None = None) -> ServiceIndex:
    default = _default(registry, "defaultServiceExportTo")
    if before is not None:
        return before.renewed(registry.served(), default)
    return ServiceIndex(registry.served(), default, registry.rules)


def _routes(registry: Registry, before: RouteIndex | None = None) -> RouteIndex:
    objects = registry.store.of_kind("VirtualService")
    return RouteIndex(objects, _default(registry, "defaultVirtualServiceExportTo"), registry.rules, before)


def _rules(registry: Registry) -> RuleIndex:
    objects = registry.store.of_kind("DestinationRule").values()
    root = str(registry.mesh_config.get("rootNamespace") or "istio-system")
    return RuleIndex(objects, _default(registry, "defaultDestinationRuleExportTo"), root, registry.rules)


def _default(registry: Registry, setting: str) -> frozenset[str]:
    values = registry.mesh_config.get(setting) or ()
    return frozenset(str(value) for value in values) or frozenset({PUBLIC})


def _ordered(registry: Registry, kind: str) -> tuple[Object, ...]:
    objects = registry.store.of_kind(kind).values()
    return tuple(sorted(objects, key=lambda o: (o.creation, o.ref.name, o.ref.namespace)))


def _sidecars(registry: Registry) -> dict[str, tuple[Object, ...]]:
    found: dict[str, list[Object]] = defaultdict(list)
    for written in sorted(_ordered(registry, "Sidecar"), key=lambda o: "workloadSelector" not in o.spec):
        found[written.ref.namespace].append(written)
    return {namespace: tuple(sidecars) for namespace, sidecars in found.items()}


def _all_shards(shards: Shards, service: Service) -> tuple[Endpoint, ...]:
    lists = tuple(shards.get((service.hostname, service.namespace), {}).values())
    return lists[0] if len(lists) == 1 else tuple(endpoint for endpoints in lists for endpoint in endpoints)
