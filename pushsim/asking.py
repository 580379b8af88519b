"""What `plan` and its like are asked about: a mesh and a change, from files and the names of what is to be deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pushsim import files
from pushsim.errors import InputError, Problem, expected, no_proxy
from pushsim.manifests import Inject, delete_change, parse_delete
from pushsim.mesh import Change, Mesh
from pushsim.settings import PROFILES


@dataclass(frozen=True, slots=True)
class Asked:
    """notes: what reading has to say."""

    mesh: Mesh
    change: Change
    notes: tuple[str, ...]


def mesh_in(
    paths: Sequence[str], *, namespace: str = "default", inject: Inject = "detect", stdin: files.Stdin = None
) -> tuple[Mesh, tuple[str, ...]]:
    """The mesh in these manifests, under the mesh config of Istio's chart where they have none, and notes on it.

    Raises InputError.
    """
    expected(namespace, str, "namespace", "a text")
    found = files.load(paths, namespace=namespace, inject=inject, stdin=stdin)
    there = found.mesh
    return replace(there, mesh_config={**PROFILES["default"], **there.mesh_config}), tuple(found.notes)


def asked(
    mesh: Mesh | Sequence[str],
    change: Change | Sequence[str] = (),
    delete: Sequence[str] = (),
    *,
    namespace: str = "default",
    inject: Inject = "detect",
    stdin: files.Stdin = None,
) -> Asked:
    """The mesh, and one change of all that is to be written and deleted.

    change: a Change, or files and folders of objects. delete: `[group/]Kind/[namespace/]name`, which must be there.

    Raises InputError: what reading may raise, no proxy, nothing to change.
    """
    if not isinstance(change, Change) and not change and not delete:
        remedy = "add --change FILE or --delete KIND/NAMESPACE/NAME"
        raise InputError(Problem("no change given", remedy=remedy))
    notes: list[str] = []
    if not isinstance(mesh, Mesh):
        if not mesh:
            remedy = "name files or folders of manifests, - for standard input"
            raise InputError(Problem("no mesh given", remedy=remedy))
        where = ", ".join(mesh)
        mesh, told = mesh_in(mesh, namespace=namespace, inject=inject, stdin=stdin)
        notes += told
        if not mesh.proxies:
            raise InputError(no_proxy(where))
    parts = [change] if isinstance(change, Change) else []
    if not isinstance(change, Change):
        for path in change:
            read = files.load_change(path, namespace=namespace, stdin=stdin, mesh=mesh)
            parts.append(read.change)
            notes += read.notes
    if delete:
        parts.append(delete_change([parse_delete(text, mesh, namespace=namespace) for text in delete], mesh))
    configs = [part.mesh_config for part in parts if part.mesh_config is not None]
    whole = Change(
        tuple(held for part in parts for held in part.apply),
        tuple(ref for part in parts for ref in part.delete),
        ", ".join([*([change.name] if isinstance(change, Change) else change), *delete]),
        {key: value for config in configs for key, value in config.items()} if configs else None,
    )
    return Asked(mesh, whole, tuple(dict.fromkeys(notes)))
