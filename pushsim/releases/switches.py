"""`Rules`: all in which Istio releases differ, one field a behaviour.

Each field names the pull request (istio/istio) that changed it. Sources: reference text `push-semantics` §0.1 and §9,
confirmed against recordings of the releases in `RECORDED`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pushsim.mesh import Mode
from pushsim.releases.flags import Flag

Kinds = frozenset[str]


@dataclass(frozen=True, slots=True)
class Rules:
    """What one istiod release does; fields in the order of a push: events, request, decision, scope, generators, delta.

    Attributes:
        release: the full release, `1.24.6`.
        agent_mode: the xDS mode this release's agent uses by default (delta from 1.22).
        flags: the variables of the environment, of those in `flags`, that it knows.

        Events to keys
        has_full: endpoint-only requests are a class of their own (`Full: false`); gone in 1.31 (#59808).
        endpoint_kind: kind of the key of an endpoint-only change (#59808).
        service_update: when a Service update pushes: always, if the converted service differs, or if that or a
            targetPort differs (#42617, #47009).
        unready_published: publishNotReadyAddresses is something that a Service may differ in, and is served by.
        export_to_trimmed: spaces in a Service's exportTo annotation mean nothing; before, they made names (#53367).
        hidden_update_silent: an update of a service that was and stays `~` pushes nobody (#47009).
        locality_of_instance: a proxy's locality is that of its first service instance, not what its pod's labels say
            (until 1.16, and on 1.19).
        external_name_aliases: a Service of type ExternalName is an alias of what it names, not a DNS service (#46332;
            flag off in 1.20).
        mirrors: routes may copy requests to several (`mirrors`).
        external_name_beside: the name of one by DNS is an endpoint beside those of slices that it still has, not only
            for ports of which these have none.
        any_revision: an istiod that is told no REVISION takes configuration of any revision.
        foreign_pushed: configuration of another revision is pushed, though not read.
        app_protocols: values of appProtocol that Kubernetes has given a meaning, and what istiod takes them for.
        distributions: values of trafficDistribution (and its annotation) that istiod knows, and what it takes them for.
        hidden_silent: adding, deleting or changing endpoints of a `~` service pushes nobody (#54120).
        endpoint_comparison: when an endpoint list that differs pushes: always; by health and added or removed
            address; or by any field.
        instances_listed: a PushContext lists the instances of each service port, and for that looks through all
            EndpointSlices of its namespace.
        unready_kept: endpoints that are not ready are stored (and later left out of EDS), not dropped.
        round_robin_once: of several ServiceEntries that resolve one host by DNS_ROUND_ROBIN, one written while there
            are endpoints has none: of the mesh, or of its namespace; `oldest`: all of its namespace but the oldest.
        terminating_apart: one that ends, or does not say whether it does, is a state of its own: a new one pushes,
            and it is never sent.
        draining_labels: a Service with one of these keeps endpoints that drain, which are sent with the first of them.
        draining_ends: one drains that ends while it does not deny to serve; before, one that says it serves.
        unready_sent: default of PILOT_AUTO_SEND_UNHEALTHY_ENDPOINTS: endpoints that are not ready are sent (#60690).
        pod_labels: a changed pod label pushes: nobody, its own proxy, or that and its services' endpoints (#50432).
        labelled_last: a proxy that connects is given its own labels after its services (#40186).
        pods_served_relabelled: only labels of pods that were and stay ready push so, not of one that gets so (#54102).
        evicted_forgotten: a pod that loses its address with its readiness is forgotten; before, ServiceEntries keep it
            for good (#55171).
        left_pods_kept: a ServiceEntry keeps a pod that it no longer selects, until it is looked at again (#42922).
        emptied_told: of the ServiceEntries' services that an event concerns, those that it leaves without endpoints are
            told so; before, only if it leaves none of them any (#52588).
        entry_labels_compared: a WorkloadEntry's new labels are compared with its old ones; before, those that its
            metadata alone have now, so that nearly every update pushed its proxy (#58191).
        accounts_forgotten: an emptied endpoint list forgets its service accounts, so the next one is Full (#40866).
        headless_second_request: headless slice events send a second, Full request: for ServiceEntry, with
            `headless_reason` if set; `dnsname`: kind DNSName where all ports are HTTP (#42165, #48207).
        headless_reason: that request carries the reason HeadlessEndpointUpdate.
        headless_hidden_silent: none for a `~` service.
        service_entry_always_full: updating a ServiceEntry without addresses is Full for all its hosts: never, always,
            or only with PILOT_ENABLE_IP_AUTOALLOCATE=false.
        autoallocate_default: default of PILOT_ENABLE_IP_AUTOALLOCATE.
        egress_port_anywhere: an egress listener with a port and no bind listens on all addresses, also for TCP.
        ports_reserved: where the virtual listeners listen (15001, 15006), nothing else does on all addresses (#48551).
        targets_reserved: nor are these, and the ports of its agent, target ports that a sidecar serves (#51884).
        krt_entries: ServiceEntries and their workloads are collections (krt) that are derived beside all else, and only
            what differs pushes: one by DNS that stays as it is does if its endpoints differ.
        node_local: of a Service with internalTrafficPolicy Local, proxies have what is on their node: the one that
            their metadata tell (`told`), or else their pod's (`pod`).
        entry_workload: endpoints written in a ServiceEntry have its name and their index as their workload (1.30).
        update_compares_previous: needsPush of a CR also looks at the previous object's istio.io labels and annotations.
        writes_rules: istiod writes into DestinationRules that it has stored, so that an update which changes nothing is
            a push: into none, short hosts, or also TLS settings without certificates, once clusters are built of them.
        delegate_keys: a delegate VirtualService has keys of its own (#59435: only its roots have).

        Merging
        empty_is_all: a request without keys means everything (#55496: `Forced` does).
        resource_scoping: default of ENABLE_ENHANCED_RESOURCE_SCOPING: discoverySelectors hold for configuration, too
            (none: the release has no such thing; always: the flag is gone).

        Decision
        narrow: keys irrelevant to the proxy are dropped before the generators see the request (#55496).
        router_service: a Router and a ServiceEntry key: always; unless now invisible (#39168); if in the scope or the
            previous one (#42422).
        router_filter: PILOT_FILTER_GATEWAY_CLUSTER_CONFIG in the decision: not at all (then routes must be visible
            to the gateway's namespace), by host, by host and namespace (a provider may be `namespace/host`).
        passthrough_attaches: AUTO_PASSTHROUGH servers attach every service (#42721).
        filter_extra_services: extension providers count not at all, for gateways with some VirtualService, or for all
            (#48236).
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
        exact_lookup: a listener that names nothing but exact hosts of namespaces takes what the index keeps under
            these names, by age, seen as IsServiceVisible has it (#60473).
        gateways_at_home: Gateways select gateways of their own namespace alone.
        gateway_binds: servers without TLS that share a port and bind different addresses: compared as if they bound the
            same, apart (#43690), or apart and with the newest of them (#57707).
        merge_services: `add` (first wins, ports added) or `append` (Kubernetes wins, compatible ones merge).
        namespace_of_host: one namespace per host: legacy, or first, own, Kubernetes (#51776).
        index_duplicate: same host and namespace twice: last, or oldest with Kubernetes first.
        exclusions: a leading `~` of an egress host excludes (#60581).
        delegate_default_private: a mesh-wide default exportTo of `.` shows a delegate to its own namespace.
        default_export_list: mesh-wide default exportTo may name namespaces (#60701).
        rule_sources: a merged DestinationRule depends on all its sources (#38088).
        replaced_rules: a legacy default scope depends on the rules of a service that a Kubernetes one replaced, too
            (#44891).
        private_rules: DestinationRules for their own namespace alone: whose exportTo is `.`, or also that namespace's
            name; or that just names it among others (bug, #48312).
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
        headless_eds: sidecars find headless Kubernetes services by EDS, as gateways do.
        pod_listeners: pods of headless services have listeners of their own for TCP, and what changes them is Full.
        eds_empty_sent: an EDS response without anything in it is sent all the same (until #38072).
        headless_trim, headless_trim_rds: a request of headless ServiceEntry keys only runs no CDS (or RDS), nor
            LDS at Routers (#60803, #60928).
        rds_gone_sent: a route of a router's that no server has any more is sent, empty; before, it is left out if the
            router serves anything (1.15).
        nds_skip: kinds alone that do not run NDS.
        nds_headless_partial: headless services' endpoints run it though the request is not full (#42165).
        nds_merges: one host of several services: the addresses of ServiceEntries are joined, Kubernetes wins; before,
            the last service is all that is named (1.18).
        nds_every_address: all addresses of a service are named, not its first (1.23).
        nds_by_listener: services are named that egress listeners show, once for each; not those that VirtualServices
            pull in (1.24.3).
        nds_unready: endpoints of headless services are named that are not ready: all, those that terminate, or none.
        sds_empty_sent: an SDS response without anything in it is sent all the same.
        sds_full_list: a full request with a Secret in it sends all secrets a proxy has, not only those that changed.
        ecds_secrets: an extension holds the secret that its image is pulled with, and a Secret runs ECDS for it (1.14).
        ecds_by_name: an extension is sent to whoever asks for it by name, and delta takes none back; before, only those
            there are that select the proxy, and delta takes back what else it asked for (1.22).
        plugin_names: of a WasmPlugin by namespace and name, as proxies ask for it.
        plugin_matches: WasmPlugins match ports and client or server side (1.16).
        plugin_types: WasmPlugins may be network filters (1.20).
        accounts_by_port: a cluster expects the service accounts of its own port's endpoints, not of all the service's.
        subsets_repeated: a subset that a DestinationRule names twice has two clusters of one name (seen on 1.27).
        inbound_passthrough: name of the inbound passthrough cluster.

        Delta and subscriptions
        delta_cds_kinds: kinds for which CDS can be a delta.
        delta_filter: with FILTER: unfiltered, full list (#55818), or filtered (#59482).
        delta_watched: what removals of wildcard types are computed from (#49890).
        delta_removes_inbound: a delta CDS removes inbound clusters (#49890).
        delta_gone_port: of the clusters of a port that went, subsets included, a delta CDS removes one: the last by
            name, or any (the names it looks through have no order from 1.20 on).
        delta_removes_once: it names what it removes once, though several keys remove it (#49890).
        answers_all: a changed SotW name list is answered with all its names, also when it shrank.
        answers_gone: a SotW name list that only shrank is answered, were it with nothing (until 1.21).
    """

    release: str
    agent_mode: Mode = "sotw"
    flags: tuple[Flag, ...] = ()

    has_full: bool = True
    endpoint_kind: str = "ServiceEntry"
    service_update: Literal["always", "equal", "equal-or-target-port"] = "always"
    unready_published: bool = False
    export_to_trimmed: bool = False
    hidden_update_silent: bool = False
    locality_of_instance: bool = True
    external_name_aliases: bool = False
    mirrors: bool = False
    external_name_beside: bool = False
    any_revision: bool = False
    foreign_pushed: bool = True
    app_protocols: tuple[tuple[str, str], ...] = ()
    distributions: tuple[tuple[str, str], ...] = ()
    hidden_silent: bool = False
    endpoint_comparison: Literal["never", "health-removed", "health", "any"] = "never"
    instances_listed: bool = True
    unready_kept: bool = False
    round_robin_once: Literal["never", "mesh", "namespace", "oldest"] = "never"
    terminating_apart: bool = False
    draining_labels: tuple[str, ...] = ()
    draining_ends: bool = False
    unready_sent: bool = False
    pod_labels: Literal["none", "proxy", "proxy-and-endpoints"] = "none"
    labelled_last: bool = False
    pods_served_relabelled: bool = False
    evicted_forgotten: bool = False
    left_pods_kept: bool = True
    emptied_told: bool = False
    entry_labels_compared: bool = False
    accounts_forgotten: bool = True
    headless_second_request: Literal["service-entry", "dnsname"] = "service-entry"
    headless_reason: bool = False
    headless_hidden_silent: bool = False
    service_entry_always_full: Literal["never", "always", "without-autoallocate"] = "never"
    autoallocate_default: bool = False
    egress_port_anywhere: bool = True
    ports_reserved: bool = False
    targets_reserved: bool = False
    krt_entries: bool = False
    node_local: Literal["never", "pod", "told"] = "never"
    entry_workload: bool = False
    update_compares_previous: bool = False
    writes_rules: Literal["never", "host", "host-and-tls"] = "never"
    delegate_keys: bool = True

    empty_is_all: bool = True
    resource_scoping: Literal["none", "false", "true", "always"] = "none"

    narrow: bool = False
    router_service: Literal["always", "visible", "scope"] = "always"
    router_filter: Literal["none", "host", "host-namespace"] = "none"
    passthrough_attaches: bool = False
    filter_extra_services: Literal["never", "with-route", "always"] = "never"
    own_service: Literal["first", "all"] = "first"
    sidecar_ignores: Kinds = frozenset({"Gateway", "Secret"})
    router_ignores: Kinds = frozenset({"Sidecar"})
    always_types: frozenset[str] = frozenset()
    cluster_kinds: Kinds = frozenset({"EnvoyFilter", "AuthorizationPolicy", "RequestAuthentication"})
    known_kinds: Kinds = frozenset({"ServiceEntry", "VirtualService", "DestinationRule", "Sidecar"})
    address_watchers_only: bool = False

    targets: Literal["full", "service", "service-or-own", "service-and-own"] = "full"
    scope_triggers: Kinds = frozenset(
        {"ServiceEntry", "DestinationRule", "VirtualService", "Sidecar", "Ingress", "HTTPRoute", "TCPRoute"}
    )
    root_sidecar_lost: bool = True

    namespace_fallthrough: bool = False
    route_ports: bool = False
    source_namespace: bool = False
    destination_namespace: Literal["alphabetical", "best"] = "alphabetical"
    default_scope: Literal["legacy", "merged", "unified"] = "legacy"
    gateway_scope: bool = False
    exact_lookup: bool = False
    gateways_at_home: bool = False
    gateway_binds: Literal["ignored", "apart", "newest"] = "ignored"
    merge_services: Literal["add", "append"] = "add"
    namespace_of_host: Literal["own-or-first", "own-kubernetes-first"] = "own-or-first"
    index_duplicate: Literal["last", "oldest"] = "last"
    exclusions: bool = False
    delegate_default_private: bool = False
    default_export_list: bool = False
    rule_sources: bool = False
    replaced_rules: bool = False
    private_rules: Literal["dot", "own", "names-own"] = "dot"
    rule_merge: Literal["first", "separate"] = "first"
    peer_authentication_deps: bool = False
    scope_endpoints_key: bool = False

    cds_skip: Kinds = frozenset(
        {
            "Gateway",
            "WorkloadEntry",
            "WorkloadGroup",
            "AuthorizationPolicy",
            "RequestAuthentication",
            "Secret",
            "Telemetry",
            "WasmPlugin",
        }
    )
    eds_skip: Kinds = frozenset(
        {
            "Gateway",
            "VirtualService",
            "WorkloadGroup",
            "AuthorizationPolicy",
            "RequestAuthentication",
            "Secret",
            "Telemetry",
            "WasmPlugin",
        }
    )
    lds_sidecar_skip: Kinds = frozenset({"DestinationRule", "WorkloadGroup", "Secret"})
    lds_router_skip: Kinds = frozenset({"WorkloadGroup", "Secret"})
    rds_skip: Kinds = frozenset(
        {
            "WorkloadEntry",
            "WorkloadGroup",
            "AuthorizationPolicy",
            "RequestAuthentication",
            "PeerAuthentication",
            "Secret",
            "WasmPlugin",
        }
    )
    cds_router_virtual_service: bool = True
    cds_router_gateway: Literal["always", "never", "passthrough"] = "always"
    cds_narrowed: bool = False
    lds_peer_authentication_own: bool = False
    rds_gateway_router_only: bool = False
    eds_partial: Literal["none", "only-service", "unskipped", "aware"] = "none"
    eds_removes: bool = True
    headless_eds: bool = False
    pod_listeners: bool = True
    eds_empty_sent: bool = True
    headless_trim: bool = False
    headless_trim_rds: bool = False
    rds_gone_sent: bool = False
    nds_skip: Kinds = frozenset(
        {
            "Gateway",
            "VirtualService",
            "DestinationRule",
            "EnvoyFilter",
            "WorkloadEntry",
            "WorkloadGroup",
            "AuthorizationPolicy",
            "RequestAuthentication",
            "PeerAuthentication",
            "WasmPlugin",
        }
    )
    nds_headless_partial: bool = False
    nds_merges: bool = False
    nds_every_address: bool = False
    nds_by_listener: bool = False
    nds_unready: Literal["all", "terminating", "none"] = "all"
    sds_empty_sent: bool = True
    sds_full_list: bool = True
    ecds_secrets: bool = False
    ecds_by_name: bool = False
    plugin_names: str = "{}.{}"
    plugin_matches: bool = False
    plugin_types: bool = False
    accounts_by_port: bool = True
    subsets_repeated: bool = False
    inbound_passthrough: str = "InboundPassthroughClusterIpv4"

    delta_cds_kinds: Kinds = frozenset({"ServiceEntry"})
    delta_filter: Literal["unfiltered", "full", "filtered"] = "unfiltered"
    delta_watched: Literal["last-push", "last-response", "union"] = "last-push"
    delta_removes_inbound: bool = False
    delta_gone_port: Literal["last", "any"] = "last"
    delta_removes_once: bool = False
    answers_all: bool = True
    answers_gone: bool = True

    @property
    def minor(self) -> str:
        """`1.24` of `1.24.6`."""
        return ".".join(self.release.split(".")[:2])
