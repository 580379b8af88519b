"""`plan`: one push of a merged request for one proxy, decided, then `answered` in istiod's order (pushConnection)."""

from __future__ import annotations

from dataclasses import replace

from pushsim.dependencies import Decision, decide
from pushsim.plan.asking import asked
from pushsim.plan.cds import clusters
from pushsim.plan.ecds import extensions
from pushsim.plan.eds import endpoints
from pushsim.plan.lds import listeners
from pushsim.plan.nds import names
from pushsim.plan.pushing import Pushing
from pushsim.plan.rds import routes
from pushsim.plan.refresh import refresh
from pushsim.plan.sds import secrets
from pushsim.plan.state import Plan, ProxyState, Push
from pushsim.plan.subscriptions import follow_up
from pushsim.requests import PushRequest


def plan(state: ProxyState, request: PushRequest, push: Push, lost: frozenset[str] = frozenset()) -> Plan:
    """What a proxy in this state gets for a merged request, why, and its state thereafter.

    lost: clusters it is known to have lost, where istiod leaves to chance which.
    """
    state = refresh(state, request, push)
    return answered(state, decide(state.view, request), push, lost)


def answered(state: ProxyState, decision: Decision, push: Push, lost: frozenset[str] = frozenset()) -> Plan:
    """What a proxy gets whose state was brought up to date, and about which that is decided."""
    if not decision.needed:
        return Plan(state, decision)
    pushing = Pushing(state, state.view, decision.request, push, lost)
    cds = clusters(pushing)
    eds = endpoints(pushing) if len(state.clusters) else None
    lds, listening = listeners(pushing)
    rds = routes(pushing) if state.routes else None
    nds = names(pushing) if state.proxy.captures_dns and "NDS" in push.on_demand else None
    sds = secrets(pushing) if state.asks.secrets.open else None
    ecds = extensions(pushing) if state.asks.extensions.open else None
    after, answers = follow_up(pushing, cds, listening)
    if sds is not None or ecds is not None:
        told = state.asks.told(secrets=sds is not None, extensions=ecds is not None)
        state = replace(state, asks=told)
    asks, more = asked(state, push, cds, lds)
    if asks is not after.asks:
        after = replace(after, asks=asks)
    pushed = (response for response in (cds, eds, lds, rds, sds, ecds, nds) if response is not None)
    return Plan(after, decision, (*pushed, *answers, *more))
