"""The parts of a replica on flat arrays, with the methods of those in `control`."""

from __future__ import annotations

from typing import Any

import numpy as np

from pushsim.control.cache import Outdated
from pushsim.control.cores import NOBODY, TICKS, Cores
from pushsim.control.knobs import Knobs
from pushsim.control.limiter import RequestLimiter
from pushsim.control.queue import PushQueue
from pushsim.control.replica import Replica
from pushsim.control.tally import Level
from pushsim.cost import Runtime
from pushsim.kernel import cores, parts, queue
from pushsim.kernel.arrays import (
    C_AT_REST,
    C_AT_REST_END,
    C_CLOCK,
    C_DUE,
    C_HEAD,
    C_HOLDER,
    C_JOBS,
    C_NOW,
    C_RESTED,
    C_RESTS_SINCE,
    C_WOKEN,
    C_WOKEN_NEXT,
    HAS,
    K_BYTES,
    K_ENTRIES,
    K_FREE,
    K_GAP,
    K_LINE,
    K_LINE_AT,
    K_LONGEST,
    K_NEXT,
    K_TOKEN,
    K_UP,
    K_VERSION,
    L_HI,
    L_HIGHEST,
    L_LO,
    L_MID,
    L_NOW,
    L_SINCE,
    L_VALUE,
    N_HOME,
    N_PROCESSING,
    N_WAITING,
    S_BUILT,
    UNKNOWN,
    W_AT,
    W_LONG,
)
from pushsim.kernel.store import Store
from pushsim.planner import Evicted, Planner


