"""Stat names that the mesh config asks for (outboundClusterStatName, inboundClusterStatName).

Source: pilot/pkg/networking/telemetry/telemetry.go (BuildStatPrefix).
"""

from __future__ import annotations

from pushsim.mesh import Port, Service
from pushsim.sizes.switches import Sizing


def stat_name(pattern: str, service: Service, port: Port, sizing: Sizing, *, subset: str = "", target: int = 0) -> str:
    """A pattern filled in for a port of a service; target: its target port, where it is an inbound cluster's."""
    kubernetes = service.registry == "Kubernetes"
    known = {
        "%SERVICE%": f"{service.name}.{service.namespace}" if kubernetes else service.hostname,
        "%SERVICE_FQDN%": service.hostname,
        "%SUBSET_NAME%": subset,
        "%SERVICE_PORT%": str(port.number),
        "%SERVICE_PORT_NAME%": port.name,
    }
    if sizing.stat_target_port:
        known["%TARGET_PORT%"] = str(target)
    if sizing.stat_service_name:
        known["%SERVICE_NAME%"] = service.name if kubernetes else service.hostname
    for placeholder, meant in known.items():
        pattern = pattern.replace(placeholder, meant)
    return pattern


__all__ = ["stat_name"]
