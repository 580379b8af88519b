"""EDS: istiod's EndpointBuilder."""

from __future__ import annotations

from collections.abc import Iterator

from pushsim.blocks import Block, Blocks
from pushsim.context import MergedRule
from pushsim.generators.clusters import Clusters, endpoints_of
from pushsim.mesh import SESSION, Endpoint, Port, Service
from pushsim.names import ClusterNames, Domains, parse_cluster
from pushsim.resources import LoadAssignment

#: The label of a pod that says itself that it drains.
_DRAINING = "istio.io/draining"


class Assignments(Clusters):
    """The ClusterLoadAssignments of one proxy."""

    def assignments(self, names: ClusterNames | frozenset[str]) -> Blocks:
        """The assignments of watched clusters, host by host."""
        memo, of = self.context.memo, self.content
        if isinstance(names, ClusterNames):
            return memo.once(lambda: (self._assignments_of(names),), "EDS", self.told, self.node, of=(names, *of))
        return memo.once(
            lambda: (self._assignments_of(ClusterNames(names)),), "EDS", self.told, self.node, names, of=of
        )

    def _assignments_of(self, names: ClusterNames) -> Block:
        held = self.scope.hostnames

        def parts() -> Iterator[Block]:
            for domains in names.by_domains:
                if held.isdisjoint(domains.hosts):
                    yield self._unknown_of_domains(domains)
                    continue
                for hosts, of_domain in domains.each:
                    block = self._block_of(hosts)
                    if block:
                        yield self._assignments_of_block(block, hosts, of_domain, names)
                        continue
                    known = held.intersection(hosts)
                    yield from (self._assignments_of_host(host, names.by_host[host]) for host in hosts if host in known)
                    if unknown := names.of(host for host in hosts if host not in known) if known else of_domain:
                        yield self._unknown(unknown)

        return Block.joined(parts())

    def _unknown_of_domains(self, domains: Domains) -> Block:
        """Assignments of clusters of these domains, of which the scope knows no host; one object for all who ask."""
        return self.scope.family.memo.once(
            lambda: Block.joined(self._unknown(names) for _, names in domains.each), "no EDS of", of=(domains,)
        )

    def _unknown(self, names: frozenset[str]) -> Block:
        """Assignments of clusters of hosts that the scope does not know; one object for all who ask."""
        return self.scope.family.memo.once(
            lambda: Block(LoadAssignment(name, None, None, "") for name in sorted(names)), "no EDS", names
        )

    def _block_of(self, hosts: tuple[str, ...]) -> tuple[Service, ...]:
        """The services of a namespace that its scope holds all of, if these hosts are among them; else none."""
        family = self.scope.family
        first = family.neutral.get(hosts[0])
        if first is None or not self.scope.holds_whole(first.namespace):
            return ()
        block = family.block(first.namespace)
        if self.node is not None and any(service.node_local for service in block):
            return ()
        held = family.memo_of(block).once(lambda: frozenset(service.hostname for service in block), "hosts")
        return block if held.issuperset(hosts) else ()

    def _assignments_of_block(
        self, block: tuple[Service, ...], hosts: tuple[str, ...], of_hosts: frozenset[str], names: ClusterNames
    ) -> Block:
        """The assignments of some hosts of a block; as long as no endpoints of their namespace change, one object."""
        shards = self.context.endpoints.of(block[0].namespace)

        def made() -> Block:
            return Block.joined(self._assignments_of_host(host, names.by_host[host]) for host in hosts)

        return self.scope.family.memo_of(block).once(made, "EDS", of_hosts, of=(shards,))

    def _assignments_of_host(self, host: str, names: frozenset[str]) -> Block:
        service = self.scope.service(host)
        assert service is not None, "a host of the scope"
        rule = self.rule_for(service)
        shards = self.context.endpoints.get((service.hostname, service.namespace))
        return self.memo_of(service).latest(
            lambda: Block(self._assignment(name, service) for name in sorted(names)),
            "EDS",
            names,
            rule.sources if rule else (),
            self.node if service.node_local else None,
            of=(service, shards),
        )

    def _assignment(self, name: str, service: Service) -> LoadAssignment:
        """The ClusterLoadAssignment of a watched cluster; empty if its port is known no more.

        One that only the scope leaves out is still in istiod's cache, which asks for no port (EndpointBuilder.Key).
        """
        cluster = parse_cluster(name)
        if cluster is None:
            return LoadAssignment(name, None, None, "")
        port = service.port(cluster.port) or self._left_out(service, cluster.port)
        if port is None:
            return LoadAssignment(name, service, None, cluster.subset)
        rule = self.rule_for(service)
        endpoints = endpoints_of(self.context.endpoints_of(service), port, cluster.subset, rule)
        if self.node is not None and service.node_local:
            endpoints = tuple(endpoint for endpoint in endpoints if endpoint.node == self.node)
        panics = rule is not None and _has_minimum(rule, port, cluster.subset)
        kept, known = service.labelled(SESSION), bool(self.rules.draining_labels)
        unready = not panics and (self.context.unready_sent or bool(service.distribution))

        def shown(endpoint: Endpoint) -> bool:
            if known and (endpoint.draining or any(key == _DRAINING and value for key, value in endpoint.labels)):
                return kept
            return endpoint.healthy or (endpoint.sent_unhealthy and unready and not endpoint.terminating)

        sent = tuple(filter(shown, endpoints))
        return LoadAssignment(name, service, port, cluster.subset, rule.sources if rule else (), sent)

    def _left_out(self, service: Service, number: int) -> Port | None:
        """A port that a service has, but not as the scope shows it."""
        whole = self.context.services.exact.get(service.hostname, {}).get(service.namespace)
        if whole is None or whole.registry != service.registry or not set(service.ports) < set(whole.ports):
            return None
        return whole.port(number)


def _has_minimum(rule: MergedRule, port: Port, subset: str) -> bool:
    """Whether a DestinationRule sets outlierDetection.minHealthPercent: too few healthy ones would make Envoy panic.

    Source: pilot/pkg/xds/endpoints/endpoint_builder.go (supportsUnhealthyEndpoints), from 1.31 on.
    """
    of_subset = dict(rule.subsets()).get(subset, {}).get("trafficPolicy") if subset else None
    policy = of_subset or rule.sources[0].spec.get("trafficPolicy") or {}
    for own in policy.get("portLevelSettings") or ():
        if (own.get("port") or {}).get("number") == port.number:
            policy = own
    return int((policy.get("outlierDetection") or {}).get("minHealthPercent") or 0) > 0
