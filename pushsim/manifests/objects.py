"""Documents to objects: Lists unrolled, names and namespaces filled in, duplicates merged, everything else counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pushsim.errors import InputError, Problem
from pushsim.manifests.checks import check_mesh_config, check_object
from pushsim.manifests.document import HELM_REMEDY, Document, is_pilot_load, of_pilot_load, parse_one
from pushsim.manifests.kinds import modelled
from pushsim.manifests.meshconfig import FIELDS, plain
from pushsim.manifests.unknown import left_out, unknown_fields, unknown_mesh_config
from pushsim.mesh import CLUSTER_SCOPED, Object, Ref


@dataclass
class Parsed:
    """What documents hold: modelled objects by Ref (workloads too), mesh config, counts of the rest, all problems."""

    objects: dict[Ref, Object] = field(default_factory=dict)
    mesh_config: dict[str, Any] = field(default_factory=dict)
    unmodelled: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _read_in: dict[Ref, Document] = field(default_factory=dict)
    _mesh_config_source: str = ""

    def add_mesh_config(self, config: Any, where: str, prefix: str = "") -> None:
        """Takes a MeshConfig; a second one that differs is a problem."""
        if not isinstance(config, dict):
            self.problems.append(
                Problem("is no MeshConfig mapping", where, prefix.rstrip("."), "write 'field: value' lines")
            )
        elif self._mesh_config_source and plain(config) != self.mesh_config:
            said = f"differs from the MeshConfig of {self._mesh_config_source}"
            self.problems.append(
                Problem(said, where, prefix.rstrip("."), "give one of the two (another revision's istiod?)")
            )
        else:
            config = plain(config)
            self.problems += check_mesh_config(config, where, prefix)
            self.notes += left_out(unknown_mesh_config(config, where, prefix))
            self.mesh_config, self._mesh_config_source = config, where


def parse(documents: Iterable[Document], namespace: str) -> Parsed:
    """Everything in the documents, with all problems collected rather than raised."""
    parsed = Parsed()
    for document in documents:
        for where, body in _unrolled(document.source, document.data):
            try:
                _take(parsed, body, where, namespace, document)
            except InputError as error:
                parsed.problems += error.problems
    return parsed


def parse_objects(
    bodies: Iterable[Mapping[str, Any]], *, namespace: str = "default", source: str = "", first: int = 0
) -> tuple[Object, ...]:
    """Manifests to Objects, workloads unexpanded; raises InputError with every problem found in any of them.

    Problems and objects say `source[index]`, indices counted from `first`.
    """
    parsed = parse(
        (Document(f"{source}[{i}]" if source else "", body) for i, body in enumerate(bodies, first)), namespace
    )
    if parsed.problems:
        raise InputError(parsed.problems)
    return tuple(parsed.objects.values())


def _unrolled(where: str, data: Any) -> Iterator[tuple[str, Any]]:
    """The objects of a List (`kubectl get -o yaml`, or a typed one such as PodList), else the document itself."""
    kind = data.get("kind") if isinstance(data, dict) else None
    if not (isinstance(kind, str) and kind.endswith("List") and isinstance(data.get("items"), list)):
        yield where, data
        return
    typed = {} if kind == "List" else {"apiVersion": data.get("apiVersion"), "kind": kind.removesuffix("List")}
    for i, item in enumerate(data["items"]):
        yield from _unrolled(f"{where}, items[{i}]", {**typed, **item} if typed and isinstance(item, dict) else item)


def _take(parsed: Parsed, body: Any, where: str, namespace: str, document: Document) -> None:
    if not isinstance(body, dict):
        what = "a list" if isinstance(body, list) else f"'{body}'"[:60]
        raise InputError(
            Problem(f"is no manifest but {what}", where, remedy="write a mapping with apiVersion, kind and metadata")
        )
    if "kind" not in body and "apiVersion" not in body and FIELDS["MeshConfig"] & plain(body).keys():
        return parsed.add_mesh_config(body, where)
    if is_pilot_load(body):
        raise InputError(of_pilot_load(where, "manifest"))
    if "mesh" in body and "kind" not in body and "apiVersion" not in body:
        remedy = "give its mesh.manifests; `pushsim simulate` and `compare` take it whole"
        raise InputError(Problem("is a scenario, and no manifest", where, remedy=remedy))
    problems = []
    for key, example in (("apiVersion", "networking.istio.io/v1"), ("kind", "Service")):
        value = body.get(key)
        if not isinstance(value, str) or not value:
            what = "is missing" if value in (None, "") else "must be a string"
            problems.append(Problem(what, where, key, f"write e.g. {key}: {example}"))
        elif "{{" in value:
            problems.append(Problem("holds '{{' of an unrendered Helm template", where, key, HELM_REMEDY))
    if problems:
        raise InputError(problems)
    api_version, kind, metadata = body["apiVersion"], body["kind"], body.get("metadata")
    known = modelled(api_version, kind, where)
    name: Any = metadata.get("name") if isinstance(metadata, dict) else None
    if (
        kind == "ConfigMap"
        and api_version == "v1"
        and isinstance(name, str)
        and (name == "istio" or name.startswith("istio-"))
    ):
        data = body.get("data")
        if isinstance(data, dict) and isinstance(data.get("mesh"), str):
            config = parse_one(data["mesh"], f"{where}: data.mesh") or {}
            return parsed.add_mesh_config(config, where, "data.mesh.")
    if not known:
        parsed.unmodelled[f"{kind} ({api_version.rpartition('/')[0]})" if "/" in api_version else kind] += 1
        return None
    if metadata is not None and not isinstance(metadata, dict):
        raise InputError(Problem("must be a mapping", where, "metadata", "write 'name: …' below it"))
    if not isinstance(name, str) or not name:
        what = "is missing" if name in (None, "") else f"must be a string, not {name!r}"
        raise InputError(Problem(what, where, "metadata.name", "give the object a name, in quotes if it is a number"))
    its_namespace = (metadata or {}).get("namespace")
    for path, part in (("metadata.name", name), ("metadata.namespace", its_namespace)):
        if part is not None and not isinstance(part, str):
            raise InputError(Problem(f"must be a string, not {part!r}", where, path, "put it in quotes"))
        if part and "{{" in part:
            raise InputError(Problem("holds '{{' of an unrendered Helm template", where, path, HELM_REMEDY))
    found, unknown = check_object(body, kind, where), unknown_fields(body, kind, where)
    if (metadata or {}).get("resourceVersion"):  # a cluster has it so: its CRDs are newer than what we know
        parsed.notes += left_out(unknown)
    else:
        found += unknown
    if found:
        raise InputError(found)
    scope = "" if kind in CLUSTER_SCOPED else its_namespace or namespace
    if its_namespace != scope and scope:
        body = {**body, "metadata": {**(metadata or {}), "namespace": scope}}
    ref = Ref(kind, scope, name)
    earlier = parsed.objects.get(ref)
    if earlier is None:
        parsed.objects[ref] = Object(ref, body, where)
        parsed._read_in[ref] = document
    elif earlier.body != body:
        before = parsed._read_in[ref]
        if document.folder and document.folder == before.folder and document.file != before.file:
            # `kubectl apply -f folder` writes file after file by name: sample folders rely on it
            parsed.notes.append(
                f"{ref} of {earlier.source} is replaced by the one of {where}: files of one folder are applied in "
                "order of their names, as kubectl does"
            )
            parsed.objects[ref] = Object(ref, body, where)
            parsed._read_in[ref] = document
            return None
        said = f"{ref} differs from the one in {earlier.source or 'an earlier place'}"
        raise InputError(Problem(said, where, remedy="keep one of the two, or give the second as --change"))
    return None
