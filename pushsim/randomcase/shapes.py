"""Random values of fields: what makes two objects of a kind differ beyond whom they concern."""

from __future__ import annotations

from random import Random
from typing import Any

Json = dict[str, Any]

#: Ports of services beyond the usual ones, each by a protocol that makes other listeners.
PORTS: dict[str, Json] = {
    "mongo": {"name": "mongo", "port": 27017, "targetPort": 27017, "protocol": "TCP"},
    "redis": {"name": "redis", "port": 6379, "targetPort": 6379, "protocol": "TCP"},
    "mysql": {"name": "mysql", "port": 3306, "targetPort": 3306, "protocol": "TCP"},
    "http2": {"name": "http2", "port": 8082, "targetPort": 8080, "protocol": "TCP"},
    "https": {"name": "https", "port": 443, "targetPort": 8443, "protocol": "TCP"},
    "udp": {"name": "udp", "port": 5353, "targetPort": 5353, "protocol": "UDP"},
    "other": {"name": "tcp-80", "port": 80, "targetPort": 9090, "protocol": "TCP"},
}
#: Extension providers, of which Telemetries and AuthorizationPolicies name some that there may not be.
PROVIDERS: list[Json] = [
    {"name": "zipkin", "zipkin": {"service": "s0.n0.svc.cluster.local", "port": 9411}},
    {"name": "authz", "envoyExtAuthzGrpc": {"service": "s1.n0.svc.cluster.local", "port": 9000}},
    {"name": "logs", "envoyFileAccessLog": {"path": "/dev/stderr"}},
]
LOCALITIES = ("r/z1", "r/z2", "q/z1/s")


def subset(draw: Random, options: Json, most: int = 2) -> Json:
    """Up to so many of these fields."""
    names = draw.sample(sorted(options), draw.randint(0, min(most, len(options))))
    return {name: options[name] for name in sorted(names)}


def node_labels(locality: str) -> dict[str, str]:
    """A Node's labels for `region/zone/subzone`."""
    keys = ("topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone")
    return dict(zip(keys, locality.split("/"), strict=False))


