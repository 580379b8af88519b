"""Stat names that the mesh config asks for (outboundClusterStatName, inboundClusterStatName).

Source: pilot/pkg/networking/telemetry/telemetry.go (BuildStatPrefix).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pushsim.mesh import Port, Service
from pushsim.sizes.switches import Sizing


def stat_name(
    pattern: str, service: Service | None, port: Port, sizing: Sizing, *, subset: str = "", target: int | None = 0
) -> str:
    """A pattern filled in for a port of a service, or of none.

    target: its target port, where it is an inbound cluster's; an inbound listener's says nothing of it.
    """
    host = service.hostname if service else ""
    kubernetes = service if service and service.registry == "Kubernetes" else None
    known = {
        "%SERVICE%": f"{kubernetes.name}.{kubernetes.namespace}" if kubernetes else host,
        "%SERVICE_FQDN%": host,
        "%SUBSET_NAME%": subset,
        "%SERVICE_PORT%": str(port.number),
        "%SERVICE_PORT_NAME%": port.name,
    }
    if sizing.stat_target_port and target is not None:
        known["%TARGET_PORT%"] = str(target)
    if sizing.stat_service_name:
        known["%SERVICE_NAME%"] = kubernetes.name if kubernetes else host
    for placeholder, meant in known.items():
        pattern = pattern.replace(placeholder, meant)
    return pattern


def service_of(host: str, services: Iterable[tuple[Service, Port]]) -> Service:
    """The service of a host: one of those that are known, else what its name tells of it."""
    known = next((service for service, _ in services if service.hostname == host), None)
    if known is not None:
        return known
    name, _, rest = host.partition(".")
    namespace, _, domain = rest.partition(".")
    registry: Literal["Kubernetes", "External"] = "Kubernetes" if domain.startswith("svc.") else "External"
    return Service(host, namespace, name, (), "EDS", registry)


__all__ = ["service_of", "stat_name"]
