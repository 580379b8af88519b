"""An istiod and the proxies connected to it, step by step; proxies that are equal in all that decides are one class."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pushsim.agents import configured
from pushsim.mesh import HOSTNAME, ON_DEMAND, Change, Mesh, Mode, Object, Proxy, Ref, Xds
from pushsim.plan import Istiod, Plan, ProxyState, Push, Response, kin, likewise, plan, shares
from pushsim.registry import Registry
from pushsim.releases import Rules
from pushsim.requests import PushRequest
from pushsim.spreading import asked_by, asked_by_mesh

#: Most of a mesh's objects, none of which selects workloads.
_NEVER_SELECT = frozenset({"Pod", "EndpointSlice", "Namespace", "Node", "VirtualService"})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one class of proxies got: `plan` is that of its first member, and the others' is the same.

    early: plans of what came before the push, and what they saw: a ProxyUpdate, and endpoints that no debounce holds
           (PILOT_ENABLE_EDS_DEBOUNCE=false); `plan` begins with their responses.
    """

    members: tuple[Proxy, ...]
    plan: Plan
    push: Push
    early: tuple[tuple[Plan, Push], ...] = ()

    def responses(self) -> Iterator[tuple[Response, ProxyState, Push]]:
        """Each response, the state of the proxy that it is for, and the push that it is of."""
        early = 0
        for first, seen in self.early:
            early += len(first.responses)
            yield from ((response, first.state, seen) for response in first.responses)
        yield from ((response, self.plan.state, self.push) for response in self.plan.responses[early:])


@dataclass(frozen=True, slots=True)
class Step:
    """One change, pushed: the merged request (None: nothing asked for a push) and an outcome for every class."""

    name: str
    request: PushRequest | None
    outcomes: tuple[Outcome, ...]


