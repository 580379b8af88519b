"""What a fleet received: a row per response, in columns, with what recurs kept once."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from pushsim.ads import Response
from pushsim.mesh import XDS, Xds

TYPES = XDS
#: In `altered`: nothing is, or nobody asks (an answer to the request of a proxy that has never lost its stream).
NOTHING = -1


class Alteration(NamedTuple):
    """What a response altered at its proxy: resources by name, and for RDS the virtual hosts that differ."""

    xds: Xds
    names: frozenset[str]
    hosts: frozenset[str]


@dataclass
class Log:
    """Columns of equal length, one row per response, in order of arrival.

    at:       when it had arrived whole, ns of this machine's monotonic clock. proxy: its number.
    xds:      position in TYPES. solicited: 0 or 1. resources, removed: names in it. size: bytes of the message.
    version:  position in `versions`: replica, and istiod's own name. altered: position in `alterations`, or NOTHING.
    """

    at: array[int] = field(default_factory=lambda: array("q"))
    proxy: array[int] = field(default_factory=lambda: array("i"))
    xds: array[int] = field(default_factory=lambda: array("b"))
    solicited: array[int] = field(default_factory=lambda: array("b"))
    resources: array[int] = field(default_factory=lambda: array("i"))
    removed: array[int] = field(default_factory=lambda: array("i"))
    size: array[int] = field(default_factory=lambda: array("q"))
    version: array[int] = field(default_factory=lambda: array("i"))
    altered: array[int] = field(default_factory=lambda: array("i"))
    versions: dict[tuple[int, str], int] = field(default_factory=dict)
    alterations: dict[Alteration, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.at)

    def note(self, at_ns: int, proxy: int, response: Response, replica: int = 0, *, again: bool = False) -> None:
        """Keep a response of that replica; `again`: to a proxy that had a stream before, and may have missed much."""
        self.at.append(at_ns)
        self.proxy.append(proxy)
        self.xds.append(TYPES.index(response.xds))
        self.solicited.append(response.solicited)
        self.resources.append(len(response.names))
        self.removed.append(len(response.removed_names))
        self.size.append(response.size_bytes)
        self.version.append(self.versions.setdefault((replica, response.version), len(self.versions)))
        altered = NOTHING
        if response.altered and (again or not response.solicited):
            key = Alteration(response.xds, response.altered, response.altered_hosts)
            altered = self.alterations.setdefault(key, len(self.alterations))
        self.altered.append(altered)

    def merged(self, other: Log) -> Log:
        """Both logs, in order of arrival."""
        versions, alterations = dict(self.versions), dict(self.alterations)
        of_version = [versions.setdefault(name, len(versions)) for name in other.versions]
        of_altered = [alterations.setdefault(key, len(alterations)) for key in other.alterations]
        both = [
            *zip(*self._columns(), strict=True),
            *(
                (*row[:-2], of_version[row[-2]], of_altered[row[-1]] if row[-1] != NOTHING else NOTHING)
                for row in zip(*other._columns(), strict=True)
            ),
        ]
        both.sort(key=lambda row: row[0])
        found = Log(versions=versions, alterations=alterations)
        for column, values in zip(found._columns(), zip(*both, strict=True), strict=False):
            column.extend(values)
        return found

    def _columns(self) -> tuple[array[int], ...]:
        return (
            self.at, self.proxy, self.xds, self.solicited, self.resources, self.removed, self.size, self.version,
            self.altered,
        )  # fmt: skip

    def rows(self) -> Iterator[tuple[int, ...]]:
        """The rows, in the order of the fields."""
        return zip(*self._columns(), strict=True)
