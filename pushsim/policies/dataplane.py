"""Policies about the proxies themselves: sidecars given up for ambient, a gateway of one's own for each tenant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from pushsim.mesh import Mesh, Object, Ref
from pushsim.policies.base import Policy
from pushsim.settings import MOST_REPLICAS, Settings
from pushsim.topology.generate import pod_addresses, service_addresses
from pushsim.topology.objects import Body, Template, edited, endpoint, proxy_of, timestamp
from pushsim.topology.seeds import suffix
from pushsim.topology.selection import Labels, Positive, has_labels, in_namespaces

_MODE = "istio.io/dataplane-mode"
_ZONE = "topology.kubernetes.io/zone"


class Ambient(Policy):
    """Namespaces moved to ambient: their sidecars are gone; modelled in part: ztunnels and waypoints are left out.

    What istiod sends to ztunnels (Address and Authorization resources) and to waypoints, and the CPU for it, is not
    modelled: bytes, pushes and istiod's CPU are lower bounds. What remaining sidecars and gateways get is taken to be
    as if the moved pods still had a sidecar (their endpoints' HBONE metadata is not).
    """

    name: ClassVar[str] = "ambient"
    namespaces: list[str] = Field(default_factory=list, description="which, `*` allowed; default: all but system ones")

    def admit(self, subject: Object, mesh: Mesh) -> Object:
        if subject.ref.kind == "Namespace" and in_namespaces(subject.ref.name, self.namespaces):
            if subject.labels.get(_MODE) == "ambient" and "istio-injection" not in subject.labels:
                return subject
            kept = {key: value for key, value in subject.labels.items() if key != "istio-injection"}
            return edited(subject, metadata={"labels": {**kept, _MODE: "ambient"}})
        if subject.ref.kind != "Pod" or not in_namespaces(subject.ref.namespace, self.namespaces):
            return subject
        proxy = proxy_of(subject)
        if proxy is None or proxy.type != "sidecar":
            return subject
        lists = ("containers", "initContainers")
        spec = {key: _without_proxy(subject.spec[key]) for key in lists if subject.spec.get(key)}
        return edited(subject, spec={**subject.spec, **spec})

    def notes(self, settings: Settings) -> tuple[str, ...]:
        return (
            "ambient: what ztunnels and waypoints get is not modelled: pushes, bytes and istiod's CPU are lower bounds",
        )


def _without_proxy(containers: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [container for container in containers if container.get("name") != "istio-proxy"]


class TenantIngress(Policy):
    """A gateway per tenant: each namespace with routes at a shared gateway gets its own, and its routes move there."""

    name: ClassVar[str] = "tenant-ingress"
    namespaces: list[str] = Field(
        default_factory=list, description="the tenants, `*` allowed; default: all but system ones with such routes"
    )
    labels: Labels = Field(default_factory=dict, description="labels that the tenants' Namespaces must have")
    replicas: Positive = Field(default=1, le=MOST_REPLICAS, description="gateway pods of each tenant")
    gateway: str = Field(default="tenant-ingress", description="name of the tenants' Gateways and Services")

    def admit(self, subject: Object, mesh: Mesh) -> Object:
        """VirtualServices of tenants leave the gateways of other namespaces for their own; `mesh` stays."""
        if subject.ref.kind != "VirtualService" or not self._is_tenant(subject.ref.namespace, mesh):
            return subject
        bound = [str(gateway) for gateway in subject.spec.get("gateways") or ()]
        home = f"{subject.ref.namespace}/"
        foreign = [gateway for gateway in bound if "/" in gateway and not gateway.startswith((home, "./"))]
        moved = list(dict.fromkeys(home + self.gateway if gateway in foreign else gateway for gateway in bound))
        return subject if moved == bound else edited(subject, spec={**subject.spec, "gateways": moved})

    def install(self, mesh: Mesh) -> tuple[Object, ...]:
        own = {
            route.ref.namespace
            for route in mesh.of_kind("VirtualService")
            if f"{route.ref.namespace}/{self.gateway}" in (route.spec.get("gateways") or ())
        }
        tenants = sorted(space for space in own if self._is_tenant(space, mesh))
        pod_ips = pod_addresses(str(pod.status.get("podIP")) for pod in mesh.of_kind("Pod"))
        service_ips = service_addresses(str(held.spec.get("clusterIP")) for held in mesh.of_kind("Service"))
        nodes = [(node.ref.name, node.labels.get(_ZONE, "")) for node in mesh.of_kind("Node")] or [("node-000", "")]
        created = max((held.creation for held in mesh.objects.values()), default="") or timestamp(0)
        made: list[Object] = []
        for place, tenant in enumerate(tenants):
            selector = {"istio": f"{self.gateway}-{tenant}"}
            template = self._template(tenant, selector)
            made.append(template.service_object(next(service_ips), created, type="LoadBalancer"))
            entries: list[Body] = []
            for index in range(self.replicas):
                address, (node, zone) = next(pod_ips), nodes[(place * self.replicas + index) % len(nodes)]
                pod = template.pod(f"{template.stem}-{suffix(index)}", address, node, created)
                entries.append(endpoint(pod.ref, address, node, zone))
                made.append(pod)
            made += template.slices(entries, created, place)
            made.append(self._gateway(tenant, selector, mesh))
        return tuple(made)

    def _is_tenant(self, namespace: str, mesh: Mesh) -> bool:
        if not in_namespaces(namespace, self.namespaces):
            return False
        held = mesh.objects.get(Ref("Namespace", "", namespace))
        return not self.labels or (held is not None and has_labels(held.labels, self.labels))

    def _template(self, tenant: str, labels: dict[str, str]) -> Template:
        return Template.of(
            tenant,
            self.gateway,
            labels,
            (("status-port", 15021, 15021), ("http2", 80, 8080), ("https", 443, 8443)),
            replica_set=suffix(1, 10),
            sidecar=False,
            router=True,
            account=self.gateway,
        )

    def _gateway(self, tenant: str, selector: dict[str, str], mesh: Mesh) -> Object:
        """The tenant's Gateway: the servers of all shared ones, as far as they may be bound from there."""
        servers: list[Mapping[str, Any]] = []
        for server in self._shared_servers(mesh):
            if server not in servers:
                servers.append(server)
        default = {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}
        spec = {"selector": selector, "servers": servers or [default]}
        meta = {"name": self.gateway, "namespace": tenant}
        body = {"apiVersion": "networking.istio.io/v1beta1", "kind": "Gateway", "metadata": meta, "spec": spec}
        return Object(Ref("Gateway", tenant, self.gateway), body, "policy")

    def _shared_servers(self, mesh: Mesh) -> Iterator[Mapping[str, Any]]:
        for held in mesh.of_kind("Gateway"):
            if held.ref.name != self.gateway and not in_namespaces(held.ref.namespace, self.namespaces):
                yield from held.spec.get("servers") or ()
