"""Which endpoints are called by mutual TLS, and what gateways do where it ends; recorded on real istiods."""

from __future__ import annotations

from typing import Any

import pytest

from pushsim.manifests import parse_objects
from pushsim.mesh import Endpoint, Object, Port
from pushsim.resources import LoadAssignment
from pushsim.sizes.endpointtls import EndpointTls
from pushsim.sizes.peers import EndpointModes
from pushsim.sizes.releases import sizing_of


def rule(spec: dict[str, Any]) -> Object:
    meta = {"name": "r", "namespace": "ns"}
    return parse_objects(
        [{"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": meta, "spec": spec}]
    )[0]


@pytest.mark.parametrize(
    ("policy", "own", "labels", "before", "since"),
    [
        ("SIMPLE", None, {}, True, False),
        ("DISABLE", None, {}, False, False),
        ("SIMPLE", "DISABLE", {"v": "1"}, False, False),  # of the whole host's cluster: its subsets say nothing since
        ("DISABLE", "ISTIO_MUTUAL", {"v": "1"}, True, False),
        ("DISABLE", "ISTIO_MUTUAL", {"v": "2"}, False, False),
        ("ISTIO_MUTUAL", "DISABLE", {"v": "1"}, False, True),
    ],
)
def test_until_1_18_endpoints_take_the_tls_of_the_first_subset_that_has_their_labels(
    policy: str, own: str | None, labels: dict[str, str], *, before: bool, since: bool
) -> None:
    """Recorded on 1.14.6 and 1.17.8; a mode of other TLS leaves it to the endpoint then."""
    subset = {"name": "v1", "labels": {"v": "1"}, "trafficPolicy": {"tls": {"mode": own}} if own else {}}
    rules = (rule({"host": "a", "trafficPolicy": {"tls": {"mode": policy}}, "subsets": [subset]}),)
    endpoint = Endpoint("10.1.0.9", 8080, "http", tuple(labels.items()), tls="istio")
    port = Port("http", 80, "HTTP")
    for release, mutual in (("1.14", before), ("1.18", before), ("1.19", since), ("1.30", since)):
        resource = LoadAssignment("outbound|80||a.ns", None, port, "", rules, (endpoint,))
        tls_of = EndpointTls(resource, port, "ns", EndpointModes((), "root"), sizing_of(release))
        assert tls_of.mutual(endpoint) is mutual


@pytest.mark.parametrize(("release", "kept"), [("1.17", True), ("1.19", False), ("1.24", False)])
def test_auto_passthrough_leads_to_plain_endpoints_that_a_rule_says_mutual_tls_of_until_1_18(
    release: str, kept: bool
) -> None:
    """Recorded on 1.17.8 and 1.24.6."""
    rules = (rule({"host": "a", "trafficPolicy": {"tls": {"mode": "ISTIO_MUTUAL"}}}),)
    port = Port("http", 80, "HTTP")
    resource = LoadAssignment("outbound_.80_._.a.ns", None, port, "", rules)
    tls_of = EndpointTls(resource, port, "ns", EndpointModes((), "root"), sizing_of(release))
    assert tls_of.plain(Endpoint("10.1.0.9", 8080, "http")) is not kept


@pytest.mark.parametrize(
    ("release", "subset", "mutual"), [("1.30", "v1", True), ("1.31", "v1", False), ("1.31", "nobody", True)]
)
def test_endpoints_of_a_subset_without_tls_of_its_own_take_that_of_the_rule_from_1_31(
    release: str, subset: str, *, mutual: bool
) -> None:
    """Recorded on 1.30.3 and 1.31.0-alpha.0 (#60792); not of a subset that the rule has no more."""
    rules = (rule({"host": "a", "trafficPolicy": {"tls": {"mode": "SIMPLE"}}, "subsets": [{"name": "v1"}]}),)
    port = Port("http", 80, "HTTP")
    resource = LoadAssignment(f"outbound|80|{subset}|a.ns", None, port, subset, rules)
    tls_of = EndpointTls(resource, port, "ns", EndpointModes((), "root"), sizing_of(release))
    assert tls_of.mutual(Endpoint("10.1.0.9", 8080, "http", tls="istio")) is mutual


@pytest.mark.parametrize(("release", "there"), [("1.14", False), ("1.15", True), ("1.17", True), ("1.30", True)])
def test_tcp_behind_a_gateways_mutual_tls_exchanges_metadata_since_1_15(release: str, there: bool) -> None:
    assert sizing_of(release).gateway_exchange is there
