"""Call graphs: who calls whom, for recommendations and to see what a policy breaks."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pushsim.errors import InputError, Problem
from pushsim.mesh import Mesh, Object, Ref
from pushsim.topology.generate import GATEWAY
from pushsim.topology.seeds import Stream
from pushsim.topology.selection import has_labels
from pushsim.topology.spec import Generate
from pushsim.topology.telemetry import Telemetry, recognise
from pushsim.units import SECOND_NS, UnitError, duration

if TYPE_CHECKING:
    import networkx as nx

    Graph = nx.DiGraph[Ref]


def call_graph(spec: Generate, mesh: Mesh, seed: int) -> Graph:
    """The seeded call graph of a generated mesh.

    Nodes are Refs of Services, with the attribute `app` (the app's position in the list); an edge (caller, callee) has
    the attribute `rate`, 1.0 calls per second. A gateway's own service calls each service that has a VirtualService.
    """
    import networkx as nx  # half a second to import, and only this needs it

    graph: Graph = nx.DiGraph()
    order = {app.name: index for index, app in enumerate(spec.apps)}
    layers: dict[int, list[Ref]] = defaultdict(list)
    routed = {route.ref for route in mesh.of_kind("VirtualService")}
    gateway = Ref("Service", spec.gateways.namespace, GATEWAY)
    for service in mesh.of_kind("Service"):
        if service.ref == gateway:
            continue
        name = service.ref.name
        app = order.get(name, order.get(name.rpartition("-")[0], 0))
        layers[app].append(service.ref)
        graph.add_node(service.ref, app=app)
        if Ref("VirtualService", service.ref.namespace, name) in routed:
            graph.add_edge(gateway, service.ref, rate=1.0)
    everyone = [ref for layer in layers.values() for ref in layer]
    stream = Stream(seed, "generate/calls")
    if spec.calls.model == "scale-free":
        degree = min(spec.calls.out_degree, len(everyone) - 1)
        if degree > 0:
            drawn = nx.barabasi_albert_graph(len(everyone), degree, seed=stream.below(2**31))
            graph.add_edges_from((everyone[max(a, b)], everyone[min(a, b)], {"rate": 1.0}) for a, b in drawn.edges)
        return graph
    for layer, callers in layers.items():
        callees = everyone if spec.calls.model == "random" else layers.get(layer + 1, [])
        at_home: dict[str, list[Ref]] = defaultdict(list)
        for ref in callees:
            at_home[ref.namespace].append(ref)
        for caller in callers:
            for _ in range(spec.calls.out_degree if callees else 0):
                local = at_home.get(caller.namespace)
                choice = local if local and stream.chance(spec.calls.local) else callees
                callee = choice[stream.below(len(choice))]
                if callee != caller:
                    graph.add_edge(caller, callee, rate=1.0)
    return graph


def read_calls(text: str, where: str, mesh: Mesh | None = None) -> Graph:
    """The observed call graph in a file, whatever wrote it.

    Known: a CSV with the columns source, destination and, if known, rate (calls per second) and calls (how many);
    Prometheus' answer about istio_requests_total; Kiali's graph; Envoy's JSON access log (an array, or a line each).
    In a CSV both ends are `namespace/service` or a FQDN (`service.namespace.svc.…`); with a mesh, a destination that it
    does not have is a problem. In what was measured, such calls are left out and counted, since services come and go.

    Nodes are Refs: of Services, of callers that no Service selects (kind `Workload`), and of hosts outside the cluster
    (kind `ServiceEntry`, the host for its name). Edges have `rate` and `calls`, None where not known. The graph has
    `watched_s` (seconds, or None) and `left_out` (calls or rates without a known end).

    Raises InputError with all problems, each with its line.
    """
    if text.lstrip()[:1] in ("{", "["):
        return _measured(_json(text, where), where, mesh)
    return _listed(text, where, mesh)


def _json(text: str, where: str) -> Telemetry:
    """A JSON value, or a line of JSON each."""
    try:
        data = json.loads(text)
    except ValueError:
        data = []
        for number, line in enumerate(text.splitlines(), 1):
            try:
                if line.strip():
                    data.append(json.loads(line))
            except ValueError as error:
                remedy = "give one JSON value, or one a line"
                raise InputError(Problem(f"is no JSON: {error}", where, f"line {number}", remedy)) from None
    try:
        found = recognise(data)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(Problem(f"is malformed: {type(error).__name__}: {error}", where, remedy=_FORMS)) from None
    if found is None:
        raise InputError(Problem("holds no calls that can be told", where, remedy=_FORMS))
    return found


_FORMS = "give a CSV, Prometheus' JSON of istio_requests_total, Kiali's graph JSON or Envoy's JSON access log"


def _measured(telemetry: Telemetry, where: str, mesh: Mesh | None) -> Graph:
    import networkx as nx

    callers = _callers(mesh) if mesh is not None else {}
    hosts = _external_hosts(mesh) if mesh is not None else frozenset()
    graph: Graph = nx.DiGraph(watched_s=telemetry.watched_s, left_out=0.0)
    for seen in telemetry.seen:
        source, callee = callers.get(seen.source), _callee(seen.destination)
        if source is None and all(seen.source) and not seen.source[1].startswith("pod "):
            source = Ref("Workload", *seen.source)
        there = mesh is None or callee is None or callee in mesh.objects or callee.name in hosts
        if source is None or callee is None or not there:
            graph.graph["left_out"] += seen.calls or seen.rate or 0.0
            continue
        held = graph.get_edge_data(source, callee) or {"rate": None, "calls": None}
        rate, calls = (_sum(held[key], getattr(seen, key)) for key in ("rate", "calls"))
        graph.add_edge(source, callee, rate=rate, calls=calls)
    for _, _, edge in graph.edges(data=True):
        complete_edge(edge, telemetry.watched_s)
    if not graph.edges:
        remedy = "are its callers and destinations those of this mesh?"
        raise InputError(Problem("tells of no call between what the mesh has", where, remedy=remedy))
    return graph


def complete_edge(edge: dict[str, Any], watched_s: float | None) -> None:
    """Fills in rate or calls, where the time that was watched gives one from the other."""
    if watched_s and edge["rate"] is None and edge["calls"] is not None:
        edge["rate"] = edge["calls"] / watched_s
    if watched_s and edge["calls"] is None and edge["rate"] is not None:
        edge["calls"] = edge["rate"] * watched_s


def _sum(one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else one + other


def _callers(mesh: Mesh) -> dict[tuple[str, str], Ref]:
    """The Service of each workload by (namespace, workload), (namespace, `pod NAME`) and ("", address)."""
    selecting: dict[str, list[tuple[Mapping[str, str], Ref]]] = defaultdict(list)
    found: dict[tuple[str, str], Ref] = {}
    for service in mesh.of_kind("Service"):
        found[service.ref.namespace, service.ref.name] = service.ref
        if selector := service.spec.get("selector"):
            selecting[service.ref.namespace].append((selector, service.ref))
    for pod in mesh.of_kind("Pod"):
        namespace = pod.ref.namespace
        caller = next((ref for wanted, ref in selecting[namespace] if has_labels(pod.labels, wanted)), None)
        caller = caller or Ref("Workload", namespace, _workload(pod))
        found[namespace, f"pod {pod.ref.name}"] = caller
        found.setdefault((namespace, _workload(pod)), caller)
        if address := pod.status.get("podIP"):
            found["", str(address)] = caller
    return found


def _workload(pod: Object) -> str:
    """What Istio calls its workload: the Deployment of its ReplicaSet, else its owner, else itself."""
    owners: list[Mapping[str, Any]] = list(pod.metadata.get("ownerReferences") or ())
    if not owners:
        return pod.ref.name
    name = str(owners[0].get("name") or pod.ref.name)
    end = str(pod.labels.get("pod-template-hash") or "")
    return name.removesuffix(f"-{end}") if end else name


def _external_hosts(mesh: Mesh) -> frozenset[str]:
    return frozenset(str(host) for entry in mesh.of_kind("ServiceEntry") for host in entry.spec.get("hosts") or ())


def _listed(text: str, where: str, mesh: Mesh | None) -> Graph:
    import networkx as nx

    graph: Graph = nx.DiGraph(watched_s=None, left_out=0.0)
    rows = csv.DictReader(text.splitlines())
    missing = {"source", "destination"} - set(rows.fieldnames or ())
    if missing:
        raise InputError(
            Problem(f"has no column {', '.join(sorted(missing))}", where, "line 1", "source,destination,rate")
        )
    hosts = _external_hosts(mesh) if mesh is not None else frozenset()
    problems: list[Problem] = []
    for number, row in enumerate(rows, 2):
        ends = [_callee(row[end] or "") for end in ("source", "destination")]
        values: dict[str, float | None] = {}
        for key in ("rate", "calls"):
            try:
                values[key] = float(row[key]) if row.get(key) else None
            except ValueError:
                problems.append(Problem(f"{row[key]!r} is no number", where, f"line {number}: {key}"))
        for end, ref in zip(("source", "destination"), ends, strict=True):
            if ref is None:
                known = sorted(r for r in mesh.objects if r.kind == "Service" and r.name == row[end]) if mesh else []
                near = " or ".join(f"{r.namespace}/{r.name}" for r in known[:3])
                remedy = f"did you mean {near}?" if near else f"write {_FORM}"
                problems.append(Problem(f"{row[end]!r} is no service", where, f"line {number}: {end}", remedy))
        source, destination = ends
        if source and destination and len(values) == 2:
            if values["rate"] is None and values["calls"] is None:
                values["rate"] = 1.0
            graph.add_edge(source, destination, **values)
            if mesh is not None and destination not in mesh.objects and destination.name not in hosts:
                field = f"line {number}: destination"
                problems.append(Problem(f"the mesh has no {destination}", where, field, "remove the line or add it"))
    if problems:
        raise InputError(problems)
    return graph


def watch(graph: Graph, time: str) -> None:
    """Say how long the calls of a graph were watched (`168h`): what was counted then has a rate. Raises InputError."""
    try:
        graph.graph["watched_s"] = duration(time) / SECOND_NS
    except UnitError as error:
        raise InputError(Problem(str(error), field="--watched", remedy=error.remedy)) from None
    for _, _, edge in graph.edges(data=True):
        edge.setdefault("calls", None)
        complete_edge(edge, graph.graph["watched_s"])


def host_of(callee: Ref) -> str:
    """The host name a call goes to: a Service's FQDN, or the host that a ServiceEntry's Ref has for its name."""
    return f"{callee.name}.{callee.namespace}.svc.cluster.local" if callee.kind == "Service" else callee.name


#: How a service is named.
_FORM = "namespace/service or service.namespace.svc.cluster.local"


def _callee(text: str) -> Ref | None:
    """`namespace/service`, a FQDN or `service.namespace` as a Service; any other host name as one of a ServiceEntry."""
    namespace, slash, name = text.strip().partition("/")
    if slash:
        return Ref("Service", namespace, name) if namespace and name and "/" not in name else None
    parts = text.strip().split(".")
    if len(parts) < 2 or not all(parts):
        return None
    if len(parts) == 2 or parts[2] == "svc":
        return Ref("Service", parts[1], parts[0])
    return Ref("ServiceEntry", "", text.strip())
