"""Access logs of a proxy: to files, to services that speak Envoy's own protocols, and to OpenTelemetry collectors.

Source: pilot/pkg/model/{telemetry,telemetry_logging}.go, pilot/pkg/networking/core/accesslog.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from json import loads
from typing import Any as Json
from typing import NamedTuple

from envoy_data_plane.envoy.config.accesslog.v3 import (
    AccessLog,
    AccessLogFilter,
    AndFilter,
    ExtensionFilter,
    ResponseFlagFilter,
)
from envoy_data_plane.envoy.config.core.v3 import (
    ApiVersion,
    DataSource,
    GrpcService,
    GrpcServiceEnvoyGrpc,
    JsonFormatOptions,
    SubstitutionFormatString,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.extensions.access_loggers.file.v3 import FileAccessLog
from envoy_data_plane.envoy.extensions.access_loggers.filters.cel.v3 import ExpressionFilter
from envoy_data_plane.envoy.extensions.access_loggers.grpc.v3 import (
    CommonGrpcAccessLogConfig,
    HttpGrpcAccessLogConfig,
    TcpGrpcAccessLogConfig,
)
from envoy_data_plane.envoy.extensions.access_loggers.open_telemetry.v3 import OpenTelemetryAccessLogConfig
from envoy_data_plane.google.protobuf import Any
from envoy_data_plane.opentelemetry.proto.common.v1 import AnyValue, KeyValue, KeyValueList

from pushsim.mesh import Object, truth
from pushsim.sizes.settings import Settings, Spec, collector_of, dig, provider_names
from pushsim.sizes.switches import Sizing
from pushsim.sizes.wire import blob, framed, length, made, packed, struct

#: Length of istiod's default text format (telemetry_logging.go, EnvoyTextLogFormat).
DEFAULT_LOG_FORMAT = 530
_LOGGERS = "envoy.extensions.access_loggers."
_CEL = "envoy.access_loggers.extension_filters.cel"
#: Filter state that metadata exchange leaves, which logs to services carry: its older and its newer names.
_WASM_STATE = ("wasm.upstream_peer", "wasm.upstream_peer_id", "wasm.downstream_peer", "wasm.downstream_peer_id")
_PEER_STATE = ("upstream_peer", "downstream_peer")
_BOTH_STATES = (*_PEER_STATE, *_WASM_STATE)
#: Commands in formats that take a formatter: its name and type.
_FORMATTERS = {
    "%REQ_WITHOUT_QUERY": ("req_without_query", "ReqWithoutQuery"),
    "%METADATA": ("metadata", "Metadata"),
    "%CEL": ("cel", "Cel"),
}


class _Logger(NamedTuple):
    """A logger's name and configuration."""

    name: str
    config: Any


class _Logs(NamedTuple):
    """Of one direction: of HTTP connection managers, of TCP proxies, and of listeners."""

    http: Sequence[AccessLog] = ()
    tcp: Sequence[AccessLog] = ()
    listener: Sequence[AccessLog] = ()


class AccessLogs(NamedTuple):
    """The access logs of a proxy, by direction."""

    client: _Logs = _Logs()
    server: _Logs = _Logs()

    def http(self, *, inbound: bool, gateway: bool = False, tcp: bool = True) -> list[AccessLog]:
        """Of a TCP proxy, or of an HTTP connection manager."""
        logs = self.server if inbound and not gateway else self.client
        return list(logs.tcp if tcp else logs.http)

    def listener(self, *, inbound: bool) -> list[AccessLog]:
        """Of a listener: connections that matched no chain."""
        return list((self.server if inbound else self.client).listener)


def access_logs(objects: Sequence[Object], settings: Settings, sizing: Sizing) -> AccessLogs:
    """What Telemetry objects ask for, that of later ones counting; else what the mesh config does."""
    levels = [level for obj in objects if (level := obj.spec.get("accessLogging"))]
    default = [str(n) for n in dig(settings.mesh, "defaultProviders", "accessLogging") or ()]
    if not levels and not default:
        mesh = _of_mesh(settings, sizing)
        return AccessLogs(mesh, mesh)
    return AccessLogs(*(_of_mode(levels, default, mode, settings, sizing) for mode in ("CLIENT", "SERVER")))


