"""What a run comes to, whoever ran it: a summary, a table of rows, and the folder both are kept in.

`simulate` and `replay` both fill a `Result`; `compare`, `report` and the gates read nothing else. The form is a
contract (formats.md, "Summary" and "Result folder"): `result.json` has the same bytes for the same scenario, seed and
version, on any machine; dates, hosts and how long it took are in `run.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pushsim.errors import EnvironmentProblem, InputError, Problem

FORMAT = 1

#: Columns of rows.parquet, one row per (merged push, group of equal proxies, xDS type). Times are ns since counting
#: began. `push` is the newest of the pushes merged, `first_push` the oldest; `changes` counts those they contain.
ROWS = pa.schema(
    [
        ("push", pa.int64()),
        ("first_push", pa.int64()),
        ("replica", pa.int32()),
        ("changes", pa.int64()),
        ("group", pa.int32()),
        ("proxies", pa.int64()),
        ("xds", pa.string()),
        ("solicited", pa.bool_()),
        ("resources", pa.int64()),
        ("removed", pa.int64()),
        ("size_bytes", pa.int64()),
        ("queued_at_ns", pa.int64()),
        ("first_sent_ns", pa.int64()),
        ("last_sent_ns", pa.int64()),
    ]
)

#: Columns that `detail="proxy"` adds: one row per response. A delay is null where it does not apply.
DETAIL = pa.schema([*ROWS, ("proxy", pa.string()), ("converged_s", pa.float64()), ("received_s", pa.float64())])

_RESULT, _ROWS, _RUN = "result.json", "rows.parquet", "run.json"


@dataclass(frozen=True)
class Result:
    """One variant's answer.

    variant:  its name.
    summary:  SUMMARY of formats.md; plain JSON values, floats rounded by `tidy`.
    identity: scenario (id, seed, release, duration_s), mode, versions, calibration: what the answer hangs on.
    complete: False if the run was interrupted.
    rows:     a table with the columns `ROWS` or `DETAIL`.
    run:      date, host, seconds, engine: what the answer does not hang on.
    """

    variant: str
    summary: Mapping[str, Any]
    identity: Mapping[str, Any] = field(default_factory=dict)
    complete: bool = True
    rows: pa.Table = field(default_factory=lambda: ROWS.empty_table())
    run: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, path: str) -> Any:
        """A figure by its dotted path ("converged_s.p99"); KeyError if the summary has none."""
        found: Any = self.summary
        for part in path.split("."):
            if not isinstance(found, Mapping) or part not in found:
                raise KeyError(path)
            found = found[part]
        return found

    def paths(self) -> list[str]:
        """All dotted paths to numbers, in the summary's order."""
        return list(_numbers(self.summary))

    def frame(self) -> Any:
        """The rows as a pandas DataFrame."""
        return self.rows.to_pandas()

    def text(self) -> str:
        """The bytes of result.json, as text."""
        whole = {"format": FORMAT, "variant": self.variant, "complete": self.complete, **self.identity, **self.summary}
        return json.dumps(tidy(whole), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def save(self, folder: str | Path) -> Path:
        """Write the result folder, made if need be; returns it. EnvironmentProblem if it can't be written."""
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            pq.write_table(self.rows, folder / _ROWS)
            (folder / _RUN).write_text(json.dumps(tidy(dict(self.run)), indent=1) + "\n", encoding="utf-8")
            (folder / _RESULT).write_text(self.text(), encoding="utf-8")  # last: where it is, the folder is whole
        except OSError as error:
            raise EnvironmentProblem(f"{folder}: cannot be written: {error.strerror}") from None
        return folder


_IDENTITY = ("scenario", "mode", "versions", "calibration", "calibration_file")


def load(folder: str | Path) -> Result:
    """Read a result folder; InputError if it is none."""
    folder = Path(folder)
    try:
        whole = json.loads((folder / _RESULT).read_text(encoding="utf-8"))
        rows = pq.read_table(folder / _ROWS) if (folder / _ROWS).exists() else ROWS.empty_table()
        run = json.loads((folder / _RUN).read_text(encoding="utf-8")) if (folder / _RUN).exists() else {}
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(
            Problem(
                f"is not a result folder: {error}", str(folder), remedy="make one with `pushsim simulate --out DIR`"
            )
        ) from None
    if not isinstance(whole, dict) or whole.pop("format", None) != FORMAT:
        raise InputError(Problem(f"is not of format {FORMAT}", str(folder / _RESULT), "format", "run it anew"))
    identity = {key: whole.pop(key) for key in _IDENTITY if key in whole}
    return Result(whole.pop("variant", folder.name), whole, identity, whole.pop("complete", True), rows, run)


def tidy(value: Any) -> Any:
    """The value as it is written: floats with 9 significant digits, and no negative zero."""
    if isinstance(value, float):
        return float(f"{value:.9g}") + 0.0
    if isinstance(value, Mapping):
        return {str(key): tidy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [tidy(item) for item in value]
    return value


def _numbers(value: Mapping[str, Any], prefix: str = "") -> list[str]:
    paths: list[str] = []
    for key, item in value.items():
        if isinstance(item, Mapping):
            paths += _numbers(item, f"{prefix}{key}.")
        elif isinstance(item, int | float) and not isinstance(item, bool):
            paths.append(prefix + key)
    return paths
