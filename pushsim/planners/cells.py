"""Which cells of the xDS cache a response reads, and a change evicts (reference `push-timing-and-cost` §3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from itertools import count

import numpy as np

from pushsim import planner as ask
from pushsim.context import PushContext
from pushsim.generators import Block
from pushsim.memo import Recent
from pushsim.mesh import ConfigKey
from pushsim.plan import ProxyState, Push, Response
from pushsim.resources import LoadAssignment, OutboundCluster, RouteConfiguration

#: Kinds whose key stands for a host.
HOST_KINDS = frozenset({"ServiceEntry", "Endpoints", "DNSName"})

#: Resources in all the responses whose views are remembered, and likewise in their blocks.
_REMEMBERED = 1 << 18

#: Cells, with how many resources and how many units are in each.
_Columns = tuple[ask.Cells, ask.Cells, ask.Cells]


class Cells:
    """Numbers of cells, and which of them a host or a route fills."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}
        self._of: dict[Hashable, set[int]] = {}
        self._views, self._parts = Recent(_REMEMBERED), Recent(_REMEMBERED)
        self._view_numbers = count()

    def evicted(self, owners: Iterable[Hashable]) -> ask.Cells:
        """The cells of these hosts or routes."""
        found = sorted(set().union(*(self._of.get(owner, ()) for owner in owners)))
        return np.array(found, dtype=np.int32)

    def view(self, response: Response, state: ProxyState) -> ask.View | None:
        """The cached part of a response; one object for responses of the same blocks and cache key."""
        if response.xds == "LDS":
            return None
        kind = (state.proxy.type, state.scope.namespace if response.xds == "RDS" else "")
        return self._views.once(
            lambda: self._view(response, kind), response.xds, kind, of=response.blocks, weight=response.count
        )

    def _view(self, response: Response, kind: tuple[str, str]) -> ask.View | None:
        parts = [self._part(response.xds, block, kind) for block in response.blocks]
        cells, resources, units = (np.concatenate(column) for column in zip(*parts, strict=True))
        return ask.View(next(self._view_numbers), cells, resources, units) if len(cells) else None

    def _part(self, xds: str, block: Block, kind: tuple[str, str]) -> _Columns:
        return self._parts.once(lambda: self._columns(xds, block, kind), kind, of=(block,), weight=len(block))

    def _columns(self, xds: str, block: Block, kind: tuple[str, str]) -> _Columns:
        resources: Counter[int] = Counter()
        units: Counter[int] = Counter()
        for cell, unit in self._cached(xds, block, kind):
            resources[cell] += 1
            units[cell] += unit
        columns = (list(resources), list(resources.values()), [units[cell] for cell in resources])
        first, second, third = (np.array(column, dtype=np.int32) for column in columns)
        return first, second, third

    def _cached(self, xds: str, block: Block, kind: tuple[str, str]) -> Iterator[tuple[int, int]]:
        """(cell, units) of each cached resource."""
        for resource in block:
            if isinstance(resource, OutboundCluster):
                host = resource.service.hostname
                yield self._cell((xds, host, kind), host), 0
            elif isinstance(resource, LoadAssignment) and resource.service is not None:
                host = resource.service.hostname
                yield self._cell((xds, host, kind), host), len(resource.endpoints)
            elif isinstance(resource, RouteConfiguration) and resource.name.isdigit():
                yield self._cell((xds, resource.name, kind), f"route {resource.name}"), len(resource.services)

    def _cell(self, key: Hashable, owner: Hashable) -> int:
        """The number of a cell; `owner` is the host (or "route NAME") whose change evicts it."""
        if key not in self._numbers:
            number = self._numbers[key] = len(self._numbers)
            self._of.setdefault(owner, set()).add(number)
        return self._numbers[key]


def owners_of_hosts(hosts: Iterable[str], context: PushContext) -> Iterator[Hashable]:
    """What a host's change evicts: its clusters and assignments, and the routes it has a virtual host in."""
    for host in hosts:
        yield host
        for service in context.services.by_host.get(host, ()):
            yield from (f"route {port.number}" for port in service.ports if port.http)


def owners_of_keys(keys: Iterable[ConfigKey], push: Push) -> Iterator[Hashable]:
    """What a Push with these keys evicts."""
    context = push.context
    for key in keys:
        if key.kind in HOST_KINDS:
            yield from owners_of_hosts([key.name], context)
        elif key.kind == "DestinationRule" and (written := context.rule_index.by_key.get(key)) is not None:
            yield from owners_of_hosts(push.scopes.family.hosts_of_rule(written), context)
        elif key.kind == "VirtualService":
            yield from (f"route {p.number}" for s in context.services.ordered for p in s.ports if p.http)
