"""Istio's semantics as the control plane machine asks for them: the exact model behind `planner.Planner`.

One `IstioPlanner` is one istiod replica. It interns requests, pushes, groups and states as numbers, memoises plans by
(group, state, interval of pushes), prices responses, and says which cache cells and how much work they stand for.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pushsim import planner as ask
from pushsim import releases
from pushsim.conversation import Conversation, Outcome
from pushsim.dependencies import Decision
from pushsim.generators import Block
from pushsim.mesh import Change, ConfigKey, Mesh, Object, Proxy, Ref
from pushsim.names import parse_cluster
from pushsim.plan import Plan, ProxyState, Push, Response, plan
from pushsim.pricing import Pricing
from pushsim.requests import PROXY_UPDATE, PushRequest
from pushsim.resources import InboundCluster, Listener, LoadAssignment, OutboundCluster, RouteConfiguration
from pushsim.settings import Variant

#: Kinds whose key stands for hosts.
_HOST_KINDS = frozenset({"ServiceEntry", "Endpoints", "DNSName"})
_INDEXED = {"VirtualService": "push.virtual_services", "DestinationRule": "push.destination_rules"}


def planners(variant: Variant) -> Sequence[ask.Planner]:
    """One planner per istiod replica of a variant.

    Raises:
        InputError: the release is not known.
    """
    return [IstioPlanner(variant) for _ in range(variant.settings.replicas)]


@dataclass(frozen=True, slots=True)
class _Made:
    """One Push(): its merged request, what it made, and the changes in it."""

    request: PushRequest
    push: Push
    changes: tuple[int, ...]


class _Cells:
    """Numbers of cache cells, and which of them a host or a route name fills."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}
        self._of: dict[Hashable, set[int]] = {}
        self._views: dict[Hashable, tuple[ask.View | None, object]] = {}
        self._parts: dict[Hashable, tuple[tuple[ask.Cells, ask.Cells, ask.Cells], object]] = {}

    def cell(self, key: Hashable, *of: Hashable) -> int:
        """The number of a cell; `of` are the hosts (or "route NAME") whose change evicts it."""
        if key not in self._numbers:
            self._numbers[key] = len(self._numbers)
            for owner in of:
                self._of.setdefault(owner, set()).add(self._numbers[key])
        return self._numbers[key]

    def evicted(self, owners: Iterable[Hashable]) -> ask.Cells:
        """The cells of these hosts or routes."""
        found = sorted(set().union(*(self._of.get(owner, ()) for owner in owners)))
        return np.array(found, dtype=np.int32)

    def view(self, response: Response, state: ProxyState) -> ask.View | None:
        """The cached part of a response; one object for responses of the same blocks and cache key."""
        kind = (state.proxy.type, state.scope.namespace if response.xds == "RDS" else "")
        key = (response.xds, kind, *map(id, response.blocks))
        if key not in self._views:
            parts = [self._part(response.xds, block, kind) for block in response.blocks]
            cells, resources, units = (np.concatenate(column) for column in zip(*parts, strict=True))
            view = ask.View(len(self._views), cells, resources, units) if len(cells) else None
            self._views[key] = (view, response.blocks)
        return self._views[key][0]

    def _part(self, xds: str, block: Block, kind: tuple[str, str]) -> tuple[ask.Cells, ask.Cells, ask.Cells]:
        key = (id(block), kind)
        if key not in self._parts:
            resources: Counter[int] = Counter()
            units: Counter[int] = Counter()
            for cell, unit in self._cached(xds, block, kind):
                resources[cell] += 1
                units[cell] += unit
            columns = (list(resources), list(resources.values()), [units[cell] for cell in resources])
            first, second, third = (np.array(column, dtype=np.int32) for column in columns)
            self._parts[key] = ((first, second, third), block)
        return self._parts[key][0]

    def _cached(self, xds: str, block: Block, kind: tuple[str, str]) -> Iterator[tuple[int, int]]:
        """(cell, units) of each cached resource (reference `push-timing-and-cost` §3)."""
        for resource in block:
            if isinstance(resource, OutboundCluster):
                host = resource.service.hostname
                yield self.cell((xds, host, kind), host), 0
            elif isinstance(resource, LoadAssignment) and resource.service is not None:
                host = resource.service.hostname
                yield self.cell((xds, host, kind), host), len(resource.endpoints)
            elif isinstance(resource, RouteConfiguration) and resource.name.isdigit():
                yield self.cell((xds, resource.name, kind), f"route {resource.name}"), len(resource.services)


