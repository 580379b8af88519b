"""Rules that random meshes on real istiods brought to light, each alone; recorded in `vectors/corners`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pushsim import releases
from pushsim.conversation import Conversation
from pushsim.manifests import parse_objects
from pushsim.mesh import Change, ConfigKey, Mesh, Object, Port, Proxy, Service
from pushsim.plan import plan
from pushsim.plan.istiod import Istiod
from pushsim.resources import InboundCluster, Listener, LoadAssignment, RouteConfiguration
from pushsim.sizes import Policies, Sizer, clusters
from pushsim.sizes.matches import RouteTranslator
from pushsim.sizes.routes import RouteMeter
from pushsim.sizes.sessions import FILTER, sessions_of

CLIENT = Proxy("c-0", "ns", "10.1.0.1", "sidecar", {"app": "c"})
Body = dict[str, Any]
NETWORKING = "networking.istio.io/v1"


def service(name: str, *ports: tuple[str, int], **spec: Any) -> Body:
    listed = [{"name": said, "port": number, "targetPort": 8080} for said, number in ports]
    metadata = {"name": name, "namespace": "ns"}
    spec = {"clusterIP": f"10.0.0.{len(name)}", "selector": {"app": name}, "ports": listed, **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def istiod(release: str, *bodies: Body) -> Istiod:
    objects = parse_objects(list(bodies), source="test")
    return Istiod(Mesh({o.ref: o for o in objects}, (CLIENT,), {}, {}), releases.rules(release), "sotw")


@pytest.mark.parametrize("leads", ["unix:///var/run/app.sock", "/var/run/app.sock"])
def test_an_ingress_listener_may_lead_to_a_socket(leads: str) -> None:
    sizer = Sizer("1.24", mesh_config={})
    dummy = Service("own.ns", "ns", "own", (), "EDS", external=True)
    cluster = InboundCluster("inbound|80||", 80, ((dummy, Port("http", 80, "HTTP")),), (), True, leads)
    built = clusters.inbound(cluster, (), sizer.sizing, sizer.settings)
    (endpoint,) = built.load_assignment.endpoints[0].lb_endpoints
    assert endpoint.endpoint.address.pipe.path == "/var/run/app.sock"


@pytest.mark.parametrize("release", ["1.14.6", "1.30.3"])
def test_a_ports_route_has_the_services_whose_protocol_is_sniffed_there_too(release: str) -> None:
    mesh = istiod(release, service("said", ("http", 80)), service("unsaid", ("", 80)))
    routes = (r for response in mesh.connect(CLIENT).responses if response.xds == "RDS" for r in response.resources)
    by_name = {route.name: route for route in routes if isinstance(route, RouteConfiguration)}
    assert {held.name for held, _ in by_name["80"].services} == {"said", "unsaid"}
    assert {held.name for held, _ in by_name["unsaid.ns.svc.cluster.local:80"].services} == {"unsaid"}


def alias(name: str, to: str) -> Body:
    return service(name, ("http", 80), type="ExternalName", externalName=f"{to}.ns.svc.cluster.local", clusterIP="")


@pytest.mark.parametrize(("release", "pushed"), [("1.20.8", set()), ("1.21.6", {"b"}), ("1.30.3", {"b"})])
def test_a_changed_alias_pushes_what_it_stands_for(release: str, pushed: set[str]) -> None:
    mesh = istiod(release, service("b", ("http", 80)), alias("aa", "b"), alias("aaa", "aa"), alias("x", "x"))
    for changed, more in (("aaa", pushed), ("x", set[str]())):
        key = ConfigKey("ServiceEntry", f"{changed}.ns.svc.cluster.local", "ns")
        keys = mesh.registry.with_aliased(frozenset({key}))
        assert {key.name.partition(".")[0] for key in keys} == {changed, *more}


def test_an_alias_names_what_it_stands_for_as_long_as_it_is_there() -> None:
    mesh = istiod("1.30.3", service("b", ("http", 80)), alias("aa", "b"))
    served = {held.name: held for held in mesh.registry.served()}
    assert served["b"].aliases == ("aa.ns.svc.cluster.local",) and served["aa"].aliases == ()
    assert all(again is served[again.name] for again in mesh.registry.served())


@pytest.mark.parametrize(("release", "named"), [("1.14", True), ("1.20", True), ("1.24", False), ("1.30", False)])
def test_until_1_20_an_inbound_cluster_names_services_that_are_external(release: str, named: bool) -> None:
    """Those of the pods of a Service that becomes an ExternalName, whose slice is still there."""
    sizer = Sizer(release, mesh_config={})
    outside = Service("b.ns.svc.cluster.local", "ns", "b", (), "DNS", external=True)
    cluster = InboundCluster("inbound|8080||", 8080, ((outside, Port("http", 80, "HTTP")),), (), False, "")
    assert (clusters.inbound(cluster, (), sizer.sizing, sizer.settings).metadata is not None) is named


def test_a_port_that_proxies_http_has_all_ports_of_its_services() -> None:
    """Recorded on 1.30.3: names without port are those of port 80, unless another port of its service comes first."""
    ports = (Port("http-x", 8085, "HTTP"), Port("http", 80, "HTTP"), Port("http-z", 7000, "HTTP"))
    held = Service("o.ns-b.svc.cluster.local", "ns-b", "o", ports, "EDS", addresses=("10.0.2.7",))
    sizer = Sizer("1.30", mesh_config={})
    meter = RouteMeter(sizer.sizing, sizer.settings)
    pairs = tuple((held, port) for port in ports)
    proxied, nothing = (
        meter.sidecar(RouteConfiguration("3128", services, every_port=True), CLIENT) for services in (pairs, ())
    )
    assert proxied - nothing == sum(size + 3 for size in (467, 451, 467))


@pytest.mark.parametrize(("protocol", "routed"), [("HTTP_PROXY", {80, 9090, 8081}), ("HTTP", set())])
def test_its_route_is_of_any_port(protocol: str, routed: set[int]) -> None:
    port = {"number": 3128, "name": "proxy", "protocol": protocol}
    spec = {"egress": [{"port": port, "hosts": ["*/*"]}, {"hosts": ["./*"]}]}
    meta = {"name": "default", "namespace": "ns"}
    sidecar = {"apiVersion": "networking.istio.io/v1", "kind": "Sidecar", "metadata": meta, "spec": spec}
    services = (service("one", ("http", 80), ("grpc", 9090)), service("three", ("tcp", 9000), ("http", 8081)))
    mesh = istiod("1.24.6", *services, sidecar)
    routes = (r for response in mesh.connect(CLIENT).responses if response.xds == "RDS" for r in response.resources)
    by_name = {route.name: route for route in routes if isinstance(route, RouteConfiguration)}
    found = by_name["3128"].services if "3128" in by_name else ()
    assert {port.number for _, port in found} == routed


@pytest.mark.parametrize(("release", "told"), [("1.20", False), ("1.21", True), ("1.22", True), ("1.30", True)])
def test_routes_say_how_their_destinations_keep_sessions(release: str, told: bool) -> None:
    """Recorded with PILOT_ENABLE_PERSISTENT_SESSION_FILTER: RDS of a route to a Service with a cookie, 294 B longer."""
    sizer = Sizer(release, mesh_config={}, env={"PILOT_ENABLE_PERSISTENT_SESSION_FILTER": "true"})
    kept = Service("c.ns.svc.cluster.local", "ns", "c", (), "EDS", labels=(("istio.io/persistent-session", "sid"),))
    plain = replace(kept, hostname="d.ns.svc.cluster.local", labels=())
    found = dict(sessions_of((kept, plain), sizer.sizing, sizer.settings))
    translator = RouteTranslator(
        sizer.sizing, sizer.settings, 80, ports=lambda _: None, hashes=lambda *_: None, sessions=found.get
    )
    for hosts, keeps in ((["c"], told), (["d"], False), (["d", "c"], told), (["c", "d"], False)):
        to = [{"destination": {"host": f"{host}.ns.svc.cluster.local"}, "weight": 50} for host in hosts]
        spec = {"hosts": ["c.ns.svc.cluster.local"], "http": [{"route": to}]}
        meta = {"name": "c", "namespace": "ns"}
        body = {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": meta, "spec": spec}
        (route,) = translator.routes(parse_objects([body])[0], CLIENT)
        assert (FILTER in route.typed_per_filter_config) is keeps


@pytest.mark.parametrize("release", ["1.14.6", "1.24.6", "1.27.9"])
def test_endpoints_of_a_port_that_a_scope_shows_no_more_are_in_the_cache(release: str) -> None:
    """Recorded: a Sidecar that narrows its hosts to a port pushes the others once more, with all their endpoints."""
    meta = {"name": "one-1", "namespace": "ns", "labels": {"kubernetes.io/service-name": "one"}}
    ports = [{"name": "http", "port": 8080}, {"name": "grpc", "port": 8080}]
    listed = [{"addresses": ["10.1.0.7"], "conditions": {"ready": True}}]
    written = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta, "addressType": "IPv4"}
    spec = {"egress": [{"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*/*"]}]}
    sidecar = {"apiVersion": "networking.istio.io/v1", "kind": "Sidecar", "metadata": {"name": "s", "namespace": "ns"}}
    one = service("one", ("http", 80), ("grpc", 9090))
    mesh = istiod(release, one, {**written, "endpoints": listed, "ports": ports})
    state = mesh.connect(CLIENT).state
    (request,) = mesh.handle(Change(parse_objects([{**sidecar, "spec": spec}])))
    eds = next(r for r in plan(state, request, mesh.push(request)).responses if r.xds == "EDS")
    by_name = {held.name: held for held in eds.resources if isinstance(held, LoadAssignment)}
    assert len(by_name["outbound|9090||one.ns.svc.cluster.local"].endpoints) == 1


@pytest.mark.parametrize("release", ["1.14.6", "1.24.6"])
def test_of_two_pods_alike_the_one_that_is_relabelled_goes_its_own_way(release: str) -> None:
    """Recorded on 1.14.6, where its proxy is not pushed for that, but is of other services from then on."""
    twins = tuple(Proxy(f"c-{n}", "ns", f"10.1.0.{n}", "sidecar", {"app": "c", "v": "1"}) for n in (1, 2))

    def pod(of: Proxy, version: str) -> Body:
        spec = {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}
        status = {"phase": "Running", "podIP": of.ip, "podIPs": [{"ip": of.ip}]}
        meta = {"name": of.name, "namespace": "ns", "labels": {"app": "c", "v": version}}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec, "status": status}

    first = service("c", ("http", 80), selector={"app": "c", "v": "1"})
    second = service("four", ("http", 81), selector={"app": "c", "v": "2"})
    objects = parse_objects([first, *(pod(of, "1") for of in twins)])
    changes = [Change(parse_objects([pod(twins[1], "2")])), Change(parse_objects([second]))]
    talk = Conversation(Mesh({o.ref: o for o in objects}, twins, {}, {}), releases.rules(release), "sotw", changes)
    for change in changes:
        talk.step(change)
    found = {p.id: [t.service.name for t in o.plan.state.targets] for o in talk.classes for p in o.members}
    assert found == {"c-1.ns": ["c"], "c-2.ns": ["four"]}


def test_an_inbound_clusters_length_is_remembered_by_which_of_its_hosts_are_the_same() -> None:
    """Ports of two like Services are two Services; two of one are not (hypothesis found it: 294 and 214 B)."""
    first, second = (Service(f"{name}.ns", "ns", name, (), "EDS") for name in ("a", "b"))
    port, sizer = Port("", 80, "HTTP"), Sizer("1.24", mesh_config={})
    same, apart = (
        InboundCluster("inbound|8080||", 8080, ((first, port), (other, port)), (), False, "")
        for other in (first, second)
    )
    fresh = Sizer("1.24", mesh_config={}).resource_bytes(apart, CLIENT, Policies())
    assert sizer.resource_bytes(same, CLIENT, Policies()) < fresh == sizer.resource_bytes(apart, CLIENT, Policies())


@pytest.mark.parametrize(
    ("host", "lost"), [("b.ns", "b.ns"), ("b.ns.svc", "b.ns.svc"), ("10.0.2.1", "10.0.2.1"), ("b.other", "")]
)
def test_a_route_of_another_name_of_a_service_takes_that_domain(host: str, lost: str) -> None:
    """Recorded: each domain is the first virtual host's that has it; a VirtualService's come before services alone."""
    port = Port("http", 80, "HTTP")
    held = Service("b.ns.svc.cluster.local", "ns", "b", (port,), "EDS", addresses=("10.0.2.1",))
    sizer = Sizer("1.24", mesh_config={})

    def measured(*services: Service) -> int:
        spec = {"hosts": [host], "http": [{"route": [{"destination": {"host": "x.ns.svc.cluster.local"}}]}]}
        body = {"apiVersion": NETWORKING, "kind": "VirtualService", "metadata": {"name": "v", "namespace": "ns"}}
        (written,) = parse_objects([{**body, "spec": spec}])
        pairs = tuple((service, port) for service in services)
        return RouteMeter(sizer.sizing, sizer.settings).sidecar(RouteConfiguration("80", pairs, (written,)), CLIENT)

    alone = RouteMeter(sizer.sizing, sizer.settings)
    plain = alone.sidecar(RouteConfiguration("80", ((held, port),)), CLIENT) - alone.sidecar(
        RouteConfiguration("80"), CLIENT
    )
    assert plain - (measured(held) - measured()) == (len(lost) + 2 if lost else 0)


def test_a_domain_that_a_service_with_a_route_has_is_not_given_away() -> None:
    """Recorded: the VirtualService of the service comes first, so a later one of that name has no virtual host."""
    port = Port("http", 80, "HTTP")
    held = Service("b.ns.svc.cluster.local", "ns", "b", (port,), "EDS", addresses=("10.0.2.1",))
    sizer = Sizer("1.24", mesh_config={})

    def written(name: str, host: str) -> Object:
        spec = {"hosts": [host], "http": [{"route": [{"destination": {"host": "x.ns.svc.cluster.local"}}]}]}
        meta = {"name": name, "namespace": "ns"}
        body = {"apiVersion": NETWORKING, "kind": "VirtualService", "metadata": meta, "spec": spec}
        return parse_objects([body])[0]

    first, second = written("a", "b.ns.svc.cluster.local"), written("b", "b.ns")
    one, both = (
        RouteMeter(sizer.sizing, sizer.settings).sidecar(RouteConfiguration("80", ((held, port),), routes), CLIENT)
        for routes in ((first,), (first, second))
    )
    assert one == both


@pytest.mark.parametrize("release", ["1.14.6", "1.24.6", "1.31.0"])
def test_an_egress_listener_on_a_socket_has_the_route_of_its_path(release: str) -> None:
    """Recorded: with all ports of its services, as that of a port that proxies HTTP."""
    listener = {"bind": "unix:///run/x.sock", "port": {"number": 0, "name": "http", "protocol": "HTTP"}}
    spec = {"egress": [{**listener, "hosts": ["./*"]}]}
    sidecar = {"apiVersion": NETWORKING, "kind": "Sidecar", "metadata": {"name": "s", "namespace": "ns"}, "spec": spec}
    mesh = istiod(release, service("one", ("http", 80), ("grpc", 9090)), sidecar)
    routes = [r for response in mesh.connect(CLIENT).responses if response.xds == "RDS" for r in response.resources]
    (route,) = (held for held in routes if isinstance(held, RouteConfiguration))
    assert (route.name, route.every_port) == ("unix:///run/x.sock", True)
    assert {port.number for _, port in route.services} == {80, 9090}


def test_tls_of_a_service_with_an_address_is_told_by_no_name_where_the_listener_is_on_all_addresses() -> None:
    """Recorded on 1.14.6, whose egress listeners with a port listen so: the chain matches nothing."""
    port = Port("https", 8443, "HTTPS")
    sizes = []
    for addresses in (("10.0.2.1",), ("0.0.0.0",)):
        held = Service("b.ns.svc.cluster.local", "ns", "b", (port,), "EDS", addresses=addresses)
        listener = Listener("0.0.0.0_8443", "tcp", "0.0.0.0", 8443, "", ((held, port),))
        sizes.append(Sizer("1.14", mesh_config={}).resource_bytes(listener, CLIENT, Policies()))
    assert sizes[1] - sizes[0] > len("b.ns.svc.cluster.local")


def test_a_service_in_the_place_of_a_serviceentry_of_its_host_has_not_its_ports() -> None:
    """Recorded on 1.17.8: a Service made while a ServiceEntry of its host has one port more; that has no endpoints."""
    host, endpoints = "one.ns.svc.cluster.local", [{"address": "10.7.0.1"}]
    ports = [{"number": 80, "name": "http", "protocol": "HTTP"}, {"number": 8090, "name": "tcp", "protocol": "TCP"}]
    spec = {"hosts": [host], "ports": ports, "resolution": "STATIC", "endpoints": endpoints}
    entry = {"apiVersion": NETWORKING, "kind": "ServiceEntry", "metadata": {"name": "e", "namespace": "ns"}}
    mesh = istiod("1.17.8", {**entry, "spec": spec})
    state = mesh.connect(CLIENT).state
    (request,) = mesh.handle(Change(parse_objects([service("one", ("http", 80))])))
    eds = next(r for r in plan(state, request, mesh.push(request)).responses if r.xds == "EDS")
    by_name = {held.name: held for held in eds.resources if isinstance(held, LoadAssignment)}
    assert by_name[f"outbound|8090||{host}"].endpoints == ()


@pytest.mark.parametrize(("release", "kept"), [("1.14.6", True), ("1.17.8", True), ("1.20.8", False)])
def test_until_1_17_a_pod_that_is_selected_no_more_stays_until_its_serviceentry_is_written(
    release: str, kept: bool
) -> None:
    """Recorded: it is still there when a WorkloadEntry joins, and among what its own proxy serves."""

    def pod(app: str) -> Body:
        meta = {"name": "c-0", "namespace": "ns", "labels": {"app": app}}
        spec = {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}
        ready = [{"type": "Ready", "status": "True"}]
        status = {"phase": "Running", "podIP": CLIENT.ip, "podIPs": [{"ip": CLIENT.ip}], "conditions": ready}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec, "status": status}

    meta = {"name": "e", "namespace": "ns"}
    ports = [{"number": 80, "name": "http", "protocol": "HTTP"}]
    spec = {"hosts": ["e.mesh"], "ports": ports, "resolution": "STATIC", "workloadSelector": {"labels": {"app": "c"}}}
    entry = {"apiVersion": NETWORKING, "kind": "ServiceEntry", "metadata": meta, "spec": spec}
    joins = {"address": "10.3.0.1", "labels": {"app": "c"}}
    workload = {"apiVersion": NETWORKING, "kind": "WorkloadEntry", "metadata": {"name": "w", "namespace": "ns"}}
    mesh = istiod(release, pod("c"), entry)

    def addresses(written: Body) -> set[str]:
        mesh.handle(Change(parse_objects([written])))
        shards = mesh.registry.endpoints.shards[("e.mesh", "ns")].values()
        return {endpoint.address for shard in shards for endpoint in shard}

    mesh.handle(Change(parse_objects([pod("d")])))
    assert addresses({**workload, "spec": joins}) == ({CLIENT.ip, "10.3.0.1"} if kept else {"10.3.0.1"})
    assert addresses({**entry, "spec": {**spec, "ports": [{**ports[0], "name": "http-2"}]}}) == {"10.3.0.1"}


@pytest.mark.parametrize(
    ("hosts", "seen"), [(["./one.ns.svc.cluster.local"], False), (["./*"], True), (["*/*.ns.svc.cluster.local"], True)]
)
def test_a_scope_shows_the_aliases_that_its_hosts_match(hosts: list[str], *, seen: bool) -> None:
    """Recorded: of a Service that a Sidecar imports by its own name, no alias is a domain (matchingAliasService)."""
    meta = {"name": "s", "namespace": "ns"}
    sidecar = {"apiVersion": NETWORKING, "kind": "Sidecar", "metadata": meta, "spec": {"egress": [{"hosts": hosts}]}}
    mesh = istiod("1.24.6", service("one", ("http", 80)), alias("other", "one"), sidecar)
    routes = (r for response in mesh.connect(CLIENT).responses if response.xds == "RDS" for r in response.resources)
    by_name = {route.name: route for route in routes if isinstance(route, RouteConfiguration)}
    (found,) = (held.aliases for held, _ in by_name["80"].services if held.name == "one")
    assert found == (("other.ns.svc.cluster.local",) if seen else ())


def test_a_route_of_an_alias_takes_all_its_names() -> None:
    """Recorded: what stands for it keeps its own; an alias whose Service has a route that comes first has none."""
    port, sizer = Port("http", 80, "HTTP"), Sizer("1.24", mesh_config={})
    other = "other.ns.svc.cluster.local"
    held = Service("b.ns.svc.cluster.local", "ns", "b", (port,), "EDS", addresses=("10.0.2.1",), aliases=(other,))
    alone, named = replace(held, aliases=()), Service(other, "ns", "other", (port,), "ALIAS")

    def written(name: str, host: str) -> Object:
        spec = {"hosts": [host], "http": [{"route": [{"destination": {"host": "x.ns.svc.cluster.local"}}]}]}
        meta = {"name": name, "namespace": "ns"}
        return parse_objects([{"apiVersion": NETWORKING, "kind": "VirtualService", "metadata": meta, "spec": spec}])[0]

    def measured(*services: Service, routes: tuple[Object, ...] = ()) -> int:
        pairs = tuple((service, port) for service in services)
        return RouteMeter(sizer.sizing, sizer.settings).sidecar(RouteConfiguration("80", pairs, routes), CLIENT)

    of_alias, of_service = written("a", other), written("b", held.hostname)
    plain = replace(named, resolution="EDS")
    assert measured(held, named, routes=(of_alias,)) == measured(alone, plain, routes=(of_alias,))
    assert measured(held, named, routes=(of_service, of_alias)) == measured(held, routes=(of_service,))


@pytest.mark.parametrize(("release", "longer"), [("1.24", 49), ("1.30", 77)])
def test_tls_is_told_by_the_names_of_aliases_too(release: str, longer: int) -> None:
    """Recorded: an ExternalName of a ServiceEntry without address; on 1.30.3 also with a dot at its end."""
    port, sizes = Port("tls", 443, "TLS"), []
    for aliases in ((), ("x1.ns-a.svc.cluster.local",)):
        held = Service("api.ext.com", "ns-c", "api.ext.com", (port,), "DNS", registry="External", aliases=aliases)
        listener = Listener("0.0.0.0_443", "tcp", "0.0.0.0", 443, "", ((held, port),))
        sizes.append(Sizer(release, mesh_config={}).resource_bytes(listener, CLIENT, Policies()))
    assert sizes[1] - sizes[0] - longer in (0, 1)  # the chain's own length may take a byte more
