"""AuthorizationPolicy as RBAC filters, HTTP and TCP.

Source: pilot/pkg/security/authz: builder/builder.go, model/{model,generator,permission,principal}.go, matcher.
A rule that reads HTTP is left out of TCP chains of an ALLOW policy; a DENY policy keeps what TCP can tell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any as Json

from envoy_data_plane.envoy.config.core.v3 import CidrRange
from envoy_data_plane.envoy.config.listener.v3 import Filter
from envoy_data_plane.envoy.config.rbac.v3 import (
    Permission,
    PermissionSet,
    Policy,
    Principal,
    PrincipalAuthenticated,
    PrincipalSet,
    Rbac,
    RbacAction,
)
from envoy_data_plane.envoy.config.route.v3 import HeaderMatcher
from envoy_data_plane.envoy.extensions.filters.http.rbac.v3 import Rbac as HttpRbac
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.extensions.filters.network.rbac.v3 import Rbac as TcpRbac
from envoy_data_plane.envoy.type.matcher.v3 import (
    ListMatcher,
    MetadataMatcher,
    MetadataMatcherPathSegment,
    OrMatcher,
    PathMatcher,
    StringMatcher,
    ValueMatcher,
)

from pushsim.mesh import Object
from pushsim.sizes.features import regex
from pushsim.sizes.releases import Sizing
from pushsim.sizes.settings import ANYTHING
from pushsim.sizes.wire import made, packed

Spec = Mapping[str, Json]
_ACTIONS = {"AUDIT": RbacAction.LOG, "DENY": RbacAction.DENY, "ALLOW": RbacAction.ALLOW}
_ORDER = ("AUDIT", "DENY", "ALLOW")
_JWT = "envoy.filters.http.jwt_authn"


class HttpOnlyError(Exception):
    """The rule reads HTTP, the chain is TCP."""


def http_filters(policies: Sequence[Object], sizing: Sizing) -> list[HttpFilter]:
    """HTTP filters of the policies that apply: AUDIT, DENY, ALLOW."""
    found = []
    for enforced, shadow in _built(policies, sizing, tcp=False):
        config = HttpRbac(rules=enforced, shadow_rules=shadow, shadow_rules_stat_prefix=_prefix(shadow))
        body = packed(config, "envoy.extensions.filters.http.rbac.v3.RBAC")
        found.append(made(HttpFilter, name="envoy.filters.http.rbac", typed_config=body))
    return found


def tcp_filters(policies: Sequence[Object], sizing: Sizing) -> list[Filter]:
    """Network filters of the policies that apply."""
    found = []
    for enforced, shadow in _built(policies, sizing, tcp=True):
        config = TcpRbac(
            rules=enforced, stat_prefix="tcp.", shadow_rules=shadow, shadow_rules_stat_prefix=_prefix(shadow)
        )
        body = packed(config, "envoy.extensions.filters.network.rbac.v3.RBAC")
        found.append(made(Filter, name="envoy.filters.network.rbac", typed_config=body))
    return found


def _prefix(shadow: Rbac | None) -> str:
    action = shadow.action if shadow else RbacAction.ALLOW
    return {RbacAction.ALLOW: "istio_dry_run_allow_", RbacAction.DENY: "istio_dry_run_deny_"}.get(action, "")


def _built(policies: Sequence[Object], sizing: Sizing, *, tcp: bool) -> list[tuple[Rbac | None, Rbac | None]]:
    found = []
    for name in _ORDER:
        mine = [p for p in policies if str(p.spec.get("action") or "ALLOW") == name]
        if not mine:
            continue
        action = _ACTIONS[name]
        dry = [p for p in mine if p.annotations.get("istio.io/dry-run") == "true"]
        wet = [p for p in mine if p not in dry]
        found.append((_rules(wet, action, sizing, tcp), _rules(dry, action, sizing, tcp)))
    return found


def _rules(policies: Sequence[Object], action: RbacAction, sizing: Sizing, tcp: bool) -> Rbac | None:
    if not policies:
        return None
    rules = Rbac(action=action)
    for policy in policies:
        name = f"ns[{policy.ref.namespace}]-policy[{policy.ref.name}]-rule"
        written = policy.spec.get("rules") or ()
        for index, rule in enumerate(written):
            try:
                rules.policies[f"{name}[{index}]"] = _Rule(rule or {}, sizing, tcp, action is RbacAction.ALLOW).policy()
            except HttpOnlyError:
                continue
        if not written:
            never = Permission(not_rule=Permission(any=True))
            rules.policies[f"{name}[0]"] = Policy(
                permissions=[never], principals=[Principal(not_id=Principal(any=True))]
            )
    return rules


class _Rule:
    """One rule of a policy: who (from), what (to), when."""

    def __init__(self, rule: Spec, sizing: Sizing, tcp: bool, strict: bool) -> None:
        self.rule, self.sizing, self.tcp, self.strict = rule, sizing, tcp, strict

    def policy(self) -> Policy:
        when = list(self.rule.get("when") or ())
        what = [w for w in when if w["key"].startswith(("destination.", "connection.", "experimental.envoy"))]
        who = [w for w in when if w not in what]
        permissions = [self._permission(item.get("operation") or {}, what) for item in self.rule.get("to") or ANYTHING]
        principals = [self._principal(item.get("source") or {}, who) for item in self.rule.get("from") or ANYTHING]
        return Policy(permissions=permissions, principals=principals)

    def _http(self) -> bool:
        """Whether HTTP can be read here; raises where leaving it out would allow too much."""
        if self.tcp and self.strict:
            raise HttpOnlyError
        return not self.tcp

    # ---- what

    def _permission(self, operation: Spec, when: Sequence[Spec]) -> Permission:
        parts: list[Permission] = []
        for key, negated, kind in (
            ("hosts", "notHosts", "host"), ("methods", "notMethods", "method"),
            ("paths", "notPaths", "path"), ("ports", "notPorts", "port"),
        ):  # fmt: skip
            parts += self._permissions(kind, operation.get(key) or (), operation.get(negated) or ())
        for item in when:
            parts += self._permissions(str(item["key"]), item.get("values") or (), item.get("notValues") or ())
        return Permission(and_rules=PermissionSet(rules=parts or [Permission(any=True)]))

    def _permissions(self, kind: str, values: Sequence[Json], negated: Sequence[Json]) -> list[Permission]:
        found = []
        for wanted, inverted in ((values, False), (negated, True)):
            one_of = [p for value in wanted if (p := self._what(kind, str(value))) is not None]
            if one_of:
                either = Permission(or_rules=PermissionSet(rules=one_of))
                found.append(Permission(not_rule=either) if inverted else either)
        return found

    def _what(self, kind: str, value: str) -> Permission | None:
        if kind in ("host", "method", "path"):
            if not self._http():
                return None
            if kind == "path":
                return Permission(url_path=PathMatcher(path=_string(value, self.sizing)))
            name = ":authority" if kind == "host" else ":method"
            return Permission(header=self._header(name, value, ignore_case=kind == "host"))
        if kind in ("port", "destination.port"):
            return Permission(destination_port=int(value))
        if kind == "destination.ip":
            return Permission(destination_ip=_cidr(value))
        if kind == "connection.sni":
            return Permission(requested_server_name=_string(value, self.sizing))
        return None

    def _header(self, name: str, value: str, *, ignore_case: bool = False) -> HeaderMatcher:
        if value == "*":
            return HeaderMatcher(name=name, present_match=True)
        if not self.sizing.header_string_match and not ignore_case:
            if value.startswith("*"):
                return HeaderMatcher(name=name, suffix_match=value[1:])
            if value.endswith("*"):
                return HeaderMatcher(name=name, prefix_match=value[:-1])
            return HeaderMatcher(name=name, exact_match=value)
        return HeaderMatcher(name=name, string_match=_string(value, self.sizing, ignore_case=ignore_case))

    # ---- who

    def _principal(self, source: Spec, when: Sequence[Spec]) -> Principal:
        parts: list[Principal] = []
        for key, negated, kind in (
            ("principals", "notPrincipals", "source.principal"),
            ("requestPrincipals", "notRequestPrincipals", "request.auth.principal"),
            ("namespaces", "notNamespaces", "source.namespace"),
            ("serviceAccounts", "notServiceAccounts", "source.serviceAccount"),
            ("remoteIpBlocks", "notRemoteIpBlocks", "remote.ip"),
            ("ipBlocks", "notIpBlocks", "source.ip"),
        ):
            parts += self._principals(kind, source.get(key) or (), source.get(negated) or ())
        for item in when:
            parts += self._principals(str(item["key"]), item.get("values") or (), item.get("notValues") or ())
        return Principal(and_ids=PrincipalSet(ids=parts or [Principal(any=True)]))

    def _principals(self, kind: str, values: Sequence[Json], negated: Sequence[Json]) -> list[Principal]:
        found = []
        for wanted, inverted in ((values, False), (negated, True)):
            either = self._claims(kind, [str(v) for v in wanted]) if kind.startswith("request.auth") else None
            if either is None:
                one_of = [p for value in wanted if (p := self._who(kind, str(value))) is not None]
                either = Principal(or_ids=PrincipalSet(ids=one_of)) if one_of else None
            if either is not None:
                found.append(Principal(not_id=either) if inverted else either)
        return found

    def _who(self, kind: str, value: str) -> Principal | None:
        if kind == "source.principal":
            return _authenticated(_string(value, self.sizing, prefix="spiffe://"))
        if kind == "source.namespace":
            pattern = value.replace("*", ".*")
            return _authenticated(made(StringMatcher, safe_regex=regex(f".*/ns/{pattern}/.*", self.sizing)))
        if kind == "source.serviceAccount":
            return _authenticated(made(StringMatcher, exact=f"spiffe://cluster.local/ns/{value.replace('/', '/sa/')}"))
        if kind == "source.ip":
            return Principal(direct_remote_ip=_cidr(value))
        if kind == "remote.ip":
            return Principal(remote_ip=_cidr(value))
        if kind.startswith("request.headers"):
            return Principal(header=self._header(_bracketed(kind)[0], value)) if self._http() else None
        return None

    def _claims(self, kind: str, values: Sequence[str]) -> Principal | None:
        """Principals of a JWT; principals are pairs of issuer and subject, claims are lists."""
        if not values or not self._http():
            return None
        if self.sizing.jwt_filter == "istio_authn":
            return Principal(or_ids=PrincipalSet(ids=[self._istio_claim(kind, value) for value in values]))
        if kind == "request.auth.principal":
            pairs = [_issuer_and_subject(value, self.sizing) for value in values]
            both = [
                Principal(
                    and_ids=PrincipalSet(
                        ids=[Principal(metadata=self._claim("iss", i)), Principal(metadata=self._claim("sub", s))]
                    )
                )
                for i, s in pairs
            ]
            return both[0] if len(both) == 1 else Principal(or_ids=PrincipalSet(ids=both))
        claims = {"request.auth.audiences": ["aud"], "request.auth.presenter": ["azp"]}.get(kind) or _bracketed(kind)
        one_of = [ValueMatcher(string_match=_string(value, self.sizing)) for value in values]
        wanted = one_of[0] if len(one_of) == 1 else ValueMatcher(or_match=OrMatcher(value_matchers=one_of))
        path = [MetadataMatcherPathSegment(key=key) for key in ("payload", *claims)]
        # a claim may be one value or a list of them
        either = OrMatcher(value_matchers=[ValueMatcher(list_match=ListMatcher(one_of=wanted)), wanted])
        return Principal(metadata=MetadataMatcher(filter=_JWT, path=path, value=ValueMatcher(or_match=either)))

    def _istio_claim(self, kind: str, value: str) -> Principal:
        """A claim as Istio's own filter published it: single values as strings, claims as lists."""
        match = ValueMatcher(string_match=_string(value, self.sizing))
        keys = [kind.partition("[")[0], *_bracketed(kind)]
        if len(keys) > 1:
            match = ValueMatcher(list_match=ListMatcher(one_of=match))
        path = [MetadataMatcherPathSegment(key=key) for key in keys]
        return Principal(metadata=MetadataMatcher(filter="istio_authn", path=path, value=match))

    @staticmethod
    def _claim(name: str, match: StringMatcher) -> MetadataMatcher:
        path = [MetadataMatcherPathSegment(key=key) for key in ("payload", name)]
        return MetadataMatcher(filter=_JWT, path=path, value=ValueMatcher(string_match=match))


