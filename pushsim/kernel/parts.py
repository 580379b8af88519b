"""Heaps, levels and the cache, compiled; the rules are those of `control.cache` and `.tally`."""

from __future__ import annotations

from pushsim.control.cores import (
    SECOND,
)
from pushsim.control.tally import Ints
from pushsim.kernel.arrays import (
    CACHE,
    ENTRIES,
    K_BYTES,
    K_ENTRIES,
    K_TOKEN,
    K_VERSION,
    L_HI,
    L_HIGHEST,
    L_LO,
    L_MID,
    L_NOW,
    L_SINCE,
    L_VALUE,
    R_SIZE,
    R_VIEW,
    V_AT,
    V_END,
    V_RESOURCES,
    V_UNITS,
    V_VERSION,
    WAKED,
    WAKES,
    Arrays,
)
from pushsim.kernel.struct import called, compiled
from pushsim.planner import Cells


@compiled
def copy_row(to: Ints, place: int, of: Ints, row: int) -> None:
    """A row of one table is written into another, column by column: numba compiles whole rows for seconds."""
    for column in range(of.shape[1]):
        to[place, column] = of[row, column]


# ---- wakes


@called
def set_wake(a: Arrays, at: int, kind: int, who: int, generation: int, first: int, second: int) -> None:
    """Add a wake; `order` is that of setting."""
    wakes, place = a.wakes, a.s[WAKES]
    a.s[WAKES] += 1
    order = a.s[WAKED]
    a.s[WAKED] += 1
    while place > 0:
        above = (place - 1) >> 1
        if wakes[above, 0] <= at:
            break
        copy_row(wakes, place, wakes, above)
        place = above
    wakes[place, 0], wakes[place, 1], wakes[place, 2], wakes[place, 3] = at, order, kind, who
    wakes[place, 4], wakes[place, 5], wakes[place, 6] = generation, first, second


@called
def drop_wake(a: Arrays) -> None:
    """Take the first wake away."""
    a.s[WAKES] -= 1
    wakes, count = a.wakes, a.s[WAKES]
    at, order = wakes[count, 0], wakes[count, 1]
    place = 0
    while True:
        below = 2 * place + 1
        if below >= count:
            break
        other = below + 1
        if other < count and (
            wakes[other, 0] < wakes[below, 0]
            or (wakes[other, 0] == wakes[below, 0] and wakes[other, 1] < wakes[below, 1])
        ):
            below = other
        if at < wakes[below, 0] or (at == wakes[below, 0] and order < wakes[below, 1]):
            break
        copy_row(wakes, place, wakes, below)
        place = below
    copy_row(wakes, place, wakes, count)


# ---- levels


@called
def add_level(a: Arrays, kind: int, r: int, now: int, amount: int) -> None:
    """`Level.add`."""
    level = a.levels[kind, r]
    elapsed, value = now - level[L_NOW], level[L_VALUE]
    if elapsed > 0 and value > 0:
        if elapsed < 1 << 20 and value < 1 << 40 and level[L_LO] < 1 << 61:
            level[L_LO] += value * elapsed  # what is too much for it is carried with the next long time
        else:
            seconds, rest = elapsed // SECOND, elapsed % SECOND
            mid = level[L_MID] + value // 10_000 * rest
            low = level[L_LO] + value % 10_000 * rest
            level[L_HI] += value * seconds + mid // 100_000 + low // SECOND
            level[L_MID], level[L_LO] = mid % 100_000, low % SECOND
    level[L_NOW] = now
    level[L_VALUE] = value + amount
    if level[L_VALUE] > level[L_HIGHEST]:
        level[L_HIGHEST] = level[L_VALUE]


@called
def reset_level(a: Arrays, kind: int, r: int, now: int) -> None:
    """`Level.reset`."""
    level = a.levels[kind, r]
    level[L_NOW] = level[L_SINCE] = now
    level[L_HI] = level[L_MID] = level[L_LO] = 0
    level[L_HIGHEST] = level[L_VALUE]


# ---- the cache


@called
def clear(a: Arrays, r: int, now: int, cells: Cells) -> None:
    """`XdsCache.clear`."""
    replica, present, held = a.replicas[r], a.present[r], False
    replica[K_TOKEN] = now
    for cell in cells:
        for of in range(present.shape[0] if cell < present.shape[1] else 0):  # others have never been filled
            if present[of, cell]:
                present[of, cell], held = False, True
                replica[K_BYTES] -= a.cell_size[r, of, cell]
                replica[K_ENTRIES] -= a.cell_held[r, of, cell]
    replica[K_VERSION] += int(held)


@compiled
def read(a: Arrays, r: int, now: int, response: int, since: int, of: int) -> tuple[int, int]:
    """`XdsCache.read`, of a locality."""
    row, replica = a.responses[response], a.replicas[r]
    view, lacking, present = a.views[row[R_VIEW]], a.lacking[of, row[R_VIEW]], a.present[r, of]
    if lacking[V_VERSION] != replica[K_VERSION]:
        resources = units = 0
        for place in range(view[V_AT], view[V_END]):
            if not present[a.cells[place]]:
                resources += a.cell_resources[place]
                units += a.cell_units[place]
        lacking[V_VERSION], lacking[V_RESOURCES], lacking[V_UNITS] = replica[K_VERSION], resources, units
    resources, units = lacking[V_RESOURCES], lacking[V_UNITS]
    if resources and since != 0 and since >= replica[K_TOKEN]:
        whole = size = 0
        for place in range(view[V_AT], view[V_END]):
            whole += a.cell_resources[place] + a.cell_units[place]
        for place in range(view[V_AT], view[V_END]):
            cell = a.cells[place]
            if not present[cell]:
                present[cell] = True
                weight = a.cell_resources[place] + a.cell_units[place]
                a.cell_size[r, of, cell] = weight * row[R_SIZE] // max(1, whole)
                a.cell_held[r, of, cell] = a.cell_resources[place]
                size += a.cell_size[r, of, cell]
        replica[K_BYTES] += size
        replica[K_ENTRIES] += resources
        replica[K_TOKEN] = since
        replica[K_VERSION] += 1
        add_level(a, CACHE, r, now, size)
        add_level(a, ENTRIES, r, now, resources)
    return resources, units
