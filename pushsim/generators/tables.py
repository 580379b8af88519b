"""NDS: what the agents of proxies that capture DNS answer.

Source: pkg/dns/server/name_table.go (BuildNameTable).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import replace

from pushsim.blocks import Block, Blocks
from pushsim.generators.recipient import Recipient, services_of
from pushsim.mesh import Endpoint, Service
from pushsim.resources import ANY_ADDRESS, Named, NameTable
from pushsim.shards import Host

#: Hosts of services that several clusters have.
_CLUSTERSET = ".clusterset.local"


class Tables(Recipient):
    """The table of names of one proxy."""

    def table(self) -> Blocks:
        """The one table, shared by all proxies that see the same."""
        told, memo, content = self.view.proxy.allocates_addresses, self.scope.memo_of_content, self.scope.content
        headless = memo.once(self._headless, "headless", of=content)
        shards = (self.context.instances.get(host) for host in headless)  # may be younger than the scope
        return memo.once(lambda: (Block([NameTable(self._hosts())]),), "NDS", told, of=(*content, *shards))

    def _headless(self) -> tuple[Host, ...]:
        services = (service for service in self.scope.all_services if service.resolution == "PASSTHROUGH")
        return tuple((service.hostname, service.namespace) for service in services)

    def _hosts(self) -> tuple[Named, ...]:
        found: dict[str, Named] = {}
        for service in self._named_services():
            own, *pods = self._named(service)
            found |= {pod.host: pod for pod in pods}
            if own.addresses:
                known = found.get(own.host)
                found[own.host] = own if known is None or not self.rules.nds_merges else _joined(known, own)
        return tuple(found.values())

    def _named_services(self) -> Iterable[Service]:
        if not self.rules.nds_by_listener:
            return self.scope.all_services
        if len(self.scope.listeners) > 1:
            return (service for egress in self.scope.listeners for service in services_of(egress))
        pulled = self.scope.pulled_only
        return (service for service in self.scope.all_services if service.hostname not in pulled)

    def _named(self, service: Service) -> tuple[Named, ...]:
        """What a service is named by, without addresses if it is not, and its pods that have names of their own."""
        allocates = self.view.proxy.allocates_addresses
        shards = self.context.instances.get((service.hostname, service.namespace))
        return self.memo_of(service).once(
            lambda: tuple(self._new_named(service)), "NDS", allocates, of=(service, shards)
        )

    def _new_named(self, service: Service) -> Iterator[Named]:
        addresses = self._addresses(service)
        endpoints = self._named_endpoints(service) if ANY_ADDRESS in addresses else ()
        found = [address for address in addresses if address != ANY_ADDRESS and _is_address(address)]
        found += (endpoint.address for endpoint in endpoints)
        kubernetes = service.registry == "Kubernetes" and not service.hostname.endswith(_CLUSTERSET)
        whose = (service.name, service.namespace) if kubernetes else ("", "")
        yield Named(service.hostname, tuple(found), service.registry, *whose)
        domain = service.hostname.partition(".")[2]
        pods: dict[str, list[str]] = {}
        for endpoint in endpoints:
            if endpoint.subdomain and domain:
                pods.setdefault(f"{endpoint.host}.{endpoint.subdomain}", []).append(endpoint.address)
        for short, of in pods.items():
            yield Named(f"{short}.{domain}", tuple(of), service.registry, short, service.namespace)

    def _addresses(self, service: Service) -> tuple[str, ...]:
        """Those of its addresses that count; a ServiceEntry with several is a service for each (see `places`)."""
        addresses, rules = self.addresses(service), self.rules
        if service.registry == "Kubernetes":
            return addresses if rules.nds_every_address else addresses[:1]
        if rules.nds_by_listener:
            return addresses
        if self.scope.sidecar is None and rules.default_scope == "legacy":
            return addresses if rules.nds_merges else addresses[-1:]
        return addresses[:1]

    def _named_endpoints(self, service: Service) -> tuple[Endpoint, ...]:
        """The endpoints of a headless service's first port that are named."""
        if service.resolution != "PASSTHROUGH" or not service.ports:
            return ()
        port, unready = service.ports[0].name, self.rules.nds_unready
        if ("publishNotReadyAddresses", "True") in service.extras:
            unready = "all"
        return tuple(
            endpoint
            for endpoint in self.context.instances_of(service)
            if endpoint.port_name == port
            and _is_address(endpoint.address)
            and (endpoint.healthy or unready == "all" or (unready == "terminating" and endpoint.terminating))
        )


def _joined(known: Named, more: Named) -> Named:
    """One host of two services."""
    if known.registry == "Kubernetes":
        return known
    if more.registry == "Kubernetes":
        return more
    return replace(known, addresses=(*known.addresses, *more.addresses))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
