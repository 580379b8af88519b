"""What a run comes to, whoever ran it: a summary, tables, and the folder both are kept in.

`simulate` and `replay` both fill a `Result`; `compare`, `report` and the gates read nothing else. The form is a
contract (formats.md, "Summary" and "Result folder"): `result.json` has the same bytes for the same scenario, seed and
version, on any machine; dates, hosts and how long it took are in `run.json`. Tables are Parquet files beside it, read
when they are asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pushsim import figures
from pushsim.errors import InputError, Problem, expected, not_there, reason, writing
from pushsim.figures import HEADLINES
from pushsim.tables import DETAIL, ROWS, SCHEMAS, Tabled, columns_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DETAIL", "FORMAT", "ROWS", "Result", "Results", "load", "load_all", "tidy"]

#: Format of result folders. 1 had rows.parquet alone; what a folder of an older format lacks is read as empty.
FORMAT = 2
READ_FORMATS = (1, 2)

_RESULT, _RUN = "result.json", "run.json"


@dataclass(frozen=True, repr=False)
class Result(Tabled):
    """One variant's answer.

    variant:  its name.
    summary:  SUMMARY of formats.md; plain JSON values, floats rounded by `tidy`.
    identity: scenario (id, seed, release, duration_s), mode, versions, calibration: what the answer hangs on.
    complete: False if the run was interrupted.
    tables:   pyarrow tables by name (`pushsim.tables`); those of a loaded result are read when they are asked for.
    run:      date, host, seconds, engine: what the answer does not hang on.
    """

    variant: str
    summary: Mapping[str, Any]
    identity: Mapping[str, Any] = field(default_factory=dict)
    complete: bool = True
    tables: Mapping[str, pa.Table] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, path: str) -> Any:
        """A figure by its dotted path ("converged_s.p99"). Raises InputError, a KeyError too, if there is none."""
        try:
            return figures.value_at(self.summary, path)
        except (KeyError, AttributeError):  # AttributeError: it is no text
            raise not_there(path, self.paths(), "figure", self.variant) from None

    def paths(self) -> list[str]:
        """All dotted paths to numbers, in the summary's order."""
        return [path for path, _ in figures.numbers(self.summary)]

    def figures(self) -> pd.DataFrame:
        """The summary's numbers, one a row: metric (dotted path), value, unit, low and high where a bound is known."""
        import pandas as pd

        rows = [(path, value, unit, *(bounds or (None, None))) for path, value, unit, bounds in _figures(self)]
        return pd.DataFrame(rows, columns=["metric", "value", "unit", "low", "high"]).astype(
            {"value": float, "low": float, "high": float}
        )

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """A table of `pushsim.tables`, or these columns of it; empty if the runner does not know it.

        Raises InputError, a KeyError too, for a name of a table or column that is none.
        """
        if name not in SCHEMAS:
            raise not_there(name, SCHEMAS, "table")
        wanted = None if columns is None else columns_of(name, self._columns(name), columns)
        if isinstance(self.tables, _Stored):
            return self.tables.read(name, wanted)
        found = self.tables.get(name, SCHEMAS[name].empty_table())
        return found if wanted is None else found.select(wanted)

    def _columns(self, name: str) -> list[str]:
        if isinstance(self.tables, _Stored):
            return self.tables.names(name)
        return list(self.tables[name].column_names if name in self.tables else SCHEMAS[name].names)

    def frame(self, name: str = "rows", columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The same as a pandas DataFrame."""
        found: pd.DataFrame = self.table(name, columns).to_pandas()
        return found

    def totals(self, *by: str) -> pd.DataFrame:
        """The rows summed up by these of their columns ("xds", "proxy", "push", …): responses and bytes sent.

        With `detail="proxy"` also the mean and greatest converged_s and received_s.
        """
        known = self._columns("rows")
        by = tuple(columns_of("rows", known, by))
        delays = [name for name in ("converged_s", "received_s") if name in known]
        rows = self.table("rows", list(dict.fromkeys([*by, "proxies", "size_bytes", *delays])))
        sent = pc.multiply(rows["proxies"], rows["size_bytes"])
        rows = rows.append_column("bytes_sent", sent).append_column("responses", rows["proxies"])
        spread = [(name, how) for name in delays for how in ("mean", "max")]
        wanted = [("responses", "sum"), ("bytes_sent", "sum"), *spread]
        found = rows.group_by(list(by)).aggregate(wanted)
        names = {"responses_sum": "responses", "bytes_sent_sum": "bytes_sent"}
        names |= {f"{name}_{how}": f"{name}.{how}" for name, how in spread}
        found = found.rename_columns([names.get(name, name) for name in found.column_names])
        totals: pd.DataFrame = found.to_pandas()
        return totals.sort_values(list(by), ignore_index=True) if by else totals

    def text(self) -> str:
        """The bytes of result.json, as text."""
        whole = {"format": FORMAT, "variant": self.variant, "complete": self.complete, **self.identity, **self.summary}
        return json.dumps(tidy(whole), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def save(self, folder: str | Path) -> Path:
        """Write the result folder, made if need be; returns it. EnvironmentProblem if it can't be written."""
        folder = Path(folder)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for name in SCHEMAS:
                if name in self.tables or name == "rows":
                    pq.write_table(self.table(name), folder / f"{name}.parquet")
            (folder / _RUN).write_text(json.dumps(tidy(dict(self.run)), indent=1) + "\n", encoding="utf-8")
            (folder / _RESULT).write_text(self.text(), encoding="utf-8")  # last: where it is, the folder is whole
        return folder

    def __repr__(self) -> str:
        """The main figures, one a line."""
        return repr(Results({self.variant: self}))

    def _repr_html_(self) -> str:
        return Results({self.variant: self})._repr_html_()


def _figures(result: Result) -> Iterator[tuple[str, float, str, Sequence[float]]]:
    return figures.figures(result.summary)


class Results(Mapping[str, Result], Tabled):
    """Results by variant, the baseline first, and their tables laid together with a first column `variant`.

    Columns and units of the tables: `pushsim.tables.COLUMNS`.
    """

    def __init__(self, results: Mapping[str, Result] | Iterable[Result], question: str = "") -> None:
        if not isinstance(results, Mapping):
            results = {result.variant: result for result in results}
        self._results: dict[str, Result] = dict(results)
        self.question = question

    def __getitem__(self, variant: str) -> Result:
        """One variant's result. Raises InputError, a KeyError too, if there is none of that name."""
        if variant not in list(self._results):  # a list: what is asked for may not be hashable
            raise not_there(variant, self._results, "variant")
        return self._results[variant]

    def __iter__(self) -> Iterator[str]:
        return iter(self._results)

    def __len__(self) -> int:
        return len(self._results)

    @property
    def complete(self) -> bool:
        """No run was interrupted."""
        return all(result.complete for result in self.values())

    def to_json(self) -> dict[str, dict[str, Any]]:
        """SUMMARYs by variant as `--json` prints them, each with whether it is `complete`."""
        return {name: {**result.summary, "complete": result.complete} for name, result in self.items()}

    @property
    def summary(self) -> pd.DataFrame:
        """Every figure: variant, metric (dotted path of SUMMARY), value, unit, low and high where a bound is known."""
        return self._together(lambda result: result.figures())

    def frame(self, name: str = "rows", columns: Sequence[str] | None = None) -> pd.DataFrame:
        """A table of all variants, or these columns of it, after a first column `variant`."""
        return self._together(lambda result: result.frame(name, columns))

    def headlines(self) -> pd.DataFrame:
        """The main figures as text: one a row, one variant a column."""
        import pandas as pd

        rows = {
            title: [figures.shown(figures.number_at(r.summary, path), figures.unit(path)) for r in self.values()]
            for title, path in HEADLINES
        }
        return pd.DataFrame.from_dict(rows, orient="index", columns=list(self))

    def caption(self) -> str:
        """Where the figures come from, in a line: source, release, seed, time simulated, scenario, version."""
        return caption(list(self.values()))

    def save(self, folder: str | Path) -> Path:
        """One result folder per variant."""
        for name, result in self.items():
            result.save(Path(folder) / name)
        return Path(folder)

    def __repr__(self) -> str:
        head = [self.question] if self.question else []
        return "\n".join([*head, self.caption(), self.headlines().to_string()])

    def _repr_html_(self) -> str:
        from html import escape

        head = f"<p><strong>{escape(self.question)}</strong></p>" if self.question else ""
        return f"{head}<p>{escape(self.caption())}</p>{self.headlines().to_html(escape=True)}"

    def _together(self, frame: Callable[[Result], pd.DataFrame]) -> pd.DataFrame:
        import pandas as pd

        parts = []
        for name, result in self.items():
            part = frame(result)
            part.insert(0, "variant", name)
            parts.append(part)
        if not parts:
            return pd.DataFrame({"variant": []})
        filled = [part for part in parts if len(part)] or parts[:1]  # an empty part has no types to bring
        return pd.concat(filled, ignore_index=True)


def caption(results: Sequence[Result]) -> str:
    """Where figures come from, in a line; what differs between the results is listed.

    >>> caption([Result("a", {"source": "simulated"}, {"scenario": {"release": "1.24", "seed": 1, "id": "ab"}})])
    'simulated, Istio 1.24, seed 1, scenario ab'
    """

    def each(read: Any) -> str:
        found = dict.fromkeys(str(value) for result in results if (value := read(result)) is not None)
        return ", ".join(found)

    parts = (
        (each(lambda r: r.summary.get("source")), "{}"),
        (each(lambda r: r.identity.get("scenario", {}).get("release")), "Istio {}"),
        (each(lambda r: r.identity.get("scenario", {}).get("seed")), "seed {}"),
        (each(lambda r: _plain(r.identity.get("scenario", {}).get("duration_s"))), "{} s"),
        (each(lambda r: r.identity.get("scenario", {}).get("id")), "scenario {}"),
        (each(lambda r: r.identity.get("calibration", {}).get("name")), "calibration {}"),
        (each(lambda r: r.identity.get("versions", {}).get("pushsim")), "pushsim {}"),
        ("" if all(result.complete for result in results) else "interrupted", "{}"),
    )
    return ", ".join(form.format(text) for text, form in parts if text)


def _plain(value: float | None) -> str | None:
    return None if value is None else f"{value:g}"


class _Stored(Mapping[str, pa.Table]):
    """The tables of a result folder: a file is opened when its table is asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.parquet"

    def names(self, name: str) -> list[str]:
        """The columns of a table."""
        path = self._path(name)
        return list(pq.read_schema(path).names) if path.exists() else list(SCHEMAS[name].names)

    def read(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """These columns of a table; empty if the folder has none of that name."""
        path = self._path(name)
        if not path.exists():
            empty = SCHEMAS[name].empty_table()
            return empty if columns is None else empty.select(list(columns))
        try:
            return pq.read_table(path, columns=None if columns is None else list(columns))
        except (OSError, pa.ArrowException) as error:
            raise InputError(Problem(f"cannot be read: {reason(error)}", str(path), remedy="run it anew")) from None

    def __getitem__(self, name: str) -> pa.Table:
        if name not in SCHEMAS or not self._path(name).exists():
            raise KeyError(name)
        return self.read(name)

    def __iter__(self) -> Iterator[str]:
        return (name for name in SCHEMAS if self._path(name).exists())

    def __len__(self) -> int:
        return sum(1 for _ in self)


_IDENTITY = ("scenario", "mode", "versions", "calibration", "calibration_file")


def load(folder: str | Path) -> Result:
    """Read a result folder; InputError if it is none, or of a format this version does not know."""
    folder = _folder(folder)
    try:
        whole = json.loads((folder / _RESULT).read_text(encoding="utf-8"))
        run = json.loads((folder / _RUN).read_text(encoding="utf-8")) if (folder / _RUN).exists() else {}
    except (OSError, ValueError) as error:
        raise InputError(
            Problem(
                f"is not a result folder: {reason(error)}",
                str(folder),
                remedy="make one with `pushsim simulate --out DIR`",
            )
        ) from None
    if not isinstance(whole, dict) or (found := whole.pop("format", None)) not in READ_FORMATS:
        told = f"is of format {found}" if isinstance(whole, dict) else "is no result"
        newer = isinstance(whole, dict) and isinstance(found, int) and found > FORMAT
        remedy = "a newer pushsim wrote it: update pushsim" if newer else "run it anew"
        known = ", ".join(map(str, READ_FORMATS))
        raise InputError(Problem(f"{told}; this version reads {known}", str(folder / _RESULT), "format", remedy))
    identity = {key: whole.pop(key) for key in _IDENTITY if key in whole}
    wrong = [key for key, value in identity.items() if key not in ("mode", "calibration_file") and not _mapping(value)]
    if wrong or not _mapping(run):
        field = wrong[0] if wrong else _RUN
        raise InputError(Problem("is no mapping", str(folder / _RESULT), field, "run it anew"))
    variant, complete = str(whole.pop("variant", folder.name)), whole.pop("complete", True)
    return Result(variant, whole, identity, complete, _Stored(folder), run)


def _mapping(value: object) -> bool:
    return isinstance(value, dict)


#: Which folders there are to give.
_WRITTEN = "give a folder that `pushsim simulate --out DIR` wrote"


def _folder(given: str | Path) -> Path:
    expected(given, (str, Path), "a result folder", "a path", _WRITTEN)
    return Path(given)


def load_all(*folders: str | Path) -> Results:
    """The results in these folders, each a result folder or a folder of them (`--out DIR`).

    InputError if there is none. Of two with the same variant, the later carries its folder's name: `after/unscoped`.
    """
    if not folders:
        raise InputError(Problem("no result folder given", remedy=_WRITTEN))
    found: dict[str, Result] = {}
    for folder in map(_folder, folders):
        if not (folder / _RESULT).is_file() and (inside := sorted(folder.glob(f"*/{_RESULT}"))):
            results = sorted((load(path.parent) for path in inside), key=_place)
        else:
            results = [load(folder)]
        for result in results:
            name = result.variant
            if name in found:
                name = f"{folder.name}/{name}" if f"{folder.name}/{name}" not in found else str(folder)
            found[name] = result
    questions = {str(result.run.get("question") or "") for result in found.values()}
    return Results(found, questions.pop() if len(questions) == 1 else "")


def _place(result: Result) -> int:
    """Where its scenario lists it: the baseline is first."""
    order = list(result.identity.get("scenario", {}).get("variants", ()))
    return order.index(result.variant) if result.variant in order else len(order)


def tidy(value: Any) -> Any:
    """The value as it is written: floats with 9 significant digits, and no negative zero."""
    if isinstance(value, float):
        return float(f"{value:.9g}") + 0.0
    if isinstance(value, Mapping):
        return {str(key): tidy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [tidy(item) for item in value]
    return value
