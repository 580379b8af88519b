"""MergedGateway: the servers of all Gateways that select a router, by listener port (istiod's mergeGateways)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pushsim.context import PushContext
from pushsim.conversion import pairs, parse_protocol, selects
from pushsim.mesh import HTTP_PROTOCOLS, Object
from pushsim.registry import Target

#: A server of a Gateway: the Gateway and the server's index in it.
Server = tuple[Object, int]
_NO_TRANSLATION = "experimental.istio.io/disable-gateway-port-translation"


@dataclass(frozen=True, slots=True)
class GatewayPort:
    """One listener of a router: servers merged on a port, protocol and bind address.

    route: RDS route of a plain-text HTTP port, "" for TCP and TLS ports.
    """

    port: int
    protocol: str
    bind: str
    route: str
    servers: tuple[Server, ...]

    @property
    def name(self) -> str:
        """Its listener's name."""
        return f"{self.bind or '0.0.0.0'}_{self.port}"


@dataclass(frozen=True, slots=True)
class MergedGateway:
    """What a router serves.

    names:  `namespace/name` of every Gateway that selects it.
    ports:  listeners, in istiod's order.
    routes: servers by RDS route name.
    sni:    hosts of AUTO_PASSTHROUGH servers.
    credentials: some server names a credential.
    """

    names: frozenset[str] = frozenset()
    ports: tuple[GatewayPort, ...] = ()
    routes: Mapping[str, tuple[Server, ...]] = field(default_factory=dict)
    sni: frozenset[str] = frozenset()
    passthrough: bool = False
    credentials: bool = False

    __hash__ = object.__hash__


def terminates(server: Server) -> bool:
    """Whether a server ends TLS; one whose mode is left out passes it through."""
    gateway, index = server
    mode = (gateway.spec["servers"][index].get("tls") or {}).get("mode")
    return mode not in (None, "PASSTHROUGH", "AUTO_PASSTHROUGH")


def route_name(server: Server, port: int) -> str:
    """RDS route of a server: `http.PORT`, `https.NUMBER.PORTNAME.GATEWAY.NAMESPACE`, "" if it has none."""
    gateway, index = server
    spec = gateway.spec["servers"][index]
    protocol = parse_protocol(str(spec["port"].get("protocol") or ""))
    bind = f".{spec['bind']}" if spec.get("bind") else ""
    if protocol in HTTP_PROTOCOLS:
        return f"http.{port}{bind}"
    if protocol == "HTTPS" and terminates(server):
        name = spec["port"].get("name") or ""
        return f"https.{spec['port']['number']}.{name}.{gateway.ref.name}.{gateway.ref.namespace}{bind}"
    return ""


def passed_hosts(server: Server) -> list[str]:
    """The hosts that an AUTO_PASSTHROUGH server passes on; none of any other."""
    gateway, index = server
    spec = gateway.spec["servers"][index]
    if (spec.get("tls") or {}).get("mode") != "AUTO_PASSTHROUGH":
        return []
    return [str(host).rpartition("/")[2] for host in spec.get("hosts") or ()]


def merge_gateways(context: PushContext, targets: Sequence[Target], labels: Mapping[str, str]) -> MergedGateway:
    """Merge the Gateways whose selector matches a router's labels."""
    selecting = [g for g in context.gateways if selects(pairs(g.spec.get("selector")), labels)]
    ports: dict[tuple[int, str, str], list[Server]] = {}
    routes: dict[str, list[Server]] = {}
    listener_routes: dict[tuple[int, str, str], str] = {}
    plain: dict[int, tuple[int, str, str]] = {}
    taken: set[int] = set()
    tls_hosts: dict[int, dict[str, str]] = {}  # by port, host and bind address of TLS servers
    sni: set[str] = set()
    passthrough = credentials = False
    for gateway in selecting:
        for index, spec in enumerate(gateway.spec.get("servers") or ()):
            server, written = (gateway, index), spec.get("port") or {}
            if not written:
                continue
            protocol = str(written.get("protocol") or "")
            port = _resolve(int(written["number"]), targets)
            key = (port, protocol, str(spec.get("bind") or ""))
            route = route_name(server, port)
            tls = spec.get("tls") or {}
            credentials |= bool(tls.get("credentialName"))
            if tls:
                hosts = [_own(str(host), gateway) for host in spec.get("hosts") or ()]
                known = tls_hosts.setdefault(port, {})
                if any(known.get(host) == key[2] for host in hosts):
                    continue  # CheckDuplicates: the server is skipped
                known.update(dict.fromkeys(hosts, key[2]))
            passthrough |= tls.get("mode") == "AUTO_PASSTHROUGH"
            sni.update(passed_hosts(server))
            http = parse_protocol(protocol) in HTTP_PROTOCOLS
            if port in taken and port in plain:
                current = plain[port]
                if current[2] == key[2]:
                    if not (http and parse_protocol(current[1]) in HTTP_PROTOCOLS) or not route:
                        continue
                    key = current
                ports.setdefault(key, []).append(server)
                listener_routes.setdefault(key, route)
                routes.setdefault(route, []).append(server)
                continue
            if port in taken:
                if not tls and key in ports:
                    continue
                if protocol == "HTTPS" and route:
                    if route in routes:
                        continue
                    routes[route] = [server]
            else:
                taken.add(port)
                if not tls or http:
                    plain[port] = key
                if route:
                    routes[route] = [server]
                listener_routes[key] = route if http else ""
            ports.setdefault(key, []).append(server)
    return MergedGateway(
        names=frozenset(f"{g.ref.namespace}/{g.ref.name}" for g in selecting),
        ports=tuple(
            GatewayPort(key[0], key[1], key[2], listener_routes.get(key, ""), tuple(servers))
            for key, servers in ports.items()
        ),
        routes={name: tuple(servers) for name, servers in routes.items()},
        sni=frozenset(sni),
        passthrough=passthrough,
        credentials=credentials,
    )


def _own(host: str, gateway: Object) -> str:
    """A server's host with the Gateway's namespace for "."."""
    return f"{gateway.ref.namespace}{host[1:]}" if host.startswith("./") else host


def _resolve(number: int, targets: Sequence[Target]) -> int:
    """The port listened on: the target port of the router's own service port of that number, else the number."""
    for target in targets:
        if _NO_TRANSLATION not in dict(target.service.labels) and target.port.number == number:
            return target.target_port
    return number
