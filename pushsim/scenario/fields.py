"""One field of a scenario by its path: read, set, scaled. For sweeps and for assumptions halved and doubled."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from pushsim.units import UnitError, bytes_text, duration, duration_text, quantity, rate, rate_text, whole

Data = dict[str, Any]


class NoSuchField(Exception):
    """The path leads nowhere; `known` are the names where it ended."""

    def __init__(self, path: str, known: list[str]) -> None:
        super().__init__(path)
        self.known = known


def parts_of(path: str) -> list[str]:
    """`mesh.generate.apps[0].pods` and `mesh.generate.apps.predictor.pods` alike."""
    return [part for part in re.split(r"[.\[\]]", path) if part]


def value_at(data: Any, path: str) -> Any:
    """The value there; list items go by index, `name` or `source`. Raises NoSuchField."""
    for part in parts_of(path):
        data = _step(data, part, path)
    return data


def with_value(data: Data, path: str, value: Any, complete: Data) -> Data:
    """A copy of the scenario's data with that field set. complete: the same scenario with all defaults filled in.

    Raises NoSuchField if not even `complete` has it.
    """
    value_at(complete, path)
    result = copy.deepcopy(data)
    target: Any = result
    *way, last = parts_of(path)
    beside: Any = complete
    for part in way:
        key = _key(beside, part)
        beside = beside[key]
        if isinstance(target, dict) and target.get(key) is None:
            target[key] = copy.deepcopy(beside) if isinstance(beside, list) else {}
        target = target[key]
    target[_key(beside, last)] = value
    return result


def scaled(value: Any, factor: Fraction) -> Any:
    """The value times factor, written as it was: numbers, [low, high], durations, rates, quantities; counts stay >= 1.

    Raises ValueError for what is no amount.
    """
    if isinstance(value, bool):
        raise ValueError("is no amount")
    if isinstance(value, int):
        return max(1, whole(value * factor)) if value else 0
    if isinstance(value, float):
        return float(Fraction(str(value)) * factor)
    if isinstance(value, list) and value:
        return [scaled(item, factor) for item in value]
    if isinstance(value, str) and not re.fullmatch(r"\d+\.\d+", value):  # "1.24" is a release
        forms: list[tuple[Callable[[object], Any], Callable[[Any], str]]] = [
            (duration, lambda ns: duration_text(whole(ns * factor))),
            (rate, lambda per_s: rate_text(per_s * factor)),
            (quantity, lambda number: _quantity_text(number * factor)),
        ]
        for read, write in forms:
            try:
                return write(read(value))
            except UnitError:
                continue
    raise ValueError("is no amount")


def _quantity_text(number: Fraction) -> str:
    return bytes_text(int(number)) if number.denominator == 1 else f"{whole(number * 1000)}m"


def _step(data: Any, part: str, path: str) -> Any:
    key = _key(data, part)
    try:
        return data[key]
    except (KeyError, IndexError, TypeError):
        known = list(data) if isinstance(data, Mapping) else _names(data)
        raise NoSuchField(path, [str(name) for name in known]) from None


def _key(data: Any, part: str) -> Any:
    """The key or index that this part of a path means here."""
    if not isinstance(data, list):
        return part
    if part.isdecimal():
        return int(part)
    names = _names(data)
    return names.index(part) if part in names else part


def _names(data: Any) -> list[str]:
    items = data if isinstance(data, list) else []
    return [str(item.get("name") or item.get("source") or "") for item in items if isinstance(item, Mapping)]
