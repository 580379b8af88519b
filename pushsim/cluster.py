"""A live cluster, read through a kubeconfig: what istiod would list of it, page by page; nothing is ever written.

Secrets are not read. Lists are taken in pages; where the API server lets go of a list before its last page (410), that
kind is listed anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pushsim.errors import EnvironmentProblem, InputError, Problem
from pushsim.manifests.kinds import KINDS, Kind
from pushsim.stub.resources import BY_KIND, Resource

#: Objects of one page.
PAGE = 500
#: How often a list whose pages expire is begun.
ATTEMPTS = 3

#: Told the kind that is read, and how many of it there are so far.
Progress = Callable[[str, int], None]


def read(
    kubeconfig: str | Path | None = None,
    *,
    context: str | None = None,
    page: int = PAGE,
    progress: Progress | None = None,
) -> str:
    """Manifests (a Kubernetes List, JSON) of all that matters to istiod, and the MeshConfig of `istio` in istio-system.

    kubeconfig: path; default: as kubectl finds it (KUBECONFIG, ~/.kube/config, or the pod's own account).
    context:    of the kubeconfig; default: its current one.
    page:       objects that are asked for at once.

    Raises EnvironmentProblem (no cluster, no lightkube, not allowed) and InputError (no such file or context).
    """
    client = _client(kubeconfig, context)
    items: list[dict[str, Any]] = []
    for kind in KINDS.values():
        if kind.watched and kind.name in BY_KIND and kind.name != "Secret":
            items += _all(client, kind, page, progress)
    items += _mesh_config(client)
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, ensure_ascii=False) + "\n"


def _client(kubeconfig: str | Path | None, context: str | None) -> Any:
    try:
        from lightkube import Client, KubeConfig
        from lightkube.core.exceptions import ConfigError
    except ImportError:
        raise EnvironmentProblem("no lightkube to read a cluster with: install pushsim[cluster]") from None
    try:
        config = KubeConfig.from_file(str(kubeconfig)) if kubeconfig is not None else KubeConfig.from_env()
        chosen = config.get(context_name=context) if context else config.get()
    except (ConfigError, OSError, KeyError) as error:
        where = str(kubeconfig or "the kubeconfig")
        raise InputError(Problem(f"cannot be used: {error}", where, remedy="check the path, and --context")) from None
    if chosen is None:
        raise EnvironmentProblem("no cluster: there is no kubeconfig, and this is no pod (give a kubeconfig)")
    return Client(config=chosen, trust_env=False)


def _all(client: Any, kind: Kind, page: int, progress: Progress | None) -> list[dict[str, Any]]:
    """All objects of a kind, in the first of its versions that the cluster serves; none if it serves none."""
    from lightkube import ApiError

    expired = None
    for _ in range(ATTEMPTS):
        found: list[dict[str, Any]] = []
        try:
            for body in _listed(client, kind, page):
                found.append(body)
                if progress and len(found) % page == 0:
                    progress(kind.name, len(found))
        except ApiError as error:
            if error.status.code == 410:
                expired = error
                continue
            raise _problem(kind.name, error) from None
        if progress:
            progress(kind.name, len(found))
        return found
    raise EnvironmentProblem(f"the list of {kind.name} expires before it is read: {expired}")


def _listed(client: Any, kind: Kind, page: int) -> Iterator[dict[str, Any]]:
    """The objects as their manifests are; an unknown kind has none."""
    from lightkube import ApiError
    from lightkube.core import generic_client

    resource = BY_KIND[kind.name]
    for version in resource.versions:
        begun = False
        lost: Any = vars(generic_client)["httpx"].HTTPError  # of whichever httpx lightkube has
        try:
            for held in client.list(_generic(resource, version), **_everywhere(resource), chunk_size=page):
                begun = True
                yield _body(held, resource, version)
            return
        except ApiError as error:
            if error.status.code != 404 or begun:
                raise
        except lost as error:
            raise EnvironmentProblem(f"the cluster cannot be reached: {error}") from None


@cache
def _generic(resource: Resource, version: str) -> Any:
    """lightkube's class for a kind; it knows one for each, whoever made it."""
    from lightkube import generic_resource
    from lightkube.core.resource_registry import resource_registry

    known: Any = resource_registry.get(f"{resource.group}/{version}" if resource.group else version, resource.kind)
    make: Any = (
        generic_resource.create_namespaced_resource if resource.namespaced else generic_resource.create_global_resource
    )
    return known or make(resource.group, version, resource.kind, resource.plural)


def _everywhere(resource: Resource) -> dict[str, str]:
    return {"namespace": "*"} if resource.namespaced else {}


def _body(held: Any, resource: Resource, version: str) -> dict[str, Any]:
    body = dict(held) if isinstance(held, dict) else held.to_dict()
    metadata = {k: v for k, v in (body.get("metadata") or {}).items() if k != "managedFields" and v is not None}
    api = f"{resource.group}/{version}" if resource.group else version
    return {**body, "apiVersion": api, "kind": resource.kind, "metadata": metadata}


def _mesh_config(client: Any) -> list[dict[str, Any]]:
    from lightkube import ApiError

    resource = BY_KIND["ConfigMap"]
    try:
        held = client.get(_generic(resource, "v1"), "istio", namespace="istio-system")
    except ApiError as error:
        if error.status.code in (403, 404):
            return []
        raise _problem("the ConfigMap istio", error) from None
    return [_body(held, resource, "v1")]


def _problem(what: str, error: Any) -> EnvironmentProblem:
    remedy = "; reading needs `list` on it" if error.status.code in (401, 403) else ""
    return EnvironmentProblem(f"{what} cannot be read: {error.status.message}{remedy}")
