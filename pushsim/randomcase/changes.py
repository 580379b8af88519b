"""Random changes to a mesh: create, alter, delete, bring back, touch; some together."""

from __future__ import annotations

from collections.abc import Callable

from pushsim.randomcase import shapes
from pushsim.randomcase.objects import ROLES, ROOT, Objects, head, service
from pushsim.randomcase.shapes import Json

DELETABLE = (
    "Service", "Sidecar", "DestinationRule", "ServiceEntry", "WorkloadEntry", "VirtualService", "Gateway",
    "EnvoyFilter", "AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication", "Telemetry", "ProxyConfig",
    "WasmPlugin",
)  # fmt: skip


class World(Objects):
    """A mesh that is built at rest, and then changed step by step."""

    def build(self) -> None:
        node_labels = {"topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": "z"}
        self.put({**head("v1", "Node", "", "node-1", labels=node_labels), "status": {}})
        for number in (2, 3) if self.wide else ():
            labels = shapes.node_labels(self.random.choice(shapes.LOCALITIES))
            self.put({**head("v1", "Node", "", f"node-{number}", labels=labels), "status": {}})
        for namespace in [ROOT, *self.namespaces]:
            self.put(head("v1", "Namespace", "", namespace, labels={}))
        ingress = {"app": "istio-ingressgateway", "istio": "ingressgateway"}
        http2 = {"name": "http2", "port": 80, "targetPort": 8080, "protocol": "TCP"}
        self.put(service("istio-ingressgateway", ROOT, "10.0.9.1", [http2]))
        self.pod("istio-ingressgateway", ROOT, "10.1.9.1", ingress, "router")
        self.slice("istio-ingressgateway", ROOT)
        if self.wide and self.flip(0.3):
            where, labels = self.random.choice(self.namespaces), {"app": "egress", "istio": "ingressgateway"}
            self.put(service("egress", where, "10.0.9.2", [http2]))
            self.pod("egress", where, "10.1.9.2", self.pick(labels, {"app": "egress"}), "router")
            self.slice("egress", where)
        for _ in range(self.random.randint(5, 10)):
            self.new_service(self.random.choice(self.namespaces), pods=1 + self.flip(0.25))
        for make in (self.sidecar, self.destination_rule, self.service_entry, self.virtual_service, self.gateway):
            if self.flip(0.6):
                make()
        if self.wide and self.flip(0.5):
            self.policy()

    def change_service(self) -> list[Json]:
        """Ports, visibility or addresses of a service, an annotation or label that means nothing, or a new service."""
        if self.flip(0.3):
            return [self.new_service(self.random.choice(self.namespaces), pods=0)]
        services = [b for b in self.held("Service") if b["metadata"]["namespace"] != ROOT]
        if not services:
            return []
        body = self.random.choice(services)
        meta = body["metadata"]
        if self.flip(0.2):
            key = self.pick("labels", "annotations")
            return [self.put({**body, "metadata": {**meta, key: {**meta.get(key, {}), "touched": self.digit()}}})]
        number = meta["name"][1:]
        address = f"10.0.{1 + self.namespaces.index(meta['namespace'])}.{number if number.isdigit() else 250}"
        return [self.shape_service(meta["name"], meta["namespace"], address)]

    def change_endpoints(self) -> list[Json]:
        keys = [key for key in self.pods if key[1] != ROOT]
        app, namespace = self.random.choice([key for key in keys if not self.external(*key)] or keys)
        names = self.pods[app, namespace]
        if self.flip(0.15):
            held = self.objects.get(("EndpointSlice", namespace, f"{app}-1"))
            if held:
                return [held]
        suffix = "2" if self.wide and self.flip(0.15) else "1"
        if suffix == "1" and self.flip(0.5):
            strays = self.strays.setdefault((app, namespace), [])
            if strays and self.flip(0.4):
                strays.pop()
            else:
                self.stray(app, namespace)
            return self.slice(app, namespace, ready=names)
        if self.flip(0.3):
            self.strays.pop((app, namespace), None)
        return self.slice(app, namespace, suffix, self.random.sample(names, self.random.randint(0, len(names))))

    def change_both(self) -> list[Json]:
        """A Service with its own slice: either handler of istiod may run first."""
        written = self.change_service()
        if not written:
            return []
        meta = written[0]["metadata"]
        return [*written, *self.slice(meta["name"], meta["namespace"])]

    def change_pod(self) -> list[Json]:
        """A pod's labels change: its own proxy's business, and its endpoints'."""
        body = self.random.choice([b for b in self.held("Pod") if b["metadata"]["namespace"] != ROOT])
        meta = body["metadata"]
        labels = {**meta["labels"], "role": self.random.choice(ROLES)}
        return [self.put({**body, "metadata": {**meta, "labels": labels}})]

    def recreate_pod(self) -> list[Json]:
        """A pod is there anew under its name and address, on another node, with other labels or another account."""
        pods = [b for b in self.held("Pod") if b["metadata"]["namespace"] != ROOT]
        body = self.random.choice(pods)
        labels = {**body["metadata"]["labels"], "role": self.random.choice(ROLES)}
        spec = {**body["spec"], "nodeName": self.node(), "serviceAccountName": self.pick("default", "default", "other")}
        found = [self.put({**body, "metadata": {**body["metadata"], "labels": labels}, "spec": spec})]
        app = labels["app"]
        if self.flip(0.5) and (app, body["metadata"]["namespace"]) in self.pods:
            found += self.slice(app, body["metadata"]["namespace"])
        return found

    def scale(self) -> list[Json]:
        """A pod without a proxy comes to an app or goes, mostly with its endpoint."""
        app, namespace = self.random.choice([key for key in self.pods if key[0][1:].isdigit()])
        ref = ("Pod", namespace, f"{app}-x")
        if ref in self.objects:
            del self.objects[ref]
            self.pods[app, namespace].remove(ref[2])
            found = [{"kind": ref[0], "namespace": namespace, "name": ref[2], "deleted": True}]
        else:
            labels = {"app": app, "role": self.random.choice(ROLES)}
            self.pod(app, namespace, f"10.2.{self.namespaces.index(namespace)}.{app[1:]}", labels, "")
            found = [self.objects[ref]]
        if self.flip(0.8):
            found += self.slice(app, namespace)
        return found

    def change_node(self) -> list[Json]:
        """A node's locality changes."""
        labels = shapes.node_labels(self.random.choice(shapes.LOCALITIES))
        return [self.put({**head("v1", "Node", "", f"node-{self.random.randint(1, 3)}", labels=labels), "status": {}})]

    def repeat(self) -> list[Json]:
        """Objects written again as they are."""
        bodies = self.held(*DELETABLE, "EndpointSlice", "Pod")
        return [dict(body) for body in self.random.sample(bodies, min(len(bodies), self.pick(1, 2)))]

    def change_namespace(self) -> list[Json]:
        name = self.random.choice(self.namespaces)
        return [self.put(head("v1", "Namespace", "", name, labels={"tier": self.digit()}))]

    def touch(self) -> list[Json]:
        """Write an object of Istio's as it is, with a label more."""
        bodies = [b for b in self.held(*DELETABLE) if b["kind"] != "Service"]
        if not bodies:
            return []
        body = self.random.choice(bodies)
        meta = body["metadata"]
        return [self.put({**body, "metadata": {**meta, "labels": {**meta.get("labels", {}), "touched": self.digit()}}})]

    def delete(self) -> list[Json]:
        bodies = [b for b in self.held(*DELETABLE) if b["metadata"]["name"] != "istio-ingressgateway"]
        if not bodies:
            return []
        body = self.random.choice(bodies)
        meta = body["metadata"]
        del self.objects[body["kind"], meta["namespace"], meta["name"]]
        self.gone.append(body)
        return [{"kind": body["kind"], "namespace": meta["namespace"], "name": meta["name"], "deleted": True}]

    def bring_back(self) -> list[Json]:
        if not self.gone:
            return []
        return [self.put(self.gone.pop(self.random.randrange(len(self.gone))))]

    def step(self, number: int) -> Json:
        """One step: usually one change, at times several within the same debounce."""
        changes: list[tuple[int, Callable[[], list[Json]]]] = [
            (6, self.change_endpoints),
            (5, self.change_service),
            (3, self.change_both),
            (4, self.delete),
            (2, self.bring_back),
            (3, lambda: [self.sidecar()]),
            (3, lambda: [self.destination_rule()]),
            (3, lambda: [self.virtual_service()]),
            (2, lambda: [self.service_entry()]),
            (1, lambda: [self.gateway()]),
            (3, lambda: [self.policy()]),
        ]
        if self.wide:
            changes += [(2, self.recreate_pod), (2, self.scale), (1, self.change_node), (1, self.repeat)]
            changes += [(2, self.change_pod), (1, self.touch), (2, lambda: [self.workload_entry()])]
            changes += [(1, self.change_namespace)]
        weights = [weight for weight, _ in changes]
        apply: dict[tuple[str, str, str], Json] = {}
        delete: dict[tuple[str, str, str], Json] = {}
        wanted = self.pick(1, 1, 1, 1, 2, 2, 3)
        while wanted:
            (_, change), *_ = self.random.choices(changes, weights)
            written = change()
            wanted -= bool(written)
            for body in written:
                meta = body.get("metadata", body)
                key = (body["kind"], meta.get("namespace", ""), meta["name"])
                into, other = (delete, apply) if body.get("deleted") else (apply, delete)
                other.pop(key, None)
                into.pop(key, None)
                into[key] = {"kind": key[0], "namespace": key[1], "name": key[2]} if into is delete else body
        said = [f"{kind} {namespace}/{name}" for kind, namespace, name in apply]
        said += [f"delete {kind} {namespace}/{name}" for kind, namespace, name in delete]
        found: Json = {"name": f"{number:02d} {', '.join(said)}"}
        if apply:
            found["apply"] = list(apply.values())
        if delete:
            found["delete"] = list(delete.values())
        return found
