"""How large benchmarks are: a toy's, or real sizes with PUSHSIM_BENCHMARK=full."""

from __future__ import annotations

import os

from pushsim.scenario import Scenario

FULL = os.environ.get("PUSHSIM_BENCHMARK") == "full"
#: (proxies, services, seconds of churn) of whole scenarios; what is longer is a cut of the bundled ones.
SCENARIOS = [(1_000, 500, 60), (10_000, 5_000, 10), (100_000, 50_000, 5)] if FULL else [(20, 10, 5), (40, 20, 5)]

_SCENARIO = """
# What does a scenario of this size take to simulate?
mesh:
  generate:
    namespaces: {namespaces}
    apps: [{{name: app, total: {services}, pods: 2}}]
    gateways: {{count: 1, virtual_services: 0.1}}
istiod: {{release: "1.24", replicas: {replicas}, cpus: 16}}
churn:
- {{source: crash-loop, rate: 4.5/s, down: 5s}}
- {{source: config-push, rate: 1/s}}
duration: {seconds}s
warmup: 0s
variants:
  namespace: [namespace]
"""


def scenario(services: int, seconds: int) -> Scenario:
    """Two proxies a service, twenty services a namespace, and the churn of `scenarios/scale-10k.yaml`."""
    namespaces, replicas = max(2, services // 20), 4 if services >= 5_000 else 1
    return Scenario.loads(
        _SCENARIO.format(namespaces=namespaces, services=services, replicas=replicas, seconds=seconds)
    )
