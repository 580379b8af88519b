"""Telemetry: metrics filters, tracing and access logs of a proxy, from the mesh config and the Telemetry objects.

Source: pilot/pkg/model/telemetry.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any as Json
from typing import NamedTuple

from pushsim.mesh import Object, Proxy, truth
from pushsim.sizes.accesslogs import AccessLogs, access_logs
from pushsim.sizes.peers import selected
from pushsim.sizes.settings import Settings, Spec, dig, provider_names
from pushsim.sizes.switches import Sizing
from pushsim.sizes.tracing import Tracing, tracing
from pushsim.sizes.wire import duration, framed, text, varint

#: Metrics that ALL_METRICS stands for, by Prometheus name (telemetry.go, metricToPrometheusMetric).
PROMETHEUS = {
    "REQUEST_COUNT": "requests_total",
    "REQUEST_DURATION": "request_duration_milliseconds",
    "REQUEST_SIZE": "request_bytes",
    "RESPONSE_SIZE": "response_bytes",
    "TCP_OPENED_CONNECTIONS": "tcp_connections_opened_total",
    "TCP_CLOSED_CONNECTIONS": "tcp_connections_closed_total",
    "TCP_SENT_BYTES": "tcp_sent_bytes_total",
    "TCP_RECEIVED_BYTES": "tcp_received_bytes_total",
    "GRPC_REQUEST_MESSAGES": "request_messages_total",
    "GRPC_RESPONSE_MESSAGES": "response_messages_total",
}


class Override(NamedTuple):
    """What a Telemetry makes of one metric: a stats.MetricConfig.

    tags: (name, value) pairs; None where it removes one.
    """

    name: str
    drop: bool
    tags: tuple[tuple[str, str | None], ...]

    @property
    def length(self) -> int:
        """In the plugin's config, framed: dimensions, name, tags to remove, drop."""
        size = text(len(self.name)) + (2 if self.drop else 0)
        for tag, value in self.tags:
            size += framed(len(tag)) if value is None else framed(text(len(tag)) + text(len(value)))
        return framed(size)

    @property
    def plain(self) -> dict[str, Json]:
        """The same as JSON."""
        found: dict[str, Json] = {
            "dimensions": {tag: value for tag, value in self.tags if value is not None},
            "name": self.name,
            "tags_to_remove": [tag for tag, value in self.tags if value is None],
            "drop": self.drop,
        }
        return {field: value for field, value in found.items() if value}


@dataclass(frozen=True)
class MetricsFilter:
    """The Prometheus filter of a direction. interval: how often it reports of TCP connections, as written."""

    overrides: tuple[Override, ...] = ()
    interval: str = ""

    @property
    def length(self) -> int:
        """What that adds to the plugin's config."""
        return self._interval_length + sum(override.length for override in self.overrides)

    @property
    def _interval_length(self) -> int:
        if not self.interval:
            return 0
        seconds, micros = divmod(round(duration(self.interval).total_seconds() * 10**6), 10**6)
        return framed(sum(1 + varint(number) for number in (seconds, micros * 1000) if number))


@dataclass(frozen=True)
class Metrics:
    """The Prometheus filter, by direction: None for no filter."""

    client: MetricsFilter | None = None
    server: MetricsFilter | None = None

    def filter(self, *, inbound: bool) -> MetricsFilter | None:
        """That of a direction."""
        return self.server if inbound else self.client


@dataclass(frozen=True)
class Telemetry:
    """All of it for one proxy."""

    metrics: Metrics = field(default=Metrics())
    tracing: Tracing = field(default=Tracing())
    logs: AccessLogs = field(default=AccessLogs())


def telemetry(objects: Sequence[Object], settings: Settings, sizing: Sizing) -> Telemetry:
    """What applies, given the Telemetry objects that do: root namespace, namespace, selected; in that order."""
    return Telemetry(
        _metrics(objects, settings, sizing), tracing(objects, settings, sizing), access_logs(objects, settings, sizing)
    )


_MODES = ("CLIENT", "SERVER")


def _metrics(objects: Sequence[Object], settings: Settings, sizing: Sizing) -> Metrics:
    specs = [spec for obj in objects for spec in obj.spec.get("metrics") or ()]
    default = [str(n) for n in dig(settings.mesh, "defaultProviders", "metrics") or ()]
    names = default
    for spec in specs:
        names = provider_names(spec) or names
    chosen = {name for name in names if "prometheus" in (settings.provider(name) or ())}
    if not chosen:
        return Metrics()
    merged, interval, parent = _Merged(sizing), "", default
    for spec in specs:
        parent = provider_names(spec) or parent
        if chosen.isdisjoint(parent):
            continue
        interval = str(spec.get("reportingInterval") or interval)
        for override in spec.get("overrides") or ():
            merged.add(override)
    return Metrics(*(merged.filter(mode, interval) for mode in _MODES))


class _Merged:
    """Overrides so far, by mode and metric, and the modes without any metrics (mergeMetrics)."""

    def __init__(self, sizing: Sizing) -> None:
        self._sizing = sizing
        self._metrics: dict[str, dict[str, tuple[bool, dict[str, Spec]]]] = {mode: {} for mode in _MODES}
        self._off: set[str] = set()

    def add(self, override: Spec) -> None:
        """The next one."""
        match, switched = override.get("match") or {}, override.get("disabled")
        modes = [match["mode"]] if match.get("mode") in _MODES else _MODES
        switching = modes if self._sizing.metrics_by_mode else _MODES
        if truth(switched, False) and self._is_all(match):
            self._off.update(switching)
            return
        self._off.difference_update(switching)
        custom = match.get("customMetric")
        for metric in [str(custom)] if custom else _expand(str(match.get("metric") or "ALL_METRICS")):
            for mode in modes:
                drop, tags = self._metrics[mode].get(metric, (False, {}))
                drop = drop if switched is None else truth(switched, False)
                self._metrics[mode][metric] = (drop, {**tags, **(override.get("tagOverrides") or {})})

    def _is_all(self, match: Spec) -> bool:
        default = "ALL_METRICS" if self._sizing.metrics_by_mode else ""
        return not match.get("customMetric") and (match.get("metric") or default) == "ALL_METRICS"

    def filter(self, mode: str, interval: str) -> MetricsFilter | None:
        """That of a mode."""
        if mode in self._off:
            return None
        return MetricsFilter(tuple(_override(name, *how) for name, how in self._metrics[mode].items()), interval)


def _expand(metric: str) -> list[str]:
    return list(PROMETHEUS.values()) if metric == "ALL_METRICS" else [PROMETHEUS.get(metric, metric)]


def _override(name: str, drop: bool, tags: Mapping[str, Spec]) -> Override:
    removed = {tag for tag, how in tags.items() if how.get("operation") == "REMOVE"}
    return Override(
        name, drop, tuple((tag, None if tag in removed else str(how.get("value") or "")) for tag, how in tags.items())
    )


def applying_telemetries(objects: Sequence[Object], proxy: Proxy, root: str) -> list[Object]:
    """Root-namespace, namespace and selected Telemetry objects; the oldest of each kind counts."""
    plain = [o for o in objects if not o.selects]
    mesh = [o for o in plain if o.ref.namespace == root][:1]
    namespace = [o for o in plain if o.ref.namespace == proxy.namespace != root][:1]
    mine = [o for o in objects if o not in plain and o.ref.namespace == proxy.namespace and selected(o, proxy)][:1]
    return [*mesh, *namespace, *mine]
