"""CDS: istiod's ClusterBuilder."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

from pushsim.blocks import Block, Blocks
from pushsim.context import MergedRule, applying
from pushsim.generators.recipient import Recipient, ingress_port
from pushsim.memo import Memo
from pushsim.mesh import Endpoint, Object, Port, Service
from pushsim.names import NamesByHost, names_by_host
from pushsim.resources import (
    BLACK_HOLE,
    PASSTHROUGH,
    Added,
    Discovery,
    InboundCluster,
    OutboundCluster,
    Resource,
    StaticCluster,
)
from pushsim.sizes.envoyfilters import Patch, added, doing, is_of_cluster
from pushsim.sizes.policy import passes_through, policy_for

#: Discovery whose clusters hold their endpoints.
_INLINE = ("STRICT_DNS", "LOGICAL_DNS")
#: tlsMode of endpoints that speak no mTLS.
_PLAIN = ("", "disabled")


class Clusters(Recipient):
    """The clusters of one proxy."""

    def clusters(self) -> Blocks:
        """Every cluster: the base ones, those of all services, in the scope's blocks, those that are in every response.

        The last are of services once more, for a router with AUTO_PASSTHROUGH servers.
        """
        if self.filtered:
            return (self.base_clusters(), self._kept(self._clusters_of_all(self.services())), *self.passed_through())
        *shared, own = self.scope.blocks
        mine, router = self.scope.memo, not self.sidecar
        particular = []
        if own:
            told = ("CDS", router, self.told)
            particular.append(mine.once(lambda: self._clusters_of_all(own), *told, of=self._passed_to(own, mine)))
        of_shared = (self._clusters_of_shared(block) for block in shared)
        return (self.base_clusters(), *map(self._kept, (*of_shared, *particular)), *self.passed_through())

    def _kept(self, block: Block) -> Block:
        """Clusters without those that EnvoyFilters remove."""
        gone = doing(self.patches, "REMOVE", "CLUSTER")
        if not gone:
            return block

        def kept() -> Block:
            return Block(cluster for cluster in block if not any(self._is_of_cluster(patch, cluster) for patch in gone))

        return block.memo.once(kept, "kept", self.view.proxy.type, of=self.filters)

    def _is_of_cluster(self, patch: Patch, cluster: Resource) -> bool:
        """Whether a patch is for a cluster; what EnvoyFilters add they do not change."""
        if isinstance(cluster, Added):
            return False
        inbound = isinstance(cluster, InboundCluster) or cluster.name == self.rules.inbound_passthrough
        outbound = "SIDECAR_OUTBOUND" if self.sidecar else "GATEWAY"
        hosts = [service.hostname for service, _ in cluster.services] if isinstance(cluster, InboundCluster) else ()
        context = "SIDECAR_INBOUND" if inbound else outbound
        return patch.fits(context) and is_of_cluster(patch, cluster.name, hosts)

    def passed_through(self) -> tuple[Block, ...]:
        """The clusters behind AUTO_PASSTHROUGH servers, of each service in the mesh: buildOutboundSniDnatClusters."""
        if self.sidecar or not self.view.gateway.passthrough:
            return ()
        services = [service for service in self.scope.all_services if not service.external]
        return (self._kept(Block.joined(self.clusters_of(service, sni=True) for service in services)),)

    def _clusters_of_shared(self, block: tuple[Service, ...]) -> Block:
        """The clusters of a block of services that many scopes share."""
        family = self.scope.family

        def made() -> Block:
            parts = family.parts(block)
            if not parts:
                return self._clusters_of_all(block)
            return Block.joined(map(self._clusters_of_shared, parts))

        memo = family.memo_of(block)
        return memo.once(made, "CDS", not self.sidecar, of=self._passed_to(block, memo))

    def _passed_to(self, block: tuple[Service, ...], memo: Memo) -> tuple[object, ...]:
        """The endpoints of headless services among them: TLS of their clusters hangs on these."""
        headless = memo.once(lambda: tuple(s for s in block if s.resolution == "PASSTHROUGH"), "headless")
        found = (self.context.instances.get((service.hostname, service.namespace)) for service in headless)
        return tuple(shards for shards in found if shards is not None)

    def clusters_of_services(self, services: tuple[Service, ...]) -> Block:
        """The clusters of these services of the scope, one object for all proxies that get the same."""
        of = (self.scope, *services)
        block = self.context.memo.once(
            lambda: self._clusters_of_all(services), "CDS of", not self.sidecar, self.told, of=of
        )
        return self._kept(block)

    def _clusters_of_all(self, services: Iterable[Service]) -> Block:
        by_host: dict[str, list[Service]] = {}
        for service in services:
            by_host.setdefault(service.hostname, []).append(service)
        return Block.joined(self._clusters_of_host(host, of) for host, of in by_host.items())

    def _clusters_of_host(self, host: str, services: list[Service]) -> Block:
        """Of several services of one host (in legacy default scopes): the first of each name (normalizeClusters)."""
        if len(services) == 1:
            return self.clusters_of(services[0])
        ordered = [service for service in self.scope.listeners[0].services(host) if service in services]
        first: dict[str, Resource] = {}
        for cluster in chain.from_iterable(map(self.clusters_of, ordered)):
            first.setdefault(cluster.name, cluster)
        return Block(first.values())

    def base_clusters(self) -> Block:
        """Clusters that every CDS response holds."""
        targets, sidecar = self.view.targets, self.scope.sidecar
        memo = self.memo_of(targets[0].service) if targets else self.scope.memo
        rules = tuple(self._inbound_rules(target.service) for target in targets) if self.sidecar else ()
        return memo.once(self._base, "base", self.view.proxy.type, rules, of=(targets, sidecar, *self.filters))

    def _base(self) -> Block:
        names = (BLACK_HOLE, PASSTHROUGH, self.rules.inbound_passthrough) if self.sidecar else (BLACK_HOLE,)
        static = self.scope.family.memo.once(lambda: Block(map(StaticCluster, names)), "static", names)
        own: list[Resource] = list(self.inbound_clusters()) if self.sidecar else []
        taken = {*names, *(cluster.name for cluster in own)}
        own += [Added("CDS", name, value) for name, value in self._added().items() if name not in taken]
        return self._kept(Block.joined((static, Block(own))) if own or self.sidecar else static)

    def _added(self) -> dict[str, Mapping[str, Any]]:
        """What EnvoyFilters add, the first of each name: outbound ones before inbound ones."""
        contexts = ("SIDECAR_OUTBOUND", "SIDECAR_INBOUND") if self.sidecar else ("GATEWAY",)
        found = [value for context in contexts for value in added(self.patches, "CLUSTER", context)]
        return {str(value.get("name") or ""): value for value in reversed(found)}

    def inbound_clusters(self) -> list[InboundCluster]:
        """One per target port of the proxy's services, or per ingress listener of its Sidecar."""
        ports: dict[int, list[tuple[Service, Port]]] = {}
        for target in self.view.targets:
            ports.setdefault(target.target_port, []).append((target.service, target.port))
        if self.ingress:
            return [self._ingress_cluster(listener, ports) for listener in self.ingress]
        return [
            InboundCluster(
                f"inbound|{port}||", port, tuple(of), self._inbound_rules(of[0][0]), sidecar=self.scope.sidecar
            )
            for port, of in ports.items()
        ]

    def _ingress_cluster(
        self, listener: Mapping[str, Any], ports: Mapping[int, list[tuple[Service, Port]]]
    ) -> InboundCluster:
        port = ingress_port(listener)
        service = ports[port.number][0][0] if port.number in ports else self.ingress_service()
        endpoint = str(listener.get("defaultEndpoint") or "")
        rules = self._inbound_rules(service)
        served, sidecar = ((service, port),), self.scope.sidecar
        return InboundCluster(f"inbound|{port.number}||", port.number, served, rules, True, endpoint, sidecar)

    def _inbound_rules(self, service: Service) -> tuple[Object, ...]:
        """The DestinationRules for a service of the proxy's own, if its scope holds that; selectors never fit here."""
        rule = applying(self.scope.rules_on(service.hostname), {})
        return rule.sources if rule else ()

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
                found = self.rules.headless_eds and service.registry == "Kubernetes"
                return "EDS" if found or self.view.proxy.type == "router" else "ORIGINAL_DST"
        return None

    def clusters_of(self, service: Service, *, sni: bool = False) -> Block:
        """The clusters of one service: each port, and each subset of the DestinationRule that applies.

        sni: those behind AUTO_PASSTHROUGH servers.
        """
        discovery, rule, accounts = self.discovery(service), self.rule_for(service), self.accounts(service)
        shards = self.scope.context.instances.get((service.hostname, service.namespace))
        told = (discovery, sni, rule.sources if rule else (), accounts)
        return self.memo_of(service).once(
            lambda: Block(self._clusters_of(service, discovery, rule, accounts, sni) if discovery else ()),
            "CDS",
            *told,
            of=(service, shards if discovery in _INLINE or _is_passed_on(service, rule) else None),
        )

    def _clusters_of(
        self,
        service: Service,
        discovery: Discovery,
        rule: MergedRule | None,
        accounts: tuple[tuple[str, ...], ...],
        sni: bool,
    ) -> Iterator[OutboundCluster]:
        sources = rule.sources if rule else ()
        subsets = ("", *rule.subset_names()) if rule else ("",)
        if not self.rules.subsets_repeated:
            subsets = tuple(dict.fromkeys(subsets))
        inline = discovery in _INLINE
        passed = _is_passed_on(service, rule)
        instances = self.scope.context.instances_of(service) if inline or passed else ()
        for port, of_port in zip(service.ports, accounts, strict=True):
            if port.protocol == "UDP":
                continue
            modes = {endpoint.tls for endpoint in instances if passed and endpoint.port_name == port.name}
            all_mtls = bool(modes) and modes.isdisjoint(_PLAIN)
            for subset in subsets:
                direct = any(_goes_direct(sources, of, port) for of in {"", subset})
                found: Discovery = "ORIGINAL_DST" if direct else discovery
                begins = found if subset else discovery  # a subset's as what the rule makes of it (buildSubsetCluster)
                endpoints = endpoints_of(instances, port, subset, rule) if begins in _INLINE else ()
                if begins in _INLINE and not endpoints:
                    continue
                parts = ("outbound", str(port.number), subset, service.hostname)
                name = ("_." if sni else "|").join(parts)
                yield OutboundCluster(name, service, port, subset, found, sources, of_port, endpoints, all_mtls, begins)

    def accounts(self, service: Service) -> tuple[tuple[str, ...], ...]:
        """SPIFFE identities of a service's endpoints and those named on it, sorted, for each of its ports.

        Until 1.14 those of a port's own instances; of several services of a host those of the last one that has the
        port (initServiceAccounts).
        """
        context, host = self.scope.context, (service.hostname, service.namespace)
        aliases, memo = tuple(map(str, context.mesh_config.get("trustDomainAliases") or ())), self.memo_of(service)
        if self.rules.accounts_by_port:
            same = context.services.by_host.get(service.hostname, (service,))
            of = (service, *same, *(context.instances.get((each.hostname, each.namespace)) for each in same))
            return memo.once(lambda: self._accounts_by_port(service, same, aliases), "accounts", aliases, of=of)
        known = context.accounts.get(host, frozenset())
        return memo.once(
            lambda: (_in_all_domains({*known, *service.accounts}, aliases),) * len(service.ports),
            "accounts",
            aliases,
            of=(service, known),
        )

    def _accounts_by_port(
        self, service: Service, same: Sequence[Service], aliases: Sequence[str]
    ) -> tuple[tuple[str, ...], ...]:
        named: dict[int, frozenset[str]] = {}
        for each in same:
            instances = self.scope.context.instances_of(each)
            for port in each.ports:
                accounts = (e.account for e in instances if e.port_name == port.name and e.account)
                named[port.number] = frozenset((*accounts, *each.accounts))
        return tuple(_in_all_domains(named.get(port.number, frozenset()), aliases) for port in service.ports)


