"""Sizes against what real istiods sent: lengths measured in raw dumps of ten releases, one small mesh."""

from __future__ import annotations

import pytest
from envoy_data_plane.envoy.config.route.v3 import RouteConfiguration as EnvoyRoutes
from envoy_data_plane.envoy.config.route.v3 import VirtualHost
from hypothesis import given, settings
from hypothesis import strategies as st

from pushsim.blocks import Block
from pushsim.errors import InputError
from pushsim.mesh import Endpoint, Object, Port, Proxy, Ref, Service
from pushsim.resources import (
    InboundCluster,
    Listener,
    LoadAssignment,
    OutboundCluster,
    RouteConfiguration,
    StaticCluster,
)
from pushsim.sizes import SIZINGS, Policies, Sizer
from pushsim.sizes.jwt import http_filters
from pushsim.sizes.settings import Settings
from pushsim.sizes.vhosts import GatewayRoutes
from pushsim.sizes.wire import length, made

HTTP = Port("http", 80, "HTTP")
LABELS = {"app": "a"}
PROXY = Proxy("a-0", "ns-a", "10.1.1.1", labels=LABELS)
NONE = Policies()


def service(name: str, namespace: str, address: str, port: Port = HTTP) -> Service:
    return Service(f"{name}.{namespace}.svc.cluster.local", namespace, name, (port,), "EDS", addresses=(address,))


A, B, C = (service(n, f"ns-{n}", f"10.0.{i}.1") for i, n in enumerate("abc", 1))
GATEWAY = service("istio-ingressgateway", "istio-system", "10.0.9.1", Port("http2", 80, "HTTP2"))


def outbound(svc: Service, **more: object) -> OutboundCluster:
    accounts = (f"spiffe://cluster.local/ns/{svc.namespace}/sa/default",)
    name = f"outbound|80||{svc.hostname}"
    return OutboundCluster(name, svc, svc.ports[0], "", "EDS", accounts=accounts, **more)  # type: ignore[arg-type]


def virtual_inbound() -> Listener:
    return Listener("virtualInbound", "virtualInbound", "0.0.0.0", 15006, services=((A, HTTP),), target_ports=(8080,))


RESOURCES = {
    "outbound": outbound(A),
    "http2": outbound(GATEWAY),
    "black hole": StaticCluster("BlackHoleCluster"),
    "passthrough": StaticCluster("PassthroughCluster"),
    "inbound": InboundCluster("inbound|8080||", 8080, ((A, HTTP),)),
    "endpoints": LoadAssignment(
        f"outbound|80||{A.hostname}", A, HTTP, "",
        endpoints=(Endpoint("10.1.1.1", 8080, "http", (("app", "a"),), locality="r/z", workload="a-0"),),
    ),
    "http": Listener("0.0.0.0_80", "http", "0.0.0.0", 80, "80", ((A, HTTP),)),
    "virtualOutbound": Listener("virtualOutbound", "virtualOutbound", "0.0.0.0", 15001),
    "virtualInbound": virtual_inbound(),
    "route": RouteConfiguration("80", tuple((s, s.ports[0]) for s in (A, B, C, GATEWAY))),
}  # fmt: skip

#: Lengths of the values, of the policies case's first conversation, by release, in the order of RESOURCES.
MEASURED = {
    "1.14": (916, 1219, 24, 345, 189, 130, 2238, 418, 10566, 2273),
    "1.15": (916, 1211, 24, 337, 192, 130, 2238, 418, 10566, 2257),
    "1.16": (916, 1211, 24, 344, 187, 130, 2238, 418, 10566, 1900),
    "1.17": (916, 1211, 24, 344, 187, 130, 2357, 418, 11854, 1906),
    "1.20": (967, 1264, 24, 433, 187, 131, 2394, 418, 11918, 1906),
    "1.22": (967, 1264, 24, 433, 187, 131, 2428, 418, 12054, 1906),
    "1.24": (1006, 1330, 44, 455, 214, 131, 2444, 418, 12080, 1890),
    "1.27": (1006, 1330, 44, 455, 214, 131, 2309, 423, 12085, 2025),
    "1.30": (1004, 1328, 44, 453, 212, 131, 2309, 423, 12085, 2025),
    "1.31": (1006, 1330, 44, 453, 212, 131, 2309, 423, 12085, 2025),
}


