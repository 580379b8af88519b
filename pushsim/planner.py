"""What the control plane machine asks of Istio's semantics, and what it is told: few types, all values.

The machine (`control`) knows time; a `Planner` knows Istio. The machine says "this change was written", "push these
requests", "proxy X of group g, now in state s, takes pushes 4 to 7"; the planner answers with counts of work, responses
and the proxy's new state. Neither knows the other's business: no seconds here, no hosts or ports there.

Numbers that both sides share, all counted from 0:
  change   the position of a written change in its variant's order of time;
  request  the position of a `Request` in the order in which this planner's `handle` returned them;
  push     the position of a Push() in the order of this planner's `push` calls;
  group    the position in `Planner.groups`;
  state    what istiod remembers of a proxy between pushes; meaningful within its group. States that come to say the
           same are told by one number from then on; who has been told another may ask by that;
  cell     a part of the xDS cache that is filled and evicted as one (see `View`).

There is one planner per istiod replica: each replica sees all changes and makes its own pushes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pushsim.mesh import Change, Proxy, Xds

#: Amounts of work by cost driver: a name of `cost.DRIVERS` ("push.services", "cds.inbound", …) to how many.
Counts = Mapping[str, int]

NO_COUNTS: Counts = {}
Cells = NDArray[np.int32]
NO_CELLS: Cells = np.zeros(0, dtype=np.int32)


class Evicted(NamedTuple):
    """What an event does to the xDS cache.

    An entry is dropped when something changes that it depends on. If something comes that it does not know yet, its key
    is another from then on: nobody looks for it any more, but it stays, until something that it knows changes.

    cells:    int32[n], whose entries are dropped.
    since:    int64[n], by cell: of entries that have stayed, those that did so later than this (`at`) are dropped, too.
    outdated: int32[m], whose entries stay.
    at:       when they do: numbers of such events grow.
    """

    cells: Cells = NO_CELLS
    since: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
    outdated: Cells = NO_CELLS
    at: int = 0


#: Asked for when it is done, because what is first read until then may be among it.
Evicting = Callable[[], Evicted]


@dataclass(frozen=True, slots=True)
class Group:
    """Proxies that are equal in all that decides: same scope, labels, services, type and mode.

    late:       the last so many of its proxies are not connected when the run begins; a change brings them
                (`Handled.joined`).
    localities: of each proxy, the number of its locality among the mesh's: the cache's keys of clusters and endpoints
                name it. Without any, all are in one.
    places:     how many localities there may be, as proxies may come back in another (`Handled.located`).
    """

    proxies: tuple[Proxy, ...]
    late: int = 0
    localities: tuple[int, ...] = ()
    places: int = 1

    @property
    def size(self) -> int:
        return len(self.proxies)

    @property
    def gateway(self) -> bool:
        """Whether its proxies are gateways, reported apart from sidecars."""
        return self.proxies[0].type == "router"


def localities_of(groups: Iterable[Group]) -> int:
    """How many localities their proxies are in, or may be."""
    return max((max((group.places - 1, *group.localities)) for group in groups), default=0) + 1


@dataclass(frozen=True, slots=True)
class Request:
    """One PushRequest as a handler submits it; the machine does not look into it and never merges: `push` does.

    endpoints_only: with PILOT_ENABLE_EDS_DEBOUNCE=false it is pushed at once, beside the debouncer.
    evicts:         what its handler evicts from the xDS cache when it is done, possibly nothing; None if the handler
                    does not clear the cache (config changes evict in Push alone).
    proxies:        a ProxyUpdate for these proxies only, as (group, position in it): goes into the push queue at
                    once as a forced push, with no debounce and no Push. Empty for all others.
    keys:           how many ConfigKeys it names, for reports.
    """

    endpoints_only: bool = False
    evicts: Evicting | None = None
    proxies: tuple[tuple[int, int], ...] = ()
    keys: int = 1


@dataclass(frozen=True, slots=True)
class Handled:
    """What istiod's handlers make of a written change: the requests in order, and the handlers' work.

    Typical drivers: handler.events, handler.endpoints. joined, left: proxies, as (group, position in it), whose pods
    this change created or deleted. located: of those that joined, the numbers of their localities; none if they are
    where they were.
    """

    requests: tuple[Request, ...]
    work: Counts = field(default_factory=dict)
    joined: tuple[tuple[int, int], ...] = ()
    left: tuple[tuple[int, int], ...] = ()
    located: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Push:
    """One Push(): InitContext on the merged requests.

    number: its push number.
    work:   push.batches, and of InitContext (push.contexts, push.services, push.endpoints, push.virtual_services, …).
    evicts: from the xDS cache; evict_all drops the whole cache (forced, or everything).
    """

    number: int
    work: Counts = field(default_factory=dict)
    evicts: Evicting = Evicted
    evict_all: bool = False


@dataclass(frozen=True, eq=False)
class View:
    """The cached part of a response: which cells it reads, and how much of it is in each.

    A cell is what the cache fills and evicts together: for CDS and EDS the entries of one host under one cache key
    (so proxies of equal version and type share cells; each locality has entries of its own); for RDS one route of one
    domain. A response's view should be one shared object wherever the same resources are read, so that hits are
    counted once.

    number:    position of the view among this planner's views (0, 1, 2, …).
    cells:     int32[n], distinct.
    resources: int32[n], resources in each cell.
    units:     int32[n], what the cost of one miss scales with besides resources: endpoints (EDS), virtual hosts plus
               extra routes (RDS), 0 (CDS).
    """

    number: int
    cells: Cells
    resources: NDArray[np.int32]
    units: NDArray[np.int32]

    @cached_property
    def weights(self) -> NDArray[np.int64]:
        """int64[n], in proportion to the bytes in each cell, of which a resource has about as many as a unit."""
        return self.resources.astype(np.int64) + self.units

    @cached_property
    def whole(self) -> int:
        """All of these weights, at least 1."""
        return max(1, int(self.weights.sum()))

    @cached_property
    def total_resources(self) -> int:
        """Resources in all cells."""
        return int(self.resources.sum(dtype=np.int64))

    @cached_property
    def total_units(self) -> int:
        """The units of all cells."""
        return int(self.units.sum(dtype=np.int64))


@dataclass(frozen=True, slots=True)
class Response:
    """One xDS response to one proxy.

    resources:  resources in it; removed: names removed by it (delta).
    size_bytes: as pilot_xds_config_size_bytes counts: the sum of the resources' Any.value.
    solicited:  an answer to the proxy's own request (it comes after the push, on the connection, without a slot).
    view:       its cached part, None if nothing of it is cached.
    work:       everything but the cached part: lds.tcp, lds.http, lds.inbound, cds.inbound, eds.walked, ….
    shows:      changes that this response is the first to show at this proxy (a resource added, altered or removed
                by the change). Each change at most once in all that a proxy is ever sent on one connection.
    """

    xds: Xds
    resources: int
    size_bytes: int
    removed: int = 0
    solicited: bool = False
    view: View | None = None
    work: Counts = field(default_factory=dict)
    shows: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Scope:
    """A SidecarScope that is built on first use, inside a proxy's push (reference §1.5).

    key:  one number per (PushContext, scope): built once, then free for all.
    lock: builders with the same lock take turns (the global mutex of derived scopes, or one lock per Sidecar).
    work: of building it (scope.hosts, scope.services, …).
    """

    key: int
    lock: int
    work: Counts


@dataclass(frozen=True, slots=True, eq=False)
class Scopes:
    """The scopes that proxies which are `steady` take up in a push.

    scopes: by slot.
    slots:  int32[groups], the slot of each group, -1 for those that are never steady; one object as long as it can be.
    """

    scopes: tuple[Scope, ...]
    slots: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Planned:
    """What one proxy gets for an interval of pushes, or upon connecting.

    needed:    it passed the needs-push check (then it gives a convergence sample, even with no responses).
    state:     the proxy's state from here on.
    responses: in the order they are generated; solicited ones follow the others.
    work:      the filter and computeProxyState: proxy.filters, proxy.keys, proxy.states, proxy.targets.
    scope:     the scope its computeProxyState needs, None if it needs none anew.
    causes:    changes that made it needed, for churn attribution; empty: all changes of the interval.
    common:    it is the same for all proxies that are `alike`, except of groups that are `concerned` or `apart`.
    """

    needed: bool
    state: int
    responses: tuple[Response, ...] = ()
    work: Counts = field(default_factory=dict)
    scope: Scope | None = None
    causes: tuple[int, ...] = ()
    common: bool = False

    @property
    def idle(self) -> bool:
        """Nothing comes of it but the work of finding that out, and of the scope for it."""
        return not self.needed and not self.responses


class Spared(NamedTuple):
    """A proxy is spared by pushes as those are that are steady and have a number (see `Planner.steady`).

    state: the proxy's state from here on.
    like:  the number.
    """

    state: int
    like: int


@dataclass(frozen=True, slots=True, order=True)
class Shape:
    """What a proxy holds in some state: what its Envoy's memory, and istiod's for it, hang on.

    clusters, endpoints, listeners, virtual_hosts: counts in Envoy; tls_clusters of the clusters have a TLS context,
    assignments of them have endpoints. managers: HTTP connection managers, each with its route configuration.
    filter_chains: those with a TLS context of a server. names: resource names istiod remembers as watched.
    """

    clusters: int = 0
    tls_clusters: int = 0
    assignments: int = 0
    endpoints: int = 0
    listeners: int = 0
    managers: int = 0
    filter_chains: int = 0
    virtual_hosts: int = 0
    names: int = 0


class Planner(Protocol):
    """Istio's semantics for one istiod replica; deterministic, and memoised by itself."""

    @property
    def groups(self) -> Sequence[Group]:
        """All proxies, grouped; fixed for the run."""

    @property
    def sotw(self) -> bool:
        """Whether proxies speak state-of-the-world xDS, in which all requests answer to the nonce of a response."""

    def handle(self, change: int, written: Change) -> Handled:
        """The handlers: the registry is as after the change from here on."""

    def push(self, requests: Sequence[int]) -> Push:
        """Begin a Push of these requests merged in this order: a new PushContext of the registry as it is now.

        Each request is pushed once at most.
        """

    def connect(self, group: int, push: int) -> Planned:
        """First conversation of a proxy of that group; `push` is the published PushContext, -1 before any push."""

    def plan(self, group: int, state: int, first: int, last: int, forced: bool) -> Planned:
        """What a proxy in that state gets for the pushes first…last merged. `forced`: a ProxyUpdate is among them."""

    def alike(self, group: int, state: int) -> int:
        """Which other proxies are answered like these: what `plan` says of one may be `Planned.common` to its number.

        That is: what it says of a proxy in some state and an interval without ProxyUpdates, it then says (work, scope
        and all) of every proxy of that number, whose state, number and shape are then again the same. Not so for groups
        that are `concerned` by the interval or `apart`. -1: there are no others.
        """

    def concerned(self, first: int, last: int) -> Collection[int]:
        """Groups that the pushes first…last concern more than others that are `alike`: their own services changed."""

    def steady(self, group: int, state: int) -> int:
        """A number for those that are spared alike, in whatever steady state they are; -1: there are no others.

        A sidecar is steady if its scope holds what the one before held, so that it matters no more what that was.

        See `touched`. It is the same for all proxies of which `alike` says the same.
        """

    def touched(self, first: int, last: int) -> Collection[int] | None:
        """Groups that the pushes first…last may do something to; None if that is not known.

        All others that are `steady` and not `apart` are spared: not needed, with equal work if they are of equal
        number, and in the state they were in, whatever its number is then. If one of them takes up a scope, all do:
        that of their group.
        """

    def spared(self, group: int, state: int, first: int, last: int) -> Spared | None:
        """That a proxy which is `alike` others, whether it is steady or not, is spared as steady ones are.

        None if that is not known. Not to be asked about groups that are `apart`, or with ProxyUpdates.
        """

    def scopes(self, push: int) -> Scopes:
        """The scopes of a push that is known not to touch all (see `touched`)."""

    def apart(self) -> Collection[int]:
        """Groups that are like no others just now, after what `handle`, `connect` and `keep` have been told."""

    def may_meet(self) -> bool:
        """Whether it may share with others again what it plans, once it is told what to `keep`.

        It does if nothing is to be planned any more of what was before its last push.
        """

    def keep(self, states: Collection[tuple[int, int]], push: int, since: int) -> None:
        """From nothing else, and from no push before this one, will be planned.

        states: groups, each with a state that one of its proxies is in.
        since:  no interval that is still to be planned begins before that push.
        """

    def shape(self, group: int, state: int, push: int) -> Shape:
        """What a proxy of that group holds in that state when it has got what that push, -1 before any, is about."""

    def inventory(self) -> Counts:
        """What istiod holds now: memory.services, memory.endpoints, memory.scopes, memory.configs."""
