"""Manifests to a Mesh: parsing, expansion, injection, changes, and what the user is told."""

import importlib
import json
import os
import re
import subprocess
import sys
from typing import get_type_hints

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pushsim import files
from pushsim.errors import InputError
from pushsim.manifests import delete_change, document, parse_delete, parse_objects, parse_text, to_change, to_mesh
from pushsim.manifests.document import Document
from pushsim.manifests.kinds import KINDS
from pushsim.manifests.kubernetes import TYPES
from pushsim.manifests.workloads import Addresses
from pushsim.mesh import RESOLUTIONS, Change, Ref
from pushsim.preview import preview

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: c, image: i, ports: [{name: http, containerPort: 8080}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}]
"""


def mesh_of(text, **options):
    return to_mesh(parse_text(text.encode(), "m.yaml"), **options)


def pod(name="p", labels=None, annotations=None, spec=None, status=None):
    meta = {"name": name, "namespace": "a", "labels": labels or {}, "annotations": annotations or {}}
    ready = {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}
    status = ready if status is None else status
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec or {}, "status": status}


def namespace(labels):
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "labels": labels}}


def loaded(*bodies, **options):
    return to_mesh([Document(f"d{i}", body) for i, body in enumerate(bodies)], **options)


OWNED = [{"kind": "Deployment", "name": "w"}]


def node(name):
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}


def workload(kind, spec, api="apps/v1", name="w", **metadata):
    template = {"metadata": {"labels": {"app": "w"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    return {
        "apiVersion": api,
        "kind": kind,
        "metadata": {"name": name, **metadata},
        "spec": {"template": template, **spec},
    }


def names(mesh, kind):
    return [o.ref.name for o in mesh.of_kind(kind)]


def problem(text, source="m.yaml"):
    with pytest.raises(InputError) as error:
        to_mesh(parse_text(text.encode() if isinstance(text, str) else text, source))
    return str(error.value)


# ---- YAML ----------------------------------------------------------------------------------------------------------


def test_scalars_have_the_types_kubectl_gives_them():
    text = """
    a: '80'
    b: 80
    c: True
    d: ~
    e: "~"
    f: 0x1F
    g: 007
    h: 1e3
    i: 2020-01-01
    j: 1:30
    k: |
      true
    l: yes
    m: 1.10
    n:
    """
    want = {"a": "80", "b": 80, "c": True, "d": None, "e": "~", "f": 31, "g": 7, "h": 1000.0, "i": "2020-01-01"}
    want |= {"j": "1:30", "k": "true\n", "l": True, "m": 1.1, "n": None}
    assert parse_text(text.encode(), "t")[0].data == want
    assert document._fast(text.encode()) == want, "the path of large files must agree"


def test_anchors_and_merge_keys_are_resolved():
    data = parse_text(b"a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}\ne: *x\n", "t")[0].data
    assert data["d"] == {"b": 1, "c": 3} and data["e"] == {"b": 1, "c": 2}
    assert document._fast(b"a: &x {b: 1}\nd:\n  <<: *x\n") == {"a": {"b": 1}, "d": {"b": 1}}


WORDS = [
    "~", "*", "*.example.com", "./*", "yes", "True", "null", "080", "0x1", "1_0", "+1", ".5", "-", "&x", "!t", "<<",
    "12", "1.10", "it's", 'q"q', "#", "on", "|", "%a", "@a", "{{x}}", "é", ">", "[a", "{a:", "a,b", "?", ":", "--",
    "---", "...", "=", "0o7", ".inf", "NaN", "-inf", "infinity", "nan",
]  # fmt: skip
words = st.sampled_from([*WORDS, "", "a: b", "a # b", "- a", "x\ny\n", "tab\tx", " lead", "trail "])
values = st.recursive(
    words
    | st.text(st.characters(codec="utf-8", exclude_categories=("C",)), max_size=12).filter(
        lambda t: not document._EXPONENT.fullmatch(t)
    )
    | st.integers()
    | st.booleans()
    | st.none(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abcxyz.-/", min_size=1, max_size=8), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.text("abcdef", min_size=1), values, min_size=1),
    st.booleans(),
    st.sampled_from([None, False, True]),
)
def test_both_parsers_read_back_what_was_written(value, narrow, flow):
    # (PyYAML writes "1e3" without quotes: to YAML 1.1 it is no number; to kubectl it is, so it is filtered out)
    text = yaml.safe_dump(value, width=20 if narrow else 200, default_flow_style=flow, allow_unicode=True).encode()
    assert document._exact(text) == value
    assert document._fast(text) == value


def test_a_large_list_is_read_item_by_item_as_it_would_be_whole(monkeypatch):
    items = [pod(f"p{i}", {"app": "x"}) for i in range(20)]
    items[7]["metadata"]["annotations"] = {"note": "a\n- b\nyes\n", "x": "*y"}
    whole = {"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}}
    text = yaml.safe_dump(whole).encode()
    monkeypatch.setattr(document, "LARGE_BYTES", 1000)
    assert parse_text(text, "list.yaml")[0].data == whole


def test_an_alias_across_items_of_a_large_list(monkeypatch):
    monkeypatch.setattr(document, "LARGE_BYTES", 10)
    text = b"items:\n- a: &x {b: 1}\n- c: *x\n- d:\n    <<: *x\nkind: List\n"
    assert parse_text(text, "l")[0].data == {
        "items": [{"a": {"b": 1}}, {"c": {"b": 1}}, {"d": {"b": 1}}],
        "kind": "List",
    }


def bomb():
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"\x00\x01\x02", "binary"),
        (b"\x89PNG\xff", "not text"),
        (b"a: 1\nb: [1,2\nc: 3\n", "YAML syntax error"),
        (b"kind: {{ .Values.kind }}\n", "helm template"),
        (b"{{- if .Values.x }}\nkind: Service\n{{- end }}\n", "helm template"),
        (b'apiVersion: v1\nkind: Service\nmetadata: {name: "{{ .Release.Name }}"}\n', "helm template"),
        (b"a: &a [*a]\n", "nested deeper"),
        (b"[" * 100_000, "nested deeper"),
        (b"- " * 100_000, "nested deeper"),
        (b"x: " + b"{a: " * 100_000, "nested deeper"),
        (b"- a\n- b\n", "is no manifest"),
        (b"just text\n", "is no manifest"),
        (b'{"a": ', "YAML syntax error"),
        (b"a: !!python/object/apply:os.system [x]\n", "kind: is missing"),
    ],
)
def test_bad_documents_are_told_with_a_remedy(text, said):
    message = problem(text)
    assert said in message and "m.yaml" in message and message.endswith(")")


def test_an_alias_bomb_is_refused_before_it_expands():
    assert "aliases expand to more than" in problem(bomb())


def test_syntax_errors_say_the_line_of_the_file_and_come_all_at_once():
    message = problem("a: 1\n---\nb: [1\nc: 2\n---\nx: 1\n---\n: : :\n")
    assert "line 4" in message and "document 2" in message
    assert "line 8" in message and len(message.splitlines()) == 2


@pytest.mark.parametrize("large_bytes", [0, document.LARGE_BYTES])
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("kind: Service\nspec:\n  a: 1\n  b: 2\n  a: 3\n", 5),
        ("kind: List\nitems:\n- a: 1\n- b: {a: 1,\n     c: 1, a: 1}\n", 5),
        ('{"kind": "Service", "spec": {"b": "say \\"a\\"", "a": 1, "a": 2}}', 0),
    ],
)
def test_a_key_that_is_given_twice_is_refused_as_kubectl_does(monkeypatch, text, line, large_bytes):
    """Whichever of the two was meant, the other would be lost without a word."""
    monkeypatch.setattr(document, "LARGE_BYTES", large_bytes)
    message = problem(text)
    assert "'a' is given twice" in message and message.endswith("(keep one of the two)")
    assert f"line {line}" in message if line else "line" not in message


def test_quotes_however_they_are_written_are_no_keys(monkeypatch):
    text = rb'{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "labels": {"b": "\u0022"}}}'
    assert parse_text(text, "m.json")[0].data["metadata"]["labels"] == {"b": '"'}


# ---- objects -------------------------------------------------------------------------------------------------------


def test_every_problem_of_a_file_at_once_with_document_and_field():
    text = """
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: s}
spec: {egress: [{hosts: [reviews, "a/b/c", "./*"]}]}
---
apiVersion: v1
kind: Service
metadata: {name: s}
spec: {ports: [{port: "80"}, {port: 70000}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualServise
metadata: {name: v}
---
apiVersion: v1
kind: Service
metadata: {labels: {version: 1.0}}
"""
    lines = problem(text).splitlines()
    assert len(lines) == 6
    assert "m.yaml, document 1: spec.egress[0].hosts[0]" in lines[0] and "./reviews" in lines[0]
    assert "spec.egress[0].hosts[1]" in lines[1]
    assert "document 2: spec.ports[0].port" in lines[2] and "spec.ports[1].port" in lines[3]
    assert "did you mean VirtualService?" in lines[4]
    assert "document 4: metadata.name: is missing" in lines[5]


@pytest.mark.parametrize(
    ("kind", "spec", "said"),
    [
        ("DestinationRule", {"host": "a", "trafficPolicy": {"tls": {"mode": "SIMPEL"}}}, "tls.mode SIMPLE"),
        (
            "DestinationRule",
            {"host": "a", "subsets": [{"name": "s", "trafficPolicy": {"loadBalancer": {"simple": "RANDOMLY"}}}]},
            "spec.subsets[0].trafficPolicy.loadBalancer.simple RANDOM",
        ),
        ("ServiceEntry", {"hosts": ["a"], "resolution": "dns"}, "spec.resolution DNS"),
        ("ServiceEntry", {"hosts": ["a"], "location": "MESH_EXTERNALL"}, "spec.location MESH_EXTERNAL"),
        ("PeerAuthentication", {"mtls": {"mode": "strict"}}, "spec.mtls.mode STRICT"),
        ("PeerAuthentication", {"portLevelMtls": {8080: {"mode": "OFF"}}}, "spec.portLevelMtls.8080.mode"),
        ("Sidecar", {"outboundTrafficPolicy": {"mode": "REGISTRYONLY"}}, "outboundTrafficPolicy.mode REGISTRY_ONLY"),
        ("EnvoyFilter", {"configPatches": [{"applyTo": "HTTP_FILTERS"}]}, "spec.configPatches[0].applyTo HTTP_FILTER"),
        ("Gateway", {"servers": [{"port": {"number": 1}, "tls": {"mode": "PASSTHRU"}}]}, "tls.mode PASSTHROUGH"),
        ("AuthorizationPolicy", {"action": "Deny"}, "spec.action DENY"),
        ("Telemetry", {"tracing": [{"match": {"mode": "CLIENTS"}}]}, "spec.tracing[0].match.mode CLIENT"),
        ("Telemetry", {"metrics": [{"overrides": [{"tagOverrides": {"a": {"operation": "DROP"}}}]}]}, "a.operation"),
        ("WasmPlugin", {"phase": "authn"}, "spec.phase AUTHN"),
    ],
)
def test_a_name_that_istio_does_not_take_is_refused_with_those_it_takes(kind, spec, said):
    place, _, meant = said.partition(" ")
    message = problem(yaml.safe_dump(manifest(kind, spec)))
    assert f"{place}: must not be the string" in message and "write one of " in message
    assert f"did you mean {meant}? " in message if meant else "did you mean" not in message


SERVER = {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}


def manifest(kind, spec):
    of = KINDS[kind]
    api = f"{of.group}/{of.versions[0]}" if of.group else of.versions[0]
    return {"apiVersion": api, "kind": kind, "metadata": {"name": "x"}, "spec": spec}


@pytest.mark.parametrize(
    ("kind", "spec", "said"),
    [
        (
            "VirtualService",
            {"http": [{"route": [{"destination": {"host": "a", "port": 80}}]}]},
            "destination.port: must be a",
        ),
        ("VirtualService", {"http": [{"route": {"destination": {"host": "a"}}}]}, "spec.http[0].route: must be a list"),
        ("VirtualService", {"http": [{"timeout": 10}]}, "spec.http[0].timeout: must be a duration, not the number 10"),
        ("VirtualService", {"http": [{"retries": {"attempts": "three"}}]}, "attempts: must be a whole number"),
        ("VirtualService", {"http": [{"match": [{"uri": "/x"}]}]}, "spec.http[0].match[0].uri: must be a mapping"),
        ("DestinationRule", {"host": "a", "subsets": [{"labels": {}}]}, "spec.subsets[0]: has no name"),
        (
            "DestinationRule",
            {"host": "a", "trafficPolicy": {"loadBalancer": "RANDOM"}},
            "loadBalancer: must be a mapping",
        ),
        ("ServiceEntry", {"hosts": ["a"], "resolution": "dns"}, "spec.resolution: must not be the string 'dns'"),
        ("ServiceEntry", {"hosts": ["a"], "ports": [{"number": 80}]}, "spec.ports[0]: has no name"),
        ("DestinationRule", {"host": "a", "trafficPolicy": {"outlierDetection": {"consecutive5xxErrors": "many"}}},
         "outlierDetection.consecutive5xxErrors: must be a whole number"),
        ("DestinationRule", {"host": "a", "trafficPolicy": {"loadBalancer": {"warmup": {"aggression": 1}}}},
         "loadBalancer.warmup: has no duration"),
        ("VirtualService", {"http": [{"headers": {"request": {"set": "a: b"}}}]}, "set: must be a mapping"),
        ("VirtualService", {"http": [{"match": [{"withoutHeaders": {"a": "b"}}]}]}, "withoutHeaders.a: must be a map"),
        ("VirtualService", {"http": [{"mirrors": [{"percentage": {"value": True}}]}]}, "value: must be a number"),
        ("Sidecar", {"inboundConnectionPool": {"tcp": {"maxConnections": "10"}}}, "tcp.maxConnections: must be a who"),
        ("AuthorizationPolicy", {"rules": [{"from": [{"source": {"notIpBlocks": 3}}]}]}, "notIpBlocks: must be a list"),
        ("Service", {"ports": [{"name": "http"}]}, "spec.ports[0]: has no port"),
        ("Gateway", {"servers": [{"port": {"name": "http"}}]}, "spec.servers[0].port: has no number"),
        ("Gateway", {"servers": [{**SERVER, "port": {"number": 80, "name": "a"}}]}, "servers[0].port: has no protocol"),
        ("Gateway", {"servers": [{**SERVER, "hosts": []}]}, "spec.servers[0]: has no hosts (add 'hosts: …' below it)"),
        ("Gateway", {"servers": [{"hosts": ["*"]}]}, "spec.servers[0]: has no port"),
        ("Gateway", {"selector": {"istio": "a"}}, "spec: has no servers"),
        ("DestinationRule", {"trafficPolicy": {}}, "spec: has no host (add 'host: …' below it)"),
        ("DestinationRule", None, "spec: has no host"),
        ("ServiceEntry", {"hosts": [], "location": "MESH_EXTERNAL"}, "spec: has no hosts"),
        ("VirtualService", {"gateways": ["a"]}, "spec: has no hosts (add 'hosts: …' below it, or leave out gateways"),
        ("VirtualService", {"hosts": ["a"], "http": [{"route": [{"weight": 1}]}]}, "route[0]: has no destination"),
        ("VirtualService", {"hosts": ["a"], "tcp": [{"route": [{"destination": {"subset": "b"}}]}]}, "has no host"),
        ("Sidecar", {"egress": [{"bind": "127.0.0.1"}]}, "spec.egress[0]: has no hosts"),
        ("Sidecar", {"egress": [{"port": 80, "hosts": ["*/*"]}]}, "spec.egress[0].port: must be a mapping"),
        ("Sidecar", {"egress": [{"port": {"number": 70000}}]}, "spec.egress[0].port.number: must be a port number"),
        ("AuthorizationPolicy", {"rules": [{"to": [{"operation": True}]}]}, "operation: must be a mapping"),
        ("Telemetry", {"tracing": [{"providers": ["zipkin"]}]}, "providers[0]: must be a mapping"),
        ("WorkloadEntry", {"address": "1.1.1.1", "ports": {"http": "web"}}, "spec.ports: must be a port number"),
    ],
)  # fmt: skip
def test_what_is_deep_inside_an_object_is_checked_too(kind, spec, said):
    assert said in problem(yaml.safe_dump(manifest(kind, spec)))


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        *(("ServiceEntry", {"hosts": ["a"], "resolution": resolution}) for resolution in RESOLUTIONS),
        ("Sidecar", {"egress": [{"port": {"number": 0, "protocol": "HTTP"}, "bind": "unix:///a", "hosts": ["*/*"]}]}),
        ("VirtualService", {"hosts": ["a"], "http": [{"timeout": "0s", "retries": {"perTryTimeout": "1m30s"}}]}),
    ],
)
def test_what_istio_takes_is_not_refused(kind, spec):
    document = {"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": {"name": "x"}, "spec": spec}
    assert mesh_of(yaml.safe_dump(document)).mesh.objects


@pytest.mark.parametrize(
    ("api", "kind", "said"),
    [
        ("networking.istio.io/v9", "Sidecar", "no release serves"),
        ("security.istio.io/v1", "Sidecar", "networking.istio.io/v1"),
        ("config.istio.io/v1", "rule", "unknown Istio kind"),
    ],
)
def test_wrong_api_versions_name_the_right_one(api, kind, said):
    assert said in problem(f"apiVersion: {api}\nkind: {kind}\nmetadata: {{name: x}}\n")


def test_duplicates_merge_and_differing_ones_name_both_places():
    service = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: %d}]}\n"
    assert names(mesh_of(service % 80 + "---\n" + service % 80).mesh, "Service") == ["s"]
    message = problem(service % 80 + "---\n" + service % 81)
    assert "m.yaml, document 1" in message and "m.yaml, document 2" in message


def test_unmodelled_kinds_are_counted_and_gateway_api_warns():
    both = """
apiVersion: v1
kind: ConfigMap
metadata: {name: x}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g}
"""
    result = mesh_of(both)
    assert result.unmodelled == {"ConfigMap": 1, "Gateway (gateway.networking.k8s.io)": 1}
    assert any("left out: 1 ConfigMap" in n for n in result.notes)
    assert any("under-predicted" in n for n in result.notes)
    assert not result.mesh.objects


def test_lists_of_kubectl_and_missing_namespaces():
    item = {"metadata": {"name": "s"}, "spec": {"clusterIP": "None"}}
    typed = {"apiVersion": "v1", "kind": "ServiceList", "items": [item]}
    assert list(loaded(typed, namespace="team").mesh.objects) == [Ref("Service", "team", "s")]


def test_mesh_config_of_the_configmap_and_of_a_file():
    config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio}\ndata:\n  mesh: |-\n    rootNamespace: %s\n"
    assert mesh_of(config % "root").mesh.mesh_config == {"rootNamespace": "root"}
    assert mesh_of("defaultServiceExportTo: ['.']\nmadeUp: 1\n").mesh.mesh_config["defaultServiceExportTo"] == ["."]
    assert "defaultServiceExportTo: must be a list" in problem("defaultServiceExportTo: '.'\n")
    assert "data.mesh.rootNamespace" in problem(config % "7")


def test_the_mesh_config_is_read_as_protobufs_json_is():
    """Names as in the .proto, enums by number, numbers in quotes: istiod's jsonpb takes them all."""
    written = """
outbound_traffic_policy: {mode: 0}
accessLogEncoding: 1
proxyListenPort: "15009"
mesh_mTLS: {minProtocolVersion: 2}
pathNormalization: {normalization: 3}
inboundTrafficPolicy: {mode: 1}
defaultHttpRetryPolicy: {attempts: "3"}
defaultConfig:
  gateway_topology: {num_trusted_proxies: "2", forwardClientCertDetails: 4}
  interceptionMode: 1
  proxyMetadata: {MY_NAME: "1"}
  tracing: {sampling: "12.5", custom_tags: {my_tag: {literal: {value: "7"}}}}
extensionProviders:
- name: z
  zipkin: {service: z.example.com, port: "9411", max_tag_length: "64", traceContextOption: 1}
"""
    assert mesh_of(written).mesh.mesh_config == {
        "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"},
        "accessLogEncoding": "JSON",
        "proxyListenPort": 15009,
        "meshMTLS": {"minProtocolVersion": "TLSV1_3"},
        "pathNormalization": {"normalization": "MERGE_SLASHES"},
        "inboundTrafficPolicy": {"mode": "LOCALHOST"},
        "defaultHttpRetryPolicy": {"attempts": 3},
        "defaultConfig": {
            "gatewayTopology": {"numTrustedProxies": 2, "forwardClientCertDetails": "SANITIZE_SET"},
            "interceptionMode": "TPROXY",
            "proxyMetadata": {"MY_NAME": "1"},
            "tracing": {"sampling": 12.5, "customTags": {"my_tag": {"literal": {"value": "7"}}}},
        },
        "extensionProviders": [
            {
                "name": "z",
                "zipkin": {
                    "service": "z.example.com",
                    "port": 9411,
                    "maxTagLength": 64,
                    "traceContextOption": "USE_B3_WITH_W3C_PROPAGATION",
                },
            }
        ],
    }


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("outboundTrafficPolicy: {mode: 2}", "outboundTrafficPolicy.mode: must not be the number 2"),
        ("outboundTrafficPolicy: {mode: '1'}", "outboundTrafficPolicy.mode: must not be the string '1'"),
        ("accessLogEncoding: true", "accessLogEncoding: must not be the boolean true"),
        ("proxyListenPort: 15k", "proxyListenPort: must be a whole number, not the string '15k'"),
        ("enableTracing: 'true'", "enableTracing: must be true or false, not the string 'true'"),
        ("defaultHttpRetryPolicy: {attempts: many}", "defaultHttpRetryPolicy.attempts: must be a whole number"),
        ("defaultConfig: {tracing: {sampling: all}}", "defaultConfig.tracing.sampling: must be a number"),
        ("defaultConfig: {gatewayTopology: {numTrustedProxies: two}}", "numTrustedProxies: must be a whole number"),
        ("tlsDefaults: {minProtocolVersion: TLSV1_1}", "tlsDefaults.minProtocolVersion: must not be the string"),
        ("extensionProviders: [{name: z, zipkin: {service: z, port: http}}]", "zipkin.port: must be a whole number"),
    ],
)
def test_what_protobufs_json_does_not_take_is_refused(written, said):
    assert said in problem(written + "\n")


