"""From istiod's counters to a scenario's churn section: which sources, at which rates, would make it count so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from pushsim.calibrate.counters import Window

#: Writes of a service's EndpointSlice when a pod comes and one goes: scheduled, ready, gone.
_WRITES_OF_A_POD = 3
#: Config kinds that a source of ours writes.
_CONFIGS = ("VirtualService", "DestinationRule")
#: Rarer than once in that long (s) is left out.
_NEVER_S = 30 * 86400


@dataclass(frozen=True, slots=True)
class Churn:
    """Sources as a scenario holds them, why each is there, and what the counters told that no source stands for."""

    sources: tuple[dict[str, Any], ...]
    reasons: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())

    def section(self) -> str:
        """As YAML, with the reasons as comments."""
        lines = ["churn:" if self.sources else "churn: []  # nothing changed in that time"]
        for source, reason in zip(self.sources, self.reasons, strict=True):
            lines.append(f"# {reason}")
            lines.append(f"- {yaml.safe_dump(source, default_flow_style=True, sort_keys=False, width=1000).strip()}")
        lines += [f"# {note}" for note in self.notes]
        return "\n".join(lines) + "\n"


def churn_of(window: Window) -> Churn:
    """The churn that a window of istiod's counters tells of.

    istiod counts objects, not what moved them, so this is the simplest cause of each count: services that come and go,
    pods replaced one by one, endpoints that turn unready and ready again, Services rewritten with nothing that matters.
    """
    found = _Found(window)
    found.services()
    found.pods()
    found.noise()
    found.configs()
    found.rest()
    return Churn(tuple(found.sources), tuple(found.reasons), tuple(found.notes))


class _Found:
    """Collects sources; what one explains is taken off what the next looks at."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.sources: list[dict[str, Any]] = []
        self.reasons: list[str] = []
        self.notes: list[str] = []
        self.slices = self._events("EndpointSlice", "update") + self._events("Endpoints", "update")
        if window.since_start:
            self.notes.append(
                "the counters began with istiod, which counts what it lists at its start as added: as many objects "
                "were taken to come as went. Two pages, or a Prometheus server, tell it apart"
            )

    def _events(self, kind: str, event: str, metric: str = "pilot_k8s_reg_events") -> float:
        return self.window.rate(metric, type=kind, event=event)

    def _added(self, kind: str) -> float:
        added, gone = self._events(kind, "add"), self._events(kind, "delete")
        return min(added, gone) if self.window.since_start else added

    def _add(self, source: dict[str, Any], per_s: float, reason: str) -> None:
        if per_s * _NEVER_S >= 1:
            self.sources.append({**source, "rate": about(per_s)})
            self.reasons.append(f"{reason}: {about(per_s)}")

    def services(self) -> None:
        """Services come, and go if about as many do."""
        added, gone = self._added("Services"), self._events("Services", "delete")
        source: dict[str, Any] = {"source": "services", "sidecar": False}
        if gone > 0.5 * added:
            source["lifetime"] = "10m"
            self.notes.append("how long services live is not counted: 10m is a guess")
        self._add(source, added, "Services added")

    def pods(self) -> None:
        """Pods replaced one by one; other endpoint updates come in pairs, unready and ready again."""
        replaced = max(0.0, self._added("Pods") - self._added("Services"))
        explained = replaced * _WRITES_OF_A_POD
        if explained > self.slices > 0:
            replaced, explained = self.slices / _WRITES_OF_A_POD, self.slices
        scaled = {"source": "scale", "by": 1, "hold": "5m"}
        self._add(scaled, replaced, "pods added beside new services', as one more pod for 5 minutes each")
        left = max(0.0, self.slices - explained)
        self._add(
            {"source": "crash-loop"}, left / 2, "other updates of EndpointSlices, as pods unready and ready again"
        )

    def noise(self) -> None:
        """Services rewritten."""
        written = self._events("Services", "update")
        count = self.window.scrape.total("pilot_services")
        if written * _NEVER_S < 1 or not count:
            return
        share = min(1.0, max(1 / count, 15 * written / count))
        period_s = share * count / written
        self.sources.append({"source": "hpa-annotation", "period": f"{period_s:.3g}s", "share": round(share, 4)})
        self.reasons.append(f"Services updated, as annotations rewritten: {about(written)} in all")

    def configs(self) -> None:
        """Routing configuration."""
        for kind in _CONFIGS:
            events = ("update",) if self.window.since_start else ("add", "update")
            written = sum(self._events(kind, event, "pilot_k8s_cfg_events") for event in events)
            self._add({"source": "config-push", "kind": kind}, written, f"{kind}s written")

    def rest(self) -> None:
        """Nodes and certificates; what no source stands for."""
        self._add(
            {"source": "node-add"}, 0.0 if self.window.since_start else self._events("Nodes", "add"), "Nodes added"
        )
        connected = self.window.scrape.total("pilot_xds")
        secrets = self.window.rate("pilot_push_triggers", type="secret") / connected if connected else 0.0
        self._add({"source": "certificate-rotation"}, secrets, "pushes for a Secret, per proxy")
        for kind, per_s in self._others():
            self.notes.append(f"{kind} written {about(per_s)}: no source stands for it; write `changes`")

    def _others(self) -> Iterator[tuple[str, float]]:
        kinds = {
            dict(labels).get("type", "") for name, labels in self.window.scrape.values if name == "pilot_k8s_cfg_events"
        }
        for kind in sorted(kinds - set(_CONFIGS)):
            written = sum(
                self._events(kind, event, "pilot_k8s_cfg_events")
                for event in (("update", "delete") if self.window.since_start else ("add", "update", "delete"))
            )
            if written * _NEVER_S >= 1:
                yield kind, written


def about(per_s: float) -> str:
    """A rate as scenarios write it, in the largest unit that keeps it at one or more."""
    for unit, seconds in (("s", 1), ("m", 60), ("h", 3600), ("d", 86400)):
        if per_s * seconds >= 1 or unit == "d":
            return f"{float(f'{per_s * seconds:.3g}'):g}/{unit}"
    raise AssertionError