def _issuer_and_subject(value: str, sizing: Sizing) -> tuple[StringMatcher, StringMatcher]:
    anything = made(StringMatcher, safe_regex=regex(".+", sizing))
    if value == "*":
        return anything, anything
    issuer, slash, subject = value.rpartition("/")
    if not slash:
        if value.startswith("*"):
            return anything, made(StringMatcher, suffix=value[1:])
        if value.endswith("*"):
            return made(StringMatcher, prefix=value[:-1]), anything
        return made(StringMatcher, exact=value), made(StringMatcher, exact="")
    return _string(issuer, sizing), _string(subject, sizing)


def _string(value: str, sizing: Sizing, *, prefix: str = "", ignore_case: bool = False) -> StringMatcher:
    """A value with an optional `*` at either end (authz/matcher/string.go)."""
    if value == "*":
        return made(StringMatcher, safe_regex=regex(".+", sizing))
    if value.startswith("*") and prefix:
        return made(StringMatcher, safe_regex=regex(f"{prefix}.*{_quoted(value[1:])}", sizing))
    if value.startswith("*"):
        return made(StringMatcher, suffix=value[1:], ignore_case=ignore_case)
    if value.endswith("*"):
        return made(StringMatcher, prefix=prefix + value[:-1], ignore_case=ignore_case)
    return made(StringMatcher, exact=prefix + value, ignore_case=ignore_case)


def _quoted(text: str) -> str:
    """Go's regexp.QuoteMeta."""
    return re.sub(r"([\\.+*?()|\[\]{}^$])", r"\\\1", text)


def _authenticated(name: StringMatcher) -> Principal:
    return Principal(authenticated=PrincipalAuthenticated(principal_name=name))


def _bracketed(key: str) -> list[str]:
    return re.findall(r"\[([^\]]*)\]", key)


def _cidr(value: str) -> CidrRange:
    prefix, _, bits = value.partition("/")
    return CidrRange(address_prefix=prefix, prefix_len=int(bits or (128 if ":" in prefix else 32)))
