"""Dumps of istiod's debug pages as manifests: what that istiod knows, without asking its cluster.

    curl localhost:15014/debug/registryz   services of Kubernetes (those of ServiceEntries are in configz)
    …/debug/endpointShardz                 endpoints, hence pods and nodes (from 1.17 on endpointz is the same)
    …/debug/configz                        Istio's objects as they are
    …/debug/adsz                           connected proxies
    …/debug/syncz                          their types; else told by what they watch and by their labels
    …/debug/mesh                           MeshConfig

Each file is known by its shape. Pods that no proxy runs in have no name of their own there: they are called by workload
and address. Shapes are those of istiod 1.24's pages, as the tests have them from a real one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pushsim.errors import InputError, Problem
from pushsim.given import Paths, as_paths

#: Labels that istiod adds to those of an endpoint's pod.
_ADDED = ("topology.istio.io/", "topology.kubernetes.io/", "kubernetes.io/hostname")
#: Resolution of a headless service (model.Passthrough).
_PASSTHROUGH = 2
_GATEWAY_NAME = "gateway.networking.k8s.io/gateway-name"
_SERVICE_NAME = "kubernetes.io/service-name"

Body = dict[str, Any]


@dataclass
class Dumps:
    """Pages by name, as read."""

    registryz: list[Body] = field(default_factory=list)
    endpointz: Body = field(default_factory=dict)
    configz: list[Body] = field(default_factory=list)
    adsz: list[Body] = field(default_factory=list)
    syncz: list[Body] = field(default_factory=list)
    mesh: Body = field(default_factory=dict)


def read_json(path: str | Path) -> Any:
    """A JSON file; InputError if it is none."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(Problem(f"cannot be read: {error.strerror}", str(path), remedy="check the path")) from None
    except ValueError as error:
        raise InputError(Problem(f"is no JSON: {error}", str(path), remedy="save the page as it is")) from None


def from_debug(paths: Paths) -> str:
    """Manifests (a Kubernetes List, JSON) of what pages of istiod's /debug tell.

    paths: registryz, endpointShardz, configz, adsz and mesh, saved as they are.

    Raises InputError.
    """
    dumps, problems = Dumps(), []
    for path in as_paths(paths):
        page = read_json(path)
        name = page_of(page)
        if name is None:
            remedy = "give registryz, endpointShardz, configz, adsz, syncz or mesh of istiod's /debug"
            problems.append(Problem("is no page that is known", str(path), remedy=remedy))
        elif name == "adsz":
            dumps.adsz += page["clients"]
        elif isinstance(page, list):
            getattr(dumps, name).extend(page)
        else:
            getattr(dumps, name).update(page)
    if not problems and not dumps.registryz:
        problems.append(Problem("no registryz among the pages", remedy="it has the services: add it"))
    if problems:
        raise InputError(problems)
    items = list(manifests(dumps))
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=1, ensure_ascii=False) + "\n"


def page_of(page: Any) -> str | None:
    """Which page it is, by its shape; None if it is none of ours. An empty list may be any: it is configz."""
    if isinstance(page, list):
        first = page[0] if page else {"kind": "", "spec": {}}
        if not isinstance(first, dict):
            return None
        shapes = (
            ("registryz", {"Attributes", "hostname"}),
            ("syncz", {"proxy", "cluster_id"}),
            ("configz", {"kind", "spec"}),
        )
        return next((name for name, keys in shapes if keys <= set(first)), None)
    if not isinstance(page, dict):
        return None
    if "clients" in page and "totalClients" in page:
        return "adsz"
    if "rootNamespace" in page or "defaultConfig" in page:
        return "mesh"
    shards = [shard for of_host in page.values() if isinstance(of_host, dict) for shard in of_host.values()]
    return "endpointz" if all(isinstance(shard, dict) and "Shards" in shard for shard in shards) and shards else None


def manifests(dumps: Dumps) -> Iterator[Body]:
    """The objects, in an order in which they could be applied."""
    proxies = _proxies(dumps)
    endpoints = list(_endpoints(dumps.endpointz))
    kubernetes = [s for s in dumps.registryz if s["Attributes"].get("ServiceRegistry") == "Kubernetes"]
    spaces = {
        *(s["Attributes"]["Namespace"] for s in kubernetes),
        *(str(c["metadata"].get("namespace") or "") for c in dumps.configz),
        *(proxy.namespace for proxy in proxies.values()),
    }
    yield from (_object("v1", "Namespace", "", name) for name in sorted(spaces - {""}))
    nodes = {e["NodeName"]: (e.get("Locality") or {}).get("Label") or "" for _, e in endpoints if e.get("NodeName")}
    yield from (_object("v1", "Node", "", name, labels=_zone(label)) for name, label in sorted(nodes.items()))
    if dumps.mesh:
        config = yaml.safe_dump(dumps.mesh, sort_keys=True)
        yield {**_object("v1", "ConfigMap", "istio-system", "istio"), "data": {"mesh": config}}
    targets = _target_ports(endpoints)
    yield from (_service(service, targets) for service in kubernetes)
    yield from _pods(endpoints, proxies)
    for service in kubernetes:
        host, namespace = service["hostname"], service["Attributes"]["Namespace"]
        mine = [e for (of, space), e in endpoints if (of, space) == (host, namespace)]
        if mine:
            yield from _slices(service, mine, proxies)
    yield from ({**config, "metadata": _clean(config["metadata"])} for config in dumps.configz)