def _in_all_domains(accounts: Collection[str], aliases: Sequence[str]) -> tuple[str, ...]:
    """SPIFFE identities of a trust domain, also of its aliases; ascending (pkg/spiffe: ExpandWithTrustDomains)."""
    parts = (account.removeprefix("spiffe://").split("/") for account in accounts if account.startswith("spiffe://"))
    named = [p[1:] for p in parts if len(p) == 5 and (p[1], p[3]) == ("ns", "sa")]
    return tuple(sorted({*accounts, *("/".join((f"spiffe://{alias}", *rest)) for alias in aliases for rest in named)}))


def _is_passed_on(service: Service, rule: MergedRule | None) -> bool:
    """Whether some of its clusters may send to the address that was meant: TLS hangs on all endpoints then."""
    if service.resolution == "PASSTHROUGH" or rule is None:
        return service.resolution == "PASSTHROUGH"
    subsets = ("", *(name for name, _ in rule.subsets()))
    return any(_goes_direct(rule.sources, subset, port) for port in service.ports for subset in subsets)


def _goes_direct(rules: Sequence[Object], subset: str, port: Port) -> bool:
    """Whether a policy has Envoy send to the address that was meant (applyLoadBalancer)."""
    return bool(rules) and passes_through(policy_for(rules, subset, port))


def endpoints_of(known: tuple[Endpoint, ...], port: Port, subset: str, rule: MergedRule | None) -> tuple[Endpoint, ...]:
    """Those endpoints of a service that are of a port, and of a subset if one is named."""
    labels = {}
    if subset and rule:
        labels = dict(dict(rule.subsets()).get(subset, {}).get("labels") or {})
    of_port = (endpoint for endpoint in known if endpoint.port_name == port.name)
    if not labels:
        return tuple(of_port)
    return tuple(e for e in of_port if all(dict(e.labels).get(k) == v for k, v in labels.items()))


def eds_names(clusters: Iterable[Block]) -> NamesByHost:
    """Names of the EDS clusters among them."""
    found: dict[str, frozenset[str]] = {}
    for block in clusters:
        more = block.memo.once(partial(_eds_names, block), "EDS names")
        for host in found.keys() & more.keys():
            more = {**more, host: found[host] | more[host]}
        found.update(more)
    return found


def _eds_names(block: Block) -> NamesByHost:
    if block.parts:
        return eds_names(block.parts)
    return names_by_host(c.name for c in block if isinstance(c, OutboundCluster) and c.discovery == "EDS")
