"""A scenario file as an object: loaded, checked, dumped, its variants built on demand."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from pushsim import cost, environment, files, policies, releases
from pushsim.environment import ENVIRONMENT
from pushsim.errors import InputError, Problem, expected, meant
from pushsim.manifests.checks import check_mesh_config
from pushsim.manifests.document import is_pilot_load, of_pilot_load, parse_text
from pushsim.manifests.unknown import unknown_mesh_config
from pushsim.mesh import Mesh
from pushsim.policies import Files, Policy
from pushsim.problems import nearest, problems_of
from pushsim.scenario import build, fields
from pushsim.scenario.bundle import bundled_path
from pushsim.scenario.limits import slips
from pushsim.scenario.model import Assumption, Model, Published
from pushsim.settings import Settings, Variant
from pushsim.topology import call_graph, read_calls
from pushsim.topology.churn import CHANGES, unique_names

if TYPE_CHECKING:
    from pushsim.topology.calls import Graph

#: The one variant of a scenario that names none.
AS_IS = "as-is"


class Scenario:
    """A loaded scenario file.

    path:          as given, "" for text.
    id:            16 hex digits, a hash of all that affects the answer (seed and file contents included).
    question:      the first comment.
    variant_names: in order, the baseline first.
    """

    path: str
    id: str
    question: str
    seed: int
    duration_ns: int
    warmup_ns: int
    release: str
    variant_names: tuple[str, ...]

    def __init__(self, data: Any, base_dir: Path, path: str = "", question: str = "") -> None:
        """Validates data, the file's plain value; raises InputError with all problems of the file."""
        where = path or "scenario"
        model, problems = _model(data, where)
        self._policies, wrong = _policies(data, base_dir, where)
        problems.extend(wrong)
        if model is not None:
            problems.extend(_cross_problems(model, data, where))
            try:
                self.id = build.identity(model, base_dir)
            except InputError as error:
                problems.extend(replace(problem, where=where) for problem in error.problems)
        if model is None or problems:
            raise InputError(problems)
        self.model, self._data, self._base_dir = model, data, base_dir
        self.path, self.question = path, question
        self.seed, self.duration_ns, self.warmup_ns = model.seed, model.duration, model.warmup
        self.release = model.istiod.release
        self.variant_names = tuple(self._policies)

    @classmethod
    def load(cls, path: str | Path) -> Scenario:
        """The scenario in that file or, for a bare name that is no file, the bundled one. Raises InputError."""
        expected(path, (str, Path), "a scenario", "a loaded Scenario, a file or the name of a bundled one")
        if not str(path) or str(path) == "-":
            message = "a scenario must be a file, or the name of a bundled one"
            raise InputError(Problem(message, str(path), remedy="/dev/stdin is standard input"))
        found = Path(path)
        if not found.exists():  # what a shell's <(…) gives exists, and is no file
            found = bundled_path(str(path)) or found
        try:
            text = found.read_bytes()
        except OSError as error:
            remedy = "give a file, or a name that `pushsim scenarios` lists"
            if found.is_dir():
                remedy = _OF_MANIFESTS.replace("[it]", f"[{path}]")
            raise InputError(Problem(f"cannot be read: {error.strerror or error}", str(path), remedy=remedy)) from None
        return cls._read(text, found.parent, str(path))

    @staticmethod
    def is_one(path: str) -> bool:
        """Whether that is a scenario, bundled or a file with `mesh:`, and no manifest. Raises InputError as `load`."""
        found = Path(path)
        if not found.is_file():
            return not found.exists() and path != "-" and bundled_path(path) is not None
        if found.suffix not in (".yaml", ".yml"):
            return False
        documents = parse_text(found.read_bytes(), path)
        data = documents[0].data if len(documents) == 1 else None
        return isinstance(data, dict) and "mesh" in data and "kind" not in data

    @classmethod
    def loads(cls, text: str, base_dir: str | Path = ".") -> Scenario:
        """The scenario in that text; its relative paths start at base_dir. Raises InputError."""
        expected(text, str, "a scenario's text", "a text", "give Scenario.load a file")
        return cls._read(text.encode(), Path(base_dir), "")

    @classmethod
    def _read(cls, text: bytes, base_dir: Path, path: str) -> Scenario:
        documents = parse_text(text, path or "scenario")
        if any(isinstance(each.data, dict) and _is_manifest(each.data) for each in documents):
            raise InputError(Problem("is a manifest, and no scenario", path or "scenario", remedy=_OF_MANIFESTS))
        if len(documents) > 1:
            remedy = "keep one; its policies and changes may be files of their own"
            raise InputError(Problem(f"holds {len(documents)} documents", path or "scenario", remedy=remedy))
        return cls(documents[0].data if documents else None, base_dir, path, question_of(text.decode()))

    def __repr__(self) -> str:
        whose = f"{self.path or 'scenario'} ({self.id}): {self.question}".removesuffix(": ")
        return f"<{whose}; Istio {self.release}, variants {', '.join(self.variant_names)}>"

    def __getstate__(self) -> dict[str, Any]:
        """Without the mesh: another process makes it faster than it reads it."""
        return {key: value for key, value in self.__dict__.items() if key != "_base"}

    # What runners ask for

    def variant(self, name: str) -> Variant:
        """That variant's mesh, changes and settings; name may also be any `--policy` text. Raises InputError."""
        policy = policies.resolve(name, self).prepared(self.calls)
        return build.variant(name, self._base, policy, self.settings)

    def policy(self, variant: str) -> Policy:
        """The policy of one of `variant_names`, as written."""
        return self._policies[variant]

    def policy_file(self, path: str) -> Policy | None:
        """The policy in a YAML file (a list of policies, or objects to install) or folder of objects, None if none."""
        found = Path(path)
        if found.is_file():
            documents = parse_text(found.read_bytes(), path)
            if len(documents) == 1 and isinstance(documents[0].data, list):
                return policies.parse(documents[0].data, path, "", lambda held: build.fill(held, found.parent))
        elif not found.is_dir():
            return None
        return build.fill(Files(paths=[path]), Path())

    @property
    def sources(self) -> tuple[str, ...]:
        """What changes come from, by the names they have in results."""
        return (*unique_names(self.model.churn), *([CHANGES] if self.model.changes else []))

    @property
    def settings(self) -> Settings:
        """The control plane before any policy."""
        return build.settings(self.model, self._base.mesh, self._base_dir)

    @property
    def mesh(self) -> Mesh:
        """The mesh before any policy."""
        return self._base.mesh

    @property
    def notes(self) -> tuple[str, ...]:
        """What reading the manifests had to say, and what of the environment a simulation does not go by."""
        return (*_strange(self.model), *(self._base.notes if self.model.mesh.manifests else ()))

    def calls(self) -> Graph | None:
        """The call graph: the observed one, else the generated one, else None."""
        if self.model.calls:
            path = self._base_dir / self.model.calls
            return read_calls(files.read_text(path), str(path), self._base.mesh)
        if self.model.mesh.generate is not None:
            return call_graph(self.model.mesh.generate, self._base.mesh, self.seed)
        return None

    @cached_property
    def _base(self) -> build.Base:
        return build.base(self.model, self._base_dir, self.path or "scenario")

    # The same question, asked a little differently

    def replaced(self, values: Mapping[str, Any]) -> Scenario:
        """The scenario with these fields set (`istiod.cpus`, `churn.rollout.rate`, …). Raises InputError."""
        expected(values, Mapping, "values", "a mapping", 'write {"istiod.cpus": 8}')
        data = self._data
        for path, value in values.items():
            try:
                data = fields.with_value(data, path, value, self._complete)
            except fields.NoSuchField as error:
                raise InputError(_no_field(path, error, self.path)) from None
        return Scenario(data, self._base_dir, self.path, self.question)

    def scaled(self, path: str, factor: Fraction | int | float | str) -> Scenario:
        """The scenario with that amount multiplied; counts stay at least one. Raises InputError."""
        try:
            value = fields.value_at(self._complete, path)
            return self.replaced({path: fields.scaled(value, Fraction(factor))})
        except fields.NoSuchField as error:
            raise InputError(_no_field(path, error, self.path)) from None
        except ValueError as error:
            raise InputError(
                Problem(str(error), self.path, path, "name a number, duration, rate or quantity")
            ) from None

    def value(self, path: str) -> Any:
        """What that field holds, defaults included. Raises InputError."""
        try:
            return fields.value_at(self._complete, path)
        except fields.NoSuchField as error:
            raise InputError(_no_field(path, error, self.path)) from None

    @property
    def _complete(self) -> dict[str, Any]:
        complete: dict[str, Any] = _laid_over(self.model.model_dump(mode="json"), self._data)
        return complete

    @property
    def published(self) -> Published | None:
        """Published figures to compare with, where the scenario has them."""
        return self.model.published

    @property
    def assumptions(self) -> tuple[Assumption, ...]:
        """Fields whose halving and doubling a report shows."""
        return tuple(self.model.assumptions)

    def dump(self) -> str:
        """The scenario as YAML in one way of writing it; loads (from the same folder) to the same id."""
        data = self.model.model_dump(mode="json", exclude_unset=True)
        text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)
        return f"# {self.question}\n{text}" if self.question else text


