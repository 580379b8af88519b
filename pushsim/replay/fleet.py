"""The proxies of a mesh, each with a stream of its own to one istiod."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pushsim.ads import METHODS, AdsClient, ProtocolError, Response
from pushsim.control.limiter import BACKOFF_BASE_NS, BACKOFF_CAP_NS
from pushsim.errors import EnvironmentProblem, InputError, Problem
from pushsim.istiod import Istiod
from pushsim.mesh import Mode, Proxy
from pushsim.replay.http2 import GrpcStream
from pushsim.units import SECOND_NS

#: Called with the client and each response as it arrives.
OnResponse = Callable[[AdsClient, Response], None]


@dataclass(frozen=True, slots=True)
class Tls:
    """How to speak TLS: files of the authority, of a client certificate and its key, and the name istiod goes by."""

    authority: str | None = None
    certificate: str | None = None
    key: str | None = None
    server_name: str | None = None

    def context(self) -> ssl.SSLContext:
        """What asyncio is given; raises EnvironmentProblem for files that can't be read."""
        try:
            context = ssl.create_default_context(cafile=self.authority)
            if self.certificate:
                context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as problem:
            files = ", ".join(filter(None, (self.authority, self.certificate, self.key)))
            raise EnvironmentProblem(f"{files}: can't be used for TLS: {problem}") from None
        context.set_alpn_protocols(["h2"])
        return context


@dataclass(frozen=True, slots=True)
class Target:
    """Which istiod to connect to: `HOST:PORT`, plaintext without `tls`; a token goes with each call."""

    address: str
    tls: Tls | None = None
    token: str = ""