@pytest.mark.parametrize("release", MEASURED)
def test_lengths_of_a_plain_mesh(release: str) -> None:
    sizer = Sizer(release, mesh_config={})
    got = {name: sizer.resource_bytes(resource, PROXY, NONE) for name, resource in RESOURCES.items()}
    assert got == dict(zip(RESOURCES, MEASURED[release], strict=True))


@pytest.mark.parametrize(("release", "expected"), [("1.14", 11785), ("1.20", 13137), ("1.24", 13299), ("1.31", 13304)])
def test_an_authorization_policy_adds_filters(release: str, expected: int) -> None:
    body = {"spec": {"rules": [{}]}, "metadata": {}}
    policy = Object(Ref("AuthorizationPolicy", "ns-a", "p"), body)
    sizer = Sizer(release, mesh_config={})
    policies = Policies(authorization_policies=(policy,))
    assert sizer.resource_bytes(virtual_inbound(), PROXY, policies) == expected


def test_strict_mtls_drops_plaintext_chains() -> None:
    strict = Object(Ref("PeerAuthentication", "ns-a", "default"), {"spec": {"mtls": {"mode": "STRICT"}}})
    sizer = Sizer("1.24", mesh_config={})
    assert sizer.resource_bytes(virtual_inbound(), PROXY, Policies(peer_authentications=(strict,))) < 12080


def test_services_without_mtls_have_no_socket_matches() -> None:
    off = Object(Ref("PeerAuthentication", "ns-b", "default"), {"spec": {"mtls": {"mode": "DISABLE"}}})
    sizer, policies = Sizer("1.24", mesh_config={}), Policies(peer_authentications=(off,))
    assert sizer.resource_bytes(outbound(B), PROXY, policies) < sizer.resource_bytes(outbound(A), PROXY, policies)


def test_chart_defaults_add_metrics_filters() -> None:
    """The default profile, as measured in the chart-defaults case on 1.24."""
    sizer = Sizer("1.24", mesh_config={"defaultProviders": {"metrics": ["prometheus"]}})
    sizes = [sizer.resource_bytes(RESOURCES[n], PROXY, NONE) for n in ("http", "virtualOutbound", "virtualInbound")]
    assert sizes == [2558, 532, 12568]


def test_a_subset_names_itself_and_its_rule() -> None:
    """Measured in the destination-rules case on 1.24: 1082 and 1106 bytes."""
    spec = {
        "host": B.hostname,
        "trafficPolicy": {"connectionPool": {"tcp": {"maxConnections": 10}}},
        "subsets": [{"name": "v1", "labels": {"version": "v1"}}],
    }
    rule = Object(Ref("DestinationRule", "ns-b", "b"), {"spec": spec})
    plain = outbound(B, rules=(rule,))
    subset = OutboundCluster(
        f"outbound|80|v1|{B.hostname}", B, HTTP, "v1", "EDS", rules=(rule,), accounts=plain.accounts
    )
    sizer = Sizer("1.24", mesh_config={})
    assert [sizer.resource_bytes(c, PROXY, NONE) for c in (plain, subset)] == [1082, 1106]


def test_patch_releases_and_unknown_releases() -> None:
    assert Sizer("1.24.6", mesh_config={}).sizing is SIZINGS["1.24"]
    assert Sizer("1.31.0-alpha.0", mesh_config={}).sizing is SIZINGS["1.31"]
    with pytest.raises(InputError, match=r"1\.13.*1\.31"):
        Sizer("1.12", mesh_config={})


