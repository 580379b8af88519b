"""Clusters by what DestinationRules say: lengths measured in raw dumps of three real istiods."""

from __future__ import annotations

import pytest

from pushsim.mesh import Object, Port, Proxy, Ref, Service
from pushsim.resources import Discovery, OutboundCluster, RouteConfiguration
from pushsim.sizes import Policies, Sizer
from pushsim.sizes.policy import policy_for
from pushsim.sizes.releases import sizing_of
from pushsim.sizes.statnames import stat_name

HTTP = Port("http", 80, "HTTP")
PROXY = Proxy("web-0", "ns-a", "10.1.0.1")
RELEASES = ("1.14", "1.24", "1.30")
WEB = Service("web.ns-a.svc.cluster.local", "ns-a", "web", (HTTP,), "EDS", addresses=("10.0.0.1",))

POOL = {
    "http1MaxPendingRequests": 5, "http2MaxRequests": 6, "maxRequestsPerConnection": 7, "maxRetries": 8,
    "idleTimeout": "90s", "h2UpgradePolicy": "UPGRADE", "maxConcurrentStreams": 9,
}  # fmt: skip
WARM = {"simple": "ROUND_ROBIN", "warmup": {"duration": "45s", "minimumPercent": 20, "aggression": 1.5}}
FILES = {"clientCertificate": "/c.pem", "privateKey": "/k.pem", "caCertificates": "/ca.pem", "caCrl": "/crl.pem"}
MUTUAL = {"tls": {"mode": "MUTUAL", **FILES}}
BUDGET = {"retryBudget": {"percent": 25.5, "minRetryConcurrency": 5}}
SPEAKING = {"proxyProtocol": {"version": "V2"}}
RING = {"loadBalancer": {"consistentHash": {"httpHeaderName": "x-user", "ringHash": {"minimumRingSize": 2048}}}}
MAGLEV = {"loadBalancer": {"consistentHash": {"httpQueryParameterName": "q", "maglev": {"tableSize": 131}}}}
DIRECT = {"loadBalancer": {"simple": "PASSTHROUGH"}}
PORT = {
    "port": {"number": 80}, "connectionPool": {"http": {"maxRetries": 2}}, "loadBalancer": {"simple": "RANDOM"},
    "outlierDetection": {"consecutive5xxErrors": 2}, "tls": {"mode": "DISABLE"},
}  # fmt: skip
PORTS = {"connectionPool": {"tcp": {"maxConnections": 1}}, "portLevelSettings": [PORT]}
#: A rule's policy, that of its subset v2, the subset whose cluster is measured, and its length by release.
MEASURED = [
    ({"connectionPool": {"http": POOL}}, None, "", (1168, 1248, 1250)),
    ({"connectionPool": {"http": {"useClientProtocol": True}}}, MUTUAL, "v2", (908, 1034, 1032)),
    ({"loadBalancer": WARM}, None, "", (1012, 1134, 1132)),
    (RING, None, "", (1022, 1110, 1108)),
    (MAGLEV, None, "", (1022, 1110, 1108)),
    (DIRECT, None, "", (451, 539, 537)),
    (DIRECT, {"loadBalancer": WARM}, "v2", (799, 889, 887)),
    (MUTUAL, None, "", (734, 1010, 1008)),
    (SPEAKING, None, "", (1014, 1435, 1433)),
    (PORTS, SPEAKING, "v2", (533, 886, 884)),
    (BUDGET, None, "", (1014, 1102, 1117)),
    ({"loadBalancer": {"simple": "RANDOM"}}, BUDGET, "v2", (1036, 1126, 1141)),
]


def rule(policy: object, subset: object = None) -> Object:
    spec = {"host": WEB.hostname, "trafficPolicy": policy, "subsets": [{"name": "v2", "trafficPolicy": subset}]}
    return Object(Ref("DestinationRule", "ns-a", "d-web"), {"spec": spec})


@pytest.mark.parametrize(("policy", "own", "subset", "measured"), MEASURED)
def test_a_cluster_is_as_long_as_its_rule_makes_it(policy, own, subset, measured) -> None:
    name, accounts = f"outbound|80|{subset}|{WEB.hostname}", ("spiffe://cluster.local/ns/ns-a/sa/default",)
    discovery: Discovery = "ORIGINAL_DST" if policy is DIRECT else "EDS"
    cluster = OutboundCluster(name, WEB, HTTP, subset, discovery, (rule(policy, own),), accounts)
    sizers = (Sizer(release, mesh_config={}) for release in RELEASES)
    assert tuple(sizer.resource_bytes(cluster, PROXY, Policies()) for sizer in sizers) == measured


def test_settings_of_a_subsets_port_leave_nothing_of_the_rules_but_what_ports_do_not_have() -> None:
    rules = (rule({**MUTUAL, **SPEAKING}, {"portLevelSettings": [{"port": {"number": 80}, "loadBalancer": WARM}]}),)
    assert policy_for(rules, "v2", HTTP) == {**SPEAKING, "loadBalancer": WARM}


def test_retry_budgets_are_lost_where_a_rule_and_its_subset_have_policies_but_do_not_merge_them() -> None:
    assert policy_for((rule(BUDGET, MUTUAL),), "v2", HTTP, budgets=False) == MUTUAL
    assert policy_for((rule(BUDGET),), "v2", HTTP, budgets=False) == BUDGET


def test_what_a_pattern_of_stat_names_does_not_know_stays() -> None:
    pattern = "%SERVICE%_%SERVICE_NAME%_%SERVICE_PORT_NAME%_%TARGET_PORT%"
    assert stat_name(pattern, WEB, HTTP, sizing_of("1.24"), target=8080) == "web.ns-a_web_http_8080"
    assert stat_name(pattern, WEB, HTTP, sizing_of("1.18")) == "web.ns-a_%SERVICE_NAME%_http_%TARGET_PORT%"


def test_an_address_is_a_domain_of_one_host_of_a_route() -> None:
    def entry(host: str, *addresses: str) -> tuple[Service, Port]:
        return Service(host, "ns-b", host, (HTTP,), "EDS", registry="External", addresses=addresses), HTTP

    sizer = Sizer("1.24", mesh_config={})

    def size(*services: tuple[Service, Port]) -> int:
        return sizer.resource_bytes(RouteConfiguration("80", services), PROXY, Policies())

    apart = size(entry("a.ext.com", "10.8.0.1", "10.8.0.2"), entry("b.ext.com", "10.8.0.1", "10.8.0.3"))
    assert apart - size(entry("a.ext.com", "10.8.0.2"), entry("b.ext.com", "10.8.0.2")) == 10
