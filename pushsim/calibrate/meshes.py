"""A whole mesh in a real Envoy that a real istiod feeds: what a fit is held against, and was not made from.

Stock Envoy does not have Istio's own filters, so istiod runs without metadata exchange and ALPN filter, and without
Prometheus metrics (profile bare); what those add is an estimate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict

from pushsim import ads, envoy, istiod, stub
from pushsim.calibrate.controlplane import simulated
from pushsim.envoy import WITHOUT_FILTERS, at_rest, options_of
from pushsim.mesh import Proxy
from pushsim.planner import Shape
from pushsim.releases import rules
from pushsim.replay.feeding import Feed, serve
from pushsim.replay.quiet import quiet, still_for_s
from pushsim.scenario import Scenario
from pushsim.settings import Timed


@dataclass(frozen=True, slots=True)
class Held:
    """One proxy of a mesh: what it holds as we count it, and the memory of the Envoy that holds it."""

    name: str
    workers: int
    shape: Shape
    memory: envoy.Memory


def mesh(size: float = 1.0) -> dict[str, Any]:
    """A scenario with services of every protocol, headless ones, and gateways."""

    def n(count: int) -> int:
        return max(1, round(count * size))

    apps = [
        {"name": "web", "total": n(300), "ports": {"http": 8080, "http-metrics": 9090}, "pods": 2, "sidecar": False},
        {"name": "api", "total": n(150), "ports": {"grpc": 9000}, "pods": 3, "sidecar": False},
        {"name": "db", "total": n(100), "ports": {"tcp": 5432}, "pods": 2, "sidecar": False},
        {"name": "sniffed", "total": n(60), "ports": {"any": 7000}, "pods": 2, "sidecar": False},
        {"name": "workers", "total": n(10), "ports": {"tcp": 6000}, "pods": 3, "headless": True, "sidecar": False},
        {"name": "client", "namespaces": ["ns-000"], "ports": {"http": 80, "http-admin": 81}},
    ]
    gateways = {"count": 1, "virtual_services": ["web"]}
    generate = {"namespaces": 10, "apps": apps, "gateways": gateways}
    root = [{"root-sidecar": {"hosts": ["./*", "istio-system/*"]}}]
    return {
        "mesh": {"generate": generate},
        "istiod": {"profile": "bare", "cpus": 2, "env": WITHOUT_FILTERS},
        "duration": "10s",
        "churn": [{"source": "services", "at": [f"{n}s" for n in range(1, 7)], "sidecar": False, "pods": 2}],
        "variants": {"unscoped": [], "scoped": root},
    }


async def hold(
    data: Mapping[str, Any], binary: Path, envoy_binary: Path, release: str, progress: Callable[[str], None]
) -> list[Held]:
    """Every variant's first sidecar and first gateway as a real Envoy. Raises EnvironmentProblem."""
    scenario = Scenario(data, Path()).replaced({"istiod.release": release})
    found: list[Held] = []
    for name in scenario.variant_names:
        variant = scenario.variant(name)
        changes, variant = variant.changes, replace(variant, changes=())
        cluster = stub.Cluster.of(variant.mesh)
        settings = istiod.Settings(binary, variant.mesh.mesh_config, variant.mesh.env)
        _, _, machine = simulated(variant, ())
        planner = machine.replicas[0].planner
        async with stub.serve(cluster) as url, istiod.run(settings, url) as server, serve(Feed()) as secrets:
            await quiet(server, cluster, None, still_for_s({}))
            for number, group in enumerate(planner.groups):
                if any(held.name == f"{name}: {group.proxies[0].type}" for held in found):
                    continue
                proxy = group.proxies[0]
                progress(f"an Envoy as {proxy.id}, {name}")
                options = {**options_of(release), "workers": variant.settings.workers}
                memory = await _as(proxy, server, secrets, envoy_binary, options, cluster, changes)
                shape = planner.shape(number, machine.state[machine.offset[number]], -1)
                found.append(Held(f"{name}: {proxy.type}", variant.settings.workers, shape, memory))
    return found


async def _as(
    proxy: Proxy,
    server: istiod.Istiod,
    secrets: Feed,
    binary: Path,
    options: Mapping[str, Any],
    cluster: stub.Cluster,
    changes: Sequence[Timed],
) -> envoy.Memory:
    """The memory of an Envoy that is that proxy, once istiod has told it everything, and pushed some changes."""
    node = MessageToDict(ads.node(proxy, server.release), preserving_proto_field_name=True)
    delta = rules(server.release).agent_mode == "delta"
    node |= {"cluster": proxy.id}
    settings = envoy.Settings(binary, server.grpc, secrets.address, node, delta=delta, **options)
    async with envoy.run(settings) as started:
        await at_rest(started)
        for _ in range(100):
            told = await started.stats("update_rejected|update_success|warming_clusters|listeners_warming")
            rejected = {name: value for name, value in told.items() if name.endswith("rejected") and value}
            if rejected:
                raise started.problem(f"it rejected what istiod sent: {rejected}")
            done = told.get("listener_manager.lds.update_success") and not told.get("cluster_manager.warming_clusters")
            await at_rest(started)
            if done:
                break
        else:
            raise started.problem(f"istiod's configuration did not arrive: {told}")
        for timed in changes:
            cluster.write(timed.change)
            await quiet(server, cluster, None, still_for_s({}))
        return await at_rest(started)
