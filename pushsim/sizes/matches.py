"""VirtualService HTTP routes as Envoy routes: matches, actions, faults, headers.

Source: pilot/pkg/networking/core/route/route.go, route/route_cache.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any as Json

from envoy_data_plane.envoy.config.core.v3 import (
    DataSource,
    HeaderValue,
    HeaderValueOption,
    HeaderValueOptionHeaderAppendAction,
    RuntimeFractionalPercent,
)
from envoy_data_plane.envoy.config.route.v3 import (
    Decorator,
    DirectResponseAction,
    HeaderMatcher,
    QueryParameterMatcher,
    RedirectAction,
    RedirectActionRedirectResponseCode,
    Route,
    RouteAction,
    RouteActionHashPolicy,
    RouteActionHashPolicyConnectionProperties,
    RouteActionHashPolicyCookie,
    RouteActionHashPolicyHeader,
    RouteActionHashPolicyQueryParameter,
    RouteActionMaxStreamDuration,
    RouteActionRequestMirrorPolicy,
    RouteMatch,
    WeightedCluster,
    WeightedClusterClusterWeight,
)
from envoy_data_plane.envoy.type.matcher.v3 import RegexMatchAndSubstitute
from envoy_data_plane.envoy.type.v3 import FractionalPercent

from pushsim.context import gateway_name
from pushsim.hosts import resolve
from pushsim.mesh import Object, Proxy
from pushsim.resources import Asked, RouteConfiguration, Source
from pushsim.sizes.clusters import config_path, istio_metadata
from pushsim.sizes.features import cors_policy, fault_filter, mirrors, regex, route_cors, string_match
from pushsim.sizes.policy import consistent_hash
from pushsim.sizes.retries import retry_policy
from pushsim.sizes.sessions import FILTER, Session, first_session, session_filter
from pushsim.sizes.settings import Settings, dig
from pushsim.sizes.switches import Sizing
from pushsim.sizes.wire import duration, made, packed

Spec = Mapping[str, Json]
#: Whose port a destination without one means: host to port, None where the listener's own port is meant.
PortOf = Callable[[str], int | None]
#: consistentHash of a host: (host, subset, the port a destination names) to what applies.
HashOf = Callable[[str, str, int | None], Spec | None]
_ZERO = timedelta(0)


def hash_policy(spec: Spec | None) -> list[RouteActionHashPolicy]:
    """consistentHash of a DestinationRule, as the route's part of it."""
    if not spec:
        return []
    if spec.get("httpHeaderName"):
        return [RouteActionHashPolicy(header=RouteActionHashPolicyHeader(header_name=spec["httpHeaderName"]))]
    if spec.get("httpCookie"):
        cookie = spec["httpCookie"]
        built = RouteActionHashPolicyCookie(name=str(cookie.get("name") or ""), path=str(cookie.get("path") or ""))
        built.ttl = duration(cookie["ttl"]) if cookie.get("ttl") else None
        return [RouteActionHashPolicy(cookie=built)]
    if spec.get("useSourceIp"):
        properties = RouteActionHashPolicyConnectionProperties(source_ip=True)
        return [RouteActionHashPolicy(connection_properties=properties)]
    if spec.get("httpQueryParameterName"):
        parameter = RouteActionHashPolicyQueryParameter(name=spec["httpQueryParameterName"])
        return [RouteActionHashPolicy(query_parameter=parameter)]
    return []


def default_route(cluster: str, operation: str, sizing: Sizing, settings: Settings, hashing: Spec | None) -> Route:
    """The only route of a service that no VirtualService shapes."""
    action = made(RouteAction, cluster=cluster, timeout=_ZERO, hash_policy=hash_policy(hashing))
    if sizing.grpc_timeouts == "grpc":
        action.max_grpc_timeout = _ZERO
    else:
        action.max_stream_duration = RouteActionMaxStreamDuration(
            max_stream_duration=_ZERO, grpc_timeout_header_max=_ZERO
        )
    action.retry_policy = retry_policy(settings.mesh.get("defaultHttpRetryPolicy"), sizing)
    return made(
        Route,
        name="default",
        match=made(RouteMatch, prefix="/"),
        route=action,
        decorator=Decorator(operation=operation),
    )


