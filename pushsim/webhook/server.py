"""The HTTPS server around `review.answer`: /mutate, /healthz, /metrics."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from pushsim.errors import EnvironmentProblem, InputError, Problem
from pushsim.policies import Policy
from pushsim.webhook.review import answer

#: The API server sends at most an object of etcd's limit of 1.5 MiB, old and new.
MAX_BODY_BYTES = 8 * 2**20
#: How often, in seconds, the certificate's file is looked at: cert-manager writes it anew while we run.
RELOAD_S = 60.0

_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1)


def application(policy: Policy) -> web.Application:
    """The webhook as an aiohttp application."""
    registry = CollectorRegistry()
    reviews = Counter("pushsim_webhook_reviews", "AdmissionReviews answered.", ["outcome"], registry=registry)
    seconds = Histogram("pushsim_webhook_review_seconds", "Time to answer one.", buckets=_BUCKETS, registry=registry)

    async def mutate(request: web.Request) -> web.Response:
        body = await request.read()
        begun = time.perf_counter()
        found = answer(policy, body)
        seconds.observe(time.perf_counter() - begun)
        reviews.labels(found.outcome).inc()
        return web.Response(status=found.status, body=found.body, content_type="application/json")

    async def healthy(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    made = web.Application(client_max_size=MAX_BODY_BYTES)
    made.add_routes([web.post("/mutate", mutate), web.get("/healthz", healthy), web.get("/metrics", metrics)])
    return made


def tls(cert: str, key: str) -> ssl.SSLContext:
    """The server's side of TLS 1.2 or newer. Raises InputError if the files are missing or no pair."""
    for option, path in (("--cert", cert), ("--key", key)):
        if not Path(path).is_file():
            remedy = "the API server speaks TLS only: `pushsim webhook --manifests` has cert-manager make them"
            raise InputError(Problem("is not there", path, option, remedy))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert, key)
    except (ssl.SSLError, OSError) as error:
        remedy = "give a PEM certificate and its own private key"
        raise InputError(Problem(f"is no certificate for {key}: {error}", cert, "--cert", remedy)) from None
    return context


@contextlib.asynccontextmanager
async def serving(policy: Policy, context: ssl.SSLContext, host: str, port: int) -> AsyncIterator[int]:
    """Serve while inside; gives the port. Raises EnvironmentProblem if it is taken."""
    runner = web.AppRunner(application(policy), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, ssl_context=context)
        try:
            await site.start()
        except OSError as error:
            told = f"cannot listen on {host}:{port}: {error.strerror or error}"
            raise EnvironmentProblem(f"{told} (another port?)") from None
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


async def serve(
    policy: Policy,
    cert: str,
    key: str,
    host: str,
    port: int,
    started: Callable[[int], None],
    *,
    look_every_s: float = RELOAD_S,
) -> None:
    """Serve until cancelled; a certificate written anew is used for new connections. started: told the port."""
    known = _written(cert, key)
    context = tls(cert, key)
    async with serving(policy, context, host, port) as listening:
        started(listening)
        while True:
            await asyncio.sleep(look_every_s)
            if (now := _written(cert, key)) != known and renew(context, cert, key):
                known = now


def renew(context: ssl.SSLContext, cert: str, key: str) -> bool:
    """Have a server's context use what these files hold now, if it is whole; says whether it was."""
    try:
        tls(cert, key)  # aside first: OpenSSL drops the key of a context that takes another's certificate
        context.load_cert_chain(cert, key)
    except (InputError, ssl.SSLError, OSError):
        return False
    return True


def _written(*paths: str) -> tuple[int, ...]:
    return tuple(Path(path).stat().st_mtime_ns if Path(path).exists() else 0 for path in paths)
