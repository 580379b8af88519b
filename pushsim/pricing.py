"""Bytes of the responses of a plan: hands `sizes` what applies to each proxy, and remembers what many proxies share."""

from __future__ import annotations

from collections.abc import Hashable

from pushsim.context import PushContext
from pushsim.generators import Block
from pushsim.memo import Recent
from pushsim.mesh import Mesh, Mode, Object, Proxy, Xds
from pushsim.plan import ProxyState, Push, Response
from pushsim.releases import Rules
from pushsim.sizes import Policies, Sizer

#: Blocks shorter than this are priced anew each time: remembering them would cost more than it saves.
_SHARED = 8
#: Resources in all the blocks that are remembered.
_REMEMBERED = 1 << 18


class Pricing:
    """Sizes of responses of one istiod.

    Args:
        mesh: for its mesh config and environment.
        rules: the release.
        mode: the xDS mode.
    """

    def __init__(self, mesh: Mesh, rules: Rules, mode: Mode) -> None:
        self._sizer = Sizer(rules.release, mesh_config=mesh.mesh_config, env=mesh.env, mode=mode)
        self._policies = Recent(1 << 14)
        self._blocks = Recent(_REMEMBERED)
        self._empty: dict[Xds, int] = {}

    def size(self, response: Response, state: ProxyState, push: Push) -> int:
        """Bytes of the whole message."""
        proxy = state.view.proxy
        policies = self.policies(proxy, push.context)
        return self._sizer.response_bytes(response.xds, (), response.removed) + sum(
            self._block(response.xds, block, proxy, policies) for block in response.blocks
        )

    def _block(self, xds: Xds, block: Block, proxy: Proxy, policies: Policies) -> int:
        if len(block) < _SHARED or xds == "RDS":
            return self._framed(xds, block, proxy, policies)
        told: Hashable
        if xds == "LDS":
            told = self._sizer.listener_key(proxy, policies)
        else:  # clusters and assignments of services depend on no more of a proxy than this
            told = (proxy.type, policies.envoy_filters, policies.peer_authentications)
        return self._blocks.once(
            lambda: self._framed(xds, block, proxy, policies), told, of=(block,), weight=len(block)
        )

    def _framed(self, xds: Xds, block: Block, proxy: Proxy, policies: Policies) -> int:
        """What the resources add to a message."""
        if xds not in self._empty:
            self._empty[xds] = self._sizer.response_bytes(xds, ())
        priced = [(r.name, self._sizer.resource_bytes(r, proxy, policies)) for r in block]
        return self._sizer.response_bytes(xds, priced) - self._empty[xds]

    def policies(self, proxy: Proxy, context: PushContext) -> Policies:
        """The policies that may apply to a proxy: of its namespace and the root namespace, selectors not yet judged."""
        namespace = proxy.namespace
        return self._policies.once(lambda: _policies(namespace, context), namespace, of=(context.policies,))


def _policies(namespace: str, context: PushContext) -> Policies:
    namespaces = (namespace, context.root)

    def near(kind: str) -> tuple[Object, ...]:
        return tuple(o for o in context.policies[kind] if o.ref.namespace in namespaces)

    return Policies(
        peer_authentications=context.policies["PeerAuthentication"],
        authorization_policies=near("AuthorizationPolicy"),
        request_authentications=near("RequestAuthentication"),
        telemetries=near("Telemetry"),
        envoy_filters=near("EnvoyFilter"),
        wasm_plugins=near("WasmPlugin"),
        proxy_configs=near("ProxyConfig"),
        root_namespace=context.root,
    )
