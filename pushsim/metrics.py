"""Istio's histograms, the quantile Prometheus draws from them, exact quantiles, and OpenMetrics in and out.

Names and bounds are those of istiod's own /metrics (reference §4), so that a simulated run can be held beside a real
one. Delays are ns in arrays of samples and seconds in histograms, as Prometheus has them.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from prometheus_client.core import Metric
from prometheus_client.utils import floatToGoString

#: Time from the start of a push, after the debounce, until istiod has sent it to a proxy.
CONVERGED = "pilot_proxy_convergence_time"

#: Upper bounds in seconds; +Inf is implied. pilot/pkg/xds/monitoring.go, unchanged 1.4 to 1.31.
BOUNDS: Mapping[str, tuple[float, ...]] = {
    CONVERGED: (0.1, 0.5, 1, 3, 5, 10, 20, 30),
    "pilot_proxy_queue_time": (0.1, 0.5, 1, 3, 5, 10, 20, 30),
    "pilot_debounce_time": (0.01, 0.1, 1, 3, 5, 10, 20, 30),
    "pilot_pushcontext_init_seconds": (0.01, 0.1, 0.5, 1, 3, 5),
    "pilot_xds_push_time": (0.01, 0.1, 1, 3, 5, 10, 20, 30),
    "pilot_xds_send_time": (0.01, 0.1, 1, 3, 5, 10, 20, 30),
    "pilot_xds_config_size_bytes": (1, 1e4, 1e6, 4e6, 1e7, 4e7),
}

#: A bound as Go writes it: `0.1`, `1.0`, `+Inf`.
_go: Any = floatToGoString

#: So many values are worked on at once.
_PART = 1 << 20


def _narrow(values: NDArray[np.int64]) -> NDArray[np.integer]:
    """The same in as few bytes as all of them fit in."""
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    kinds = (np.uint8, np.uint16, np.uint32)
    return values.astype(next((kind for kind in kinds if low >= 0 and high <= np.iinfo(kind).max), np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class Weighted:
    """Samples by how often each was observed: a hundred million of them need no gigabytes.

    values: ints[n], ascending, distinct; times: ints[n], at least 1; of as few bytes as they need. Its length is that
    of all samples.
    """

    values: NDArray[np.integer]
    times: NDArray[np.integer]

    @classmethod
    def of(cls, values: ArrayLike, times: ArrayLike) -> Weighted:
        """Those of values in any order, some perhaps more than once."""
        every, often = np.asarray(values, dtype=np.int64), np.asarray(times, dtype=np.int64)
        order = np.argsort(every, kind="stable")
        every, often = every[order], often[order]
        first = np.flatnonzero(np.diff(every, prepend=every[:1] - 1))
        return cls(_narrow(every[first]), _narrow(np.add.reduceat(often, first) if first.size else often))

    def plus(self, other: Weighted) -> Weighted:
        """These and others, part by part."""
        edges = self.values[_PART::_PART]
        cuts = (np.searchsorted(values, edges) for values in (self.values, other.values))
        mine, theirs = ([0, *cut.tolist(), None] for cut in cuts)
        parts = []
        for (a, b), (c, d) in zip(pairwise(mine), pairwise(theirs), strict=True):
            values = np.append(self.values[a:b].astype(np.int64), other.values[c:d])
            parts.append(Weighted.of(values, np.append(self.times[a:b], other.times[c:d])))
        return Weighted(np.concatenate([of.values for of in parts]), np.concatenate([of.times for of in parts]))

    def parts(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Values and times, some at once."""
        for at in range(0, len(self.values), _PART):
            yield self.values[at : at + _PART].astype(np.int64), self.times[at : at + _PART].astype(np.int64)

    def __len__(self) -> int:
        return int(self.times.sum())


Samples: TypeAlias = "Sequence[int] | array[int] | Weighted"