def _of_mode(
    levels: Sequence[Sequence[Spec]], default: list[str], mode: str, settings: Settings, sizing: Sizing
) -> _Logs:
    merged = _merged(levels, default, mode, sizing)
    known = {name: made for name in sorted(merged) if (made := _provided(name, settings, sizing)) is not None}
    if not known and sizing.log_merging == "each":
        return _of_mesh(settings, sizing)
    asked = [(known[name], on.expression) for name in known if (on := merged[name]).enabled]
    plain = [_log(logger, _cel(expression)) for logger, expression in asked]
    return _Logs(plain, plain, _unmatched(settings, (_log(logger, _NR, _cel(text)) for logger, text in asked)))


class _Switch(NamedTuple):
    """Whether a provider is on, and its CEL filter, if any."""

    enabled: bool
    expression: str | None = None


def _merged(levels: Sequence[Sequence[Spec]], default: list[str], mode: str, sizing: Sizing) -> dict[str, _Switch]:
    """Providers by name (telemetry.go, mergeLogs); each object with logs is a level."""
    if not levels:
        return dict.fromkeys(default, _Switch(True))
    each, specs = sizing.log_merging == "each", list(chain.from_iterable(levels))
    scope, filters = default, dict[str, str | None]()
    for level in levels if sizing.log_merging != "one" else [[spec] for spec in specs]:
        names: list[str] = []
        for spec in level:
            if each and not _is_for(spec, mode):
                continue
            own = provider_names(spec)
            names += own
            filters.update(dict.fromkeys(own, _expression(spec)))
        scope = names or scope
    if sizing.log_merging == "one":
        written = [text for spec in specs if (text := _expression(spec)) is not None]
        filters = dict.fromkeys(scope, written[-1] if written else None)
    found, parent = dict[str, _Switch](), default
    for spec in specs:
        parent = provider_names(spec) or parent
        for name in parent if _is_for(spec, mode) else ():
            if name not in scope:
                continue
            if not truth(spec.get("disabled"), False):
                found[name] = _Switch(True, filters.get(name))
            elif each:
                found[name] = _Switch(False)
            else:
                found.pop(name, None)
    return found


def _is_for(spec: Spec, mode: str) -> bool:
    return dig(spec, "match", "mode") in (None, "CLIENT_AND_SERVER", mode)


def _expression(spec: Spec) -> str | None:
    chosen = spec.get("filter")
    return None if chosen is None else str(chosen.get("expression") or "")


# ---- around loggers

_NR = made(AccessLogFilter, response_flag_filter=made(ResponseFlagFilter, flags=["NR"]))


@lru_cache
def _cel(expression: str | None) -> AccessLogFilter | None:
    if expression is None:
        return None
    cel = packed(ExpressionFilter(expression=expression), _LOGGERS + "filters.cel.v3.ExpressionFilter")
    return made(AccessLogFilter, extension_filter=ExtensionFilter(name=_CEL, typed_config=cel))


def _log(logger: _Logger, *filters: AccessLogFilter | None) -> AccessLog:
    parts = [part for part in filters if part is not None]
    only = parts[0] if parts else None
    if len(parts) > 1:
        only = made(AccessLogFilter, and_filter=made(AndFilter, filters=parts))
    return made(AccessLog, name=logger.name, filter=only, typed_config=logger.config)


def _unmatched(settings: Settings, logs: Iterable[AccessLog]) -> list[AccessLog]:
    return [] if truth(settings.mesh.get("disableEnvoyListenerLog"), False) else list(logs)


