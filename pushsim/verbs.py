"""The verbs of the command line that read files before they answer, as functions with the same options.

Verbs that need no more than their own module (`simulate`, `sweep`, `report`, …) are there; `pushsim` names them all.
What reading has to say is told through `warnings`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from pushsim import asking, diff, files, releases, runs, sizing, thresholds
from pushsim.cases import load_case
from pushsim.compare import Comparison, arms
from pushsim.compare import compare as comparing
from pushsim.errors import InputError, Problem, chosen, no_proxy, reason, writing
from pushsim.given import Asked, Paths, as_path, as_paths, loaded, texts
from pushsim.importers import Held
from pushsim.importers import inspect as inspecting
from pushsim.manifests import Inject
from pushsim.mesh import Change, Mesh, Mode
from pushsim.preview import Preview, preview, preview_case
from pushsim.recommend import Limits, Recommendation
from pushsim.recommend import recommend as recommending
from pushsim.scenario import Scenario
from pushsim.settings import Settings
from pushsim.sources import Caused, caused
from pushsim.topology import read_calls, watch
from pushsim.workers import Share

if TYPE_CHECKING:
    from pushsim.calibrate.churning import Churn
    from pushsim.topology.calls import Graph


def _mesh(paths: Mesh | Paths, namespace: str, inject: Inject) -> Mesh:
    """The mesh in these manifests, under the mesh config of Istio's chart where they have none. Raises InputError."""
    if isinstance(paths, Mesh):
        return paths
    there, notes = asking.mesh_in(as_paths(paths, "mesh"), namespace=namespace, inject=inject)
    for text in notes:
        warnings.warn(text, stacklevel=3)
    return there


@overload
def plan(
    mesh: Mesh | Paths,
    *,
    change: Change | Paths = ...,
    delete: Sequence[str] = ...,
    release: str = ...,
    mode: Mode | None = ...,
    inject: Inject = ...,
    namespace: str = ...,
) -> Preview: ...
@overload
def plan(*, case: str | Path, release: str = ..., mode: Mode | None = ...) -> Mapping[str, Any]: ...
def plan(
    mesh: Mesh | Paths = (),
    *,
    change: Change | Paths = (),
    delete: Sequence[str] = (),
    release: str = releases.NEWEST,
    mode: Mode | None = None,
    inject: Inject = "detect",
    namespace: str = "default",
    case: str | Path | None = None,
) -> Preview | Mapping[str, Any]:
    """Which proxies a change would push, with what, and which rule lets it through.

    mesh:   manifests (files, folders), or a Mesh.
    change: files or folders of objects to write, or a Change. delete: `[group/]Kind/[namespace/]name` of objects.
    case:   instead of these, a case file (mesh, proxies, steps); the answer then is a recording (formats.md).

    Returns a Preview: `groups` of equal proxies, each with the types, resources and bytes that one of them gets and the
    rule that decided, spared ones last; `explain("POD.NAMESPACE")` is one proxy's whole reasoning. Raises InputError:
    no such file, object, release or mode, no proxy, nothing to change.

    >>> from pushsim.mesh import Object, Proxy, Ref
    >>> web = Proxy("web-0", "shop", "10.1.0.1")
    >>> service = Object(Ref("Service", "bank", "pay"), {"spec": {"ports": [{"port": 80, "name": "http"}]}})
    >>> answer = plan(Mesh({}, (web,)), change=Change((service,)), release="1.24")
    >>> [(group.proxies[0].id, [pushed.xds for pushed in group.types]) for group in answer.pushed]
    [('web-0.shop', ['CDS', 'LDS', 'EDS', 'RDS'])]
    """
    if case is not None:
        return preview_case(load_case(case, mesh, change, delete), release=release, mode=mode)
    question = _asked(mesh, change, delete, namespace, inject)
    return preview(question.mesh, question.change, release=release, mode=mode)


def diff_releases(
    mesh: Mesh | Paths,
    change: Change | Paths,
    old: str,
    new: str,
    *,
    delete: Sequence[str] = (),
    mode: Mode | None = None,
    inject: Inject = "detect",
    namespace: str = "default",
    progress: Share | None = None,
) -> diff.ReleaseDiff:
    """What a change pushes on one release and not, or otherwise, on another, and by which rule and pull request.

    mesh, change, delete: as for `plan`. old, new: Istio releases, minor or patch. `diff_scenario` asks the same of a
    whole scenario.

    Returns a ReleaseDiff: `shifts` are the proxies that get something else, each with both answers, their bytes and the
    rules behind it; none if nobody does. Raises InputError: as `plan` does.
    """
    question = _asked(mesh, change, delete, namespace, inject)
    return diff.diff_releases(question.mesh, question.change, old, new, mode=mode, progress=progress)


