"""What connections are sent, asked of the planner once and entered in the tables."""

from __future__ import annotations

from pushsim.control.queue import Event
from pushsim.control.replica import Replica
from pushsim.control.tally import Plan
from pushsim.kernel.arrays import (
    APIECE,
    FIRST,
    FORCED,
    LAST,
    N_HOME,
    N_KIN,
    N_PUSHING,
    N_STATE,
    NOBODY,
    START,
)
from pushsim.kernel.observing import Observing
from pushsim.kernel.store import SAME
from pushsim.planner import Planned, Spared


class Planning(Observing):
    """`Machine`, as far as it asks what somebody gets."""

    def _plan_for(self, c: int) -> None:
        """Ask what the event that a connection is to take brings it, and enter it in the tables."""
        a, store, conn = self.store.a, self.store, self.store.a.conn[c].tolist()
        first, last, start, forced = (conn[N_PUSHING + column] for column in (FIRST, LAST, START, FORCED))
        home, group, state, kin = conn[N_HOME], self.group_of[c], conn[N_STATE], conn[N_KIN]
        replica, event = self.replicas[home], Event(c, first, last, start, forced)
        planner, common = replica.planner, kin >= 0 and not forced and not a.apart[home, group]
        if common and replica.knobs.eds_debounce:  # else pushes about endpoints may overtake others
            spared = planner.spared(group, state, first, last)
            if spared is not None:
                self._spare(replica, event, kin, spared)
                return
        plan = self._plan(replica, c, event)
        after = plan.planned.state
        shape = self._shape_of(home, group, after, last) if plan.planned.responses else -1
        then = (self._kin(home, group, after), after, shape)
        self._room_to_dwell(shape)
        if common and not store.answers(kin, first, last):
            concerned = planner.concerned(first, last)
            if plan.planned.common and group not in concerned:
                store.add_entry(NOBODY, kin, (first, last, 0), plan.number, then, concerned)
                return
            store.add_entry(NOBODY, kin, (first, last, 0), APIECE, SAME)
        of = state * len(self.replicas) + home
        store.add_entry(group, of, (first, last, forced), plan.number, then)

    def _spare(self, replica: Replica, event: Event, kin: int, spared: Spared) -> None:
        """Enter that all of a kin are spared, and steady ones like them.

        All of these have one plan: that of the first that is asked about.
        """
        store, c, (first, last) = self.store, event.connection, (event.first, event.last)
        group, touched = self.group_of[c], replica.planner.touched(first, last)
        wide = store.wide(replica.number, spared.like)
        if not store.answers(wide, first, last):
            plan = self._plan(replica, c, event)
            assert touched is not None and plan.planned.idle and plan.planned.state == spared.state
            if plan.planned.scope is not None:
                store.take_up(plan, replica.planner.scopes(last), self.prices)
            store.add_entry(NOBODY, wide, (first, last, 0), plan.number, SAME, touched)
        if store.a.wide[kin] != wide:
            assert touched is not None
            state = spared.state
            then = SAME if state == self.state[c] else (self._kin(replica.number, group, state), state, -1)
            store.add_entry(NOBODY, kin, (first, last, 0), store.answer(wide, first, last), then, touched)

    def _kin(self, home: int, group: int, state: int) -> int:
        """The number of those that are like proxies of a group in that state."""
        planner = self.replicas[home].planner
        return self.store.kin(home, planner.alike(group, state), planner.steady(group, state))

    def _priced(self, planned: Planned, replica: Replica, c: int, first: int, last: int) -> Plan:
        plan = super()._priced(planned, replica, c, first, last)
        if not self.rows or planned.idle:
            self._passing[replica.number].append(plan)
        self.store.add_plan(plan, self.prices)
        return plan

    def _room_to_dwell(self, shape: int) -> None:
        self.store._grow("dwell", shape + 1, axis=2)
