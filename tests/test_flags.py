"""Variables of istiod's environment that change its rules; recorded on 1.14.6, 1.20.8, 1.24.6 and 1.30.3."""

from __future__ import annotations

from typing import Any

import pytest

from pushsim import releases
from pushsim.conversation import Conversation
from pushsim.manifests import parse_objects
from pushsim.mesh import Change, Mesh, Mode, Proxy
from pushsim.releases import KNOWN, switched

Body = dict[str, Any]
CLIENT = Proxy("a-0", "ns-a", "10.1.0.1", "sidecar", {"app": "a"})
GATEWAY = Proxy("gw-0", "istio-system", "10.1.0.9", "router", {"istio": "ingressgateway"})


def headless() -> Body:
    ports = [{"name": "tcp", "port": 6379}, {"name": "http", "port": 80}]
    spec = {"clusterIP": "None", "selector": {"app": "hl"}, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hl", "namespace": "ns-b"}, "spec": spec}


def endpoints(*addresses: str, app: str = "hl") -> Body:
    meta = {"name": f"{app}-1", "namespace": "ns-b", "labels": {"kubernetes.io/service-name": app}}
    ports = [{"name": "tcp", "port": 6379}, {"name": "http", "port": 80}]
    listed = [{"addresses": [address], "conditions": {"ready": True}} for address in addresses]
    head = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta, "addressType": "IPv4"}
    return {**head, "endpoints": listed, "ports": ports}


def gateway(namespace: str) -> Body:
    server = {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}
    spec = {"selector": {"istio": "ingressgateway"}, "servers": [server]}
    meta = {"name": "gw", "namespace": namespace}
    return {"apiVersion": "networking.istio.io/v1beta1", "kind": "Gateway", "metadata": meta, "spec": spec}


def change(*bodies: Body) -> Change:
    return Change(parse_objects(list(bodies)))


def talk(release: str, env: dict[str, str], *bodies: Body, mode: Mode = "sotw") -> Conversation:
    objects = {o.ref: o for o in parse_objects(list(bodies))}
    return Conversation(Mesh(objects, (CLIENT, GATEWAY), {}, env), releases.rules(release), mode)


def sent(conversation: Conversation, proxy: Proxy, written: Change) -> list[tuple[str, set[str]]]:
    (outcome,) = (o for o in conversation.step(written).outcomes if proxy in o.members)
    return [(r.xds, {n for n in r.names if "hl" in n or "10.2" in n}) for r in outcome.plan.responses]


NAMES = {"outbound|6379||hl.ns-b.svc.cluster.local", "outbound|80||hl.ns-b.svc.cluster.local"}


@pytest.mark.parametrize("release", ["1.14.6", "1.24.6", "1.30.3"])
def test_sidecars_may_find_headless_services_by_eds(release: str) -> None:
    env = {"PILOT_ENABLE_EDS_FOR_HEADLESS_SERVICES": "true"}
    told = sent(talk(release, env, headless(), endpoints("10.2.0.1")), CLIENT, change(endpoints("10.2.0.2")))
    assert ("EDS", NAMES) in told
    told = sent(talk(release, {}, headless(), endpoints("10.2.0.1")), CLIENT, change(endpoints("10.2.0.2")))
    assert not any(names for xds, names in told if xds == "EDS")


@pytest.mark.parametrize(
    ("release", "value", "pushed"),
    [
        ("1.14.6", "false", []),
        ("1.17.8", "false", []),
        ("1.20.8", "false", ["CDS", "LDS", "RDS"]),
        ("1.24.6", "false", ["CDS", "LDS", "RDS"]),
        ("1.14.6", "true", ["CDS", "LDS", "RDS"]),
    ],
)
def test_pods_of_headless_services_may_have_no_listeners(release: str, value: str, pushed: list[str]) -> None:
    """Until 1.20.3 their endpoints then ask for nothing else; from 1.22 on the variable is gone."""
    conversation = talk(
        release,
        {"PILOT_ENABLE_HEADLESS_SERVICE_POD_LISTENERS": value},
        headless(),
        endpoints("10.2.0.1"),
    )
    told = sent(conversation, CLIENT, change(endpoints("10.2.0.1", "10.2.0.2")))
    assert [xds for xds, _ in told if xds != "EDS"] == pushed
    listening = release == "1.24.6" or value == "true"
    assert any("10.2.0.2_6379" in names for xds, names in told if xds == "LDS") is listening


@pytest.mark.parametrize("release", ["1.14.6", "1.24.6", "1.30.3"])
def test_gateways_may_select_in_their_own_namespace_alone(release: str) -> None:
    env = {"PILOT_SCOPE_GATEWAY_TO_NAMESPACE": "true"}
    conversation = talk(release, env)
    for namespace, listeners in (("ns-b", 0), ("istio-system", 1)):
        (outcome,) = (o for o in conversation.step(change(gateway(namespace))).outcomes if GATEWAY in o.members)
        lds = next(r for r in outcome.plan.responses if r.xds == "LDS")
        assert len(lds.names) == listeners


