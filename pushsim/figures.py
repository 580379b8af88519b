"""The figures of a SUMMARY as people read them: units from names, the ones that are shown first, one way of writing.

A figure's unit is what its name ends in (formats.md): `_s` seconds, `_bytes`, `_cores`, `_per_s` a rate; else a count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

#: What a table of results shows first: title, dotted path into a SUMMARY.
HEADLINES: tuple[tuple[str, str], ...] = (
    ("changes", "changes"),
    ("merged pushes", "merged_pushes"),
    ("proxy pushes", "proxy_pushes"),
    ("fan-out, mean proxies per push", "fan_out_mean"),
    ("bytes sent", "bytes_sent"),
    ("bytes sent per second", "bytes_sent_per_s"),
    ("converged P99", "converged_s.p99"),
    ("converged P99 as Prometheus draws it", "converged_prometheus_s.p99"),
    ("received P99", "received_s.p99"),
    ("istiod CPU, mean cores", "istiod_cpu_cores.mean"),
    ("istiod memory, max", "istiod_memory_bytes.max"),
    ("sidecar memory, mean", "sidecar_memory_bytes.mean"),
    ("gateway memory, mean", "gateway_memory_bytes.mean"),
)

#: Sections of a SUMMARY that are not figures of their own: intervals of others, and raw buckets.
_NO_FIGURES = ("bounds", "histograms")


def unit(path: str) -> str:
    """`s`, `B`, `B/s`, `cores`, or "" for a count.

    >>> [unit(path) for path in ("converged_s.p99", "bytes_sent_per_s", "istiod_cpu_cores.mean", "connect.bytes_sent")]
    ['s', 'B/s', 'cores', 'B']
    """
    for part in reversed(path.split(".")):
        rate = part.endswith("_per_s")
        if "bytes" in part:
            return "B/s" if rate else "B"
        if rate:
            return "/s"
        if part.endswith("_s") or part == "seconds":
            return "s"
        if part.endswith("_cores"):
            return "cores"
    return ""


def shown(value: float | None, of_unit: str) -> str:
    """A value as people read it.

    >>> [shown(v, u) for v, u in ((None, "s"), (6362, ""), (948.6e6, "B"), (0.5731, "s"), (1.526, "cores"))]
    ['-', '6,362', '948.6 MB', '0.573 s', '1.53']
    """
    if value is None:
        return "-"
    if of_unit.startswith("B"):
        return amount(value) + of_unit[1:]
    if of_unit in ("s", "/s"):
        return f"{value:.3g} {of_unit}".replace(" /", "/")
    return f"{value:,.0f}" if of_unit == "" and float(value).is_integer() else f"{value:.3g}"


def amount(size: float) -> str:
    """Bytes as people read them: `12.3 kB`."""
    for name in ("B", "kB", "MB", "GB"):
        if abs(size) < 1000 or name == "GB":
            return f"{size:.0f} {name}" if name == "B" else f"{size:.1f} {name}"
        size /= 1000
    raise AssertionError


def value_at(summary: Mapping[str, Any], path: str) -> Any:
    """What stands at a dotted path of a SUMMARY; KeyError if nothing does."""
    found: Any = summary
    for part in path.split("."):
        if not isinstance(found, Mapping) or part not in found:
            raise KeyError(path)
        found = found[part]
    return found


def number_at(summary: Mapping[str, Any], path: str) -> float | None:
    """The number at a dotted path, None where the run cannot know it."""
    try:
        found = value_at(summary, path)
    except KeyError:
        return None
    return found if isinstance(found, int | float) and not isinstance(found, bool) else None


def numbers(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """All numbers of a SUMMARY with their dotted paths, in its order."""
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from numbers(item, f"{prefix}{key}.")
        elif isinstance(item, int | float) and not isinstance(item, bool):
            yield prefix + key, item


def figures(summary: Mapping[str, Any]) -> Iterator[tuple[str, float, str, Sequence[float]]]:
    """(path, value, unit, [low, high] or [] where no interval is known) of each figure of a SUMMARY."""
    bounds = summary.get("bounds") or {}
    for path, value in numbers({key: item for key, item in summary.items() if key not in _NO_FIGURES}):
        yield path, value, unit(path), bounds.get(path, ())
