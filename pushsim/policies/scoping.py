"""Policies that install Sidecars: what each proxy may see."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from pushsim import releases
from pushsim.errors import InputError, Problem
from pushsim.mesh import Mesh, Object, Ref
from pushsim.policies.base import Calls, Policy, root_namespace
from pushsim.settings import Settings
from pushsim.topology.selection import Labels, has_labels, in_namespaces

_API = "networking.istio.io/v1beta1"


def _host(value: str) -> str:
    namespace, slash, name = value.partition("/")
    if not slash or not namespace or not name:
        raise ValueError(
            f"{value!r} is not NAMESPACE/HOST: write ./* or istio-system/* or ns-a/b.ns-a.svc.cluster.local"
        )
    return value


#: An egress host of a Sidecar: `namespace/dnsName`.
Host = Annotated[str, AfterValidator(_host)]


def sidecar(namespace: str, name: str, hosts: Sequence[str], labels: dict[str, str] | None = None) -> Object:
    """A Sidecar with these egress hosts, for the namespace or only its workloads with these labels."""
    spec: dict[str, Any] = {"workloadSelector": {"labels": labels}} if labels else {}
    spec["egress"] = [{"hosts": list(hosts)}]
    body = {"apiVersion": _API, "kind": "Sidecar", "metadata": {"name": name, "namespace": namespace}, "spec": spec}
    return Object(Ref("Sidecar", namespace, name), body, "policy")


def default_sidecar(mesh: Mesh, namespace: str) -> Object | None:
    """The namespace's Sidecar without workloadSelector: the oldest, as istiod chooses."""
    found = [held for held in mesh.of_kind("Sidecar") if held.ref.namespace == namespace]
    plain = [held for held in found if not (held.spec.get("workloadSelector") or {}).get("labels")]
    return min(plain, key=lambda held: (held.creation, held.ref.name), default=None)


def _in_place(mesh: Mesh, namespace: str, hosts: Sequence[str]) -> Object:
    """The namespace's default Sidecar: it takes the name of the one that is there, since only one can count."""
    held = default_sidecar(mesh, namespace)
    return sidecar(namespace, held.ref.name if held else "default", hosts)


class RootSidecar(Policy):
    """One Sidecar in the root namespace: the default scope of every namespace that has none of its own."""

    name: ClassVar[str] = "root-sidecar"
    hosts: list[Host] = Field(default=["istio-system/*", "./*"], min_length=1, description="egress hosts")
    namespace: str = Field(default="", description="default: the mesh's root namespace")

    def install(self, mesh: Mesh) -> tuple[Object, ...]:
        return (_in_place(mesh, self.namespace or root_namespace(mesh), self.hosts),)


class NamespaceScope(Policy):
    """Every namespace sees itself and the root namespace, by one Sidecar in the root namespace."""

    name: ClassVar[str] = "namespace"
    also: list[Host] = Field(default_factory=list, description="further egress hosts")

    def install(self, mesh: Mesh) -> tuple[Object, ...]:
        root = root_namespace(mesh)
        return (_in_place(mesh, root, list(dict.fromkeys(["./*", f"{root}/*", *self.also]))),)


class EgressList(Policy):
    """A Sidecar in each namespace that names the hosts it calls: those given, or those of the call graph."""

    name: ClassVar[str] = "egress-list"
    hosts: dict[str, list[Host]] | list[Host] | None = Field(
        default=None, description="egress hosts of all namespaces, or by namespace; default: what the call graph says"
    )
    base: list[Host] = Field(default=["./*", "istio-system/*"], description="hosts that every namespace keeps")
    namespaces: list[str] = Field(default_factory=list, description="where, `*` allowed; default: all but system ones")
    domain: str = "svc.cluster.local"

    def prepared(self, calls: Calls) -> Policy:
        if self.hosts is not None:
            return self
        graph = calls()
        if graph is None:
            remedy = "give the policy `hosts`, or the scenario `calls` or `mesh.generate.calls`"
            raise InputError(Problem("egress-list knows no calls to list hosts from", remedy=remedy))
        hosts: dict[str, set[str]] = defaultdict(set)
        for caller, callee in graph.edges:
            if callee.kind != "Service":
                hosts[caller.namespace].add(f"*/{callee.name}")
            elif caller.namespace != callee.namespace:
                hosts[caller.namespace].add(f"{callee.namespace}/{callee.name}.{callee.namespace}.{self.domain}")
        return self.model_copy(update={"hosts": {space: sorted(found) for space, found in sorted(hosts.items())}})

    def install(self, mesh: Mesh) -> tuple[Object, ...]:
        listed = self.hosts or {}
        spaces = [held.ref.name for held in mesh.of_kind("Namespace") if in_namespaces(held.ref.name, self.namespaces)]
        per = {space: listed.get(space, []) if isinstance(listed, dict) else listed for space in spaces}
        return tuple(_in_place(mesh, space, list(dict.fromkeys([*self.base, *per[space]]))) for space in spaces)


class WorkloadSelector(Policy):
    """A Sidecar for the workloads with these labels, in each namespace that has such pods (or in those named)."""

    name: ClassVar[str] = "workload-selector"
    labels: Labels = Field(min_length=1, description="labels of the pods")
    hosts: list[Host] = Field(default=["./*", "istio-system/*"], min_length=1, description="egress hosts")
    namespaces: list[str] = Field(default_factory=list, description="where, `*` allowed; default: where such pods are")
    sidecar: str = Field(default="selected", description="name of the Sidecars")

    def install(self, mesh: Mesh) -> tuple[Object, ...]:
        if self.namespaces:
            every = (held.ref.name for held in mesh.of_kind("Namespace"))
            spaces = [space for space in every if in_namespaces(space, self.namespaces)]
        else:
            found = (held.ref.namespace for held in mesh.of_kind("Pod") if has_labels(held.labels, self.labels))
            spaces = list(dict.fromkeys(found))
        return tuple(sidecar(space, self.sidecar, self.hosts, self.labels) for space in spaces)


class ExcludeHosts(Policy):
    """The root Sidecar sees all but these hosts (`~` exclusions, Istio 1.31; earlier releases take them literally)."""

    name: ClassVar[str] = "exclude-hosts"
    hosts: list[Host] = Field(min_length=1, description="hosts to leave out, without the `~`")

    def install(self, mesh: Mesh) -> tuple[Object, ...]:
        root = root_namespace(mesh)
        held = default_sidecar(mesh, root)
        seen = [host for part in (held.spec.get("egress") or () if held else ()) for host in part.get("hosts") or ()]
        excluded = [f"~{host}" for host in self.hosts]
        return (_in_place(mesh, root, list(dict.fromkeys([*(seen or ["*/*"]), *excluded]))),)

    def notes(self, settings: Settings) -> tuple[str, ...]:
        if releases.rules(settings.release).exclusions:
            return ()
        return (
            f"exclude-hosts: Istio {settings.release} knows no `~` in egress hosts (1.31 does): nothing is left out",
        )
