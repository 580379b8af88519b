"""CUSTOM policies: an RBAC filter in its shadow mode, and one that asks an external authorizer where that has matched.

Source: pilot/pkg/security/authz/builder/{builder,extauthz}.go. The provider's service is taken to be known: where it is
not, istiod denies what the policies match.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any as Json
from typing import NamedTuple

from envoy_data_plane.envoy.config.core.v3 import (
    ApiVersion,
    GrpcService,
    GrpcServiceEnvoyGrpc,
    HeaderValue,
    HttpUri,
)
from envoy_data_plane.envoy.config.listener.v3 import Filter
from envoy_data_plane.envoy.config.rbac.v3 import Permission, Policy, Principal, Rbac, RbacAction
from envoy_data_plane.envoy.extensions.filters.http.ext_authz.v3 import (
    AuthorizationRequest,
    AuthorizationResponse,
    BufferSettings,
    ExtAuthz,
    HttpService,
)
from envoy_data_plane.envoy.extensions.filters.http.rbac.v3 import Rbac as HttpRbac
from envoy_data_plane.envoy.extensions.filters.network.ext_authz.v3 import ExtAuthz as TcpExtAuthz
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.extensions.filters.network.rbac.v3 import Rbac as TcpRbac
from envoy_data_plane.envoy.type.matcher.v3 import (
    ListStringMatcher,
    MetadataMatcher,
    MetadataMatcherPathSegment,
    StringMatcher,
    ValueMatcher,
)
from envoy_data_plane.envoy.type.v3 import HttpStatus, StatusCode

from pushsim.sizes.settings import Settings
from pushsim.sizes.switches import Sizing
from pushsim.sizes.wire import duration, made, packed

Spec = Mapping[str, Json]
_HTTP_RBAC, _TCP_RBAC = "envoy.filters.http.rbac", "envoy.filters.network.rbac"
_SHADOW = "istio_ext_authz_"
_PREFIX = "istio-ext-authz"
_STATUSES = frozenset(code.value for code in StatusCode)


class Rules(NamedTuple):
    """Policies of one action, as rules that are enforced, and as those of a dry run."""

    enforced: Rbac | None
    shadow: Rbac | None


def http_rbac(config: HttpRbac) -> HttpFilter:
    """An HTTP filter that authorizes."""
    return made(HttpFilter, name=_HTTP_RBAC, typed_config=packed(config, "envoy.extensions.filters.http.rbac.v3.RBAC"))


def tcp_rbac(config: TcpRbac) -> Filter:
    """A network filter that authorizes."""
    return made(Filter, name=_TCP_RBAC, typed_config=packed(config, "envoy.extensions.filters.network.rbac.v3.RBAC"))


def prefix(provider: str, sizing: Sizing) -> str:
    """What names of rules begin with, so that the asking filter knows them."""
    return f"{_PREFIX}-{provider}" if provider and sizing.providers_apart else _PREFIX


def http_filters(custom: Mapping[str, Rules], sizing: Sizing, settings: Settings) -> list[HttpFilter]:
    """HTTP filters of CUSTOM policies, by provider."""
    found = []
    for name, rules in custom.items():
        provider = _provider(name, custom, sizing, settings)
        if provider is None:
            found.append(http_rbac(HttpRbac(rules=_denied(rules, sizing))))
            continue
        shadow, dry = _watched(rules, sizing)
        found.append(http_rbac(HttpRbac(rules=dry, shadow_rules=shadow, shadow_rules_stat_prefix=_SHADOW)))
        config = _http(provider, sizing)
        config.filter_enabled_metadata = _matched(_HTTP_RBAC, name, sizing)
        body = packed(config, "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz")
        found.append(made(HttpFilter, name="envoy.filters.http.ext_authz", typed_config=body))
    return found


def tcp_filters(custom: Mapping[str, Rules], sizing: Sizing, settings: Settings) -> list[Filter]:
    """Network filters of CUSTOM policies, by provider: those that are asked by HTTP are not asked here."""
    found = []
    for name, rules in custom.items():
        provider = _provider(name, custom, sizing, settings)
        if provider is None:
            found.append(tcp_rbac(TcpRbac(rules=_denied(rules, sizing), stat_prefix="tcp.")))
        elif spec := provider.get("envoyExtAuthzGrpc"):
            shadow, dry = _watched(rules, sizing)
            watching = TcpRbac(rules=dry, stat_prefix="tcp.", shadow_rules=shadow, shadow_rules_stat_prefix=_SHADOW)
            config = made(
                TcpExtAuthz,
                stat_prefix="tcp.",
                failure_mode_allow=bool(spec.get("failOpen")),
                transport_api_version=ApiVersion.V3,
                grpc_service=_grpc_service(spec, sizing),
                filter_enabled_metadata=_matched(_TCP_RBAC, name, sizing),
            )
            body = packed(config, "envoy.extensions.filters.network.ext_authz.v3.ExtAuthz")
            found += [tcp_rbac(watching), made(Filter, name="envoy.filters.network.ext_authz", typed_config=body)]
    return found


def _watched(rules: Rules, sizing: Sizing) -> tuple[Rbac | None, Rbac | None]:
    """Rules that are only watched for the asking filter, and those of a dry run beside them."""
    if not sizing.providers_apart:
        return rules.enforced, None
    return rules.enforced or Rbac(
        action=RbacAction.DENY
    ), rules.shadow if rules.shadow and rules.shadow.policies else None


def _denied(rules: Rules, sizing: Sizing) -> Rbac:
    """What becomes of policies that nobody provides for."""
    denying = Rbac(action=RbacAction.DENY)
    if sizing.bad_provider == "all":
        everything = Policy(permissions=[Permission(any=True)], principals=[Principal(any=True)])
        denying.policies["default-deny-all-due-to-bad-CUSTOM-action"] = everything
    elif rules.enforced:
        denying.policies = {
            f"{name}-deny-due-to-bad-CUSTOM-action": policy for name, policy in rules.enforced.policies.items()
        }
    return denying


def _provider(name: str, custom: Mapping[str, Rules], sizing: Sizing, settings: Settings) -> Spec | None:
    """The provider of a name, None if there is none, or if it is not written as it must be."""
    if len(custom) > 1 and not settings.enabled("PILOT_ENABLE_MULTIPLE_CUSTOM_AUTHZ_PROVIDERS", False):
        return None
    mine = [each for each in settings.mesh.get("extensionProviders") or () if each.get("name") == name]
    spec: Spec = (mine[-1].get("envoyExtAuthzHttp") or mine[-1].get("envoyExtAuthzGrpc") or {}) if mine else {}
    if not name or len(mine) > 1 or not spec.get("service") or not 1 <= int(spec.get("port") or 0) <= 65535:
        return None
    if sizing.providers_apart and not re.fullmatch("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name):
        return None
    status, path = str(spec.get("statusOnError") or ""), str(spec.get("pathPrefix") or "")
    if (status and (not status.isdecimal() or int(status) not in _STATUSES)) or (path and not path.startswith("/")):
        return None
    wild = any(
        "*" in (spec.get(field) or ())
        for field in ("includeRequestHeadersInCheck", "includeHeadersInCheck", *_ANSWERED)
    )
    return None if wild else mine[0]


def _matched(rbac: str, provider: str, sizing: Sizing) -> MetadataMatcher:
    """Only where the filter before has found a rule of the provider's."""
    return MetadataMatcher(
        filter=rbac,
        path=[MetadataMatcherPathSegment(key=f"{_SHADOW}shadow_effective_policy_id")],
        value=ValueMatcher(string_match=made(StringMatcher, prefix=prefix(provider, sizing))),
    )


