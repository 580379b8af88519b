"""Random objects of a mesh: a maker per kind, which creates an object or replaces it by another shape of it."""

from __future__ import annotations

from random import Random
from typing import Any, Literal

from pushsim.randomcase import shapes
from pushsim.randomcase.shapes import Json

Kinds = Literal["all", "core"]

_NETWORKING = "networking.istio.io/v1beta1"
_SECURITY = "security.istio.io/v1beta1"
ROOT = "istio-system"
_PORTS = {
    "http": {"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"},
    "tcp": {"name": "tcp", "port": 9000, "targetPort": 8080, "protocol": "TCP"},
    "auto": {"name": "", "port": 7070, "targetPort": 8080, "protocol": "TCP"},
    "grpc": {"name": "grpc", "port": 5050, "targetPort": 8081, "protocol": "TCP"},
    "app": {"name": "web", "port": 6060, "targetPort": 8080, "protocol": "TCP", "appProtocol": "http"},
    "tls": {"name": "tls", "port": 8443, "targetPort": 8443, "protocol": "TCP"},
    "admin": {"name": "http-admin", "port": 8081, "targetPort": 8080, "protocol": "TCP"},
}
_CORE_PORTS = ("http", "tcp", "grpc", "admin")
_MORE_PORTS = {**_PORTS, **shapes.PORTS}
ROLES = ("web", "train")


