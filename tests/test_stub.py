"""The stub API as its clients see it: raw HTTP as client-go speaks it, and lightkube as a real client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from pushsim.errors import EnvironmentProblem, InputError
from pushsim.mesh import Change, Object, Ref
from pushsim.stub import Cluster, serve, token
from pushsim.stub.selectors import field_selector, label_selector

PARTIAL = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"


def thing(kind: str, namespace: str, name: str, **rest: Any) -> Object:
    labels = rest.pop("labels", {})
    metadata = {"name": name, "labels": labels, **({"namespace": namespace} if namespace else {})}
    return Object(Ref(kind, namespace, name), {"apiVersion": "v1", "kind": kind, "metadata": metadata, **rest})


def service(name: str, namespace: str = "ns", **labels: str) -> Object:
    return thing("Service", namespace, name, labels=labels, spec={"clusterIP": "10.0.0.1"})


def test_services_are_kept_as_an_api_server_keeps_them() -> None:
    port, other = {"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": "dns"}
    cluster = Cluster([thing("Service", "ns", "web", spec={"ports": [port, other], "selector": {}})])
    kept = cluster.held(Ref("Service", "ns", "web"))
    assert kept is not None
    assert kept["spec"] == {"ports": [{**port, "protocol": "TCP", "targetPort": 80}, other]}  # and no empty selector


class Client:
    """A client that speaks HTTP only."""

    def __init__(self, url: str, session: aiohttp.ClientSession, cluster: Cluster) -> None:
        self.url, self.session, self.cluster = url, session, cluster

    async def get(self, path: str, status: int = 200, accept: str = "application/json", **query: str) -> Any:
        async with self.session.get(self.url + path, params=query, headers={"Accept": accept}) as response:
            assert response.status == status, await response.text()
            assert response.content_type == "application/json"
            return await response.json()

    @asynccontextmanager
    async def watch(self, path: str, **query: str) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
        """Yields a function that returns the next event, None at the end of the stream."""
        async with self.session.get(self.url + path, params={"watch": "true", **query}) as response:
            assert response.status == 200

            async def following() -> Any:
                line = await asyncio.wait_for(response.content.readline(), 10)
                return json.loads(line) if line else None

            yield following


def against(*objects: Object) -> Callable[[Callable[[Client], Awaitable[None]]], Callable[[], None]]:
    """Run an async test against a stub that serves these objects."""

    def decorate(test: Callable[[Client], Awaitable[None]]) -> Callable[[], None]:
        async def main() -> None:
            cluster = Cluster(objects)
            async with serve(cluster) as url, aiohttp.ClientSession() as session:
                await test(Client(url, session, cluster))

        def run() -> None:
            asyncio.run(main())

        run.__name__ = test.__name__
        return run

    return decorate


def names(listed: Any) -> list[str]:
    return [item["metadata"]["name"] for item in listed["items"]]


@against(service("b"), service("a"), service("c", "other"))
async def test_a_list_is_ordered_and_says_its_version(client: Client) -> None:
    listed = await client.get("/api/v1/services")
    assert listed["kind"] == "ServiceList" and listed["apiVersion"] == "v1"
    assert names(listed) == ["a", "b", "c"]
    assert listed["metadata"]["resourceVersion"] == str(client.cluster.version)
    assert all(item["metadata"]["resourceVersion"] and item["metadata"]["uid"] for item in listed["items"])
    assert names(await client.get("/api/v1/namespaces/other/services")) == ["c"]


@against(service("a"))
async def test_one_object_is_read_by_name(client: Client) -> None:
    assert (await client.get("/api/v1/namespaces/ns/services/a"))["spec"] == {"clusterIP": "10.0.0.1"}
    missing = await client.get("/api/v1/namespaces/ns/services/b", status=404)
    assert missing["kind"] == "Status" and missing["reason"] == "NotFound"


@against(thing("VirtualService", "ns", "v", spec={"hosts": ["a"]}))
async def test_istios_kinds_are_shown_at_the_version_asked_for(client: Client) -> None:
    for version in ("v1", "v1beta1", "v1alpha3"):
        (item,) = (await client.get(f"/apis/networking.istio.io/{version}/virtualservices"))["items"]
        assert item["apiVersion"] == f"networking.istio.io/{version}" and item["spec"] == {"hosts": ["a"]}
    await client.get("/apis/networking.istio.io/v9/virtualservices", status=404)


@against()
async def test_definitions_of_istios_kinds_are_listed_whole_and_as_metadata(client: Client) -> None:
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    whole = await client.get(path)
    assert [name.split(".")[0] for name in names(whole)] == [
        "authorizationpolicies", "destinationrules", "envoyfilters", "gateways", "peerauthentications", "proxyconfigs",
        "requestauthentications", "serviceentries", "sidecars", "telemetries", "trafficextensions", "virtualservices",
        "wasmplugins", "workloadentries", "workloadgroups",
    ]  # fmt: skip
    assert "serviceentries.networking.istio.io" in names(whole)
    assert whole["items"][0]["spec"]["versions"]
    partial = await client.get(path, accept=PARTIAL)
    assert partial["kind"] == "PartialObjectMetadataList" and partial["apiVersion"] == "meta.k8s.io/v1"
    assert "spec" not in partial["items"][0] and names(partial) == names(whole)


@against()
async def test_every_collection_istiod_lists_answers_with_its_own_list_kind(client: Client) -> None:
    for path, kind in {
        "/api/v1/nodes": "NodeList",
        "/apis/networking.k8s.io/v1/ingressclasses": "IngressClassList",
        "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations": "MutatingWebhookConfigurationList",
        "/apis/security.istio.io/v1beta1/authorizationpolicies": "AuthorizationPolicyList",
        "/apis/extensions.istio.io/v1alpha1/wasmplugins": "WasmPluginList",
    }.items():
        assert (await client.get(path))["kind"] == kind
    assert not client.cluster.unknown


@against()
async def test_what_is_not_there_is_404_and_remembered(client: Client) -> None:
    await client.get("/apis/gateway.networking.k8s.io/v1/httproutes", status=404)
    assert client.cluster.unknown == {"apis/gateway.networking.k8s.io/v1/httproutes"}


@against(service("a"))
async def test_every_write_is_refused_and_changes_nothing(client: Client) -> None:
    before = client.cluster.version
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        async with client.session.request(method, client.url + "/api/v1/namespaces/ns/services/a", json={}) as response:
            assert response.status == 403 and (await response.json())["reason"] == "Forbidden"
    assert client.cluster.version == before and names(await client.get("/api/v1/services")) == ["a"]


@against(service("a"))
async def test_a_watch_tells_what_happens_after_its_version(client: Client) -> None:
    version = (await client.get("/api/v1/services"))["metadata"]["resourceVersion"]
    async with client.watch("/api/v1/services", resourceVersion=version) as following:
        changed = thing("Service", "ns", "a", spec={"clusterIP": "None"})
        client.cluster.write(Change((service("b"), changed), (Ref("Service", "ns", "b"),)))
        events = [await following() for _ in range(3)]
    assert [(e["type"], e["object"]["metadata"]["name"]) for e in events] == [
        ("ADDED", "b"),
        ("MODIFIED", "a"),
        ("DELETED", "b"),
    ]
    assert all(e["object"]["kind"] == "Service" and e["object"]["apiVersion"] == "v1" for e in events)
    versions = [int(e["object"]["metadata"]["resourceVersion"]) for e in events]
    assert versions == sorted(set(versions)) and versions[0] > int(version)


@against(service("a"))
async def test_all_events_of_one_write_are_sent_together(client: Client) -> None:
    version = str(client.cluster.version)
    params = {"watch": "true", "resourceVersion": version}
    async with client.session.get(client.url + "/api/v1/services", params=params) as response:
        client.cluster.write(Change(tuple(service(f"s{i}") for i in range(50))))
        chunk = await asyncio.wait_for(response.content.readany(), 10)
    assert chunk.count(b"\n") == 50


@against(service("a"))
async def test_a_watch_without_a_version_starts_with_what_there_is(client: Client) -> None:
    async with client.watch("/api/v1/services") as following:
        assert (await following())["type"] == "ADDED"
        client.cluster.write(Change((), (Ref("Service", "ns", "a"),)))
        assert (await following())["type"] == "DELETED"


@against(service("a"), service("b"))
async def test_watch_list_streams_the_state_and_then_says_that_this_was_it(client: Client) -> None:
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    async with client.watch("/api/v1/services", **query) as following:
        first, second, mark = await following(), await following(), await following()
        assert [first["object"]["metadata"]["name"], second["object"]["metadata"]["name"]] == ["a", "b"]
        assert mark["type"] == "BOOKMARK" and mark["object"]["kind"] == "Service"
        assert mark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert mark["object"]["metadata"]["resourceVersion"] == str(client.cluster.version)
        client.cluster.write(Change((service("c"),)))
        assert (await following())["object"]["metadata"]["name"] == "c"


@against(service("a"))
async def test_compaction_makes_old_versions_gone(client: Client) -> None:
    old = str(client.cluster.version)
    client.cluster.write(Change((service("b"),)))
    client.cluster.compact()
    async with client.watch("/api/v1/services", resourceVersion=old) as following:
        error = await following()
        assert error["type"] == "ERROR" and error["object"]["code"] == 410 and error["object"]["reason"] == "Expired"
        assert await following() is None
    async with client.watch("/api/v1/services", resourceVersion=str(client.cluster.version)) as following:
        client.cluster.write(Change((service("c"),)))
        assert (await following())["object"]["metadata"]["name"] == "c"


def test_the_log_of_events_is_bounded() -> None:
    cluster = Cluster(history=10)
    for i in range(100):
        cluster.write(Change((service(f"s{i}"),)))
    assert 10 <= len(cluster._log) <= 20


@against(service("a"))
async def test_a_watch_ends_in_time_with_a_bookmark(client: Client) -> None:
    query = {"resourceVersion": str(client.cluster.version), "timeoutSeconds": "0.01", "allowWatchBookmarks": "true"}
    async with client.watch("/api/v1/services", **query) as following:
        mark = await following()
        assert mark["type"] == "BOOKMARK" and mark["object"]["metadata"]["resourceVersion"] == str(
            client.cluster.version
        )
        assert await following() is None
    assert not client.cluster.watches or all(w.sent for w in client.cluster.watches)


@against(service("a", app="x"), service("b", app="y"))
async def test_a_watch_with_a_selector_sees_objects_come_and_go(client: Client) -> None:
    assert names(await client.get("/api/v1/services", labelSelector="app=x")) == ["a"]
    version = str(client.cluster.version)
    async with client.watch("/api/v1/services", resourceVersion=version, labelSelector="app=x") as following:
        client.cluster.write(Change((service("b", app="x"), service("a", app="y"), service("c", app="z"))))
        client.cluster.write(Change((service("b", app="x", also="this"),)))
        events = [await following() for _ in range(3)]
    assert [(e["type"], e["object"]["metadata"]["name"]) for e in events] == [
        ("ADDED", "b"),
        ("DELETED", "a"),
        ("MODIFIED", "b"),
    ]


@against(thing("Pod", "ns", "up", status={"phase": "Running"}), thing("Pod", "ns", "down", status={"phase": "Failed"}))
async def test_field_selectors(client: Client) -> None:
    assert names(await client.get("/api/v1/pods", fieldSelector="status.phase!=Failed")) == ["up"]
    assert names(await client.get("/api/v1/pods", fieldSelector="metadata.name=down,status.phase=Failed")) == ["down"]
    assert (await client.get("/api/v1/pods", status=400, fieldSelector="what"))["reason"] == "BadRequest"


@against(service("a"))
async def test_every_write_is_an_event_but_deleting_nothing_is_none(client: Client) -> None:
    before = client.cluster.version
    client.cluster.write(Change((), (Ref("Service", "ns", "nobody"),)))
    assert client.cluster.version == before
    async with client.watch("/api/v1/services", resourceVersion=str(before)) as following:
        client.cluster.write(Change((service("a"),)))
        assert (await following())["type"] == "MODIFIED"


@against(service("a"))
async def test_delivered_means_on_the_wire_of_every_watch(client: Client) -> None:
    async with client.watch("/api/v1/services", resourceVersion=str(client.cluster.version)) as following:
        assert client.cluster.delivered()
        client.cluster.write(Change((service("b"),)))
        assert not client.cluster.delivered()
        await following()
        assert client.cluster.delivered()
        await client.cluster.write_in_order(Change((service("c"),), (Ref("Service", "ns", "b"),)))
        assert client.cluster.delivered()


def test_a_slice_comes_later_than_the_pods_that_are_written_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def named(slice_: str, pod: str) -> Object:
        return thing("EndpointSlice", "ns", slice_, endpoints=[{"targetRef": {"kind": "Pod", "name": pod}}])

    cluster, waited = Cluster(), []

    async def sleep(delay: float) -> None:
        waited.append((delay, *(cluster.held(o.ref) is not None for o in change.apply)))

    monkeypatch.setattr(asyncio, "sleep", sleep)
    change = Change((thing("Pod", "ns", "new"), named("others", "old"), named("its", "new"), named("too", "new")))
    asyncio.run(cluster.write_in_order(change, 0.5))
    assert waited == [(0.5, True, True, False, False)]
    assert all(cluster.held(o.ref) is not None for o in change.apply)


@against()
async def test_version_and_discovery(client: Client) -> None:
    assert (await client.get("/version"))["gitVersion"].startswith("v1.")
    groups = {group["name"] for group in (await client.get("/apis"))["groups"]}
    assert {"networking.istio.io", "discovery.k8s.io"} <= groups
    listed = await client.get("/apis/networking.istio.io/v1")
    assert {"name": "sidecars", "singularName": "sidecar", "namespaced": True, "kind": "Sidecar",
            "verbs": ["get", "list", "watch"]} in listed["resources"]  # fmt: skip
    assert (await client.get("/api/v1"))["groupVersion"] == "v1"


def test_a_kind_it_does_not_serve_is_the_inputs_fault() -> None:
    with pytest.raises(InputError, match="HTTPRoute/ns/r"):
        Cluster([thing("HTTPRoute", "ns", "r")])


def test_a_taken_port_is_said() -> None:
    async def twice() -> None:
        async with serve(Cluster()) as url:
            port = int(url.rpartition(":")[2])
            with pytest.raises(EnvironmentProblem, match=str(port)):
                async with serve(Cluster(), port=port):
                    pass

    asyncio.run(twice())


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("", True), ("a=1", True), ("a==1", True), ("a=2", False), ("a!=2", True), ("b!=1", True), ("a", True),
        ("!a", False), ("b", False), ("!b", True), ("a in (1,2)", True), ("a in (2, 3)", False), ("a notin (1)", False),
        ("b notin (1)", True), ("a=1,c in (x,y),!b", True), ("a=1,c=y", False),
    ],
)  # fmt: skip
def test_label_selectors(text: str, selected: bool) -> None:
    selector = label_selector(text)
    assert (selector is None or selector({"metadata": {"labels": {"a": "1", "c": "x"}}})) is selected


def test_unreadable_selectors() -> None:
    for text in ("a=b=c", "a in b", "a ~ b"):
        with pytest.raises(ValueError, match="can't read"):
            label_selector(text)
    with pytest.raises(ValueError, match="can't read"):
        field_selector("status.phase")
    assert field_selector("") is None


@against(service("a", app="x"), service("b"))
async def test_lightkube_lists_gets_and_watches(client: Client) -> None:
    from lightkube import AsyncClient
    from lightkube.config.kubeconfig import KubeConfig
    from lightkube.core.exceptions import ApiError
    from lightkube.resources.core_v1 import Service

    kubeconfig = {
        "clusters": [{"name": "stub", "cluster": {"server": client.url}}],
        "users": [{"name": "stub", "user": {}}],
        "contexts": [{"name": "stub", "context": {"cluster": "stub", "user": "stub"}}],
        "current-context": "stub",
    }
    kube = AsyncClient(config=KubeConfig.from_dict(kubeconfig).get(), trust_env=False)
    assert [s.metadata.name async for s in kube.list(Service, namespace="*")] == ["a", "b"]
    assert [s.metadata.name async for s in kube.list(Service, namespace="ns", labels={"app": "x"})] == ["a"]
    found = await kube.get(Service, "a", namespace="ns")
    assert found.spec.clusterIP == "10.0.0.1"
    with pytest.raises(ApiError) as refused:
        await kube.delete(Service, "a", namespace="ns")
    assert refused.value.status.code == 403

    async def first(kind: str) -> str:
        async for event, seen in kube.watch(Service, namespace="ns", resource_version=found.metadata.resourceVersion):
            if event == kind:
                return str(seen.metadata.name)
        return ""

    watching = asyncio.create_task(first("DELETED"))
    client.cluster.write(Change((), (Ref("Service", "ns", "b"),)))
    assert await asyncio.wait_for(watching, 10) == "b"


@against()
async def test_a_token_of_ours_is_known_and_may_read_secrets(client: Client) -> None:
    async def reviewed(path: str, **spec: Any) -> Any:
        async with client.session.post(client.url + path, json={"spec": spec}) as response:
            assert response.status == 201
            return (await response.json())["status"]

    found = await reviewed("/apis/authentication.k8s.io/v1/tokenreviews", token=token("ns", "web"))
    assert found["authenticated"] and found["user"]["username"] == "system:serviceaccount:ns:web"
    for other in ("", "x", "a.b.c", token("ns", "web").replace(".", "")):
        found = await reviewed("/apis/authentication.k8s.io/v1/tokenreviews", token=other)
        assert not found["authenticated"] and "user" not in found
    allowed = await reviewed("/apis/authorization.k8s.io/v1/subjectaccessreviews", user="system:serviceaccount:ns:web")
    assert allowed == {"allowed": True}