def target_of(
    address: str,
    ca: str | Path | None = None,
    cert: str | Path | None = None,
    key: str | Path | None = None,
    server_name: str | None = None,
    token_file: str | Path | None = None,
) -> Target:
    """The target of a command line. Raises InputError: no address, or a token that is not to be had or not over TLS."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise InputError(Problem(f"{address!r} is no address", field="--istiod", remedy="write HOST:PORT"))
    authority, certificate, own = (str(path) if path else None for path in (ca, cert, key))
    tls = Tls(authority, certificate, own, server_name) if ca or cert or server_name else None
    if token_file is None:
        return Target(address, tls)
    try:
        token = Path(token_file).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InputError(Problem(f"cannot be read: {error.strerror}", str(token_file), "--token-file")) from None
    if tls is None:
        remedy = "add --ca FILE"
        raise InputError(Problem("a token is sent over TLS only", field="--token-file", remedy=remedy))
    return Target(address, tls, token)


@dataclass(frozen=True, slots=True)
class Manners:
    """How a proxy behaves: it takes `delay_s` to read a response, and accepts or (nack) rejects it."""

    delay_s: float = 0.0
    nack: bool = False


class Seen(NamedTuple):
    """Responses received, whether all proxies are through their first conversation, and none was lost on the way."""

    received: int
    synced: bool
    lossless: bool


@dataclass
class Member:
    """One proxy of a fleet."""

    client: AdsClient
    manners: Manners
    stream: GrpcStream | None = None
    failures: int = 0
    waiting: list[bytes] = field(default_factory=list)
    reading: bool = False
    gone: bool = False


class Fleet:
    """Connected proxies; each response goes to `on_response`.

    again: a proxy whose stream ended connects again, after Envoy's wait if it was refused; otherwise the end of a
           stream is kept as `failed`, for `check` to raise.
    received, refused, connects, ended: counts of responses, of streams refused (RESOURCE_EXHAUSTED, UNAVAILABLE
           before the first response), of streams begun, of streams that broke or were ended by istiod.
    """

    def __init__(self, target: Target, on_response: OnResponse, *, again: bool = False, seed: int = 0) -> None:
        self.target, self.again = target, again
        self.members: dict[str, Member] = {}
        self.received = self.refused = self.connects = self.ended = self.rejected = 0
        self.failed: EnvironmentProblem | None = None
        self._on_response = on_response
        self._random = random.Random(seed)
        self._tasks: set[asyncio.Future[Any]] = set()
        self._closed = False
        self._context = target.tls.context() if target.tls else None

    def add(self, client: AdsClient, manners: Manners | None = None, after_s: float = 0.0) -> None:
        """A proxy joins, and connects after so many seconds."""
        member = Member(client, manners or Manners())
        self.members[client.proxy.id] = member
        if after_s:
            asyncio.get_running_loop().call_later(after_s, self._connect, member)
        else:
            self._connect(member)

    def recycle(self, age_s: float) -> None:
        """From now on a stream ends at that age (±10 %), and the proxy connects again; those open now are of any."""
        for member in self.members.values():
            self._age(member, self._random.random() * age_s, age_s)

    def _age(self, member: Member, left_s: float, age_s: float) -> None:
        def end() -> None:
            if member.gone or self._closed:
                return
            if member.stream is not None:
                member.stream.close()
            self.ended += 1
            self._connect(member)
            self._age(member, age_s * (0.9 + 0.2 * self._random.random()), age_s)

        asyncio.get_running_loop().call_later(left_s, end)

    def remove(self, proxy: str) -> None:
        """A proxy goes."""
        member = self.members.pop(proxy, None)
        if member is not None:
            member.gone = True
            if member.stream is not None:
                member.stream.close()

    @property
    def synced(self) -> bool:
        """Whether every proxy is through its first conversation."""
        return all(member.client.synced for member in self.members.values())

    def settle(self) -> None:
        """All is quiet: what was not answered will not be."""
        for member in self.members.values():
            member.client.settle()

    async def look(self) -> Seen:
        """How it is now; raises what ended a stream that was not to end (EnvironmentProblem)."""
        if self.failed is not None:
            raise self.failed
        return Seen(self.received, self.synced, not self.ended and not self.refused)

    async def close(self) -> None:
        """End all streams."""
        self._closed = True
        for proxy in list(self.members):
            self.remove(proxy)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ---- streams

    def _connect(self, member: Member) -> None:
        if member.gone or self._closed:
            return
        task = asyncio.ensure_future(self._dial(member))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _dial(self, member: Member) -> None:
        client, target = member.client, self.target
        host, _, port = target.address.rpartition(":")
        name = (target.tls and target.tls.server_name) or host.strip("[]")
        member.waiting.clear()
        member.stream = stream = GrpcStream(
            METHODS[client.mode],
            f"{name}:{port}",
            lambda data: self._came(member, data),
            lambda status, details: self._end(member, status, details),
            metadata=[("authorization", f"Bearer {target.token}")] if target.token else [],
            scheme="https" if target.tls else "http",
        )
        for request in client.connect():
            stream.send(request)
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: stream,
                host.strip("[]"),
                int(port),
                ssl=self._context,
                server_hostname=name if target.tls else None,
            )
            self.connects += 1
        except OSError as problem:
            stream.close()
            self._end(member, "UNAVAILABLE", str(problem))

    def _came(self, member: Member, data: bytes) -> None:
        if not member.manners.delay_s:
            self._read(member, data)
            return
        member.waiting.append(data)
        if not member.reading:
            self._read_later(member)

    def _read_later(self, member: Member) -> None:
        member.reading = True
        stream = member.stream

        def read() -> None:
            member.reading = False
            if member.waiting and member.stream is stream and not member.gone:
                self._read(member, member.waiting.pop(0))
            if member.waiting:
                self._read_later(member)

        asyncio.get_running_loop().call_later(member.manners.delay_s, read)

    def _read(self, member: Member, data: bytes) -> None:
        client, stream = member.client, member.stream
        assert stream is not None
        try:
            # a proxy that rejects lets its first conversation through: it has to get anywhere to be pushed to
            if member.manners.nack and client.synced:
                self.rejected += 1
                response, requests = client.reject(data, "rejected, as the scenario asks")
            else:
                response, requests = client.receive(data)
        except ProtocolError as problem:
            self.failed = EnvironmentProblem(f"{client.proxy.id}: {problem}")
            stream.close()
            return
        member.failures = 0
        self.received += 1
        self._on_response(client, response)
        for request in requests:
            stream.send(request)
        stream.consumed(len(data))

    def _end(self, member: Member, status: str, details: str) -> None:
        if member.gone or self._closed:
            return
        client = member.client
        if not self.again:
            self.failed = EnvironmentProblem(f"the stream of {client.proxy.id} ended: {status}: {details}")
            return
        refused = status == "RESOURCE_EXHAUSTED" or not client.answered
        self.refused += refused
        self.ended += not refused
        member.failures += 1
        # Envoy's backoff: uniform below a bound that doubles; a stream that had worked begins anew at once
        bound = min(BACKOFF_CAP_NS, BACKOFF_BASE_NS << min(member.failures - 1, 20)) / SECOND_NS
        wait = self._random.random() * bound if refused else 0.0
        asyncio.get_running_loop().call_later(wait, self._connect, member)


class Recorder:
    """A fleet that keeps what each proxy got since `take` was last called."""

    def __init__(self, fleet: Fleet, taken: dict[str, list[Response]]) -> None:
        self.fleet, self._taken = fleet, taken

    def take(self) -> dict[str, list[Response]]:
        """What each proxy got since the last call, in order (every proxy is a key). Call it when all is quiet."""
        taken = {name: self._taken.get(name, []) for name in self.fleet.members}
        self._taken.clear()
        self.fleet.settle()
        return taken

    @classmethod
    @asynccontextmanager
    async def connect(cls, istiod: Istiod, proxies: Iterable[Proxy], mode: Mode) -> AsyncIterator[Recorder]:
        """Every proxy with a stream of its own, while the context is open."""
        taken: dict[str, list[Response]] = {}
        fleet = Fleet(Target(istiod.grpc), lambda c, r: taken.setdefault(c.proxy.id, []).append(r))
        try:
            for proxy in proxies:
                fleet.add(AdsClient(proxy, istiod.release, mode))
            yield cls(fleet, taken)
        finally:
            await fleet.close()
