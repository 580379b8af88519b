"""Telemetry: metrics filters, tracing and access logs of a proxy, from the mesh config and the Telemetry objects.

Source: pilot/pkg/model/{telemetry,telemetry_logging}.go, pilot/pkg/networking/core/{accesslog,tracing}.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any as Json
from typing import NamedTuple

from envoy_data_plane.envoy.config.accesslog.v3 import (
    AccessLog,
    AccessLogFilter,
    ExtensionFilter,
    ResponseFlagFilter,
)
from envoy_data_plane.envoy.config.core.v3 import DataSource, JsonFormatOptions, SubstitutionFormatString
from envoy_data_plane.envoy.extensions.access_loggers.file.v3 import FileAccessLog
from envoy_data_plane.envoy.extensions.access_loggers.filters.cel.v3 import ExpressionFilter

from pushsim.mesh import Object, truth
from pushsim.sizes.releases import Sizing
from pushsim.sizes.settings import Settings, dig
from pushsim.sizes.wire import framed, packed, struct, text

Spec = Mapping[str, Json]
#: Length of istiod's default text format (telemetry_logging.go, EnvoyTextLogFormat).
DEFAULT_LOG_FORMAT = 530
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
    """The Prometheus filter of a direction. interval: it says how often it reports of TCP connections."""

    overrides: tuple[Override, ...] = ()
    interval: bool = False

    @property
    def length(self) -> int:
        """What that adds to the plugin's config."""
        return (4 if self.interval else 0) + sum(override.length for override in self.overrides)


@dataclass(frozen=True)
class Metrics:
    """The Prometheus filter, by direction: None for no filter."""

    client: MetricsFilter | None = None
    server: MetricsFilter | None = None

    def filter(self, *, inbound: bool) -> MetricsFilter | None:
        """That of a direction."""
        return self.server if inbound else self.client


@dataclass(frozen=True)
class Tracing:
    """Tracing of HTTP connection managers.

    zipkin: (host, cluster) of the provider, None where the bootstrap has it. tags: custom ones, (name, literal).
    """

    disabled: bool = False
    sampling: float = 1.0
    zipkin: tuple[str, str] | None = None
    tags: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class AccessLogs:
    """File access logs, by direction: (path, text format or "", JSON fields, CEL filter) each."""

    client: tuple[FileLog, ...] = ()
    server: tuple[FileLog, ...] = ()

    def http(self, *, inbound: bool, gateway: bool = False) -> list[AccessLog]:
        """Of an HTTP connection manager or a TCP proxy."""
        return [_access_log(log, "") for log in (self.server if inbound and not gateway else self.client)]

    def listener(self, *, inbound: bool) -> list[AccessLog]:
        """Of a listener: connections that matched no chain."""
        return [_access_log(log, "NR") for log in (self.server if inbound else self.client)]


@dataclass(frozen=True)
class FileLog:
    """One log file; format is a text, or JSON fields, or neither for istiod's own text."""

    path: str
    format: str = ""
    fields: tuple[tuple[str, str], ...] = ()
    json: bool = False
    expression: str = ""
    raw: bool = True
    options: bool = True


@lru_cache
def _access_log(log: FileLog, flag: str) -> AccessLog:
    shape = SubstitutionFormatString()
    if log.json:
        fields = dict(log.fields or _JSON_FIELDS)
        if not log.fields and not log.raw:
            fields["upstream_cluster"] = "%UPSTREAM_CLUSTER%"
        shape.json_format = struct(fields)
        shape.json_format_options = JsonFormatOptions() if log.options else None
    else:
        written = log.format or "x" * (DEFAULT_LOG_FORMAT - (0 if log.raw else len("_RAW")))
        shape.text_format_source = DataSource(
            inline_string=written if written.endswith("\n") or not log.format else written + "\n"
        )
    body = FileAccessLog(path=log.path, log_format=shape)
    parts = []
    if flag:
        parts.append(AccessLogFilter(response_flag_filter=ResponseFlagFilter(flags=[flag])))
    if log.expression:
        cel = packed(
            ExpressionFilter(expression=log.expression),
            "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
        )
        name = "envoy.access_loggers.extension_filters.cel"
        parts.append(AccessLogFilter(extension_filter=ExtensionFilter(name=name, typed_config=cel)))
    only = parts[0] if parts else None
    if len(parts) > 1:
        from envoy_data_plane.envoy.config.accesslog.v3 import AndFilter

        only = AccessLogFilter(and_filter=AndFilter(filters=parts))
    return AccessLog(
        name="envoy.access_loggers.file",
        filter=only,
        typed_config=packed(body, "envoy.extensions.access_loggers.file.v3.FileAccessLog"),
    )


