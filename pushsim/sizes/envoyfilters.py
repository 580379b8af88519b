"""EnvoyFilter patches: for whom they are, which clusters and listeners come or go by them, what clusters become.

Listeners: `listenerpatches`, routes: `routepatches`. Source: pilot/pkg/networking/core/envoyfilter/cluster_patch.go.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any as Json

from envoy_data_plane.envoy.config.cluster.v3 import Cluster

from pushsim.extensions import Place, near
from pushsim.mesh import Object, Proxy
from pushsim.sizes.peers import selected
from pushsim.sizes.wire import encoded
from pushsim.sizes.written import merge, merge_any, read

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


def doing(known: Sequence[Patch], operation: str, kind: str, context: str = "") -> tuple[Patch, ...]:
    """Those that do that to clusters or listeners; in a context, if one is given.

    operation: ADD, MERGE or REMOVE. kind: CLUSTER or LISTENER.
    """
    those = (patch for patch in known if (patch.apply_to, patch.operation) == (kind, operation))
    return tuple(patch for patch in those if not context or patch.fits(context))


def added(known: Sequence[Patch], kind: str, context: str) -> Iterator[Spec]:
    """The clusters or listeners that are added in a context, as written; those for any are no inbound ones."""
    for patch in doing(known, "ADD", kind, context):
        if patch.context != "ANY" or context != "SIDECAR_INBOUND":
            yield patch.value


def is_of_cluster(patch: Patch, name: str, hosts: Collection[str]) -> bool:
    """Whether a patch is for a cluster (clusterMatch); hosts: for an inbound one those of its services."""
    wanted = patch.match.get("cluster") or {}
    if wanted.get("name"):
        return bool(wanted["name"] == name)
    direction, _, rest = name.partition("|")
    port, subset, host = [*rest.split("|"), "", ""][:3] if rest else ("0", "", "")
    return (
        wanted.get("subset") in (None, "", subset)
        and (not wanted.get("service") or wanted["service"] in (hosts if direction == "inbound" else (host,)))
        and str(wanted.get("portNumber") or port) == port
    )


def merge_cluster(built: Cluster, known: Sequence[Patch], hosts: Collection[str] = ()) -> Cluster:
    """A cluster with all matching patches merged into it; hosts: see `is_of_cluster`."""
    mine = [patch for patch in known if is_of_cluster(patch, built.name, hosts)]
    cluster = Cluster.parse(encoded(built)) if mine else built  # its parts may be others', too
    for patch in mine:
        source = read(Cluster, patch.value)
        if source is not None and not _merge_transport(cluster, source):
            merge(cluster, source)
    return cluster


def _merge_transport(cluster: Cluster, source: Cluster) -> bool:
    """Where a patch has a transport socket that alone is merged: into the cluster's of that name, else instead of its.

    With sockets by match (automatic mTLS) one of another name is left out (mergeTransportSocketCluster).
    """
    other = source.transport_socket
    if other is None:
        return False
    by_match = [match.transport_socket for match in cluster.transport_socket_matches]
    mine = next((s for s in by_match or [cluster.transport_socket] if s is not None and s.name == other.name), None)
    if mine is None:
        if not by_match:
            cluster.transport_socket = other
    elif mine.typed_config is not None and other.typed_config is not None:
        merge_any(mine.typed_config, other.typed_config)
    return True


def is_of_listener(patch: Patch, name: str, port: int) -> bool:
    """Whether a patch is for a listener (listenerMatch): of virtual ones the port is that of a filter chain."""
    wanted = patch.match.get("listener") or {}
    by_chain = patch.apply_to != "LISTENER" and name in ("virtualInbound", "virtualOutbound")
    return wanted.get("name") in (None, "", name) and (by_chain or int(wanted.get("portNumber") or port) == port)


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
