"""Random small meshes and changes for hypothesis: two or three of everything that decides who is pushed.

Names are few so that things meet: services of one host in several namespaces, rules for hosts that come and go,
Sidecars that name them. Every drawn value is plain, so that failures shrink to a few objects.
"""

from dataclasses import dataclass

from hypothesis import strategies as st

from pushsim import releases
from pushsim.mesh import Change, Mesh, Object, Proxy, Ref

ROOT = "istio-system"
NAMESPACES = ("a", "b", ROOT)
PORTS = (80, 9000)
EXTERNAL = ("x.com", "a.x.com", "*.x.com", "s0.a.svc.cluster.local")
HOSTS = ("s0.a.svc.cluster.local", "s0.b.svc.cluster.local", "s1.a.svc.cluster.local", *EXTERNAL)
EXPORTS = ((), ("*",), (".",), ("~",), ("a",), (".", "b"))

namespaces = st.sampled_from(NAMESPACES)
exports = st.sampled_from(EXPORTS)


@dataclass(frozen=True)
class World:
    """What one example is about: a few kinds and hosts, so that its objects meet. `selectors`: of DestinationRules."""

    kinds: tuple
    external: tuple
    hosts: tuple
    selectors: bool


def some(*values):
    return st.sampled_from(values)


def written(kind, namespace, name, created, spec, annotations=None, labels=None):
    """An object; `created` is a minute."""
    metadata = {
        "name": name,
        "namespace": namespace,
        "creationTimestamp": f"2024-01-01T00:{created:02}:00Z",
        "annotations": annotations or {},
        "labels": labels or {},
    }
    return Object(Ref(kind, namespace, name), {"kind": kind, "metadata": metadata, "spec": spec})


def minute(*identity):
    """Creation of an object: fixed by its name, as it survives updates; some are equal, twins of a host are not."""
    kind, namespace, name = identity
    if kind == "ServiceEntry":
        return (int(name[-1]) * 2 + NAMESPACES.index(namespace)) % 5
    return sum(map(ord, namespace + name)) % 3


@st.composite
def services(draw):
    ns, name = draw(namespaces), draw(some("s0", "s1"))
    export, ports = draw(exports), draw(some((80,), (9000,), PORTS))
    spec = {
        "clusterIP": draw(some(f"10.0.{NAMESPACES.index(ns)}.{name[1]}", "None")),
        "selector": {"app": draw(some("s0", "p"))},
        "ports": [{"name": draw(some("http", "tcp")) + f"-{p}", "port": p, "targetPort": p} for p in ports],
    }
    annotations = {"networking.istio.io/exportTo": ",".join(export)} if export else {}
    return written("Service", ns, name, minute("Service", ns, name), spec, annotations)


@st.composite
def service_entries(draw, world):
    ns, name = draw(namespaces), draw(some("e0", "e1"))
    spec = {
        "hosts": draw(st.lists(st.sampled_from(world.external), min_size=1, max_size=2, unique=True)),
        "ports": [{"name": f"tcp-{p}", "number": p, "protocol": "TCP"} for p in draw(some((80,), (9000,), PORTS))],
        "resolution": draw(some("STATIC", "DNS")),
        "exportTo": list(draw(exports)),
        "addresses": ["10.9.0.1"],
        "endpoints": [{"address": "10.9.1.1"}],
    }
    labels = draw(some({}, {"tier": "x"}))
    return written("ServiceEntry", ns, name, minute("ServiceEntry", ns, name), spec, labels=labels)


@st.composite
def destinations(draw, world):
    found = {"host": draw(some(*world.hosts, "s0"))}
    if number := draw(some(0, *PORTS)):
        found["port"] = {"number": number}
    return found


@st.composite
def virtual_services(draw, world):
    ns, name = draw(namespaces), draw(some("v0", "v1"))
    route = {"route": [{"destination": draw(destinations(world))}]}
    if draw(st.booleans()):
        route["mirror"] = draw(destinations(world))
    if source := draw(some("", "a", "b")):
        route["match"] = [{"sourceNamespace": source}]
        if draw(st.booleans()):
            route["match"].append({"uri": {"prefix": "/"}})
    spec = {"exportTo": list(draw(exports))}
    form = draw(some("http", "tcp", "delegate", "root"))
    if form != "delegate":
        spec["hosts"] = draw(st.lists(some(*world.hosts, "s0"), min_size=1, max_size=2, unique=True))
        spec["gateways"] = draw(some([], ["mesh"], [f"{ROOT}/g0"], ["mesh", "g0"]))
    if form == "tcp":
        spec["tcp"] = [{"route": route["route"]}]
    else:
        spec["http"] = [route]
    if form == "root":
        spec["http"].append({"delegate": {"name": draw(some("v0", "v1")), "namespace": draw(namespaces)}})
    return written("VirtualService", ns, name, minute("VirtualService", ns, name), spec)


