"""A folder of recordings, all of it, against what we say: the matrix case x release behind `pushsim conform`."""

from __future__ import annotations

import fnmatch
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pushsim.cases import load_case
from pushsim.errors import InputError, Problem
from pushsim.given import as_path, texts
from pushsim.memo import Memo
from pushsim.mesh import Mode
from pushsim.recordings import ASPECTS, Difference, Score, Signature, conform
from pushsim.releases import MINORS
from pushsim.releases import rules as rules_of
from pushsim.workers import side_by_side

__all__ = ["ASPECTS", "Table", "run_folder"]

#: A recording: case, release (as its file is named) and mode.
Cell = tuple[str, str, Mode]


@dataclass
class Table:
    """Scores by recording.

    unproven: the known minors without a recording here.
    planned:  recordings there are; more than scores after an interrupt.
    """

    scores: dict[Cell, Score] = field(default_factory=dict)
    unproven: tuple[str, ...] = ()
    planned: int = 0

    @property
    def complete(self) -> bool:
        """Whether every recording was compared."""
        return len(self.scores) == self.planned

    @property
    def exact(self) -> bool:
        """Whether pushes, names, removed names and solicited answers are equal, and bytes right, in each recording."""
        return all(score.exact and score.priced for score in self.scores.values())

    def totals(self, aspect: str, release: str = "", mode: Mode | None = None) -> tuple[int, int]:
        """(equal, checked) of an aspect over all recordings, or those of a release and mode."""
        scores = [s for (_, r, m), s in self.scores.items() if release in ("", r) and mode in (None, m)]
        return sum(s.equal[aspect] for s in scores), sum(s.checked[aspect] for s in scores)

    @property
    def columns(self) -> list[tuple[str, Mode]]:
        """(release, mode) of the recordings, by release."""
        found = dict.fromkeys((release, mode) for _, release, mode in self.scores)
        return sorted(found, key=lambda column: (_numbers(column[0]), column[1]))

    def lines(self) -> Iterator[str]:
        """The matrix, the scores of each release and mode, then the first difference of each recording that differs."""
        yield from self._matrix()
        yield ""
        yield from self._scores()
        yield "unproven (no recordings here): " + (", ".join(self.unproven) or "none")
        for (case, release, mode), score in self.scores.items():
            first = score.differences[:1] + ([] if score.priced else score.sizes[:1])
            for difference in first:
                yield ""
                yield f"{case} {release} {mode}: {_where(difference)}"
                yield from (f"    {line}" for line in _told(difference))

    def _matrix(self) -> Iterator[str]:
        width = max((len(case) for case, _, _ in self.scores), default=4)
        yield " " * width + "  " + " ".join(f"{release + mode[0].upper():>5}" for release, mode in self.columns)
        for case in dict.fromkeys(case for case, _, _ in self.scores):
            cells = [self.scores.get((case, *column)) for column in self.columns]
            yield f"{case:{width}}  " + " ".join(f"{_cell(score):>5}" for score in cells)
        yield (
            "S SotW, D delta; = equal, a number: (step, proxy) pairs that differ, a percentage: bytes right in only so "
            "many responses, - not recorded"
        )

    def _scores(self) -> Iterator[str]:
        yield "equal".ljust(12) + "".join(f"{aspect:>12}" for aspect in ASPECTS)
        for release, mode in self.columns:
            shares = (_share(*self.totals(aspect, release, mode)) for aspect in ASPECTS)
            yield f"{release} {mode}".ljust(12) + "".join(f"{share:>12}" for share in shares)
        yield "all".ljust(12) + "".join(f"{_share(*self.totals(aspect)):>12}" for aspect in ASPECTS)
        yield "of".ljust(12) + "".join(f"{self.totals(aspect)[1]:>12}" for aspect in ASPECTS)

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return {
            "exact": self.exact,
            "complete": self.complete,
            "unproven": list(self.unproven),
            "totals": {a: dict(zip(("equal", "checked"), self.totals(a), strict=True)) for a in ASPECTS},
            "cells": [
                {
                    "case": case,
                    "release": release,
                    "mode": mode,
                    "exact": score.exact,
                    "bytes_right": score.priced,
                    "equal": dict(score.equal),
                    "checked": dict(score.checked),
                    "first_difference": _plain(score.differences),
                    "first_size": _plain(score.sizes),
                }
                for (case, release, mode), score in self.scores.items()
            ],
        }


def _cell(score: Score | None) -> str:
    if score is None:
        return "-"
    if not score.exact:
        return str(len(score.differences))
    return "=" if score.priced else _share(score.equal["bytes"], score.checked["bytes"], digits=0)


def _share(equal: int, checked: int, digits: int = 2) -> str:
    """A percentage that is 100 only if all are equal."""
    if equal == checked:
        return "100 %" if checked else "-"
    unit = 10**digits
    return f"{100 * unit * equal // checked / unit:.{digits}f} %"


def _where(difference: Difference) -> str:
    step = "on connecting" if difference.step < 0 else f"step {difference.step} ({difference.name})"
    return f"{step}, {difference.proxy}: {difference.aspect}"


def _told(difference: Difference) -> Iterator[str]:
    expected, got = (_listed(signatures) for signatures in (difference.expected, difference.got))
    if difference.sizes:
        yield f"expected {difference.sizes[0]} B, got {difference.sizes[1]} B: {expected}"
    else:
        yield f"expected {expected}"
        yield f"got      {got}"
    yield f"because  {difference.why}"


