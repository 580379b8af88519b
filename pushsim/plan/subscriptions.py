"""What a proxy asks for after a push, and what both sides remember.

A proxy that gets new clusters asks for their endpoints, one that gets new listeners for their routes; istiod answers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from pushsim.names import ClusterNames
from pushsim.plan.cds import outbound_names, taken_back, watched_names
from pushsim.plan.eds import Names, assignments
from pushsim.plan.pushing import Pushing
from pushsim.plan.rds import configurations, served
from pushsim.plan.state import Listening, ProxyState, Response


class _Clusters(NamedTuple):
    """The fields of a state that a CDS response changes."""

    watched: ClusterNames
    base: frozenset[str]
    clusters: ClusterNames


def follow_up(pushing: Pushing, cds: Response | None, listening: Listening) -> tuple[ProxyState, list[Response]]:
    """The proxy's state after these responses, and istiod's answers to what it then asks for."""
    state, generators = pushing.state, pushing.generators
    if cds is None and listening is state.listening:
        return state, []
    after = _Clusters(state.watched, state.base, state.clusters) if cds is None else _received(pushing, cds)
    answers: list[Response] = []
    if asked := _asked_clusters(pushing, after.clusters):
        answers.append(assignments(generators, asked, solicited=True))
    if served(generators, asked := _asked_routes(pushing, listening.routes)):
        answers.append(configurations(generators, asked, solicited=True))
    return replace(state, **after._asdict(), listening=listening), answers


def _received(pushing: Pushing, response: Response) -> _Clusters:
    """After a CDS response: delta adds to what there was, SotW replaces it."""
    state, blocks = pushing.state, response.blocks
    subscribed = watched_names(blocks)
    if not pushing.delta:
        return _Clusters(state.watched, state.base, subscribed)
    sent, base = outbound_names(blocks), frozenset(cluster.name for cluster in blocks[0])
    gone = taken_back(pushing, response.removed)
    if subscribed is not state.clusters:
        missing = sent.missing_from(subscribed)
        left = pushing.memo.once(lambda: gone | missing, "given up", of=(gone, missing)) if missing else gone
        subscribed = state.clusters.joined(subscribed, left)
    if pushing.rules.delta_watched != "union":
        return _Clusters(sent, base, subscribed)
    return _Clusters(state.watched.joined(sent, gone), (state.base | base) - gone, subscribed)


def _asked_clusters(pushing: Pushing, now: ClusterNames) -> Names:
    """The names istiod answers when the list of watched clusters changes: the new ones, or all of them."""
    before = pushing.state.clusters
    if pushing.rules.answers_all and not pushing.delta and now.names != before.names:
        return now
    return now.missing_from(before)


def _asked_routes(pushing: Pushing, now: frozenset[str]) -> frozenset[str]:
    before = pushing.state.routes
    if pushing.rules.answers_all and not pushing.delta and now != before:
        return now
    return now - before
