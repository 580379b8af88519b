"""ECDS: which extensions a push sends, and how istiod answers who asks for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pushsim.blocks import Block
from pushsim.context import PushContext
from pushsim.extensions import Plugins, near, plugin_name, pull_secret
from pushsim.mesh import ConfigKey, Mode, Object, Proxy
from pushsim.plan.ondemand import Service
from pushsim.plan.pushing import Pushing
from pushsim.plan.state import Response
from pushsim.registry import Registry
from pushsim.resources import Extension
from pushsim.sizes.envoyfilters import applying, patches

#: Kinds that run it; until 1.29 it is the former of the last two, then the latter.
_KINDS = frozenset({"EnvoyFilter", "WasmPlugin", "TrafficExtension"})


def extensions(pushing: Pushing) -> Response | None:
    """The ECDS response, always of all extensions the proxy has; None if ECDS does not run."""
    names, state = pushing.state.asks.extensions.names, pushing.state
    if not (pushing.everything or pushing.kinds & _KINDS or _pulls_anew(pushing)):
        return None
    return service(state.labelled, state.mode, pushing.context, pushing.registry).response(names, whole=True)


def _pulls_anew(pushing: Pushing) -> bool:
    """Whether the Secret of an image that it has was written."""
    if "Secret" not in pushing.kinds or not pushing.rules.ecds_secrets:
        return False
    proxy, context, names = pushing.state.labelled, pushing.context, pushing.state.asks.extensions.names
    plugins = _plugins(proxy, context)
    used = (pull_secret(plugin) for plugin in plugins if plugin_name(plugin.ref, context.rules) in names)
    return any(ref is not None and ConfigKey(ref.kind, ref.name, ref.namespace) in pushing.request.keys for ref in used)


def service(proxy: Proxy, mode: Mode, context: PushContext, registry: Registry) -> Service:
    """How istiod serves extensions to a proxy."""

    def found(names: Iterable[str]) -> Block:
        return Block(_found(frozenset(names), proxy, context, registry))

    rules = context.rules
    return Service(
        "ECDS", rules, mode == "delta", found, empty_sent=True, removes=not rules.ecds_by_name, like_pushes=True
    )


def _found(names: frozenset[str], proxy: Proxy, context: PushContext, registry: Registry) -> Iterator[Extension]:
    filters = applying(context.policies["EnvoyFilter"], proxy, context.root)
    for patch in patches(filters, context.rules.release):
        name = str(patch.value.get("name") or "")
        if patch.apply_to == "EXTENSION_CONFIG" and patch.operation == "ADD" and name in names:
            yield Extension(name, patch.value)
    rules = context.rules
    plugins = near(context.policies["WasmPlugin"], proxy.namespace, context.root)
    for plugin in plugins if rules.ecds_by_name else _plugins(proxy, context):
        name = plugin_name(plugin.ref, rules)
        if name in names:
            ref = pull_secret(plugin) if rules.ecds_secrets else None
            yield Extension(name, plugin, registry.store.get(ref) if ref is not None else None)


def _plugins(proxy: Proxy, context: PushContext) -> tuple[Object, ...]:
    written = near(context.policies["WasmPlugin"], proxy.namespace, context.root)
    return Plugins(written, proxy, context.rules).applying
