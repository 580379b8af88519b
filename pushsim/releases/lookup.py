"""From a release as people write it (`1.24`, `1.24.3`) to its rules."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from pushsim.errors import InputError, Problem, expected
from pushsim.releases.chain import chain
from pushsim.releases.switches import Rules

#: Every release with rules of its own or recordings, by full name.
KNOWN: Mapping[str, Rules] = MappingProxyType(chain())

#: Releases that recordings in the vectors' format were made of.
RECORDED = frozenset([
    "1.14.6", "1.15.7", "1.16.7", "1.17.8", "1.18.7", "1.19.10", "1.20.8", "1.21.6", "1.22.8", "1.23.6", "1.24.6",
    "1.25.5", "1.26.8", "1.27.9", "1.28.10", "1.29.6", "1.30.3", "1.31.0-alpha.0",
])  # fmt: skip


def order(release: str) -> tuple[int, ...]:
    """Releases in order: a release candidate comes before its release."""
    number, _, stage = release.partition("-")
    stages = {"alpha": 0, "beta": 1, "rc": 2, "": 3}
    name, _, count = stage.partition(".")
    return (*map(int, number.split(".")), stages.get(name, 0), int(count or 0))


MINORS: tuple[str, ...] = tuple(dict.fromkeys(rules.minor for rules in KNOWN.values()))
NEWEST: str = MINORS[-1]


def rules(release: str) -> Rules:
    """The rules of a release: `1.24` is its newest known patch, `1.24.3` the newest known one not after it.

    Raises:
        InputError: the release is not known; the message lists those that are.
    """
    expected(release, str, "a release", "a text", 'write it in quotes: "1.24"')
    if release in KNOWN:
        return KNOWN[release]
    same = [known for known in KNOWN if KNOWN[known].minor == ".".join(release.split(".")[:2])]
    try:
        wanted = order(release) if release.count(".") >= 2 else (9999,)
        fitting = [known for known in same if release.count(".") < 2 or order(known) <= wanted]
    except ValueError:
        fitting = []
    if not fitting:
        number = re.search(r"\d+\.\d+(\.\d+)?", release)  # v1.24, istio-1.24.3
        fits = number and number[0] != release and ".".join(number[0].split(".")[:2]) in MINORS
        near = f"did you mean {number[0]}? " if number and fits else ""
        remedy = f"{near}known: {', '.join(MINORS)}, and patches"
        raise InputError(Problem(f"Istio release {release!r} is not known", remedy=remedy))
    newest = max(fitting, key=order)
    return KNOWN[newest] if release.count(".") < 2 else replace(KNOWN[newest], release=release)


def unproven(release: str) -> str:
    """What to tell of a release that has no recordings, "" of one that has."""
    name = rules(release).release
    said = f"release {name} is not checked against recordings; its rules are read from Istio's source"
    return "" if name in RECORDED else said
