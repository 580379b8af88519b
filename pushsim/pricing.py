"""Bytes of the responses of a plan: hands `sizes` what applies to each proxy, and remembers the answers."""

from __future__ import annotations

from collections.abc import Mapping

from pushsim.context import PushContext
from pushsim.mesh import Mesh, Mode, Object, Proxy
from pushsim.plan import ProxyState, Push, Response
from pushsim.releases import Rules
from pushsim.sizes import Policies, Sizer


class Pricing:
    """Sizes of responses of one istiod.

    Args:
        mesh: for its mesh config and environment.
        rules: the release.
        mode: the xDS mode.
    """

    def __init__(self, mesh: Mesh, rules: Rules, mode: Mode) -> None:
        self._sizer = Sizer(rules.release, mesh_config=mesh.mesh_config, env=mesh.env, mode=mode)
        self._policies: dict[tuple[str, int], tuple[Policies, Mapping[str, tuple[Object, ...]]]] = {}

    def size(self, response: Response, state: ProxyState, push: Push) -> int:
        """Bytes of the whole message."""
        policies = self.policies(state.proxy, push.context)
        proxy = state.view.proxy
        priced = [(r.name, self._sizer.resource_bytes(r, proxy, policies)) for r in response.resources]
        return self._sizer.response_bytes(response.xds, priced, response.removed)

    def policies(self, proxy: Proxy, context: PushContext) -> Policies:
        """The policies that may apply to a proxy: of its namespace and the root namespace, selectors not yet judged."""
        key = (proxy.namespace, id(context.policies))
        if key not in self._policies:
            namespaces = (proxy.namespace, context.root)

            def near(kind: str) -> tuple[Object, ...]:
                return tuple(o for o in context.policies[kind] if o.ref.namespace in namespaces)

            policies = Policies(
                peer_authentications=context.policies["PeerAuthentication"],
                authorization_policies=near("AuthorizationPolicy"),
                request_authentications=near("RequestAuthentication"),
                telemetries=near("Telemetry"),
                envoy_filters=near("EnvoyFilter"),
                wasm_plugins=near("WasmPlugin"),
                proxy_configs=near("ProxyConfig"),
                root_namespace=context.root,
            )
            self._policies[key] = (policies, context.policies)  # the second keeps the id from being reused
        return self._policies[key][0]
