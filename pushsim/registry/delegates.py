"""Delegates merged into the VirtualService that names them (pilot/pkg/model/virtualservice.go)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pushsim.audience import PRIVATE, PUBLIC
from pushsim.hosts import resolve
from pushsim.mesh import Object, Ref
from pushsim.releases import Rules

Spec = Mapping[str, Any]

#: What a delegate's route takes over from the root's where it says nothing itself (mergeHTTPRoute).
_INHERITED = (
    "rewrite", "directResponse", "timeout", "retries", "fault", "mirror", "mirrorPercent", "mirrorPercentage",
    "corsPolicy", "mirrors", "headers",
)  # fmt: skip
#: Parts of a match: those of one text, those by name, and others that are taken over whole.
_TEXTS = ("uri", "scheme", "method", "authority")
_BY_NAME = ("headers", "withoutHeaders", "queryParams")
_WHOLE = ("port", "sourceNamespace", "gateways", "statPrefix")


def delegates(root: Object) -> list[Ref]:
    """The delegate VirtualServices a root VirtualService names."""
    named = [route["delegate"] for route in root.spec.get("http") or () if route.get("delegate")]
    return [Ref("VirtualService", str(d.get("namespace") or root.ref.namespace), str(d.get("name"))) for d in named]


def merged(root: Object, objects: Mapping[Ref, Object], default: frozenset[str], rules: Rules) -> Object:
    """A root VirtualService with its delegates' http routes in place of those that name them.

    objects: VirtualServices to find them among; default: mesh-wide defaultVirtualServiceExportTo.
    """
    if not delegates(root):
        return root
    routes: list[Spec] = []
    for item in root.spec["http"]:
        if not item.get("delegate"):
            routes.append(item)
            continue
        home = str(item["delegate"].get("namespace") or root.ref.namespace)
        delegate = objects.get(Ref("VirtualService", home, str(item["delegate"].get("name"))))
        if delegate and not delegate.spec.get("hosts") and _shows(delegate, root.ref.namespace, default, rules):
            routes += _merged_routes(item, delegate)
    return replace(root, body={**root.body, "spec": {**root.spec, "http": routes}})


def _shows(delegate: Object, namespace: str, default: frozenset[str], rules: Rules) -> bool:
    """Whether a root of a namespace may have it: `~` is just the name of a namespace here, and defaults may name some.

    Source: pilot/pkg/model/virtualservice.go (mergeVirtualServicesIfNeeded), 1.30+ virtualservice_controller.go.
    """
    own = frozenset(map(str, delegate.spec.get("exportTo") or ()))
    shown = own or default
    if PRIVATE in shown and (own or rules.delegate_default_private):
        shown |= {delegate.ref.namespace}
    return PUBLIC in shown or namespace in shown


def _merged_routes(route: Spec, delegate: Object) -> Iterator[Spec]:
    """The http routes of a delegate, each narrowed and completed by the root's route that names it.

    Their host names are resolved in the delegate's namespace. A route that matches what the root does not is left out.
    """
    for own in delegate.spec.get("http") or ():
        matches = _matches(route.get("match") or (), own.get("match") or ())
        if matches is None:
            continue
        found = {key: route[key] for key in _INHERITED if key in route} | dict(_resolved(own, delegate.ref.namespace))
        found["name"] = _name(route, own)
        found["match"] = matches
        yield {key: value for key, value in found.items() if value}


def _name(root: Spec, own: Spec) -> str:
    return "-".join(str(part["name"]) for part in (root, own) if part.get("name"))


def _resolved(route: Spec, namespace: str) -> Spec:
    def destination(to: Spec) -> Spec:
        return {**to, "host": resolve(str(to.get("host") or ""), namespace)}

    found = dict(route)
    for key in ("route", "mirrors"):
        if key in route:
            found[key] = [
                {**one, "destination": destination(one["destination"])} if one.get("destination") else one
                for one in route[key]
            ]
    if route.get("mirror"):
        found["mirror"] = destination(route["mirror"])
    return found


def _matches(root: Sequence[Spec], own: Sequence[Spec]) -> list[Spec] | None:
    """Each match of the delegate within each of the root's that covers it; None where one has none."""
    if not root or not own:
        return [*root, *own]
    found: list[Spec] = []
    for leaf in own:
        within = [outer for outer in root if not _conflict(outer, leaf)]
        if not within:
            return None
        found += (_match(outer, leaf) for outer in within)
    return found


def _match(root: Spec, leaf: Spec) -> Spec:
    found = {key: root[key] for key in (*_TEXTS, *_WHOLE) if key in root} | dict(leaf)
    for key in (*_BY_NAME, "sourceLabels"):
        if root.get(key) or leaf.get(key):
            found[key] = {**(root.get(key) or {}), **(leaf.get(key) or {})}
    if root.get("name") or leaf.get("name"):
        found["name"] = _name(root, leaf)
    return found


def _conflict(root: Spec, leaf: Spec) -> bool:
    """Whether a delegate's match reaches beyond a root's (hasConflict)."""
    texts = [(root.get(key), leaf.get(key)) for key in _TEXTS]
    texts += [((root.get(key) or {}).get(name), one) for key in _BY_NAME for name, one in (leaf.get(key) or {}).items()]
    if any(_text_conflict(outer, inner) for outer, inner in texts):
        return True
    if bool(root.get("ignoreUriCase")) != bool(leaf.get("ignoreUriCase")):
        return True
    if root.get("port") and leaf.get("port") and root["port"] != leaf["port"]:
        return True
    if root.get("sourceNamespace") and root["sourceNamespace"] != leaf.get("sourceNamespace"):
        return True
    labels = root.get("sourceLabels") or {}
    if any(labels.get(key, value) != value for key, value in (leaf.get("sourceLabels") or {}).items()):
        return True
    outer, inner = root.get("gateways") or (), leaf.get("gateways") or ()
    return bool(outer and inner) and (len(outer) < len(inner) or not set(inner) <= set(outer))


def _text_conflict(root: Spec | None, leaf: Spec | None) -> bool:
    """Whether a string match is not within another; regular expressions are within none."""
    if root is None or leaf is None:
        return False
    if root.get("regex") or leaf.get("regex"):
        return True
    if root.get("exact"):
        return bool(leaf.get("prefix")) or leaf.get("exact") != root["exact"]
    if root.get("prefix") and (inner := leaf.get("prefix") or leaf.get("exact")):
        return not str(inner).startswith(root["prefix"])
    return True
