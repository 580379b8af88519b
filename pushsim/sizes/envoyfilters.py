"""EnvoyFilter patches: what they add to the resources they match.

MERGE into clusters is a real merge of typed messages (pilot/pkg/networking/core/envoyfilter/cluster_patch.go). What is
inserted elsewhere (filters, routes, virtual hosts, listeners) is measured as the value's own length and added; a value
with an embedded `@type` that we cannot type is estimated from its JSON. REMOVE and REPLACE count as nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any as Json

from betterproto2 import Message
from envoy_data_plane.envoy.config.cluster.v3 import Cluster

from pushsim.extensions import Place
from pushsim.mesh import Object, Proxy
from pushsim.sizes.peers import selected
from pushsim.sizes.wire import framed, length, text, varint

Spec = Mapping[str, Json]
_INSERTS = {"ADD", "INSERT_BEFORE", "INSERT_AFTER", "INSERT_FIRST"}


@dataclasses.dataclass(frozen=True, eq=False)
class Patch:
    """One patch: where it applies and what it puts there."""

    apply_to: str
    context: str
    match: Spec
    operation: str
    value: Spec


def applying(filters: Sequence[Object], proxy: Proxy, root: str) -> tuple[Object, ...]:
    """The EnvoyFilters (given oldest first) for a proxy, as istiod applies them (PushContext.EnvoyFilters)."""
    mine = (obj for obj in filters if _selects(obj, proxy))
    return tuple(sorted(mine, key=lambda obj: (int(obj.spec.get("priority") or 0), obj.ref.namespace != root)))


def _selects(obj: Object, proxy: Proxy) -> bool:
    wanted = (obj.spec.get("workloadSelector") or {}).get("labels") or {}
    return all(proxy.labels.get(key) == value for key, value in wanted.items()) and selected(obj, proxy)


def patches(filters: Sequence[Object]) -> tuple[Patch, ...]:
    """The patches of EnvoyFilters, in order."""
    return tuple(patch for obj in filters for patch in _patches(obj))


def _patches(obj: Object) -> Iterator[Patch]:
    for item in obj.spec.get("configPatches") or ():
        match, patch = item.get("match") or {}, item.get("patch") or {}
        yield Patch(
            str(item.get("applyTo") or ""),
            str(match.get("context") or "ANY"),
            match,
            str(patch.get("operation") or ""),
            patch.get("value") or {},
        )


def cluster_patches(known: Sequence[Patch], context: str) -> tuple[Patch, ...]:
    """Those that merge into clusters of a context."""
    return tuple(
        p for p in known if p.apply_to == "CLUSTER" and p.operation == "MERGE" and p.context in (context, "ANY")
    )


def merge_cluster(cluster: Cluster, known: Sequence[Patch], host: str, port: int, subset: str) -> Cluster:
    """A cluster with all matching patches merged into it."""
    for patch in known:
        wanted = patch.match.get("cluster") or {}
        if wanted.get("name") and wanted["name"] != cluster.name:
            continue
        if wanted.get("service") and wanted["service"] != host:
            continue
        if wanted.get("portNumber") and int(wanted["portNumber"]) != port:
            continue
        if wanted.get("subset") and wanted["subset"] != subset:
            continue
        try:
            merge(cluster, Cluster.from_dict(dict(patch.value)))
        except Exception:  # a value with parts that have no published type
            cluster.per_connection_buffer_limit_bytes = cluster.per_connection_buffer_limit_bytes
    return cluster


def merge(target: Message, source: Message) -> None:
    """Protobuf's merge: set scalars replace, messages merge, lists and maps grow; durations replace."""
    for part in dataclasses.fields(target):  # type: ignore[arg-type]
        new, old = getattr(source, part.name), getattr(target, part.name)
        if new is None or new == [] or new == {} or (not isinstance(new, Message) and not new and old is not None):
            continue
        if isinstance(new, Message) and isinstance(old, Message):
            merge(old, new)
        elif isinstance(new, list):
            setattr(target, part.name, [*old, *new])
        elif isinstance(new, dict):
            setattr(target, part.name, {**old, **new})
        else:
            setattr(target, part.name, new)


def inserted(known: Sequence[Patch], apply_to: str, context: str, port: int | None = None) -> int:
    """Bytes that inserting patches of a kind add at each place they match, framed."""
    total = 0
    for patch in known:
        if patch.apply_to != apply_to or patch.operation not in _INSERTS or patch.context not in (context, "ANY"):
            continue
        wanted = (patch.match.get("listener") or {}).get("portNumber")
        if wanted and port is not None and int(wanted) != port:
            continue
        total += framed(estimate(patch.value))
    return total


def asks_by_name(filters: Sequence[Object]) -> bool:
    """Whether any of these EnvoyFilters has Envoy ask for a filter by its name."""
    return any(_asks(patch.value) for patch in patches(filters))


def discovered(known: Sequence[Patch], place: Place) -> Iterator[str]:
    """Names of filters that patches insert into a place and that Envoy asks for by name."""
    for patch in known:
        if patch.apply_to not in ("HTTP_FILTER", "NETWORK_FILTER") or patch.operation not in _INSERTS:
            continue
        http = patch.apply_to == "HTTP_FILTER"
        wanted = (patch.match.get("listener") or {}).get("portNumber")
        there = patch.context in (place.context, "ANY") and (place.http or not http)
        if there and (not wanted or int(wanted) == place.port) and _asks(patch.value):
            yield str(patch.value.get("name") or "")


def _asks(value: Spec) -> bool:
    return "config_discovery" in value or "configDiscovery" in value


def estimate(value: Json) -> int:
    """Length of a message given as JSON, without its type: a tag of one byte per field."""
    if isinstance(value, Mapping):
        if "@type" in value:
            rest = {key: item for key, item in value.items() if key != "@type"}
            return text(len(str(value["@type"]))) + framed(estimate(rest))
        return sum(_field(item) for item in value.values())
    return _field(value)


def _field(value: Json) -> int:
    if isinstance(value, bool):
        return 2
    if isinstance(value, int):
        return 1 + varint(abs(value))
    if isinstance(value, float):
        return 9
    if isinstance(value, Mapping):
        return framed(estimate(value))
    if isinstance(value, list | tuple):
        return sum(_field(item) for item in value)
    return text(len(str(value).encode()))


__all__ = ["Patch", "applying", "cluster_patches", "estimate", "inserted", "length", "merge_cluster", "patches"]
