"""What is pushed, to whom, and what both sides remember of it."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

from pushsim.blocks import Blocks
from pushsim.context import PushContext
from pushsim.dependencies import Decision, View
from pushsim.gateways import MergedGateway
from pushsim.mesh import ON_DEMAND, Mode, Proxy, Xds
from pushsim.names import NO_NAMES, ClusterNames
from pushsim.registry import Registry, Target
from pushsim.resources import Resource
from pushsim.visibility import Scope, Scopes


@dataclass(frozen=True, slots=True)
class Response:
    """One xDS response.

    blocks:    what it holds, in blocks that proxies share.
    removed:   names delta takes back.
    solicited: the proxy asked for it just before.
    delta:     istiod worked out from what changed what to send, and did not make all there is.
    """

    xds: Xds
    blocks: Blocks
    removed: tuple[str, ...] = ()
    solicited: bool = False
    delta: bool = False

    @property
    def resources(self) -> Iterator[Resource]:
        """The resources it holds."""
        return chain.from_iterable(self.blocks)

    @property
    def count(self) -> int:
        """How many resources it holds."""
        return sum(map(len, self.blocks))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the resources, sorted."""
        return tuple(sorted(resource.name for resource in self.resources))


@dataclass(frozen=True, slots=True, eq=False)
class Push:
    """A push as every proxy meets it: the context and its scopes; the registry is as it is now, not as it was then.

    on_demand: of the types that not every proxy has, those that proxies may ask for.
    """

    context: PushContext
    scopes: Scopes
    registry: Registry
    on_demand: frozenset[Xds] = ON_DEMAND


@dataclass(frozen=True, eq=False)
class Listening:
    """The listeners a proxy has; one object for all proxies that have the same.

    by_listener: RDS names that each refers to.
    routes:      all of those: the names the proxy subscribes to.
    served:      for delta, the names that removals are computed from.
    """

    by_listener: Mapping[str, frozenset[str]]
    routes: frozenset[str]
    served: frozenset[str] = frozenset()

    @cached_property
    def content(self) -> Hashable:
        """Equal for those that say the same."""
        return frozenset(self.by_listener.items()), self.routes, self.served


NOT_LISTENING = Listening({}, frozenset())


@dataclass(frozen=True, slots=True)
class Watch:
    """A subscription on demand: to which names; whether istiod knows of it, and has ever answered on it."""

    names: frozenset[str] = frozenset()
    open: bool = False
    answered: bool = False

    def told(self) -> Watch:
        """The same, answered."""
        return replace(self, answered=True)


@dataclass(frozen=True, slots=True)
class Asks:
    """What a proxy asks for beside the common types.

    by_cluster:  its clusters that name secrets, with their names. by_listener: secrets that its listeners name.
    """

    secrets: Watch = Watch()
    extensions: Watch = Watch()
    by_cluster: frozenset[tuple[str, tuple[str, ...]]] = frozenset()
    by_listener: frozenset[str] = frozenset()

    def told(self, *, secrets: bool, extensions: bool) -> Asks:
        """The same after pushes of these: what a push sends answers as well."""
        of_secrets = self.secrets.told() if secrets else self.secrets
        of_extensions = self.extensions.told() if extensions else self.extensions
        return replace(self, secrets=of_secrets, extensions=of_extensions)


ASKS_NOTHING = Asks()


@dataclass(frozen=True, slots=True)
class ProxyState:
    """What istiod and a proxy remember of each other between pushes.

    labels:    workload labels, as of connect or the last ProxyUpdate.
    previous:  the scope before the last one that was computed, if it may have held something else.
    previous_gateway: the merged gateway before the last one.
    watched:   for delta, the outbound clusters that removals are computed from;
    base:      likewise the other clusters.
    clusters:  EDS names the proxy subscribes to: those of the EDS clusters it has.
    listening: its listeners.
    asks:      what it has asked for on demand.
    """

    proxy: Proxy
    mode: Mode
    labels: Mapping[str, str]
    scope: Scope
    previous: Scope | None
    targets: tuple[Target, ...]
    gateway: MergedGateway
    previous_gateway: MergedGateway
    watched: ClusterNames = NO_NAMES
    base: frozenset[str] = frozenset()
    clusters: ClusterNames = NO_NAMES
    listening: Listening = NOT_LISTENING
    asks: Asks = ASKS_NOTHING

    @property
    def routes(self) -> frozenset[str]:
        """RDS names it subscribes to."""
        return self.listening.routes

    @property
    def steady(self) -> bool:
        """Whether its scope holds what the one before held, or there was none."""
        return self.previous is None

    @property
    def view(self) -> View:
        """What decisions and generators read of it."""
        return View(self.labelled, self.scope, self.previous, self.targets, self.gateway)

    def of(self, other: ProxyState) -> ProxyState:
        """This state, of the proxy of another, with its labels and services."""
        return self.owned(other.proxy, other.labels, other.targets, self.base)

    def owned(
        self, proxy: Proxy, labels: Mapping[str, str], targets: tuple[Target, ...], base: frozenset[str]
    ) -> ProxyState:
        """This state, as another proxy has it."""
        return ProxyState(
            proxy, self.mode, labels, self.scope, self.previous, targets, self.gateway,
            self.previous_gateway, self.watched, base, self.clusters, self.listening, self.asks,
        )  # fmt: skip

    def refreshed(self, other: ProxyState) -> ProxyState:
        """This state, of the proxy of another, with all that is looked up of that before anything is decided."""
        return ProxyState(
            other.proxy, self.mode, other.labels, other.scope, other.previous, other.targets, self.gateway,
            self.previous_gateway, self.watched, other.base, self.clusters, self.listening, self.asks,
        )  # fmt: skip

    @property
    def labelled(self) -> Proxy:
        """The proxy with the labels that istiod knows."""
        return self.proxy if self.labels == self.proxy.labels else replace(self.proxy, labels=self.labels)


@dataclass(frozen=True, slots=True)
class Plan:
    """The outcome of one push for one proxy."""

    state: ProxyState
    decision: Decision
    responses: tuple[Response, ...] = ()
