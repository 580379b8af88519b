"""Names that Istio's API takes where it takes one of a few: what its CRDs refuse, the API server never stores.

Of istio.io/api (kubernetes/customresourcedefinitions.gen.yaml, Istio 1.31); older releases know no others.
"""

from __future__ import annotations

from collections.abc import Mapping

from pushsim.manifests.shapes import Check, one_of
from pushsim.mesh import RESOLUTIONS

_SERVER_TLS = one_of("PASSTHROUGH", "SIMPLE", "MUTUAL", "AUTO_PASSTHROUGH", "ISTIO_MUTUAL", "OPTIONAL_MUTUAL")
_TLS_VERSION = one_of("TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3")
_CAPTURE = one_of("DEFAULT", "IPTABLES", "NONE")
_UPGRADE = one_of("DEFAULT", "DO_NOT_UPGRADE", "UPGRADE")
_MUTUAL_TLS = one_of("UNSET", "DISABLE", "PERMISSIVE", "STRICT")
_SIDE = one_of("UNDEFINED", "CLIENT", "SERVER", "CLIENT_AND_SERVER")
_FILTER_CLASS = ("AUTHN", "AUTHZ", "STATS")
_TRAFFIC: Mapping[str, Check] = {
    "loadBalancer.simple": one_of("UNSPECIFIED", "LEAST_CONN", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST"),
    "tls.mode": one_of("DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"),
    "connectionPool.http.h2UpgradePolicy": _UPGRADE,
}
_METRICS = (
    "ALL_METRICS", "REQUEST_COUNT", "REQUEST_DURATION", "REQUEST_SIZE", "RESPONSE_SIZE", "TCP_OPENED_CONNECTIONS",
    "TCP_CLOSED_CONNECTIONS", "TCP_SENT_BYTES", "TCP_RECEIVED_BYTES", "GRPC_REQUEST_MESSAGES", "GRPC_RESPONSE_MESSAGES",
)  # fmt: skip
_LAYERS = ("LISTENER", "FILTER_CHAIN", "NETWORK_FILTER", "HTTP_FILTER", "ROUTE_CONFIGURATION", "VIRTUAL_HOST",
           "HTTP_ROUTE", "CLUSTER", "EXTENSION_CONFIG", "BOOTSTRAP", "LISTENER_FILTER")  # fmt: skip
_OPERATIONS = ("MERGE", "ADD", "REMOVE", "INSERT_BEFORE", "INSERT_AFTER", "INSERT_FIRST", "REPLACE",
               "MERGE_AND_REPLACE_LIST")  # fmt: skip

ENUMS: Mapping[str, Mapping[str, Check]] = {
    "VirtualService": {
        "spec.http[].corsPolicy.unmatchedPreflights": one_of("UNSPECIFIED", "FORWARD", "IGNORE"),
        "spec.http[].redirect.derivePort": one_of("FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"),
    },
    "DestinationRule": {
        f"spec.{of}trafficPolicy.{path}": check
        for of in ("", "subsets[].")
        for path, check in {
            **_TRAFFIC,
            "proxyProtocol.version": one_of("V1", "V2"),
            **{f"portLevelSettings[].{path}": check for path, check in _TRAFFIC.items()},
        }.items()
    },
    "ServiceEntry": {
        "spec.location": one_of("MESH_EXTERNAL", "MESH_INTERNAL"),
        "spec.resolution": one_of(*RESOLUTIONS),
    },
    "Sidecar": {
        "spec.egress[].captureMode": _CAPTURE,
        "spec.ingress[].captureMode": _CAPTURE,
        "spec.ingress[].tls.mode": _SERVER_TLS,
        "spec.ingress[].connectionPool.http.h2UpgradePolicy": _UPGRADE,
        "spec.inboundConnectionPool.http.h2UpgradePolicy": _UPGRADE,
        "spec.outboundTrafficPolicy.mode": one_of("REGISTRY_ONLY", "ALLOW_ANY"),
    },
    "Gateway": {
        "spec.servers[].tls.mode": _SERVER_TLS,
        "spec.servers[].tls.minProtocolVersion": _TLS_VERSION,
        "spec.servers[].tls.maxProtocolVersion": _TLS_VERSION,
    },
    "EnvoyFilter": {
        f"spec.configPatches[].{path}": check
        for path, check in {
            "applyTo": one_of("INVALID", *_LAYERS),
            "match.context": one_of("ANY", "SIDECAR_INBOUND", "SIDECAR_OUTBOUND", "GATEWAY", "WAYPOINT"),
            "match.routeConfiguration.vhost.route.action": one_of("ANY", "ROUTE", "REDIRECT", "DIRECT_RESPONSE"),
            "patch.filterClass": one_of("UNSPECIFIED", *_FILTER_CLASS),
            "patch.operation": one_of("INVALID", *_OPERATIONS),
        }.items()
    },
    "AuthorizationPolicy": {"spec.action": one_of("ALLOW", "DENY", "AUDIT", "CUSTOM")},
    "PeerAuthentication": {"spec.mtls.mode": _MUTUAL_TLS, "spec.portLevelMtls{}.mode": _MUTUAL_TLS},
    "Telemetry": {
        "spec.accessLogging[].match.mode": _SIDE,
        "spec.tracing[].match.mode": _SIDE,
        "spec.metrics[].overrides[].match.mode": _SIDE,
        "spec.metrics[].overrides[].match.metric": one_of(*_METRICS),
        "spec.metrics[].overrides[].tagOverrides{}.operation": one_of("UPSERT", "REMOVE"),
    },
    "WasmPlugin": {
        "spec.phase": one_of("UNSPECIFIED_PHASE", *_FILTER_CLASS),
        "spec.type": one_of("UNSPECIFIED_PLUGIN_TYPE", "HTTP", "NETWORK"),
        "spec.failStrategy": one_of("FAIL_CLOSE", "FAIL_OPEN", "FAIL_RELOAD"),
        "spec.imagePullPolicy": one_of("UNSPECIFIED_POLICY", "IfNotPresent", "Always"),
        "spec.match[].mode": _SIDE,
    },
}
