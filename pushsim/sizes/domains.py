"""The names and addresses that sidecars know services by: domains of their virtual hosts.

Source: pilot/pkg/networking/core/httproute.go (generateVirtualHostDomains, dedupeDomains).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import NamedTuple

from pushsim.mesh import Port, Service
from pushsim.sizes.switches import Sizing

#: What hosts of Kubernetes' Services end with.
SUFFIX = ".svc.cluster.local"


def homes_of(service: Service) -> set[str]:
    """Namespaces in which the first label of its host, or of an alias, is a name of a service, too."""
    hosts = (host for host in (service.hostname, *service.aliases) if host.endswith(SUFFIX))
    return {host.removesuffix(SUFFIX).partition(".")[2] for host in hosts} - {""}


class Naming(NamedTuple):
    """How virtual hosts of a route name services.

    sniffed: the only service of the route, by any name.
    ports:   names have their port beside (where hosts are matched with their port they always have).
    only:    of these, names without port are another port's.
    """

    sniffed: bool = False
    ports: bool = False
    only: bool = False


PLAIN = Naming()


def domains(
    service: Service,
    port: int,
    namespace: str,
    sizing: Sizing,
    but: frozenset[str] = frozenset(),
    naming: Naming = PLAIN,
) -> list[str]:
    """Every name a client in `namespace` may call the service by, without some that are others'.

    Of an alias that is followed by a slash there, all names are another's.
    """
    if naming.sniffed:
        return ["*"]
    names = list[str]()
    for host in (service.hostname, *(alias for alias in service.aliases if f"{alias}/" not in but)):
        names += [host, *([f"{host}."] if sizing.absolute_domains else [])]
        if host.endswith(SUFFIX):
            short = host.removesuffix(SUFFIX)
            name, _, home = short.partition(".")
            names += [*([name] if home == namespace != "" else []), f"{short}.svc", short]
    if service.headless:
        names += [f"*.{name}" for name in names]
    names += _addresses(service)
    if but:
        names = [name for name in names if name not in but]
    if sizing.ignores_ports == "all" and not naming.ports:
        return names
    return [n for name in names for n in ((name,) if not naming.only else ()) + (f"{name}:{port}",)]


def is_alias(service: Service) -> bool:
    """Whether it stands for another, whose virtual host has its names."""
    return service.resolution == "ALIAS"


def _addresses(service: Service) -> list[str]:
    """A ServiceEntry with several is a service for each, of which the last counts; proxies have one family of IP."""
    known = service.addresses[-1:]
    if service.registry == "Kubernetes":
        known = tuple(a for a in service.addresses if (":" in a) == (":" in service.addresses[0]))
    return [address for address in (*known, service.auto_address) if address and address != "0.0.0.0"]


def taken(services: Iterable[Service]) -> Mapping[str, frozenset[str]]:
    """By host, the addresses of services of one route that are domains of others before them."""
    of = {service.hostname: _addresses(service) for service in services if not is_alias(service)}
    if len({*chain.from_iterable(of.values())}) == sum(map(len, of.values())):
        return {}
    owners: dict[str, str] = {}
    for host in sorted(of):
        for address in of[host]:
            owners.setdefault(address, host)
    found = {host: frozenset(a for a in addresses if owners[a] != host) for host, addresses in of.items()}
    return {host: addresses for host, addresses in found.items() if addresses}


def called(host: str, services: Mapping[str, tuple[Service, Port]]) -> list[str]:
    """Hosts of the services that this is another name of: without the domain, or an address."""
    found = [full] if (full := host.removesuffix(".svc") + SUFFIX) in services else []
    if ":" in host or host.replace(".", "").isdigit():
        found += [of for of, (service, _) in services.items() if host in _addresses(service)]
    return found


__all__ = ["PLAIN", "SUFFIX", "Naming", "called", "domains", "homes_of", "is_alias", "taken"]
