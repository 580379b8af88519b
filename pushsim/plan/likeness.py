"""Proxies that differ only in the services they belong to: what one is sent, the other is, but for what is its own.

Of a sidecar's responses, the first block of clusters and the first block of listeners are made for its own services;
all other blocks hang on its scope. So a plan is made for one of them, and the others get theirs from it.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator

from pushsim.blocks import Block
from pushsim.generators import Generators
from pushsim.mesh import HOSTNAME
from pushsim.plan.refresh import recomputes_targets
from pushsim.plan.state import ASKS_NOTHING, Plan, ProxyState, Push, Response
from pushsim.releases import Rules
from pushsim.requests import PROXY_UPDATE, PushRequest

#: Kinds of keys that concern the scopes which hold a service or import a VirtualService.
_OF_CONTENT = frozenset({"ServiceEntry", "Endpoints", "VirtualService"})


def kin(state: ProxyState, asked: Collection[str]) -> Hashable:
    """Sidecars of equal values differ only in the services they belong to; None: like no other.

    asked: keys of the workload labels that selectors other than those of Services ask for.
    """
    if state.proxy.type != "sidecar" or state.asks.secrets.open:
        return None
    told = tuple(state.labels.get(key) for key in asked)
    ports = tuple((target.target_port, target.port.protocol) for target in state.targets)
    parts = (state.scope, state.previous, state.watched, state.clusters, state.listening)
    proxy, asks = state.proxy, None if state.asks is ASKS_NOTHING else state.asks
    return proxy.namespace, proxy.service_account, told, ports, proxy.naming, asks, state.base, *map(id, parts)


def shares(state: ProxyState, request: PushRequest, push: Push, rules: Rules) -> bool:
    """Whether a request does to a proxy what it does to its kin: nothing in it is the proxy's own matter."""
    if PROXY_UPDATE in request.reasons or any(target.service.key in request.keys for target in state.targets):
        return False
    if request.endpoints_only(rules) or not recomputes_targets(request, state.proxy, rules):
        return True
    return push.registry.targets(state.proxy) == state.targets


def kindred(before: ProxyState, after: ProxyState, request: PushRequest, push: Push) -> Hashable:
    """Sidecars of equal values, of whatever namespaces, are sent the same, but for their own; None: like no other.

    Their scopes hold nothing but blocks that look the same from everywhere, and import the same VirtualServices; and
    the request is about these or services, which concern a scope that holds them. Equal as long as one of the states
    lives.

    Args:
        before: the state before the push. after: brought up to date.
        request: one that they share (`shares`).
    """
    if before.asks is not ASKS_NOTHING or request.forced or not request.keys or not request.kinds <= _OF_CONTENT:
        return None
    scopes = (before.scope, before.previous, after.scope, after.previous)
    held = tuple(() if scope is None else scope.kin for scope in scopes)
    if None in held:
        return None
    asked = push.context.spreads_by | ({HOSTNAME} if push.context.services.node_local else frozenset())
    near = tuple(after.labels.get(key) for key in sorted(asked))
    return (*held, before.proxy.naming, near, *map(id, (before.watched, before.clusters, before.listening)))


def likewise(planned: Plan, state: ProxyState, push: Push) -> Plan:
    """The plan for a proxy in this state, from that for one of its kin."""
    after = planned.state.of(state)
    if not planned.responses:
        return Plan(after, planned.decision)
    generators = Generators(after.view, push.context)
    return Plan(after, planned.decision, tuple(_own(planned.responses, generators)))


def _own(responses: tuple[Response, ...], generators: Generators) -> Iterator[Response]:
    for response in responses:
        match response.xds:
            case "CDS":
                yield _with_own(response, generators.base_clusters())
            case "LDS":
                yield _with_own(response, generators.virtual_listeners())
            case _:
                yield response


def _with_own(response: Response, own: Block) -> Response:
    return Response(response.xds, (own, *response.blocks[1:]), response.removed, response.solicited)
