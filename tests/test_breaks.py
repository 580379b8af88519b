"""What a policy breaks: judged by hand, and against the clusters that proxies really get."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from hypothesis import given, settings
from strategies import scripts

from pushsim.breaks import Sight, breaks
from pushsim.mesh import Mesh, Ref
from pushsim.names import host_of
from pushsim.scenario import Scenario
from pushsim.settings import Settings, Variant

TEXT = """
mesh:
  generate:
    namespaces: [{name: shop}, {name: bank}]
    apps: [{name: web, namespaces: [shop]}, {name: pay, namespaces: [bank]}, {name: job, sidecar: false}]
    gateways: {count: 2, virtual_services: [web]}
duration: 1s
variants:
  as-is: []
  root-only: [{root-sidecar: {hosts: [./*]}}]
  private: [{export-to: {value: ., services: {names: [pay, web]}}}]
  private-by-default: [default-export-to]
  unwatched:
  - discovery-selectors:
      selectors: [{matchExpressions: [{key: kubernetes.io/metadata.name, operator: NotIn, values: [bank]}]}]
  listed: [{egress-list: {hosts: [bank/*], base: [./*]}}]
  ambient: [ambient, {root-sidecar: {hosts: [./*]}}]
  filtered: [gateway-filter]
"""
SCENARIO = Scenario.loads(TEXT)
WEB, PAY, JOB = Ref("Service", "shop", "web"), Ref("Service", "bank", "pay"), Ref("Service", "shop", "job")
GATEWAY = Ref("Service", "istio-system", "istio-ingressgateway")


def found(variant: str, *calls: tuple[Ref, Ref]) -> list[tuple[Any, ...]]:
    graph = nx.DiGraph(calls)
    variants = [SCENARIO.variant("as-is"), SCENARIO.variant(variant)]
    both = breaks(variants, graph)
    assert both["as-is"] == ()
    return [(each.kind, str(each.subject), each.destination.split(".")[0], str(each.cause)) for each in both[variant]]


def test_a_sidecar_that_does_not_import_the_callee() -> None:
    cause = "Sidecar/istio-system/default"
    assert found("root-only", (WEB, PAY), (PAY, PAY)) == [("call", "Service/shop/web", "pay", cause)]
    assert found("listed", (WEB, PAY), (PAY, WEB)) == [("call", "Service/bank/pay", "web", "Sidecar/bank/default")]


def test_a_service_that_hides() -> None:
    calls = ((WEB, PAY), (GATEWAY, WEB))
    route = ("gateway-route", "VirtualService/shop/web", "web", "Service/shop/web")
    hidden = [
        ("call", "Service/istio-system/istio-ingressgateway", "web", "Service/shop/web"),
        ("call", "Service/shop/web", "pay", "Service/bank/pay"),
    ]
    assert found("private", *calls) == [*hidden, route]
    assert [each[3] for each in found("private-by-default", *calls)] == ["None"] * 3


def test_what_istiod_does_not_watch_is_not_found() -> None:
    assert found("unwatched", (WEB, PAY)) == [("call", "Service/shop/web", "pay", "None")]


def test_callers_without_a_sidecar_call_as_they_like() -> None:
    assert found("root-only", (JOB, PAY)) == []
    assert found("ambient", (WEB, PAY)) == []


def test_filtered_gateways_keep_their_routes() -> None:
    assert found("filtered", (GATEWAY, WEB), (GATEWAY, PAY)) == [
        ("call", "Service/istio-system/istio-ingressgateway", "pay", "None")
    ]


@pytest.mark.parametrize("variant", ["root-only", "private", "unwatched", "filtered"])
def test_every_break_says_why(variant: str) -> None:
    graph = nx.DiGraph([(WEB, PAY), (GATEWAY, PAY)])
    for each in breaks([SCENARIO.variant("as-is"), SCENARIO.variant(variant)], graph)[variant]:
        assert each.why and each.destination in str(each)


@settings(max_examples=60)
@given(scripts(most=1))
def test_a_host_is_seen_if_and_only_if_the_proxy_gets_clusters_of_it(script: tuple[str, Mesh, Any]) -> None:
    release, mesh, _ = script
    sight = Sight(Variant("x", mesh, (), Settings(release, mesh_config=mesh.mesh_config, env=mesh.env)))
    hosts = set(sight.push.context.services.by_host) | {"nobody.nowhere"}
    for views in sight.views.values():
        for view in views:
            plan = sight.istiod.connect(view.proxy)
            held = {host_of(name) for r in plan.responses if r.xds == "CDS" for name in r.names}
            for host in hosts:
                service = view.scope.service(host)
                ports = service.ports if service else ()
                if service is not None and (service.resolution != "EDS" or all(p.protocol == "UDP" for p in ports)):
                    continue  # an alias, or inline endpoints of which there are none: seen, and no cluster
                assert sight.sees(view, host).seen == (host in held), (release, view.proxy.id, host)


ROUTES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: pay, namespace: ops}
spec:
  hosts: [pay.bank.svc.cluster.local]
  http: [{route: [{destination: {host: till.ops.svc.cluster.local}}]}]
---
apiVersion: v1
kind: Service
metadata: {name: till, namespace: ops, annotations: {networking.istio.io/exportTo: "*"}}
spec: {clusterIP: 10.9.9.9, ports: [{name: http, port: 80}]}
"""
HIDDEN = ROUTES.replace('"*"', '"."')


def routed(tmp_path: Path, variant: str, head: str = ROUTES) -> list[tuple[str, ...]]:
    texts = {"base": ROUTES, "head": head}
    scenarios = {}
    for name, text in texts.items():
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "ops.yaml").write_text(text)
        written = TEXT.replace("mesh:", f"mesh:\n  manifests: [{name}]", 1)
        written += "  narrow: [{egress-list: {hosts: [bank/*], base: [./*]}}]\n"
        scenarios[name] = Scenario.loads(written, tmp_path)
    variants = [scenarios["base"].variant("as-is"), replace(scenarios["head"].variant(variant), name="head")]
    return [
        (each.kind, str(each.subject), each.destination.split(".")[0], each.namespace, Path(each.file).name)
        for each in breaks(variants, None)["head"]
    ]


def test_a_route_whose_destination_hides_is_told_with_its_file(tmp_path: Path) -> None:
    found_ = routed(tmp_path, "as-is", HIDDEN)
    assert found_ == [
        ("mesh-route", "VirtualService/ops/pay", "till", space, "ops.yaml, document 2") for space in ("bank", "shop")
    ]


def test_a_virtual_service_that_is_no_longer_imported_no_longer_routes(tmp_path: Path) -> None:
    # the callers still see pay.bank itself, and go there instead of to till.ops
    found_ = routed(tmp_path, "narrow")
    assert [each[:4] for each in found_] == [
        ("routing", "VirtualService/ops/pay", "pay", space) for space in ("bank", "shop")
    ]


def test_a_route_that_was_taken_out_is_no_break(tmp_path: Path) -> None:
    elsewhere = ROUTES.replace("host: till.ops", "host: pay.bank")
    assert routed(tmp_path, "as-is", elsewhere) == []
    assert routed(tmp_path / "again", "as-is", ROUTES.partition("---")[2]) == []
