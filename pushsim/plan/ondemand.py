"""Types that proxies ask for on demand, by the names that their clusters and listeners hold, and how istiod answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pushsim.blocks import Block
from pushsim.mesh import Xds
from pushsim.plan.state import Response, Watch
from pushsim.releases import Rules

Names = frozenset[str]


@dataclass(frozen=True, slots=True)
class Service:
    """How istiod serves a type to one proxy.

    found:      the resources there are of some names.
    empty_sent: an answer without anything in it is sent, too.
    removes:    delta takes back what there is not.
    like_pushes: answers to who only gave up some cannot be told from pushes, so recordings have them as such.
    """

    xds: Xds
    rules: Rules
    delta: bool
    found: Callable[[Iterable[str]], Block]
    empty_sent: bool
    removes: bool
    like_pushes: bool = False

    def asked(self, watch: Watch, now: Names) -> tuple[Watch, tuple[Response, ...]]:
        """What becomes of a subscription when the proxy wants these names, and istiod's answer.

        The first request, and with SotW any until something was answered, is one for all; later ones are answered with
        what is new, until 1.14 with all (SotW). Who gives up all of a type has no subscription any more with SotW.
        """
        if now == watch.names:
            return watch, ()
        if not now and not self.delta:
            return Watch(), ()
        first = not watch.open or not (self.delta or watch.answered)
        whole = first or (self.rules.answers_all and not self.delta)
        new = now - watch.names
        if not (first or new or self.delta or self.rules.answers_gone):
            return Watch(now, True, watch.answered), ()
        answer = self.response(now if whole else new, solicited=True, whole=True)
        if answer is None:
            return Watch(now, True, watch.answered), ()
        if not (first or answer.removed or (answer.count and (new or not self.like_pushes))):
            answer = Response(answer.xds, answer.blocks)
        return Watch(now, True, True), (answer,)

    def response(self, names: Iterable[str], *, whole: bool, solicited: bool = False) -> Response | None:
        """A response about these names; whole: not only about those of them that changed."""
        asked = frozenset(names)
        block = self.found(sorted(asked))
        gone = asked - {resource.name for resource in block} if self.delta and self.removes and whole else ()
        if not len(block) and not self.empty_sent:
            return None
        return Response(self.xds, (block,), tuple(sorted(gone)), solicited)