def settings(draw: Random) -> Json:
    """`meshConfig` and `env` of a case, mostly the default ones."""
    found: Json = {}
    if draw.random() < 0.5:
        config = {
            "enableAutoMtls": False,
            "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"},
            "accessLogFile": "/dev/stdout",
            "defaultServiceExportTo": ["."],
            "defaultVirtualServiceExportTo": ["."],
            "defaultDestinationRuleExportTo": ["."],
            "localityLbSetting": {"enabled": False},
            "protocolDetectionTimeout": "5s",
            "connectTimeout": "7s",
            "h2UpgradePolicy": "UPGRADE",
            "trustDomainAliases": ["old.local"],
            "extensionProviders": PROVIDERS,
            "defaultConfig": {"proxyMetadata": {"ISTIO_META_DNS_CAPTURE": "true"}},
            "discoverySelectors": [{"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["1", "2"]}]}],
        }
        found["meshConfig"] = subset(draw, config)
    if draw.random() < 0.3:
        found["env"] = subset(
            draw,
            {
                "PILOT_FILTER_GATEWAY_CLUSTER_CONFIG": True,
                "PILOT_ENABLE_IP_AUTOALLOCATE": True,
                "PILOT_SEND_UNHEALTHY_ENDPOINTS": True,
                "PILOT_ENABLE_CDS_CACHE": False,
            },
            1,
        )
    return {name: value for name, value in found.items() if value}


def unusual(draw: Random, body: Json, other: str) -> None:
    """Make a Service one of a kind, or with fields, that few have; other: a host that it may be an alias of."""
    meta, spec = body["metadata"], body["spec"]
    what = draw.choice(
        ["balancer", "node", "alias", "selector", "local", "near", "unready", "labels", "target", "twice"]
    )
    if what == "balancer":
        spec["type"] = "LoadBalancer"
        if draw.random() < 0.5:
            body["status"] = {"loadBalancer": {"ingress": [{"ip": f"9.9.9.{draw.randint(1, 9)}"}]}}
    elif what == "node":
        spec["type"] = "NodePort"
        spec["ports"] = [{**p, "nodePort": 30000 + p["port"] % 2000} for p in spec["ports"]]
    elif what == "alias":
        for name in ("clusterIP", "selector"):
            del spec[name]
        spec |= {"type": "ExternalName", "externalName": draw.choice([other, "outside.example.org"])}
    elif what == "selector":
        spec["selector"] = {"role": draw.choice(["web", "train"])}
        if draw.random() < 0.3:
            del spec["selector"]
    elif what == "local":
        spec["internalTrafficPolicy"] = "Local"
    elif what == "near":
        spec["trafficDistribution"] = "PreferClose"
    elif what == "twice":
        spec["ports"] = [*spec["ports"], {**spec["ports"][0], "name": "again", "protocol": "UDP"}]
    elif what == "unready":
        spec["publishNotReadyAddresses"] = True
    elif what == "labels":
        meta["labels"] = {"app": meta["name"], "version": str(draw.randint(1, 9))}
    else:
        spec["ports"] = [{**p, "targetPort": 8080 + draw.randint(0, 9)} for p in spec["ports"]]


def traffic_policy(draw: Random) -> Json:
    """Parts of a DestinationRule's trafficPolicy."""
    balance = [
        {"simple": draw.choice(["ROUND_ROBIN", "LEAST_REQUEST", "RANDOM", "PASSTHROUGH"])},
        {"consistentHash": {"httpHeaderName": "x-user"}},
        {"consistentHash": {"httpCookie": {"name": "c", "ttl": "60s"}}},
        {"consistentHash": {"useSourceIp": True}},
        {"simple": "ROUND_ROBIN", "localityLbSetting": {"enabled": True, "failover": [{"from": "r", "to": "q"}]}},
        {"localityLbSetting": {"enabled": True, "distribute": [{"from": "r/z1/*", "to": {"r/z2/*": 60, "q/*": 40}}]}},
        {"simple": "ROUND_ROBIN", "localityLbSetting": {"enabled": False}},
        {"simple": "LEAST_REQUEST", "warmupDurationSecs": "30s"},
    ]
    return subset(
        draw,
        {
            "loadBalancer": draw.choice(balance),
            "outlierDetection": {"consecutive5xxErrors": draw.randint(1, 9), "interval": "30s"},
            "connectionPool": draw.choice(
                [
                    {"http": {"http2MaxRequests": draw.randint(1, 99), "h2UpgradePolicy": "UPGRADE"}},
                    {"tcp": {"idleTimeout": "60s", "maxConnectionDuration": "300s"}},
                ]
            ),
            "portLevelSettings": [
                {"port": {"number": draw.choice([80, 9000])}, "tls": {"mode": "SIMPLE", "sni": "x.example.com"}}
            ],
            "tls": {"mode": "SIMPLE", "sni": "y.example.com", "subjectAltNames": ["y.example.com"]},
        },
    )


def subsets(draw: Random) -> list[Json]:
    """Subsets of a DestinationRule, the second at times with a policy of its own."""
    found: list[Json] = [{"name": "v1", "labels": {"role": "web"}}]
    if draw.random() < 0.5:
        found.append({"name": "v2", "labels": {"role": "train"}, "trafficPolicy": traffic_policy(draw)})
    return found


def http_route(draw: Random, namespace: str) -> Json:
    """Fields of a VirtualService's http route beside where it goes to."""
    matches = [
        {"headers": {"x-user": {"exact": "a"}}},
        {"uri": {"regex": "/v[0-9]+"}, "method": {"exact": "GET"}},
        {"sourceLabels": {"role": "web"}},
        {"sourceNamespace": namespace},
        {"queryParams": {"q": {"prefix": "a"}}, "port": 80},
        {"uri": {"exact": "/c"}, "ignoreUriCase": True},
    ]
    return subset(
        draw,
        {
            "match": draw.sample(matches, draw.randint(1, 2)),
            "retries": {"attempts": draw.randint(0, 4), "retryOn": "5xx,reset", "perTryTimeout": "2s"},
            "rewrite": {"uri": "/rewritten", "authority": "other.example.com"},
            "fault": {"abort": {"httpStatus": 503, "percentage": {"value": 10}}},
            "headers": {"request": {"set": {"x-a": "b"}, "remove": ["x-c"]}, "response": {"add": {"x-d": "e"}}},
            "corsPolicy": {
                "allowOrigins": [{"exact": "https://example.com"}],
                "allowMethods": ["GET"],
                "maxAge": "24h",
            },
        },
        3,
    )


def at_gateway(draw: Random, host: str) -> Json:
    """Hosts of a VirtualService at a gateway, and its tcp routes; host: where these go to."""
    found: Json = {}
    if draw.random() < 0.3:
        found["hosts"] = [f"h{number}.example.com" for number in range(draw.randint(2, 3))]
    if draw.random() < 0.2:
        to = [{"destination": {"host": host, "port": {"number": draw.choice([80, 9000])}}}]
        found["tcp"] = [{"match": [{"port": draw.choice([80, 443, 9000])}], "route": to}]
        if draw.random() < 0.5:
            found["hosts"] = ["t.example.com"]
    return found


def servers(draw: Random) -> list[Json]:
    """Servers of a Gateway beside its HTTP one."""
    found: list[Json] = [
        {
            "port": {"number": 443, "name": "https", "protocol": "HTTPS"},
            "hosts": [f"h{draw.randrange(3)}.example.com"],
            "tls": {"mode": "SIMPLE", "serverCertificate": "/etc/certs/a.pem", "privateKey": "/etc/certs/key.pem"},
        },
        {"port": {"number": 9000, "name": "tcp", "protocol": "TCP"}, "hosts": ["*"]},
        {
            "port": {"number": 15443, "name": "auto", "protocol": "TLS"},
            "hosts": ["*.local"],
            "tls": {"mode": "AUTO_PASSTHROUGH"},
        },
        {
            "port": {"number": 8080, "name": "redirect", "protocol": "HTTP"},
            "hosts": ["h1.example.com"],
            "tls": {"httpsRedirect": True},
        },
        {
            "port": {"number": draw.choice([80, 443, 9000]), "name": "end", "protocol": "TLS"},
            "hosts": ["t.example.com"],
            "tls": {"mode": "SIMPLE", "serverCertificate": "/etc/certs/b.pem", "privateKey": "/etc/certs/key.pem"},
        },
        {
            "port": {
                "number": draw.choice([80, 443, 9000]),
                "name": "any",
                "protocol": draw.choice(["HTTP2", "MONGO"]),
            },
            "hosts": ["*"],
        },
    ]
    return [bound(draw, server) for server in draw.sample(found, draw.randint(1, 2))]


def bound(draw: Random, server: Json) -> Json:
    """A server that at times says which address it binds."""
    return server if draw.random() < 0.75 else {**server, "bind": draw.choice(["0.0.0.0", "127.0.0.1"])}


def endpoints(draw: Random, number: int) -> list[Json]:
    """Endpoints of a STATIC ServiceEntry with all that they may say."""
    return [
        {
            "address": f"10.9.{number}.{draw.randint(1, 9)}",
            **subset(
                draw,
                {
                    "ports": {"http": 8080},
                    "labels": {"role": draw.choice(["web", "train"])},
                    "weight": draw.randint(1, 5),
                    "locality": draw.choice(LOCALITIES),
                    "serviceAccount": "outside",
                },
            ),
        }
        for _ in range(draw.randint(0, 2))
    ]


def rule(draw: Random, namespace: str) -> Json:
    """A rule of an AuthorizationPolicy."""
    operation = {"paths": ["/a*", "*/b"], "methods": ["GET"], "hosts": ["x.example.com"], "notPorts": ["9000"]}
    source = {
        "principals": [f"cluster.local/ns/{namespace}/sa/default"],
        "namespaces": [namespace],
        "ipBlocks": ["10.1.0.0/16"],
        "requestPrincipals": ["*"],
    }
    whens = [
        {"key": "request.headers[x-user]", "values": ["a", "b*"]},
        {"key": "destination.port", "notValues": ["80"]},
        {"key": "source.namespace", "values": [namespace]},
    ]
    return subset(
        draw,
        {
            "to": [{"operation": subset(draw, operation) or {"methods": ["GET"]}}],
            "from": [{"source": subset(draw, source) or {"namespaces": [namespace]}}],
            "when": [draw.choice(whens)],
        },
        3,
    )


def telemetry(draw: Random) -> Json:
    """A Telemetry's spec."""
    return subset(
        draw,
        {
            "accessLogging": [
                {
                    "providers": [{"name": draw.choice(["envoy", "logs"])}],
                    "filter": {"expression": "response.code >= 400"},
                }
            ],
            "tracing": [
                {"randomSamplingPercentage": draw.randint(1, 100), "customTags": {"t": {"literal": {"value": "v"}}}}
            ],
            "metrics": [
                {
                    "providers": [{"name": "prometheus"}],
                    "overrides": [{"match": {"metric": "REQUEST_COUNT"}, "tagOverrides": {"x": {"value": "'y'"}}}],
                }
            ],
        },
    )


def plugin(draw: Random) -> Json:
    """Fields of a WasmPlugin beside its URL."""
    return subset(
        draw,
        {
            "phase": draw.choice(["AUTHN", "STATS"]),
            "priority": draw.randint(1, 9),
            "pluginConfig": {"key": "value"},
            "match": [{"mode": draw.choice(["SERVER", "CLIENT"])}],
        },
    )


def patch(draw: Random, host: str) -> Json:
    """A patch of an EnvoyFilter; host: a service that it may be about."""
    lua = {
        "name": "lua",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
            "inlineCode": "function envoy_on_request(h) end",
        },
    }
    manager = {"filterChain": {"filter": {"name": "envoy.filters.network.http_connection_manager"}}}
    context = draw.choice(["SIDECAR_INBOUND", "SIDECAR_OUTBOUND", "GATEWAY", "ANY"])
    added = {"name": f"added-{draw.randrange(2)}", "connect_timeout": "1s", "type": "STATIC"}
    sub = {"filterChain": {"filter": {**manager["filterChain"]["filter"], "subFilter": {"name": _CORS}}}}
    at_port = {"listener": {"portNumber": draw.choice([80, 9000, 15006])}}
    at_host = {"routeConfiguration": {"vhost": {"name": f"{host}:80"}}}
    of_host = {"cluster": {"service": host}}
    options: list[tuple[str, str, Json, Json]] = [
        ("HTTP_FILTER", "INSERT_BEFORE", lua, {"listener": manager}),
        ("HTTP_FILTER", "REMOVE", {}, {"listener": sub}),
        ("HTTP_FILTER", "REPLACE", lua, {"listener": sub}),
        ("NETWORK_FILTER", "MERGE", {"typed_config": _MANAGER}, {"listener": manager}),
        ("LISTENER", "MERGE", {"per_connection_buffer_limit_bytes": 4096}, {}),
        ("LISTENER", "REMOVE", {}, at_port),
        ("LISTENER", "ADD", {"name": f"added-{draw.randrange(2)}", "filter_chains": []}, {}),
        ("VIRTUAL_HOST", "MERGE", {"request_headers_to_remove": ["x-removed"]}, {}),
        ("VIRTUAL_HOST", "REMOVE", {}, at_host),
        ("HTTP_ROUTE", "MERGE", {"response_headers_to_remove": ["x-gone"]}, draw.choice([{}, at_host])),
        ("ROUTE_CONFIGURATION", "MERGE", {"internal_only_headers": ["x"]}, {}),
        ("CLUSTER", "ADD", added, {}),
        ("CLUSTER", "REMOVE", {}, of_host),
        ("CLUSTER", "MERGE", {"lb_policy": "RANDOM"}, of_host),
    ]
    to, operation, value, where = draw.choice(options)
    match = {"context": context, **where}
    return {"applyTo": to, "match": match, "patch": {"operation": operation, "value": value}}


_CORS = "envoy.filters.http.cors"
_MANAGER = {
    "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    "server_name": "mesh",
}