@dataclass(frozen=True, slots=True)
class Histogram:
    """A Prometheus histogram: upper bounds, how many observations each bucket has (not cumulative), and their sum.

    counts has one entry more than bounds: those above the last. Histograms of equal bounds can be added and taken from
    each other (a scrape minus an earlier one).
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float = 0.0

    def __post_init__(self) -> None:
        if len(self.counts) != len(self.bounds) + 1 or any(a >= b for a, b in pairwise(self.bounds)):
            raise ValueError("a histogram needs rising bounds and one count more than bounds")

    @classmethod
    def of_ns(cls, bounds: Sequence[float], samples: Samples) -> Histogram:
        """The histogram of delays in ns. A sample on a bound is below it, as in Prometheus."""
        weighted = samples if isinstance(samples, Weighted) else Weighted.of(samples, np.ones(len(samples)))
        edges = np.asarray([round(bound * 1e9) for bound in bounds], dtype=np.int64)
        ends = np.searchsorted(weighted.values, edges, side="right")
        counts = np.diff(np.append(0, np.cumsum(weighted.times))[[0, *ends, -1]])
        return cls(tuple(bounds), tuple(int(count) for count in counts), _sum(weighted) / 1e9)

    @property
    def count(self) -> int:
        """All observations."""
        return sum(self.counts)

    @property
    def mean(self) -> float | None:
        """Sum over count, None without observations."""
        return self.sum / self.count if self.count else None

    @property
    def shares(self) -> tuple[float, ...]:
        """Cumulative share of observations at each bound (0…1); all 0 without observations."""
        total, below, shares = self.count, 0, []
        for count in self.counts[:-1]:
            below += count
            shares.append(below / total if total else 0.0)
        return tuple(shares)

    def quantile(self, q: float) -> float | None:
        """As Prometheus' histogram_quantile estimates it: linear inside the bucket, and the last bound is a ceiling.

        None without observations (NaN there).
        """
        total = self.count
        if not total or math.isnan(q):
            return None
        if not 0 <= q <= 1:
            return -math.inf if q < 0 else math.inf
        rank, place, below = q * total, 0, 0
        while place < len(self.bounds) and below + self.counts[place] < rank:
            below += self.counts[place]
            place += 1
        if place == len(self.bounds):
            return self.bounds[-1] if self.bounds else None
        upper = self.bounds[place]
        if place == 0 and upper <= 0:
            return upper
        lower = self.bounds[place - 1] if place else 0.0
        count = self.counts[place]
        return lower + (upper - lower) * ((rank - below) / count if count else 0.0)

    def __add__(self, other: object) -> Histogram:
        """Both together."""
        return cast(Histogram, self._with(other, 1))

    def __sub__(self, other: object) -> Histogram:
        """What came after `other`, an earlier state of the same histogram."""
        return cast(Histogram, self._with(other, -1))

    def _with(self, other: object, sign: int) -> Any:
        if not isinstance(other, Histogram):
            return NotImplemented
        if other.bounds != self.bounds:
            raise ValueError(f"histograms of different bounds: {self.bounds} and {other.bounds}")
        counts = tuple(a + sign * b for a, b in zip(self.counts, other.counts, strict=True))
        return Histogram(self.bounds, counts, self.sum + sign * other.sum)


def exact_quantile(samples: Samples, q: float) -> int | None:
    """The smallest sample that at least a share q of all samples does not exceed; None without samples."""
    return exact_quantiles(samples, (q,))[0]


def exact_quantiles(samples: Samples, qs: Iterable[float]) -> list[int | None]:
    """`exact_quantile` for several shares at once. q = 1 is the maximum."""
    asked, size = list(qs), len(samples)
    if not size:
        return [None] * len(asked)
    ranks = [_rank(q, size) for q in asked]
    if isinstance(samples, Weighted):
        places = np.searchsorted(np.cumsum(samples.times), ranks, side="right")
        return [int(value) for value in samples.values[places]]
    values = np.asarray(samples, dtype=np.int64)
    ordered = np.partition(values, sorted(set(ranks)))
    return [int(ordered[rank]) for rank in ranks]


def weighted_quantile(values: Sequence[float], weights: Sequence[int], q: float) -> float | None:
    """The smallest value that at least a share q of the total weight does not exceed; None without weight."""
    pairs = sorted((value, weight) for value, weight in zip(values, weights, strict=True) if weight > 0)
    total = sum(weight for _, weight in pairs)
    wanted, below = q * total, 0
    for value, weight in pairs:
        below += weight
        if below >= wanted:
            return value
    return pairs[-1][0] if pairs else None


def _rank(q: float, size: int) -> int:
    # A share such as 0.99 is meant as written: 0.99 of 100 samples are 99, although 0.99 * 100 is a bit less or more.
    return min(size - 1, max(0, math.ceil(round(q * size, 6)) - 1))


def _sum(samples: Weighted) -> int:
    # in two halves, which do not overflow
    return sum(
        (int(((values >> 20) * times).sum()) << 20) + int(((values & 0xFFFFF) * times).sum())
        for values, times in samples.parts()
    )


Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Scrape:
    """One reading of /metrics: values by (name, labels) and histograms by (name, labels); labels are sorted pairs.

    Counters have their full sample name (`pilot_xds_pushes`, whatever `_total` the exposition added).
    """

    values: Mapping[tuple[str, Labels], float]
    histograms: Mapping[tuple[str, Labels], Histogram]

    def __add__(self, other: Scrape) -> Scrape:
        """Two processes' readings as one: counters and histograms added (gauges, too, for what it is worth)."""
        values, histograms = dict(self.values), dict(self.histograms)
        for key, value in other.values.items():
            values[key] = values.get(key, 0.0) + value
        for series, histogram in other.histograms.items():
            held = histograms.get(series)
            histograms[series] = histogram if held is None else held + histogram
        return Scrape(values, histograms)

    def total(self, name: str, **labels: str) -> float:
        """Sum of a metric over all series that carry these labels; 0 if there is none."""
        wanted = set(labels.items())
        return sum(
            value for (metric, has), value in sorted(self.values.items()) if metric == name and wanted <= set(has)
        )

    def histogram(self, name: str, **labels: str) -> Histogram | None:
        """All series of a histogram that carry these labels, added; None if there is none."""
        wanted = set(labels.items())
        found: Histogram | None = None
        for (metric, has), histogram in sorted(self.histograms.items(), key=lambda item: item[0]):
            if metric == name and wanted <= set(has):
                found = histogram if found is None else found + histogram
        return found