class ArrayCores(Cores):
    """`Cores` on arrays."""

    def __init__(self, cpus: float, runtime: Runtime, store: Store, number: int) -> None:
        super().__init__(cpus, runtime)
        self._store, self._number = store, number
        store.set_cores(self, number)

    def start(self, now: int, job: int, work_ns: int, line: int = 0) -> None:
        self._store.room_for_jobs()
        cores.start(self._store.k, self._number, now, job, work_ns, line)

    def wait(self, job: int, work_ns: int, line: int = 0) -> None:
        self._store.room_for_jobs()
        cores.wait(self._store.k, self._number, line, job, TICKS * work_ns)

    def fill(self) -> None:
        cores.fill(self._store.k, self._number)

    def due(self) -> int:
        return int(cores.due(self._store.k, self._number))

    def finish(self, now: int) -> int:
        return int(cores.finish(self._store.k, self._number, now))

    def advance(self, now: int) -> None:
        cores.advance(self._store.k, self._number, now)
        self.take_up()

    def stop(self, now: int) -> None:
        self.advance(now)
        core = self._store.a.cores[self._number]
        core[C_JOBS], core[C_RESTS_SINCE], core[C_RESTED] = 0, now, core[C_CLOCK]
        core[[C_HOLDER, C_WOKEN_NEXT]] = NOBODY
        self._store.a.line_of[:, self._number] = 0
        self._store.a.cores[self._number, C_DUE] = UNKNOWN

    def take_up(self) -> None:
        """Let the fields of `Cores` show what the arrays hold."""
        a, r = self._store.a, self._number
        head, count = a.cores[r, [C_HEAD, C_JOBS]].tolist()
        self.now, self.clock = int(a.cores[r, C_NOW]), int(a.cores[r, C_CLOCK])
        self.rests_since, self.rested, self.woken = a.cores[r, [C_RESTS_SINCE, C_RESTED, C_WOKEN]].tolist()
        self.ended_at_rest = range(*a.cores[r, [C_AT_REST, C_AT_REST_END]].tolist())
        self.holder, self.woken_next = a.cores[r, [C_HOLDER, C_WOKEN_NEXT]].tolist()
        running = a.running[r, head : head + count].tolist()
        self.running = [(mark, place, *of) for place, (mark, *of) in enumerate(running)]
        for line, waiting in enumerate(self.lines):
            at, long = a.line_of[line, r, [W_AT, W_LONG]]
            waiting.clear()
            waiting.extend(map(tuple, a.lines[line, r].take(np.arange(at, at + long), axis=0, mode="wrap").tolist()))
        self.spent = a.spent[r, : self.now // 1_000_000_000 + 1].tolist()


class ArrayQueue(PushQueue):
    """`PushQueue` on arrays; events are dequeued by compiled code."""

    def __init__(self, store: Store, number: int) -> None:
        self._store, self._number = store, number
        a = store.a
        mine = a.conn[:, N_HOME] == number
        a.conn[mine, N_WAITING + HAS] = a.conn[mine, N_PROCESSING] = 0
        a.replicas[number, K_LINE] = a.replicas[number, K_LINE_AT] = a.replicas[number, K_LONGEST] = 0

    def __len__(self) -> int:
        return int(self._store.a.replicas[self._number, K_LINE])

    @property
    def longest(self) -> int:  # type: ignore[override]
        """The longest that the line has been."""
        return int(self._store.a.replicas[self._number, K_LONGEST])

    def enqueue(self, connection: int, push: int, start: int, forced: int = 0) -> None:
        queue.enqueue(self._store.k, self._number, connection, push, start, forced)

    def drop(self, connection: int) -> None:
        a, replica = self._store.a, self._store.a.replicas[self._number]
        if a.conn[connection, N_WAITING + HAS] and not a.conn[connection, N_PROCESSING]:
            size, count = a.line.shape[1], replica[K_LINE]
            places = (replica[K_LINE_AT] + np.arange(count)) % size
            left = [c for c in a.line[self._number, places] if c != connection]
            a.line[self._number, places[: len(left)]] = left
            replica[K_LINE] = len(left)
        a.conn[connection, N_WAITING + HAS] = a.conn[connection, N_PROCESSING] = 0


class ArrayCache:
    """`XdsCache` on arrays, as far as Python works on it."""

    def __init__(self, store: Store, number: int, most: int) -> None:
        self._store, self._number, self.outdated = store, number, Outdated(most)
        replica, a = store.a.replicas[number], store.a
        a.present[number] = False
        replica[K_TOKEN] = replica[K_BYTES] = replica[K_ENTRIES] = 0
        replica[K_VERSION] += 1  # no view has seen it empty

    @property
    def bytes(self) -> int:
        """What its entries hold."""
        return int(self._store.a.replicas[self._number, K_BYTES]) + self.outdated.bytes

    @property
    def resources(self) -> int:
        """How many there are in its entries."""
        return int(self._store.a.replicas[self._number, K_ENTRIES]) + self.outdated.resources

    def clear(self, now: int, evicted: Evicted) -> None:
        """`XdsCache.clear`."""
        k, r, a = self._store.k, self._number, self._store.a
        localities, known = a.present.shape[1:]
        if evicted.outdated.size:
            ever = evicted.outdated[evicted.outdated < known]  # others have never been filled
            for of in range(localities):
                cells = ever[a.present[r, of, ever]]
                sizes, resources = a.cell_size[r, of, cells].tolist(), a.cell_held[r, of, cells].tolist()
                self.outdated.add((cells * localities + of).tolist(), sizes, resources, evicted.at)
            parts.clear(k, r, now, evicted.outdated)
        parts.clear(k, r, now, evicted.cells)
        for of in range(localities):
            self.outdated.drop(evicted.cells * localities + of, evicted.since)

    def clear_all(self, now: int) -> None:
        """`XdsCache.clear_all`."""
        a, r = self._store.a, self._number
        a.replicas[r, [K_TOKEN, K_BYTES, K_ENTRIES]] = now, 0, 0
        a.present[r] = False
        a.replicas[r, K_VERSION] += 1
        self.outdated.clear()


class ArrayLimiter(RequestLimiter):
    """`RequestLimiter` on arrays, which compiled code asks."""

    def __init__(self, per_second: int, store: Store, number: int) -> None:
        self._of = store.a.replicas[number]
        super().__init__(per_second)
        self._of[K_GAP] = self.gap

    @property
    def next(self) -> int:
        """When it admits the next."""
        return int(self._of[K_NEXT])

    @next.setter
    def next(self, at: int) -> None:
        self._of[K_NEXT] = at


class ArrayLevel(Level):
    """`Level` on arrays."""

    def __init__(self, store: Store, kind: int, number: int) -> None:
        self._store, self._kind, self._number = store, kind, number

    def _of(self, column: int) -> int:
        return int(self._store.a.levels[self._kind, self._number, column])

    @property
    def now(self) -> int:  # type: ignore[override]
        """When it was last told something."""
        return self._of(L_NOW)

    @property
    def value(self) -> int:  # type: ignore[override]
        """The level."""
        return self._of(L_VALUE)

    @property
    def highest(self) -> int:  # type: ignore[override]
        """The highest it has been since counting began."""
        return self._of(L_HIGHEST)

    @property
    def since(self) -> int:  # type: ignore[override]
        """When counting began."""
        return self._of(L_SINCE)

    @property
    def integral(self) -> int:  # type: ignore[override]
        """Its time integral since counting began."""
        return self._of(L_HI) * 1_000_000_000 + self._of(L_MID) * 10_000 + self._of(L_LO)

    def add(self, now: int, amount: int) -> None:
        parts.add_level(self._store.k, self._kind, self._number, now, amount)

    def reset(self, now: int) -> None:
        self.add(now, 0)
        parts.reset_level(self._store.k, self._kind, self._number, now)


class KernelReplica(Replica):
    """A replica whose cores, queue, cache and slots are in the arrays."""

    def __init__(
        self, number: int, planner: Planner, cores: ArrayCores, knobs: Knobs, total: int, store: Store
    ) -> None:
        self._store = store
        super().__init__(number, planner, cores, knobs, total)
        self.limiter = ArrayLimiter(knobs.streams_per_s, store, number)

    @property
    def up(self) -> bool:
        """Whether its process runs."""
        return bool(self._store.a.replicas[self.number, K_UP])

    @up.setter
    def up(self, runs: bool) -> None:
        self._store.a.replicas[self.number, K_UP] = runs

    @property
    def free(self) -> int:
        """Throttle slots that are free."""
        return int(self._store.a.replicas[self.number, K_FREE])

    @free.setter
    def free(self, slots: int) -> None:
        self._store.a.replicas[self.number, K_FREE] = slots

    def fresh(self) -> None:
        super().fresh()
        self.queue = ArrayQueue(self._store, self.number)
        self.cache: Any = ArrayCache(self._store, self.number, self.knobs.cache_entries)
        a = self._store.a
        a.scopes[self.number, :, S_BUILT] = 0
        a.holder[self.number] = a.wait_head[self.number] = -1
