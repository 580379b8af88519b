"""What a mesh of a size takes: fanning a push out, who sees what, planning one change."""

from __future__ import annotations

from typing import Any

import pytest
from plans import KINDS, SIZE, measured
from sizes import FULL, SCENARIOS, scenario
from workload import prepared

from pushsim import releases
from pushsim.conversation import Conversation
from pushsim.preview import preview

SIZES = [(proxies, services) for proxies, services, _ in SCENARIOS]


@pytest.mark.parametrize("proxies", [proxies for proxies, _ in SIZES])
def test_fan_out(benchmark: Any, proxies: int) -> None:
    """Pushes to all proxies of one istiod; nothing but the two of one group is sent anything."""
    prepared("kernel", 4, 1, replicas=1).run()  # load what is compiled

    def setup() -> Any:
        return (prepared("kernel", proxies, 2, replicas=1),), {}

    driver = benchmark.pedantic(lambda driver: (driver.run(), driver)[1], setup=setup, rounds=3)
    tally = driver.machine.tally
    assert len(tally.pushes) > 1
    assert tally.considered == proxies * len(tally.pushes), "it keeps up, so nothing is merged"
    benchmark.extra_info["dequeues"] = tally.considered


@pytest.mark.parametrize(("proxies", "services"), SIZES)
def test_visibility(benchmark: Any, proxies: int, services: int) -> None:
    """Every proxy's scope, and the services in it."""
    mesh = scenario(services, 1).variant("namespace").mesh

    def seen() -> int:
        istiod = Conversation(mesh, releases.rules("1.24")).istiod
        scopes, labels = istiod.latest.scopes, istiod.registry.labels_of
        mine = {id(scope): scope for scope in (scopes.of(proxy, labels(proxy)) for proxy in mesh.proxies)}
        return sum(len(list(scope.all_services)) for scope in mine.values())

    pairs = benchmark.pedantic(seen, rounds=1)
    # each namespace sees itself, and the gateway sees all
    assert pairs >= 2 * services
    benchmark.extra_info["pairs"] = pairs


@pytest.mark.parametrize(("proxies", "services"), SIZES)
def test_plan(benchmark: Any, proxies: int, services: int) -> None:
    """`pushsim plan` of one change of the churn."""
    variant = scenario(services, 5).variant("namespace")
    change = variant.changes[0].change
    found = benchmark.pedantic(lambda: preview(variant.mesh, change, release="1.24"), rounds=1)
    told = sum(len(group.proxies) for group in (*found.pushed, *found.spared))
    assert told == len(variant.mesh.proxies)
    benchmark.extra_info["proxies"] = told


@pytest.mark.parametrize("mode", ["sotw", "delta"])
@pytest.mark.parametrize("release", ["1.14", "1.24", "1.30", "1.31"] if FULL else ["1.30"])
@pytest.mark.parametrize("kind", KINDS if FULL else KINDS[:1])
def test_plan_of_every_kind(benchmark: Any, kind: str, release: str, mode: str) -> None:
    """A process' first plan of one change, once the mesh is loaded: its processor time, and the process' memory."""
    told, pushed, cpu_ms, peak_kb = benchmark.pedantic(lambda: measured(kind, release, mode), rounds=1)
    assert told == 2 * SIZE[1] + 4 and pushed > 0
    assert peak_kb < 2_000_000
    assert cpu_ms < 2_000
    benchmark.extra_info.update(cpu_ms=cpu_ms, peak_mb=peak_kb // 1000, pushed=pushed)
