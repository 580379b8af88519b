"""MeshConfig's fields (istio.io/api mesh/v1alpha1, Istio 1.31, and 1.13's thriftConfig), and what they may hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pushsim.manifests.shapes import Check, amount, boolean, listing, mapping, number, one_of, span, string


def _each(check: Check, names: str) -> Mapping[str, Check]:
    return dict.fromkeys(names.split(), check)


_TOP: Mapping[str, Check] = {
    **_each(
        string,
        """accessLogEncoding accessLogFile accessLogFormat h2UpgradePolicy inboundClusterStatName ingressClass
        ingressControllerMode ingressSelector ingressService outboundClusterStatName rootNamespace trustDomain""",
    ),
    **_each(
        boolean,
        """disableEnvoyListenerLog enableAutoMtls enableEnvoyAccessLogService enablePrometheusMerge enableTracing
        verifyCertificateAtClient""",
    ),
    **_each(number, "proxyHttpPort proxyInboundListenPort proxyListenPort"),
    **_each(span, "connectTimeout dnsRefreshRate hboneIdleTimeout protocolDetectionTimeout"),
    **_each(
        mapping,
        """ca defaultConfig defaultHttpRetryPolicy defaultProviders defaultTrafficPolicy inboundTrafficPolicy
        localityLbSetting meshMTLS outboundTrafficPolicy pathNormalization serviceEntryVisibility tcpKeepalive
        thriftConfig tlsDefaults zoneAwareLbSetting""",
    ),
    **_each(
        listing,
        """caCertificates certificates configSources defaultDestinationRuleExportTo defaultServiceExportTo
        defaultVirtualServiceExportTo discoverySelectors extensionProviders serviceScopeConfigs serviceSettings
        trustDomainAliases""",
    ),
}
_PROXY_CONFIG = """availabilityZone binaryPath caCertificatesPem concurrency configPath connectionSettings
    controlPlaneAuthPolicy customConfigFile discoveryAddress discoveryRefreshDelay drainDuration envoyAccessLogService
    envoyMetricsService envoyMetricsServiceAddress extraStatTags fileFlushInterval fileFlushMinSizeKb gatewayTopology
    holdApplicationUntilProxyStarts image interceptionMode meshId privateKeyProvider proxyAdminPort
    proxyBootstrapTemplatePath proxyHeaders proxyMetadata proxyStatsMatcher readinessProbe runtimeValues sds
    serviceCluster statNameLength statsCompression statsdUdpAddress statusPort terminationDrainDuration tracing
    tracingServiceName zipkinAddress"""
#: All fields of a MeshConfig, and of the ProxyConfig in it.
FIELDS: Mapping[str, frozenset[str]] = {
    "MeshConfig": frozenset(_TOP),
    "defaultConfig": frozenset(_PROXY_CONFIG.split()),
}


def _numbered(names: str, **others: int) -> Mapping[int, str]:
    """The names of an enum by their numbers, which count from 0."""
    return {**dict(enumerate(names.split())), **{number: name for name, number in others.items()}}


_TLS = _numbered("TLS_AUTO TLSV1_2 TLSV1_3")
#: Enums of which more than the shape matters.
ENUMS: Mapping[str, Mapping[int, str]] = {
    "accessLogEncoding": _numbered("TEXT JSON"),
    "h2UpgradePolicy": _numbered("DO_NOT_UPGRADE UPGRADE"),
    "ingressControllerMode": _numbered("UNSPECIFIED OFF DEFAULT STRICT"),
    "inboundTrafficPolicy.mode": _numbered("PASSTHROUGH LOCALHOST"),
    "outboundTrafficPolicy.mode": _numbered("REGISTRY_ONLY ALLOW_ANY", ALLOW_ANY_DYNAMIC_DNS=3),
    "pathNormalization.normalization": _numbered("DEFAULT NONE BASE MERGE_SLASHES DECODE_AND_MERGE_SLASHES"),
    "meshMTLS.minProtocolVersion": _TLS,
    "tlsDefaults.minProtocolVersion": _TLS,
    "defaultConfig.interceptionMode": _numbered("REDIRECT TPROXY NONE"),
    **dict.fromkeys(
        ("defaultConfig.gatewayTopology.forwardClientCertDetails", "defaultConfig.proxyHeaders.forwardedClientCert"),
        _numbered("UNDEFINED SANITIZE FORWARD_ONLY APPEND_FORWARD SANITIZE_SET ALWAYS_FORWARD_ONLY"),
    ),
    "defaultConfig.proxyHeaders.metadataExchangeHeaders.mode": _numbered("UNDEFINED IN_MESH"),
    "extensionProviders[].zipkin.traceContextOption": _numbered("USE_B3 USE_B3_WITH_W3C_PROPAGATION"),
}
_COLLECTORS = (
    "datadog", "envoyExtAuthzGrpc", "envoyExtAuthzHttp", "envoyHttpAls", "envoyOtelAls", "envoyTcpAls", "lightstep",
    "opencensus", "opentelemetry", "skywalking", "zipkin",
)  # fmt: skip
_TRACERS = ["datadog", "lightstep", "opencensus", "opentelemetry", "stackdriver", "zipkin"]
#: Mappings whose keys are the user's own.
_FREE = frozenset(
    ["customTags", "includeAdditionalHeadersInCheck", "labels", "matchLabels", "proxyMetadata", "runtimeValues", "to"]
)
MESH_CONFIG: Mapping[str, Check] = {
    **_TOP,
    **{path: one_of(*names.values()) for path, names in ENUMS.items()},
    **{f"default{kind}ExportTo[]": string for kind in ("Service", "VirtualService", "DestinationRule")},
    "trustDomainAliases[]": string,
    "discoverySelectors[]": mapping,
    "extensionProviders[]": mapping,
    "defaultHttpRetryPolicy.attempts": number,
    "tcpKeepalive.probes": number,
    "defaultConfig.concurrency": number,
    "defaultConfig.gatewayTopology.numTrustedProxies": number,
    "defaultConfig.proxyMetadata": mapping,
    "defaultConfig.tracing": mapping,
    "defaultConfig.tracing.maxPathTagLength": number,
    "defaultConfig.tracing.sampling": amount,
    **{f"extensionProviders[].{kind}.port": number for kind in _COLLECTORS},
    **{f"extensionProviders[].{kind}.maxTagLength": number for kind in _TRACERS},
    **{
        f"extensionProviders[].envoyExtAuthz{kind}.includeRequestBodyInCheck.maxRequestBytes": number
        for kind in ("Grpc", "Http")
    },
}
#: What protobuf's JSON may have in quotes.
_QUOTED: Mapping[Check, str] = {number: r"-?\d+", amount: r"-?\d+(\.\d+)?([eE][-+]?\d+)?"}


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """A MeshConfig in one way of writing it, of those that istiod's jsonpb takes for the same.

    Fields have their JSON names, enums names instead of numbers, and numbers no quotes. What jsonpb refuses stays as
    it is, for `check_mesh_config` to tell (golang/protobuf, jsonpb/decode.go, unmarshalSingularValue).
    """
    return {_json_name(name): _plain(value, _json_name(name)) for name, value in config.items()}


def _plain(value: Any, path: str) -> Any:
    if isinstance(value, dict):
        free = path.rpartition(".")[2].removesuffix("[]") in _FREE
        named = {str(name) if free else _json_name(name): below for name, below in value.items()}
        return {name: _plain(below, f"{path}.{name}") for name, below in named.items()}
    if isinstance(value, list):
        return [_plain(item, f"{path}[]") for item in value]
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return ENUMS.get(path, {}).get(value, value)
    if isinstance(value, str) and re.fullmatch(_QUOTED.get(MESH_CONFIG.get(path, string), "(?!)"), value):
        return int(value) if MESH_CONFIG[path] is number else float(value)
    return value


def _json_name(name: Any) -> str:
    """`outbound_traffic_policy` as protobuf writes it in JSON."""
    return re.sub(r"(?<=[A-Za-z0-9])_([A-Za-z0-9])", lambda found: found[1].upper(), str(name))
