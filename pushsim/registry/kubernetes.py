"""Services, EndpointSlices and Pods: istiod's kube controller (§1.3 to §1.6)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pushsim.conversion import (
    SERVICE_NAME_LABEL,
    TLS_MODE_LABEL,
    account,
    fqdn,
    kubernetes_service,
    pairs,
    selects,
    workload_endpoints,
)
from pushsim.mesh import ConfigKey, Endpoint, Object, Ref, Service
from pushsim.registry.endpoints import EndpointIndex
from pushsim.registry.nested import Nested
from pushsim.registry.store import Store
from pushsim.registry.workloads import (
    entry_workload,
    is_named,
    pod_locality,
    selected_by,
    selected_entries,
    serving_ip,
    workload_labels,
    workload_name,
)
from pushsim.releases import Rules
from pushsim.requests import ENDPOINT_UPDATE, SERVICE_UPDATE, PushRequest, headless_requests, proxy_update

#: The shard of its endpoints.
SHARD = "Kubernetes"

Owner = tuple[str, str]  # namespace and name of a Service


class KubernetesRegistry:
    """The Services of a cluster.

    services:  by host name.
    selecting: those with a selector, by namespace and host name.

    Args:
        store, endpoints: shared with the other registries.
        unready_sent: endpoints that are not ready are sent to proxies, too.
    """

    def __init__(
        self, store: Store, endpoints: EndpointIndex, rules: Rules, trust_domain: str, *, unready_sent: bool = False
    ) -> None:
        self._store, self._endpoints, self._rules, self._trust_domain = store, endpoints, rules, trust_domain
        self.unready_sent = unready_sent
        self.services: dict[str, Service] = {}
        self.selecting: Nested[str, str, Service] = Nested()
        self._slices: Nested[Owner, str, tuple[Endpoint, ...]] = Nested()
        self._slice_refs: Nested[Owner, str, Ref] = Nested()
        self._pods_by_ip: dict[str, Ref] = {}
        self._waiting: Nested[str, Ref, None] = Nested()  # slices that name a pod that is not there, by its address
        self._by_pair: dict[str, dict[tuple[str, str], list[Service]]] = {}

    def fork(self, store: Store, endpoints: EndpointIndex) -> KubernetesRegistry:
        """An independent copy on copies of what it shares."""
        copy = KubernetesRegistry(store, endpoints, self._rules, self._trust_domain, unready_sent=self.unready_sent)
        copy.services, copy._pods_by_ip = dict(self.services), dict(self._pods_by_ip)
        copy.selecting, copy._by_pair = self.selecting.fork(), dict(self._by_pair)
        copy._slices, copy._slice_refs = self._slices.fork(), self._slice_refs.fork()
        copy._waiting = self._waiting.fork()
        return copy

    def in_namespace(self, namespace: str) -> Iterator[Service]:
        """The services of a namespace."""
        return (self.services[fqdn(ref.name, namespace)] for ref in self._store.placed("Service", namespace))

    def selecting_labels(self, namespace: str, labels: Mapping[str, str]) -> list[Service]:
        """The services of a namespace whose selectors fit labels."""
        by_pair = self._by_pair.get(namespace)
        if by_pair is None:
            by_pair = self._by_pair[namespace] = {}
            for service in self.selecting.of(namespace).values():
                by_pair.setdefault(service.selector[0], []).append(service)
        found = (service for pair in labels.items() for service in by_pair.get(pair, ()))
        return [service for service in found if selects(service.selector, labels)]

    @property
    def aliases(self) -> Mapping[str, tuple[str, ...]]:
        """The aliases of each host that has some, sorted."""
        found: dict[str, list[str]] = {}
        for host in sorted(host for host, service in self.services.items() if service.resolution == "ALIAS"):
            found.setdefault(self.aliased(host), []).append(host)
        return {host: tuple(of) for host, of in found.items() if host}

    def aliased(self, host: str) -> str:
        """The host that an alias stands for in the end; "" of any other service, and of aliases of each other."""
        seen: set[str] = set()
        while (service := self.services.get(host)) is not None and service.resolution == "ALIAS":
            if host in seen:
                return ""
            seen.add(host)
            host = dict(service.extras)["externalName"]
        return host if seen else ""

    def picks_all_of(self, written: Object) -> bool:
        """Whether the selector of its service picks every pod that an EndpointSlice names."""
        service = self.services.get(fqdn(written.labels.get(SERVICE_NAME_LABEL, ""), written.ref.namespace))
        if service is None or not service.selector:
            return False
        named = (str((item.get("targetRef") or {}).get("name")) for item in written.body.get("endpoints") or ())
        pods = (self._store.get(Ref("Pod", written.ref.namespace, name)) for name in named)
        return all(pod is None or selects(service.selector, pod.labels) for pod in pods)

    # ---- Services

    def service_written(self, before: Object | None, written: Object) -> list[PushRequest]:
        """A Service was created or replaced."""
        service = kubernetes_service(written, self._rules, self._trust_domain)
        previous = self.services.get(service.hostname)
        self.services[service.hostname] = service
        self._index_selector(previous, service)
        host = (service.hostname, service.namespace)
        # the add handler fills the endpoint index without asking for a push
        self._endpoints.cache(SHARD, host, self._endpoints_of(service.name, service.namespace))
        if not self._pushes(previous if before else None, service, added=before is None):
            return []
        return [PushRequest(frozenset({service.key}), reasons=frozenset({SERVICE_UPDATE}))]

    def _pushes(self, previous: Service | None, current: Service, *, added: bool) -> bool:
        rules = self._rules
        if added and not rules.hidden_silent:
            return True
        if rules.service_update == "always":
            return True
        if rules.hidden_update_silent:
            hidden = "~" in current.export_to
            if previous is None:
                return not hidden
            if hidden and "~" in previous.export_to:
                return False
        if previous != current:
            return True
        return (
            rules.service_update == "equal-or-target-port"
            and previous is not None
            and previous.target_ports != current.target_ports
        )

    def service_deleted(self, before: Object) -> list[PushRequest]:
        """A Service was deleted."""
        service = kubernetes_service(before, self._rules, self._trust_domain)
        self._index_selector(self.services.pop(service.hostname, None), None)
        self._endpoints.drop(SHARD, (service.hostname, service.namespace), keep_key=False)
        if self._rules.hidden_silent and "~" in service.export_to:
            return []
        return [PushRequest(frozenset({service.key}), reasons=frozenset({SERVICE_UPDATE}))]

    def _index_selector(self, previous: Service | None, current: Service | None) -> None:
        for service in (previous, current):
            if service:
                self._by_pair.pop(service.namespace, None)
        if previous and previous.selector:
            self.selecting.to_write(previous.namespace).pop(previous.hostname, None)
        if current and current.selector:
            self.selecting.to_write(current.namespace)[current.hostname] = current

    # ---- EndpointSlices

    def slice_written(self, written: Object) -> list[PushRequest]:
        """An EndpointSlice was created or replaced."""
        name = written.labels.get(SERVICE_NAME_LABEL)
        if not name:
            return []
        owner = (written.ref.namespace, name)
        self._slice_refs.to_write(owner)[written.ref.name] = written.ref
        if _has_addresses(written):
            self._slices.to_write(owner)[written.ref.name] = tuple(self._slice_endpoints(written))
        return self._slice_event(name, written.ref.namespace)

    def slice_deleted(self, before: Object) -> list[PushRequest]:
        """An EndpointSlice was deleted."""
        name = before.labels.get(SERVICE_NAME_LABEL)
        if not name:
            return []
        owner = (before.ref.namespace, name)
        self._slice_refs.to_write(owner).pop(before.ref.name, None)
        self._slices.to_write(owner).pop(before.ref.name, None)
        for item in before.body.get("endpoints") or ():
            for address in item.get("addresses") or ():
                if before.ref in self._waiting.of(address):
                    del self._waiting.to_write(address)[before.ref]
        return self._slice_event(name, before.ref.namespace)

    def _slice_event(self, name: str, namespace: str) -> list[PushRequest]:
        rules, host = self._rules, (fqdn(name, namespace), namespace)
        service = self.services.get(host[0])
        hidden = service is not None and "~" in service.export_to
        if hidden and rules.hidden_silent:  # onEventInternal returns before pushEDS: the index keeps what it had
            return []
        pushed = self._endpoints.update(SHARD, host, self._selected(name, namespace))  # whatever its externalName
        self._endpoints.recount(SHARD, host, self._endpoints_of(name, namespace))
        requests = self._endpoints.request(host, pushed)
        if service is not None and service.headless and not (hidden and rules.headless_hidden_silent):
            http = all(port.http for port in service.ports)
            requests += headless_requests(service.key, rules, http=http)
        return requests

    def _endpoints_of(self, name: str, namespace: str) -> tuple[Endpoint, ...]:
        """Endpoints of a service; of an ExternalName Service by DNS also the name itself.

        Beside slices that it still has, or where these have none (ExternalNameServiceInstances, ExternalNameEndpoints).
        """
        found, service = self._selected(name, namespace), self.services.get(fqdn(name, namespace))
        if service is None or service.resolution != "DNS":
            return found
        named, served = dict(service.extras)["externalName"], {endpoint.port_name for endpoint in found}
        ports = (port for port in service.ports if self._rules.external_name_beside or port.name not in served)
        return (*found, *(Endpoint(named, port.number, port.name, service.labels, probed=False) for port in ports))

    def _selected(self, name: str, namespace: str) -> tuple[Endpoint, ...]:
        """Those of all slices of a service, each address and port once; of WorkloadEntries it selects, all."""
        found: dict[tuple[str, str], Endpoint] = {}
        service = self.services.get(fqdn(name, namespace))
        for endpoints in self._slices.of((namespace, name)).values():
            for endpoint in endpoints:
                found.setdefault((endpoint.address, endpoint.port_name), endpoint)
        selected: list[Endpoint] = []
        if service is not None and service.selector and service.resolution == "EDS":
            for entry in selected_entries(self._store, namespace, service):
                selected += workload_endpoints(entry_workload(entry), service, namespace, self._trust_domain)
        return (*found.values(), *selected)

    def _slice_endpoints(self, written: Object) -> Iterator[Endpoint]:
        namespace = written.ref.namespace
        service = self.services.get(fqdn(written.labels.get(SERVICE_NAME_LABEL, ""), namespace))
        unready_sent = self.unready_sent or (service is not None and bool(service.distribution))
        for item in written.body.get("endpoints") or ():
            told = self._health(item.get("conditions") or {}, service)
            health = dict(zip(("healthy", "draining", "terminating"), told, strict=True))
            for address in item.get("addresses") or ():
                ref = item.get("targetRef") or {}
                if ref.get("kind") == "Pod":
                    pod = self._store.get(Ref("Pod", str(ref.get("namespace") or namespace), str(ref.get("name"))))
                    if pod is None:
                        self._waiting.to_write(address)[written.ref] = None
                        continue
                else:
                    pod = self.pod_at(address)
                    if pod is not None and pod.ref.namespace != namespace:
                        pod = None
                for port in written.body.get("ports") or ():
                    yield self._endpoint(str(address), port, pod, **health, sent_unhealthy=unready_sent)

    def _health(self, conditions: Mapping[str, Any], service: Service | None) -> tuple[bool, bool, bool]:
        """Whether conditions in a slice say that an endpoint is healthy, that it drains, or that it terminates.

        Source: pilot/pkg/serviceregistry/kube/controller/endpointslice.go (endpointHealthStatus).
        """
        rules, ready = self._rules, conditions.get("ready") is not False
        ending, serving = conditions.get("terminating") is not False, conditions.get("serving")
        drains = ending and serving is not False if rules.draining_ends else serving is True
        keeps = service is not None and any(service.labelled(label) for label in rules.draining_labels)
        if ready or (drains and keeps):
            return ready, not ready, False
        return False, False, rules.terminating_apart and ending

    def _endpoint(self, address: str, port: Mapping[str, Any], pod: Object | None, **health: bool) -> Endpoint:
        labels = pod.labels if pod else {}
        identity = host = subdomain = node = ""
        if pod is not None:
            spec = pod.spec
            service_account = str(spec.get("serviceAccountName") or "default")
            if subdomain := str(spec.get("subdomain") or ""):
                host = str(spec.get("hostname") or pod.ref.name)
            identity = account(service_account, pod.ref.namespace, self._trust_domain)
            node = str(spec.get("nodeName") or "") if self._rules.node_local != "never" else ""
        return Endpoint(
            address=address,
            port=int(port.get("port") or 0),
            port_name=str(port.get("name") or ""),
            labels=pairs(labels),
            account=identity,
            locality=pod_locality(pod, self._store.objects),
            tls=str(labels.get(TLS_MODE_LABEL) or ""),
            workload=workload_name(pod) if pod else "",
            network=str(labels.get("topology.istio.io/network") or ""),
            host=host,
            subdomain=subdomain,
            node=node,
            **health,
        )

    # ---- Pods, and WorkloadEntries that Services select

    def pod_written(self, before: Object | None, written: Object) -> list[PushRequest]:
        """A Pod was created or replaced: when it gets ready its own proxy is pushed, and slices that waited are read.

        Source: pilot/pkg/serviceregistry/kube/controller/pod.go (PodCache.onEvent).
        """
        ip = str(written.status.get("podIP") or "")
        if not ip:
            return []
        known, ready = before is not None and serving_ip(before) == ip, serving_ip(written) == ip
        if ready:
            self._pods_by_ip[ip] = written.ref
        elif known:
            self._forget(written)
        requests: list[PushRequest] = []
        added = ready and not known
        relabelled = before is not None and before.labels != written.labels
        if self._rules.pods_served_relabelled:
            relabelled = relabelled and known and ready
        if relabelled and self._rules.pod_labels == "proxy-and-endpoints":
            requests += self._recompute_services(written)
        if added:
            waiting = [self._store.get(ref) for ref in self._waiting.of(ip)]
            self._waiting.put(ip, {})
            for waited in waiting:
                requests += self.slice_written(waited) if waited is not None else ()
        if added or (relabelled and self._rules.pod_labels != "none"):
            # asked for first, but what the rest makes of endpoints is there when it is generated
            requests.insert(0, proxy_update(ip, self._endpoints.shards))
        return requests

    def pod_at(self, ip: str) -> Object | None:
        """The pod that is ready under an address, the latest of several."""
        return self._store.get(self._pods_by_ip[ip]) if ip in self._pods_by_ip else None

    def _recompute_services(self, pod: Object) -> list[PushRequest]:
        """Convert the endpoints of all services that select a relabelled pod again, and push them, changed or not.

        istiod's recomputeServiceForPod: no event of their slices, so headless ones have no second request.
        """
        namespace, keys = pod.ref.namespace, set[ConfigKey]()
        for service in self.selecting.of(namespace).values():
            if selects(service.selector, pod.labels):
                owner, host = (namespace, service.name), (service.hostname, namespace)
                written = self._slices_of(owner)
                read = {o.ref.name: tuple(self._slice_endpoints(o)) for o in written if _has_addresses(o)}
                self._slices.to_write(owner).update(read)
                self._endpoints.cache(SHARD, host, self._endpoints_of(service.name, namespace))
                keys.add(ConfigKey(self._rules.endpoint_kind, *host))
        return [PushRequest(frozenset(keys), False, reasons=frozenset({ENDPOINT_UPDATE}))] if keys else []

    def _slices_of(self, owner: Owner) -> list[Object]:
        """The slices of a service, but for those that have been given to another since."""
        found = (self._store.get(ref) for ref in self._slice_refs.of(owner).values())
        return [o for o in found if o is not None and o.labels.get(SERVICE_NAME_LABEL) == owner[1]]

    def pod_deleted(self, before: Object) -> list[PushRequest]:
        """A Pod was deleted: that alone pushes nobody, its slice's update does."""
        self._forget(before)
        return []

    def _forget(self, pod: Object) -> None:
        ip = str(pod.status.get("podIP") or "")
        if self._pods_by_ip.get(ip) == pod.ref:
            del self._pods_by_ip[ip]

    def workload_changed(self, before: Object | None, written: Object | None, namespace: str) -> list[PushRequest]:
        """A WorkloadEntry came, changed or went: Services that select it by now are looked at again.

        Those that did so until it was given other labels keep it until something else makes istiod look at them.

        Source: pilot/pkg/serviceregistry/kube/controller/controller.go (workloadInstanceHandler).
        """
        latest = written or before
        if latest is None or is_named(latest):
            return []
        labels = workload_labels(latest)
        requests: list[PushRequest] = []
        for service in self.selecting.of(namespace).values():
            if service.resolution != "EDS":
                continue
            if selects(service.selector, labels):
                requests += self._slice_event(service.name, namespace)
            elif before is not None and selected_by(service, before):
                found = self._endpoints_of(service.name, namespace)
                self._endpoints.recount(SHARD, (service.hostname, namespace), found)
        return requests


def _has_addresses(written: Object) -> bool:
    return written.body.get("addressType") != "FQDN"
