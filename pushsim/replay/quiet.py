"""When a push is over: nothing is under way at istiod, on the wire, or with us, and it stays so for two debounces.

Time alone can't tell on a busy machine: an istiod that gets no processor is as silent as one that has nothing to do.
So a look counts only if istiod's threads all sleep (one that has work but no processor does not), every response that
it counts as sent has arrived, and every event is on the wire; and looks are counted, not the time between them, for we
may have been the ones who got no processor.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Protocol

from pushsim.child import has_work
from pushsim.errors import EnvironmentProblem
from pushsim.replay.fleet import Seen
from pushsim.replay.places import Board, Server, Watchable
from pushsim.units import SECOND_NS, UnitError, duration

#: Debounced pushes, from 1.16 on.
DEBOUNCED = "pilot_debounce_time_count"
#: istiod's counters that move when it takes in an event, pushes or sends. Which of them exist depends on the release.
ACTIVITY = frozenset(
    {
        "pilot_k8s_cfg_events",
        "pilot_k8s_reg_events",
        "pilot_inbound_updates",
        "pilot_push_triggers",
        DEBOUNCED,
        "pilot_pushcontext_init_seconds_count",
        "pilot_proxy_queue_time_count",
        "pilot_proxy_convergence_time_count",
        "pilot_xds_pushes",
        "pilot_xds_expired_nonce",
    }
)
#: Responses sent, answers included, in every release: it rises once a response is on its stream.
SENT = "pilot_xds_pushes"
_SAMPLE = re.compile(r"^(\w+)(?:\{[^}]*\})? (\S+)", re.MULTILINE)
LOOK_EVERY_S = 0.03
#: How long what was written may take to be delivered; how long to wait for quiet where others write, too.
DRAIN_WITHIN_S, OTHERS_WITHIN_S = 600.0, 30.0


def at_work(istiod: Watchable) -> bool:
    """Whether a thread of any of its processes runs or waits for a processor."""
    return any(has_work(pid) for pid in istiod.pids)


def totals(metrics: str) -> dict[str, float]:
    """The sums over all labels of the metrics named in `ACTIVITY`, from Prometheus' text format."""
    sums: dict[str, float] = defaultdict(float)
    for name, value in _SAMPLE.findall(metrics):
        if name in ACTIVITY:
            sums[name] += float(value)
    return dict(sums)


def debounce_s(env: Mapping[str, str]) -> float:
    """How long istiod waits for more events after one, in seconds."""
    try:
        return duration(env.get("PILOT_DEBOUNCE_AFTER", "100ms")) / SECOND_NS
    except UnitError:
        return 0.1


def still_for_s(env: Mapping[str, str]) -> float:
    """How long nothing must move until all is quiet, in seconds: two debounces and what handlers take."""
    return 2 * debounce_s(env) + 0.1


class Stillness:
    """Counts looks at which nothing was under way and nothing had moved since the look before."""

    def __init__(self, still_s: float) -> None:
        self.wanted = math.ceil(still_s / LOOK_EVERY_S)
        self.looks = 0
        self._last: Any = None

    def look(self, state: Any, *, under_way: bool) -> bool:
        """One look: whether it is quiet by now. `state`: whatever moves when something happens."""
        self.looks = self.looks + 1 if state == self._last and not under_way else 0
        self._last = state
        return self.looks >= self.wanted


class Watched(Protocol):
    """Proxies of which it can be seen how they are."""

    async def look(self) -> Seen:
        """How they are now; raises EnvironmentProblem if a stream ended that was not to."""


async def quiet(
    istiod: Watchable, cluster: Board, fleet: Watched | None, still_s: float, within_s: float = 120
) -> None:
    """Wait until all is quiet, and has been so for looks that are worth `still_s`.

    Raises EnvironmentProblem if istiod dies, a stream ends, or it is not quiet `within_s` seconds from now.
    """
    loop = asyncio.get_running_loop()
    start, stillness = loop.time(), Stillness(still_s)
    while True:
        if not istiod.alive:
            raise istiod.problem("it died")
        try:
            seen = await fleet.look() if fleet is not None else None
        except EnvironmentProblem as problem:
            raise istiod.problem(str(problem)) from None
        working = at_work(istiod)  # before we wake it ourselves
        counters = totals("\n".join((await istiod.pages()).all))
        under_way = working or not cluster.delivered()
        if seen is not None:
            under_way |= not seen.synced or (seen.lossless and seen.received < counters.get(SENT, 0))
        if stillness.look((counters, seen, cluster.version), under_way=under_way):
            return
        if loop.time() - start > within_s:
            raise istiod.problem(f"it is not quiet after {within_s:g} s")
        await asyncio.sleep(LOOK_EVERY_S)


async def asleep(server: Server, board: Board, fleet: Watched, still_s: float) -> None:
    """Wait until istiod sleeps and nothing comes any more, without asking istiod for anything."""
    within_s = DRAIN_WITHIN_S if server.ours else OTHERS_WITHIN_S
    stillness, end = Stillness(still_s), time.monotonic() + within_s
    while True:
        under_way = at_work(server) or not board.delivered()
        seen = await fleet.look()
        if stillness.look((seen.received, board.version), under_way=under_way or not seen.synced):
            return
        if time.monotonic() > end:
            if not server.ours:
                return  # others' changes go on
            raise server.problem(f"what was written is not delivered after {DRAIN_WITHIN_S:.0f} s")
        await asyncio.sleep(LOOK_EVERY_S)