def _asked(
    mesh: Mesh | Paths, change: Change | Paths, delete: Sequence[str], namespace: str, inject: Inject
) -> asking.Asked:
    question = asking.asked(
        mesh if isinstance(mesh, Mesh) else as_paths(mesh, "mesh"),
        change if isinstance(change, Change) else as_paths(change, "change"),
        texts(delete, "delete"),
        namespace=namespace,
        inject=inject,
    )
    for text in question.notes:
        warnings.warn(text, stacklevel=3)
    return question


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
    seeds:    so many, from the scenario's own on, for confidence intervals.
    price_per_gb: of what crosses a zone; then the Comparison has money, too.
    jobs:     runs at once; the answer is the same.

    Returns a Comparison of one column per mesh and policy, the first the baseline: `figures` is a DataFrame (units in
    it), `columns[i].breaks` what is no longer found, and `judge` the gate (`--fail-on` and `--baseline`). After an
    interrupt it has what there is, and `complete` is False. Raises InputError.
    """
    columns = arms(loaded(scenario), texts(policies, "policies"), meshes)
    return comparing(columns, seeds=seeds, jobs=jobs, price_per_gb=price_per_gb, engine=engine)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What `recommend` goes by. notes: what reading has to say."""

    mesh: Mesh
    calls: Graph
    settings: Settings
    notes: tuple[str, ...]


def evidence(
    mesh: Scenario | Mesh | Sequence[str],
    calls: str | None,
    *,
    watched: str | None = None,
    release: str | None = None,
    namespace: str = "default",
    inject: Inject = "detect",
    stdin: files.Stdin = None,
) -> Evidence:
    """The mesh, its settings, and the calls: a scenario's own by default.

    mesh:  a scenario, a Mesh, or manifests. watched: how long the calls were, where they do not say: "168h".

    Raises InputError: no calls to go by, no proxy, and what reading may raise.
    """
    notes: tuple[str, ...] = ()
    own = None
    if isinstance(mesh, Scenario):
        scenario = mesh if release is None else mesh.replaced({"istiod.release": release})
        there, settings = scenario.mesh, scenario.settings
        own = scenario.calls() if calls is None else None
        where = scenario.path
    else:
        where = "" if isinstance(mesh, Mesh) else ", ".join(mesh)
        if isinstance(mesh, Mesh):
            there = mesh
        else:
            there, notes = asking.mesh_in(mesh, namespace=namespace, inject=inject, stdin=stdin)
        wanted = releases.rules(release or releases.NEWEST).release
        settings = Settings(wanted, mesh_config=there.mesh_config, env=there.env)
    if not there.proxies:
        raise InputError(no_proxy(where))
    graph = own if calls is None else read_calls(_calls_in(calls, stdin), calls, there)
    if graph is None:
        raise InputError(
            Problem(
                "no calls to go by",
                field="--calls",
                remedy="give a CSV of source,destination,rate, or what Prometheus, Kiali or Envoy's access log say",
            )
        )
    if calls is not None and not graph.number_of_edges():  # Sidecars that import nothing would follow
        raise InputError(Problem("holds no calls", calls, remedy="watch for longer"))
    if watched is not None:
        watch(graph, watched)
    return Evidence(there, graph, settings, notes)


def _calls_in(calls: str, stdin: files.Stdin) -> str:
    try:
        return stdin().decode() if calls == "-" and stdin is not None else Path(calls).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(Problem(f"cannot be read: {reason(error)}", calls, remedy="check the path")) from None


