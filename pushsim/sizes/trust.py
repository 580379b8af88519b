"""Trust domains: those that are the mesh's own, and identities that are written with them.

Source: pilot/pkg/security/trustdomain/{bundle,util}.go.
"""

from __future__ import annotations

from collections.abc import Sequence

from pushsim.sizes.settings import Settings

_LOCAL = "cluster.local"


def domains(settings: Settings) -> tuple[str, ...]:
    """The mesh's trust domain, then its aliases."""
    return (settings.trust_domain, *map(str, settings.mesh.get("trustDomainAliases") or ()))


def principals(written: Sequence[str], own: Sequence[str]) -> list[str]:
    """Principals, each of them in all trust domains of the mesh if it is in one (ReplaceTrustDomainAliases)."""
    found = []
    for principal in written:
        domain, *rest = principal.split("/")
        if len(rest) != 4 or domain == "*" or not (domain == _LOCAL or any(_alike(domain, other) for other in own)):
            found.append(principal)
            continue
        # one that ends as a wildcard says is as written
        names = (principal if _ends(other, domain) else "/".join((other, *rest)) for other in own)
        found += dict.fromkeys(names)
    return found


def expanded(written: Sequence[str], own: Sequence[str]) -> list[str]:
    """Trust domains, with all of the mesh's for one that is its own (ExpandTrustDomainAliases)."""
    return [*dict.fromkeys(name for value in written for name in (own if value in own else (value,)))]


def _alike(one: str, other: str) -> bool:
    """Whether either is the other, with a `*` at an end of either (stringMatch)."""
    return (
        one == other or other == "*" or any(f(*pair) for f in (_begins, _ends) for pair in ((one, other), (other, one)))
    )


def _begins(text: str, pattern: str) -> bool:
    return pattern.endswith("*") and text.startswith(pattern[:-1])


def _ends(text: str, pattern: str) -> bool:
    return pattern.startswith("*") and text.endswith(pattern[1:])