def test_an_empty_response_is_only_its_envelope() -> None:
    """An LDS response without resources, as recorded: 273, 295, 139 bytes."""
    sizes = [Sizer(r, mesh_config={}).response_bytes("LDS", ()) for r in ("1.14", "1.22", "1.24", "1.27", "1.31")]
    assert sizes == [273, 273, 295, 139, 139]


def envoy_filter(app: str, value: dict[str, object], apply_to: str = "HTTP_FILTER", operation: str = "ADD") -> Object:
    patch = {"applyTo": apply_to, "match": {"context": "ANY"}, "patch": {"operation": operation, "value": value}}
    spec = {"workloadSelector": {"labels": {"app": app}}, "configPatches": [patch]}
    return Object(Ref("EnvoyFilter", "ns-a", f"for-{app}"), {"spec": spec})


@pytest.mark.parametrize(
    ("apply_to", "operation", "resource"), [("HTTP_FILTER", "ADD", "http"), ("CLUSTER", "MERGE", "outbound")]
)
def test_filters_for_other_workloads_do_not_count(apply_to: str, operation: str, resource: str) -> None:
    """Two workloads of a namespace, each with a filter of its own: the same labels' lengths, other filters."""
    small: dict[str, object] = {"name": "f"} if apply_to == "HTTP_FILTER" else {"altStatName": "f"}
    large: dict[str, object] = {"name": "f" * 500} if apply_to == "HTTP_FILTER" else {"altStatName": "f" * 500}
    both = (envoy_filter("a", small, apply_to, operation), envoy_filter("b", large, apply_to, operation))
    one, other = (Proxy(f"{app}-0", "ns-a", "10.1.1.1", labels={"app": app}) for app in "ab")
    shared = Sizer("1.24", mesh_config={})
    policies = Policies(envoy_filters=both)
    got = [shared.resource_bytes(RESOURCES[resource], proxy, policies) for proxy in (one, other)]
    alone = [
        Sizer("1.24", mesh_config={}).resource_bytes(RESOURCES[resource], proxy, Policies(envoy_filters=(written,)))
        for proxy, written in zip((one, other), both, strict=True)
    ]
    assert got == alone and got[0] < got[1]
    assert shared.numbers(one, policies)["LDS"] != shared.numbers(other, policies)["LDS"]
    assert shared.numbers(one, policies)["CDS"] != shared.numbers(other, policies)["CDS"]


def test_what_a_sidecar_says_of_unknown_destinations() -> None:
    """Measured on 1.24 in a random case: a Sidecar with REGISTRY_ONLY, where the mesh config allows any."""
    sizer = Sizer("1.24", mesh_config={})
    outbound_listener = Listener("virtualOutbound", "virtualOutbound", "0.0.0.0", 15001, unknown="BlackHoleCluster")
    route = RouteConfiguration("6060", unknown="BlackHoleCluster")
    assert [sizer.resource_bytes(r, PROXY, NONE) for r in (outbound_listener, route)] == [414, 57]


@pytest.mark.parametrize(("release", "expected"), [("1.24", [104, 100]), ("1.30", [104, 110])])
def test_only_an_entrys_own_host_name_lacks_the_cluster(release: str, expected: list[int]) -> None:
    """An endpoint as measured on 1.24 in a random case; the host itself until 1.24 without `Kubernetes`."""
    host = "x1.example.com"
    entry = Service(host, "n1", host, (HTTP,), "EDS", "External", external=True)
    sizer, name = Sizer(release, mesh_config={}), f"outbound|80||{host}"
    found = [
        LoadAssignment(name, entry, HTTP, "", (), (Endpoint(at, 80, "http", probed=False),))
        for at in ("10.9.1.1", host)
    ]
    assert [sizer.resource_bytes(resource, PROXY, NONE) for resource in found] == expected


