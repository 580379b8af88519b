"""Sizes under switches of the environment and of the mesh config: lengths that real istiods sent, one small mesh."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from pushsim.mesh import Port, Proxy, Service
from pushsim.resources import InboundCluster, Listener, Resource, RouteConfiguration, StaticCluster
from pushsim.sizes import Policies, Sizer
from pushsim.sizes.releases import sizing_of
from pushsim.sizes.settings import settled

RELEASES = ("1.14", "1.24", "1.30")
PROXY = Proxy("vault-0", "ns-a", "10.1.0.2", labels={"app": "vault"})


def service(name: str, namespace: str, address: str, port: Port) -> Service:
    return Service(f"{name}.{namespace}.svc.cluster.local", namespace, name, (port,), "EDS", addresses=(address,))


WEB = service("web", "ns-a", "10.0.0.1", Port("http", 80, "HTTP"))
VAULT = service("vault", "ns-a", "10.0.0.2", Port("tls", 8443, "TLS"))
STORE = service("store", "ns-b", "10.0.0.3", Port("redis", 6379, "Redis"))
OTHER = service("other", "ns-b", "10.0.0.4", Port("mysql", 3306, "MySQL"))


def tcp(svc: Service) -> Listener:
    port = svc.ports[0]
    return Listener(f"{svc.addresses[0]}_{port.number}", "tcp", svc.addresses[0], port.number, services=((svc, port),))


def inbound(svc: Service) -> Listener:
    pairs = ((svc, svc.ports[0]),)
    return Listener(
        "virtualInbound", "virtualInbound", "0.0.0.0", 15006, services=pairs, target_ports=(pairs[0][1].number,)
    )


RESOURCES: Mapping[str, Resource] = {
    "http": Listener("0.0.0.0_80", "http", "0.0.0.0", 80, "80", ((WEB, WEB.ports[0]),)),
    "mysql": tcp(OTHER),
    "redis": tcp(STORE),
    "virtualOutbound": Listener("virtualOutbound", "virtualOutbound", "0.0.0.0", 15001),
    "virtualInbound": inbound(VAULT),
    "redis inbound": inbound(STORE),
    "passthrough": StaticCluster("PassthroughCluster"),
    "inbound": InboundCluster("inbound|8443||", 8443, ((VAULT, VAULT.ports[0]),)),
}

OFF = "false"
#: What was measured, by release, of a resource under a variable.
SWITCHED = [
    ("http", "PILOT_ENABLE_ALPN_FILTER", OFF, (2042, 2248, 2113)),
    ("http", "PILOT_ENABLE_METADATA_EXCHANGE", OFF, (2002, 2171, 2036)),
    ("http", "PILOT_ENABLE_PERSISTENT_SESSION_FILTER", "true", (2238, 2572, 2437)),
    ("http", "PILOT_HTTP10", "true", (2252, 2458, 2323)),
    ("http", "PILOT_ENABLE_PROTOCOL_SNIFFING_FOR_OUTBOUND", OFF, (1760, 2444, 2309)),
    ("mysql", "PILOT_ENABLE_MYSQL_FILTER", "true", (415, 424, 424)),
    ("redis", "PILOT_ENABLE_REDIS_FILTER", "true", (266, 275, 275)),
    ("redis inbound", "PILOT_ENABLE_REDIS_FILTER", "true", (7918, 9067, 9072)),
    ("virtualOutbound", "MAX_CONNECTIONS_PER_SOCKET_EVENT_LOOP", "0", (418, 418, 418)),
    ("virtualInbound", "PILOT_ENABLE_METADATA_EXCHANGE", OFF, (6234, 6500, 6505)),
    ("virtualInbound", "ENABLE_INBOUND_RETRY_POLICY", OFF, (7864, 8955, 9018)),
    ("virtualInbound", "PILOT_SKIP_VALIDATE_TRUST_DOMAIN", "true", (7783, 8932, 8937)),
    ("virtualInbound", "PILOT_ENABLE_PROTOCOL_SNIFFING_FOR_INBOUND", OFF, (7709, 9013, 9018)),
    ("passthrough", "PILOT_ENABLE_METADATA_EXCHANGE", OFF, (220, 241, 239)),
    ("inbound", "PILOT_ENABLE_TELEMETRY_LABEL", OFF, (85, 110, 108)),
    ("inbound", "PILOT_ENABLE_INBOUND_PASSTHROUGH", OFF, (215, 222, 220)),
]


@pytest.mark.parametrize(("name", "variable", "value", "measured"), SWITCHED)
def test_switches_of_the_environment(name: str, variable: str, value: str, measured: tuple[int, ...]) -> None:
    """A release that does not know a variable does as it always does."""
    sizers = [Sizer(release, mesh_config={}, env={variable: value}) for release in RELEASES]
    assert tuple(sizer.resource_bytes(RESOURCES[name], PROXY, Policies()) for sizer in sizers) == measured


def test_stat_names_of_listeners() -> None:
    mesh = {"outboundClusterStatName": "%SERVICE%_%SERVICE_PORT%_%SUBSET_NAME%"}
    sizers = [Sizer(release, mesh_config=mesh) for release in RELEASES]
    assert [sizer.resource_bytes(RESOURCES["mysql"], PROXY, Policies()) for sizer in sizers] == [221, 230, 230]
    host = {"outboundClusterStatName": "%SERVICE_FQDN%"}
    longer = Sizer("1.24", mesh_config=host).resource_bytes(RESOURCES["mysql"], PROXY, Policies())
    assert longer == 230 + len(OTHER.hostname) - len("other.ns-b_3306_")


def test_stat_names_of_inbound_chains() -> None:
    """Three chains of a port, and three for what no service serves, which are called after the listener."""
    plain, named = (
        Sizer("1.24", mesh_config=mesh).resource_bytes(RESOURCES["virtualInbound"], PROXY, Policies())
        for mesh in ({}, {"inboundClusterStatName": "%SERVICE_FQDN%_%SERVICE_PORT_NAME%"})
    )
    port = len(f"{VAULT.hostname}_tls") - len("inbound|8443||")
    rest = len("_virtualInbound") - len("InboundPassthroughCluster")
    assert named - plain == 3 * port + 3 * rest == 24


def test_attempts_are_counted_unless_switched_off() -> None:
    route = RouteConfiguration("80", ((WEB, WEB.ports[0]),))
    mesh = {"defaultConfig": {"proxyHeaders": {"attemptCount": {"disabled": True}}}}
    less = [
        Sizer(release, mesh_config={}).resource_bytes(route, PROXY, Policies())
        - Sizer(release, mesh_config=mesh).resource_bytes(route, PROXY, Policies())
        for release in RELEASES
    ]
    assert less == [0, 4, 4]  # two bytes a virtual host: the service's, and that of everything else


def test_a_gateway_keeps_its_alpn_without_exchange() -> None:
    """Only PILOT_DISABLE_MX_ALPN is for gateways, too (BuildListenerTLSContext)."""
    quiet, _ = settled(sizing_of("1.24"), {}, {"PILOT_ENABLE_METADATA_EXCHANGE": OFF})
    silent, _ = settled(sizing_of("1.24"), {}, {"PILOT_DISABLE_MX_ALPN": "true"})
    assert (quiet.exchange_alpn, quiet.gateway_exchange_alpn) == (False, True)
    assert (silent.exchange_alpn, silent.gateway_exchange_alpn, silent.metadata_exchange) == (False, False, "struct")


@pytest.mark.parametrize(("release", "localhost"), [("1.21", False), ("1.22", True)])
def test_inbound_traffic_to_localhost_is_of_1_22(release: str, localhost: bool) -> None:
    _, settings = settled(sizing_of(release), {"inboundTrafficPolicy": {"mode": "LOCALHOST"}}, {})
    assert settings.inbound_localhost is localhost
