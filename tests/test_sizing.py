"""size: the search finds what trying everything finds, memory limits keep to their risk, the command tells both."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import lognorm

from pushsim.cli import main
from pushsim.scenario import Scenario
from pushsim.simulation import Simulation
from pushsim.sizing import CORES, STEP_BYTES, memory_of, over, size, smallest
from pushsim.thresholds import parse

TEXT = """\
# How small an istiod does this take?
mesh: {generate: {namespaces: 2, apps: [{name: web, per_namespace: 2, pods: 3}], gateways: {count: 1}}}
istiod: {release: "1.24"}
churn: [{source: config-push, rate: 4/s}]
duration: 1s
warmup: 1s
variants:
  unscoped: []
  scoped: [namespace]
"""


@given(
    needed=st.integers(1, 6).flatmap(lambda n: st.lists(st.sampled_from([*CORES, 1000.0]), min_size=n, max_size=n)),
    max_cpus=st.sampled_from(CORES),
    fewest=st.integers(1, 6),
)
def test_the_search_finds_what_trying_everything_finds(needed: list[float], max_cpus: float, fewest: int) -> None:
    # needed[r - 1]: cores that r replicas need; any monotone truth is one of these
    def keeps(replicas: int, cpus: float) -> bool:
        tried.append((replicas, cpus))
        return cpus >= needed[replicas - 1]

    tried: list[tuple[int, float]] = []
    fewest = min(fewest, len(needed))
    found = smallest(keeps, max_replicas=len(needed), max_cpus=max_cpus, min_replicas=fewest)
    pairs = itertools.product(range(fewest, len(needed) + 1), [c for c in CORES if c <= max_cpus])
    fitting = [(r * c, r, c) for r, c in pairs if c >= needed[r - 1]]
    assert found == (min(fitting)[1:] if fitting else None)
    assert len(tried) == len(set(tried)) <= 4 * len(needed)
    most = max([c for c in CORES if c <= max_cpus])
    if not fitting:
        assert tried == [(r, most) for r in range(fewest, len(needed) + 1)], (
            "what fails with most is not tried with less"
        )


@given(st.floats(1e6, 1e9), st.floats(1.01, 4), st.floats(0.2, 5))
def test_the_risk_is_that_of_a_lognormal(value: float, spread: float, share: float) -> None:
    low, high, limit = value / spread, value * spread, value * share
    import math

    sigma = math.log(high / low) / (2 * 1.959964)
    assert over(value, low, high, limit) == pytest.approx(lognorm.sf(limit, sigma, scale=value), abs=1e-9)
    assert over(value, low, high, high) == pytest.approx(0.025, abs=1e-5), "the bounds are taken for 95 %"


def test_a_limit_keeps_to_its_risk() -> None:
    summaries = [
        {
            "sidecar_memory_bytes": {"p99": 40e6, "max": most},
            "bounds": {"sidecar_memory_bytes.max": [most / 2, most * 2]},
        }
        for most in (60e6, 50e6)
    ]
    found = memory_of("sidecar", summaries, 0.01)
    assert found is not None
    assert found.over_limit <= 0.01 < over(60e6, 30e6, 120e6, found.limit_bytes - STEP_BYTES), "and is the smallest"
    assert found.request_bytes == 3 * STEP_BYTES and found.over_request > 0.5
    assert memory_of("gateway", summaries, 0.01) is None
    exact = memory_of("x", [{"x_memory_bytes": {"max": STEP_BYTES}}], 0.01)
    assert exact is not None and (exact.limit_bytes, exact.over_limit) == (STEP_BYTES, 0.0)


def test_more_is_needed_for_a_stricter_promise() -> None:
    scenario = Scenario.loads(TEXT)
    loose = size(scenario, [parse("converged_s.p99 < 10s", "--slo")], ["unscoped"], max_replicas=1, max_cpus=2)
    held = loose["unscoped"]
    assert held.met and held.cores == 0.5 and set(held.memory) == {"istiod", "sidecar", "gateway"}
    reached = held.figures["converged_s.p99"]
    assert reached is not None
    harder = [parse(f"converged_s.p99 < {reached * 0.8:.9f}", "--slo")]
    strict = size(scenario, harder, ["unscoped"], max_replicas=1, max_cpus=2)["unscoped"]
    assert not strict.met or strict.cores > 0.5
    assert (1, 0.5, False) in strict.tried


def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, *arguments: str) -> tuple[int, str, str]:
    (tmp_path / "s.yaml").write_text(TEXT)
    with pytest.raises(SystemExit) as ended:
        main(["size", str(tmp_path / "s.yaml"), "--jobs", "1", "--max-cpus", "0.5", "--policy", "scoped", *arguments])
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


def test_the_command(capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code, printed, _ = run(capsys, tmp_path, "--slo", "converged_s.p99 < 5", "--json")
    found = json.loads(printed)["policies"]["scoped"]
    assert code == 0 and (found["replicas"], found["cpus"], found["cores"]) == (1, 0.5, 0.5)
    assert found["figures"]["converged_s.p99"] < 5 and found["memory"]["sidecar"]["over_limit"] <= 0.01
    code, printed, said = run(capsys, tmp_path, "--slo", "converged_s.p99 < 1us", "--max-replicas", "1")
    assert code == 1 and "do not keep" in said and said.count("\n") == 1 and "none" in printed
    monkeypatch.setattr(Simulation, "run", None)
    for wrong in ("converged_s.p98 < 5", "increase(bytes_sent) < 5%", "x", "unscoped: converged_s.p99 < 5"):
        assert run(capsys, tmp_path, "--slo", wrong)[0] == 2
