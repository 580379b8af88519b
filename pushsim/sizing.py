"""The smallest istiod that keeps a promise: replicas × cores × memory, and memory of proxies with its risk."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pushsim.errors import InputError, Problem, at_least_one, within
from pushsim.figures import number_at
from pushsim.runs import Engine, summaries
from pushsim.scenario import Scenario
from pushsim.settings import MOST_REPLICAS
from pushsim.thresholds import Threshold, check, expected, judge
from pushsim.workers import Progress, Share, side_by_side

#: Cores of a replica that are tried, as clouds and clusters deal them out.
CORES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
#: Memory is asked for in multiples of this.
STEP_BYTES = 16 * 2**20
#: How many standard deviations of a normal an interval of `bounds` reaches to each side: it is taken for 95 %.
_REACH = 1.959964

Summary = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of one kind of container.

    request:   what its 99th percentile (istiod: its highest) takes, rounded up.
    limit:     the smallest that is run over with at most the risk that was asked for.
    over_request, over_limit: probability that the largest container takes more than that.
    """

    request_bytes: int
    limit_bytes: int
    over_request: float
    over_limit: float


@dataclass(frozen=True, slots=True)
class Size:
    """What one policy needs. `met` is False if nothing that was tried keeps the promise: then it is the largest tried.

    tried: (replicas, cores of each, whether it kept the promise), in order.
    memory: by `istiod`, `sidecar`, `gateway`.
    """

    policy: str
    met: bool
    replicas: int
    cpus: float
    memory: Mapping[str, Memory]
    figures: Mapping[str, float | None]
    tried: tuple[tuple[int, float, bool], ...]

    @property
    def cores(self) -> float:
        """Of all replicas."""
        return self.replicas * self.cpus


def over(value: float, low: float, high: float, limit: float) -> float:
    """Probability that an amount is above a limit: lognormal around the estimate, its bounds taken for 95 %."""
    if value <= 0:
        return 0.0
    spread = math.log(high / low) / (2 * _REACH) if 0 < low < high else 0.0
    if spread == 0:
        return float(value > limit)
    return 0.5 * math.erfc((math.log(limit) - math.log(value)) / spread / math.sqrt(2))


def memory_of(kind: str, summaries: Sequence[Summary], risk: float) -> Memory | None:
    """Request and limit for a kind of container, by the worst of the seeds; None if there is none of it."""
    worst: tuple[float, float, float, float] | None = None
    for summary in summaries:
        most = number_at(summary, f"{kind}_memory_bytes.max")
        if most is None:
            continue
        low, high = (summary.get("bounds") or {}).get(f"{kind}_memory_bytes.max") or (most, most)
        usual = number_at(summary, f"{kind}_memory_bytes.p99") or most
        worst = max(worst or (0.0, 0.0, 0.0, 0.0), (most, low, high, usual))
    if worst is None:
        return None
    most, low, high, usual = worst
    request = STEP_BYTES * math.ceil(usual / STEP_BYTES)
    limit = max(request, STEP_BYTES * math.ceil(most / STEP_BYTES))
    while over(most, low, high, limit) > risk:
        limit += STEP_BYTES
    return Memory(request, limit, over(most, low, high, request), over(most, low, high, limit))


def smallest(
    keeps: Callable[[int, float], bool], *, max_replicas: int, max_cpus: float, min_replicas: int = 1
) -> tuple[int, float] | None:
    """The (replicas, cores of each) with the fewest cores in all that keeps the promise; of equals, fewest replicas.

    More cores never hurt, so for each number of replicas the most cores are tried first (if they do not keep it,
    nothing less does), then the fewest are found by halving; what could not be smaller than the best so far is not
    tried. None if nothing keeps it.
    """
    ladder = [cores for cores in CORES if cores <= max_cpus] or [max_cpus]
    best: tuple[float, int, float] | None = None
    for replicas in range(min_replicas, max_replicas + 1):
        worth = [cores for cores in ladder if best is None or replicas * cores < best[0]]
        if not worth:
            break
        if not keeps(replicas, worth[-1]):
            continue
        low, high = 0, len(worth) - 1  # the answer is in worth[low:high + 1]
        while low < high:
            middle = (low + high) // 2
            if keeps(replicas, worth[middle]):
                high = middle
            else:
                low = middle + 1
        best = (replicas * worth[low], replicas, worth[low])
    return (best[1], best[2]) if best else None


