"""A planner with toy semantics, for testing the machine: a change's name says what it does.

    "ep:K"    an endpoint of service K changes: an endpoint-only request, EDS of one assignment
    "svc:K"   service K changes: CDS, EDS (one), LDS, RDS
    "cfg:K"   a config of service K comes that the cache does not know: CDS, LDS, RDS
    "no"      nothing is requested
    "join:G.M", "leave:G.M"  the pod of proxy M of group G is created or deleted
    "proxy:G.M"              a ProxyUpdate for that proxy

Services of odd numbers have come with the push before the last, as the cache is told.
Responses are `times` as large as usual. Group g imports service k if k % groups == g, or every service if `unscoped`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pushsim.mesh import Change, Proxy
from pushsim.planner import (
    NO_CELLS,
    Cells,
    Counts,
    Evicted,
    Group,
    Handled,
    Planned,
    Push,
    Request,
    Response,
    Scope,
    Scopes,
    Shape,
    Spared,
    View,
)  # fmt: skip
from pushsim.settings import Variant


def dropped(cells: Cells) -> Evicted:
    """These entries go, with all that has stayed."""
    return Evicted(cells, np.full(len(cells), -1, dtype=np.int64))


@dataclass(frozen=True)
class Asking:
    """What `runs` needs of a scenario, around variants that are there."""

    variants: tuple[Variant, ...]
    seed: int = 1
    warmup_ns: int = 10**9
    duration_ns: int = 10 * 10**9
    path: str = "s.yaml"
    id: str = "abc"
    question: str = "Which?"

    @property
    def variant_names(self) -> tuple[str, ...]:
        return tuple(variant.name for variant in self.variants)

    def variant(self, name: str) -> Variant:
        return next(variant for variant in self.variants if variant.name == name)

    def replaced(self, values: Mapping[str, Any]) -> Asking:
        return replace(self, **values)


def proxies(group: int, size: int, *, gateway: bool = False) -> tuple[Proxy, ...]:
    kind = "router" if gateway else "sidecar"
    return tuple(Proxy(f"p{n}", f"ns-{group}", f"10.0.{group}.{n}", kind) for n in range(size))  # type: ignore[arg-type]


class FakePlanner:
    """See the module. `asked` records the calls of `plan`, in order, without memo.

    Planning from a state or for a push that `keep` let go is an error of the machine.
    """

    def __init__(
        self,
        sizes: Sequence[int] = (3, 3),
        *,
        services: int = 10,
        unscoped: bool = False,
        late: int = 0,
        lazy_scopes: bool = False,
        solicited: bool = False,
        gateways: int = 0,
        sotw: bool = False,
        localities: int = 1,
        times: int = 1,
    ) -> None:
        self.sotw, self.times = sotw, times
        self.services, self.unscoped, self.lazy, self.solicited = services, unscoped, lazy_scopes, solicited
        count = len(sizes)
        self.groups = [
            Group(
                proxies(g, size, gateway=g >= count - gateways),
                late if g == 0 else 0,
                tuple((g + n) % localities for n in range(size)),
                localities,
            )
            for g, size in enumerate(sizes)
        ]
        self.requests: list[tuple[int, str, int]] = []  # (change, kind, service)
        self.pushes: list[list[tuple[int, str, int]]] = []
        self.asked: list[tuple[int, int, int, int, bool]] = []
        self._plans: dict[tuple[int, int, int, int, bool], Planned] = {}
        self._common: dict[tuple[int, int, int], Planned] = {}
        self._connects: dict[int, Planned] = {}
        self._scopes: dict[int, Scopes] = {}
        self.alive: set[int] | None = None
        self.oldest = -1
        self._views: dict[tuple[int, ...], View] = {}

    def handle(self, change: int, written: Change) -> Handled:
        kind, _, rest = written.name.partition(":")
        work = {"handler.events": 1}
        if kind in ("join", "leave", "proxy"):
            group, _, member = rest.partition(".")
            who = ((int(group), int(member)),)
            if kind == "proxy":
                self.requests.append((change, "proxy", -1))
                return Handled((Request(proxies=who),), work)
            if kind == "leave":
                return Handled((), work, left=who)
            return Handled((), work, joined=who, located=((change + int(member)) % self.groups[0].places,))
        if kind == "no":
            return Handled((), work)
        service = int(rest)
        self.requests.append((change, kind, service))
        evicts = None if kind == "cfg" else lambda: dropped(self._cells(service))
        return Handled((Request(endpoints_only=kind == "ep", evicts=evicts),), work)

    def push(self, requests: Sequence[int]) -> Push:
        merged = [self.requests[number] for number in requests]
        self.pushes.append(merged)
        full = any(kind != "ep" for _, kind, _ in merged)
        by_kind = [sorted({service for _, kind, service in merged if (kind == "cfg") == is_cfg}) for is_cfg in (0, 1)]
        cells, outdated = (np.concatenate([NO_CELLS, *map(self._cells, services)]) for services in by_kind)
        number = len(self.pushes) - 1
        came = np.repeat([number - 2 if service % 2 else -1 for service in by_kind[0]], 3).astype(np.int64)
        work = {"push.services": self.services} if full else {}
        return Push(number, work, lambda: Evicted(cells, came, outdated, number))

    def connect(self, group: int, push: int) -> Planned:
        if self.alive is not None:
            self.alive.add(0)
        if group not in self._connects:
            mine = self.imported(group)
            self._connects[group] = Planned(
                True,
                0,
                (
                    Response("CDS", len(mine), 1000 * len(mine), solicited=True, view=self._view(*mine)),
                    Response("EDS", len(mine), 200 * len(mine), solicited=True, view=self._eds(*mine)),
                    Response("LDS", 2, 15_000, solicited=True, work={"lds.http": 1, "lds.inbound": 1}),
                    Response("RDS", len(mine), 500 * len(mine), solicited=True, view=self._rds(*mine)),
                ),
                {"proxy.states": 1},
                self._scope(-1, group) if self.lazy and not self.unscoped else None,
            )
        return self._connects[group]

    def plan(self, group: int, state: int, first: int, last: int, forced: bool) -> Planned:
        key = (group, state, first, last, forced)
        assert (self.alive is None or state in self.alive) and (forced or last >= self.oldest)
        self.asked.append(key)
        if key not in self._plans:
            made = self._make(group, state, first, last, forced)
            if made.common and group not in self.concerned(first, last):
                made = self._common.setdefault((self.alike(group, state), first, last), made)
            self._plans[key] = made
        return self._plans[key]

    def alike(self, group: int, state: int) -> int:
        return -1 if self.groups[group].gateway else len(self.imported(group))

    def concerned(self, first: int, last: int) -> list[int]:
        changed = {service for push in self.pushes[max(0, first) : last + 1] for _, _, service in push}
        if self.unscoped:  # of whom the service is, all others are told the same of it
            return sorted({service % len(self.groups) for service in changed})
        return [group for group in range(len(self.groups)) if changed.intersection(self.imported(group))]

    def steady(self, group: int, state: int) -> int:
        return -1 if self.groups[group].gateway else len(self.imported(group)) % 2

    def touched(self, first: int, last: int) -> list[int] | None:
        return self.concerned(first, last) if last % 2 and not self.unscoped else None

    def spared(self, group: int, state: int, first: int, last: int) -> Spared | None:
        touched = self.touched(first, last)
        return None if touched is None or group in touched else Spared(state, self.steady(group, state))

    def scopes(self, push: int) -> Scopes:
        if push not in self._scopes:
            made = tuple(self._scope(push, group) for group in range(len(self.groups)))
            self._scopes[push] = Scopes(made, np.arange(len(self.groups), dtype=np.int32))
        return self._scopes[push]

    def _scope(self, push: int, group: int) -> Scope:
        key = (push + 1) * len(self.groups) + group
        apart = group % 2 and not self.unscoped
        return Scope(key, key if apart else -1, {"scope.derived": self.services + (0 if self.unscoped else group)})

    def apart(self) -> tuple[int, ...]:
        return ()

    def may_meet(self) -> bool:
        return False

    def keep(self, states: Collection[tuple[int, int]], push: int, since: int) -> None:
        assert since <= push + 1
        self.alive, self.oldest = {state for _, state in states}, push

    def shape(self, group: int, state: int, push: int) -> Shape:
        mine = len(self.imported(group))
        return Shape(mine + 3, 0, mine, 2 * mine + max(0, push) % 3, 4, 2, 2, mine, 2 * mine)

    def inventory(self) -> Counts:
        return {"memory.services": self.services, "memory.endpoints": 2 * self.services}

    def imported(self, group: int) -> list[int]:
        return [k for k in range(self.services) if self.unscoped or k % len(self.groups) == group]

    def _make(self, group: int, state: int, first: int, last: int, forced: bool) -> Planned:
        mine = self.imported(group)
        changed = [entry for push in self.pushes[max(0, first) : last + 1] for entry in push]
        relevant = [entry for entry in changed if entry[2] in mine]
        shown = tuple(dict.fromkeys(change for change, _, _ in relevant))
        full = any(kind != "ep" for _, kind, _ in changed)
        work = {"proxy.filters": 1, "proxy.keys": len(changed), "proxy.states": int(full)}
        scope = self._scope(last, group) if self.lazy and full else None
        if not relevant and not forced:
            return Planned(False, state, (), work, scope, common=scope is None)
        services = sorted({service for _, kind, service in relevant if kind != "cfg"})
        responses = []
        if full or forced:
            responses.append(Response("CDS", len(mine), 1000 * len(mine), view=self._view(*mine)))
        if services:
            responses.append(
                Response("EDS", len(services), 200 * len(services), view=self._eds(*services), work={"eds.walked": 9})
            )
        if full or forced:
            responses.append(Response("LDS", 2, 15_000, work={"lds.http": 1, "lds.inbound": 1}))
            responses.append(Response("RDS", len(mine), 500 * len(mine), view=self._rds(*mine)))
        if self.solicited and full:
            responses.append(Response("EDS", 1, 200, solicited=True))
        if responses and shown:
            responses[0] = _showing(responses[0], shown)
        common = self.unscoped and not forced and scope is None and not self.groups[group].gateway
        sent = tuple(replace(response, size_bytes=self.times * response.size_bytes) for response in responses)
        return Planned(True, state, sent, work, scope, shown, common)

    def _cells(self, service: int) -> Cells:
        """CDS, EDS and RDS cell of a service."""
        return np.arange(3 * service, 3 * service + 3, dtype=np.int32)

    def _view(self, *services: int) -> View:
        return self._viewed(0, services)

    def _eds(self, *services: int) -> View:
        return self._viewed(1, services)

    def _rds(self, *services: int) -> View:
        return self._viewed(2, services)

    def _viewed(self, kind: int, services: tuple[int, ...]) -> View:
        key = (kind, *services)
        if key not in self._views:
            size = len(services)
            cells = np.array([3 * service + kind for service in services], dtype=np.int32)
            ones = np.ones(size, dtype=np.int32)
            self._views[key] = View(len(self._views), cells, ones, ones * 2 * kind)
        return self._views[key]


def _showing(response: Response, shown: tuple[int, ...]) -> Response:
    return Response(
        response.xds, response.resources, response.size_bytes, view=response.view, work=response.work, shows=shown
    )
