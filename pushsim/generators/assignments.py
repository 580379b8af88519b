"""EDS: istiod's EndpointBuilder."""

from __future__ import annotations

from collections.abc import Iterable

from pushsim.generators.clusters import Clusters, eds_names, endpoints_of
from pushsim.generators.recipient import Block, Blocks
from pushsim.names import ClusterNames, parse_cluster
from pushsim.resources import LoadAssignment


class Assignments(Clusters):
    """The ClusterLoadAssignments of one proxy."""

    def assignments(self, names: ClusterNames | frozenset[str]) -> Blocks:
        """The assignments of watched clusters; where those are all clusters there are, in their blocks."""
        memo, proxy = self.context.memo, (self.told, self.view.proxy.type)
        if isinstance(names, ClusterNames):
            return memo.once(lambda: self._all_assignments(names), "EDS", *proxy, of=(self.scope, names))
        return memo.once(lambda: (self._assignments_of(names),), "EDS of", names, *proxy, of=(self.scope,))

    def _all_assignments(self, names: ClusterNames) -> Blocks:
        parts = list(map(self._eds_names, self.clusters()[1:]))
        if self.filtered or len(names) != sum(map(len, parts)) or not all(part <= names.names for part in parts):
            return (self._assignments_of(names.names),)
        return tuple(map(self._shared_assignments, parts))

    def _eds_names(self, clusters: Block) -> frozenset[str]:
        return self.scope.family.memo.once(lambda: eds_names([clusters]), "EDS names", of=(clusters,))

    def _shared_assignments(self, part: frozenset[str]) -> Block:
        return self.context.memo.once(lambda: self._assignments_of(part), "EDS", of=(part,))

    def _assignments_of(self, names: Iterable[str]) -> Block:
        return tuple(map(self.assignment, sorted(names)))

    def assignment(self, name: str) -> LoadAssignment:
        """The ClusterLoadAssignment of a watched cluster; empty if nothing is known of it any more."""
        cluster = parse_cluster(name)
        service = self.scope.service(cluster.host) if cluster else None
        if cluster is None or service is None:
            return LoadAssignment(name, None, None, "")
        port = next((p for p in service.ports if p.number == cluster.port), None)
        if port is None:
            return LoadAssignment(name, service, None, cluster.subset)
        rule = self.rule_for(service)
        endpoints = endpoints_of(self.context.endpoints_of(service), port, cluster.subset, rule)
        healthy = tuple(endpoint for endpoint in endpoints if endpoint.healthy)
        return LoadAssignment(name, service, port, cluster.subset, rule.sources if rule else (), healthy)
