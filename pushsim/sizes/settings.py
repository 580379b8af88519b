"""The mesh config and environment, read once into what the builders ask for.

Keys are Istio's own; what is absent has istiod's built-in default (pkg/config/mesh/mesh.go, DefaultMeshConfig).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

from pushsim.mesh import truth
from pushsim.resources import BLACK_HOLE, PASSTHROUGH
from pushsim.sizes.wire import duration

Spec = Mapping[str, Any]
#: A list entry that asks for nothing in particular.
ANYTHING: tuple[Spec, ...] = ({},)


def dig(tree: Any, *path: str) -> Any:
    """A nested value, None as soon as a step is missing."""
    for step in path:
        if not isinstance(tree, Mapping):
            return None
        tree = tree.get(step)
    return tree


def provider_names(spec: Spec) -> list[str]:
    """The extension providers that a part of a Telemetry names."""
    return [str(provider.get("name") or "") for provider in spec.get("providers") or ()]


def collector_of(provider: Spec) -> tuple[str, str]:
    """Host and cluster of a provider's service, taken to exist (telemetry_logging.go, LookupCluster)."""
    host = str(provider.get("service") or "").rpartition("/")[2]
    return host, f"outbound|{provider.get('port') or 0}||{host}"


@dataclass(frozen=True, eq=False)
class Settings:
    """What of MeshConfig and of istiod's environment decides bytes."""

    mesh: Mapping[str, Any]
    env: Mapping[str, str]

    @property
    def connect_timeout(self) -> timedelta:
        return duration(self.mesh.get("connectTimeout") or "10s")

    @property
    def dns_refresh_rate(self) -> timedelta:
        return duration(self.mesh.get("dnsRefreshRate") or "60s")

    @property
    def protocol_detection_timeout(self) -> timedelta:
        return duration(self.mesh.get("protocolDetectionTimeout") or "0s")

    @property
    def sends_unhealthy(self) -> bool:
        return truth(self.env.get("PILOT_SEND_UNHEALTHY_ENDPOINTS"), False)

    @property
    def auto_mtls(self) -> bool:
        return truth(self.mesh.get("enableAutoMtls"), True)

    @property
    def unknown(self) -> str:
        """The cluster that takes outbound traffic for nobody known."""
        mode = str(dig(self.mesh, "outboundTrafficPolicy", "mode") or "ALLOW_ANY")
        return PASSTHROUGH if mode == "ALLOW_ANY" else BLACK_HOLE

    @property
    def inbound_localhost(self) -> bool:
        return str(dig(self.mesh, "inboundTrafficPolicy", "mode") or "PASSTHROUGH") == "LOCALHOST"

    @property
    def trust_domain(self) -> str:
        return str(self.mesh.get("trustDomain") or "cluster.local")

    @property
    def listen_port(self) -> int:
        return int(self.mesh.get("proxyListenPort") or 15001)

    @property
    def inbound_listen_port(self) -> int:
        return int(self.mesh.get("proxyInboundListenPort") or 15006)

    @property
    def locality_lb(self) -> bool:
        return truth(dig(self.mesh, "localityLbSetting", "enabled"), True)

    @cached_property
    def _providers(self) -> Mapping[str, Spec]:
        own: dict[str, Spec] = {
            "prometheus": {"name": "prometheus", "prometheus": {}},
            "envoy": {"name": "envoy", "envoyFileAccessLog": {"path": "/dev/stdout"}},
        }
        written = {str(provider.get("name") or ""): provider for provider in self.mesh.get("extensionProviders") or ()}
        return {name.lower(): provider for name, provider in reversed((own | written).items())}

    def provider(self, name: str) -> Spec | None:
        """An extension provider, whose name is told without regard to case; None if there is none."""
        return self._providers.get(name.lower())

    def proxy_config(self, part: str) -> Spec:
        """A part of the proxies' default config."""
        return dig(self.mesh, "defaultConfig", part) or {}

    def enabled(self, variable: str, default: bool) -> bool:
        """A switch of istiod's environment."""
        return truth(self.env.get(variable), default)