def _laid_over(complete: Any, given: Any) -> Any:
    """`complete` with what was given in its own words: a count stays 8, not [8, 8]."""
    if isinstance(complete, dict) and isinstance(given, dict):
        return {key: _laid_over(value, given[key]) if key in given else value for key, value in complete.items()}
    if isinstance(complete, list) and isinstance(given, list) and len(complete) == len(given):
        return [_laid_over(one, other) for one, other in zip(complete, given, strict=True)]
    return given


def question_of(text: str) -> str:
    """The first comment's first sentence line, "" if there is none."""
    found = re.search(r"(?m)^#+[ \t]*(\S.*?)[ \t]*$", text)
    return found[1] if found else ""


#: What to do with manifests where a scenario is wanted.
_OF_MANIFESTS = (
    "give a file that holds `mesh: {manifests: [it]}` and `churn: [{source: rollout, rate: 40/h}]`, "
    "or ask `pushsim plan` about a change"
)


def _is_manifest(data: Mapping[str, Any]) -> bool:
    return "apiVersion" in data and "mesh" not in data


def _model(data: Any, where: str) -> tuple[Model | None, list[Problem]]:
    if not isinstance(data, dict):
        remedy = "begin with `mesh:`; `pushsim schema` has all fields"
        said = "is empty, and no scenario" if data is None else "is no scenario: it must be a mapping"
        return None, [Problem(said, where, remedy=remedy)]
    if _is_manifest(data):
        return None, [Problem("is a manifest, and no scenario", where, remedy=_OF_MANIFESTS)]
    if is_pilot_load(data):
        return None, [of_pilot_load(where, "scenario")]
    try:
        return Model.model_validate(data), []
    except ValidationError as error:
        return None, problems_of(error, data, where, model=Model)


