"""Writes a scenario's changes at their times, lets the proxies of pods come and go, and has istiods restart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from pushsim.control.state import POD_START_NS, RESTART_NS
from pushsim.mesh import SLICES_LATER_NS, Proxy, in_parts
from pushsim.replay.fleet import Manners
from pushsim.replay.places import Board, Server
from pushsim.replay.replicas import Replicas
from pushsim.replay.shown import Written, subject_of
from pushsim.replay.worker import Workers
from pushsim.settings import Timed, Variant
from pushsim.topology import proxy_of
from pushsim.units import SECOND_NS


class Writer:
    """The changes of a variant, from its epoch on; those from `warmup_ns` on wait until `counting` is set.

    written: what was written so far, and when. restarts: how often an istiod was ended since counting began.
    """

    def __init__(self, variant: Variant, board: Board, proxies: Sequence[Proxy], warmup_ns: int, until_ns: int) -> None:
        self.written: list[tuple[Timed, Written]] = []
        self.restarts = 0
        self.counting = asyncio.Event()
        self._changes, self._replicas = variant.changes, variant.settings.replicas
        self._board, self._warmup_ns, self._until_ns = board, warmup_ns, until_ns
        self._number = {proxy.id: number for number, proxy in enumerate(proxies)}
        self._root = str(variant.settings.mesh_config.get("rootNamespace", "istio-system"))
        self._down: set[int] = set()

    async def write(self, epoch: int, fleet: Workers, server: Server) -> None:
        """Write each change at its time (`epoch`: ns of the monotonic clock); return when all that restarts is back."""
        restarting: list[asyncio.Task[None]] = []
        try:
            for number, timed in enumerate(self._changes):
                if timed.at_ns >= self._until_ns:
                    break  # later than the scenario
                await asyncio.sleep(max(0.0, (epoch + timed.at_ns - time.monotonic_ns()) / SECOND_NS))
                if timed.at_ns >= self._warmup_ns:
                    await self.counting.wait()  # one due at that very moment is counted
                if timed.marker:
                    assert isinstance(server, Replicas), "others' istiods are not restarted"
                    which = len(restarting) % self._replicas
                    restarting.append(asyncio.create_task(self._restart(which, server, fleet)))
                else:
                    await self._change(number, timed, fleet)
            await asyncio.gather(*restarting)
        finally:
            for task in restarting:
                task.cancel()
            await asyncio.gather(*restarting, return_exceptions=True)

    async def _change(self, number: int, timed: Timed, fleet: Workers) -> None:
        """Write a change; a Service's EndpointSlices follow a bit later, as their controller would write them."""
        change = timed.change
        subject = subject_of(change, self._board.held, root=self._root)
        gone = [f"{ref.name}.{ref.namespace}" for ref in change.delete if ref.kind == "Pod"]
        new = [o for o in change.apply if o.ref.kind == "Pod" and self._board.held(o.ref) is None]
        self.written.append((timed, Written(number, time.monotonic_ns(), subject)))
        first, *later = in_parts(change)
        await self._board.write_in_order(first)
        for part in later:
            await asyncio.sleep(SLICES_LATER_NS / SECOND_NS)
            await self._board.write_in_order(part)
        for proxy in gone:
            await fleet.remove(proxy)
        joining = [(self._number[p.id], p, Manners()) for o in new if (p := proxy_of(o)) is not None]
        if joining:
            await fleet.add(joining, POD_START_NS / SECOND_NS)

    async def _restart(self, which: int, server: Replicas, fleet: Workers) -> None:
        """End a replica's process and start it again; it takes streams once its pod would be ready (RESTART_NS)."""
        if which in self._down:
            return
        self._down.add(which)
        self.restarts += self.counting.is_set()
        back_at = time.monotonic() + RESTART_NS / SECOND_NS
        await fleet.point(which, "")
        await server.end(which)
        address = await server.begin(which)
        await asyncio.sleep(max(0.0, back_at - time.monotonic()))
        await fleet.point(which, address)
        self._down.discard(which)
