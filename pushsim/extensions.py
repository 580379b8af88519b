"""Extensions: filters of which listeners hold nothing but a name, by which Envoy asks for the rest (ECDS).

Source: pilot/pkg/model/extensions.go (WasmPlugins, which istiod takes for TrafficExtensions from 1.30 on).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from pushsim.mesh import Object, Proxy, Ref
from pushsim.releases import Rules

Context = Literal["SIDECAR_INBOUND", "SIDECAR_OUTBOUND", "GATEWAY"]


class Place(NamedTuple):
    """Where filters go: a filter chain, HTTP or TCP, and the port that it is chosen by, 0: none."""

    context: Context
    http: bool
    port: int


def near(objects: Iterable[Object], namespace: str, root: str) -> tuple[Object, ...]:
    """Those of a proxy's namespace and of the root namespace."""
    return tuple(written for written in objects if written.ref.namespace in (namespace, root))


class Plugins:
    """The WasmPlugins of a proxy.

    Args:
        objects: those of its namespace and of the root namespace.
        proxy: the proxy.
        rules: the release.
    """

    def __init__(self, objects: Sequence[Object], proxy: Proxy, rules: Rules) -> None:
        self._rules = rules
        self.applying = tuple(plugin for plugin in objects if _selects(plugin, proxy))

    def filters(self, place: Place, *, http: bool) -> tuple[str, ...]:
        """Names of the filters they put into a place: HTTP filters, or those of the network, which come before."""
        if http and not place.http:
            return ()
        mine = (p for p in self.applying if self._of_network(p) != http and self._placed(p, place))
        return tuple(plugin_name(plugin.ref, self._rules) for plugin in mine)

    def _of_network(self, plugin: Object) -> bool:
        return self._rules.plugin_types and plugin.spec.get("type") == "NETWORK"

    def _placed(self, plugin: Object, place: Place) -> bool:
        """Whether a plugin matches a place (matchTrafficSelectors)."""
        wishes = plugin.spec.get("match") if self._rules.plugin_matches else None
        modes = ("", "UNDEFINED", "CLIENT_AND_SERVER", "SERVER" if place.context == "SIDECAR_INBOUND" else "CLIENT")
        return not wishes or any(
            str(wish.get("mode") or "") in modes
            and (not wish.get("ports") or any(int(port.get("number") or 0) == place.port for port in wish["ports"]))
            for wish in wishes
        )


def _selects(plugin: Object, proxy: Proxy) -> bool:
    if plugin.spec.get("targetRefs") or plugin.spec.get("targetRef"):  # of the Gateway API
        return False
    return all(proxy.labels.get(key) == value for key, value in plugin.selects.items())


def plugin_name(plugin: Ref, rules: Rules) -> str:
    """By what name a WasmPlugin is asked for."""
    return rules.plugin_names.format(plugin.namespace, plugin.name)


def pull_secret(plugin: Object) -> Ref | None:
    """The Secret that a WasmPlugin's image is pulled with, always of its own namespace (toSecretResourceName)."""
    name = str(plugin.spec.get("imagePullSecret") or "").removeprefix("kubernetes://").rpartition("/")[2]
    return Ref("Secret", plugin.ref.namespace, name) if name else None