@dataclass(frozen=True)
class _Proxy:
    name: str
    namespace: str
    ip: str
    kind: str
    labels: Mapping[str, str]
    account: str


def _proxies(dumps: Dumps) -> dict[str, _Proxy]:
    """Connected proxies by their address."""
    kinds = {row["proxy"]: row["proxy_type"] for row in dumps.syncz if row.get("proxy_type")}
    found: dict[str, _Proxy] = {}
    for client in dumps.adsz:
        proxy = str(client["connectionId"]).rpartition("-")[0]
        name, _, namespace = proxy.rpartition(".")
        meta = client.get("metadata") or {}
        ip = str(meta.get("INSTANCE_IPS") or "").split(",")[0]
        if not (name and ip):
            continue
        labels = meta.get("LABELS") or _own(client.get("labels"))
        kind = kinds.get(proxy) or _type(client.get("watches") or {}, labels)
        found[ip] = _Proxy(name, namespace, ip, kind, labels, str(meta.get("SERVICE_ACCOUNT") or "default"))
    return found


def _type(watches: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """Where no page tells it: a sidecar has inbound listeners and clusters; else a gateway goes by its labels."""
    names = {name for watched in watches.values() for name in watched or ()}
    if "virtualInbound" in names or any(name.startswith(("InboundPassthrough", "inbound|")) for name in names):
        return "sidecar"
    told = any(kind.endswith((".Listener", ".Cluster")) and watched for kind, watched in watches.items())
    by_label = any("gateway" in str(labels.get(key, "")) for key in ("istio", "app")) or _GATEWAY_NAME in labels
    return "router" if told or by_label else "sidecar"


def _own(labels: Mapping[str, str] | None) -> dict[str, str]:
    """Labels without those that istiod adds."""
    return {key: value for key, value in (labels or {}).items() if not key.startswith(_ADDED)}


def _endpoints(endpointz: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], Body]]:
    """((host, namespace), endpoint) of each endpoint of Kubernetes."""
    for host, spaces in endpointz.items():
        for namespace, shards in spaces.items():
            for shard, listed in (shards.get("Shards") or {}).items():
                if shard.startswith("Kubernetes/"):
                    yield from (((host, namespace), endpoint) for endpoint in listed or ())


def _address(endpoint: Mapping[str, Any]) -> str:
    """Its first address; releases before 1.24 have one, called Address."""
    return str((endpoint.get("Addresses") or [endpoint.get("Address") or ""])[0])


def _target_ports(endpoints: Iterable[tuple[tuple[str, str], Body]]) -> dict[tuple[str, str, str], int]:
    """Target port by (host, namespace, name of the service port), where all endpoints have the same."""
    found: dict[tuple[str, str, str], set[int]] = {}
    for (host, namespace), endpoint in endpoints:
        found.setdefault((host, namespace, endpoint["ServicePortName"]), set()).add(int(endpoint["EndpointPort"]))
    return {key: next(iter(ports)) for key, ports in found.items() if len(ports) == 1}


def _service(service: Mapping[str, Any], targets: Mapping[tuple[str, str, str], int]) -> Body:
    own = service["Attributes"]
    exported = sorted(own.get("ExportTo") or ())
    annotations = {"networking.istio.io/exportTo": ",".join(exported)} if exported else None
    ports = []
    for port in service.get("ports") or ():
        target = targets.get((service["hostname"], own["Namespace"], port["name"]))
        own_target = {"targetPort": target} if target is not None else {}
        told = {"name": port["name"], "port": port["port"], "protocol": "TCP"}
        ports.append(told | own_target | _protocol(port["protocol"]))
    spec: Body = {"type": own.get("Type") or "ClusterIP", "ports": ports}
    if own.get("LabelSelectors"):
        spec["selector"] = own["LabelSelectors"]
    if own.get("ExternalName"):
        spec["externalName"] = own["ExternalName"]
    elif service.get("Resolution") == _PASSTHROUGH:
        spec["clusterIP"] = "None"
    else:
        spec["clusterIP"] = service.get("defaultAddress") or ""
    body = _object("v1", "Service", own["Namespace"], own["Name"], labels=own.get("Labels"), annotations=annotations)
    created = str(service.get("creationTime") or "")
    if created and not created.startswith("0001"):
        body["metadata"]["creationTimestamp"] = created
    return {**body, "spec": spec}


