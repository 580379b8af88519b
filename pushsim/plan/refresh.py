"""The proxy's state, brought up to date before anything is decided: istiod's computeProxyState (reference §2.5)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pushsim.gateways import merge_gateways
from pushsim.mesh import Proxy
from pushsim.plan.state import ProxyState, Push
from pushsim.releases import Rules
from pushsim.requests import PROXY_UPDATE, PushRequest
from pushsim.spreading import TOPOLOGY


def refresh(state: ProxyState, request: PushRequest, push: Push) -> ProxyState:
    """What a merged request makes of a proxy's labels, services, scope and gateway."""
    rules, proxy = push.context.rules, state.proxy
    if request.endpoints_only(rules):
        return state
    everything = request.everything(rules)
    fresh: dict[str, Any] = {}
    labels, targets = state.labels, state.targets
    if PROXY_UPDATE in request.reasons and rules.pod_labels != "none":
        labels = fresh["labels"] = push.registry.labels_of(proxy)
    retarget = recomputes_targets(request, proxy, rules)
    if retarget and rules.pod_labels == "none" and push.registry.placing and labels.keys().isdisjoint(TOPOLOGY):
        labels = fresh["labels"] = push.registry.labels_of(proxy)  # where it is was not known yet (updateProxy)
    if retarget:
        targets = fresh["targets"] = (push.registry.targets_before if request.early else push.registry.targets)(proxy)
    if takes_up_scope(request, rules):
        fresh |= {"scope": push.scopes.of(proxy, labels), "previous": state.scope}
    if proxy.type == "router" and (everything or "Gateway" in request.kinds or (retarget and rules.targets != "full")):
        gateway = merge_gateways(push.context, targets, labels, proxy)
        fresh |= {"gateway": gateway, "previous_gateway": state.gateway}
    return replace(state, **fresh) if fresh else state


def takes_up_scope(request: PushRequest, rules: Rules) -> bool:
    """Whether a request makes istiod look up a proxy's scope again; what was its scope is the previous one then."""
    if request.endpoints_only(rules):
        return False
    return request.everything(rules) or not request.kinds.isdisjoint(rules.scope_triggers)


def recomputes_targets(request: PushRequest, proxy: Proxy, rules: Rules) -> bool:
    """Whether a request that is not for endpoints only makes istiod look up a proxy's services again."""
    if request.everything(rules) or rules.targets == "full":
        return True
    match rules.targets:
        case "service":
            return bool(request.service_namespaces)
        case "service-or-own":
            return bool(request.service_namespaces) or proxy.namespace in request.namespaces
    return proxy.namespace in request.service_namespaces
