"""Which changes a push is the first to show to a proxy, and which of them let it through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pushsim.dependencies import Decision
from pushsim.mesh import ConfigKey
from pushsim.names import host_of
from pushsim.plan import Plan, ProxyState, Response
from pushsim.planners.cells import HOST_KINDS

#: A longer full list is not searched for the resources of a host: the scope tells whether it has some.
_SEARCHED = 64


@dataclass(frozen=True, slots=True)
class Named:
    """What the requests of a change name: their keys, the hosts among them, and whether there is more than hosts.

    Requests without keys stand for a change of everything. secrets: there is nothing else but Secrets.
    """

    keys: frozenset[ConfigKey]
    hosts: frozenset[str]
    others: bool
    secrets: bool = False

    @classmethod
    def by(cls, keys: frozenset[ConfigKey]) -> Named:
        """What these keys name."""
        hosts = [key for key in keys if key.kind in HOST_KINDS]
        secrets = bool(keys) and all(key.kind == "Secret" for key in keys)
        return cls(
            keys, frozenset(key.name for key in hosts), not secrets and (len(hosts) < len(keys) or not keys), secrets
        )

    def lets_through(self, decision: Decision) -> bool:
        """Whether it is among what made a proxy need a push."""
        return not self.keys or not decision.keys or not self.keys.isdisjoint(decision.keys)


def shown_by(planned: Plan, before: ProxyState, changes: Mapping[int, Named]) -> dict[int, tuple[int, ...]]:
    """By response, the changes that it is the first to show: one of a host by a resource of it, others at once.

    before: the proxy's state before the push. changes: by number, those that were first pushed with it.
    """
    pushed = [(i, response) for i, response in enumerate(planned.responses) if not response.solicited]
    if not pushed:
        return {}
    shown: dict[int, list[int]] = {}
    for change, named in changes.items():
        if named.lets_through(planned.decision):
            for index, response in pushed:
                if (
                    named.others
                    or (named.secrets and response.xds == "SDS")
                    or any(_shows(response, host, planned.state, before) for host in named.hosts)
                ):
                    shown.setdefault(index, []).append(change)
                    break
    return {index: tuple(of) for index, of in shown.items()}


def _shows(response: Response, host: str, after: ProxyState, before: ProxyState) -> bool:
    """Whether a response has a resource of a host, or takes one away."""
    if response.xds == "CDS" and len(response.blocks) > 2:  # a full list: what was or is in the scope
        return after.scope.service(host) is not None or before.scope.service(host) is not None
    if response.xds in ("CDS", "EDS") and response.count <= _SEARCHED:
        names = (*(resource.name for resource in response.resources), *response.removed)
        return any(host_of(name) == host for name in names)
    return response.xds != "LDS" and after.scope.service(host) is not None