class Conversation:
    """One istiod with its proxies.

    Args:
        mesh: what there is at the start; its proxies connect.
        rules: the release.
        mode: the xDS mode; None for the release's own.
        changes: the changes to come, as far as known: labels that no selector asks for tell no proxies apart, and a
                 proxy whose pod they relabel is like no other.
        on_demand: as of `Istiod`.
        answered: whether the first plans hold what proxies are sent on connecting, not only what they then have.
    """

    def __init__(
        self,
        mesh: Mesh,
        rules: Rules,
        mode: Mode | None = None,
        changes: Iterable[Change] = (),
        *,
        on_demand: Collection[Xds] = ON_DEMAND,
        answered: bool = True,
    ) -> None:
        self.istiod = Istiod(mesh, rules, mode, on_demand)
        changes = list(changes)
        written = [o for change in changes for o in change.apply]
        objects = [*mesh.objects.values(), *written]
        spreading = _spreads_by(mesh, changes)
        self.istiod.registry.placing = bool(spreading)
        asked = selector_keys(objects) | spreading
        relabelled = _relabelled(mesh, written, asked)
        classes: dict[tuple[Any, ...], list[Proxy]] = {}
        exposed = individual_addresses(self.istiod.registry)
        for proxy in configured(mesh):
            labels = self.istiod.registry.labels_of(proxy)
            told = tuple(sorted(_told(labels, asked).items()))
            alone = proxy.id if proxy.ip in exposed or Ref("Pod", proxy.namespace, proxy.name) in relabelled else ""
            key = (
                proxy.type,
                proxy.namespace,
                proxy.service_account,
                told,
                self._named_ports(proxy),
                proxy.naming,
                alone,
            )
            classes.setdefault(key, []).append(proxy)
        #: label keys that tell proxies apart which belong to equal services
        self.asked = _keys_apart(objects, spreading)
        connected: dict[Hashable, Plan] = {}
        self.classes: list[Outcome] = []
        for members in classes.values():
            made = self._connected(members[0], exposed, connected, answered)
            self.classes.append(Outcome(tuple(members), made, self.istiod.latest))

    def _connected(self, proxy: Proxy, exposed: Collection[str], known: dict[Hashable, Plan], answered: bool) -> Plan:
        """A proxy's first conversation, from that of one of its kin if one is known."""
        state = self.istiod.meet(proxy)
        key = None if proxy.ip in exposed else kin(state, self.asked)
        if key is None:
            return self.istiod.greet(state, answered=answered)
        if key in known:
            return likewise(known[key], state, self.istiod.latest)
        known[key] = self.istiod.greet(state, answered=answered)
        return known[key]

    def _named_ports(self, proxy: Proxy) -> tuple[tuple[str, int], ...]:
        """Named container ports of a proxy's pod: named target ports resolve to them."""
        pod = self.istiod.registry.pod_of(proxy)
        containers = pod.spec.get("containers") or () if pod else ()
        ports = (p for c in containers for p in c.get("ports") or () if p.get("name"))
        return tuple(sorted((str(p["name"]), int(p["containerPort"])) for p in ports))

    def fork(self) -> Conversation:
        """An independent copy, for trying something."""
        copy = object.__new__(Conversation)
        copy.istiod = self.istiod.fork()
        copy.asked = self.asked
        copy.classes = [replace(outcome, push=copy.istiod.latest) for outcome in self.classes]
        return copy

    def step(
        self, change: Change, *, services_first: bool = False, lost: Mapping[str, frozenset[str]] | None = None
    ) -> Step:
        """Write a change, push what it asks for as one merged push, and let every proxy answer.

        services_first: as of `Registry.handle`. lost: by proxy id, clusters that are known to be taken back, where
        istiod leaves it to chance which.
        """
        requests = self.istiod.handle(change, services_first=services_first)
        lost = lost or {}
        self._split_by_loss(lost)
        exposed = individual_addresses(self.istiod.registry) | {r.proxy for r in requests if r.proxy}
        self._split(exposed)
        own = {r.proxy: r for r in requests if r.proxy}
        seen = {proxy: self.istiod.seen_by(update) for proxy, update in own.items()}
        before = self.istiod.latest
        pushes = [(each, self.istiod.push(each), dict[Hashable, Plan]()) for each in self.istiod.batches(requests)]
        outcomes = []
        for outcome in self.classes:
            state, decision, found = outcome.plan.state, None, list[tuple[Plan, Push]]()
            update = own.get(outcome.members[0].ip)
            if update is not None:  # a ProxyUpdate bypasses the debounce
                found.append((plan(state, update, seen[update.proxy]), seen[update.proxy]))
                state, decision = found[0][0].state, found[0][0].decision
            for request, push, planned in pushes:
                known_lost = lost.get(outcome.members[0].id, frozenset())
                found.append((self._planned(state, request, push, exposed, planned, known_lost), push))
                state = found[-1][0].state
                if decision is None or found[-1][0].decision.needed:
                    decision = found[-1][0].decision
            if decision is None:
                decision = replace(outcome.plan.decision, needed=False, why=("nothing is pushed",))
            responses = tuple(response for made, _ in found for response in made.responses)
            early, latest = found[: len(found) - bool(pushes)], pushes[-1][1] if pushes else before
            outcomes.append(Outcome(outcome.members, Plan(state, decision, responses), latest, tuple(early)))
        self.classes = outcomes
        return Step(change.name, self.istiod.merge(requests), tuple(outcomes))

    def _planned(
        self,
        state: ProxyState,
        request: PushRequest,
        push: Push,
        exposed: set[str],
        known: dict[Hashable, Plan],
        lost: frozenset[str],
    ) -> Plan:
        """A push for a proxy, from that for one of its kin if one is known and nothing in it is the proxy's own."""
        key = None if state.proxy.ip in exposed or lost else kin(state, self.asked)
        if key is None or not shares(state, request, push, self.istiod.rules):
            return plan(state, request, push, lost)
        if key in known:
            return likewise(known[key], state, push)
        known[key] = plan(state, request, push)
        return known[key]

    def _split_by_loss(self, lost: Mapping[str, frozenset[str]]) -> None:
        """Give proxies that lose other clusters than their like classes of their own."""
        split: list[Outcome] = []
        for outcome in self.classes:
            alike: dict[frozenset[str], list[Proxy]] = {}
            for proxy in outcome.members:
                alike.setdefault(lost.get(proxy.id, frozenset()), []).append(proxy)
            split += [outcome] if len(alike) == 1 else [_of(outcome, tuple(members)) for members in alike.values()]
        self.classes = split

    def _split(self, addresses: set[str]) -> None:
        """Give proxies whose own address decides something a class of their own."""
        split: list[Outcome] = []
        for outcome in self.classes:
            members = outcome.members
            alone = [p for p in members if p.ip in addresses] if len(members) > 1 else []
            if not alone:
                split.append(outcome)
                continue
            rest = tuple(p for p in members if p.ip not in addresses)
            if rest:
                split.append(_of(outcome, rest))
            split += (_of(outcome, (p,)) for p in alone)
        self.classes = split


