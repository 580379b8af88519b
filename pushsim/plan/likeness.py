"""Proxies that differ only in the services they belong to: what one is sent, the other is, but for what is its own.

Of a sidecar's responses, the first block of clusters and the first block of listeners are made for its own services;
all other blocks hang on its scope. So a plan is made for one of them, and the others get theirs from it.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator
from dataclasses import replace

from pushsim.generators import Generators
from pushsim.plan.refresh import recomputes_targets
from pushsim.plan.state import Plan, ProxyState, Push, Response
from pushsim.releases import Rules
from pushsim.requests import PROXY_UPDATE, PushRequest

#: Kinds of keys that concern the scopes which hold a service.
_OF_SERVICES = frozenset({"ServiceEntry", "Endpoints"})


def kin(state: ProxyState, asked: Collection[str]) -> Hashable:
    """Sidecars of equal values differ only in the services they belong to; None: like no other.

    asked: keys of the workload labels that selectors other than those of Services ask for.
    """
    if state.proxy.type != "sidecar":
        return None
    told = tuple(state.labels.get(key) for key in asked)
    ports = tuple((target.target_port, target.port.protocol) for target in state.targets)
    parts = (state.scope, state.previous, state.watched, state.clusters, state.listening)
    proxy = state.proxy
    return proxy.namespace, proxy.service_account, told, ports, state.base, *map(id, parts)


def shares(state: ProxyState, request: PushRequest, push: Push, rules: Rules) -> bool:
    """Whether a request does to a proxy what it does to its kin: nothing in it is the proxy's own matter."""
    if PROXY_UPDATE in request.reasons or any(target.service.key in request.keys for target in state.targets):
        return False
    if request.endpoints_only(rules) or not recomputes_targets(request, state.proxy, rules):
        return True
    return push.registry.targets(state.proxy) == state.targets


def kindred(before: ProxyState, refreshed: ProxyState, request: PushRequest) -> Hashable:
    """Sidecars of equal values, of whatever namespaces, are sent the same, but for their own; None: like no other.

    Their scopes hold nothing but blocks that look the same from everywhere, and import no VirtualService; and the
    request is about services, which concern a scope that holds them. Equal as long as one of the states lives.

    Args:
        before: the state of one before the push; refreshed: brought up to date.
        request: that they share (`shares`).
    """
    if request.forced or not request.keys or any(key.kind not in _OF_SERVICES for key in request.keys):
        return None
    parts: list[Hashable] = [id(before.watched), id(before.clusters), id(before.listening)]
    for scope in (before.scope, before.previous, refreshed.scope, refreshed.previous):
        if scope is None:
            parts.append(None)
            continue
        told = scope.context.rule_index.selective or any(listener.routes for listener in scope.listeners)
        if told or scope.content == (scope,):
            return None
        parts.append((id(scope.family), id(scope.sidecar), *map(id, scope.content)))
    return tuple(parts)


def likewise(planned: Plan, state: ProxyState, push: Push) -> Plan:
    """The plan for a proxy in this state, from that for one of its kin."""
    after = replace(planned.state, proxy=state.proxy, labels=state.labels, targets=state.targets)
    if not planned.responses:
        return replace(planned, state=after)
    generators = Generators(after.view, push.context)
    return replace(planned, state=after, responses=tuple(_own(planned.responses, generators)))


def _own(responses: tuple[Response, ...], generators: Generators) -> Iterator[Response]:
    for response in responses:
        match response.xds:
            case "CDS":
                yield replace(response, blocks=(generators.base_clusters(), *response.blocks[1:]))
            case "LDS":
                yield replace(response, blocks=(generators.virtual_listeners(), *response.blocks[1:]))
            case _:
                yield response
