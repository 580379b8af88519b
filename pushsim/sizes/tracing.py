"""Tracing of HTTP connection managers: from Telemetry objects and providers, else from the proxies' default config.

Source: pilot/pkg/model/telemetry.go (Tracing), pilot/pkg/networking/core/tracing.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache
from posixpath import normpath
from typing import Any as Json
from typing import NamedTuple

from envoy_data_plane.envoy.config.core.v3 import (
    GrpcService,
    GrpcServiceEnvoyGrpc,
    HeaderValue,
    HeaderValueOption,
    HeaderValueOptionHeaderAppendAction,
    HttpService,
    HttpUri,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.config.trace.v3 import (
    DatadogConfig,
    OpenTelemetryConfig,
    SkyWalkingConfig,
    TracingHttp,
    ZipkinConfig,
    ZipkinConfigCollectorEndpointVersion,
    ZipkinConfigTraceContextOption,
)
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpConnectionManagerTracing
from envoy_data_plane.envoy.type.metadata.v3 import (
    MetadataKey,
    MetadataKeyPathSegment,
    MetadataKind,
    MetadataKindRequest,
)
from envoy_data_plane.envoy.type.tracing.v3 import (
    CustomTag,
    CustomTagEnvironment,
    CustomTagHeader,
    CustomTagLiteral,
    CustomTagMetadata,
)
from envoy_data_plane.envoy.type.v3 import Percent
from envoy_data_plane.google.protobuf import Any

from pushsim.mesh import Object, Proxy, truth
from pushsim.sizes.settings import Settings, Spec, collector_of, dig, provider_names
from pushsim.sizes.switches import Sizing
from pushsim.sizes.wire import blob, duration, framed, made, packed, text

_TRACE = "envoy.config.trace.v3."
_DETECTORS = "envoy.extensions.tracers.opentelemetry.resource_detectors.v3."
#: A provider's field, and how Envoy's tracer is called.
_TRACERS = {
    "zipkin": "zipkin", "datadog": "datadog", "lightstep": "opentelemetry", "skywalking": "skywalking",
    "opentelemetry": "opentelemetry", "opencensus": "opencensus",
}  # fmt: skip
_DRY_RUN = {
    "allow_policy.name": "istio_dry_run_allow_shadow_effective_policy_id",
    "allow_policy.result": "istio_dry_run_allow_shadow_engine_result",
    "deny_policy.name": "istio_dry_run_deny_shadow_effective_policy_id",
    "deny_policy.result": "istio_dry_run_deny_shadow_engine_result",
}


@dataclass(frozen=True, eq=False)
class Spans:
    """How an HTTP connection manager traces.

    provider: who gets the spans, None where the bootstrap knows it. tags: custom ones. istio_tags: Istio's own too.
    tag_length: where paths are cut, 0 for Envoy's default. spawns: spans of upstream requests, too. by_request_id: a
    request's id decides about its sampling. propagates: traces are handed on.
    """

    sampling: float = 1.0
    provider: TracingHttp | None = None
    tags: Sequence[CustomTag] = ()
    istio_tags: bool = True
    tag_length: int = 0
    spawns: bool = False
    by_request_id: bool = True
    propagates: bool = True


class Tracing(NamedTuple):
    """Tracing by direction: None for none."""

    client: Spans | None = Spans()
    server: Spans | None = Spans()

    def spans(self, *, inbound: bool) -> Spans | None:
        """That of a direction."""
        return self.server if inbound else self.client


def tracing(objects: Sequence[Object], settings: Settings, sizing: Sizing) -> Tracing:
    """What Telemetry objects say, later ones last; else what the mesh config does."""
    specs = [spec for obj in objects for spec in obj.spec.get("tracing") or ()]
    default = [str(n) for n in dig(settings.mesh, "defaultProviders", "tracing") or ()]
    if not specs and not default:
        spans = _of_mesh(settings, sizing)
        return Tracing(spans, spans)
    return Tracing(*(_of_mode(specs, default, mode, settings, sizing) for mode in ("CLIENT", "SERVER")))


def _of_mesh(settings: Settings, sizing: Sizing) -> Spans | None:
    if not truth(settings.mesh.get("enableTracing"), True):
        return None
    written = settings.proxy_config("tracing")
    return Spans(
        _mesh_sampling(settings),
        tags=_tags(written.get("customTags"), sizing),
        istio_tags="enableIstioTags" not in sizing.reads or truth(written.get("enableIstioTags"), True),
        tag_length=int(written.get("maxPathTagLength") or 0),
    )


def _mesh_sampling(settings: Settings) -> float:
    sampling = float(settings.proxy_config("tracing").get("sampling") or 0)
    if not sampling:
        return float(settings.env.get("PILOT_TRACE_SAMPLING") or 1.0)
    return sampling if sampling <= 100 else 1.0


#: Fields of a Telemetry's tracing that later ones override.
_OVERRIDING = (
    "disableSpanReporting", "customTags", "randomSamplingPercentage", "useRequestIdForTraceSampling",
    "enableIstioTags", "disableContextPropagation",
)  # fmt: skip


def _of_mode(
    specs: Iterable[Spec], default: Sequence[str], mode: str, settings: Settings, sizing: Sizing
) -> Spans | None:
    names, told = list(default[:1]), dict[str, Json]()
    for spec in specs:
        if dig(spec, "match", "mode") in (None, "CLIENT_AND_SERVER", mode):
            names = provider_names(spec) or names
            told |= {field: spec[field] for field in _OVERRIDING if spec.get(field) is not None}
    provider = settings.provider(names[0]) if names else None
    if provider is None or truth(told.get("disableSpanReporting"), False):
        return None
    spans = _provided(str(provider["name"]), settings, sizing)
    if spans is None:
        return None
    mesh = settings.proxy_config("tracing")
    sampling = told.get("randomSamplingPercentage")
    if sampling is None:
        sampling = _mesh_sampling(settings) if sizing.mesh_sampling else 0
    return replace(
        spans,
        sampling=float(sampling),
        tags=_tags(told.get("customTags") or mesh.get("customTags"), sizing),
        istio_tags="enableIstioTags" not in sizing.reads or truth(told.get("enableIstioTags"), True),
        tag_length=spans.tag_length or int(mesh.get("maxPathTagLength") or 0),
        by_request_id=truth(told.get("useRequestIdForTraceSampling"), True),
        propagates=not (
            "disableContextPropagation" in sizing.reads and truth(told.get("disableContextPropagation"), False)
        ),
    )


# ---- tags


def _tags(written: Mapping[str, Spec] | None, sizing: Sizing) -> list[CustomTag]:
    return [tag for name, how in (written or {}).items() if (tag := _tag(str(name), how, sizing)) is not None]


def _tag(name: str, how: Spec, sizing: Sizing) -> CustomTag | None:
    if (literal := how.get("literal")) is not None:
        return made(CustomTag, tag=name, literal=CustomTagLiteral(value=str(literal.get("value") or "")))
    if (header := how.get("header")) is not None:
        return made(CustomTag, tag=name, request_header=CustomTagHeader(**_named(header)))
    if (environment := how.get("environment")) is not None:
        return made(CustomTag, tag=name, environment=CustomTagEnvironment(**_named(environment)))
    if (formatter := how.get("formatter")) is not None and "formatter" in sizing.reads:
        return made(CustomTag, tag=name, value=str(formatter.get("value") or ""))
    return None


def _named(spec: Spec) -> dict[str, str]:
    return {"name": str(spec.get("name") or ""), "default_value": str(spec.get("defaultValue") or "")}


@lru_cache
def _istio_tags(cluster_id: bool, namespace: str, revision: str, service: str) -> tuple[CustomTag, ...]:
    """Tags that say who and where (buildServiceTags), and what policies on trial would have done."""
    dry_run = [
        made(
            CustomTag,
            tag=f"istio.authorization.dry_run.{name}",
            metadata=made(
                CustomTagMetadata,
                kind=made(MetadataKind, request=MetadataKindRequest()),
                metadata_key=made(MetadataKey, key="envoy.filters.http.rbac", path=[MetadataKeyPathSegment(key=path)]),
            ),
        )
        for name, path in _DRY_RUN.items()
    ]
    literals = {"canonical_revision": revision, "canonical_service": service, "mesh_id": "cluster.local"}
    if cluster_id:
        literals["cluster_id"] = "Kubernetes"
    literals["namespace"] = namespace
    own = [
        made(CustomTag, tag=f"istio.{name}", literal=CustomTagLiteral(value=value)) for name, value in literals.items()
    ]
    return (*dry_run, *own)


def _canonical(proxy: Proxy) -> tuple[str, str]:
    """Revision and service as injection labels them; without labels istiod says so."""
    labels: Mapping[str, Json] = proxy.labels
    service = labels.get("service.istio.io/canonical-name") or "unknown"
    return str(labels.get("service.istio.io/canonical-revision") or "latest"), str(service)


def traced(spans: Spans, proxy: Proxy, settings: Settings, sizing: Sizing) -> HttpConnectionManagerTracing:
    """What an HTTP connection manager of a proxy is told."""
    tags: Sequence[CustomTag] = ()
    if spans.istio_tags and (not sizing.istio_tags_switch or settings.enabled("PILOT_ENABLE_ISTIO_TAGS", True)):
        tags = _istio_tags(sizing.cluster_id_tag, proxy.namespace, *_canonical(proxy))
    spawns = spans.spawns and sizing.spawning == "manager"
    if spans.provider is not None and proxy.type == "router" and sizing.gateway_spans:
        default = sizing.gateway_spans != "off"
        spawns |= sizing.gateway_spans == "always" or settings.enabled("PILOT_SPAWN_UPSTREAM_SPAN_FOR_GATEWAY", default)
    return made(
        HttpConnectionManagerTracing,
        client_sampling=Percent(value=100.0),
        random_sampling=Percent(value=spans.sampling),
        overall_sampling=Percent(value=100.0),
        max_path_tag_length=spans.tag_length or None,
        custom_tags=[*tags, *spans.tags],
        provider=spans.provider,
        spawn_upstream_span=spawns or None,
        no_context_propagation=not spans.propagates,
    )


# ---- providers (configureFromProviderConfig)


@lru_cache
def _provided(name: str, settings: Settings, sizing: Sizing) -> Spans | None:
    """What an extension provider decides; None if it cannot trace."""
    provider = settings.provider(name) or {}
    kind = next((kind for kind in _TRACERS if provider.get(kind) is not None), "")
    config = _config(kind, provider.get(kind) or {}, settings, sizing) if kind else None
    if config is None:
        return None if sizing.tracers_only else Spans()
    tracer = _TRACERS[kind]
    if kind == "lightstep" and sizing.lightstep == "renamed":
        tracer = kind
    built = made(TracingHttp, name=f"envoy.tracers.{tracer}" if sizing.tracer_names else name, typed_config=config)
    cut = 0 if kind == "skywalking" else int(provider[kind].get("maxTagLength") or 0)
    return Spans(provider=built, tag_length=cut, spawns=kind == "skywalking")


def _config(kind: str, spec: Spec, settings: Settings, sizing: Sizing) -> Any | None:
    host, cluster = collector_of(spec)
    match kind:
        case "zipkin":
            return packed(_zipkin(spec, settings, sizing), _TRACE + "ZipkinConfig")
        case "datadog":
            datadog = DatadogConfig(collector_cluster=cluster, collector_hostname=host if sizing.datadog_host else "")
            return packed(datadog, _TRACE + "DatadogConfig")
        case "skywalking":
            return packed(SkyWalkingConfig(grpc_service=_grpc(spec)), _TRACE + "SkyWalkingConfig")
        case "opentelemetry" if "opentelemetry" in sizing.reads:
            return packed(_opentelemetry(spec, settings, sizing), _TRACE + "OpenTelemetryConfig")
        case "lightstep" if sizing.lightstep == "own":
            # a file with the token is deprecated, of which Python would warn
            return blob(_TRACE + "LightstepConfig", text(len(cluster)) + text(len(str(spec.get("accessToken") or ""))))
        case "lightstep" if sizing.lightstep:
            token = HeaderValue(key="lightstep-access-token", value=str(spec.get("accessToken") or ""))
            return packed(OpenTelemetryConfig(grpc_service=_grpc(spec, [token])), _TRACE + "OpenTelemetryConfig")
        case "opencensus" if sizing.opencensus:
            # {exporter enabled, address, contexts that are read, those that are written}: four unless some are named
            address, contexts = (
                f"{spec.get('service') or ''}:{spec.get('port') or 0}",
                len(spec.get("context") or "four"),
            )
            return blob(_TRACE + "OpenCensusConfig", 2 + text(len(address)) + 2 * framed(contexts))
    return None


def _grpc(spec: Spec, metadata: Sequence[HeaderValue] = (), timeout: timedelta | None = None) -> GrpcService:
    host, cluster = collector_of(spec)
    service = made(GrpcServiceEnvoyGrpc, cluster_name=cluster, authority=host)
    return made(GrpcService, envoy_grpc=service, timeout=timeout, initial_metadata=list(metadata))


def _zipkin(spec: Spec, settings: Settings, sizing: Sizing) -> ZipkinConfig:
    host, cluster = collector_of(spec)
    path = (str(spec.get("path") or "") if "zipkin.path" in sizing.reads else "") or "/api/v2/spans"
    config = made(
        ZipkinConfig,
        collector_endpoint_version=ZipkinConfigCollectorEndpointVersion.HTTP_JSON,
        trace_id_128bit=not (
            "zipkin.enable64bitTraceId" in sizing.reads and truth(spec.get("enable64bitTraceId"), False)
        ),
        shared_span_context=False,
    )
    if "zipkin.traceContextOption" in sizing.reads and spec.get("traceContextOption") == "USE_B3_WITH_W3C_PROPAGATION":
        config.trace_context_option = ZipkinConfigTraceContextOption.USE_B3_WITH_W3C_PROPAGATION
    if sizing.zipkin_service:
        timeout = duration(str(spec.get("timeout") or "5s"))
        uri = HttpUri(uri=f"http://{host}{path}", cluster=cluster, timeout=timeout)
        config.collector_service = HttpService(
            http_uri=uri, request_headers_to_add=_options(spec.get("headers"), settings)
        )
    else:
        config.collector_cluster, config.collector_hostname, config.collector_endpoint = cluster, host, path
    return config


def _opentelemetry(spec: Spec, settings: Settings, sizing: Sizing) -> OpenTelemetryConfig:
    host, cluster = collector_of(spec)
    config = made(OpenTelemetryConfig)
    if "opentelemetry.http" in sizing.reads and (http := spec.get("http")) is not None:
        timeout = duration(str(http["timeout"])) if http.get("timeout") else None
        path = str(http.get("path") or "")
        joined = normpath(f"{host}/{path}") + ("/" if path.endswith("/") else "")
        config.http_service = HttpService(
            http_uri=HttpUri(uri=joined, cluster=cluster, timeout=timeout),
            request_headers_to_add=_options(http.get("headers"), settings),
        )
    else:
        grpc = (spec.get("grpc") or {}) if "opentelemetry.grpc" in sizing.reads else {}
        timeout = duration(str(grpc["timeout"])) if grpc.get("timeout") else None
        config.grpc_service = _grpc(spec, _headers(grpc.get("initialMetadata"), settings), timeout)
    if "opentelemetry.http" in sizing.reads:
        asked = spec.get("resourceDetectors") or {}
        config.resource_detectors = [
            made(
                TypedExtensionConfig,
                name=f"envoy.tracers.opentelemetry.resource_detectors.{name}",
                typed_config=blob(f"{_DETECTORS}{name.title()}ResourceDetectorConfig"),
            )
            for name in ("environment", "dynatrace")
            if asked.get(name) is not None
        ]
    return config


def _headers(written: Iterable[Spec] | None, settings: Settings) -> list[HeaderValue]:
    """Headers with values as written, or those of istiod's own environment."""
    return [
        HeaderValue(
            key=str(header.get("name") or ""),
            value=str(header.get("value") or settings.env.get(str(header.get("envName") or ""), "")),
        )
        for header in written or ()
    ]


def _options(written: Iterable[Spec] | None, settings: Settings) -> list[HeaderValueOption]:
    action = HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD
    return [HeaderValueOption(header=header, append_action=action) for header in _headers(written, settings)]
