"""Conditions on a SUMMARY: `--fail-on`, `--slo`. `[VARIANT:]PATH OP NUMBER[unit]` or `increase([VARIANT:]PATH) OP N%`.

An absent figure meets no condition: where nothing was pushed there is no P99 to be too long.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from pushsim.errors import InputError, Problem, meant
from pushsim.figures import number_at, numbers
from pushsim.mesh import XDS
from pushsim.problems import nearest
from pushsim.units import SECOND_NS, UnitError, duration, quantity

Summaries = Mapping[str, Mapping[str, Any]]

_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_FORM = re.compile(
    r"\s*(?P<increase>increase\s*\(\s*)?(?:(?P<variant>[^()]+?)\s*:\s*)?(?P<path>[\w-]+(?:\.[\w-]+)*)\s*(?P<close>\))?\s*"
    r"(?P<op><=|>=|==|!=|<|>)\s*(?P<number>[-+]?[\w.]+)\s*(?P<percent>%)?\s*"
)
_REMEDY = "write [VARIANT:]PATH OP NUMBER[unit] or increase([VARIANT:]PATH) OP N%, like converged_s.p99 > 5s"

_ALWAYS = (
    "changes", "merged_pushes", "proxy_pushes", "proxies_considered", "fan_out_mean",
    *(f"{of}responses.{xds}" for of in ("", "connect.") for xds in XDS),
    "bytes_sent", "span_s", "bytes_sent_per_s", "istiod_cpu_cores.mean",
    *(f"istiod_{kind}_bytes.{q}" for kind in ("memory", "heap") for q in ("mean", "max")),
    "queue_longest", "debounces_held_to_max", "reconnects", "streams_refused", "connect.seconds",
    "connect.connections", "connect.streams_refused", "connect.bytes_sent", "connect.istiod_cpu_s",
    *(f"histograms.pilot_{name}.sum" for name in ("proxy_convergence_time", "proxy_queue_time", "debounce_time")),
)  # fmt: skip
#: Figures of every SUMMARY (formats.md) that a run without pushes or gateways does not have.
SOMETIMES_ABSENT = frozenset(
    {
        *(f"converged_s.{q}" for q in ("p50", "p90", "p99", "max", "mean")),
        *(f"converged_prometheus_s.{q}" for q in ("p50", "p90", "p99")),
        *(
            f"{name}.{q}"
            for name in ("received_s", "completed_s", "reconnected_s")
            for q in ("p50", "p90", "p99", "max")
        ),
        *(f"{name}.{q}" for name in ("queued_s", "debounced_s") for q in ("p50", "p99", "max")),
        *(f"{kind}_memory_bytes.{q}" for kind in ("sidecar", "gateway") for q in ("mean", "p99", "max")),
        "sidecar_cpu_cores.mean",
        "gateway_cpu_cores.mean",
        "istiod_cpu_cores.p99",
        "rejects",
    }
)


@dataclass(frozen=True, slots=True)
class Threshold:
    """One condition.

    text:     as written.
    variant:  "" for every variant.
    increase: the value is the rise over the baseline, in percent.
    """

    text: str
    variant: str
    path: str
    op: str
    number: float
    increase: bool = False

    def holds(self, value: float) -> bool:
        return _OPERATORS[self.op](value, self.number)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a threshold finds in one variant. value: None if it has no such figure; `met`: the condition holds."""

    threshold: Threshold
    variant: str
    value: float | None
    met: bool

    def __str__(self) -> str:
        """One line: `root-sidecar: converged_s.p99 is 6.2 (converged_s.p99 > 5)`."""
        threshold = self.threshold
        if self.value is None:
            return f"{self.variant}: has no {threshold.path} ({threshold.text})"
        if threshold.increase:
            told = f"rose by {self.value:.4g} %" if self.value >= 0 else f"fell by {-self.value:.4g} %"
        else:
            told = f"is {self.value:.6g}"
        return f"{self.variant}: {threshold.path} {told} ({threshold.text})"


def parse(text: str, option: str = "--fail-on") -> Threshold:
    """The threshold in that text. Raises InputError."""
    found = _FORM.fullmatch(text)
    if found is None or bool(found["increase"]) != bool(found["close"]):
        raise InputError(Problem(f"{text!r} is no condition", field=option, remedy=_REMEDY))
    increase = bool(found["increase"])
    if bool(found["percent"]) != increase:
        remedy = "an increase is compared with a percentage, everything else with an amount"
        raise InputError(Problem(f"{text!r} is no condition", field=option, remedy=remedy))
    try:
        number = _number(found["number"], found["path"])
    except UnitError:
        remedy = "write a number, a duration like 5s or a quantity like 300M or 512Mi"
        raise InputError(
            Problem(f"{found['number']!r} in {text!r} is no amount", field=option, remedy=remedy)
        ) from None
    return Threshold(text.strip(), found["variant"] or "", found["path"], found["op"], number, increase)


def _number(text: str, path: str) -> float:
    """The amount, in the unit of the path's name: `5m` is five minutes of a `_s`, and 0.005 of anything else."""
    sign, amount = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    timed = any(part.endswith("_s") and not part.endswith("_per_s") for part in path.split("."))
    if timed and not amount[-1:].isdigit():
        return float(sign * Fraction(duration(amount), SECOND_NS))
    return float(sign * quantity(amount))


