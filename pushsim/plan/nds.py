"""NDS: whether it runs for a push (reference §6.7)."""

from __future__ import annotations

from pushsim.generators import Generators
from pushsim.plan.pushing import Pushing
from pushsim.plan.state import Response
from pushsim.requests import HEADLESS_ENDPOINT_UPDATE


def names(pushing: Pushing) -> Response | None:
    """The NDS response, always the whole table; None if NDS does not run."""
    return table(pushing.generators) if _runs(pushing) else None


def table(generators: Generators, *, solicited: bool = False) -> Response:
    """The NDS response."""
    return Response("NDS", generators.table(), solicited=solicited)


def _runs(pushing: Pushing) -> bool:
    rules = pushing.rules
    if not pushing.full:
        return rules.nds_headless_partial and HEADLESS_ENDPOINT_UPDATE in pushing.request.reasons
    return pushing.has_other_than(rules.nds_skip)
