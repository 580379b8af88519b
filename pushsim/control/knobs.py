"""istiod's knobs, by Istio's own names, with the defaults of its release and size (reference §1.3, §1.7, §2.1, §7)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pushsim.environment import flag, number, problems
from pushsim.errors import InputError
from pushsim.mesh import Xds
from pushsim.units import duration

#: By the first release they hold for: PILOT_PUSH_THROTTLE and PILOT_MAX_REQUESTS_PER_SECOND; 0 is automatic
#: (istio#48438, istio#35046, istio#37094).
_LIMITS: Mapping[tuple[int, int], tuple[int, int]] = {(1, 12): (100, 100), (1, 13): (100, 25), (1, 21): (0, 0)}

#: grpc-go pings no more often than that, and so often if the interval is 0 (KeepaliveMinServerPingTime,
#: defaultServerKeepaliveTime).
_LEAST_KEEPALIVE_NS, _KEEPALIVE_NS = 1_000_000_000, 7200_000_000_000

#: istiod's environment variables that these knobs are: what is pushed to whom hangs on none of them.
NAMES = frozenset(
    {
        "PILOT_DEBOUNCE_AFTER",
        "PILOT_DEBOUNCE_MAX",
        "PILOT_ENABLE_EDS_DEBOUNCE",
        "PILOT_PUSH_THROTTLE",
        "PILOT_MAX_REQUESTS_PER_SECOND",
        "PILOT_ENABLE_XDS_CACHE",
        "PILOT_XDS_CACHE_SIZE",
        "PILOT_ENABLE_CDS_CACHE",
        "PILOT_ENABLE_RDS_CACHE",
        "GRPC_KEEPALIVE_INTERVAL",
    }
)


@dataclass(frozen=True, slots=True)
class Knobs:
    """What shapes the control plane's timing.

    debounce_after_ns, debounce_max_ns, eds_debounce: the debouncer.
    throttle: pushes at once (slots). streams_per_s: new streams admitted a second. cached: types with an xDS cache.
    cache_entries: of each type at most (XDSCacheMaxSize).
    keepalive_ns: the silence after which a stream is pinged (keepaliveInterval).
    """

    debounce_after_ns: int = 100_000_000
    debounce_max_ns: int = 10_000_000_000
    eds_debounce: bool = True
    throttle: int = 20
    streams_per_s: int = 20
    cached: frozenset[Xds] = frozenset({"CDS", "EDS", "RDS", "SDS"})
    cache_entries: int = 60_000
    keepalive_ns: int = 30_000_000_000


def knobs(release: str, cpus: float, env: Mapping[str, str]) -> Knobs:
    """The knobs of an istiod of that release with that many cores and environment. Raises InputError."""
    if wrong := problems({name: text for name, text in env.items() if name in NAMES}):
        raise InputError(wrong)
    major, minor = (int(part) for part in release.split("-")[0].split(".")[:2])
    known = [entry for entry in _LIMITS if entry <= (major, minor)]
    throttle, streams = _LIMITS[max(known)] if known else _LIMITS[min(_LIMITS)]
    automatic = min(15 + 5 * max(1, math.ceil(cpus)), 100)
    cached: set[Xds] = set()
    if _flag(env, "PILOT_ENABLE_XDS_CACHE", True):
        cached |= {"EDS", "SDS"}
        if _flag(env, "PILOT_ENABLE_CDS_CACHE", True):
            cached.add("CDS")
        if _flag(env, "PILOT_ENABLE_RDS_CACHE", True):
            cached.add("RDS")
    return Knobs(
        debounce_after_ns=_duration(env, "PILOT_DEBOUNCE_AFTER", 100_000_000),
        debounce_max_ns=_duration(env, "PILOT_DEBOUNCE_MAX", 10_000_000_000),
        eds_debounce=_flag(env, "PILOT_ENABLE_EDS_DEBOUNCE", True),
        throttle=_count(env, "PILOT_PUSH_THROTTLE", throttle) or automatic,
        streams_per_s=_count(env, "PILOT_MAX_REQUESTS_PER_SECOND", streams) or automatic,
        cached=frozenset(cached),
        cache_entries=_count(env, "PILOT_XDS_CACHE_SIZE", 60_000) or 20_000,
        keepalive_ns=max(
            _LEAST_KEEPALIVE_NS, _duration(env, "GRPC_KEEPALIVE_INTERVAL", 30_000_000_000) or _KEEPALIVE_NS
        ),
    )


def _duration(env: Mapping[str, str], name: str, default: int) -> int:
    return duration(env[name]) if env.get(name) else default


def _flag(env: Mapping[str, str], name: str, default: bool) -> bool:
    return flag(env[name]) if env.get(name) else default


def _count(env: Mapping[str, str], name: str, default: int) -> int:
    return round(number(env[name])) if env.get(name) else default
