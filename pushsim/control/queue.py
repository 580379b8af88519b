"""istiod's PushQueue (reference §1.6): first in, first out; one entry per connection; merged in place.

What waits for a connection is an interval of consecutive pushes, from the one that began first to the one that began
last, whichever came first; the oldest Start among them and whether a ProxyUpdate (forced) is among them; one that comes
before the first push is alone, first > last. Flat integers: `first[c]` is NONE
where nothing waits.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

NONE = -1


class Event(NamedTuple):
    """What one connection is to be pushed: pushes first…last merged, oldest Start, forced."""

    connection: int
    first: int
    last: int
    start: int
    forced: int


class PushQueue:
    """The queue of one replica, over all connections of the mesh (it holds those of its own)."""

    def __init__(self, connections: int) -> None:
        self.first = [NONE] * connections
        self.last = [NONE] * connections
        self.start = [0] * connections
        self.forced = [0] * connections
        self.processing = bytearray(connections)
        self.line: deque[int] = deque()
        self.longest = 0

    def __len__(self) -> int:
        return len(self.line)

    def enqueue(self, connection: int, push: int, start: int, forced: int = 0) -> None:
        """A push for a connection: appended, or merged into what waits: oldest Start, newest push, same place."""
        if self.first[connection] == NONE:
            self.first[connection] = max(push, 0)
            self.start[connection] = start
            self.forced[connection] = forced
            if not self.processing[connection]:
                self.line.append(connection)
                if len(self.line) > self.longest:
                    self.longest = len(self.line)
            self.last[connection] = push
        else:
            self.first[connection] = min(self.first[connection], max(push, 0))
            self.last[connection] = max(self.last[connection], push)
            self.forced[connection] |= forced

    def dequeue(self) -> Event:
        """Take the head; it is being processed until `done`."""
        connection = self.line.popleft()
        event = Event(
            connection, self.first[connection], self.last[connection], self.start[connection], self.forced[connection]
        )
        self.first[connection] = NONE
        self.processing[connection] = 1
        return event

    def done(self, connection: int) -> None:
        """Processed: what was merged meanwhile goes to the tail."""
        self.processing[connection] = 0
        if self.first[connection] != NONE:
            self.line.append(connection)

    def drop(self, connection: int) -> None:
        """The connection is gone, and with it all that waits for it."""
        if self.first[connection] != NONE and not self.processing[connection]:
            self.line.remove(connection)
        self.first[connection] = NONE
        self.processing[connection] = 0