class IstioPlanner:
    """See `planner.Planner`; its methods are documented there."""

    def __init__(self, variant: Variant) -> None:
        settings = variant.settings
        mesh = replace_settings(variant)
        rules = releases.rules(settings.release)
        changes = [timed.change for timed in variant.changes]
        late = _late_proxies(mesh, changes)
        everyone = Mesh(mesh.objects, (*mesh.proxies, *late), mesh.mesh_config, mesh.env)
        self._conversation = Conversation(everyone, rules, settings.mode, changes)
        self._istiod = self._conversation.istiod
        self._pricing = Pricing(mesh, rules, self._istiod.mode)
        self._rules = rules
        arriving = {proxy.id for proxy in late}
        self._groups: list[ask.Group] = []
        self._place: dict[str, tuple[int, int]] = {}
        self._by_ip: dict[str, str] = {}
        for outcome in self._conversation.classes:
            ordered = sorted(outcome.members, key=lambda p: p.id in arriving)
            group = ask.Group(tuple(ordered), sum(p.id in arriving for p in ordered))
            for position, proxy in enumerate(ordered):
                self._place[proxy.id] = (len(self._groups), position)
                self._by_ip[proxy.ip] = proxy.id
            self._groups.append(group)
        self._requests: list[tuple[PushRequest, int]] = []
        self._pushes: list[_Made] = []
        self._states: list[ProxyState] = []
        self._connected: dict[tuple[int, int], ask.Planned] = {}
        self._plans: dict[tuple[int, int, int, int, bool], ask.Planned] = {}
        self._merged: dict[tuple[int, int], PushRequest] = {}
        self._shapes: dict[int, ask.Shape] = {}
        self._scope_keys: dict[int, tuple[int, object]] = {}
        self._scopes_used: dict[tuple[int, str, str], ask.Scope] = {}
        self._counts: dict[int, tuple[tuple[int, int, int], Block]] = {}
        self._cells = _Cells()

    @property
    def groups(self) -> Sequence[ask.Group]:
        return self._groups

    # ---- handlers and pushes

    def handle(self, change: int, written: Change) -> ask.Handled:
        before = self._istiod.registry.objects
        gone = [self._place[i] for i in (_proxy_id(r) for r in written.delete if r in before) if i in self._place]
        new = [o for o in written.apply if o.ref.kind == "Pod" and o.ref not in before]
        joined = [self._place[i] for i in (_proxy_id(o.ref) for o in new) if i in self._place]
        requests = []
        for request in self._istiod.handle(written):
            own = self._by_ip.get(request.proxy) if request.proxy else None
            if request.proxy and (own is None or self._place[own] in joined):
                continue  # nobody with that address is connected
            self._requests.append((request, change))
            hosts = [key.name for key in request.keys if key.kind in _HOST_KINDS]
            requests.append(
                ask.Request(
                    endpoints_only=request.endpoints_only(self._rules),
                    evicts=self._cells.evicted(self._evictable(hosts)) if hosts else None,
                    proxies=(self._place[own],) if own is not None else (),
                    keys=len(request.keys),
                )
            )
        endpoints = sum(len(o.body.get("endpoints") or ()) for o in written.apply if o.ref.kind == "EndpointSlice")
        work = {"handler.events": len(written.apply) + len(written.delete), "handler.endpoints": endpoints}
        return ask.Handled(tuple(requests), work, tuple(joined), tuple(gone))

    def _evictable(self, hosts: Iterable[str]) -> Iterator[Hashable]:
        """What a host's change evicts: its clusters and assignments, and the routes it has a virtual host in."""
        known = self._istiod.latest.context.services.by_host
        for host in hosts:
            yield host
            for service in known.get(host, ()):
                yield from (f"route {port.number}" for port in service.ports if port.http)

    def push(self, requests: Sequence[int]) -> ask.Push:
        merged = self._istiod.merge(self._requests[r][0] for r in requests) or PushRequest(forced=True)
        changes = tuple(dict.fromkeys(self._requests[r][1] for r in requests))
        before = self._istiod.latest.context
        made = self._istiod.push(merged)
        self._pushes.append(_Made(merged, made, changes))
        context, work = made.context, Counter[str]()
        if context.services is not before.services:
            count = len(context.services.ordered)
            work["push.services"] = int(count * (1 + math.log2(max(count, 1)) / 10))
            work["push.endpoints"] = sum(len(e) for shards in context.instances.values() for e in shards.values())
        if context.routes is not before.routes:
            work["push.virtual_services"] = len(context.routes.routes)
        if context.rule_index is not before.rule_index:
            work["push.destination_rules"] = len(context.rule_index.by_key)
        work["push.configs"] = sum(len(context.policies.get(k, ())) for k in {key.kind for key in merged.keys})
        everything = merged.everything(self._rules) or any(k.kind == "EnvoyFilter" for k in merged.keys)
        evicts = self._cells.evicted(self._owners(merged.keys, made))
        return ask.Push(len(self._pushes) - 1, dict(work), evicts, everything)

    def _owners(self, keys: Iterable[ConfigKey], made: Push) -> Iterator[Hashable]:
        context = made.context
        for key in keys:
            if key.kind in _HOST_KINDS:
                yield from self._evictable([key.name])
            elif key.kind == "DestinationRule" and (written := context.rule_index.by_key.get(key)) is not None:
                yield from self._evictable(made.scopes.hosts_of_rule(written))
            elif key.kind == "VirtualService":
                yield from (f"route {p.number}" for s in context.services.ordered for p in s.ports if p.http)

    # ---- proxies

    def connect(self, group: int, push: int) -> ask.Planned:
        if (group, push) not in self._connected:
            outcome: Outcome = self._conversation.classes[group]
            made = outcome.plan
            if push >= 0:
                made = self._istiod.connect(self._groups[group].proxies[0], self._pushes[push].push)
            at = self._pushes[push].push if push >= 0 else outcome.push
            work = {"proxy.states": 1, "proxy.targets": len(made.state.targets)}
            scope = self._scope(made.state, at)
            responses = tuple(self._response(r, made.state, at, ()) for r in made.responses)
            self._connected[group, push] = ask.Planned(True, self._state(made.state), responses, work, scope)
        return self._connected[group, push]

    def plan(self, group: int, state: int, first: int, last: int, forced: bool) -> ask.Planned:
        key = (group, state, first, last, forced)
        if key not in self._plans:
            self._plans[key] = self._plan(state, first, last, forced)
        return self._plans[key]

    def _plan(self, state: int, first: int, last: int, forced: bool) -> ask.Planned:
        before, made = self._states[state], self._pushes[last]
        request = self._interval(first, last)
        if forced:
            alone = PushRequest(forced=True, reasons=frozenset({PROXY_UPDATE}))
            request = request.merge(alone, self._rules) if first <= last else alone
        planned: Plan = plan(before, request, made.push)
        after = planned.state
        work: Counter[str] = Counter({"proxy.filters": 1, "proxy.keys": len(request.keys)})
        if not request.endpoints_only(self._rules):
            work["proxy.states"] = 1
            work["proxy.targets"] = len(after.targets) if after.targets is not before.targets else 0
        changes = tuple(dict.fromkeys(c for p in self._pushes[first : last + 1] for c in p.changes))
        shown = self._shown(planned, before, changes)
        responses = tuple(
            self._response(r, after, made.push, shown.get(i, ())) for i, r in enumerate(planned.responses)
        )
        scope = self._scope(after, made.push) if after.scope is not before.scope else None
        causes = tuple(c for c in changes if self._caused(c, planned.decision)) if planned.decision.needed else ()
        number = state if after is before else self._state(after)
        return ask.Planned(planned.decision.needed, number, responses, dict(work), scope, causes)

    def _interval(self, first: int, last: int) -> PushRequest:
        key = (first, last)
        if key not in self._merged:
            request = self._pushes[first].request
            for made in self._pushes[first + 1 : last + 1]:
                request = request.merge(made.request, self._rules)
            self._merged[key] = request
        return self._merged[key]

    def _keys_of(self, change: int) -> Iterator[ConfigKey]:
        return (key for request, of in self._requests if of == change for key in request.keys)

    def _caused(self, change: int, decision: Decision) -> bool:
        keys = self._change_keys(change)
        return not keys or not decision.keys or bool(keys & decision.keys)

    def _change_keys(self, change: int) -> frozenset[ConfigKey]:
        known = self.__dict__.setdefault("_keys", {})
        if change not in known:
            known[change] = frozenset(self._keys_of(change))
        found: frozenset[ConfigKey] = known[change]
        return found

    def _shown(self, planned: Plan, before: ProxyState, changes: tuple[int, ...]) -> dict[int, tuple[int, ...]]:
        """By response, the changes that it is the first to show: one of a host by a resource of it, others at once."""
        shown: dict[int, list[int]] = {}
        pushed = [(i, r) for i, r in enumerate(planned.responses) if not r.solicited]
        for change in changes:
            if not self._caused(change, planned.decision):
                continue
            keys = self._change_keys(change)
            hosts = {key.name for key in keys if key.kind in _HOST_KINDS}
            others = any(key.kind not in _HOST_KINDS for key in keys) or not keys
            for index, response in pushed:
                if others or any(_holds(response, host, planned.state, before) for host in hosts):
                    shown.setdefault(index, []).append(change)
                    break
        return {index: tuple(of) for index, of in shown.items()}

    def _state(self, state: ProxyState) -> int:
        self._states.append(state)
        return len(self._states) - 1

    def _scope(self, state: ProxyState, push: Push) -> ask.Scope | None:
        """The scope a proxy takes up, with the work of building it, to be paid by its first user."""
        scope = state.scope
        key = (id(scope), scope.namespace, str(scope))
        if key not in self._scopes_used:
            number = len(self._scopes_used)
            count = len(push.context.services.ordered)
            selected = sum(map(len, scope.blocks))
            if scope.sidecar is None:
                work: Mapping[str, int] = {"scope.derived": count}
                lock = -1
            else:
                hosts = [str(h) for egress in scope.listeners for h in egress.spec.get("hosts") or ()]
                wild = sum(h.endswith("*") for h in hosts)
                exact = "scope.indexed" if self._rules.exclusions else "scope.exact"
                work = {
                    "scope.sidecars": 1,
                    "scope.wildcards": wild * count,
                    exact: len(hosts) - wild,
                    "scope.services": selected,
                }
                lock = number
            self._scopes_used[key] = ask.Scope(number, lock, work)
            self._scope_keys[number] = (number, scope)  # keeps the id from being reused
        return self._scopes_used[key]

    # ---- responses

    def _response(self, response: Response, state: ProxyState, push: Push, shows: tuple[int, ...]) -> ask.Response:
        size = self._pricing.size(response, state, push)
        view = self._cells.view(response, state) if response.xds != "LDS" else None
        work: Counter[str] = Counter()
        if response.xds == "CDS":
            inbound = sum(isinstance(c, InboundCluster) for c in response.blocks[0])
            work["cds.inbound"] = inbound
            work["cds.static"] = len(response.blocks[0]) - inbound
        elif response.xds == "EDS":
            work["eds.walked"] = len(state.clusters)
        elif response.xds == "LDS":
            for listener in response.resources:
                assert isinstance(listener, Listener)
                match listener.kind:
                    case "http" | "auto":
                        work["lds.http"] += 1
                    case "virtualInbound":
                        work["lds.inbound"] += 1
                    case "gateway":
                        work["lds.http"] += 1
                        work["lds.chains"] += len(listener.servers)
                    case _:
                        work["lds.tcp"] += 1
        elif response.xds == "RDS":
            for route in response.resources:
                assert isinstance(route, RouteConfiguration)
                work["rds.keys"] += len(route.services)
                if not route.name.isdigit():
                    work["rds.hosts"] += len(route.services) + len(route.virtual_services)
        return ask.Response(
            response.xds, response.count, size, len(response.removed), response.solicited, view, dict(work), shows
        )

    # ---- what is held

    def shape(self, group: int, state: int) -> ask.Shape:
        if state not in self._shapes:
            self._shapes[state] = self._shape(self._states[state])
        return self._shapes[state]

    def _shape(self, state: ProxyState) -> ask.Shape:
        blocks = state.scope.memo.get("shape")
        if blocks is None:
            services = [s for block in state.scope.blocks for s in block]
            clusters = sum(len(s.ports) for s in services if s.resolution != "ALIAS")
            endpoints = sum(len(state.scope.context.instances_of(s)) for s in services)
            hosts = sum(port.http for s in services for port in s.ports)
            blocks = state.scope.memo["shape"] = (clusters, endpoints, hosts)
        clusters, endpoints, hosts = blocks
        inbound = len({t.target_port for t in state.targets})
        listeners = max(2, len(state.listeners))
        return ask.Shape(
            clusters=clusters + inbound + (3 if state.proxy.type == "sidecar" else 1),
            tls_clusters=clusters,
            endpoints=endpoints,
            listeners=listeners,
            filter_chains=listeners + 2 * inbound,
            virtual_hosts=hosts,
            names=clusters + len(state.clusters) + listeners + len(state.routes),
        )

    def inventory(self) -> ask.Counts:
        registry = self._istiod.registry
        kinds = Counter(ref.kind for ref in registry.objects)
        endpoints = sum(len(e) for shards in registry.endpoints.values() for e in shards.values())
        plain = ("Namespace", "Node", "Pod", "Service", "EndpointSlice")
        configs = sum(count for kind, count in kinds.items() if kind not in plain)
        return {
            "memory.services": sum(1 for _ in registry.services()),
            "memory.endpoints": endpoints,
            "memory.configs": configs,
        }


