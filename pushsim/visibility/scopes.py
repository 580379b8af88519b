"""Which scope a proxy has (reference §3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from pushsim.context import PushContext
from pushsim.conversion import pairs, selects
from pushsim.mesh import Object, Proxy
from pushsim.visibility.family import Family
from pushsim.visibility.scope import Scope

#: What tells scopes apart: the namespace of their proxies, the Sidecar (None: the default scope), and whether it is
#: that of gateways where these have another than sidecars.
ScopeKey = tuple[str, Object | None, bool]


class Scopes:
    """The scopes of one PushContext, each computed once.

    Args:
        context: of the push.
        before: the scopes before; a scope takes over from its predecessor what cannot have changed.
    """

    def __init__(self, context: PushContext, before: Scopes | None = None) -> None:
        self.context = context
        self.family: Family = Family(context, before.family if before else None)
        self._scopes: dict[ScopeKey, Scope] = {}
        self._before = before._scopes if before is not None and self.family.alike(before.family) else {}

    def of(self, proxy: Proxy, labels: Mapping[str, str]) -> Scope:
        """The scope of a proxy with these workload labels."""
        return self.at(self.key(proxy, labels))

    def key(self, proxy: Proxy, labels: Mapping[str, str]) -> ScopeKey:
        """Which of the scopes that is."""
        namespace = proxy.namespace
        if proxy.type != "sidecar":
            return namespace, None, self.context.rules.gateway_scope
        for sidecar in self.context.sidecars.get(namespace, ()):
            selector = sidecar.spec.get("workloadSelector")
            if selector is None or selects(pairs(selector.get("labels")), labels):
                return namespace, sidecar, False
        return namespace, self._root_sidecar, False

    @cached_property
    def _root_sidecar(self) -> Object | None:
        """The oldest Sidecar without selector of the root namespace: that of all namespaces without their own."""
        sidecars = self.context.sidecars.get(self.context.root, ())
        return next((s for s in sidecars if "workloadSelector" not in s.spec), None)

    def at(self, key: ScopeKey) -> Scope:
        """The scope of that key."""
        if key not in self._scopes:
            self._scopes[key] = Scope(self.family, *key, before=self._before.get(key))
        return self._scopes[key]
