"""RDS: whether it runs for a push (reference §6)."""

from __future__ import annotations

from dataclasses import replace

from pushsim.blocks import Block
from pushsim.generators import Generators
from pushsim.plan.pushing import Pushing
from pushsim.plan.state import Response


def routes(pushing: Pushing) -> Response | None:
    """The RDS response: all routes the proxy watches; None if RDS does not run, or makes none of them."""
    names = pushing.state.routes
    if not _runs(pushing) or not (left := served(pushing.generators, names)):
        return None
    removed = names - left if pushing.delta else ()
    return replace(configurations(pushing.generators, names), removed=tuple(sorted(removed)))


def served(generators: Generators, names: frozenset[str]) -> frozenset[str]:
    """Those of these names that there is an answer to: older releases have none for a gateway's that no server has."""
    gateway = generators.view.gateway
    if generators.rules.rds_gone_sent or generators.sidecar or not gateway.names:
        return names
    return names & gateway.routes.keys()


def configurations(generators: Generators, names: frozenset[str], *, solicited: bool = False) -> Response:
    """The RDS response to these names."""

    def made() -> Block:
        return Block(map(generators.route, sorted(served(generators, names))))

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
