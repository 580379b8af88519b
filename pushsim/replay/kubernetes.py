"""Writes a replay's mesh and changes to a real API server, into namespaces of its own, and deletes them at the end.

Every namespace of the scenario gets a prefix, in names and in the hosts that objects refer to, and must not exist yet.
Objects that would mean something to the whole mesh (Istio's kinds in the root namespace) are refused. Pods and nodes
are left out: proxies are simulated, their labels come with them, and Services lose their selectors so that nobody else
writes their endpoints.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from pushsim.errors import EnvironmentProblem, InputError, Problem
from pushsim.mesh import Change, Mesh, Object, Proxy, Ref
from pushsim.settings import Timed, Variant
from pushsim.stub.resources import resource_of

#: Not written: what a scheduler, a kubelet or the cluster itself makes.
LEFT_OUT = frozenset({"Pod", "Node", "ConfigMap", "Secret"})
_CORE = frozenset({"Namespace", "Service", "EndpointSlice"})
_MANAGED = {"app.kubernetes.io/managed-by": "pushsim"}


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach the API server: a kubeconfig ("" for the usual one) and one of its contexts, by name."""

    context: str
    kubeconfig: str = ""
    prefix: str = "pushsim-"


def prefixed(variant: Variant, prefix: str) -> Variant:
    """The variant with the prefix before every namespace. Raises InputError for what would reach beyond them."""
    changes = [timed.change for timed in variant.changes]
    mesh = variant.mesh
    given = [*mesh.objects.values(), *(o for change in changes for o in change.apply)]
    root = str(variant.settings.mesh_config.get("rootNamespace", "istio-system"))
    for one in given:
        if one.ref.namespace == root and one.ref.kind not in _CORE | LEFT_OUT | {"Gateway"}:
            message = f"{one.ref} is in the root namespace: on a real cluster it would change the whole mesh"
            raise InputError(Problem(message, remedy="choose a variant without it, or an istiod of your own"))
    named = {one.ref.namespace or one.ref.name for one in given if one.ref.namespace or one.ref.kind == "Namespace"}
    spaces = named | {proxy.namespace for proxy in mesh.proxies}
    rewrite = _Rewriting(prefix, spaces)
    objects = {o.ref: o for o in map(rewrite.object, mesh.objects.values())}
    written = tuple(replace(t, change=rewrite.change(t.change)) for t in variant.changes)
    proxies = tuple(map(rewrite.proxy, mesh.proxies))
    return replace(variant, mesh=Mesh(objects, proxies, mesh.mesh_config, mesh.env), changes=tuple[Timed, ...](written))