#: Headers of the answer: to whom they go on.
_ANSWERED = {
    "headersToUpstreamOnAllow": "allowed_upstream_headers",
    "headersToDownstreamOnDeny": "allowed_client_headers",
    "headersToDownstreamOnAllow": "allowed_client_headers_on_success",
}


def _http(provider: Spec, sizing: Sizing) -> ExtAuthz:
    spec: Spec = provider.get("envoyExtAuthzHttp") or provider["envoyExtAuthzGrpc"]
    config = made(ExtAuthz, failure_mode_allow=bool(spec.get("failOpen")), transport_api_version=ApiVersion.V3)
    if spec.get("statusOnError"):
        config.status_on_error = HttpStatus(code=StatusCode(int(spec["statusOnError"])))
    if (body := spec.get("includeRequestBodyInCheck")) is not None:
        config.with_request_body = BufferSettings(
            max_request_bytes=int(body.get("maxRequestBytes") or 0),
            allow_partial_message=bool(body.get("allowPartialMessage")),
            pack_as_bytes=bool(body.get("packAsBytes")),
        )
    if "envoyExtAuthzHttp" not in provider:
        config.grpc_service = _grpc_service(spec, sizing)
        return config
    host, cluster = _target(spec)
    uri = HttpUri(uri=f"http://{host}", cluster=cluster, timeout=_timeout(spec))
    service = made(HttpService, path_prefix=str(spec.get("pathPrefix") or ""), server_uri=uri)
    added = [
        HeaderValue(key=key, value=str(value))
        for key, value in (spec.get("includeAdditionalHeadersInCheck") or {}).items()
    ]
    allowed = _headers(spec.get("includeRequestHeadersInCheck") or spec.get("includeHeadersInCheck") or ())
    early = allowed if sizing.checked_headers == "request" else None
    if sizing.checked_headers == "filter":
        config.allowed_headers = allowed
    if added or early:
        service.authorization_request = made(AuthorizationRequest, headers_to_add=added, allowed_headers=early)
    answered = {field: _headers(spec.get(key) or ()) for key, field in _ANSWERED.items()}
    if any(answered.values()):
        service.authorization_response = made(AuthorizationResponse, **answered)
    config.http_service = service
    return config


def _target(spec: Spec) -> tuple[str, str]:
    """Host and cluster of a provider, whose namespace may be named."""
    host = str(spec["service"]).rpartition("/")[2]
    return host, f"outbound|{spec['port']}||{host}"


def _timeout(spec: Spec) -> timedelta:
    return duration(spec["timeout"]) if spec.get("timeout") else timedelta(seconds=600)


def _grpc_service(spec: Spec, sizing: Sizing) -> GrpcService:
    host, cluster = _target(spec)
    authority = host if sizing.provider_authority == "host" else cluster.replace("|", "_.")
    return made(
        GrpcService,
        envoy_grpc=made(GrpcServiceEnvoyGrpc, cluster_name=cluster, authority=authority),
        timeout=_timeout(spec),
    )


def _headers(names: Sequence[Json]) -> ListStringMatcher | None:
    patterns = []
    for name in map(str, names):
        if name.startswith("*"):
            patterns.append(made(StringMatcher, suffix=name[1:], ignore_case=True))
        elif name.endswith("*"):
            patterns.append(made(StringMatcher, prefix=name[:-1], ignore_case=True))
        else:
            patterns.append(made(StringMatcher, exact=name, ignore_case=True))
    return ListStringMatcher(patterns=patterns) if patterns else None