@st.composite
def destination_rules(draw, world):
    ns, name = draw(namespaces), draw(some("d0", "d1", "d2"))
    spec = {"host": draw(some(*world.hosts, "s0", "*.com")), "exportTo": list(draw(exports))}
    if world.selectors and draw(some(False, False, True)):
        spec["workloadSelector"] = {"matchLabels": {"app": "s0"}}
    if draw(some(False, False, True)):
        spec["trafficPolicy"] = {
            "tls": {"mode": draw(some("SIMPLE", "MUTUAL")), "credentialName": draw(some("k0", "k1"))}
        }
    return written("DestinationRule", ns, name, minute("DestinationRule", ns, name), spec)


IMPORTS = (
    "*/*",
    "./*",
    "~/*",
    "a/*",
    "b/*",
    "*/a.x.com",
    "*/*.x.com",
    "a/x.com",
    "./s0.a.svc.cluster.local",
    "a/s0.a.svc.cluster.local",
    "~b/*.x.com",
    "~/x.com",
    "a/s1",
    "wrong",
)


@st.composite
def sidecars(draw):
    ns, name = draw(namespaces), draw(some("c0", "c1"))
    spec = {}
    egress = []
    for _ in range(draw(some(1, 1, 0, 2))):
        listener = {"hosts": draw(st.lists(st.sampled_from(IMPORTS), min_size=1, max_size=3, unique=True))}
        if port := draw(some(0, 0, *PORTS, 15080)):
            listener["port"] = {"number": port, "protocol": "http_proxy" if port == 15080 else "HTTP", "name": "p"}
        egress.append(listener)
    if egress:
        spec["egress"] = egress
    if (selector := draw(some(None, None, {}, {"app": "s0"}, {"app": "other"}))) is not None:
        spec["workloadSelector"] = {"labels": selector} if selector else {}
    return written("Sidecar", ns, name, minute("Sidecar", ns, name), spec)


@st.composite
def gateways(draw):
    ns, name = draw(some(ROOT, "b")), draw(some("g0", "g1"))
    server = {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}
    if draw(some(False, False, True)):
        tls = {"mode": draw(some("SIMPLE", "MUTUAL")), "credentialName": draw(some("k0", "k1", "b/k0"))}
        server = {"port": {"number": 443, "name": "https", "protocol": "HTTPS"}, "hosts": ["*"], "tls": tls}
    elif draw(some(False, False, True)):
        server = {
            "port": {"number": 15443, "name": "tls", "protocol": "TLS"},
            "hosts": ["*.local"],
            "tls": {"mode": "AUTO_PASSTHROUGH"},
        }
    spec = {"selector": {"app": draw(some("gw", "gw", "other"))}, "servers": [server]}
    return written("Gateway", ns, name, minute("Gateway", ns, name), spec)


@st.composite
def policies(draw):
    kind = draw(
        some(
            "AuthorizationPolicy",
            "RequestAuthentication",
            "PeerAuthentication",
            "EnvoyFilter",
            "Telemetry",
            "WasmPlugin",
            "ProxyConfig",
        )
    )
    spec = {"revision": draw(some(1, 2))}
    if kind == "WasmPlugin":
        spec["match"] = draw(some([], [{"mode": "SERVER"}], [{"mode": "CLIENT", "ports": [{"number": 80}]}]))
        spec |= draw(some({}, {"type": "NETWORK"}, {"imagePullSecret": "k0"}))
        spec |= draw(some({}, {"selector": {"matchLabels": {"app": "p"}}}))
    if kind == "EnvoyFilter":
        spec["configPatches"] = [asking(draw(some("ANY", "SIDECAR_OUTBOUND", "GATEWAY"))), EXTENSION][
            : draw(some(0, 1, 2))
        ]
    return written(kind, draw(namespaces), "p0", 0, spec)


#: Patches of EnvoyFilters: a filter that Envoy asks for by name, and what it is.
EXTENSION = {"applyTo": "EXTENSION_CONFIG", "patch": {"operation": "ADD", "value": {"name": "x", "typed_config": {}}}}


def asking(context):
    patch = {"operation": "INSERT_BEFORE", "value": {"name": "x", "config_discovery": {}}}
    return {"applyTo": "HTTP_FILTER", "match": {"context": context}, "patch": patch}


@st.composite
def secrets(draw):
    data = draw(
        some(
            {"tls.crt": "YQ==", "tls.key": "Yg=="},
            {"ca.crt": "YWJj"},
            {"cert": "YQ==", "key": "Yg==", "cacert": "YQ=="},
            {},
        )
    )
    made = written("Secret", draw(namespaces), draw(some("k0", "k1", "k0-cacert")), 0, {})
    return Object(made.ref, {**made.body, "data": data})


