"""Does this proxy need this push? Istio's checkProxyDependencies and its successors, with the rule that decided.

Why was this gateway pushed? In order, for each key of the merged request (`key_affects`):

1. a kind that never affects its type of proxy (a Sidecar and a router, a Gateway and a sidecar): no.
2. sidecar: its SidecarScope, or the one it had before, depends on the key: yes.
3. router and a ServiceEntry key (`_router_service`): always until 1.14; unless the service exists and is hidden from
   it now, 1.15 and 1.16; if its scope or its previous one has the host, from 1.17. With
   PILOT_FILTER_GATEWAY_CLUSTER_CONFIG, from 1.16 on only if a route of this gateway names the host.
4. router and any other key: yes.
5. no key affects it, but one is a service it belongs to: yes.

Source: reference `push-semantics` §2; istio/istio pilot/pkg/xds/proxy_dependencies.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pushsim.gateways import MergedGateway
from pushsim.mesh import ConfigKey, Proxy
from pushsim.registry import Target
from pushsim.requests import PushRequest
from pushsim.visibility import Scope, short


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a proxy needs a push.

    request: what its generators get to see (narrowed from 1.26 on).
    why:     for each key that let it through, or for each that did not, the rule in words.
    keys:    those that let it through; empty if all did.
    """

    needed: bool
    request: PushRequest
    why: tuple[str, ...]
    keys: frozenset[ConfigKey] = frozenset()


@dataclass(frozen=True, slots=True)
class View:
    """What the decision reads of a proxy: its current and previous scope, its services, what it serves."""

    proxy: Proxy
    scope: Scope
    previous: Scope | None
    targets: tuple[Target, ...]
    gateway: MergedGateway


def decide(view: View, request: PushRequest) -> Decision:
    """Judge a merged request for one proxy, after its state was brought up to date."""
    rules = view.scope.context.rules
    if request.everything(rules):
        return Decision(True, request, ("the request stands for a change of everything",))
    if view.proxy.type in rules.always_types:
        return Decision(True, request, (f"a {view.proxy.type} is pushed whatever changed",))
    kept: dict[ConfigKey, str] = {}
    refused: list[str] = []
    for key in sorted(request.keys):
        affects, why = key_affects(view, key)
        if not affects and (own := _own_service(view.targets, key, rules.own_service == "all")):
            affects, why = True, own
        if affects:
            kept[key] = why
        else:
            refused.append(why)
    if not kept:
        return Decision(False, request, tuple(dict.fromkeys(refused)) or ("the request has no keys",))
    narrowed = request.narrowed(frozenset(kept)) if rules.narrow else request
    return Decision(True, narrowed, tuple(dict.fromkeys(kept.values())), frozenset(kept))


def key_affects(view: View, key: ConfigKey) -> tuple[bool, str]:
    """Whether one key affects a proxy, and the rule that says so."""
    rules, proxy = view.scope.context.rules, view.proxy
    ignored = rules.router_ignores if proxy.type == "router" else rules.sidecar_ignores
    if key.kind in ignored:
        return False, f"{key.kind} {key.namespace}/{key.name}: a {key.kind} never affects a {proxy.type}"
    if proxy.type == "sidecar":
        if why := view.scope.depends_on(key):
            return True, why
        if view.previous is not None and (why := view.previous.depends_on(key)):
            return True, f"until now: {why}"
        return False, f"{view.scope} does not depend on {_named(key)}"
    if proxy.type == "router" and key.kind == "ServiceEntry":
        return _router_service(view, key)
    return True, f"{_named(key)}: a {proxy.type} is pushed for every {key.kind}"


def _router_service(view: View, key: ConfigKey) -> tuple[bool, str]:
    context, namespace = view.scope.context, view.proxy.namespace
    rules, named = context.rules, _named(key)
    if context.filter_gateways and rules.router_filter != "none" and not attached(view, key):
        return False, f"PILOT_FILTER_GATEWAY_CLUSTER_CONFIG: no route of its gateways names {named}"
    if rules.router_service == "always":
        return True, f"{named}: until 1.14 a router is pushed for every service"
    if rules.router_service == "visible":
        service = context.services.exact.get(key.name, {}).get(key.namespace)
        if service is None:
            return True, f"{named} is unknown (deleted): 1.15 and 1.16 push every router"
        if context.services.visible(service, namespace):
            return True, f"{named} is visible to {namespace}"
        return False, f"{named} is not visible to {namespace} now (1.15 and 1.16 do not ask what was)"
    if view.scope.service(key.name) is not None:
        return True, f"{named} is in the scope of {namespace}"
    if view.previous is not None and view.previous.service(key.name) is not None:
        return True, f"{named} was in the previous scope of {namespace}"
    return False, f"{named} is in neither the scope nor the previous scope of {namespace}"


def attached(view: View, key: ConfigKey) -> bool:
    """istiod's ServiceAttachedToGateway: a route of one of the router's gateways names the host."""
    context = view.scope.context
    if context.rules.passthrough_attaches and view.gateway.passthrough:
        return True
    if context.rules.router_filter == "none":  # clusters alone are filtered, by the routes its namespace sees
        seen = (r for name in view.gateway.names for r in context.routes.visible(name, view.proxy.namespace))
        routed = any(key.name in route.destinations(None) for route in seen)
    else:
        routed = any(key.name in context.routes.destinations_of_gateway(name) for name in view.gateway.names)
    return routed or _provided(view, key)


def _provided(view: View, key: ConfigKey) -> bool:
    """Whether a mesh-wide extension provider sends a router to a service (§5)."""
    context = view.scope.context
    match context.rules.filter_extra_services:
        case "never":
            return False
        case "with-route" if not any(context.routes.by_gateway.get(name) for name in view.gateway.names):
            return False
    named = {key.name}
    if context.rules.router_filter == "host-namespace":  # before, `namespace/host` is taken for a host, and is none
        named.add(f"{key.namespace}/{key.name}")
    providers = context.mesh_config.get("extensionProviders") or ()
    settings = (told for provider in providers for told in provider.values() if isinstance(told, dict))
    return any(str(told.get("service") or "") in named for told in settings)


def _own_service(targets: Sequence[Target], key: ConfigKey, every: bool) -> str:
    if key.kind != "ServiceEntry":
        return ""
    for target in targets if every else targets[:1]:
        if (target.service.hostname, target.service.namespace) == (key.name, key.namespace):
            return f"it belongs to {_named(key)} itself"
    return ""


def _named(key: ConfigKey) -> str:
    name = short(key) if key.kind in ("ServiceEntry", "Endpoints", "DNSName") else f"{key.namespace}/{key.name}"
    return f"{'service' if key.kind == 'ServiceEntry' else key.kind} {name}"
