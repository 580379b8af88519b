"""Which scopes a change may concern, found without asking every one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pushsim.mesh import ConfigKey
from pushsim.planners.cells import HOST_KINDS
from pushsim.visibility import Scope, ScopeKey

#: The namespace part of `hosts` that stands for all.
_ANY = "*"


@dataclass(frozen=True, slots=True)
class _Held:
    """What a scope may hold: services of which namespaces, which hosts besides, and which VirtualServices it has."""

    parts: frozenset[str]
    hosts: frozenset[str]
    routes: frozenset[ConfigKey]


class Importers:
    """Scopes, by what they may hold."""

    def __init__(self) -> None:
        self._held: dict[ScopeKey, _Held] = {}
        self._of_part: dict[str, set[ScopeKey]] = {}
        self._of_host: dict[str, set[ScopeKey]] = {}
        self._of_route: dict[ConfigKey, set[ScopeKey]] = {}

    def tell(self, key: ScopeKey, scope: Scope) -> None:
        """That is the scope of this key from now on."""
        if key in self._held:
            for members in self._members(self._held[key]):
                members.discard(key)
        hosts = frozenset(host for named in scope.destinations for host in named)
        held = self._held[key] = _Held(scope.parts, hosts, scope.route_keys)
        for members in self._members(held):
            members.add(key)

    def _members(self, held: _Held) -> Iterator[set[ScopeKey]]:
        """Of all that is held, who may hold it."""
        yield from (self._of_part.setdefault(part, set()) for part in held.parts)
        yield from (self._of_host.setdefault(host, set()) for host in held.hosts)
        yield from (self._of_route.setdefault(route, set()) for route in held.routes)

    def candidates(self, key: ConfigKey) -> set[ScopeKey]:
        """Scopes that a change of a service, of its endpoints or of a VirtualService may concern."""
        found = self._of_part.get(key.namespace, set()) | self._of_part.get(_ANY, set())
        if key.kind in HOST_KINDS:
            return found | self._of_host.get(key.name, set())
        return found | self._of_route.get(key, set())
