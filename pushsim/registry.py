"""istiod's registries and config store: Kubernetes and Istio events in, PushRequests out, and the state they leave.

`Registry.handle` is what istiod's informer handlers do before the debounce: it decides whether an event pushes at
all, with which keys, and whether for endpoints only. Source: reference `push-semantics` §1, confirmed by recordings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from pushsim.conversion import (
    SERVICE_NAME_LABEL,
    TLS_MODE_LABEL,
    account,
    fqdn,
    kubernetes_service,
    named_target_port,
    pairs,
    selects,
    service_entry_services,
    workload_endpoints,
)
from pushsim.mesh import Change, ConfigKey, Endpoint, Mesh, Object, Port, Proxy, Ref, Service
from pushsim.releases import Rules
from pushsim.requests import (
    CONFIG_UPDATE,
    ENDPOINT_UPDATE,
    HEADLESS_ENDPOINT_UPDATE,
    PROXY_UPDATE,
    SERVICE_UPDATE,
    PushRequest,
)

#: Config kinds whose events become a key of their own kind.
CONFIG_KINDS = frozenset(
    (
        "VirtualService",
        "DestinationRule",
        "Gateway",
        "Sidecar",
        "EnvoyFilter",
        "AuthorizationPolicy",
        "PeerAuthentication",
        "RequestAuthentication",
        "Telemetry",
        "WasmPlugin",
        "ProxyConfig",
        "TrafficExtension",
    )
)
_KUBERNETES, _EXTERNAL = "Kubernetes", "External"
_DNS = frozenset({"DNS", "DNS_ROUND_ROBIN"})

Host = tuple[str, str]  # host name, namespace
PushType = Literal["none", "incremental", "full"]


class Target(NamedTuple):
    """A service that selects a proxy: istiod's ServiceTarget."""

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
        self.rules = rules
        self.mesh_config = mesh.mesh_config
        self.trust_domain = str(mesh.mesh_config.get("trustDomain") or "cluster.local")
        autoallocate = mesh.env.get("PILOT_ENABLE_IP_AUTOALLOCATE")
        self._autoallocate = rules.autoallocate_default if autoallocate is None else autoallocate.lower() == "true"
        self._eds_debounce = mesh.env.get("PILOT_ENABLE_EDS_DEBOUNCE", "true").lower() != "false"
        self.objects: dict[Ref, Object] = {}
        self._placed: dict[tuple[str, str], dict[Ref, Object]] = {}
        self.kubernetes: dict[str, Service] = {}
        self.entries: dict[Ref, tuple[Service, ...]] = {}
        self.endpoints: dict[Host, Mapping[str, tuple[Endpoint, ...]]] = {}
        self.accounts: dict[Host, frozenset[str]] = {}
        self._slices: dict[Host, dict[str, tuple[Endpoint, ...]]] = {}
        self._slice_refs: dict[tuple[str, str], dict[str, Ref]] = {}
        self._selectors: dict[str, dict[str, Service]] = {}
        self._pods_by_ip: dict[str, Ref] = {}
        order = ("Namespace", "Node", "Pod", "Service", "EndpointSlice", "WorkloadEntry", "ServiceEntry")
        ranked = sorted(mesh.objects.values(), key=lambda o: order.index(o.ref.kind) if o.ref.kind in order else 99)
        for written in ranked:
            self._write(written)

    def fork(self) -> Registry:
        """An independent copy: what happens to it does not happen to this one."""
        copy = object.__new__(Registry)
        for name, value in self.__dict__.items():
            nested = name in ("_slices", "_slice_refs", "_selectors", "_placed")
            fresh = {k: dict(v) for k, v in value.items()} if nested else value
            setattr(copy, name, dict(fresh) if isinstance(value, dict) else value)
        return copy

    def handle(self, change: Change, *, services_first: bool = False) -> tuple[PushRequest, ...]:
        """Apply a change, object by object, and return the requests its events make, in order.

        A Service and its EndpointSlice written together race on a real istiod (reference §1.6). The slice goes first
        here, as in most recordings; `services_first` is the other outcome.
        """
        later = "EndpointSlice" if services_first else "Service"
        requests: list[PushRequest] = []
        for written in sorted(change.apply, key=lambda o: o.ref.kind == later):
            requests += self._write(written)
        for ref in change.delete:
            requests += self._delete(ref)
        return tuple(requests)

    # ---- services and endpoints as a PushContext or a proxy reads them

    def services(self) -> Iterator[Service]:
        """All services of all registries, Kubernetes first."""
        yield from self.kubernetes.values()
        for services in self.entries.values():
            yield from services

    def all_endpoints(self, host: str, namespace: str) -> tuple[Endpoint, ...]:
        """Endpoints of a service in all shards."""
        return tuple(e for shard in self.endpoints.get((host, namespace), {}).values() for e in shard)

    def pod_of(self, proxy: Proxy) -> Object | None:
        """The pod a proxy runs in."""
        return self.objects.get(Ref("Pod", proxy.namespace, proxy.name))

    def labels_of(self, proxy: Proxy) -> Mapping[str, str]:
        """Workload labels: the pod's, else those the proxy itself reports."""
        pod = self.pod_of(proxy)
        return pod.labels if pod else proxy.labels

    def targets(self, proxy: Proxy) -> tuple[Target, ...]:
        """The services a proxy belongs to, one entry per service port (istiod's GetProxyServiceTargets)."""
        pod, labels = self.pod_of(proxy), self.labels_of(proxy)
        selecting = [
            service
            for _, service in sorted(self._selectors.get(proxy.namespace, {}).items())
            if selects(service.selector, labels)
        ]
        found: list[Target] = []
        for service in selecting:
            targets = dict(service.target_ports)
            for port in service.ports:
                number = targets.get(port.name) or port.number
                if isinstance(number, str):
                    number = (int(number) if number.isdigit() else named_target_port(pod, number) if pod else None) or 0
                if number:
                    found.append(Target(service, port, number))
        if not selecting:
            found += self._targets_by_address(proxy, self._headless_without_selector(proxy.namespace), _KUBERNETES)
        external = [s for ref, ss in self.entries.items() if ref.namespace == proxy.namespace for s in ss]
        return (*found, *self._targets_by_address(proxy, external, _EXTERNAL))

    def _headless_without_selector(self, namespace: str) -> list[Service]:
        return [s for s in self.kubernetes.values() if s.namespace == namespace and not s.selector]

    def _targets_by_address(self, proxy: Proxy, services: Iterable[Service], shard: str) -> Iterator[Target]:
        for service in services:
            ports = {port.name: port for port in service.ports}
            for endpoint in self.endpoints.get((service.hostname, service.namespace), {}).get(shard, ()):
                if endpoint.address == proxy.ip and endpoint.port_name in ports:
                    yield Target(service, ports[endpoint.port_name], endpoint.port)

    # ---- events

    def _write(self, written: Object) -> list[PushRequest]:
        before = self.objects.get(written.ref)
        self.objects[written.ref] = written
        self._placed.setdefault((written.ref.kind, written.ref.namespace), {})[written.ref] = written
        match written.ref.kind:
            case "Service":
                return self._service_written(before, written)
            case "EndpointSlice":
                return self._slice_written(written)
            case "Pod":
                return self._pod_written(before, written)
            case "ServiceEntry":
                return self._entry_written(before, written)
            case "WorkloadEntry":
                return self._workload_changed(before, written)
            case kind if kind in CONFIG_KINDS:
                return self._config_written(before, written)
        return []

    def _delete(self, ref: Ref) -> list[PushRequest]:
        before = self.objects.pop(ref, None)
        if before is None:
            return []
        del self._placed[ref.kind, ref.namespace][ref]
        match ref.kind:
            case "Service":
                return self._service_deleted(before)
            case "EndpointSlice":
                return self._slice_deleted(before)
            case "Pod":
                self._pods_by_ip.pop(str(before.status.get("podIP") or ""), None)
                return self._selecting_entries_changed(before, None)
            case "ServiceEntry":
                return self._entry_deleted(before)
            case "WorkloadEntry":
                return self._workload_changed(before, None)
            case kind if kind in CONFIG_KINDS:
                return self._config_deleted(before)
        return []

    # Kubernetes Services (§1.3, §1.4)

    def _service_written(self, before: Object | None, written: Object) -> list[PushRequest]:
        service = kubernetes_service(written)
        previous = self.kubernetes.get(service.hostname)
        self.kubernetes[service.hostname] = service
        self._index_selector(previous, service)
        host = (service.hostname, service.namespace)
        if self._slice_refs.get((service.namespace, service.name)):
            # the add handler fills the endpoint index without asking for a push
            endpoints = self._kubernetes_endpoints(service.name, service.namespace)
            if endpoints:
                self._update_endpoints(_KUBERNETES, host, endpoints)
        if not self._service_pushes(previous if before else None, service, added=before is None):
            return []
        return [PushRequest(frozenset({service.key}), reasons=frozenset({SERVICE_UPDATE}))]

    def _service_pushes(self, previous: Service | None, current: Service, *, added: bool) -> bool:
        rules = self.rules
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

    def _service_deleted(self, before: Object) -> list[PushRequest]:
        service = kubernetes_service(before)
        self._index_selector(self.kubernetes.pop(service.hostname, None), None)
        self._drop_shard(_KUBERNETES, (service.hostname, service.namespace), keep_key=False)
        if self.rules.hidden_silent and "~" in service.export_to:
            return []
        return [PushRequest(frozenset({service.key}), reasons=frozenset({SERVICE_UPDATE}))]

    def _index_selector(self, previous: Service | None, current: Service | None) -> None:
        if previous and previous.selector:
            self._selectors[previous.namespace].pop(previous.hostname, None)
        if current and current.selector:
            self._selectors.setdefault(current.namespace, {})[current.hostname] = current

    # EndpointSlices (§1.5, §1.6)

    def _slice_written(self, written: Object) -> list[PushRequest]:
        name = written.labels.get(SERVICE_NAME_LABEL)
        if not name:
            return []
        owner = (written.ref.namespace, name)
        self._slice_refs.setdefault(owner, {})[written.ref.name] = written.ref
        if written.body.get("addressType") != "FQDN":
            endpoints = tuple(self._slice_endpoints(written))
            self._slices.setdefault(owner, {})[written.ref.name] = endpoints
        return self._slice_event(name, written.ref.namespace)

    def _slice_deleted(self, before: Object) -> list[PushRequest]:
        name = before.labels.get(SERVICE_NAME_LABEL)
        if not name:
            return []
        owner = (before.ref.namespace, name)
        self._slice_refs.get(owner, {}).pop(before.ref.name, None)
        self._slices.get(owner, {}).pop(before.ref.name, None)
        return self._slice_event(name, before.ref.namespace)

    def _slice_event(self, name: str, namespace: str) -> list[PushRequest]:
        rules, host = self.rules, (fqdn(name, namespace), namespace)
        service = self.kubernetes.get(host[0])
        hidden = service is not None and "~" in service.export_to
        pushed = self._update_endpoints(_KUBERNETES, host, self._kubernetes_endpoints(name, namespace))
        if hidden and rules.hidden_silent:
            return []
        requests = self._endpoint_request(host, pushed)
        if service is not None and service.headless and not (hidden and rules.headless_hidden_silent):
            requests += self._headless_request(service)
        return requests

    def _endpoint_request(self, host: Host, pushed: PushType) -> list[PushRequest]:
        if pushed == "none":
            return []
        kind = "ServiceEntry" if pushed == "full" else self.rules.endpoint_kind
        return [
            PushRequest(frozenset({ConfigKey(kind, *host)}), pushed == "full", reasons=frozenset({ENDPOINT_UPDATE}))
        ]

    def _headless_request(self, service: Service) -> list[PushRequest]:
        rules, key = self.rules, service.key
        if rules.headless_second_request == "dnsname" and all(port.http for port in service.ports):
            key = key._replace(kind="DNSName")
        reason = HEADLESS_ENDPOINT_UPDATE if rules.headless_reason else ENDPOINT_UPDATE
        return [PushRequest(frozenset({key}), reasons=frozenset({reason}))]

    def _kubernetes_endpoints(self, name: str, namespace: str) -> tuple[Endpoint, ...]:
        """Endpoints of all slices of a service, each address and port once; WorkloadEntries it selects, too."""
        found: dict[tuple[str, str], Endpoint] = {}
        for endpoints in self._slices.get((namespace, name), {}).values():
            for endpoint in endpoints:
                found.setdefault((endpoint.address, endpoint.port_name), endpoint)
        service = self.kubernetes.get(fqdn(name, namespace))
        if service is not None and service.selector:
            for entry in self._workloads(namespace, service.selector):
                for endpoint in workload_endpoints(_merged_labels(entry), service, namespace, self.trust_domain):
                    found.setdefault((endpoint.address, endpoint.port_name), endpoint)
        return tuple(found.values())

    def _slice_endpoints(self, written: Object) -> Iterator[Endpoint]:
        namespace = written.ref.namespace
        for item in written.body.get("endpoints") or ():
            ready = (item.get("conditions") or {}).get("ready") is not False
            if not ready and not self.rules.unready_kept:
                continue
            for address in item.get("addresses") or ():
                ref = item.get("targetRef") or {}
                if ref.get("kind") == "Pod":
                    pod = self.objects.get(Ref("Pod", str(ref.get("namespace") or namespace), str(ref.get("name"))))
                    if pod is None:
                        continue  # istiod waits for the pod's event
                else:
                    pod = self.objects.get(self._pods_by_ip.get(address, Ref("Pod", "", "")))
                    if pod is not None and pod.ref.namespace != namespace:
                        pod = None
                for port in written.body.get("ports") or ():
                    yield self._endpoint(str(address), port, pod, item, ready)

    def _endpoint(
        self, address: str, port: Mapping[str, Any], pod: Object | None, item: Mapping[str, Any], ready: bool
    ) -> Endpoint:
        labels = pod.labels if pod else {}
        node_name = (pod.spec.get("nodeName") if pod else None) or item.get("nodeName")
        node = self.objects.get(Ref("Node", "", str(node_name or "")))
        zones = node.labels if node else {}
        locality = labels.get("istio-locality", "").replace(".", "/") or "/".join(
            zones.get(label) or zones.get(old) or ""
            for label, old in (
                ("topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"),
                ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"),
                ("topology.istio.io/subzone", ""),
            )
        )
        return Endpoint(
            address=address,
            port=int(port.get("port") or 0),
            port_name=str(port.get("name") or ""),
            labels=pairs(labels),
            account=account(str(pod.spec.get("serviceAccountName") or "default"), pod.ref.namespace, self.trust_domain)
            if pod
            else "",
            locality=locality.rstrip("/"),
            healthy=ready,
            tls=str(labels.get(TLS_MODE_LABEL) or ""),
            workload=_workload_name(pod) if pod else "",
            network=str(labels.get("topology.istio.io/network") or ""),
            host=str(item.get("hostname") or ""),
        )

    # endpoint index

    def _update_endpoints(self, shard: str, host: Host, endpoints: tuple[Endpoint, ...]) -> PushType:
        """istiod's UpdateServiceEndpoints: store a shard's list, say which push it needs."""
        if not endpoints:
            self._drop_shard(shard, host, keep_key=True)
            return "incremental"
        shards = self.endpoints.get(host)
        old = (shards or {}).get(shard)
        self.endpoints[host] = {**(shards or {}), shard: endpoints}
        accounts = frozenset(e.account for s in self.endpoints[host].values() for e in s if e.account)
        changed = accounts != self.accounts.get(host, frozenset())
        self.accounts[host] = accounts
        if shards is None or changed:
            return "full"
        return "incremental" if self._list_pushes(old, endpoints) else "none"

    def _drop_shard(self, shard: str, host: Host, *, keep_key: bool) -> None:
        shards = self.endpoints.get(host)
        if shards is None:
            return
        left = {key: value for key, value in shards.items() if key != shard}
        if left or keep_key:
            self.endpoints[host] = left
            if self.rules.accounts_forgotten:
                self.accounts[host] = frozenset(e.account for s in left.values() for e in s if e.account)
        else:
            del self.endpoints[host]
            self.accounts.pop(host, None)

    def _list_pushes(self, old: tuple[Endpoint, ...] | None, new: tuple[Endpoint, ...]) -> bool:
        rule = self.rules.endpoint_comparison
        if old is None or rule == "never":
            return True
        by_port = rule == "any"
        before = {(e.address, e.port_name if by_port else ""): e for e in old}
        after = {(e.address, e.port_name if by_port else ""): e for e in new}
        for key, endpoint in after.items():
            known = before.get(key)
            if known is None:
                if endpoint.healthy and rule != "health-removed":
                    return True
            elif known != endpoint if by_port else known.healthy != endpoint.healthy:
                return True
        return not before.keys() <= after.keys()

    # Pods

    def _pod_written(self, before: Object | None, written: Object) -> list[PushRequest]:
        ip = str(written.status.get("podIP") or "")
        if not ip:
            return []
        self._pods_by_ip[ip] = written.ref
        namespace, name = written.ref.namespace, written.ref.name
        requests: list[PushRequest] = []
        added = before is None or not before.status.get("podIP")
        relabelled = not added and before is not None and before.labels != written.labels
        if added or (relabelled and self.rules.pod_labels != "none"):
            requests.append(PushRequest(forced=True, reasons=frozenset({PROXY_UPDATE}), proxy=ip))
        rebuild = relabelled and self.rules.pod_labels == "proxy-and-endpoints"
        for owner in self._owners(namespace) if added or rebuild else ():
            naming = [ref for ref in self._slice_refs[owner].values() if _names_pod(self.objects[ref], name)]
            if not naming:
                continue
            known = self._slices.get(owner, {})
            refreshed = {ref.name: tuple(self._slice_endpoints(self.objects[ref])) for ref in naming}
            if any(known.get(key) != value for key, value in refreshed.items()):
                self._slices[owner] = {**known, **refreshed}
                requests += self._slice_event(owner[1], namespace)
        return requests + self._selecting_entries_changed(before, written)

    def _owners(self, namespace: str) -> list[tuple[str, str]]:
        """(namespace, name) of the Services of a namespace that have slices."""
        slices = self._placed.get(("EndpointSlice", namespace), {}).values()
        return list(dict.fromkeys((namespace, n) for o in slices if (n := o.labels.get(SERVICE_NAME_LABEL))))

    # ServiceEntries and WorkloadEntries (§1.7)

    def _entry_written(self, before: Object | None, written: Object) -> list[PushRequest]:
        services = service_entry_services(written)
        old = self.entries.get(written.ref, ())
        self.entries[written.ref] = services
        if before is None:
            updated = set(services)
            deleted: tuple[Service, ...] = ()
        else:
            known = {service.hostname: service for service in old}
            always = self._entry_always_full(written)
            retargeted = _target_ports(before) != _target_ports(written)
            updated = {s for s in services if always or retargeted or known.get(s.hostname) != s}
            deleted = tuple(s for s in old if s.hostname not in {service.hostname for service in services})
        return self._entry_events(written.ref.namespace, services, updated, deleted)

    def _entry_always_full(self, written: Object) -> bool:
        """Addresses allocated in process make every update look like one of the service (§1.7 ★)."""
        rule, spec = self.rules.service_entry_always_full, written.spec
        in_process = rule == "always" or (rule == "without-autoallocate" and not self._autoallocate)
        fixed = spec.get("addresses") or str(spec.get("resolution") or "NONE") == "NONE"
        return in_process and not fixed and not any(str(host).startswith("*") for host in spec.get("hosts") or ())

    def _entry_deleted(self, before: Object) -> list[PushRequest]:
        services = self.entries.pop(before.ref, ())
        return self._entry_events(before.ref.namespace, (), set(), services)

    def _entry_events(
        self, namespace: str, services: tuple[Service, ...], updated: set[Service], deleted: tuple[Service, ...]
    ) -> list[PushRequest]:
        keys = {s.key for s in (*updated, *deleted)}
        keys |= {s.key for s in services if s not in updated and s.resolution in _DNS}
        requests: list[PushRequest] = []
        if keys:
            requests.append(PushRequest(frozenset(keys), reasons=frozenset({SERVICE_UPDATE})))
        for service in (*services, *deleted):
            pushed = self._refresh_external(service.hostname, namespace)
            if not keys:
                requests += self._endpoint_request((service.hostname, namespace), pushed)
        return requests

    def _refresh_external(self, host: str, namespace: str) -> PushType:
        """Recompute the ServiceEntry registry's shard of a host from all that makes endpoints for it."""
        endpoints: list[Endpoint] = []
        exists = False
        for ref, services in self.entries.items():
            for service in services:
                if ref.namespace != namespace or service.hostname != host:
                    continue
                exists = True
                endpoints += self._entry_endpoints(self.objects[ref], service)
        if not exists:
            self._drop_shard(_EXTERNAL, (host, namespace), keep_key=False)
            return "incremental"
        return self._update_endpoints(_EXTERNAL, (host, namespace), tuple(dict.fromkeys(endpoints)))

    def _entry_endpoints(self, entry: Object, service: Service) -> Iterator[Endpoint]:
        spec, namespace = entry.spec, entry.ref.namespace
        inline: list[Mapping[str, Any]] = list(spec.get("endpoints") or ())
        if service.selector:
            inline += [_merged_labels(o) for o in self._workloads(namespace, service.selector)]
            inline += [_pod_workload(o) for o in self._pods(namespace, service.selector)]
        elif not inline and service.resolution in _DNS:
            inline = [{"address": service.hostname}]
        for item in inline:
            yield from workload_endpoints(item, service, namespace, self.trust_domain)

    def _workloads(self, namespace: str, selector: Iterable[tuple[str, str]]) -> list[Object]:
        entries = self._placed.get(("WorkloadEntry", namespace), {}).values()
        return [o for o in entries if selects(selector, _merged_labels(o)["labels"])]

    def _pods(self, namespace: str, selector: Iterable[tuple[str, str]]) -> list[Object]:
        pods = self._placed.get(("Pod", namespace), {}).values()
        return [o for o in pods if o.status.get("podIP") and selects(selector, o.labels)]

    def of_kind(self, kind: str) -> dict[Ref, Object]:
        """All objects of a kind."""
        return {ref: o for (k, _), placed in self._placed.items() if k == kind for ref, o in placed.items()}

    def _workload_changed(self, before: Object | None, written: Object | None) -> list[PushRequest]:
        requests: list[PushRequest] = []
        current = written or before
        assert current is not None
        if written is not None and (before is None or _merged_labels(before) != _merged_labels(written)):
            address = str(written.spec.get("address") or "")
            requests.append(PushRequest(forced=True, reasons=frozenset({PROXY_UPDATE}), proxy=address))
        namespace = current.ref.namespace
        for service in self._selectors.get(namespace, {}).values():
            if any(o and selects(service.selector, _merged_labels(o)["labels"]) for o in (before, written)):
                requests += self._slice_event(service.name, namespace)
        return requests + self._selecting_entries_changed(before, written)

    def _selecting_entries_changed(self, before: Object | None, written: Object | None) -> list[PushRequest]:
        """ServiceEntries whose workloadSelector picks (or picked) this pod or WorkloadEntry."""
        current = written or before
        assert current is not None
        requests: list[PushRequest] = []
        dns_keys: set[ConfigKey] = set()
        for ref, services in self.entries.items():
            for service in services:
                if ref.namespace != current.ref.namespace or not service.selector:
                    continue
                if not any(o and selects(service.selector, _merged_labels(o)["labels"]) for o in (before, written)):
                    continue
                pushed = self._refresh_external(service.hostname, ref.namespace)
                if service.resolution in _DNS:
                    dns_keys.add(service.key)
                else:
                    requests += self._endpoint_request((service.hostname, ref.namespace), pushed)
        if dns_keys:
            requests.append(PushRequest(frozenset(dns_keys), reasons=frozenset({ENDPOINT_UPDATE})))
        return requests

    # Istio configuration (§1.3, §1.8, §1.9)

    def _config_written(self, before: Object | None, written: Object) -> list[PushRequest]:
        if written.ref.kind == "VirtualService" and not self.rules.delegate_keys:
            return self._merged_routes_changed(before, written)
        if before is not None and not self._config_pushes(before, written):
            return []
        return self._config_request(written.ref)

    def _config_deleted(self, before: Object) -> list[PushRequest]:
        if before.ref.kind == "VirtualService" and not self.rules.delegate_keys:
            return self._merged_routes_changed(before, None)
        return self._config_request(before.ref)

    def _config_request(self, ref: Ref) -> list[PushRequest]:
        keys = {ConfigKey(ref.kind, ref.name, ref.namespace)}
        if ref.kind == "WasmPlugin" and "TrafficExtension" in self.rules.cluster_kinds:
            translated = ConfigKey("TrafficExtension", f"{ref.name}~istio-translated-wasmplugin", ref.namespace)
            keys = keys | {translated} if self.rules.has_full else {translated}
        return [PushRequest(frozenset(keys), reasons=frozenset({CONFIG_UPDATE}))]

    def _config_pushes(self, before: Object, written: Object) -> bool:
        looked_at = (before, written) if self.rules.update_compares_previous else (written,)
        if any("istio.io" in key for o in looked_at for key in (*o.labels, *o.annotations)):
            return True
        return before.spec != written.spec

    def _merged_routes_changed(self, before: Object | None, written: Object | None) -> list[PushRequest]:
        """1.30+: events come from merged VirtualServices, so only roots have keys."""
        current = written or before
        assert current is not None
        requests: list[PushRequest] = []
        is_root = [bool(o.spec.get("hosts")) for o in (before, written) if o is not None]
        if any(is_root) and (before is None or written is None or self._config_pushes(before, written)):
            requests += self._config_request(current.ref)
        if not all(is_root):
            changed = before is None or written is None or before.spec != written.spec
            for ref, root in self.of_kind("VirtualService").items():
                if changed and current.ref in delegates(root):
                    requests += self._config_request(ref)
        return requests


