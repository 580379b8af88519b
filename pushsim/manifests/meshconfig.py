"""MeshConfig's fields (istio.io/api mesh/v1alpha1, Istio 1.31, and 1.13's thriftConfig), and what they may hold."""

from __future__ import annotations

from collections.abc import Mapping

from pushsim.manifests.shapes import Check, boolean, listing, mapping, number, one_of, span, string


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

MESH_CONFIG: Mapping[str, Check] = {
    **_TOP,
    **{f"default{kind}ExportTo[]": string for kind in ("Service", "VirtualService", "DestinationRule")},
    "trustDomainAliases[]": string,
    "discoverySelectors[]": mapping,
    "extensionProviders[]": mapping,
    "accessLogEncoding": one_of("TEXT", "JSON"),
    "h2UpgradePolicy": one_of("DO_NOT_UPGRADE", "UPGRADE"),
    "ingressControllerMode": one_of("UNSPECIFIED", "OFF", "DEFAULT", "STRICT"),
    "inboundTrafficPolicy.mode": one_of("PASSTHROUGH", "LOCALHOST"),
    "outboundTrafficPolicy.mode": one_of("REGISTRY_ONLY", "ALLOW_ANY", "ALLOW_ANY_DYNAMIC_DNS"),
    "pathNormalization.normalization": one_of("DEFAULT", "NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"),
    "defaultConfig.interceptionMode": one_of("REDIRECT", "TPROXY", "NONE"),
    "defaultConfig.proxyMetadata": mapping,
    "defaultConfig.tracing": mapping,
}
