"""Secrets that gateways and DestinationRules name and that nobody gave: they are taken to be there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pushsim.mesh import Object, Proxy, Ref
from pushsim.secrets import secret_of, usual


def missing(objects: Mapping[Ref, Object], proxies: Iterable[Proxy]) -> dict[Ref, Object]:
    """Stand-ins of usual size, in the namespaces of the gateways that may ask for them (or of the rule's own pods)."""
    routers = sorted({proxy.namespace for proxy in proxies if proxy.type == "router"})
    found: dict[Ref, Object] = {}
    for written in objects.values():
        if written.ref.kind not in ("Gateway", "DestinationRule"):
            continue
        own = [written.ref.namespace] if written.spec.get("workloadSelector") else []
        for name in _credentials(written.spec):
            for namespace in (*own, *routers):
                ref = secret_of(name if "://" in name else f"kubernetes://{name}", namespace)
                if ref is not None and ref not in objects and ref not in found:
                    found[ref] = _stand_in(ref)
    return found


def _credentials(part: Any) -> Iterator[str]:
    """Every credentialName in a spec."""
    if isinstance(part, Mapping):
        if (name := part.get("credentialName")) and isinstance(name, str):
            yield name
        for item in part.values():
            yield from _credentials(item)
    elif isinstance(part, list):
        for item in part:
            yield from _credentials(item)


def _stand_in(ref: Ref) -> Object:
    metadata = {"name": ref.name, "namespace": ref.namespace}
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, **usual(ref.name)}
    return Object(ref, body, "taken to be there")
