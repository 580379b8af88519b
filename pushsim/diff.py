"""What an upgrade of istiod changes: for one change, proxy by proxy and with the rule behind it; for a whole scenario.

>>> from pushsim.mesh import Mesh, Change
>>> diff_releases(Mesh(), Change(), "1.14", "1.24").shifts
()
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pandas as pd

from pushsim import releases
from pushsim.collecting import few_collections
from pushsim.conversation import Conversation, Outcome
from pushsim.errors import InputError, Problem
from pushsim.given import Asked, loaded
from pushsim.mesh import Change, Mesh, Mode, Proxy
from pushsim.preview import Preview, PushedType, preview
from pushsim.releases import RuleDifference, Rules, differences
from pushsim.result import Results
from pushsim.runs import run
from pushsim.workers import Progress, Share

#: What of a response must be equal for a proxy to count as getting the same: type, solicited, resources, removed.
Shape = tuple[str, bool, int, int]


@dataclass(frozen=True, slots=True)
class Side:
    """What the proxies of a shift get on one of the releases.

    types: as the first of them gets them. size_bytes: to all of them. why: the rule in words, as it is for the first.
    """

    types: tuple[PushedType, ...]
    size_bytes: int
    why: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shift:
    """Proxies to which an upgrade makes the same difference. `rules`: those without which it makes none (or another).

    Empty `rules`: several make it together.
    """

    proxies: tuple[Proxy, ...]
    before: Side
    after: Side
    rules: tuple[RuleDifference, ...]


@dataclass(frozen=True)
class ReleaseDiff:
    """The answer of `diff_releases`: the same change on both releases, and where they part, the most proxies first."""

    old: Preview
    new: Preview
    shifts: tuple[Shift, ...]

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return {
            "from": _told(self.old),
            "to": _told(self.new),
            "shifts": [
                {
                    "proxies": [proxy.id for proxy in shift.proxies],
                    "type": shift.proxies[0].type,
                    "from": _side(shift.before),
                    "to": _side(shift.after),
                    "rules": [
                        {"rule": r.field, "said": str(r), "about": r.about, "since": r.since, "pulls": list(r.pulls)}
                        for r in shift.rules
                    ],
                }
                for shift in self.shifts
            ],
        }


def diff_releases(
    mesh: Mesh, change: Change, old: str, new: str, *, mode: Mode | None = None, progress: Share | None = None
) -> ReleaseDiff:
    """What a change pushes on one release and not, or otherwise, on another.

    Each rule in which they differ is put back alone on the new release; those that then give a proxy something else are
    the reason for its difference.

    Args:
        mesh, change: as for `preview`.
        old, new: two Istio releases, minor or patch.
        mode: the xDS mode on both; None for what each release's agent uses, which then is one of the rules.
        progress: told the share done.

    Raises:
        InputError: a release is not known.
    """
    told = progress or (lambda _: None)
    before = preview(mesh, change, release=old, mode=mode)
    after = preview(mesh, change, release=new, mode=mode)
    sides = _sides(before), _sides(after)
    differing = [id for id in sides[0] if _shapes(sides[0][id][1].types) != _shapes(sides[1][id][1].types)]
    candidates = [rule for rule in differences(before.rules, after.rules) if not mode or rule.field != "agent_mode"]
    reasons: dict[str, list[RuleDifference]] = {id: [] for id in differing}
    for number, rule in enumerate(candidates if differing else ()):
        told((2 + number) / (2 + len(candidates)))
        reverted = _shapes_of(mesh, change, replace(after.rules, **{rule.field: rule.before}), mode)
        for id in differing:
            if reverted[id] != _shapes(sides[1][id][1].types):
                reasons[id].append(rule)
    merged: dict[tuple[Any, ...], list[str]] = {}
    for id in differing:
        types = (_shapes(side[id][1].types) for side in sides)
        merged.setdefault((sides[0][id][0].type, *types, tuple(rule.field for rule in reasons[id])), []).append(id)
    shifts = []
    for ids in merged.values():
        proxies = tuple(sides[0][id][0] for id in ids)
        shifts.append(Shift(proxies, _summed(sides[0], ids), _summed(sides[1], ids), tuple(reasons[ids[0]])))
    shifts.sort(key=lambda shift: (-len(shift.proxies), shift.proxies[0].id))
    told(1.0)
    return ReleaseDiff(before, after, tuple(shifts))


def _sides(answer: Preview) -> dict[str, tuple[Proxy, Side]]:
    """By proxy id, what one such proxy gets."""
    return {
        proxy.id: (proxy, Side(group.types, group.size_bytes, group.why))
        for group in answer.groups
        for proxy in group.proxies
    }


def _summed(sides: Mapping[str, tuple[Proxy, Side]], ids: list[str]) -> Side:
    """The first one's side, with the bytes of all."""
    return replace(sides[ids[0]][1], size_bytes=sum(sides[id][1].size_bytes for id in ids))


