"""Which cells of the xDS cache a response reads, and a change evicts (reference `push-timing-and-cost` §3)."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from functools import partial
from itertools import count
from typing import NamedTuple

import numpy as np

from pushsim import planner as ask
from pushsim.blocks import Block, Blocks
from pushsim.context import PushContext, asks_hashing
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

    def evicted(self, owners: Owners) -> ask.Evicted:
        """What comes over the cells of these hosts and routes."""
        known = [(self._of[owner], since) for owner, since in owners.known.items() if owner in self._of]
        since = [np.full(len(of), at, dtype=np.int64) for of, at in known]
        return ask.Evicted(
            np.concatenate([ask.NO_CELLS, *(of for of, _ in known)]),
            np.concatenate([np.zeros(0, dtype=np.int64), *since]),
            np.concatenate([ask.NO_CELLS, *(self._of[owner] for owner in owners.outdated if owner in self._of)]),
            owners.at,
        )

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
            elif isinstance(resource, RouteConfiguration) and resource.cached:
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


class Owners(NamedTuple):
    """Of which hosts and routes an event evicts the cells: see `planner.Evicted`.

    known: with when that came which changes.
    """

    known: Mapping[Hashable, int]
    outdated: Collection[Hashable] = ()
    at: int = 0


class Came:
    """When something came to hang on something else, by the last change of the push that it did with."""

    def __init__(self) -> None:
        self._at: dict[tuple[Hashable, Hashable], int] = {}

    def fork(self) -> Came:
        """An independent copy."""
        copy = Came()
        copy._at = dict(self._at)
        return copy

    def owners_of_hosts(self, hosts: Iterable[str], context: PushContext) -> Owners:
        """What a change of these evicts at once, with the services of the last push."""
        known: dict[Hashable, int] = {}
        for host in hosts:
            self._tell(known, host, _owners_of_host(host, context))
        return Owners(known)

    def owners_of_keys(self, keys: Iterable[ConfigKey], at: int, before: Push, push: Push) -> Owners:
        """What a Push with these keys evicts. at: its last change; before: the push before it."""
        known: dict[Hashable, int] = {}
        outdated = set[Hashable]()
        for key in keys:
            of = key.name if key.kind in HOST_KINDS else key
            had, have = (set(_owners_of_key(key, each)) for each in (before, push))
            self._tell(known, of, had)
            outdated |= have - had
            self._at |= {(of, owner): at for owner in have - had}
        return Owners(known, outdated, at)

    def _tell(self, known: dict[Hashable, int], of: Hashable, owners: Iterable[Hashable]) -> None:
        """Something changes that these hang on: since when, of several the first."""
        for owner in owners:
            since = self._at.get((of, owner), -1)
            known[owner] = min(since, known.get(owner, since))


def _owners_of_host(host: str, context: PushContext, *, routes: bool = True) -> Iterator[Hashable]:
    """What hangs on a host: its clusters and assignments, and the routes it has a virtual host in."""
    for service in context.services.by_host.get(host, ()):
        yield host
        yield from (f"route {port.number}" for port in service.ports if routes and (port.http or port.auto))


def _owners_of_key(key: ConfigKey, push: Push) -> Iterator[Hashable]:
    """What hangs on what a key names, as it is in a push."""
    context = push.context
    if key.kind in HOST_KINDS:
        yield from _owners_of_host(key.name, context)
    elif key.kind == "DestinationRule" and (written := context.rule_index.by_key.get(key)) is not None:
        for host in push.scopes.family.hosts_of_rule(written):
            yield from _owners_of_host(host, context, routes=asks_hashing(written))
    elif key.kind == "Secret":
        yield _secret(key.namespace, key.name)
    elif key.kind == "VirtualService" and key in context.routes.memo.once(partial(_named, context), "keys"):
        yield from (f"route {number}" for number in context.services.http_ports)


def _named(context: PushContext) -> set[ConfigKey]:
    """All VirtualServices that routes are made of."""
    return {key for route in context.routes.routes for key in (route.key, *route.delegates)}


def _secret(namespace: str, name: str) -> Hashable:
    """What both a Secret and the one that its name with `-cacert` means evict."""
    return f"secret {namespace}/{name.removesuffix(AUTHORITY)}"
