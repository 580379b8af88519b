"""The ADS client against the rules of an istiod, message by message."""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2, tls_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import struct_pb2

from pushsim.ads import AdsClient, ProtocolError, Response, name_of
from pushsim.mesh import TYPE_URLS, Mode, Proxy, Xds

PROXY = Proxy("a-0", "ns-a", "10.1.1.1", "sidecar", {"app": "a"})
CONVERSATIONS = sorted((Path(__file__).parent / "data").glob("ads-*.jsonl.gz"))


def cluster(name: str, eds: bool = True, service_name: str = "") -> Any:
    kind = cluster_pb2.Cluster.EDS if eds else cluster_pb2.Cluster.STATIC
    found = cluster_pb2.Cluster(name=name, type=kind)
    if service_name:
        found.eds_cluster_config.service_name = service_name
    return found


def endpoints(name: str) -> Any:
    return endpoint_pb2.ClusterLoadAssignment(cluster_name=name)


def routes(name: str) -> Any:
    return route_pb2.RouteConfiguration(name=name)


def listener(name: str, *route_names: str, default: str = "") -> Any:
    found = listener_pb2.Listener(name=name)
    for route in route_names:
        manager = http_connection_manager_pb2.HttpConnectionManager()
        manager.rds.route_config_name = route
        found.filter_chains.add().filters.add().typed_config.Pack(manager)
    if default:
        manager = http_connection_manager_pb2.HttpConnectionManager()
        manager.rds.route_config_name = default
        found.default_filter_chain.filters.add().typed_config.Pack(manager)
    return found


def secured(name: str, *secrets: str) -> Any:
    """A listener with a chain for each secret."""
    found = listener_pb2.Listener(name=name)
    for secret in secrets:
        context = tls_pb2.DownstreamTlsContext()
        asked = context.common_tls_context.tls_certificate_sds_secret_configs.add(name=secret)
        asked.sds_config.ads.SetInParent()
        context.common_tls_context.validation_context_sds_secret_config.name = "ROOTCA"  # the agent's own
        found.filter_chains.add().transport_socket.typed_config.Pack(context)
    return found


def originating(name: str, secret: str) -> Any:
    """A cluster that trusts an authority that istiod is asked for."""
    found = cluster(name, eds=False)
    context = tls_pb2.UpstreamTlsContext()
    asked = context.common_tls_context.combined_validation_context.validation_context_sds_secret_config
    asked.name = secret
    asked.sds_config.ads.SetInParent()
    found.transport_socket.typed_config.Pack(context)
    return found


def extended(name: str, *extensions: str) -> Any:
    """A listener with HTTP filters that are discovered."""
    found = listener_pb2.Listener(name=name)
    manager = http_connection_manager_pb2.HttpConnectionManager()
    for extension in extensions:
        manager.http_filters.add(name=extension).config_discovery.config_source.ads.SetInParent()
    found.filter_chains.add().filters.add().typed_config.Pack(manager)
    return found


class Wire:
    """One client and what an istiod would say to it; requests come back parsed."""

    def __init__(self, mode: Mode, proxy: Proxy = PROXY, **options: Any) -> None:
        self.client = AdsClient(proxy, "1.24.6", mode, **options)
        self.mode = mode
        self.sent = 0

    def parse(self, requests: list[bytes]) -> list[Any]:
        kind = discovery_pb2.DiscoveryRequest if self.mode == "sotw" else discovery_pb2.DeltaDiscoveryRequest
        return [kind.FromString(request) for request in requests]

    def connect(self) -> list[Any]:
        return self.parse(self.client.connect())

    def message(self, xds: Xds, *resources: Any, removed: tuple[str, ...] = ()) -> bytes:
        self.sent += 1
        if self.mode == "sotw":
            sotw = discovery_pb2.DiscoveryResponse(type_url=TYPE_URLS[xds], version_info="v", nonce=f"n{self.sent}")
            for resource in resources:
                sotw.resources.add().Pack(resource)
            return sotw.SerializeToString()
        delta = discovery_pb2.DeltaDiscoveryResponse(type_url=TYPE_URLS[xds], nonce=f"n{self.sent}")
        delta.removed_resources.extend(removed)
        for resource in resources:
            name = "" if xds == "NDS" else name_of(resource.SerializeToString())
            held = delta.resources.add(name=name, version="r1")
            held.resource.Pack(resource)
        return delta.SerializeToString()

    def get(self, xds: Xds, *resources: Any, removed: tuple[str, ...] = ()) -> tuple[Response, list[Any]]:
        response, requests = self.client.receive(self.message(xds, *resources, removed=removed))
        return response, self.parse(requests)


