"""A small xDS server that feeds one Envoy: what it is given, over ADS (SotW), and a workload's secrets over SDS.

It serves what an Envoy asks for by name, all of what is a wildcard, and says when all of a feed was acknowledged.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import grpc
import grpc.aio
import trustme
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from envoy.service.discovery.v3 import discovery_pb2

from pushsim.ads.reading import XDS
from pushsim.errors import EnvironmentProblem
from pushsim.mesh import TYPE_URLS, Xds

_SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
_WILDCARDS = ("CDS", "LDS")


@dataclass(slots=True)
class _Sub:
    """What an Envoy last asked for of a type, and what it was last sent."""

    names: frozenset[str] = frozenset()
    nonce: str = ""
    acknowledged: bool = True
    sent: int = 0


@dataclass
class Feed:
    """What is served: serialised resources by type and name. `problems`: what Envoy rejected, in its words.

    resources_sent, bytes_sent: of all responses, by type. heard: set at each request.
    """

    resources: dict[Xds, dict[str, bytes]] = field(default_factory=lambda: {xds: {} for xds in TYPE_URLS})
    problems: list[str] = field(default_factory=list)
    resources_sent: dict[Xds, int] = field(default_factory=lambda: dict.fromkeys(TYPE_URLS, 0))
    bytes_sent: dict[Xds, int] = field(default_factory=lambda: dict.fromkeys(TYPE_URLS, 0))
    address: str = ""
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    _queue: asyncio.Queue[Any] | None = None
    _subs: dict[Xds, _Sub] = field(default_factory=dict)
    _version: int = 0

    def put(self, xds: Xds, resources: Mapping[str, bytes], *, replace: bool = False) -> None:
        """Add resources (or replace all of a type); nothing is sent before `push`."""
        self.resources[xds] = dict(resources) if replace else {**self.resources[xds], **resources}

    def push(self, *types: Xds) -> None:
        """Send these types to the connected Envoy, as an istiod pushes them."""
        self._version += 1
        for xds in types:
            if xds in self._subs and self._queue is not None:
                self._queue.put_nowait(self._answer(xds))

    @property
    def acknowledged(self) -> bool:
        """Whether the Envoy has asked for its listeners, and acknowledged all that it was sent."""
        return "LDS" in self._subs and all(sub.acknowledged for sub in self._subs.values())

    def _answer(self, xds: Xds) -> Any:
        sub, held = self._subs[xds], self.resources[xds]
        names: Iterable[str] = held if xds in _WILDCARDS else sorted(sub.names)
        sub.sent += 1
        sub.nonce, sub.acknowledged = f"{xds}-{sub.sent}", False
        response = discovery_pb2.DiscoveryResponse(
            type_url=TYPE_URLS[xds], version_info=str(self._version), nonce=sub.nonce
        )
        for name in names:
            if name in held:
                response.resources.add(type_url=TYPE_URLS[xds], value=held[name])
        self.resources_sent[xds] += len(response.resources)
        self.bytes_sent[xds] += response.ByteSize()
        return response

    def _heard(self, request: Any) -> Any | None:
        """A request's answer, None for an acknowledgement."""
        xds = XDS.get(request.type_url)
        if xds is None:
            return discovery_pb2.DiscoveryResponse(type_url=request.type_url, version_info="0", nonce="0")
        first = xds not in self._subs
        sub = self._subs.setdefault(xds, _Sub())
        if request.error_detail.message:
            self.problems.append(f"{xds}: {request.error_detail.message}")
        if not first and request.response_nonce != sub.nonce:
            return None
        sub.acknowledged = True
        names = frozenset(request.resource_names)
        asks = first or bool(names - sub.names)
        sub.names = names
        return self._answer(xds) if asks else None

    async def ads(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        """AggregatedDiscoveryService.StreamAggregatedResources."""
        queue: asyncio.Queue[Any] = asyncio.Queue()
        self._queue, self._subs = queue, {}

        async def read() -> None:
            async for request in requests:
                answer = self._heard(request)
                self.heard.set()
                if answer is not None:
                    queue.put_nowait(answer)

        reader = asyncio.create_task(read())
        try:
            while True:
                yield await queue.get()
        finally:
            reader.cancel()


@lru_cache(1)
def _workload() -> dict[str, bytes]:
    """A workload's certificate chain, its key (RSA, as Istio's agent has it) and the root, in PEM."""
    authority = trustme.CA(organization_name="cluster.local", key_type=trustme.KeyType.RSA)
    leaf = authority.issue_cert("default.default.svc", key_type=trustme.KeyType.RSA)
    chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
    return {"chain": chain, "key": leaf.private_key_pem.bytes(), "root": authority.cert_pem.bytes()}


async def _secrets(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
    """SecretDiscoveryService.StreamSecrets: `default` and `ROOTCA`, as the agent serves them."""
    secrets = _workload()
    async for request in requests:
        if request.response_nonce:
            continue
        response = discovery_pb2.DiscoveryResponse(type_url=_SECRET, version_info="1", nonce="1")
        for name in request.resource_names:
            secret = secret_pb2.Secret(name=name)
            if name == "ROOTCA":
                secret.validation_context.trusted_ca.inline_bytes = secrets["root"]
            else:
                secret.tls_certificate.certificate_chain.inline_bytes = secrets["chain"]
                secret.tls_certificate.private_key.inline_bytes = secrets["key"]
            response.resources.add(type_url=_SECRET, value=secret.SerializeToString())
        yield response


@asynccontextmanager
async def serve(feed: Feed) -> AsyncIterator[Feed]:
    """Serve a feed on a free loopback port while the context is open; its `address` says which."""
    requests = {
        "request_deserializer": discovery_pb2.DiscoveryRequest.FromString,
        "response_serializer": discovery_pb2.DiscoveryResponse.SerializeToString,
    }
    stream = grpc.stream_stream_rpc_method_handler
    server = grpc.aio.server(options=(("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)))
    for service, method, handler in (
        ("envoy.service.discovery.v3.AggregatedDiscoveryService", "StreamAggregatedResources", feed.ads),
        ("envoy.service.secret.v3.SecretDiscoveryService", "StreamSecrets", _secrets),
    ):
        made = grpc.method_handlers_generic_handler(service, {method: stream(handler, **requests)})
        server.add_generic_rpc_handlers((made,))
    port = server.add_insecure_port("127.0.0.1:0")
    if not port:
        raise EnvironmentProblem("the xDS server can't listen on loopback")
    feed.address = f"127.0.0.1:{port}"
    await server.start()
    try:
        yield feed
    finally:
        await server.stop(None)
