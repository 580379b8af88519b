"""AuthorizationPolicy as RBAC filters, HTTP and TCP.

Source: pilot/pkg/security/authz: builder/builder.go, model/{model,generator,permission,principal}.go, matcher.
A rule that reads HTTP is left out of TCP chains of an ALLOW policy; a DENY policy keeps what TCP can tell.
CUSTOM policies are rules too, which tell a filter that asks elsewhere when to do so (extauthz.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any as Json
from typing import TypeVar

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
    FilterStateMatcher,
    ListMatcher,
    MetadataMatcher,
    MetadataMatcherPathSegment,
    OrMatcher,
    PathMatcher,
    StringMatcher,
    ValueMatcher,
)

from pushsim.mesh import Object, truth
from pushsim.sizes import authzvalues as said
from pushsim.sizes import extauthz, trust
from pushsim.sizes.extauthz import Rules
from pushsim.sizes.features import regex
from pushsim.sizes.settings import ANYTHING, Settings
from pushsim.sizes.switches import Sizing
from pushsim.sizes.wire import made

Spec = Mapping[str, Json]
_Kind = TypeVar("_Kind")
_Written = TypeVar("_Written")
_ACTIONS = {"AUDIT": RbacAction.LOG, "DENY": RbacAction.DENY, "ALLOW": RbacAction.ALLOW}
_JWT = "envoy.filters.http.jwt_authn"
_METADATA = "experimental.envoy.filters."


def http_filters(policies: Sequence[Object], sizing: Sizing, settings: Settings) -> list[HttpFilter]:
    """HTTP filters of the policies that apply: CUSTOM before, then AUDIT, DENY, ALLOW."""
    found = extauthz.http_filters(_custom(policies, sizing, settings, tcp=False), sizing, settings)
    for enforced, shadow in _built(policies, sizing, settings, tcp=False):
        config = HttpRbac(rules=enforced, shadow_rules=shadow, shadow_rules_stat_prefix=_prefix(shadow))
        found.append(extauthz.http_rbac(config))
    return found


def tcp_filters(policies: Sequence[Object], sizing: Sizing, settings: Settings) -> list[Filter]:
    """Network filters of the policies that apply."""
    found = extauthz.tcp_filters(_custom(policies, sizing, settings, tcp=True), sizing, settings)
    for enforced, shadow in _built(policies, sizing, settings, tcp=True):
        config = TcpRbac(
            rules=enforced, stat_prefix="tcp.", shadow_rules=shadow, shadow_rules_stat_prefix=_prefix(shadow)
        )
        found.append(extauthz.tcp_rbac(config))
    return found


def _prefix(shadow: Rbac | None) -> str:
    action = shadow.action if shadow else RbacAction.ALLOW
    return {RbacAction.ALLOW: "istio_dry_run_allow_", RbacAction.DENY: "istio_dry_run_deny_"}.get(action, "")


def _built(policies: Sequence[Object], sizing: Sizing, settings: Settings, *, tcp: bool) -> list[Rules]:
    found = []
    for name, action in _ACTIONS.items():
        mine = [p for p in policies if str(p.spec.get("action") or "ALLOW") == name]
        if mine:
            found.append(_rules(mine, action, sizing, settings, tcp))
    return found


def _custom(policies: Sequence[Object], sizing: Sizing, settings: Settings, *, tcp: bool) -> Mapping[str, Rules]:
    """Rules of CUSTOM policies by provider; where these are not told apart, nobody provides for several."""
    found: dict[str, list[Object]] = {}
    for policy in policies:
        if policy.spec.get("action") == "CUSTOM":
            found.setdefault(str((policy.spec.get("provider") or {}).get("name") or ""), []).append(policy)
    if len(found) > 1 and not sizing.providers_apart:
        found = {"": [policy for of in found.values() for policy in of]}
    return {
        name: _rules(of, RbacAction.DENY, sizing, settings, tcp, f"{extauthz.prefix(name, sizing)}-")
        for name, of in sorted(found.items())
    }


def _rules(
    policies: Sequence[Object], action: RbacAction, sizing: Sizing, settings: Settings, tcp: bool, prefix: str = ""
) -> Rules:
    dry = [policy for policy in policies if truth(policy.annotations.get("istio.io/dry-run"), False)]
    wet = [policy for policy in policies if policy not in dry]
    domains = trust.domains(settings)
    return Rules(*(_rbac(of, action, sizing, domains, tcp, prefix) if of else None for of in (wet, dry)))


def _rbac(
    policies: Sequence[Object], action: RbacAction, sizing: Sizing, domains: Sequence[str], tcp: bool, prefix: str
) -> Rbac:
    rules = Rbac(action=action)
    for policy in policies:
        namespace = policy.ref.namespace
        name = f"{prefix}ns[{namespace}]-policy[{policy.ref.name}]-rule"
        written = policy.spec.get("rules") or ()
        for index, rule in enumerate(written):
            try:
                built = _Rule(rule or {}, namespace, sizing, domains, tcp, action is RbacAction.ALLOW).policy()
            except said.SkippedError:
                continue
            rules.policies[f"{name}[{index}]"] = built
        if not written:
            never = Permission(not_rule=Permission(any=True))
            rules.policies[f"{name}[0]"] = Policy(
                permissions=[never], principals=[Principal(not_id=Principal(any=True))]
            )
    return rules


class _Rule:
    """One rule of a policy of a namespace: who (from), what (to), when.

    strict: what cannot be said leaves out the whole rule, which would allow too much without it.
    """

    def __init__(
        self, rule: Spec, namespace: str, sizing: Sizing, domains: Sequence[str], tcp: bool, strict: bool
    ) -> None:
        self.rule, self.namespace, self.sizing, self.domains = rule, namespace, sizing, domains
        self.tcp, self.strict = tcp, strict

    def policy(self) -> Policy:
        what: list[Spec] = []
        who: list[Spec] = []
        for item in self.rule.get("when") or ():
            (what if self._of_what(str(item.get("key") or "")) else who).append(item)
        permissions = [self._permission(item.get("operation") or {}, what) for item in self.rule.get("to") or ANYTHING]
        principals = [self._principal(item.get("source") or {}, who) for item in self.rule.get("from") or ANYTHING]
        return Policy(permissions=permissions, principals=principals)

    def _of_what(self, key: str) -> bool:
        """Whether a condition is about what is asked for, not about who does; raises where it is unknown."""
        if key in ("destination.ip", "destination.port", "connection.sni") or key.startswith(_METADATA):
            return True
        known = {
            "source.ip", "remote.ip", "source.namespace", "source.principal", "request.auth.principal",
            "request.auth.audiences", "request.auth.presenter", *self.sizing.more_sources,
        }  # fmt: skip
        if key in known or key.startswith(("request.headers", "request.auth.claims")):
            return False
        raise said.SkippedError

    def _said(self, make: Callable[[str, _Written], _Kind], kind: str, written: _Written) -> tuple[_Kind, ...]:
        """What is made of something written, nothing where that cannot be said here."""
        try:
            return (make(kind, written),)
        except said.SkippedError:
            if self.strict:
                raise
            return ()

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
            if kind.startswith(_METADATA) and self.sizing.jwt_filter == "jwt_authn":
                mine = self._said(self._metadata, kind, [str(value) for value in wanted]) if wanted else ()
            else:
                one_of = [p for value in wanted for p in self._said(self._what, kind, str(value))]
                mine = (Permission(or_rules=PermissionSet(rules=one_of)),) if one_of else ()
            found += [Permission(not_rule=either) if inverted else either for either in mine]
        return found

    def _what(self, kind: str, value: str) -> Permission:
        if kind in ("host", "method", "path") and self.tcp:
            raise said.SkippedError
        if kind == "path":
            if self.sizing.path_templates and ("{*}" in value or "{**}" in value):
                return Permission(uri_template=said.template(value))
            return Permission(url_path=PathMatcher(path=said.string(value, self.sizing)))
        if kind in ("host", "method"):
            name = ":authority" if kind == "host" else ":method"
            return Permission(header=self._header(name, value, ignore_case=kind == "host"))
        if kind in ("port", "destination.port"):
            return Permission(destination_port=said.port_number(value))
        if kind == "destination.ip":
            return Permission(destination_ip=said.cidr(value))
        if kind == "connection.sni":
            return Permission(requested_server_name=said.string(value, self.sizing))
        return self._metadata(kind, [value])

    def _metadata(self, kind: str, values: Sequence[str]) -> Permission:
        """What a filter of Envoy's published: `experimental.envoy.filters.a.b[c]`, where `[value]` is one of a list."""
        name, bracket, key = kind.removeprefix("experimental.").removesuffix("]").partition("[")
        if not bracket:
            raise said.SkippedError
        one_of = []
        for value in values:
            listed = value.startswith("[") and value.endswith("]")
            match = ValueMatcher(string_match=said.string(value.strip("[]") if listed else value, self.sizing))
            one_of.append(ValueMatcher(list_match=ListMatcher(one_of=match)) if listed else match)
        path = [MetadataMatcherPathSegment(key=key)]
        return Permission(metadata=MetadataMatcher(filter=name, path=path, value=said.any_of(one_of)))

    def _header(self, name: str, value: str, *, ignore_case: bool = False) -> HeaderMatcher:
        if value == "*":
            return HeaderMatcher(name=name, present_match=True)
        if not self.sizing.header_string_match and not ignore_case:
            if value.startswith("*"):
                return HeaderMatcher(name=name, suffix_match=value[1:])
            if value.endswith("*"):
                return HeaderMatcher(name=name, prefix_match=value[:-1])
            return HeaderMatcher(name=name, exact_match=value)
        return HeaderMatcher(name=name, string_match=said.string(value, self.sizing, ignore_case=ignore_case))

    # ---- who

    def _principal(self, source: Spec, when: Sequence[Spec]) -> Principal:
        parts: list[Principal] = []
        for key, negated, kind in (
            ("principals", "notPrincipals", "source.principal"),
            ("requestPrincipals", "notRequestPrincipals", "request.auth.principal"),
            ("namespaces", "notNamespaces", "source.namespace"),
            ("serviceAccounts", "notServiceAccounts", "source.serviceAccount"),
            ("trustDomains", "notTrustDomains", "source.trustDomain"),
            ("remoteIpBlocks", "notRemoteIpBlocks", "remote.ip"),
            ("ipBlocks", "notIpBlocks", "source.ip"),
        ):
            if kind in ("source.serviceAccount", "source.trustDomain") and kind not in self.sizing.more_sources:
                continue
            parts += self._principals(kind, source.get(key) or (), source.get(negated) or ())
        for item in when:
            parts += self._principals(str(item["key"]), item.get("values") or (), item.get("notValues") or ())
        return Principal(and_ids=PrincipalSet(ids=parts or [Principal(any=True)]))

    def _principals(self, kind: str, values: Sequence[Json], negated: Sequence[Json]) -> list[Principal]:
        found = []
        for wanted, inverted in ((values, False), (negated, True)):
            texts = [str(value) for value in wanted]
            if kind.startswith("request.auth"):
                mine = self._said(self._claims, kind, texts) if texts else ()
            else:
                one_of = [p for value in self._migrated(kind, texts) for p in self._said(self._who, kind, value)]
                mine = (Principal(or_ids=PrincipalSet(ids=one_of)),) if one_of else ()
            found += [Principal(not_id=either) if inverted else either for either in mine]
        return found

    def _migrated(self, kind: str, values: Sequence[str]) -> Sequence[str]:
        """Identities in all trust domains that are the mesh's own."""
        if kind == "source.principal":
            return trust.principals(values, self.domains)
        return trust.expanded(values, self.domains) if kind == "source.trustDomain" else values

    def _who(self, kind: str, value: str) -> Principal:
        if kind == "source.principal":
            return self._authenticated(said.string(value, self.sizing, prefix="spiffe://"))
        if kind == "source.namespace":
            parts = [said.quoted(part) if self.sizing.quotes == "all" else part for part in value.split("*")]
            return self._authenticated(
                made(StringMatcher, safe_regex=regex(f".*/ns/{'.*'.join(parts)}/.*", self.sizing))
            )
        if kind == "source.serviceAccount":
            return self._authenticated(made(StringMatcher, safe_regex=regex(self._account(value), self.sizing)))
        if kind == "source.trustDomain":
            return self._authenticated(said.domain(value, self.sizing))
        if kind.startswith("request.headers"):
            if self.tcp:
                raise said.SkippedError
            return Principal(header=self._header(said.bracketed(kind)[0], value))
        addresses = said.cidr(value)
        return Principal(direct_remote_ip=addresses) if kind == "source.ip" else Principal(remote_ip=addresses)

    def _authenticated(self, name: StringMatcher) -> Principal:
        """Who the peer is, by its certificate, or as the filter says that has read it."""
        if self.sizing.authn_filter:
            return Principal(filter_state=FilterStateMatcher(key="io.istio.peer_principal", string_match=name))
        return Principal(authenticated=PrincipalAuthenticated(principal_name=name))

    def _account(self, value: str) -> str:
        """What a service account's identity looks like, of the policy's namespace if it says no other."""
        namespace, slash, name = value.partition("/")
        parts = (namespace, name) if slash else (self.namespace, value)
        namespace, name = map(said.quoted, parts) if self.sizing.quotes else parts
        return f"spiffe://.+/ns/{namespace}/(.+/|)sa/{name}(/.+)?"

    def _claims(self, kind: str, values: Sequence[str]) -> Principal:
        """Principals of a JWT; principals are pairs of issuer and subject, claims are lists."""
        if self.tcp:
            raise said.SkippedError
        if self.sizing.jwt_filter == "istio_authn":
            return Principal(or_ids=PrincipalSet(ids=[self._istio_claim(kind, value) for value in values]))
        if kind == "request.auth.principal":
            pairs = [said.issuer_and_subject(value, self.sizing) for value in values]
            both = [
                Principal(
                    and_ids=PrincipalSet(
                        ids=[Principal(metadata=self._claim("iss", i)), Principal(metadata=self._claim("sub", s))]
                    )
                )
                for i, s in pairs
            ]
            return both[0] if len(both) == 1 else Principal(or_ids=PrincipalSet(ids=both))
        claims = {"request.auth.audiences": ["aud"], "request.auth.presenter": ["azp"]}.get(kind) or said.bracketed(
            kind
        )
        wanted = said.any_of([ValueMatcher(string_match=said.string(value, self.sizing)) for value in values])
        path = [MetadataMatcherPathSegment(key=key) for key in ("payload", *claims)]
        # a claim may be one value or a list of them
        either = OrMatcher(value_matchers=[ValueMatcher(list_match=ListMatcher(one_of=wanted)), wanted])
        return Principal(metadata=MetadataMatcher(filter=_JWT, path=path, value=ValueMatcher(or_match=either)))

    def _istio_claim(self, kind: str, value: str) -> Principal:
        """A claim as Istio's own filter published it: single values as strings, claims as lists."""
        match = ValueMatcher(string_match=said.string(value, self.sizing))
        keys = [kind.partition("[")[0], *(said.bracketed(kind) if kind.startswith("request.auth.claims") else ())]
        if len(keys) > 1:
            match = ValueMatcher(list_match=ListMatcher(one_of=match))
        path = [MetadataMatcherPathSegment(key=key) for key in keys]
        return Principal(metadata=MetadataMatcher(filter="istio_authn", path=path, value=match))

    @staticmethod
    def _claim(name: str, match: StringMatcher) -> MetadataMatcher:
        path = [MetadataMatcherPathSegment(key=key) for key in ("payload", name)]
        return MetadataMatcher(filter=_JWT, path=path, value=ValueMatcher(string_match=match))
