"""Fields that Istio's objects and its MeshConfig have not: a slip of the pen, or newer than we know."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from pushsim.errors import Problem
from pushsim.manifests.kubernetes import near_misses
from pushsim.manifests.meshconfig import FIELDS

Names = Mapping[str, frozenset[str]]

#: What may stand below a kind's spec, and below each field of that name, in any kind (istio.io/api,
#: kubernetes/customresourcedefinitions.gen.yaml, of Istio 1.14 to 1.31 together).
_TABLE = """
    AuthorizationPolicy: action provider rules selector targetRef targetRefs
    DestinationRule: exportTo host subsets trafficPolicy workloadSelector
    EnvoyFilter: configPatches priority targetRefs workloadSelector
    Gateway: selector servers
    PeerAuthentication: mtls portLevelMtls selector
    ProxyConfig: concurrency environmentVariables image selector
    RequestAuthentication: jwtRules selector targetRef targetRefs
    ServiceEntry: addresses endpoints exportTo hosts location ports resolution subjectAltNames workloadSelector
    Sidecar: egress inboundConnectionPool ingress outboundTrafficPolicy workloadSelector
    Telemetry: accessLogging metrics selector targetRef targetRefs tracing
    VirtualService: exportTo gateways hosts http tcp tls
    WasmPlugin: failStrategy imagePullPolicy imagePullSecret match phase pluginConfig pluginName priority selector
      sha256 targetRef targetRefs type url verificationKey vmConfig
    WorkloadGroup: metadata probe template
    WorkloadEntry endpoints template: address labels locality network ports serviceAccount weight
    abort: grpcStatus http2Error httpStatus percentage
    accessLogging: disabled filter match providers
    allowOrigins authority method queryParams scheme uri withoutHeaders: exact prefix regex
    attributes httpHeaders: name value
    body: bytes string
    cluster: name portNumber service subset
    configPatches: applyTo match patch
    connectionPool inboundConnectionPool: http tcp
    consistentHash: httpCookie httpHeaderName httpQueryParameterName maglev minimumRingSize ringHash useSourceIp
    corsPolicy: allowCredentials allowHeaders allowMethods allowOrigin allowOrigins exposeHeaders maxAge
      unmatchedPreflights
    customTags: environment formatter header literal
    delay: exponentialDelay fixedDelay percent percentage
    delegate: name namespace
    destination egressProxy mirror: host port subset
    directResponse: body status
    distribute failover: from to
    egress: bind captureMode hosts port
    env: name value valueFrom
    environment header: defaultValue name
    exec: command
    fault: abort delay
    filter: expression name subFilter
    filterChain: applicationProtocols destinationPort filter name sni transportProtocol
    formatter literal mirrorPercentage percentage: value
    from: source
    fromHeaders: name prefix
    grpc: port service
    headers: exact prefix regex request response
    http: corsPolicy delegate directResponse fault h2UpgradePolicy headers http1MaxPendingRequests http2MaxRequests
      idleTimeout match maxConcurrentStreams maxRequestsPerConnection maxRetries mirror mirrorPercent mirrorPercentage
      mirror_percent mirrors name redirect retries rewrite route timeout useClientProtocol
    httpCookie: attributes name path ttl
    httpGet: host httpHeaders path port scheme
    image: imageType
    ingress: bind captureMode connectionPool defaultEndpoint port tls
    jwtRules: audiences forwardOriginalToken fromCookies fromHeaders fromParams issuer jwks jwksUri jwks_uri
      outputClaimToHeaders outputPayloadToHeader spaceDelimitedClaims timeout
    listener: filterChain listenerFilter name portName portNumber
    loadBalancer: consistentHash localityLbSetting simple warmup warmupDurationSecs
    localityLbSetting: distribute enabled failover failoverPriority
    maglev: tableSize
    match: authority cluster context customMetric destinationSubnets gateways headers ignoreUriCase listener method
      metric mode name port ports proxy queryParams routeConfiguration scheme sniHosts sourceLabels sourceNamespace
      sourceSubnet statPrefix uri waypoint withoutHeaders
    metadata: annotations labels
    metrics: overrides providers reportingInterval
    mirrors: destination percentage
    mtls portLevelMtls: mode
    operation: hosts methods notHosts notMethods notPaths notPorts paths ports
    outboundTrafficPolicy: egressProxy mode
    outlierDetection: baseEjectionTime consecutive5xxErrors consecutiveErrors consecutiveGatewayErrors
      consecutiveLocalOriginFailures interval maxEjectionPercent minHealthPercent splitExternalLocalOriginErrors
    outputClaimToHeaders: claim header
    overrides: disabled match tagOverrides
    patch: filterClass operation value
    port ports: name number protocol targetPort
    portLevelSettings: connectionPool loadBalancer outlierDetection port tls
    probe: exec failureThreshold grpc httpGet initialDelaySeconds periodSeconds successThreshold tcpSocket
      timeoutSeconds
    provider providers subFilter: name
    proxy: metadata proxyVersion
    proxyProtocol: version
    redirect: authority derivePort port redirectCode scheme uri
    request response: add remove set
    retries: attempts backoff perTryTimeout retryIgnorePreviousHosts retryOn retryRemoteLocalities
    retryBudget: minRetryConcurrency percent
    rewrite: authority uri uriRegexRewrite
    ringHash: minimumRingSize
    route: action destination headers name weight
    routeConfiguration: gateway name portName portNumber vhost
    rules: from to when
    selector: matchLabels
    servers: bind defaultEndpoint hosts name port tls
    source: ipBlocks namespaces notIpBlocks notNamespaces notPrincipals notRemoteIpBlocks notRequestPrincipals
      notServiceAccounts notTrustDomains principals remoteIpBlocks requestPrincipals serviceAccounts trustDomains
    subsets: labels name trafficPolicy
    tagOverrides: operation value
    targetRef targetRefs: group kind name namespace
    tcp: connectTimeout idleTimeout match maxConnectionDuration maxConnections route tcpKeepalive
    tcpKeepalive: interval probes time
    tcpSocket: host port
    tls: caCertCredentialName caCertificates caCrl cipherSuites clientCertificate credentialName credentialNames
      httpsRedirect insecureSkipVerify match maxProtocolVersion minProtocolVersion mode privateKey route
      serverCertificate sni subjectAltNames tlsCertificates verifyCertificateHash verifyCertificateSpki
    tlsCertificates: caCertificates privateKey serverCertificate
    to: operation
    tracing: customTags disableContextPropagation disableSpanReporting enableIstioTags match providers
      randomSamplingPercentage useRequestIdForTraceSampling
    trafficPolicy: connectionPool loadBalancer outlierDetection portLevelSettings proxyProtocol retryBudget tls tunnel
    tunnel: protocol targetHost targetPort
    uriRegexRewrite: match rewrite
    vhost: domainName name route
    vmConfig: env
    warmup: aggression duration minimumPercent
    waypoint: filter portNumber route
    when: key notValues values
    workloadSelector: labels matchLabels