def _shapes(types: tuple[PushedType, ...]) -> tuple[Shape, ...]:
    return tuple(sorted((t.xds, t.solicited, t.resources, t.removed) for t in types))


@few_collections()
def _shapes_of(mesh: Mesh, change: Change, rules: Rules, mode: Mode | None) -> dict[str, tuple[Shape, ...]]:
    step = Conversation(mesh, rules, mode, [change], answered=False).step(change)
    return {proxy.id: _shape(outcome) for outcome in step.outcomes for proxy in outcome.members}


def _shape(outcome: Outcome) -> tuple[Shape, ...]:
    return tuple(sorted((r.xds, r.solicited, r.count, len(r.removed)) for r in outcome.plan.responses))


def _told(answer: Preview) -> dict[str, Any]:
    return {"release": answer.rules.release, "mode": answer.mode, "proven": answer.proven, "keys": list(answer.keys)}


def _side(side: Side) -> dict[str, Any]:
    types = [
        {"xds": t.xds, "resources": t.resources, "removed": t.removed, "solicited": t.solicited} for t in side.types
    ]
    return {"types": types, "size_bytes": side.size_bytes, "why": list(side.why)}


# ---- a whole scenario


@dataclass(frozen=True)
class ScenarioDiff:
    """The answer of `diff_scenario`.

    results: a variant for each release, named by it. rules: all in which they differ.
    """

    results: Results
    rules: tuple[RuleDifference, ...]

    def counts(self) -> pd.DataFrame:
        """By proxy type and what is counted (pushes, responses of a type, bytes), a column for each release."""
        kinds = self.results.proxies.set_index(["variant", "group"])["type"]
        rows = self.results.frame("rows", ["group", "proxies", "xds", "size_bytes"])
        rows["type"] = kinds.reindex(pd.MultiIndex.from_frame(rows[["variant", "group"]])).to_numpy()
        rows["bytes"] = rows["proxies"] * rows["size_bytes"]
        pushes = self.results.proxies.groupby(["type", "variant"])["proxy_pushes"].sum().unstack("variant")
        sent = rows.groupby(["type", "xds", "variant"])["proxies"].sum().unstack("variant")
        size = rows.groupby(["type", "variant"])["bytes"].sum().unstack("variant")
        parts = {(kind, "proxy pushes"): pushes.loc[kind] for kind in pushes.index}
        parts |= {(kind, f"{xds} responses"): sent.loc[kind, xds] for kind, xds in sent.index}
        parts |= {(kind, "bytes sent"): size.loc[kind] for kind in size.index}
        found = pd.DataFrame.from_dict(parts, orient="index").reindex(columns=list(self.results))
        found = found.fillna(0).astype("int64")
        found.index = pd.MultiIndex.from_tuples(found.index, names=["type", "counted"])
        return found.sort_index(level="type", sort_remaining=False, ascending=False)

    def to_json(self) -> dict[str, Any]:
        """The same as plain values, and each release's SUMMARY."""
        counted = self.counts()
        return {
            "counts": [
                {key: value if isinstance(value, str) else int(value) for key, value in row.items()}
                for row in counted.reset_index().to_dict("records")
            ],
            "rules": [{"rule": r.field, "said": str(r), "about": r.about, "pulls": list(r.pulls)} for r in self.rules],
            "variants": {name: result.summary for name, result in self.results.items()},
        }


def diff_scenario(
    scenario: Asked, old: str, new: str, *, variant: str | None = None, progress: Progress | None = None
) -> ScenarioDiff:
    """The same workload on two releases: what each kind of proxy is pushed more or less.

    Args:
        scenario: its `istiod.release` is replaced; a mode or calibration that it names is kept.
        old, new: two Istio releases, minor or patch.
        variant: one of the scenario's, or a policy; None for the first.
        progress: as for `simulate`, told the release.

    Raises:
        InputError: a release or variant is not known, or both releases are one.
    """
    scenario = loaded(scenario)
    names = {releases.rules(name).release: name for name in (old, new)}
    if len(names) < 2:
        raise InputError(Problem(f"{old} and {new} are one release, {next(iter(names))}", remedy="give two"))
    name = variant or scenario.variant_names[0]
    found = {}
    for release, given in names.items():
        told = partial(progress, given) if progress else None
        found[release] = replace(run(scenario.replaced({"istiod.release": given}), name, progress=told), variant=given)
        if not found[release].complete:
            break
    rules: Mapping[str, Rules] = {given: releases.rules(given) for given in (old, new)}
    return ScenarioDiff(Results(found.values(), scenario.question), differences(rules[old], rules[new]))


__all__ = ["ReleaseDiff", "ScenarioDiff", "Shift", "Side", "diff_releases", "diff_scenario"]