def test_hosts_that_a_cluster_keeps_though_a_rule_makes_it_direct_are_measured() -> None:
    """On 1.14; two of equal lengths in all else."""
    host, sizer = "x1.example.com", Sizer("1.14", mesh_config={})
    entry = Service(host, "n1", host, (HTTP,), "DNS", "External", external=True)

    def length(*addresses: str) -> int:
        hosts = tuple(Endpoint(at, 80, "http", probed=False) for at in addresses)
        name = f"outbound|80||{host}"
        cluster = OutboundCluster(name, entry, HTTP, "", "ORIGINAL_DST", endpoints=hosts, begins="STRICT_DNS")
        return sizer.resource_bytes(cluster, PROXY, NONE)

    assert length("a.example.com") < length("a.example.com", "b.example.com")


def test_subsets_of_an_external_service_do_not_say_so() -> None:
    """Measured on 1.24 in a random case: 927 and 933 bytes."""
    host, tls = "x1.example.com", {"mode": "SIMPLE"}
    policy = {"connectionPool": {"tcp": {"maxConnections": 23}}, "outlierDetection": {"consecutive5xxErrors": 1}}
    spec = {"host": host, "subsets": [{"name": "v1"}], "trafficPolicy": {**policy, "tls": tls}}
    rules = (Object(Ref("DestinationRule", "n1", "d1"), {"spec": spec}),)
    entry = Service(host, "n0", host, (HTTP,), "EDS", "External", external=True)
    sizer = Sizer("1.24", mesh_config={})
    found = [OutboundCluster(f"outbound|80|{s}|{host}", entry, HTTP, s, "EDS", rules) for s in ("", "v1")]
    assert [sizer.resource_bytes(resource, PROXY, NONE) for resource in found] == [927, 933]


@pytest.mark.parametrize(("release", "expected"), [("1.16", -2), ("1.20", -2), ("1.24", 3)])
def test_a_gateway_decides_its_routes_anew_once_claims_are_known(release: str, expected: int) -> None:
    """It clears the route cache, a switch of Envoy's filter now, the opposite one of Istio's own before."""
    jwt = Object(Ref("RequestAuthentication", "ns-a", "j"), {"spec": {"jwtRules": [{"issuer": "i", "jwks": "{}"}]}})
    sidecar, gateway = (
        sum(len(bytes(f.typed_config)) for f in http_filters([jwt], SIZINGS[release], gateway=gateway))
        for gateway in (False, True)
    )
    assert gateway - sidecar == expected


@pytest.mark.parametrize(("release", "specific"), [("1.17", False), ("1.18", True), ("1.31", True)])
def test_the_most_specific_virtual_service_shapes_a_service_from_1_18_on(release: str, specific: bool) -> None:
    """Until then the oldest one does (computeWildcardHostVirtualServiceIndex)."""

    def routing(name: str, host: str) -> Object:
        spec = {"hosts": [host], "http": [{"route": [{"destination": {"host": f"{name}.example.com"}}]}]}
        metadata = {"name": name, "namespace": "ns-a"}
        return Object(Ref("VirtualService", "ns-a", name), {"metadata": metadata, "spec": spec})

    wide, exact = routing("a-wide-one", "*.ns-a.svc.cluster.local"), routing("exact", A.hostname)

    def size(*virtual_services: Object) -> int:
        route = RouteConfiguration("80", ((A, HTTP),), virtual_services)
        return Sizer(release, mesh_config={}).resource_bytes(route, PROXY, NONE)

    assert size(wide, exact) == size(exact if specific else wide)
    assert size(wide) != size(exact)


def of_gateway(redirects: bool) -> Object:
    tls = {"tls": {"httpsRedirect": True}} if redirects else {}
    servers = [{"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"], **tls}]
    return Object(Ref("Gateway", "n", "g"), {"spec": {"servers": servers}})


