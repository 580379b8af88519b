"""The verbs of the command line that read files before they answer, as functions with the same options.

Verbs that need no more than their own module (`simulate`, `sweep`, `report`, …) are there; `pushsim` names them all.
What reading has to say is told through `warnings`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pushsim import files, releases, runs, sizing, thresholds
from pushsim.compare import Comparison, arms
from pushsim.compare import compare as comparing
from pushsim.errors import InputError, Problem
from pushsim.importers import Held
from pushsim.importers import inspect as inspecting
from pushsim.manifests import Inject, delete_change, parse_delete
from pushsim.mesh import Change, Mesh, Mode
from pushsim.parity import Parity
from pushsim.parity import parity as proving
from pushsim.preview import Preview, preview
from pushsim.recommend import Limits, Recommendation
from pushsim.recommend import recommend as recommending
from pushsim.replay import replay as replaying
from pushsim.result import Results
from pushsim.scenario import Scenario
from pushsim.settings import PROFILES, Settings
from pushsim.topology import read_calls

#: A path or several.
Paths = str | Path | Sequence[str | Path]
#: A loaded scenario, a file, or the name of a bundled one.
Asked = Scenario | str | Path


def _paths(given: Paths) -> list[str]:
    return [str(given)] if isinstance(given, str | Path) else [str(path) for path in given]


def _loaded(scenario: Asked) -> Scenario:
    return scenario if isinstance(scenario, Scenario) else Scenario.load(scenario)


def _mesh(paths: Mesh | Paths, namespace: str, inject: Inject) -> Mesh:
    """The mesh in these manifests, under the mesh config of Istio's chart where they have none. Raises InputError."""
    if isinstance(paths, Mesh):
        return paths
    found = files.load(_paths(paths), namespace=namespace, inject=inject)
    for text in found.notes:
        warnings.warn(text, stacklevel=3)
    there = found.mesh
    return replace(there, mesh_config={**PROFILES["default"], **there.mesh_config})


def plan(
    mesh: Mesh | Paths,
    *,
    change: Change | Paths = (),
    delete: Sequence[str] = (),
    release: str = releases.NEWEST,
    mode: Mode | None = None,
    inject: Inject = "detect",
    namespace: str = "default",
) -> Preview:
    """Which proxies a change would push, with what, and which rule lets it through.

    mesh:   manifests (files, folders), or a Mesh.
    change: files or folders of objects to write, or a Change. delete: `[group/]Kind/[namespace/]name` of objects.

    Raises InputError: no such file, object or release, no proxy, nothing to change.
    """
    there = _mesh(mesh, namespace, inject)
    if not there.proxies:
        remedy = 'give manifests with injected pods, or inject="all" to count every pod as injected'
        raise InputError(Problem("no proxy found: no pod of the mesh is injected", remedy=remedy))
    parts = [change] if isinstance(change, Change) else []
    if not isinstance(change, Change):
        parts += [files.load_change(path, namespace=namespace, mesh=there).change for path in _paths(change)]
    if delete:
        parts.append(delete_change([parse_delete(text, there, namespace=namespace) for text in delete], there))
    if not parts:
        raise InputError(Problem("no change given", remedy="give change=FILE or delete=[KIND/NAMESPACE/NAME]"))
    applied = tuple(held for part in parts for held in part.apply)
    gone = tuple(ref for part in parts for ref in part.delete)
    config = {key: value for part in parts for key, value in (part.mesh_config or {}).items()}
    name = ", ".join(filter(None, [*(part.name for part in parts)]))
    return preview(there, Change(applied, gone, name, config or None), release=release, mode=mode)


def compare(
    scenario: Asked,
    policies: Sequence[str] = (),
    *,
    meshes: Mapping[str, str] | None = None,
    seeds: int = 1,
    price_per_gb: float | None = None,
    engine: runs.Engine = "auto",
    jobs: int = 1,
) -> Comparison:
    """Policies, or a pull request's base and head, under the same seeded workload: what each costs, saves and breaks.

    policies: `--policy` texts; default: the scenario's variants. meshes: folders of manifests by name.
    """
    columns = arms(_loaded(scenario), policies, meshes)
    return comparing(columns, seeds=seeds, jobs=jobs, price_per_gb=price_per_gb, engine=engine)


