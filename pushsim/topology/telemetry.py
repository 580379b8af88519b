"""Observed calls as other tools write them: Prometheus' istio_requests_total, Kiali's graph, Envoy's JSON access log.

Each reader yields `Seen`; `calls.read_calls` makes the graph of them. What names no caller or no service (traffic
from outside the mesh, PassthroughCluster) is yielded with an empty end, so that it can be counted.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

_UNKNOWN = frozenset({"", "unknown", "PassthroughCluster", "BlackHoleCluster", "InboundPassthroughCluster"})


@dataclass(frozen=True, slots=True)
class Seen:
    """Calls from one workload to one host.

    source:      (namespace, workload), or ("", address) of a pod; empty names where it is not known.
    destination: host name, "" where it is not known.
    rate:        calls per second, None if only their number is known; calls: likewise.
    """

    source: tuple[str, str]
    destination: str
    rate: float | None = None
    calls: float | None = None


@dataclass(frozen=True, slots=True)
class Telemetry:
    """All that a file tells, and for how many seconds it watched (None: it does not say)."""

    seen: tuple[Seen, ...]
    watched_s: float | None = None


def recognise(data: Any) -> Telemetry | None:
    """What that JSON value tells of calls; None if it is of no known form."""
    if isinstance(data, Mapping):
        if isinstance(data.get("elements"), Mapping):
            return kiali(data)
        inner = data.get("data")
        if isinstance(inner, Mapping) and isinstance(inner.get("result"), list):
            return prometheus(inner["result"])
        if isinstance(data.get("result"), list):
            return prometheus(data["result"])
        return access_log([data]) if "upstream_cluster" in data else None
    if isinstance(data, list) and data and all(isinstance(item, Mapping) for item in data):
        if "metric" in data[0]:
            return prometheus(data)
        if any("upstream_cluster" in item for item in data):
            return access_log(data)
    return None


# ---- Prometheus


def prometheus(series: Iterable[Mapping[str, Any]]) -> Telemetry:
    """A vector or matrix of istio_requests_total.

    With the metric's name the values are counters (a matrix tells what was added, resets and all); without it they are
    rates, as rate() gives them. Both ends of a call report it: the larger of the two counts.
    """
    totals: dict[tuple[tuple[str, str], str], dict[str, list[float]]] = defaultdict(dict)
    first, last = float("inf"), float("-inf")
    for one in series:
        labels = one.get("metric") or {}
        points = _points(one)
        if not points:
            continue
        counts = "__name__" in labels
        first, last = min(first, points[0][0]), max(last, points[-1][0])
        value = _added([v for _, v in points]) if counts else sum(v for _, v in points) / len(points)
        source = (_known(labels.get("source_workload_namespace")), _known(labels.get("source_workload")))
        reporter = str(labels.get("reporter") or "")
        both = totals[source, _destination(labels)].setdefault(reporter, [0.0, 0.0])
        both[0 if counts else 1] += value
    watched = last - first if last > first else None
    seen = []
    for (source, host), by_reporter in totals.items():
        calls, rate = (max(both[place] for both in by_reporter.values()) for place in (0, 1))
        if calls or rate:
            seen.append(Seen(source, host, rate or None, calls or None))
    return Telemetry(tuple(seen), watched)


def _points(one: Mapping[str, Any]) -> list[tuple[float, float]]:
    written = one.get("values") or ([one["value"]] if one.get("value") else [])
    points = [(float(at), float(value)) for at, value in written]
    return [point for point in points if point[1] == point[1]]  # without NaN


def _added(values: Sequence[float]) -> float:
    """What a counter grew by; a fall is a restart from nothing. Of a single value, the value."""
    if len(values) == 1:
        return values[0]
    return sum(b - a if b >= a else b for a, b in itertools.pairwise(values))


def _destination(labels: Mapping[str, Any]) -> str:
    host = _known(labels.get("destination_service"))
    if host:
        return host
    name, namespace = (_known(labels.get(f"destination_service_{part}")) for part in ("name", "namespace"))
    return f"{name}.{namespace}.svc.cluster.local" if name and namespace else name


def _known(value: object) -> str:
    text = str(value or "")
    return "" if text in _UNKNOWN else text


# ---- Kiali


def kiali(graph: Mapping[str, Any]) -> Telemetry:
    """Kiali's graph (`/api/namespaces/graph`), of any type; rates are per second, `duration` in seconds."""
    elements = graph["elements"]
    nodes = {str(n["data"].get("id")): n["data"] for n in elements.get("nodes") or () if n.get("data")}
    seen = []
    for edge in elements.get("edges") or ():
        data = edge.get("data") or {}
        source, target = nodes.get(str(data.get("source")), {}), nodes.get(str(data.get("target")), {})
        if source.get("nodeType") == "service":
            continue  # from a service to its workloads: the call was told by the edge to the service
        traffic = data.get("traffic") or {}
        rate = _kiali_rate(traffic)
        caller = (_known(source.get("namespace")), _known(source.get("workload") or source.get("app")))
        for host, share in _kiali_hosts(target, traffic).items():
            seen.append(Seen(caller, host, rate * share))
    watched = graph.get("duration")
    return Telemetry(tuple(seen), float(watched) if watched else None)