# ---- workloads -----------------------------------------------------------------------------------------------------


def test_a_deployment_becomes_ready_pods_and_endpoints_with_named_ports_resolved():
    mesh = mesh_of(WEB).mesh
    assert len(names(mesh, "Pod")) == 2 and not names(mesh, "Deployment")
    (found,) = mesh.of_kind("EndpointSlice")
    assert found.body["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    assert {e["targetRef"]["name"] for e in found.body["endpoints"]} == set(names(mesh, "Pod"))
    assert found.labels["kubernetes.io/service-name"] == "web"
    assert next(iter(mesh.of_kind("Service"))).spec["clusterIP"].startswith("172.")


@pytest.mark.parametrize(
    ("bodies", "pods"),
    [
        ([workload("Deployment", {})], 1),
        ([workload("Deployment", {"replicas": 0})], 0),
        ([workload("StatefulSet", {"replicas": 3})], 3),
        ([workload("DaemonSet", {})], 1),
        ([workload("DaemonSet", {}), node("x"), node("y")], 2),
        ([workload("Job", {"parallelism": 4}, "batch/v1")], 4),
        ([workload("Job", {"parallelism": 4, "completions": 2}, "batch/v1")], 2),
        ([manifest("CronJob", {"schedule": "@daily"})], 0),
        ([workload("ReplicaSet", {"replicas": 2})], 2),
        ([workload("Deployment", {"replicas": 2}), workload("ReplicaSet", {}, name="w-1", ownerReferences=OWNED)], 2),
    ],
)  # fmt: skip
def test_how_many_pods_a_workload_runs(bodies, pods):
    assert len(names(loaded(*bodies).mesh, "Pod")) == pods


@pytest.mark.parametrize(("minimum", "pods"), [(5, 5), (1, 2), (None, 2)])
def test_an_autoscalers_minimum_counts(minimum, pods):
    spec = {"scaleTargetRef": {"kind": "Deployment", "name": "w"}} | ({"minReplicas": minimum} if minimum else {})
    hpa = {
        "apiVersion": "autoscaling/v2beta2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h"},
        "spec": spec,
    }
    assert len(names(loaded(workload("Deployment", {"replicas": 2}), hpa).mesh, "Pod")) == pods


