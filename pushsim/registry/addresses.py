"""Which WorkloadEntry has a proxy's address, in whatever namespace it is, and whom that concerns."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from pushsim.mesh import Change, Object, Proxy, Ref
from pushsim.registry.store import Store
from pushsim.registry.workloads import is_named

_Entries = Mapping[str, list[Object]]


class Addresses:
    """The WorkloadEntries of a registry by address, and the proxies whose addresses have been asked for.

    Source: pilot/pkg/serviceregistry/util/workloadinstances/util.go (GetInstanceForProxy).
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._entries: dict[str, _Entries] = {}  # by namespace and address, as they are looked up
        self._asked: dict[str, frozenset[Proxy]] = {}  # by address
        self._visitors: dict[str, frozenset[str]] = {}  # by namespace of an entry, namespaces of proxies elsewhere

    def fork(self, store: Store) -> Addresses:
        """An independent copy, of a copy of the store."""
        other = Addresses(store)
        other._entries, other._asked, other._visitors = dict(self._entries), dict(self._asked), dict(self._visitors)
        return other

    def entry_at(self, proxy: Proxy) -> Object | None:
        """The WorkloadEntry that has a proxy's address.

        Of several that of its name and namespace, else the first of its namespace, else the first of all, by name.
        """
        found = [entry for namespace in self._namespaces() for entry in self._in(namespace).get(proxy.ip, ())]
        if not found:
            return None
        own = [entry for entry in found if entry.ref.namespace == proxy.namespace]
        if own:
            return next((entry for entry in own if entry.ref.name == proxy.name), own[0])
        namespace = found[0].ref.namespace
        self._visitors[namespace] = self.visitors(namespace) | {proxy.namespace}
        return found[0]

    def asked(self, proxy: Proxy) -> None:
        """Somebody asks for this proxy."""
        self._asked[proxy.ip] = self._asked.get(proxy.ip, frozenset()) | {proxy}

    def visitors(self, namespace: str) -> frozenset[str]:
        """Namespaces of proxies that have been found to have an entry of this one."""
        return self._visitors.get(namespace, frozenset())

    def proxies_at(self, change: Change) -> set[Proxy]:
        """Proxies at the addresses that entries have before or after a change that is to come."""
        written = [self._store.get(ref) for ref in (*change.delete, *(o.ref for o in change.apply))]
        return self._at(entry for entry in (*written, *change.apply) if entry is not None)

    def look_up_again(self, ref: Ref) -> Collection[str]:
        """An object was written or deleted: other namespaces whose proxies that may concern."""
        found = self.visitors(ref.namespace)
        if ref.kind != "WorkloadEntry":
            return found
        before = self._entries.pop(ref.namespace, {})
        known = [entry for entries in before.values() for entry in entries if entry.ref == ref]
        now = self._store.get(ref)
        proxies = self._at(iter(known if now is None else [*known, now]))
        return found | {proxy.namespace for proxy in proxies}

    def _at(self, entries: Iterator[Object]) -> set[Proxy]:
        addresses = (str(e.spec.get("address") or "") for e in entries if e.ref.kind == "WorkloadEntry")
        return {proxy for address in addresses for proxy in self._asked.get(address, ())}

    def _namespaces(self) -> list[str]:
        return sorted(self._store.namespaces("WorkloadEntry"))

    def _in(self, namespace: str) -> _Entries:
        known = self._entries.get(namespace)
        if known is None:
            made: dict[str, list[Object]] = {}
            placed = self._store.placed("WorkloadEntry", namespace)
            for ref in sorted(placed):
                if not is_named(placed[ref]):
                    made.setdefault(str(placed[ref].spec.get("address") or ""), []).append(placed[ref])
            known = self._entries[namespace] = made
        return known
