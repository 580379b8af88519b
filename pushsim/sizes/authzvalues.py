"""What AuthorizationPolicies match with: names with a `*`, paths, addresses, ports, principals of a JWT.

Source: pilot/pkg/security/authz: matcher, model/{generator,util}.go.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_interface

from envoy_data_plane.envoy.config.core.v3 import CidrRange, TypedExtensionConfig
from envoy_data_plane.envoy.extensions.path.match.uri_template.v3 import UriTemplateMatchConfig
from envoy_data_plane.envoy.type.matcher.v3 import OrMatcher, StringMatcher, ValueMatcher

from pushsim.sizes.features import regex
from pushsim.sizes.switches import Sizing
from pushsim.sizes.wire import made, packed

_URI_TEMPLATE = "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig"


class SkippedError(Exception):
    """What cannot be said here: conditions nobody knows, values that make no sense, and HTTP in TCP chains."""


def issuer_and_subject(value: str, sizing: Sizing) -> tuple[StringMatcher, StringMatcher]:
    """What is asked of both; only one end of the whole may have a `*` (requestPrincipalGenerator)."""
    anything = made(StringMatcher, safe_regex=regex(".+", sizing))
    if value == "*":
        return anything, anything
    issuer, slash, subject = value.rpartition("/")
    if value.startswith("*"):
        if not slash:
            return anything, made(StringMatcher, suffix=value[1:])
        return anything if issuer == "*" else made(StringMatcher, suffix=issuer[1:]), made(StringMatcher, exact=subject)
    if value.endswith("*"):
        if not slash:
            return made(StringMatcher, prefix=value[:-1]), anything
        return made(StringMatcher, exact=issuer), string(subject, sizing)
    if not slash:
        issuer, subject = value, ""
    return made(StringMatcher, exact=issuer), made(StringMatcher, exact=subject)


def string(value: str, sizing: Sizing, *, prefix: str = "", ignore_case: bool = False) -> StringMatcher:
    """A value with an optional `*` at either end (authz/matcher/string.go)."""
    if value == "*":
        return made(StringMatcher, safe_regex=regex(".+", sizing))
    if value.startswith("*") and prefix:
        rest = quoted(value[1:]) if sizing.quotes == "all" else value[1:]
        return made(StringMatcher, safe_regex=regex(f"{prefix}.*{rest}", sizing))
    if value.startswith("*"):
        return made(StringMatcher, suffix=value[1:], ignore_case=ignore_case)
    if value.endswith("*"):
        return made(StringMatcher, prefix=prefix + value[:-1], ignore_case=ignore_case)
    return made(StringMatcher, exact=prefix + value, ignore_case=ignore_case)


def domain(value: str, sizing: Sizing) -> StringMatcher:
    """A trust domain (srcTrustDomainGenerator)."""
    if value == "*":
        return made(StringMatcher, prefix="spiffe://")
    before, star, after = value.partition("*")
    if not star:
        return made(StringMatcher, prefix=f"spiffe://{value}/")
    return made(StringMatcher, safe_regex=regex(f"spiffe://{quoted(before)}[^/]*{quoted(after)}/.*", sizing))


def template(path: str) -> TypedExtensionConfig:
    """A path with `{*}` for a segment and `{**}` for any number of them (matcher/template.go)."""
    plain = path.replace("{*}", "*").replace("{**}", "**")
    return TypedExtensionConfig(
        name="uri-template", typed_config=packed(UriTemplateMatchConfig(path_template=plain), _URI_TEMPLATE)
    )


def any_of(matchers: Sequence[ValueMatcher]) -> ValueMatcher:
    """Whether any of several matches."""
    return matchers[0] if len(matchers) == 1 else ValueMatcher(or_match=OrMatcher(value_matchers=[*matchers]))


def quoted(text: str) -> str:
    """Go's regexp.QuoteMeta."""
    return re.sub(r"([\\.+*?()|\[\]{}^$])", r"\\\1", text)


def bracketed(key: str) -> list[str]:
    """The names in brackets of a key: `request.auth.claims[a][b]`."""
    found = re.findall(r"\[([^\]]*)\]", key)
    if not found:
        raise SkippedError
    return found


def port_number(port: str) -> int:
    """A port."""
    if not port.isdecimal() or int(port) > 65535:
        raise SkippedError
    return int(port)


def cidr(value: str) -> CidrRange:
    """An address or a range of them."""
    try:
        found = ip_interface(value)
    except ValueError:
        raise SkippedError from None
    return CidrRange(address_prefix=str(found.ip), prefix_len=found.network.prefixlen)
