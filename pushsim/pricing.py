"""Bytes of the responses of a plan: hands `sizes` what applies to each proxy, and remembers what many proxies share."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from pushsim.blocks import Block, Blocks
from pushsim.context import PushContext
from pushsim.memo import Memo
from pushsim.mesh import COMMON, XDS, Mesh, Mode, Object, Proxy, Xds
from pushsim.plan import ProxyState, Push, Response
from pushsim.releases import Rules
from pushsim.sizes import Policies, Sizer
from pushsim.sizes.routes import asked_by

#: A proxy, its policies, and by type the numbers that tell it from others (`Sizer.numbers`).
_Recipient = tuple[Proxy, Policies, Mapping[Xds, int]]


class Pricing:
    """Sizes of responses of one istiod.

    Args:
        mesh: for its mesh config and environment.
        rules: the release.
        mode: the xDS mode.
        built: shared by pricings that may share what they have built of resources; None for one that shares nothing.
    """

    def __init__(self, mesh: Mesh, rules: Rules, mode: Mode, built: Memo | None = None) -> None:
        def sizer() -> Sizer:
            return Sizer(rules.release, mesh_config=mesh.mesh_config, env=mesh.env)

        known = json.dumps((mesh.mesh_config, mesh.env), sort_keys=True, default=str)
        self._sizer = (built or Memo()).once(sizer, "sizer", rules.release, known).in_mode(mode)
        self._policies = Memo()
        self._bare = {xds: self._sizer.response_bytes(xds, ()) for xds in XDS}
        self._last: tuple[ProxyState, PushContext, _Recipient] | None = None

    def size(self, response: Response, state: ProxyState, push: Push) -> int:
        """Bytes of the whole message."""
        framed = self.framed(response.xds, response.blocks, state, push)
        return framed + (self._around(response, push) if response.removed else self._bare[response.xds])

    def _around(self, response: Response, push: Push) -> int:
        xds, removed = response.xds, response.removed
        return push.context.memo.once(
            lambda: self._sizer.response_bytes(xds, (), removed), "around", xds, of=(removed, self._sizer)
        )

    def framed(self, xds: Xds, blocks: Blocks, state: ProxyState, push: Push) -> int:
        """What some blocks add to the bytes of a message."""
        sizer, (proxy, policies, told) = self._sizer, self._recipient(state, push.context)

        def measure(block: Block) -> int:
            return sizer.framed_bytes(xds, block, proxy, policies)

        size = 0
        for block in blocks:
            asked = asked_by(block).labels if xds == "RDS" else ()
            number = sizer.number_asked(xds, proxy, policies, frozenset(asked)) if asked else told[xds]
            size += block.total(measure, number, of=(sizer,))
        return size

    def _recipient(self, state: ProxyState, context: PushContext) -> _Recipient:
        """A state's proxy, and what applies to it: all its responses are priced in a row."""
        last = self._last
        if last is None or last[0] is not state or last[1] is not context:
            proxy = state.labelled
            policies = self.policies(proxy, context)
            told = self._sizer.numbers(proxy, policies)
            if asked := context.spreads_by:  # localities of endpoints, also where clusters hold them
                spread: tuple[Xds, ...] = ("CDS", "EDS")
                told = {**told, **{xds: self._sizer.number_asked(xds, proxy, policies, asked) for xds in spread}}
            last = self._last = (state, context, (proxy, policies, told))
        return last[2]

    def told(self, blocks: Blocks, state: ProxyState, push: Push) -> dict[Xds, int]:
        """By type, proxies that are told the same get all resources (of RDS, these) in the same lengths."""
        proxy, policies, told = self._recipient(state, push.context)
        asked = frozenset[str]().union(*(asked_by(block).labels for block in blocks))
        common = {xds: told[xds] for xds in COMMON}
        return common | {"RDS": self._sizer.number_asked("RDS", proxy, policies, asked)} if asked else common

    @staticmethod
    def asks(routes: Iterable[Blocks]) -> bool:
        """Whether any of these asks a proxy for its labels."""
        return any(asked_by(block).labels for blocks in routes for block in blocks)

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