def replace_settings(variant: Variant) -> Mesh:
    """The variant's mesh with its control plane's environment and mesh config."""
    mesh, settings = variant.mesh, variant.settings
    return replace(mesh, mesh_config={**mesh.mesh_config, **settings.mesh_config}, env={**mesh.env, **settings.env})


def _late_proxies(mesh: Mesh, changes: Iterable[Change]) -> tuple[Proxy, ...]:
    """Proxies of pods that changes bring."""
    from pushsim.topology import proxy_of

    known = {proxy.id for proxy in mesh.proxies}
    found: dict[str, Proxy] = {}
    for change in changes:
        for written in change.apply:
            if written.ref.kind == "Pod" and (proxy := proxy_of(written)) is not None and proxy.id not in known:
                found.setdefault(proxy.id, proxy)
    return tuple(found.values())


def _proxy_id(ref: Ref) -> str:
    return f"{ref.name}.{ref.namespace}" if ref.kind == "Pod" else ""


def _holds(response: Response, host: str, after: ProxyState, before: ProxyState) -> bool:
    """Whether a response has a resource of a host, or takes one away."""
    if response.xds == "CDS" and len(response.blocks) > 2:  # a full list: what was or is in the scope
        return after.scope.service(host) is not None or before.scope.service(host) is not None
    if response.xds in ("CDS", "EDS"):
        if response.count > 64:
            return after.scope.service(host) is not None
        names = (*(resource.name for resource in response.resources), *response.removed)
        return any((cluster := parse_cluster(name)) is not None and cluster.host == host for name in names)
    return response.xds == "RDS" and after.scope.service(host) is not None


__all__ = ["IstioPlanner", "Object", "planners"]
