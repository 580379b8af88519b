"""Recommended objects break no observed call and are never dearer; observed calls in all forms; what is told."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from strategies import scripts

from pushsim import releases
from pushsim.breaks import Sight, breaks
from pushsim.cases import Case
from pushsim.cli import main
from pushsim.conversation import Conversation
from pushsim.errors import InputError
from pushsim.hosts import is_wildcard
from pushsim.manifests import parse_objects
from pushsim.mesh import Change, Mesh, Object, Ref
from pushsim.names import host_of
from pushsim.policies import EXPORT_TO
from pushsim.pricing import Pricing
from pushsim.recommend import Limits, recommend
from pushsim.recommend.proposals import exports
from pushsim.recommend.saving import with_objects
from pushsim.record import record_case
from pushsim.scenario import Scenario
from pushsim.settings import Settings, Variant
from pushsim.topology import Generate, generate, read_calls

SHOP = Scenario.loads("""
mesh:
  generate:
    namespaces: [{name: shop}, {name: bank}, {name: idle}]
    apps:
    - {name: web, namespaces: [shop], pods: 3}
    - {name: api, namespaces: [shop], per_namespace: 2}
    - {name: pay, namespaces: [bank], per_namespace: 4}
    - {name: misc, namespaces: [idle], per_namespace: 6}
    gateways: {count: 2, virtual_services: [web]}
    calls: {out_degree: 0}
