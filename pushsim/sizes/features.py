"""Parts of a VirtualService's route that stand alone: mirrors, faults, CORS.

Source: pilot/pkg/networking/core/route/route.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any as Json

from envoy_data_plane.envoy.config.core.v3 import RuntimeFractionalPercent
from envoy_data_plane.envoy.config.route.v3 import CorsPolicy as RouteCorsPolicy
from envoy_data_plane.envoy.extensions.filters.common.fault.v3 import FaultDelay
from envoy_data_plane.envoy.extensions.filters.http.cors.v3 import CorsPolicy
from envoy_data_plane.envoy.extensions.filters.http.fault.v3 import FaultAbort, HttpFault
from envoy_data_plane.envoy.type.matcher.v3 import RegexMatcher, RegexMatcherGoogleRe2, StringMatcher
from envoy_data_plane.envoy.type.v3 import FractionalPercent, FractionalPercentDenominatorType

from pushsim.sizes.switches import Sizing
from pushsim.sizes.wire import duration, made

Spec = Mapping[str, Json]


def regex(pattern: str, sizing: Sizing) -> RegexMatcher:
    """A regular expression; earlier releases name the engine."""
    return RegexMatcher(regex=pattern, google_re2=RegexMatcherGoogleRe2() if sizing.google_re2 else None)


def string_match(spec: Spec | None, sizing: Sizing) -> StringMatcher | None:
    """A StringMatch, None if it only asks for presence."""
    if not spec or spec.get("regex") == "*":
        return None
    if "exact" in spec:
        return made(StringMatcher, exact=str(spec["exact"]))
    if "prefix" in spec:
        return made(StringMatcher, prefix=str(spec["prefix"]))
    if "regex" in spec:
        return made(StringMatcher, safe_regex=regex(str(spec["regex"]), sizing))
    return None


def _percent(value: float) -> FractionalPercent:
    return FractionalPercent(numerator=int(value * 10000), denominator=FractionalPercentDenominatorType.MILLION)


def mirrors(http: Spec, reads: frozenset[str]) -> list[tuple[Spec, FractionalPercent]]:
    """Where copies of requests go, and what share of them; a release that reads them knows several."""
    whole = FractionalPercent(numerator=100)
    found: list[tuple[Spec, FractionalPercent]] = []
    if http.get("mirror"):
        if http.get("mirrorPercentage") is not None:
            share = float(http["mirrorPercentage"].get("value") or 0)
            found += [(http["mirror"], _percent(share))] if share > 0 else []
        elif http.get("mirrorPercent") is not None:
            share = int(http["mirrorPercent"])
            found += [(http["mirror"], FractionalPercent(numerator=share))] if share > 0 else []
        else:
            found.append((http["mirror"], whole))
    for item in (http.get("mirrors") or ()) if "mirrors" in reads else ():
        share = item.get("percentage")
        percent = whole if share is None else _percent(float(share.get("value") or 0))
        if item.get("destination") and percent.numerator:
            found.append((item["destination"], percent))
    return found


def fault_filter(spec: Spec) -> HttpFault | None:
    """Injected delays and aborts, None if there is neither."""
    fault = made(HttpFault)
    delay, abort = spec.get("delay"), spec.get("abort")
    if delay and delay.get("fixedDelay"):
        share = delay.get("percentage")
        percent = (
            _percent(float(share.get("value") or 0)) if share else FractionalPercent(int(delay.get("percent") or 0))
        )
        fault.delay = FaultDelay(fixed_delay=duration(delay["fixedDelay"]), percentage=percent)
    if abort:
        fault.abort = FaultAbort()
        if abort.get("percentage"):
            fault.abort.percentage = _percent(float(abort["percentage"].get("value") or 0))
        if abort.get("httpStatus"):
            fault.abort.http_status = int(abort["httpStatus"])
        elif abort.get("grpcStatus"):
            fault.abort.grpc_status = 14
    return fault if fault.delay is not None or fault.abort is not None else None


def cors_policy(spec: Spec, sizing: Sizing) -> CorsPolicy:
    """A CORS policy as a filter's own configuration."""
    policy = CorsPolicy(**_cors_fields(spec, sizing))
    if sizing.cors_preflights:
        policy.forward_not_matching_preflights = spec.get("unmatchedPreflights") != "IGNORE"
    return policy


def route_cors(spec: Spec, sizing: Sizing) -> RouteCorsPolicy:
    """A CORS policy as a part of the route, where earlier releases had it."""
    return RouteCorsPolicy(**_cors_fields(spec, sizing))


def _cors_fields(spec: Spec, sizing: Sizing) -> dict[str, Json]:
    origins = [string_match(origin, sizing) for origin in spec.get("allowOrigins") or ()]
    origins += [made(StringMatcher, exact=str(origin)) for origin in spec.get("allowOrigin") or ()]
    fields: dict[str, Json] = {
        "allow_methods": ",".join(spec.get("allowMethods") or ()),
        "allow_headers": ",".join(spec.get("allowHeaders") or ()),
        "expose_headers": ",".join(spec.get("exposeHeaders") or ()),
        "filter_enabled": RuntimeFractionalPercent(default_value=FractionalPercent(numerator=100)),
        "allow_origin_string_match": [origin for origin in origins if origin is not None],
    }
    if spec.get("allowCredentials") is not None:
        fields["allow_credentials"] = bool(spec["allowCredentials"])
    if spec.get("maxAge"):
        fields["max_age"] = str(int(duration(spec["maxAge"]).total_seconds()))
    return fields
