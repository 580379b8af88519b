"""One gRPC stream on a connection of its own: HTTP/2 with a single stream, as an asyncio protocol.

Each proxy has a connection of its own, as its agent does: a slow one blocks nobody else, and istiod's connection age
ends one stream. A general gRPC client costs most of a core for a few thousand messages a second, which istiod next to
it would feel (measured beside this one: see `tests/test_http2.py`). This speaks just what a stream needs: SETTINGS,
HEADERS (the `hpack` library codes them), DATA, WINDOW_UPDATE, PING and RST_STREAM (RFC 9113; gRPC's PROTOCOL-HTTP2).
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterable
from typing import Any

import hpack

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: Kinds of frames we heed. A GOAWAY is not one: istiod lets the stream go on for a while, and ends it then.
DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 8, 9
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 1, 1, 4, 8, 32
_HEADER_TABLE_SIZE, _ENABLE_PUSH, _INITIAL_WINDOW, _MAX_FRAME = 1, 2, 4, 5
#: Windows of 1 MiB, as istio-agent opens them (pkg/istio-agent/xds_proxy.go).
WINDOW = 1 << 20
_DEFAULT_WINDOW = 65535
#: Longer messages, framing included, get room of their own.
_LARGE = WINDOW // 2
#: How gRPC names its status codes.
STATUS = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return struct.pack(">I", len(payload) << 8 | kind) + struct.pack(">BI", flags, stream) + payload


class GrpcStream(asyncio.Protocol):
    """A bidirectional gRPC call. Messages come to `on_message`, its end, once, to `on_end` (status name, details).

    A message is read, for HTTP/2's flow control, when `consumed` is called with its length: until then it takes room in
    the window, and a server whose window is full waits. Status UNAVAILABLE stands for a connection that broke.
    """

    def __init__(
        self,
        method: str,
        authority: str,
        on_message: Callable[[bytes], None],
        on_end: Callable[[str, str], None],
        *,
        on_open: Callable[[], None] = lambda: None,
        metadata: Iterable[tuple[str, str]] = (),
        scheme: str = "http",
    ) -> None:
        self._on_message, self._on_end, self._on_open = on_message, on_end, on_open
        self._headers = [
            (":method", "POST"),
            (":scheme", scheme),
            (":path", method),
            (":authority", authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "pushsim"),
            *metadata,
        ]
        self._decoder = hpack.Decoder()
        self._decoder.max_allowed_table_size = 0
        self._decoder.header_table_size = 0
        self._transport: Any = None
        self._buffer = b""
        self._block, self._last = b"", False
        self._message, self._opened = bytearray(), False
        self._read = 0
        self._may_send, self._may_send_all = _DEFAULT_WINDOW, _DEFAULT_WINDOW
        self._peer_window, self._peer_frame = _DEFAULT_WINDOW, 16384
        self._waiting = bytearray()
        self._status: tuple[str, str] | None = None
        self._ended = False

    # ---- what the caller does

    def send(self, message: bytes) -> None:
        """Send a message as soon as the server's windows allow."""
        self._waiting += struct.pack(">BI", 0, len(message)) + message
        self._flush()

    def consumed(self, length: int) -> None:
        """A message of that length is done with: its room in the windows is given back, in halves of them."""
        if length + 5 > _LARGE:
            return  # it had its room from the start
        self._read += length + 5
        if self._read >= WINDOW // 2:
            self._give(self._read)
            self._read = 0

    def close(self) -> None:
        """End the call from our side; `on_end` is not called."""
        self._ended = True
        if self._transport is not None:
            self._transport.abort()

    # ---- what asyncio tells

    def connection_made(self, transport: Any) -> None:
        if self._ended:
            transport.abort()
            return
        self._transport = transport
        settings = b"".join(
            struct.pack(">HI", key, value)
            for key, value in ((_HEADER_TABLE_SIZE, 0), (_ENABLE_PUSH, 0), (_INITIAL_WINDOW, WINDOW))
        )
        headers = hpack.Encoder().encode(self._headers, huffman=False)
        self._write(
            _PREFACE
            + frame(SETTINGS, 0, 0, settings)
            + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", WINDOW - _DEFAULT_WINDOW))
            + frame(HEADERS, _END_HEADERS, 1, headers)
        )
        self._flush()
        self._on_open()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("UNAVAILABLE", str(exc) if exc else "the connection was closed")

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        at, length = 0, len(data)
        while length - at >= 9 and not self._ended:
            size = data[at] << 16 | data[at + 1] << 8 | data[at + 2]
            end = at + 9 + size
            if end > length:
                break
            self._frame(data[at + 3], data[at + 4], data, at + 9, end)
            at = end
        self._buffer = data[at:] if at < length else b""

    # ---- frames

    def _frame(self, kind: int, flags: int, data: bytes, at: int, end: int) -> None:
        if kind == DATA:
            if flags & _PADDED:
                self._read += data[at] + 1
                at, end = at + 1, end - data[at]
            if not self._message and end - at >= 5 and int.from_bytes(data[at + 1 : at + 5]) == end - at - 5:
                self._on_message(data[at + 5 : end])  # the usual small message: one frame, whole
            else:
                self._message += memoryview(data)[at:end]
                self._take()
            if flags & _END_STREAM:
                self._end(*(self._status or ("UNKNOWN", "the stream ended without a status")))
        elif kind in (HEADERS, CONTINUATION):
            if kind == HEADERS and flags & _PADDED:
                at, end = at + 1, end - data[at]
            if kind == HEADERS and flags & _PRIORITY:
                at += 5
            if kind == HEADERS:
                self._last = bool(flags & _END_STREAM)
            self._block += data[at:end]
            if flags & _END_HEADERS:
                self._headers_read(self._last)
        elif kind == SETTINGS:
            if not flags & _ACK:
                self._settings(data[at:end])
        elif kind == WINDOW_UPDATE:
            more = int.from_bytes(data[at:end]) & 0x7FFFFFFF
            if data[at - 4 : at] == b"\0\0\0\0":
                self._may_send_all += more
            else:
                self._may_send += more
            self._flush()
        elif kind == PING:
            if not flags & _ACK:
                self._write(frame(PING, _ACK, 0, data[at:end]))
        elif kind == RST_STREAM:
            code = int.from_bytes(data[at:end])
            self._end(*(self._status or ("UNAVAILABLE", f"the stream was reset (HTTP/2 error {code})")))

    def _take(self) -> None:
        """Hand on the messages that are whole."""
        message, at = self._message, 0
        while len(message) - at >= 5:
            end = at + 5 + int.from_bytes(message[at + 1 : at + 5])
            if end > len(message):
                break
            whole = bytes(memoryview(message)[at + 5 : end])
            at = end
            self._on_message(whole)
            if self._ended:
                return
        if at:
            self._message = message[at:]
            self._opened = False
        if not self._opened and len(self._message) >= 5:
            self._opened = True
            size = 5 + int.from_bytes(self._message[1:5])
            if size > _LARGE:  # it would never fit: gRPC's clients make room as soon as they know
                self._give(size)

    def _give(self, room: int) -> None:
        update = struct.pack(">I", room)
        self._write(frame(WINDOW_UPDATE, 0, 0, update) + frame(WINDOW_UPDATE, 0, 1, update))

    def _headers_read(self, last: bool) -> None:
        try:
            headers: dict[str, str] = {str(key): str(value) for key, value in self._decoder.decode(self._block)}
        except hpack.HPACKError as problem:
            self._end("INTERNAL", f"headers that can't be read: {problem}")
            return
        self._block = b""
        status = headers.get("grpc-status")
        if status is not None:
            code = int(status)
            name = STATUS[code] if code < len(STATUS) else status
            self._status = (name, headers.get("grpc-message", ""))
        elif last or headers.get(":status", "200") != "200":
            self._status = ("UNKNOWN", f"HTTP status {headers.get(':status')}")
        if last or (self._status and ":status" in headers and headers[":status"] != "200"):
            self._end(*(self._status or ("UNKNOWN", "the stream ended without a status")))

    def _settings(self, payload: bytes) -> None:
        for key, value in struct.iter_unpack(">HI", payload):
            if key == _INITIAL_WINDOW:
                self._may_send += value - self._peer_window
                self._peer_window = value
            elif key == _MAX_FRAME:
                self._peer_frame = value
        self._write(frame(SETTINGS, _ACK, 0))
        self._flush()

    def _flush(self) -> None:
        parts = []
        while self._waiting and self._transport is not None:
            size = min(len(self._waiting), self._may_send, self._may_send_all, self._peer_frame)
            if size <= 0:
                break
            parts.append(frame(DATA, 0, 1, bytes(self._waiting[:size])))
            del self._waiting[:size]
            self._may_send -= size
            self._may_send_all -= size
        if parts:
            self._write(b"".join(parts))

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._ended:
            self._transport.write(data)

    def _end(self, status: str, details: str) -> None:
        if self._ended:
            return
        self.close()
        self._on_end(status, details)
