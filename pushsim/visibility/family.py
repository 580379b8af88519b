"""What the scopes of one PushContext share: hosts that look the same from everywhere."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property
from itertools import chain
from typing import TypeVar

from pushsim.context import PushContext
from pushsim.hosts import is_wildcard, resolve, subset_of
from pushsim.memo import Memo, same
from pushsim.mesh import Object, Service

_T = TypeVar("_T")

#: The namespace part of `hosts` that stands for all.
ANY = "*"


class Family:
    """The scopes of one PushContext, as far as they are alike.

    memo: what is made of that, by whoever makes it.
    of_blocks: what is made of several blocks of services alone, with their rules, accounts and, as far as they list
               them, instances: also in later families, as long as none of those is made anew. Of one block: `memo_of`.

    Args:
        context: of the push.
        before: the family before.
    """

    def __init__(self, context: PushContext, before: Family | None = None) -> None:
        self.context = context
        self.memo, self.of_blocks = Memo(), Memo()
        self._memos: dict[int, Memo] = {}  # by the id of a block, which `_blocks` keeps alive
        self._parts_of: Memo = Memo() if before is None else before._parts_of
        if before is None:
            return
        changed = self._changed(before)
        if self.alike(before):
            kept = ("neutral", "particular", "_blocks")
            self.__dict__.update({name: before.__dict__[name] for name in kept if name in before.__dict__})
            if not changed:
                self.of_blocks, self._memos = before.of_blocks, before._memos
                return
        elif "_blocks" in before.__dict__:
            for part, block in before._blocks.items():
                if same(self._blocks.get(part, ()), block):
                    self._blocks[part] = block
        if "_blocks" in self.__dict__ and context.rule_index is before.context.rule_index:
            self._take_over(before, changed)

    def _changed(self, before: Family) -> set[str]:
        """Namespaces whose services have other accounts, or other instances if anything is made of these."""
        new, old = self.context, before.context
        instances = new.instances.changed(old.instances)
        if not new.rules.accounts_by_port:
            instances &= new.services.listing_instances
        return instances | new.accounts.changed(old.accounts)

    def _take_over(self, before: Family, changed: Collection[str]) -> None:
        """What is made of blocks that are still the same, and so are rules, instances and accounts."""
        for part, block in self._blocks.items():
            memo = before._memos.get(id(block))
            if memo is not None and not (changed if part == ANY else part in changed):
                self._memos[id(block)] = memo

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

    def memo_of(self, block: tuple[Service, ...]) -> Memo:
        """For what is made of a block, alone (see `of_blocks`): kept as long as nothing of that is made anew."""
        return self._memos.setdefault(id(block), Memo())

    def parts(self, block: tuple[Service, ...]) -> tuple[tuple[Service, ...], ...]:
        """The blocks of namespaces that the block of all consists of; none for others."""
        if block is not self._blocks.get(ANY):
            return ()
        return tuple(of for part, of in self._blocks.items() if part != ANY)

    def joined(self, what: str, parts: Sequence[tuple[_T, ...]]) -> tuple[_T, ...]:
        """Parts as one; the same object again, in later families too, if what was joined last were the very same."""
        return self.of_parts(lambda: tuple(chain.from_iterable(parts)), what, parts)

    def of_parts(self, make: Callable[[], _T], what: str, parts: Sequence[object]) -> _T:
        """What was made last of these very parts, in later families, too, else what `make` makes."""
        return self._parts_of.latest(make, what, of=parts)

    def hosts_of_rule(self, written: Object) -> Iterator[str]:
        """Hosts in the mesh that a DestinationRule's host covers."""
        pattern = resolve(str(written.spec.get("host")), written.ref.namespace)
        by_host = self.context.services.by_host
        if is_wildcard(pattern):
            yield from (host for host in by_host if subset_of(host, pattern))
        elif pattern in by_host:
            yield pattern
