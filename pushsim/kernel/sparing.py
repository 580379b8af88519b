"""What there is most of, compiled: connections that are sent nothing end, and the next are dequeued.

One loop instead of `finish`, `pushed`, `dispatch` and `fill`, with what changes each time held apart from the arrays.
"""

from __future__ import annotations

from pushsim.control.cores import SECOND, TICKS
from pushsim.control.state import DEQUEUED, IDLE, PUSHING, SERVING, SPARED
from pushsim.kernel.arrays import (
    ALL,
    C_CLOCK,
    C_DUE,
    C_HEAD,
    C_JOBS,
    C_NOW,
    C_PARTS,
    C_RESTED,
    C_RESTS_SINCE,
    C_SECOND,
    C_VACATED,
    C_WHOLE,
    CONSIDERED,
    E_KIN,
    E_OF,
    E_PLAN,
    E_STATE,
    FIRST,
    FORCED,
    HAS,
    J_JOB,
    J_LEFT,
    J_MARK,
    J_SLICE,
    K_FREE,
    K_LINE,
    K_LINE_AT,
    KEEP_LOG,
    L_VALUE,
    LAST,
    LOG,
    N_ASK_HEAD,
    N_CLOSING,
    N_GROUP,
    N_KIN,
    N_OFFERED,
    N_PHASE,
    N_PLAN,
    N_PROCESSING,
    N_PUSHING,
    N_STATE,
    N_STEP,
    N_WAITING,
    NOW,
    P_COUNT,
    P_NEEDED,
    P_SCOPE,
    P_SLOTS,
    P_WORK,
    QUEUED,
    S_BUILT,
    START,
    UNKNOWN,
    WAITING,
    Arrays,
)
from pushsim.kernel.cores import advance, insert, mark_of, time_for
from pushsim.kernel.parts import add_level, copy_row
from pushsim.kernel.queue import key_at, note, sampled, scope_of, shared
from pushsim.kernel.struct import compiled


