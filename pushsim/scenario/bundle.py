"""The scenarios that come with pushsim: in the installed package, or in `scenarios/` of a checkout."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

from pushsim.errors import InputError, Problem
from pushsim.problems import nearest


def folder() -> Path:
    """Where the bundled scenarios are."""
    package = Path(str(importlib.resources.files("pushsim")))
    installed = package / "scenarios"
    return installed if installed.is_dir() else package.parent / "scenarios"


def names() -> list[str]:
    """Their names, sorted."""
    return sorted(path.stem for path in folder().glob("*.yaml"))


def bundled_path(name: str) -> Path | None:
    """The file of that bundled scenario; None if `name` is a path. Raises InputError for an unknown bare name."""
    if "/" in name or "\\" in name or name.endswith((".yaml", ".yml", ".json")):
        return None
    if name in names():
        return folder() / f"{name}.yaml"
    message = f"there is no file and no bundled scenario {name!r}"
    raise InputError(Problem(message, remedy=nearest(name, names(), "scenarios")))
