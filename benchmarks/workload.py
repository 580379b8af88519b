"""A mesh without semantics: what the engines do when plans cost nothing.

Each change is one push, of one service of one group of proxies; that group gets an assignment, all others are spared.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from pushsim.control import Knobs, Machine
from pushsim.cost import Prices, shipped
from pushsim.kernel import Kernel, KernelMachine
from pushsim.mesh import Change, Proxy
from pushsim.planner import Counts, Group, Handled, Planned, Push, Request, Response, Scopes, Shape, Spared
from pushsim.settings import Clients, Timed
from pushsim.simulation import Simulation

SECOND = 1_000_000_000
ENGINES: dict[str, tuple[Any, Any]] = {"simulation": (Machine, Simulation), "kernel": (KernelMachine, Kernel)}
SPARED_WORK: Counts = {"proxy.filters": 1, "proxy.keys": 1}


class FlatPlanner:
    """See the module. Two proxies a group; or many, and every push has an assignment for each of them."""

    sotw = False

    def __init__(self, proxies: int, *, everyone: bool = False) -> None:
        self._everyone, size = everyone, max(1, proxies // 20) if everyone else 2
        self.groups = [
            Group(tuple(Proxy(f"p{n}", f"ns-{g}", f"10.0.0.{n}", "sidecar") for n in range(size * g, size * (g + 1))))
            for g in range(max(1, proxies // size))
        ]
        self._requests: list[int] = []
        self._pushes: list[set[int]] = []
        self._spared: dict[tuple[int, int], Planned] = {}
        self._connected = Planned(True, 0, (), {"proxy.states": 1})

    def handle(self, change: int, written: Change) -> Handled:
        self._requests.append(int(written.name) % len(self.groups))
        return Handled((Request(),), {"handler.events": 1})

    def push(self, requests: Sequence[int]) -> Push:
        self._pushes.append({self._requests[number] for number in requests})
        return Push(len(self._pushes) - 1)

    def connect(self, group: int, push: int) -> Planned:
        return self._connected

    def plan(self, group: int, state: int, first: int, last: int, forced: bool) -> Planned:
        if self._everyone or group in self.concerned(first, last):
            return Planned(True, 0, (Response("EDS", 1, 200, work={"eds.walked": 9}),), SPARED_WORK)
        return self._spared.setdefault((first, last), Planned(False, 0, (), SPARED_WORK, common=True))

    def alike(self, group: int, state: int) -> int:
        return -1 if self._everyone else 0

    def concerned(self, first: int, last: int) -> Collection[int]:
        return set().union(*self._pushes[max(0, first) : last + 1])

    def steady(self, group: int, state: int) -> int:
        return -1 if self._everyone else 0

    def touched(self, first: int, last: int) -> Collection[int]:
        return self.concerned(first, last)

    def spared(self, group: int, state: int, first: int, last: int) -> Spared | None:
        return None if self._everyone or group in self.concerned(first, last) else Spared(state, 0)

    def scopes(self, push: int) -> Scopes:
        raise NotImplementedError  # nobody takes one up

    def apart(self) -> Collection[int]:
        return ()

    def may_meet(self) -> bool:
        return False

    def keep(self, states: Collection[tuple[int, int]], push: int, since: int) -> None:
        self._spared = {key: planned for key, planned in self._spared.items() if key[1] >= push}

    def shape(self, group: int, state: int, push: int) -> Shape:
        return Shape()

    def inventory(self) -> Counts:
        return {}


def changes(seconds: int, per_second: float = 10) -> tuple[Timed, ...]:
    """A Poisson process of changes."""
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.exponential(SECOND / per_second, size=int(2 * seconds * per_second))).astype(int)
    return tuple(Timed(int(at), "churn", Change(name=str(n))) for n, at in enumerate(times) if at < seconds * SECOND)


def prepared(
    engine: str, proxies: int, seconds: int, *, replicas: int = 4, keep_log: bool = False, everyone: bool = False
) -> Any:
    """An engine ready to run; its `machine` tells what it did."""
    machine_type, engine_type = ENGINES[engine]
    timed = changes(seconds)
    machine = machine_type(
        [FlatPlanner(proxies, everyone=everyone) for _ in range(replicas)],
        [each.change for each in timed],
        cpus=16,
        knobs=Knobs(throttle=95, streams_per_s=100_000),
        prices=Prices(shipped("1.24")),
        clients=Clients(),
        seed=1,
        keep_log=keep_log,
    )
    return engine_type(machine, timed, warmup_ns=0, duration_ns=seconds * SECOND)
