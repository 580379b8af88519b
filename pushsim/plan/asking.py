"""What a proxy then asks for on demand: what its new clusters and listeners name."""

from __future__ import annotations

from dataclasses import replace

from pushsim.context import PushContext
from pushsim.generators import Generators
from pushsim.plan import ecds, sds
from pushsim.plan.state import ASKS_NOTHING, Asks, ProxyState, Push, Response
from pushsim.sizes.envoyfilters import asks_by_name


def asked(
    state: ProxyState, push: Push, cds: Response | None, lds: Response | None
) -> tuple[Asks, tuple[Response, ...]]:
    """What a proxy asks for after these responses, and istiod's answers.

    state: before them, with what it has asked for until then.
    """
    before, context = state.asks, push.context
    if before is ASKS_NOTHING and not (names_some(context) or state.gateway.credentials):
        return before, ()
    asks, answers = before, list[Response]()
    if cds is not None and "SDS" in push.on_demand:
        asks = replace(asks, by_cluster=_by_cluster(asks, state, push, cds))
        asks = _of_secrets(asks, state, push, answers)
    if lds is not None and "SDS" in push.on_demand and state.proxy.type == "router":
        asks = replace(asks, by_listener=sds.of_listeners(lds.blocks))
        asks = _of_secrets(asks, state, push, answers)
    if lds is not None and "ECDS" in push.on_demand:
        names = Generators(state.view, context).extensions(lds.blocks)
        served = ecds.service(state.labelled, state.mode, context, push.registry)
        watch, more = served.asked(asks.extensions, names)
        asks = replace(asks, extensions=watch)
        answers += more
    known = next((known for known in (before, ASKS_NOTHING) if asks == known), asks)
    return known, tuple(answers)


def names_some(context: PushContext) -> bool:
    """Whether any proxy's clusters or listeners may name what it then asks for, but for those of gateways."""
    if context.rule_index.credentials or context.policies["WasmPlugin"]:
        return True
    filters = context.policies["EnvoyFilter"]
    return bool(filters) and context.memo.once(lambda: asks_by_name(filters), "asks by name", of=(filters,))


def _by_cluster(asks: Asks, state: ProxyState, push: Push, cds: Response) -> frozenset[tuple[str, tuple[str, ...]]]:
    """The clusters it then has that name secrets: delta adds to what there was."""
    found = frozenset(sds.of_clusters(cds.blocks[1:], push.context, state.proxy))
    if state.mode != "delta" or not asks.by_cluster:
        return found
    sent = {resource.name for resource in cds.resources}
    gone = sent.union(cds.removed)
    return found | {naming for naming in asks.by_cluster if naming[0] not in gone}


def _of_secrets(asks: Asks, state: ProxyState, push: Push, answers: list[Response]) -> Asks:
    names = asks.by_listener.union(*(of for _, of in asks.by_cluster))
    watch, more = sds.service(state.proxy, state.mode, push.context, push.registry).asked(asks.secrets, names)
    answers += more
    return replace(asks, secrets=watch)