def connected(mode: Mode) -> Wire:
    """A client through its first conversation: clusters x and y, a listener with route 80."""
    wire = Wire(mode)
    wire.connect()
    wire.get("CDS", cluster("x"), cluster("y"), cluster("BlackHole", eds=False))
    wire.get("EDS", endpoints("x"), endpoints("y"))
    wire.get("LDS", listener("l", "80"))
    wire.get("RDS", routes("80"))
    assert wire.client.synced
    wire.client.mark_quiet()
    return wire


def short(request: Any) -> str:
    return next(xds for xds, url in TYPE_URLS.items() if url == request.type_url)


def test_it_opens_with_cds_and_says_who_it_is() -> None:
    (request,) = Wire("sotw").connect()
    assert short(request) == "CDS" and not request.resource_names and not request.response_nonce
    assert request.node.id == "sidecar~10.1.1.1~a-0.ns-a~ns-a.svc.cluster.local"
    metadata = request.node.metadata
    assert metadata["CLUSTER_ID"] == "Kubernetes" and metadata["NAMESPACE"] == "ns-a"
    assert metadata["INSTANCE_IPS"] == "10.1.1.1" and metadata["ISTIO_VERSION"] == "1.24.6"
    assert dict(metadata["LABELS"]) == {"app": "a"} and metadata["SERVICE_ACCOUNT"] == "default"


@pytest.mark.parametrize("mode", ["sotw", "delta"])
def test_the_first_conversation_is_cds_eds_lds_rds(mode: Mode) -> None:
    wire = Wire(mode)
    wire.connect()
    response, requests = wire.get("CDS", cluster("a"), cluster("b", service_name="c"), cluster("static", eds=False))
    assert response.solicited and response.names == ("a", "b", "static")
    assert [short(r) for r in requests] == ["CDS", "EDS"]
    asked = requests[1].resource_names if mode == "sotw" else requests[1].resource_names_subscribe
    assert list(asked) == ["a", "c"]
    assert not requests[1].HasField("node")
    response, requests = wire.get("EDS", endpoints("a"), endpoints("c"))
    assert response.solicited and [short(r) for r in requests] == ["EDS", "LDS"]
    response, requests = wire.get("LDS", listener("l", "80", "81", default="in"))
    asked = requests[1].resource_names if mode == "sotw" else requests[1].resource_names_subscribe
    assert response.solicited and short(requests[1]) == "RDS" and list(asked) == ["80", "81", "in"]
    assert not wire.client.synced
    response, requests = wire.get("RDS", routes("80"), routes("81"), routes("in"))
    assert response.solicited and [short(r) for r in requests] == ["RDS"]
    assert wire.client.synced


def named(request: Any) -> list[str]:
    """The names a request asks for newly (delta), or all it asks for."""
    listed = "resource_names_subscribe" if hasattr(request, "resource_names_subscribe") else "resource_names"
    return list(getattr(request, listed))


@pytest.mark.parametrize("mode", ["sotw", "delta"])
def test_an_agent_that_answers_dns_asks_for_names_when_envoy_asks_for_listeners(mode: Mode) -> None:
    wire = Wire(mode, replace(PROXY, metadata={"DNS_CAPTURE": "true"}))
    (request,) = wire.connect()
    assert request.node.metadata["DNS_CAPTURE"] == "true"
    _, requests = wire.get("CDS", cluster("x", eds=False))
    assert [(short(r), named(r)) for r in requests] == [("CDS", []), ("LDS", []), ("NDS", [])]
    wire.get("LDS", listener("l"))
    table = struct_pb2.Struct(fields={"a.example.com": struct_pb2.Value(string_value="any map will do")})
    for solicited in (True, False):
        response, requests = wire.get("NDS", table)
        assert (response.names, response.solicited) == (("",), solicited) and [short(r) for r in requests] == ["NDS"]


@pytest.mark.parametrize("mode", ["sotw", "delta"])
def test_secrets_are_asked_for_by_clusters_and_listeners_together(mode: Mode) -> None:
    wire = Wire(mode)
    wire.connect()
    _, requests = wire.get("CDS", originating("out", "kubernetes://out-cacert"))
    assert [(short(r), named(r)) for r in requests][1] == ("SDS", ["kubernetes://out-cacert"])
    _, requests = wire.get("LDS", secured("l", "kubernetes://a", "kubernetes://b"))
    added = ["kubernetes://a", "kubernetes://b"]
    assert named(requests[-1]) == (
        ["kubernetes://a", "kubernetes://b", "kubernetes://out-cacert"] if mode == "sotw" else added
    )
    wire.client.mark_quiet()
    gone = {"removed": ("out",)} if mode == "delta" else {}
    _, requests = wire.get("CDS", cluster("in", eds=False), **gone)
    if mode == "sotw":
        assert named(requests[-1]) == added
    else:
        assert requests[-1].resource_names_unsubscribe == ["kubernetes://out-cacert"]
    wire.client.mark_quiet()
    response, _ = wire.get("SDS", secret_pb2.Secret(name="kubernetes://a"))
    assert not response.solicited, "what was asked for in vain is pushed when it is there"


