"""The tables of a Result: their columns, types, and what each means, with its unit.

    rows      what was sent, one row per (merged push, group of equal proxies, xDS type); `--detail proxy`: per response
    timeline  one row per second of simulated time
    churn     one row per source of change
    services  one row per changed object: the dearest services
    proxies   one row per group of equal proxies
    fan_out   one row per pair of namespaces: whose changes push whose proxies
    delays    one row per delay and share of its samples: the whole distribution, in thousandths

What several changes caused together is split evenly among them. A cell is null where it does not apply.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from pushsim.errors import expected, not_there

if TYPE_CHECKING:
    import pandas as pd

_INT, _SMALL, _FLOAT, _TEXT, _BOOL = pa.int64(), pa.int32(), pa.float64(), pa.string(), pa.bool_()

_Columns = tuple[tuple[str, pa.DataType, str], ...]

_ROWS: _Columns = (
    ("push", _INT, "newest of the pushes merged"),
    ("first_push", _INT, "oldest of the pushes merged"),
    ("replica", _SMALL, "istiod"),
    ("changes", _INT, "changes that the merged pushes contain"),
    ("group", _SMALL, "group of equal proxies: the row of `proxies`"),
    ("proxies", _INT, "proxies that were sent this"),
    ("xds", _TEXT, "CDS, EDS, LDS or RDS"),
    ("solicited", _BOOL, "an answer to the proxy's own request"),
    ("resources", _INT, "resources in one response"),
    ("removed", _INT, "names removed by one response (delta)"),
    ("size_bytes", _INT, "bytes of one response"),
    ("queued_at_ns", _INT, "start of the oldest push merged, ns since counting began"),
    ("first_sent_ns", _INT, "first Send, ns since counting began"),
    ("last_sent_ns", _INT, "last Send, ns since counting began"),
)

_DETAIL: _Columns = (
    *_ROWS,
    ("proxy", _TEXT, "POD.NAMESPACE"),
    ("converged_s", _FLOAT, "s, from the push's start until its last response was sent; on that response only"),
    ("received_s", _FLOAT, "s, longest wait of a change that this response is the first to show"),
)

_TIMELINE: _Columns = (
    ("second_s", _FLOAT, "start of the second, s since counting began"),
    ("changes", _INT, "changes written"),
    ("merged_pushes", _INT, "pushes begun, after debouncing"),
    ("held_to_max", _INT, "of these, cut short by PILOT_DEBOUNCE_MAX"),
    ("responses", _FLOAT, "responses sent; those of one row are spread evenly between its first and last Send"),
    ("bytes_sent", _FLOAT, "bytes sent, spread likewise"),
    ("istiod_cpu_cores", _FLOAT, "cores at work, mean over the second, per replica"),
    ("changes_on_their_way", _INT, "changes written before the second's end that some proxy has yet to be sent"),
    ("queue_length", _FLOAT, "proxies that wait in the push queue, mean over the second, per replica"),
    ("slots_in_use", _FLOAT, "slots of PILOT_PUSH_THROTTLE in use, mean over the second, per replica"),
)

_COST: _Columns = (
    ("proxy_pushes", _FLOAT, "pushes of proxies that this caused"),
    ("bytes_sent", _FLOAT, "bytes that this caused"),
    ("istiod_cpu_s", _FLOAT, "s of a core that this caused"),
)

_CHURN: _Columns = (("source", _TEXT, "churn source, or `changes`"), ("changes", _INT, "changes written"), *_COST)

_SERVICES: _Columns = (
    ("kind", _TEXT, "kind of the changed object; slices and pods count as their Service"),
    ("namespace", _TEXT, "its namespace"),
    ("name", _TEXT, "its name"),
    ("changes", _INT, "changes that touch it"),
    *_COST,
)

_PROXIES: _Columns = (
    ("group", _SMALL, "group of equal proxies"),
    ("type", _TEXT, "sidecar or router"),
    ("namespace", _TEXT, "namespace of its first proxy"),
    ("proxy", _TEXT, "its first proxy, POD.NAMESPACE"),
    ("proxies", _INT, "proxies in the group, with all that come and go"),
    ("proxy_pushes", _INT, "pushes of all of them"),
    ("responses", _INT, "responses to all of them, solicited ones included"),
    ("bytes_sent", _INT, "bytes sent to all of them"),
    ("memory_bytes", _INT, "memory of one proxy with the configuration it had last; mean of the group"),
)

_FAN_OUT: _Columns = (
    ("from_namespace", _TEXT, "namespace of the changed object; empty for what has none"),
    ("to_namespace", _TEXT, "namespace of the proxies"),
    ("proxy_pushes", _FLOAT, "pushes of proxies"),
    ("bytes_sent", _FLOAT, "bytes sent"),
)

_DELAYS: _Columns = (
    ("delay", _TEXT, "converged, received, completed, queued or debounced"),
    ("share", _FLOAT, "share of the samples (0 to 1) that took no longer"),
    ("value_s", _FLOAT, "s: the smallest sample that so many do not exceed"),
)


def _schema(columns: _Columns) -> pa.Schema:
    return pa.schema([(name, kind) for name, kind, _ in columns])


#: Columns of `rows`; of `rows` with `detail="proxy"`, one row per response.
ROWS, DETAIL = _schema(_ROWS), _schema(_DETAIL)

#: Schema of each table.
SCHEMAS: Mapping[str, pa.Schema] = {
    "rows": ROWS,
    "timeline": _schema(_TIMELINE),
    "churn": _schema(_CHURN),
    "services": _schema(_SERVICES),
    "proxies": _schema(_PROXIES),
    "fan_out": _schema(_FAN_OUT),
    "delays": _schema(_DELAYS),
}

#: What each column of each table means, with its unit.
COLUMNS: Mapping[str, Mapping[str, str]] = {
    table: {name: about for name, _, about in columns}
    for table, columns in (
        ("rows", _DETAIL),
        ("timeline", _TIMELINE),
        ("churn", _CHURN),
        ("services", _SERVICES),
        ("proxies", _PROXIES),
        ("fan_out", _FAN_OUT),
        ("delays", _DELAYS),
    )
}


def table_of(schema: pa.Schema, rows: list[list[object]]) -> pa.Table:
    """A table of that schema from rows of plain values."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.table(arrays, schema=schema)


