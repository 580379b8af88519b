"""The question asked, as plain data: mesh, dated changes, control plane, seed and variants of one scenario file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pushsim.errors import Problem
from pushsim.settings import Clients, Settings, Timed, Variant

__all__ = ["Clients", "Scenario", "Settings", "Timed", "Variant", "bundled", "check", "schema"]


class Scenario:
    """A loaded scenario file. `id` is a hash of all that affects the answer."""

    path: str
    id: str
    seed: int
    duration_ns: int
    warmup_ns: int
    variant_names: tuple[str, ...]

    @classmethod
    def load(cls, path: str | Path) -> Scenario:
        """The scenario of that path or, for a bare name, the bundled one."""
        raise NotImplementedError

    @classmethod
    def loads(cls, text: str, base_dir: str | Path = ".") -> Scenario:
        """The scenario in that text; its relative paths start at base_dir."""
        raise NotImplementedError

    def variant(self, name: str) -> Variant:
        """That variant's mesh, changes and settings."""
        raise NotImplementedError

    def dump(self) -> str:
        """The scenario as YAML that loads to the same id."""
        raise NotImplementedError


def schema() -> Mapping[str, Any]:
    """JSON Schema of the scenario file."""
    raise NotImplementedError


def bundled() -> list[tuple[str, str]]:
    """(name, question) of each scenario that comes with pushsim."""
    raise NotImplementedError


def check(path: str | Path) -> list[Problem]:
    """All that can be known to be wrong with that file without running it."""
    raise NotImplementedError