@dataclass(frozen=True)
class _Rewriting:
    prefix: str
    spaces: Iterable[str]
    _pattern: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        names = "|".join(sorted(map(re.escape, self.spaces), key=len, reverse=True)) or "(?!)"
        # "ns/host" of Sidecars and gateways, "name.ns.svc…" of hosts and principals
        object.__setattr__(self, "_pattern", re.compile(rf"(?:(?<=\.)|^)({names})(?=/|\.svc\b)"))

    def object(self, one: Object) -> Object:
        body = {key: self._value(value) for key, value in one.body.items() if key not in ("metadata", "status")}
        ref = self.ref(one.ref)
        metadata = {**one.metadata, "name": ref.name, "labels": {**one.labels, **_MANAGED}}
        if ref.namespace:
            metadata["namespace"] = ref.namespace
        for key in ("creationTimestamp", "uid", "resourceVersion", "ownerReferences"):
            metadata.pop(key, None)
        if one.ref.kind == "Service":
            body["spec"] = {key: value for key, value in body["spec"].items() if key not in ("selector", "clusterIP")}
            if one.spec.get("clusterIP") == "None":
                body["spec"]["clusterIP"] = "None"
        if one.ref.kind == "EndpointSlice":
            kept = ("addresses", "conditions", "zone")
            body["endpoints"] = [{k: e[k] for k in kept if k in e} for e in body.get("endpoints") or ()]
        return Object(ref, {**body, "metadata": metadata}, one.source)

    def change(self, change: Change) -> Change:
        return replace(change, apply=tuple(map(self.object, change.apply)), delete=tuple(map(self.ref, change.delete)))

    def ref(self, ref: Ref) -> Ref:
        if ref.kind == "Namespace":
            return Ref(ref.kind, "", self.prefix + ref.name)
        return Ref(ref.kind, self.prefix + ref.namespace, ref.name) if ref.namespace else ref

    def proxy(self, proxy: Proxy) -> Proxy:
        return replace(proxy, namespace=self.prefix + proxy.namespace)

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._pattern.sub(lambda found: self.prefix + found[1], value)
        if isinstance(value, Mapping):
            return {key: self._value(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._value(item) for item in value]
        return value


class Kubernetes:
    """An API server as a board; what it wrote is known by `held`."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._held: dict[Ref, Mapping[str, Any]] = {}
        self.version = 0

    def held(self, ref: Ref) -> Mapping[str, Any] | None:
        """The object as we wrote it last."""
        return self._held.get(ref)

    def delivered(self) -> bool:
        """A real API server tells its watchers at once, and nobody else when."""
        return True

    async def write_in_order(self, change: Change) -> None:
        """Apply and delete, object by object. Raises EnvironmentProblem."""
        for one in change.apply:
            await self.put(one)
        for ref in change.delete:
            await self.delete(ref)

    async def put(self, one: Object, *, dry_run: bool = False) -> None:
        """Create or replace an object, or only ask whether that would do."""
        if one.ref.kind in LEFT_OUT:
            return
        made = _kind(one.ref).from_dict(dict(one.body))
        with _told(f"write {one.ref}"):
            await self._client.apply(
                made, namespace=one.ref.namespace or None, field_manager="pushsim", force=True, dry_run=dry_run
            )
        if not dry_run:
            self.version += 1
            self._held[one.ref] = one.body

    async def delete(self, ref: Ref) -> None:
        """Delete an object that we wrote; no harm if it is gone."""
        if self._held.pop(ref, None) is None:
            return
        from lightkube.core.exceptions import ApiError

        with _told(f"delete {ref}"):
            try:
                await self._client.delete(_kind(ref), ref.name, namespace=ref.namespace or None)
            except ApiError as error:
                if error.status.code != 404:
                    raise
        self.version += 1

    async def exists(self, ref: Ref) -> bool:
        """Whether there is such an object."""
        from lightkube.core.exceptions import ApiError

        with _told(f"read {ref}"):
            try:
                await self._client.get(_kind(ref), ref.name, namespace=ref.namespace or None)
            except ApiError as error:
                if error.status.code == 404:
                    return False
                raise
        return True

    async def clear(self) -> None:
        """Delete all that we wrote, the newest first; namespaces last. All is tried; the first problem is raised."""
        problem: EnvironmentProblem | None = None
        newest_first = [*reversed(self._held)]
        for ref in sorted(newest_first, key=lambda ref: ref.kind == "Namespace"):
            try:
                await self.delete(ref)
            except EnvironmentProblem as error:
                problem = problem or error
        if problem:
            raise EnvironmentProblem(f"not all that was created could be deleted: {problem}")


@asynccontextmanager
async def written(access: Access, mesh: Mesh) -> AsyncIterator[Kubernetes]:
    """A real cluster that holds the mesh while the context is open: a dry run first, everything deleted at the end.

    Raises InputError (no such context, a namespace exists already) and EnvironmentProblem (refused, unreachable).
    """
    board = Kubernetes(client_of(access))
    spaces = [o for o in mesh.objects.values() if o.ref.kind == "Namespace"]
    needed = {o.ref.namespace for o in mesh.objects.values() if o.ref.namespace and o.ref.kind not in LEFT_OUT}
    there = {o.ref.name for o in spaces}
    bare = [Ref("Namespace", "", name) for name in sorted(needed - there)]
    spaces += [Object(ref, {"apiVersion": "v1", "kind": "Namespace", "metadata": _named(ref)}) for ref in bare]
    others = [o for o in mesh.objects.values() if o.ref.kind != "Namespace"]
    for space in spaces:
        if await board.exists(space.ref):
            message = f"namespace {space.ref.name} exists already"
            raise InputError(Problem(message, field="--namespace-prefix", remedy="choose another prefix"))
    for space in spaces:
        await board.put(space, dry_run=True)
    try:
        for space in spaces:
            await board.put(space)
        for one in others:
            await board.put(one, dry_run=True)
        for one in others:
            await board.put(one)
        yield board
    finally:
        await board.clear()


def client_of(access: Access) -> Any:
    """A client for that context and no other. Raises InputError if the kubeconfig has none of that name."""
    from lightkube import AsyncClient, KubeConfig
    from lightkube.core.exceptions import ConfigError

    try:
        config = KubeConfig.from_file(access.kubeconfig) if access.kubeconfig else KubeConfig.from_env()
        known = sorted(config.contexts) if config is not None else []
    except (ConfigError, OSError) as error:
        raise InputError(Problem(f"can't be read: {error}", access.kubeconfig or "kubeconfig")) from None
    if config is None or access.context not in known:
        from pushsim.problems import nearest

        message = f"there is no context {access.context!r}"
        raise InputError(Problem(message, field="--context", remedy=nearest(access.context, known, "contexts")))
    return AsyncClient(config=config.get(access.context), field_manager="pushsim", trust_env=False)


def _named(ref: Ref) -> dict[str, Any]:
    return {"name": ref.name, "labels": dict(_MANAGED)}


def _kind(ref: Ref) -> Any:
    from lightkube.core.resource_registry import resource_registry
    from lightkube.generic_resource import create_global_resource, create_namespaced_resource

    resource = resource_of(ref)
    version = f"{resource.group}/{resource.versions[0]}".lstrip("/")
    if known := resource_registry.get(version, resource.kind):
        return known
    make = create_namespaced_resource if resource.namespaced else create_global_resource
    return make(resource.group, resource.versions[0], resource.kind, resource.plural)


@contextlib.contextmanager
def _told(what: str) -> Any:
    from lightkube.core.exceptions import ApiError

    try:
        yield
    except ApiError as error:
        raise EnvironmentProblem(f"the API server would not {what}: {error.status.message}") from None
    except OSError as error:
        raise EnvironmentProblem(f"can't {what}: the API server can't be reached: {error}") from None
