"""What a policy breaks: calls and routes whose destination the caller, or the gateway, no longer sees.

Judged on the mesh as it is at the start, by the same scopes that decide who is pushed. A sidecar that no longer sees a
service still lets calls through as plain TCP to anywhere, unless outboundTrafficPolicy is REGISTRY_ONLY; but without
mutual TLS, retries, routing and telemetry of that service. A gateway answers 503.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from pushsim import releases
from pushsim.context import MESH_GATEWAY, Route
from pushsim.dependencies import View, attached
from pushsim.gateways import merge_gateways
from pushsim.mesh import Mesh, Object, Proxy, Ref
from pushsim.plan import Istiod
from pushsim.settings import Variant
from pushsim.topology.calls import host_of
from pushsim.visibility import Scope

if TYPE_CHECKING:
    from pushsim.topology.calls import Graph

Kind = Literal["call", "gateway-route", "mesh-route", "routing"]

#: (kind, caller or VirtualService, destination host or VirtualService's host, namespace of the callers).
Key = tuple[Kind, Ref, str, str]


@dataclass(frozen=True, slots=True)
class Break:
    """Something that works under one policy and not under another.

    kind:        `call` of the call graph; route of a VirtualService at a gateway, or in sidecars; `routing`: callers
                 that still see the host, but not the VirtualService that routes it.
    subject:     the caller's Service, or the VirtualService.
    destination: the host that is not seen.
    namespace:   whose proxies do not see it.
    cause:       the object that hides it, None where that is a setting of istiod's; file: where that was read.
    why:         in words.
    """

    kind: Kind
    subject: Ref
    destination: str
    namespace: str
    cause: Ref | None
    file: str
    why: str

    def __str__(self) -> str:
        place = f" ({self.file})" if self.file else ""
        match self.kind:
            case "call":
                what = f"call {self.subject.namespace}/{self.subject.name} -> {self.destination}"
            case "gateway-route":
                what = f"route of {self.subject} -> {self.destination} at gateways of {self.namespace}"
            case "mesh-route":
                what = f"route of {self.subject} -> {self.destination} in sidecars of {self.namespace}"
            case _:
                what = f"{self.subject} no longer routes {self.destination} for {self.namespace}"
        return f"{what}: {self.why}{place}"


@dataclass(frozen=True, slots=True)
class _Verdict:
    seen: bool
    cause: Object | None = None
    why: str = ""


class Sight:
    """What the proxies of a mesh see, under one policy.

    Args:
        variant: its mesh at the start, and istiod's settings.
    """

    def __init__(self, variant: Variant) -> None:
        settings = variant.settings
        self.mesh = Mesh(variant.mesh.objects, variant.mesh.proxies, settings.mesh_config, settings.env)
        self.istiod = Istiod(self.mesh, releases.rules(settings.release), settings.mode)
        self.push = self.istiod.latest

    @cached_property
    def populations(self) -> list[tuple[View, tuple[Proxy, ...]]]:
        """The proxies, those together that are alike in what they see and in how they are called."""
        found: dict[tuple[object, ...], tuple[View, list[Proxy]]] = {}
        registry, scopes = self.istiod.registry, self.push.scopes
        for proxy in self.mesh.proxies:
            labels, targets = registry.labels_of(proxy), registry.targets(proxy)
            scope = scopes.of(proxy, labels)
            hosts = tuple(sorted({target.service.hostname for target in targets}))
            router = proxy.type == "router"
            key = (proxy.type, proxy.namespace, scope, hosts, tuple(sorted(labels.items())) if router else ())
            if key not in found:
                gateway = merge_gateways(self.push.context, targets, labels, proxy)
                found[key] = View(proxy, scope, None, targets, gateway), []
            found[key][1].append(proxy)
        return [(view, tuple(proxies)) for view, proxies in found.values()]

    @cached_property
    def views(self) -> dict[str, list[View]]:
        """By namespace, a view for each population."""
        by_namespace: dict[str, list[View]] = {}
        for view, _ in self.populations:
            by_namespace.setdefault(view.proxy.namespace, []).append(view)
        return by_namespace

    def callers(self, caller: Ref) -> list[View]:
        """The proxies a call comes from: those of that service, else of that workload's namespace."""
        here, host = self.views.get(caller.namespace, []), host_of(caller)
        own = [view for view in here if any(target.service.hostname == host for target in view.targets)]
        if own or caller in self.mesh.objects:
            return own  # a service without proxies calls as it likes
        return [view for view in here if view.proxy.type == "sidecar"]

    def sees(self, view: View, host: str) -> _Verdict:
        """Whether a proxy has clusters of a host; if not, which object keeps it from it."""
        context = self.push.context
        service = view.scope.service(host)
        if service is not None:
            filtered = view.proxy.type == "router" and context.filter_gateways
            if not filtered or attached(view, service.key):
                return _Verdict(True)
            return _Verdict(False, None, "PILOT_FILTER_GATEWAY_CLUSTER_CONFIG: no route of this gateway names it")
        known = context.services.by_host.get(host, ())
        if not known:
            return _Verdict(False, None, "istiod knows no such host (deleted, or not among discoverySelectors)")
        namespace = view.proxy.namespace
        if not context.services.candidates(host, namespace):
            hidden = known[0]
            written = self._written(hidden.namespace, hidden.name, hidden.registry)
            told = ", ".join(sorted(hidden.export_to))
            if told:
                return _Verdict(False, written, f"{hidden.namespace}/{hidden.name} is exported to {told} only")
            setting = ", ".join(map(str, context.mesh_config.get("defaultServiceExportTo") or ()))
            return _Verdict(False, None, f"defaultServiceExportTo is {setting}")
        sidecar = view.scope.sidecar
        if sidecar is None:
            return _Verdict(False, None, f"it is not in the {view.scope}")
        hosts = [str(h) for part in sidecar.spec.get("egress") or () for h in part.get("hosts") or ()]
        listed = ", ".join(hosts[:6]) + (f", … {len(hosts)} in all" if len(hosts) > 6 else "")
        return _Verdict(False, sidecar, f"{view.scope} does not import it (hosts {listed})")

    def _written(self, namespace: str, name: str, registry: str) -> Object | None:
        kind = "Service" if registry == "Kubernetes" else "ServiceEntry"
        return self.mesh.objects.get(Ref(kind, namespace, name))

    # ---- all that may break

    def outlook(self, graph: Graph | None) -> dict[Key, _Verdict]:
        """Every call and route there is, and whether it finds its destination."""
        found: dict[Key, _Verdict] = {}
        for key, verdict in (*self._calls(graph), *self._routes()):
            if key not in found or found[key].seen:
                found[key] = verdict  # of several proxies, one that does not see it counts
        return found

    def _calls(self, graph: Graph | None) -> Iterator[tuple[Key, _Verdict]]:
        for caller, callee in graph.edges if graph is not None else ():
            host = host_of(callee)
            for view in self.callers(caller):
                yield ("call", caller, host, caller.namespace), self.sees(view, host)

    def _routes(self) -> Iterator[tuple[Key, _Verdict]]:
        done: set[Scope] = set()
        for views in self.views.values():
            for view in views:
                if view.proxy.type == "router":
                    yield from self._gateway_routes(view)
                elif view.scope not in done:
                    done.add(view.scope)
                    yield from self._mesh_routes(view)

    def _gateway_routes(self, view: View) -> Iterator[tuple[Key, _Verdict]]:
        routes = self.push.context.routes
        for name in sorted(view.gateway.names):
            for route in routes.visible(name, view.proxy.namespace):
                for host in route.destinations(None):
                    yield ("gateway-route", _ref(route), host, ""), self.sees(view, host)

    def _mesh_routes(self, view: View) -> Iterator[tuple[Key, _Verdict]]:
        namespace, imported = view.proxy.namespace, {r.key for part in view.scope.listeners for r in part.routes}
        for route in self.push.context.routes.by_gateway.get(MESH_GATEWAY, ()):
            if route.key in imported:
                for host in route.destinations(namespace):
                    yield ("mesh-route", _ref(route), host, namespace), self.sees(view, host)
            for host in route.hosts:
                if view.scope.service(host) is None:
                    continue  # who does not see the host has no use for its routes
                why = f"{view.scope} imports the host, but not the VirtualService"
                verdict = _Verdict(True) if route.key in imported else _Verdict(False, view.scope.sidecar, why)
                yield ("routing", _ref(route), host, namespace), verdict


