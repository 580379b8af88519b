"""What a sweep varies, and the runs that come of it.

A knob is an environment variable of istiod (PILOT_DEBOUNCE_AFTER), a field of the scenario by its dotted path
(`churn.rollout.rate`), a field of its `istiod` section by its bare name (`replicas`, `cpus`, `release`), or `policy`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pushsim import __version__, policies
from pushsim.errors import MOST_RUNS, InputError, Problem, at_least_one
from pushsim.problems import nearest
from pushsim.scenario import Scenario

POLICY = "policy"
#: Fields of the `istiod` section that go by their bare names.
SHORT = ("replicas", "cpus", "release", "profile")
#: What to do about more than anybody waits for.
_FEWER = f"give fewer: {MOST_RUNS:,} at most"


@dataclass(frozen=True)
class Point:
    """One run: the scenario with its knobs set, under a policy, with a seed.

    key: 16 hex digits: what the answer hangs on (scenario, policy, version); runs of equal keys are equal.
    """

    key: str
    knobs: Mapping[str, str]
    policy: str
    seed: int
    scenario: Scenario

    @property
    def name(self) -> str:
        """For progress and errors: `policy=none, PILOT_DEBOUNCE_AFTER=1s, seed 3`."""
        parts = {POLICY: self.policy, **self.knobs}
        return ", ".join([*(f"{name}={value}" for name, value in parts.items()), f"seed {self.seed}"])


def parse_vary(texts: Sequence[str]) -> dict[str, list[str]]:
    """`NAME=a,b,c` and `NAME=1..5` as knobs and their values. Raises InputError.

    >>> parse_vary(["replicas=1..3", "PILOT_DEBOUNCE_AFTER=50ms,1s"])
    {'replicas': ['1', '2', '3'], 'PILOT_DEBOUNCE_AFTER': ['50ms', '1s']}
    """
    found: dict[str, list[str]] = {}
    for text in texts:
        name, sign, values = text.partition("=")
        if not (name.strip() and sign and values.strip()):
            raise InputError(
                Problem(f"{text!r} varies nothing", field="--vary", remedy="write NAME=a,b,c or NAME=1..5")
            )
        if name.strip() in found:
            raise InputError(
                Problem(f"{name.strip()} is varied twice", field="--vary", remedy="give all values at once")
            )
        found[name.strip()] = [one for part in values.split(",") for one in _range(part.strip())]
    return found


def _range(text: str) -> list[str]:
    ends = re.fullmatch(r"(\d+)\.\.(\d+)", text)
    if not ends:
        return [text]
    low, high = int(ends[1]), int(ends[2])
    if low > high:
        raise InputError(Problem(f"{text!r} is no range", field="--vary", remedy="write the lower end first"))
    if high - low >= MOST_RUNS:
        raise InputError(Problem(f"{text!r} is {high - low + 1:,} values", field="--vary", remedy=_FEWER))
    return [str(number) for number in range(low, high + 1)]


def grid(scenario: Scenario, vary: Mapping[str, Sequence[Any]], seeds: int = 1) -> list[Point]:
    """All runs: every combination of the values, with the scenario's seed and the next ones; seeds vary slowest.

    Without a `policy` among the knobs, all variants of the scenario are run. Raises InputError, before anything is
    run, if a knob or value is none.
    """
    at_least_one(seeds, "seeds")
    texts = {name: [_text(value) for value in values] for name, values in vary.items()}
    policies_ = texts.pop(POLICY, list(scenario.variant_names))
    for name, values in {**texts, POLICY: policies_}.items():
        if len(set(values)) != len(values) or not values:
            raise InputError(Problem(f"{name} has the same value twice, or none", field="--vary"))
    runs = seeds * math.prod(map(len, (policies_, *texts.values())))
    if runs > MOST_RUNS:
        raise InputError(Problem(f"would be {runs:,} runs", field="--vary", remedy=_FEWER))
    points = []
    for seed in range(scenario.seed, scenario.seed + seeds):
        for chosen in _combinations(texts):
            varied = scenario.replaced(_values(scenario, chosen) | {"seed": seed})
            for policy in policies_:
                points.append(Point(_key(varied, policy), chosen, policy, seed, varied))
    return points


def _combinations(texts: Mapping[str, Sequence[str]]) -> Iterator[dict[str, str]]:
    for values in itertools.product(*texts.values()):
        yield dict(zip(texts, values, strict=True))


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _values(scenario: Scenario, chosen: Mapping[str, str]) -> dict[str, Any]:
    """The fields to set for these knobs."""
    values: dict[str, Any] = {}
    env: dict[str, Any] = {}
    for name, text in chosen.items():
        if re.fullmatch(r"[A-Z][A-Z0-9_]*", name):
            env[name] = text
        elif name in SHORT:
            values[f"istiod.{name}"] = text if name in ("release", "profile") else _plain(text)
        elif "." in name or "[" in name or name in ("duration", "warmup"):
            values[name] = text if name.endswith("release") else _plain(text)
        else:
            known = [*SHORT, POLICY, "PILOT_DEBOUNCE_AFTER", "PILOT_PUSH_THROTTLE"]
            remedy = f"{nearest(name, known, 'knobs')}; or give a field's dotted path"
            raise InputError(Problem(f"there is no knob {name!r}", field="--vary", remedy=remedy))
    if env:
        values["istiod.env"] = {**scenario.value("istiod.env"), **env}
    return values


def _plain(text: str) -> Any:
    """A number where it is one, else the text: durations, rates and quantities are text in scenarios, too."""
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text, text)


def _key(scenario: Scenario, policy: str) -> str:
    resolved = policies.resolve(policy, scenario)  # what a policy's text stands for may be a file
    told = [scenario.id, policy, resolved.model_dump(mode="json"), _objects(resolved), __version__]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _objects(policy: Any) -> Any:
    """What a `files` policy installs, at any depth: it is left out of the dump."""
    if hasattr(policy, "parts"):
        return [_objects(part) for part in policy.parts]
    return [held.body for held in getattr(policy, "objects", ())]
