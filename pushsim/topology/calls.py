"""Call graphs: who calls whom, for recommendations and to see what a policy breaks."""

from __future__ import annotations

import csv
from collections import defaultdict
from typing import TYPE_CHECKING

from pushsim.errors import InputError, Problem
from pushsim.mesh import Mesh, Ref
from pushsim.topology.generate import GATEWAY
from pushsim.topology.seeds import Stream
from pushsim.topology.spec import Generate

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
    """The call graph in a CSV with the columns source, destination and, if known, rate (calls per second).

    Both ends are `namespace/service` or a FQDN (`service.namespace.svc.…`). With a mesh, a destination that is no
    service of it is a problem. Raises InputError with all problems, each with its line.
    """
    import networkx as nx

    graph: Graph = nx.DiGraph()
    rows = csv.DictReader(text.splitlines())
    missing = {"source", "destination"} - set(rows.fieldnames or ())
    if missing:
        raise InputError(
            Problem(f"has no column {', '.join(sorted(missing))}", where, "line 1", "source,destination,rate")
        )
    problems: list[Problem] = []
    for number, row in enumerate(rows, 2):
        ends = [_service(row[end] or "") for end in ("source", "destination")]
        try:
            rate = float(row.get("rate") or 1.0)
        except ValueError:
            problems.append(Problem(f"{row['rate']!r} is no number", where, f"line {number}: rate"))
            continue
        for end, ref in zip(("source", "destination"), ends, strict=True):
            if ref is None:
                remedy = "write namespace/service or service.namespace.svc.cluster.local"
                problems.append(Problem(f"{row[end]!r} is no service", where, f"line {number}: {end}", remedy))
        source, destination = ends
        if source and destination:
            graph.add_edge(source, destination, rate=rate)
            if mesh is not None and destination not in mesh.objects:
                field = f"line {number}: destination"
                problems.append(Problem(f"the mesh has no {destination}", where, field, "remove the line or add it"))
    if problems:
        raise InputError(problems)
    return graph


def host_of(callee: Ref) -> str:
    """The host name a call goes to: a Service's FQDN, or the host that a ServiceEntry's Ref has for its name."""
    return f"{callee.name}.{callee.namespace}.svc.cluster.local" if callee.kind == "Service" else callee.name


def _service(text: str) -> Ref | None:
    namespace, slash, name = text.strip().partition("/")
    if slash and namespace and name and "/" not in name:
        return Ref("Service", namespace, name)
    parts = text.strip().split(".")
    return Ref("Service", parts[1], parts[0]) if len(parts) >= 2 and all(parts) else None
