"""Field checks of manifests: the shapes that everything downstream relies on, one table of field paths.

Only what would make a wrong answer or a crash is checked; the rest is the API server's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pushsim.errors import Problem
from pushsim.manifests.document import HELM_REMEDY
from pushsim.manifests.kinds import KINDS

Fault = tuple[str, str] | None  # (message, remedy)
Check = Callable[[Any], Fault]


def _kind_of(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return f"the string '{value[:40]}'"
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    return "null" if value is None else f"the number {value}"


def _typed(types: type | tuple[type, ...], wanted: str, remedy: str) -> Check:
    def check(value: Any) -> Fault:
        if isinstance(value, types) and not (isinstance(value, bool) and types is int):
            return None
        return f"must be {wanted}, not {_kind_of(value)}", remedy

    return check


mapping = _typed(dict, "a mapping", "write 'key: value' lines below it")
listing = _typed(list, "a list", "write '- …' lines below it")
_string = _typed(str, "a string", "put it in quotes")
_boolean = _typed(bool, "true or false", "write true or false without quotes")


def string(value: Any) -> Fault:
    """A string without unrendered Helm template."""
    fault = _string(value)
    if fault is None and "{{" in value:
        return f"holds '{{{{' of an unrendered Helm template: '{value[:40]}'", HELM_REMEDY
    return fault


def strings(value: Any) -> Fault:
    """A mapping of strings, as labels and annotations are."""
    if fault := mapping(value):
        return fault
    for key, item in value.items():
        if not isinstance(item, str):
            return f"'{key}' must be a string, not {_kind_of(item)}", f'put it in quotes: {key}: "{item}"'
    return None


def port(value: Any) -> Fault:
    """A port number, 1 to 65535."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535:
        return None
    return f"must be a port number, not {_kind_of(value)}", "give a number from 1 to 65535, without quotes"


def port_or_name(value: Any) -> Fault:
    """A port number or the name of a container's port."""
    return None if isinstance(value, str) and value else port(value)


def replicas(value: Any) -> Fault:
    """A count of pods."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1_000_000:
        return None
    return f"must be a number of pods, not {_kind_of(value)}", "give a number from 0 to 1000000, without quotes"


def egress_host(value: Any) -> Fault:
    """`namespace/dnsName` of a Sidecar's egress: exactly one slash (istio.io/api, IstioEgressListener)."""
    if fault := string(value):
        return fault
    if value.count("/") != 1 or not all(value.split("/")):
        host = value.rpartition("/")[2] or "*"
        return f"'{value}' is not namespace/dnsName with exactly one '/'", f"write e.g. ./{host} or */{host}"
    return None


