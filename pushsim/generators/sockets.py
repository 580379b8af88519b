"""Outbound listeners by where they listen: services that share an address and a port share one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pushsim.blocks import Block
from pushsim.resources import ANY_ADDRESS, Listener, Source

#: Where a listener listens: bind address and port.
Socket = tuple[str, int]
#: The protocol of a listener that finds out by itself what is spoken.
_SNIFFED = ""
#: Protocols in which servers speak first, which no other may be beside (isConflictWithWellKnownPort).
_SERVER_FIRST = frozenset({"Mongo", "MySQL"})


class Sockets:
    """Outbound listeners in the order of their services: those where services meet, and those of one service alone.

    met:   by socket. alone: by address, the listeners on an address that no other service has.
    """

    def __init__(self) -> None:
        self.met: dict[Socket, list[Listener]] = {}
        self.alone: dict[str, Block] = {}
        self._binds: set[str] = set()

    def add(self, met: Iterable[Listener], alone: Iterable[Block] = ()) -> None:
        """Listeners of later services."""
        for block in alone:
            address = next(listeners_in(block)).bind
            if address in self.alone or address in self._binds:
                self.add(listeners_in(block))
            else:
                self.alone[address] = block
        for listener in met:
            if listener.bind in self.alone:
                self.add(listeners_in(self.alone.pop(listener.bind)))
            self._binds.add(listener.bind)
            self.met.setdefault((listener.bind, listener.port), []).append(listener)

    def joined(self) -> Iterator[Listener]:
        """One listener for each socket where services meet."""
        return map(join, self.met.values())


def listeners_in(block: Block) -> Iterator[Listener]:
    """Those that istiod generates itself."""
    return (resource for resource in block if isinstance(resource, Listener))


def joined(earlier: Listener | None, later: Listener) -> Listener:
    """A listener with what was on its socket before."""
    return later if earlier is None else join([earlier, later])


def join(listeners: list[Listener]) -> Listener:
    """Outbound listeners on one address and port as one: HTTP ones share it, a mix becomes a sniffed one.

    Source: pilot/pkg/networking/core/listener.go (buildSidecarOutboundListener).
    """
    merged, protocol = listeners[:1], _protocol(listeners[0])
    for listener in listeners[1:]:
        incoming = _protocol(listener)
        if listener.kind == "http" and merged[0].kind == "http":
            merged.append(listener)  # its routes alone
        elif listener.kind == "auto" and protocol == _SNIFFED:
            continue
        elif listener.kind == "auto" and merged[0].kind == "http":
            merged, protocol = [listener], _SNIFFED
        elif incoming == protocol or _SERVER_FIRST.isdisjoint((incoming, protocol)):
            protocol = protocol if listener.kind == merged[0].kind else _SNIFFED
            merged.append(listener)
    return _as_one(merged)


def _protocol(listener: Listener) -> str:
    """What is spoken there, as far as later listeners on the same socket are concerned."""
    if listener.kind == "auto" or (listener.kind == "http" and listener.bind == ANY_ADDRESS):
        return _SNIFFED
    return listener.services[0][1].protocol


def _as_one(listeners: list[Listener]) -> Listener:
    first = listeners[0]
    if len(listeners) == 1:
        return first
    kind = first.kind if all(listener.kind == first.kind for listener in listeners) else "auto"
    route = next((listener.route for listener in listeners if listener.route), "")
    services = tuple(pair for listener in listeners for pair in listener.services)
    routing = tuple(dict.fromkeys(written for listener in listeners for written in listener.virtual_services))
    labels = {key: value for listener in listeners for key, value in listener.source.labels}
    namespace = next((listener.source.namespace for listener in listeners if listener.source.namespace), "")
    source = Source(tuple(sorted(labels.items())), namespace)
    rules = {host: of for listener in listeners for host, of in listener.connections}
    cidrs = tuple(pair for listener in listeners for pair in listener.cidrs)
    return Listener(
        first.name, kind, first.bind, first.port, route, services, virtual_services=routing,
        source=source, connections=tuple(rules.items()), cidrs=cidrs, unknown=first.unknown,
    )  # fmt: skip
