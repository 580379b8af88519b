"""Events of Istio configuration other than ServiceEntries and WorkloadEntries (§1.3, §1.8, §1.9)."""

from __future__ import annotations

from pushsim.mesh import ConfigKey, Object, Ref
from pushsim.registry.store import Store
from pushsim.releases import Rules
from pushsim.requests import CONFIG_UPDATE, PushRequest

#: Kinds whose events become a key of their own kind.
CONFIG_KINDS = frozenset(
    {
        "VirtualService",
        "DestinationRule",
        "Gateway",
        "Sidecar",
        "EnvoyFilter",
        "AuthorizationPolicy",
        "PeerAuthentication",
        "RequestAuthentication",
        "Telemetry",
        "WasmPlugin",
        "ProxyConfig",
        "TrafficExtension",
    }
)


def config_changed(store: Store, rules: Rules, before: Object | None, written: Object | None) -> list[PushRequest]:
    """What a config asks for that was created (no `before`), replaced, or deleted (no `written`)."""
    ref = _either(before, written).ref
    if ref.kind == "VirtualService" and not rules.delegate_keys:
        return _merged_routes_changed(store, rules, before, written)
    return [_request(ref, rules)] if _pushes(rules, before, written) else []


def delegates(root: Object) -> list[Ref]:
    """The delegate VirtualServices a root VirtualService names."""
    named = [route["delegate"] for route in root.spec.get("http") or () if route.get("delegate")]
    return [Ref("VirtualService", str(d.get("namespace") or root.ref.namespace), str(d.get("name"))) for d in named]


def _either(before: Object | None, written: Object | None) -> Object:
    current = written or before
    assert current is not None
    return current


def _request(ref: Ref, rules: Rules) -> PushRequest:
    keys = {ConfigKey(ref.kind, ref.name, ref.namespace)}
    if ref.kind == "WasmPlugin" and "TrafficExtension" in rules.cluster_kinds:
        translated = ConfigKey("TrafficExtension", f"{ref.name}~istio-translated-wasmplugin", ref.namespace)
        keys = keys | {translated} if rules.has_full else {translated}
    return PushRequest(frozenset(keys), reasons=frozenset({CONFIG_UPDATE}))


def _pushes(rules: Rules, before: Object | None, written: Object | None) -> bool:
    """istiod's needsPush: an update counts if the spec differs, or something is labelled or annotated istio.io."""
    if before is None or written is None:
        return True
    looked_at = (before, written) if rules.update_compares_previous else (written,)
    if any("istio.io" in key for o in looked_at for key in (*o.labels, *o.annotations)):
        return True
    return before.spec != written.spec


def _merged_routes_changed(
    store: Store, rules: Rules, before: Object | None, written: Object | None
) -> list[PushRequest]:
    """1.30+: events come from merged VirtualServices, so only roots have keys."""
    ref = _either(before, written).ref
    requests: list[PushRequest] = []
    is_root = [bool(o.spec.get("hosts")) for o in (before, written) if o is not None]
    if any(is_root) and _pushes(rules, before, written):
        requests.append(_request(ref, rules))
    if not all(is_root) and (before is None or written is None or before.spec != written.spec):
        roots = store.of_kind("VirtualService").items()
        requests += (_request(root, rules) for root, body in roots if ref in delegates(body))
    return requests
