"""All policies by name; policies from lists, as scenarios and files hold them, and from the command line's text."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from pydantic import Field, ValidationError

from pushsim.errors import InputError, Problem, meant
from pushsim.manifests import to_change
from pushsim.mesh import Mesh, Object
from pushsim.policies.base import Composed, Nothing, Policy
from pushsim.policies.dataplane import Ambient, TenantIngress
from pushsim.policies.exporting import DefaultExportTo, DiscoverySelectors, ExportTo, GatewayFilter, Knobs
from pushsim.policies.scoping import EgressList, ExcludeHosts, NamespaceScope, RootSidecar, WorkloadSelector
from pushsim.problems import nearest, problems_of


class Files(Policy):
    """The user's own objects: files or folders of YAML, installed as they are."""

    name: ClassVar[str] = "files"
    paths: list[str] = Field(min_length=1, description="files or folders, relative to the file that names them")
    documents: tuple[Any, ...] = Field(default=(), exclude=True, repr=False)

    def install(self, mesh: Mesh) -> tuple[Object, ...]:
        return to_change(self.documents, mesh=mesh).change.apply


#: Every policy that has a name.
POLICIES: Mapping[str, type[Policy]] = {
    policy.name: policy
    for policy in (
        Nothing,
        NamespaceScope,
        EgressList,
        RootSidecar,
        WorkloadSelector,
        ExportTo,
        DefaultExportTo,
        GatewayFilter,
        ExcludeHosts,
        DiscoverySelectors,
        Knobs,
        Ambient,
        TenantIngress,
        Files,
    )
}


class Known(Protocol):
    """What `resolve` asks of a scenario."""

    @property
    def variant_names(self) -> tuple[str, ...]: ...

    def policy(self, variant: str) -> Policy:
        """The policy of that variant."""

    def policy_file(self, path: str) -> Policy | None:
        """The policy in that file or folder, None if there is no such path."""


def parse(items: object, where: str = "", field: str = "", read: Callable[[Files], Files] | None = None) -> Policy:
    """The policy of a list of `name` or `{name: {parameters}}`.

    read fills the objects of a `files` policy. Raises InputError with all problems of the list.
    """
    if items is None:
        items = []
    if not isinstance(items, list):
        remedy = "write a list: [{root-sidecar: {hosts: [./*]}}], or [] for no policy"
        raise InputError(Problem("is no list of policies", where, field, remedy))
    parts, problems = [], list[Problem]()
    for index, item in enumerate(items):
        try:
            parts.append(_one(item, where, f"{field}[{index}]", read))
        except InputError as error:
            problems.extend(error.problems)
    if problems:
        raise InputError(problems)
    return parts[0] if len(parts) == 1 else Composed(parts=tuple(parts))


def _one(item: object, where: str, field: str, read: Callable[[Files], Files] | None) -> Policy:
    name: Any = item if isinstance(item, str) else ""
    parameters: Any = {}
    if isinstance(item, Mapping) and len(item) == 1:
        name, parameters = next(iter(item.items()))
        parameters = {} if parameters is None else parameters
    if not isinstance(name, str) or not name or not isinstance(parameters, Mapping):
        raise InputError(Problem("is no policy", where, field, "write name or {name: {parameter: value}}"))
    if ":" in name:
        return from_function(name, parameters, where, field)
    if name not in POLICIES:
        raise InputError(Problem(f"there is no policy {name!r}", where, field, nearest(name, POLICIES, "policies")))
    try:
        policy = POLICIES[name].model_validate(parameters)
    except ValidationError as error:
        raise InputError(problems_of(error, parameters, where, f"{field}.{name}", POLICIES[name])) from None
    return read(policy) if isinstance(policy, Files) and read else policy


def from_function(
    reference: str, parameters: Mapping[str, Any] | None = None, where: str = "", field: str = ""
) -> Policy:
    """The policy that `module:function` returns, called with the parameters. Raises InputError."""
    module, _, function = reference.partition(":")
    try:
        made = getattr(importlib.import_module(module), function)(**(parameters or {}))
    except ImportError as error:
        remedy = "is it on PYTHONPATH?"
        raise InputError(Problem(f"cannot import {module!r}: {error}", where, field, remedy)) from None
    except AttributeError as error:
        raise InputError(Problem(f"{reference}: {error}", where, field, "check the function's name")) from None
    except TypeError as error:
        raise InputError(Problem(f"{reference}: {error}", where, field, "check its parameters")) from None
    if not isinstance(made, Policy):
        message = f"{reference} returned {type(made).__name__}, no policy"
        raise InputError(Problem(message, where, field, "return a subclass of pushsim.policies.Policy"))
    return made


def resolve(text: str, scenario: Known | None = None) -> Policy:
    """The policy of a command line's text: parts joined with `+`.

    A part is a variant of the scenario, a policy's bare name (its defaults), `module:function`, or a path of a YAML
    file that holds a list of policies, or of files and folders of objects to install. Raises InputError.
    """
    parts = [_part(part.strip(), scenario) for part in text.split("+")]
    return parts[0] if len(parts) == 1 else Composed(parts=tuple(parts))


def _part(text: str, scenario: Known | None) -> Policy:
    if not text:
        raise InputError(Problem("a policy has no name", field="--policy", remedy="join names with +, like a+b"))
    if scenario is not None and text in scenario.variant_names:
        return scenario.policy(text)
    if text in POLICIES:
        return _one(text, "", f"--policy {text}", None)
    found = scenario.policy_file(text) if scenario is not None else None
    if found is not None:
        return found
    if ":" in text and not text.endswith((".yaml", ".yml")):
        return from_function(text, field=f"--policy {text}")
    names = list(dict.fromkeys([*POLICIES, *(scenario.variant_names if scenario is not None else ())]))
    hint = meant(text, names) or f"known: {', '.join(names)}; or give a YAML file"
    raise InputError(Problem(f"there is no policy, variant or file {text!r}", field="--policy", remedy=hint))


def described() -> Sequence[tuple[str, str, Mapping[str, str]]]:
    """(name, what it does, {parameter: default and meaning}) of each policy, for `pushsim policies`."""
    rows = []
    for name, policy in POLICIES.items():
        shown = {}
        for field, about in policy.model_fields.items():
            if about.exclude:
                continue
            default = "required" if about.is_required() else repr(about.get_default(call_default_factory=True))
            shown[field] = f"{default}  {about.description or ''}".strip()
        rows.append((name, " ".join((policy.__doc__ or "").split()), shown))
    return rows
