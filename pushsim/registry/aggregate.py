"""All registries of one istiod as one: istiod's aggregate controller."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

from pushsim.conversion import entry_port, named_target_port
from pushsim.mesh import HOSTNAME, Change, ConfigKey, Mesh, Object, Port, Proxy, Ref, Service, truth
from pushsim.registry import entries, kubernetes
from pushsim.registry.addresses import Addresses
from pushsim.registry.configs import CONFIG_KINDS, config_changed, config_request, secret_changed
from pushsim.registry.discovery import Discovery
from pushsim.registry.endpoints import EndpointIndex
from pushsim.registry.entries import EntryRegistry
from pushsim.registry.kubernetes import KubernetesRegistry
from pushsim.registry.nested import Nested
from pushsim.registry.store import Store
from pushsim.registry.workloads import labels_on_node, pod_locality, workload_labels
from pushsim.releases import Rules
from pushsim.requests import GLOBAL_UPDATE, PushRequest
from pushsim.spreading import asked_by, asked_by_mesh, placed

#: Order in which an istiod that starts reads what there is; other kinds follow. Services find their slices there.
_START_ORDER = ("Namespace", "Node", "Pod", "EndpointSlice", "Service", "WorkloadEntry", "ServiceEntry")

#: Kinds that services are made of.
_SERVICES = frozenset({"Service", "ServiceEntry"})

#: Kinds that decide which services a proxy belongs to.
_TARGETING = frozenset({"Namespace", "Pod", "Service", "ServiceEntry", "WorkloadEntry"})

#: The label that names an istiod, and the kinds of which it only reads its own: Istio's.
REVISION = "istio.io/rev"
_REVISED = CONFIG_KINDS | {"ServiceEntry", "WorkloadEntry", "WorkloadGroup"}

#: Whether clusters were built of a DestinationRule, so that it is not as it was written. None in its place while
#: istiod starts: configuration is stored, and what that would push is not asked.
Used = Callable[[Object], bool]


def _never(_rule: Object) -> bool:
    return False


class Target(NamedTuple):
    """A service port of a service that a proxy belongs to: istiod's ServiceTarget."""

    service: Service
    port: Port
    target_port: int


