"""From a scenario's sections to what runners are handed: the mesh, the dated changes, the settings, one variant."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pushsim import files
from pushsim.collecting import no_collections
from pushsim.errors import InputError, Problem, meant, no_proxy
from pushsim.manifests import delete_change, to_change
from pushsim.manifests.kinds import WORKLOADS
from pushsim.mesh import Change, Mesh, Object, Proxy, Ref
from pushsim.policies import Files, Policy, text_of
from pushsim.scenario.model import DatedChange, Model
from pushsim.settings import PROFILES, Clients, Settings, Timed, Variant, overlay
from pushsim.topology import Dated, generate, proxy_of, run
from pushsim.topology.churn import CHANGES, unique_names
from pushsim.topology.objects import edited, seconds_since, timestamp
from pushsim.units import SECOND_NS, duration_text

#: keepaliveMaxServerConnectionAge of Istio's chart, all releases; istiod's own default is never.
CHART_CONNECTION_AGE_NS = 30 * 60 * SECOND_NS


@dataclass(frozen=True)
class Base:
    """What all variants of a scenario share: the mesh as described and its churn.

    notes: what loading had to say. idle: what of the churn and changes changes nothing.
    """

    mesh: Mesh
    changes: tuple[Dated, ...]
    notes: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()
    warmup_ns: int = 0

    @cached_property
    def timed(self) -> tuple[Timed, ...]:
        """The changes as runners take them."""
        return tuple(Timed(*dated) for dated in self.changes)


def described(model: Model, base_dir: Path, where: str) -> tuple[Mesh, list[Dated], tuple[str, ...]]:
    """The scenario's mesh, its dated changes and what loading had to say. Raises InputError with all problems."""
    notes: tuple[str, ...] = ()
    mesh = Mesh()
    if model.mesh.manifests:
        loaded = files.load([str(base_dir / path) for path in model.mesh.manifests], inject=model.mesh.inject)
        mesh, notes = loaded.mesh, tuple(loaded.notes)
    if model.mesh.generate is not None:
        with no_collections():
            mesh = _beside(mesh, generate(model.mesh.generate, model.seed, beside=mesh), where)
    extra, problems, now = list[Dated](), list[Problem](), mesh
    for dated in sorted(model.changes, key=lambda dated: dated.at):
        try:
            change = load_change(dated, base_dir, now)
        except InputError as error:
            problems.extend(error.problems)
            continue
        now = now.after(change)
        extra.append(Dated(model.warmup + dated.at, CHANGES, change))
    if (
        model.mesh.manifests
        and not mesh.proxies
        and not any(o.ref.kind == "Pod" for d in extra for o in d.change.apply)
    ):
        problems.append(no_proxy(where, "mesh.manifests", "mesh.inject: all"))
    if problems:
        raise InputError(problems)
    return mesh, extra, notes


def base(model: Model, base_dir: Path, where: str) -> Base:
    """The scenario's mesh and all its changes before any policy. Raises InputError with all problems of its files."""
    mesh, extra, notes = described(model, base_dir, where)
    with no_collections():
        changes = tuple(run(model.churn, mesh, model.seed, model.warmup, model.duration, extra))
    alone = () if mesh.proxies else ("no proxy connects: give an app `sidecar: true`, or gateways",)
    return Base(mesh, changes, notes, (*alone, *_idle(model, changes)), model.warmup)


def _idle(model: Model, changes: Iterable[Dated]) -> Iterator[str]:
    """What a scenario lists and no run of it sees."""
    if not model.churn and not model.changes:
        yield "nothing changes: the scenario has no churn and no changes (write churn: [{source: rollout, rate: 40/h}])"
    seen = {source for _, source, _ in changes}
    span = duration_text(model.duration)
    for name in unique_names(model.churn):
        if name not in seen:
            yield f"churn {name} changes nothing in {span}: nothing fits its selection, or it comes too seldom or late"
    for index, dated in enumerate(model.changes):
        if dated.at >= model.duration:
            yield f"changes[{index}] never happens: it is at {duration_text(dated.at)}, and the run ends at {span}"


