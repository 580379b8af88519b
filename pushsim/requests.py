"""PushRequest: what istiod's handlers ask to be pushed, and how requests merge."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

from pushsim.mesh import ConfigKey
from pushsim.releases import Rules
from pushsim.shards import Shards

#: Trigger reasons that decide something (istiod has more; they only count in metrics).
SERVICE_UPDATE = "service"
ENDPOINT_UPDATE = "endpoint"
HEADLESS_ENDPOINT_UPDATE = "headlessendpoint"
CONFIG_UPDATE = "config"
PROXY_UPDATE = "proxy"
GLOBAL_UPDATE = "global"
SECRET_TRIGGER = "secret"


@dataclass(frozen=True)
class PushRequest:
    """istiod's PushRequest, as far as it decides who gets what.

    keys:    what changed; empty means "everything" until 1.25 (`Rules.empty_is_all`).
    full:    not endpoint-only (meaningless from 1.31 on).
    forced:  everything for everybody (1.26+).
    reasons: the trigger reasons merged into it.
    proxy:   IP of the only proxy it is for ("" for all): a ProxyUpdate, which bypasses the debounce.
    endpoints: of a ProxyUpdate: the endpoints of all services when it was asked for.
    early:   of a ProxyUpdate: it is handled before the proxy's services are known to have changed.
    """

    keys: frozenset[ConfigKey] = frozenset()
    full: bool = True
    forced: bool = False
    reasons: frozenset[str] = frozenset()
    proxy: str = ""
    endpoints: Shards | None = field(default=None, compare=False, repr=False)
    early: bool = False

    @cached_property
    def kinds(self) -> frozenset[str]:
        """The kinds of its keys."""
        return frozenset(key.kind for key in self.keys)

    @cached_property
    def namespaces(self) -> frozenset[str]:
        """Those of its keys."""
        return frozenset(key.namespace for key in self.keys)

    @cached_property
    def service_namespaces(self) -> frozenset[str]:
        """Those of its keys that name services."""
        return frozenset(key.namespace for key in self.keys if key.kind == "ServiceEntry")

    def merge(self, later: PushRequest, rules: Rules) -> PushRequest:
        """Both requests as one: istiod's Merge and CopyMerge (reference §1.2)."""
        keys = self.keys | later.keys
        if rules.empty_is_all and not (self.keys and later.keys):
            keys = frozenset()
        return PushRequest(
            keys, self.full or later.full, self.forced or later.forced, self.reasons | later.reasons, self.proxy
        )

    def narrowed(self, keys: frozenset[ConfigKey]) -> PushRequest:
        """The same request about these keys only."""
        return self if keys == self.keys else replace(self, keys=keys)

    def everything(self, rules: Rules) -> bool:
        """Whether it stands for a change of everything."""
        return self.forced or (rules.empty_is_all and not self.keys)

    def endpoints_only(self, rules: Rules) -> bool:
        """Whether it changes endpoints alone: proxy state is not recomputed for it."""
        if rules.has_full:
            return not self.full
        return self.kinds == {"Endpoints"}


def proxy_update(address: str, endpoints: Shards, *, early: bool = False) -> PushRequest:
    """istiod's ProxyUpdate, for the proxy of an address; endpoints as they are now."""
    return PushRequest(
        forced=True, reasons=frozenset({PROXY_UPDATE}), proxy=address, endpoints=endpoints.copy(), early=early
    )


def headless_requests(service: ConfigKey, rules: Rules, *, http: bool) -> list[PushRequest]:
    """What endpoints of a headless service ask for beside themselves; http: all its ports are HTTP (reference §1.6)."""
    reason = frozenset({HEADLESS_ENDPOINT_UPDATE if rules.headless_reason else ENDPOINT_UPDATE})
    if rules.headless_second_request == "dnsname":
        return [PushRequest(frozenset({service._replace(kind="DNSName") if http else service}), reasons=reason)]
    if not rules.pod_listeners and not rules.headless_reason:
        return []
    return [PushRequest(frozenset({service}), rules.pod_listeners, reasons=reason)]
