"""How Istio releases differ in who is pushed what: one frozen `Rules` value each, built by `replace(previous, …)`.

Each field is one behaviour that differs, with the pull request (istio/istio) that changed it. Nothing else in pushsim
asks for a version number: code asks the rules. Sources: reference text `push-semantics` §0.1 and §9, confirmed against
recordings of the releases in `RECORDED`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from pushsim.errors import InputError, Problem
from pushsim.mesh import Mode

Kinds = frozenset[str]


def _kinds(text: str) -> Kinds:
    return frozenset(text.split())


@dataclass(frozen=True, slots=True)
class Rules:
    """What one istiod release does; fields in the order of a push: events, request, decision, scope, generators, delta.

    Attributes:
        release: the full release, `1.24.6`.
        agent_mode: the xDS mode this release's agent uses by default (delta from 1.22).

        Events to keys
        has_full: endpoint-only requests are a class of their own (`Full: false`); gone in 1.31 (#59808).
        endpoint_kind: kind of the key of an endpoint-only change (#59808).
        service_update: when a Service update pushes: always, if the converted service differs, or if that or a
            targetPort differs (#42617, #47009).
        hidden_update_silent: an update of a service that was and stays `~` pushes nobody (#47009).
        hidden_silent: adding, deleting or changing endpoints of a `~` service pushes nobody (#54120).
        endpoint_comparison: when an endpoint list that differs pushes: always; by health and added or removed
            address; or by any field.
        unready_kept: endpoints that are not ready are stored (and later left out of EDS), not dropped.
        pod_labels: a changed pod label pushes: nobody, its own proxy, or that and its services' endpoints (#50432).
        accounts_forgotten: an emptied endpoint list forgets its service accounts, so the next one is Full (#40866).
        headless_second_request: headless slice events send a second, Full request: for ServiceEntry, with
            `headless_reason` if set; `dnsname`: kind DNSName where all ports are HTTP (#42165, #48207).
        headless_reason: that request carries the reason HeadlessEndpointUpdate.
        headless_hidden_silent: none for a `~` service.
        service_entry_always_full: updating a ServiceEntry without addresses is Full for all its hosts: never, always,
            or only with PILOT_ENABLE_IP_AUTOALLOCATE=false.
        autoallocate_default: default of PILOT_ENABLE_IP_AUTOALLOCATE.
        update_compares_previous: needsPush of a CR also looks at the previous object's istio.io labels and annotations.
        delegate_keys: a delegate VirtualService has keys of its own (#59435: only its roots have).

        Merging
        empty_is_all: a request without keys means everything (#55496: `Forced` does).

        Decision
        narrow: keys irrelevant to the proxy are dropped before the generators see the request (#55496).
        router_service: a Router and a ServiceEntry key: always; unless now invisible (#39168); if in the scope or the
            previous one (#42422).
        router_filter: PILOT_FILTER_GATEWAY_CLUSTER_CONFIG in the decision: not at all, by host, by host and namespace.
        passthrough_attaches: AUTO_PASSTHROUGH servers attach every service (#42721).
        filter_extra_services: extension providers count for gateways with some VirtualService, or all (#48236).
        own_service: own-service rule for the first service only, or all (1.20).
        sidecar_ignores, router_ignores: kinds that never affect that type of proxy.
        always_types: proxy types pushed whatever the keys (#43414).
        cluster_kinds: kinds that affect the sidecars of their namespace, or of all if in the root namespace.
        known_kinds: kinds that affect a sidecar only if its scope depends on the key.
        address_watchers_only: an Address key affects only those who watch addresses (#60648).

        Proxy state
        targets: when a proxy's services are recomputed.
        scope_triggers: kinds that recompute the SidecarScope.
        root_sidecar_lost: an update that rebuilds no scope loses the root Sidecar (bug, #40575).

        Scope
        namespace_fallthrough: a host unmatched in its namespace's hosts is tried against `*/…` (#38638).
        route_ports: VirtualService destinations import only the routed ports (#39067).
        source_namespace: http routes for another sourceNamespace import nothing (#52302).
        destination_namespace: namespace of an ambiguous destination: alphabetical, or Kubernetes then oldest (#59486).
        default_scope: without a Sidecar: legacy, merged (#48896), or as if `*/*` (#51776).
        gateway_scope: gateways have a scope of their own, without pulled destinations (#49932).
        merge_services: `add` (first wins, ports added) or `append` (Kubernetes wins, compatible ones merge).
        namespace_of_host: one namespace per host: legacy, or first, own, Kubernetes (#51776).
        index_duplicate: same host and namespace twice: last, or oldest with Kubernetes first.
        exclusions: a leading `~` of an egress host excludes (#60581).
        default_export_list: mesh-wide default exportTo may name namespaces (#60701).
        rule_sources: a merged DestinationRule depends on all its sources (#38088).
        rule_merge: DestinationRules of one host with other exportTo: first list, or kept apart (#52636).
        peer_authentication_deps: a scope depends on the PeerAuthentications of its services' namespaces (#59331).
        scope_endpoints_key: a scope depends on Endpoints keys (1.31).

        Generators
        cds_skip, eds_skip, lds_sidecar_skip, lds_router_skip, rds_skip: kinds alone that do not run the generator.
        cds_router_virtual_service: CDS of a Router runs for a VirtualService without FILTER (#55757).
        cds_router_gateway: for a Gateway without FILTER: always, never, or if passthrough hosts changed (#50757).
        cds_narrowed: delta CDS judges the keys without the CDS-skipped ones (#55757).
        lds_peer_authentication_own: a PeerAuthentication runs LDS only in its own or the root namespace.
        rds_gateway_router_only: a Gateway key runs RDS for Routers only.
        eds_partial: which Full requests send only the services named: none (SotW) or ServiceEntry-only in delta;
            only-service: all keys are ServiceEntry; unskipped: all that EDS does not skip are; aware: every key is one
            EDS understands (#59482).
        eds_removes: a partial EDS of a service outside the scope removes it in delta (#60454: sends it empty).
        headless_trim: a request of headless ServiceEntry keys only runs no CDS (and RDS if `headless_trim_rds`), nor
            LDS at Routers (#60803, #60928).
        inbound_passthrough: name of the inbound passthrough cluster.

        Delta and subscriptions
        delta_cds_kinds: kinds for which CDS can be a delta.
        delta_filter: with FILTER: unfiltered, full list (#55818), or filtered (#59482).
        delta_watched: what removals of wildcard types are computed from (#49890).
        delta_removes_inbound: a delta CDS removes inbound clusters (#49890).
        answers_all: a changed SotW name list is answered with all its names, also when it shrank.
    """

    release: str
    agent_mode: Mode = "sotw"

    has_full: bool = True
    endpoint_kind: str = "ServiceEntry"
    service_update: Literal["always", "equal", "equal-or-target-port"] = "always"
    hidden_update_silent: bool = False
    hidden_silent: bool = False
    endpoint_comparison: Literal["never", "health-removed", "health", "any"] = "never"
    unready_kept: bool = False
    pod_labels: Literal["none", "proxy", "proxy-and-endpoints"] = "none"
    accounts_forgotten: bool = True
    headless_second_request: Literal["service-entry", "dnsname"] = "service-entry"
    headless_reason: bool = False
    headless_hidden_silent: bool = False
    service_entry_always_full: Literal["never", "always", "without-autoallocate"] = "never"
    autoallocate_default: bool = False
    update_compares_previous: bool = False
    delegate_keys: bool = True

    empty_is_all: bool = True

    narrow: bool = False
    router_service: Literal["always", "visible", "scope"] = "always"
    router_filter: Literal["none", "host", "host-namespace"] = "none"
    passthrough_attaches: bool = False
    filter_extra_services: Literal["with-route", "always"] = "with-route"
    own_service: Literal["first", "all"] = "first"
    sidecar_ignores: Kinds = frozenset(("Gateway", "Secret"))
    router_ignores: Kinds = frozenset(("Sidecar",))
    always_types: frozenset[str] = frozenset()
    cluster_kinds: Kinds = frozenset(("EnvoyFilter", "AuthorizationPolicy", "RequestAuthentication"))
    known_kinds: Kinds = frozenset(("ServiceEntry", "VirtualService", "DestinationRule", "Sidecar"))
    address_watchers_only: bool = False

    targets: Literal["full", "service", "service-or-own", "service-and-own"] = "full"
    scope_triggers: Kinds = frozenset(
        ("ServiceEntry", "DestinationRule", "VirtualService", "Sidecar", "Ingress", "HTTPRoute", "TCPRoute")
    )
    root_sidecar_lost: bool = True

    namespace_fallthrough: bool = False
    route_ports: bool = False
    source_namespace: bool = False
    destination_namespace: Literal["alphabetical", "best"] = "alphabetical"
    default_scope: Literal["legacy", "merged", "unified"] = "legacy"
    gateway_scope: bool = False
    merge_services: Literal["add", "append"] = "add"
    namespace_of_host: Literal["own-or-first", "own-kubernetes-first"] = "own-or-first"
    index_duplicate: Literal["last", "oldest"] = "last"
    exclusions: bool = False
    default_export_list: bool = False
    rule_sources: bool = False
    rule_merge: Literal["first", "separate"] = "first"
    peer_authentication_deps: bool = False
    scope_endpoints_key: bool = False

    cds_skip: Kinds = frozenset(
        (
            "Gateway",
            "WorkloadEntry",
            "WorkloadGroup",
            "AuthorizationPolicy",
            "RequestAuthentication",
            "Secret",
            "Telemetry",
            "WasmPlugin",
        )
    )
    eds_skip: Kinds = frozenset(
        (
            "Gateway",
            "VirtualService",
            "WorkloadGroup",
            "AuthorizationPolicy",
            "RequestAuthentication",
            "Secret",
            "Telemetry",
            "WasmPlugin",
        )
    )
    lds_sidecar_skip: Kinds = frozenset(("DestinationRule", "WorkloadGroup", "Secret"))
    lds_router_skip: Kinds = frozenset(("WorkloadGroup", "Secret"))
    rds_skip: Kinds = frozenset(
        (
            "WorkloadEntry",
            "WorkloadGroup",
            "AuthorizationPolicy",
            "RequestAuthentication",
            "PeerAuthentication",
            "Secret",
            "WasmPlugin",
        )
    )
    cds_router_virtual_service: bool = True
    cds_router_gateway: Literal["always", "never", "passthrough"] = "always"
    cds_narrowed: bool = False
    lds_peer_authentication_own: bool = False
    rds_gateway_router_only: bool = False
    eds_partial: Literal["none", "only-service", "unskipped", "aware"] = "none"
    eds_removes: bool = True
    eds_empty_sent: bool = True
    headless_trim: bool = False
    headless_trim_rds: bool = False
    inbound_passthrough: str = "InboundPassthroughClusterIpv4"

    delta_cds_kinds: Kinds = frozenset(("ServiceEntry",))
    delta_filter: Literal["unfiltered", "full", "filtered"] = "unfiltered"
    delta_watched: Literal["last-push", "last-response", "union"] = "last-push"
    delta_removes_inbound: bool = False
    answers_all: bool = True

    @property
    def minor(self) -> str:
        """`1.24` of `1.24.6`."""
        return ".".join(self.release.split(".")[:2])


def _chain() -> dict[str, Rules]:
    """Every release known, each made from the one before it."""
    known: dict[str, Rules] = {}

    def add(release: str, rules: Rules) -> Rules:
        known[release] = rules = replace(rules, release=release)
        return rules

    base = add("1.13.0", Rules("1.13.0"))
    add("1.13.9", replace(base, root_sidecar_lost=False))

    base = replace(
        base,
        sidecar_ignores=_kinds("Gateway"),  # Secret reaches sidecars
        rule_sources=True,  # #38088
        cds_skip=base.cds_skip | {"ProxyConfig"},
        eds_skip=base.eds_skip | {"ProxyConfig"},
        rds_skip=base.rds_skip | {"Telemetry", "ProxyConfig"},
        lds_sidecar_skip=_kinds("Gateway WorkloadGroup WorkloadEntry Secret ProxyConfig"),
        lds_router_skip=base.lds_router_skip | {"WorkloadEntry", "ProxyConfig"},
        eds_empty_sent=False,  # #38072
        service_entry_always_full="always",
    )
    add("1.14.0", replace(base, endpoint_comparison="health"))  # PILOT_SEND_UNHEALTHY_ENDPOINTS defaulted to true
    base = add("1.14.2", base)
    base = add("1.14.5", replace(base, root_sidecar_lost=False))
    add("1.14.6", base)

    base = replace(
        base,
        namespace_fallthrough=True,  # #38638
        route_ports=True,  # #39067
        router_service="visible",  # #39168
        cds_router_gateway="never",  # #39161
        eds_partial="only-service",  # #37974, flag on
        answers_all=False,
    )
    add("1.15.0", replace(base, root_sidecar_lost=True))
    base = replace(base, accounts_forgotten=False)
    add("1.15.1", replace(base, root_sidecar_lost=True))
    base = add("1.15.2", base)
    add("1.15.7", base)

    base = add("1.16.0", replace(base, router_filter="host", pod_labels="proxy"))  # #40995
    base = add("1.16.2", replace(base, passthrough_attaches=True, update_compares_previous=True))  # #42721
    add("1.16.7", base)

    base = replace(
        base,
        router_service="scope",  # #42422
        service_update="equal",  # #42617
        unready_kept=True,
        headless_reason=True,  # #42165
        eds_partial="unskipped",  # #42828
    )
    base = add("1.17.0", base)
    add("1.17.8", base)

    base = replace(
        base,
        cluster_kinds=base.cluster_kinds | {"WasmPlugin"},  # #43305
        always_types=frozenset({"waypoint", "ztunnel"}),  # #43414
    )
    add("1.18.0", base)
    add("1.18.6", replace(base, endpoint_comparison="health-removed"))
    add("1.18.7", replace(base, endpoint_comparison="health"))

    base = replace(base, delta_cds_kinds=base.delta_cds_kinds | {"DestinationRule"})  # #44891
    add("1.19.0", base)
    add("1.19.4", replace(base, endpoint_comparison="health-removed"))
    patched = add("1.19.6", replace(base, endpoint_comparison="health"))
    patched = add("1.19.7", replace(patched, service_update="equal-or-target-port", hidden_update_silent=True))
    add("1.19.10", patched)

    base = replace(
        base,
        own_service="all",
        service_update="equal-or-target-port",
        hidden_update_silent=True,  # #47009
        headless_hidden_silent=True,
        endpoint_comparison="health-removed",
    )
    add("1.20.0", base)
    base = add("1.20.2", replace(base, endpoint_comparison="health"))
    base = replace(
        base,
        headless_second_request="dnsname",  # #48207
        cds_skip=base.cds_skip | {"DNSName"},
        eds_skip=base.eds_skip | {"DNSName"},
        rds_skip=base.rds_skip | {"DNSName"},
        lds_sidecar_skip=base.lds_sidecar_skip | {"DNSName"},
        lds_router_skip=base.lds_router_skip | {"DNSName"},
    )
    base = add("1.20.4", base)
    add("1.20.8", replace(base, cds_router_gateway="passthrough"))  # #50757

    base = replace(base, index_duplicate="oldest", filter_extra_services="always", delta_watched="last-response")
    base = add("1.21.0", base)
    patched = add("1.21.3", replace(base, endpoint_comparison="any"))
    patched = add("1.21.4", replace(patched, cds_router_gateway="passthrough"))
    patched = add("1.21.5", replace(patched, targets="service"))
    add("1.21.6", patched)

    routes = _kinds("HTTPRoute TCPRoute TLSRoute GRPCRoute")
    base = replace(
        base,
        agent_mode="delta",
        pod_labels="proxy-and-endpoints",  # #50432
        default_scope="merged",  # #48896, #49932
        gateway_scope=True,
        merge_services="append",
        sidecar_ignores=_kinds("Gateway KubernetesGateway"),
        known_kinds=base.known_kinds | routes,  # #50197
        scope_triggers=base.scope_triggers | routes,
        cds_skip=base.cds_skip | {"KubernetesGateway"},
        eds_skip=base.eds_skip | {"KubernetesGateway"} | routes,
        lds_sidecar_skip=base.lds_sidecar_skip | {"KubernetesGateway"},
        delta_watched="union",  # #49890
        delta_removes_inbound=True,
    )
    base = add("1.22.0", base)
    base = replace(base, endpoint_comparison="any", cds_router_gateway="passthrough")  # #50757
    base = add("1.22.1", base)
    base = add("1.22.3", replace(base, targets="service"))  # #51788
    add("1.22.8", base)

    base = replace(base, inbound_passthrough="InboundPassthroughCluster")
    base = add("1.23.0", base)
    add("1.23.6", base)

    base = replace(
        base,
        default_scope="unified",  # #51776
        namespace_of_host="own-kubernetes-first",
        source_namespace=True,  # #52302
        rule_merge="separate",  # #52636
        service_entry_always_full="without-autoallocate",
    )
    add("1.24.0", base)
    add("1.24.6", replace(base, delta_filter="full"))  # #55818

    base = replace(
        base,
        hidden_silent=True,  # #54120
        router_filter="host-namespace",
        autoallocate_default=True,
    )
    add("1.25.0", base)
    add("1.25.5", replace(base, delta_filter="full"))

    base = replace(
        base,
        empty_is_all=False,  # #55496
        narrow=True,
        cluster_kinds=base.cluster_kinds | {"PeerAuthentication", "Telemetry"},  # #55497
        known_kinds=_kinds("ServiceEntry VirtualService DestinationRule Sidecar"),
        sidecar_ignores=_kinds("Gateway"),
        scope_triggers=_kinds("ServiceEntry DestinationRule VirtualService Sidecar Ingress"),
        cds_skip=base.cds_skip - {"KubernetesGateway"},
        eds_skip=base.eds_skip - {"KubernetesGateway"} - routes,
        lds_sidecar_skip=base.lds_sidecar_skip - {"KubernetesGateway"},
        cds_router_virtual_service=False,  # #55757
        cds_narrowed=True,
        targets="service-or-own",
    )
    base = add("1.26.0", base)
    add("1.26.5", replace(base, targets="service-and-own"))  # #57908
    add("1.26.8", replace(base, targets="service-and-own"))

    base = replace(base, delta_filter="full")  # #55818
    add("1.27.0", base)
    base = add("1.27.2", replace(base, targets="service-and-own"))
    add("1.27.9", base)

    base = add("1.28.0", base)
    add("1.28.10", base)
    base = add("1.29.0", base)
    add("1.29.6", base)

    base = replace(
        base,
        service_entry_always_full="never",
        delegate_keys=False,  # #59435
        destination_namespace="best",  # #59486
        cluster_kinds=base.cluster_kinds - {"PeerAuthentication"} | {"TrafficExtension"},
        known_kinds=base.known_kinds | {"PeerAuthentication"},
        peer_authentication_deps=True,  # #59331
        scope_triggers=base.scope_triggers | {"PeerAuthentication"},
        always_types=base.always_types | {"agentgateway"},
        cds_router_virtual_service=True,  # #59482
        cds_router_gateway="always",
        eds_skip=base.eds_skip | {"Sidecar"},
        lds_peer_authentication_own=True,
        rds_gateway_router_only=True,
        eds_partial="aware",
        delta_cds_kinds=_kinds("ServiceEntry DestinationRule VirtualService Sidecar PeerAuthentication"),
        delta_filter="filtered",
    )
    add("1.30.0", base)
    base = replace(
        base,
        cds_skip=base.cds_skip | {"TrafficExtension"},  # #60638
        eds_skip=base.eds_skip | {"TrafficExtension"},
        rds_skip=base.rds_skip | {"TrafficExtension"},
    )
    add("1.30.2", base)
    base = replace(
        base,
        default_export_list=True,  # #60701
        address_watchers_only=True,  # #60648
        eds_skip=base.eds_skip | {"Address"},
        rds_skip=base.rds_skip | {"Address"},
    )
    base = add("1.30.3", base)

    base = replace(
        base,
        has_full=False,  # #59808
        endpoint_kind="Endpoints",
        known_kinds=base.known_kinds | {"Endpoints"},
        scope_endpoints_key=True,
        cluster_kinds=base.cluster_kinds | {"WasmPlugin"},
        cds_skip=base.cds_skip | {"Endpoints", "Address"},
        lds_sidecar_skip=base.lds_sidecar_skip | {"Endpoints", "Address"},
        lds_router_skip=base.lds_router_skip | {"Endpoints", "Address"},
        rds_skip=base.rds_skip | {"Endpoints"},
        eds_removes=False,  # #60454
        headless_trim=True,  # #60803
        exclusions=True,  # #60581
    )
    base = add("1.31.0-alpha.0", base)
    add("1.31.0-rc.0", replace(base, headless_trim_rds=True))  # #60928
    return known


#: Every release with rules of its own or recordings, by full name.
KNOWN: Mapping[str, Rules] = MappingProxyType(_chain())

#: Releases that recordings in the vectors' format were made of.
RECORDED = frozenset(
    ["1.14.6", "1.15.7", "1.16.7", "1.17.8", "1.20.8", "1.22.8", "1.24.6", "1.27.9", "1.30.3", "1.31.0-alpha.0"]
)


def _order(release: str) -> tuple[int, ...]:
    number, _, stage = release.partition("-")
    stages = {"alpha": 0, "beta": 1, "rc": 2, "": 3}
    name, _, count = stage.partition(".")
    return (*map(int, number.split(".")), stages.get(name, 0), int(count or 0))


MINORS: tuple[str, ...] = tuple(dict.fromkeys(rules.minor for rules in KNOWN.values()))
NEWEST: str = MINORS[-1]


def rules(release: str) -> Rules:
    """The rules of a release: `1.24` is its newest known patch, `1.24.3` the newest known one not after it.

    Raises:
        InputError: the release is not known; the message lists those that are.
    """
    if release in KNOWN:
        return KNOWN[release]
    same = [known for known in KNOWN if KNOWN[known].minor == ".".join(release.split(".")[:2])]
    try:
        wanted = _order(release) if release.count(".") >= 2 else (9999,)
        fitting = [known for known in same if release.count(".") < 2 or _order(known) <= wanted]
    except ValueError:
        fitting = []
    if not fitting:
        near = difflib.get_close_matches(release, MINORS, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(
            Problem(f"Istio release {release!r} is not known", remedy=f"{hint}known: {', '.join(MINORS)}, and patches")
        )
    newest = max(fitting, key=_order)
    return KNOWN[newest] if release.count(".") < 2 else replace(KNOWN[newest], release=release)