def test_given_pods_of_a_deployment_are_not_doubled():
    given_pod = pod(labels={"pod-template-hash": "h1"})
    given_pod["metadata"]["ownerReferences"] = [{"kind": "ReplicaSet", "name": "w-h1", "controller": True}]
    replica_set = workload("ReplicaSet", {"replicas": 1}, name="w-h1", namespace="a")
    replica_set["metadata"]["ownerReferences"] = [{"kind": "Deployment", "name": "w"}]
    mesh = loaded(given_pod, workload("Deployment", {"replicas": 3}, namespace="a"), replica_set).mesh
    assert names(mesh, "Pod") == ["p"]


def test_unready_and_addressless_pods_make_no_ready_endpoint():
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "s", "namespace": "a"},
        "spec": {"selector": {"x": "y"}, "ports": [{"port": 1}]},
    }
    unready = {"phase": "Running", "podIP": "10.0.0.2", "conditions": [{"type": "Ready", "status": "False"}]}
    result = loaded(service, pod("p", {"x": "y"}, status={}), pod("q", {"x": "y"}, status=unready), inject="all")
    (found,) = result.mesh.of_kind("EndpointSlice")
    assert [e["conditions"]["ready"] for e in found.body["endpoints"]] == [False]
    assert not result.mesh.proxies
    assert any("without an IP" in note for note in result.notes)


