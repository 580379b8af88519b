"""Lengths that differ between namespaces: where a service has a shorter name, it has one domain more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from pushsim.mesh import Service
from pushsim.sizes.domains import homes_of


class Seen(NamedTuple):
    """A length, of what is seen from elsewhere; and by namespace, what more it is at home."""

    elsewhere: int
    own: Mapping[str, int]

    def of(self, namespace: str) -> int:
        """That, as a namespace sees it."""
        return self.elsewhere + self.own.get(namespace, 0)

    @classmethod
    def at_homes(cls, service: Service, measure: Callable[[str], int]) -> Seen:
        """What `measure` tells, as namespaces see a service that have a shorter name for it."""
        elsewhere = measure("")
        return cls(elsewhere, {home: measure(home) - elsewhere for home in homes_of(service)})


class Sum:
    """What virtual hosts come to."""

    def __init__(self) -> None:
        self.elsewhere, self.own = 0, dict[str, int]()

    @property
    def seen(self) -> Seen:
        """That."""
        return Seen(self.elsewhere, self.own)

    def add(self, elsewhere: int, own: Mapping[str, int] = MappingProxyType({}), times: int = 1) -> None:
        """Add one so many times, with what more it is in some namespaces."""
        self.elsewhere += times * elsewhere
        for namespace, more in own.items():
            self.own[namespace] = self.own.get(namespace, 0) + times * more
