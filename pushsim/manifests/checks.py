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
from pushsim.manifests.meshconfig import MESH_CONFIG
from pushsim.manifests.shapes import (
    Check,
    amount,
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
    routes,
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
        "route[]": needs("destination"),
        "route[].weight": number,
        "route[].destination": needs("host"),
        **{f"route[].destination.{field}": of for field, of in _DESTINATION.items()},
    }.items()
}
_HTTP: Mapping[str, Check] = {
    "timeout": span,
    "retries.attempts": number,
    "retries.perTryTimeout": span,
    "fault.delay.fixedDelay": span,
    "corsPolicy.maxAge": span,
    **{f"corsPolicy.{name}[]": string for name in ("allowOrigin", "allowMethods", "allowHeaders", "exposeHeaders")},
    "corsPolicy.allowOrigins[]": mapping,
    "directResponse.body": mapping,
    "directResponse.status": number,
    "rewrite.uriRegexRewrite": mapping,
    "redirect.port": number,
    "redirect.redirectCode": number,
    "delegate": mapping,
    "fault.abort.httpStatus": number,
    **{f"{of}.value": amount for of in ("fault.delay.percentage", "fault.abort.percentage", "mirrors[].percentage")},
    **{f"match[].{name}{{}}": mapping for name in ("headers", "queryParams", "withoutHeaders")},
    **{f"match[].{name}": mapping for name in ("uri", "authority", "method", "scheme")},
    **{
        f"{of}headers.{way}.{does}": check
        for of in ("", "route[].")
        for way in ("request", "response")
        for does, check in (("set", strings), ("add", strings), ("remove[]", string))
    },
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
        for name in (
            "http1MaxPendingRequests",
            "http2MaxRequests",
            "maxConcurrentStreams",
            "maxRequestsPerConnection",
            "maxRetries",
        )
    },
}
_SETTINGS: Mapping[str, Check] = {
    **{f"connectionPool.{path}": check for path, check in _CONNECTIONS.items()},
    **{f"loadBalancer.consistentHash.{name}": string for name in ("httpHeaderName", "httpQueryParameterName")},
    **{
        f"loadBalancer.consistentHash.{name}": number
        for name in ("minimumRingSize", "ringHash.minimumRingSize", "maglev.tableSize")
    },
    "loadBalancer.consistentHash.httpCookie.ttl": span,
    "loadBalancer.warmupDurationSecs": span,
    "loadBalancer.warmup": needs("duration"),
    "loadBalancer.warmup.duration": span,
    **{f"loadBalancer.warmup.{name}": amount for name in ("aggression", "minimumPercent")},
    "loadBalancer.localityLbSetting.distribute[]": mapping,
    "loadBalancer.localityLbSetting.failover[]": mapping,
    "loadBalancer.localityLbSetting.failoverPriority[]": string,
    **{
        f"outlierDetection.{name}": number
        for name in ("consecutive5xxErrors", "consecutiveGatewayErrors", "maxEjectionPercent", "minHealthPercent")
    },
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


def _negated(name: str) -> str:
    return f"not{name[0].upper()}{name[1:]}"


_SOURCES = ("principals", "requestPrincipals", "namespaces", "ipBlocks", "remoteIpBlocks", "serviceAccounts")
_OPERATIONS = ("hosts", "ports", "methods", "paths")
_RULE: Mapping[str, Check] = {
    **{f"from[].source.{name}[]": string for each in _SOURCES for name in (each, _negated(each))},
    **{f"to[].operation.{name}[]": string for each in _OPERATIONS for name in (each, _negated(each))},
    "when[].key": string,
    "when[].values[]": string,
    "when[].notValues[]": string,
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
        "spec.egress[]": needs("hosts"),
        "spec.egress[].hosts[]": egress_host,
        "spec.egress[].port": needs("number"),
        "spec.egress[].port.number": port_or_socket,
        "spec.ingress[].port.number": port,
        "spec.ingress[].defaultEndpoint": string,
        **{
            f"spec.{of}.{path}": check
            for of in ("ingress[].connectionPool", "inboundConnectionPool")
            for path, check in _CONNECTIONS.items()
        },
    },
    "VirtualService": {
        **_EXPORTED,
        **_ROUTE,
        "spec": routes,
        "spec.hosts[]": string,
        "spec.gateways[]": string,
        **{f"spec.http[].{path}": check for path, check in _HTTP.items()},
    },
    "DestinationRule": {
        **_EXPORTED,
        "spec": needs("host"),
        "spec.host": string,
        "spec.subsets[]": needs("name"),
        "spec.subsets[].name": string,
        "spec.subsets[].labels": strings,
        "spec.workloadSelector.matchLabels": strings,
        **{f"spec.{of}trafficPolicy.{path}": c for of in ("", "subsets[].") for path, c in _POLICY.items()},
    },
    "ServiceEntry": {
        **_EXPORTED,
        "spec": needs("hosts"),
        "spec.hosts[]": string,
        "spec.addresses[]": string,
        "spec.ports[]": needs("number", "name"),
        "spec.ports[].number": port,
        "spec.ports[].targetPort": port,
        "spec.ports[].name": string,
        "spec.subjectAltNames[]": string,
        "spec.endpoints[].weight": number,
        "spec.endpoints[].labels": strings,
        "spec.endpoints[].ports": ports,
        "spec.workloadSelector.labels": strings,
    },
    "WorkloadEntry": {"spec.address": string, "spec.labels": strings, "spec.ports": ports, "spec.weight": number},
    "Gateway": {
        "spec": needs("servers"),
        "spec.selector": strings,
        "spec.servers[]": needs("hosts", "port"),
        "spec.servers[].port": needs("number", "name", "protocol"),
        "spec.servers[].port.number": port,
        "spec.servers[].port.protocol": string,
        "spec.servers[].hosts[]": string,
    },
    "EnvoyFilter": {
        "spec.workloadSelector.labels": strings,
        "spec.priority": number,
        "spec.configPatches[].match.proxy": mapping,
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
        "spec.jwtRules[].fromCookies[]": string,
        "spec.jwtRules[].outputClaimToHeaders[]": mapping,
        "spec.jwtRules[].audiences[]": string,
    },
    "Telemetry": {
        **_WORKLOAD_SELECTOR,
        **{f"spec.{of}[].providers[]": mapping for of in ("accessLogging", "metrics", "tracing")},
        "spec.tracing[].customTags": mapping,
        "spec.accessLogging[].filter": mapping,
        "spec.metrics[].reportingInterval": span,
    },
    "WasmPlugin": {
        **_WORKLOAD_SELECTOR,
        "spec.match[].ports[].number": number,
        "spec.pluginConfig": mapping,
        "spec.vmConfig.env[]": mapping,
    },
    "ProxyConfig": _WORKLOAD_SELECTOR,
}
_COMMON: Mapping[str, Check] = {
    "metadata.labels": strings,
    "metadata.annotations": strings,
    "metadata.ownerReferences[]": mapping,
    "spec": mapping,
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
        node = level.setdefault(last.rstrip("[]{}"), _Field())
        if last.endswith(("[]", "{}")):
            node.item = check
            node.value = mapping if last.endswith("{}") else node.value
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
    """Every field of a modelled object that has the wrong shape, or that Istio's own validation misses."""
    body = body if body.get("spec") is not None else {**body, "spec": {}}
    return [Problem(said, where, at, remedy) for at, (said, remedy) in _faults(body, _TREES[kind], "")]


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
        if (node.item or node.item_below) and isinstance(value, list | dict):
            for at, item in _parts(value):
                if node.item and (fault := node.item(item)):
                    faults.append((f"{prefix}{name}{at}", fault))
                if node.item_below:
                    faults += _faults(item, node.item_below, f"{prefix}{name}{at}.")
    return faults


def _parts(value: list[Any] | dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """(place, item) of what a list or a mapping holds."""
    if isinstance(value, list):
        yield from ((f"[{i}]", item) for i, item in enumerate(value))
    else:
        yield from ((f".{key}", item) for key, item in value.items())
