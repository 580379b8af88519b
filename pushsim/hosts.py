"""Host names and their wildcards, as Istio's host.Name compares them. `*` and `*.b.com` are wildcards."""

from __future__ import annotations

from collections.abc import Iterable


def is_wildcard(host: str) -> bool:
    """Whether the name starts with `*`."""
    return host.startswith("*")


def subset_of(host: str, of: str) -> bool:
    """Whether all that `host` names, `of` names too: `a.b.com` and `*.b.com` are subsets of `*.b.com`."""
    if is_wildcard(of):
        suffix = of[1:]
        return (len(host) >= len(of) if is_wildcard(host) else True) and host.endswith(suffix)
    return host == of


def matches(one: str, other: str) -> bool:
    """Whether either is a subset of the other."""
    return subset_of(one, other) or subset_of(other, one)


def resolve_all(hosts: Iterable[object], namespace: str) -> list[str]:
    """`hosts` as an object of a namespace writes them, each as `resolve` has it."""
    return [resolve(str(host), namespace) for host in hosts]


def resolve(host: str, namespace: str) -> str:
    """A short name of an Istio config as FQDN in the config's namespace; names with a dot and wildcards as they are."""
    if "." in host or is_wildcard(host) or not host:
        return host
    return f"{host}.{namespace}.svc.cluster.local"
