"""A program that behaves like `pilot-discovery`, as far as we can tell: `fake_istiod.py BEHAVIOUR ARGUMENTS…`.

It lists and watches Services and EndpointSlices, answers /ready and /metrics, and serves SotW ADS: a cluster and its
endpoints per Service, one listener, one route. A changed slice pushes EDS, a changed service everything.
Behaviours: normal, exit, start-once (exits when started again), silent, taken-once, refuse, refuse-some (every other
stream), die (at the first push), other (is another program).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
from aiohttp import web
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.service.discovery.v3 import discovery_pb2

from pushsim.mesh import TYPE_URLS, Xds

DEBOUNCE_S = 0.02
ORDER: tuple[Xds, ...] = ("CDS", "EDS", "LDS", "RDS")


def cluster_of(metadata: Any) -> str:
    return f"outbound|80||{metadata['name']}.{metadata['namespace']}.svc.cluster.local"


class Fake:
    def __init__(self, behaviour: str, api: str) -> None:
        self.behaviour, self.api = behaviour, api
        self.services: dict[str, Any] = {}
        self.inbound = self.pushes = self.version = self.asked = 0
        self.pending: set[str] = set()
        self.streams: list[asyncio.Queue[Any]] = []
        self.ready = asyncio.Event()

    async def watch(self, session: aiohttp.ClientSession, path: str) -> None:
        async with session.get(self.api + path) as response:
            listed = await response.json()
        for item in listed["items"]:
            if path.endswith("/services"):
                self.services[cluster_of(item["metadata"])] = item
        self.ready.set()
        params = {"watch": "true", "resourceVersion": listed["metadata"]["resourceVersion"]}
        async with session.get(self.api + path, params=params) as response:
            async for line in response.content:
                event = json.loads(line)
                metadata, kind = event["object"]["metadata"], event["object"]["kind"]
                name = cluster_of(metadata)
                self.inbound += 1
                if kind == "Service":
                    self.services.pop(name, None)
                    if event["type"] != "DELETED":
                        self.services[name] = event["object"]
                else:
                    name = cluster_of({**metadata, "name": metadata["labels"]["kubernetes.io/service-name"]})
                if not self.pending:
                    asyncio.get_running_loop().call_later(DEBOUNCE_S, self.push)
                self.pending.add(kind if kind == "Service" else name)

    def push(self) -> None:
        if self.behaviour == "die":
            print("about to die", flush=True)
            os._exit(7)
        pending, self.pending = self.pending, set()
        n, quiet = self.pushes, f"{DEBOUNCE_S * 1000:g}ms"
        print(f"info\tads\tPush debounce stable[{n}] {len(pending)} for config x: {quiet} since last change, "
              f"{quiet} since last push, full=true", flush=True)  # fmt: skip
        self.pushes += 1
        self.version += 1
        for stream in self.streams:
            stream.put_nowait(pending)

    def resources(self, xds: Xds, names: list[str]) -> list[Any]:
        if xds == "CDS":
            return [cluster_pb2.Cluster(name=n, type=cluster_pb2.Cluster.EDS) for n in sorted(self.services)]
        if xds == "EDS":
            return [endpoint_pb2.ClusterLoadAssignment(cluster_name=n) for n in names]
        if xds == "RDS":
            return [route_pb2.RouteConfiguration(name=n) for n in names]
        manager = http_connection_manager_pb2.HttpConnectionManager()
        manager.rds.route_config_name = "80"
        listener = listener_pb2.Listener(name="l")
        listener.filter_chains.add().filters.add().typed_config.Pack(manager)
        return [listener]

    async def stream(self, requests: Any, context: grpc.aio.ServicerContext) -> None:
        self.asked += 1
        if self.behaviour == "refuse" or (self.behaviour == "refuse-some" and self.asked % 2):
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "request rate limit exceeded")
        queue: asyncio.Queue[Any] = asyncio.Queue()
        self.streams.append(queue)
        watched: dict[Xds, tuple[list[str], str]] = {}

        async def read() -> None:
            async for data in requests:
                queue.put_nowait(discovery_pb2.DiscoveryRequest.FromString(data))

        async def send(xds: Xds, names: list[str]) -> None:
            nonce = f"{self.version}-{len(sent)}"
            sent.append(nonce)
            message = discovery_pb2.DiscoveryResponse(
                type_url=TYPE_URLS[xds], version_info=str(self.version), nonce=nonce
            )
            for resource in self.resources(xds, names):
                message.resources.add().Pack(resource)
            watched[xds] = (watched[xds][0], nonce)
            await context.write(message.SerializeToString())

        sent: list[str] = []
        reading = asyncio.create_task(read())
        try:
            while True:
                item = await queue.get()
                if isinstance(item, set):
                    for xds in ORDER if "Service" in item else ("EDS",):
                        names = watched[xds][0]
                        await send(xds, names if "Service" in item else [n for n in names if n in item])
                    continue
                xds = next(x for x, url in TYPE_URLS.items() if url == item.type_url)
                before, nonce = watched.get(xds, ([], ""))
                if nonce and item.response_nonce != nonce:
                    continue
                names = list(item.resource_names)
                watched[xds] = (names, nonce)
                added = [n for n in names if n not in before]
                if not nonce or added:
                    await send(xds, added)
        finally:
            reading.cancel()
            self.streams.remove(queue)

    async def serve(self, flags: dict[str, str]) -> None:
        app = web.Application()

        async def ready(_: web.Request) -> web.Response:
            return web.Response(status=200 if self.ready.is_set() and self.behaviour != "silent" else 503)

        async def metrics(_: web.Request) -> web.Response:
            kinds = f'pilot_inbound_updates{{type="eds"}} {self.inbound}\n'
            pushed = self.pushes * len(self.streams)
            converged = "# TYPE pilot_proxy_convergence_time histogram\n" + "".join(
                f'pilot_proxy_convergence_time_bucket{{le="{bound}"}} {pushed}\n'
                for bound in (0.1, 0.5, 1, 3, 5, 10, 20, 30, "+Inf")
            )
            converged += (
                f"pilot_proxy_convergence_time_sum {0.01 * pushed}\npilot_proxy_convergence_time_count {pushed}\n"
            )
            return web.Response(text=f"{kinds}{converged}pilot_proxy_queue_time_count {pushed}\n")

        app.router.add_get("/ready", ready)
        app.router.add_get("/metrics", metrics)
        runner = web.AppRunner(app)
        await runner.setup()
        for flag in ("httpAddr", "monitoringAddr"):
            host, port = flags[flag].split(":")
            await web.TCPSite(runner, host, int(port)).start()
        server = grpc.aio.server()
        method = grpc.stream_stream_rpc_method_handler(self.stream)
        name = "envoy.service.discovery.v3.AggregatedDiscoveryService"
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(name, {"StreamAggregatedResources": method})]
        )
        server.add_insecure_port(flags["grpcAddr"])
        await server.start()
        async with aiohttp.ClientSession() as session:
            await asyncio.gather(
                self.watch(session, "/api/v1/services"), self.watch(session, "/apis/discovery.k8s.io/v1/endpointslices")
            )


def main(behaviour: str, verb: str, *arguments: str) -> int:
    if behaviour == "other":
        print("usage: other", file=sys.stderr)
        return 2
    if verb == "version":
        print(json.dumps({"clientVersion": {"version": "1.24.99"}}))
        return 0
    flags = dict(argument.lstrip("-").split("=", 1) for argument in arguments)
    print("starting", flush=True)
    mark = Path(__file__ + ".mark")
    again = mark.exists()
    mark.touch()
    if behaviour == "taken-once" and not again:
        print("listen tcp 127.0.0.1: bind: address already in use")
        return 1
    if behaviour == "exit" or (behaviour == "start-once" and again):
        print("error: no such thing as a mesh")
        return 3
    api = json.loads(Path(flags["kubeconfig"]).read_text())["clusters"][0]["cluster"]["server"]
    asyncio.run(Fake(behaviour, api).serve(flags))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
