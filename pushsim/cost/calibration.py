"""Calibrations: sets of coefficients, shipped with the package or measured by `pushsim calibrate`.

The file is described in `formats.md`; it may hold only some coefficients, the others keep the shipped value of the
nearest release.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from pushsim.cost.coefficients import BY_RELEASE, DEFAULTS, Coefficient
from pushsim.errors import InputError, Problem

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Calibration:
    """A full set of coefficients, and how much faster than the reference core one of the user's cores is.

    name:         of the file, or "shipped".
    istio:        the release it was measured on, "" for the table of estimates.
    cpu_speed:    istiod's CPU work takes 1/cpu_speed of what the coefficients say.
    coefficients: all of `coefficients.DEFAULTS`' names.
    machine, fit: as the file has them, for reports.
    """

    name: str = "shipped"
    istio: str = ""
    cpu_speed: float = 1.0
    coefficients: Mapping[str, Coefficient] = field(default_factory=lambda: DEFAULTS)
    machine: Mapping[str, Any] = field(default_factory=dict)
    fit: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> float:
        return self.coefficients[name].value

    def interval(self, name: str) -> tuple[float, float]:
        """Lowest and highest value of a coefficient."""
        return self.coefficients[name].interval

    def dump(self) -> dict[str, Any]:
        """As plain data in the form of a calibration file."""
        coefficients = {
            name: {"value": c.value, "unit": c.unit, "error": c.error, "source": c.source, "fitted": c.fitted}
            for name, c in self.coefficients.items()
        }
        return {
            "format": FORMAT,
            "istio": self.istio,
            "machine": dict(self.machine),
            "cpu_speed": self.cpu_speed,
            "coefficients": coefficients,
            "fit": dict(self.fit),
        }


def table(release: str) -> Calibration:
    """What is known of a release without any measurement of ours: the defaults, as good as their errors say."""
    return Calibration("table", release, coefficients={**DEFAULTS, **BY_RELEASE[_nearest(release, BY_RELEASE)]})


def shipped(release: str, cpu_speed: float = 1.0) -> Calibration:
    """The shipped calibration of the nearest release: the newest that is not newer, else the oldest.

    What it does not hold as fitted is an estimate: the table's, as it stands for that very release.
    """
    coefficients = dict(table(release).coefficients)
    files = _shipped_files()
    if not files:
        return Calibration(cpu_speed=cpu_speed, coefficients=coefficients)
    data = _shipped(files[_nearest(release, files)])
    for name, entry in data["coefficients"].items():
        coefficients[name] = replace(
            coefficients[name],
            value=float(entry["value"]),
            error=float(entry["error"]),
            source=str(entry["source"]),
        )
    return Calibration("shipped", str(data["istio"]), cpu_speed, coefficients, data["machine"], data["fit"])


@lru_cache(1)
def _shipped_files() -> Mapping[str, Path]:
    """The calibrations that are part of the package, by the release they were made on."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "calibrations").glob("*.yaml"))}


@lru_cache
def _shipped(path: Path) -> Mapping[str, Any]:
    data: Mapping[str, Any] = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return data


def _nearest(release: str, among: Iterable[str]) -> str:
    entries = sorted(among, key=_minor)
    older = [entry for entry in entries if _minor(entry) <= _minor(release)]
    return older[-1] if older else entries[0]


def load(path: Path, release: str) -> Calibration:
    """Read a calibration file; InputError names every problem in it."""
    from pushsim.manifests.document import parse_one

    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(Problem(f"cannot be read: {error.strerror}", str(path), remedy="check the path")) from None
    except UnicodeDecodeError:
        raise InputError(Problem("is not UTF-8 text", str(path), remedy="write one with `pushsim calibrate`")) from None
    data = parse_one(text, str(path))
    return parse(data, release, str(path))


def parse(data: Any, release: str, where: str = "calibration") -> Calibration:
    """A calibration from plain data; what it does not hold is the shipped value."""
    problems: list[Problem] = []
    if not isinstance(data, Mapping):
        raise InputError(Problem("is not a mapping", where, remedy="see `pushsim calibrate --help`"))
    known = {"format", "istio", "machine", "cpu_speed", "coefficients", "fit"}
    problems += [Problem("unknown field", where, str(key), "remove it") for key in data if key not in known]
    if data.get("format", FORMAT) != FORMAT:
        problems.append(Problem(f"is not {FORMAT}", where, "format", "write the file anew with `pushsim calibrate`"))
    speed = data.get("cpu_speed", 1.0)
    if not _positive(speed):
        problems.append(Problem(f"{speed!r} is not a positive number", where, "cpu_speed", "1.0 is the reference"))
    given = data.get("coefficients") or {}
    if not isinstance(given, Mapping):
        raise InputError([*problems, Problem("is not a mapping", where, "coefficients", "map names to values")])
    base = shipped(release)
    coefficients = dict(base.coefficients)
    for name, entry in given.items():
        problem = _coefficient_problem(name, entry)
        if problem:
            field_, message, remedy = problem
            problems.append(Problem(message, where, field_, remedy))
            continue
        if not entry.get("fitted", True):
            continue  # what was not fitted keeps the shipped value, also one that ships later
        coefficients[name] = replace(
            coefficients[name],
            value=float(entry["value"]),
            error=float(entry.get("error", coefficients[name].error)),
            source=str(entry.get("source", where)),
            fitted=True,
        )
    if problems:
        raise InputError(problems)
    machine, fit = data.get("machine") or {}, data.get("fit") or {}
    return Calibration(Path(where).name, str(data.get("istio", "")), float(speed), coefficients, machine, fit)


def _coefficient_problem(name: str, entry: Any) -> tuple[str, str, str] | None:
    """Field, message and remedy of what is wrong with one entry."""
    path = f"coefficients.{name}"
    if name not in DEFAULTS:
        return path, "unknown coefficient", "`pushsim calibrate --list` shows all names"
    if not isinstance(entry, Mapping) or "value" not in entry:
        return path, "has no value", "write {value: NUMBER, unit: UNIT}"
    for key, at_least in (("value", 0), ("error", 0)):
        number = entry.get(key, 0)
        if isinstance(number, bool) or not isinstance(number, int | float) or not at_least <= number < float("inf"):
            return f"{path}.{key}", f"{number!r} is not a number of 0 or more", "correct it"
    unit = entry.get("unit", DEFAULTS[name].unit)
    if unit != DEFAULTS[name].unit:
        return f"{path}.unit", f"{unit!r} is not {DEFAULTS[name].unit!r}", f"convert it to {DEFAULTS[name].unit}"
    return None


def _positive(number: Any) -> bool:
    return not isinstance(number, bool) and isinstance(number, int | float) and 0 < number < float("inf")


def _minor(release: str) -> tuple[int, int]:
    major, minor = release.split(".")[:2]
    return int(major), int(minor.split("-")[0])
