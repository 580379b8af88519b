"""What public functions are given, in each of the forms it may come in; anything else is told before it is used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pushsim.errors import InputError, Problem, expected
from pushsim.result import Result, Results
from pushsim.scenario import Scenario

#: A path or several.
Paths = str | Path | Sequence[str | Path]
#: A loaded scenario, a file, or the name of a bundled one.
Asked = Scenario | str | Path


def loaded(scenario: Asked) -> Scenario:
    """The scenario, read if need be. Raises InputError."""
    return scenario if isinstance(scenario, Scenario) else Scenario.load(scenario)


def as_path(given: str | Path, name: str) -> str:
    """The path. Raises InputError."""
    expected(given, (str, Path), name, "a path")
    return str(_named(given, name))


def as_paths(given: Paths, name: str = "paths") -> list[str]:
    """The paths, whether one or several were given. Raises InputError."""
    return [str(_named(path, name)) for path in _several(given, (str, Path), name, "a path or a list of paths")]


def _named(path: str | Path, name: str) -> str | Path:
    if not str(path):
        raise InputError(Problem(f"{name} must not be empty", remedy='give a path; "." is this folder'))
    return path


def texts(given: str | Iterable[str], name: str) -> list[str]:
    """The texts, whether one or several were given. Raises InputError."""
    return [str(text) for text in _several(given, (str,), name, "a text or a list of texts")]


def _several(given: Any, kinds: tuple[type, ...], name: str, wanted: str) -> list[Any]:
    if isinstance(given, kinds):
        return [given]
    expected(given, Iterable, name, wanted)
    found = list(given)
    for item in found:
        expected(item, kinds, name, wanted)
    return found


_REMEDY = "give what pushsim.simulate, replay or load return"


def as_results(given: Results | Result | Mapping[str, Result]) -> Results:
    """Results, also of one Result or of some by name. Raises InputError."""
    if isinstance(given, Result):
        return Results({given.variant: given})
    if isinstance(given, Results):
        return given
    expected(given, Mapping, "results", "Results", _REMEDY)
    for part in given.values():
        expected(part, Result, "each of the results", "a Result", _REMEDY)
    return Results(given)
