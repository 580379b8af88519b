"""DestinationRules that istiod itself has written to, so that an update which changes nothing looks like a change.

needsPush compares the stored object with the new one, and what is stored is what clusters were built of: from 1.21 to
1.25 istiod writes `caCertificates: system` into TLS settings that name none.
Source: pilot/pkg/networking/core/cluster_traffic_policy.go (selectTrafficPolicyComponents).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pushsim.mesh import Object
from pushsim.visibility import Scope


def written_to(rule: Object, scopes: Iterable[Scope]) -> bool:
    """Whether clusters of these scopes are built with TLS settings of a DestinationRule that name no certificates."""
    policies = [rule.spec.get("trafficPolicy") or {}]
    policies += (subset.get("trafficPolicy") or {} for subset in rule.spec.get("subsets") or ())
    if not any(_names_none(part.get("tls")) for policy in policies for part in (policy, *_by_port(policy).values())):
        return False
    for scope in scopes:
        for host in scope.family.hosts_of_rule(rule):
            service = scope.service(host)
            if service is None or not any(rule in merged.sources for merged in scope.rules_for(service)):
                continue
            ports = {port.number for port in service.ports}
            if any(_names_none(_settings(policy, port).get("tls")) for policy in policies for port in ports):
                return True
    return False


def _by_port(policy: Mapping[str, Any]) -> dict[int, Mapping[str, Any]]:
    settings = policy.get("portLevelSettings") or ()
    return {int((one.get("port") or {}).get("number") or 0): one for one in settings}


def _settings(policy: Mapping[str, Any], port: int) -> Mapping[str, Any]:
    """A port's own settings inherit nothing."""
    return _by_port(policy).get(port, policy)


def _names_none(tls: Mapping[str, Any] | None) -> bool:
    return tls is not None and not tls.get("caCertificates")
