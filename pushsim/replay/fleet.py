"""The proxies of a mesh, each with a stream of its own to an istiod."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from pushsim.ads import METHODS, AdsClient, ProtocolError, Response
from pushsim.control.limiter import AGE, REPLICA, backoff_ns, draw
from pushsim.errors import EnvironmentProblem, InputError, Problem
from pushsim.istiod import Istiod
from pushsim.mesh import Mode, Proxy, Xds
from pushsim.replay.http2 import GrpcStream
from pushsim.units import SECOND_NS

#: Called with the member, each response to it in order, and when that had arrived, ns of the monotonic clock.
OnResponse = Callable[["Member", Response, int], None]


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
    """Responses received, whether no proxy is in its first conversation, and none was lost on the way."""

    received: int
    synced: bool
    lossless: bool


@dataclass
class Member:
    """One proxy of a fleet.

    number:   for what is drawn for it. replica: the istiod it is with, or was last.
    streams:  how many it has lost. failures: refusals since. lost_at: when it lost its stream, -1 once answered again.
    """

    client: AdsClient
    manners: Manners
    number: int = 0
    replica: int = 0
    stream: GrpcStream | None = None
    streams: int = 0
    failures: int = 0
    lost_at: int = -1
    waiting: list[bytes] = field(default_factory=list)
    reading: bool = False
    gone: bool = False


class Fleet:
    """Connected proxies; each response goes to `on_response`.

    again: a proxy whose stream ended connects again, after Envoy's wait if it was refused; otherwise the end of a
           stream is kept as `failed`, for `check` to raise.
    received, refused, connects, ended: counts of responses, of streams refused (RESOURCE_EXHAUSTED, UNAVAILABLE
           before the first response), of streams begun, of streams that broke or were ended by istiod.
    token: what a proxy proves itself with; None: what its target says.
    away:  of each stream that was lost when (ns of the monotonic clock), and how long until the next was answered.

    Each time a proxy connects it draws one of the targets, as a simulated one does. All share a thread, where each
    would have a core: so they read one at a time, and between two of them it is noted what else has arrived.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        on_response: OnResponse,
        *,
        again: bool = False,
        seed: int = 0,
        token: Callable[[Proxy], str] | None = None,
    ) -> None:
        self.targets, self.again, self.seed, self._token = list(targets), again, seed, token
        self.away: list[tuple[int, int]] = []
        self.members: dict[str, Member] = {}
        self.received = self.refused = self.connects = self.ended = self.rejected = 0
        self.failed: EnvironmentProblem | None = None
        self._on_response = on_response
        self._tasks: set[asyncio.Future[Any]] = set()
        self._closed = False
        self._down: set[int] = set()
        self._arrived: deque[Callable[[], None]] = deque()
        self._contexts = {t.tls: t.tls.context() for t in targets if t.tls}

    def add(
        self, client: AdsClient, manners: Manners | None = None, after_s: float = 0.0, number: int | None = None
    ) -> None:
        """A proxy joins, and connects after so many seconds."""
        member = Member(client, manners or Manners(), len(self.members) if number is None else number)
        self.members[client.proxy.id] = member
        if after_s:
            asyncio.get_running_loop().call_later(after_s, self._connect, member)
        else:
            self._connect(member)

    def point(self, replica: int, address: str) -> None:
        """That replica takes streams there from now on; "": it takes none."""
        if address:
            self.targets[replica] = replace(self.targets[replica], address=address)
            self._down.discard(replica)
        else:
            self._down.add(replica)

    def recycle(self, age_s: float) -> None:
        """From now on a stream ends at that age (±10 %), and the proxy connects again; those open now are of any."""
        for member in self.members.values():
            self._age(member, self._share(member) * age_s, age_s)

    def _share(self, member: Member) -> float:
        """A number below 1, drawn anew for each of its streams."""
        return draw(self.seed, AGE, member.number, member.streams) / (1 << 63)

    def _age(self, member: Member, left_s: float, age_s: float) -> None:
        def end() -> None:
            if member.gone or self._closed:
                return
            if member.stream is not None:  # else it waits to connect again
                member.stream.close()
                self._lost(member)
                self._connect(member)
            self._age(member, age_s * (0.9 + 0.2 * self._share(member)), age_s)

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

    @property
    def conversing(self) -> bool:
        """Whether a proxy that has a stream, or begins one, is in its first conversation."""
        return any(m.stream is not None and not m.client.synced for m in self.members.values())

    def mark_quiet(self) -> None:
        """All is quiet: what was not answered will not be."""
        for member in self.members.values():
            member.client.mark_quiet()

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
        client = member.client
        requests = client.connect()
        attempt = draw(self.seed, REPLICA, member.number, member.streams * 64 + min(member.failures, 63))
        member.replica = attempt % len(self.targets)
        if member.replica in self._down:
            self._end(member, "UNAVAILABLE", "it restarts")
            return
        target = self.targets[member.replica]
        host, _, port = target.address.rpartition(":")
        name = (target.tls and target.tls.server_name) or host.strip("[]")
        token = self._token(client.proxy) if self._token else target.token
        member.waiting.clear()
        member.stream = stream = GrpcStream(
            METHODS[client.mode],
            f"{name}:{port}",
            lambda data: self._came(member, stream, data),
            lambda status, details: self._in_turn(lambda: self._end(member, status, details)),
            metadata=[("authorization", f"Bearer {token}")] if token else [],
            scheme="https" if target.tls else "http",
        )
        for request in requests:
            stream.send(request)
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: stream,
                host.strip("[]"),
                int(port),
                ssl=self._contexts[target.tls] if target.tls else None,
                server_hostname=name if target.tls else None,
            )
            self.connects += 1
        except OSError as problem:
            stream.close()
            self._end(member, "UNAVAILABLE", str(problem))

    def _came(self, member: Member, stream: GrpcStream, data: bytes) -> None:
        if not member.manners.delay_s:
            at = time.monotonic_ns()
            stream.consumed(len(data))
            self._in_turn(lambda: self._read(member, stream, data, at))
            return
        member.waiting.append(data)
        if not member.reading:
            self._read_later(member, stream)

    def _in_turn(self, work: Callable[[], None]) -> None:
        """That is done after what arrived before; what else arrives is told in between."""
        self._arrived.append(work)
        if len(self._arrived) == 1:
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        try:
            self._arrived[0]()
        finally:
            self._arrived.popleft()
            if self._arrived:
                asyncio.get_running_loop().call_soon(self._next)

    def _read_later(self, member: Member, stream: GrpcStream) -> None:
        member.reading = True

        def read() -> None:
            member.reading = False
            if member.waiting and member.stream is stream:
                data = member.waiting.pop(0)
                self._read(member, stream, data, time.monotonic_ns())
                stream.consumed(len(data))
            if member.waiting:
                self._read_later(member, stream)

        asyncio.get_running_loop().call_later(member.manners.delay_s, read)

    def _read(self, member: Member, stream: GrpcStream, data: bytes, at: int) -> None:
        client = member.client
        if member.stream is not stream or member.gone:
            return
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
        if member.lost_at >= 0:
            self.away.append((member.lost_at, time.monotonic_ns() - member.lost_at))
            member.lost_at = -1
        self.received += 1
        self._on_response(member, response, at)
        for request in requests:
            stream.send(request)

    def _end(self, member: Member, status: str, details: str) -> None:
        if member.gone or self._closed:
            return
        client, member.stream = member.client, None
        if not self.again:
            self.failed = EnvironmentProblem(f"the stream of {client.proxy.id} ended: {status}: {details}")
            return
        if status != "RESOURCE_EXHAUSTED" and client.answered:
            self._lost(member)
            self._connect(member)  # one that had worked begins anew at once
            return
        self.refused += 1
        wait = backoff_ns(self.seed, member.number, member.streams * 64 + min(member.failures, 63), member.failures)
        member.failures += 1
        asyncio.get_running_loop().call_later(wait / SECOND_NS, self._connect, member)

    def _lost(self, member: Member) -> None:
        self.ended += 1
        member.streams += 1
        member.failures = 0
        member.lost_at = time.monotonic_ns()


class Recorder:
    """A fleet that keeps what each proxy got since `take` was last called."""

    def __init__(self, fleet: Fleet, taken: dict[str, list[Response]]) -> None:
        self.fleet, self._taken = fleet, taken

    def take(self) -> dict[str, list[Response]]:
        """What each proxy got since the last call, in order (every proxy is a key). Call it when all is quiet."""
        taken = {name: self._taken.get(name, []) for name in self.fleet.members}
        self._taken.clear()
        self.fleet.mark_quiet()
        return taken

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        istiod: Istiod,
        proxies: Iterable[Proxy],
        mode: Mode,
        on_demand: Collection[Xds] = (),
        token: Callable[[Proxy], str] | None = None,
    ) -> AsyncIterator[Recorder]:
        """Every proxy with a stream of its own, while the context is open; `token`: what it proves itself with."""
        taken: dict[str, list[Response]] = {}
        fleet = Fleet(
            [Target(istiod.grpc)], lambda m, r, _: taken.setdefault(m.client.proxy.id, []).append(r), token=token
        )
        try:
            for proxy in proxies:
                fleet.add(AdsClient(proxy, istiod.release, mode, on_demand=on_demand))
            yield cls(fleet, taken)
        finally:
            await fleet.close()