def recommend(
    mesh: Mesh | Asked | Paths,
    calls: str | Path | None = None,
    *,
    per: Literal["namespace", "workload"] = "namespace",
    silent: bool = False,
    watched: str | None = None,
    export_to: bool = True,
    max_hosts: int | None = None,
    slack: float | None = None,
    budget: int | None = None,
    release: str | None = None,
    inject: Inject = "detect",
    namespace: str = "default",
    out: str | Path | None = None,
) -> Recommendation:
    """Sidecars and exportTo that observed calls allow: what each saves, what it rests on, what may go wrong.

    mesh:    a scenario (its own calls are the default), manifests, or a Mesh.
    calls:   CSV, or JSON of Prometheus, Kiali or Envoy. watched: how long for, where that does not say: "168h".
    silent:  with per="workload", Sidecars for workloads that were never seen to call, too.
    export_to: propose exportTo of Services, too.
    max_hosts, slack: when whole namespaces are imported (`pushsim.recommend.Limits`). budget: at most so many objects.
    out:     a file for the objects, as YAML.

    Returns a Recommendation: `proposals`, the most saving first, each with bytes saved and what it risks; `yaml()` to
    apply. Raises InputError: no calls to go by, no proxy, and what reading may raise.
    """
    chosen(per, ("namespace", "workload"), "per")
    question: Scenario | Mesh | list[str]
    if isinstance(mesh, Scenario) or (isinstance(mesh, str | Path) and Scenario.is_one(str(mesh))):
        question = loaded(mesh)
    else:
        question = mesh if isinstance(mesh, Mesh) else as_paths(mesh, "mesh")
    read = evidence(
        question,
        as_path(calls, "calls") if calls is not None else None,
        watched=watched,
        release=release,
        namespace=namespace,
        inject=inject,
    )
    for text in read.notes:
        warnings.warn(text, stacklevel=2)
    default = Limits()
    limits = Limits(slack if slack is not None else default.slack, max_hosts or default.max_hosts)
    found = recommending(
        read.mesh,
        read.calls,
        read.settings,
        workloads=per == "workload",
        silent=silent,
        export_to=export_to,
        limits=limits,
        budget=budget,
    )
    if out is not None:
        with writing(out):
            Path(out).write_text(found.yaml(), encoding="utf-8")
    return found


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
    """The smallest replicas x cores x memory that keep a promise, for each policy.

    slo:      conditions that must all hold, like "converged_s.p99 < 5s" (formats.md), with each of the `seeds`.
    policies: `--policy` texts; default: the scenario's variants.
    min_replicas, max_replicas, max_cpus: what is tried. risk: the probability with which a memory limit is run over.

    Returns sizes by policy; `met` is False where nothing that was tried keeps the promise. Raises InputError.
    """
    return sizing.size(
        loaded(scenario),
        [thresholds.parse(text, "--slo") for text in texts(slo, "slo")],
        texts(policies, "policies"),
        seeds=seeds,
        min_replicas=min_replicas,
        max_replicas=max_replicas,
        max_cpus=max_cpus,
        risk=risk,
        engine=engine,
        jobs=jobs,
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
    """What proxies really have against what they would have.

    mesh: manifests, or a Mesh. dump: a proxy's config_dump, or istiod's /debug/adsz.
    proxy: POD.NAMESPACE, whose config_dump it is; of adsz, only this one.

    Returns what is equal and what only one side has, by proxy and xDS type. Raises InputError.
    """
    return inspecting(_mesh(mesh, namespace, inject), as_path(dump, "dump"), proxy=proxy, release=release, mode=mode)


@overload
def churn(scenario: Asked, *, variant: str | None = ..., jobs: int = ...) -> list[Caused]: ...
@overload
def churn(*, prometheus: Paths, window: str | None = ...) -> Churn: ...
def churn(
    scenario: Asked | None = None,
    *,
    prometheus: Paths = (),
    window: str | None = None,
    variant: str | None = None,
    jobs: int = 1,
) -> list[Caused] | Churn:
    """What each source of a scenario causes and would save; or istiod's own counters as a scenario's churn section.

    variant:    of the scenario; default: the first.
    prometheus: a server's address, or one or two pages of istiod's metrics. window: the time they cover, like "1h".

    Returns, of a scenario, a Caused per source: what it caused, and what there would be less without it (proxy pushes,
    bytes, seconds of a core), and the P99 of `converged` in seconds with and without it. Of metrics, a Churn.
    Raises InputError: neither or both given, and what reading may raise.
    """
    sources = as_paths(prometheus, "prometheus")
    if (scenario is None) == (not sources):
        raise InputError(Problem("give a scenario or prometheus, and not both", remedy="see help(pushsim.churn)"))
    if scenario is None:
        from pushsim.calibrate.churning import churn_of
        from pushsim.calibrate.counters import read, seconds

        return churn_of(read(sources, seconds(window)))
    return caused(loaded(scenario), variant, jobs=jobs)