class Registry:
    """The state of one istiod's service registries, endpoint index and config store.

    Args:
        mesh: the objects there are when istiod starts; its own events push nothing.
        rules: the release.
    """

    def __init__(self, mesh: Mesh, rules: Rules) -> None:
        self.rules, self.mesh_config = rules, mesh.mesh_config
        trust_domain = str(mesh.mesh_config.get("trustDomain") or "cluster.local")
        unready_sent = truth(mesh.env.get("PILOT_SEND_UNHEALTHY_ENDPOINTS"), default=False)
        self.store, self.endpoints = Store(), EndpointIndex(rules, unready_sent=unready_sent)
        self.placing = bool(asked_by_mesh(mesh.mesh_config) or asked_by(mesh.objects.values()))
        self._kubernetes = KubernetesRegistry(
            self.store,
            self.endpoints,
            rules,
            trust_domain,
            unready_sent=unready_sent
            or truth(mesh.env.get("PILOT_AUTO_SEND_UNHEALTHY_ENDPOINTS"), default=rules.unready_sent),
        )
        self._discovery = Discovery(mesh.mesh_config, mesh.env, rules)
        self._revision = mesh.env.get("REVISION") or ""
        self._entries = EntryRegistry(self.store, self.endpoints, rules, trust_domain, mesh.env)
        self._services: tuple[Service, ...] | None = None  # None: some were written since they were listed
        self._aliased: dict[ConfigKey, tuple[Service, tuple[str, ...], Service]] = {}
        self._addresses = Addresses(self.store)
        self._targets: Nested[str, Proxy, tuple[Target, ...]] = Nested()
        self._targets_before: Nested[str, Proxy, tuple[Target, ...]] = Nested()  # as found last
        rank = {kind: place for place, kind in enumerate(_START_ORDER)}
        for written in sorted(mesh.objects.values(), key=lambda o: rank.get(o.ref.kind, len(rank))):
            self._write(written, None)

    @property
    def unready_sent(self) -> bool:
        """Whether endpoints that are not ready are sent, of all Services (GlobalSendUnhealthyEndpoints)."""
        return self._kubernetes.unready_sent

    def fork(self) -> Registry:
        """An independent copy: what happens to it does not happen to this one."""
        copy = object.__new__(Registry)
        copy.rules, copy.mesh_config, copy.placing = self.rules, self.mesh_config, self.placing
        copy.store, copy.endpoints = self.store.fork(), self.endpoints.fork()
        copy._kubernetes = self._kubernetes.fork(copy.store, copy.endpoints)
        copy._entries = self._entries.fork(copy.store, copy.endpoints)
        copy._discovery, copy._revision = self._discovery.fork(), self._revision
        copy._services = self._services
        copy._aliased, copy._addresses = dict(self._aliased), self._addresses.fork(copy.store)
        copy._targets, copy._targets_before = self._targets.fork(), self._targets_before.fork()
        return copy

    def handle(self, change: Change, *, services_first: bool = False, used: Used = _never) -> tuple[PushRequest, ...]:
        """Apply a change, object by object, and return the requests its events make, in order.

        A Service written or deleted, and its EndpointSlice written with it, race on a real istiod (reference §1.6). The
        slice goes first here, as in most recordings; `services_first` is the other outcome. `used`: as above.
        """
        requests: list[PushRequest] = []
        for proxy in self._addresses.proxies_at(change) if self.rules.krt_entries else ():
            self.targets(proxy)  # an early ProxyUpdate is answered by what was so before
        if change.mesh_config is not None:  # istiod's mesh watcher: everything for everybody
            self.mesh_config = {**self.mesh_config, **change.mesh_config}
            requests.append(PushRequest(forced=not self.rules.empty_is_all, reasons=frozenset({GLOBAL_UPDATE})))
        events: list[tuple[Ref, Object | None]] = [(written.ref, written) for written in change.apply]
        events += ((ref, None) for ref in change.delete)

        def place(event: tuple[Ref, Object | None]) -> int:
            ref, written = event
            if services_first:  # what is written, deleted Services, slices, what else is deleted
                return (3 if ref.kind != "Service" else 1) if written is None else 2 * (ref.kind == "EndpointSlice")
            return 2 if written is None else int(ref.kind == "Service")

        for ref, written in sorted(events, key=place):
            made = self._delete(ref) if written is None else self._write(written, used)
            if not self.rules.krt_entries:  # ServiceEntries are handled with the rest, not beside it
                made = [replace(r, endpoints=self.endpoints.shards.copy()) if r.proxy else r for r in made]
            requests += made
        return tuple(requests)

    # ---- events

    def _write(self, written: Object, used: Used | None) -> list[PushRequest]:
        discovery, ref = self._discovery, written.ref
        if discovery.selective:
            if ref.kind == "Namespace" and discovery.relabelled(ref.name, written.labels):
                return [*self._written(written), *self._selection_changed(ref.name)]
            if discovery.covers(ref) and not discovery.watches(ref.namespace):
                discovery.put_aside(written)
                return []
        if self._is_of_another_revision(written):
            requests = self._deleted(ref)
            if not requests and self.rules.foreign_pushed and ref.kind in CONFIG_KINDS and used is not None:
                return [config_request(ref, self.rules)]
            return requests
        return self._written(written, used)

    def _is_of_another_revision(self, written: Object) -> bool:
        """Whether another istiod is meant (`istio.io/rev`); one without a REVISION takes all since 1.19."""
        wanted = written.labels.get(REVISION)
        if wanted is None or written.ref.kind not in _REVISED:
            return False
        return wanted != self._revision and (bool(self._revision) or not self.rules.any_revision)

    def _selection_changed(self, namespace: str) -> list[PushRequest]:
        """A namespace is watched from now on, or no more: its objects come or go."""
        discovery = self._discovery
        requests: list[PushRequest] = []
        if discovery.watches(namespace):
            for appearing in discovery.appearing(namespace):
                requests += self._written(appearing)
        else:
            gone = [o for o in self.store.objects.values() if o.ref.namespace == namespace and discovery.covers(o.ref)]
            for held in gone:
                requests += self._deleted(held.ref)
                discovery.put_aside(held)
        return [*requests, PushRequest(forced=not self.rules.empty_is_all)] if discovery.pushes_all else requests

    def _written(self, written: Object, used: Used | None = _never) -> list[PushRequest]:
        before = self.store.write(written)
        self._look_up_again(written.ref)
        match written.ref.kind:
            case "Service":
                return self._kubernetes.service_written(before, written)
            case "EndpointSlice":
                return self._kubernetes.slice_written(written)
            case "Pod":
                requests = self._kubernetes.pod_written(before, written)
                return requests + self._entries.pod_changed(written)
            case "ServiceEntry":
                return self._entries.entry_written(before, written)
            case "WorkloadEntry":
                return self._workload_changed(before, written, written.ref.namespace)
            case "Secret":
                return secret_changed(written)
            case kind if kind in CONFIG_KINDS and used is not None:
                return config_changed(self.store, self.mesh_config, self.rules, before, written, used)
        return []

    def _delete(self, ref: Ref) -> list[PushRequest]:
        if self._discovery.forget(ref):
            return []
        requests = self._deleted(ref)
        if ref.kind == "Namespace" and self._discovery.selective and self._discovery.relabelled(ref.name, None):
            requests += self._selection_changed(ref.name)
        return requests

    def _deleted(self, ref: Ref) -> list[PushRequest]:
        before = self.store.delete(ref)
        if before is None:
            return []
        self._look_up_again(ref)
        match ref.kind:
            case "Service":
                return self._kubernetes.service_deleted(before)
            case "EndpointSlice":
                return self._kubernetes.slice_deleted(before)
            case "Pod":
                requests = self._kubernetes.pod_deleted(before)
                return requests + self._entries.pod_changed(before, deleted=True)
            case "ServiceEntry":
                return self._entries.entry_deleted(before)
            case "WorkloadEntry":
                return self._workload_changed(before, None, ref.namespace)
            case "Secret":
                return secret_changed(before)
            case kind if kind in CONFIG_KINDS:
                return config_changed(self.store, self.mesh_config, self.rules, before, None)
        return []

    def _workload_changed(self, before: Object | None, written: Object | None, namespace: str) -> list[PushRequest]:
        requests = self._entries.workload_update(before, written)
        requests += self._kubernetes.workload_changed(before, written, namespace)
        return requests + self._entries.workload_changed(before, written, namespace)

    # ---- what a PushContext or a proxy reads

    def services(self) -> tuple[Service, ...]:
        """All services of all registries, Kubernetes first; one object as long as they stay as they are."""
        if self._services is None:
            self._services = *self._kubernetes.services.values(), *chain(*self._entries.services.values())
        return self._services

    def served(self) -> Iterator[Service]:
        """The same as a PushContext has them: with their aliases, one object as long as neither changes."""
        aliases = self._kubernetes.aliases
        for service in self.services():
            if service.hostname not in aliases:
                yield service
                continue
            told, known = aliases[service.hostname], self._aliased.get(service.key)
            if known is None or known[0] is not service or known[1] != told:
                known = self._aliased[service.key] = (service, told, replace(service, aliases=told))
            yield known[2]

    def with_aliased(self, keys: frozenset[ConfigKey]) -> frozenset[ConfigKey]:
        """These keys, and those of what Services of type ExternalName among them stand for (resolveServiceAliases)."""
        named = (self._kubernetes.aliased(key.name) for key in keys if key.kind == "ServiceEntry")
        hosts = {host for host in named if host}
        return keys | {service.key for service in self.services() if service.hostname in hosts} if hosts else keys

    def pod_of(self, proxy: Proxy) -> Object | None:
        """The pod a proxy runs in: that of its name, else that of its address."""
        return self.store.get(Ref("Pod", proxy.namespace, proxy.name)) or self._kubernetes.pod_at(proxy.ip)

    def labels_of(self, proxy: Proxy) -> Mapping[str, str]:
        """Workload labels: the pod's, else those the proxy reports; with where it is, if somebody looks at that."""
        labels = self._labels_of(proxy)
        if not self.placing or (self.rules.locality_of_instance and not self.targets(proxy)):
            return labels
        entry, pod = self._addresses.entry_at(proxy), self.pod_of(proxy)
        locality = str(entry.spec.get("locality") or "") if entry else pod_locality(pod, self.store.objects)
        return {**labels, **placed(locality)}

    def _labels_of(self, proxy: Proxy) -> Mapping[str, str]:
        pod, told = self.pod_of(proxy), self.rules.node_local
        node = str(proxy.metadata.get("NODE_NAME") or "") if told != "never" else ""
        if pod is None:
            return {**proxy.labels, HOSTNAME: node} if node else proxy.labels
        if not node and told == "pod":
            node = str(pod.spec.get("nodeName") or "")
        return labels_on_node(pod, node) if node else pod.labels

    def targets(self, proxy: Proxy) -> tuple[Target, ...]:
        """The services a proxy belongs to, one entry per service port, the oldest first (istiod's SetServiceTargets).

        They hang on objects of the proxy's namespace, and of a WorkloadEntry's at its address, so they are remembered
        until one of those is written; where they are the same then, they are the very same.
        """
        known = self._targets.of(proxy.namespace).get(proxy)
        if known is None:
            self._addresses.asked(proxy)
            found, before = self._find_targets(proxy), self._targets_before.of(proxy.namespace).get(proxy)
            known = self._targets.to_write(proxy.namespace)[proxy] = before if before == found else found
        return known

    def targets_unlabelled(self, proxy: Proxy) -> tuple[Target, ...]:
        """The same as of a proxy whose own labels are not looked at yet: without a Pod it has no Kubernetes Service."""
        known = self.targets(proxy)
        return known if self.pod_of(proxy) else self._find_targets(replace(proxy, labels={}))

    def targets_before(self, proxy: Proxy) -> tuple[Target, ...]:
        """The same as they were found last, before objects of the proxy's namespace were written."""
        now, before = self.targets(proxy), self._targets_before.of(proxy.namespace).get(proxy)
        return now if before is None else before

    def _look_up_again(self, ref: Ref) -> None:
        """An object was written or deleted."""
        if ref.kind in _SERVICES:
            self._services = None
        for namespace in {ref.namespace, *self._addresses.look_up_again(ref)}:
            if known := self._targets.of(namespace):
                self._targets_before.to_write(namespace).update(known)
                self._targets.put(namespace, {})

    def retargeted(self, change: Change) -> set[str]:
        """Namespaces in which proxies may belong to other services after a change that is about to be handled."""
        found = {ref.namespace for ref in change.delete if ref.kind in _TARGETING}
        for item in change.apply:
            before = self.store.get(item.ref)
            same = before is not None and (before.labels, before.spec) == (item.labels, item.spec)
            if item.ref.kind in _TARGETING and not (item.ref.kind == "Pod" and same):  # its status tells nothing
                found.add(item.ref.namespace)
        slices: list[tuple[Ref, Object | None]] = [
            (item.ref, item) for item in change.apply if item.ref.kind == "EndpointSlice"
        ]
        slices += [(ref, None) for ref in change.delete if ref.kind == "EndpointSlice"]
        found |= {ref.namespace for ref, written in slices if self._finds_by_address(ref, written)}
        found |= {proxy.namespace for proxy in self._addresses.proxies_at(change)}
        return found.union(*map(self._addresses.visitors, found))

    def _finds_by_address(self, ref: Ref, written: Object | None) -> bool:
        """Whether it depends on a slice, which is to be written, which services the proxies of its namespace have."""
        if any(True for _ in self._entries.in_namespace(ref.namespace)):
            return True
        versions = (version for version in (self.store.get(ref), written) if version is not None)
        return any(not self._kubernetes.picks_all_of(version) for version in versions)

    def _find_targets(self, proxy: Proxy) -> tuple[Target, ...]:
        namespace, entry = proxy.namespace, self._addresses.entry_at(proxy)
        labels = workload_labels(entry) if entry else self._labels_of(proxy)
        selecting = self._kubernetes.selecting_labels(entry.ref.namespace if entry else namespace, labels)
        if entry:
            found = [target for service in selecting for target in _targets_of_entry(entry, service)]
        elif selecting or not self.pod_of(proxy):
            found = [target for service in selecting for target in self._targets_by_selector(proxy, service)]
        else:
            here = self._kubernetes.in_namespace(namespace)
            found = list(self._targets_by_address(proxy, here, kubernetes.SHARD))
        entries_of, emptied = self._entries.in_namespace(namespace), self._entries.emptied
        external = (service for _, service in entries_of if (service.hostname, namespace) not in emptied)
        found += self._targets_by_address(proxy, external, entries.SHARD)
        return tuple(sorted(found, key=lambda target: (target.service.created, target.service.hostname)))

    def _targets_by_selector(self, proxy: Proxy, service: Service) -> Iterator[Target]:
        pod, targets = self.pod_of(proxy), dict(service.target_ports)
        for port in service.ports:
            number = targets.get(port.name) or port.number
            if isinstance(number, str):
                number = (int(number) if number.isdigit() else named_target_port(pod, number) if pod else None) or 0
            if number or not pod:  # of a pod that it does not know, istiod takes a name for 0
                yield Target(service, port, number)

    def _targets_by_address(self, proxy: Proxy, services: Iterable[Service], shard: str) -> Iterator[Target]:
        for service in services:
            ports = {port.name: port for port in service.ports}
            for endpoint in self.endpoints.instances.get((service.hostname, service.namespace), {}).get(shard, ()):
                if endpoint.address == proxy.ip and endpoint.port_name in ports:
                    yield Target(service, ports[endpoint.port_name], endpoint.port)


def _targets_of_entry(entry: Object, service: Service) -> Iterator[Target]:
    """What a WorkloadEntry has of a Service that selects it; of headless ones nothing."""
    targets = dict(service.target_ports)
    for port in service.ports if service.resolution == "EDS" else ():
        number = entry_port(entry.spec.get("ports") or {}, port, targets.get(port.name))
        if number is not None and port.protocol != "UDP":
            yield Target(service, port, number)
