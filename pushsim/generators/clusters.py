"""CDS: istiod's ClusterBuilder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pushsim.context import MergedRule
from pushsim.generators.recipient import Block, Blocks, Recipient
from pushsim.mesh import Endpoint, Port, Service
from pushsim.resources import Discovery, InboundCluster, OutboundCluster, StaticCluster


class Clusters(Recipient):
    """The clusters of one proxy."""

    def clusters(self) -> Blocks:
        """Every cluster: the base ones, then those of all services, in the scope's blocks."""
        if self.filtered:
            return (self.base_clusters(), self._clusters_of_all(self.services()))
        *shared, own = self.scope.blocks
        kind = (self.view.proxy.type == "router", self.view.gateway.passthrough)
        family, mine = self.scope.family.memo, self.scope.memo

        def made(block: tuple[Service, ...]) -> Block:
            return family.once(lambda: self._clusters_of_all(block), "CDS", *kind, of=(block,))

        last = mine.once(lambda: self._clusters_of_all(own), "CDS", *kind, self.told)
        return (self.base_clusters(), *map(made, shared), last)

    def clusters_of_services(self, services: tuple[Service, ...]) -> Block:
        """The clusters of these services of the scope, one object for all proxies that get the same."""
        kind = (self.view.proxy.type == "router", self.view.gateway.passthrough, self.told)
        of = (self.scope, *services)
        return self.context.memo.once(lambda: self._clusters_of_all(services), "CDS of", *kind, of=of)

    def _clusters_of_all(self, services: Iterable[Service]) -> Block:
        return tuple(cluster for service in services for cluster in self.clusters_of(service))

    def base_clusters(self) -> Block:
        """Clusters that every CDS response holds."""
        if not self.sidecar:
            return (StaticCluster("BlackHoleCluster"),)
        static = ("BlackHoleCluster", "PassthroughCluster", self.rules.inbound_passthrough)
        return (*(StaticCluster(name) for name in static), *self.inbound_clusters())

    def inbound_clusters(self) -> list[InboundCluster]:
        """One per target port of the proxy's services, or per ingress listener of its Sidecar."""
        ports: dict[int, list[tuple[Service, Port]]] = {}
        for target in self.view.targets:
            if target.port.protocol != "UDP":
                ports.setdefault(target.target_port, []).append((target.service, target.port))
        sidecar = self.scope.sidecar
        if ingress := sidecar.spec.get("ingress") if sidecar else None:
            numbers = [int(listener["port"]["number"]) for listener in ingress]
            ports = {number: ports.get(number, []) for number in numbers}
        return [InboundCluster(f"inbound|{port}||", port, tuple(of)) for port, of in ports.items()]

    def discovery(self, service: Service) -> Discovery | None:
        """How Envoy finds the hosts of a service's clusters; None if it has no cluster (an alias)."""
        match service.resolution:
            case "EDS":
                return "EDS"
            case "DNS":
                return "STRICT_DNS"
            case "DNS_ROUND_ROBIN":
                return "LOGICAL_DNS"
            case "PASSTHROUGH":
                return "EDS" if self.view.proxy.type == "router" else "ORIGINAL_DST"
        return None

    def clusters_of(self, service: Service) -> Iterator[OutboundCluster]:
        """The clusters of one service: each port, and each subset of the DestinationRule that applies."""
        discovery = self.discovery(service)
        if discovery is None:
            return
        rule = self.rule_for(service)
        sources = rule.sources if rule else ()
        accounts = self.accounts(service)
        subsets = ("", *(name for name, _ in rule.subsets())) if rule else ("",)
        inline = discovery in ("STRICT_DNS", "LOGICAL_DNS")
        instances = self.scope.context.instances_of(service) if inline else ()
        for port in service.ports:
            if port.protocol == "UDP":
                continue
            for subset in subsets:
                endpoints = endpoints_of(instances, port, subset, rule) if inline else ()
                if inline and not endpoints:
                    continue
                names = [f"outbound|{port.number}|{subset}|{service.hostname}"]
                if self.view.gateway.passthrough:
                    names.append(f"outbound_.{port.number}_.{subset}_.{service.hostname}")
                for name in names:
                    yield OutboundCluster(name, service, port, subset, discovery, sources, accounts, endpoints)

    def accounts(self, service: Service) -> tuple[str, ...]:
        """SPIFFE identities of a service's endpoints and those named on it, sorted."""
        known = self.scope.context.accounts.get((service.hostname, service.namespace), frozenset())
        return tuple(sorted({*known, *service.accounts}))


def endpoints_of(known: tuple[Endpoint, ...], port: Port, subset: str, rule: MergedRule | None) -> tuple[Endpoint, ...]:
    """Those endpoints of a service that are of a port, and of a subset if one is named."""
    labels = {}
    if subset and rule:
        labels = dict(dict(rule.subsets()).get(subset, {}).get("labels") or {})
    of_port = (endpoint for endpoint in known if endpoint.port_name == port.name)
    if not labels:
        return tuple(of_port)
    return tuple(e for e in of_port if all(dict(e.labels).get(k) == v for k, v in labels.items()))


def eds_names(clusters: Iterable[Block]) -> frozenset[str]:
    """Names of the EDS clusters among them."""
    found = (c for block in clusters for c in block if isinstance(c, OutboundCluster))
    return frozenset(c.name for c in found if c.discovery == "EDS")
