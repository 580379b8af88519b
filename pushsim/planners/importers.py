"""Which scopes a change may concern, found without asking every one."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from pushsim.mesh import ConfigKey
from pushsim.planners.cells import HOST_KINDS
from pushsim.visibility import Scope, ScopeKey

#: The namespace part of `hosts` that stands for all.
_ANY = "*"


class _Held(NamedTuple):
    """What a scope may hold: services of which namespaces, which hosts besides, and which VirtualServices it has."""

    parts: frozenset[Hashable] = frozenset()
    hosts: frozenset[Hashable] = frozenset()
    routes: frozenset[Hashable] = frozenset()


class Importers:
    """Scopes, by what they may hold."""

    def __init__(self) -> None:
        self._held: dict[ScopeKey, _Held] = {}
        # by what is held, who may hold it
        self._of_part, self._of_host, self._of_route = (dict[Hashable, set[ScopeKey]]() for _ in _Held._fields)

    def tell(self, key: ScopeKey, scope: Scope) -> None:
        """That is the scope of this key from now on."""
        hosts = frozenset(host for named in scope.destinations for host in named)
        before, held = self._held.get(key, _Held()), _Held(scope.parts, hosts, scope.route_keys)
        self._held[key] = held
        for members, was, now in zip((self._of_part, self._of_host, self._of_route), before, held, strict=True):
            for each in was - now:
                members[each].discard(key)
            for each in now - was:
                members.setdefault(each, set()).add(key)

    def candidates(self, key: ConfigKey) -> set[ScopeKey]:
        """Scopes that a change of a service, of its endpoints or of a VirtualService may concern."""
        found = self._of_part.get(key.namespace, set()) | self._of_part.get(_ANY, set())
        if key.kind in HOST_KINDS:
            return found | self._of_host.get(key.name, set())
        return found | self._of_route.get(key, set())
