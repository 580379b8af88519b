"""EnvoyFilter patches: what they add to the resources they match.

MERGE into clusters is a real merge of typed messages (pilot/pkg/networking/core/envoyfilter/cluster_patch.go). What is
inserted as filters is measured as the value's own length and added; a value with an embedded `@type` that we cannot
type is estimated from its JSON. REMOVE and REPLACE count as nothing. Routes: `routepatches`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any as Json

from betterproto2 import Message
from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.listener.v3 import Listener

from pushsim.extensions import Place, near
from pushsim.mesh import Object, Proxy
from pushsim.sizes.peers import selected
from pushsim.sizes.wire import framed, length, text, varint

Spec = Mapping[str, Json]
_MANAGER = "envoy.filters.network.http_connection_manager"
_INSERTS = {"ADD", "INSERT_BEFORE", "INSERT_AFTER", "INSERT_FIRST"}


@dataclasses.dataclass(frozen=True, eq=False)
class Patch:
    """One patch: where it applies and what it puts there."""

    apply_to: str
    context: str
    match: Spec
    operation: str
    value: Spec

    def fits(self, context: str) -> bool:
        """Whether it is for a context."""
        return self.context in (context, "ANY")


def inserts(patch: Patch) -> bool:
    """Whether a patch puts its value beside what is there."""
    return patch.operation in _INSERTS


def applying(filters: Sequence[Object], proxy: Proxy, root: str) -> tuple[Object, ...]:
    """Of EnvoyFilters (given oldest first) those for a proxy, as istiod applies them (PushContext.EnvoyFilters)."""
    mine = (obj for obj in near(filters, proxy.namespace, root) if _selects(obj, proxy))
    return tuple(sorted(mine, key=lambda obj: (int(obj.spec.get("priority") or 0), obj.ref.namespace != root)))


def _selects(obj: Object, proxy: Proxy) -> bool:
    wanted = (obj.spec.get("workloadSelector") or {}).get("labels") or {}
    return all(proxy.labels.get(key) == value for key, value in wanted.items()) and selected(obj, proxy)


def patches(filters: Sequence[Object], release: str) -> tuple[Patch, ...]:
    """The patches of EnvoyFilters, in order, for proxies of a release."""
    return tuple(patch for obj in filters for patch in _patches(obj) if _for_proxy(patch, release))


def _for_proxy(patch: Patch, release: str) -> bool:
    """Whether a patch is for a proxy by its version; those that ask for other metadata are for none (proxyMatch)."""
    wanted = patch.match.get("proxy") or {}
    try:
        return not wanted.get("metadata") and re.search(str(wanted.get("proxyVersion") or ""), release) is not None
    except re.error:  # istiod's webhook takes none that does not compile
        return False


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


def added(known: Sequence[Patch], context: str) -> Iterator[Spec]:
    """The clusters that patches add in a context, as they are written; those for any are no inbound ones."""
    for patch in known:
        for_any_inbound = patch.context == "ANY" and context == "SIDECAR_INBOUND"
        if patch.apply_to == "CLUSTER" and patch.operation == "ADD" and patch.fits(context) and not for_any_inbound:
            yield patch.value


def cluster_patches(known: Sequence[Patch], context: str) -> tuple[Patch, ...]:
    """Those that merge into clusters of a context."""
    return tuple(p for p in known if p.apply_to == "CLUSTER" and p.operation == "MERGE" and p.fits(context))


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
        merge_written(cluster, patch.value)
    return cluster


def merge_written(target: Message, value: Spec) -> int:
    """Merge a message as it is written; one with parts that have no published type is left out: its estimated bytes."""
    try:
        source = type(target).from_dict(dict(value))
    except Exception:  # whatever its reader says of them
        return estimate(value)
    merge(target, source)
    return 0


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


def patch_listener(built: Listener, known: Sequence[Patch], context: str) -> int:
    """Merge into a listener what patches say; the bytes of what has no published type, and of inserted filters.

    Source: pilot/pkg/networking/core/envoyfilter/listener_patch.go.
    """
    extra = 0
    for patch in known:
        wanted = patch.match.get("listener") or {}
        if not patch.fits(context) or not _of_listener(patch, wanted, built):
            continue
        if patch.apply_to == "LISTENER" and patch.operation == "MERGE":
            extra += merge_written(built, patch.value)
        elif patch.apply_to in ("HTTP_FILTER", "NETWORK_FILTER"):
            extra += _filter_bytes(built, patch, (wanted.get("filterChain") or {}).get("filter") or {})
    return extra


def _of_listener(patch: Patch, wanted: Spec, built: Listener) -> bool:
    special = patch.apply_to != "LISTENER" and built.name in ("virtualInbound", "virtualOutbound")
    port = built.address.socket_address.port_value if built.address and built.address.socket_address else 0
    return wanted.get("name") in (None, "", built.name) and (
        special or not wanted.get("portNumber") or int(wanted["portNumber"]) == port
    )


def _filter_bytes(built: Listener, patch: Patch, wanted: Spec) -> int:
    """What a patch of filters adds to all chains: whole filters, or what is merged into those of a name."""
    chains = [*built.filter_chains, *([built.default_filter_chain] if built.default_filter_chain else [])]
    managers = sum(each.name == _MANAGER for chain in chains for each in chain.filters)
    if inserts(patch):
        return (managers if patch.apply_to == "HTTP_FILTER" else len(chains)) * framed(estimate(patch.value))
    if patch.operation != "MERGE":
        return 0
    config = patch.value.get("typed_config") or patch.value.get("typedConfig") or {}
    merged = estimate({key: value for key, value in config.items() if key != "@type"})
    if patch.apply_to == "HTTP_FILTER":
        return managers * merged
    return sum(each.name == wanted.get("name") for chain in chains for each in chain.filters) * merged


def asks_by_name(filters: Sequence[Object]) -> bool:
    """Whether any of these EnvoyFilters has Envoy ask for a filter by its name."""
    return any(_asks(patch.value) for written in filters for patch in _patches(written))


def discovered(known: Sequence[Patch], place: Place) -> Iterator[str]:
    """Names of filters that patches insert into a place and that Envoy asks for by name."""
    for patch in known:
        if patch.apply_to not in ("HTTP_FILTER", "NETWORK_FILTER") or not inserts(patch):
            continue
        http = patch.apply_to == "HTTP_FILTER"
        wanted = (patch.match.get("listener") or {}).get("portNumber")
        there = patch.fits(place.context) and (place.http or not http)
        if there and (not wanted or int(wanted) == place.port) and _asks(patch.value):
            yield str(patch.value.get("name") or "")


def _asks(value: Spec) -> bool:
    return "config_discovery" in value or "configDiscovery" in value


def written_length(kind: type[Message], value: Spec) -> int:
    """Length of a message as it is written; an estimate where parts of it have no published type."""
    try:
        return length(kind.from_dict(dict(value)))
    except Exception:  # whatever its reader says of it
        return estimate(value)


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
