"""What changes make istiod ask for, and what it makes of them, where held-out recordings of istiods told us better."""

import pytest

from pushsim import releases
from pushsim.conversation import Conversation
from pushsim.manifests import parse_objects
from pushsim.mesh import Change, Mesh, Proxy

PORTS = [{"name": "http", "port": 80, "targetPort": 8080}]


def described(kind, name, namespace="a", *, labels=None, **rest):
    version = {"EndpointSlice": "discovery.k8s.io/v1", "ServiceEntry": "networking.istio.io/v1"}.get(kind, "v1")
    metadata = {"name": name, "namespace": namespace, "labels": labels or {}}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **rest}


def pod(name, ip, **labels):
    status = {"podIP": ip, "phase": "Running"}
    return described("Pod", name, labels=labels, spec={"containers": []}, status=status)


def endpoint(name, ip):
    return {"addresses": [ip], "conditions": {"ready": True}, "targetRef": {"kind": "Pod", "name": name}}


def mesh_of(proxies, *bodies):
    return Mesh({o.ref: o for o in parse_objects(list(bodies))}, tuple(proxies))


def responses(step):
    return {p.id: [(r.xds, r.names) for r in o.plan.responses] for o in step.outcomes for p in o.members}


@pytest.mark.parametrize("release", ["1.22", "1.24", "1.30", "1.31"])
def test_a_relabelled_pod_pushes_the_endpoints_of_services_that_select_it_whatever_their_kind(release):
    """istiod's recomputeServiceForPod: an endpoint-only push, with no second request for a headless service."""
    service = described("Service", "s", spec={"clusterIP": "None", "selector": {"app": "s"}, "ports": PORTS})
    other = described("Service", "t", spec={"clusterIP": "10.0.0.2", "selector": {"app": "t"}, "ports": PORTS})
    slices = [
        described(
            "EndpointSlice", name, labels={"kubernetes.io/service-name": name}, addressType="IPv4",
            endpoints=[endpoint("s-0", "10.1.0.1")], ports=[{"name": "http", "port": 8080}],
        )
        for name in ("s", "t")
    ]  # fmt: skip
    router = Proxy("gw", "istio-system", "10.1.9.9", "router")
    mesh = mesh_of([router], service, other, *slices, pod("s-0", "10.1.0.1", app="s", role="x"))
    conversation = Conversation(mesh, releases.rules(release), "sotw")
    change = Change(parse_objects([pod("s-0", "10.1.0.1", app="s", role="y")]))
    assert responses(conversation.step(change)) == {
        "gw.istio-system": [("EDS", ("outbound|80||s.a.svc.cluster.local",))]
    }
    assert responses(conversation.step(change)) == {"gw.istio-system": []}, "no label changed"


def entry(namespace, ports, resolution, created):
    spec = {
        "hosts": ["x.com"], "resolution": resolution, "location": "MESH_INTERNAL",
        "ports": [{"number": p, "name": f"http-{p}", "protocol": "HTTP"} for p in ports],
        "endpoints": [{"address": "x.org" if resolution == "DNS" else "10.9.0.1"}],
    }  # fmt: skip
    body = described("ServiceEntry", "e", namespace, spec=spec)
    body["metadata"]["creationTimestamp"] = f"2024-01-01T00:00:0{created}Z"
    return body


def test_two_services_of_one_host_have_each_cluster_name_once_and_the_first_has_it():
    """Until 1.21 a default scope holds both; istiod's normalizeClusters keeps the first of a name."""
    mesh = mesh_of(
        [Proxy("p", "c", "10.1.0.1"), Proxy("gw", "istio-system", "10.1.9.9", "router")],
        entry("a", [80], "DNS", 1), entry("b", [80, 81], "STATIC", 2),
    )  # fmt: skip
    for outcome in Conversation(mesh, releases.rules("1.16"), "sotw").classes:
        cds, *others = outcome.plan.responses
        assert [n for n in cds.names if n.startswith("outbound")] == ["outbound|80||x.com", "outbound|81||x.com"]
        assert [r.names for r in others if r.xds == "EDS"] == [("outbound|81||x.com",)]


@pytest.mark.parametrize("release", ["1.14", "1.17", "1.19"])
def test_of_a_port_that_is_gone_delta_takes_back_the_cluster_without_a_subset(release):
    """Until 1.19 istiod keeps what is watched sorted by name, and the last of a port is the one it takes back."""
    rule = described("DestinationRule", "d", spec={"host": "s", "subsets": [{"name": "v1", "labels": {"v": "1"}}]})
    rule["apiVersion"] = "networking.istio.io/v1"

    def service(*ports):
        told = [{"name": f"http-{port}", "port": port} for port in ports]
        return described("Service", "s", spec={"clusterIP": "10.0.0.1", "ports": told})

    mesh = mesh_of([Proxy("p", "a", "10.1.0.1")], service(80, 81), rule)
    conversation = Conversation(mesh, releases.rules(release), "delta")
    altered = {**rule, "spec": {**rule["spec"], "trafficPolicy": {"tls": {"mode": "DISABLE"}}}}
    conversation.step(
        Change(parse_objects([altered]))
    )  # until 1.20, what the answers on connecting held does not count
    (outcome,) = conversation.step(Change(parse_objects([service(80)]))).outcomes
    assert outcome.plan.responses[0].removed == ("outbound|81||s.a.svc.cluster.local",)


