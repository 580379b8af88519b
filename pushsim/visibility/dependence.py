"""Does a change of this key concern the proxies of a scope? istiod's SidecarScope.DependsOnConfig (reference §3.8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pushsim.mesh import ConfigKey, Service

if TYPE_CHECKING:
    from pushsim.visibility.scope import Naming, Scope


def dependence(scope: Scope, key: ConfigKey) -> str:
    """Why a push of this key concerns the proxies of this scope, "" if it does not."""
    context, rules = scope.context, scope.context.rules
    if key.kind in rules.cluster_kinds:
        if key.namespace == context.root:
            return f"{key.kind} {key.name} is in the root namespace {key.namespace}"
        return f"{key.kind} {key.name} is in its namespace" if key.namespace == scope.namespace else ""
    if key.kind not in rules.known_kinds:
        name = short(key) if key.kind == "DNSName" else f"{key.namespace}/{key.name}"
        return f"{key.kind} {name}: a {key.kind} concerns sidecars of every namespace"
    match key.kind:
        case "Sidecar":
            ref = scope.sidecar.ref if scope.sidecar else None
            own = ref is not None and (key.name, key.namespace) == (ref.name, ref.namespace)
            return f"Sidecar {key.namespace}/{key.name} is its own" if own else ""
        case "ServiceEntry" | "Endpoints":
            return _on_service(scope, key)
        case "VirtualService":
            return f"{scope} imports VirtualService {key.namespace}/{key.name}" if key in scope.route_keys else ""
        case "DestinationRule":
            return _on_rule(scope, key)
        case "PeerAuthentication":
            return _on_peer_authentication(scope, key)
    return ""


def alike(scope: Scope, other: Scope) -> bool:
    """Whether what concerns the proxies of one of two scopes of the same Sidecar concerns those of the other, too.

    They hold the same services, imported or as destinations of the same VirtualServices, under the same rules. That is
    not asked of scopes that may differ in more than the content of VirtualServices.
    """
    new, old = scope.context, other.context
    return (
        scope.sidecar is other.sidecar
        and scope.family.alike(other.family)
        and new.policies is old.policies
        and new.mesh_config is old.mesh_config
        and scope.route_keys == other.route_keys
        and all(
            named.keys() == known.keys() and all(_ports(named[host]) == _ports(known[host]) for host in named)
            for named, known in zip(scope.destinations, other.destinations, strict=True)
            if named is not known
        )
    )


def _ports(named: list[Naming]) -> list[frozenset[int]]:
    return [ports for _, ports in named]


def _on_service(scope: Scope, key: ConfigKey) -> str:
    if key.kind == "Endpoints" and not scope.context.rules.scope_endpoints_key:
        return ""
    winner = scope.service(key.name)
    if any(s is not None and s.namespace == key.namespace for s in (winner, scope.replaced.get(key.name))):
        return f"{scope} imports {short(key)}{_how(scope, winner)}"
    return ""


def _how(scope: Scope, service: Service | None) -> str:
    """The entry of the Sidecar, or the VirtualService, by which it imports a service."""
    if service is None or scope.sidecar is None:
        return ""
    for listener, named in zip(scope.listeners, scope.destinations, strict=True):
        if listener.services(service.hostname):
            return f" (hosts {listener.importing(service)})"
        if service.hostname in named:
            route = named[service.hostname][0][0]
            return f" (destination of VirtualService {route.key.namespace}/{route.key.name})"
    return ""


def _on_rule(scope: Scope, key: ConfigKey) -> str:
    written = scope.context.rule_index.by_key.get(key)
    if written is None:
        return ""
    for host in scope.family.hosts_of_rule(written):
        merged = scope.rules_on(host)
        if scope.context.rules.replaced_rules:
            merged += scope.rules_replaced(host)
        if key in [k for rule in merged for k in (rule.keys if scope.context.rules.rule_sources else rule.keys[:1])]:
            return f"{scope}: DestinationRule {key.namespace}/{key.name} applies to {host}"
    return ""


def _on_peer_authentication(scope: Scope, key: ConfigKey) -> str:
    there = [o for o in scope.context.policies["PeerAuthentication"] if o.ref.namespace == key.namespace]
    plain = [o for o in there if not o.selects]  # istiod ignores all but the oldest of these
    if key.name not in {o.ref.name for o in there} - {o.ref.name for o in plain[1:]}:
        return ""
    if key.namespace in (scope.context.root, scope.namespace):
        return f"PeerAuthentication {key.namespace}/{key.name} is in its or the root namespace"
    if key.namespace in scope.service_namespaces:
        return f"{scope} imports services of {key.namespace}, where PeerAuthentication {key.name} is"
    return ""


def short(key: ConfigKey) -> str:
    """A service's key as people say it: `b.ns-b`, or the host of a ServiceEntry."""
    return key.name.removesuffix(".svc.cluster.local")