def _missed(mesh: Mesh, changes: Sequence[Timed], warmup_ns: int) -> Iterator[str]:
    """What a scenario's own changes delete that is not there then."""
    written = set[Ref]()
    deletes = any(timed.change.delete for timed in changes if timed.source == CHANGES)
    for timed in changes if deletes else ():
        for ref in timed.change.delete if timed.source == CHANGES else ():
            if ref not in mesh.objects and ref not in written:
                names = [o.name for o in mesh.objects if (o.kind, o.namespace) == (ref.kind, ref.namespace)]
                hint = f" ({near})" if (near := meant(ref.name, names)) else ""
                yield f"changes at {duration_text(timed.at_ns - warmup_ns)}: there is no {ref} to delete{hint}"
        written.update(held.ref for held in timed.change.apply)


def load_change(dated: DatedChange, base_dir: Path, mesh: Mesh) -> Change:
    """The files and deletions of one dated change, written to `mesh` one after another."""
    applied: list[Object] = []
    deleted: list[Ref] = []
    for path in dated.apply:
        change = files.load_change(str(base_dir / path), mesh=mesh).change
        if change.mesh_config is not None:
            raise InputError(
                Problem(
                    "holds a MeshConfig, which cannot change in the middle of a scenario",
                    str(base_dir / path),
                    remedy="give it as istiod.mesh_config, or as a variant of its own with the policy `knobs`",
                )
            )
        applied.extend(change.apply)
        deleted.extend(change.delete)
        mesh = mesh.after(change)
    refs = [target.ref for target in dated.delete]
    missing = [ref for ref in refs if ref.kind in WORKLOADS and not delete_change([ref], mesh).delete]
    # together: one Service may select the pods of several
    whole = delete_change([ref for ref in refs if ref not in missing], mesh)
    applied.extend(whole.apply)
    deleted.extend([*whole.delete, *missing])
    return Change(tuple(applied), tuple(deleted), dated.name)


def _beside(given: Mesh, generated: Mesh, where: str) -> Mesh:
    """Both meshes laid together; what both have (a namespace, a node) stays as the manifests say."""
    doubles = [
        ref for ref in generated.objects if ref in given.objects and ref.kind not in ("Namespace", "Node", "Gateway")
    ]
    if doubles:
        remedy = "give the generated app or namespaces another name"
        message = f"{doubles[0]} is both generated and in the manifests"
        raise InputError(Problem(message, where, "mesh", remedy))
    proxies = given.proxies + generated.proxies
    return Mesh({**generated.objects, **given.objects}, proxies, given.mesh_config, given.env)


def settings(model: Model, mesh: Mesh, base_dir: Path) -> Settings:
    """The control plane as the scenario says, before any policy.

    A MeshConfig among the manifests takes the profile's place: it is what that cluster's chart installed.
    """
    istiod, clients = model.istiod, model.clients
    under = mesh.mesh_config or PROFILES[istiod.profile]
    age: int | str | None = CHART_CONNECTION_AGE_NS if istiod.profile == "default" else None
    if clients.reconnect is not None:
        age = clients.reconnect.every
    return Settings(
        release=istiod.release,
        replicas=istiod.replicas,
        cpus=istiod.cpus,
        env={**mesh.env, **environment(model)},
        mesh_config=overlay(under, istiod.mesh_config),
        profile=istiod.profile,
        calibration=str(base_dir / istiod.calibration) if istiod.calibration else None,
        mode=model.proxies.mode,
        workers=model.proxies.workers,
        memory_limit_bytes=model.proxies.memory_limit,
        clients=Clients(
            slow_share=clients.slow.share,
            slow_delay_ns=clients.slow.delay,
            nack_share=clients.nack.share,
            reconnect_ns=age if isinstance(age, int) and age > 0 else None,
        ),
    )


def environment(model: Model) -> dict[str, str]:
    """istiod's environment variables as the scenario has them, as text."""
    return {key: text_of(value) for key, value in model.istiod.env.items()}


def variant(name: str, shared: Base, policy: Policy, before: Settings) -> Variant:
    """The same workload under that policy. What the policy leaves alone is shared with every other variant."""
    after = policy.control_plane(before)
    mesh = replace(shared.mesh, mesh_config=after.mesh_config, env=after.env)
    objects = dict(mesh.objects)
    if policy.admits:
        objects = {ref: policy.admit(held, mesh) for ref, held in objects.items()}
    installed = policy.install(replace(mesh, objects=objects))
    newest = max((seconds_since(held.creation) for held in objects.values()), default=0) if installed else 0
    for index, held in enumerate(installed):
        created = held.creation or timestamp(newest + 1 + index)
        objects[held.ref] = edited(held, metadata={"creationTimestamp": created})
    mesh = replace(mesh, objects=objects, proxies=_proxies(shared.mesh, objects))
    changes = tuple(_admitted(shared.changes, policy, mesh)) if policy.admits else shared.timed
    notes = [*policy.notes(after), *shared.idle, *_missed(mesh, changes, shared.warmup_ns)]
    return Variant(name, mesh, changes, after, tuple(notes))


