"""The tables of a real run (`pushsim.tables`); what can't be known is null, and a table of nothing else is left out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import pyarrow as pa

from pushsim.replay.log import TYPES
from pushsim.replay.run import Record
from pushsim.replay.shown import Shown
from pushsim.tables import DETAIL, ROWS, SCHEMAS
from pushsim.units import SECOND_NS

#: A row of the log while counting: its place in the log, then the log's columns.
Row = tuple[int, ...]


def tables_of(record: Record, log: Sequence[Row], found: Shown, ended: int, *, detail: bool) -> Mapping[str, pa.Table]:
    """All tables of a run that was counted until `ended` (ns of the monotonic clock)."""
    tables = {"rows": (_details if detail else _rows)(record, log, found)}
    if record.counted >= 0:
        tables["timeline"] = _timeline(record, log, ended)
        tables["proxies"] = _proxies(record, log)
        tables["churn"] = _churn(record)
    return tables


def _timeline(record: Record, log: Sequence[Row], ended: int) -> pa.Table:
    """Second by second; when responses arrived, not when they were sent."""
    seconds = max(1, -(-(ended - record.counted) // SECOND_NS))

    def per_second(times: Sequence[int]) -> Counter[int]:
        return Counter((at - record.counted) // SECOND_NS for at in times if at >= record.counted)

    changes = per_second([written.at_ns for _, written in record.written])
    pushes = per_second([push.at_ns for push in record.debounced])
    responses = per_second([row[1] for row in log])
    sizes: Counter[int] = Counter()
    for row in log:
        sizes[(row[1] - record.counted) // SECOND_NS] += row[7]
    cores = {second: fmean(each) for second, each in enumerate(record.samples.per_second)}
    rows = [
        [float(s), changes[s], pushes[s], None, float(responses[s]), float(sizes[s]), cores.get(s), None, None, None]
        for s in range(seconds)
    ]
    return _table(SCHEMAS["timeline"], rows)


def _proxies(record: Record, log: Sequence[Row]) -> pa.Table:
    groups = _groups(record)
    responses, sizes = Counter(groups[row[2]] for row in log), Counter[int]()
    for row in log:
        sizes[groups[row[2]]] += row[7]
    members = Counter(groups)
    rows = []
    for group in range(len(members)):
        first = record.proxies[groups.index(group)]
        count = members[group]
        rows.append([group, first.type, first.namespace, first.id, count, None, responses[group], sizes[group], None])
    return _table(SCHEMAS["proxies"], rows)


def _churn(record: Record) -> pa.Table:
    written = [timed.source for timed, at in record.written if at.at_ns >= record.counted]
    rows = [[source, count, None, None, None] for source, count in sorted(Counter(written).items())]
    return _table(SCHEMAS["churn"], rows)


def _rows(record: Record, log: Sequence[tuple[int, ...]], found: Shown) -> pa.Table:
    """A row per (istiod's version, proxies of a namespace and type, kind of response)."""
    groups, replicas = _groups(record), _replicas(record)
    gathered: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for _, at, proxy, xds, solicited, resources, removed, size, version, _ in log:
        gathered[version, groups[proxy], xds, solicited, resources, removed, size].append(at - record.counted)
    columns: list[list[Any]] = [
        [version, None, replicas[version], None, group, len(times), TYPES[xds], bool(solicited), resources, removed,
         size, None, min(times), max(times)]
        for (version, group, xds, solicited, resources, removed, size), times in gathered.items()
    ]  # fmt: skip
    return _table(ROWS, columns)


def _details(record: Record, log: Sequence[tuple[int, ...]], found: Shown) -> pa.Table:
    """A row per response."""
    groups, replicas = _groups(record), _replicas(record)
    columns: list[list[Any]] = []
    for place, at, proxy, xds, solicited, resources, removed, size, version, _ in log:
        since = at - record.counted
        received = found.by_row.get(place)
        columns.append(
            [version, None, replicas[version], None, groups[proxy], 1, TYPES[xds], bool(solicited), resources, removed,
             size, None, since, since, record.proxies[proxy].id, None,
             None if received is None else received / SECOND_NS]
        )  # fmt: skip
    return _table(DETAIL, columns)


def _groups(record: Record) -> list[int]:
    """A number for each proxy: that of its namespace and type."""
    known: dict[tuple[str, str], int] = {}
    return [known.setdefault((proxy.namespace, proxy.type), len(known)) for proxy in record.proxies]


def _replicas(record: Record) -> list[int]:
    """Whose each version is."""
    return [replica for replica, _ in record.log.versions]


def _table(schema: pa.Schema, rows: list[list[Any]]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    return pa.table([pa.array(c, field.type) for c, field in zip(columns, schema, strict=True)], schema=schema)