def read_openmetrics(text: str) -> Scrape:
    """A /metrics page, as Prometheus' text format or OpenMetrics. ValueError if it is neither."""
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
    from prometheus_client.parser import text_string_to_metric_families as plain

    parse: Any = openmetrics if text.rstrip().endswith("# EOF") else plain
    values: dict[tuple[str, Labels], float] = {}
    buckets: dict[tuple[str, Labels], dict[float, int]] = {}
    sums: dict[tuple[str, Labels], float] = {}
    for family in parse(text):
        for sample in family.samples:
            labels = dict(sample.labels)
            bound = labels.pop("le", None)
            key = (family.name, tuple(sorted(labels.items())))
            if family.type == "histogram":
                if bound is not None:
                    buckets.setdefault(key, {})[float(bound)] = round(sample.value)
                elif sample.name.endswith("_sum"):
                    sums[key] = sample.value
            else:
                # the parsers end each counter in _total, as those of Go and the process do, and istiod's own do not
                own = family.type == "counter" and not family.name.startswith(("go_", "process_"))
                name = family.name if own else sample.name
                values[name, key[1]] = sample.value
    return Scrape(values, {key: _from_cumulative(le, sums.get(key, 0.0)) for key, le in buckets.items()})


def _from_cumulative(at_most: Mapping[float, int], total: float) -> Histogram:
    bounds = sorted(at_most)
    cumulative = [0, *(at_most[bound] for bound in bounds)]
    counts = [after - before for before, after in pairwise(cumulative)]
    finite = tuple(bound for bound in bounds if bound != math.inf)
    if len(finite) == len(bounds):
        counts.append(0)
    return Histogram(finite, tuple(counts), total)


#: Of the metrics that are written: what goes up and down; and counters of istiod that do not end in _total, as
#: OpenMetrics demands of counters. Dashboards ask for istiod's names, so that they are `unknown` there.
_GAUGES = frozenset({"istio_build", "pilot_xds", "process_resident_memory_bytes"})
_COUNTERS = ("pilot_total_xds_rejects", "pilot_xds_pushes")


class _Families:
    """A scrape as prometheus_client's exposition takes it: anything that can be collected."""

    def __init__(self, scrape: Scrape) -> None:
        self.scrape = scrape

    def collect(self) -> Iterator[Metric]:
        """Families in order of name, series in order of labels."""
        for name in sorted({name for name, _ in self.scrape.values}):
            counter = name.endswith("_total")
            family = Metric(
                name.removesuffix("_total"), "", "counter" if counter else "gauge" if name in _GAUGES else "unknown"
            )
            for (metric, labels), value in sorted(self.scrape.values.items()):
                if metric == name:
                    family.add_sample(name, dict(labels), value)
            yield family
        for name in sorted({name for name, _ in self.scrape.histograms}):
            family = Metric(name, "", "histogram")
            for (metric, labels), histogram in sorted(self.scrape.histograms.items(), key=lambda item: item[0]):
                if metric == name:
                    _add(family, dict(labels), histogram)
            yield family


def _add(family: Metric, labels: dict[str, str], histogram: Histogram) -> None:
    below = 0
    for bound, count in zip((*histogram.bounds, math.inf), histogram.counts, strict=True):
        below += count
        family.add_sample(f"{family.name}_bucket", {**labels, "le": str(_go(bound))}, below)
    family.add_sample(f"{family.name}_count", labels, below)
    family.add_sample(f"{family.name}_sum", labels, histogram.sum)


def write_openmetrics(scrape: Scrape) -> str:
    """The same as an OpenMetrics page, series in sorted order, under istiod's own names."""
    from prometheus_client.openmetrics.exposition import generate_latest

    exposed: bytes = cast(Any, generate_latest)(_Families(scrape))
    return exposed.decode()


def write_text(scrape: Scrape) -> str:
    """The same in Prometheus' text format, with the types that istiod's own page says."""
    from prometheus_client.exposition import generate_latest

    text: str = cast(Any, generate_latest)(_Families(scrape)).decode()
    for name in _COUNTERS:
        text = text.replace(f"# TYPE {name} untyped\n", f"# TYPE {name} counter\n")
    return text


def shares(summary: Mapping[str, Any]) -> list[float]:
    """Cumulative shares of converged in a SUMMARY at each of its bounds; empty without samples."""
    histogram = summary.get("histograms", {}).get(CONVERGED)
    total = sum(histogram["counts"]) if histogram else 0
    if not total:
        return []
    below, found = 0, []
    for count in histogram["counts"][: len(BOUNDS[CONVERGED])]:
        below += count
        found.append(below / total)
    return found