@pytest.mark.parametrize("mode", ["sotw", "delta"])
def test_extensions_are_asked_for_where_that_is_wanted(mode: Mode) -> None:
    for wanted in ((), ("ECDS",)):
        wire = Wire(mode, on_demand=wanted)
        wire.connect()
        wire.get("CDS", cluster("x", eds=False))
        _, requests = wire.get("LDS", extended("l", "ns.one", "ns.two"))
        asked = [(short(r), named(r)) for r in requests if short(r) != "LDS"]
        assert asked == ([("ECDS", ["ns.one", "ns.two"])] if wanted else [])


def test_without_eds_clusters_lds_comes_at_once_and_only_once() -> None:
    wire = Wire("sotw")
    wire.connect()
    _, requests = wire.get("CDS", cluster("static", eds=False))
    assert [short(r) for r in requests] == ["CDS", "LDS"]
    wire.get("LDS")
    assert wire.client.synced
    _, requests = wire.get("CDS", cluster("a"))
    assert [short(r) for r in requests] == ["CDS", "EDS"]
    response, requests = wire.get("EDS", endpoints("a"))
    assert response.solicited and [short(r) for r in requests] == ["EDS"]


def test_sotw_acknowledges_with_the_complete_current_list() -> None:
    wire = connected("sotw")
    response, (ack,) = wire.get("EDS", endpoints("x"))
    assert not response.solicited
    assert (ack.response_nonce, ack.version_info, list(ack.resource_names)) == (response.nonce, "v", ["x", "y"])


def test_sotw_repeats_a_new_name_with_the_nonce_of_a_push_that_overtook_it() -> None:
    wire = connected("sotw")
    _, (_, changed) = wire.get("CDS", cluster("x"), cluster("y"), cluster("z"))
    old = changed.response_nonce
    pushed, (ack,) = wire.get("EDS", endpoints("x"), endpoints("y"))
    assert not pushed.solicited and ack.response_nonce == pushed.nonce != old
    assert list(ack.resource_names) == ["x", "y", "z"]
    answer, _ = wire.get("EDS", endpoints("z"))
    assert answer.solicited
    again, _ = wire.get("EDS", endpoints("z"))
    assert not again.solicited


def test_sotw_takes_the_answer_to_a_shortened_list_for_solicited_and_a_push_of_the_old_one_not() -> None:
    wire = connected("sotw")
    _, (_, shortened) = wire.get("CDS", cluster("x"))
    assert list(shortened.resource_names) == ["x"]
    assert not wire.get("EDS", endpoints("x"), endpoints("y"))[0].solicited
    assert wire.get("EDS", endpoints("x"))[0].solicited
    assert not wire.get("EDS", endpoints("x"))[0].solicited


def test_sotw_takes_a_list_that_is_changed_both_ways_for_answered_once() -> None:
    wire = connected("sotw")
    wire.get("CDS", cluster("z"))
    assert not wire.get("EDS", endpoints("x"), endpoints("y"))[0].solicited
    assert wire.get("EDS", endpoints("z"))[0].solicited
    assert not wire.get("EDS", endpoints("z"))[0].solicited


def test_quiet_turns_what_was_never_answered_into_nothing() -> None:
    wire = connected("sotw")
    wire.get("CDS", cluster("x"))
    wire.client.mark_quiet()
    assert not wire.get("EDS", endpoints("x"))[0].solicited


def test_sotw_sends_an_empty_list_when_there_is_nothing_left_to_watch() -> None:
    wire = connected("sotw")
    _, requests = wire.get("LDS", listener("l"))
    assert [short(r) for r in requests] == ["LDS", "RDS"] and not requests[1].resource_names
    _, requests = wire.get("LDS", listener("l", "80"))
    assert list(requests[1].resource_names) == ["80"]
    assert wire.get("RDS", routes("80"))[0].solicited


