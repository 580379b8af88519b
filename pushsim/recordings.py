"""The recordings' format: what an istiod sent to every proxy, step by step; ours written in it, real ones compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pushsim.cases import Case
from pushsim.conversation import Conversation, Outcome, Step
from pushsim.memo import Memo
from pushsim.mesh import ON_DEMAND, XDS, Change, Mode, Xds
from pushsim.pricing import Pricing
from pushsim.releases import Rules

#: A response as recorded: xds, resources, removed, size_bytes, solicited, names, removed_names.
Recorded = Mapping[str, Any]
#: What must be equal of a response: type, solicited, names, removed names.
Signature = tuple[Xds, bool, tuple[str, ...], tuple[str, ...]]


def signature(response: Recorded) -> Signature:
    """What of a recorded response must be equal."""
    return (
        response["xds"],
        bool(response["solicited"]),
        tuple(response["names"]),
        tuple(response.get("removed_names") or ()),
    )


def recorded(outcome: Outcome, pricing: Pricing | None) -> list[dict[str, Any]]:
    """One class's responses in the recordings' format, with `why`; without sizes if there is no pricing."""
    plan = outcome.plan
    found = []
    for response, state, push in outcome.responses():
        size = pricing.size(response, state, push) if pricing else 0
        why = "the proxy asked for it" if response.solicited else "; ".join(plan.decision.why)
        found.append(
            {
                "xds": response.xds,
                "resources": response.count,
                "removed": len(response.removed),
                "size_bytes": size,
                "solicited": response.solicited,
                "names": list(response.names),
                "removed_names": list(response.removed),
                "why": why,
            }
        )
    return found


def spared(outcome: Outcome) -> str:
    """Why a proxy got nothing, "" if it got something."""
    if outcome.plan.responses:
        return ""
    why = "; ".join(outcome.plan.decision.why)
    return f"needs the push ({why}), but no type it watches changes" if outcome.plan.decision.needed else why


def step_record(step: Step, pricing: Pricing | None) -> dict[str, Any]:
    """A step in the recordings' format."""
    responses: dict[str, list[dict[str, Any]]] = {}
    reasons: dict[str, str] = {}
    for outcome in step.outcomes:
        listed, reason = recorded(outcome, pricing), spared(outcome)
        for proxy in outcome.members:
            responses[proxy.id] = listed
            if reason:
                reasons[proxy.id] = reason
    return {"name": step.name, "responses": responses, "spared": reasons}


def recording(case: Case, rules: Rules, mode: Mode) -> dict[str, Any]:
    """What we say that an istiod of this release sends in a case."""
    conversation = Conversation(case.mesh, rules, mode, case.steps)
    pricing = Pricing(case.mesh, rules, mode)
    connect = {p.id: recorded(o, pricing) for o in conversation.classes for p in o.members}
    for responses in connect.values():
        for response in responses:
            response["why"] = "it connects"
    steps = [step_record(conversation.step(change), pricing) for change in case.steps]
    on_demand = [xds for xds in XDS if xds in ON_DEMAND]
    return {"istio": rules.release, "mode": mode, "on_demand": on_demand, "connect": connect, "steps": steps}


@dataclass(frozen=True, slots=True)
class Difference:
    """Where ours and a recording part.

    step:     -1 for the connect conversation.
    aspect:   pushes (a type more or less), names, removed, solicited or bytes.
    expected, got: responses that only the recording, only ours has; for bytes the one that both have.
    why:      the rule that decided ours.
    sizes:    for bytes: the recording's and ours.
    """

    step: int
    name: str
    proxy: str
    aspect: str
    expected: tuple[Signature, ...]
    got: tuple[Signature, ...]
    why: str
    sizes: tuple[int, int] | None = None


#: The share of a case's responses whose bytes must be right.
RIGHT_SHARE = 0.99


@dataclass(slots=True)
class Score:
    """How a case came out: checked and equal counts by aspect, differences in who gets what, and those in bytes."""

    checked: Counter[str] = field(default_factory=Counter)
    equal: Counter[str] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)
    sizes: list[Difference] = field(default_factory=list)

    @property
    def exact(self) -> bool:
        """Whether everything but bytes is equal."""
        return all(self.equal[aspect] == n for aspect, n in self.checked.items() if aspect != "bytes")

    @property
    def priced(self) -> bool:
        """Whether the bytes are right in 99 % of the responses that both have."""
        return self.equal["bytes"] >= RIGHT_SHARE * self.checked["bytes"]


#: What is scored, each on its own: the first four by (step, proxy), bytes by response.
ASPECTS = ("pushes", "names", "removed", "solicited", "bytes")


def byte_tolerance(size: int) -> float:
    """How far a predicted size may be off and count as right: 2 % or 8 bytes."""
    return max(8.0, 0.02 * size)