def _listed(signatures: Sequence[Signature]) -> str:
    """Responses in short: solicited ones with a star, removed names with a minus."""
    return (
        "; ".join(
            f"{'*' if solicited else ''}{xds} [{' '.join(names[:6])}{' …' if len(names) > 6 else ''}]"
            + (f" -[{' '.join(removed[:6])}{' …' if len(removed) > 6 else ''}]" if removed else "")
            for xds, solicited, names, removed in signatures
        )
        or "nothing"
    )


def _plain(differences: Sequence[Difference]) -> str | None:
    """The first of them in one line."""
    return f"{_where(differences[0])}: {', '.join(_told(differences[0]))}" if differences else None


def run_folder(
    folder: str | Path,
    *,
    releases: Sequence[str] = (),
    mode: Mode | None = None,
    case: str = "*",
    sizes: bool = True,
    jobs: int = 1,
    progress: Callable[[float], None] | None = None,
) -> Table:
    """Run every case of a vectors folder that has recordings.

    Args:
        folder: holds `cases/NAME.yaml` and `NAME/RELEASE-MODE.json`.
        releases, mode, case: only these.
        sizes: compare bytes, too.
        jobs: processes at once.
        progress: told the share (0…1) that is done.

    An interrupt leaves the table with what was compared by then. Raises InputError: no such folder, no case or no
    recording fits, an unknown release.
    """
    root = Path(as_path(folder, "folder"))
    releases = texts(releases, "releases")
    found = _recordings(root, {rules_of(name).minor for name in releases}, mode, case)
    shares = dict.fromkeys(_groups(found), 0.0)

    def tell(name: str, share: float) -> None:
        shares[name] = share
        if progress is not None:
            progress(sum(shares.values()) / len(shares))

    groups = {name: (root, cells, sizes) for name, cells in _groups(found).items()}
    scores: dict[Cell, Score] = {}
    if jobs > 1 and len(groups) > 1:
        for part in side_by_side(_run, groups, jobs, tell).values():
            scores |= part
    else:
        with suppress(KeyboardInterrupt):
            for name, group in groups.items():
                _fill(scores, *group, functools.partial(tell, name))
    proven = {release for _, release, _ in found}
    asked = {rules_of(name).minor for name in releases} or set(MINORS)
    return Table(
        {cell: scores[cell] for cell in found if cell in scores},
        tuple(minor for minor in MINORS if minor in asked - proven),
        len(found),
    )


def _recordings(root: Path, minors: set[str], mode: Mode | None, pattern: str) -> list[Cell]:
    if not root.is_dir():
        raise InputError(Problem("no such folder", str(root), remedy="give a folder with cases/NAME.yaml"))
    cases = sorted(p.stem for p in root.glob("cases/*.yaml") if fnmatch.fnmatch(p.stem, pattern))
    if not cases:
        raise InputError(Problem(f"no case fits {pattern!r}", str(root), remedy="give a folder with cases/NAME.yaml"))
    found = [_cell_of(path) for case in cases for path in (root / case).glob("*.json")]
    found = [cell for cell in found if (not minors or cell[1] in minors) and mode in (None, cell[2])]
    if not found:
        raise InputError(Problem("no recording fits", str(root), remedy="recordings are NAME/RELEASE-MODE.json"))
    return sorted(found, key=lambda cell: (cell[0], _numbers(cell[1]), cell[2]))


def _cell_of(path: Path) -> Cell:
    release, _, mode = path.stem.rpartition("-")
    if release and mode == "sotw":
        return path.parent.name, release, "sotw"
    if release and mode == "delta":
        return path.parent.name, release, "delta"
    raise InputError(Problem("is no recording's name", str(path), remedy="call it RELEASE-sotw or RELEASE-delta"))


def _groups(found: Sequence[Cell]) -> Mapping[str, list[Cell]]:
    """Recordings that are best compared by one process, as they have resources in common: a release's."""
    several = len({release for _, release, _ in found}) > 1
    groups: dict[str, list[Cell]] = {}
    for case, release, mode in found:
        groups.setdefault(release if several else f"{release} {mode}", []).append((case, release, mode))
    return groups


def _run(root: Path, cells: Sequence[Cell], sizes: bool, progress: Callable[[float], None]) -> dict[Cell, Score]:
    """In a process of its own: the scores of some recordings, after an interrupt of those that are done."""
    scores: dict[Cell, Score] = {}
    with suppress(KeyboardInterrupt):
        _fill(scores, root, cells, sizes, progress)
    return scores


def _fill(
    scores: dict[Cell, Score], root: Path, cells: Sequence[Cell], sizes: bool, progress: Callable[[float], None]
) -> None:
    """Compare some recordings."""
    built, load = Memo(), functools.cache(load_case)
    for number, (name, release, mode) in enumerate(cells, 1):
        run = _read(root / name / f"{release}-{mode}.json")
        rules = rules_of(str(run.get("istio") or release))
        case = load(root / "cases" / f"{name}.yaml")
        scores[name, release, mode] = conform(case, run, rules, mode, sizes=sizes, built=built)
        progress(number / len(cells))


def _read(path: Path) -> dict[str, Any]:
    try:
        run: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(Problem(f"cannot be read: {error}", str(path), remedy="record it again")) from None
    return run


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split(".") if part.isdigit())
