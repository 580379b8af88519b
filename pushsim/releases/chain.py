"""Every release known, each built from the one before it by `replace(previous, …)`: what changed, and in which PR."""

from __future__ import annotations

from dataclasses import replace

from pushsim.mesh import SESSION, SESSION_HEADER
from pushsim.releases import flags
from pushsim.releases.flags import known as known_flags
from pushsim.releases.switches import Kinds, Rules


def kinds(text: str) -> Kinds:
    """The kinds of a list separated by spaces."""
    return frozenset(text.split())


def chain() -> dict[str, Rules]:
    """Rules by full release name, oldest first."""
    known: dict[str, Rules] = {}

    def add(release: str, rules: Rules) -> Rules:
        known[release] = rules = replace(rules, release=release)
        return rules

    always = (flags.HEADLESS_EDS, flags.GATEWAYS_AT_HOME)
    base = add("1.13.0", Rules("1.13.0", flags=(*always, flags.POD_LISTENERS)))
    add("1.13.9", replace(base, root_sidecar_lost=False))

    base = replace(
        base,
        sidecar_ignores=kinds("Gateway"),  # Secret reaches sidecars
        rule_sources=True,  # #38088
        private_rules="own",
        filter_extra_services="always",
        cds_skip=base.cds_skip | {"ProxyConfig"},
        eds_skip=base.eds_skip | {"ProxyConfig"},
        rds_skip=base.rds_skip | {"Telemetry", "ProxyConfig"},
        lds_sidecar_skip=kinds("Gateway WorkloadGroup WorkloadEntry Secret ProxyConfig"),
        lds_router_skip=base.lds_router_skip | {"WorkloadEntry", "ProxyConfig"},
        eds_empty_sent=False,  # #38072
        ecds_secrets=True,
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
        rds_gone_sent=True,
        accounts_by_port=False,
        writes_rules="host",
    )
    add("1.15.0", replace(base, root_sidecar_lost=True))
    base = replace(base, accounts_forgotten=False)
    add("1.15.1", replace(base, root_sidecar_lost=True))
    base = add("1.15.2", base)
    add("1.15.7", base)

    base = replace(base, router_filter="host", filter_extra_services="with-route", plugin_matches=True)  # #40995
    base = replace(base, pod_labels="proxy", labelled_last=True)  # #40186
    base = replace(base, draining_labels=(SESSION,))
    base = add("1.16.0", replace(base, resource_scoping="false", egress_port_anywhere=False))
    base = add("1.16.2", replace(base, passthrough_attaches=True, update_compares_previous=True))  # #42721
    add("1.16.7", base)

    base = replace(
        base,
        router_service="scope",  # #42422
        foreign_pushed=False,
        service_update="equal",  # #42617
        headless_reason=True,  # #42165
        delegate_default_private=True,
        eds_partial="unskipped",  # #42828
        nds_skip=base.nds_skip | kinds("Secret Telemetry ProxyConfig MeshConfig"),  # #41687
        nds_headless_partial=True,  # #42165
        round_robin_once="mesh",
    )
    base = replace(base, flags=known_flags(base.flags, flags.SERVICE_PUSH))
    base = add("1.17.0", replace(base, node_local="pod", locality_of_instance=False))  # #42263
    add("1.17.8", base)

    base = replace(
        base,
        cluster_kinds=base.cluster_kinds | {"WasmPlugin"},  # #43305
        always_types=frozenset({"waypoint", "ztunnel"}),  # #43414
        nds_merges=True,
        gateway_binds="apart",  # #43690
        left_pods_kept=False,  # #42922
    )
    add("1.18.0", base)
    patched = add("1.18.6", replace(base, endpoint_comparison="health-removed", unready_kept=True))
    add("1.18.7", replace(patched, endpoint_comparison="health"))

    base = replace(base, delta_cds_kinds=base.delta_cds_kinds | {"DestinationRule"}, replaced_rules=True)  # #44891
    base = replace(base, app_protocols=(("kubernetes.io/h2c", "HTTP2"),), any_revision=True)
    base = replace(base, locality_of_instance=True)  # istio/istio#48302
    add("1.19.0", base)
    patched = add("1.19.4", replace(base, endpoint_comparison="health-removed", unready_kept=True))
    patched = add("1.19.6", replace(patched, endpoint_comparison="health"))
    patched = add("1.19.7", replace(patched, service_update="equal-or-target-port"))
    add("1.19.10", patched)

    base = replace(
        base,
        own_service="all",
        service_update="equal-or-target-port",
        plugin_types=True,
        hidden_update_silent=True,  # #47009
        headless_hidden_silent=True,
        delta_gone_port="any",
        endpoint_comparison="health-removed",
        instances_listed=False,
        unready_kept=True,
        locality_of_instance=False,
        external_name_beside=True,
        mirrors=True,
        draining_ends=True,
    )
    base = replace(base, flags=known_flags(base.flags, flags.ALIASES))  # #46332
    add("1.20.0", replace(base, private_rules="names-own"))
    base = add("1.20.2", replace(base, endpoint_comparison="health"))
    base = replace(
        base,
        round_robin_once="namespace",
        headless_second_request="dnsname",  # #48207
        cds_skip=base.cds_skip | {"DNSName"},
        eds_skip=base.eds_skip | {"DNSName"},
        rds_skip=base.rds_skip | {"DNSName"},
        lds_sidecar_skip=base.lds_sidecar_skip | {"DNSName"},
        lds_router_skip=base.lds_router_skip | {"DNSName"},
    )
    base = add("1.20.4", base)
    add("1.20.8", replace(base, cds_router_gateway="passthrough"))  # #50757

    base = replace(base, writes_rules="host-and-tls")  # VERIFY_CERTIFICATE_AT_CLIENT is the default
    base = replace(base, external_name_aliases=True)  # the flag is on
    base = replace(base, flags=known_flags(base.flags, flags.NO_ALIASES, without=[flags.ALIASES]))
    base = replace(base, ports_reserved=True)  # #48551
    base = replace(base, plugin_names="extenstions.istio.io/wasmplugin/{}.{}")
    base = replace(base, index_duplicate="oldest", filter_extra_services="always", delta_watched="last-response")
    base = add("1.21.0", base)
    patched = add("1.21.3", replace(base, endpoint_comparison="any"))
    patched = add("1.21.4", replace(patched, cds_router_gateway="passthrough"))
    patched = add("1.21.5", replace(patched, targets="service"))
    add("1.21.6", replace(patched, emptied_told=True))  # #52588

    routes = kinds("HTTPRoute TCPRoute TLSRoute GRPCRoute")
    base = replace(
        base,
        agent_mode="delta",
        resource_scoping="true",  # #49262
        pod_labels="proxy-and-endpoints",  # #50432
        default_scope="merged",  # #48896, #49932
        gateway_scope=True,
        merge_services="append",
        sidecar_ignores=kinds("Gateway KubernetesGateway"),
        known_kinds=base.known_kinds | routes,  # #50197
        scope_triggers=base.scope_triggers | routes,
        cds_skip=base.cds_skip | {"KubernetesGateway"},
        eds_skip=base.eds_skip | {"KubernetesGateway"} | routes,
        lds_sidecar_skip=base.lds_sidecar_skip | {"KubernetesGateway"},
        delta_watched="union",  # #49890
        delta_removes_inbound=True,
        delta_removes_once=True,
        nds_skip=base.nds_skip | {"KubernetesGateway"} | routes,
        sds_empty_sent=False,
        ecds_by_name=True,
        answers_gone=False,
        flags=known_flags(base.flags, without=[flags.POD_LISTENERS]),
    )
    base = add("1.22.0", base)
    base = replace(base, endpoint_comparison="any", cds_router_gateway="passthrough")  # #50757
    base = add("1.22.1", base)
    base = add("1.22.3", replace(base, targets="service"))  # #51788
    base = add("1.22.4", replace(base, emptied_told=True))  # #52588
    add("1.22.8", base)

    base = replace(base, inbound_passthrough="InboundPassthroughCluster", nds_every_address=True)
    base = replace(base, flags=known_flags(base.flags, without=[flags.SERVICE_PUSH]))
    base = replace(base, targets_reserved=True)  # #51884
    base = add("1.23.0", replace(base, node_local="told", emptied_told=False))
    base = add("1.23.1", replace(base, emptied_told=True))  # #52588
    add("1.23.6", base)

    base = replace(
        base,
        default_scope="unified",  # #51776
        app_protocols=(*base.app_protocols, ("kubernetes.io/ws", "HTTP"), ("kubernetes.io/wss", "HTTPS")),
        namespace_of_host="own-kubernetes-first",
        unready_published=True,
        source_namespace=True,  # #52302
        rule_merge="separate",  # #52636
        service_entry_always_full="without-autoallocate",
        nds_unready="terminating",
        draining_labels=(SESSION, SESSION_HEADER),
        export_to_trimmed=True,  # #53367
        flags=(*always, flags.UNIFIED_SCOPE, flags.RULE_MERGE),
    )
    add("1.24.0", base)
    base = add("1.24.3", replace(base, nds_by_listener=True))
    add("1.24.6", replace(base, delta_filter="full"))  # #55818

    base = replace(
        base,
        hidden_silent=True,  # #54120
        pods_served_relabelled=True,  # #54102
        distributions=(("preferclose", "zone"),),
        terminating_apart=True,
        resource_scoping="always",
        router_filter="host-namespace",
        autoallocate_default=True,
        nds_headless_partial=False,
        nds_unready="none",
    )
    add("1.25.0", base)
    add("1.25.5", replace(base, delta_filter="full"))

    base = replace(
        base,
        plugin_names="extensions.istio.io/wasmplugin/{}.{}",
        writes_rules="host",
        evicted_forgotten=True,  # #55171
        empty_is_all=False,  # #55496
        narrow=True,
        cluster_kinds=base.cluster_kinds | {"PeerAuthentication", "Telemetry"},  # #55497
        known_kinds=kinds("ServiceEntry VirtualService DestinationRule Sidecar"),
        sidecar_ignores=kinds("Gateway"),
        scope_triggers=kinds("ServiceEntry DestinationRule VirtualService Sidecar Ingress"),
        cds_skip=base.cds_skip - {"KubernetesGateway"},
        eds_skip=base.eds_skip - {"KubernetesGateway"} - routes,
        lds_sidecar_skip=base.lds_sidecar_skip - {"KubernetesGateway"},
        nds_skip=base.nds_skip - {"KubernetesGateway"} - routes,
        cds_router_virtual_service=False,  # #55757
        cds_narrowed=True,
        targets="service-or-own",
    )
    base = add("1.26.0", base)
    add("1.26.5", replace(base, targets="service-and-own"))  # #57908
    add("1.26.8", replace(base, targets="service-and-own", gateway_binds="newest"))  # #57707

    base = replace(base, delta_filter="full", subsets_repeated=True)  # #55818
    base = replace(base, distributions=(*base.distributions, ("prefersamezone", "zone"), ("prefersamenode", "node")))
    add("1.27.0", base)
    base = add("1.27.2", replace(base, targets="service-and-own"))
    patched = add("1.27.4", replace(base, gateway_binds="newest", entry_labels_compared=True))  # #58191
    add("1.27.9", patched)

    add("1.28.0", base)
    base = add("1.28.1", patched)
    add("1.28.10", base)
    base = add("1.29.0", base)
    add("1.29.6", base)

    base = replace(
        base,
        service_entry_always_full="never",
        krt_entries=True,
        entry_workload=True,
        delegate_keys=False,  # #59435
        round_robin_once="oldest",
        destination_namespace="best",  # #59486
        cluster_kinds=base.cluster_kinds - {"PeerAuthentication"} | {"TrafficExtension"},
        known_kinds=base.known_kinds | {"PeerAuthentication"},
        peer_authentication_deps=True,  # #59331
        scope_triggers=base.scope_triggers | {"PeerAuthentication"},
        always_types=base.always_types | {"agentgateway"},
        plugin_names="extensions.istio.io/trafficextension/{}.{}~istio-translated-wasmplugin",
        cds_router_virtual_service=True,  # #59482
        cds_router_gateway="always",
        eds_skip=base.eds_skip | {"Sidecar"},
        lds_peer_authentication_own=True,
        rds_gateway_router_only=True,
        eds_partial="aware",
        delta_cds_kinds=kinds("ServiceEntry DestinationRule VirtualService Sidecar PeerAuthentication"),
        delta_filter="filtered",
        flags=known_flags(base.flags, flags.BEST_NAMESPACE),
    )
    add("1.30.0", base)
    base = replace(
        base,
        cds_skip=base.cds_skip | {"TrafficExtension"},  # #60638
        eds_skip=base.eds_skip | {"TrafficExtension"},
        rds_skip=base.rds_skip | {"TrafficExtension"},
        nds_skip=base.nds_skip | {"TrafficExtension"},
    )
    add("1.30.2", base)
    base = replace(
        base,
        default_export_list=True,  # #60701
        address_watchers_only=True,  # #60648
        eds_skip=base.eds_skip | {"Address"},
        rds_skip=base.rds_skip | {"Address"},
        nds_skip=base.nds_skip | {"Address"},
    )
    base = add("1.30.3", base)

    base = replace(
        base,
        has_full=False,  # #59808
        endpoint_kind="Endpoints",
        unready_sent=True,  # #60690
        known_kinds=base.known_kinds | {"Endpoints"},
        scope_endpoints_key=True,
        cluster_kinds=base.cluster_kinds | {"WasmPlugin"},
        cds_skip=base.cds_skip | {"Endpoints", "Address"},
        lds_sidecar_skip=base.lds_sidecar_skip | {"Endpoints", "Address"},
        lds_router_skip=base.lds_router_skip | {"Endpoints", "Address"},
        rds_skip=base.rds_skip | {"Endpoints"},
        nds_skip=base.nds_skip | {"Endpoints"},
        sds_full_list=False,
        eds_removes=False,  # #60454
        headless_trim=True,  # #60803
        exclusions=True,  # #60581
        exact_lookup=True,  # #60473
    )
    base = add("1.31.0-alpha.0", base)
    add("1.31.0-rc.0", replace(base, headless_trim_rds=True))  # #60928
    return known
