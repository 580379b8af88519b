"""Which cells of the xDS cache a response reads, and a change evicts (reference `push-timing-and-cost` §3)."""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterable, Iterator
from itertools import count

import numpy as np

from pushsim import planner as ask
from pushsim.blocks import Block, Blocks
from pushsim.context import PushContext
from pushsim.mesh import ConfigKey
from pushsim.plan import ProxyState, Push, Response
from pushsim.resources import Credential, LoadAssignment, OutboundCluster, RouteConfiguration
from pushsim.secrets import AUTHORITY

#: Types with an xDS cache, of which a response may read a part.
CACHED = frozenset({"CDS", "EDS", "RDS", "SDS"})
#: Kinds whose key stands for a host.
HOST_KINDS = frozenset({"ServiceEntry", "Endpoints", "DNSName"})

#: By cell, how many resources and how many units are in it.
_Contents = dict[int, tuple[int, int]]


class Cells:
    """Numbers of cells, and which of them a host or a route fills."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}
        self._of: dict[Hashable, array[int]] = {}
        self._view_numbers = count()

    def evicted(self, owners: Iterable[Hashable]) -> ask.Cells:
        """The cells of these hosts or routes."""
        found = [of for owner in dict.fromkeys(owners) if (of := self._of.get(owner)) is not None]
        return np.concatenate([ask.NO_CELLS, *found])

    def view(self, response: Response, state: ProxyState) -> ask.View | None:
        """The cached part of a response; one object for responses of the same blocks and cache key."""
        if response.xds not in CACHED:
            return None
        kind = (state.proxy.type, state.scope.namespace if response.xds == "RDS" else "")
        blocks = response.blocks[1:] if response.xds == "CDS" else response.blocks  # the first has no cached ones
        if not blocks:
            return None
        largest = max(blocks, key=len)
        return largest.memo.once(lambda: self._view(blocks, kind), "view", kind, of=(self, *blocks))

    def _view(self, blocks: Blocks, kind: tuple[str, str]) -> ask.View | None:
        found: _Contents = {}
        for block in blocks:
            _add(found, self._contents(block, kind))
        if not found:
            return None
        columns = (found, (n for n, _ in found.values()), (units for _, units in found.values()))
        arrays = (np.fromiter(column, dtype=np.int32, count=len(found)) for column in columns)
        return ask.View(next(self._view_numbers), *arrays)

    def _contents(self, block: Block, kind: tuple[str, str]) -> _Contents:
        return block.memo.once(lambda: self._contents_of(block, kind), "cells", kind, of=(self,))

    def _contents_of(self, block: Block, kind: tuple[str, str]) -> _Contents:
        found: _Contents = {}
        if block.parts:
            for part in block.parts:
                _add(found, self._contents(part, kind))
            return found
        for resource in block:
            if isinstance(resource, OutboundCluster):
                host, units = resource.service.hostname, 0
                cell = self._cell(("CDS", host, kind), host)
            elif isinstance(resource, LoadAssignment) and resource.service is not None:
                host, units = resource.service.hostname, len(resource.endpoints)
                cell = self._cell(("EDS", host, kind), host)
            elif isinstance(resource, RouteConfiguration) and resource.name.isdigit():
                units = len(resource.services)
                cell = self._cell(("RDS", resource.name, kind), f"route {resource.name}")
            elif isinstance(resource, Credential):
                units, secret = 0, resource.written.ref
                cell = self._cell(("SDS", resource.name, secret), _secret(secret.namespace, secret.name))
            else:
                continue
            known = found.get(cell, (0, 0))
            found[cell] = (known[0] + 1, known[1] + units)
        return found

    def _cell(self, key: Hashable, owner: Hashable) -> int:
        """The number of a cell; `owner` is the host (or "route NAME") whose change evicts it."""
        if key not in self._numbers:
            number = self._numbers[key] = len(self._numbers)
            self._of.setdefault(owner, array("i")).append(number)
        return self._numbers[key]


def _add(found: _Contents, more: _Contents) -> None:
    """Add what is in some cells."""
    if found.keys().isdisjoint(more):
        found.update(more)
        return
    for cell, (resources, units) in more.items():
        known = found.get(cell)
        found[cell] = (resources, units) if known is None else (known[0] + resources, known[1] + units)


def owners_of_hosts(hosts: Iterable[str], context: PushContext) -> Iterator[Hashable]:
    """What a host's change evicts: its clusters and assignments, and the routes it has a virtual host in."""
    for host in hosts:
        yield host
        for service in context.services.by_host.get(host, ()):
            yield from (f"route {port.number}" for port in service.ports if port.http or port.auto)


def _secret(namespace: str, name: str) -> Hashable:
    """What both a Secret and the one that its name with `-cacert` means evict."""
    return f"secret {namespace}/{name.removesuffix(AUTHORITY)}"


def owners_of_keys(keys: Iterable[ConfigKey], push: Push) -> Iterator[Hashable]:
    """What a Push with these keys evicts."""
    context = push.context
    for key in keys:
        if key.kind in HOST_KINDS:
            yield from owners_of_hosts([key.name], context)
        elif key.kind == "DestinationRule" and (written := context.rule_index.by_key.get(key)) is not None:
            yield from owners_of_hosts(push.scopes.family.hosts_of_rule(written), context)
        elif key.kind == "Secret":
            yield _secret(key.namespace, key.name)
        elif key.kind == "VirtualService":
            yield from (f"route {number}" for number in context.services.http_ports)