def _ref(route: Route) -> Ref:
    return Ref("VirtualService", route.key.namespace, route.key.name)


def broken(before: Mapping[Key, _Verdict], after: Sight, graph: Graph | None) -> tuple[Break, ...]:
    """What works in an outlook and no longer in that sight; sorted."""
    now = after.outlook(graph)
    found = []
    for key, earlier in before.items():
        kind, subject, destination, namespace = key
        if not earlier.seen:
            continue
        verdict = now.get(key)
        if verdict is None:
            if kind != "gateway-route" or subject not in after.mesh.objects or _dropped(after, subject, destination):
                continue
            verdict = _Verdict(False, after.mesh.objects[subject], "no gateway that it is bound to shows the route")
        if not verdict.seen:
            cause = verdict.cause
            file = cause.source if cause is not None else ""
            found.append(Break(kind, subject, destination, namespace, cause.ref if cause else None, file, verdict.why))
    return tuple(sorted(found, key=lambda b: (b.kind, b.subject, b.destination, b.namespace)))


def _dropped(sight: Sight, subject: Ref, host: str) -> bool:
    """Whether a VirtualService itself no longer routes there: that was meant."""
    routes = sight.push.context.routes.routes
    return not any(_ref(route) == subject and host in route.destinations(None) for route in routes)


def unseen_calls(outlook: Mapping[Key, _Verdict]) -> int:
    """How many calls find no destination in an outlook."""
    return sum(not verdict.seen for key, verdict in outlook.items() if key[0] == "call")


def breaks(variants: Iterable[Variant], graph: Graph | None) -> dict[str, tuple[Break, ...]]:
    """By variant, what the first one's mesh can do and this one's no longer can; nothing for the first."""
    before: dict[Key, _Verdict] | None = None
    found: dict[str, tuple[Break, ...]] = {}
    for variant in variants:
        sight = Sight(variant)
        if before is None:
            before, found[variant.name] = sight.outlook(graph), ()
        else:
            found[variant.name] = broken(before, sight, graph)
    return found
