"""What each namespace or workload is seen to need, and the egress hosts that give it just that."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pushsim.breaks import Sight
from pushsim.context import Route
from pushsim.conversion import selects
from pushsim.dependencies import View
from pushsim.hosts import matches
from pushsim.mesh import Proxy, Ref, Service
from pushsim.topology.calls import host_of
from pushsim.visibility import Scope

if TYPE_CHECKING:
    from pushsim.topology.calls import Graph


#: The egress host that imports nothing.
NOTHING = "~/*"


@dataclass(frozen=True, slots=True)
class Unit:
    """Proxies that one Sidecar is to serve: all of a namespace, or of a workload.

    selector: labels of a workload's pods, empty for a namespace.
    views:    the populations of proxies it is made of; they share one scope now.
    proxies:  how many they are.
    edges:    (caller, callee) of the observed calls they make.
    """

    namespace: str
    name: str
    selector: tuple[tuple[str, str], ...]
    views: tuple[View, ...]
    proxies: int
    edges: tuple[tuple[Ref, Ref], ...]

    @property
    def scope(self) -> Scope:
        """The scope that its proxies have now."""
        return self.views[0].scope


@dataclass(frozen=True, slots=True)
class Limits:
    """How egress hosts are written.

    slack:     a namespace is imported whole where that adds at most this share of services to those needed.
    max_hosts: above so many hosts, namespaces are imported whole, the least wasteful first.
    """

    slack: float = 0.1
    max_hosts: int = 50


def units(sight: Sight, graph: Graph, *, workloads: bool) -> Iterator[Unit]:
    """The units of a mesh: namespaces, then (if wanted) workloads, in the order of their names.

    Left out: the root namespace, whose Sidecar is everybody's default, and proxies that a Sidecar selects already.
    """
    spaces: dict[tuple[str, Scope], list[tuple[View, tuple[Proxy, ...]]]] = defaultdict(list)
    for view, proxies in sight.populations:
        sidecar = view.scope.sidecar
        selected = sidecar is not None and "workloadSelector" in sidecar.spec
        if view.proxy.type == "sidecar" and view.proxy.namespace != sight.push.context.root and not selected:
            spaces[view.proxy.namespace, view.scope].append((view, proxies))
    for (namespace, _), held in sorted(spaces.items(), key=lambda item: item[0][0]):
        views = tuple(view for view, _ in held)
        yield Unit(namespace, "default", (), views, sum(len(p) for _, p in held), _edges(sight, graph, views))
        if workloads and len(held) > 1:
            yield from _workloads(sight, graph, namespace, held)


def _workloads(
    sight: Sight, graph: Graph, namespace: str, held: list[tuple[View, tuple[Proxy, ...]]]
) -> Iterator[Unit]:
    """Populations that the selector of one of their own services tells from the others of the namespace."""
    labels = [(proxy, sight.istiod.registry.labels_of(proxy)) for _, proxies in held for proxy in proxies]
    for view, proxies in sorted(held, key=lambda item: item[0].proxy.name):
        members = {proxy.id for proxy in proxies}
        for target in view.targets:
            selector = target.service.selector
            if selector and {proxy.id for proxy, own in labels if selects(selector, own)} == members:
                name = target.service.name
                yield Unit(namespace, name, selector, (view,), len(proxies), _edges(sight, graph, (view,)))
                break


def _edges(sight: Sight, graph: Graph, views: Iterable[View]) -> tuple[tuple[Ref, Ref], ...]:
    wanted = {id(view) for view in views}
    callers = {view.proxy.namespace for view in views}
    return tuple(
        (caller, callee)
        for caller, callee in graph.edges
        if caller.namespace in callers and any(id(view) in wanted for view in sight.callers(caller))
    )


def hosts_for(unit: Unit, limits: Limits) -> list[str]:
    """Egress hosts that import what the unit was seen to call, the root namespace and, for a namespace, itself.

    Nothing is imported that its scope does not have now, nor will be as services come: a namespace is imported whole
    only if it is now. VirtualServices of imported hosts stay imported.
    """
    scope = unit.scope
    called = {host_of(callee) for _, callee in unit.edges}
    base = (scope.context.root,) if unit.selector else (unit.namespace, scope.context.root)
    held: dict[str, list[Service]] = defaultdict(list)
    for service in reached(scope):
        if service.hostname not in scope.pulled_only:
            held[service.namespace].append(service)
    needed = {space: [s for s in services if s.hostname in called or space in base] for space, services in held.items()}
    whole = {space for space in held if _may_be_whole(scope, space)}
    entries: dict[str, list[str]] = {}
    for space, services in sorted(needed.items()):
        if not services:
            continue
        added = len(held[space]) - len(services)
        if space in whole and (space in base or added <= limits.slack * len(services)):
            entries[space] = ["*"]
        else:
            entries[space] = sorted(service.hostname for service in services)
    for space in base:
        if space in whole:
            entries.setdefault(space, ["*"])
    widen = sorted(
        (len(held[s]) - len(needed[s]), s) for s, listed in entries.items() if s in whole and listed != ["*"]
    )
    for _, space in widen:
        if sum(map(len, entries.values())) <= limits.max_hosts:
            break
        entries[space] = ["*"]
    for route in _routes_of(scope, {s.hostname for s in scope.all_services if _imports(entries, s)}):
        space, listed = route.key.namespace, entries.get(route.key.namespace, [])
        if not any(matches(host, known) for host in route.hosts for known in listed):
            entries[space] = sorted({*listed, route.hosts[0]})
    return _written(entries, unit.namespace) or ([NOTHING] if unit.selector else [])


def reached(scope: Scope) -> Iterator[Service]:
    """The services of a scope, of those that claim one host only the one that its proxies reach.

    istiod pushes a scope for changes of that one (`servicesByHostname`), also where a legacy default scope holds more.
    """
    return (service for service in scope.all_services if scope.service(service.hostname) is service)


def _may_be_whole(scope: Scope, namespace: str) -> bool:
    """The scope reaches all that a namespace shows to it, and will reach what is still to come.

    Where a service of another namespace has the host of one of these, importing the namespace alone would turn the
    host over to it: what is pushed for it would be new.
    """
    if not scope.holds_whole(namespace):
        return False
    index = scope.context.services
    shown = (s for s in index.by_namespace.get(namespace, ()) if s in index.candidates(s.hostname, scope.namespace))
    return all(scope.service(s.hostname) is s for s in shown)


def _imports(entries: Mapping[str, list[str]], service: Service) -> bool:
    listed = entries.get(service.namespace, ())
    return "*" in listed or service.hostname in listed


def _routes_of(scope: Scope, hosts: set[str]) -> Iterator[Route]:
    """VirtualServices of a scope for one of these hosts."""
    for listener in scope.listeners:
        for route in listener.routes:
            if any(matches(host, known) for host in route.hosts for known in hosts):
                yield route


def _written(entries: Mapping[str, list[str]], namespace: str) -> list[str]:
    """The namespace itself first, then by name."""
    order = sorted(entries, key=lambda space: (space != namespace, space))
    return [f"{'.' if space == namespace else space}/{host}" for space in order for host in entries[space]]
