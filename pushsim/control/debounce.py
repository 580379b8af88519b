"""istiod's debouncer, exactly as in every release from 1.13 (reference §1.3).

Its peculiarities are the model: the timer is set by the first event of a batch and moved only by ticks; the maximum is
looked at only in ticks; a tick during a running Push is lost, and the end of that Push looks again at once.
"""

from __future__ import annotations

from typing import NamedTuple

from pushsim.control.cores import NEVER


class Batch(NamedTuple):
    """Requests to push together, when the first of them arrived, and whether DEBOUNCE_MAX cut the wait short."""

    requests: tuple[int, ...]
    since: int
    held: bool


class Debouncer:
    """PILOT_DEBOUNCE_AFTER and _MAX. `due` is when it must be ticked, NEVER if it need not."""

    def __init__(self, after_ns: int, max_ns: int) -> None:
        self.after, self.max = after_ns, max_ns
        self.pending: list[int] = []
        self.first = 0
        self.last = 0
        self.free = True
        self.due = NEVER

    def submit(self, now: int, request: int) -> None:
        """A request arrives."""
        self.last = now
        if not self.pending:
            self.first = now
            self.due = now + self.after
        self.pending.append(request)

    def tick(self, now: int) -> Batch | None:
        """The timer fires: the batch to push now, if any. While a Push runs, the tick is lost."""
        self.due = NEVER
        return self._check(now) if self.free else None

    def finished(self, now: int) -> Batch | None:
        """The Push of the last batch has returned: the batch to push next, if any."""
        self.free = True
        return self._check(now)

    def _check(self, now: int) -> Batch | None:
        if not self.pending:
            return None
        quiet = now - self.last >= self.after
        if not quiet and now - self.first < self.max:
            self.due = now + self.after - (now - self.last)
            return None
        batch = Batch(tuple(self.pending), self.first, held=not quiet)
        self.pending.clear()
        self.free = False
        return batch
