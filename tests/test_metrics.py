"""Histograms as Istio and Prometheus have them, exact quantiles, OpenMetrics."""

from __future__ import annotations

import math
from random import Random
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsim.metrics import (
    BOUNDS,
    Histogram,
    Scrape,
    Weighted,
    exact_quantile,
    exact_quantiles,
    read_openmetrics,
    weighted_quantile,
    write_openmetrics,
)

S = 1_000_000_000
CONVERGENCE = BOUNDS["pilot_proxy_convergence_time"]
samples = st.lists(st.integers(0, 60 * S), min_size=1, max_size=200)


@pytest.mark.parametrize(
    "name", ["pilot_xds_pushes", "xds_cache_reads", "go_gc_cycles_total", "process_cpu_seconds_total"]
)
def test_counters_are_read_under_the_names_that_the_page_has(name: str) -> None:
    page = f'# TYPE {name} counter\n{name}{{type="a"}} 3\n'
    assert read_openmetrics(page).total(name, type="a") == 3


def test_a_sample_on_a_bound_is_in_its_bucket() -> None:
    histogram = Histogram.of_ns((0.1, 0.5), [S // 10, S // 10 + 1, S // 2, S])
    assert histogram.counts == (1, 2, 1)
    assert histogram.sum == pytest.approx(1.7)


def test_quantile_is_linear_inside_the_bucket_as_prometheus_has_it() -> None:
    # histogram_quantile(0.9, …) of 100 observations in (5, 10]: 5 + 5 * 0.9
    assert Histogram.of_ns(CONVERGENCE, [7 * S] * 100).quantile(0.9) == pytest.approx(9.5)
    assert Histogram.of_ns(CONVERGENCE, [S // 100] * 10).quantile(0.5) == pytest.approx(0.05)
    mixed = Histogram((1.0, 2.0, 4.0), (10, 0, 30, 0))
    assert mixed.quantile(0.25) == 1.0
    assert mixed.quantile(0.5) == pytest.approx(2 + 2 * 10 / 30)


def test_the_last_bound_is_a_ceiling() -> None:
    assert Histogram.of_ns(CONVERGENCE, [90 * S] * 3).quantile(0.5) == 30


def test_no_observations_have_no_quantile() -> None:
    empty = Histogram.of_ns(CONVERGENCE, [])
    assert (empty.quantile(0.5), empty.mean, empty.count) == (None, None, 0)
    assert exact_quantile([], 0.5) is None


@given(samples, st.floats(0.01, 1))
def test_prometheus_and_truth_are_in_the_same_bucket(values: list[int], q: float) -> None:
    exact = exact_quantile(values, q)
    estimate = Histogram.of_ns(CONVERGENCE, values).quantile(q)
    assert exact is not None
    assert estimate is not None
    edges = (0.0, *CONVERGENCE)
    bucket = next((n for n in range(1, len(edges)) if exact <= round(edges[n] * S)), None)
    if bucket is None:
        assert estimate == 30
    else:
        assert edges[bucket - 1] - 1e-9 <= estimate <= edges[bucket] + 1e-9


@given(samples)
def test_exact_quantiles_are_samples_and_split_them(values: list[int]) -> None:
    for q, found in zip((0.5, 0.9, 0.99, 1.0), exact_quantiles(values, (0.5, 0.9, 0.99, 1.0)), strict=True):
        assert found in values
        assert sum(value <= found for value in values) >= q * len(values) - 1e-9
        assert sum(value < found for value in values) < q * len(values) + 1e-9


def test_the_median_of_one_to_hundred() -> None:
    values = list(range(1, 101))
    assert exact_quantiles(values, (0.5, 0.99, 1.0)) == [50, 99, 100]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), max_size=12), st.sampled_from([0.25, 0.5, 1.0]))
def test_a_weighted_quantile_is_that_of_repeated_values(pairs: list[tuple[int, int]], q: float) -> None:
    repeated = [value for value, weight in pairs for _ in range(weight)]
    found = weighted_quantile([value for value, _ in pairs], [weight for _, weight in pairs], q)
    assert found == exact_quantile(repeated, q)


@given(st.lists(st.tuples(st.integers(0, 50 * S), st.integers(1, 3)), max_size=20), st.randoms())
def test_weighted_samples_are_told_of_as_their_repetition_is(pairs: list[tuple[int, int]], random: Random) -> None:
    repeated = [value for value, times in pairs for _ in range(times)]
    random.shuffle(pairs)
    weighted = Weighted.of([value for value, _ in pairs], [times for _, times in pairs])
    assert len(weighted) == len(repeated)
    assert exact_quantiles(weighted, (0.0, 0.5, 0.99, 1.0)) == exact_quantiles(repeated, (0.0, 0.5, 0.99, 1.0))
    assert Histogram.of_ns(CONVERGENCE, weighted) == Histogram.of_ns(CONVERGENCE, repeated)


@given(
    st.lists(st.tuples(st.integers(0, 1 << 34) | st.integers(0, 9), st.integers(1, 1 << 34))),
    st.lists(st.tuples(st.integers(0, 1 << 34) | st.integers(0, 9), st.integers(1, 300))),
)
def test_samples_that_are_added_part_by_part_are_those_of_both(
    some: list[tuple[int, int]], others: list[tuple[int, int]]
) -> None:
    def weighted(pairs: list[tuple[int, int]]) -> Weighted:
        return Weighted.of([value for value, _ in pairs], [times for _, times in pairs])

    with mock.patch("pushsim.metrics._PART", 2):
        found = weighted(some).plus(weighted(others))
        histogram = Histogram.of_ns((1, 5), found)
    expected = weighted([*some, *others])
    assert (found.values.tolist(), found.times.tolist()) == (expected.values.tolist(), expected.times.tolist())
    assert histogram.sum == sum(value * times for value, times in (*some, *others)) / 1e9


def test_sums_of_many_weighted_samples_do_not_overflow() -> None:
    weighted = Weighted.of([10**12, 1], [10**9, 3])
    assert Histogram.of_ns(CONVERGENCE, weighted).sum == (10**21 + 3) / 1e9


@given(samples, samples)
def test_what_came_later_is_the_difference(earlier: list[int], later: list[int]) -> None:
    before, after = Histogram.of_ns(CONVERGENCE, earlier), Histogram.of_ns(CONVERGENCE, earlier + later)
    difference = after - before
    assert difference.counts == Histogram.of_ns(CONVERGENCE, later).counts
    assert difference.sum == pytest.approx(sum(later) / S, abs=1e-6)
    assert difference.shares[-1] <= 1


def test_histograms_of_different_bounds_do_not_add() -> None:
    with pytest.raises(ValueError, match="different bounds"):
        Histogram((1.0,), (1, 0)) + Histogram((2.0,), (1, 0))


ISTIOD = """# HELP pilot_proxy_convergence_time Delay in seconds
# TYPE pilot_proxy_convergence_time histogram
pilot_proxy_convergence_time_bucket{le="0.1"} 6
pilot_proxy_convergence_time_bucket{le="0.5"} 9
pilot_proxy_convergence_time_bucket{le="+Inf"} 10
pilot_proxy_convergence_time_sum 3.5
pilot_proxy_convergence_time_count 10
# TYPE pilot_xds_pushes counter
pilot_xds_pushes{type="cds"} 12
pilot_xds_pushes{type="eds"} 30
# TYPE pilot_services gauge
pilot_services 7
"""


def test_istiods_own_metrics_are_read() -> None:
    scrape = read_openmetrics(ISTIOD)
    histogram = scrape.histogram("pilot_proxy_convergence_time")
    assert histogram == Histogram((0.1, 0.5), (6, 3, 1), 3.5)
    assert scrape.total("pilot_xds_pushes") == 42
    assert scrape.total("pilot_xds_pushes", type="eds") == 30
    assert scrape.total("pilot_services") == 7
    assert scrape.histogram("no_such") is None


@given(samples, st.text(max_size=8))
def test_openmetrics_out_and_in_again(values: list[int], label: str) -> None:
    histogram = Histogram.of_ns(CONVERGENCE, values)
    scrape = Scrape(
        {("pilot_xds_pushes", (("type", label),)): 3.0},
        {("pilot_proxy_convergence_time", (("variant", "a"),)): histogram},
    )
    back = read_openmetrics(write_openmetrics(scrape))
    assert back.histogram("pilot_proxy_convergence_time", variant="a") == histogram
    assert back.values == scrape.values


counted = st.dictionaries(st.sampled_from(["cds", "eds", "lds"]), st.integers(0, 99))


@given(samples, samples, counted, counted)
def test_two_processes_are_read_as_if_they_were_one(
    one: list[int], other: list[int], sent: dict[str, int], more: dict[str, int]
) -> None:
    def scrape(values: list[int], counts: dict[str, int]) -> Scrape:
        counters = {("pilot_xds_pushes", (("type", xds),)): float(count) for xds, count in counts.items()}
        return Scrape(counters, {("pilot_proxy_convergence_time", ()): Histogram.of_ns(CONVERGENCE, values)})

    both = scrape(one, sent) + scrape(other, more)
    found, whole = both.histogram("pilot_proxy_convergence_time"), Histogram.of_ns(CONVERGENCE, one + other)
    assert found is not None and found.counts == whole.counts and found.sum == pytest.approx(whole.sum)
    assert both.total("pilot_xds_pushes") == sum(sent.values()) + sum(more.values())
    assert both.total("pilot_xds_pushes", type="cds") == sent.get("cds", 0) + more.get("cds", 0)


def test_bounds_are_required_to_rise() -> None:
    with pytest.raises(ValueError, match="rising bounds"):
        Histogram((2.0, 1.0), (0, 0, 0))
    assert math.inf not in CONVERGENCE
