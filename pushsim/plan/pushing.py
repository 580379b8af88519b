"""One push on its way to one proxy, after it was decided that the proxy needs it."""

from __future__ import annotations

from functools import cached_property

from pushsim.dependencies import View
from pushsim.generators import Generators
from pushsim.plan.state import ProxyState, Push
from pushsim.requests import HEADLESS_ENDPOINT_UPDATE, SERVICE_UPDATE, PushRequest


class Pushing:
    """What the generators of each type read.

    state:    of the proxy, brought up to date.
    request:  narrowed to what affects the proxy, where the release does that.
    kinds:    those of its keys.
    delta:    the proxy speaks delta xDS.
    full:     not for endpoints only.
    lost:     clusters the proxy is known to lose, where that is chance.
    registry: as it is now.
    memo:     for what many proxies share in this push.
    """

    def __init__(
        self, state: ProxyState, view: View, request: PushRequest, push: Push, lost: frozenset[str] = frozenset()
    ) -> None:
        self.state, self.request, self.lost = state, request, lost
        self.context, self.rules = push.context, push.context.rules
        self.memo, self.registry = push.context.memo, push.registry
        self.generators = Generators(view, push.context)
        self.kinds = request.kinds
        self.router = state.proxy.type != "sidecar"
        self.delta = state.mode == "delta"
        self.full = request.full or not self.rules.has_full
        self.everything = request.everything(self.rules)

    def has_other_than(self, skipped: frozenset[str]) -> bool:
        """Whether something changed of a kind that a generator does not skip."""
        return self.everything or not self.kinds <= skipped

    @cached_property
    def headless_only(self) -> bool:
        """Whether it is only about endpoints of headless services, where releases treat that apart (#60803)."""
        if not self.rules.headless_trim or self.kinds != {"ServiceEntry"} or self.everything:
            return False
        return HEADLESS_ENDPOINT_UPDATE in self.request.reasons and SERVICE_UPDATE not in self.request.reasons