MAKERS = {
    "Secret": lambda world: secrets(),
    "Service": lambda world: services(),
    "ServiceEntry": service_entries,
    "Sidecar": lambda world: sidecars(),
    "VirtualService": virtual_services,
    "DestinationRule": destination_rules,
    "Gateway": lambda world: gateways(),
    "policy": lambda world: policies(),
}


@st.composite
def worlds(draw, release):
    kinds = draw(st.lists(st.sampled_from(sorted(MAKERS)), min_size=1, max_size=4, unique=True))
    if not {"Service", "ServiceEntry"} & set(kinds):
        kinds.append(draw(some("Service", "ServiceEntry")))
    external = draw(st.lists(st.sampled_from(EXTERNAL), min_size=1, max_size=2, unique=True))
    inside = draw(st.lists(st.sampled_from(HOSTS), min_size=1, max_size=2, unique=True))
    hosts = tuple(dict.fromkeys(inside if "ServiceEntry" not in kinds else external))
    # workloadSelector of DestinationRules came with 1.14
    return World(tuple(kinds), tuple(external), hosts, not release.startswith("1.13."))


def objects(world):
    return st.one_of([MAKERS[kind](world) for kind in world.kinds])


PROXIES = (
    Proxy("p", "a", "10.1.0.1", "sidecar", {"app": "s0"}),
    Proxy("q", "b", "10.1.0.2", "sidecar", {"app": "p"}, metadata={"DNS_CAPTURE": "true"}),
    Proxy("r", ROOT, "10.1.0.3", "sidecar", {"app": "p"}),
    Proxy("gw", ROOT, "10.1.0.4", "router", {"app": "gw"}),
    Proxy("gw2", "b", "10.1.0.5", "router", {"app": "gw"}),
)


def pod(proxy):
    status = {"podIP": proxy.ip, "phase": "Running"}
    made = written("Pod", proxy.namespace, proxy.name, 0, {"serviceAccountName": "default"}, labels=dict(proxy.labels))
    return Object(made.ref, {**made.body, "status": status})


@st.composite
def meshes(draw, world):
    """A mesh of five proxies and a few objects."""
    drawn = draw(st.lists(objects(world), max_size=8, unique_by=lambda o: o.ref))
    everything = [pod(p) for p in PROXIES] + drawn
    config = {}
    for what in ("Service", "VirtualService", "DestinationRule"):
        if default := draw(some((), (), (), (".",), ("*",), ("~",), ("a",), (".", "b"))):
            config[f"default{what}ExportTo"] = list(default)
    if draw(some(False, False, True)):
        config["extensionProviders"] = [
            {"name": "z", "envoyExtAuthzGrpc": {"service": draw(some("x.com", "a/a.x.com", "b/x.com")), "port": 80}}
        ]
    if draw(some(False, False, True)):
        config["defaultConfig"] = {"proxyMetadata": {"ISTIO_META_DNS_CAPTURE": "true"}}
    env = {"PILOT_ENABLE_IP_AUTOALLOCATE": "false"}
    if draw(some(False, False, True)):
        env["PILOT_FILTER_GATEWAY_CLUSTER_CONFIG"] = "true"
    return Mesh({o.ref: o for o in everything}, PROXIES, config, env)


@st.composite
def changes(draw, mesh, world):
    """One to three objects written or deleted together; those of the mesh are as likely as new ones."""
    apply, delete = [], []
    there = sorted(ref for ref in mesh.objects if ref.kind != "Pod")
    for _ in range(draw(some(1, 1, 2, 3))):
        if there and draw(some(False, False, True)):
            delete.append(draw(st.sampled_from(there)))
        else:
            apply.append(draw(objects(world)))
    apply = list({o.ref: o for o in apply if o.ref not in delete}.values())
    return Change(tuple(apply), tuple(dict.fromkeys(delete)))


def known_releases(first="1.13"):
    """Names of releases that rules are known of, from a minor on."""
    minors = releases.MINORS[releases.MINORS.index(first) :]
    return st.sampled_from([name for name, rules in releases.KNOWN.items() if rules.minor in minors])


@st.composite
def scripts(draw, first="1.13", most=4):
    """(release, mesh, changes): a short life of a mesh."""
    release = draw(known_releases(first))
    world = draw(worlds(release))
    mesh = now = draw(meshes(world))
    script = []
    for _ in range(draw(st.integers(1, most))):
        script.append(draw(changes(now, world)))
        now = now.after(script[-1])
    return release, mesh, script
