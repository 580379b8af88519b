"""The configuration side of one istiod: its registry, and the pushes made of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import get_args

from pushsim.context import build_context
from pushsim.dependencies import Decision
from pushsim.errors import chosen
from pushsim.gateways import MergedGateway, merge_gateways
from pushsim.generators import Generators
from pushsim.memo import Memo
from pushsim.mesh import ON_DEMAND, Change, Mesh, Mode, Object, Proxy, Xds, truth
from pushsim.plan.asking import asked
from pushsim.plan.cds import outbound_names, watched_names
from pushsim.plan.eds import assignments
from pushsim.plan.lds import sotw_listening
from pushsim.plan.nds import table
from pushsim.plan.rds import configurations
from pushsim.plan.rewriting import written_to
from pushsim.plan.state import Listening, Plan, ProxyState, Push, Response
from pushsim.registry import Registry
from pushsim.releases import Rules, switched
from pushsim.requests import PushRequest
from pushsim.visibility import Scopes


class Istiod:
    """One istiod; `latest` is its last push.

    Args:
        mesh: what there is when it starts, with its mesh config and environment.
        rules: the release, to which the environment adds what it sets.
        mode: the xDS mode of its proxies; None for the release's own.
        on_demand: of the types that not every proxy has, those that they ask for where there is something to.
    """

    def __init__(
        self, mesh: Mesh, rules: Rules, mode: Mode | None = None, on_demand: Collection[Xds] = ON_DEMAND
    ) -> None:
        self.rules = rules = switched(rules, mesh.env)
        if mode is not None:
            chosen(mode, get_args(Mode), "mode")
        self.mode, self._env, self._proxies = mode or rules.agent_mode, mesh.env, mesh.proxies
        self.registry = Registry(mesh, rules)
        context = build_context(self.registry, self._env, None, PushRequest(forced=True))
        self.latest = Push(context, Scopes(context), self.registry, frozenset(on_demand))

    def fork(self) -> Istiod:
        """An independent copy, for trying something."""
        copy = object.__new__(Istiod)
        copy.rules, copy.mode, copy._env, copy._proxies = self.rules, self.mode, self._env, self._proxies
        copy.registry = self.registry.fork()
        copy.latest = replace(self.latest, registry=copy.registry)
        return copy

    def handle(self, change: Change, *, services_first: bool = False) -> tuple[PushRequest, ...]:
        """What the handlers ask to be pushed for a change (before the debounce)."""
        return self.registry.handle(change, services_first=services_first, used=self._written_to)

    def _written_to(self, rule: Object) -> bool:
        if self.rules.writes_rules != "host-and-tls":
            return False
        scopes = (self.latest.scopes.of(proxy, self.registry.labels_of(proxy)) for proxy in self._proxies)
        return written_to(rule, dict.fromkeys(scopes))

    def merge(self, requests: Iterable[PushRequest]) -> PushRequest | None:
        """The requests of one debounce window as one; ProxyUpdates, which bypass it, left out."""
        merged: PushRequest | None = None
        for request in requests:
            if not request.proxy:
                merged = request if merged is None else merged.merge(request, self.rules)
        if merged is None or merged.endpoints_only(self.rules):
            return merged
        return merged.narrowed(self.registry.with_aliased(merged.keys))

    def batches(self, requests: Iterable[PushRequest]) -> list[PushRequest]:
        """The requests of one debounce window as they are pushed: in one, or each that changes endpoints alone at once.

        Source: pilot/pkg/xds/discovery.go (debounce: enableEDSDebounce).
        """
        requests = [request for request in requests if not request.proxy]
        if truth(self._env.get("PILOT_ENABLE_EDS_DEBOUNCE"), default=True):
            at_once = []
        else:
            at_once = [request for request in requests if request.endpoints_only(self.rules)]
        held = self.merge(request for request in requests if request not in at_once)
        return at_once if held is None else [*at_once, held]

    def push(self, request: PushRequest) -> Push:
        """Build the PushContext of a merged request."""
        before = self.latest
        context = build_context(self.registry, self._env, before.context, request)
        scopes = before.scopes if context.scopes_at == before.context.scopes_at else Scopes(context, before.scopes)
        self.latest = replace(before, context=context, scopes=scopes)
        return self.latest

    def seen_by(self, update: PushRequest) -> Push:
        """What a ProxyUpdate sees, which waits for no PushContext: the latest, and the endpoints as they then are."""
        if update.endpoints is None:
            return self.latest
        return replace(self.latest, context=replace(self.latest.context, endpoints=update.endpoints, memo=Memo()))

    def adopt(self, push: Push) -> None:
        """A push that another istiod has made, which is where this one is."""
        self.latest = replace(push, registry=self.registry)

    def meet(self, proxy: Proxy, push: Push | None = None) -> ProxyState:
        """What istiod knows of a proxy that connects, before it has sent it anything, as of a push (the latest)."""
        push = push or self.latest
        find_targets = self.registry.targets_unlabelled if self.rules.labelled_last else self.registry.targets
        labels, targets = self.registry.labels_of(proxy), find_targets(proxy)
        gateway = merge_gateways(push.context, targets, labels, proxy)
        scope = push.scopes.of(proxy, labels)
        return ProxyState(proxy, self.mode, labels, scope, None, targets, gateway, MergedGateway())

    def connect(self, proxy: Proxy, push: Push | None = None) -> Plan:
        """A proxy's first conversation: all of everything, as of a push (the latest)."""
        return self.greet(self.meet(proxy, push), push)

    def greet(self, state: ProxyState, push: Push | None = None, *, answered: bool = True) -> Plan:
        """The first conversation of a proxy that was just met; not `answered`: only the state it ends in."""
        push = push or self.latest
        generators = Generators(state.view, push.context)
        cds = Response("CDS", generators.clusters(), solicited=True)
        lds = Response("LDS", generators.listeners(), solicited=True)
        by_listener = generators.routes_by_listener(lds.blocks)
        remembers = self.mode == "delta" and self.rules.delta_watched != "last-push"
        listening = push.context.memo.once(lambda: _first(by_listener, remembers), "first listening", of=(by_listener,))
        clusters = watched_names(cds.blocks)
        state = replace(state, clusters=clusters, listening=listening)
        if remembers:
            base = frozenset(cluster.name for cluster in cds.blocks[0])
            state = replace(state, watched=outbound_names(cds.blocks), base=base)
        asks, more = asked(state, push, cds, lds)
        state = state if asks is state.asks else replace(state, asks=asks)
        decision = Decision(True, PushRequest(forced=True), ("it connects",))
        if not answered:
            return Plan(state, decision)
        eds = [assignments(generators, clusters, solicited=True)] if len(clusters) else []
        rds = [configurations(generators, listening.routes, solicited=True)] if listening.routes else []
        nds = [table(generators, solicited=True)] if state.proxy.captures_dns and "NDS" in push.on_demand else []
        return Plan(state, decision, (cds, *eds, lds, *rds, *nds, *more))


def _first(by_listener: Mapping[str, frozenset[str]], remembers: bool) -> Listening:
    listening = sotw_listening(by_listener)
    return replace(listening, served=frozenset(by_listener)) if remembers else listening
