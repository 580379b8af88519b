"""istiod's EndpointIndex: endpoints by service and shard, and what a changed list asks to be pushed (§1.5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal, TypeVar, overload

from pushsim.mesh import ConfigKey, Endpoint
from pushsim.releases import Rules
from pushsim.requests import ENDPOINT_UPDATE, PushRequest

Host = tuple[str, str]  # host name, namespace
PushType = Literal["none", "incremental", "full"]

_T = TypeVar("_T")
_Default = TypeVar("_Default")


class ByHost(Mapping[Host, _T]):
    """Something by host. What a namespace has is one object as long as it stays as it is, in copies, too."""

    __slots__ = ("_of", "_sums")

    def __init__(self, of: ByHost[_T] | None = None) -> None:
        self._of: dict[str, Mapping[str, _T]] = dict(of._of) if of else {}
        # by amount and namespace: true of whoever has that object
        self._sums: dict[tuple[Callable[[_T], int], str], tuple[Mapping[str, _T], int]] = of._sums if of else {}

    def copy(self) -> ByHost[_T]:
        """An independent copy."""
        return ByHost(self)

    def of(self, namespace: str) -> Mapping[str, _T] | None:
        """What there is in a namespace, by host name."""
        return self._of.get(namespace)

    def sum(self, amount: Callable[[_T], int]) -> int:
        """The sum of an amount over what there is of every host; it is remembered by function."""
        found = 0
        for namespace, of in self._of.items():
            known = self._sums.get((amount, namespace))
            if known is None or known[0] is not of:
                known = self._sums[amount, namespace] = of, sum(map(amount, of.values()))
            found += known[1]
        return found

    def put(self, host: Host, value: _T) -> None:
        """That is what there is of a host from now on."""
        name, namespace = host
        self._of[namespace] = {**self._of.get(namespace, {}), name: value}

    def drop(self, host: Host) -> None:
        """There is nothing of a host any more."""
        name, namespace = host
        left = {other: value for other, value in self._of.get(namespace, {}).items() if other != name}
        if left:
            self._of[namespace] = left
        else:
            self._of.pop(namespace, None)

    def changed(self, before: ByHost[_T]) -> set[str]:
        """Namespaces that have something else than before."""
        if self is before:
            return set()
        return {of for of in self._of.keys() | before._of.keys() if self._of.get(of) is not before._of.get(of)}

    def __getitem__(self, host: Host) -> _T:
        return self._of[host[1]][host[0]]

    @overload
    def get(self, host: Host, /) -> _T | None: ...

    @overload
    def get(self, host: Host, /, default: _T | _Default) -> _T | _Default: ...

    def get(self, host: Host, /, default: Any = None) -> Any:
        """What there is of a host."""
        of = self._of.get(host[1])
        return default if of is None else of.get(host[0], default)

    def __iter__(self) -> Iterator[Host]:
        return ((name, namespace) for namespace, of in self._of.items() for name in of)

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))


#: Endpoints by service, then shard (`Kubernetes` or `External`).
Shards = ByHost[Mapping[str, tuple[Endpoint, ...]]]


class EndpointIndex:
    """Endpoints of all services, and the service accounts they run as.

    shards:    by service, then shard; the inner mappings are never changed in place.
    instances: likewise, what InstancesByPort finds: those that are not ready too, in releases whose shards lack them;
               else it is the same object.
    accounts:  SPIFFE identities by service.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.shards: Shards = ByHost()
        self.instances = self.shards if rules.unready_kept else ByHost[Mapping[str, tuple[Endpoint, ...]]]()
        self.accounts: ByHost[frozenset[str]] = ByHost()

    def fork(self) -> EndpointIndex:
        """An independent copy."""
        copy = EndpointIndex(self._rules)
        copy.shards, copy.accounts = self.shards.copy(), self.accounts.copy()
        copy.instances = copy.shards if self.instances is self.shards else self.instances.copy()
        return copy

    def _found(self, shard: str, host: Host, endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
        """Those of a shard's endpoints that are stored in it; all are instances."""
        if self.instances is self.shards:
            return endpoints
        self.instances.put(host, {**self.instances.get(host, {}), shard: endpoints})
        return tuple(endpoint for endpoint in endpoints if endpoint.healthy)

    def cache(self, shard: str, host: Host, endpoints: tuple[Endpoint, ...]) -> None:
        """istiod's EDSCacheUpdate for an event of a Service or Pod: store a shard's list unless it is empty."""
        if self._found(shard, host, endpoints):
            self.update(shard, host, endpoints)

    def update(self, shard: str, host: Host, endpoints: tuple[Endpoint, ...]) -> PushType:
        """istiod's UpdateServiceEndpoints: store a shard's list, say which push it needs."""
        endpoints = self._found(shard, host, endpoints)
        if not endpoints:
            self.drop(shard, host, keep_key=True)
            return "incremental"
        shards = self.shards.get(host)
        old = (shards or {}).get(shard)
        new = {**(shards or {}), shard: endpoints}
        self.shards.put(host, new)
        changed = self._count_accounts(host, new)
        if shards is None or changed:
            return "full"
        return "incremental" if self._pushes(old, endpoints) else "none"

    def drop(self, shard: str, host: Host, *, keep_key: bool) -> None:
        """istiod's DeleteServiceShard: a service without any shard is forgotten unless its key is kept."""
        if not keep_key:
            self._found(shard, host, ())
        shards = self.shards.get(host)
        if shards is None:
            return
        left = {key: value for key, value in shards.items() if key != shard}
        if left or keep_key:
            self.shards.put(host, left)
            if self._rules.accounts_forgotten:
                self._count_accounts(host, left)
        else:
            self.shards.drop(host)
            self.accounts.drop(host)

    def _count_accounts(self, host: Host, shards: Mapping[str, tuple[Endpoint, ...]]) -> bool:
        """Whether a service runs as others now."""
        accounts = frozenset(e.account for endpoints in shards.values() for e in endpoints if e.account)
        known = self.accounts.get(host)
        if known != accounts:
            self.accounts.put(host, accounts)
        return accounts != (known or frozenset())

    def _pushes(self, old: tuple[Endpoint, ...] | None, new: tuple[Endpoint, ...]) -> bool:
        rule = self._rules.endpoint_comparison
        if old is None or rule == "never":
            return True
        by_port = rule == "any"
        before = {(e.address, e.port_name if by_port else ""): e for e in old}
        after = {(e.address, e.port_name if by_port else ""): e for e in new}
        for key, endpoint in after.items():
            known = before.get(key)
            if known is None:
                shown = endpoint.healthy or endpoint.terminating or endpoint.sent_unhealthy
                if shown and rule != "health-removed":
                    return True
            elif self._differ(known, endpoint) if by_port else known.healthy != endpoint.healthy:
                return True
        return not before.keys() <= after.keys()

    def _differ(self, known: Endpoint, endpoint: Endpoint) -> bool:
        return known != endpoint if self._rules.endpoint_node else replace(known, node=endpoint.node) != endpoint

    def request(self, host: Host, pushed: PushType) -> list[PushRequest]:
        """What to ask for after an update of that type."""
        if pushed == "none":
            return []
        kind = "ServiceEntry" if pushed == "full" else self._rules.endpoint_kind
        keys = frozenset({ConfigKey(kind, *host)})
        return [PushRequest(keys, pushed == "full", reasons=frozenset({ENDPOINT_UPDATE}))]
