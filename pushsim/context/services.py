"""Services by host and by who sees them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from copy import copy
from functools import cached_property

from pushsim.audience import PRIVATE, PUBLIC, audience
from pushsim.memo import Memo, same
from pushsim.mesh import Service
from pushsim.releases import Rules


class ServiceIndex:
    """All services of a PushContext.

    ordered: by age, as istiod reads them.
    by_host, by_namespace: in that order.
    exact:   by host, then namespace, the one that istiod finds under both.
    node_local: whether some show each proxy what is on its node alone; distributed: or what is near it first.
    common:  hosts that every namespace sees alike: one service, exported to all.

    Args:
        services: of all registries.
        default: mesh-wide defaultServiceExportTo.
        rules: the release.
        before: the index before: what was made of services that are still the same is kept.
    """

    def __init__(
        self, services: Iterable[Service], default: frozenset[str], rules: Rules, before: ServiceIndex | None = None
    ) -> None:
        self._default, self._rules = default, rules
        self._given = tuple(services)
        by_age = _by_age_then_fqdn if rules.default_scope == "legacy" else _by_age
        self.ordered: tuple[Service, ...] = tuple(sorted(self._given, key=by_age))
        self.by_host: dict[str, list[Service]] = defaultdict(list)
        self.by_namespace: dict[str, list[Service]] = defaultdict(list)
        self.exact: dict[str, dict[str, Service]] = defaultdict(dict)
        self.node_local = rules.node_local != "never" and any(service.node_local for service in self.ordered)
        self.distributed = any(service.distribution for service in self.ordered)
        self._shown_to: dict[int, frozenset[str]] = {}  # by id; `ordered` keeps them
        shown = before._shown_to if before and before._default == default else {}
        for service in self.ordered:
            host, namespace = service.hostname, service.namespace
            self.by_host[host].append(service)
            self.by_namespace[namespace].append(service)
            self._shown_to[id(service)] = shown.get(id(service)) or audience(
                service.export_to, default, namespace, default_list=rules.default_export_list
            )
            if self._replaces(service, self.exact[host].get(namespace)):
                self.exact[host][namespace] = service
        known = before._memos if before else {}
        self._memos: dict[int, Memo] = {id(s): known.get(id(s)) or Memo() for s in self.ordered}
        self.common: dict[str, Service] = {
            host: found[0]
            for host, found in self.by_host.items()
            if len(found) == 1 and PUBLIC in self._shown_to[id(found[0])]
        }

    def renewed(self, services: Iterable[Service], default: frozenset[str]) -> ServiceIndex:
        """The index of these services; where they are the same objects, it shares all with this one."""
        given = tuple(services)
        unchanged = default == self._default and same(given, self._given)
        return copy(self) if unchanged else ServiceIndex(given, default, self._rules, self)

    @cached_property
    def listing_instances(self) -> frozenset[str]:
        """Namespaces of services whose clusters or listeners list their endpoints: all that are not found by EDS."""
        return frozenset(service.namespace for service in self.ordered if service.resolution != "EDS")

    @cached_property
    def http_ports(self) -> frozenset[int]:
        """Ports that any service speaks HTTP on, or may."""
        return frozenset(p.number for service in self.ordered for p in service.ports if p.http or p.auto)

    def _replaces(self, service: Service, known: Service | None) -> bool:
        if known is None or self._rules.index_duplicate == "last":
            return True
        return known.registry != "Kubernetes" and service.registry == "Kubernetes"

    def memo_of(self, service: Service) -> Memo | None:
        """What is made of a service, by whoever makes it; None for one that is not in the index."""
        return self._memos.get(id(service))

    def visible(self, service: Service, namespace: str) -> bool:
        """istiod's IsServiceVisible, which knows no `~` (§4.3)."""
        own = service.export_to
        if not own:
            default = self._default
            if not self._rules.default_export_list:
                return service.namespace == namespace if PRIVATE in default else PUBLIC in default
            own = default
        return PUBLIC in own or (PRIVATE in own and service.namespace == namespace) or namespace in own

    def named(self, host: str, namespaces: Iterable[str], namespace: str) -> list[Service]:
        """Services that the index keeps under a host and some namespaces, as far as a namespace sees them; by age."""
        known = self.exact.get(host, {})
        found = [s for part in namespaces if (s := known.get(part)) is not None and self.visible(s, namespace)]
        return sorted(found, key=_by_age)

    def candidates(self, host: str, namespace: str) -> list[Service]:
        """Services of a host that a namespace sees: its private ones, those exported to it, the public ones."""
        found, shown = self.by_host.get(host, []), self._shown_to
        if len(found) == 1:
            return found if shown[id(found[0])] & {PUBLIC, namespace} else []
        own = [s for s in found if PUBLIC not in shown[id(s)] and namespace in shown[id(s)]]
        if not self._rules.default_export_list:
            own.sort(key=lambda s: s.namespace != namespace)
        return own + [s for s in found if PUBLIC in shown[id(s)]]


def _by_age(service: Service) -> tuple[str, ...]:
    return (service.created, service.name, service.namespace)


def _by_age_then_fqdn(service: Service) -> tuple[str, ...]:
    return (service.created, f"{service.name}.{service.namespace}")
