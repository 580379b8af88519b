"""What the scopes of one PushContext share: hosts that look the same from everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from pushsim.context import PushContext
from pushsim.hosts import is_wildcard, resolve, subset_of
from pushsim.memo import Memo
from pushsim.mesh import Object, Service

#: The namespace part of `hosts` that stands for all.
ANY = "*"


class Family:
    """The scopes of one PushContext, as far as they are alike.

    memo: what is made of that, by whoever makes it.
    of_blocks: what is made of blocks of services alone, with their rules and instances: also in later families, as
               long as none of those is made anew.

    Args:
        context: of the push.
        before: the family before.
    """

    def __init__(self, context: PushContext, before: Family | None = None) -> None:
        self.context = context
        self.memo, self.of_blocks = Memo(), Memo()
        if before is not None and self.alike(before):
            kept = ("neutral", "particular", "_blocks")
            self.__dict__.update({name: before.__dict__[name] for name in kept if name in before.__dict__})
            old = before.context
            if context.instances is old.instances and context.accounts is old.accounts:
                self.of_blocks = before.of_blocks

    def alike(self, before: Family) -> bool:
        """Whether services and rules are those of another family."""
        new, old = self.context, before.context
        return new.services.ordered is old.services.ordered and new.rule_index is old.rule_index

    @cached_property
    def neutral(self) -> dict[str, Service]:
        """Hosts that look the same from everywhere: one service, shown to all, no rule that tells namespaces apart."""
        common = self.context.services.common
        touched = self.context.rule_index.telling_apart(common)
        return {host: service for host, service in common.items() if host not in touched} if touched else common

    @cached_property
    def particular(self) -> tuple[str, ...]:
        """The other hosts, in istiod's order."""
        hosts = dict.fromkeys(service.hostname for service in self.context.services.ordered)
        return tuple(host for host in hosts if host not in self.neutral)

    @cached_property
    def _blocks(self) -> dict[str, tuple[Service, ...]]:
        by_namespace: dict[str, list[Service]] = {ANY: list(self.neutral.values())}
        for service in self.neutral.values():
            by_namespace.setdefault(service.namespace, []).append(service)
        return {part: tuple(services) for part, services in by_namespace.items()}

    def block(self, namespace: str) -> tuple[Service, ...]:
        """The neutral services of a namespace (`*`: of all), one object for all who ask."""
        return self._blocks.get(namespace, ())

    def hosts_of_rule(self, written: Object) -> Iterator[str]:
        """Hosts in the mesh that a DestinationRule's host covers."""
        pattern = resolve(str(written.spec.get("host")), written.ref.namespace)
        by_host = self.context.services.by_host
        if is_wildcard(pattern):
            yield from (host for host in by_host if subset_of(host, pattern))
        elif pattern in by_host:
            yield pattern
