"""Which pods are proxies, and of which type: Istio's injection webhook and what its templates start.

Sources: Istio's mutating webhook selectors (manifests/charts/istio-control/istio-discovery, mutatingwebhook.yaml) and
pkg/kube/inject (injectRequired: host network, ignored namespaces, the pod's label before its annotation).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pushsim.agents import metadata_of
from pushsim.manifests.endpoints import is_ready, is_running
from pushsim.mesh import Object, Proxy, ProxyType

Inject = Literal["detect", "labelled", "all"]

INJECT = "sidecar.istio.io/inject"
REVISION = "istio.io/rev"
TEMPLATES = "inject.istio.io/templates"
#: pkg/kube/inject IgnoredNamespaces.
IGNORED_NAMESPACES = frozenset({"kube-system", "kube-public", "kube-node-lease", "local-path-storage"})
_TRUE = frozenset({"true", "y", "yes", "on"})


def proxy_of(pod: Object, namespace_labels: Mapping[str, str], inject: Inject) -> Proxy | None:
    """The pod's proxy, or None if it has none that could connect (no address, ended, not injected)."""
    if not is_running(pod):
        return None
    container = _proxy_container(pod)
    explicit = _explicit(pod)
    if inject == "all":
        refused = explicit is False or namespace_labels.get("istio-injection") == "disabled"
        has_one = bool(container) or (
            is_ready(pod)
            and not pod.spec.get("hostNetwork")
            and not refused
            and pod.ref.namespace not in IGNORED_NAMESPACES
        )
    else:
        has_one = (inject == "detect" and bool(container)) or injected(pod, namespace_labels)
        # a gateway runs its proxy as its own container; no label injects it
        has_one = has_one or (bool(container) and _argument_type(container) in ("router", "waypoint"))
    if not has_one:
        return None
    ip = str(pod.status["podIP"])
    account = pod.spec.get("serviceAccountName") or pod.spec.get("serviceAccount") or "default"
    kind = _type(pod, container)
    return Proxy(pod.ref.name, pod.ref.namespace, ip, kind, dict(pod.labels), account, metadata_of(pod))


def injected(pod: Object, namespace_labels: Mapping[str, str]) -> bool:
    """Would Istio's webhook inject this pod?

    Namespace labels come first: `istio-injection=enabled`, or a revision when istio-injection is absent, injects unless
    the pod refuses; `disabled` never does. With neither, the pod's own label or revision asks for it.
    """
    if pod.spec.get("hostNetwork") or pod.ref.namespace in IGNORED_NAMESPACES:
        return False
    explicit = _explicit(pod)
    injection, revision = namespace_labels.get("istio-injection"), namespace_labels.get(REVISION)
    if injection == "enabled" or (injection is None and revision):
        return explicit is not False
    if injection is None:
        # the object webhook selects by label; the annotation only counts once it was called
        asks = pod.labels.get(INJECT) == "true" or (REVISION in pod.labels and pod.labels.get(INJECT) != "false")
        return asks and explicit is not False
    return False


def _explicit(pod: Object) -> bool | None:
    value = pod.labels.get(INJECT, pod.annotations.get(INJECT))
    return None if not value else value.lower() in _TRUE


def _proxy_container(pod: Object) -> Mapping[str, Any] | None:
    """The `istio-proxy` container; a native sidecar is an init container."""
    containers: Iterator[Mapping[str, Any]] = (
        c for key in ("containers", "initContainers") for c in pod.spec.get(key) or ()
    )
    return next((c for c in containers if c.get("name") == "istio-proxy"), None)


def _argument_type(container: Mapping[str, Any] | None) -> ProxyType | None:
    arguments = list((container or {}).get("args") or ())
    known: dict[str, ProxyType] = {
        "sidecar": "sidecar",
        "router": "router",
        "waypoint": "waypoint",
        "ztunnel": "ztunnel",
    }
    for before, argument in itertools.pairwise(arguments):
        if before == "proxy" and argument in known:
            return known[argument]
    return None


def _type(pod: Object, container: Mapping[str, Any] | None) -> ProxyType:
    managed = pod.labels.get("gateway.istio.io/managed", "")
    if by_argument := _argument_type(container):
        return by_argument
    if (
        managed == "istio.io-mesh-controller"
        or pod.labels.get("gateway.networking.k8s.io/gateway-class-name") == "istio-waypoint"
    ):
        return "waypoint"
    templates = {t.strip() for t in pod.annotations.get(TEMPLATES, "").split(",")}
    return "router" if managed or templates & {"gateway", "grpc-gateway"} else "sidecar"