@pytest.mark.parametrize(
    ("release", "name", "value", "field", "then"),
    [
        ("1.24.6", "PILOT_UNIFIED_SIDECAR_SCOPE", "false", "namespace_of_host", "own-or-first"),
        ("1.24.6", "PILOT_UNIFIED_SIDECAR_SCOPE", "false", "default_scope", "unified"),
        ("1.30.3", "PILOT_UNIFIED_SIDECAR_SCOPE", "0", "namespace_of_host", "own-or-first"),
        ("1.30.3", "PILOT_SIDECAR_PICK_BEST_SERVICE_NAMESPACE", "false", "destination_namespace", "alphabetical"),
        ("1.24.6", "ENABLE_ENHANCED_DESTINATIONRULE_MERGE", "F", "rule_merge", "first"),
        ("1.20.8", "ENABLE_EXTERNAL_NAME_ALIAS", "true", "external_name_aliases", True),
        ("1.22.8", "ENABLE_EXTERNAL_NAME_ALIAS", "false", "external_name_aliases", False),
        ("1.24.6", "ENABLE_EXTERNAL_NAME_ALIAS", "false", "external_name_aliases", True),
        ("1.20.8", "ISTIO_ENABLE_OPTIMIZED_SERVICE_PUSH", "false", "service_update", "always"),
        ("1.20.8", "ISTIO_ENABLE_OPTIMIZED_SERVICE_PUSH", "no", "service_update", "equal-or-target-port"),
    ],
)
def test_a_release_knows_its_own_variables(release: str, name: str, value: str, field: str, then: object) -> None:
    assert getattr(switched(KNOWN[release], {name: value}), field) == then
    assert switched(KNOWN[release], {"PILOT_HTTP10": "true"}) is KNOWN[release]


@pytest.mark.parametrize(
    ("release", "held", "at_once"),
    [
        ("1.14.6", ["CDS", "EDS", "LDS", "RDS"], ["EDS", "LDS"]),
        ("1.24.6", ["CDS", "EDS", "LDS", "RDS"], ["EDS", "LDS"]),
        ("1.31.0-alpha.0", ["EDS", "LDS"], ["EDS", "LDS"]),
    ],
)
def test_endpoints_that_no_debounce_holds_are_pushed_before_the_rest(
    release: str, held: list[str], at_once: list[str]
) -> None:
    meta = {"name": "d", "namespace": "ns-a"}
    policy = {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": meta, "spec": {}}
    service = headless() | {"metadata": {"name": "s", "namespace": "ns-b"}}
    service["spec"] = service["spec"] | {"clusterIP": "10.0.0.9"}
    written = change(endpoints("10.2.0.1", app="s"), policy)
    for value, expected in (("true", held), ("false", at_once)):
        objects = (service, endpoints("10.2.0.1", "10.2.0.2", app="s"))
        told = sent(talk(release, {"PILOT_ENABLE_EDS_DEBOUNCE": value}, *objects), CLIENT, written)
        assert [xds for xds, _ in told] == expected


def test_gateways_of_their_namespace_are_sent_where_routes_for_it_lead() -> None:
    """With PILOT_FILTER_GATEWAY_CLUSTER_CONFIG, from 1.24 on (destinationsByGateway)."""
    env = {"PILOT_SCOPE_GATEWAY_TO_NAMESPACE": "true", "PILOT_FILTER_GATEWAY_CLUSTER_CONFIG": "true"}
    meta = {"name": "v", "namespace": "istio-system"}
    http = [
        {"match": [{"sourceNamespace": "ns-a"}], "route": [{"destination": {"host": "hl.ns-b.svc.cluster.local"}}]},
        {"route": [{"destination": {"host": "elsewhere.ns-b.svc.cluster.local"}}]},
    ]
    spec = {"hosts": ["b.org"], "gateways": ["gw"], "http": http}
    route = {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": meta, "spec": spec}
    for release, clusters in (("1.20.8", NAMES), ("1.24.6", set())):
        conversation = talk(release, env, headless(), gateway("istio-system"))
        told = sent(conversation, GATEWAY, change(route))
        assert next((names for xds, names in told if xds == "CDS"), set()) == clusters


def test_from_1_30_on_endpoints_of_an_entry_that_changes_are_pushed_apart() -> None:
    """Its services and its endpoints are collections of their own; recorded with PILOT_ENABLE_EDS_DEBOUNCE=false."""

    def entry(address: str, *addresses: str) -> Body:
        port = {"number": 80, "name": "http", "protocol": "HTTP"}
        spec = {"hosts": ["s.com"], "ports": [port], "resolution": "STATIC", "endpoints": [{"address": address}]}
        meta = {"name": "s", "namespace": "ns-b"}
        head = {"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": meta}
        return {**head, "spec": {**spec, "location": "MESH_INTERNAL", "addresses": list(addresses)}}

    for release, count in (("1.27.9", 1), ("1.30.3", 2)):
        conversation = talk(release, {"PILOT_ENABLE_EDS_DEBOUNCE": "false"}, entry("10.8.0.1"))
        told = sent(conversation, CLIENT, change(entry("10.8.0.2", "10.66.0.1")))
        assert sum(xds == "EDS" for xds, _ in told) == count
