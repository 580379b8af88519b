"""pydantic's errors as problems a user can mend: all of a file at once, with field and remedy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from pushsim.errors import Problem, listed, meant

#: What pydantic calls a type, as it is written in YAML.
_SHAPES = {
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), ("a mapping", "write 'key: value' lines")),
    **dict.fromkeys(("list_type", "tuple_type"), ("a list", "write '- …' lines below it, or [ … ]")),
    "string_type": ("text", "put it in quotes"),
}


class Remedied(ValueError):
    """What a validator of a field finds wrong, and what to do about it."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


def nearest(name: str, known: Iterable[str], what: str = "names") -> str:
    """A remedy for a name that is not among the known: the nearest one, or all of them."""
    names = sorted(known)
    return meant(name, names) or f"known {what}: {listed(names)}"


def problems_of(
    error: ValidationError, data: Any, where: str, prefix: str = "", model: type[BaseModel] | None = None
) -> list[Problem]:
    """One problem per mistake. data: what was validated; prefix: the field it stands in."""
    found: dict[tuple[str, str], Problem] = {}
    for entry in error.errors(include_url=False):
        path = _path(entry["loc"], data, entry["type"])
        field = path_text(path, prefix)
        problem = Problem(_message(entry), where, field, _remedy(entry, path, data, model))
        found.setdefault((field, problem.message), problem)
    return _without_union_noise(list(found.values()))


def path_text(path: Iterable[str | int], prefix: str = "") -> str:
    """`mesh.generate.apps[0].name`."""
    text = prefix
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _path(location: tuple[int | str, ...], data: Any, kind: str) -> list[str | int]:
    """The error's location without what pydantic adds for the members of unions."""
    path: list[str | int] = []
    for position, part in enumerate(location):
        last = position == len(location) - 1
        inside: Any = data
        known = part in inside if isinstance(inside, Mapping) else _is_index(part, inside)
        if known:
            data = inside[part]
        elif not (last and kind == "missing"):
            continue
        path.append(part)
    return path


def _is_index(part: int | str, data: Any) -> bool:
    return isinstance(data, list) and isinstance(part, int) and part < len(data)


def _message(entry: Mapping[str, Any]) -> str:
    match entry["type"]:
        case "extra_forbidden":
            return "is no known field"
        case "missing":
            return "is missing"
        case "union_tag_invalid":
            return f"there is no {entry['ctx'].get('discriminator', '').strip(chr(39))} {entry['ctx'].get('tag')!r}"
        case "union_tag_not_found":
            return f"does not say which {entry['ctx'].get('discriminator', '').strip(chr(39))}"
        case shape if shape in _SHAPES:
            return f"must be {_SHAPES[shape][0]}"
        case _:
            first, ours, message = str(entry["msg"]).partition("Value error, ")
            return message if ours else first[0].lower() + first[1:]


def _remedy(entry: Mapping[str, Any], path: list[str | int], data: Any, model: type[BaseModel] | None) -> str:
    context = entry.get("ctx") or {}
    match entry["type"]:
        case "extra_forbidden":
            names = _fields_at(model, path[:-1], data) if model else []
            return nearest(str(path[-1]), names, "fields") if names and path else "remove it"
        case "missing":
            return "add it"
        case "union_tag_invalid":
            known = [tag.strip().strip("'") for tag in str(context.get("expected_tags", "")).split(",")]
            return nearest(str(context.get("tag")), known)
        case "union_tag_not_found":
            return "add it"
        case shape if shape in _SHAPES:
            return _SHAPES[shape][1]
        case _:
            remedy = str(getattr(context.get("error"), "remedy", ""))
            given = entry.get("input")
            return remedy or ("" if isinstance(given, dict | list) else f"it is {given!r}")


def _fields_at(model: type[BaseModel], path: list[str | int], data: Any) -> list[str]:
    """The fields that may stand at that path: those of the model found by walking its annotations."""
    candidates: list[Any] = [model]
    for part in path:
        data = data[part] if data is not None else None
        following: list[Any] = []
        for candidate in candidates:
            if isinstance(candidate, type) and issubclass(candidate, BaseModel) and part in candidate.model_fields:
                following.extend(_leaves(candidate.model_fields[str(part)].annotation))
            elif not (isinstance(candidate, type) and issubclass(candidate, BaseModel)):
                following.extend(leaf for argument in get_args(candidate) for leaf in _leaves(argument))
            else:
                following.append(candidate)
        candidates = following
    models = [leaf for leaf in candidates if isinstance(leaf, type) and issubclass(leaf, BaseModel)]
    if isinstance(data, Mapping) and "source" in data:  # a churn source: only the chosen one's fields
        sources = [leaf for leaf in models if "source" in leaf.model_fields]
        chosen = [leaf for leaf in sources if data["source"] in get_args(leaf.model_fields["source"].annotation)]
        models = chosen or models
    return sorted({field for leaf in models for field in leaf.model_fields})


def _leaves(annotation: Any) -> list[Any]:
    """Annotation's alternatives: unions and Annotated opened, lists and dicts opened to their elements."""
    origin = get_origin(annotation)
    if origin is None:
        return [annotation]
    if origin in (list, dict, tuple):
        return [annotation, *(leaf for argument in get_args(annotation) for leaf in _leaves(argument))]
    return [leaf for argument in get_args(annotation) for leaf in _leaves(argument)]


def _without_union_noise(problems: list[Problem]) -> list[Problem]:
    """Where a value fits no member of a union, pydantic reports each member's complaint: those about parts win."""
    deeper = [problem.field for problem in problems]
    return [
        problem
        for problem in problems
        if not any(
            field != problem.field and field.startswith((f"{problem.field}.", f"{problem.field}[")) for field in deeper
        )
        or problem.message in ("is missing", "is no known field")
    ]
