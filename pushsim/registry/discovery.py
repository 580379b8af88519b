"""discoverySelectors: which namespaces an istiod watches (reference §1.10).

Objects of other namespaces are kept aside, so that they can appear when their Namespace's labels change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pushsim.mesh import Object, Ref
from pushsim.releases import Rules

#: Kinds of Kubernetes: hidden in unselected namespaces by every release.
_KUBERNETES_KINDS = frozenset({"Service", "EndpointSlice", "Pod"})


class Discovery:
    """What discoverySelectors let an istiod see.

    Args:
        mesh_config: with the selectors, Kubernetes label selectors of which any suffices; without them all is seen.
        env: ENABLE_ENHANCED_RESOURCE_SCOPING, whether they hold for Istio's configuration, too.
        rules: the release.
    """

    def __init__(self, mesh_config: Mapping[str, Any], env: Mapping[str, str], rules: Rules) -> None:
        self._selectors: Sequence[Mapping[str, Any]] = mesh_config.get("discoverySelectors") or ()
        asked = str(env.get("ENABLE_ENHANCED_RESOURCE_SCOPING", "")).lower() or rules.resource_scoping
        self._configs = rules.resource_scoping == "always" or (rules.resource_scoping != "none" and asked == "true")
        #: Whether a namespace that comes or goes is a change of everything (until 1.21, with scoped configuration).
        self.pushes_all = self._configs and rules.resource_scoping == "false"
        self._labels: dict[str, Mapping[str, str]] = {}
        self._aside: dict[str, dict[Ref, Object]] = {}

    def fork(self) -> Discovery:
        """An independent copy."""
        copy = object.__new__(Discovery)
        copy._selectors, copy._configs, copy.pushes_all = self._selectors, self._configs, self.pushes_all
        copy._labels = dict(self._labels)
        copy._aside = {namespace: dict(objects) for namespace, objects in self._aside.items()}
        return copy

    @property
    def selective(self) -> bool:
        """Whether anything may be hidden at all."""
        return bool(self._selectors)

    def covers(self, ref: Ref) -> bool:
        """Whether objects of this kind are hidden where the namespace is not watched."""
        return bool(ref.namespace) and (ref.kind in _KUBERNETES_KINDS or self._configs)

    def watches(self, namespace: str) -> bool:
        """Whether some selector selects a namespace."""
        # the API server sets this label on every Namespace
        labels = {"kubernetes.io/metadata.name": namespace, **self._labels.get(namespace, {})}
        return not self._selectors or any(_selects(selector, labels) for selector in self._selectors)

    def relabelled(self, name: str, labels: Mapping[str, str] | None) -> bool:
        """Takes note of a Namespace's labels (None: it is deleted); whether that changed what is watched."""
        before = self.watches(name)
        if labels is None:
            self._labels.pop(name, None)
        else:
            self._labels[name] = labels
        return self.watches(name) != before

    def put_aside(self, held: Object) -> None:
        """Keep an object that istiod does not see."""
        self._aside.setdefault(held.ref.namespace, {})[held.ref] = held

    def forget(self, ref: Ref) -> bool:
        """The object is deleted; whether it was put aside."""
        return self._aside.get(ref.namespace, {}).pop(ref, None) is not None

    def appearing(self, namespace: str) -> Iterator[Object]:
        """The objects of a namespace that is watched from now on."""
        yield from self._aside.pop(namespace, {}).values()


def _selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Kubernetes' LabelSelectorAsSelector: all of matchLabels and matchExpressions; an empty one selects all."""
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_holds(expression, labels) for expression in selector.get("matchExpressions") or ())


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = str(expression.get("key")), expression.get("values") or ()
    match expression.get("operator"):
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    return False