def _protocol(protocol: str) -> Body:
    """Whatever the port is called, its protocol stays what istiod made of it."""
    if protocol == "UDP":
        return {"protocol": "UDP"}
    return {} if protocol in ("UnsupportedProtocol", "Unsupported") else {"appProtocol": protocol.lower()}


def _pods(endpoints: Iterable[tuple[tuple[str, str], Body]], proxies: Mapping[str, _Proxy]) -> Iterator[Body]:
    """A pod for each address, and for each proxy that no service has as endpoint."""
    at = {_address(e): e for _, e in endpoints}
    for ip in {**at, **proxies}:
        if ip:
            yield _pod(ip, at.get(ip), proxies.get(ip))


def _pod(ip: str, endpoint: Mapping[str, Any] | None, proxy: _Proxy | None) -> Body:
    namespace, name = _pod_of(ip, endpoint, proxy)
    told = (endpoint or {}).get("Labels") or {}
    labels = dict(proxy.labels) if proxy else _own(told)
    account = (
        proxy.account if proxy else str((endpoint or {}).get("ServiceAccount") or "").rpartition("/")[2] or "default"
    )
    containers: list[Body] = [{"name": "app", "image": "app"}]
    if proxy:
        arguments = ["proxy", proxy.kind]
        containers.append({"name": "istio-proxy", "image": "proxyv2", "args": arguments})
    spec: Body = {"serviceAccountName": account, "containers": containers}
    if endpoint and endpoint.get("NodeName"):
        spec["nodeName"] = endpoint["NodeName"]
    ready = endpoint is None or endpoint.get("HealthStatus", 1) == 1
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    status = {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": conditions}
    return {**_object("v1", "Pod", namespace, name, labels=labels), "spec": spec, "status": status}


def _pod_of(ip: str, endpoint: Mapping[str, Any] | None, proxy: _Proxy | None) -> tuple[str, str]:
    if proxy:
        return proxy.namespace, proxy.name
    assert endpoint is not None
    return str(
        endpoint.get("Namespace") or ""
    ), f"{endpoint.get('WorkloadName') or 'pod'}-{ip.replace('.', '-').replace(':', '-')}"


def _slices(service: Mapping[str, Any], endpoints: Sequence[Body], proxies: Mapping[str, _Proxy]) -> Iterator[Body]:
    """One slice per set of target ports: named target ports may differ from pod to pod."""
    own = service["Attributes"]
    ports_of: dict[str, dict[str, int]] = {}
    for endpoint in endpoints:
        ports_of.setdefault(_address(endpoint), {})[endpoint["ServicePortName"]] = endpoint["EndpointPort"]
    by_ports: dict[tuple[tuple[str, int], ...], list[str]] = {}
    for ip, ports in ports_of.items():
        by_ports.setdefault(tuple(sorted(ports.items())), []).append(ip)
    at = {_address(e): e for e in endpoints}
    for number, (ports_, ips) in enumerate(by_ports.items()):
        listed = []
        for ip in ips:
            endpoint = at[ip]
            namespace, name = _pod_of(ip, endpoint, proxies.get(ip))
            reference = {"kind": "Pod", "namespace": namespace, "name": name}
            ready = endpoint.get("HealthStatus", 1) == 1
            one: Body = {"addresses": [ip], "conditions": {"ready": ready}, "targetRef": reference}
            listed.append(one | ({"nodeName": endpoint["NodeName"]} if endpoint.get("NodeName") else {}))
        labels = {_SERVICE_NAME: own["Name"]}
        family = "IPv6" if ":" in ips[0] else "IPv4"
        told = [{"name": name, "port": port, "protocol": "TCP"} for name, port in ports_]
        body = _object(
            "discovery.k8s.io/v1", "EndpointSlice", own["Namespace"], f"{own['Name']}-{number}", labels=labels
        )
        yield {**body, "addressType": family, "endpoints": listed, "ports": told}


def _zone(label: str) -> dict[str, str]:
    names = ("topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone")
    return {name: part for name, part in zip(names, label.split("/"), strict=False) if part}


def _clean(metadata: Mapping[str, Any]) -> Body:
    return {key: value for key, value in metadata.items() if value is not None and key != "resourceVersion"}


def _object(api: str, kind: str, namespace: str, name: str, **more: Any) -> Body:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": api, "kind": kind, "metadata": metadata | {k: v for k, v in more.items() if v}}