"""
_NAMES: Names = {
    parent: frozenset(names.split())
    for parents, names in re.findall(r"(?m)^    (\w[\w ]*): (.*(?:\n      .*)*)", _TABLE)
    for parent in parents.split()
}
#: Mappings whose keys are the user's own; what has no fields above is none of ours anyway.
_FREE = frozenset(
    ["Gateway.selector", "PeerAuthentication.portLevelMtls", "WorkloadEntry.ports", "distribute.to", "endpoints.ports",
     "match.headers", "match.queryParams", "match.withoutHeaders", "overrides.tagOverrides", "proxy.metadata",
     "template.ports", "tracing.customTags"]
)  # fmt: skip


def unknown_fields(body: Mapping[str, Any], kind: str, where: str) -> list[Problem]:
    """Fields anywhere in an Istio object's spec, or nearly in Kubernetes' own, that it has not.

    `kubectl apply` refuses them.
    """
    return [*_unknown(body.get("spec"), kind, _NAMES, where, "spec.", f"a {kind}"), *near_misses(body, kind, where)]


def unknown_mesh_config(config: Mapping[str, Any], where: str, prefix: str = "") -> list[Problem]:
    """Fields that a MeshConfig, or the ProxyConfig in it, has not. istiod warns of them and leaves them out."""
    return [*_unknown(config, "MeshConfig", FIELDS, where, prefix, "a MeshConfig")]


def left_out(problems: Iterable[Problem]) -> list[str]:
    """The same as notes: where it is no mistake of the one who asks, or nothing comes of it."""
    return [str(replace(problem, message=f"{problem.message}, so it is left out")) for problem in problems]


def _unknown(value: Any, parent: str, table: Names, where: str, prefix: str, of: str) -> Iterator[Problem]:
    """prefix: the place of what stands in value, which is that of a field called parent."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown(item, parent, table, where, f"{prefix.removesuffix('.')}[{index}].", of)
    for name, below in value.items() if isinstance(value, dict) and parent in table else ():
        if name not in table[parent]:
            from pushsim.problems import nearest

            yield Problem(f"is no field of {of}", where, f"{prefix}{name}", nearest(str(name), table[parent], "fields"))
            continue
        place = f"{prefix}{name}."
        own = f"{parent}.{name}" in _FREE and isinstance(below, dict)
        for at, part in {f"{place}{key}.": part for key, part in below.items()}.items() if own else [(place, below)]:
            yield from _unknown(part, name, table, where, at, of)
