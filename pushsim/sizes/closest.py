"""Which VirtualService shapes which service of a sidecar's route.

Source: pilot/pkg/networking/core/route/route.go (separateVSHostsAndServices).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from pushsim.hosts import subset_of
from pushsim.mesh import Object


def closest_of(hosts_of: Sequence[tuple[Object, list[str]]], services: Collection[str]) -> dict[str, Object]:
    """The VirtualService whose host fits a service best: exactly, or the longest wildcard; among equals the first.

    Source: pilot/pkg/model/sidecar.go (computeWildcardHostVirtualServiceIndex).
    """
    first: dict[str, Object] = {}
    for written, hosts in hosts_of:
        for host in hosts:
            first.setdefault(host, written)
    wild = sorted((host for host in first if host.startswith("*")), key=len, reverse=True)
    found = {host: written for host, written in first.items() if host in services}
    for name in services if wild else ():
        best = name if name in first else next((host for host in wild if subset_of(name, host)), None)
        if best is not None:
            found[name] = first[best]
    return found


def split_hosts(hosts: Iterable[str], services: Collection[str], taken: set[str]) -> tuple[list[str], list[str]]:
    """A VirtualService's hosts that are services here, and those that are none."""
    matching: list[str] = []
    others: list[str] = []
    for host in hosts:
        if not host.startswith("*"):
            if host in services:
                matching.append(host)
            else:
                others.append(host)
            continue
        found = [name for name in services if subset_of(name, host)]
        matching += [name for name in found if name not in taken]
        if not found:
            others.append(host)
    return matching, others
