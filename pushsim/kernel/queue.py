"""The push queue, and who gets which plan, compiled; the rules are those of `control.queue`."""

from __future__ import annotations

import numpy as np

from pushsim.control.tally import Ints
from pushsim.kernel.arrays import (
    ALL,
    APIECE,
    E_AT,
    E_END,
    E_FIRST,
    E_GROUP,
    E_LAST,
    E_OF,
    E_PLAN,
    FIRST,
    FORCED,
    HAS,
    K_LINE,
    K_LINE_AT,
    K_LONGEST,
    K_MEMBERS,
    KEEP_LOG,
    KIN,
    LAST,
    LOG,
    N_GROUP,
    N_HOME,
    N_KIN,
    N_PROCESSING,
    N_PUSHING,
    N_STATE,
    N_WAITING,
    NOBODY,
    O_FIRST,
    O_LAST,
    O_SENT,
    OUTCOMES,
    P_COUNT,
    P_SCOPE,
    P_SLOTS,
    START,
    UNKNOWN,
    USES,
    X_AT,
    X_GROUP,
    X_PLAN,
    X_QUEUED_AT,
    X_TAKEN,
    Arrays,
)
from pushsim.kernel.parts import copy_row
from pushsim.kernel.struct import called, compiled

#: In place of an entry, besides UNKNOWN: it is none that many share.
OWN = -2


@called
def note(a: Arrays, now: int, kind: int, who: int, first: int, last: int) -> None:
    """`State._note`."""
    if a.s[KEEP_LOG]:
        entry = a.log[a.s[LOG]]
        entry[0], entry[1], entry[2], entry[3], entry[4] = now, kind, who, first, last
        a.s[LOG] += 1


@compiled
def sampled(a: Arrays, samples: Ints, count: int, delay: int, times: int) -> None:
    """So many more samples; equal ones in a row are one entry."""
    at = a.s[count]
    if times == 0:
        return
    if at > 0 and samples[at - 1, 0] == delay:
        samples[at - 1, 1] += times
    else:
        samples[at, 0], samples[at, 1] = delay, times
        a.s[count] += 1


@compiled
def to_tail(a: Arrays, r: int, c: int) -> None:
    """A connection goes to the end of the line."""
    replica = a.replicas[r]
    place = replica[K_LINE_AT] + replica[K_LINE]
    size = a.line.shape[1]
    a.line[r, place if place < size else place - size] = c
    replica[K_LINE] += 1


@compiled
def take(conn: Ints, to: int, of: int) -> None:
    """An event of a connection goes from one place to another."""
    conn[to + HAS], conn[to + FIRST], conn[to + LAST] = conn[of + HAS], conn[of + FIRST], conn[of + LAST]
    conn[to + START], conn[to + FORCED] = conn[of + START], conn[of + FORCED]
    conn[of + HAS] = 0


@compiled
def key_at(a: Arrays, scope: int, row: int, group: int) -> int:
    """The key of a group's scope, of the columns of a plan that tell it."""
    return int(a.taken_up[scope + a.slot_of[row, group]] if row >= 0 else scope)


@compiled
def scope_of(a: Arrays, p: int, group: int) -> int:
    """The key of the scope that a plan makes proxies of a group take up; -1 for none."""
    return key_at(a, a.plans[p, P_SCOPE], a.plans[p, P_SLOTS], group)


@called
def use(a: Arrays, c: int, p: int) -> int:
    """`State._use`: what becomes of the plan is counted in that row."""
    r, group, s = a.conn[c, N_HOME], a.conn[c, N_GROUP], a.s
    u = a.use_of[r, group]
    if u < 0 or a.uses[u, X_PLAN] != p:
        u, at = s[USES], s[OUTCOMES]
        s[USES] += 1
        s[OUTCOMES] += a.plans[p, P_COUNT]
        row = a.uses[u]
        row[X_PLAN], row[X_GROUP], row[X_TAKEN], row[X_QUEUED_AT], row[X_AT] = p, group, 0, -1, at
        for place in range(at, s[OUTCOMES]):
            a.outcomes[place, O_SENT], a.outcomes[place, O_FIRST], a.outcomes[place, O_LAST] = 0, -1, -1
        a.use_of[r, group] = u
    return int(u)


@called
def enqueue(a: Arrays, r: int, c: int, push: int, since: int, forced: int) -> None:
    """`PushQueue.enqueue`."""
    conn = a.conn[c]
    if not conn[N_WAITING + HAS]:
        conn[N_WAITING + HAS], conn[N_WAITING + FIRST], conn[N_WAITING + LAST] = 1, max(push, 0), push
        conn[N_WAITING + START], conn[N_WAITING + FORCED] = since, forced
        if not conn[N_PROCESSING]:
            to_tail(a, r, c)
            if a.replicas[r, K_LINE] > a.replicas[r, K_LONGEST]:
                a.replicas[r, K_LONGEST] = a.replicas[r, K_LINE]
    else:
        merge(conn, push)
        conn[N_WAITING + FORCED] |= forced


