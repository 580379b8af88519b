"""The objects that are proposed: Sidecars by what a unit was seen to need, exportTo by who was seen to call."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pushsim.breaks import Sight
from pushsim.context import MESH_GATEWAY
from pushsim.mesh import Mesh, Object, Ref, Service
from pushsim.policies.exporting import EXPORT_TO
from pushsim.policies.scoping import default_sidecar, sidecar
from pushsim.recommend.needs import Limits, Unit, hosts_for
from pushsim.topology.calls import host_of
from pushsim.topology.objects import edited, seconds_since, timestamp
from pushsim.topology.selection import SYSTEM_NAMESPACES

if TYPE_CHECKING:
    from pushsim.topology.calls import Graph

#: More namespaces than this, and a service stays exported to all.
MAX_EXPORTS = 5
_SPECIAL = ("port", "bind", "captureMode")


def sidecar_for(unit: Unit, mesh: Mesh, limits: Limits, created: str) -> Object | str:
    """The unit's Sidecar, or why it gets none.

    It takes the place of the namespace's own, and keeps all of the present one's spec but egress hosts.
    """
    now = unit.scope.sidecar
    spec: dict[str, Any] = dict(now.spec) if now is not None else {}
    egress = list(spec.get("egress") or ())
    if len(egress) > 1 or any(key in listener for listener in egress for key in _SPECIAL):
        return f"{unit.scope} has egress listeners of its own kind"
    hosts = hosts_for(unit, limits)
    if not hosts:
        return "it needs nothing that it sees"
    spec["egress"] = [{**(egress[0] if egress else {}), "hosts": hosts}]
    spec.pop("workloadSelector", None)
    own = default_sidecar(mesh, unit.namespace)
    if unit.selector:
        name = _free(mesh, unit.namespace, unit.name)
        made = sidecar(unit.namespace, name, hosts, dict(unit.selector))
        return edited(made, metadata={"creationTimestamp": created}, spec={**made.spec, **spec})
    if own is not None:
        return edited(own, spec=spec)
    made = sidecar(unit.namespace, _free(mesh, unit.namespace, "default"), hosts)
    return edited(made, metadata={"creationTimestamp": created}, spec=spec)


def _free(mesh: Mesh, namespace: str, name: str) -> str:
    taken, number = name, 1
    while Ref("Sidecar", namespace, taken) in mesh.objects:
        number += 1
        taken = f"{name}-{number}"
    return taken


def next_creation(mesh: Mesh) -> str:
    """A creationTimestamp later than that of all objects there are."""
    return timestamp(1 + max((seconds_since(held.creation) for held in mesh.objects.values()), default=0))


def exports(sight: Sight, graph: Graph) -> Iterator[tuple[Object, frozenset[str]]]:
    """Services that say nothing of exportTo, with one that names who was seen to need them, and those namespaces.

    Those are their own namespace, callers' namespaces, and those of gateways whose routes name them. What a route of
    sidecars names may be needed anywhere, so it is left alone, as are system namespaces.
    """
    needed: dict[str, set[str]] = defaultdict(set)
    for caller, callee in graph.edges:
        needed[host_of(callee)].add(caller.namespace)
    context = sight.push.context
    if context.mesh_config.get("defaultServiceExportTo") not in (None, [], ["*"]):
        return  # somebody has decided already
    for view, _ in sight.populations:
        if view.proxy.type == "router":
            for name in view.gateway.names:
                for host in context.routes.destinations_of_gateway(name):
                    needed[host].add(view.proxy.namespace)
    system = SYSTEM_NAMESPACES | {context.root}
    in_mesh = {h for r in context.routes.by_gateway.get(MESH_GATEWAY, ()) for h in (*r.hosts, *r.destinations(None))}
    for service in context.services.ordered:
        written = _open(service, sight.mesh.objects)
        twins = len(context.services.by_host[service.hostname]) > 1
        if written is None or twins or service.hostname in in_mesh or service.namespace in system:
            continue
        others = sorted(needed[service.hostname] - {service.namespace})
        if len(others) < MAX_EXPORTS:
            value = ",".join([".", *others])
            annotations = {**written.annotations, EXPORT_TO: value}
            yield edited(written, metadata={"annotations": annotations}), frozenset({service.namespace, *others})


def _open(service: Service, objects: Mapping[Ref, Object]) -> Object | None:
    """The Service as written, if it leaves exportTo to the mesh."""
    if service.registry != "Kubernetes" or service.export_to:
        return None
    return objects.get(Ref("Service", service.namespace, service.name))
