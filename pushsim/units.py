"""Durations as Go writes them, quantities as Kubernetes does, rates: text to exact numbers and back.

Inside pushsim a duration is an int of nanoseconds, an amount of memory an int of bytes, cores a float, a rate a
Fraction of events per second. One rounding rule: what is finer than the unit is rounded half to even (`whole`).
"""

from __future__ import annotations

import re
from fractions import Fraction
from math import isfinite
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

SECOND_NS = 1_000_000_000
_UNIT_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": SECOND_NS,
    "m": 60 * SECOND_NS,
    "h": 3600 * SECOND_NS,
}
#: The longest duration there is: Go's are 64 bits.
_LONGEST_NS = 2**63 - 1
_SUFFIX = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "": Fraction(1),
    **{suffix: Fraction(1000**power) for power, suffix in enumerate("kMGTPE", 1)},
    **{suffix + "i": Fraction(1024**power) for power, suffix in enumerate("KMGTPE", 1)},
}
_PER_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_NUMBER = r"\d{1,30}(?:\.\d{0,30})?|\.\d{1,30}"
_DURATION = re.compile(rf"(?:(?:{_NUMBER})(?:ns|us|µs|μs|ms|s|m|h))+")
_DURATION_PART = re.compile(rf"({_NUMBER})(ns|us|µs|μs|ms|s|m|h)")
_QUANTITY = re.compile(rf"({_NUMBER})([eE][+-]?\d{{1,2}}|[numkMGTPE]|[KMGTPE]i)?")
_RATE = re.compile(rf"({_NUMBER})/(s|m|h|d)")


class UnitError(ValueError):
    """Text that is no duration, quantity or rate; `remedy` says how one is written."""

    def __init__(self, value: object, what: str, remedy: str) -> None:
        super().__init__(f"{value!r} is not {what}")
        self.remedy = remedy


def whole(number: Fraction | float) -> int:
    """The nearest integer, halves to the even one: the rounding rule of all times in pushsim."""
    return round(number)


def duration(value: object) -> int:
    """Nanoseconds of a Go duration (`1h30m`, `100ms`, `1.5s`, `0`); raises UnitError."""
    if value in ("0", 0) and not isinstance(value, bool):
        return 0
    if isinstance(value, str) and _DURATION.fullmatch(value):
        found = whole(sum((Fraction(n) * _UNIT_NS[u] for n, u in _DURATION_PART.findall(value)), Fraction()))
        if found > _LONGEST_NS:
            raise UnitError(value, "a duration", "Go's end at 292 years")
        return found
    raise UnitError(value, "a duration", _hint(value, "s") or "write it as Go does: 100ms, 10s, 1m30s, 1h")


def quantity(value: object) -> Fraction:
    """The exact number a Kubernetes quantity stands for (`500m`, `2Gi`, `1e3`, 4); raises UnitError."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf"):
        return Fraction(str(value))
    found = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if not found:
        raise UnitError(value, "a quantity", "write it as Kubernetes does: 500m, 2, 512Mi, 2Gi")
    number, suffix = Fraction(found[1]), found[2] or ""
    return number * (_SUFFIX[suffix] if suffix in _SUFFIX else Fraction(10) ** int(suffix[1:]))


def rate(value: object) -> Fraction:
    """Events per second of `10/s`, `40/h`, `0.5/m`, `3/d`; raises UnitError."""
    found = _RATE.fullmatch(value.replace(" ", "")) if isinstance(value, str) else None
    if not found:
        raise UnitError(value, "a rate", _hint(value, "/s") or "write it as 10/s, 5/m, 40/h or 3/d")
    return Fraction(found[1]) / _PER_S[found[2]]


def duration_text(nanoseconds: int) -> str:
    """The shortest Go duration of exactly that length: `1m30s`, `100ms`, `0s`."""
    text, left = "", nanoseconds
    for unit in ("h", "m"):
        count, left = divmod(left, _UNIT_NS[unit])
        text += f"{count}{unit}" if count else ""
    for unit in ("s", "ms", "us", "ns"):
        if left and (left % _UNIT_NS[unit] == 0 or (unit == "s" and left > _UNIT_NS["s"])):
            return text + f"{_decimal(Fraction(left, _UNIT_NS[unit]))}{unit}"
    return text or "0s"


def bytes_text(count: int) -> str:
    """The shortest binary quantity of exactly that many bytes: `512Mi`."""
    for suffix in ("Ei", "Pi", "Ti", "Gi", "Mi", "Ki"):
        if count and count % _SUFFIX[suffix] == 0:
            return f"{count // _SUFFIX[suffix]}{suffix}"
    return str(count)


def rate_text(per_second: Fraction) -> str:
    """The rate in the first unit that holds it as a short decimal: `10/s`, `40/h`."""
    whole_in = [u for u in _PER_S if (per_second * _PER_S[u]).denominator == 1]
    short_in = [u for u in _PER_S if _is_decimal(per_second * _PER_S[u])]
    unit = (whole_in or short_in or ["s"])[0]
    return f"{_decimal(per_second * _PER_S[unit])}/{unit}"


def _hint(value: object, unit: str) -> str:
    plain = (isinstance(value, int | float) and isfinite(value)) or (
        isinstance(value, str) and re.fullmatch(_NUMBER, value)
    )
    return f"add the unit: {value}{unit}" if plain and not isinstance(value, bool) else ""


def _is_decimal(number: Fraction) -> bool:
    rest = number.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def _decimal(number: Fraction) -> str:
    """Exact decimal text of a number with a finite one (else 30 digits, which is as many as are read)."""
    if number.denominator == 1:
        return str(number.numerator)
    digits = next((d for d in range(1, 31) if (number * 10**d).denominator == 1), 30)
    scaled = str(whole(number * 10**digits)).rjust(digits + 1, "0")
    return f"{scaled[:-digits]}.{scaled[-digits:]}"


def _text(pattern: str, example: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": [example]})


def _quantity_schema(example: str) -> WithJsonSchema:
    text = {"type": "string", "pattern": r"^[0-9.]+([eE][+-]?[0-9]+|[numkMGTPE]|[KMGTPE]i)?$", "examples": [example]}
    return WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, text]})


def _plain(value: Fraction | float) -> int | float:
    return int(value) if value == int(value) else float(value)


#: Field types of our own files. In Python: int of ns, int of bytes, float of cores, Fraction of events per second.
Duration = Annotated[
    int,
    BeforeValidator(duration),
    PlainSerializer(duration_text, return_type=str),
    _text(r"^([0-9.]+(ns|us|µs|ms|s|m|h))+$|^0$", "10s"),
]
Bytes = Annotated[
    int,
    BeforeValidator(lambda value: whole(quantity(value))),
    PlainSerializer(bytes_text, return_type=str),
    _quantity_schema("512Mi"),
]
Cores = Annotated[
    float,
    BeforeValidator(lambda value: float(quantity(value))),
    PlainSerializer(_plain, return_type=Any),
    _quantity_schema("500m"),
]
Rate = Annotated[
    Fraction,
    BeforeValidator(rate),
    PlainSerializer(rate_text, return_type=str),
    _text(r"^[0-9.]+ ?/ ?[smhd]$", "10/s"),
]
