"""The machine's state as flat arrays of int64: what compiled code and `KernelMachine` both work on.

An array that can become too small is made anew, larger; the tuple is then another one (see `grown`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pushsim.control.tally import Ints
from pushsim.mesh import XDS

#: Positions in `Arrays.s`, the single numbers.
NOW, WHO, REPLICA, WAKES, WAKED, EXPECTED, FOLLOWING, ASKS, LOG, QUEUED, CONVERGED, SENDS, DETAILS = range(13)
CONSIDERED, PUSHES, REJECTED, LATENCY, REPLY, KEEP_LOG, KEEP_DETAILS, THROTTLE = range(13, 21)
SEED, OPENING, OPENED, REFUSED, USES, OUTCOMES, ACK = range(21, 28)
KEEPALIVE, LOOK_NS, LOOKED = range(28, 31)
#: Columns of an event: whether there is one, its pushes, the oldest Start, whether a ProxyUpdate is among them.
HAS, FIRST, LAST, START, FORCED = range(5)
#: Columns of `Arrays.conn`, a row a connection. Three are events, with the columns above: what waits in the queue, what
#: is being pushed, what is offered. What a push reads and writes is in the first three lines of a cache.
N_WAITING, N_PUSHING, N_OFFERED = 0, 8, 16
N_PHASE, N_PROCESSING, N_CLOSING = 5, 6, 7
N_PLAN, N_STEP, N_ASK_HEAD = 13, 14, 15
N_KIN, N_GROUP, N_HOME = 21, 22, 23
N_WIRED, N_TOOK, N_STATE, N_SHAPE, N_SHAPED_AT, N_GATEWAY, N_USE, N_LOCALITY = range(24, 32)
N_READ_AT, N_READ_BEFORE, N_SLOW, N_NACK, N_ASK_TAIL, N_WAIT_NEXT, N_GENERATION, N_ASKED, N_READABLE = range(32, 41)
N_TO_MAKE, N_YIELDS, N_HEARD, N_LOOKS = range(41, 45)
#: From here on a column for each xDS type: `State.newest`.
N_NEWEST = 45
#: Columns of `Arrays.plans`.
#: The scope is the key of one, -1 for none; with slots, a row of `Arrays.slot_of` (else -1), where
#: those of a push begin in `Arrays.taken_up`.
P_NEEDED, P_FIRST, P_LAST, P_WORK, P_PUSHED, P_COUNT, P_AT, P_SCOPE, P_SLOTS = range(9)
#: Columns of `Arrays.scopes`: whether it is built, how often building it was begun while counting, the work, the lock.
S_BUILT, S_TIMES, S_WORK, S_LOCK = range(4)
#: Columns of `Arrays.missed`, what the cache did not have of a response; `Arrays.used`: how often a plan was begun.
M_RESOURCES, M_UNITS = range(2)
#: Columns of `Arrays.uses`, what became of a plan in a group: its responses are in `Arrays.outcomes` from X_AT on.
X_PLAN, X_GROUP, X_TAKEN, X_QUEUED_AT, X_AT = range(5)
#: Columns of `Arrays.responses`.
R_VIEW, R_XDS, R_SIZE, R_HIT, R_RESOURCE, R_UNIT, R_BYTE, R_PRICED, R_CACHED, R_SHOWS, R_WRITE, R_SPARE = range(12)
R_RENEWS = 12
#: Columns of `Arrays.outcomes`, what became of a response in a group.
O_SENT, O_FIRST, O_LAST = range(3)
#: Columns of `Arrays.entries`: whose (a group in a state, or NOBODY in particular and a kin), an interval, the plan;
#: the kin, state and shape thereafter (-1: as before); and the list in `Arrays.concerned` of groups that it does not
#: answer, which begins with the number of the list.
E_GROUP, E_OF, E_FIRST, E_LAST, E_PLAN, E_KIN, E_STATE, E_SHAPE, E_AT, E_END = range(10)
NOBODY = -1
#: The plan of a kin that has none in common.
APIECE = 1 << 40
#: Columns of `Arrays.views`, and of `Arrays.lacking`: what the cache did not have of a view in some version.
V_AT, V_END = range(2)
V_VERSION, V_RESOURCES, V_UNITS = range(3)
#: Columns of `Arrays.cores`; when a job is due is UNKNOWN after a change.
UNKNOWN = -1
C_NOW, C_CLOCK, C_JOBS, C_HEAD, C_WHOLE, C_PARTS, C_DUE, C_MOST, C_PICKED, C_VACATED, C_SECOND, C_CYCLE = range(12)
C_RESTS_SINCE, C_RESTED, C_WAKE, C_HALF, C_WOKEN, C_LOCKED, C_HOLDER, C_WOKEN_NEXT = range(12, 20)
#: `ended_at_rest` is from the first of these to before the second; then each `Marking` in turn.
C_FAST, C_PER_CYCLE, C_AT_REST, C_AT_REST_END = range(20, 24)
C_USUAL, C_LATE = 24, 27
M_TICKS, M_PACE, M_WORK = range(3)
#: Columns of `Arrays.running`: when it ends by the cores' clock, what is left of it then, when its slice ends.
J_MARK, J_JOB, J_LEFT, J_SLICE = range(4)
#: Columns of `Arrays.line_of`: where a line of `Arrays.lines` begins, and how long it is.
W_AT, W_LONG = range(2)
#: Columns of `Arrays.replicas`.
K_FREE, K_LINE_AT, K_LINE, K_LONGEST, K_TOKEN, K_VERSION, K_BYTES, K_TICK, K_MEMBERS = range(9)
K_UP, K_NEXT, K_GAP, K_ENTRIES = range(9, 13)
#: Columns of `Arrays.marked`: the list whose groups are marked, of what is common to a replica and to a kin.
ALL, KIN = range(2)
#: Columns of `Arrays.levels`; an integral is hi · 10⁹ + mid · 10⁴ + lo.
L_NOW, L_VALUE, L_HIGHEST, L_SINCE, L_HI, L_MID, L_LO = range(7)
#: The levels.
FLIGHT, CACHE, WAITING, SLOTS, SPARE, MAKING, ENTRIES = range(7)


class Arrays(NamedTuple):
    """R replicas, N connections; by connection unless it says otherwise.

    s:        the single numbers. cores, replicas: [R, columns]. levels: [level, R, columns].
    running: [R, places, columns], jobs in the order of their ends, from place C_HEAD on. lines: [line, R, jobs,
    (job, ticks)], rings of those that wait; line_of: [line, R, columns]. spent: [R, seconds]. line: [R, N],
    rings.
    conn:     [N, columns]; kin is the number, over all replicas, of those that are `alike`, -1 if there are none.
    wide:     by kin, the number of all, of whatever kin, that are `steady` alike; -1 if there are none, its own if it
              is such a number itself.
    scopes:   [R, keys, columns]; holder, wait_head, wait_tail: [R, locks].
    slot_of:  [rows, groups], the place of each group's scope among those of a push; taken_up: keys, push after push.
    asks:     [places, (use, step, next)], a list of each connection; free places are a list from s[ASKS].
    wakes:    [wakes, (at, order, kind, who, generation, a, b)], a heap.
    ring:     the order in which connections are enqueued; members: [R, N], places in it, ascending,
              K_MEMBERS of them; -1 while nobody has asked.
    entries:  an open hash, see its columns; last_of: by kin, the entry it took last; apart: [R, groups].
    marks:    [ALL or KIN, R, groups], the last list that each group was in; marked: [ALL or KIN, R], which that is.
    cached:   by type, how many localities' entries it keeps apart, 0 if it keeps none. lacking: [localities, views,
              columns]; present, cell_size, cell_held: [R, localities, cells].
    use_of:   [R, groups], the use that each group took last: a plan may have several of a group.
    log:      [entries, (time, kind, who, first, last)].
    queued, converged: [samples, (delay, times)]; sends: [samples, (response, received, times)];
    details:  [samples, (plan, step, who, sent, converged or -1, received)].
    """

    s: Ints
    cores: Ints
    replicas: Ints
    levels: Ints
    running: Ints
    lines: Ints
    line_of: Ints
    spent: Ints
    line: Ints
    conn: Ints
    scopes: Ints
    taken_up: Ints
    slot_of: Ints
    holder: Ints
    wait_head: Ints
    wait_tail: Ints
    asks: Ints
    wakes: Ints
    ring: Ints
    members: Ints
    entries: Ints
    last_of: Ints
    wide: Ints
    concerned: Ints
    marks: Ints
    marked: Ints
    apart: NDArray[np.bool_]
    plans: Ints
    used: Ints
    responses: Ints
    missed: Ints
    uses: Ints
    use_of: Ints
    outcomes: Ints
    views: Ints
    lacking: Ints
    cells: NDArray[np.int32]
    cell_resources: NDArray[np.int32]
    cell_units: NDArray[np.int32]
    present: NDArray[np.bool_]
    cell_size: Ints
    cell_held: Ints
    cached: Ints
    dwell: Ints
    log: Ints
    queued: Ints
    converged: Ints
    sends: Ints
    details: Ints


def arrays(replicas: int, total: int, groups: int, localities: int, *, log: bool, details: bool) -> Arrays:
    """All as at the beginning; connections are neither here nor there yet."""

    def zeros(*shape: int) -> Ints:
        return np.zeros(shape, dtype=np.int64)

    def unset(*shape: int) -> Ints:
        return np.full(shape, -1, dtype=np.int64)

    jobs = total + 256
    one = total
    made = Arrays(
        s=zeros(32), cores=zeros(replicas, 30), replicas=zeros(replicas, 13), levels=zeros(7, replicas, 7),
        running=zeros(replicas, 64, 4),
        lines=zeros(3, replicas, jobs, 2), line_of=zeros(3, replicas, 2),
        spent=zeros(replicas, 1024), line=zeros(replicas, total + 1), scopes=zeros(replicas, 1024, 4),
        taken_up=zeros(1024), slot_of=zeros(1, groups),
        holder=unset(replicas, 1024), wait_head=unset(replicas, 1024), wait_tail=unset(replicas, 1024),
        asks=zeros(0, 3), wakes=zeros(4096, 7),
        conn=zeros(one, N_NEWEST + len(XDS)), ring=zeros(one), members=zeros(replicas, one),
        entries=unset(1 << 12, 10), last_of=unset(1024), wide=unset(1024), concerned=zeros(1024),
        marks=unset(2, replicas, groups), marked=unset(2, replicas),
        apart=np.zeros((replicas, groups), dtype=np.bool_), plans=zeros(1024, 9), used=zeros(1024),
        responses=zeros(4096, 13), missed=zeros(4096, 2), uses=zeros(4096, 5), use_of=unset(replicas, groups),
        outcomes=zeros(4096, 3), views=zeros(1024, 2),
        lacking=unset(localities, 1024, 3), cells=np.zeros(1024, dtype=np.int32),
        cell_resources=np.zeros(1024, dtype=np.int32), cell_units=np.zeros(1024, dtype=np.int32),
        present=np.zeros((replicas, localities, 1024), dtype=np.bool_), cell_size=zeros(replicas, localities, 1024),
        cell_held=zeros(replicas, localities, 1024),
        cached=zeros(len(XDS)), dwell=zeros(replicas, 2, 64), log=zeros(1 << 16 if log else 1, 5),
        queued=zeros(1 << 18, 2), converged=zeros(1 << 18, 2), sends=zeros(1 << 18, 3),
        details=zeros(1 << 16 if details else 1, 6),
    )  # fmt: skip
    made.s[ASKS] = -1
    for column in (N_PLAN, N_ASK_HEAD, N_KIN, N_HOME, N_STATE, N_SHAPE, N_ASK_TAIL, N_WAIT_NEXT):
        made.conn[:, column] = -1
    made.conn[:, N_NEWEST:] = -1
    made.s[KEEP_LOG], made.s[KEEP_DETAILS] = log, details
    made.replicas[:, K_TICK], made.replicas[:, K_MEMBERS] = 1 << 62, -1
    made.cores[:, C_DUE] = UNKNOWN
    return made


def grown(old: NDArray[np.int64], least: int, axis: int = 0, fill: int = 0) -> NDArray[np.int64]:
    """At least twice as long along an axis, what is new filled."""
    shape = list(old.shape)
    shape[axis] = max(2 * shape[axis], least) - shape[axis]
    return np.concatenate([old, np.full(shape, fill, dtype=old.dtype)], axis=axis)


def begins(lengths: Ints) -> Ints:
    """Where parts of these lengths begin, one after the other."""
    return np.cumsum(lengths) - lengths


def spread(at: Ints, lengths: Ints) -> Ints:
    """The places of parts that begin there and have these lengths, one part after the other."""
    return np.repeat(at - begins(lengths), lengths) + np.arange(lengths.sum())


def renumbered(kept: Ints, count: int) -> Ints:
    """By old number, of so many, the new one if those that are kept are counted anew; -1 for others, and for -1."""
    found = np.full(count + 1, -1, dtype=np.int64)
    found[kept] = np.arange(len(kept))
    return found
