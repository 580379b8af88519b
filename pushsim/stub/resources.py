"""Which collections the stub API has."""

from __future__ import annotations

import re
import uuid
from typing import Any, NamedTuple

from pushsim.errors import InputError, Problem
from pushsim.mesh import Ref

_UIDS = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")


class Resource(NamedTuple):
    """A collection of the API.

    group: "" is core. versions: those served. crd: a client looks for its definition before it lists it.
    """

    group: str
    versions: tuple[str, ...]
    plural: str
    kind: str
    namespaced: bool = True
    crd: bool = False


def _istio(group: str, versions: str, kinds: str) -> list[Resource]:
    """Istio's kinds of one group: each a CRD, its plural in lower case."""
    plurals = ((kind, re.sub("([^aeiou])y$", r"\1ie", kind).lower() + "s") for kind in kinds.split())
    return [Resource(group, tuple(versions.split()), plural, kind, crd=True) for kind, plural in plurals]


#: Everything that istiod 1.13 to 1.31 lists with the switches of `istiod.ENVIRONMENT`. Istio's kinds are served at each
#: version it ever asked for: one object is stored, and shown at the version asked for.
RESOURCES: tuple[Resource, ...] = (
    Resource("", ("v1",), "namespaces", "Namespace", namespaced=False),
    Resource("", ("v1",), "nodes", "Node", namespaced=False),
    Resource("", ("v1",), "services", "Service"),
    Resource("", ("v1",), "pods", "Pod"),
    Resource("", ("v1",), "endpoints", "Endpoints"),
    Resource("", ("v1",), "secrets", "Secret"),
    Resource("", ("v1",), "configmaps", "ConfigMap"),
    Resource("", ("v1",), "serviceaccounts", "ServiceAccount"),
    Resource("discovery.k8s.io", ("v1", "v1beta1"), "endpointslices", "EndpointSlice"),
    Resource("networking.k8s.io", ("v1",), "ingresses", "Ingress"),
    Resource("networking.k8s.io", ("v1",), "ingressclasses", "IngressClass", namespaced=False),
    Resource(
        "apiextensions.k8s.io", ("v1",), "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
    ),
    *(
        Resource("admissionregistration.k8s.io", ("v1",), f"{kind.lower()}s", kind, namespaced=False)
        for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
    ),
    *_istio(
        "networking.istio.io",
        "v1 v1beta1 v1alpha3",
        "DestinationRule EnvoyFilter Gateway ProxyConfig ServiceEntry "
        "Sidecar VirtualService WorkloadEntry WorkloadGroup",
    ),
    *_istio("security.istio.io", "v1 v1beta1", "AuthorizationPolicy PeerAuthentication RequestAuthentication"),
    *_istio("telemetry.istio.io", "v1 v1alpha1", "Telemetry"),
    *_istio("extensions.istio.io", "v1alpha1", "WasmPlugin TrafficExtension"),
)
BY_PATH = {(r.group, r.plural): r for r in RESOURCES}
BY_KIND = {r.kind: r for r in RESOURCES}


def resource_of(ref: Ref, source: str = "") -> Resource:
    """The collection an object belongs to; raises InputError naming the kind if this API does not serve it."""
    try:
        return BY_KIND[ref.kind]
    except KeyError:
        served = ", ".join(sorted(BY_KIND))
        raise InputError(Problem(f"the stub API does not serve {ref}", source, "kind", f"it serves {served}")) from None


def uid_of(identity: str) -> str:
    """The same uid for the same object in every run."""
    return str(uuid.uuid5(_UIDS, identity))


def definition(resource: Resource) -> dict[str, Any]:
    """A CustomResourceDefinition: istiod watches a kind only if it finds one (1.13 and 1.14 decode the whole of it)."""
    name = f"{resource.plural}.{resource.group}"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": name, "uid": uid_of(name), "resourceVersion": "1"},
        "spec": {
            "group": resource.group,
            "scope": "Namespaced",
            "names": {"plural": resource.plural, "kind": resource.kind, "listKind": f"{resource.kind}List"},
            "versions": [
                {"name": version, "served": True, "storage": i == 0, "schema": {"openAPIV3Schema": {"type": "object"}}}
                for i, version in enumerate(resource.versions)
            ],
        },
        "status": {"conditions": [{"type": "Established", "status": "True"}]},
    }