def test_v1_endpoints_become_slices_unless_slices_are_given():
    endpoints = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": "s"},
        "subsets": [{"addresses": [{"ip": "1.2.3.4"}], "ports": [{"port": 9}]}],
    }
    own = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "o", "labels": {"kubernetes.io/service-name": "s"}},
        "endpoints": [],
    }
    (found,) = loaded(endpoints).mesh.of_kind("EndpointSlice")
    assert found.body["endpoints"][0]["addresses"] == ["1.2.3.4"] and found.body["ports"][0]["port"] == 9
    assert names(loaded(endpoints, own).mesh, "EndpointSlice") == ["o"]


def test_headless_and_external_services_get_no_address():
    for spec in ({"clusterIP": "None"}, {"type": "ExternalName", "externalName": "x.y"}):
        mesh = loaded({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": spec}).mesh
        assert mesh.objects[Ref("Service", "default", "s")].spec == spec


@given(st.lists(st.text(min_size=1, max_size=5), unique=True, max_size=200))
def test_addresses_are_never_given_twice(identities):
    pool = Addresses("10.0.0.0/24", {"10.0.0.7"})
    handed = [pool.give(identity) for identity in identities]
    assert len(set(handed)) == len(handed) and "10.0.0.7" not in handed


def test_more_than_a_hundred_endpoints_make_several_slices():
    mesh = mesh_of(WEB.replace("replicas: 2", "replicas: 250")).mesh
    assert [len(o.body["endpoints"]) for o in mesh.of_kind("EndpointSlice")] == [100, 100, 50]


# ---- injection -----------------------------------------------------------------------------------------------------

INJECT = "sidecar.istio.io/inject"
P = {"name": "istio-proxy"}
PROXY = {"containers": [{"name": "istio-proxy", "args": ["proxy", "router", "--domain", "x"]}]}


@pytest.mark.parametrize(
    ("ns", "body", "detect", "everything"),
    [
        ({}, pod(), None, "sidecar"),
        ({"istio-injection": "enabled"}, pod(), "sidecar", "sidecar"),
        ({"istio-injection": "disabled"}, pod(labels={INJECT: "true"}), None, None),
        ({"istio.io/rev": "canary"}, pod(), "sidecar", "sidecar"),
        ({"istio-injection": "enabled"}, pod(labels={INJECT: "false"}), None, None),
        ({"istio-injection": "enabled"}, pod(annotations={INJECT: "false"}), None, None),
        ({"istio-injection": "enabled"}, pod(spec={"hostNetwork": True}), None, None),
        ({}, pod(labels={INJECT: "true"}), "sidecar", "sidecar"),
        ({}, pod(labels={"istio.io/rev": "canary"}), "sidecar", "sidecar"),
        ({}, pod(labels={INJECT: "true"}, annotations={"inject.istio.io/templates": "gateway"}), "router", "router"),
        ({}, pod(spec=PROXY), "router", "router"),
        ({}, pod(spec={"initContainers": [{**P, "args": ["proxy", "sidecar"]}]}), "sidecar", "sidecar"),
        ({}, pod(spec={"containers": [{**P, "args": ["proxy", "waypoint"]}]}), "waypoint", "waypoint"),
        ({"istio-injection": "enabled"}, pod(status={"phase": "Succeeded", "podIP": "10.0.0.9"}), None, None),
    ],
)  # fmt: skip
def test_which_pods_are_proxies(ns, body, detect, everything):
    for inject, want in (("detect", detect), ("all", everything)):
        proxies = loaded(namespace(ns), body, inject=inject).mesh.proxies
        assert [p.type for p in proxies] == ([want] if want else [])


def test_labelled_goes_by_labels_even_where_a_container_is_there():
    sidecar = pod(spec={"containers": [{"name": "istio-proxy", "args": ["proxy", "sidecar"]}]})
    assert not loaded(sidecar, inject="labelled").mesh.proxies
    assert loaded(namespace({"istio-injection": "enabled"}), sidecar, inject="labelled").mesh.proxies


# ---- changes -------------------------------------------------------------------------------------------------------


def changed(text, mesh):
    return to_change(parse_text(text.encode(), "c.yaml"), mesh=mesh).change


def test_scaling_a_deployment_keeps_its_pods_and_rewrites_one_slice():
    mesh = mesh_of(WEB).mesh
    deployment = WEB.split("---")[0]
    up = changed(deployment.replace("replicas: 2", "replicas: 3"), mesh)
    assert sorted(o.ref.kind for o in up.apply) == ["EndpointSlice", "Pod"] and not up.delete
    after = mesh.after(up)
    assert set(names(mesh, "Pod")) < set(names(after, "Pod"))
    assert [len(s.body["endpoints"]) for s in after.of_kind("EndpointSlice")] == [3]
    down = changed(deployment.replace("replicas: 2", "replicas: 1"), mesh)
    assert [ref.kind for ref in down.delete] == ["Pod"] and [o.ref.kind for o in down.apply] == ["EndpointSlice"]


def test_applying_the_same_again_changes_nothing_but_the_service_written():
    mesh = mesh_of(WEB).mesh
    again = changed(WEB, mesh)
    assert mesh.after(again).objects == mesh.objects and not again.delete


def test_a_new_image_rolls_over_to_other_pods():
    mesh = mesh_of(WEB).mesh
    rolled = changed(WEB.split("---")[0].replace("image: i", "image: j"), mesh)
    assert {r for r in rolled.delete if r.kind == "Pod"} == {o.ref for o in mesh.of_kind("Pod")}
    (found,) = mesh.after(rolled).of_kind("EndpointSlice")
    assert {e["targetRef"]["name"] for e in found.body["endpoints"]} == set(names(mesh.after(rolled), "Pod"))


def test_deleting_a_deployment_and_a_service():
    mesh = mesh_of(WEB).mesh
    gone = mesh.after(delete_change([parse_delete("deploy/web", mesh)], mesh))
    assert not names(gone, "Pod") and next(iter(gone.of_kind("EndpointSlice"))).body["endpoints"] == []
    gone = mesh.after(delete_change([parse_delete("svc/default/web", mesh)], mesh))
    assert not names(gone, "EndpointSlice") and len(names(gone, "Pod")) == 2


def test_a_new_service_finds_the_meshs_pods_and_a_port_change_rewrites_its_slice():
    deployment, service = WEB.split("---")
    mesh = mesh_of(deployment).mesh
    new = changed(service, mesh)
    assert sorted(o.ref.kind for o in new.apply) == ["EndpointSlice", "Service"]
    mesh = mesh.after(new)
    moved = mesh.after(changed(service.replace("targetPort: http", "targetPort: 9090"), mesh))
    assert [s.body["ports"][0]["port"] for s in moved.of_kind("EndpointSlice")] == [9090]
    assert names(moved, "EndpointSlice") == names(mesh, "EndpointSlice")
    kept = [m.objects[Ref("Service", "default", "web")].spec["clusterIP"] for m in (mesh, moved)]
    assert kept[0] == kept[1]


@pytest.mark.parametrize(
    "text",
    ["Service/default/web", "svc/web", "SERVICES/web", "v1/service/default/web", "service/web"],
)
def test_delete_is_spelled_as_in_kubectl(text):
    mesh = mesh_of(WEB).mesh
    if text.startswith("v1"):
        with pytest.raises(InputError, match="unknown kind"):
            parse_delete(text, mesh)
    else:
        assert parse_delete(text, mesh) == Ref("Service", "default", "web")


def test_delete_lists_near_misses():
    mesh = mesh_of(WEB).mesh
    for text, said in (
        ("svc/wep", "Service/default/web"),
        ("Servise/x", "Service"),
        ("web", "Kind"),
        ("vs/x", "no VirtualService"),
    ):
        with pytest.raises(InputError, match=said):
            parse_delete(text, mesh)


# ---- files ---------------------------------------------------------------------------------------------------------


def test_files_folders_and_standard_input(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.yml").write_text(WEB)
    (tmp_path / "b.json").write_text(json.dumps(pod()))
    (tmp_path / "readme.md").write_text("no manifest")
    (tmp_path / "later.yaml").write_text("# only a comment, which kubectl takes in a folder, too\n")
    service = b"apiVersion: v1\nkind: Service\nmetadata: {name: s}\n"
    mesh = files.load([str(tmp_path), "-"], stdin=lambda: service).mesh
    assert {"web", "s"} == set(names(mesh, "Service")) and len(names(mesh, "Pod")) == 3


def test_missing_empty_and_broken_files_are_all_told_at_once(tmp_path):
    (tmp_path / "none").mkdir()
    (tmp_path / "empty.yaml").write_text("# only a comment\n")
    (tmp_path / "bad.yaml").write_text("apiVersion: v1\nkind: Service\n")
    paths = [str(tmp_path / name) for name in ("none", "empty.yaml", "bad.yaml", "absent")]
    with pytest.raises(InputError) as error:
        files.load(paths)
    said = str(error.value)
    assert all(text in said for text in ("no manifest in this folder", "is empty", "metadata.name", "no such file"))


def test_files_of_one_folder_apply_in_order_of_name_but_given_files_conflict(tmp_path):
    for name, port in (("a", 80), ("b", 81)):
        service = f"apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {{ports: [{{port: {port}}}]}}\n"
        (tmp_path / f"{name}.yaml").write_text(service)
    result = files.load([str(tmp_path)])
    assert result.mesh.objects[Ref("Service", "default", "s")].spec["ports"] == [{"port": 81}]
    assert any("is replaced" in note for note in result.notes)
    with pytest.raises(InputError, match="differs"):
        files.load([str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")])


def test_a_large_broken_file_says_so_once_and_rapidyaml_is_silent(tmp_path, capfd):
    (tmp_path / "big.yaml").write_text(
        "---\n".join(["a: [1\n", *[WEB.replace("name: web", f"name: w{i}") for i in range(900)]])
    )
    with pytest.raises(InputError) as error:
        files.load([str(tmp_path / "big.yaml")])
    assert "document 1" in str(error.value) and capfd.readouterr().err == ""


def test_the_same_in_every_process(tmp_path):
    (tmp_path / "m.yaml").write_text(WEB)
    script = "import sys; from pushsim import files; mesh = files.load(sys.argv[1:], inject='all').mesh\n"
    script += "print(mesh.objects, mesh.proxies)"
    runs = {
        subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(runs) == 1 and b"Proxy(" in runs.pop()


def test_parse_objects_tells_the_index():
    with pytest.raises(InputError, match=r"here\[1\]"):
        parse_objects([pod(), {}], source="here")


# ---- real manifests ------------------------------------------------------------------------------------------------


@pytest.mark.manifests
@pytest.mark.parametrize(("folder", "proxies"), [("online-boutique", 12), ("bookinfo", 6)])
def test_real_manifests_load_and_every_selected_service_has_endpoints(real_manifests, folder, proxies):
    result = files.load([str(real_manifests / folder)], inject="all")
    assert len(result.mesh.proxies) == proxies
    assert all(s.body["endpoints"] for s in result.mesh.of_kind("EndpointSlice"))
    assert any("ServiceAccount" in note for note in result.notes)
    assert not files.load([str(real_manifests / folder)]).mesh.proxies


# ---- what a change holds besides objects -------------------------------------------------------------------------


def hpa(minimum, target="web"):
    return (
        "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: h}\n"
        f"spec: {{minReplicas: {minimum}, scaleTargetRef: {{kind: Deployment, name: {target}}}}}\n"
    )


def test_an_autoscaler_alone_scales_the_workload_that_the_mesh_has():
    mesh = mesh_of(WEB).mesh
    up = changed(hpa(4), mesh)
    assert sorted(o.ref.kind for o in up.apply) == ["EndpointSlice", "Pod", "Pod"] and not up.delete
    new = [o for o in up.apply if o.ref.kind == "Pod"]
    old = next(iter(mesh.of_kind("Pod")))
    assert all(o.labels["app"] == old.labels["app"] and o.spec["containers"] == old.spec["containers"] for o in new)
    assert not changed(hpa(1), mesh).apply


def test_an_autoscaler_of_nothing_known_is_told():
    with pytest.raises(InputError, match=r"Deployment/default/other.*give that workload too"):
        changed(hpa(4, "other"), mesh_of(WEB).mesh)


def test_what_a_change_holds_that_is_not_modelled_is_told():
    text = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n"
    read = to_change(parse_text(text, "c.yaml"), mesh=mesh_of(WEB).mesh)
    assert read.notes == ("not modelled, left out: 1 ConfigMap",)


@pytest.mark.parametrize(
    ("kind", "spec", "said"),
    [
        ("Sidecar", {"egres": []}, "spec.egres: is no field of a Sidecar (did you mean egress?)"),
        ("Sidecar", {"egress": [{"hosts": ["./*"]}, {"host": ["b/*"]}]}, "spec.egress[1].host: is no field"),
        ("Sidecar", {"workloadselector": {}}, "(did you mean workloadSelector?)"),
        ("VirtualService", {"hostss": ["a"]}, "spec.hostss: is no field of a VirtualService (did you mean hosts?)"),
        ("VirtualService", {"hosts": ["a"], "http": [{}, {"retires": {}}]}, "spec.http[1].retires: is no field"),
        (
            "VirtualService",
            {"http": [{"match": [{"headers": {"x": {"exacct": "y"}}}]}]},
            "match[0].headers.x.exacct: is",
        ),
        (
            "DestinationRule",
            {"host": "a", "subsets": [{"name": "s", "trafficPolicy": {"outlierDetections": {}}}]},
            "spec.subsets[0].trafficPolicy.outlierDetections: is no field of a DestinationRule (did you mean outlierD",
        ),
        ("AuthorizationPolicy", {"selector": {"matchLables": {"app": "a"}}}, "selector.matchLables: is no field"),
        ("PeerAuthentication", {"portLevelMtls": {80: {"mod": "STRICT"}}}, "spec.portLevelMtls.80.mod: is no field"),
    ],
)
def test_a_field_that_its_kind_has_not_is_refused_as_kubectl_does_with_the_one_that_was_meant(kind, spec, said):
    assert said in problem(yaml.safe_dump(manifest(kind, spec)))


@pytest.mark.parametrize(
    ("kind", "written", "said"),
    [
        ("v1 Service", "spec: {slector: {app: a}}", "spec.slector: is no field of a Service (did you mean selector?)"),
        ("v1 Service", "spec: {ports: [{port: 80, targetport: 1}]}", "spec.ports[0].targetport: is no field of a"),
        ("v1 Pod", "spec: {containers: [{name: a, imag: b}]}", "spec.containers[0].imag: is no field of a Pod"),
        ("v1 Pod", "spec: {conatiners: []}", "spec.conatiners: is no field of a Pod (did you mean containers?)"),
        ("apps/v1 Deployment", "spec: {replica: 3}", "spec.replica: is no field of a Deployment (did you"),
        ("apps/v1 Deployment", "spec: {template: {metadata: {lables: {a: b}}}}", "spec.template.metadata.lables: is"),
        ("discovery.k8s.io/v1 EndpointSlice", "endpoints: [{adresses: [1.1.1.1]}]", "endpoints[0].adresses: is no"),
        ("networking.istio.io/v1 Sidecar", "sepc: {}", "sepc: is no field of a Sidecar (did you mean spec?)"),
    ],
)  # fmt: skip
def test_a_slip_in_kubernetes_own_fields_is_refused_as_kubectl_does(kind, written, said):
    api, _, name = kind.partition(" ")
    assert said in problem(f"apiVersion: {api}\nkind: {name}\nmetadata: {{name: x}}\n{written}\n")


def test_kubernetes_fields_that_are_none_of_ours_are_let_pass():
    text = (
        "apiVersion: v1\nkind: Service\nmetadata: {name: x, newThing: 1}\nspec: {quiteNew: {}, ports: [{port: 80}]}\n"
    )
    assert not mesh_of(text).notes
    slip = text.replace("newThing: 1", 'resourceVersion: "7"').replace("quiteNew", "slector")
    (said,) = mesh_of(slip).notes
    assert "spec.slector: is no field of a Service, so it is left out (did you mean selector?)" in said


#: Fields that Kubernetes had once.
GONE = {("ObjectMeta", "clusterName"), ("ServiceSpec", "ipFamily"), ("ServiceSpec", "topologyKeys"),
        ("Endpoint", "topology"), ("HorizontalPodAutoscalerSpec", "targetCPUUtilizationPercentage")}  # fmt: skip


@pytest.mark.parametrize("name", sorted(TYPES.keys() - {"Object"}))
def test_kubernetes_fields_are_those_of_its_own_models(name):
    modules = ["core_v1", "apps_v1", "batch_v1", "autoscaling_v2", "discovery_v1", "meta_v1"]
    loaded_ = [importlib.import_module(f"lightkube.models.{module}") for module in modules]
    model = next(getattr(module, name) for module in loaded_ if hasattr(module, name))
    theirs = get_type_hints(model)
    assert {*theirs} == {field for field in TYPES[name] if (name, field) not in GONE}
    for field, of in TYPES[name].items():
        assert not of or of in re.findall(r"\w+", str(theirs[field])), f"{field} holds {theirs[field]}"


def test_a_field_that_a_cluster_has_and_we_do_not_know_is_told():
    body = manifest("Sidecar", {"egress": [{"hosts": ["./*"], "newest": True}]})
    body["metadata"]["resourceVersion"] = "7"
    said = "d0: spec.egress[0].newest: is no field of a Sidecar, so it is left out (known fields: bind, "
    assert [note[: len(said)] for note in loaded(body).notes] == [said]


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("Gateway", {"selector": {"any/label": "x"}, "servers": [SERVER]}),
        (
            "EnvoyFilter",
            {"configPatches": [{"applyTo": "CLUSTER", "patch": {"operation": "MERGE", "value": {"x": 1}}}]},
        ),
        ("EnvoyFilter", {"configPatches": [{"match": {"proxy": {"metadata": {"CLUSTER_ID": "a"}}}}]}),
        ("WasmPlugin", {"pluginConfig": {"any": {"thing": 1}}, "url": "oci://a"}),
        ("ServiceEntry", {"hosts": ["a"], "endpoints": [{"address": "1.1.1.1", "ports": {"web": 80}}]}),
        ("VirtualService", {"http": [{"headers": {"request": {"set": {"x-any": "y"}}}}]}),
        ("VirtualService", {"hosts": ["a"], "http": [{"match": [{"headers": {"x-any": {"exact": "y"}}}]}]}),
        ("Telemetry", {"tracing": [{"customTags": {"mine": {"literal": {"value": "x"}}}}]}),
    ],
)
def test_names_that_are_the_users_own_are_no_fields(kind, spec):
    assert not any("is no field" in note for note in loaded(manifest(kind, spec)).notes)


def test_the_mesh_config_of_a_config_map_may_be_empty():
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio"}, "data": {"mesh": ""}}
    assert loaded(body).mesh.mesh_config == {}


@pytest.mark.parametrize("release", ["1.14", "1.24", "1.30"])
def test_a_mesh_config_that_changes_is_pushed_to_everybody_in_full(release):
    mesh = mesh_of(WEB, inject="all").mesh
    change = changed("accessLogFile: /dev/stdout\n", mesh)
    answer = preview(mesh, change, release=release, mode="sotw")
    again = preview(mesh, Change(mesh_config={}), release=release, mode="sotw")
    assert mesh.after(change).mesh_config == {"accessLogFile": "/dev/stdout"}
    assert answer.keys == ("everything",)
    for group, plain in zip(answer.groups, again.groups, strict=True):
        types = {pushed.xds: pushed for pushed in group.types}
        assert set(types) == {"CDS", "EDS", "LDS", "RDS"}
        assert types["LDS"].size_bytes > {p.xds: p for p in plain.types}["LDS"].size_bytes  # access logs are in it