@dataclass(frozen=True)
class Telemetry:
    """All of it for one proxy."""

    metrics: Metrics = field(default=Metrics())
    tracing: Tracing = field(default=Tracing())
    logs: AccessLogs = field(default=AccessLogs())


def telemetry(objects: Sequence[Object], settings: Settings, sizing: Sizing) -> Telemetry:
    """What applies, given the Telemetry objects that do: root namespace, namespace, selected; in that order."""
    logs = _logs(objects, settings)
    as_release = AccessLogs(*(tuple(_of_release(log, sizing) for log in some) for some in (logs.client, logs.server)))
    return Telemetry(_metrics(objects, settings), _tracing(objects, settings), as_release)


def _of_release(log: FileLog, sizing: Sizing) -> FileLog:
    return replace(log, raw=sizing.cluster_raw, options=sizing.json_options)


def _names(spec: Spec) -> list[str]:
    return [str(provider["name"]) for provider in spec.get("providers") or ()]


def _providers(settings: Settings) -> dict[str, Spec]:
    known: dict[str, Spec] = {
        "prometheus": {"prometheus": {}},
        "envoy": {"envoyFileAccessLog": {"path": "/dev/stdout"}},
    }
    for provider in settings.mesh.get("extensionProviders") or ():
        known[str(provider["name"])] = provider
    return known


def _specs(objects: Iterable[Object], part: str) -> list[Spec]:
    return [spec for obj in objects for spec in obj.spec.get(part) or ()]


def _metrics(objects: Sequence[Object], settings: Settings) -> Metrics:
    specs = _specs(objects, "metrics")
    names = [str(n) for n in dig(settings.mesh, "defaultProviders", "metrics") or ()]
    for spec in specs:
        names = _names(spec) or names
    known = _providers(settings)
    if not any("prometheus" in known.get(name, {}) for name in names):
        return Metrics()
    modes: dict[str, dict[str, tuple[bool, dict[str, Spec]]]] = {"CLIENT": {}, "SERVER": {}}
    off: set[str] = set()
    interval = False
    for spec in specs:
        interval |= bool(spec.get("reportingInterval"))
        for override in spec.get("overrides") or ():
            match = override.get("match") or {}
            mode, metric = str(match.get("mode") or "CLIENT_AND_SERVER"), match.get("metric") or "ALL_METRICS"
            chosen = [mode] if mode in modes else list(modes)
            disabled = truth(override.get("disabled"), False)
            if metric == "ALL_METRICS" and not match.get("customMetric") and disabled:
                off.update(chosen)
                continue
            metrics = [str(match["customMetric"])] if match.get("customMetric") else _expand(str(metric))
            for each in chosen:
                off.discard(each)
                for name in metrics:
                    drop, tags = modes[each].get(name, (False, {}))
                    modes[each][name] = (disabled or drop, {**tags, **(override.get("tagOverrides") or {})})
    made = {
        mode: None if mode in off else MetricsFilter(tuple(_override(n, *how) for n, how in by_name.items()), interval)
        for mode, by_name in modes.items()
    }
    return Metrics(made["CLIENT"], made["SERVER"])


def _expand(metric: str) -> list[str]:
    return list(PROMETHEUS.values()) if metric == "ALL_METRICS" else [PROMETHEUS.get(metric, metric)]


def _override(name: str, drop: bool, tags: Mapping[str, Spec]) -> Override:
    removed = {tag for tag, how in tags.items() if how.get("operation") == "REMOVE"}
    return Override(
        name, drop, tuple((tag, None if tag in removed else str(how.get("value") or "")) for tag, how in tags.items())
    )


