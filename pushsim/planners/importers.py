"""Which namespaces' sidecars may be concerned by a change of a service, found without asking every scope."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pushsim.mesh import ConfigKey
from pushsim.visibility import Scope, Scopes

#: The namespace part of `hosts` that stands for all.
_ANY = "*"


class Importers:
    """Some scopes, by what they may hold services of.

    Args:
        scopes: all of one push, or some that proxies still have.
    """

    def __init__(self, scopes: Iterable[Scope]) -> None:
        self._of_part: dict[str, list[Scope]] = {}
        self._of_host: dict[str, list[Scope]] = {}
        for scope in scopes:
            for part in scope.parts:
                self._of_part.setdefault(part, []).append(scope)
            for host in {host for named in scope.destinations for host in named}:
                self._of_host.setdefault(host, []).append(scope)

    @classmethod
    def of_push(cls, scopes: Scopes, namespaces: Iterable[str]) -> Importers:
        """All scopes of a push that sidecars of these namespaces may have."""
        return cls(scope for namespace in namespaces for scope in scopes.possible(namespace))

    def concerned(self, key: ConfigKey) -> Iterator[str]:
        """Namespaces whose sidecars a change of a service or its endpoints concerns."""
        found = (*self._of_part.get(key.namespace, ()), *self._of_part.get(_ANY, ()), *self._of_host.get(key.name, ()))
        return (scope.namespace for scope in dict.fromkeys(found) if scope.depends_on(key))