def judge(
    thresholds: Iterable[Threshold],
    summaries: Summaries,
    baseline: Summaries | None = None,
    option: str = "--fail-on",
) -> list[Verdict]:
    """Every threshold in every variant it is about, in order.

    baseline: SUMMARYs to take increases against, by variant; one that has only one variant stands for all. Without it,
    increases are against the first variant, which has none itself.

    Raises InputError, with the known ones, for a path or variant that there is not.
    """
    known = {name: [path for path, _ in numbers(summary)] for name, summary in summaries.items()}
    check(conditions := list(thresholds), known, baseline, option)
    verdicts: list[Verdict] = []
    for threshold in conditions:
        for name in [threshold.variant] if threshold.variant else summaries:
            value = number_at(summaries[name], threshold.path)
            if threshold.increase:
                before = _before(name, summaries, baseline)
                if before is None:
                    continue
                value = increase(number_at(before, threshold.path), value)
            verdicts.append(Verdict(threshold, name, value, value is not None and threshold.holds(value)))
    return verdicts


def check(
    thresholds: Iterable[Threshold],
    known: Mapping[str, Iterable[str]],
    baseline: Summaries | None = None,
    option: str = "--fail-on",
) -> None:
    """Raises InputError, with the known ones, for a condition on a variant or figure that there is not.

    known:    paths of figures by variant, the first being what increases are taken against without a baseline:
              of SUMMARYs, or, before there are any, `expected`.
    baseline: SUMMARYs of a baseline, by variant: it must have what an increase is taken of, lest a gate hold for ever.
    """
    problems: list[Problem] = []

    def wrong(message: str, remedy: str) -> None:
        problems.append(Problem(message, field=option, remedy=remedy))

    for threshold in thresholds:
        names = [threshold.variant] if threshold.variant else list(known)
        if threshold.variant and threshold.variant not in known:
            wrong(f"there is no variant {threshold.variant!r}", nearest(threshold.variant, known, "variants"))
            continue
        if len(known) == 1 and (threshold.path.startswith("breaks.") or (threshold.increase and baseline is None)):
            message = f"{threshold.text!r} compares variants, and there is one"
            wrong(message, "give another policy before it, like none")
            continue
        paths = list(dict.fromkeys(path for name in names for path in known[name]))
        if threshold.path not in paths and threshold.path not in SOMETIMES_ABSENT:
            remedy = f"{meant(threshold.path, paths)} known: {', '.join(paths)}".lstrip()
            wrong(f"there is no figure {threshold.path!r}", remedy)
        elif threshold.increase and baseline is None and threshold.variant == next(iter(known)):
            message = f"{threshold.variant} is the first, which increases are taken against"
            wrong(message, "give --baseline, or name another variant")
        elif threshold.increase and baseline is not None and len(baseline) != 1:
            remedy = f"it holds {', '.join(baseline)}; name one of them: increase(VARIANT:PATH)"
            for name in names:
                if name not in baseline:
                    wrong(f"the baseline has no variant {name!r}", remedy)
        if threshold.increase and baseline is not None and threshold.path not in SOMETIMES_ABSENT:
            for name in names:
                before = _before(name, {}, baseline) if name in baseline or len(baseline) == 1 else None
                if before is not None and threshold.path in known[name] and number_at(before, threshold.path) is None:
                    wrong(f"the baseline has no number {threshold.path!r} of {name}", "write the baseline anew")
    if problems:
        raise InputError(problems)


def expected(sources: Iterable[str], *, compared: bool = False) -> list[str]:
    """Paths of the figures that a simulated SUMMARY may have; a test holds them to be what it has.

    sources:  of churn. compared: `compare` adds what breaks, and what it costs.
    """
    costs = ("proxy_pushes", "bytes_sent", "istiod_cpu_s")
    churn = [f"churn.{name}.{of}" for name in sources for of in ("changes", *costs, *(f"saves.{c}" for c in costs))]
    more = ("breaks.calls", "breaks.routes", "breaks.all", "cross_zone_share", "money.per_month") if compared else ()
    return [*_ALWAYS, *sorted(SOMETIMES_ABSENT), *churn, *more]


def _before(name: str, summaries: Summaries, baseline: Summaries | None) -> Mapping[str, Any] | None:
    """What a variant's increase is against; None for the first, where that is what all are compared with."""
    if baseline is None:
        first, *_ = summaries
        return None if name == first else summaries[first]
    return baseline[name] if name in baseline else next(iter(baseline.values()))


def increase(before: float | None, now: float | None) -> float | None:
    """By how many percent a figure rose; infinite from nothing to something, None if one is not known."""
    if before is None or now is None:
        return None
    if before == 0:
        return 0.0 if now == 0 else float("inf")
    return 100 * (now - before) / before


def failures(verdicts: Sequence[Verdict]) -> str:
    """The reasons of those that are met, on one line; "" if none is."""
    return "; ".join(str(verdict) for verdict in verdicts if verdict.met)