def _tracing(objects: Sequence[Object], settings: Settings) -> Tracing:
    specs = _specs(objects, "tracing")
    names = [str(n) for n in dig(settings.mesh, "defaultProviders", "tracing") or ()]
    legacy = dig(settings.mesh, "defaultConfig", "tracing") or {}
    sampling = float(legacy.get("sampling") or settings.env.get("PILOT_TRACE_SAMPLING") or 1.0)
    tags = {str(k): dict(v) for k, v in (legacy.get("customTags") or {}).items()}
    if not specs and not names:
        off = not truth(settings.mesh.get("enableTracing"), True)
        return Tracing(off, sampling, None, _literals(tags))
    disabled = False
    for spec in specs:
        names = _names(spec) or names
        if spec.get("disableSpanReporting") is not None:
            disabled = truth(spec["disableSpanReporting"], False)
        if spec.get("customTags") is not None:
            tags = {str(k): dict(v) for k, v in spec["customTags"].items()}
        if spec.get("randomSamplingPercentage") is not None:
            sampling = float(spec["randomSamplingPercentage"])
    provider = _providers(settings).get(names[0]) if names else None
    if provider is None:
        return Tracing(disabled=True)
    zipkin = provider.get("zipkin")
    found = None
    if zipkin:
        host = str(zipkin.get("service") or "").rpartition("/")[2]
        found = (host, f"outbound|{zipkin.get('port')}||{host}")
    return Tracing(disabled, sampling, found, _literals(tags))


def _literals(tags: Mapping[str, Spec]) -> tuple[tuple[str, str], ...]:
    return tuple((name, str(dig(how, "literal", "value") or "")) for name, how in sorted(tags.items()))


def _logs(objects: Sequence[Object], settings: Settings) -> AccessLogs:
    specs = _specs(objects, "accessLogging")
    default = [str(n) for n in dig(settings.mesh, "defaultProviders", "accessLogging") or ()]
    legacy: tuple[FileLog, ...] = ()
    if settings.mesh.get("accessLogFile"):
        legacy = (_mesh_log(settings, str(settings.mesh["accessLogFile"])),)
    if not specs and not default:
        return AccessLogs(legacy, legacy)
    return AccessLogs(*(_of_mode(specs, default, mode, settings) or legacy for mode in ("CLIENT", "SERVER")))


def _of_mode(specs: Sequence[Spec], default: list[str], mode: str, settings: Settings) -> tuple[FileLog, ...]:
    chosen, parent = default, default
    states: dict[str, tuple[bool, str]] = {} if specs else dict.fromkeys(default, (True, ""))
    matching = [s for s in specs if dig(s, "match", "mode") in (None, "CLIENT_AND_SERVER", mode)]
    for spec in matching:
        chosen = _names(spec) or chosen
    for spec in specs:
        parent = _names(spec) or parent
        for name in parent:
            if name in chosen and spec in matching:
                enabled = not truth(spec.get("disabled"), False)
                states[name] = (enabled, str(dig(spec, "filter", "expression") or ""))
    logs = []
    for name, (enabled, expression) in sorted(states.items()):
        file = (_providers(settings).get(name) or {}).get("envoyFileAccessLog")
        if not enabled or file is None:
            continue
        logs.append(_provider_log(name, file, settings, expression))
    return tuple(logs)


def _mesh_log(settings: Settings, path: str) -> FileLog:
    encoding, written = settings.mesh.get("accessLogEncoding"), str(settings.mesh.get("accessLogFormat") or "")
    return FileLog(path, "" if encoding == "JSON" else written, json=encoding == "JSON")


def _provider_log(name: str, file: Spec, settings: Settings, expression: str) -> FileLog:
    path = str(file.get("path") or "/dev/stdout")
    shape = file.get("logFormat")
    if shape is None:
        base = _mesh_log(settings, path) if name == "envoy" else FileLog(path)
        return FileLog(base.path, base.format, base.fields, base.json, expression)
    labels = shape.get("labels")
    if labels is None:
        return FileLog(path, str(shape.get("text") or ""), expression=expression)
    return FileLog(path, fields=tuple((str(k), str(v)) for k, v in labels.items()), json=True, expression=expression)


#: istiod's JSON format (telemetry_logging.go, EnvoyJSONLogFormatIstio): field and command operator.
_JSON_FIELDS = (
    ("start_time", "%START_TIME%"), ("route_name", "%ROUTE_NAME%"), ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"), ("protocol", "%PROTOCOL%"), ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"), ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"), ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"), ("duration", "%DURATION%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"), ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"), ("request_id", "%REQ(X-REQUEST-ID)%"), ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"), ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
)  # fmt: skip
