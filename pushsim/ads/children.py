"""What resources name in turn: clusters assignments, listeners routes and extensions, and both of them secrets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from sys import intern
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from envoy.extensions.transport_sockets.tls.v3.tls_pb2 import DownstreamTlsContext, UpstreamTlsContext

from pushsim.mesh import Xds

#: By type, the names of it that a resource names.
Named = Mapping[Xds, tuple[str, ...]]

HCM = f"type.googleapis.com/{HttpConnectionManager.DESCRIPTOR.full_name}"
#: With what a secret's name begins that istiod itself is asked for; those of the agent are `default`, `file-cert:…`.
_SECRET = b"kubernetes"


def children(xds: Xds, value: bytes) -> Named:
    """What a serialised resource of that type names."""
    if xds == "CDS":
        return _of_cluster(value)
    return _of_listener(value) if xds == "LDS" else {}


@lru_cache(65536)
def _of_cluster(value: bytes) -> Named:
    cluster = cluster_pb2.Cluster.FromString(value)
    found: dict[Xds, tuple[str, ...]] = {}
    if cluster.type == cluster_pb2.Cluster.EDS:
        found["EDS"] = (intern(cluster.eds_cluster_config.service_name or cluster.name),)
    if _SECRET in value:
        sockets = [match.transport_socket for match in cluster.transport_socket_matches]
        secrets = dict.fromkeys(_secrets([cluster.transport_socket, *sockets]))
        if secrets:
            found["SDS"] = tuple(secrets)
    return found


@lru_cache(16384)
def _of_listener(value: bytes) -> Named:
    listener = listener_pb2.Listener.FromString(value)
    chains = [*listener.filter_chains]
    if listener.HasField("default_filter_chain"):
        chains.append(listener.default_filter_chain)
    routes: dict[str, None] = {}
    extensions: dict[str, None] = {}
    for chain in chains:
        for network_filter in chain.filters:
            if network_filter.HasField("config_discovery"):
                extensions[intern(network_filter.name)] = None
            elif network_filter.typed_config.type_url == HCM:
                manager = HttpConnectionManager.FromString(network_filter.typed_config.value)
                if manager.HasField("rds"):
                    routes[intern(manager.rds.route_config_name)] = None
                named = (intern(f.name) for f in manager.http_filters if f.HasField("config_discovery"))
                extensions |= dict.fromkeys(named)
    secrets = dict.fromkeys(_secrets(chain.transport_socket for chain in chains)) if _SECRET in value else {}
    found: dict[Xds, tuple[str, ...]] = {"RDS": tuple(routes), "ECDS": tuple(extensions), "SDS": tuple(secrets)}
    return {xds: names for xds, names in found.items() if names}


def _secrets(sockets: Any) -> Iterator[str]:
    """Names of the secrets that TLS contexts have from ADS."""
    for socket in sockets:
        body = socket.typed_config
        kind = next((k for k in (UpstreamTlsContext, DownstreamTlsContext) if body.Is(k.DESCRIPTOR)), None)
        if kind is None:
            continue
        common = kind.FromString(body.value).common_tls_context
        asked = [
            *common.tls_certificate_sds_secret_configs,
            common.validation_context_sds_secret_config,
            common.combined_validation_context.validation_context_sds_secret_config,
        ]
        yield from (intern(one.name) for one in asked if one.sds_config.HasField("ads"))
