"""Field checks of manifests: the shapes that everything downstream relies on, one table of field paths.

Only what would make a wrong answer or a crash is checked; the rest is the API server's business.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pushsim.errors import Problem
from pushsim.manifests.enums import ENUMS
from pushsim.manifests.kinds import KINDS
from pushsim.manifests.meshconfig import FIELDS, MESH_CONFIG
from pushsim.manifests.shapes import (
    Check,
    boolean,
    egress_host,
    listing,
    mapping,
    needs,
    number,
    port,
    port_or_name,
    port_or_socket,
    ports,
    replicas,
    span,
    string,
    strings,
)

_TEMPLATE = {
    "spec.template.metadata.labels": strings,
    "spec.template.metadata.annotations": strings,
    "spec.template.spec.containers[].ports[].containerPort": port,
    "spec.template.spec.hostNetwork": boolean,
}
_EXPORTED = {"spec.exportTo[]": string}
_WORKLOAD_SELECTOR = {"spec.selector.matchLabels": strings}
_DESTINATION = {"host": string, "port.number": port}
_ROUTE: Mapping[str, Check] = {
    f"spec.{protocol}[].{path}": check
    for protocol in ("http", "tcp", "tls")
    for path, check in {
        "match[].port": port,
        "match[].gateways[]": string,
        "match[].sourceLabels": strings,
        "match[].sniHosts[]": string,
        "route[].weight": number,
        **{f"route[].destination.{field}": of for field, of in _DESTINATION.items()},
    }.items()
}
_HTTP: Mapping[str, Check] = {
    "timeout": span,
    "retries.attempts": number,
    "retries.perTryTimeout": span,
    "fault.delay.fixedDelay": span,
    "corsPolicy.maxAge": span,
    "directResponse.body": mapping,
    "directResponse.status": number,
    "rewrite.uriRegexRewrite": mapping,
    "redirect": mapping,
    "delegate": mapping,
    "fault.delay.percentage": mapping,
    "fault.abort.percentage": mapping,
    "corsPolicy.allowOrigins[]": mapping,
    "corsPolicy.allowMethods[]": string,
    "match[].headers": mapping,
    "match[].queryParams": mapping,
    **{f"match[].{name}": mapping for name in ("uri", "authority", "method", "scheme")},
    **{f"{of}headers.{way}": mapping for of in ("", "route[].") for way in ("request", "response")},
    **{f"{mirror}.{field}": of for mirror in ("mirror", "mirrors[].destination") for field, of in _DESTINATION.items()},
}
_CONNECTIONS: Mapping[str, Check] = {
    "tcp.maxConnections": number,
    "tcp.tcpKeepalive.probes": number,
    **{f"tcp.{name}": span for name in ("connectTimeout", "idleTimeout", "maxConnectionDuration")},
    **{f"tcp.tcpKeepalive.{name}": span for name in ("time", "interval")},
    "http.idleTimeout": span,
    **{
        f"http.{name}": number
        for name in ("http1MaxPendingRequests", "http2MaxRequests", "maxRequestsPerConnection", "maxRetries")
    },
}
_SETTINGS: Mapping[str, Check] = {
    **{f"connectionPool.{path}": check for path, check in _CONNECTIONS.items()},
    "loadBalancer.consistentHash": mapping,
    "loadBalancer.localityLbSetting.distribute[]": mapping,
    "loadBalancer.localityLbSetting.failover[]": mapping,
    "loadBalancer.localityLbSetting.failoverPriority[]": string,
    "outlierDetection.interval": span,
    "outlierDetection.baseEjectionTime": span,
    "tls.subjectAltNames[]": string,
}
_POLICY: Mapping[str, Check] = {
    **_SETTINGS,
    "tunnel": mapping,
    "portLevelSettings[].port.number": port,
    **{f"portLevelSettings[].{path}": check for path, check in _SETTINGS.items()},
}
_SOURCES = ("principals", "requestPrincipals", "namespaces", "ipBlocks", "remoteIpBlocks", "serviceAccounts")
_OPERATIONS = ("hosts", "ports", "methods", "paths")
_RULE: Mapping[str, Check] = {
    **{f"from[].source.{name}[]": string for name in _SOURCES},
    **{f"to[].operation.{name}[]": string for name in _OPERATIONS},
    "when[].key": string,
    "when[].values[]": string,
}
CHECKS: Mapping[str, Mapping[str, Check]] = {
    "Pod": {
        "spec.containers[].ports[].containerPort": port,
        "status.podIP": string,
        "status.conditions[]": mapping,
    },
    "Service": {
        "spec.selector": strings,
        "spec.clusterIP": string,
        "spec.externalName": string,
        "spec.ports[]": needs("port"),
        "spec.ports[].name": string,
        "spec.ports[].port": port,
        "spec.ports[].targetPort": port_or_name,
    },
    "EndpointSlice": {
        "endpoints[].addresses[]": string,
        "endpoints[].conditions": mapping,
        "endpoints[].targetRef": mapping,
        "ports[].port": port,
    },
    "Endpoints": {
        "subsets[].addresses[].ip": string,
        "subsets[].ports[].port": port,
    },
    "Deployment": {**_TEMPLATE, "spec.replicas": replicas},
    "StatefulSet": {**_TEMPLATE, "spec.replicas": replicas},
    "ReplicaSet": {**_TEMPLATE, "spec.replicas": replicas},
    "DaemonSet": _TEMPLATE,
    "Job": {**_TEMPLATE, "spec.parallelism": replicas, "spec.completions": replicas},
    "HorizontalPodAutoscaler": {
        "spec.minReplicas": replicas,
        "spec.scaleTargetRef.kind": string,
        "spec.scaleTargetRef.name": string,
    },
    "Sidecar": {
        "spec.workloadSelector.labels": strings,
        "spec.egress[].hosts[]": egress_host,
        "spec.egress[].port": needs("number"),
        "spec.egress[].port.number": port_or_socket,
        "spec.ingress[].port.number": port,
        "spec.ingress[].defaultEndpoint": string,
    },
    "VirtualService": {
        **_EXPORTED,
        **_ROUTE,
        "spec.hosts[]": string,
        "spec.gateways[]": string,
        **{f"spec.http[].{path}": check for path, check in _HTTP.items()},
    },
    "DestinationRule": {
        **_EXPORTED,
        "spec.host": string,
        "spec.subsets[]": needs("name"),
        "spec.subsets[].name": string,
        "spec.subsets[].labels": strings,
        "spec.workloadSelector.matchLabels": strings,
        **{f"spec.{of}trafficPolicy.{path}": c for of in ("", "subsets[].") for path, c in _POLICY.items()},
    },
    "ServiceEntry": {
        **_EXPORTED,
        "spec.hosts[]": string,
        "spec.addresses[]": string,
        "spec.ports[]": needs("number", "name"),
        "spec.ports[].number": port,
        "spec.ports[].targetPort": port,
        "spec.ports[].name": string,
        "spec.endpoints[].labels": strings,
        "spec.endpoints[].ports": ports,
        "spec.workloadSelector.labels": strings,
    },
    "WorkloadEntry": {"spec.address": string, "spec.labels": strings, "spec.ports": ports},
    "Gateway": {
        "spec.selector": strings,
        "spec.servers[].port": needs("number"),
        "spec.servers[].port.number": port,
        "spec.servers[].port.protocol": string,
        "spec.servers[].hosts[]": string,
    },
    "EnvoyFilter": {
        "spec.workloadSelector.labels": strings,
        "spec.configPatches[].match.cluster": mapping,
        "spec.configPatches[].match.listener.filterChain.filter.subFilter": mapping,
        "spec.configPatches[].match.routeConfiguration.vhost.route": mapping,
        "spec.configPatches[].patch.value": mapping,
    },
    "AuthorizationPolicy": {**_WORKLOAD_SELECTOR, **{f"spec.rules[].{path}": c for path, c in _RULE.items()}},
    "PeerAuthentication": {**_WORKLOAD_SELECTOR, "spec.mtls": mapping},
    "RequestAuthentication": {
        **_WORKLOAD_SELECTOR,
        "spec.jwtRules[].fromHeaders[]": mapping,
        "spec.jwtRules[].fromParams[]": string,
        "spec.jwtRules[].audiences[]": string,
    },
    "Telemetry": {
        **_WORKLOAD_SELECTOR,
        **{f"spec.{of}[].providers[]": mapping for of in ("accessLogging", "metrics", "tracing")},
        "spec.tracing[].customTags": mapping,
    },
    "WasmPlugin": {**_WORKLOAD_SELECTOR, "spec.match[].ports[]": mapping, "spec.pluginConfig": mapping},
    "ProxyConfig": _WORKLOAD_SELECTOR,
}
_COMMON: Mapping[str, Check] = {
    "metadata.labels": strings,
    "metadata.annotations": strings,
    "metadata.ownerReferences[]": mapping,
    "spec": mapping,
}
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
    """Paths like `spec.egress[].hosts[]` as a tree, so that one walk checks an object; `a{}.b`: of each value of a."""
    root: dict[str, _Field] = {}
    for path, check in checks.items():
        level = root
        *parents, last = path.split(".")
        for part in parents:
            name = part.rstrip("[]{}")
            node = level.setdefault(name, _Field())
            node.value = mapping if part.endswith("{}") else node.value
            level = node.below if part == name else node.item_below
        node = level.setdefault(last.removesuffix("[]"), _Field())
        if last.endswith("[]"):
            node.item = check
        else:
            node.value = check
    _imply(root)
    return root


def _imply(tree: Mapping[str, _Field]) -> None:
    """What has fields below it is a mapping, and what has items a list, unless something else is said."""
    for node in tree.values():
        if node.item or node.item_below:
            node.value = node.value or listing
            node.item = node.item or mapping
        elif node.below:
            node.value = node.value or mapping
        _imply(node.below)
        _imply(node.item_below)


_TREES = {kind: _tree({**_COMMON, **CHECKS.get(kind, {}), **ENUMS.get(kind, {})}) for kind in KINDS}
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
        parts = {"spec.": spec} if not path else _items(spec, path)
        for at, part in parts.items():
            found += _unknown(part, names, where, at, f"a {kind}")
    return found


def _unknown(part: Any, names: frozenset[str], where: str, prefix: str, of: str) -> Iterator[Problem]:
    for name in sorted(map(str, part.keys() - names)) if isinstance(part, dict) else ():
        from pushsim.problems import nearest

        yield Problem(
            f"is no field of {of}, so it is left out", where, f"{prefix}{name}", nearest(name, names, "fields")
        )


def _items(spec: Mapping[str, Any], path: str) -> dict[str, Any]:
    return {f"spec.{path}[{number}].": item for number, item in enumerate(spec.get(path) or ())}


def check_mesh_config(config: Mapping[str, Any], where: str, prefix: str = "") -> list[Problem]:
    """Every field of a MeshConfig that pushsim reads and that has the wrong shape."""
    return [Problem(said, where, at, remedy) for at, (said, remedy) in _faults(config, _MESH_CONFIG_TREE, prefix)]


def unknown_mesh_config(config: Mapping[str, Any], where: str, prefix: str = "") -> list[Problem]:
    """Fields that a MeshConfig, or the ProxyConfig in it, has not; istiod warns of them and leaves them out."""
    parts = {path: config.get(path) if path else config for path in FIELDS}
    return [
        problem
        for path, part in parts.items()
        for problem in _unknown(part, FIELDS[path], where, f"{prefix}{path}." if path else prefix, "a MeshConfig")
    ]


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
        if (node.item or node.item_below) and isinstance(value, list | dict):
            for at, item in _parts(value):
                if node.item and (fault := node.item(item)):
                    faults.append((f"{prefix}{name}{at}", fault))
                elif node.item_below:
                    faults += _faults(item, node.item_below, f"{prefix}{name}{at}.")
    return faults


def _parts(value: list[Any] | dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """(place, item) of what a list or a mapping holds."""
    if isinstance(value, list):
        yield from ((f"[{i}]", item) for i, item in enumerate(value))
    else:
        yield from ((f".{key}", item) for key, item in value.items())