@lru_cache
def _of_mesh(settings: Settings, sizing: Sizing) -> _Logs:
    """What the mesh config asks for: a file, and the service that the bootstrap knows."""
    http: list[_Logger] = []
    if settings.mesh.get("accessLogFile"):
        http.append(_mesh_file(str(settings.mesh["accessLogFile"]), settings, sizing))
    tcp, listener = list(http), list(http)
    if truth(settings.mesh.get("enableEnvoyAccessLogService"), False):
        state = _WASM_STATE if sizing.log_state == "wasm" else _BOTH_STATES
        http.append(_http_service(_common("http_envoy_accesslog", state), {}))
        tcp.append(_tcp_service(_common("tcp_envoy_accesslog", state)))
        listener.append(_tcp_service(_common("listener_envoy_accesslog", state)))
    return _Logs([*map(_log, http)], [*map(_log, tcp)], _unmatched(settings, (_log(each, _NR) for each in listener)))


# ---- loggers


@lru_cache
def _provided(name: str, settings: Settings, sizing: Sizing) -> _Logger | None:
    """That of an extension provider; None if it logs nothing (telemetryAccessLog)."""
    provider = settings.provider(name)
    if provider is None:
        return None
    if (file := provider.get("envoyFileAccessLog")) is not None:
        return _file(str(provider["name"]), file, settings, sizing)
    peers = _WASM_STATE if sizing.log_state == "wasm" else _PEER_STATE
    if (http := provider.get("envoyHttpAls")) is not None:
        return _http_service(_common(http.get("logName") or "http_envoy_accesslog", _state(http, peers), http), http)
    if (tcp := provider.get("envoyTcpAls")) is not None:
        return _tcp_service(_common(tcp.get("logName") or "tcp_envoy_accesslog", _state(tcp, peers), tcp))
    if (collector := provider.get("envoyOtelAls")) is not None:
        return _otel(collector, _BOTH_STATES if sizing.log_state == "otel" else peers, settings, sizing)
    return None


def _state(spec: Spec, default: Sequence[str]) -> Sequence[str]:
    return [str(each) for each in spec.get("filterStateObjectsToLog") or default]


def _common(name: str, state: Sequence[str], spec: Spec | None = None) -> CommonGrpcAccessLogConfig:
    service = made(GrpcServiceEnvoyGrpc, cluster_name="envoy_accesslog_service")
    if spec is not None:
        host, cluster = collector_of(spec)
        service = made(GrpcServiceEnvoyGrpc, cluster_name=cluster, authority=host)
    return made(
        CommonGrpcAccessLogConfig,
        log_name=name,
        grpc_service=made(GrpcService, envoy_grpc=service),
        transport_api_version=ApiVersion.V3,
        filter_state_objects_to_log=list(state),
    )


def _http_service(common: CommonGrpcAccessLogConfig, spec: Spec) -> _Logger:
    config = made(
        HttpGrpcAccessLogConfig,
        common_config=common,
        additional_request_headers_to_log=list(spec.get("additionalRequestHeadersToLog") or ()),
        additional_response_headers_to_log=list(spec.get("additionalResponseHeadersToLog") or ()),
        additional_response_trailers_to_log=list(spec.get("additionalResponseTrailersToLog") or ()),
    )
    return _Logger("envoy.access_loggers.http_grpc", packed(config, _LOGGERS + "grpc.v3.HttpGrpcAccessLogConfig"))


def _tcp_service(common: CommonGrpcAccessLogConfig) -> _Logger:
    config = made(TcpGrpcAccessLogConfig, common_config=common)
    return _Logger("envoy.tcp_grpc_access_log", packed(config, _LOGGERS + "grpc.v3.TcpGrpcAccessLogConfig"))


