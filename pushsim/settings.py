"""What both runners are handed: a mesh, dated changes, and the control plane that has to push them.

Plain frozen values, filled by `scenario` and altered by `policies`. Time is an integer of nanoseconds everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from pushsim.mesh import Change, Mesh, Mode

Profile = Literal["bare", "default"]

#: What a profile lays under a scenario's `mesh_config`. `bare` is istiod's built-in mesh config, as the recordings ran;
#: `default` is what Istio's chart installs over it (manifests/charts/istio-control/istio-discovery, as recorded in the
#: case `chart-defaults`).
PROFILES: Mapping[Profile, Mapping[str, Any]] = MappingProxyType(
    {
        "bare": {},
        "default": {
            "enablePrometheusMerge": True,
            "defaultProviders": {"metrics": ["prometheus"]},
            "defaultConfig": {
                "discoveryAddress": "istiod.istio-system.svc:15012",
                "tracing": {"zipkin": {"address": "zipkin.istio-system:9411"}},
            },
        },
    }
)

#: More istiods than anybody runs: a slip of the pen.
MOST_REPLICAS = 1000

#: Change.name of a marker: something that happens to istiod and writes no object.
ISTIOD_RESTART = "istiod-restart"
MARKERS = frozenset({ISTIOD_RESTART})


@dataclass(frozen=True, slots=True)
class Timed:
    """A dated change.

    at_ns:   when it is written to the API server, in ns since the start of the warm-up (>= 0). Counting starts at
             `Scenario.warmup_ns`; a scenario's own `changes: at` counts from there.
    source:  the churn source's name, or "changes" for those written out in the scenario.
    change:  complete objects, already admitted by the variant's policy. An empty one with a name in `MARKERS` is an
             event of istiod's own: `istiod-restart` means that one replica (of several, the next in turn) restarts and
             its proxies reconnect. A Pod with an `istio-proxy` container is a connection of its own: applied for the
             first time it connects, deleted it disconnects (`topology.proxy_of`).
    """

    at_ns: int
    source: str
    change: Change

    @property
    def marker(self) -> str:
        """The marker's name, "" for an ordinary change."""
        empty = not self.change.apply and not self.change.delete
        return self.change.name if empty and self.change.name in MARKERS else ""


@dataclass(frozen=True, slots=True)
class Clients:
    """Ill-behaved or recycled connections.

    slow_share, slow_delay_ns: share of the proxies (0 to 1) that take that much longer to read a response.
    nack_share:                share of the proxies that reject what they get.
    reconnect_ns:              mean age at which istiod ends a connection (jitter of ±10 % is the runner's), None never.
    """

    slow_share: float = 0.0
    slow_delay_ns: int = 0
    nack_share: float = 0.0
    reconnect_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """What a runner needs to know of the control plane and of the proxies.

    release:            minor or patch ("1.24", "1.24.6").
    replicas, cpus:     istiods, and the cores of each.
    env:                istiod's environment variables under Istio's own names, values as strings.
    mesh_config:        Istio's MeshConfig with the profile already laid under it.
    calibration:        path of a calibration file, None for the shipped one of the nearest release.
    mode:               xDS mode, None for what that release's agent uses.
    workers:            Envoy worker threads of a proxy.
    memory_limit_bytes: memory limit of a proxy, None if it has none.
    """

    release: str = "1.24"
    replicas: int = 1
    cpus: float = 4.0
    env: Mapping[str, str] = field(default_factory=dict)
    mesh_config: Mapping[str, Any] = field(default_factory=dict)
    profile: Profile = "default"
    calibration: str | None = None
    mode: Mode | None = None
    workers: int = 2
    memory_limit_bytes: int | None = None
    clients: Clients = field(default_factory=Clients)


@dataclass(frozen=True)
class Variant:
    """One answer's whole input: the same seeded workload under one policy.

    mesh:     at the start of the warm-up, everything connected and quiet; `mesh.mesh_config` and `mesh.env` are those
              of `settings`.
    changes:  sorted by at_ns; of equal times, in the order of the churn section, `changes` last.
    notes:    what the policy's figures leave out, for whoever reads them.
    """

    name: str
    mesh: Mesh
    changes: tuple[Timed, ...]
    settings: Settings
    notes: tuple[str, ...] = ()


def overlay(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `under`: mappings merge key by key, everything else replaces."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = overlay(below, value) if both and below is not None else value
    return merged
