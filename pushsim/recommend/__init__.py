"""From observed calls to Sidecar and exportTo objects: what each saves, what it rests on, and what may go wrong.

needs      what each namespace or workload needs, and the egress hosts that give it just that
proposals  the Sidecars and Services that are proposed
saving     which of them save most
written    YAML to apply
risk       how far observed calls may be trusted
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pushsim.breaks import Break, Sight, broken
from pushsim.figures import amount
from pushsim.mesh import Mesh, Object, Ref
from pushsim.recommend.needs import Limits, Unit, reached, units
from pushsim.recommend.proposals import exports, next_creation, sidecar_for
from pushsim.recommend.risk import Risk, risk_of
from pushsim.recommend.saving import Effect, Ledger, with_objects
from pushsim.recommend.written import to_json, yaml_of
from pushsim.settings import Settings, Variant
from pushsim.topology.calls import host_of

if TYPE_CHECKING:
    from pushsim.topology.calls import Graph

__all__ = ["Limits", "Proposal", "Recommendation", "Risk", "recommend"]


@dataclass(frozen=True, slots=True)
class Proposal:
    """One object to apply.

    proxies:     that it serves, for a Sidecar; that hold the service no more, for a Service.
    hosts:       its egress hosts, or the namespaces it is exported to.
    saved_bytes: configuration that proxies hold no more, all together, beyond what the proposals before it save.
    spared:      proxy pushes that it saves when each service of the mesh changes once.
    calls:       observed calls (distinct) that it was made to keep.
    risk:        None for a Service.
    """

    subject: Object
    proxies: int
    hosts: int
    saved_bytes: int
    spared: int
    calls: int
    risk: Risk | None


@dataclass(frozen=True, slots=True, repr=False)
class Recommendation:
    """All that is proposed, the most saving first.

    left_out:     (namespace or object, why) of what is not proposed.
    bytes_before, bytes_after: configuration of all proxies together when they connect.
    pushes_before, pushes_after: proxy pushes when each service changes once.
    coverage:     share of the observed traffic that names both ends and still finds its destination.
    """

    proposals: tuple[Proposal, ...]
    left_out: tuple[tuple[str, str], ...]
    bytes_before: int
    bytes_after: int
    pushes_before: int
    pushes_after: int
    coverage: float

    def __repr__(self) -> str:
        """What it comes to; `yaml()` has the objects."""
        return (
            f"{len(self.proposals)} objects proposed, {len(self.left_out)} left out; configuration of all proxies "
            f"{amount(self.bytes_before)} to {amount(self.bytes_after)}, pushes when each service changes once "
            f"{self.pushes_before:,} to {self.pushes_after:,}, {100 * self.coverage:.4g} % of the calls kept"
        )

    @property
    def objects(self) -> tuple[Object, ...]:
        """The objects to apply."""
        return tuple(proposal.subject for proposal in self.proposals)

    def yaml(self) -> str:
        """The objects as YAML, ready to apply, each with what it saves and risks as a comment."""
        return yaml_of(self)

    def to_json(self) -> dict[str, Any]:
        """The whole as plain values."""
        return to_json(self)


def recommend(
    mesh: Mesh,
    graph: Graph,
    settings: Settings,
    *,
    workloads: bool = False,
    silent: bool = False,
    export_to: bool = True,
    limits: Limits | None = None,
    budget: int | None = None,
) -> Recommendation:
    """Objects that let each proxy see what it was seen to call, and little more.

    workloads: Sidecars for workloads, too, where their labels tell them apart.
    silent:    for workloads that no call was seen from, too: they would see the root namespace at most.
    export_to: Services' exportTo, too.
    budget:    at most so many objects, those that save most.

    Each Sidecar imports a part of what its proxies reach now, and no response of any xDS type grows, so it is never
    dearer: not when proxies connect, nor when something is pushed later, until a host or an address gets a second
    owner. Whatever would break an observed call or a route, by our own visibility, is left out.
    """
    limits = limits or Limits()
    sight = Sight(Variant("now", mesh, (), settings))
    outlook = sight.outlook(graph)
    left_out: dict[str, str] = {}
    created = next_creation(mesh)
    made: dict[Ref, Unit] = {}
    sidecars: dict[Ref, Object] = {}
    for unit in units(sight, graph, workloads=workloads):
        if unit.selector and not unit.edges and not silent:
            left_out[f"workload {unit.namespace}/{unit.name}"] = "no call was seen from it (--silent proposes it)"
            continue
        found = sidecar_for(unit, mesh, limits, created)
        if isinstance(found, str):
            left_out[unit.namespace] = found
        else:
            made[found.ref], sidecars[found.ref] = unit, found
    services = {held.ref: (held, spaces) for held, spaces in exports(sight, graph)} if export_to else {}
    ledger = Ledger(sight)
    while True:  # until nothing breaks and nobody pays: each round leaves something out
        objects = [*sidecars.values(), *(held for held, _ in services.values())]
        after = Sight(Variant("then", with_objects(mesh, objects), (), settings))
        wrong = _wider(after, made, sidecars) | _breaking(broken(outlook, after, graph), sidecars, services)
        wrong = wrong or _dearer(ledger, Ledger(after), sidecars, services)
        if not wrong:
            break
        for ref, why in wrong.items():
            left_out[str(ref)] = why
            sidecars.pop(ref, None)
            services.pop(ref, None)
    return _weighed(ledger, after, graph, made, sidecars, services, left_out, budget, settings)


def _wider(after: Sight, made: dict[Ref, Unit], sidecars: dict[Ref, Object]) -> dict[Ref, str]:
    """Sidecars that let some proxy see anything it does not see now, or that change nothing."""
    now = {proxy.id: view.scope for view, proxies in after.populations for proxy in proxies}
    wrong: dict[Ref, str] = {}
    for ref in sidecars:
        unit = made[ref]
        for view in unit.views:
            scope, before = now[view.proxy.id], view.scope
            if scope.sidecar is None or scope.sidecar.ref != ref:
                continue  # a workload's own
            ports = [
                {(s.hostname, s.namespace, port) for s in reached(held) for port in s.ports} for held in (scope, before)
            ]
            if not ports[0] <= ports[1] or not scope.route_keys <= before.route_keys:
                wrong[ref] = "it would import something that is not seen now"
            elif ports[0] == ports[1]:
                wrong[ref] = "all that is seen now is needed"
    return wrong


def _dearer(
    before: Ledger, after: Ledger, sidecars: dict[Ref, Object], services: dict[Ref, tuple[Object, frozenset[str]]]
) -> dict[Ref, str]:
    """What makes the configuration of some proxy larger, of any xDS type: each is pushed without the others, too.

    Fewer services can do that where several claim one host, or one address and port: another one has it then.
    """
    sizes = {proxy.id: size for (_, proxies), size in zip(before.sight.populations, before.sizes, strict=True)
             for proxy in proxies}  # fmt: skip
    wrong: dict[Ref, str] = {}
    for (view, proxies), size in zip(after.sight.populations, after.sizes, strict=True):
        if grown := sorted({xds for proxy in proxies for xds in size if size[xds] > sizes[proxy.id][xds]}):
            own = view.scope.sidecar.ref if view.scope.sidecar is not None else None
            blamed = [own] if own in sidecars else list(services)
            told = f"{' and '.join(grown)} of {view.proxy.id} would grow"
            wrong |= {ref: told for ref in blamed if ref is not None}
    return wrong


def _breaking(
    breaks: Sequence[Break], sidecars: dict[Ref, Object], services: dict[Ref, tuple[Object, frozenset[str]]]
) -> dict[Ref, str]:
    wrong: dict[Ref, str] = {}
    for each in breaks:
        if each.cause in sidecars or each.cause in services:
            wrong[each.cause] = f"it would break {each}"
        else:  # nobody's fault alone: all that could have a part in it
            parts = [ref for ref in sidecars if ref.namespace == each.namespace]
            parts += [ref for ref in services if f"{ref.name}.{ref.namespace}." in each.destination]
            wrong |= dict.fromkeys(parts or [*sidecars, *services], f"it may break {each}")
    return wrong


def _weighed(
    ledger: Ledger,
    after: Sight,
    graph: Graph,
    made: dict[Ref, Unit],
    sidecars: dict[Ref, Object],
    services: dict[Ref, tuple[Object, frozenset[str]]],
    left_out: dict[str, str],
    budget: int | None,
    settings: Settings,
) -> Recommendation:
    sight = ledger.sight
    scopes = {proxy.id: view.scope for view, proxies in after.populations for proxy in proxies}
    effects = []
    for ref, held in sidecars.items():
        unit = made[ref]
        rows = sorted({ledger.row_of[id(view)] for view in unit.views})
        mine = next((s for v in unit.views if _of(s := scopes[v.proxy.id], ref)), None)
        if mine is None:
            continue  # every workload of the namespace has its own
        gone = np.setdiff1d(ledger.columns(unit.scope), ledger.columns(mine))
        effects.append(Effect(held, np.array(rows, dtype=np.intp), gone))
    for held, namespaces in services.values():
        rows = [n for n, space in enumerate(ledger.namespaces) if space not in namespaces]
        host = (f"{held.ref.name}.{held.ref.namespace}.svc.cluster.local", held.ref.namespace)
        if host in ledger.column:
            column = np.array([ledger.column[host]], dtype=np.intp)
            effects.append(Effect(held, np.array(rows, dtype=np.intp), column))
    chosen = ledger.choose(effects, budget)
    objects = [effect.subject for effect, _, _ in chosen]
    final = Sight(Variant("chosen", with_objects(sight.mesh, objects), (), settings))
    before_bytes, before_pushes = _totals(ledger)
    after_bytes, after_pushes = _totals(Ledger(final))
    # what listeners and routes add to clusters and endpoints is spread over the objects alike
    estimated = sum(saved for _, saved, _ in chosen)
    scale = (before_bytes - after_bytes) / estimated if estimated else 1.0
    proposals = []
    for effect, saved, spared in chosen:
        held = effect.subject
        figures = (round(saved * scale), round(spared))
        if held.ref in sidecars:
            unit = made[held.ref]
            hosts = len(held.spec["egress"][0]["hosts"])
            risk = risk_of(graph, unit.edges)
            proposals.append(Proposal(held, unit.proxies, hosts, *figures, len(unit.edges), risk))
        else:
            proposals.append(Proposal(held, round(spared), len(services[held.ref][1]), *figures, 0, None))
    return Recommendation(
        tuple(proposals),
        tuple(sorted(left_out.items())),
        before_bytes,
        after_bytes,
        before_pushes,
        after_pushes,
        _coverage(graph, final),
    )


def _of(scope: object, ref: Ref) -> bool:
    sidecar: Object | None = getattr(scope, "sidecar", None)
    return sidecar is not None and sidecar.ref == ref


def _totals(ledger: Ledger) -> tuple[int, int]:
    """Bytes of configuration of all proxies, and proxy pushes if each service changes once."""
    rows = zip(ledger.sizes, ledger.sight.populations, strict=True)
    total = sum(size.total() * len(proxies) for size, (_, proxies) in rows)
    return total, int(ledger.weights @ ledger.held.sum(axis=1))


def _coverage(graph: Graph, sight: Sight) -> float:
    """Share of the observed traffic that names both ends and finds its destination, or needs none to be seen."""
    outlook = sight.outlook(graph)
    edges = list(graph.edges(data=True))
    counted = all(edge.get("calls") is not None for _, _, edge in edges)
    kept = missed = 0.0
    for caller, callee, edge in edges:
        weight = float((edge.get("calls") if counted else edge.get("rate")) or 1.0)
        verdict = outlook.get(("call", caller, host_of(callee), caller.namespace))
        if verdict is None or verdict.seen:
            kept += weight
        else:
            missed += weight
    whole = kept + missed + float(graph.graph.get("left_out") or 0.0)
    return kept / whole if whole else 1.0
