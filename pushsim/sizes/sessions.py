"""Sessions: what the virtual host of a Service says whose clients stay with one endpoint."""

from __future__ import annotations

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


def session_length(service: Service, sizing: Sizing, settings: Settings) -> int:
    """What a service's labels add to the length of its virtual host, in bytes; 0 without sessions.

    Source: pilot/pkg/networking/util/util.go (MaybeBuildStatefulSessionFilterConfig).
    """
    known = sizing.session_routes
    if known == "never" or (known == "switched" and not settings.enabled(SWITCH, False)):
        return 0
    labels = dict(service.labels)
    cookie, header = labels.get(SESSION) or "", "" if known == "cookie" else labels.get(SESSION_HEADER) or ""
    return _length(cookie, header, sizing.session_ttl) if cookie or header else 0


@lru_cache(maxsize=1 << 10)
def _length(cookie: str, header: str, aging: bool) -> int:
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
    config = packed(override, "envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute")
    return length(made(VirtualHost, typed_per_filter_config={FILTER: config}))
