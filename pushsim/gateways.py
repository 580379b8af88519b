"""MergedGateway: the servers of all Gateways that select a router, by listener port (istiod's mergeGateways)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pushsim.context import PushContext
from pushsim.conversion import pairs, parse_protocol, selects
from pushsim.mesh import HTTP_PROTOCOLS, Object, Proxy
from pushsim.registry import Target
from pushsim.releases import Rules

#: A server of a Gateway: the Gateway and the server's index in it.
Server = tuple[Object, int]
_NO_TRANSLATION = "experimental.istio.io/disable-gateway-port-translation"


@dataclass(frozen=True, slots=True)
class GatewayPort:
    """One listener of a router: servers merged on a port, protocol and bind address."""

    port: int
    protocol: str
    bind: str
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


def merge_gateways(
    context: PushContext, targets: Sequence[Target], labels: Mapping[str, str], proxy: Proxy
) -> MergedGateway:
    """Merge the Gateways whose selector matches the labels of a router; a sidecar has none."""
    if proxy.type != "router":
        return MergedGateway()
    anywhere = not context.rules.gateways_at_home
    near = (g for g in context.gateways if anywhere or g.ref.namespace == proxy.namespace)
    selecting = [g for g in near if selects(pairs(g.spec.get("selector")), labels)]
    merging = _Merging(context.rules)
    tls_hosts: dict[int, dict[str, str]] = {}  # by port, host and bind address of TLS servers
    sni: set[str] = set()
    passthrough = credentials = False
    for gateway in selecting:
        for index, spec in enumerate(gateway.spec.get("servers") or ()):
            server, written = (gateway, index), spec.get("port") or {}
            if not written:
                continue
            key = (_resolve(int(written["number"]), targets), str(written.get("protocol") or ""), _bind(spec))
            tls = spec.get("tls") or {}
            credentials |= bool(tls.get("credentialName"))
            if tls:
                hosts = [_own(str(host), gateway) for host in spec.get("hosts") or ()]
                known = tls_hosts.setdefault(key[0], {})
                if any(known.get(host) == key[2] for host in hosts):
                    continue  # CheckDuplicates: the server is skipped
                known.update(dict.fromkeys(hosts, key[2]))
            passthrough |= tls.get("mode") == "AUTO_PASSTHROUGH"
            sni.update(passed_hosts(server))
            merging.add(server, key, tls=bool(tls))
    return MergedGateway(
        names=frozenset(f"{g.ref.namespace}/{g.ref.name}" for g in selecting),
        ports=tuple(GatewayPort(*key, tuple(servers)) for key, servers in merging.ports.items()),
        routes={name: tuple(servers) for name, servers in merging.routes.items()},
        sni=frozenset(sni),
        passthrough=passthrough,
        credentials=credentials,
    )


#: Where a server listens: port, protocol and bind address.
_Key = tuple[int, str, str]


class _Merging:
    """Servers, each merged with those before it, or left out, as istiod does.

    Source: pilot/pkg/model/gateway.go (mergeGateways).
    """

    def __init__(self, rules: Rules) -> None:
        self._binds = rules.gateway_binds
        self.ports: dict[_Key, list[Server]] = {}
        self.routes: dict[str, list[Server]] = {}
        self._taken: set[int] = set()
        self._plain: dict[int, _Key] = {}  # by port, the servers without TLS that others are compared with
        self._beside_tls: set[tuple[int, str]] = set()  # ports and addresses that were shared with a TLS server

    def add(self, server: Server, key: _Key, *, tls: bool) -> None:
        """The next server; tls: it says something about TLS."""
        port, current = key[0], self._plain.get(key[0])
        plain = not tls or _is_http(key)
        if port not in self._taken or (current is None and plain and self._binds == "newest"):
            self._begin(server, key, plain=plain)
        elif current is not None:
            self._add_to_plain(server, key, current, plain=plain)
        else:
            self._add_to_tls(server, key, tls=tls)

    def _begin(self, server: Server, key: _Key, *, plain: bool) -> None:
        """The first where it listens."""
        route = route_name(server, key[0])
        self._taken.add(key[0])
        if plain:
            self._plain[key[0]] = key
        if route:
            self.routes[route] = [server]
        self.ports[key] = [server]

    def _add_to_plain(self, server: Server, key: _Key, current: _Key, *, plain: bool) -> None:
        """On a port that one without TLS has."""
        route, apart = route_name(server, key[0]), key[2] != current[2]
        fits = bool(route) and _is_http(key) and _is_http(current)
        if not fits and (self._binds == "ignored" or not apart):
            return
        if apart and self._binds == "newest" and key not in self.ports:
            self._begin(server, key, plain=plain)
            return
        at = key if apart else current
        self.ports.setdefault(at, []).append(server)
        if route:
            self.routes.setdefault(route, []).append(server)

    def _add_to_tls(self, server: Server, key: _Key, *, tls: bool) -> None:
        """On a port that TLS servers have; of one for HTTP the listener names no route."""
        route, shared = "" if _is_http(key) else route_name(server, key[0]), (key[0], key[2])
        if route:
            if route in self.routes:
                return
            self.routes[route] = [server]
        known = shared in self._beside_tls
        self._beside_tls.add(shared)
        if tls or not (known or self._binds == "ignored"):
            self.ports.setdefault(key, []).append(server)


def _is_http(key: _Key) -> bool:
    return parse_protocol(key[1]) in HTTP_PROTOCOLS


def _bind(spec: Mapping[str, object]) -> str:
    return str(spec.get("bind") or "")


def _own(host: str, gateway: Object) -> str:
    """A server's host with the Gateway's namespace for "."."""
    return f"{gateway.ref.namespace}{host[1:]}" if host.startswith("./") else host


def _resolve(number: int, targets: Sequence[Target]) -> int:
    """The port listened on: the target port of the router's own service port of that number, else the number."""
    for target in targets:
        if _NO_TRANSLATION not in dict(target.service.labels) and target.port.number == number:
            return target.target_port
    return number
