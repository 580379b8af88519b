"""ADS streams to a real istiod: carries the bytes between `ads.AdsClient`s and grpc.aio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
import grpc.aio

from pushsim.ads import METHODS, AdsClient, ProtocolError, Response
from pushsim.errors import EnvironmentProblem

_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)

#: Called with the client and each response as it arrives.
OnResponse = Callable[[AdsClient, Response], None]


def open_channel(address: str) -> grpc.aio.Channel:
    """A plaintext connection of its own to `HOST:PORT` (istiod's 15010). Nothing is dialled before the first stream."""
    return grpc.aio.insecure_channel(address, options=_OPTIONS)


async def serve_stream(channel: grpc.aio.Channel, client: AdsClient, on_response: OnResponse) -> None:
    """Open one proxy's stream and answer on it until cancelled. Raises EnvironmentProblem if istiod ends it."""
    open_stream = channel.stream_stream(METHODS[client.mode], request_serializer=None, response_deserializer=None)
    call = open_stream()
    try:
        for request in client.connect():
            await call.write(request)
        while (data := await call.read()) is not grpc.aio.EOF:
            response, requests = client.receive(data)
            on_response(client, response)
            for request in requests:
                await call.write(request)
        code, details = await call.code(), await call.details()
    except grpc.aio.AioRpcError as problem:
        code, details = problem.code(), problem.details()
    except asyncio.InvalidStateError:
        code, details = await call.code(), await call.details()
    except ProtocolError as problem:
        raise EnvironmentProblem(f"{client.proxy.id}: {problem}") from None
    finally:
        call.cancel()
    raise EnvironmentProblem(f"the stream of {client.proxy.id} ended: {code.name}: {details}")
