"""istiod's EndpointIndex: endpoints by service and shard, and what a changed list asks to be pushed (§1.5)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from pushsim.mesh import ConfigKey, Endpoint
from pushsim.releases import Rules
from pushsim.requests import ENDPOINT_UPDATE, PushRequest

Host = tuple[str, str]  # host name, namespace
#: Endpoints by service, then shard (`Kubernetes` or `External`).
Shards = Mapping[Host, Mapping[str, tuple[Endpoint, ...]]]
PushType = Literal["none", "incremental", "full"]


class EndpointIndex:
    """Endpoints of all services, and the service accounts they run as.

    shards:   by service, then shard; the inner mappings are never changed in place.
    accounts: SPIFFE identities by service.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.shards: dict[Host, Mapping[str, tuple[Endpoint, ...]]] = {}
        self.accounts: dict[Host, frozenset[str]] = {}

    def fork(self) -> EndpointIndex:
        """An independent copy."""
        copy = EndpointIndex(self._rules)
        copy.shards, copy.accounts = dict(self.shards), dict(self.accounts)
        return copy

    def update(self, shard: str, host: Host, endpoints: tuple[Endpoint, ...]) -> PushType:
        """istiod's UpdateServiceEndpoints: store a shard's list, say which push it needs."""
        if not endpoints:
            self.drop(shard, host, keep_key=True)
            return "incremental"
        shards = self.shards.get(host)
        old = (shards or {}).get(shard)
        self.shards[host] = {**(shards or {}), shard: endpoints}
        accounts = _accounts(self.shards[host].values())
        changed = accounts != self.accounts.get(host, frozenset())
        self.accounts[host] = accounts
        if shards is None or changed:
            return "full"
        return "incremental" if self._pushes(old, endpoints) else "none"

    def drop(self, shard: str, host: Host, *, keep_key: bool) -> None:
        """istiod's DeleteServiceShard: a service without any shard is forgotten unless its key is kept."""
        shards = self.shards.get(host)
        if shards is None:
            return
        left = {key: value for key, value in shards.items() if key != shard}
        if left or keep_key:
            self.shards[host] = left
            if self._rules.accounts_forgotten:
                self.accounts[host] = _accounts(left.values())
        else:
            del self.shards[host]
            self.accounts.pop(host, None)

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
            elif known != endpoint if by_port else known.healthy != endpoint.healthy:
                return True
        return not before.keys() <= after.keys()

    def request(self, host: Host, pushed: PushType) -> list[PushRequest]:
        """What to ask for after an update of that type."""
        if pushed == "none":
            return []
        kind = "ServiceEntry" if pushed == "full" else self._rules.endpoint_kind
        keys = frozenset({ConfigKey(kind, *host)})
        return [PushRequest(keys, pushed == "full", reasons=frozenset({ENDPOINT_UPDATE}))]


def _accounts(lists: Iterable[tuple[Endpoint, ...]]) -> frozenset[str]:
    return frozenset(endpoint.account for endpoints in lists for endpoint in endpoints if endpoint.account)
