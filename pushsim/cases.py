"""Case files: a small mesh with explicit proxies and a list of changes, as recordings of real istiods are named by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pushsim.errors import InputError, Problem
from pushsim.files import read_sources
from pushsim.manifests.checks import check_mesh_config
from pushsim.manifests.kinds import KINDS
from pushsim.manifests.meshconfig import plain
from pushsim.manifests.objects import parse_objects
from pushsim.manifests.shapes import strings
from pushsim.mesh import Change, Mesh, Object, Proxy, Ref

_TYPES = ("sidecar", "router", "waypoint", "ztunnel")
#: How every recording's istiod ran, as far as it decides who is pushed; a case's own `env` is laid over it.
RECORDING_ENV: Mapping[str, str] = {"PILOT_ENABLE_IP_AUTOALLOCATE": "false"}
_FIELDS = frozenset({"about", "name", "manifests", "proxies", "steps", "meshConfig", "env"})


@dataclass(frozen=True)
class Case:
    """A mesh and the steps that change it, one merged push each; `name` is the file's stem."""

    name: str
    about: str
    mesh: Mesh
    steps: tuple[Change, ...]


def load_case(path: str | Path, *besides: object) -> Case:
    """The case in a file. Pods, EndpointSlices and proxies are explicit: nothing is expanded.

    besides: meshes and changes that were given, too, of which there must be none.

    Raises InputError with every problem of the file.
    """
    if any(besides):
        remedy = "give either a case, or a mesh with changes"
        raise InputError(Problem("a case file has its own mesh and changes", field="--case", remedy=remedy))
    source = str(path)
    documents = read_sources([source])
    if len(documents) != 1:
        raise InputError(Problem("holds more than one document", source, remedy="a case is one document"))
    return parse_case(documents[0].data, Path(path).stem, source)


def parse_case(data: Any, name: str, source: str = "") -> Case:
    """A case from its plain value; pure, errors as `load_case`."""
    if not isinstance(data, dict):
        raise InputError(Problem("is no case", source, remedy="write a mapping with manifests, proxies and steps"))
    problems: list[Problem] = [
        Problem("unknown field", source, str(key), f"known: {', '.join(sorted(_FIELDS))}")
        for key in data
        if key not in _FIELDS
    ]
    objects = _objects(data, "manifests", source, problems)
    config, env = plain(_mapping(data, "meshConfig", source, problems)), _mapping(data, "env", source, problems)
    problems += check_mesh_config(config, source, "meshConfig.")
    proxies = [
        proxy
        for i, body in enumerate(_list(data, "proxies", source, problems))
        if (proxy := _proxy(body, f"proxies[{i}]", source, problems))
    ]
    steps = [_step(body, i, source, problems) for i, body in enumerate(_list(data, "steps", source, problems))]
    if problems:
        raise InputError(problems)
    environment = {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in env.items()}
    mesh = Mesh({o.ref: o for o in objects}, tuple(proxies), config, {**RECORDING_ENV, **environment})
    return Case(name, str(data.get("about", "")), mesh, tuple(steps))


def _objects(
    data: Mapping[str, Any], key: str, source: str, problems: list[Problem], prefix: str = ""
) -> tuple[Object, ...]:
    objects: list[Object] = []
    for i, body in enumerate(_list(data, key, source, problems, prefix)):  # one by one: a step may write one twice
        try:
            objects += parse_objects([body], source=f"{source}: {prefix}{key}", first=i)
        except InputError as error:
            problems += error.problems
    return tuple(objects)


def _list(data: Mapping[str, Any], key: str, source: str, problems: list[Problem], prefix: str = "") -> list[Any]:
    value = data.get(key)
    if value is None or isinstance(value, list):
        return value or []
    problems.append(Problem("must be a list", source, prefix + key, "write '- …' lines below it"))
    return []


def _mapping(data: Mapping[str, Any], key: str, source: str, problems: list[Problem]) -> dict[str, Any]:
    value = data.get(key)
    if value is None or isinstance(value, dict):
        return value or {}
    problems.append(Problem("must be a mapping", source, key, "write 'key: value' lines below it"))
    return {}


def _proxy(body: Any, field: str, source: str, problems: list[Problem]) -> Proxy | None:
    if not isinstance(body, dict):
        problems.append(Problem("must be a mapping", source, field, "give name, namespace and ip"))
        return None
    before = len(problems)
    for key in ("name", "namespace", "ip"):
        if not isinstance(body.get(key), str) or not body[key]:
            problems.append(
                Problem("must be a string that is not empty", source, f"{field}.{key}", f"give the pod's {key}")
            )
    kind = body.get("type", "sidecar")
    if kind not in _TYPES:
        problems.append(
            Problem(f"unknown proxy type {kind!r}", source, f"{field}.type", f"use one of {', '.join(_TYPES)}")
        )
    labels = body.get("labels") or {}
    if fault := strings(labels):
        problems.append(Problem(fault[0], source, f"{field}.labels", fault[1]))
    metadata = body.get("metadata") or {}
    if fault := strings(metadata):
        problems.append(Problem(fault[0], source, f"{field}.metadata", fault[1]))
    if len(problems) > before:
        return None
    account = body.get("serviceAccount", "default")
    return Proxy(body["name"], body["namespace"], body["ip"], kind, labels, account, metadata)


def _step(body: Any, index: int, source: str, problems: list[Problem]) -> Change:
    at = f"steps[{index}]"
    if not isinstance(body, dict):
        problems.append(Problem("must be a mapping", source, at, "give name, apply and delete"))
        return Change()
    deleted = []
    for i, ref in enumerate(_list(body, "delete", source, problems, f"{at}.")):
        kind = ref.get("kind") if isinstance(ref, dict) else None
        if kind not in KINDS or not isinstance(ref.get("name"), str):
            problems.append(
                Problem("names no known object", source, f"{at}.delete[{i}]", "give kind, namespace and name")
            )
        else:
            deleted.append(Ref(kind, ref.get("namespace") or "", ref["name"]))
    return Change(_objects(body, "apply", source, problems, f"{at}."), tuple(deleted), str(body.get("name", "")))