def routed(name: str, hosts: list[str], destination: str, label: str) -> Object:
    route = {"destination": {"host": destination}}
    http = [{"match": [{"sourceLabels": {"app": label}}] if label else [{}], "route": [route], "timeout": "5s"}]
    return Object(Ref("VirtualService", "n", name), {"spec": {"hosts": hosts, "gateways": ["g"], "http": http}})


def test_routes_of_a_gateway_without_hosts_are_a_virtual_host_that_takes_nothing() -> None:
    resource = RouteConfiguration("http.80", servers=((of_gateway(redirects=False), 0),))
    proxy = Proxy("p", "n", "10.0.0.1", "router")
    black_hole = made(VirtualHost, name="blackhole:80", domains=["*"])
    expected = made(
        EnvoyRoutes,
        name="http.80",
        validate_clusters=False,
        virtual_hosts=[black_hole],
        max_direct_response_body_size_bytes=1048576,
        ignore_port_in_host_matching=True,
    )
    assert GatewayRoutes(SIZINGS["1.24"], Settings({}, {})).length(resource, proxy) == length(expected)


EDITED = st.builds(
    routed,
    st.sampled_from(["v", "w", "x"]),
    st.lists(st.sampled_from(["a.com", "B.com", "*.com"]), unique=True),
    st.sampled_from(["s", "longer"]),
    st.sampled_from(["", "a", "b"]),
)
PORTS = st.dictionaries(st.sampled_from(["s.n.svc.cluster.local", "longer.n.svc.cluster.local"]), st.integers(1, 70000))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(EDITED, PORTS, st.booleans(), st.sampled_from(["a", "b"])), min_size=1, max_size=8))
def test_routes_of_a_gateway_that_were_measured_before_are_as_long_as_new_ones(
    edits: list[tuple[Object, dict[str, int], bool, str]],
) -> None:
    def meter() -> GatewayRoutes:
        return GatewayRoutes(SIZINGS["1.24"], Settings({}, {}))

    known, written, gateways = meter(), dict[str, Object](), {of: of_gateway(redirects=of) for of in (False, True)}
    for edited, ports, redirects, label in edits:
        written[edited.ref.name] = edited
        proxy = Proxy("p", "n", "10.0.0.1", "router", {"app": label})
        services = tuple(
            (service(host.partition(".")[0], "n", "10.0.0.9", port), port)
            for host, number in ports.items()
            for port in [Port("http", number, "HTTP")]
        )
        resource = RouteConfiguration("http.80", services, tuple(written.values()), ((gateways[redirects], 0),))
        assert known.length(resource, proxy) == meter().length(resource, proxy)


def shaping(name: str, host: str, label: str, namespace: str) -> Object:
    match = {"sourceLabels": {"app": label}} if label else {}
    match |= {"sourceNamespace": namespace} if namespace else {}
    http = [{"match": [match], "route": [{"destination": {"host": "elsewhere.com"}}]}]
    return Object(Ref("VirtualService", "ns-b", name), {"spec": {"hosts": [host], "http": http}})


SHAPING = st.builds(
    shaping,
    st.sampled_from(["v", "longer"]),
    st.sampled_from([A.hostname, B.hostname, "*.ns-a.svc.cluster.local", "*.com"]),
    st.sampled_from(["", "a"]),
    st.sampled_from(["", "ns-a"]),
)
ASKING = st.tuples(st.sampled_from(["ns-a", "ns-b", "ns-c"]), st.sampled_from(["a", "b"]))