_TEMPLATE = {
    "spec.template": mapping,
    "spec.template.metadata": mapping,
    "spec.template.metadata.labels": strings,
    "spec.template.metadata.annotations": strings,
    "spec.template.spec": mapping,
    "spec.template.spec.containers": listing,
    "spec.template.spec.containers[]": mapping,
    "spec.template.spec.containers[].ports[]": mapping,
    "spec.template.spec.containers[].ports[].containerPort": port,
    "spec.template.spec.hostNetwork": _boolean,
}
_EXPORTED = {"spec.exportTo": listing, "spec.exportTo[]": string}
_WORKLOAD_SELECTOR = {"spec.selector": mapping, "spec.selector.matchLabels": strings}
_ROUTE = {
    f"spec.{protocol}{path}": check
    for protocol in ("http", "tcp", "tls")
    for path, check in {
        "": listing,
        "[]": mapping,
        "[].match[]": mapping,
        "[].route[]": mapping,
        "[].route[].destination": mapping,
        "[].route[].destination.host": string,
        "[].route[].destination.port.number": port,
    }.items()
}
CHECKS: Mapping[str, Mapping[str, Check]] = {
    "Pod": {
        "spec.containers": listing,
        "spec.containers[]": mapping,
        "spec.containers[].ports[]": mapping,
        "spec.containers[].ports[].containerPort": port,
        "status": mapping,
        "status.podIP": string,
        "status.conditions[]": mapping,
    },
    "Service": {
        "spec.selector": strings,
        "spec.clusterIP": string,
        "spec.externalName": string,
        "spec.ports": listing,
        "spec.ports[]": mapping,
        "spec.ports[].name": string,
        "spec.ports[].port": port,
        "spec.ports[].targetPort": port_or_name,
    },
    "EndpointSlice": {
        "endpoints": listing,
        "endpoints[]": mapping,
        "endpoints[].addresses": listing,
        "endpoints[].addresses[]": string,
        "endpoints[].conditions": mapping,
        "ports": listing,
        "ports[]": mapping,
        "ports[].port": port,
    },
    "Endpoints": {
        "subsets": listing,
        "subsets[]": mapping,
        "subsets[].addresses[]": mapping,
        "subsets[].addresses[].ip": string,
        "subsets[].ports[]": mapping,
        "subsets[].ports[].port": port,
    },
    "Deployment": {**_TEMPLATE, "spec.replicas": replicas},
    "StatefulSet": {**_TEMPLATE, "spec.replicas": replicas},
    "ReplicaSet": {**_TEMPLATE, "spec.replicas": replicas},
    "DaemonSet": _TEMPLATE,
    "Job": {**_TEMPLATE, "spec.parallelism": replicas, "spec.completions": replicas},
    "HorizontalPodAutoscaler": {
        "spec.minReplicas": replicas,
        "spec.scaleTargetRef": mapping,
        "spec.scaleTargetRef.kind": string,
        "spec.scaleTargetRef.name": string,
    },
    "Sidecar": {
        "spec.workloadSelector": mapping,
        "spec.workloadSelector.labels": strings,
        "spec.egress": listing,
        "spec.egress[]": mapping,
        "spec.egress[].hosts": listing,
        "spec.egress[].hosts[]": egress_host,
        "spec.egress[].port.number": port,
        "spec.ingress": listing,
        "spec.ingress[]": mapping,
        "spec.ingress[].port.number": port,
        "spec.ingress[].defaultEndpoint": string,
    },
    "VirtualService": {
        **_EXPORTED,
        **_ROUTE,
        "spec.hosts": listing,
        "spec.hosts[]": string,
        "spec.gateways": listing,
        "spec.gateways[]": string,
    },
    "DestinationRule": {
        **_EXPORTED,
        "spec.host": string,
        "spec.subsets": listing,
        "spec.subsets[]": mapping,
        "spec.subsets[].name": string,
        "spec.subsets[].labels": strings,
        "spec.trafficPolicy": mapping,
        "spec.workloadSelector": mapping,
    },
    "ServiceEntry": {
        **_EXPORTED,
        "spec.hosts": listing,
        "spec.hosts[]": string,
        "spec.addresses": listing,
        "spec.addresses[]": string,
        "spec.ports": listing,
        "spec.ports[]": mapping,
        "spec.ports[].number": port,
        "spec.ports[].targetPort": port,
        "spec.ports[].name": string,
        "spec.endpoints": listing,
        "spec.endpoints[]": mapping,
        "spec.endpoints[].labels": strings,
        "spec.workloadSelector.labels": strings,
    },
    "WorkloadEntry": {"spec.address": string, "spec.labels": strings, "spec.ports": mapping},
    "Gateway": {
        "spec.selector": strings,
        "spec.servers": listing,
        "spec.servers[]": mapping,
        "spec.servers[].port": mapping,
        "spec.servers[].port.number": port,
        "spec.servers[].port.protocol": string,
        "spec.servers[].hosts": listing,
        "spec.servers[].hosts[]": string,
    },
    "EnvoyFilter": {
        "spec.workloadSelector.labels": strings,
        "spec.configPatches": listing,
        "spec.configPatches[]": mapping,
        "spec.configPatches[].match": mapping,
    },
    "AuthorizationPolicy": {**_WORKLOAD_SELECTOR, "spec.rules": listing, "spec.rules[]": mapping},
    "PeerAuthentication": {**_WORKLOAD_SELECTOR, "spec.mtls": mapping, "spec.portLevelMtls": mapping},
    "RequestAuthentication": {**_WORKLOAD_SELECTOR, "spec.jwtRules": listing, "spec.jwtRules[]": mapping},
    "Telemetry": {
        **_WORKLOAD_SELECTOR,
        "spec.accessLogging": listing,
        "spec.metrics": listing,
        "spec.tracing": listing,
    },
    "WasmPlugin": _WORKLOAD_SELECTOR,
    "ProxyConfig": _WORKLOAD_SELECTOR,
}
_COMMON: Mapping[str, Check] = {
    "metadata.labels": strings,
    "metadata.annotations": strings,
    "metadata.ownerReferences": listing,
    "metadata.ownerReferences[]": mapping,
    "spec": mapping,
}
#: MeshConfig fields that pushsim reads (istio.io/api mesh/v1alpha1); all others are Istio's business and accepted.
MESH_CONFIG: Mapping[str, Check] = {
    "rootNamespace": string,
    "trustDomain": string,
    "ingressControllerMode": string,
    **{
        f"default{kind}ExportTo{each}": check
        for kind in ("Service", "VirtualService", "DestinationRule")
        for each, check in (("", listing), ("[]", string))
    },
    "discoverySelectors": listing,
    "discoverySelectors[]": mapping,
    "defaultConfig": mapping,
    "defaultProviders": mapping,
    "extensionProviders": listing,
    "extensionProviders[]": mapping,
    "enableTracing": _boolean,
    "enableAutoMtls": _boolean,
    "outboundTrafficPolicy": mapping,
    "outboundTrafficPolicy.mode": string,
    "accessLogFile": string,
}
#: Fields that mark a document without kind as a MeshConfig.
MESH_CONFIG_FIELDS = frozenset(path for path in MESH_CONFIG if path.isalnum()) | {
    "accessLogEncoding", "accessLogFormat", "dnsRefreshRate", "enablePrometheusMerge", "serviceSettings",
    "configSources", "localityLbSetting", "meshMTLS", "pathNormalization", "connectTimeout",
    "protocolDetectionTimeout", "caCertificates", "trustDomainAliases", "ingressService", "ingressSelector",
    "inboundTrafficPolicy", "tlsDefaults", "proxyListenPort",
}  # fmt: skip