@pytest.mark.parametrize(("release", "times"), [("1.17", 2), ("1.21", 2), ("1.22", 1), ("1.30", 1)])
def test_a_cluster_that_two_keys_take_back_is_named_twice_until_1_21(release, times):
    """Two services of one host change together: istiod kept a list of what is gone before it kept a set (#49890)."""
    mesh = mesh_of([Proxy("p", "c", "10.1.0.1")], entry("a", [80, 81], "STATIC", 1), entry("b", [80, 81], "STATIC", 2))
    conversation = Conversation(mesh, releases.rules(release), "delta")
    conversation.step(Change(parse_objects([entry("a", [80, 81, 82], "STATIC", 1)])))
    both = [entry("a", [80, 82], "STATIC", 1), entry("b", [80, 82], "STATIC", 2)]
    (outcome,) = conversation.step(Change(parse_objects(both))).outcomes
    assert outcome.plan.responses[0].removed == ("outbound|81||x.com",) * times


@pytest.mark.parametrize(
    ("release", "full"), [("1.17.8", True), ("1.18.5", True), ("1.18.6", False), ("1.20.8", False)]
)
def test_an_endpoint_that_is_not_ready_takes_its_service_account_along_until_1_18_6(release, full):
    """Until then istiod does not keep it (updateEndpointSlice), and other service accounts are a full push."""

    def slice_of(*endpoints):
        return described(
            "EndpointSlice", "s", labels={"kubernetes.io/service-name": "s"}, addressType="IPv4",
            endpoints=list(endpoints), ports=[{"name": "http", "port": 8080}],
        )  # fmt: skip

    service = described("Service", "s", spec={"clusterIP": "10.0.0.1", "selector": {"app": "s"}, "ports": PORTS})
    before = slice_of(endpoint("s-0", "10.1.0.1"))
    gone = endpoint("s-0", "10.1.0.1") | {"conditions": {"ready": False}}
    after = slice_of(gone, {"addresses": ["10.9.0.1"], "conditions": {"ready": True}})
    router = Proxy("gw", "istio-system", "10.1.9.9", "router")
    mesh = mesh_of([router], service, before, pod("s-0", "10.1.0.1", app="s"))
    conversation = Conversation(mesh, releases.rules(release), "sotw")
    (pushed,) = responses(conversation.step(Change(parse_objects([after])))).values()
    assert ("CDS" in [xds for xds, _ in pushed]) == full


def test_of_several_clusters_of_a_port_that_went_the_one_known_to_be_lost_goes():
    """From 1.20 on istiod leaves to chance which; whoever compares with a recording can say."""
    rule = described("DestinationRule", "d", spec={"host": "s", "subsets": [{"name": "v1", "labels": {"v": "1"}}]})
    rule["apiVersion"] = "networking.istio.io/v1"
    ports = [{"name": "http", "port": 80}, {"name": "http-81", "port": 81}]
    before, after = (
        described("Service", "s", spec={"clusterIP": "10.0.0.1", "ports": ports[:n], "selector": {"app": "s"}})
        for n in (2, 1)
    )
    proxies = [Proxy(f"p{i}", "a", f"10.1.0.{i}") for i in range(3)]
    conversation = Conversation(mesh_of(proxies, before, rule), releases.rules("1.24"), "delta")
    plain, subset = "outbound|81||s.a.svc.cluster.local", "outbound|81|v1|s.a.svc.cluster.local"
    lost = {"p0.a": frozenset({subset}), "p1.a": frozenset({plain})}
    step = conversation.step(Change(parse_objects([after])), lost=lost)
    gone = {p.id: o.plan.responses[0].removed for o in step.outcomes for p in o.members}
    assert gone == {"p0.a": (subset,), "p1.a": (plain,), "p2.a": (plain,)}


def relabelled(release, spec):
    """What a push follows an update of a DestinationRule that changes a label alone."""
    rule = {**described("DestinationRule", "d", spec=spec), "apiVersion": "networking.istio.io/v1"}
    service = described("Service", "s", spec={"clusterIP": "10.0.0.1", "selector": {"app": "s"}, "ports": PORTS})
    conversation = Conversation(mesh_of([Proxy("p", "a", "10.1.0.1")], service, rule), releases.rules(release), "sotw")
    (pushed,) = responses(conversation.step(Change(parse_objects([rule | {"metadata": rule["metadata"] | {
        "labels": {"touched": "1"}}}])))).values()  # fmt: skip
    return [xds for xds, _ in pushed]


@pytest.mark.parametrize(
    ("release", "short", "tls"),
    [("1.14", False, False), ("1.15", True, False), ("1.20", True, False), ("1.21", True, True), ("1.25", True, True),
     ("1.26", True, False), ("1.31", True, False)],
)  # fmt: skip
def test_an_update_that_changes_nothing_pushes_where_istiod_has_written_to_what_it_stored(release, short, tls):
    host, simple = "s.a.svc.cluster.local", {"mode": "SIMPLE"}
    assert bool(relabelled(release, {"host": "s"})) == short
    assert bool(relabelled(release, {"host": host, "trafficPolicy": {"tls": simple}})) == tls
    other_port = {"portLevelSettings": [{"port": {"number": 81}, "tls": simple}]}
    unread = [{"tls": {**simple, "caCertificates": "system"}}, {"connectionPool": {}}, other_port]
    for policy in unread:
        assert not relabelled(release, {"host": host, "trafficPolicy": policy}), policy
    assert not relabelled(release, {"host": "x.com", "trafficPolicy": {"tls": simple}}), "no cluster is built of it"
