"""AuthorizationPolicies that no recording has, in the lengths of istiod's own expectations (authz/builder/testdata)."""

from __future__ import annotations

from typing import Any

import pytest

from pushsim.mesh import Object, Ref
from pushsim.sizes import rbac
from pushsim.sizes.releases import sizing_of
from pushsim.sizes.settings import Settings
from pushsim.sizes.wire import length

SERVICE = "foo/my-custom-ext-authz.foo.svc.cluster.local"
CHOSEN = ["x-prefix-*", "*-suffix"]
GRPC = {
    "service": SERVICE, "port": 9000, "timeout": "0.002s", "failOpen": True, "statusOnError": "403",
    "includeRequestBodyInCheck": {"maxRequestBytes": 4096, "allowPartialMessage": True},
}  # fmt: skip
HTTP = {
    "service": SERVICE, "port": 9000, "timeout": "10s", "failOpen": True, "statusOnError": "403",
    "pathPrefix": "/check",
    "includeRequestHeadersInCheck": ["x-custom-id", *CHOSEN],
    "includeHeadersInCheck": ["should-not-include-when-IncludeRequestHeadersInCheck-is-set"],
    "includeAdditionalHeadersInCheck": {"x-header-1": "value-1", "x-header-2": "value-2"},
    "includeRequestBodyInCheck": {"maxRequestBytes": 2048, "allowPartialMessage": True, "packAsBytes": True},
    "headersToUpstreamOnAllow": ["Authorization", *CHOSEN],
    "headersToDownstreamOnDeny": ["Set-cookie", *CHOSEN],
    "headersToDownstreamOnAllow": ["Set-cookie", *CHOSEN],
}  # fmt: skip
PROVIDERS = {"grpc": {"envoyExtAuthzGrpc": GRPC}, "http": {"envoyExtAuthzHttp": HTTP}}


def policy(name: str, spec: dict[str, Any]) -> Object:
    """A policy of the namespace foo."""
    return Object(Ref("AuthorizationPolicy", "foo", name), {"spec": spec})


def custom(number: int, provider: str = "default") -> Object:
    """A policy that has a provider asked about a path."""
    rules = [{"to": [{"operation": {"paths": [f"/httpbin{number}"]}}]}]
    return policy(f"httpbin-{number}", {"action": "CUSTOM", "provider": {"name": provider}, "rules": rules})


def http_length(release: str, *policies: Object, env: dict[str, str] | None = None, **mesh: Any) -> int:
    """Length of all HTTP filters of policies."""
    found = rbac.http_filters(policies, sizing_of(release), Settings(mesh, env or {}))
    return sum(map(length, found))


@pytest.mark.parametrize(
    ("provider", "lengths"), [("grpc", (642, 624, 648)), ("http", (879, 880, 904)), ("", (152, 336, 352))]
)
def test_custom_providers(provider: str, lengths: tuple[int, ...]) -> None:
    providers = [{"name": "default", **PROVIDERS[provider]}] if provider else []
    for release, expected in zip(("1.17", "1.24", "1.30"), lengths, strict=True):
        assert http_length(release, custom(1), custom(2), extensionProviders=providers) == expected


def test_several_providers_are_refused_unless_istiod_is_told_otherwise() -> None:
    providers = [{"name": name, **PROVIDERS["grpc"]} for name in ("a", "b")]
    both = custom(1, "a"), custom(2, "b")
    told = {"PILOT_ENABLE_MULTIPLE_CUSTOM_AUTHZ_PROVIDERS": "true"}
    alone = sum(http_length("1.30", each, extensionProviders=providers) for each in both)
    assert http_length("1.30", *both, env=told, extensionProviders=providers) == alone
    assert http_length("1.30", *both, extensionProviders=providers) == sum(http_length("1.30", each) for each in both)


def test_a_provider_that_is_asked_by_http_is_not_asked_in_tcp() -> None:
    for kind, asked in (("grpc", 2), ("http", 0)):
        settings = Settings({"extensionProviders": [{"name": "default", **PROVIDERS[kind]}]}, {})
        assert len(rbac.tcp_filters([custom(1)], sizing_of("1.24"), settings)) == asked


def test_trust_domains_of_a_source() -> None:
    source = [
        {"source": {"trustDomains": ["cluster.local", "another.local"]}},
        {"source": {"notTrustDomains": ["bad*", "untrusted"]}},
    ]
    assert http_length("1.30", policy("httpbin", {"rules": [{"from": source}]})) == 304


@pytest.mark.parametrize(("release", "expected"), [("1.14", 369), ("1.17", 486), ("1.24", 361)])
def test_principals_in_all_trust_domains(release: str, expected: int) -> None:
    asked = {"key": "source.principal", "values": ["*", "*/ns/foo/sa/all-td", "*-td/ns/foo/sa/prefix-td"]}
    rules = [{"from": [{"source": {"namespaces": ["istio-system"]}}], "when": [asked]}]
    written = policy("httpbin", {"rules": rules})
    aliases = ["old-td", "some-trustdomain"]
    assert http_length(release, written, trustDomain="new-td", trustDomainAliases=aliases) == expected