def _proxies(before: Mesh, after: Mapping[Ref, Object]) -> tuple[Proxy, ...]:
    """The proxies that connect: a pod that lost its `istio-proxy` container has none, a new pod with one has one."""
    known = {(proxy.namespace, proxy.name): proxy for proxy in before.proxies}
    for ref, held in after.items():
        earlier = before.objects.get(ref)
        if ref.kind != "Pod" or held is earlier:
            continue
        now = proxy_of(held)
        if now is None and earlier is not None and proxy_of(earlier) is not None:
            known.pop((ref.namespace, ref.name), None)
        elif now is not None and earlier is None:
            known[ref.namespace, ref.name] = now
    return tuple(known.values())


def _admitted(changes: Iterable[Dated], policy: Policy, mesh: Mesh) -> Iterator[Timed]:
    for at_ns, source, change in changes:
        spaces = tuple(held for held in change.apply if held.ref.kind == "Namespace")
        if spaces:
            mesh = mesh.after(Change(spaces))
        applied = tuple(policy.admit(held, mesh) for held in change.apply)
        same = all(new is old for new, old in zip(applied, change.apply, strict=True))
        yield Timed(at_ns, source, change if same else Change(applied, change.delete, change.name))


def fill(policy: Files, base_dir: Path) -> Files:
    """A `files` policy with its files read. Raises InputError for what is wrong in them."""
    documents = files.read_sources([str(base_dir / path) for path in policy.paths])
    to_change(documents)  # says what is wrong with them; what they mean hangs on the mesh
    return policy.model_copy(update={"documents": tuple(documents)})


def identity(model: Model, base_dir: Path) -> str:
    """A hash of all that affects the answer: every field that does, and the contents (not the names) of all files.

    Raises InputError for files that are missing.
    """
    data = model.model_dump(mode="json", exclude={"published", "assumptions"})
    digest = hashlib.sha256()
    problems: list[Problem] = []

    def contents(path: str, field: str) -> str:
        try:
            return _contents(base_dir / path)
        except OSError as error:
            remedy = f"paths are relative to the scenario's folder, {base_dir}"
            problems.append(Problem(f"{path} cannot be read: {error.strerror}", field=field, remedy=remedy))
            return ""

    mesh = data["mesh"]
    if mesh["generate"]:
        del mesh["generate"]["at_most"]  # the mesh is the same whatever is allowed
    mesh["manifests"] = [contents(path, f"mesh.manifests[{at}]") for at, path in enumerate(mesh["manifests"])]
    for name in ("calls",):
        data[name] = contents(data[name], name) if data[name] else None
    if data["istiod"]["calibration"]:
        data["istiod"]["calibration"] = contents(data["istiod"]["calibration"], "istiod.calibration")
    for at, change in enumerate(data["changes"]):
        change["apply"] = [contents(path, f"changes[{at}].apply[{k}]") for k, path in enumerate(change["apply"])]
    for name, items in data["variants"].items():
        for k, item in enumerate(items or ()):
            if isinstance(item, dict) and isinstance(item.get("files"), dict):
                paths = item["files"].get("paths") or ()
                field = f"variants.{name}[{k}].files.paths"
                item["files"] = [
                    contents(path, f"{field}[{i}]") for i, path in enumerate(paths) if isinstance(path, str)
                ]
    if problems:
        raise InputError(problems)
    digest.update(json.dumps(data, sort_keys=False, separators=(",", ":"), default=_plain).encode())
    return digest.hexdigest()[:16]


def _plain(value: Any) -> str:
    return str(value)


def _contents(path: Path) -> str:
    """A digest of the file, or of the YAML and JSON files in the folder in the order they are read."""
    digest = hashlib.sha256()
    if path.is_dir():
        for part in sorted(found for found in path.rglob("*") if found.suffix in (".yaml", ".yml", ".json")):
            digest.update(hashlib.sha256(part.read_bytes()).digest())
    else:
        digest.update(path.read_bytes())
    return digest.hexdigest()
