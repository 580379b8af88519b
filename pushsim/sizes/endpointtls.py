"""Which endpoints clients speak mutual TLS to: rules, policies and sidecars (pilot/pkg/xds/**/mtls_checker.go)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pushsim.mesh import Endpoint, Object, Port
from pushsim.resources import LoadAssignment
from pushsim.sizes.peers import EndpointModes
from pushsim.sizes.policy import subset_spec, whole_policy
from pushsim.sizes.switches import Sizing


class EndpointTls:
    """What an assignment's endpoints take.

    Until 1.18 `tls_mode_by_labels` says what a rule sets, and a mode of other TLS sets nothing.
    """

    def __init__(self, resource: LoadAssignment, port: Port, namespace: str, modes: EndpointModes, sizing: Sizing):
        self._rules, self._port, self._namespace, self._modes = resource.rules, port, namespace, modes
        self._by_labels = sizing.tls_by_labels
        self._written = tls_mode(resource.rules, resource.subset, port, sizing)

    def mutual(self, endpoint: Endpoint) -> bool:
        """Whether the endpoint is labelled so, if it has a sidecar."""
        mode = self._mode(endpoint)
        return mode == "ISTIO_MUTUAL" if mode else self._modes.take(endpoint, self._namespace)

    def plain(self, endpoint: Endpoint) -> bool:
        """Whether no AUTO_PASSTHROUGH server leads to it (EndpointsWithMTLSFilter)."""
        if self._by_labels and self._mode(endpoint) == "ISTIO_MUTUAL":
            return False
        return not (endpoint.tls == "istio" and self.mutual(endpoint))

    def _mode(self, endpoint: Endpoint) -> str | None:
        if not self._by_labels:
            return self._written
        mode = tls_mode_by_labels(self._rules, dict(endpoint.labels), self._port)
        return mode if mode in ("DISABLE", "ISTIO_MUTUAL") else None


def tls_mode(rules: Sequence[Object], subset: str, port: Port, sizing: Sizing) -> str | None:
    """The TLS mode a rule sets for endpoints: a subset's own if one is named, from 1.31 on else that of all."""
    spec = subset_spec(rules, subset) if subset else {}
    own = _mode_at(spec.get("trafficPolicy") or {}, port)
    inherits = not subset or (bool(spec) and own is None and sizing.subset_tls_inherits)
    return _mode_at(whole_policy(rules), port) if inherits else own


def tls_mode_by_labels(rules: Sequence[Object], labels: Mapping[str, str], port: Port) -> str | None:
    """The same until 1.18: of the first subset that has an endpoint's labels, if that sets one; else of the rule."""
    for rule in rules:
        for subset in rule.spec.get("subsets") or ():
            if (subset.get("labels") or {}).items() <= labels.items():
                own = _mode_at(subset.get("trafficPolicy") or {}, port)
                return _mode_at(whole_policy(rules), port) if own is None else own
    return _mode_at(whole_policy(rules), port)


def _mode_at(policy: Mapping[str, Any], port: Port) -> str | None:
    """The TLS mode of a port, else that of all (trafficPolicyTLSModeForPort)."""
    levels = (p for p in policy.get("portLevelSettings") or () if (p.get("port") or {}).get("number") == port.number)
    found = next((level["tls"] for level in levels if level.get("tls") is not None), policy.get("tls"))
    return None if found is None else str(found.get("mode") or "DISABLE")
