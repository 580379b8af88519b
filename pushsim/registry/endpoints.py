"""istiod's EndpointIndex: endpoints by service and shard, and what a changed list asks to be pushed (§1.5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from pushsim.mesh import ConfigKey, Endpoint
from pushsim.releases import Rules
from pushsim.requests import ENDPOINT_UPDATE, PushRequest
from pushsim.shards import ByHost, Host, Shards

PushType = Literal["none", "incremental", "full"]


class EndpointIndex:
    """Endpoints of all services, and the service accounts they run as.

    shards:    by service, then shard; the inner mappings are never changed in place.
    instances: likewise, what InstancesByPort finds: those that are not ready too, in releases whose shards lack them;
               else it is the same object.
    accounts:  SPIFFE identities by service.

    Args:
        rules: the release.
        unready_sent: PILOT_SEND_UNHEALTHY_ENDPOINTS is on.
    """

    def __init__(self, rules: Rules, *, unready_sent: bool = False) -> None:
        #: One that was never ready is not stored: so were all that are not ready left out, before they were kept.
        self._ready_once = unready_sent and not rules.unready_kept
        if unready_sent and rules.endpoint_comparison != "any":
            rules = replace(rules, unready_kept=True, endpoint_comparison="health")
        self._rules = rules
        self.shards: Shards = ByHost()
        self.instances = self.shards if rules.unready_kept else ByHost[Mapping[str, tuple[Endpoint, ...]]]()
        self.accounts: ByHost[frozenset[str]] = ByHost()

    def fork(self) -> EndpointIndex:
        """An independent copy."""
        copy = EndpointIndex(self._rules)
        copy._ready_once = self._ready_once
        copy.shards, copy.accounts = self.shards.copy(), self.accounts.copy()
        copy.instances = copy.shards if self.instances is self.shards else self.instances.copy()
        return copy

    def _found(self, shard: str, host: Host, endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
        """Those of a shard's endpoints that are stored in it; all are instances."""
        if self.instances is self.shards:
            return endpoints
        self.instances.put(host, {**self.instances.get(host, {}), shard: endpoints})
        return tuple(endpoint for endpoint in endpoints if endpoint.healthy or endpoint.draining)

    def recount(self, shard: str, host: Host, endpoints: tuple[Endpoint, ...]) -> None:
        """These are a shard's instances by now, whatever is stored of it."""
        if self.instances is not self.shards:
            self._found(shard, host, endpoints)

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
        if self._ready_once:
            known = {endpoint.address for endpoint in old or ()}
            endpoints = tuple(e for e in endpoints if e.healthy or e.address in known)
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

        def key(of: Endpoint) -> tuple[str, ...]:
            return (of.address, of.workload, of.port_name) if by_port else (of.address,)

        before = {key(e): e for e in old}
        for endpoint in new:  # of several with one key, each is compared with the last of those before
            known = before.get(key(endpoint))
            if known is None:
                shown = endpoint.healthy or endpoint.terminating or endpoint.draining or endpoint.sent_unhealthy
                if shown and rule != "health-removed":
                    return True
            elif known != endpoint if by_port else _health(known) != _health(endpoint):
                return True
        return not before.keys() <= set(map(key, new))

    def request(self, host: Host, pushed: PushType) -> list[PushRequest]:
        """What to ask for after an update of that type."""
        if pushed == "none":
            return []
        kind = "ServiceEntry" if pushed == "full" else self._rules.endpoint_kind
        keys = frozenset({ConfigKey(kind, *host)})
        return [PushRequest(keys, pushed == "full", reasons=frozenset({ENDPOINT_UPDATE}))]


def _health(endpoint: Endpoint) -> tuple[bool, ...]:
    """Its HealthStatus: a WorkloadEntry's says nothing, a slice's that it is healthy, draining or neither."""
    return endpoint.healthy, endpoint.draining, endpoint.probed