def delegates(root: Object) -> list[Ref]:
    """The delegate VirtualServices a root VirtualService names."""
    named = [route["delegate"] for route in root.spec.get("http") or () if route.get("delegate")]
    return [Ref("VirtualService", str(d.get("namespace") or root.ref.namespace), str(d.get("name"))) for d in named]


def _merged_labels(body: Object) -> dict[str, Any]:
    """A WorkloadEntry's spec with its metadata labels laid over its spec labels; a pod's labels alone."""
    if body.ref.kind == "Pod":
        return {"labels": dict(body.labels)}
    return {**body.spec, "labels": {**(body.spec.get("labels") or {}), **body.labels}}


def _pod_workload(pod: Object) -> dict[str, Any]:
    return {
        "address": pod.status.get("podIP"),
        "labels": dict(pod.labels),
        "serviceAccount": pod.spec.get("serviceAccountName") or "default",
    }


def _workload_name(pod: Object) -> str:
    """The name istiod gives a pod's workload: its controller's, a ReplicaSet's without the hash, else the pod's."""
    for owner in pod.metadata.get("ownerReferences") or ():
        if owner.get("controller"):
            name = str(owner.get("name"))
            hashed = owner.get("kind") == "ReplicaSet" and "pod-template-hash" in pod.labels
            return name.removesuffix("-" + pod.labels["pod-template-hash"]) if hashed else name
    return pod.ref.name


def _names_pod(written: Object, pod: str) -> bool:
    refs = (item.get("targetRef") or {} for item in written.body.get("endpoints") or ())
    return any(ref.get("kind") == "Pod" and ref.get("name") == pod for ref in refs)


def _target_ports(entry: Object) -> list[Any]:
    return [port.get("targetPort") for port in entry.spec.get("ports") or ()]
