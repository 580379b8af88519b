"""A run's metrics for Prometheus, on loopback, while it runs and when it is done; names and buckets are istiod's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock, Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client.exposition import ThreadingWSGIServer

from pushsim.errors import EnvironmentProblem, InputError, Problem
from pushsim.exports import scrape, scrape_of
from pushsim.metrics import Scrape, write_text
from pushsim.result import Results

HOST = "127.0.0.1"


class Live:
    """The newest scrape of each variant; asked by the server's thread, filled by the run's."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._scrapes: dict[str, Scrape] = {}

    def update(self, variant: str, summary: Mapping[str, Any]) -> None:
        """A variant's run has come so far: a part of its SUMMARY."""
        found = scrape_of(summary, {"variant": variant})
        with self._lock:
            self._scrapes[variant] = found

    def done(self, results: Results) -> None:
        """The runs are done."""
        for name, result in results.items():
            found = scrape(Results({name: result}))
            with self._lock:
                self._scrapes[name] = found

    def page(self) -> bytes:
        """All variants together, as istiod's own page tells its metrics and their types."""
        with self._lock:
            scrapes = list(self._scrapes.values())
        values = {key: value for one in scrapes for key, value in one.values.items()}
        histograms = {key: value for one in scrapes for key, value in one.histograms.items()}
        return write_text(Scrape(values, histograms)).encode()


def port_of(text: str) -> int:
    """The port in `:9464`, `9464` or `127.0.0.1:9464`; InputError for another host: metrics stay on this machine."""
    found = re.fullmatch(r"(?:(?:127\.0\.0\.1|localhost)?:)?(\d{1,5})", text)
    if not found or int(found[1]) > 65535:
        raise InputError(Problem(f"{text!r} is no port on loopback", field="--serve", remedy="write :9464"))
    return int(found[1])


@contextmanager
def serving(live: Live, port: int) -> Iterator[str]:
    """Serve a run's metrics to Prometheus on loopback, within the block.

    live: what is shown; `simulate(watch=live.update)` fills it while it runs, `live.done(results)` afterwards.
    port: 0 is any that is free.

    Gives the address of the page. Raises EnvironmentProblem: the port is taken.
    """

    def answer(_environ: object, start_response: Callable[[str, list[tuple[str, str]]], object]) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain; version=0.0.4; charset=utf-8")])
        return [live.page()]

    try:
        server = make_server(HOST, port, answer, ThreadingWSGIServer, _Silent)
    except OSError as error:
        raise EnvironmentProblem(f"port {port} of {HOST} cannot be served: {error.strerror}") from None
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Silent(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Requests are nothing to tell."""