def resource_hashes(resource: RouteConfiguration) -> HashOf:
    """The hashing that a route configuration's own DestinationRules ask for."""
    return lambda host, subset, port: consistent_hash(resource.rules_of(host), subset, port)


class RouteTranslator:
    """Translates VirtualServices for one listener port (route names of a sidecar) or gateway server."""

    def __init__(
        self,
        sizing: Sizing,
        settings: Settings,
        port: int,
        *,
        ports: PortOf,
        hashes: HashOf,
        aliases: Callable[[str], str | None] = lambda _: None,
        sessions: Callable[[str], Session | None] = lambda _: None,
        gateway: str = "mesh",
    ) -> None:
        self.sizing, self.settings, self.port = sizing, settings, port
        self.ports, self.hashes, self.aliases, self.gateway = ports, hashes, aliases, gateway
        self.sessions = sessions

    def routes(self, written: Object, proxy: Proxy) -> list[Route]:
        """The routes of a VirtualService that apply here, up to the first that takes everything."""
        found: list[Route] = []
        source = Asked.by((written,), "http").of(proxy)
        for http in written.spec.get("http") or ():
            matches = http.get("match") or (None,)
            for match in matches:
                if not self._applies(match, source, written.ref.namespace):
                    continue
                found.append(self.route(written, http, match))
                if _catches_all(match):
                    return found
        return found

    def _applies(self, match: Spec | None, source: Source, namespace: str) -> bool:
        if match is None:
            return True
        if match.get("port") and int(match["port"]) != self.port:
            return False
        if match.get("gateways"):
            return self.gateway in {gateway_name(str(name), namespace) for name in match["gateways"]}
        return source.fits(match)

    def route(self, written: Object, http: Spec, match: Spec | None) -> Route:
        """One route of one match."""
        name = str(http.get("name") or "")
        if match and match.get("name"):
            name = f"{name}.{match['name']}"
        metadata = istio_metadata({"config": config_path(written, self.sizing, "virtual-service")})
        built = made(Route, name=name, match=_match(match, self.sizing), metadata=metadata)
        if match and match.get("statPrefix"):
            built.stat_prefix = str(match["statPrefix"])
        authority = _headers(built, http.get("headers"), self.sizing)
        operation = f"{written.ref.name}:{self.port}{_path(match)}"
        if http.get("redirect") is not None:
            built.redirect = self._redirect(http["redirect"])
        elif http.get("directResponse") is not None and "directResponse" in self.sizing.reads:
            built.direct_response = _direct(http["directResponse"])
        else:
            built.route = self._action(written, http, built, authority)
            if built.route.cluster:
                _, port, _, host = built.route.cluster.split("|")
                operation = f"{host}:{port}{_path(match)}"
        built.decorator = Decorator(operation=operation)
        if http.get("fault") is not None and (fault := fault_filter(http["fault"])) is not None:
            kind = "envoy.extensions.filters.http.fault.v3.HTTPFault"
            built.typed_per_filter_config["envoy.filters.http.fault"] = packed(fault, kind)
        if http.get("corsPolicy") is not None and built.route is not None and self.sizing.route_cors:
            built.route.cors = route_cors(http["corsPolicy"], self.sizing)
        elif http.get("corsPolicy") is not None:
            kind = "envoy.extensions.filters.http.cors.v3.CorsPolicy"
            cors = cors_policy(http["corsPolicy"], self.sizing)
            built.typed_per_filter_config["envoy.filters.http.cors"] = packed(cors, kind)
        if self.sizing.sessions_of_routes and built.route is not None:
            hosts = (resolve(str(dig(to, "destination", "host") or ""), written.ref.namespace) for to in http["route"])
            if (session := first_session(map(self.sessions, hosts))) is not None:
                built.typed_per_filter_config[FILTER] = session_filter(session, self.sizing.session_ttl)
        return built

    def cluster(self, destination: Spec, namespace: str) -> str:
        """`outbound|port|subset|host` of a destination; of an alias, with the host that it stands for."""
        host = resolve(str(destination.get("host") or ""), namespace)
        port = dig(destination, "port", "number") or self.ports(host) or self.port
        return f"outbound|{port}|{destination.get('subset') or ''}|{self.aliases(host) or host}"

    def _action(self, written: Object, http: Spec, route: Route, authority: str) -> RouteAction:
        limit = duration(http["timeout"]) if http.get("timeout") else _ZERO
        action = made(RouteAction, timeout=limit, max_grpc_timeout=limit)
        rewrite = http.get("rewrite") or {}
        if rewrite.get("uriRegexRewrite"):
            spec = rewrite["uriRegexRewrite"]
            pattern = regex(str(spec.get("match") or ""), self.sizing)
            action.regex_rewrite = RegexMatchAndSubstitute(pattern=pattern, substitution=str(spec.get("rewrite") or ""))
        elif rewrite.get("uri"):
            action.prefix_rewrite = str(rewrite["uri"])
        authority = str(rewrite.get("authority") or authority)
        namespace = written.ref.namespace
        action.request_mirror_policies = [
            self._mirror(self.cluster(destination, namespace), percent)
            for destination, percent in mirrors(http, self.sizing.reads)
        ]
        destinations: Sequence[Spec] = http.get("route") or ()
        if len(destinations) > 1 and self.sizing.weightless_unnamed:
            destinations = [item for item in destinations if item.get("weight")]
        hashed = False
        if len(destinations) == 1:
            first = destinations[0]
            action.cluster = self.cluster(first.get("destination") or {}, namespace)
            own = _headers(route, first.get("headers"), self.sizing)
            authority = authority or own
            hashing = self._hash(first, namespace)
            action.hash_policy, hashed = hash_policy(hashing), bool(hashing)
        else:
            action.weighted_clusters = self._weighted(destinations, namespace, action)
        if authority:
            action.host_rewrite_literal = authority
        default = self.settings.mesh.get("defaultHttpRetryPolicy")
        action.retry_policy = retry_policy(http.get("retries", default), self.sizing, hashed=hashed)
        return action

    def _hash(self, item: Spec, namespace: str) -> Spec | None:
        destination = item.get("destination") or {}
        host = resolve(str(destination.get("host") or ""), namespace)
        return self.hashes(host, str(destination.get("subset") or ""), dig(destination, "port", "number"))

    def _weighted(self, items: Iterable[Spec], namespace: str, action: RouteAction) -> WeightedCluster:
        clusters = []
        for item in items:
            if not item.get("weight"):
                continue
            weight = WeightedClusterClusterWeight(
                name=self.cluster(item.get("destination") or {}, namespace), weight=int(item["weight"])
            )
            authority = _headers(weight, item.get("headers"), self.sizing)
            if authority:
                weight.host_rewrite_literal = authority
            action.hash_policy = [*action.hash_policy, *hash_policy(self._hash(item, namespace))]
            clusters.append(weight)
        built = WeightedCluster(clusters=clusters)
        if self.sizing.total_weight:
            built.total_weight = sum(cluster.weight or 0 for cluster in clusters)
        return built

    def _mirror(self, cluster: str, percent: FractionalPercent) -> RouteActionRequestMirrorPolicy:
        policy = RouteActionRequestMirrorPolicy(
            cluster=cluster, runtime_fraction=RuntimeFractionalPercent(default_value=percent), trace_sampled=False
        )
        policy.disable_shadow_host_suffix_append = self.sizing.plain_shadow_host
        return policy

    def _redirect(self, spec: Spec) -> RedirectAction:
        action = RedirectAction(
            host_redirect=str(spec.get("authority") or ""), path_redirect=str(spec.get("uri") or "")
        )
        scheme = str(spec.get("scheme") or "")
        if scheme:
            action.scheme_redirect = scheme
        port = int(spec.get("port") or (self.port if spec.get("derivePort") == "FROM_REQUEST_PORT" else 0))
        if (port, scheme or "http") not in ((80, "http"), (443, "https")):
            action.port_redirect = port
        codes = RedirectActionRedirectResponseCode
        action.response_code = {
            302: codes.FOUND, 303: codes.SEE_OTHER, 307: codes.TEMPORARY_REDIRECT, 308: codes.PERMANENT_REDIRECT,
        }.get(int(spec.get("redirectCode") or 301), codes.MOVED_PERMANENTLY)  # fmt: skip
        return action


