"""A folder of recordings, all of it, against what we say: the matrix case x release behind `pushsim conform`."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pushsim.cases import Case, load_case
from pushsim.errors import InputError, Problem
from pushsim.mesh import Mode
from pushsim.recordings import ASPECTS, Difference, Score, Signature, conform
from pushsim.releases import MINORS
from pushsim.releases import rules as rules_of

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["ASPECTS", "Table", "run_folder"]


@dataclass
class Table:
    """Scores by (case, release, mode); `unproven` are the known minors without a recording here."""

    scores: dict[tuple[str, str, Mode], Score] = field(default_factory=dict)
    unproven: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether pushes, names, removed names and solicited answers are all equal, and 99 % of the bytes right."""
        equal, checked = self.totals("bytes")
        return all(score.exact for score in self.scores.values()) and equal >= 0.99 * checked

    def totals(self, aspect: str) -> tuple[int, int]:
        """(equal, checked) of an aspect over all cells."""
        scores = self.scores.values()
        return sum(s.equal[aspect] for s in scores), sum(s.checked[aspect] for s in scores)

    def lines(self) -> Iterator[str]:
        """The matrix, then the first difference of each differing cell."""
        columns = list(dict.fromkeys((release, mode) for _, release, mode in self.scores))
        width = max((len(case) for case, _, _ in self.scores), default=4)
        yield " " * width + "  " + " ".join(f"{release + mode[0].upper():>6}" for release, mode in columns)
        for case in dict.fromkeys(case for case, _, _ in self.scores):
            cells = [self.scores.get((case, *column)) for column in columns]
            yield f"{case:{width}}  " + " ".join(f"{_cell(score):>6}" for score in cells)
        yield "S SotW, D delta; = exact, else proxy-steps that differ, - not recorded"
        if self.unproven:
            yield f"unproven here (no recordings): {', '.join(self.unproven)}"
        for (case, release, mode), score in self.scores.items():
            if score.differences:
                first = score.differences[0]
                yield f"{case} {release} {mode}: {_told(first)}"

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return {
            "exact": self.exact,
            "unproven": list(self.unproven),
            "totals": {a: dict(zip(("equal", "checked"), self.totals(a), strict=True)) for a in ASPECTS},
            "cells": [
                {
                    "case": case,
                    "release": release,
                    "mode": mode,
                    "exact": score.exact,
                    "equal": dict(score.equal),
                    "checked": dict(score.checked),
                    "first_difference": _told(score.differences[0]) if score.differences else None,
                }
                for (case, release, mode), score in self.scores.items()
            ],
        }


def _cell(score: Score | None) -> str:
    if score is None:
        return "-"
    return "=" if score.exact else str(len(score.differences))


def _told(difference: Difference) -> str:
    def listed(signatures: Sequence[Signature]) -> str:
        return "; ".join(
            f"{'*' if solicited else ''}{xds} [{' '.join(names[:6])}{' …' if len(names) > 6 else ''}]"
            + (f" -[{' '.join(removed[:6])}]" if removed else "")
            for xds, solicited, names, removed in signatures
        )

    return (
        f"step {difference.step} ({difference.name}), {difference.proxy}: "
        f"expected {listed(difference.expected) or '-'}, got {listed(difference.got) or '-'}, because {difference.why}"
    )


def run_folder(
    folder: str | Path,
    *,
    releases: Sequence[str] = (),
    mode: Mode | None = None,
    pattern: str = "*",
    progress: Progress | None = None,
    sizes: bool = True,
) -> Table:
    """Run every case of a vectors folder that has recordings.

    Args:
        folder: holds `cases/NAME.yaml` and `NAME/RELEASE-MODE.json`.
        releases, mode, pattern: only these.
        progress: a rich Progress, or None.

    Raises:
        InputError: no such folder, no case or no recording fits, an unknown release.
    """
    root = Path(folder)
    cases = sorted(p for p in root.glob("cases/*.yaml") if fnmatch.fnmatch(p.stem, pattern))
    if not cases:
        raise InputError(Problem(f"no case fits {pattern!r}", str(root), remedy="give a folder with cases/NAME.yaml"))
    minors = {rules_of(name).minor for name in releases}
    found = [
        (case, path)
        for case in cases
        for path in sorted((root / case.stem).glob("*.json"), key=_column)
        if (not minors or path.stem.rpartition("-")[0] in minors) and (mode is None or path.stem.endswith(f"-{mode}"))
    ]
    if not found:
        raise InputError(Problem("no recording fits", str(root), remedy="recordings are NAME/RELEASE-MODE.json"))
    table = Table()
    if progress is None:
        _run(found, table, sizes, lambda: None)
    else:
        with progress:
            task = progress.add_task("conform", total=len(found))
            _run(found, table, sizes, lambda: progress.advance(task))
    proven = {release for _, release, _ in table.scores}
    table.unproven = tuple(m for m in MINORS if m not in proven and (not minors or m in minors))
    return table


def _run(found: Sequence[tuple[Path, Path]], table: Table, sizes: bool, done: Callable[[], object]) -> None:
    loaded: dict[Path, Case] = {}
    for case_path, path in found:
        if case_path not in loaded:
            loaded = {case_path: load_case(case_path)}
        release, _, mode = path.stem.rpartition("-")
        if mode not in ("sotw", "delta"):
            raise InputError(
                Problem("is no recording's name", str(path), remedy="call it RELEASE-sotw or RELEASE-delta")
            )
        run = _read(path)
        rules = rules_of(run.get("istio", release))
        used: Mode = "delta" if mode == "delta" else "sotw"
        table.scores[case_path.stem, release, used] = conform(loaded[case_path], run, rules, used, sizes=sizes)
        done()


def _read(path: Path) -> dict[str, Any]:
    try:
        run: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(Problem(f"cannot be read: {error}", str(path), remedy="record it again")) from None
    return run


def _column(path: Path) -> tuple[tuple[int, ...], str]:
    release, _, mode = path.stem.rpartition("-")
    return tuple(int(part) for part in release.split(".") if part.isdigit()), mode