#: All fields of these kinds' specs, and of a Sidecar's listeners (istio.io/api networking/v1, of Istio 1.31).
_FIELDS: Mapping[str, Mapping[str, frozenset[str]]] = {
    kind: {path: frozenset(names.split()) for path, names in paths.items()}
    for kind, paths in {
        "Sidecar": {
            "": "workloadSelector ingress egress inboundConnectionPool outboundTrafficPolicy",
            "egress": "port bind captureMode hosts",
            "ingress": "port bind captureMode defaultEndpoint tls connectionPool",
        },
        "VirtualService": {"": "hosts gateways http tls tcp exportTo"},
        "DestinationRule": {"": "host trafficPolicy subsets exportTo workloadSelector"},
        "ServiceEntry": {
            "": "hosts addresses ports location resolution endpoints workloadSelector exportTo subjectAltNames"
        },
        "Gateway": {"": "servers selector"},
        "WorkloadEntry": {"": "address ports labels network locality weight serviceAccount"},
    }.items()
}


@dataclass(slots=True)
class _Field:
    """What to check of one field: its value, each of its items, and the fields below either."""

    value: Check | None = None
    item: Check | None = None
    below: dict[str, _Field] = field(default_factory=dict)
    item_below: dict[str, _Field] = field(default_factory=dict)


def _tree(checks: Mapping[str, Check]) -> dict[str, _Field]:
    """Paths like `spec.egress[].hosts[]` as a tree, so that one walk checks an object."""
    root: dict[str, _Field] = {}
    for path, check in checks.items():
        level = root
        *parents, last = path.split(".")
        for part in parents:
            node = level.setdefault(part.removesuffix("[]"), _Field())
            level = node.item_below if part.endswith("[]") else node.below
        node = level.setdefault(last.removesuffix("[]"), _Field())
        if last.endswith("[]"):
            node.item = check
        else:
            node.value = check
    return root


_TREES = {kind: _tree({**_COMMON, **CHECKS.get(kind, {})}) for kind in KINDS}
_MESH_CONFIG_TREE = _tree(MESH_CONFIG)


def check_object(body: Mapping[str, Any], kind: str, where: str) -> list[Problem]:
    """Every field of a modelled object that has the wrong shape."""
    return [Problem(said, where, at, remedy) for at, (said, remedy) in _faults(body, _TREES[kind], "")]


def unknown_fields(body: Mapping[str, Any], kind: str, where: str) -> list[Problem]:
    """Fields of a checked Istio object's spec that its kind has not: a slip of the pen, or newer than we know.

    `kubectl apply` refuses them, but where it is told not to, or the object comes by another way, they are dropped.
    """
    found: list[Problem] = []
    spec: dict[str, Any] = body.get("spec") or {}
    for path, names in _FIELDS.get(kind, {}).items():
        parts = {"spec": spec} if not path else _items(spec, path)
        for at, part in parts.items():
            for name in sorted(map(str, part.keys() - names)) if isinstance(part, dict) else ():
                from pushsim.problems import nearest

                remedy = nearest(name, names, "fields")
                found.append(Problem(f"is no field of a {kind}, so it is left out", where, f"{at}.{name}", remedy))
    return found


def _items(spec: Mapping[str, Any], path: str) -> dict[str, Any]:
    return {f"spec.{path}[{number}]": item for number, item in enumerate(spec.get(path) or ())}


def check_mesh_config(config: Mapping[str, Any], where: str, prefix: str = "") -> list[Problem]:
    """Every field of a MeshConfig that pushsim reads and that has the wrong shape."""
    return [Problem(said, where, at, remedy) for at, (said, remedy) in _faults(config, _MESH_CONFIG_TREE, prefix)]


def _faults(body: Any, tree: Mapping[str, _Field], prefix: str) -> list[tuple[str, tuple[str, str]]]:
    """(field path, fault) of a mapping; absent and null fields are no fault, nor is what lies below a wrong shape."""
    faults: list[tuple[str, tuple[str, str]]] = []
    if not isinstance(body, dict):
        return faults
    for name, node in tree.items():
        value = body.get(name)
        if value is None:
            continue
        if node.value and (fault := node.value(value)):
            faults.append((prefix + name, fault))
        if node.below and isinstance(value, dict):
            faults += _faults(value, node.below, f"{prefix}{name}.")
        if (node.item or node.item_below) and isinstance(value, list):
            for i, item in enumerate(value):
                if node.item and (fault := node.item(item)):
                    faults.append((f"{prefix}{name}[{i}]", fault))
                elif node.item_below:
                    faults += _faults(item, node.item_below, f"{prefix}{name}[{i}].")
    return faults