class Objects:
    """The mesh as it is built and changed: every object by kind, namespace and name."""

    def __init__(self, seed: int, kinds: Kinds) -> None:
        self.random = Random(f"pushsim case {seed} {kinds}")
        self.wide = kinds == "all"
        self.objects: dict[tuple[str, str, str], Json] = {}
        self.proxies: list[Json] = []
        self.namespaces = [f"n{i}" for i in range(self.random.randint(3, 5))]
        self.pods: dict[tuple[str, str], list[str]] = {}
        self.strays: dict[tuple[str, str], list[str]] = {}  # addresses of a service's endpoints that are no pod's
        self.services = 0
        self.gone: list[Json] = []

    # -- helpers

    def put(self, body: Json) -> Json:
        meta = body["metadata"]
        self.objects[body["kind"], meta.get("namespace", ""), meta["name"]] = body
        return body

    def held(self, *kinds: str) -> list[Json]:
        return [body for (kind, _, _), body in self.objects.items() if kind in kinds]

    def flip(self, chance: float) -> bool:
        return self.random.random() < chance

    def pick(self, *options: Any) -> Any:
        return self.random.choice(options)

    def anywhere(self) -> str:
        return self.random.choice([*self.namespaces, ROOT])

    def hosts(self) -> list[tuple[str, str]]:
        found = [(b["metadata"]["name"], b["metadata"]["namespace"]) for b in self.held("Service")]
        return [(name, namespace) for name, namespace in found if namespace != ROOT] or [("nobody", self.namespaces[0])]

    def host(self) -> str:
        name, namespace = self.random.choice(self.hosts())
        return f"{name}.{namespace}.svc.cluster.local"

    def export_to(self) -> list[str] | None:
        if not self.flip(0.4):
            return None
        options = [["."], ["*"], [self.random.choice(self.namespaces)]]
        if self.wide:
            options += [["~"], [".", self.random.choice(self.namespaces)]]
        return self.random.choice(options)

    def exported(self, spec: Json) -> Json:
        export_to = self.export_to()
        return {**spec, "exportTo": export_to} if export_to else spec

    def node(self) -> str:
        return f"node-{self.random.randint(1, 3)}" if self.wide else "node-1"

    # -- services and what is behind them

    def pod(self, app: str, namespace: str, ip: str, labels: Json, kind: str = "sidecar") -> None:
        """A pod, and the proxy of that type in it, or none ("")."""
        names = self.pods.setdefault((app, namespace), [])
        name = f"{app}-{len(names)}" if kind else f"{app}-x"
        names.append(name)
        spec = {
            "nodeName": self.node(),
            "serviceAccountName": "default",
            "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 8080}]}],
        }
        ready = [{"type": "Ready", "status": "True"}]
        status = {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": ready}
        self.put({**head("v1", "Pod", namespace, name, labels=labels), "spec": spec, "status": status})
        if kind:
            proxy = {"name": name, "namespace": namespace, "ip": ip, "type": kind, "labels": labels}
            asks = {"metadata": {"DNS_CAPTURE": "true"}} if self.wide and self.flip(0.15) else {}
            self.proxies.append(proxy | asks)

    def external(self, app: str, namespace: str) -> bool:
        """Whether an app's service is an ExternalName, for which Kubernetes writes no slices."""
        service = self.objects.get(("Service", namespace, app))
        return service is not None and service["spec"]["type"] == "ExternalName"

    def slice(self, app: str, namespace: str, suffix: str = "1", ready: list[str] | None = None) -> list[Json]:
        """The endpoints of a service: the pods that are given, or all, each ready, or now and then not; and strays."""
        if self.external(app, namespace):
            return []
        service = self.objects.get(("Service", namespace, app))
        names = self.pods.get((app, namespace), []) if ready is None else ready
        endpoints = []
        for name in names:
            address = self.objects["Pod", namespace, name]["status"]["podIP"]
            conditions = {"ready": ready is None or not self.wide or not self.flip(0.15)}
            target = {"kind": "Pod", "name": name, "namespace": namespace}
            node = self.objects["Pod", namespace, name]["spec"]["nodeName"]
            endpoints.append({"addresses": [address], "conditions": conditions, "nodeName": node, "targetRef": target})
        for address in self.strays.get((app, namespace), ()) if suffix == "1" else ():
            endpoints.append({"addresses": [address], "conditions": {"ready": True}, "nodeName": "node-1"})
        ports = service["spec"]["ports"] if service else [_PORTS["http"]]
        slice_ports = [{"name": p["name"], "port": p["targetPort"], "protocol": "TCP"} for p in ports]
        labels = {"kubernetes.io/service-name": app}
        described = head("discovery.k8s.io/v1", "EndpointSlice", namespace, f"{app}-{suffix}", labels=labels)
        return [self.put({**described, "addressType": "IPv4", "endpoints": endpoints, "ports": slice_ports})]

    def new_service(self, namespace: str, pods: int) -> Json:
        number, self.services = self.services, self.services + 1
        name = f"s{number}"
        labels = {"app": name, "role": self.random.choice(ROLES)}
        self.pods[name, namespace] = []
        for _ in range(pods):
            self.pod(name, namespace, f"10.1.{1 + number // 100}.{len(self.proxies)}", labels)
        if self.flip(0.4):
            self.stray(name, namespace)
        body = self.shape_service(name, namespace, f"10.0.{1 + self.namespaces.index(namespace)}.{number}")
        self.slice(name, namespace)
        return body

    def stray(self, app: str, namespace: str) -> None:
        number = sum(map(len, self.strays.values()))
        self.strays.setdefault((app, namespace), []).append(f"10.3.{self.namespaces.index(namespace)}.{1 + number}")

    def shape_service(self, name: str, namespace: str, address: str) -> Json:
        known = _MORE_PORTS if self.wide else _CORE_PORTS
        ports = [_MORE_PORTS[p] for p in sorted(self.random.sample(sorted(known), self.pick(1, 1, 1, 2)))]
        if len(ports) > 1:
            ports = [{**p, "name": p["name"] or "other"} for p in ports]
            if ports[0]["port"] == ports[1]["port"]:
                ports.pop()
        headless = self.flip(0.12)
        annotations = {}
        if self.flip(0.35):
            values = [".", "*", ROOT, "~", f".,{ROOT}", ",".join(self.random.sample(self.namespaces, self.pick(1, 2)))]
            annotations["networking.istio.io/exportTo"] = self.random.choice(values)
        body = service(name, namespace, "None" if headless else address, ports)
        if annotations:
            body["metadata"]["annotations"] = annotations
        if self.wide and self.flip(0.3):
            shapes.unusual(self.random, body, self.host())
        return self.put(body)

    # -- one kind each: create, or alter what is there

    def sidecar(self) -> Json:
        namespace = self.anywhere()
        selector = self.flip(0.3) and namespace != ROOT
        choices = [
            "./*",
            f"{ROOT}/*",
            f"{self.random.choice(self.namespaces)}/*",
            f"*/{self.host()}",
            f"./{self.host()}",
        ]
        choices += ["*/*", f"{self.random.choice(self.namespaces)}/{self.host()}"]
        if self.wide:
            choices += ["~/*", f"*/*.{self.random.choice(self.namespaces)}.svc.cluster.local"]
        egress: list[Json] = [{"hosts": sorted(self.random.sample(choices, self.pick(1, 2, 2, 3)))}]
        if self.wide and self.flip(0.2):
            port = {"number": 80, "protocol": "HTTP", "name": "http"}
            egress.insert(0, {"port": port, "hosts": [f"*/{self.host()}"]})
        spec: Json = {"egress": egress}
        if selector:
            spec = {"workloadSelector": {"labels": {"role": self.random.choice(ROLES)}}, **spec}
        if self.wide and self.flip(0.15):
            spec["outboundTrafficPolicy"] = {"mode": self.pick("REGISTRY_ONLY", "ALLOW_ANY")}
        if self.wide and self.flip(0.15):
            port = {"number": 9000, "protocol": "TCP", "name": "tcp"}
            bound = self.pick({}, {"bind": "127.0.0.1"}, {"captureMode": "NONE"})
            egress.insert(0, {"port": port, **bound, "hosts": ["*/*"]})
        if self.wide and self.flip(0.15) and namespace != ROOT:
            port = {"number": self.pick(8080, 9090), "protocol": self.pick("HTTP", "TCP"), "name": "in"}
            spec["ingress"] = [{"port": port, "defaultEndpoint": "127.0.0.1:8000"}]
        return self.put({**head(_NETWORKING, "Sidecar", namespace, "sel" if selector else "default"), "spec": spec})

    def destination_rule(self) -> Json:
        hosts = [self.host(), f"*.{self.random.choice(self.namespaces)}.svc.cluster.local"]
        if self.wide:
            hosts += [f"x{self.random.randrange(3)}.example.com", "nobody.n0.svc.cluster.local", "s0"]
            hosts += ["*.example.com", f"*.x{self.random.randrange(3)}.example.com"]
        policy: Json = {"connectionPool": {"tcp": {"maxConnections": self.random.randint(1, 50)}}}
        if self.wide and self.flip(0.3):
            policy["tls"] = {"mode": self.pick("DISABLE", "ISTIO_MUTUAL", "SIMPLE")}
        if self.wide and self.flip(0.2):
            policy["outlierDetection"] = {"consecutive5xxErrors": self.random.randint(1, 9)}
        if self.wide and self.flip(0.4):
            policy |= shapes.traffic_policy(self.random)
        spec: Json = {"host": self.random.choice(hosts), "trafficPolicy": policy}
        if self.flip(0.4):
            spec["subsets"] = [{"name": "v1", "labels": {"role": self.random.choice(ROLES)}}]
            if self.wide:
                spec["subsets"] = shapes.subsets(self.random)
        if self.wide and self.flip(0.1):
            spec["workloadSelector"] = {"matchLabels": {"role": self.random.choice(ROLES)}}
        name = f"d{self.random.randrange(4)}"
        described = head(_NETWORKING, "DestinationRule", self.anywhere(), name)
        return self.put({**described, "spec": self.exported(spec)})

    def service_entry(self) -> Json:
        number = self.random.randrange(3)
        host = f"x{number}.example.com"
        resolution = self.pick("STATIC", "STATIC", "DNS", *(("NONE", "DNS_ROUND_ROBIN") if self.wide else ()))
        endpoints = [{"address": f"10.9.{number}.{self.random.randint(1, 9)}"}]
        if resolution.startswith("DNS"):
            endpoints = [{"address": f"e{number}.example.org"}]
        ports = [{"number": 80, "name": "http", "protocol": "HTTP"}]
        spec: Json = {"hosts": [host], "location": "MESH_INTERNAL", "resolution": resolution, "ports": ports}
        if resolution != "NONE":
            spec["endpoints"] = endpoints
        if self.wide:
            spec["location"] = self.pick("MESH_INTERNAL", "MESH_EXTERNAL")
            if resolution == "NONE" and self.flip(0.5):
                spec["hosts"] = [f"*.x{number}.example.com"]
            if self.flip(0.25):
                spec["ports"] = [{"number": 9000, "name": "tcp", "protocol": "TCP"}]
                spec["addresses"] = [f"10.8.{number}.1"]
            if self.flip(0.2):
                spec["ports"] += [{"number": 443, "name": "tls", "protocol": "TLS", "targetPort": 8443}]
            if self.flip(0.2):
                spec["subjectAltNames"] = [f"spiffe://outside/{number}"]
            if self.flip(0.2):
                spec["hosts"] = [*spec["hosts"], f"y{number}.example.com"]
            if resolution == "STATIC" and self.flip(0.3):
                spec["endpoints"] = shapes.endpoints(self.random, number)
            elif resolution == "STATIC" and self.flip(0.4):
                del spec["endpoints"]
                spec["workloadSelector"] = {"labels": {"vm": f"v{number}"}}
        described = head(_NETWORKING, "ServiceEntry", self.random.choice(self.namespaces), f"e{number}")
        return self.put({**described, "spec": self.exported(spec)})

    def workload_entry(self) -> Json:
        number = self.random.randrange(3)
        spec = {"address": f"10.7.{number}.{self.random.randint(1, 5)}", "labels": {"vm": f"v{number}"}}
        if self.wide and self.flip(0.3):
            spec["labels"] = {"app": f"s{self.random.randrange(max(1, self.services))}"}
        more = {"locality": self.pick(*shapes.LOCALITIES), "weight": self.random.randint(1, 5), "ports": {"http": 8080}}
        spec |= shapes.subset(self.random, more)
        described = head(_NETWORKING, "WorkloadEntry", self.random.choice(self.namespaces), f"w{number}")
        return self.put({**described, "spec": {**spec, "serviceAccount": "default"}})

    def virtual_service(self) -> Json:
        at_gateway = self.flip(0.35)
        hosts = [self.host(), f"*.{self.random.choice(self.namespaces)}.svc.cluster.local"]
        if self.wide:
            hosts += [f"x{self.random.randrange(3)}.example.com"]
        spec: Json = {
            "hosts": [f"h{self.random.randrange(3)}.example.com" if at_gateway else self.random.choice(hosts)]
        }
        route: Json = {"route": [{"destination": {"host": self.host()}}]}
        if self.wide:
            if self.flip(0.3):
                route["route"] = [{"destination": {"host": self.host()}, "weight": w} for w in (25, 75)]
            if self.flip(0.2):
                route["mirror"] = {"host": self.host()}
            if self.flip(0.2):
                route["timeout"] = f"{self.random.randint(1, 9)}s"
            if self.flip(0.2):
                route["match"] = [{"uri": {"prefix": self.pick("/a", "/b")}}]
            if self.flip(0.15):
                route["route"][0]["destination"]["subset"] = "v1"
            if self.flip(0.3):
                route |= shapes.http_route(self.random, self.random.choice(self.namespaces))
            if self.flip(0.1):
                route = {"match": [{"uri": {"prefix": "/moved"}}], "redirect": {"authority": "moved.example.com"}}
            if self.flip(0.1):
                to = {"name": f"v{self.random.randrange(4)}", "namespace": self.random.choice(self.namespaces)}
                route = {"match": [{"uri": {"prefix": "/delegated"}}], "delegate": to}
            if not at_gateway and self.flip(0.1):
                del spec["hosts"]
        spec["http"] = [route]
        if self.wide and self.flip(0.3):
            spec["http"].append({"route": [{"destination": {"host": self.host(), "port": {"number": 80}}}]})
        if self.wide and "hosts" in spec and self.flip(0.1):
            match = [{"port": 8443, "sniHosts": spec["hosts"]}]
            spec["tls"] = [{"match": match, "route": [{"destination": {"host": self.host()}}]}]
        if self.wide and not at_gateway and "hosts" in spec and self.flip(0.15):
            del spec["http"]
            match = [{"port": 9000, **shapes.subset(self.random, {"sourceLabels": {"role": "web"}})}]
            spec["tcp"] = [
                {"match": match, "route": [{"destination": {"host": self.host(), "port": {"number": 9000}}}]}
            ]
        if self.wide and at_gateway:
            spec |= shapes.at_gateway(self.random, self.host())
        if at_gateway:
            spec["gateways"] = [f"{ROOT}/gw"] + ["mesh"] * (self.wide and self.flip(0.3))
            if self.wide and self.flip(0.2):
                spec["gateways"].append("gw2")
        name = f"g{self.random.randrange(2)}" if at_gateway else f"v{self.random.randrange(4)}"
        described = head(_NETWORKING, "VirtualService", self.random.choice(self.namespaces), name)
        return self.put({**described, "spec": self.exported(spec)})

    def gateway(self) -> Json:
        hosts = [self.pick("*", "*.example.com")]
        if self.wide and self.flip(0.3):
            hosts = [f"{self.random.choice(self.namespaces)}/*.example.com", "h0.example.com"]
        servers: list[Json] = [{"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": hosts}]
        if self.wide and self.flip(0.3):
            port = {"number": 443, "name": "tls", "protocol": "TLS"}
            servers.append({"port": port, "hosts": ["p.example.com"], "tls": {"mode": "PASSTHROUGH"}})
        namespace, name, selector = ROOT, "gw", {"istio": "ingressgateway"}
        if self.wide:
            if self.flip(0.3):
                servers += [s for s in shapes.servers(self.random) if len(servers) == 1 or s["port"]["number"] != 443]
                servers[0] = shapes.bound(self.random, servers[0])
            if self.flip(0.25):
                namespace, name, selector = self.anywhere(), "gw2", self.pick(selector, {"app": "nobody"}, {})
        spec = {"selector": selector, "servers": servers}
        return self.put({**head(_NETWORKING, "Gateway", namespace, name), "spec": spec})

    def policy(self) -> Json:
        selector: Json = {}
        if self.wide and self.flip(0.3):
            selector = {"selector": {"matchLabels": {"role": self.pick(*ROLES, "nobody")}}}
        makers: list[tuple[str, str, str, Json]] = [
            (_SECURITY, "AuthorizationPolicy", "p", {"rules": [{"to": [{"operation": {"ports": [self.digit()]}}]}]}),
            (_SECURITY, "PeerAuthentication", "default", {"mtls": {"mode": self.pick("STRICT", "PERMISSIVE")}}),
            ("telemetry.istio.io/v1alpha1", "Telemetry", "t", {"accessLogging": [{"disabled": self.flip(0.5)}]}),
            ("networking.istio.io/v1alpha3", "EnvoyFilter", "f", {"configPatches": [self.patch()]}),
        ]
        if self.wide:
            jwt = [{"issuer": f"i{self.digit()}", "jwks": '{"keys":[]}'}]
            makers.append((_SECURITY, "RequestAuthentication", "j", {"jwtRules": jwt}))
            makers.append((_NETWORKING, "ProxyConfig", "pc", {"concurrency": self.random.randint(1, 4)}))
            wasm = {"url": f"oci://example.com/filter:{self.digit()}", **shapes.plugin(self.random)}
            makers.append(("extensions.istio.io/v1alpha1", "WasmPlugin", "w", wasm))
            rules = [
                shapes.rule(self.random, self.random.choice(self.namespaces)) for _ in range(self.pick(0, 1, 1, 2))
            ]
            makers.append(
                (_SECURITY, "AuthorizationPolicy", "q", {"action": self.pick("ALLOW", "DENY"), "rules": rules})
            )
            makers.append(("telemetry.istio.io/v1alpha1", "Telemetry", "u", shapes.telemetry(self.random)))
            makers.append(
                (
                    "networking.istio.io/v1alpha3",
                    "EnvoyFilter",
                    "e",
                    {"configPatches": [shapes.patch(self.random, self.host())]},
                )
            )
            by_port = {
                "mtls": {"mode": "STRICT"},
                "portLevelMtls": {"8080": {"mode": self.pick("DISABLE", "PERMISSIVE")}},
            }
            makers.append(
                (_SECURITY, "PeerAuthentication", "ports", {**by_port, "selector": {"matchLabels": {"role": "web"}}})
            )
        version, kind, name, spec = self.random.choice(makers)
        if kind == "EnvoyFilter" and selector and name == "e":
            spec = {"workloadSelector": {"labels": selector["selector"]["matchLabels"]}, **spec}
        elif kind not in ("EnvoyFilter", "ProxyConfig") and selector:
            name, spec = f"{name}-sel", {**selector, **spec}
        return self.put({**head(version, kind, self.anywhere(), name), "spec": spec})

    def digit(self) -> str:
        return str(self.random.randint(1, 9))

    def patch(self) -> Json:
        value = {"connect_timeout": f"{self.digit()}s"}
        context = self.pick("SIDECAR_OUTBOUND", *(("GATEWAY", "ANY") if self.wide else ()))
        return {"applyTo": "CLUSTER", "match": {"context": context}, "patch": {"operation": "MERGE", "value": value}}


def head(api_version: str, kind: str, namespace: str, name: str, **metadata: Any) -> Json:
    """The head of a manifest; no namespace if it is ""."""
    meta = {"name": name, **({"namespace": namespace} if namespace else {}), **metadata}
    return {"apiVersion": api_version, "kind": kind, "metadata": meta}


def service(name: str, namespace: str, address: str, ports: list[Json]) -> Json:
    """A Service for the pods of its own name; address "None" is headless."""
    spec = {"clusterIP": address, "selector": {"app": name}, "type": "ClusterIP", "ports": ports}
    return {**head("v1", "Service", namespace, name), "spec": spec}