@compiled
def spare(a: Arrays, r: int, before: int, margin: int) -> bool:
    """Let spared connections of a replica end, one by one, and the next begin, as long as there is no more to it.

    Nothing but ends of its jobs is due before `before`. True if one has ended, at s[NOW], and its slot is to be given
    to somebody about whom there is more to say, or to nobody: that event is to be ended with `dispatch` and `fill`.
    """
    s, core, replica, waiting = a.s, a.cores[r], a.replicas[r], a.levels[WAITING, r]
    conns, plans, running, line, apart = a.conn, a.plans, a.running[r], a.line[r], a.apart[r]
    head, jobs, clock, now = core[C_HEAD], core[C_JOBS], core[C_CLOCK], core[C_NOW]
    wanted, whole, second_ends = jobs * core[C_PARTS], core[C_WHOLE], (core[C_SECOND] + 1) * SECOND
    at, lined, size, kept = replica[K_LINE_AT], replica[K_LINE], line.shape[0], s[KEEP_LOG] != 0
    room = a.queued.shape[0] - s[QUEUED] - margin
    if kept:
        room = min(room, (a.log.shape[0] - s[LOG] - margin) // 2)
    worked, count, slice_ends, open_ended = 0, 0, 0, False
    # the plan of those that begin, what they have in common and how many have it; a delay, and how many had that
    p, ticks, taken, begun, delay, times = 0, 0, 0, 0, 0, 0
    known_first, known_last, known_since, marks, marked = UNKNOWN, 0, 0, a.marks[ALL, r], 0
    known_wide, known_scope, row, wides, scopes = UNKNOWN, -1, -1, a.wide, a.scopes[r]
    while jobs > 0 and count < room:
        job = running[head, J_JOB]
        c = job & 0xFFFFFFFF
        conn = conns[c]
        plan = plans[conn[N_PLAN]]
        if job >> 32 != SERVING or running[head, J_LEFT] or plan[P_COUNT] or plan[P_NEEDED]:
            break
        if conn[N_CLOSING] or conn[N_ASK_HEAD] >= 0 or conn[N_OFFERED + HAS]:
            break
        due = now + time_for(running[head, J_MARK] - clock, wanted, whole)
        if due >= before:
            break
        if due > now:
            if count:
                add_level(a, WAITING, r, now, lined - waiting[L_VALUE])
            if due < second_ends:
                if wanted <= whole:
                    clock += TICKS * (due - now)
                    worked += (due - now) * wanted
                else:
                    clock += TICKS * (due - now) * whole // wanted
                    worked += (due - now) * whole
            else:
                a.spent[r, core[C_SECOND]] += worked
                core[C_NOW], core[C_CLOCK], worked = now, clock, 0
                advance(a, r, due)
                clock, second_ends = core[C_CLOCK], (core[C_SECOND] + 1) * SECOND
            now = due
        # it ends
        count += 1
        slice_ends = running[head, J_SLICE]
        head += 1
        jobs -= 1
        conn[N_PUSHING + HAS] = conn[N_PROCESSING] = 0
        conn[N_PHASE] = IDLE
        if kept:
            note(a, now, SPARED, c, conn[N_PUSHING + FIRST], conn[N_PUSHING + LAST])
        if conn[N_WAITING + HAS]:
            place = at + lined
            line[place if place < size else place - size] = c
            lined += 1
        open_ended = True
        if lined == 0 or slice_ends <= clock:
            break
        # the next begins, on the same core
        c = line[at]
        conn = conns[c]
        first, last, since = conn[N_WAITING + FIRST], conn[N_WAITING + LAST], conn[N_WAITING + START]
        group = conn[N_GROUP]
        if conn[N_PHASE] != IDLE or conn[N_WAITING + FORCED] or conn[N_KIN] < 0 or apart[group]:
            break
        wide = wides[conn[N_KIN]]
        if (
            (first != known_first or last != known_last or since != known_since)
            or wide != known_wide
            or marks[group] == marked
        ):
            slot = shared(a, r, conn[N_KIN], group, first, last)
            if slot < 0:
                break
            entry = a.entries[slot]
            plan = plans[entry[E_PLAN]]
            scope = scope_of(a, entry[E_PLAN], group)
            if plan[P_COUNT] or plan[P_NEEDED] or (scope >= 0 and not scopes[scope, S_BUILT]):
                break
            if entry[E_STATE] >= 0:
                conn[N_STATE], conn[N_KIN] = entry[E_STATE], entry[E_KIN]
            a.used[p] += taken
            p, taken, ticks = entry[E_PLAN], 0, TICKS * max(1, plan[P_WORK])
            known_scope, row = plan[P_SCOPE], plan[P_SLOTS]
            known_first = UNKNOWN
            if entry[E_OF] == wide:  # it answers all whose groups are not marked
                known_first, known_last, known_since, marked = first, last, since, a.marked[ALL, r]
                known_wide = wide
        elif known_scope >= 0 and not scopes[key_at(a, known_scope, row, group), S_BUILT]:
            break
        open_ended = False
        at = at + 1 if at + 1 < size else 0
        lined -= 1
        taken += 1
        begun += 1
        if now - since != delay:
            sampled(a, a.queued, QUEUED, delay, times)
            delay, times = now - since, 0
        times += 1
        if kept:
            note(a, now, DEQUEUED, c, first, last)
        conn[N_WAITING + HAS], conn[N_PUSHING + HAS], conn[N_PUSHING + FIRST] = 0, 1, first
        conn[N_PUSHING + LAST], conn[N_PUSHING + START], conn[N_PUSHING + FORCED] = last, since, 0
        conn[N_PROCESSING], conn[N_PHASE], conn[N_PLAN], conn[N_STEP] = 1, PUSHING, p, 0
        mark, left = mark_of(core, clock, ticks, slice_ends)
        if head + jobs == running.shape[0]:
            for place in range(jobs):
                copy_row(running, place, running, head + place)
            head = 0
        insert(running, head, jobs, mark, SERVING << 32 | c, left, slice_ends)
        jobs += 1
    if count:
        s[CONSIDERED] += begun
        a.used[p] += taken
        sampled(a, a.queued, QUEUED, delay, times)
        a.spent[r, core[C_SECOND]] += worked
        core[C_HEAD], core[C_JOBS], core[C_CLOCK], core[C_NOW], core[C_DUE] = head, jobs, clock, now, UNKNOWN
        core[C_VACATED], core[C_RESTS_SINCE], core[C_RESTED] = slice_ends if open_ended else 0, now, clock
        replica[K_LINE_AT], replica[K_LINE], s[NOW] = at, lined, now
        if open_ended:
            replica[K_FREE] += 1
        else:
            add_level(a, WAITING, r, now, lined - waiting[L_VALUE])
    return open_ended
