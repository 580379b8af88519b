"""Events of Istio configuration other than ServiceEntries and WorkloadEntries (§1.3, §1.8, §1.9)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pushsim.audience import PUBLIC
from pushsim.hosts import resolve
from pushsim.mesh import ConfigKey, Object, Ref
from pushsim.registry.delegates import delegates, merged
from pushsim.registry.store import Store
from pushsim.releases import Rules
from pushsim.requests import CONFIG_UPDATE, SECRET_TRIGGER, PushRequest

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


def config_changed(
    store: Store,
    mesh_config: Mapping[str, Any],
    rules: Rules,
    before: Object | None,
    written: Object | None,
    used: Callable[[Object], bool] = lambda _rule: False,
) -> list[PushRequest]:
    """What a config asks for that was created (no `before`), replaced, or deleted (no `written`).

    used: whether istiod has written to a stored DestinationRule as it used it.
    """
    ref = _either(before, written).ref
    if ref.kind == "VirtualService" and not rules.delegate_keys:
        default = frozenset(map(str, mesh_config.get("defaultVirtualServiceExportTo") or ())) or frozenset({PUBLIC})
        return _merged_routes_changed(store.of_kind(ref.kind), default, rules, before, written)
    rewritten = before is not None and rules.writes_rules != "never" and _rewritten(before, used)
    pushes = rewritten or _pushes(rules, before, written)
    return [config_request(ref, rules)] if pushes else []


#: Types of Secrets that istiod does not watch (credentials/kube/secrets.go).
_UNWATCHED = frozenset({"helm.sh/release.v1", "kubernetes.io/service-account-token"})


def secret_changed(secret: Object) -> list[PushRequest]:
    """What a Secret asks for that was created, written again, changed or not, or deleted: it may be a certificate."""
    if secret.body.get("type") in _UNWATCHED:
        return []
    key = ConfigKey("Secret", secret.ref.name, secret.ref.namespace)
    return [PushRequest(frozenset({key}), full=False, reasons=frozenset({SECRET_TRIGGER}))]


def _rewritten(before: Object, used: Callable[[Object], bool]) -> bool:
    """Whether what is stored is not what was written, so that any update differs from it.

    A short host is completed in place (setDestinationRules).
    """
    if before.ref.kind != "DestinationRule":
        return False
    host = str(before.spec.get("host"))
    return resolve(host, before.ref.namespace) != host or used(before)


def _either(before: Object | None, written: Object | None) -> Object:
    current = written or before
    assert current is not None
    return current


def config_request(ref: Ref, rules: Rules) -> PushRequest:
    """What a config asks for that pushes."""
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
    now: Mapping[Ref, Object], default: frozenset[str], rules: Rules, before: Object | None, written: Object | None
) -> list[PushRequest]:
    """1.30+: events come from merged VirtualServices: only roots have keys, and only where they come out otherwise."""
    ref = _either(before, written).ref
    earlier = {other: o for other, o in now.items() if other != ref} | ({ref: before} if before else {})

    def root(held: Object | None, among: Mapping[Ref, Object]) -> Object | None:
        return merged(held, among, default, rules) if held and held.spec.get("hosts") else None

    requests = []
    was, becomes = root(before, earlier), root(written, now)
    if (was or becomes) and _pushes(rules, was, becomes):
        requests.append(config_request(ref, rules))
    for other, held in now.items():
        if other != ref and ref in delegates(held):
            was, becomes = root(held, earlier), root(held, now)
            if was and becomes and was.spec != becomes.spec:
                requests.append(config_request(other, rules))
    return requests
