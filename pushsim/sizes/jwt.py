"""RequestAuthentication as Envoy's JWT filter.

Source: pilot/pkg/security/authn/policy_applier.go (convertToEnvoyJwtConfig). Keys that istiod fetches are not known
here: a rule with only a jwksUri counts with istiod's own placeholder key set, which it sends until it has the real one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any as Json

from envoy_data_plane.envoy.config.core.v3 import DataSource
from envoy_data_plane.envoy.config.route.v3 import RouteMatch
from envoy_data_plane.envoy.extensions.filters.http.jwt_authn.v3 import (
    JwtAuthentication,
    JwtClaimToHeader,
    JwtHeader,
    JwtProvider,
    JwtProviderNormalizePayload,
    JwtRequirement,
    JwtRequirementAndList,
    JwtRequirementOrList,
    RequirementRule,
)
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.google.protobuf import Empty

from pushsim.mesh import Object
from pushsim.sizes.switches import Sizing
from pushsim.sizes.wire import blob, framed, made, packed, text

#: Length of the key set that stands in for one that cannot be fetched (pilot/pkg/model/jwks_resolver.go, FakeJwks).
PLACEHOLDER_KEYS = 450


def http_filters(policies: Sequence[Object], sizing: Sizing, *, gateway: bool) -> list[HttpFilter]:
    """The JWT filter of the policies that apply, none without rules.

    gateway: requests are routed by claims too, so what was decided without them is forgotten (clear route cache).
    """
    rules = [rule for policy in policies for rule in policy.spec.get("jwtRules") or ()]
    rules.sort(key=lambda rule: str(rule.get("issuer") or ""))
    if not rules:
        return []
    providers = {f"origins-{index}": _provider(rule, sizing, gateway=gateway) for index, rule in enumerate(rules)}
    named = [JwtRequirement(provider_name=name) for name in providers]
    lenient = [
        JwtRequirement(requires_any=JwtRequirementOrList(requirements=[one, JwtRequirement(allow_missing=Empty())]))
        for one in named
    ]
    requirement = lenient[0]
    if len(lenient) > 1:
        every = JwtRequirement(requires_all=JwtRequirementAndList(requirements=lenient))
        requirement = JwtRequirement(requires_any=JwtRequirementOrList(requirements=[*named, every]))
    config = JwtAuthentication(
        providers=providers,
        rules=[RequirementRule(match=made(RouteMatch, prefix="/"), requires=requirement)],
        bypass_cors_preflight=True,
    )
    body = packed(config, "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication")
    found = [made(HttpFilter, name="envoy.filters.http.jwt_authn", typed_config=body)]
    if sizing.jwt_filter == "istio_authn":
        # FilterConfig {policy = 1 {origins = 4 {jwt = 1 {issuer = 1}}, two switches}, switches}: no Python type
        switches = 2 if gateway else 4
        origins = sum(framed(framed(text(len(str(rule.get("issuer") or ""))))) for rule in rules)
        own = blob("istio.envoy.config.filter.http.authn.v2alpha1.FilterConfig", framed(origins + 4) + switches)
        found.append(made(HttpFilter, name="istio_authn", typed_config=own))
    return found


def _provider(rule: Mapping[str, Json], sizing: Sizing, *, gateway: bool) -> JwtProvider:
    keys = str(rule.get("jwks") or "") or "k" * PLACEHOLDER_KEYS
    issuer = str(rule.get("issuer") or "")
    provider = JwtProvider(
        issuer=issuer,
        audiences=[str(audience) for audience in rule.get("audiences") or ()],
        forward=bool(rule.get("forwardOriginalToken")),
        forward_payload_header=str(rule.get("outputPayloadToHeader") or ""),
        payload_in_metadata="payload" if sizing.jwt_filter == "jwt_authn" else issuer,
        local_jwks=DataSource(inline_string=keys),
        from_headers=[
            JwtHeader(name=str(header.get("name")), value_prefix=str(header.get("prefix") or ""))
            for header in rule.get("fromHeaders") or ()
        ],
        from_params=[str(name) for name in rule.get("fromParams") or ()],
        from_cookies=[str(name) for name in rule.get("fromCookies") or () if sizing.jwt_cookies],
        claim_to_headers=[
            JwtClaimToHeader(header_name=str(item.get("header")), claim_name=str(item.get("claim")))
            for item in rule.get("outputClaimToHeaders") or ()
            if sizing.claim_headers
        ],
    )
    if sizing.jwt_filter == "jwt_authn":
        provider.clear_route_cache = gateway
        listed = map(str, rule.get("spaceDelimitedClaims") or ()) if sizing.claims_as_lists else ()
        claims = sorted({"permission", "scope", *listed})
        provider.normalize_payload_in_metadata = JwtProviderNormalizePayload(space_delimited_claims=claims)
    return provider
