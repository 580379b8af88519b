"""What a proxy's agent is told, from MeshConfig, ProxyConfigs, its pod's annotation and its container's environment."""

from __future__ import annotations

from typing import Any

from pushsim.agents import configured, metadata_of
from pushsim.cases import parse_case
from pushsim.manifests import parse_objects, to_mesh
from pushsim.manifests.document import Document
from pushsim.mesh import Mesh, Proxy

CAPTURE = "ISTIO_META_DNS_CAPTURE"


def pod(annotation: str = "", **env: str) -> dict[str, Any]:
    container = {"name": "istio-proxy", "env": [{"name": name, "value": value} for name, value in env.items()]}
    annotations = {"annotations": {"proxy.istio.io/config": annotation}} if annotation else {}
    status = {"phase": "Running", "podIP": "10.1.0.1"}
    metadata = {"name": "a-0", "namespace": "ns", "labels": {"app": "a"}, **annotations}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [container]},
        "status": status,
    }


def proxy_config(namespace: str, value: str, **selector: str) -> dict[str, Any]:
    spec = {"environmentVariables": {CAPTURE: value}, **({"selector": {"matchLabels": selector}} if selector else {})}
    metadata = {"name": f"c{len(selector)}", "namespace": namespace}
    return {"apiVersion": "networking.istio.io/v1beta1", "kind": "ProxyConfig", "metadata": metadata, "spec": spec}


def captures(*configs: dict[str, Any], default: str = "", own: str = "", kind: str = "sidecar") -> bool:
    objects = parse_objects(list(configs))
    proxy = Proxy("a-0", "ns", "10.1.0.1", kind, {"app": "a"}, metadata={"DNS_CAPTURE": own} if own else {})  # type: ignore[arg-type]
    config = {"defaultConfig": {"proxyMetadata": {CAPTURE: default}}} if default else {}
    (found,) = configured(Mesh({o.ref: o for o in objects}, (proxy,), config))
    return found.captures_dns


def test_the_annotation_and_the_injected_environment_tell() -> None:
    (annotated,) = parse_objects([pod("proxyMetadata:\n  ISTIO_META_DNS_CAPTURE: 'true'\n  OTHER: x\n")])
    assert metadata_of(annotated) == {"DNS_CAPTURE": "true"}
    (injected,) = parse_objects([pod("proxyMetadata: {ISTIO_META_DNS_CAPTURE: 'false'}", **{CAPTURE: "true"})])
    assert metadata_of(injected) == {"DNS_CAPTURE": "true"}
    for text in ("{", "just a text", "proxyMetadata: none"):
        (broken,) = parse_objects([pod(text)])
        assert metadata_of(broken) == {}
    (proxy,) = to_mesh([Document("pods.yaml", pod(**{CAPTURE: "true"}))]).mesh.proxies
    assert proxy.captures_dns and not proxy.allocates_addresses


def test_what_is_nearer_to_the_pod_counts() -> None:
    assert captures(default="true") and not captures(default="true", own="false") and captures(own="true")
    assert captures(proxy_config("istio-system", "true")) and not captures(proxy_config("elsewhere", "true"))
    assert not captures(proxy_config("istio-system", "true"), proxy_config("ns", "false"))
    assert captures(proxy_config("ns", "false"), own="true")
    assert not captures(proxy_config("ns", "false", app="a"), own="true")
    assert captures(proxy_config("ns", "false", app="b"), own="true")
    assert not captures(own="true", kind="router"), "a gateway's agent answers no DNS"


def test_a_case_says_it_of_its_proxies() -> None:
    body = {"name": "a-0", "namespace": "ns", "ip": "10.1.0.1", "metadata": {"DNS_CAPTURE": "true"}}
    (proxy,) = parse_case({"proxies": [body]}, "case").mesh.proxies
    assert proxy.captures_dns
