"""ServiceEntries, and the Pods and WorkloadEntries they select: istiod's serviceentry controller (§1.7)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pushsim.conversion import service_entry_services, workload_endpoints
from pushsim.mesh import ConfigKey, Endpoint, Object, Ref, Service
from pushsim.registry.endpoints import EndpointIndex, PushType
from pushsim.registry.store import Store
from pushsim.registry.workloads import (
    entry_workload,
    picks,
    pod_workload,
    selected_entries,
    selected_pods,
)
from pushsim.releases import Rules
from pushsim.requests import ENDPOINT_UPDATE, SERVICE_UPDATE, PushRequest, proxy_update

#: The shard of its endpoints.
SHARD = "External"
_DNS = frozenset({"DNS", "DNS_ROUND_ROBIN"})


#: A host name, the namespace or "" for all, and a port.
_HostPort = tuple[str, str, int]


class EntryRegistry:
    """The services of ServiceEntries.

    services: one per host, by ServiceEntry.

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
        self._endpointed: set[_HostPort] = set()
        self._left_out: set[tuple[Ref, str]] = set()  # hosts without endpoints, since others had some

    def fork(self, store: Store, endpoints: EndpointIndex) -> EntryRegistry:
        """An independent copy on copies of what it shares."""
        copy = EntryRegistry(store, endpoints, self._rules, self._trust_domain, self._env)
        copy.services = dict(self.services)
        copy._endpointed, copy._left_out = set(self._endpointed), set(self._left_out)
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
        """The ServiceEntries of a namespace that make endpoints of a host."""
        found = [(ref, service) for ref, service in self.in_namespace(namespace) if service.hostname == host]
        if self._rules.round_robin_once != "oldest" or len(found) < 2:
            return [(ref, service) for ref, service in found if (ref, host) not in self._left_out]
        taken, kept = set[int](), []
        for ref, service in sorted(found, key=lambda of: (self._store.objects[of[0]].creation, of[0].name)):
            ports = {port.number for port in service.ports}
            if service.resolution != "DNS_ROUND_ROBIN" or taken.isdisjoint(ports):
                kept.append((ref, service))
                taken |= ports
        return kept

    def _entry_events(
        self, namespace: str, services: tuple[Service, ...], updated: set[Service], deleted: tuple[Service, ...]
    ) -> list[PushRequest]:
        keys = {s.key for s in (*updated, *deleted)}
        kept = [s for s in services if s not in updated and s.resolution in _DNS]
        if not self._rules.entry_endpoints_compared:
            keys.update(s.key for s in kept)
        requests: list[PushRequest] = []
        if keys:
            requests.append(PushRequest(frozenset(keys), reasons=frozenset({SERVICE_UPDATE})))
        others = set[ConfigKey]()
        for service in (*services, *deleted):
            pushed, changed = self._refresh(service.hostname, namespace)
            if service in kept and changed and service.key not in keys:
                others.add(service.key)
            if not keys and service not in kept:
                requests += self._endpoints.request((service.hostname, namespace), pushed)
        if others:
            requests.append(PushRequest(frozenset(others), reasons=frozenset({ENDPOINT_UPDATE})))
        return requests

    def _refresh(self, host: str, namespace: str) -> tuple[PushType, bool]:
        """Recompute the shard of a host from all that makes endpoints for it; its push, and if it differs."""
        making = self._making(host, namespace)
        if not making:
            self._endpoints.drop(SHARD, (host, namespace), keep_key=False)
            return "incremental", True
        endpoints = tuple(
            e for ref, service in making for e in self._entry_endpoints(self._store.objects[ref], service)
        )
        before = self._endpoints.shards.get((host, namespace), {}).get(SHARD, ())
        pushed = self._endpoints.update(SHARD, (host, namespace), endpoints)
        return pushed if endpoints or before else "none", endpoints != before  # without any, no event (edsUpdate)

    def _entry_endpoints(self, entry: Object, service: Service) -> Iterator[Endpoint]:
        spec, namespace = entry.spec, entry.ref.namespace
        name = entry.ref.name if self._rules.entry_workload else ""
        inline: list[Mapping[str, Any]] = [
            {**item, "workload": name and f"{name}-{index}"} for index, item in enumerate(spec.get("endpoints") or ())
        ]
        if service.selector:
            inline += map(entry_workload, selected_entries(self._store, namespace, service.selector))
            pods = selected_pods(self._store, namespace, service.selector)
            inline += (pod_workload(pod, self._store) for pod in pods)
        elif not inline and service.resolution in _DNS:
            inline = [{"address": service.hostname, "workload": name}]
        for item in inline:
            yield from workload_endpoints(item, service, namespace, self._trust_domain)

    # ---- Pods and WorkloadEntries

    def workload_update(self, before: Object | None, written: Object | None) -> list[PushRequest]:
        """A WorkloadEntry that is new or differs pushes the proxy that runs there."""
        if written is None or (before is not None and entry_workload(before) == entry_workload(written)):
            return []
        address = str(written.spec.get("address") or "")
        return [proxy_update(address, self._endpoints.shards)]

    def workload_changed(self, before: Object | None, written: Object | None, namespace: str) -> list[PushRequest]:
        """A Pod or WorkloadEntry came, changed or went: ServiceEntries that select it have other endpoints."""
        requests: list[PushRequest] = []
        dns_keys: set[ConfigKey] = set()
        for _, service in self.in_namespace(namespace):
            if not service.selector or not picks(service.selector, before, written):
                continue
            pushed, changed = self._refresh(service.hostname, namespace)
            if service.resolution in _DNS:
                if changed or not self._rules.entry_endpoints_compared:
                    dns_keys.add(service.key)
            else:
                requests += self._endpoints.request((service.hostname, namespace), pushed)
        if dns_keys:
            requests.append(PushRequest(frozenset(dns_keys), reasons=frozenset({ENDPOINT_UPDATE})))
        return requests


def _target_ports(entry: Object) -> list[Any]:
    return [port.get("targetPort") for port in entry.spec.get("ports") or ()]
