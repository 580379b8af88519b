"""What proxies really have against what they would have: a config_dump of one, or istiod's /debug/adsz of all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pushsim import releases
from pushsim.conversation import Conversation
from pushsim.errors import InputError, Problem
from pushsim.importers.debug import page_of, read_json
from pushsim.mesh import Mesh, Mode
from pushsim.problems import nearest

TYPES = ("CDS", "EDS", "LDS", "RDS")

#: In Envoy's config_dump, snake_case from Envoy and camelCase from istiod: list, what wraps the resource, its name.
_DUMPED = {
    "CDS": ("dynamic_active_clusters", ("cluster",), "name"),
    "LDS": ("dynamic_listeners", ("active_state", "listener"), "name"),
    "RDS": ("dynamic_route_configs", ("route_config",), "name"),
    "EDS": ("dynamic_endpoint_configs", ("endpoint_config",), "cluster_name"),
}
_WATCHED = {"Cluster": "CDS", "ClusterLoadAssignment": "EDS", "Listener": "LDS", "RouteConfiguration": "RDS"}


@dataclass(frozen=True)
class Held:
    """One proxy and one xDS type: names that only the proxy has, those that only the prediction has, how many agree.

    A type that the dump does not tell is absent.
    """

    proxy: str
    xds: str
    equal: int
    only_held: tuple[str, ...]
    only_predicted: tuple[str, ...]


def inspect(
    mesh: Mesh, dump: str | Path, *, proxy: str = "", release: str = releases.NEWEST, mode: Mode | None = None
) -> list[Held]:
    """Compare a dump with what that release would send to the mesh's proxies upon connecting.

    dump:  a proxy's config_dump (its own, or istiod's /debug/config_dump), or istiod's /debug/adsz.
    proxy: POD.NAMESPACE; a config_dump does not say whose it is.

    Raises InputError: no such file, shape or proxy.
    """
    page = read_json(dump)
    if isinstance(page, dict) and isinstance(page.get("configs"), list):
        if not proxy:
            raise InputError(
                Problem("a config_dump does not say whose it is", str(dump), remedy="give --proxy POD.NAMESPACE")
            )
        held = {proxy: dict(_of_config_dump(page["configs"]))}
    elif page_of(page) == "adsz":
        held = {name: names for name, names in _of_adsz(page["clients"]) if not proxy or name == proxy}
    else:
        raise InputError(
            Problem("is neither a config_dump nor /debug/adsz", str(dump), remedy="save the page as it is")
        )
    rules = releases.rules(release)
    predicted = _predicted(Conversation(mesh, rules, mode))
    unknown = [name for name in held if name not in predicted]
    if proxy and proxy not in predicted:
        unknown = [proxy]
    if unknown:
        raise InputError(
            Problem(
                f"the mesh has no proxy {unknown[0]!r}", str(dump), remedy=nearest(unknown[0], predicted, "proxies")
            )
        )
    if not any(held.values()):
        remedy = "save the page of a proxy or istiod that is connected, as it is"
        raise InputError(Problem(f"holds nothing of {proxy or 'any proxy'} to compare", str(dump), remedy=remedy))
    return [
        _compared(name, xds, names, predicted[name].get(xds, frozenset()))
        for name, types in sorted(held.items())
        for xds, names in types.items()
    ]


def _compared(proxy: str, xds: str, held: frozenset[str], predicted: frozenset[str]) -> Held:
    return Held(proxy, xds, len(held & predicted), tuple(sorted(held - predicted)), tuple(sorted(predicted - held)))


def _predicted(conversation: Conversation) -> dict[str, dict[str, frozenset[str]]]:
    found: dict[str, dict[str, frozenset[str]]] = {}
    for outcome in conversation.classes:
        names: dict[str, frozenset[str]] = {}
        for response in outcome.plan.responses:
            names[response.xds] = names.get(response.xds, frozenset()) | frozenset(response.names)
        found.update(dict.fromkeys((proxy.id for proxy in outcome.members), names))
    return found


def _of_config_dump(configs: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, frozenset[str]]]:
    """Names by type; of dynamic resources only: the bootstrap's own are not istiod's to push."""
    for xds, (listed, way, key) in _DUMPED.items():
        parts = [part for config in configs for part in _either(config, listed) or ()]
        if not any(_either(config, listed) is not None for config in configs):
            continue
        names = set()
        for part in parts:
            for step in way:
                part = _either(part, step) or {}
            if name := _either(part, key):
                names.add(str(name))
        yield xds, frozenset(names)


def _either(of: Mapping[str, Any], name: str) -> Any:
    """A field under its name in protobuf, or in protobuf's JSON."""
    head, *rest = name.split("_")
    return of.get(name, of.get(head + "".join(part.title() for part in rest)))


def _of_adsz(clients: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, dict[str, frozenset[str]]]]:
    for client in clients:
        names = {
            _WATCHED[kind.rpartition(".")[2]]: frozenset(watched or ())
            for kind, watched in (client.get("watches") or {}).items()
            if kind.rpartition(".")[2] in _WATCHED
        }
        # of a SotW stream, what is asked for as a whole (CDS, LDS) has no names
        told = {xds: names[xds] for xds in TYPES if names.get(xds) or (xds in names and xds in ("EDS", "RDS"))}
        yield str(client["connectionId"]).rpartition("-")[0], told