def _otel(spec: Spec, state: Sequence[str], settings: Settings, sizing: Sizing) -> _Logger:
    common = _common(str(spec.get("logName") or "otel_envoy_accesslog"), state, spec)
    written, labels = str(dig(spec, "logFormat", "text") or ""), dig(spec, "logFormat", "labels") or {}
    attributes = [
        made(KeyValue, key=key, value=made(AnyValue, string_value=value if isinstance(value, str) else ""))
        for key, value in labels.items()
    ]
    told = sizing.otel_labels == "asked" and settings.enabled("ENABLE_OTEL_BUILTIN_RESOURCE_LABELS", False)
    config = made(
        OpenTelemetryAccessLogConfig,
        disable_builtin_labels=sizing.otel_labels != "always" and not told,
        body=made(AnyValue, string_value=written or _default_text(sizing)),
        attributes=made(KeyValueList, values=attributes) if attributes else None,
        formatters=_formatters([written, *labels.values()], sizing) if sizing.otel_formatters else [],
    )
    size = framed(length(common)) + length(config)  # to set common_config is deprecated, of which Python would warn
    kind = _LOGGERS + "open_telemetry.v3.OpenTelemetryAccessLogConfig"
    return _Logger("envoy.access_loggers.open_telemetry", blob(kind, size))


def _file(name: str, spec: Spec, settings: Settings, sizing: Sizing) -> _Logger:
    path, chosen = str(spec.get("path") or "/dev/stdout"), spec.get("logFormat")
    omits = "omitEmptyValues" in sizing.reads and truth(spec.get("omitEmptyValues"), False)
    if name == "envoy" and chosen is None and not omits and sizing.builtin_log:
        return _mesh_file(path, settings, sizing)
    shape = None
    if chosen is not None and chosen.get("labels") is not None:
        shape = _json(chosen["labels"], sizing)
    elif chosen is None or chosen.get("text") is not None:
        shape = _text(str(dig(chosen, "text") or ""), sizing, ends=sizing.log_newline != "")
    if shape is not None:
        shape.omit_empty_values = omits
    return _file_logger(path, shape)


def _mesh_file(path: str, settings: Settings, sizing: Sizing) -> _Logger:
    """A file in the format of the mesh config."""
    written = str(settings.mesh.get("accessLogFormat") or "")
    if settings.mesh.get("accessLogEncoding") != "JSON":
        return _file_logger(path, _text(written, sizing, ends=sizing.log_newline == "all"))
    try:
        fields = loads(written) if written else {}
    except ValueError:
        return _file_logger(path, _json({}, sizing))
    return _file_logger(path, _json(fields, sizing))


def _file_logger(path: str, shape: SubstitutionFormatString | None) -> _Logger:
    body = FileAccessLog(path=path, log_format=shape)
    return _Logger("envoy.access_loggers.file", packed(body, _LOGGERS + "file.v3.FileAccessLog"))


def _text(written: str, sizing: Sizing, *, ends: bool) -> SubstitutionFormatString:
    """A line; `ends`: where it has no end, istiod gives it one."""
    line = f"{written}\n" if ends and written and not written.endswith("\n") else written
    return SubstitutionFormatString(
        text_format_source=DataSource(inline_string=line or _default_text(sizing)),
        formatters=_formatters([line], sizing),
    )


def _default_text(sizing: Sizing) -> str:
    return "x" * (DEFAULT_LOG_FORMAT - (0 if sizing.cluster_raw else len("_RAW")))


def _json(fields: Mapping[str, Json], sizing: Sizing) -> SubstitutionFormatString:
    own = dict(_JSON_FIELDS)
    if not sizing.cluster_raw:
        own["upstream_cluster"] = "%UPSTREAM_CLUSTER%"
    return SubstitutionFormatString(
        json_format=struct(fields or own),
        json_format_options=JsonFormatOptions() if sizing.json_options else None,
        formatters=_formatters(fields.values(), sizing),
    )


def _formatters(texts: Iterable[Json], sizing: Sizing) -> list[TypedExtensionConfig]:
    """Those that commands in a format take, but for commands that Envoy knows itself."""
    written = [text for text in texts if isinstance(text, str)]
    commands = _FORMATTERS if sizing.log_formatters == "all" else ("%REQ_WITHOUT_QUERY",)
    asked = (_FORMATTERS[command] for command in commands if any(command in text for text in written))
    return [
        made(
            TypedExtensionConfig,
            name=f"envoy.formatter.{name}",
            typed_config=blob(f"envoy.extensions.formatter.{name}.v3.{kind}"),
        )
        for name, kind in asked
    ]


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
