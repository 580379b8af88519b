"""PeerAuthentication: which mTLS mode a proxy's ports and a namespace's services have.

Source: pilot/pkg/security/authn/policy_applier.go (ComposePeerAuthentication), pilot/pkg/model/authentication.go.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from pushsim.mesh import Endpoint, Object, Proxy

_MODES = {"STRICT", "PERMISSIVE", "DISABLE"}


@dataclass(frozen=True)
class MtlsModes:
    """The mode of a workload, and of the ports that have their own."""

    mode: str = "PERMISSIVE"
    ports: Mapping[int, str] = field(default_factory=dict)

    def of(self, port: int) -> str:
        """The mode of a target port."""
        return self.ports.get(port, self.mode)

    def passthrough(self, served: Collection[int]) -> list[tuple[int, str]]:
        """Ports (0: all others) that virtualInbound has passthrough chains for: those that no service serves."""
        return [(0, self.mode), *sorted((port, mode) for port, mode in self.ports.items() if port not in served)]


def selected(obj: Object, proxy: Proxy) -> bool:
    """Whether a policy's selector (empty: everything) matches a proxy."""
    return _selects(obj, proxy.labels)


def _selects(obj: Object, labels: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in obj.selects.items())


def _oldest(objects: Sequence[Object]) -> Object | None:
    return min(objects, key=lambda o: o.creation) if objects else None


def _mode(obj: Object | None) -> str:
    mode = str(((obj.spec if obj else {}).get("mtls") or {}).get("mode") or "")
    return mode if mode in _MODES else ""


def workload_modes(policies: Sequence[Object], namespace: str, labels: Mapping[str, str], root: str) -> MtlsModes:
    """Mesh, namespace and workload policies of a workload, composed."""

    plain = [p for p in policies if not p.selects]
    mesh = _oldest([p for p in plain if p.ref.namespace == root])
    wide = _oldest([p for p in plain if p.ref.namespace == namespace != root])
    own = [p for p in policies if p.selects and p.ref.namespace == namespace != root and _selects(p, labels)]
    workload = _oldest(own)
    base = _mode(wide) or _mode(mesh) or "PERMISSIVE"
    mode = _mode(workload) or base
    ports = {}
    for port, wish in ((workload.spec.get("portLevelMtls") or {}) if workload else {}).items():
        written = str((wish or {}).get("mode") or "UNSET")
        # an unset port takes the mode of the namespace or mesh
        ports[int(port)] = written if written in _MODES else mode
    return MtlsModes(mode, ports)


class EndpointModes:
    """Whether endpoints take mTLS, by the policies of their own namespace (checkMtlsEnabled of mtls_checker.go)."""

    def __init__(self, policies: Sequence[Object], root: str) -> None:
        self._policies, self._root = policies, root
        self._never = not any(_disables(policy) for policy in policies)
        self._known: dict[tuple[object, ...], MtlsModes] = {}

    def take(self, endpoint: Endpoint, namespace: str) -> bool:
        """Whether no policy switches mTLS off for an endpoint of a namespace."""
        if self._never:
            return True
        key = (namespace, endpoint.labels)
        if key not in self._known:
            self._known[key] = workload_modes(self._policies, namespace, dict(endpoint.labels), self._root)
        return self._known[key].of(endpoint.port) != "DISABLE"


def _disables(policy: Object) -> bool:
    ports = (policy.spec.get("portLevelMtls") or {}).values()
    return _mode(policy) == "DISABLE" or any((wish or {}).get("mode") == "DISABLE" for wish in ports)


def namespace_modes(policies: Sequence[Object], root: str) -> Mapping[str, str]:
    """Namespace-wide modes by namespace; "" is the mesh-wide one. Policies with a selector do not count here."""
    found: dict[str, list[Object]] = {}
    for policy in policies:
        if not policy.selects:
            found.setdefault("" if policy.ref.namespace == root else policy.ref.namespace, []).append(policy)
    return {namespace: mode for namespace, of in found.items() if (mode := _mode(_oldest(of)))}
