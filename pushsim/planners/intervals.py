"""What pushes were asked for, one by one and several in a row as one."""

from __future__ import annotations

from pushsim.releases import Rules
from pushsim.requests import PROXY_UPDATE, PushRequest

#: A ProxyUpdate for the proxy that it is asked about.
_UPDATE = PushRequest(forced=True, reasons=frozenset({PROXY_UPDATE}))


class Intervals:
    """Requests of pushes, by number, and the changes in them.

    Args:
        rules: the release.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._requests: list[PushRequest] = []
        self._changes: list[tuple[int, ...]] = []
        self._merged: dict[tuple[int, int], PushRequest] = {}

    def add(self, request: PushRequest, changes: tuple[int, ...]) -> int:
        """A push is made of that merged request; its number."""
        self._requests.append(request)
        self._changes.append(changes)
        return len(self._requests) - 1

    def fork(self, pushes: int) -> Intervals:
        """An independent copy, of so many pushes."""
        copy = Intervals(self._rules)
        copy._requests, copy._changes = self._requests[:pushes], self._changes[:pushes]
        return copy

    def keep(self, push: int) -> None:
        """Nobody will ask about intervals that end before that push."""
        self._merged = {key: request for key, request in self._merged.items() if key[1] >= push}

    def changes(self, first: int, last: int) -> tuple[int, ...]:
        """The changes in the pushes first…last, each once."""
        return tuple(dict.fromkeys(change for of in self._changes[first : last + 1] for change in of))

    def request(self, first: int, last: int, forced: bool = False) -> PushRequest:
        """The requests of these pushes as one; `forced`: a ProxyUpdate is among them, alone if first > last."""
        if first > last:
            return _UPDATE
        if (first, last) not in self._merged:
            request = self._requests[first]
            for later in self._requests[first + 1 : last + 1]:
                request = request.merge(later, self._rules)
            self._merged[first, last] = request
        merged = self._merged[first, last]
        return merged.merge(_UPDATE, self._rules) if forced else merged
