"""istiod's own counters over a window of time: from a page of its metrics, two pages, or a Prometheus server."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pushsim.errors import EnvironmentProblem, InputError, Problem
from pushsim.metrics import Histogram, Labels, Scrape, read_openmetrics
from pushsim.units import SECOND_NS, UnitError, duration

#: What is asked of a Prometheus server: counters and histograms as increases, gauges as they are.
COUNTERS = (
    "pilot_inbound_updates",
    "pilot_push_triggers",
    "pilot_k8s_reg_events",
    "pilot_k8s_cfg_events",
    "pilot_xds_pushes",
    "process_cpu_seconds_total",
)
SUMMED = ("pilot_pushcontext_init_seconds", "pilot_xds_push_time", "pilot_xds_config_size_bytes")
GAUGES = (
    "pilot_services",
    "pilot_xds",
    "process_resident_memory_bytes",
    "go_memstats_heap_inuse_bytes",
    "go_memstats_next_gc_bytes",
)
_LISTED = ("pilot_k8s_reg_events", "pilot_k8s_cfg_events", "pilot_inbound_updates")
_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class Window:
    """What one istiod counted in so many seconds.

    since_start: the counters began at its start, and count what it then listed as added. source: for messages.
    """

    scrape: Scrape
    seconds: float
    since_start: bool
    source: str

    def rate(self, metric: str, **labels: str) -> float:
        """Increase per second."""
        return self.scrape.total(metric, **labels) / self.seconds


def seconds(window: str | None) -> float | None:
    """A --window in seconds. Raises InputError."""
    try:
        return duration(window) / SECOND_NS if window else None
    except UnitError as problem:
        raise InputError(Problem(str(problem), field="--window", remedy=problem.remedy)) from None


def read(sources: Sequence[str], window_s: float | None = None) -> Window:
    """The window of one page of metrics (since istiod's start), of two (from the first to the second), or of a server.

    sources: files, URLs of an istiod's /metrics, or one URL of a Prometheus server. window_s: asked of a server (an
    hour by default), or the time between two pages or since the start, where the pages do not tell it well.
    Raises InputError and EnvironmentProblem.
    """
    if not 1 <= len(sources) <= 2:
        raise InputError(Problem(f"{len(sources)} sources", remedy="give one page of metrics, two, or one server"))
    first = sources[0]
    if _is_url(first):
        text = _get(first)
        if "pilot_" not in text:
            if len(sources) > 1:
                raise InputError(Problem("is a server, which is enough alone", sources[1], remedy="give only one"))
            return _asked(first.rstrip("/"), window_s or 3600.0)
    pages = [_page(source) for source in sources]
    later = pages[-1]
    if len(pages) == 1:
        seconds = window_s or _moment(later, first) - _started(later, first)
        return Window(later, _positive(seconds, first), True, first)
    earlier = pages[0]
    if _started(earlier, first) != _started(later, sources[1]):
        message = "is of another process than the first page: istiod restarted between them"
        raise InputError(Problem(message, sources[1], remedy="take two pages of one istiod without a restart"))
    seconds = window_s or _moment(later, sources[1]) - _moment(earlier, first)
    return Window(_between(earlier, later), _positive(seconds, sources[1]), False, sources[1])


def _is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def _page(source: str) -> Scrape:
    if _is_url(source):
        text = _get(source)
    else:
        try:
            text = Path(source).read_text(encoding="utf-8")
        except OSError as problem:
            message = f"cannot be read: {problem.strerror}"
            raise InputError(Problem(message, source, remedy="save a page of istiod's :15014/metrics")) from None
        except UnicodeDecodeError:
            raise InputError(Problem("is not text", source, remedy="save a page of istiod's :15014/metrics")) from None
    try:
        scrape = read_openmetrics(text)
    except ValueError as problem:
        message = f"is no page of metrics: {problem}"
        raise InputError(Problem(message, source, remedy="save a page of istiod's :15014/metrics")) from None
    if not any(name.startswith("pilot_") for name, _ in scrape.values):
        raise InputError(Problem("holds no metrics of an istiod", source, remedy="save a page of :15014/metrics"))
    return scrape


def _get(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
            return str(answer.read().decode("utf-8", errors="replace"))
    except (urllib.error.URLError, OSError, ValueError) as problem:
        told = getattr(problem, "reason", problem)
        raise EnvironmentProblem(f"{url}: cannot be read: {told} (check the address, and that it is reached)") from None


def _started(scrape: Scrape, source: str) -> float:
    return _needed(scrape, "process_start_time_seconds", source)


def _moment(scrape: Scrape, source: str) -> float:
    """When the page was made, to two minutes: Go collects garbage at least that often, and says when it last did."""
    return _needed(scrape, "go_memstats_last_gc_time_seconds", source)


def _needed(scrape: Scrape, metric: str, source: str) -> float:
    found = scrape.total(metric)
    if not found:
        raise InputError(Problem(f"does not say {metric}", source, remedy="give --window, like 1h"))
    return found


def _positive(seconds: float, source: str) -> float:
    if seconds <= 0:
        raise InputError(Problem("covers no time", source, remedy="give --window, like 1h"))
    return seconds


def _between(earlier: Scrape, later: Scrape) -> Scrape:
    """Counters and histograms as they grew, gauges as they are."""
    values = {
        key: value - earlier.values.get(key, 0.0) if key[0] in COUNTERS or key[0].endswith("_total") else value
        for key, value in later.values.items()
    }
    histograms: dict[tuple[str, Labels], Histogram] = {}
    for key, histogram in later.histograms.items():
        before = earlier.histograms.get(key)
        histograms[key] = histogram - before if before is not None else histogram
    return Scrape(values, histograms)


# ---- a Prometheus server


def _asked(server: str, window_s: float) -> Window:
    """Averages over istiod's replicas: every replica hears of every change."""
    values: dict[tuple[str, Labels], float] = {}
    histograms: dict[tuple[str, Labels], Histogram] = {}
    span = f"[{round(window_s)}s]"
    for name in COUNTERS:
        asked = f"increase({name}{_of_istiod(name)}{span})"
        for labels, value in _query(server, f"avg by (type, event) (sum by (type, event, pod, instance) ({asked}))"):
            values[name.removesuffix("_total") if name.startswith("pilot") else name, labels] = value
    for name in GAUGES:
        for labels, value in _query(
            server, f"avg by (version) (sum by (version, pod, instance) ({name}{_of_istiod(name)}))"
        ):
            values[name, labels] = value
    for name in SUMMED:
        counted = dict(_query(server, f"sum by (type) (increase({name}_count{span}))"))
        for labels, total in _query(server, f"sum by (type) (increase({name}_sum{span}))"):
            histograms[name, labels] = Histogram((), (round(counted.get(labels, 0)),), total)
    if not any(name in _LISTED for name, _ in values):
        raise InputError(
            Problem("knows no metrics of istiod", server, remedy="does it scrape istiod's :15014/metrics?")
        )
    return Window(Scrape(values, histograms), window_s, False, server)


def _of_istiod(name: str) -> str:
    """Only istiods, where every process has such a metric."""
    return '{app="istiod"}' if name.startswith(("process_", "go_")) else ""


def _query(server: str, query: str) -> list[tuple[Labels, float]]:
    url = f"{server}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    text = _get(url)
    try:
        answer: Any = json.loads(text)
        result = answer["data"]["result"]
        return [(tuple(sorted(each["metric"].items())), float(each["value"][1])) for each in result]
    except (ValueError, KeyError, TypeError, IndexError):
        message = "is neither a page of istiod's metrics nor a Prometheus server"
        raise InputError(
            Problem(message, server, remedy="give http://PROMETHEUS:9090 or ISTIOD:15014/metrics")
        ) from None