def conform(
    case: Case,
    recorded_run: Mapping[str, Any],
    rules: Rules,
    mode: Mode,
    *,
    sizes: bool = True,
    built: Memo | None = None,
) -> Score:
    """Compare our answer to a recording, step by step; `sizes` too, unless not wanted (`built` as of `Pricing`).

    Where a step writes a Service (or deletes it) and its own EndpointSlice, either order of istiod's handlers counts,
    and which it was may show much later: the history that fits better is kept, and judged. Where a delta takes back
    one of several clusters of a port that went, whichever counts from 1.20 on.
    """
    score = Score()
    conversation = Conversation(case.mesh, rules, mode, case.steps, on_demand=recorded_run.get("on_demand", ()))
    pricing = Pricing(case.mesh, rules, mode, built) if sizes else None
    for outcome in conversation.classes:
        for proxy in outcome.members:
            _compare(score, -1, "connect", proxy.id, outcome, recorded_run["connect"][proxy.id], pricing)
    steps = _likeliest(conversation, case.steps, [real["responses"] for real in recorded_run["steps"]])
    for number, (step, real) in enumerate(zip(steps, recorded_run["steps"], strict=True)):
        for outcome in step.outcomes:
            for proxy in outcome.members:
                _compare(score, number, step.name, proxy.id, outcome, real["responses"][proxy.id], pricing)
    return score


#: How many histories are told apart at once.
_HISTORIES = 4


def _likeliest(
    conversation: Conversation, changes: Sequence[Change], real: Sequence[Mapping[str, Sequence[Recorded]]]
) -> list[Step]:
    """Of the histories that races make possible, the steps of the one that fits best; among equals, slices first."""
    histories: list[tuple[int, Conversation, list[Step]]] = [(0, conversation, [])]
    for change, responses in zip(changes, real, strict=True):
        lost = {proxy: _taken_back(got) for proxy, got in responses.items()}
        tried = []
        for unequal, one, steps in histories:
            orders = [(one, False)]
            if races(change):
                orders.append((one.fork(), True))
            for branch, services_first in orders:
                step = branch.step(change, services_first=services_first, lost=lost)
                tried.append((unequal + _unequal(step, responses), branch, [*steps, step]))
        best = min(unequal for unequal, *_ in tried)
        histories = [history for history in tried if history[0] == best][:_HISTORIES]
    return histories[0][2]


def _taken_back(responses: Sequence[Recorded]) -> frozenset[str]:
    return frozenset(name for r in responses if r["xds"] == "CDS" for name in r.get("removed_names") or ())


def races(change: Change) -> bool:
    """Whether a change writes a Service, or deletes it, and writes one of its own EndpointSlices with it."""
    refs = (*(o.ref for o in change.apply), *change.delete)
    services = {(ref.namespace, ref.name) for ref in refs if ref.kind == "Service"}
    slices = (o for o in change.apply if o.ref.kind == "EndpointSlice")
    return any((o.ref.namespace, o.labels.get("kubernetes.io/service-name")) in services for o in slices)


def _unequal(step: Step, real: Mapping[str, Sequence[Recorded]]) -> int:
    return sum(
        Counter(_ours(outcome)) != Counter(map(signature, real[proxy.id]))
        for outcome in step.outcomes
        for proxy in outcome.members
    )


def _ours(outcome: Outcome) -> list[Signature]:
    return [(r.xds, r.solicited, r.names, tuple(r.removed)) for r in outcome.plan.responses]


def _compare(
    score: Score,
    number: int,
    name: str,
    proxy: str,
    outcome: Outcome,
    real: Sequence[Recorded],
    pricing: Pricing | None,
) -> None:
    ours, theirs = _ours(outcome), [signature(r) for r in real]
    views = {
        "pushes": (Counter((s[0], s[1]) for s in ours), Counter((s[0], s[1]) for s in theirs)),
        "names": (Counter((s[0], s[2]) for s in ours), Counter((s[0], s[2]) for s in theirs)),
        "removed": (Counter((s[0], s[3]) for s in ours if s[3]), Counter((s[0], s[3]) for s in theirs if s[3])),
        "solicited": (Counter(s for s in ours if s[1]), Counter(s for s in theirs if s[1])),
    }
    failed = ""
    for aspect, (mine, other) in views.items():
        score.checked[aspect] += 1
        if mine == other:
            score.equal[aspect] += 1
        else:
            failed = failed or aspect
    if failed:
        missing = tuple((Counter(theirs) - Counter(ours)).elements())
        extra = tuple((Counter(ours) - Counter(theirs)).elements())
        why = "; ".join(outcome.plan.decision.why)
        score.differences.append(Difference(number, name, proxy, failed, missing, extra, why))
    elif pricing is not None:
        for told, sizes in _sizes(score, outcome, real, pricing):
            why = "; ".join(outcome.plan.decision.why)
            score.sizes.append(Difference(number, name, proxy, "bytes", (told,), (told,), why, sizes))


def _sizes(
    score: Score, outcome: Outcome, real: Iterable[Recorded], pricing: Pricing
) -> Iterator[tuple[Signature, tuple[int, int]]]:
    """Counts responses whose bytes are right; gives those that are wrong, with the recording's size and ours."""
    left = {(signature(r), i): int(r["size_bytes"]) for i, r in enumerate(real)}
    for (response, state, push), mine in zip(outcome.responses(), _ours(outcome), strict=True):
        key = next(k for k in left if k[0] == mine)
        size = left.pop(key)
        score.checked["bytes"] += 1
        ours = pricing.size(response, state, push)
        if abs(ours - size) <= byte_tolerance(size):
            score.equal["bytes"] += 1
        else:
            yield mine, (size, ours)
