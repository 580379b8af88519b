"""ECDS: which extensions a proxy's listeners name."""

from __future__ import annotations

from collections.abc import Iterator

from pushsim.blocks import Block, Blocks
from pushsim.extensions import Place, Plugins, near
from pushsim.generators.recipient import Recipient
from pushsim.mesh import HTTP_PROTOCOLS, Object
from pushsim.resources import Listener
from pushsim.sizes.envoyfilters import discovered


class Extensions(Recipient):
    """The extensions of one proxy."""

    def extensions(self, blocks: Blocks) -> frozenset[str]:
        """Names of the extensions that its listeners hold."""
        proxy, context = self.view.proxy, self.context
        plugins = Plugins(near(context.policies["WasmPlugin"], proxy.namespace, context.root), proxy, self.rules)
        known = self.patches
        if not plugins.applying and not known:
            return frozenset()
        found: set[str] = set()
        for place in frozenset().union(*map(self._places, blocks)):
            found.update(plugins.filters(place, http=True), plugins.filters(place, http=False))
            found.update(discovered(known, place))
        return frozenset(found)

    def _places(self, block: Block) -> frozenset[Place]:
        def found() -> frozenset[Place]:
            if block.parts:
                return frozenset().union(*map(self._places, block.parts))
            return frozenset(place for listener in block if isinstance(listener, Listener) for place in _of(listener))

        return block.memo.once(found, "places")


def _of(listener: Listener) -> Iterator[Place]:
    match listener.kind:
        case "virtualOutbound":
            return
        case "virtualInbound" | "inbound":
            if listener.kind == "virtualInbound":  # to ports of no service
                yield Place("SIDECAR_INBOUND", True, 0)
                yield Place("SIDECAR_INBOUND", False, 0)
            for _, port, target, _ in listener.served():
                if port.http or port.auto:
                    yield Place("SIDECAR_INBOUND", True, target)
                if not port.http:
                    yield Place("SIDECAR_INBOUND", False, port.number)
        case "gateway":
            for server in listener.servers:
                yield Place("GATEWAY", _is_http(*server), listener.port)
        case kind:
            if kind != "tcp":
                yield Place("SIDECAR_OUTBOUND", True, listener.port)
            if kind != "http":
                yield Place("SIDECAR_OUTBOUND", False, listener.port)


def _is_http(gateway: Object, index: int) -> bool:
    """Whether a server's chain has an HTTP connection manager."""
    server = gateway.spec["servers"][index]
    protocol = str((server.get("port") or {}).get("protocol") or "").upper()
    passes = (server.get("tls") or {}).get("mode") in ("PASSTHROUGH", "AUTO_PASSTHROUGH")
    return protocol in HTTP_PROTOCOLS or (protocol == "HTTPS" and not passes)
