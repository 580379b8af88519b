"""The variables of istiod's environment that a simulation goes by, and what each may hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pushsim.errors import Problem
from pushsim.mesh import boolean
from pushsim.units import UnitError, duration


def flag(text: str) -> bool:
    """A boolean as istiod reads one; raises UnitError."""
    found = boolean(text)
    if found is None:
        raise UnitError(text, "a boolean", "write true or false")
    return found


def number(text: str) -> float:
    """A number of 0 or more; raises UnitError."""
    try:
        found = float(text)
    except ValueError:
        raise UnitError(text, "a number", "write a number") from None
    if not 0 <= found < float("inf"):
        raise UnitError(text, "a number of 0 or more", "write a number of 0 or more (0 is automatic)")
    return found


_FLAGS = """
ENABLE_ENHANCED_DESTINATIONRULE_MERGE ENABLE_ENHANCED_RESOURCE_SCOPING ENABLE_EXTERNAL_NAME_ALIAS
ENABLE_INBOUND_RETRY_POLICY ENABLE_LOCALITY_WEIGHTED_LB_CONFIG ENABLE_OTEL_BUILTIN_RESOURCE_LABELS
ISTIO_ENABLE_OPTIMIZED_SERVICE_PUSH ISTIO_GATEWAY_STRIP_HOST_PORT PILOT_AUTO_SEND_UNHEALTHY_ENDPOINTS
PILOT_DISABLE_MX_ALPN PILOT_ENABLE_ALPN_FILTER PILOT_ENABLE_CDS_CACHE PILOT_ENABLE_EDS_DEBOUNCE
PILOT_ENABLE_EDS_FOR_HEADLESS_SERVICES PILOT_ENABLE_HEADLESS_SERVICE_POD_LISTENERS PILOT_ENABLE_INBOUND_PASSTHROUGH
PILOT_ENABLE_IP_AUTOALLOCATE PILOT_ENABLE_ISTIO_TAGS PILOT_ENABLE_METADATA_EXCHANGE PILOT_ENABLE_MONGO_FILTER
PILOT_ENABLE_MULTIPLE_CUSTOM_AUTHZ_PROVIDERS PILOT_ENABLE_MYSQL_FILTER PILOT_ENABLE_PERSISTENT_SESSION_FILTER
PILOT_ENABLE_PROTOCOL_SNIFFING_FOR_INBOUND PILOT_ENABLE_PROTOCOL_SNIFFING_FOR_OUTBOUND PILOT_ENABLE_RDS_CACHE
PILOT_ENABLE_REDIS_FILTER PILOT_ENABLE_TELEMETRY_LABEL PILOT_ENABLE_XDS_CACHE PILOT_ENDPOINT_TELEMETRY_LABEL
PILOT_FILTER_GATEWAY_CLUSTER_CONFIG PILOT_HTTP10 PILOT_SCOPE_GATEWAY_TO_NAMESPACE PILOT_SEND_UNHEALTHY_ENDPOINTS
PILOT_SIDECAR_PICK_BEST_SERVICE_NAMESPACE PILOT_SIDECAR_USE_REMOTE_ADDRESS PILOT_SKIP_VALIDATE_TRUST_DOMAIN
PILOT_SPAWN_UPSTREAM_SPAN_FOR_GATEWAY PILOT_UNIFIED_SIDECAR_SCOPE
"""
#: By name, what reads the value: it raises UnitError.
ENVIRONMENT: Mapping[str, Callable[[str], object]] = {
    **dict.fromkeys(_FLAGS.split(), flag),
    **dict.fromkeys(("PILOT_DEBOUNCE_AFTER", "PILOT_DEBOUNCE_MAX", "GRPC_KEEPALIVE_INTERVAL"), duration),
    **dict.fromkeys(("PILOT_PUSH_THROTTLE", "PILOT_MAX_REQUESTS_PER_SECOND", "PILOT_XDS_CACHE_SIZE"), number),
    **dict.fromkeys(("MAX_CONNECTIONS_PER_SOCKET_EVENT_LOOP", "PILOT_TRACE_SAMPLING"), number),
    "REVISION": str,
}


def problems(env: Mapping[str, str], prefix: str = "istiod.env.") -> list[Problem]:
    """Values that istiod would pass over with a warning, so that something else is simulated than was asked."""
    found: list[Problem] = []
    for name, text in env.items():
        try:
            if text and name in ENVIRONMENT:
                ENVIRONMENT[name](text)
        except UnitError as error:
            found.append(Problem(f"{text!r} is not valid", field=f"{prefix}{name}", remedy=error.remedy))
    return found