def _catches_all(match: Spec | None) -> bool:
    """Whether nothing after this match is ever reached (IsCatchAllRoute)."""
    if match is None:
        return True
    uri = match.get("uri") or {}
    everything = not uri or uri.get("prefix") == "/" or uri.get("regex") == ".*"
    narrowing = ("headers", "queryParams", "method", "authority", "scheme", "withoutHeaders")
    return everything and not any(match.get(key) for key in narrowing)


def _path(match: Spec | None) -> str:
    uri = (match or {}).get("uri") or {}
    if "exact" in uri:
        return str(uri["exact"])
    if "regex" in uri:
        return str(uri["regex"])
    return f"{uri.get('prefix') or '/'}*"


def _header(name: str, spec: Spec | None, sizing: Sizing, *, without: bool = False) -> HeaderMatcher:
    matcher = HeaderMatcher(name=name, invert_match=without)
    found = string_match(spec, sizing)
    if found is None:
        matcher.present_match = True if sizing.present_match else None
    else:
        matcher.string_match = found
        matcher.treat_missing_header_as_empty = without and sizing.missing_headers_empty
    return matcher


def _match(spec: Spec | None, sizing: Sizing) -> RouteMatch:
    if spec is None:
        return made(RouteMatch, prefix="/")
    built = made(RouteMatch, case_sensitive=not spec.get("ignoreUriCase"))
    uri = spec.get("uri") or {}
    if "exact" in uri:
        built.path = str(uri["exact"])
    elif "regex" in uri:
        built.safe_regex = regex(str(uri["regex"]), sizing)
    else:
        built.prefix = str(uri.get("prefix") or "/")
    headers = [_header(name, how, sizing) for name, how in (spec.get("headers") or {}).items()]
    without = spec.get("withoutHeaders") or {}
    headers += [_header(name, how, sizing, without=True) for name, how in without.items()]
    for key in ("method", "authority", "scheme"):
        if spec.get(key):
            headers.append(_header(f":{key}", spec[key], sizing))
    built.headers = headers
    for name, how in (spec.get("queryParams") or {}).items():
        found = string_match(how, sizing)
        parameter = QueryParameterMatcher(name=name)
        if found is None:
            parameter.present_match = True
        else:
            parameter.string_match = found
        built.query_parameters.append(parameter)
    return built


