"""RDS: whether it runs for a push (reference §6)."""

from __future__ import annotations

from dataclasses import replace

from pushsim.blocks import Block
from pushsim.generators import Generators
from pushsim.plan.pushing import Pushing
from pushsim.plan.state import Response


def routes(pushing: Pushing) -> Response | None:
    """The RDS response: all routes the proxy watches; None if RDS does not run."""
    if not _runs(pushing):
        return None
    names, gateway = pushing.state.routes, pushing.state.gateway
    if pushing.rules.rds_gone_sent or not pushing.router or not gateway.names or names <= gateway.routes.keys():
        return configurations(pushing.generators, names)
    served = names & gateway.routes.keys()
    removed = tuple(sorted(names - served)) if pushing.delta else ()
    return replace(configurations(pushing.generators, served), removed=removed)


def configurations(generators: Generators, names: frozenset[str], *, solicited: bool = False) -> Response:
    """The RDS response with these names."""

    def made() -> Block:
        return Block(map(generators.route, sorted(names)))

    if not generators.sidecar:
        return Response("RDS", (made(),), solicited=solicited)
    block = generators.scope.family.memo.once(made, "RDS of", names, of=generators.scope.routed)
    return Response("RDS", (block,), solicited=solicited)


def _runs(pushing: Pushing) -> bool:
    rules = pushing.rules
    if not pushing.full or (rules.headless_trim_rds and pushing.headless_only):
        return False
    gateways = rules.rds_gateway_router_only and not pushing.router
    return pushing.has_other_than(rules.rds_skip | {"Gateway"} if gateways else rules.rds_skip)