def recommend(
    mesh: Mesh | Asked | Paths,
    calls: str | Path | None = None,
    *,
    per: str = "namespace",
    export_to: bool = True,
    max_hosts: int | None = None,
    slack: float | None = None,
    budget: int | None = None,
    release: str | None = None,
    inject: Inject = "detect",
    namespace: str = "default",
) -> Recommendation:
    """Sidecars and exportTo that observed calls allow: what each saves, what it rests on, what may go wrong.

    mesh:  a scenario (its own calls are the default), manifests, or a Mesh.
    calls: CSV, or JSON of Prometheus, Kiali or Envoy. per: "namespace" or "workload".

    Raises InputError: no calls to go by, and what reading may raise.
    """
    graph = None
    if isinstance(mesh, Scenario) or (isinstance(mesh, str | Path) and Scenario.is_one(str(mesh))):
        scenario = _loaded(mesh)
        if release is not None:
            scenario = scenario.replaced({"istiod.release": release})
        there, settings = scenario.mesh, scenario.settings
        graph = scenario.calls() if calls is None else None
    else:
        there = _mesh(mesh, namespace, inject)
        wanted = releases.rules(release or releases.NEWEST).release
        settings = Settings(wanted, mesh_config=there.mesh_config, env=there.env)
    if calls is not None:
        graph = read_calls(Path(calls).read_text(encoding="utf-8"), str(calls), there)
    if graph is None:
        raise InputError(Problem("no calls to go by", field="calls", remedy="give a file of observed calls"))
    default = Limits()
    limits = Limits(slack if slack is not None else default.slack, max_hosts or default.max_hosts)
    return recommending(
        there, graph, settings, workloads=per == "workload", export_to=export_to, limits=limits, budget=budget
    )


def size(
    scenario: Asked,
    slo: Sequence[str],
    policies: Sequence[str] = (),
    *,
    seeds: int = 1,
    min_replicas: int = 1,
    max_replicas: int = 6,
    max_cpus: float = 32.0,
    risk: float = 0.01,
    engine: runs.Engine = "auto",
    jobs: int = 1,
) -> dict[str, sizing.Size]:
    """The smallest replicas x cores x memory that keep a promise (`converged_s.p99 < 5s`), for each policy."""
    return sizing.size(
        _loaded(scenario),
        [thresholds.parse(text) for text in slo],
        policies,
        seeds=seeds,
        min_replicas=min_replicas,
        max_replicas=max_replicas,
        max_cpus=max_cpus,
        risk=risk,
        engine=engine,
        jobs=jobs,
    )


def replay(
    scenario: Asked,
    istiod_binary: str | Path,
    variants: Sequence[str] | None = None,
    *,
    cores: Sequence[int] | None = None,
    workers: int = 0,
    out: str | Path | None = None,
) -> Results:
    """The scenario on a real istiod, into the same results. Raises EnvironmentProblem."""
    return Results(replaying(_loaded(scenario), Path(istiod_binary), variants, cores=cores, workers=workers, out=out))


def parity(
    scenario: Asked,
    istiod_binary: str | Path,
    variants: Sequence[str] | None = None,
    *,
    repeat: int = 5,
    one_by_one: int = 10,
    tolerances: Mapping[str, float] | None = None,
    cores: Sequence[int] | None = None,
    workers: int = 0,
    out: str | Path | None = None,
) -> Parity:
    """Simulated and replayed, side by side with the error. Raises EnvironmentProblem."""
    return proving(
        _loaded(scenario),
        Path(istiod_binary),
        variants,
        repeat=repeat,
        one_by_one=one_by_one,
        tolerances=tolerances,
        cores=cores,
        workers=workers,
        out=out,
    )


def inspect(
    mesh: Mesh | Paths,
    dump: str | Path,
    *,
    proxy: str = "",
    release: str = releases.NEWEST,
    mode: Mode | None = None,
    inject: Inject = "detect",
    namespace: str = "default",
) -> list[Held]:
    """What proxies really have (config_dump, /debug/adsz) against what they would have."""
    return inspecting(_mesh(mesh, namespace, inject), dump, proxy=proxy, release=release, mode=mode)
