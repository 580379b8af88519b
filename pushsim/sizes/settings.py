"""The mesh config and environment, read once into what the builders ask for.

Keys are Istio's own; what is absent has istiod's built-in default (pkg/config/mesh/mesh.go, DefaultMeshConfig).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from typing import Any, Literal

from pushsim.mesh import truth
from pushsim.resources import BLACK_HOLE, PASSTHROUGH
from pushsim.sizes.switches import Sizing
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
        if not self.enabled("PILOT_ENABLE_INBOUND_PASSTHROUGH", True):
            return True
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

    @property
    def http10(self) -> bool:
        return self.enabled("PILOT_HTTP10", False)

    @property
    def telemetry_label(self) -> bool:
        """Clusters say what services they are of."""
        return self.enabled("PILOT_ENABLE_TELEMETRY_LABEL", True)

    @property
    def sniffs_outbound(self) -> bool:
        return self.enabled("PILOT_ENABLE_PROTOCOL_SNIFFING_FOR_OUTBOUND", True)

    @property
    def sniffs_inbound(self) -> bool:
        return self.enabled("PILOT_ENABLE_PROTOCOL_SNIFFING_FOR_INBOUND", True)

    @property
    def strips_ports(self) -> bool:
        """Gateways leave ports out of hosts."""
        return self.enabled("ISTIO_GATEWAY_STRIP_HOST_PORT", False)

    @property
    def names_stats(self) -> bool:
        """The mesh config names statistics."""
        return bool(self.mesh.get("outboundClusterStatName") or self.mesh.get("inboundClusterStatName"))

    def counts_attempts(self, sizing: Sizing) -> bool:
        """Virtual hosts have requests say which attempt they are."""
        headers = self.proxy_config("proxyHeaders") if "proxyHeaders" in sizing.reads else {}
        return not truth(dig(headers, "attemptCount", "disabled"), False)

    def enabled(self, variable: str, default: bool) -> bool:
        """A switch of istiod's environment."""
        return truth(self.env.get(variable), default)

    def number(self, variable: str, default: int) -> int:
        """A number of istiod's environment, which has the default if it is none."""
        try:
            return int(self.env.get(variable, default))
        except ValueError:
            return default


def settled(sizing: Sizing, mesh: Mapping[str, Any], env: Mapping[str, str]) -> tuple[Sizing, Settings]:
    """What a release makes of a mesh config and an environment, and what is different about it then.

    Variables that the release does not know are nothing to it.
    """
    if "inboundTrafficPolicy" not in sizing.reads:
        mesh = {field: value for field, value in mesh.items() if field != "inboundTrafficPolicy"}
    settings = Settings(mesh, {name: value for name, value in env.items() if name not in sizing.ignores})
    if not settings.enabled("PILOT_ENABLE_METADATA_EXCHANGE", True):
        sizing = replace(sizing, metadata_exchange="", http_exchange="", exchange_alpn=False)
    if settings.enabled("PILOT_DISABLE_MX_ALPN", False):
        sizing = replace(sizing, exchange_alpn=False, gateway_exchange_alpn=False)
    labelled = settings.enabled("PILOT_ENDPOINT_TELEMETRY_LABEL", True)
    if not (settings.telemetry_label and labelled):
        kept: Literal["ready", ""] = "ready" if labelled and sizing.unlabelled == "unready" else ""
        sizing = replace(sizing, workload_label=kept, mode_label=sizing.unlabelled != "mode")
    return sizing, settings
