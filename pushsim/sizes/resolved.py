"""Clusters that Envoy resolves itself: their hosts are inline, by locality.

Source: pilot/pkg/networking/core/cluster.go (buildDNSCluster and neighbours).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterDnsLookupFamily
from envoy_data_plane.envoy.config.core.v3 import TypedExtensionConfig
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment
from envoy_data_plane.envoy.extensions.network.dns_resolver.cares.v3 import CaresDnsResolverConfig

from pushsim.mesh import Proxy
from pushsim.resources import OutboundCluster
from pushsim.sizes.assignments import grouped, localities
from pushsim.sizes.settings import Settings
from pushsim.sizes.switches import Sizing
from pushsim.sizes.wire import packed
from pushsim.spreading import Spread, asked_by_mesh, asked_by_rule, spread_over


def resolve(
    built: Cluster,
    cluster: OutboundCluster,
    how: Spread,
    near: Mapping[str, str],
    sizing: Sizing,
    settings: Settings,
) -> None:
    """A DNS cluster: its hosts inline, how they are looked up."""
    groups = grouped(cluster.endpoints)
    labelled = sizing.inline_priorities and len(groups) == 1  # with more, istiod panics
    groups = spread_over(groups, how, near, by=sizing.failover_priorities, labelled=labelled)
    built.load_assignment = ClusterLoadAssignment(
        cluster_name=cluster.name, endpoints=localities(groups, cluster.service, sizing)
    )
    built.dns_lookup_family = ClusterDnsLookupFamily.V4_ONLY
    built.dns_refresh_rate = settings.dns_refresh_rate
    built.respect_dns_ttl = True
    if sizing.dns_resolver:
        built.typed_dns_resolver_config = TypedExtensionConfig(
            name="envoy.network.dns_resolver.cares",
            typed_config=packed(
                CaresDnsResolverConfig(udp_max_queries=100),
                "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
            ),
        )
    if sizing.dns_jitter:
        built.dns_jitter = timedelta(milliseconds=100)


def near(cluster: OutboundCluster, proxy: Proxy, settings: Settings) -> tuple[str | None, ...]:
    """What of a proxy decides how endpoints that a cluster holds are spread."""
    if not cluster.endpoints:
        return ()
    keys = asked_by_mesh(settings.mesh).union(*map(asked_by_rule, cluster.rules))
    return tuple(proxy.labels.get(key) for key in sorted(keys))
