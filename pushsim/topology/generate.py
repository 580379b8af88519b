"""A seeded synthetic mesh: objects as an API server would hold them, and the proxies that connect."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pushsim.agents import metadata_of
from pushsim.errors import InputError, Problem
from pushsim.mesh import Mesh, Object, Proxy, ProxyType, Ref
from pushsim.secrets import usual
from pushsim.topology.objects import Body, Template, endpoint, make, timestamp
from pushsim.topology.seeds import Stream, suffix
from pushsim.topology.selection import in_namespaces
from pushsim.topology.spec import App, Generate

GATEWAY = "istio-ingressgateway"
_GATEWAY_LABELS = {"istio": "ingressgateway", "istio.io/rev": "default"}
_GATEWAY_PORTS = (("status-port", 15021, 15021), ("http2", 80, 8080), ("https", 443, 8443))
#: Room for addresses: pods in 10.0.0.0/8, services in 172.16.0.0/12.
_POD_NET, _POD_ROOM = 10 << 24, 1 << 24
_SERVICE_NET, _SERVICE_ROOM = (172 << 24) + (16 << 16), 1 << 20


def dotted(address: int) -> str:
    """An IPv4 address as text."""
    return f"{address >> 24}.{address >> 16 & 255}.{address >> 8 & 255}.{address & 255}"


def addresses(net: int, room: int, taken: Iterable[str] = ()) -> Iterator[str]:
    """Free addresses of a network in order; raises InputError when it is full."""
    used = frozenset(taken)
    for address in range(net + 1, net + room - 1):
        text = dotted(address)
        if text not in used:
            yield text
    raise InputError(Problem(f"the mesh needs more than {room} addresses", remedy="make the generated mesh smaller"))


def pod_addresses(taken: Iterable[str] = ()) -> Iterator[str]:
    """Pod IPs: 10.0.0.1 and on."""
    return addresses(_POD_NET, _POD_ROOM, taken)


def service_addresses(taken: Iterable[str] = ()) -> Iterator[str]:
    """Cluster IPs: 172.16.0.1 and on."""
    return addresses(_SERVICE_NET, _SERVICE_ROOM, taken)


def generate(spec: Generate, seed: int, beside: Mesh | None = None) -> Mesh:
    """The mesh of that description: the same for the same spec and seed, on any machine.

    beside: a mesh it will share a cluster with: its addresses stay free. Objects are in order of creation, a second
    apart. A pod that is a proxy is as injection leaves it.
    """
    return Mesh(*_Builder(spec, seed, beside or Mesh()).build())


def services_of(app: App, namespaces: list[str], stream: Stream) -> Iterator[tuple[str, str]]:
    """(namespace, name) of the services of that app."""
    if app.total is not None:
        if app.total and not namespaces:
            return
        for index in range(app.total):
            yield namespaces[index % len(namespaces)], f"{app.name}-{index // len(namespaces)}"
        return
    for namespace in namespaces:
        count = stream.between(*app.per_namespace)
        single = app.per_namespace == (1, 1)
        yield from ((namespace, app.name if single else f"{app.name}-{index}") for index in range(count))


class _Builder:
    """One mesh in the making."""

    def __init__(self, spec: Generate, seed: int, beside: Mesh) -> None:
        self.spec, self.seed = spec, seed
        self.objects: dict[Ref, Object] = {}
        self.proxies: list[Proxy] = []
        self.pod_ips = pod_addresses(str(pod.status.get("podIP")) for pod in beside.of_kind("Pod"))
        self.service_ips = service_addresses(str(held.spec.get("clusterIP")) for held in beside.of_kind("Service"))
        self.nodes: list[tuple[str, str]] = []
        self.placed = 0
        self.routes = Stream(seed, "generate/routes")

    def add(self, created: Object) -> None:
        if created.ref in self.objects:
            remedy = "give one of the apps another name or namespace"
            raise InputError(
                Problem(f"two generated objects are called {created.ref}", "", "mesh.generate.apps", remedy)
            )
        self.objects[created.ref] = created

    def now(self) -> str:
        return timestamp(len(self.objects))

    def build(self) -> tuple[Mapping[Ref, Object], tuple[Proxy, ...]]:
        spec = self.spec
        labelled = spec.namespace_labels()
        plan: list[tuple[App, str, str, int]] = []
        for app in spec.apps:
            stream = Stream(self.seed, f"generate/{app.name}")
            spaces = [name for name in labelled if in_namespaces(name, app.namespaces)]
            for namespace, name in services_of(app, spaces, stream):
                plan.append((app, namespace, name, stream.between(*app.pods)))
        self._nodes(sum(pods for *_, pods in plan) + spec.gateways.count)
        injected = {namespace for app, namespace, _, _ in plan if app.sidecar}
        for name, labels in labelled.items():
            self.add(namespace_object(name, labels, self.now(), injected=name in injected))
        if spec.gateways.count:
            self._gateways()
        names = Stream(self.seed, "generate/names")
        for app, namespace, name, pods in plan:
            self._service(app, namespace, name, pods, names.word())
        return self.objects, tuple(self.proxies)

    def _nodes(self, pods: int) -> None:
        for index in range(self.spec.nodes or max(1, -(-pods // 50))):
            zone = f"r-{chr(ord('a') + index % self.spec.zones)}"
            labels = {"topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": zone}
            node = make("Node", "", f"node-{index:03d}", self.now(), labels=labels, spec={}, status={})
            self.nodes.append((node.ref.name, zone))
            self.add(node)

    def _gateways(self) -> None:
        where = self.spec.gateways.namespace
        template = Template.of(
            where,
            GATEWAY,
            _GATEWAY_LABELS,
            _GATEWAY_PORTS,
            replica_set=suffix(1, 10),
            sidecar=False,
            router=True,
            account=f"{GATEWAY}-service-account",
        )
        self._workload(template, self.spec.gateways.count, 0, type="LoadBalancer")
        servers: list[Body] = [{"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}]
        for index in range(self.spec.gateways.certificates):
            name = certificate_name(index)
            self.add(make("Secret", where, name, self.now(), **usual(suffix(index, 12))))
            port = {"number": 443, "name": f"https-{index}", "protocol": "HTTPS"}
            tls = {"mode": "SIMPLE", "credentialName": name}
            servers.append({"port": port, "hosts": [f"site-{index}.example.com"], "tls": tls})
        selector = {"istio": "ingressgateway"}
        self.add(make("Gateway", where, "gateway", self.now(), spec={"selector": selector, "servers": servers}))

    def _service(self, app: App, namespace: str, name: str, pods: int, word: int) -> None:
        template = Template.of(
            namespace,
            name,
            app.labels,
            [(port, number, number) for port, number in app.ports.items()],
            replica_set=suffix(word, 10),
            sidecar=app.sidecar,
            headless=app.headless,
            account=app.account,
        )
        self._workload(template, pods, word)
        if app.destination_rule:
            self.add(make("DestinationRule", namespace, name, self.now(), spec=destination_rule(namespace, name)))
        if self._routed(app, namespace, name):
            route = routed(namespace, name, next(iter(app.ports.values())))
            gateway = f"{self.spec.gateways.namespace}/gateway"
            body = {"hosts": [f"{name}.{namespace}.example.com"], "gateways": [gateway], "http": [{"route": [route]}]}
            self.add(make("VirtualService", namespace, name, self.now(), spec=body))

    def _routed(self, app: App, namespace: str, name: str) -> bool:
        wanted = self.spec.gateways.virtual_services
        if not self.spec.gateways.count or wanted == "none" or app.headless:
            return False
        if isinstance(wanted, float):
            return self.routes.chance(wanted)
        return wanted == "all" or app.name in wanted

    def _workload(self, template: Template, count: int, word: int, **service: Any) -> None:
        """A Service with its pods, endpoints and proxies; pods go to nodes in turn."""
        address = "" if template.headless else next(self.service_ips)
        self.add(template.service_object(address, self.now(), **service))
        endpoints = []
        for index in range(count):
            ip = next(self.pod_ips)
            node, zone = self.nodes[self.placed % len(self.nodes)]
            self.placed += 1
            end = str(index) if template.headless else suffix(word + 1 + index)
            pod = template.pod(f"{template.stem}-{end}", ip, node, self.now())
            self.add(pod)
            endpoints.append(endpoint(pod.ref, ip, node, zone))
            if template.sidecar or template.router:
                kind: ProxyType = "router" if template.router else "sidecar"
                where = template.namespace
                told = metadata_of(pod)
                self.proxies.append(Proxy(pod.ref.name, where, ip, kind, template.pod_labels, template.account, told))
        for part in template.slices(endpoints, self.now(), word):
            self.add(part)


def certificate_name(index: int) -> str:
    """The Secret of a gateway's certificate."""
    return f"gateway-certificate-{index}"


def namespace_object(name: str, labels: Mapping[str, str], created: str, *, injected: bool) -> Object:
    """A Namespace; injected ones carry the label that Istio's injection asks for."""
    inject = {"istio-injection": "enabled"} if injected else {}
    return make("Namespace", "", name, created, labels={"kubernetes.io/metadata.name": name, **inject, **labels})


def routed(namespace: str, name: str, port: int) -> dict[str, Any]:
    """A VirtualService's route destination: that port of that service."""
    return {"destination": {"host": f"{name}.{namespace}.svc.cluster.local", "port": {"number": port}}}


def destination_rule(namespace: str, name: str, timeout: str = "10s") -> dict[str, Any]:
    """A DestinationRule's spec for that service."""
    pool = {"connectionPool": {"tcp": {"connectTimeout": timeout}}}
    return {"host": f"{name}.{namespace}.svc.cluster.local", "trafficPolicy": pool}