def size(
    scenario: Scenario,
    slo: Sequence[Threshold],
    policies: Sequence[str] = (),
    *,
    seeds: int = 1,
    max_replicas: int = 6,
    max_cpus: float = 32.0,
    min_replicas: int = 1,
    risk: float = 0.01,
    engine: Engine = "auto",
    jobs: int = 1,
    progress: Progress | None = None,
) -> dict[str, Size]:
    """What each policy (default: the scenario's variants) needs so that every condition of the slo holds in every seed.

    Returns sizes by policy; after an interrupt, those that were done. Raises InputError for a condition on a policy or
    figure that there is not, before anything is run.
    """
    at_least_one(seeds, "seeds")
    at_least_one(min_replicas, "min_replicas")
    within(min_replicas, 1, MOST_REPLICAS, "min_replicas")
    within(max_replicas, min_replicas, MOST_REPLICAS, "max_replicas")
    within(max_cpus, 0.1, math.inf, "max_cpus")
    within(risk, 1e-9, 0.5, "risk")
    if not slo:
        raise InputError(Problem("no promise to keep", field="--slo", remedy="write PATH < NUMBER"))
    names = list(dict.fromkeys(policies)) or list(scenario.variant_names)
    if any(condition.increase for condition in slo):
        raise InputError(Problem("an increase is no promise", field="--slo", remedy="write PATH < NUMBER"))
    check(slo, dict.fromkeys(names, expected(scenario.sources)), option="--slo")
    runs = {
        name: (scenario, tuple(slo), name, seeds, (min_replicas, max_replicas, max_cpus), risk, engine)
        for name in names
    }
    return side_by_side(_size, runs, jobs, progress)


def _size(
    scenario: Scenario,
    slo: Sequence[Threshold],
    policy: str,
    seeds: int,
    limits: tuple[int, int, float],
    risk: float,
    engine: Engine,
    progress: Share,
) -> Size:
    min_replicas, max_replicas, max_cpus = limits
    known: dict[tuple[int, float], tuple[list[Summary], bool]] = {}
    likely = 2 + math.ceil(math.log2(len(CORES))) + max_replicas - min_replicas

    def keeps(replicas: int, cpus: float) -> bool:
        if (replicas, cpus) not in known:
            tried = scenario.replaced({"istiod.replicas": replicas, "istiod.cpus": cpus})
            asked = {str(n): (tried.replaced({"seed": tried.seed + n}), policy) for n in range(seeds)}

            def told(seed: str, share: float) -> None:
                progress(min(1.0, (len(known) + (int(seed) + share) / seeds) / likely))

            found = list(summaries(asked, engine=engine, progress=told).values())
            known[replicas, cpus] = found, all(_holds(slo, policy, summary) for summary in found)
        return known[replicas, cpus][1]

    found = smallest(keeps, max_replicas=max_replicas, max_cpus=max_cpus, min_replicas=min_replicas)
    chosen = found or max(known, key=lambda tried: tried[0] * tried[1])
    ran = known[chosen][0]
    memory = {kind: held for kind in ("istiod", "sidecar", "gateway") if (held := memory_of(kind, ran, risk))}
    worst = {condition.path: _worst(condition, ran) for condition in slo}
    tried = tuple((*key, kept) for key, (_, kept) in known.items())
    return Size(policy, found is not None, *chosen, memory, worst, tried)


def _holds(slo: Sequence[Threshold], policy: str, summary: Summary) -> bool:
    """Whether all conditions hold; one on a figure that the run does not have (nothing was pushed) does."""
    wanted = [condition for condition in slo if condition.variant in ("", policy)]
    return all(v.value is None or v.met for v in judge(wanted, {policy: summary}, option="--slo"))


def _worst(condition: Threshold, summaries: Sequence[Summary]) -> float | None:
    values = [value for summary in summaries if (value := number_at(summary, condition.path)) is not None]
    return (max if condition.op.startswith("<") else min)(values) if values else None