def _of(outcome: Outcome, members: tuple[Proxy, ...]) -> Outcome:
    state: ProxyState = replace(outcome.plan.state, proxy=members[0])
    return replace(outcome, members=members, plan=replace(outcome.plan, state=state))


def selector_keys(objects: Iterable[Object]) -> frozenset[str]:
    """Label keys that some selector of these objects asks for."""
    return frozenset(
        key for written in objects if written.ref.kind not in _NEVER_SELECT for key in _selector_keys(written)
    )


def _relabelled(mesh: Mesh, written: Iterable[Object], asked: Collection[str]) -> set[Ref]:
    """Pods of which something that is asked for is written that they do not have, or did not have before."""
    last: dict[Ref, dict[str, str]] = {}
    found = set[Ref]()
    for held in written:
        if held.ref.kind == "Pod":
            before = last.get(held.ref)
            if before is None and held.ref in mesh.objects:
                before = _told(mesh.objects[held.ref].labels, asked)
            last[held.ref] = now = _told(held.labels, asked)
            if before is not None and before != now:
                found.add(held.ref)
    return found


def _told(labels: Mapping[str, str], asked: Collection[str]) -> dict[str, str]:
    return {key: value for key, value in labels.items() if key in asked}


def _spreads_by(mesh: Mesh, changes: Sequence[Change]) -> frozenset[str]:
    """Label keys that tell proxies apart for which endpoints are spread over localities otherwise."""
    found = asked_by(mesh.objects.values()) | asked_by_mesh(mesh.mesh_config)
    return found.union(*(asked_by(change.apply) | asked_by_mesh(change.mesh_config or {}) for change in changes))


def _keys_apart(objects: Sequence[Object], spreading: frozenset[str]) -> list[str]:
    """Label keys that tell proxies apart which belong to equal services, ascending. spreading: `_spreads_by`."""
    keys = spreading | selector_keys(o for o in objects if o.ref.kind not in ("Service", "Gateway"))
    return sorted(keys | {key for o in objects if o.ref.kind == "Service" for key in _nodes_told(o)})


def _nodes_told(service: Object) -> Iterator[str]:
    if service.spec.get("internalTrafficPolicy") == "Local":
        yield HOSTNAME


def _selector_keys(written: Object) -> Iterator[str]:
    spec = written.spec
    match written.ref.kind:
        case "Service" | "Gateway":
            yield from spec.get("selector") or ()
            yield from _nodes_told(written)
        case "Sidecar" | "EnvoyFilter" | "ServiceEntry":
            yield from (spec.get("workloadSelector") or {}).get("labels") or ()
        case "DestinationRule":
            yield from (spec.get("workloadSelector") or {}).get("matchLabels") or ()
        case _:
            selector = spec.get("selector")
            if isinstance(selector, Mapping):
                yield from selector.get("matchLabels") or ()


def individual_addresses(registry: Registry) -> set[str]:
    """Addresses that decide for their own proxy: of endpoints of headless and external services, or not selected.

    And of pods whose Sidecar has listeners bind to the pod's address.
    """
    found: set[str] = set()
    for sidecar in registry.store.of_kind("Sidecar").values():
        ingress = sidecar.spec.get("ingress") or ()
        if any(of.get("captureMode") == "NONE" and not of.get("bind") for of in ingress):
            pods = registry.store.placed("Pod", sidecar.ref.namespace).values()
            found.update(str(pod.status.get("podIP") or "") for pod in pods)
    for service in registry.services():
        plain = service.registry == "Kubernetes" and not (service.headless and not all(p.http for p in service.ports))
        picked = service.selector if plain else ()
        for endpoints in registry.endpoints.instances.get((service.hostname, service.namespace), {}).values():
            found.update(e.address for e in endpoints if not picked or not set(picked) <= set(e.labels))
    return found