def _headers(target: Route | WeightedClusterClusterWeight, spec: Spec | None, sizing: Sizing) -> str:
    """Header operations of a route or destination; returns the authority they set."""
    authority = ""
    actions = HeaderValueOptionHeaderAppendAction
    for direction in ("request", "response"):
        operations = (spec or {}).get(direction) or {}
        for key, action in (("set", actions.OVERWRITE_IF_EXISTS_OR_ADD), ("add", actions.APPEND_IF_EXISTS_OR_ADD)):
            for name, written in sorted((operations.get(key) or {}).items()):
                if name.lower() in (":authority", "host"):
                    authority = str(written)
                if name.startswith(":") or name.lower() == "host":
                    continue
                option = HeaderValueOption(header=HeaderValue(key=name, value=str(written)))
                if sizing.append_action:
                    option.append_action = action
                else:
                    option.append = key == "add"
                getattr(target, f"{direction}_headers_to_add").append(option)
        gone = [n for n in operations.get("remove") or () if not n.startswith(":") and n.lower() != "host"]
        getattr(target, f"{direction}_headers_to_remove").extend(gone)
    return authority


def _direct(spec: Spec) -> DirectResponseAction:
    built = DirectResponseAction(status=int(spec.get("status") or 0))
    body = spec.get("body") or {}
    if "string" in body:
        built.body = DataSource(inline_string=str(body["string"]))
    elif "bytes" in body:
        built.body = DataSource(inline_bytes=bytes(len(str(body["bytes"])) * 3 // 4))
    return built
