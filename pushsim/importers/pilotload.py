"""A cluster file of pilot-load (github.com/howardjohn/pilot-load) as a scenario.

What pilot-load does, as its sims/cluster has it: an application is a Service with pods, `replicas` of it in each of the
`replicas` of its namespace; `jitter.workloads` replaces a pod of a random application, and `jitter.config` rewrites a
random config, at intervals around the one given. An application without a type is plain: its pods have no sidecar.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pushsim.errors import InputError, Problem
from pushsim.given import as_path
from pushsim.manifests.document import parse_text
from pushsim.scenario import Scenario
from pushsim.units import SECOND_NS, UnitError, duration

#: Types of an application whose pods have a sidecar; the others' have none.
_SIDECAR = ("sidecar", "vm")
_KNOWN = ("plain", "gateway", "ambient", "waypoint", "external", *_SIDECAR)


@dataclass(frozen=True)
class Imported:
    """A file's text, and what the reader should know: what of the original is not in it."""

    text: str
    notes: tuple[str, ...] = ()


def from_pilot_load(path: str | Path, *, duration: str = "5m", release: str = "1.24") -> Imported:
    """The scenario that does to istiod what pilot-load would with a cluster file.

    path: of the file. duration: simulated time that is counted.

    Raises InputError.
    """
    try:
        content = Path(as_path(path, "path")).read_bytes()
    except OSError as error:
        raise InputError(Problem(f"cannot be read: {error.strerror}", str(path), remedy="check the path")) from None
    documents = parse_text(content, str(path))
    data = documents[0].data if len(documents) == 1 else None
    if not isinstance(data, dict) or not isinstance(data.get("namespaces"), list):
        raise InputError(
            Problem("is no cluster file of pilot-load", str(path), "namespaces", "give one with namespaces")
        )
    made = _Reading(str(path))
    scenario: dict[str, Any] = {
        "mesh": {"generate": made.mesh(data)},
        "istiod": {"release": release},
        "churn": made.churn(data.get("jitter") or {}),
        "duration": duration,
    }
    if made.problems:
        raise InputError(made.problems)
    body = yaml.safe_dump(scenario, sort_keys=False, allow_unicode=True, width=120)
    text = f"# What does pilot-load's {Path(path).name} cost istiod?\n{body}"
    Scenario.loads(text)  # so that what is written can be read
    return Imported(text, tuple(dict.fromkeys(made.notes)))