def _policies(data: Any, base_dir: Path, where: str) -> tuple[dict[str, Policy], list[Problem]]:
    written = data.get("variants") if isinstance(data, dict) else None
    if not isinstance(written, dict) or not written:
        return {AS_IS: policies.Nothing()}, []
    found: dict[str, Policy] = {}
    problems: list[Problem] = []
    for name, items in written.items():
        try:
            found[str(name)] = policies.parse(items, where, f"variants.{name}", lambda held: build.fill(held, base_dir))
        except InputError as error:
            problems.extend(error.problems)
    return found, problems


def _cross_problems(model: Model, data: Any, where: str) -> list[Problem]:
    """What one section says of another that is not so."""
    problems: list[Problem] = []
    try:
        releases.rules(model.istiod.release)
    except InputError as error:
        problems += [replace(problem, where=where, field="istiod.release") for problem in error.problems]
    wrong = environment.problems(build.environment(model))
    config, prefix = model.istiod.mesh_config, "istiod.mesh_config."
    problems += [replace(problem, where=where) for problem in wrong]
    problems += [*check_mesh_config(config, where, prefix), *unknown_mesh_config(config, where, prefix)]
    names = list(model.variants) or [AS_IS]
    for index, figure in enumerate(model.published.figures if model.published else ()):
        if figure.variant not in names:
            field = f"published.figures[{index}].variant"
            message = f"there is no variant {figure.variant!r}"
            problems.append(Problem(message, where, field, nearest(figure.variant, names, "variants")))
    complete = _laid_over(model.model_dump(mode="json"), data)
    for index, assumption in enumerate(model.assumptions):
        field = f"assumptions[{index}].field"
        try:
            fields.scaled(fields.value_at(complete, assumption.field), Fraction(2))
        except fields.NoSuchField as error:
            problems.append(replace(_no_field(assumption.field, error, where), field=field))
        except ValueError as error:
            problems.append(Problem(f"{assumption.field} {error}", where, field, "name a field that holds an amount"))
    problems += slips(model, where)
    generated = model.mesh.generate
    if generated is not None and not model.mesh.manifests:
        apps = [app.name for app in generated.apps]
        routed = generated.gateways.virtual_services
        for name in routed if isinstance(routed, list) else ():
            if name not in apps:
                field = "mesh.generate.gateways.virtual_services"
                problems.append(Problem(f"there is no app {name!r}", where, field, nearest(name, apps, "apps")))
        for index, source in enumerate(model.churn):
            if source.source == "headless-statefulset" and not any(app.headless for app in generated.apps):
                remedy = "give one of mesh.generate.apps headless: true"
                problems.append(Problem("no service of this mesh is headless", where, f"churn[{index}]", remedy))
    return problems


