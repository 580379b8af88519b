"""LDS: whether it runs for a push, what delta takes back, and which routes the listeners ask for (reference §6)."""

from __future__ import annotations

from collections.abc import Mapping

from pushsim.plan.pushing import Pushing
from pushsim.plan.state import Listening, Response

ByListener = Mapping[str, frozenset[str]]


def listeners(pushing: Pushing) -> tuple[Response | None, Listening]:
    """The LDS response, always of all listeners (None if LDS does not run), and what the proxy listens on then."""
    before = pushing.state.listening
    if not _runs(pushing):
        return None, before
    blocks = pushing.generators.listeners()
    sent = pushing.generators.routes_by_listener(blocks)
    if not pushing.delta:
        return Response("LDS", blocks), pushing.memo.once(lambda: sotw_listening(sent), "SotW listening", of=(sent,))
    union = pushing.rules.delta_watched == "union"
    removed, after = pushing.memo.once(lambda: _delta_listening(before, sent, union), "listening", of=(before, sent))
    return Response("LDS", blocks, removed), after


def sotw_listening(sent: ByListener) -> Listening:
    """What a proxy listens on after a response that is all there is."""
    return Listening(sent, frozenset().union(*sent.values()))


def _delta_listening(before: Listening, sent: ByListener, union: bool) -> tuple[tuple[str, ...], Listening]:
    """The names to take back, and what the proxy listens on then; `union`: what was served before still counts."""
    names = frozenset(sent)
    gone = before.served - names
    known = {name: routes for name, routes in before.by_listener.items() if name not in gone} | dict(sent)
    served = (before.served | names) - gone if union else names
    return tuple(sorted(gone)), Listening(known, frozenset().union(*known.values()), served)


def _runs(pushing: Pushing) -> bool:
    rules = pushing.rules
    skip = rules.lds_router_skip if pushing.router else rules.lds_sidecar_skip
    if not pushing.full or (pushing.router and pushing.headless_only):
        return False
    if pushing.everything or not rules.lds_peer_authentication_own:
        return pushing.has_other_than(skip)
    own = (pushing.state.proxy.namespace, pushing.context.root)
    keys = (key for key in pushing.request.keys if key.kind != "PeerAuthentication" or key.namespace in own)
    return any(key.kind not in skip for key in keys)