class _Reading:
    """One file being read: problems, and what is left out."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self.apps: list[dict[str, Any]] = []
        self.routed: list[str] = []
        self.gateways: list[tuple[str, int]] = []
        self.refreshable = False

    def mesh(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """`mesh.generate`."""
        spaces = []
        for at, namespace in enumerate(data["namespaces"]):
            field = f"namespaces[{at}]"
            if not isinstance(namespace, dict):
                self.problems.append(Problem("must be a mapping", self.where, field))
                continue
            name, count = str(namespace.get("name") or "namespace"), self._count(namespace, "replicas", field)
            spaces.append({"name": name, "count": count} if count > 1 else {"name": name})
            self._left_out(namespace, field, ("configs", "waypoint"))
            for place, app in enumerate(namespace.get("applications") or ()):
                if isinstance(app, dict):
                    self._application(app, f"{field}.applications[{place}]", name, count)
        generate: dict[str, Any] = {"namespaces": spaces, "apps": self.apps}
        if self.gateways:
            generate["gateways"] = {
                "count": sum(pods for _, pods in self.gateways),
                "namespace": self.gateways[0][0],
                "virtual_services": self.routed or "none",
            }
            if len({namespace for namespace, _ in self.gateways}) > 1:
                self.notes.append(f"all gateways are in {self.gateways[0][0]}: the scenario has one place for them")
        nodes = sum(self._count(node, "count", "nodes") for node in data.get("nodes") or () if isinstance(node, dict))
        if nodes:
            generate["nodes"] = nodes
        if not any(app["sidecar"] for app in self.apps) and not self.gateways:
            self.notes.append("no application has a sidecar: nothing will connect; give one `type: sidecar`")
        self._left_out(data, "", ("nodeMetadata", "templates"))
        return generate

    def _application(self, app: Mapping[str, Any], field: str, namespace: str, spaces: int) -> None:
        kind = str(app.get("type") or "plain")
        name, pods = str(app.get("name") or "app"), self._count(app, "pods", field, 0)
        count = self._count(app, "replicas", field)
        if kind not in _KNOWN:
            remedy = f"known: {', '.join(_KNOWN)}"
            self.problems.append(Problem(f"there is no type {kind!r}", self.where, f"{field}.type", remedy))
        if kind in ("ambient", "waypoint"):
            self.notes.append(f"{kind} pods are pods without a sidecar here: ambient's own types are not modelled")
        if kind == "vm":
            self.notes.append("vm: a sidecar in a pod stands for a virtual machine's")
        if kind == "external":
            self.notes.append("external: a Service with pods stands for a ServiceEntry")
        if kind == "gateway":
            self.gateways.append((namespace if spaces == 1 else f"{namespace}-000", pods * count * spaces))
            self._left_out(app, field, ("configs", "gateways", "istio"))
            return
        if kind == "waypoint":
            return
        taken = {known["name"] for known in self.apps}
        unique = name if name not in taken else f"{namespace}-{name}"
        self.apps.append(
            {
                "name": unique,
                "namespaces": [f"{namespace}-*" if spaces > 1 else namespace],
                "per_namespace": count,
                "pods": pods,
                "ports": {"http": 80},
                "labels": {"app": unique, **{str(k): str(v) for k, v in (app.get("labels") or {}).items()}},
                "sidecar": kind in _SIDECAR,
            }
        )
        for config in app.get("configs") or ():
            named = config if isinstance(config, str) else config.get("name") if isinstance(config, dict) else None
            if named == "virtualservice":
                self.routed.append(unique)
                self.refreshable = True
            else:
                self.notes.append(f"{field}: the config {named!r} is left out")
        self._left_out(app, field, ("istio", "gateways"))

    def churn(self, jitter: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Its jitter as churn sources: as often as it says on average, at random moments."""
        found: list[dict[str, Any]] = []
        if every := self._interval(jitter, "workloads"):
            # a pod goes and another comes: two writes of endpoints, one proxy that leaves and one that connects
            found.append({"source": "scale", "rate": _rate(every), "by": 1, "hold": "0s", "ready_after": "0s"})
        if every := self._interval(jitter, "config"):
            if self.refreshable:
                found.append({"source": "config-push", "rate": _rate(every), "kind": "VirtualService", "objects": 1})
            else:
                self.notes.append("jitter.config is left out: no application has a VirtualService to rewrite")
        return found

    def _interval(self, jitter: Mapping[str, Any], name: str) -> int:
        try:
            return duration(jitter[name]) if jitter.get(name) else 0
        except UnitError as error:
            self.problems.append(Problem(str(error), self.where, f"jitter.{name}", error.remedy))
            return 0

    def _count(self, of: Mapping[str, Any], key: str, field: str, default: int = 1) -> int:
        value = of.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            self.problems.append(Problem(f"{value!r} is no count", self.where, f"{field}.{key}", "write a number"))
            return default
        return value or (1 if key == "replicas" else 0)

    def _left_out(self, of: Mapping[str, Any], field: str, keys: Sequence[str]) -> None:
        self.notes += [f"{field}.{key} is left out".lstrip(".") for key in keys if of.get(key)]


def _rate(every_ns: int) -> str:
    """A rate as scenarios write it: once in that time."""
    per_hour = 3600 * SECOND_NS / every_ns
    return f"{per_hour:.9g}/h"