def _strange(model: Model) -> Iterator[str]:
    if told := releases.unproven(model.istiod.release):
        yield f"istiod.release: {told}"
    for name in sorted(model.istiod.env.keys() - ENVIRONMENT.keys()):
        hint = f" ({near})" if (near := meant(name, ENVIRONMENT, 0.8)) else ""
        yield f"istiod.env.{name} is not modelled: it changes nothing in a simulation{hint}"


def _no_field(path: str, error: fields.NoSuchField, where: str) -> Problem:
    last = fields.parts_of(path)[-1] if fields.parts_of(path) else path
    return Problem(
        f"there is no field {path!r}", where, path, nearest(last, [*filter(None, error.known)], "names there")
    )


def check(path: str | Path) -> list[Problem]:
    """All that can be known to be wrong with a scenario file without running it.

    path: the file, or a bundled scenario's name.

    Returns problems with field, place and remedy; empty if it is fine.
    """
    return checked(path)[0]


def checked(path: str | Path) -> tuple[list[Problem], tuple[str, ...]]:
    """What `check` returns, and what is right but not modelled."""
    try:
        scenario = Scenario.load(path)
        model, base_dir, mesh, notes = scenario.model, scenario._base_dir, None, tuple(_strange(scenario.model))
        if model.mesh.manifests:
            mesh, _, told = build.described(model, base_dir, str(path))
            notes += told
        else:  # what is generated is not wrong, and takes time
            for dated in model.changes:
                build.load_change(dated, base_dir, Mesh())
        if model.istiod.calibration:
            cost.load(base_dir / model.istiod.calibration, model.istiod.release)
        if model.calls:
            calls = base_dir / model.calls
            read_calls(files.read_text(calls), str(calls), mesh)
    except InputError as error:
        return list(error.problems), ()
    return [], notes
