"""What pushes leave alone: scopes that they do not touch, which the sidecars that have them take up anew anyway.

A push that spares a sidecar makes it take up a new scope that holds what its old one held. So most states need not be
looked at for most pushes: it is enough to know whom a push touches, and what building the scopes of all others costs.
Both are known from what the scopes held before, but for those that the push touches, since a scope changes only by what
concerns it or is held by it, as it was or as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy as shallow
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from pushsim import planner as ask
from pushsim.context import PushContext
from pushsim.memo import same
from pushsim.mesh import ConfigKey, Object
from pushsim.plan import ProxyState, Push, takes_up_scope
from pushsim.planners.importers import Importers
from pushsim.planners.states import Numbers
from pushsim.planners.work import ScopeWork
from pushsim.releases import Rules
from pushsim.requests import PushRequest
from pushsim.visibility import Scope, ScopeKey, Scopes

#: Kinds of which it is known which scopes they concern.
_LOOKED_AT = frozenset({"ServiceEntry", "Endpoints", "VirtualService"})


@dataclass(frozen=True, slots=True)
class _Pushed:
    """A push that nobody has asked about yet: number, request, and the scopes that proxies have before and after it."""

    number: int
    request: PushRequest
    before: Scopes
    after: Scopes


@dataclass(frozen=True, slots=True)
class _Seen:
    """A push that was asked about: which scopes it touches, and all of it; by key, in their order, who has them.

    keys: by group, that of its scope; none of gateways.
    """

    touched: frozenset[ScopeKey]
    groups: Mapping[ScopeKey, Sequence[int]]
    keys: Mapping[int, ScopeKey]
    scopes: ask.Scopes


class Touching:
    """By push, whom it touches, and the scopes of all others.

    Args:
        groups: of the planner.
        labels: by group, its workload labels.
        start: istiod as it starts.
        rules: the release.
        numbers: of the run.
    """

    def __init__(
        self,
        groups: Sequence[ask.Group],
        labels: Sequence[Mapping[str, str]],
        start: Push,
        rules: Rules,
        numbers: Numbers,
    ) -> None:
        self._rules, self._count, self._given = rules, len(groups), numbers
        self._start = self._latest = start.scopes
        self._sidecars = [
            (number, group.proxies[0], told)
            for number, (group, told) in enumerate(zip(groups, labels, strict=True))
            if group.proxies[0].type == "sidecar"
        ]
        # what the scopes of the last push that was looked at hold; None: to be looked up anew
        self._importers: Importers | None = None
        self._slots = np.full(self._count, -1, dtype=np.int32)
        self._works: dict[ScopeKey, ScopeWork | None] = {}  # by slot
        self._groups: dict[ScopeKey, list[int]] = {}  # likewise, who has it: as of that context
        self._keys: dict[int, ScopeKey] = {}  # the same, by group
        self._grouped_by: PushContext | None = None
        self._scope_of: WeakKeyDictionary[Scopes, dict[ScopeKey, ask.Scope]] = WeakKeyDictionary()
        self._pending: list[_Pushed] = []
        self._after: dict[int, Scopes] = {}
        self._seen: dict[int, _Seen | None] = {}  # None: it may be about more than services and routes

    def fork(self, numbers: Numbers, pushes: int = 0) -> Touching:
        """An independent copy, as it was before the push of that number."""
        copy = shallow(self)
        copy._given = numbers
        copy._scope_of = WeakKeyDictionary({scopes: dict(known) for scopes, known in self._scope_of.items()})
        copy._pending = [pushed for pushed in self._pending if pushed.number < pushes]
        copy._after = {number: scopes for number, scopes in self._after.items() if number < pushes}
        copy._seen = {number: seen for number, seen in self._seen.items() if number < pushes}
        copy._latest, copy._importers = copy.after(pushes - 1), None
        return copy

    def pushed(self, number: int, request: PushRequest, made: Push) -> None:
        """A push was made. Not every push that makes scopes makes proxies take them up."""
        after = made.scopes if takes_up_scope(request, self._rules) else self._latest
        self._pending.append(_Pushed(number, request, self._latest, after))
        self._after[number] = self._latest = after

    def after(self, number: int) -> Scopes:
        """The scopes that proxies have which have taken a push; before any, those that istiod starts with."""
        return self._after.get(number, self._start)

    def keep(self, since: int) -> None:
        """Nobody will ask about pushes before this one; later ones that hang on one nobody has asked about are lost."""
        self._after = {number: scopes for number, scopes in self._after.items() if number >= since - 1}
        if self._pending and self._pending[0].number < since:
            self._seen |= dict.fromkeys((pushed.number for pushed in self._pending), None)
            self._pending, self._importers = [], None
        self._seen = {number: seen for number, seen in self._seen.items() if number >= since}

    def touched(self, first: int, last: int) -> set[int] | None:
        """Groups of sidecars whose scopes some of the pushes first…last may touch; None if that is not known."""
        latest, seen = self._look_at_all(last), list(map(self._seen.get, range(first, last)))
        if latest is None or None in seen:
            return None
        scopes = latest.touched.union(*(each.touched for each in seen if each is not None))
        return {group for key in scopes for group in latest.groups.get(key, ())}

    def untouched(self, key: ScopeKey, first: int, last: int) -> bool:
        """Whether the pushes first…last are known not to touch that scope."""
        latest = self._look_at_all(last)
        if latest is None or key not in latest.groups:
            return False
        seen = map(self._seen.get, range(last, first - 1, -1))
        return not any(each is None or key in each.touched for each in seen)

    def spares(self, group: int, first: int, last: int) -> bool:
        """The same of the scope of a group; asking for `touched` takes longer."""
        latest = self._look_at_all(last)
        key = None if latest is None else latest.keys.get(group)
        return key is not None and self.untouched(key, first, last)

    def _look_at_all(self, last: int) -> _Seen | None:
        """That push, when it and all before it are looked at."""
        while self._pending and self._pending[0].number <= last:
            pushed = self._pending.pop(0)
            self._seen[pushed.number] = self._look_at(pushed)
        return self._seen.get(last)

    def scopes(self, push: int) -> ask.Scopes:
        """See `planner.Planner`."""
        seen = self._seen[push]
        assert seen is not None
        return seen.scopes

    def scope(self, scopes: Scopes, key: ScopeKey) -> ask.Scope:
        """A scope of a push, with the work of building it, to be paid by its first user."""
        known = self._scope_of.setdefault(scopes, {})
        return known.get(key) or self._new(known, scopes, key, ScopeWork.of(scopes.at(key)))

    def scope_of(self, state: ProxyState, push: Push) -> ask.Scope:
        """The same, that a proxy takes up."""
        return self.scope(push.scopes, push.scopes.key(state.proxy, state.labels))

    def scope_in(self, group: int, push: int) -> ask.Scope:
        """The same, of the scope that a group takes up in a push that is known not to touch it."""
        seen = self._seen[push]
        assert seen is not None
        made: ask.Scope = seen.scopes.scopes[seen.scopes.slots[group]]
        return made

    def _new(self, known: dict[ScopeKey, ask.Scope], scopes: Scopes, key: ScopeKey, work: ScopeWork) -> ask.Scope:
        number = next(self._given.scopes)
        counts = work.counts(len(scopes.context.services.ordered), self._rules)
        made = known[key] = ask.Scope(number, number if work.sidecar else -1, counts)
        return made

    # ---- from one push to the next

    def _look_at(self, pushed: _Pushed) -> _Seen | None:
        keys = self._changed(pushed)
        if keys is None:
            self._importers = None
            return None
        if self._importers is None:
            self._look_up_all(pushed.before)
        return _Seen(self._touches(pushed, keys), self._groups, self._keys, self._all_scopes(pushed))

    def _look_up_all(self, scopes: Scopes) -> None:
        """What these scopes hold, and which of them each group has: that hangs on Sidecars alone."""
        context, known = scopes.context, self._grouped_by
        if known is None or known.root != context.root or not _are_same_sidecars(known.sidecars, context.sidecars):
            self._grouped_by, self._groups = context, {}
            for number, proxy, labels in self._sidecars:
                self._groups.setdefault(scopes.key(proxy, labels), []).append(number)
            self._keys = {group: key for key, groups in self._groups.items() for group in groups}
            self._slots = np.full(self._count, -1, dtype=np.int32)
            for slot, groups in enumerate(self._groups.values()):
                self._slots[groups] = slot
        self._works, self._importers = dict.fromkeys(self._groups), Importers()
        for key in self._works:
            self._importers.tell(key, scopes.at(key))

    def _changed(self, pushed: _Pushed) -> set[ConfigKey] | None:
        """What has changed, as far as it may concern sidecars; None: it may be more than services and routes."""
        request, rules = pushed.request, self._rules
        if request.everything(rules) or "sidecar" in rules.always_types:
            return None
        keys = {key for key in request.keys if key.kind not in rules.sidecar_ignores}
        if any(key.kind not in _LOOKED_AT or key.kind not in rules.known_kinds for key in keys):
            return None
        old, new = pushed.before.context, pushed.after.context
        if not _are_same_sidecars(old.sidecars, new.sidecars):
            return None
        return keys.union(_changed_services(old, new), _changed_routes(old, new))

    def _touches(self, pushed: _Pushed, keys: set[ConfigKey]) -> frozenset[ScopeKey]:
        importers, before, after = self._importers, pushed.before, pushed.after
        assert importers is not None
        found = set[ScopeKey]()
        delegating = any(route.delegates for route in after.context.routes.routes)
        for key in keys:
            any_scope = delegating and key.kind == "VirtualService"
            candidates = self._works.keys() if any_scope else importers.candidates(key)
            found |= {at for at in candidates - found if any(_is_about(key, of.at(at)) for of in (before, after))}
        if after is not before:
            for at in found:
                importers.tell(at, after.at(at))
                self._works[at] = None
        if self._rules.targets in ("service-or-own", "service-and-own"):  # there, services are looked up again
            found |= {at for at in self._works if at[0] in pushed.request.namespaces}
        return frozenset(found)

    def _all_scopes(self, pushed: _Pushed) -> ask.Scopes:
        """The scopes of a push, by slot."""
        before = self._seen.get(pushed.number - 1)
        if pushed.after is pushed.before and before is not None and before.scopes.slots is self._slots:
            return before.scopes
        known = self._scope_of.setdefault(pushed.after, {})
        made = []
        for key, work in self._works.items():
            if work is None:
                work = self._works[key] = ScopeWork.of(pushed.after.at(key))
            made.append(known.get(key) or self._new(known, pushed.after, key, work))
        return ask.Scopes(tuple(made), self._slots)


def _is_about(key: ConfigKey, scope: Scope) -> bool:
    """Whether a change of this key concerns the proxies of a scope, or changes what the scope holds and spares them."""

    def found() -> bool:
        return bool(scope.depends_on(key)) or (key.kind == "ServiceEntry" and scope.holds(key))

    kin = scope.kin  # which hold the same
    return found() if kin is None else scope.family.memo.once(found, "is about", key, kin)


def _are_same_sidecars(old: Mapping[str, tuple[Object, ...]], new: Mapping[str, tuple[Object, ...]]) -> bool:
    return old is new or (
        old.keys() == new.keys() and all(same(sidecars, new[namespace]) for namespace, sidecars in old.items())
    )


def _changed_services(old: PushContext, new: PushContext) -> set[ConfigKey]:
    """Services that only one of two contexts has: a push may come with more than it names."""
    if old.services.ordered is new.services.ordered:
        return set()
    before, after = ({id(service): service for service in context.services.ordered} for context in (old, new))
    only = before.keys() ^ after.keys()
    changed = (before.get(of) or after[of] for of in only)
    return {ConfigKey("ServiceEntry", service.hostname, service.namespace) for service in changed}


def _changed_routes(old: PushContext, new: PushContext) -> set[ConfigKey]:
    """VirtualServices of which only one of two contexts has this form."""
    if old.routes is new.routes:
        return set()
    before, after = ({id(route): route.key for route in context.routes.routes} for context in (old, new))
    return {before.get(of) or after[of] for of in before.keys() ^ after.keys()}
