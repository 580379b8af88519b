"""Kubernetes and Istio manifests to a Mesh, and to Changes of one. Pure: `pushsim.files` reads.

What istiod watches goes in as it stands; workloads expand to ready pods, Services to EndpointSlices by selector, pods
to proxies by Istio's injection rules. What is not modelled is counted, never dropped in silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import get_args

from pushsim.errors import InputError, Problem, chosen
from pushsim.manifests.credentials import missing
from pushsim.manifests.document import Document, parse_text
from pushsim.manifests.endpoints import (
    SERVICE_NAME,
    from_endpoints,
    needs_cluster_ip,
    selector_of,
    selects,
    slices,
    with_cluster_ip,
)
from pushsim.manifests.injection import Inject, proxy_of
from pushsim.manifests.kinds import KINDS, WORKLOADS, owner_of, parse_delete
from pushsim.manifests.objects import Parsed, parse, parse_objects
from pushsim.manifests.workloads import (
    POD_NETWORK,
    SERVICE_NETWORK,
    Addresses,
    expand,
    minimum_replicas,
    pod_count,
    same_template,
    taken_addresses,
    to_expand,
    workload_of,
)
from pushsim.mesh import Change, Mesh, Object, Proxy, Ref

__all__ = [
    "Document",
    "Inject",
    "Loaded",
    "LoadedChange",
    "delete_change",
    "from_parsed",
    "parse_delete",
    "parse_objects",
    "parse_text",
    "to_change",
    "to_mesh",
]


@dataclass(frozen=True)
class LoadedChange:
    """A change as read; notes are sentences for the user."""

    change: Change
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Loaded:
    """A mesh as read: notes are sentences for the user, unmodelled counts kinds that were left out."""

    mesh: Mesh
    notes: tuple[str, ...] = ()
    unmodelled: Mapping[str, int] = field(default_factory=dict)


def to_mesh(documents: Iterable[Document], *, namespace: str = "default", inject: Inject = "detect") -> Loaded:
    """The mesh that these documents describe; raises InputError with every problem in them."""
    return from_parsed(parse(documents, namespace), inject=inject)


def from_parsed(parsed: Parsed, *, inject: Inject = "detect") -> Loaded:
    """As `to_mesh`, of objects already parsed."""
    if parsed.problems:
        raise InputError(parsed.problems)
    notes = list(parsed.notes)
    given = parsed.objects
    addresses = taken_addresses(given.values())
    objects = {ref: o for ref, o in given.items() if KINDS[ref.kind].watched}
    _allocate(objects, {}, addresses)
    nodes = [ref.name for ref in given if ref.kind == "Node"]
    pool, minima = Addresses(POD_NETWORK, addresses), minimum_replicas(given.values())
    for workload in to_expand(given):
        count = pod_count(workload, len(nodes), minima.get(workload.ref, 0))
        for pod in expand(workload, count, nodes, pool.give):
            objects.setdefault(pod.ref, pod)
    if cron := sum(ref.kind == "CronJob" for ref in given):
        notes.append(f"{_count(cron, 'CronJob')}: no pod of it is taken to be running")
    _add_slices(objects, given)
    proxies = proxies_of(objects, inject)
    objects |= (stand_ins := missing(objects, proxies))
    if stand_ins:
        notes.append(f"{_count(len(stand_ins), 'Secret')} not given, named as credentials: taken to be of usual size")
    mesh = Mesh(objects, proxies, parsed.mesh_config)
    unmodelled = dict(sorted(parsed.unmodelled.items()))
    notes += [*_unmodelled(unmodelled), *_notes(mesh)]
    return Loaded(mesh, tuple(notes), unmodelled)


def proxies_of(objects: Mapping[Ref, Object], inject: Inject) -> tuple[Proxy, ...]:
    """The proxies of the pods, by Istio's injection rules, in the pods' order."""
    chosen(inject, get_args(Inject), "inject")
    labels = {ref.name: o.labels for ref, o in objects.items() if ref.kind == "Namespace"}
    pods = (o for o in objects.values() if o.ref.kind == "Pod")
    return tuple(p for pod in pods if (p := proxy_of(pod, labels.get(pod.ref.namespace, {}), inject)))


def to_change(
    documents: Iterable[Document], *, namespace: str = "default", mesh: Mesh | None = None, name: str = ""
) -> LoadedChange:
    """The objects of a change file, with the pods and EndpointSlices that Kubernetes' controllers would then write.

    Relative to `mesh`: a Deployment that is there already is scaled (template unchanged) or rolled over to new pods; a
    HorizontalPodAutoscaler brings the pods of what it scales up to its minReplicas; a Service keeps its clusterIP.
    Raises InputError with every problem in the documents.
    """
    parsed = parse(documents, namespace)
    if parsed.problems:
        raise InputError(parsed.problems)
    mesh, given = mesh or Mesh(), parsed.objects
    addresses = taken_addresses([*mesh.objects.values(), *given.values()])
    written = {ref: o for ref, o in given.items() if KINDS[ref.kind].watched}
    _allocate(written, mesh.objects, addresses)
    after = {**mesh.objects, **written}
    nodes = [ref.name for ref in after if ref.kind == "Node"]
    pool, minima = Addresses(POD_NETWORK, addresses), minimum_replicas(given.values())
    deleted: list[Ref] = []
    for workload in [*to_expand(given), *_scaled_alone(given, minima, mesh)]:
        old = _pods_of(mesh, workload.ref)
        kept = [p for p in old if same_template(p, workload.spec.get("template") or {})]
        count = pod_count(workload, len(nodes), minima.get(workload.ref, 0))
        fresh = expand(workload, count, nodes, pool.give)
        if workload.ref.kind == "StatefulSet":  # names are places: a rollout writes the same pods anew
            fresh = [next((k for k in kept if k.ref == p.ref), p) for p in fresh]
        elif kept:
            names = {p.ref for p in kept}
            fresh = [*kept, *(p for p in fresh if p.ref not in names)][:count]
        keep = {p.ref for p in fresh}
        deleted += [p.ref for p in old if p.ref not in keep]
        written |= {p.ref: p for p in fresh if mesh.objects.get(p.ref) != p}
    change = _reconciled(mesh, written, deleted, given, name)
    config = parsed.mesh_config or None
    notes = [*parsed.notes, *_unmodelled(dict(sorted(parsed.unmodelled.items())))]
    return LoadedChange(replace(change, mesh_config=config), tuple(notes))


def _scaled_alone(given: Mapping[Ref, Object], minima: Mapping[Ref, int], mesh: Mesh) -> Iterator[Object]:
    """The workloads that an autoscaler of the change scales and that are not in the change themselves.

    The mesh knows their pods alone, so their template is read off a pod. Raises InputError where there is none.
    """
    for hpa in (o for o in given.values() if o.ref.kind == "HorizontalPodAutoscaler"):
        target = next(iter(minimum_replicas([hpa])))
        if target in given or minima[target] == 0:
            continue
        pods = _pods_of(mesh, target)
        if not pods:
            raise InputError(
                Problem(
                    f"scales {target}, of which the mesh has no pod",
                    hpa.source,
                    "spec.scaleTargetRef",
                    "give that workload too, in the mesh or in the change",
                )
            )
        yield workload_of(target, pods)


def delete_change(refs: Iterable[Ref], mesh: Mesh, *, name: str = "") -> Change:
    """The change that deleting these makes: a workload's pods, their endpoints, a Service's EndpointSlices go too."""
    deleted: list[Ref] = []
    for ref in refs:
        deleted += [pod.ref for pod in _pods_of(mesh, ref)] if ref.kind in WORKLOADS else [ref]
    return _reconciled(mesh, {}, deleted, {}, name)


def _reconciled(
    mesh: Mesh, written: dict[Ref, Object], deleted: list[Ref], given: Mapping[Ref, Object], name: str
) -> Change:
    """Adds what the endpoint slice controller would write and delete because of the pods and Services changed."""
    gone = set(deleted)
    after = {ref: o for ref, o in {**mesh.objects, **written}.items() if ref not in gone}
    changed_pods = [
        pod
        for ref in [*written, *deleted]
        if ref.kind == "Pod"
        for pod in (mesh.objects.get(ref), written.get(ref))
        if pod is not None
    ]
    theirs = _slices_by_service(after)
    by_hand = {(ref.namespace, _service_of(o)) for ref, o in given.items() if ref.kind == "EndpointSlice"}
    by_hand |= {(ref.namespace, ref.name) for ref in given if ref.kind == "Endpoints"}
    pods = _pods_by_namespace(after)
    for endpoints in (o for ref, o in given.items() if ref.kind == "Endpoints"):
        written |= {s.ref: s for s in from_endpoints(endpoints)}
    for ref in gone:
        if ref.kind == "Service":
            deleted += [s.ref for s in theirs.get((ref.namespace, ref.name), ()) if s.ref not in gone]
    for service in [o for o in after.values() if o.ref.kind == "Service" and selector_of(o)]:
        key, before = (service.ref.namespace, service.ref.name), mesh.objects.get(service.ref)
        moved = service.ref in written and (before is None or _shape(before) != _shape(service))
        touched = any(p.ref.namespace == key[0] and selects(selector_of(service), p.labels) for p in changed_pods)
        if key in by_hand or not (moved or touched):
            continue
        existing = theirs.get(key, [])
        new = slices(service, pods.get(key[0], ()), existing if not moved else ())
        if moved:  # other ports or pods: the first slices are rewritten, the rest go
            renamed = [
                Object(s.ref._replace(name=old.ref.name), {**s.body, "metadata": old.body["metadata"]}, s.source)
                for s, old in zip(new, existing, strict=False)
            ]
            new = [*renamed, *new[len(renamed) :]]
            deleted += [s.ref for s in existing[len(new) :]]
        written |= {s.ref: s for s in new if mesh.objects.get(s.ref) != s}
    return Change(tuple(written.values()), tuple(dict.fromkeys(deleted)), name)


def _shape(service: Object) -> object:
    ports = [{k: v for k, v in p.items() if k != "nodePort"} for p in service.spec.get("ports") or ()]
    return selector_of(service), ports, service.spec.get("publishNotReadyAddresses", False)


def _pods_of(mesh: Mesh, workload: Ref) -> list[Object]:
    return [
        pod
        for pod in mesh.of_kind("Pod")
        if pod.ref.namespace == workload.namespace
        and (
            owner_of(pod.body) == (workload.kind, workload.name)
            or any(
                (o.get("kind"), o.get("name")) == (workload.kind, workload.name)
                for o in pod.metadata.get("ownerReferences") or ()
            )
        )
    ]


def _allocate(objects: dict[Ref, Object], before: Mapping[Ref, Object], taken: set[str]) -> None:
    """Gives Services without clusterIP one: that of the mesh if it is there already, as the API server keeps it."""
    pool = Addresses(SERVICE_NETWORK, taken)
    for ref, service in objects.items():
        if ref.kind == "Service" and needs_cluster_ip(service):
            old = before.get(ref)
            kept = old.spec.get("clusterIP") if old else None
            objects[ref] = with_cluster_ip(service, kept or pool.give(ref.namespace, ref.name))


def _service_of(slice_: Object) -> str:
    return slice_.labels.get(SERVICE_NAME, "")


def _slices_by_service(objects: Mapping[Ref, Object]) -> dict[tuple[str, str], list[Object]]:
    found: dict[tuple[str, str], list[Object]] = {}
    for ref, o in objects.items():
        if ref.kind == "EndpointSlice":
            found.setdefault((ref.namespace, _service_of(o)), []).append(o)
    return found


def _pods_by_namespace(objects: Mapping[Ref, Object]) -> dict[str, list[Object]]:
    found: dict[str, list[Object]] = {}
    for ref, o in objects.items():
        if ref.kind == "Pod":
            found.setdefault(ref.namespace, []).append(o)
    return found


def _add_slices(objects: dict[Ref, Object], given: Mapping[Ref, Object]) -> None:
    """EndpointSlices for each Service that has none: from its v1 Endpoints if given, else by its selector."""
    have, pods = _slices_by_service(objects), _pods_by_namespace(objects)
    for ref, endpoints in given.items():
        key = (ref.namespace, ref.name)
        if ref.kind == "Endpoints" and key not in have:
            have[key] = from_endpoints(endpoints)
            objects.update((s.ref, s) for s in have[key])
    for service in [o for o in objects.values() if o.ref.kind == "Service" and selector_of(o)]:
        if (service.ref.namespace, service.ref.name) not in have:
            objects.update((s.ref, s) for s in slices(service, pods.get(service.ref.namespace, ())))


def _count(number: int, kind: str) -> str:
    return f"{number} {kind}" if number == 1 or kind.endswith(("s", ")")) else f"{number} {kind}s"


def _unmodelled(unmodelled: Mapping[str, int]) -> list[str]:
    notes = []
    routing = {k: n for k, n in unmodelled.items() if "(gateway.networking.k8s.io)" in k or k.startswith("Ingress (")}
    routing |= {k: n for k, n in unmodelled.items() if "(gateway.networking.x-k8s.io)" in k}
    if others := [f"{n} {k}" for k, n in unmodelled.items() if k not in routing]:
        notes.append("not modelled, left out: " + ", ".join(others))
    if routing:
        said = ", ".join(f"{n} {k}" for k, n in routing.items())
        notes.append(f"warning: {said} not modelled: istiod pushes for these too, so pushes are under-predicted")
    return notes


def _notes(mesh: Mesh) -> list[str]:
    notes = []
    pods = list(mesh.of_kind("Pod"))
    if waiting := sum(not pod.status.get("podIP") for pod in pods):
        notes.append(f"{_count(waiting, 'Pod')} without an IP: no endpoint and no proxy")
    unmatched: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for gateway in mesh.of_kind("Gateway"):
        selector = gateway.spec.get("selector") or {}
        if selector and not any(selects(selector, proxy.labels) for proxy in mesh.proxies):
            unmatched.setdefault(tuple(sorted(selector.items())), []).append(str(gateway.ref))
    for items, gateways in unmatched.items():
        wanted = ", ".join(f"{k}={v}" for k, v in items)
        some = ", ".join(gateways[:3]) + (f" and {len(gateways) - 3} more" if len(gateways) > 3 else "")
        notes.append(
            f"no proxy in the manifests matches the selector {wanted} of {some}: "
            "pushes to that gateway are not shown; give its Deployment too"
        )
    return notes
