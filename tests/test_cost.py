"""Coefficients, calibrations, integer prices, and totals with their bounds."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsim.cost import (
    DEFAULTS,
    DRIVERS,
    PACE,
    Calibration,
    Holding,
    Prices,
    envoy_memory,
    istiod_cpu,
    istiod_heap,
    istiod_memory,
    keeps_all_stats,
    load,
    parse,
    proxy_memory,
    shipped,
)
from pushsim.errors import InputError
from pushsim.manifests import parse_objects
from pushsim.mesh import Change, Mesh
from pushsim.plan import Istiod
from pushsim.planner import Response, Shape, View
from pushsim.planners.work import of_push
from pushsim.releases import rules


def test_every_coefficient_has_unit_source_and_error() -> None:
    for name, coefficient in DEFAULTS.items():
        assert coefficient.unit in {"us", "ns", "ms", "bytes", "1"}, name
        assert coefficient.source.startswith(("[D]", "[E]", "[M]")), name
        assert 0 <= coefficient.error < 1, name
        low, high = coefficient.interval
        assert low <= coefficient.value <= high, name


@given(st.dictionaries(st.sampled_from(sorted(DRIVERS - {"push.services"})), st.integers(0, 10**6), max_size=8))
def test_integer_prices_agree_with_the_coefficients(counts: dict[str, int]) -> None:
    counts = {name: amount for name, amount in counts.items() if not name.startswith("memory.")}
    calibration = shipped("1.24")
    exact_s = istiod_cpu(calibration, counts).value
    assert Prices(calibration).work_ns(counts) / 1e9 == pytest.approx(exact_s, rel=1e-3, abs=2e-9)


def test_a_faster_core_takes_less() -> None:
    work = {"cds.miss": 1000}
    slow, fast = Prices(shipped("1.24")).work_ns(work), Prices(shipped("1.24", cpu_speed=2.0)).work_ns(work)
    assert fast == pytest.approx(slow / 2, rel=1e-6)


def test_garbage_is_collected_as_often_as_what_counts_as_living_is_allocated_anew() -> None:
    prices = Prices(shipped("1.24"))
    small, marking, *_ = prices.runtime({"memory.services": 100}, 100, 1)
    large, *_ = prices.runtime({"memory.services": 100}, 1000, 1)
    calibration = shipped("1.24")
    lives = 900 * calibration["memory.connections"] / 2 * (1 + calibration["gc.growth"])
    more_s = lives / (calibration["gc.allocated"] * 1e6)
    assert (large - small) / 1e9 == pytest.approx(more_s, rel=1e-6)
    assert marking == pytest.approx(calibration["gc.marking"] * small, rel=1e-6)
    assert prices.runtime({"memory.services": 100}, 100, 2)[0] == pytest.approx(small / 2, rel=1e-6)
    assert prices.runtime({}, 1000, 4)[:2] == (0, 0), "a core of its own marks"


#: Of real istiods under GODEBUG=gctrace=1 on one core: release; services, endpoints, scopes' services and configs;
#: connections; CPU time of one cycle in ms. `gc.allocated` is of the first three, which had little to do.
CYCLES = [
    ("1.17", (201, 401, 421, 202), 401, 261),
    ("1.24", (201, 401, 421, 202), 401, 317),
    ("1.30", (201, 401, 421, 202), 401, 149),
    ("1.17", (201, 401, 4221, 201), 401, 306),
    ("1.24", (201, 401, 4221, 201), 401, 345),
    ("1.30", (201, 401, 4221, 201), 401, 273),
    ("1.14", (401, 440, 401, 401), 40, 140),
    ("1.24", (401, 440, 401, 401), 40, 159),
    ("1.24", (201, 201, 4221, 201), 201, 301),
]


def test_cycles_are_about_as_long_as_real_ones() -> None:
    names = ("memory.services", "memory.endpoints", "memory.scopes", "memory.configs")
    off = []
    for release, amounts, connections, measured_ms in CYCLES:
        inventory = dict(zip(names, amounts, strict=True))
        off.append(Prices(shipped(release)).runtime(inventory, connections, 1).cycle_ns / 1e6 / measured_ms)
    assert all(1 / 1.6 < ratio < 1.6 for ratio in off), off  # too short where the cache and names are much that lives
    assert math.exp(sum(map(math.log, off)) / len(off)) == pytest.approx(1, abs=0.15)


@given(st.floats(0.05, 1), st.floats(1, 3))
def test_on_the_average_prices_are_what_is_paid_whenever_garbage_is_marked(marking: float, factor: float) -> None:
    of = shipped("1.24")
    known = of.coefficients
    told = {"gc.marking": replace(known["gc.marking"], value=marking), "gc": replace(known["gc"], value=factor)}
    runtime = Prices(replace(of, coefficients={**known, **told})).runtime({"memory.services": 100}, 100, 1)
    work = runtime.marking_ns * runtime.slow + (runtime.cycle_ns - runtime.marking_ns) * runtime.fast
    assert work / PACE == pytest.approx(runtime.cycle_ns, rel=1e-3)
    assert runtime.slow <= PACE <= runtime.fast


def test_sorting_makes_services_dearer_than_linear_once() -> None:
    release = rules("1.24")

    def amount(count: int) -> int:
        spaces = range(count // 100)
        objects = [service(f"s{n}", f"ns-{space}") for space in spaces for n in range(100)]
        mesh = Mesh({o.ref: o for o in parse_objects(objects)})
        istiod = Istiod(mesh, release)
        before = istiod.latest.context
        handled = istiod.handle(Change(tuple(parse_objects([service("new", "ns-0")]))))
        request = istiod.merge(handled)
        assert request is not None
        return of_push(before, istiod.push(request).context, request, release)["push.services"]

    assert amount(200) == int(201 * (1 + math.log2(201) / 10))
    assert amount(400) > 2 * amount(200)
    prices = Prices(shipped("1.24"))  # linear: the logarithm is in the amount
    assert prices.work_ns({"push.services": 10_000}) == 10 * prices.work_ns({"push.services": 1_000})


def service(name: str, namespace: str) -> dict[str, Any]:
    spec = {"clusterIP": "10.0.0.9", "ports": [{"name": "http", "port": 80}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def test_calibrations_ship_for_the_releases_they_were_made_on_and_serve_the_nearest() -> None:
    made_on = {release: shipped(release).istio for release in ("1.13", "1.14", "1.19", "1.24", "1.29", "1.30", "1.31")}
    assert list(made_on.values()) == ["1.14.6", "1.14.6", "1.17.8", "1.24.6", "1.24.6", "1.30.3", "1.30.3"]
    for release in ("1.14", "1.17", "1.24", "1.30"):
        calibration = shipped(release)
        measured = [c for c in calibration.coefficients.values() if c.source.startswith("[M]")]
        assert len(measured) >= 25
        assert not any(c.fitted for c in calibration.coefficients.values())  # not on the user's own
        assert calibration.machine["cpu"]
        mesh = {name: e["error"] for name, e in calibration.fit.items() if name.startswith("held out: Envoy")}
        assert all(abs(error) <= 0.2 for error in mesh.values())


@given(hits=st.integers(0, 500), misses=st.integers(0, 500), units=st.integers(0, 5000))
def test_a_miss_costs_more_than_a_hit_and_all_misses_are_full_price(hits: int, misses: int, units: int) -> None:
    total = hits + misses
    if not total:
        return
    cells = np.arange(total, dtype=np.int32)
    ones = np.ones(total, dtype=np.int32)
    view = View(0, cells, ones, ones * 0)
    price = Prices(shipped("1.24")).response(Response("CDS", total, 1000 * total, view=view))
    assert price.work_ns(0, 0) <= price.work_ns(misses, 0) <= price.work_ns(total, 0)
    if misses:
        assert price.work_ns(misses, 0) > price.work_ns(0, 0)
    full = Prices(shipped("1.24"))
    uncached = {"cds.miss": total, "send.responses": 1, "send.acks": 1}
    uncached |= {"send.bytes": 1000 * total, "cds.marshalled": 1000 * total}
    assert price.work_ns(total, 0) + price.write_ns + price.ack_ns == pytest.approx(full.work_ns(uncached), abs=3)


@given(written=st.floats(0, 1), size=st.integers(0, 10_000_000))
def test_sending_is_split_between_who_sends_and_who_writes(written: float, size: int) -> None:
    known = shipped("1.24")
    share = replace(known.coefficients["send.written"], value=written)
    prices = Prices(replace(known, coefficients={**known.coefficients, "send.written": share}))
    price = prices.response(Response("LDS", 1, size))
    sending = prices.work_ns({"send.responses": 1, "send.bytes": size})
    assert price.write_ns == pytest.approx(written * sending, abs=1)
    whole = prices.work_ns({"send.responses": 1, "send.bytes": size, "lds.marshalled": size})
    assert price.work_ns(0, 0) + price.write_ns == pytest.approx(whole, abs=2)


def test_eds_misses_cost_by_endpoint() -> None:
    view = View(0, np.array([0], dtype=np.int32), np.array([1], dtype=np.int32), np.array([1000], dtype=np.int32))
    price = Prices(shipped("1.24")).response(Response("EDS", 1, 0, view=view))
    calibration = shipped("1.24")
    extra = calibration["eds.miss"] - calibration["eds.hit"] + 1000 * calibration["eds.endpoints"]
    assert (price.work_ns(1, 1000) - price.work_ns(0, 0)) / 1e3 == pytest.approx(extra * calibration["gc"], rel=1e-6)


def test_proxy_memory_grows_with_what_it_holds_and_with_workers() -> None:
    calibration = shipped("1.24")
    small = envoy_memory(calibration, Shape(clusters=100, endpoints=500, listeners=20), 2)
    large = envoy_memory(calibration, Shape(clusters=5000, endpoints=20_000, listeners=60), 2)
    wide = envoy_memory(calibration, Shape(clusters=5000, endpoints=20_000, listeners=60), 16)
    assert small.low < small.value < small.high
    assert small.value < large.value < wide.value
    c = calibration
    allocated = 4900 * (c["envoy.memory.cluster"] + 2 * c["envoy.memory.cluster_worker"])
    allocated += 19_500 * c["envoy.memory.endpoint"]
    allocated += 40 * (c["envoy.memory.listener"] + 2 * c["envoy.memory.listener_worker"])
    decoded = c["envoy.memory.message"] * 1100 * 4900
    assert large.value - small.value == pytest.approx(c["envoy.memory.allocator"] * allocated + decoded, rel=1e-9)


def test_a_proxy_is_an_envoy_and_its_agent_and_dearer_with_all_statistics() -> None:
    calibration, shape = shipped("1.24"), Shape(clusters=1000, listeners=10)
    envoy, proxy = envoy_memory(calibration, shape, 2), proxy_memory(calibration, shape, 2)
    assert proxy.value - envoy.value == pytest.approx(calibration["agent.memory"])
    more = proxy_memory(calibration, shape, 2, all_stats=True).value - proxy.value
    assert more == pytest.approx(1000 * calibration["envoy.memory.stats"] * calibration["envoy.memory.allocator"])


@pytest.mark.parametrize(
    ("matcher", "all_of_them"),
    [
        ({}, False),
        ({"inclusionPrefixes": ["cluster.outbound"]}, True),
        ({"inclusionPrefixes": ["cluster.xds-grpc"]}, False),
        ({"inclusionSuffixes": ["upstream_rq_total"]}, True),
        ({"inclusionRegexps": [".*"]}, True),
        ({"inclusionRegexps": [".*outlier_detection.*"]}, False),
    ],
)
def test_proxies_keep_the_statistics_that_the_mesh_config_asks_for(matcher: dict[str, Any], all_of_them: bool) -> None:
    assert keeps_all_stats({"defaultConfig": {"proxyStatsMatcher": matcher}}) == all_of_them


def test_istiod_memory_is_by_connection_and_service() -> None:
    calibration = shipped("1.24")
    one = istiod_memory(calibration, Holding({"memory.services": 10}, 100, 1000))
    two = istiod_memory(calibration, Holding({"memory.services": 10}, 200, 2000))
    each = calibration["memory.connections"] + calibration["memory.tls"]
    grown = 100 * each + 1000 * calibration["memory.names"]
    assert two.value - one.value == pytest.approx(grown)
    assert one.low < one.value < one.high


@given(
    busy=st.floats(0, 1), cached=st.integers(0, 10**8), flight=st.integers(0, 10**8), connections=st.integers(0, 10_000)
)
def test_what_a_busy_istiod_holds_grows_while_it_marks_garbage(
    busy: float, cached: int, flight: int, connections: int
) -> None:
    """What is on its way is not held: it comes and goes."""
    calibration = shipped("1.24")
    inventory = {"memory.services": 10, "memory.scopes": 100}
    passing = {"memory.cache": cached, "memory.flight": flight}
    of = Holding(inventory, connections, 0, passing)
    heaps = [istiod_heap(calibration, of._replace(busy=share)) for share in (0, busy, 1)]
    assert heaps[0].value <= heaps[1].value <= heaps[2].value
    sent = flight * calibration["memory.flight"]
    growth = 1 + busy * calibration["gc.growth"]
    assert heaps[1].value - sent == pytest.approx(growth * (heaps[0].value - sent), rel=1e-6, abs=1)


def test_a_calibration_file_keeps_what_it_does_not_hold(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "format: 1\nistio: '1.24.6'\nmachine: {cpu: x, cores: 2}\ncpu_speed: 0.5\n"
        "coefficients:\n  cds.miss: {value: 20.5, unit: us, error: 0.1, source: here, fitted: true}\nfit: {}\n"
    )
    calibration = load(path, "1.24")
    assert (calibration["cds.miss"], calibration.cpu_speed, calibration.name) == (20.5, 0.5, "mine.yaml")
    assert calibration.coefficients["cds.miss"].fitted
    assert calibration["eds.miss"] == shipped("1.24")["eds.miss"]
    assert parse(calibration.dump(), "1.24", "mine.yaml") == calibration


def test_what_a_file_says_was_not_fitted_is_as_shipped() -> None:
    entry = {"value": 99, "fitted": False}
    assert parse({"coefficients": {"cds.miss": entry}}, "1.24")["cds.miss"] == shipped("1.24")["cds.miss"]


def test_all_that_is_wrong_with_a_calibration_is_said_at_once() -> None:
    with pytest.raises(InputError) as caught:
        parse(
            {
                "format": 2,
                "cpu_speed": 0,
                "colour": 1,
                "coefficients": {
                    "nope": {"value": 1},
                    "gc": 1.2,
                    "cds.miss": {"value": -1},
                    "eds.hit": {"value": 1, "unit": "s"},
                },
            },
            "1.24",
        )
    assert len(caught.value.problems) == 7
    assert all(problem.remedy for problem in caught.value.problems)


@pytest.mark.parametrize("text", [b"", b"[1, 2]", b"a: [", b"\x00\xff"])
def test_a_file_that_is_no_calibration_is_bad_input(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(text)
    with pytest.raises(InputError, match=r"bad\.yaml"):
        load(path, "1.24")


def test_a_missing_calibration_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path / "none.yaml", "1.24")


def test_the_nearest_release_is_the_newest_that_is_not_newer() -> None:
    assert shipped("1.12").coefficients == shipped("1.13").coefficients
    assert isinstance(shipped("1.31.1"), Calibration)
