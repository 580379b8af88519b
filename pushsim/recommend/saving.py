"""Which of the proposed objects save most: each taken for what it saves beyond those taken before it."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pushsim.breaks import Sight
from pushsim.generators import Generators
from pushsim.mesh import Change, Mesh, Object, Proxy, Service
from pushsim.names import ClusterNames
from pushsim.plan import Response
from pushsim.plan.eds import assignments
from pushsim.pricing import Pricing
from pushsim.visibility import Scope

Host = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Effect:
    """What an object takes away: from these rows (populations), all of these services."""

    subject: Object
    rows: npt.NDArray[np.intp]
    services: npt.NDArray[np.intp]


class Ledger:
    """Who holds which services, and how many bytes of configuration that is.

    column: by host name and namespace. weights: proxies of each row. held: which row holds which column.
    """

    def __init__(self, sight: Sight) -> None:
        self.sight = sight
        self.pricing = Pricing(sight.mesh, sight.istiod.rules, sight.istiod.mode)
        populations = sight.populations
        self.row_of = {id(view): number for number, (view, _) in enumerate(populations)}
        self.scopes = [view.scope for view, _ in populations]
        self.namespaces = [scope.namespace for scope in self.scopes]
        self.weights = np.array([len(proxies) for _, proxies in populations], dtype=np.float64)
        self.column: dict[Host, int] = {}
        self.services: list[Service] = []
        for service in sight.push.context.services.ordered:
            if self.column.setdefault((service.hostname, service.namespace), len(self.column)) == len(self.services):
                self.services.append(service)
        self.held = np.zeros((len(populations), len(self.services)), dtype=bool)
        self._columns: dict[int, npt.NDArray[np.intp]] = {}
        for number, scope in enumerate(self.scopes):
            self.held[number, self.columns(scope)] = True

    def columns(self, scope: Scope) -> npt.NDArray[np.intp]:
        """The services of a scope."""
        if id(scope) not in self._columns:
            found = {self.column[s.hostname, s.namespace] for s in scope.all_services}
            self._columns[id(scope)] = np.array(sorted(found), dtype=np.intp)
        return self._columns[id(scope)]

    @cached_property
    def bytes(self) -> npt.NDArray[np.float64]:
        """Of each service, its clusters and endpoints, as the first row that holds it gets them."""
        sizes = np.zeros(len(self.services))
        push = self.sight.push
        for number, (view, _) in enumerate(self.sight.populations):
            wanted = np.flatnonzero(self.held[number] & (sizes == 0))
            if not wanted.size:
                continue
            state = self.sight.istiod.connect(view.proxy).state
            generators = Generators(state.view, push.context)
            for place in wanted:
                held = self.scopes[number].service(self.services[place].hostname)
                block = generators.clusters_of_services((held,)) if held is not None else None
                if block is None or not len(block):
                    sizes[place] = 1.0  # no clusters: a listener or route at most
                    continue
                names = frozenset(cluster.name for cluster in block if getattr(cluster, "discovery", "") == "EDS")
                sizes[place] = self.pricing.size(Response("CDS", (block,)), state, push)
                if names:
                    sizes[place] += self.pricing.size(assignments(generators, ClusterNames(names)), state, push)
        return sizes

    @cached_property
    def sizes(self) -> list[Counter[str]]:
        """Of each row, the bytes that a proxy of it gets when it connects, by xDS type."""
        return [self._config_bytes(view.proxy) for view, _ in self.sight.populations]

    def _config_bytes(self, proxy: Proxy) -> Counter[str]:
        plan = self.sight.istiod.connect(proxy)
        sizes: Counter[str] = Counter()
        for response in plan.responses:
            sizes[response.xds] += self.pricing.size(response, plan.state, self.sight.push)
        return sizes

    def choose(self, effects: Sequence[Effect], most: int | None) -> list[tuple[Effect, float, float]]:
        """The objects in the order in which they save most, each with the bytes it saves beyond those before it, and
        the proxy pushes it spares if each service changes once; those that save nothing are left out.

        What an object adds only shrinks as others are taken, so an estimate that is still the largest after it was
        made anew is right (Minoux's lazy greedy).
        """
        held = self.held.copy()
        queue = [(-self._worth(held, effect)[0], number, 0) for number, effect in enumerate(effects)]
        heapq.heapify(queue)
        chosen: list[tuple[Effect, float, float]] = []
        while queue and (most is None or len(chosen) < most):
            _, number, made_at = heapq.heappop(queue)
            effect = effects[number]
            saved, spared = self._worth(held, effect)
            if saved <= 0:
                continue
            if made_at < len(chosen) and queue and -queue[0][0] > saved:
                heapq.heappush(queue, (-saved, number, len(chosen)))
                continue
            chosen.append((effect, saved, spared))
            held[np.ix_(effect.rows, effect.services)] = False
        return chosen

    def _worth(self, held: npt.NDArray[np.bool_], effect: Effect) -> tuple[float, float]:
        gone = held[np.ix_(effect.rows, effect.services)]
        weights = self.weights[effect.rows]
        return float(weights @ (gone @ self.bytes[effect.services])), float(weights @ gone.sum(axis=1))


def with_objects(mesh: Mesh, added: Sequence[Object]) -> Mesh:
    """The mesh with these objects added, or replaced in their place."""
    return mesh.after(Change(tuple(added)))