def _kiali_rate(traffic: Mapping[str, Any]) -> float:
    """Requests per second of http and grpc; a TCP edge has bytes only and counts as one call per second."""
    rates = traffic.get("rates") or {}
    protocol = str(traffic.get("protocol") or "")
    if protocol in rates:
        return float(rates[protocol]) if protocol != "tcp" else float(float(rates[protocol]) > 0)
    return 0.0


def _kiali_hosts(target: Mapping[str, Any], traffic: Mapping[str, Any]) -> dict[str, float]:
    """Hosts called and their shares, in percent of each response code."""
    if target.get("nodeType") == "service" and _known(target.get("service")):
        name = str(target["service"])
        plain = "." not in name
        return {f"{name}.{target.get('namespace')}.svc.cluster.local" if plain else name: 1.0}
    shares: dict[str, float] = defaultdict(float)
    for response in (traffic.get("responses") or {}).values():
        for host, percent in (response.get("hosts") or {}).items():
            shares[_known(host)] += float(percent) / 100
    if shares:
        total = sum(shares.values()) or 1.0
        return {host: share / total for host, share in shares.items()}
    name, namespace = _known(target.get("app") or target.get("workload")), _known(target.get("namespace"))
    return {f"{name}.{namespace}.svc.cluster.local" if name and namespace else "": 1.0}


# ---- Envoy


def access_log(lines: Iterable[Mapping[str, Any]]) -> Telemetry:
    """Istio's JSON access log of sidecars and gateways: outbound requests, told by `upstream_cluster`.

    The caller is the pod that a log shipper names (`kubernetes.namespace_name` and `pod_name`, or `namespace` and
    `pod`), else the one whose address `upstream_local_address` is.
    """
    counts: dict[tuple[tuple[str, str], str], int] = defaultdict(int)
    times: list[float] = []
    for line in lines:
        cluster = str(line.get("upstream_cluster") or "").split("|")
        if started := _time(line.get("start_time")):
            times.append(started)
        if cluster[0] == "inbound" or cluster[0].startswith("inbound_"):
            continue
        host = cluster[3] if len(cluster) == 4 and cluster[0] == "outbound" else ""
        counts[_pod(line), host.rstrip(";")] += 1
    watched = max(times) - min(times) if len(times) > 1 else 0.0
    return Telemetry(tuple(Seen(pod, host, None, n) for (pod, host), n in counts.items()), watched or None)


def _pod(line: Mapping[str, Any]) -> tuple[str, str]:
    shipped = line.get("kubernetes") or {}
    namespace = shipped.get("namespace_name") or line.get("namespace")
    pod = shipped.get("pod_name") or line.get("pod")
    if namespace and pod:
        return str(namespace), f"pod {pod}"
    return "", str(line.get("upstream_local_address") or "").rpartition(":")[0]


def _time(text: object) -> float | None:
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None