""")
WEB, API, PAY = Ref("Service", "shop", "web"), Ref("Service", "shop", "api-0"), Ref("Service", "bank", "pay-0")
GATEWAY = Ref("Service", "istio-system", "istio-ingressgateway")


def calls(*edges: tuple[Any, ...], watched: float | None = None) -> Any:
    graph = nx.DiGraph(watched_s=watched, left_out=0.0)
    for source, callee, *count in edges:
        graph.add_edge(source, callee, rate=1.0, calls=count[0] if count else None)
    return graph


# ---- what must hold


def config_bytes(mesh: Mesh, release: str) -> dict[str, int]:
    conversation = Conversation(mesh, releases.rules(release))
    pricing = Pricing(mesh, conversation.istiod.rules, conversation.istiod.mode)
    return {
        proxy.id: sum(pricing.size(r, outcome.plan.state, outcome.push) for r in outcome.plan.responses)
        for outcome in conversation.classes
        for proxy in outcome.members
    }


def pushed_bytes(mesh: Mesh, release: str, script: list[Change]) -> list[dict[str, int]]:
    conversation = Conversation(mesh, releases.rules(release), None, script)
    pricing = Pricing(mesh, conversation.istiod.rules, conversation.istiod.mode)
    found = []
    for change in script:
        sizes = {}
        for outcome in conversation.step(change).outcomes:
            size = sum(pricing.size(r, outcome.plan.state, outcome.push) for r in outcome.plan.responses)
            sizes.update({proxy.id: size for proxy in outcome.members})
        found.append(sizes)
    return found


def _after_each(mesh: Mesh, changes: list[Change]) -> list[Mesh]:
    found = []
    for change in changes:
        mesh = mesh.after(change)
        found.append(mesh)
    return found


def claims(mesh: Mesh, release: str) -> dict[tuple[str, str], set[tuple[str, ...]]]:
    """By namespace of proxies, and host or address, the services of it that it might see."""
    found: dict[tuple[str, str], set[tuple[str, ...]]] = {}
    services = _sight(mesh, release).push.context.services
    for space in {proxy.namespace for proxy in mesh.proxies}:
        for host in services.by_host:
            for service in services.candidates(host, space):
                for claim in (host, *service.addresses):
                    own = (service.registry, service.namespace, service.name, service.hostname)
                    found.setdefault((space, claim), set()).add(own)
    return found


def _sight(mesh: Mesh, release: str) -> Sight:
    return Sight(Variant("x", mesh, (), Settings(release, mesh_config=mesh.mesh_config, env=mesh.env)))


def recommended(data: Any, release: str, mesh: Mesh, **options: Any) -> Mesh | None:
    hosts = [
        Ref("Service", s.namespace, s.name) if s.registry == "Kubernetes" else Ref("ServiceEntry", "", s.hostname)
        for s in _sight(mesh, release).push.context.services.ordered
        if not is_wildcard(s.hostname)
    ]
    spaces = sorted({proxy.namespace for proxy in mesh.proxies})
    callers = [Ref("Workload", space, "any") for space in spaces] + [h for h in hosts if h.kind == "Service"]
    assume(hosts)
    edges = data.draw(st.lists(st.tuples(st.sampled_from(callers), st.sampled_from(hosts)), max_size=4))
    graph = calls(*edges)
    settings_ = Settings(release, mesh_config=mesh.mesh_config, env=mesh.env)
    per = {"workloads": data.draw(st.booleans()), "silent": data.draw(st.booleans())}
    found = recommend(mesh, graph, settings_, **per, **options)
    after = with_objects(mesh, found.objects)
    pair = [Variant("now", mesh, (), settings_), Variant("then", after, (), settings_)]
    assert breaks(pair, graph)["then"] == (), "no observed call and no route breaks"
    return after if found.objects else None


@settings(max_examples=25, deadline=None)
@given(scripts(most=3), st.data())
def test_recommended_objects_break_nothing_and_are_never_dearer(
    script: tuple[str, Mesh, list[Change]], data: Any
) -> None:
    release, mesh, _ = script
    after = recommended(data, release, mesh)
    if after is None:
        return
    before, now = config_bytes(mesh, release), config_bytes(after, release)
    assert {proxy: (before[proxy], size) for proxy, size in now.items() if size > before[proxy]} == {}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(scripts(most=3), st.data())
def test_nor_is_any_push(script: tuple[str, Mesh, list[Change]], data: Any) -> None:
    release, mesh, changes = script
    after = recommended(data, release, mesh, export_to=False)
    if after is None:
        return
    sidecars = {ref for change in changes for ref in (*(o.ref for o in change.apply), *change.delete)}
    assume(not any(ref.kind == "Sidecar" for ref in sidecars))  # somebody who replaces our Sidecars
    meshes = [mesh, *_after_each(mesh, changes)]
    for then, later in pairwise(claims(each, release) for each in meshes):
        # who claims what another has already: a Sidecar may see the new one where a default scope does not
        assume(all(len(of) == 1 or of <= then.get(key, set()) for key, of in later.items()))
    had, has = Counter(config_bytes(mesh, release)), Counter(config_bytes(after, release))
    both = zip(changes, pushed_bytes(mesh, release, changes), pushed_bytes(after, release, changes), strict=True)
    spared = False
    for change, before, now in both:
        # a new route may bring what its proxies had been spared; they are not sent more than they would have been
        spared |= any(held.ref.kind == "VirtualService" for held in change.apply)
        had.update(before)
        has.update(now)
        assert spared or {proxy: (before[proxy], size) for proxy, size in now.items() if size > before[proxy]} == {}
        assert {proxy: (had[proxy], size) for proxy, size in has.items() if size > had[proxy]} == {}


# ---- what is proposed


def test_a_namespace_gets_what_it_calls() -> None:
    found = recommend(SHOP.mesh, calls((WEB, PAY), (GATEWAY, WEB)), SHOP.settings)
    by_ref = {str(each.subject.ref): each for each in found.proposals}
    hosts = by_ref["Sidecar/shop/default"].subject.spec["egress"][0]["hosts"]
    assert hosts == ["./*", "bank/pay-0.bank.svc.cluster.local", "istio-system/*"]
    assert by_ref["Sidecar/idle/default"].subject.spec["egress"][0]["hosts"] == ["./*", "istio-system/*"]
    assert by_ref["Service/bank/pay-0"].subject.annotations[EXPORT_TO] == ".,shop"
    sight = Sight(Variant("x", SHOP.mesh, (), SHOP.settings))
    shown = {str(held.ref): held.annotations[EXPORT_TO] for held, _ in exports(sight, calls((WEB, PAY)))}
    assert shown["Service/shop/web"] == ".,istio-system", "gateways serve it, though nobody was seen to call it"
    assert "Service/istio-system/istio-ingressgateway" not in shown
    assert by_ref["Service/idle/misc-0"].subject.annotations[EXPORT_TO] == "."
    assert found.bytes_after < found.bytes_before and found.pushes_after < found.pushes_before
    saved = sum(each.saved_bytes for each in found.proposals)
    assert saved == pytest.approx(found.bytes_before - found.bytes_after, rel=1e-3)
    assert sum(each.spared for each in found.proposals) == found.pushes_before - found.pushes_after
    assert found.coverage == 1


def test_a_budget_takes_what_saves_most() -> None:
    graph = calls((WEB, PAY))
    whole = recommend(SHOP.mesh, graph, SHOP.settings)
    few = recommend(SHOP.mesh, graph, SHOP.settings, budget=2)
    assert few.objects == whole.objects[:2]
    worth = [each.saved_bytes for each in whole.proposals]
    assert worth == sorted(worth, reverse=True)
    assert whole.bytes_after <= few.bytes_after < few.bytes_before


def test_workloads_get_their_own() -> None:
    graph = calls((WEB, PAY), (API, Ref("Service", "idle", "misc-0")))
    found = recommend(SHOP.mesh, graph, SHOP.settings, workloads=True, export_to=False)
    selected = {
        each.subject.ref.name: each.subject.spec
        for each in found.proposals
        if each.subject.ref.namespace == "shop" and "workloadSelector" in each.subject.spec
    }
    assert selected["web"]["workloadSelector"] == {"labels": {"app": "web"}}
    assert "bank/pay-0.bank.svc.cluster.local" in selected["web"]["egress"][0]["hosts"]
    assert "idle/misc-0.idle.svc.cluster.local" not in selected["web"]["egress"][0]["hosts"]
    assert set(selected) == {"web", "api-0"}
    told = dict(found.left_out)
    assert "no call was seen" in told["workload shop/api-1"], "what may call unseen is not cut off unasked"
    asked = recommend(SHOP.mesh, graph, SHOP.settings, workloads=True, silent=True, export_to=False)
    (one,) = (each for each in asked.proposals if each.subject.ref == Ref("Sidecar", "shop", "api-1"))
    assert one.subject.spec["egress"][0]["hosts"] == ["istio-system/*"], "it was not seen to call its neighbours"
    assert one.risk is not None and one.risk.silent and one.calls == 0


def test_wildcards_where_they_cost_little_and_where_lists_grow_long() -> None:
    four = [(WEB, Ref("Service", "bank", f"pay-{n}")) for n in range(4)]

    def hosts(graph: Any, **limits: Any) -> list[str]:
        found = recommend(SHOP.mesh, graph, SHOP.settings, export_to=False, limits=Limits(**limits))
        listed: list[str] = next(o for o in found.objects if o.ref.namespace == "shop").spec["egress"][0]["hosts"]
        return listed

    assert hosts(calls(*four)) == ["./*", "bank/*", "istio-system/*"], "all four of four"
    assert len(hosts(calls(*four[:3]))) == 5
    assert hosts(calls(*four[:3]), slack=0.5) == ["./*", "bank/*", "istio-system/*"]
    assert hosts(calls(*four[:3]), max_hosts=3) == ["./*", "bank/*", "istio-system/*"]


def test_what_a_sidecar_says_besides_its_hosts_is_kept() -> None:
    mine = parse_objects(
        [
            {
                "apiVersion": "networking.istio.io/v1",
                "kind": "Sidecar",
                "metadata": {"name": "mine", "namespace": "shop"},
                "spec": {
                    "egress": [{"hosts": ["*/*"]}],
                    "ingress": [{"port": {"number": 8080, "protocol": "HTTP", "name": "http"}}],
                    "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"},
                },
            }
        ]
    )[0]
    mesh = with_objects(SHOP.mesh, [mine])
    found = recommend(mesh, calls((WEB, PAY)), SHOP.settings, export_to=False)
    ours = next(o for o in found.objects if o.ref.namespace == "shop")
    assert ours.ref.name == "mine"
    assert {k: v for k, v in ours.spec.items() if k != "egress"} == {
        k: v for k, v in mine.spec.items() if k != "egress"
    }


def test_what_is_narrow_already_is_left() -> None:
    graph = calls((WEB, PAY))
    first = recommend(SHOP.mesh, graph, SHOP.settings)
    again = recommend(with_objects(SHOP.mesh, first.objects), graph, SHOP.settings)
    assert again.proposals == () and dict(again.left_out)["Sidecar/shop/default"] == "all that is seen now is needed"


def test_risk_tells_of_what_was_rare_or_not_seen() -> None:
    graph = calls((WEB, PAY, 1), (WEB, API, 99), (GATEWAY, WEB, 50), watched=86400.0)
    found = recommend(SHOP.mesh, graph, SHOP.settings)
    risks = {each.subject.ref.namespace: each.risk for each in found.proposals if each.risk}
    assert risks["shop"].rare == ("pay-0.bank.svc.cluster.local",)
    assert risks["shop"].unseen_share == pytest.approx(1 / 100), "Good and Turing: one seen once, of a hundred"
    assert risks["shop"].unseen_per_day == pytest.approx(3)
    assert risks["idle"].silent and "no call was seen" in str(risks["idle"])
    unknown = recommend(SHOP.mesh, calls((WEB, PAY)), SHOP.settings).proposals[0].risk
    assert unknown is not None and "--watched" in str(unknown)


@pytest.mark.istiod
def test_a_real_istiod_sends_what_the_recommended_objects_are_to_keep(istiod_binary: Path, tmp_path: Path) -> None:
    edges = [(WEB, PAY), (API, Ref("Service", "idle", "misc-0")), (PAY, WEB), (GATEWAY, WEB)]
    found = recommend(SHOP.mesh, calls(*edges), SHOP.settings, workloads=True)
    mesh = with_objects(SHOP.mesh, found.objects)
    case = Case("recommended", "", replace(mesh, mesh_config={}), ())
    (path,) = record_case(case, istiod_binary, tmp_path, ["sotw"])
    connect = json.loads(path.read_text())["connect"]
    hosts = {
        proxy: {host_of(name) for response in responses if response["xds"] == "CDS" for name in response["names"]}
        for proxy, responses in connect.items()
    }
    for caller, callee in edges:
        callers = [p.id for p in mesh.proxies if p.namespace == caller.namespace
                   and p.labels.get("app", "") == caller.name]  # fmt: skip
        assert callers
        for proxy in callers:
            assert f"{callee.name}.{callee.namespace}.svc.cluster.local" in hosts[proxy], (proxy, callee)
    web = next(p.id for p in mesh.proxies if p.labels.get("app") == "web")
    assert "misc-0.idle.svc.cluster.local" not in hosts[web], "and no more"


# ---- observed calls


def series(source: str, host: str, value: Any, **more: str) -> dict[str, Any]:
    namespace, workload = source.split("/")
    metric = {"source_workload": workload, "source_workload_namespace": namespace, "destination_service": host, **more}
    points = {"values": value} if isinstance(value, list) else {"value": [1700000000, value]}
    return {"metric": metric, **points}


PAY_HOST = "pay-0.bank.svc.cluster.local"


def edges(text: Any, mesh: Mesh | None = SHOP.mesh) -> dict[tuple[str, str], Any]:
    graph = read_calls(text if isinstance(text, str) else json.dumps(text), "calls", mesh)
    return {(str(a), str(b)): (d.get("rate"), d.get("calls")) for a, b, d in graph.edges(data=True)}


def test_prometheus_counters_and_rates() -> None:
    name = {"__name__": "istio_requests_total"}
    vector = [
        series("shop/web", PAY_HOST, "100", reporter="source", response_code="200", **name),
        series("shop/web", PAY_HOST, "5", reporter="source", response_code="503", **name),
        series("shop/web", PAY_HOST, "90", reporter="destination", response_code="200", **name),
        series("unknown/unknown", PAY_HOST, "7", reporter="destination", **name),
        series("shop/web", "unknown", "3", reporter="source", **name),
    ]
    answer = {"status": "success", "data": {"resultType": "vector", "result": vector}}
    key = ("Service/shop/web", "Service/bank/pay-0")
    assert edges(answer) == {key: (None, 105.0)}
    assert read_calls(json.dumps(answer), "x", SHOP.mesh).graph["left_out"] == 10
    matrix = [series("shop/web", PAY_HOST, [[0, "10"], [60, "40"], [120, "5"]], **name)]
    assert edges({"data": {"result": matrix}}) == {key: (35 / 120, 35.0)}, "a restart counts from nothing"
    assert edges([series("shop/web", PAY_HOST, "2.5")]) == {key: (2.5, None)}, "without a name it is a rate"


def test_kiali_graphs() -> None:
    nodes = [
        {"data": {"id": "a", "nodeType": "workload", "workload": "web", "namespace": "shop"}},
        {"data": {"id": "s", "nodeType": "service", "service": "pay-0", "namespace": "bank"}},
        {"data": {"id": "b", "nodeType": "workload", "workload": "pay-0", "app": "pay-0", "namespace": "bank"}},
    ]
    to_service = {"data": {"source": "a", "target": "s", "traffic": {"protocol": "http", "rates": {"http": "1.5"}}}}
    onwards = {"data": {"source": "s", "target": "b", "traffic": {"protocol": "http", "rates": {"http": "1.5"}}}}
    key = ("Service/shop/web", "Service/bank/pay-0")
    service_graph = {"duration": 600, "elements": {"nodes": nodes, "edges": [to_service, onwards]}}
    assert edges(service_graph) == {key: (1.5, 900.0)}
    responses = {"200": {"hosts": {PAY_HOST: "75.0", "api-0.shop.svc.cluster.local": "25.0"}}}
    traffic = {"protocol": "grpc", "rates": {"grpc": "4"}, "responses": responses}
    workload_graph = {
        "elements": {"nodes": nodes, "edges": [{"data": {"source": "a", "target": "b", "traffic": traffic}}]}
    }
    assert edges(workload_graph) == {key: (3.0, None), ("Service/shop/web", "Service/shop/api-0"): (1.0, None)}


def test_envoys_access_log() -> None:
    address = next(p.ip for p in SHOP.mesh.proxies if p.labels.get("app") == "web")
    cluster = f"outbound|8080||{PAY_HOST}"
    rows = [
        ("00:00", cluster, f"{address}:1"),
        ("01:40", cluster, f"{address}:2"),
        ("00:10", "inbound|8080||", "x:1"),
        ("00:20", "PassthroughCluster", ""),
    ]
    lines = [
        {"start_time": f"2024-01-01T00:{at}.000Z", "upstream_cluster": to, "upstream_local_address": local}
        for at, to, local in rows
    ]
    text = "\n".join(map(json.dumps, lines))
    assert edges(text) == {("Service/shop/web", "Service/bank/pay-0"): (2 / 100, 2.0)}
    pod = next(p.name for p in SHOP.mesh.proxies if p.labels.get("app") == "web")
    shipped = [{"upstream_cluster": cluster, "kubernetes": {"namespace_name": "shop", "pod_name": pod}}]
    assert edges(shipped) == {("Service/shop/web", "Service/bank/pay-0"): (None, 1.0)}


def test_csv_with_counts_and_outside_hosts() -> None:
    entry = parse_objects(
        [
            {
                "apiVersion": "networking.istio.io/v1",
                "kind": "ServiceEntry",
                "metadata": {"name": "stripe", "namespace": "bank"},
                "spec": {"hosts": ["api.stripe.com"], "ports": [{"number": 443, "name": "tls", "protocol": "TLS"}]},
            }
        ]
    )
    mesh = with_objects(SHOP.mesh, entry)
    found = edges("source,destination,rate,calls\nshop/web,api.stripe.com,,20\n", mesh)
    assert found == {("Service/shop/web", "ServiceEntry/api.stripe.com"): (None, 20.0)}
    with pytest.raises(InputError, match="has no"):
        edges("source,destination\nshop/web,api.stripe.com\n")
    graph = read_calls("source,destination\nshop/web,api.stripe.com\n", "c", mesh)
    hosts = next(
        o for o in recommend(mesh, graph, SHOP.settings).objects if o.ref == Ref("Sidecar", "shop", "default")
    ).spec["egress"][0]["hosts"]
    assert "bank/api.stripe.com" in hosts


@pytest.mark.parametrize("text", ["{", '{"a": 1}', "[]", "[1]", '{"elements": {"edges": [{"data": 3}]}}', "a,b\n1,2\n"])
def test_what_tells_of_no_calls_is_bad_input(text: str) -> None:
    with pytest.raises(InputError, match="calls"):
        read_calls(text, "calls", SHOP.mesh)


def test_the_command_writes_yaml_that_is_a_policy(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "calls.csv").write_text("source,destination\nshop/web,bank/pay-0\n")
    scenario = tmp_path / "s.yaml"
    scenario.write_text(SHOP.dump())
    arguments = ["recommend", str(scenario), "--calls", str(tmp_path / "calls.csv"), "--watched", "24h"]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--out", str(tmp_path / "scopes.yaml")])
    assert not ended.value.code
    objects = parse_objects(list(yaml.safe_load_all((tmp_path / "scopes.yaml").read_text())))
    found = recommend(SHOP.mesh, read_calls((tmp_path / "calls.csv").read_text(), "c", SHOP.mesh), SHOP.settings)
    assert [(o.ref, o.spec) for o in objects] == [(o.ref, o.spec) for o in found.objects]
    policy = SHOP.policy_file(str(tmp_path / "scopes.yaml"))
    assert policy is not None and {o.ref for o in policy.install(SHOP.mesh)} == {o.ref for o in found.objects}
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main([*arguments, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert [each["object"] for each in told["proposals"]] == [str(o.ref) for o in found.objects]


def test_generated_meshes_of_many_shapes() -> None:
    spec = Generate.model_validate({"namespaces": 3, "apps": [{"name": "a", "per_namespace": 3, "headless": True}]})
    mesh = generate(spec, 1)
    found = recommend(mesh, calls(), Settings())
    assert {type(o) for o in found.objects} == {Object} and found.bytes_after < found.bytes_before
