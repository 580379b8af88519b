"""ServiceEntries, and the Pods and WorkloadEntries they select: istiod's serviceentry controller (§1.7)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pushsim.conversion import service_entry_services, workload_endpoints
from pushsim.mesh import ConfigKey, Endpoint, Object, Ref, Service
from pushsim.registry.endpoints import EndpointIndex, PushType
from pushsim.registry.nested import Nested
from pushsim.registry.store import Store
from pushsim.registry.workloads import (
    DNS,
    entry_workload,
    pod_workload,
    selected_by,
    selected_entries,
    serving_ip,
    workload_labels,
)
from pushsim.releases import Rules
from pushsim.requests import ENDPOINT_UPDATE, SERVICE_UPDATE, PushRequest, proxy_update
from pushsim.shards import Host

#: The shard of its endpoints.
SHARD = "External"

#: A host name, the namespace or "" for all, and a port.
_HostPort = tuple[str, str, int]


class EntryRegistry:
    """The services of ServiceEntries.

    services: one per host, by ServiceEntry.
    emptied:  hosts that have no endpoints any more, though those that they had are still stored.

    Args:
        store, endpoints: shared with the other registries.
        env: istiod's environment: PILOT_ENABLE_IP_AUTOALLOCATE.
    """

    def __init__(
        self, store: Store, endpoints: EndpointIndex, rules: Rules, trust_domain: str, env: Mapping[str, str]
    ) -> None:
        self._store, self._endpoints, self._rules, self._trust_domain = store, endpoints, rules, trust_domain
        self._env = env
        autoallocate = env.get("PILOT_ENABLE_IP_AUTOALLOCATE")
        self._autoallocate = rules.autoallocate_default if autoallocate is None else autoallocate.lower() == "true"
        self.services: dict[Ref, tuple[Service, ...]] = {}
        self.emptied: set[Host] = set()
        self._pods: Nested[str, Ref, Object] = Nested()  # that are ready, as far as istiod knows, by namespace
        self._left: Nested[Ref, Ref, Object] = Nested()  # pods that a ServiceEntry keeps, as it selected them
        self._endpointed: set[_HostPort] = set()
        self._left_out: set[tuple[Ref, str]] = set()  # hosts without endpoints, since others had some

    def fork(self, store: Store, endpoints: EndpointIndex) -> EntryRegistry:
        """An independent copy on copies of what it shares."""
        copy = EntryRegistry(store, endpoints, self._rules, self._trust_domain, self._env)
        copy.services = dict(self.services)
        copy._endpointed, copy._left_out = set(self._endpointed), set(self._left_out)
        copy.emptied, copy._pods, copy._left = set(self.emptied), self._pods.fork(), self._left.fork()
        return copy

    def in_namespace(self, namespace: str) -> Iterator[tuple[Ref, Service]]:
        """The services of a namespace, with the ServiceEntry each is of."""
        for ref in self._store.placed("ServiceEntry", namespace):
            for service in self.services.get(ref, ()):
                yield ref, service

    # ---- ServiceEntries

    def entry_written(self, before: Object | None, written: Object) -> list[PushRequest]:
        """A ServiceEntry was created or replaced."""
        services = service_entry_services(written)
        old = self.services.get(written.ref, ())
        self.services[written.ref] = services
        self._left.put(written.ref, {})
        self._endpointed_anew(written.ref, old, services)
        if before is None:
            return self._entry_events(written.ref.namespace, services, set(services), ())
        known = {service.hostname: service for service in old}
        always = self._always_full(written)
        retargeted = _target_ports(before) != _target_ports(written)
        updated = {s for s in services if always or retargeted or known.get(s.hostname) != s}
        hosts = {service.hostname for service in services}
        deleted = tuple(s for s in old if s.hostname not in hosts)
        return self._entry_events(written.ref.namespace, services, updated, deleted)

    def _always_full(self, written: Object) -> bool:
        """Addresses allocated in process make every update look like one of the service (§1.7 ★)."""
        rule, spec = self._rules.service_entry_always_full, written.spec
        in_process = rule == "always" or (rule == "without-autoallocate" and not self._autoallocate)
        fixed = spec.get("addresses") or str(spec.get("resolution") or "NONE") == "NONE"
        return in_process and not fixed and not any(str(host).startswith("*") for host in spec.get("hosts") or ())

    def entry_deleted(self, before: Object) -> list[PushRequest]:
        """A ServiceEntry was deleted."""
        old = self.services.pop(before.ref, ())
        self._left.put(before.ref, {})
        self._endpointed_anew(before.ref, old, ())
        return self._entry_events(before.ref.namespace, (), set(), old)

    def _endpointed_anew(self, ref: Ref, old: Iterable[Service], new: Iterable[Service]) -> None:
        """A LOGICAL_DNS cluster has one endpoint: a ServiceEntry's host has none where another's has some.

        Source: pilot/pkg/serviceregistry/serviceentry/store.go (addInstances).
        """
        if self._rules.round_robin_once not in ("mesh", "namespace"):
            return
        self._endpointed -= {known for service in old for known in self._host_ports(service)}
        self._left_out -= {(ref, service.hostname) for service in old}
        for service in new:
            ports = self._host_ports(service)
            if service.resolution == "DNS_ROUND_ROBIN" and not ports.isdisjoint(self._endpointed):
                self._left_out.add((ref, service.hostname))
            self._endpointed |= ports

    def _host_ports(self, service: Service) -> frozenset[_HostPort]:
        namespace = service.namespace if self._rules.round_robin_once == "namespace" else ""
        return frozenset((service.hostname, namespace, port.number) for port in service.ports)

    def _making(self, host: str, namespace: str) -> list[tuple[Ref, Service]]:
        """The ServiceEntries of a namespace that make endpoints of a host, the oldest first."""
        found = [(ref, service) for ref, service in self.in_namespace(namespace) if service.hostname == host]
        kept = [(ref, service) for ref, service in found if (ref, host) not in self._left_out]
        return sorted(kept, key=lambda of: (self._store.objects[of[0]].creation, of[0].name)) if kept[1:] else kept

    def _entry_events(
        self, namespace: str, services: tuple[Service, ...], updated: set[Service], deleted: tuple[Service, ...]
    ) -> list[PushRequest]:
        keys = {s.key for s in (*updated, *deleted)}
        kept = [s for s in services if s not in updated and s.resolution in DNS]
        if not self._rules.krt_entries:
            keys.update(s.key for s in kept)
        requests: list[PushRequest] = []
        if keys:
            requests.append(PushRequest(frozenset(keys), reasons=frozenset({SERVICE_UPDATE})))
        others = set[ConfigKey]()
        for service, pushed, changed in self._refresh((*services, *deleted)):
            if service in kept and changed and service.key not in keys:
                others.add(service.key)
            beside = self._rules.krt_entries and pushed == "incremental" and service not in deleted
            if beside or (not keys and (service not in kept or self._rules.krt_entries)):
                requests += self._endpoints.request((service.hostname, namespace), pushed)
        if others:
            requests.append(PushRequest(frozenset(others), reasons=frozenset({ENDPOINT_UPDATE})))
        return requests

    def _refresh(self, services: Sequence[Service]) -> Iterator[tuple[Service, PushType, bool]]:
        """Recompute the shards of services from all that makes endpoints for their hosts, in one namespace.

        Yields each with its push, and whether others are there now.
        """
        hosts = dict.fromkeys((service.hostname, service.namespace) for service in services)
        made = {host: self._endpoints_made(making) if (making := self._making(*host)) else None for host in hosts}
        some, krt = any(made.values()), self._rules.krt_entries
        for service in services:
            host = (service.hostname, service.namespace)
            endpoints, before = made[host], self._endpoints.shards.get(host, {}).get(SHARD, ())
            self.emptied.discard(host)
            if endpoints is None:
                self._endpoints.drop(SHARD, host, keep_key=False)
                yield service, "incremental", True
            elif endpoints == before and (krt or not before):
                yield service, "none", False  # no event (edsUpdate)
            elif not endpoints and some and not self._rules.emptied_told:
                self.emptied.add(host)
                self._endpoints.recount(SHARD, host, endpoints)
                yield service, "none", False  # keeps what it had (doEdsUpdate)
            else:
                yield service, self._endpoints.update(SHARD, host, endpoints), endpoints != before and bool(endpoints)

    def _endpoints_made(self, making: Iterable[tuple[Ref, Service]]) -> tuple[Endpoint, ...]:
        found = list[Endpoint]()
        for ref, service in making:
            made = self._entry_endpoints(self._store.objects[ref], service)
            if self._rules.round_robin_once == "oldest" and service.resolution == "DNS_ROUND_ROBIN":
                for endpoint in made:  # the first of a port, as far as there is none yet (mergeServicesInstances…)
                    if all(endpoint.port_name != known.port_name for known in found):
                        found.append(endpoint)
            else:
                found += made
        return tuple(found)

    def _entry_endpoints(self, entry: Object, service: Service) -> Iterator[Endpoint]:
        spec, namespace = entry.spec, entry.ref.namespace
        name = entry.ref.name if self._rules.entry_workload else ""
        inline: list[Mapping[str, Any]] = [
            {**item, "workload": name and f"{name}-{index}"} for index, item in enumerate(spec.get("endpoints") or ())
        ]
        if service.selector:
            inline += map(entry_workload, selected_entries(self._store, namespace, service))
            pods = [pod for pod in self._pods.of(namespace).values() if selected_by(service, pod)]
            pods += self._left.of(entry.ref).values()
            inline += (pod_workload(pod, self._store) for pod in pods)
        elif not inline and service.resolution in DNS:
            inline = [{"address": service.hostname, "workload": name}]
        for item in inline:
            yield from workload_endpoints(item, service, namespace, self._trust_domain)

    # ---- Pods and WorkloadEntries

    def workload_update(self, before: Object | None, written: Object | None) -> list[PushRequest]:
        """A WorkloadEntry that is new or has other labels pushes the proxy that runs there.

        Until 1.29 a new one does not if a ServiceEntry by DNS selects it (workloadEntryHandler).
        """
        if written is None:
            return []
        rules = self._rules
        if before is None:
            selecting = self._selecting(written.ref.namespace, written)
            pushes = rules.krt_entries or all(service.resolution not in DNS for service in selecting)
        elif rules.krt_entries:
            pushes = _labels_and_place(before) != _labels_and_place(written)
        else:
            latest = workload_labels(written) if rules.entry_labels_compared else written.labels
            pushes = rules.pod_labels != "none" and workload_labels(before) != latest
        address, early = str(written.spec.get("address") or ""), rules.krt_entries
        return [proxy_update(address, self._endpoints.shards, early=early)] if pushes else []

    def _selecting(self, namespace: str, *workloads: Object | None) -> list[Service]:
        services = (service for _, service in self.in_namespace(namespace) if service.selector)
        return [service for service in services if any(selected_by(service, workload) for workload in workloads)]

    def pod_changed(self, pod: Object, *, deleted: bool = False) -> list[PushRequest]:
        """A Pod came, changed or went: ServiceEntries that select it, as long as it is ready, have other endpoints.

        Until 1.29 one that has left those that selected it changes no clusters, until 1.17 nothing at all (#42922).

        Source: pilot/pkg/serviceregistry/serviceentry/controller.go (WorkloadInstanceHandler).
        """
        namespace = pod.ref.namespace
        if not (pod.status.get("podIP") or self._rules.evicted_forgotten):
            return []
        known, latest = self._pods.of(namespace).get(pod.ref), pod if serving_ip(pod) and not deleted else None
        if known is None and latest is None:
            return []
        if known and latest and pod_workload(known, self._store) == pod_workload(latest, self._store):
            return []
        if latest:
            self._pods.to_write(namespace)[pod.ref] = latest
        else:
            del self._pods.to_write(namespace)[pod.ref]
        selecting = self._selecting(namespace, known, latest)
        if self._rules.krt_entries:
            return self._refreshed(selecting, selecting)
        still = [service for service in selecting if selected_by(service, latest or known)]
        if not self._rules.left_pods_kept:
            return self._refreshed(selecting, still)
        for ref, service in self.in_namespace(namespace):
            if latest and service in still:
                self._left.to_write(ref).pop(pod.ref, None)
            elif known and latest and service in selecting:
                self._left.to_write(ref)[pod.ref] = known
        return self._refreshed(still, still)

    def workload_changed(self, before: Object | None, written: Object | None, namespace: str) -> list[PushRequest]:
        """A WorkloadEntry came, changed or went: ServiceEntries that select it have other endpoints.

        Until 1.29, if any of them is by DNS, the endpoints of the others are stored and not pushed.

        Source: pilot/pkg/serviceregistry/serviceentry/controller.go (workloadEntryHandler).
        """
        selecting = self._selecting(namespace, before, written)
        requests = self._refreshed(selecting, selecting)
        if not self._rules.krt_entries and any(service.resolution in DNS for service in selecting):
            return requests[-1:]
        return requests

    def _refreshed(self, services: Sequence[Service], clusters_of: Sequence[Service]) -> list[PushRequest]:
        """Refresh services; requests for the endpoints of each, then one for the clusters of those by DNS."""
        requests: list[PushRequest] = []
        keys = {s.key for s in clusters_of if s.resolution in DNS}
        for service, pushed, changed in self._refresh(services):
            requests += self._endpoints.request((service.hostname, service.namespace), pushed)
            if not changed and self._rules.krt_entries:
                keys.discard(service.key)
        if keys:
            requests.append(PushRequest(frozenset(keys), reasons=frozenset({ENDPOINT_UPDATE})))
        return requests


def _labels_and_place(entry: Object) -> tuple[object, ...]:
    """All that labels of a WorkloadEntry's endpoint are made of (AugmentLabels)."""
    return workload_labels(entry), entry.spec.get("locality"), entry.spec.get("network")


def _target_ports(entry: Object) -> list[Any]:
    return [port.get("targetPort") for port in entry.spec.get("ports") or ()]
