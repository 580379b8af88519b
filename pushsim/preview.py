"""What a change would push, before anybody applies it: `pushsim plan`.

>>> from pushsim.mesh import Mesh, Change
>>> preview(Mesh(), Change(), release="1.24").groups
()
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pushsim import releases
from pushsim.cases import Case
from pushsim.collecting import few_collections
from pushsim.conversation import Conversation, Outcome, Step
from pushsim.dependencies import key_affects
from pushsim.errors import not_there
from pushsim.figures import amount
from pushsim.mesh import Change, Mesh, Mode, Proxy
from pushsim.pricing import Pricing
from pushsim.recordings import recorded, recording, spared, step_record
from pushsim.releases import Rules


@dataclass(frozen=True, slots=True)
class PushedType:
    """One response type of a group: resources, removed names and bytes of one proxy's response."""

    xds: str
    resources: int
    removed: int
    size_bytes: int
    solicited: bool


@dataclass(frozen=True, slots=True)
class Group:
    """Proxies that get the same: `types` is empty for those that are spared. `why` is the rule in words."""

    proxies: tuple[Proxy, ...]
    types: tuple[PushedType, ...]
    why: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes sent to one of its proxies."""
        return sum(pushed.size_bytes for pushed in self.types)


@dataclass(frozen=True, repr=False)
class Preview:
    """The answer of `preview`.

    rules, mode: the release and xDS mode it holds for; `proven` if that pair was checked against recordings.
    keys:   what istiod says has changed; empty if nothing is pushed.
    groups: equal proxies together, the most bytes first, spared ones last.
    """

    rules: Rules
    mode: Mode
    step: Step
    groups: tuple[Group, ...]
    conversation: Conversation
    pricing: Pricing

    def __repr__(self) -> str:
        """What it comes to, in three lines; `groups` has the rest."""
        proxies, pushed = (sum(len(group.proxies) for group in groups) for groups in (self.groups, self.pushed))
        size = sum(group.size_bytes * len(group.proxies) for group in self.pushed)
        responses = sum(len(group.types) * len(group.proxies) for group in self.pushed)
        return (
            f"Istio {self.rules.release}, {self.mode}: {self.step.name}\n"
            f"changed for istiod: {', '.join(self.keys) or 'nothing'}\n"
            f"{pushed} of {proxies} proxies pushed, {responses} responses, {amount(size)}; {proxies - pushed} spared"
        )

    @property
    def keys(self) -> tuple[str, ...]:
        """What istiod says has changed: `Kind name (namespace)`, or `everything`; empty if nothing is pushed."""
        request = self.step.request
        if request is not None and request.everything(self.rules):
            return ("everything",)
        return tuple(str(key) for key in sorted(request.keys)) if request else ()

    @property
    def proven(self) -> bool:
        """The release was checked against recordings."""
        return self.rules.release in releases.RECORDED

    @property
    def pushed(self) -> tuple[Group, ...]:
        """The groups that get something."""
        return tuple(group for group in self.groups if group.types)

    @property
    def spared(self) -> tuple[Group, ...]:
        """The groups that get nothing."""
        return tuple(group for group in self.groups if not group.types)

    def to_json(self) -> dict[str, Any]:
        """The recordings' format with one step."""
        return {
            "istio": self.rules.release,
            "mode": self.mode,
            "connect": {},
            "steps": [step_record(self.step, self.pricing)],
        }

    def outcome(self, proxy: str) -> Outcome | None:
        """What one proxy (`POD.NAMESPACE`) got, None if there is no such proxy."""
        return next((o for o in self.step.outcomes for p in o.members if p.id == proxy), None)

    def explain(self, proxy: str) -> list[str]:
        """One proxy's whole reasoning, a sentence a line.

        Raises:
            InputError: no such proxy; a KeyError, too.
        """
        outcome = self.outcome(proxy)
        if outcome is None:
            raise not_there(proxy, [each.id for o in self.step.outcomes for each in o.members], "proxy")
        state = outcome.plan.state
        lines = [f"{proxy} is a {state.proxy.type} with the scope: {state.scope}"]
        if state.previous is not None and str(state.previous) != str(state.scope):
            lines.append(f"before, its scope was: {state.previous}")
        if state.targets:
            hosts = sorted({t.service.hostname for t in state.targets})
            lines.append(f"it belongs to: {', '.join(hosts)}")
        for key in sorted(self.step.request.keys) if self.step.request else ():
            affects, why = key_affects(state.view, key)
            lines.append(f"{'+' if affects else '-'} {key}: {why}")
        verdict = "needs the push" if outcome.plan.decision.needed else "does not need the push"
        lines.append(f"so it {verdict}: {'; '.join(outcome.plan.decision.why)}")
        for response in recorded(outcome, self.pricing):
            lines.append(
                f"{response['xds']}{' (asked for)' if response['solicited'] else ''}: "
                f"{response['resources']} resources, {response['size_bytes']} bytes: {_shortened(response['names'])}"
                + (f"; removed: {_shortened(response['removed_names'])}" if response["removed_names"] else "")
            )
        if reason := spared(outcome):
            lines.append(f"spared: {reason}")
        return lines


def _shortened(names: list[str], most: int = 12) -> str:
    shown = ", ".join(names[:most])
    return f"{shown}, … ({len(names)} in all)" if len(names) > most else shown


@few_collections()
def preview(mesh: Mesh, change: Change, *, release: str = releases.NEWEST, mode: Mode | None = None) -> Preview:
    """Which proxies a change pushes, with what, and why; nothing is applied anywhere.

    Args:
        mesh: what there is, with its proxies, mesh config and environment.
        change: the objects written and deleted together.
        release: an Istio release, minor or patch.
        mode: sotw or delta; None for what that release's agent uses.

    Raises:
        InputError: the release or mode is not known.
    """
    rules = releases.rules(release)
    conversation = Conversation(mesh, rules, mode, [change], answered=False)
    used = conversation.istiod.mode
    pricing = Pricing(mesh.after(change), rules, used)
    step = conversation.step(change)
    groups: dict[tuple[Any, ...], list[Proxy]] = {}
    for outcome in step.outcomes:
        types = tuple(
            PushedType(r.xds, r.count, len(r.removed), pricing.size(r, state, push), r.solicited)
            for r, state, push in outcome.responses()
        )
        why = outcome.plan.decision.why if types else (spared(outcome),)
        key = (types, why, outcome.members[0].type)
        groups.setdefault(key, []).extend(outcome.members)
    made = [Group(tuple(proxies), types, why) for (types, why, _), proxies in groups.items()]
    made.sort(key=lambda g: (-g.size_bytes * len(g.proxies), g.proxies[0].namespace, g.proxies[0].name))
    return Preview(rules, used, step, tuple(made), conversation, pricing)


def preview_case(case: Case, *, release: str, mode: Mode | None = None) -> Mapping[str, Any]:
    """All steps of a case file, in the recordings' format.

    Raises:
        InputError: the release or mode is not known.
    """
    rules = releases.rules(release)
    return recording(case, rules, mode or rules.agent_mode)
