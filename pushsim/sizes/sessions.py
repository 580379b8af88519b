"""Sessions: what the virtual host of a Service says whose clients stay with one endpoint."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from functools import lru_cache
from typing import Any

from envoy_data_plane.envoy.config.core.v3 import TypedExtensionConfig
from envoy_data_plane.envoy.config.route.v3 import VirtualHost
from envoy_data_plane.envoy.extensions.filters.http.stateful_session.v3 import StatefulSession, StatefulSessionPerRoute
from envoy_data_plane.envoy.extensions.http.stateful_session.cookie.v3 import CookieBasedSessionState
from envoy_data_plane.envoy.extensions.http.stateful_session.header.v3 import HeaderBasedSessionState
from envoy_data_plane.envoy.type.http.v3 import Cookie

from pushsim.mesh import SESSION, SESSION_HEADER, Service
from pushsim.sizes.settings import Settings
from pushsim.sizes.switches import Sizing
from pushsim.sizes.wire import length, made, packed

#: The switch of istiod's environment; the filter that a virtual host overrides.
SWITCH, FILTER = "PILOT_ENABLE_PERSISTENT_SESSION_FILTER", "envoy.filters.http.stateful_session"
_STATE = "envoy.extensions.http.stateful_session"


#: A cookie with its path, and a header; one of them is empty.
Session = tuple[str, str]


def session_of(service: Service, sizing: Sizing, settings: Settings) -> Session | None:
    """How a service keeps sessions; None if it keeps none, or istiod does not say so.

    Source: pilot/pkg/networking/util/util.go (MaybeBuildStatefulSessionFilterConfig).
    """
    known = sizing.session_routes
    if known == "never" or (known == "switched" and not settings.enabled(SWITCH, False)):
        return None
    labels = dict(service.labels)
    cookie, header = labels.get(SESSION) or "", "" if known == "cookie" else labels.get(SESSION_HEADER) or ""
    return (cookie, header) if cookie or header else None


def sessions_of(services: Iterable[Service], sizing: Sizing, settings: Settings) -> tuple[tuple[str, Session], ...]:
    """By host, those of the services that keep sessions."""
    if not settings.enabled(SWITCH, False):
        return ()
    found = ((service.hostname, session_of(service, sizing, settings)) for service in services)
    return tuple((host, session) for host, session in found if session is not None)


def session_length(service: Service, sizing: Sizing, settings: Settings) -> int:
    """What a service's labels add to the length of its virtual host, in bytes; 0 without sessions."""
    session = session_of(service, sizing, settings)
    return 0 if session is None else _length(session, sizing.session_ttl)


def first_session(sessions: Iterable[Session | None]) -> Session | None:
    """Which of its destinations' sessions a route keeps: the first, unless one without follows."""
    found: Session | None = None
    for session in sessions:
        if session is not None and found is not None:
            break
        found = session
    return found


@lru_cache(maxsize=1 << 10)
def _length(session: Session, aging: bool) -> int:
    return length(made(VirtualHost, typed_per_filter_config={FILTER: session_filter(session, aging)}))


def session_filter(session: Session, aging: bool) -> Any:
    """The filter's configuration, packed, as virtual hosts and routes have it."""
    cookie, header = session
    state: Any
    if cookie:
        kind, (name, _, path) = "cookie", cookie.partition(":")
        crumb = Cookie(name=name, path=path if ":" in cookie else "/", ttl=timedelta(minutes=2) if aging else None)
        state = packed(made(CookieBasedSessionState, cookie=crumb), f"{_STATE}.cookie.v3.CookieBasedSessionState")
    else:
        kind = "header"
        state = packed(made(HeaderBasedSessionState, name=header), f"{_STATE}.header.v3.HeaderBasedSessionState")
    told = TypedExtensionConfig(name=f"envoy.http.stateful_session.{kind}", typed_config=state)
    override = made(StatefulSessionPerRoute, stateful_session=made(StatefulSession, session_state=told))
    return packed(override, "envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute")