@pytest.mark.parametrize("release", ["1.14", "1.24"])
@settings(max_examples=50, deadline=None)
@given(st.lists(SHAPING, max_size=3), st.lists(ASKING, min_size=2, max_size=6))
def test_routes_that_were_measured_for_one_sidecar_are_as_long_for_others_as_measured_for_them_alone(
    release: str, virtual_services: list[Object], asking: list[tuple[str, str]]
) -> None:
    def route(name: str, *services: Service) -> RouteConfiguration:
        return RouteConfiguration(name, tuple((s, HTTP) for s in services), tuple(virtual_services))

    known, routes = Sizer(release, mesh_config={}), Block([route("80", A, B), route(f"{A.hostname}:80", A)])
    for namespace, label in asking:
        proxy = Proxy("p", namespace, "10.0.0.1", labels={"app": label})
        alone = Sizer(release, mesh_config={})
        priced = [(each.name, alone.resource_bytes(each, proxy, NONE)) for each in routes]  # type: ignore[arg-type]
        expected = alone.response_bytes("RDS", priced) - alone.response_bytes("RDS", ())
        assert known.framed_bytes("RDS", routes, proxy, NONE) == expected


def test_a_virtual_service_leaves_a_service_the_name_it_has_at_home() -> None:
    def length_in(namespace: str, *virtual_services: Object) -> int:
        resource = RouteConfiguration("80", ((A, HTTP),), virtual_services)
        return Sizer("1.24", mesh_config={}).resource_bytes(resource, Proxy("p", namespace, "10.0.0.1"), NONE)

    shaped = shaping("v", A.hostname, "", "")
    assert (
        length_in("ns-a") - length_in("ns-b") == length_in("ns-a", shaped) - length_in("ns-b", shaped) == len("a") + 2
    )


#: Services that differ in little: lengths are remembered by what decides them.
NEARLY_ALIKE = st.builds(
    Service,
    st.sampled_from([A.hostname, B.hostname, "a.example.com"]),
    st.sampled_from(["ns-a", "ns-b"]),
    st.sampled_from(["a", "b"]),
    st.tuples(
        st.builds(Port, st.sampled_from(["", "http"]), st.sampled_from([80, 90]), st.sampled_from(["HTTP", "TCP"]))
    ),
    st.sampled_from(["EDS", "DNS", "PASSTHROUGH"]),
    registry=st.sampled_from(["Kubernetes", "External"]),
    addresses=st.sampled_from([(), ("10.0.1.1",), ("10.0.1.1", "10.0.1.22")]),
    external=st.booleans(),
    labels=st.sampled_from([(), (("istio.io/persistent-session", "x"),)]),
    extras=st.sampled_from([(), (("internalTrafficPolicy", "Local"),), (("trafficDistribution", "PreferClose"),)]),
)


def made_of(kind: str, services: list[Service]) -> InboundCluster | OutboundCluster | Listener | LoadAssignment:
    first, pairs = services[0], tuple((each, each.ports[0]) for each in services)
    port, name = first.ports[0], f"outbound|{first.ports[0].number}||{first.hostname}"
    match kind:
        case "inbound":
            return InboundCluster("inbound|8080||", 8080, pairs)
        case "outbound":
            return OutboundCluster(name, first, port, "", "EDS" if first.resolution == "EDS" else "STRICT_DNS")
        case "endpoints":
            endpoint = Endpoint("10.1.1.1", 8080, port.name, (("app", "a"),), locality="r/z", workload="a-0")
            return LoadAssignment(name, first, port, "", endpoints=(endpoint,))
        case "virtualInbound":
            return Listener(
                "virtualInbound", "virtualInbound", "0.0.0.0", 15006, services=pairs, target_ports=(8080,) * len(pairs)
            )
    return Listener("0.0.0.0_80", kind, "0.0.0.0", 80, "80" if kind == "http" else "", pairs)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["inbound", "outbound", "endpoints", "virtualInbound", "http", "tcp"])
@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(NEARLY_ALIKE, min_size=1, max_size=2), min_size=2, max_size=4))
def test_what_was_measured_before_does_not_change_what_is_measured_next(kind: str, of: list[list[Service]]) -> None:
    known = Sizer("1.24", mesh_config={})
    for services in of:
        resource = made_of(kind, services)
        assert known.resource_bytes(resource, PROXY, NONE) == Sizer("1.24", mesh_config={}).resource_bytes(
            resource, PROXY, NONE
        )
