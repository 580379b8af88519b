"""The arithmetic of sizes against real messages, and that shapes are built once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment
from envoy_data_plane.envoy.config.listener.v3 import Listener
from envoy_data_plane.envoy.config.route.v3 import Route, RouteAction, RouteConfiguration, VirtualHost
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpConnectionManager
from envoy_data_plane.envoy.extensions.filters.network.tcp_proxy.v3 import TcpProxy
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import HttpProtocolOptions
from envoy_data_plane.envoy.service.discovery.v3 import DeltaDiscoveryResponse, DiscoveryResponse, Resource
from envoy_data_plane.google.protobuf import Any as Packed
from hypothesis import given, settings
from hypothesis import strategies as st

from pushsim.mesh import TYPE_URLS, Endpoint, Port, Proxy, Service
from pushsim.resources import OutboundCluster
from pushsim.sizes import SIZINGS, Policies, Sizer, sizer
from pushsim.sizes.assignments import EndpointMeter, grouped, localities
from pushsim.sizes.envelope import Envelope
from pushsim.sizes.wire import duration, encoded, framed, length, made, struct, text, texts, typed_struct, varint

PORT = Port("http", 80, "HTTP")
SERVICE = Service("b.ns-b.svc.cluster.local", "ns-b", "b", (PORT,), "EDS", addresses=("10.0.0.1",))
NAMES = st.text("abc.-", min_size=1, max_size=200)

endpoints = st.builds(
    Endpoint,
    address=st.sampled_from(["10.1.1.1", "10.100.200.30", "fd00::1"]),
    port=st.sampled_from([80, 8080, 65535]),
    port_name=st.just("http"),
    labels=st.sampled_from([(), (("app", "b"),), (("version", "v1"),)]),
    locality=st.sampled_from(["", "r/z", "us/east/1"]),
    healthy=st.booleans(),
    tls=st.sampled_from(["", "istio"]),
    weight=st.sampled_from([0, 1, 300]),
    workload=st.sampled_from(["", "b", "deployment-x"]),
)


@given(st.integers(0, 2**63 - 1))
def test_varint_is_as_long_as_protobufs(number: int) -> None:
    written, left = 1, number >> 7
    while left:
        written, left = written + 1, left >> 7
    assert varint(number) == written


@given(NAMES, st.lists(endpoints, max_size=30), st.integers(0, 200), st.sampled_from(sorted(SIZINGS)))
@settings(max_examples=60)
def test_endpoints_add_up_to_the_assignment(name: str, members: list[Endpoint], priority: int, release: str) -> None:
    sizing = SIZINGS[release]
    groups = [replace(group, priority=priority * n) for n, group in enumerate(grouped(members))]
    whole = ClusterLoadAssignment(cluster_name=name, endpoints=localities(groups, SERVICE, sizing, inline=False))
    assert EndpointMeter(sizing).assignment(name, groups, SERVICE, mtls=lambda _: True) == length(whole)


@given(st.lists(st.tuples(NAMES, st.integers(0, 40_000)), max_size=20), st.lists(NAMES, max_size=5))
@settings(max_examples=60)
def test_envelopes_add_up_to_the_response(resources: list[tuple[str, int]], removed: list[str]) -> None:
    url, version, nonce = TYPE_URLS["CDS"], "2026-08-22T10:00:00Z/1", "2026-08-22T10:00:00Z/1" + "u" * 36
    values = [Packed(type_url=url, value=bytes(size)) for _, size in resources]
    sotw = DiscoveryResponse(version_info=version, nonce=nonce, type_url=url, resources=values)
    assert Envelope(SIZINGS["1.27"], "sotw", {}).length("CDS", resources, ()) == len(bytes(sotw))
    named = [Resource(name=name, resource=value) for (name, _), value in zip(resources, values, strict=True)]
    delta = DeltaDiscoveryResponse(
        system_version_info=version, nonce=nonce, type_url=url, resources=named, removed_resources=removed
    )
    assert Envelope(SIZINGS["1.27"], "delta", {}).length("CDS", resources, removed) == len(bytes(delta))


def test_a_typed_struct_has_its_two_fields() -> None:
    packed = typed_struct("x.Config", {"a": "b"})
    name = len("type.googleapis.com/x.Config")
    assert len(packed.value) == text(name) + framed(len(bytes(struct({"a": "b"}))))


@pytest.mark.parametrize(
    ("written", "seconds"), [("5s", 5), ("1h30m", 5400), ("250ms", 0.25), ("1m0.5s", 60.5), ("0s", 0)]
)
def test_durations_as_go_writes_them(written: str, seconds: float) -> None:
    assert duration(written).total_seconds() == seconds


def test_thousands_of_services_are_few_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    built = 0
    real = sizer.clusters.outbound

    def counting(*args: Any, **more: Any) -> Any:
        nonlocal built
        built += 1
        return real(*args, **more)

    monkeypatch.setattr(sizer.clusters, "outbound", counting)
    prices = Sizer("1.24", mesh_config={})
    proxy, policies = Proxy("p", "ns-1", "10.0.0.1"), Policies()
    sizes = []
    for index in range(3000):
        host = f"service-{index:04}.ns-1.svc.cluster.local"
        service = Service(host, "ns-1", f"service-{index:04}", (PORT,), "EDS")
        cluster = OutboundCluster(f"outbound|80||{host}", service, PORT, "", "EDS")
        sizes.append(prices.resource_bytes(cluster, proxy, policies))
    assert built == 1
    assert len(set(sizes)) == 1


@given(st.lists(st.text(st.sampled_from("ab|é"), max_size=140)))
def test_a_repeated_string_field_weighs_its_strings(values):
    assert texts(values) == len(bytes(DeltaDiscoveryResponse(removed_resources=values)))


@pytest.mark.parametrize(
    "kind",
    [
        Cluster,
        HttpConnectionManager,
        HttpProtocolOptions,
        Listener,
        Route,
        RouteAction,
        RouteConfiguration,
        TcpProxy,
        VirtualHost,
    ],
)
def test_a_message_made_without_its_validator_is_what_its_constructor_makes(kind: Any) -> None:
    assert vars(made(kind)) == vars(kind())
    name = next(field for field in ("name", "stat_prefix", "cluster", "auto_config") if field in vars(kind()))
    value = None if name == "auto_config" else "n"
    assert encoded(made(kind, **{name: value})) == encoded(kind(**{name: value}))
    for wrong in (lambda: made(kind, value), lambda: made(kind, no_field=1)):
        with pytest.raises(TypeError, match=kind.__name__):
            wrong()
