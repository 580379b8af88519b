"""In which rules two releases differ: what each is about, since when, and the pull request that changed it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

from pushsim.releases.lookup import KNOWN, order
from pushsim.releases.switches import Rules

_ABOUT = re.compile(r"^ {8}((?:\w+, )*\w+): (.+(?:\n {12}.+)*)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class RuleDifference:
    """One field of `Rules` that two releases have otherwise.

    field, before, after: its name, and its values in the two.
    about: what it decides, in words. pulls: pull requests of istio/istio that changed it, "#42422".
    since: the first known release, on the way from the older to the newer, that has it as the newer ("" for none).
    """

    field: str
    before: Any
    after: Any
    about: str
    pulls: tuple[str, ...]
    since: str

    def __str__(self) -> str:
        pulls = "".join(f", {pull}" for pull in self.pulls)
        return (
            f"{self.field}, {_values(self.before, self.after)}{f' (since {self.since}{pulls})' if self.since else ''}"
        )


def differences(old: Rules, new: Rules) -> tuple[RuleDifference, ...]:
    """The rules in which two releases differ, in the order of a push; what tells them apart by name alone is none."""
    low, high = sorted((old.release, new.release), key=order)
    between = [known for known in KNOWN if order(low) < order(known) <= order(high)]
    found = []
    for field in fields(Rules):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if field.name in ("release", "flags") or before == after:
            continue
        changed = after if low == old.release else before
        since = next((known for known in between if getattr(KNOWN[known], field.name) == changed), "")
        about = abouts()[field.name]
        pulls = tuple(dict.fromkeys(re.findall(r"#\d+", about)))
        found.append(RuleDifference(field.name, before, after, about, pulls, since))
    return tuple(found)


@cache
def abouts() -> Mapping[str, str]:
    """What each field of `Rules` is about: its entry in the docstring."""
    entries = _ABOUT.findall(Rules.__doc__ or "")
    return {name: " ".join(text.split()) for names, text in entries for name in names.split(", ")}


def _values(before: Any, after: Any) -> str:
    if isinstance(before, frozenset) and isinstance(after, frozenset):
        changes = [*(f"+{name}" for name in sorted(after - before)), *(f"-{name}" for name in sorted(before - after))]
        return " ".join(changes)
    return f"{_value(before)} → {_value(after)}"


def _value(value: Any) -> str:
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
