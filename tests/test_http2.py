"""One gRPC stream by hand, against grpcio's own server over loopback."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import trustme

from pushsim.errors import EnvironmentProblem
from pushsim.replay.fleet import Tls
from pushsim.replay.http2 import DATA, PING, SETTINGS, WINDOW, WINDOW_UPDATE, GrpcStream, frame

METHOD = "/test.Echo/Talk"


@asynccontextmanager
async def server(talk: Callable[..., Any]) -> AsyncIterator[int]:
    """A server of one bidirectional method; yields its port."""
    running = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    handler = grpc.stream_stream_rpc_method_handler(talk)
    running.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Echo", {"Talk": handler})])
    port = running.add_insecure_port("127.0.0.1:0")
    await running.start()
    try:
        yield port
    finally:
        await running.stop(None)


class Call:
    """A stream whose messages and end are awaited."""

    def __init__(self, *, metadata: list[tuple[str, str]] | None = None) -> None:
        self.messages: asyncio.Queue[bytes] = asyncio.Queue()
        self.ended: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()
        self.stream = GrpcStream(METHOD, "localhost", self._came, self._end, metadata=metadata or [])

    def _came(self, data: bytes) -> None:
        self.messages.put_nowait(data)
        self.stream.consumed(len(data))

    def _end(self, status: str, details: str) -> None:
        self.ended.set_result((status, details))

    async def connect(self, port: int) -> Call:
        await asyncio.get_running_loop().create_connection(lambda: self.stream, "127.0.0.1", port)
        return self


async def echo(requests: Any, context: grpc.aio.ServicerContext) -> None:
    async for request in requests:
        await context.write(request)


@pytest.mark.parametrize("sizes", [[0, 1, 5, 16379, 16380, 16384], [70_000, 300_000], [5_000_000, 1]])
def test_messages_of_all_sizes_come_back_whole_and_in_order(sizes: list[int]) -> None:
    async def main() -> list[bytes]:
        async with server(echo) as port:
            call = Call()
            messages = [bytes([n % 251]) * size for n, size in enumerate(sizes, 1)]
            call.stream.send(messages[0])  # before there is a connection
            await call.connect(port)
            for message in messages[1:]:
                call.stream.send(message)
            got = [await asyncio.wait_for(call.messages.get(), 20) for _ in messages]
            call.stream.close()
            assert got == messages
            return got

    assert len(asyncio.run(main())) == len(sizes)


class Wire:
    """What a stream writes, as the kinds of its frames."""

    def __init__(self) -> None:
        self.kinds: list[int] = []

    def write(self, data: bytes) -> None:
        data = data.removeprefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        while data:
            self.kinds.append(data[3])
            data = data[9 + int.from_bytes(data[:3]) :]

    def abort(self) -> None:
        pass


def test_room_in_the_window_is_given_back_only_for_what_was_read() -> None:
    got: list[bytes] = []
    stream, wire = GrpcStream(METHOD, "x", got.append, lambda status, details: None), Wire()
    stream.connection_made(wire)
    piece = b"x" * 10_000
    message = b"\0" + len(piece).to_bytes(4) + piece
    fits = WINDOW // len(message)
    for _ in range(fits):
        stream.data_received(frame(DATA, 0, 1, message))
    assert len(got) == fits and wire.kinds.count(WINDOW_UPDATE) == 1  # the one that opens the connection's window
    for one in got:
        stream.consumed(len(one))
    assert wire.kinds.count(WINDOW_UPDATE) == 3  # half a window later, for the stream and for the connection
    large = (4 * WINDOW).to_bytes(4)
    stream.data_received(frame(DATA, 0, 1, b"\0" + large + piece))
    assert wire.kinds.count(WINDOW_UPDATE) == 5  # it would never fit


def test_frames_come_in_any_pieces_padded_or_not_and_pings_are_answered() -> None:
    for size in (1, 2, 7, 100):
        got: list[bytes] = []
        stream, wire = GrpcStream(METHOD, "x", got.append, lambda status, details: None), Wire()
        stream.connection_made(wire)
        padded = bytes([3]) + b"\0\0\0\0\2hi" + b"\0" * 3
        sent = frame(SETTINGS, 0, 0) + frame(DATA, 8, 1, padded) + frame(PING, 0, 0, b"12345678")
        sent += frame(DATA, 0, 1, b"\0\0\0\0\5hel") + frame(DATA, 0, 1, b"lo\0\0") + frame(DATA, 0, 1, b"\0\0\1!")
        for at in range(0, len(sent), size):
            stream.data_received(sent[at : at + size])
        assert got == [b"hi", b"hello", b"!"] and wire.kinds[-2:] == [SETTINGS, PING]


def test_a_status_comes_with_its_name_and_its_words() -> None:
    async def refuse(requests: Any, context: grpc.aio.ServicerContext) -> None:
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "rate limit")

    async def main() -> tuple[str, str]:
        async with server(refuse) as port:
            call = await Call().connect(port)
            return await asyncio.wait_for(call.ended, 20)

    assert asyncio.run(main()) == ("RESOURCE_EXHAUSTED", "rate limit")


def test_an_unknown_method_and_a_server_that_goes_away_are_ends() -> None:
    async def main() -> tuple[str, str]:
        async with server(echo) as port:
            call = Call()
            call.stream._headers[2] = (":path", "/no.Such/Method")
            await call.connect(port)
            unknown = (await asyncio.wait_for(call.ended, 20))[0]
            other = await Call().connect(port)
            other.stream.send(b"x")
            await asyncio.wait_for(other.messages.get(), 20)
        return unknown, (await asyncio.wait_for(other.ended, 20))[0]

    unknown, gone = asyncio.run(main())
    assert unknown == "UNIMPLEMENTED" and gone in ("UNAVAILABLE", "CANCELLED")


def test_metadata_goes_with_the_call() -> None:
    async def main() -> dict[str, str]:
        seen: dict[str, str] = {}

        async def look(requests: Any, context: grpc.aio.ServicerContext) -> None:
            seen.update(context.invocation_metadata() or ())
            await context.write(b"seen")

        async with server(look) as port:
            call = await Call(metadata=[("authorization", "Bearer t")]).connect(port)
            await asyncio.wait_for(call.messages.get(), 20)
        return seen

    seen = asyncio.run(main())
    assert seen["authorization"] == "Bearer t"


def test_it_costs_a_fraction_of_a_general_client() -> None:
    """The reason for this module: CPU of both clients for the same messages (the server's share is in both)."""
    messages = 3000

    async def pour(requests: Any, context: grpc.aio.ServicerContext) -> None:
        async for _ in requests:
            await context.write(b"x" * 400)

    async def ours(port: int) -> None:
        call = await Call().connect(port)
        for _ in range(messages):
            call.stream.send(b"ack")
            await call.messages.get()
        call.stream.close()

    async def theirs(port: int) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.stream_stream(METHOD)()
            for _ in range(messages):
                await call.write(b"ack")
                await call.read()
            call.cancel()

    async def main() -> list[float]:
        clients = (ours, theirs)
        best = [float("inf")] * len(clients)
        async with server(pour) as port:
            for _ in range(3):  # what else the machine does slows one or the other: the least is what it takes
                for place, client in enumerate(clients):
                    before = time.process_time()
                    await client(port)
                    best[place] = min(best[place], time.process_time() - before)
        return best

    mine, general = asyncio.run(main())
    assert mine < general, f"{mine:.2f} s against {general:.2f} s"


def test_it_speaks_tls_with_a_client_certificate_and_a_token(tmp_path: Path) -> None:
    ours, theirs = trustme.CA(), trustme.CA()
    served, held = ours.issue_cert("istiod.istio-system.svc"), theirs.issue_cert("proxy")
    ours.cert_pem.write_to_path(tmp_path / "ca.pem")
    held.private_key_pem.write_to_path(tmp_path / "key.pem")
    held.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    seen: dict[str, Any] = {}

    async def look(requests: Any, context: grpc.aio.ServicerContext) -> None:
        seen.update(context.invocation_metadata() or ())
        await context.write(b"seen")

    async def main() -> None:
        running = grpc.aio.server()
        handler = grpc.method_handlers_generic_handler(
            "test.Echo", {"Talk": grpc.stream_stream_rpc_method_handler(look)}
        )
        running.add_generic_rpc_handlers([handler])
        pair = (served.private_key_pem.bytes(), served.cert_chain_pems[0].bytes())
        credentials = grpc.ssl_server_credentials([pair], theirs.cert_pem.bytes(), require_client_auth=True)
        port = running.add_secure_port("127.0.0.1:0", credentials)
        await running.start()
        tls = Tls(*(str(tmp_path / f"{name}.pem") for name in ("ca", "cert", "key")), "istiod.istio-system.svc")
        call = Call(metadata=[("authorization", "Bearer t")])
        await asyncio.get_running_loop().create_connection(
            lambda: call.stream, "127.0.0.1", port, ssl=tls.context(), server_hostname=tls.server_name
        )
        assert await asyncio.wait_for(call.messages.get(), 20) == b"seen"
        with pytest.raises(ssl.SSLError):  # another name than in its certificate
            await asyncio.get_running_loop().create_connection(
                lambda: Call().stream, "127.0.0.1", port, ssl=tls.context(), server_hostname="other"
            )
        await running.stop(None)

    asyncio.run(main())
    assert seen["authorization"] == "Bearer t"


def test_tls_files_that_can_not_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"nowhere\.pem.*can't be used for TLS"):
        Tls(str(tmp_path / "nowhere.pem")).context()