def columns_of(table: str, known: Sequence[str], asked: Sequence[str]) -> list[str]:
    """The columns asked for, one or several. Raises InputError, a KeyError too, for one that the table has not."""
    expected(asked, Iterable, "columns", "a name or a list of names")
    names = [asked] if isinstance(asked, str) else list(asked)
    for name in names:
        if name not in known:
            raise not_there(name, known, "column", table)
    return names


class Tabled:
    """The tables of `pushsim.tables` as DataFrames; columns and units: `pushsim.tables.COLUMNS`."""

    def frame(self, name: str = "rows", columns: Sequence[str] | None = None) -> pd.DataFrame:
        """A table, or these columns of it."""
        raise NotImplementedError

    @property
    def rows(self) -> pd.DataFrame:
        """What was sent: a row per (merged push, group of equal proxies, xDS type), or per response."""
        return self.frame("rows")

    @property
    def timeline(self) -> pd.DataFrame:
        """Second by second: changes, merged pushes, responses, bytes, the push queue, the throttle, istiod's cores."""
        return self.frame("timeline")

    @property
    def churn(self) -> pd.DataFrame:
        """By source of change: changes, and the pushes, bytes and CPU seconds they caused."""
        return self.frame("churn")

    @property
    def services(self) -> pd.DataFrame:
        """The dearest changed objects first: the pushes, bytes and CPU seconds they caused."""
        return self.frame("services")

    @property
    def proxies(self) -> pd.DataFrame:
        """Groups of equal proxies: how many, what they were sent, memory of one."""
        return self.frame("proxies")

    @property
    def fan_out(self) -> pd.DataFrame:
        """Whose changes push whose proxies, namespace by namespace."""
        return self.frame("fan_out")

    @property
    def delays(self) -> pd.DataFrame:
        """The distribution of each delay: converged, received, completed, queued, debounced."""
        return self.frame("delays")