def test_delta_acknowledges_with_the_nonce_alone_and_subscribes_spontaneously() -> None:
    wire = connected("delta")
    response, (ack, change) = wire.get("CDS", cluster("z"), removed=("y",))
    assert response.removed_names == ("y",) and not response.solicited
    assert ack.response_nonce == response.nonce and not ack.resource_names_subscribe
    assert not change.response_nonce and short(change) == "EDS"
    assert list(change.resource_names_subscribe) == ["z"] and list(change.resource_names_unsubscribe) == ["y"]
    assert not wire.get("EDS", endpoints("x"))[0].solicited
    assert wire.get("EDS", endpoints("z"))[0].solicited


def test_delta_counts_the_word_that_a_name_does_not_exist_as_an_answer() -> None:
    wire = connected("delta")
    wire.get("LDS", listener("l2", "90"))
    assert wire.get("RDS", removed=("90",))[0].solicited


def test_delta_keeps_what_a_response_does_not_mention() -> None:
    wire = connected("delta")
    _, requests = wire.get("LDS", listener("other", "81"))
    assert list(requests[1].resource_names_subscribe) == ["81"] and not requests[1].resource_names_unsubscribe


def test_after_a_broken_stream_everything_is_asked_for_again() -> None:
    wire = connected("delta")
    (request,) = wire.connect()
    assert request.HasField("node") and dict(request.initial_resource_versions) == {
        "x": "r1",
        "y": "r1",
        "BlackHole": "r1",
    }
    assert not wire.client.synced
    response, requests = wire.get("CDS", cluster("x"), removed=("y",))
    assert response.solicited
    assert short(requests[1]) == "EDS" and list(requests[1].resource_names_subscribe) == ["x"]
    assert dict(requests[1].initial_resource_versions) == {"x": "r1", "y": "r1"}
    sotw = connected("sotw")
    (request,) = sotw.connect()
    assert request.version_info == "v" and not request.response_nonce


def test_a_refusal_names_the_error_and_keeps_the_subscriptions() -> None:
    wire = connected("sotw")
    _, requests = wire.client.reject(wire.message("CDS", cluster("z")), "no such filter")
    (nack,) = wire.parse(requests)
    assert nack.error_detail.message == "no such filter" and nack.response_nonce == "n5"
    _, (ack,) = wire.get("EDS", endpoints("x"))
    assert list(ack.resource_names) == ["x", "y"]


def test_a_response_is_measured_whole() -> None:
    wire = connected("sotw")
    message = wire.message("RDS", routes("80"))
    response, _ = wire.client.receive(message)
    assert response.size_bytes == len(message)
    recorded = response.as_recorded()
    assert recorded["resources"] == 1 and recorded["names"] == ["80"] and recorded["solicited"] is False
    assert route_pb2.RouteConfiguration.FromString(response.resources[0].value).name == "80"


def test_names_longer_than_127_bytes_are_read() -> None:
    long = "x" * 300
    assert name_of(endpoints(long).SerializeToString()) == long
    assert name_of(b"") == "" == name_of(cluster("").SerializeToString())


@pytest.mark.parametrize("data", [b"\xff\xff", b"", discovery_pb2.DiscoveryResponse(type_url="x").SerializeToString()])
def test_what_is_no_response_is_a_protocol_error(data: bytes) -> None:
    wire = connected("sotw")
    with pytest.raises(ProtocolError):
        wire.client.receive(data)


def test_a_message_before_the_stream_is_open_is_a_protocol_error() -> None:
    wire = Wire("sotw")
    with pytest.raises(ProtocolError, match="before the stream"):
        wire.client.receive(wire.message("CDS"))


@pytest.mark.parametrize("path", CONVERSATIONS, ids=lambda path: path.stem)
def test_a_conversation_with_a_real_istiod_goes_the_same_way_again(path: Path) -> None:
    """A line is what one side said: {"from": "istiod"|"client"|"settle", "bytes": base64, "response": as recorded}."""
    head, *lines = map(json.loads, gzip.decompress(path.read_bytes()).splitlines())
    client = AdsClient(Proxy(**head["proxy"]), head["istio"], head["mode"])
    wire = Wire(head["mode"])
    waiting = wire.parse(client.connect())
    for line in lines:
        if line["from"] == "settle":
            assert not waiting
            client.mark_quiet()
        elif line["from"] == "client":
            assert waiting.pop(0) == wire.parse([base64.b64decode(line["bytes"])])[0]
        else:
            response, requests = client.receive(base64.b64decode(line["bytes"]))
            assert response.as_recorded() == line["response"]
            waiting += wire.parse(requests)
    assert not waiting


def test_there_are_recorded_conversations() -> None:
    assert len(CONVERSATIONS) >= 2
