"""Bytes of the responses of a plan: hands `sizes` what applies to each proxy, and remembers what many proxies share."""

from __future__ import annotations

from collections.abc import Hashable

from pushsim.context import PushContext
from pushsim.generators import Block
from pushsim.mesh import Mesh, Mode, Object, Proxy, Xds
from pushsim.plan import ProxyState, Push, Response
from pushsim.releases import Rules
from pushsim.sizes import Policies, Sizer

#: Blocks shorter than this are priced anew each time: remembering them would cost more than it saves.
_SHARED = 8


class Pricing:
    """Sizes of responses of one istiod.

    Args:
        mesh: for its mesh config and environment.
        rules: the release.
        mode: the xDS mode.
    """

    def __init__(self, mesh: Mesh, rules: Rules, mode: Mode) -> None:
        self._sizer = Sizer(rules.release, mesh_config=mesh.mesh_config, env=mesh.env, mode=mode)
        self._policies: dict[tuple[str, int], tuple[Policies, object]] = {}
        self._blocks: dict[tuple[int, Hashable], tuple[int, Block]] = {}
        self._empty: dict[Xds, int] = {}

    def size(self, response: Response, state: ProxyState, push: Push) -> int:
        """Bytes of the whole message."""
        policies = self.policies(state.proxy, push.context)
        proxy = state.view.proxy
        return self._sizer.response_bytes(response.xds, (), response.removed) + sum(
            self._block(response.xds, block, proxy, policies) for block in response.blocks
        )

    def _block(self, xds: Xds, block: Block, proxy: Proxy, policies: Policies) -> int:
        if len(block) < _SHARED or xds == "RDS":
            return self._framed(xds, block, proxy, policies)
        if xds == "LDS":
            key: tuple[int, Hashable] = (id(block), self._sizer.listener_key(proxy, policies))
        else:  # clusters and assignments of services depend on no more of a proxy than this
            key = (id(block), (proxy.type, policies.envoy_filters, policies.peer_authentications))
        if key not in self._blocks:
            self._blocks[key] = (self._framed(xds, block, proxy, policies), block)
        return self._blocks[key][0]

    def _framed(self, xds: Xds, block: Block, proxy: Proxy, policies: Policies) -> int:
        """What the resources add to a message."""
        if xds not in self._empty:
            self._empty[xds] = self._sizer.response_bytes(xds, ())
        priced = [(r.name, self._sizer.resource_bytes(r, proxy, policies)) for r in block]
        return self._sizer.response_bytes(xds, priced) - self._empty[xds]

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