@compiled
def merge(conn: Ints, push: int) -> None:
    """A push is merged into what waits for a connection."""
    conn[N_WAITING + FIRST] = min(conn[N_WAITING + FIRST], max(push, 0))
    conn[N_WAITING + LAST] = max(conn[N_WAITING + LAST], push)


@called
def enqueue_all(a: Arrays, now: int, r: int, push: int, begin: int) -> None:
    """`Machine._enqueue_all`."""
    replica, conns, ring, line = a.replicas[r], a.conn, a.ring, a.line[r]
    count = replica[K_MEMBERS]
    members = a.members[r, :count]
    first = np.searchsorted(members, begin)
    at, size = replica[K_LINE_AT] + replica[K_LINE], line.shape[0]
    if at >= size:
        at -= size
    lined = replica[K_LINE]
    for number in range(count):
        place = first + number
        c = ring[members[place if place < count else place - count]]
        conn = conns[c]
        if conn[N_WAITING + HAS]:
            merge(conn, push)
            continue
        conn[N_WAITING + HAS], conn[N_WAITING + FIRST], conn[N_WAITING + LAST] = 1, push, push
        conn[N_WAITING + START], conn[N_WAITING + FORCED] = now, 0
        if not conn[N_PROCESSING]:
            line[at] = c
            at = at + 1 if at + 1 < size else 0
            lined += 1
    replica[K_LINE] = lined
    if lined > replica[K_LONGEST]:
        replica[K_LONGEST] = lined


@called
def slot_of(a: Arrays, group: int, of: int, first: int, last: int, forced: int) -> int:
    """Where the entry of somebody and an interval is in the hash, or is to be."""
    entries, since = a.entries, first * 2 + forced
    size = entries.shape[0]
    spread = (of * 0x9E3779B1 + group * 0x27D4EB2F + since * 0x85EBCA77 + last * 0xC2B2AE3D) & 0xFFFFFFFFFFFF
    at = (spread ^ (spread >> 17)) & (size - 1)
    while True:
        entry = entries[at]
        if entry[E_PLAN] < 0 or (
            entry[E_OF] == of and entry[E_GROUP] == group and entry[E_FIRST] == since and entry[E_LAST] == last
        ):
            return int(at)
        at = (at + 1) & (size - 1)


@called
def rehash(a: Arrays, old: Ints) -> None:
    """Enter all of `old`."""
    for place in range(old.shape[0]):
        entry = old[place]
        at = slot_of(a, entry[E_GROUP], entry[E_OF], entry[E_FIRST] >> 1, entry[E_LAST], entry[E_FIRST] & 1)
        copy_row(a.entries, at, old, place)


@compiled
def common(a: Arrays, kin: int, first: int, last: int, r: int, group: int) -> int:
    """The place of what answers an interval for all of a kin; UNKNOWN if not yet, OWN if it is not for the group."""
    slot = a.last_of[kin]
    if slot < 0 or a.entries[slot, E_FIRST] != first * 2 or a.entries[slot, E_LAST] != last:
        slot = slot_of(a, NOBODY, kin, first, last, 0)
        if a.entries[slot, E_PLAN] < 0:
            return UNKNOWN
        a.last_of[kin] = slot
    if a.entries[slot, E_PLAN] == APIECE or is_concerned(a, slot, kin, r, group):
        return OWN
    return int(slot)


@compiled
def is_concerned(a: Arrays, slot: int, kin: int, r: int, group: int) -> bool:
    """Whether the entry of a kin on a replica does not answer a group."""
    entry, of = a.entries[slot], ALL if a.wide[kin] == kin else KIN
    number, marks = a.concerned[entry[E_AT]], a.marks[of, r]
    if a.marked[of, r] != number:
        a.marked[of, r] = number
        for place in range(entry[E_AT] + 1, entry[E_END]):
            marks[a.concerned[place]] = number
    return bool(marks[group] == number)


@compiled
def shared(a: Arrays, r: int, kin: int, group: int, first: int, last: int) -> int:
    """The place of what answers an interval for one of a kin as for others; UNKNOWN if not yet, OWN if nothing does."""
    wide = a.wide[kin]
    slot = common(a, wide, first, last, r, group) if wide >= 0 else UNKNOWN
    return common(a, kin, first, last, r, group) if slot < 0 else slot


@compiled
def entry_of(a: Arrays, c: int) -> int:
    """Where the entry that answers the event in `pushing` is; -1 if there is none yet."""
    conn = a.conn[c]
    r, group, kin, forced = conn[N_HOME], conn[N_GROUP], conn[N_KIN], conn[N_PUSHING + FORCED]
    first, last = conn[N_PUSHING + FIRST], conn[N_PUSHING + LAST]
    if kin >= 0 and not forced and not a.apart[r, group]:
        slot = shared(a, r, kin, group, first, last)
        if slot != OWN:
            return slot
    slot = slot_of(a, group, conn[N_STATE] * a.cores.shape[0] + r, first, last, forced)
    return int(slot) if a.entries[slot, E_PLAN] >= 0 else UNKNOWN
