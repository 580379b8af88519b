"""What there is of each host: in istiod's indexes, and in the copies of them that pushes hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, overload

from pushsim.mesh import Endpoint

Host = tuple[str, str]  # host name, namespace

_T = TypeVar("_T")
_Default = TypeVar("_Default")


class Hosts(dict[str, _T]):
    """What a namespace has, by host name; never changed, so that `Memo` can remember what is made of it."""


class ByHost(Mapping[Host, _T]):
    """Something by host. What a namespace has is one object as long as it stays as it is, in copies, too."""

    __slots__ = ("_of", "_sums")

    def __init__(self, of: ByHost[_T] | None = None) -> None:
        self._of: dict[str, Hosts[_T]] = dict(of._of) if of is not None else {}
        # by amount and namespace: true of whoever has that object
        self._sums: dict[tuple[Callable[[_T], int], str], tuple[Hosts[_T], int]] = of._sums if of is not None else {}

    def copy(self) -> ByHost[_T]:
        """An independent copy."""
        return ByHost(self)

    def of(self, namespace: str) -> Hosts[_T] | None:
        """What there is in a namespace, by host name."""
        return self._of.get(namespace)

    def sum(self, amount: Callable[[_T], int]) -> int:
        """The sum of an amount over what there is of every host; it is remembered by function."""
        found = 0
        for namespace, of in self._of.items():
            known = self._sums.get((amount, namespace))
            if known is None or known[0] is not of:
                known = self._sums[amount, namespace] = of, sum(map(amount, of.values()))
            found += known[1]
        return found

    def put(self, host: Host, value: _T) -> None:
        """That is what there is of a host from now on."""
        name, namespace = host
        self._of[namespace] = Hosts({**self._of.get(namespace, {}), name: value})

    def drop(self, host: Host) -> None:
        """There is nothing of a host any more."""
        name, namespace = host
        left = Hosts((other, value) for other, value in self._of.get(namespace, {}).items() if other != name)
        if left:
            self._of[namespace] = left
        else:
            self._of.pop(namespace, None)

    def changed(self, before: ByHost[_T]) -> set[str]:
        """Namespaces that have something else than before."""
        if self is before:
            return set()
        return {of for of in self._of.keys() | before._of.keys() if self._of.get(of) is not before._of.get(of)}

    def __getitem__(self, host: Host) -> _T:
        return self._of[host[1]][host[0]]

    @overload
    def get(self, host: Host, /) -> _T | None: ...

    @overload
    def get(self, host: Host, /, default: _T | _Default) -> _T | _Default: ...

    def get(self, host: Host, /, default: Any = None) -> Any:
        """What there is of a host."""
        of = self._of.get(host[1])
        return default if of is None else of.get(host[0], default)

    def __iter__(self) -> Iterator[Host]:
        return ((name, namespace) for namespace, of in self._of.items() for name in of)

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))


#: Endpoints by service, then shard (`Kubernetes` or `External`).
Shards = ByHost[Mapping[str, tuple[Endpoint, ...]]]
