"""A slow, literal oracle of who is pushed: exportTo, SidecarScope, DestinationRule lookup and the decision.

Written from the reference text (push-semantics §1.8, §1.11, §2, §3, §4, §5), rule by rule in the order it tells them,
with releases compared by number as the tables there do. Where Istio's source says otherwise than the text, the source
is told (and named). Everything is listed and looped over; nothing is shared with
pushsim but the nouns of `pushsim.mesh`. What a change makes istiod ask for (the keys) is given, not derived.
"""

from dataclasses import dataclass, field, replace

from pushsim.mesh import ConfigKey

ROOT = "istio-system"


def since(release, first):
    """Whether a release is `first` or later; `1.31.0-alpha.0` counts as 1.31.0 (conventions, third bullet)."""

    def numbers(text):
        parts = [int(part) for part in text.partition("-")[0].split(".")]
        return parts + [0] * (3 - len(parts))

    return numbers(release) >= numbers(first)


# ---- hosts


def subset_of(one, other):
    """One-directional suffix matching (3.2 b)."""
    if not other.startswith("*"):
        return one == other
    if one.startswith("*"):
        return one[1:].endswith(other[1:])
    return one.endswith(other[1:])


def fqdn(host, namespace):
    if host.startswith("*") or "." in host:
        return host
    return f"{host}.{namespace}.svc.cluster.local"


# ---- services and the index (4.1, 4.2, 4.4)


@dataclass(frozen=True)
class Svc:
    host: str
    ns: str
    name: str
    ports: tuple
    kubernetes: bool
    export: frozenset
    created: str
    resolution: str
    labels: tuple
    selector: tuple

    def with_ports(self, numbers):
        return replace(self, ports=tuple(p for p in self.ports if p in numbers))


def flat(mapping):
    return tuple(sorted((mapping or {}).items()))


def services_of(objects):
    found = []
    for o in objects:
        if o.ref.kind == "Service":
            annotation = o.annotations.get("networking.istio.io/exportTo", "")
            found.append(
                Svc(
                    host=f"{o.ref.name}.{o.ref.namespace}.svc.cluster.local",
                    ns=o.ref.namespace,
                    name=o.ref.name,
                    ports=tuple(p["port"] for p in o.spec["ports"]),
                    kubernetes=True,
                    export=frozenset(v.strip() for v in annotation.split(",") if v),
                    created=o.creation,
                    resolution="headless" if o.spec.get("clusterIP") == "None" else "EDS",
                    labels=flat(o.labels),
                    selector=flat(o.spec.get("selector")),
                )
            )
    for o in objects:
        if o.ref.kind == "ServiceEntry":
            for host in o.spec["hosts"]:
                found.append(
                    Svc(
                        host=host,
                        ns=o.ref.namespace,
                        name=host,
                        ports=tuple(p["number"] for p in o.spec["ports"]),
                        kubernetes=False,
                        export=frozenset(o.spec.get("exportTo", ())),
                        created=o.creation,
                        resolution=o.spec["resolution"],
                        labels=flat(o.labels),
                        selector=(),
                    )
                )
    return found


def lists(own, default, ns, release):
    """Where an exportTo puts an object (4.2): {"public"}, or namespaces as ("private", ns) and ("exported", ns)."""
    if not own:
        if not since(release, "1.30.3"):
            if "." in default:
                return {("private", ns)}
            return {"public"} if "*" in default else set()
        own = default
    if "*" in own:
        return {"public"}
    if "~" in own:
        return set()
    return {("private", ns) if value in (".", ns) else ("exported", value) for value in own}


def visible_list(things, namespace, release):
    """(thing, lists) pairs in order to those a namespace sees, in istiod's order (3.2 b)."""
    private = [t for t, where in things if ("private", namespace) in where]
    exported = [t for t, where in things if ("exported", namespace) in where]
    together = [t for t, where in things if ("private", namespace) in where or ("exported", namespace) in where]
    public = [t for t, where in things if "public" in where]
    return (together if since(release, "1.30.3") else private + exported) + public


def is_service_visible(service, default, namespace, release):
    """IsServiceVisible (4.3)."""
    export = service.export
    if not export:
        if since(release, "1.30.3"):
            export = default
        elif "." in default:
            return service.ns == namespace
        elif "*" in default:
            return True
    return "*" in export or ("." in export and namespace == service.ns) or namespace in export


# ---- the context: what a push reads, each kind as of the push that last named it (1.11)


@dataclass(frozen=True)
class Vs:
    key: ConfigKey
    hosts: tuple
    gateways: tuple
    where: frozenset
    http: tuple  # (destinations, sourceNamespaces): destinations are (host, port), 0 for any port
    other: tuple
    delegates: tuple


@dataclass
class Context:
    release: str
    config: dict
    filter: bool
    objects: list
    services: list = field(default_factory=list)

    def __post_init__(self):
        tie = (
            (lambda s: (s.created, s.name, s.ns))
            if since(self.release, "1.23")
            else (lambda s: (s.created, f"{s.name}.{s.ns}"))
        )
        self.services = sorted(services_of(self.objects), key=tie)
        self.virtual_services = self._virtual_services()
        self.rules = Rules(self)

    def default(self, what):
        return frozenset(self.config.get(f"default{what}ExportTo") or ["*"])

    def of_kind(self, kind):
        found = [o for o in self.objects if o.ref.kind == kind]
        return sorted(found, key=lambda o: (o.creation, o.ref.name, o.ref.namespace))

    def candidates(self, namespace):
        default = self.default("Service")
        listed = [(s, lists(s.export, default, s.ns, self.release)) for s in self.services]
        return visible_list(listed, namespace, self.release)

    def index(self):
        """HostnameAndNamespace (4.4): one service per host and namespace."""
        found = {}
        for s in self.services:
            held = found.get((s.host, s.ns))
            if held is None or not since(self.release, "1.21") or (s.kubernetes and not held.kubernetes):
                found[s.host, s.ns] = s
        return found

    def _virtual_services(self):
        default = self.default("VirtualService")
        found = []
        everything = {(o.ref.namespace, o.ref.name): o for o in self.of_kind("VirtualService")}
        for o in self.of_kind("VirtualService"):
            if not o.spec.get("hosts"):
                continue
            ns = o.ref.namespace
            http, delegates = [], []
            for route in o.spec.get("http", ()):
                routes = [(route, ns)]
                if "delegate" in route:
                    named = (route["delegate"].get("namespace") or ns, route["delegate"]["name"])
                    delegates.append(ConfigKey("VirtualService", named[1], named[0]))
                    routes = []
                    found_delegate = named in everything and not everything[named].spec.get("hosts")
                    if found_delegate and self._delegate_shown(everything[named], ns, default):
                        routes = [(r, named[0]) for r in everything[named].spec.get("http", ())]
                for one, owner in routes:
                    targets = [r["destination"] for r in one.get("route", ())] + [m for m in [one.get("mirror")] if m]
                    sources = tuple(m["sourceNamespace"] for m in one.get("match", ()) if m.get("sourceNamespace"))
                    http.append((tuple(self._target(t, owner) for t in targets), sources))
            other = [
                self._target(r["destination"], ns)
                for protocol in ("tcp", "tls")
                for one in o.spec.get(protocol, ())
                for r in one["route"]
            ]
            found.append(
                Vs(
                    key=ConfigKey("VirtualService", o.ref.name, ns),
                    hosts=tuple(fqdn(h, ns) for h in o.spec["hosts"]),
                    gateways=tuple(
                        g if g == "mesh" or "/" in g else f"{ns}/{g}" for g in o.spec.get("gateways") or ["mesh"]
                    ),
                    where=frozenset(lists(frozenset(o.spec.get("exportTo", ())), default, ns, self.release)),
                    http=tuple(http),
                    other=tuple(other),
                    delegates=tuple(delegates),
                )
            )
        return found

    @staticmethod
    def _target(destination, ns):
        return fqdn(destination["host"], ns), destination.get("port", {}).get("number", 0)

    def _delegate_shown(self, delegate, to, default):
        """1.8: exported to the root's namespace; an inherited `.` means its own from 1.17 on."""
        own = frozenset(delegate.spec.get("exportTo", ()))
        values = own or default
        if "*" in values or to in values:
            return True
        if "." not in values or delegate.ref.namespace != to:
            return False
        return bool(own) or since(self.release, "1.17")

    def visible_virtual_services(self, gateway, namespace):
        attached = [(vs, vs.where) for vs in self.virtual_services if gateway in vs.gateways]
        return visible_list(attached, namespace, self.release)


def destinations(vs, namespace, release):
    """(host, ports) of a VirtualService's destinations (3.2 e)."""
    found = {}
    for pairs, sources in vs.http:
        if since(release, "1.24") and namespace is not None and sources and namespace not in sources:
            continue
        for host, port in pairs:
            found.setdefault(host, set()).add(port)
    for host, port in vs.other:
        found.setdefault(host, set()).add(port)
    return found


# ---- DestinationRules (3.6)


@dataclass
class Merged:
    host: str
    export: frozenset
    selector: tuple
    keys: list


class Rules:
    def __init__(self, context):
        release, default = context.release, context.default("DestinationRule")
        self.release = release
        self.local, self.exported, self.root_private = {}, {}, []
        ordered = context.of_kind("DestinationRule")
        if since(release, "1.22"):
            ordered.sort(key=lambda o: not o.spec.get("workloadSelector"))
        for o in ordered:
            ns, export = o.ref.namespace, frozenset(o.spec.get("exportTo", ()))
            selector = flat((o.spec.get("workloadSelector") or {}).get("matchLabels"))
            if selector:
                export = frozenset({"."})
            rule = Merged(fqdn(o.spec["host"], ns), export, selector, [ConfigKey("DestinationRule", o.ref.name, ns)])
            if not export or export & {"*", ".", ns}:
                self.merge(self.local.setdefault(ns, []), rule)
            if not export:
                private = "." in default
            elif release in ("1.20.0", "1.20.1"):
                private = export == {"."} or ns in export
            elif not since(release, "1.14"):
                private = export == {"."}
            else:
                private = export in ({"."}, {ns})
            if not private:
                self.merge(self.exported.setdefault(ns, []), rule)
            elif ns == ROOT:
                self.merge(self.root_private, rule)

    def merge(self, into, rule):
        for held in into:
            if held.host != rule.host or held.selector != rule.selector:
                continue
            if since(self.release, "1.24"):
                if held.export != rule.export and not (held.export and held.export <= rule.export):
                    continue
            elif not held.export:
                held.export = rule.export
            held.keys += rule.keys
            return
        into.append(Merged(rule.host, rule.export, rule.selector, list(rule.keys)))

    def lookup(self, proxy_ns, service):
        found = self.specific(self.root_private if proxy_ns == ROOT else self.local.get(proxy_ns, []), service.host)
        for owner in (service.ns, ROOT):
            if found:
                return found
            found = [
                rule
                for rule in self.specific(self.exported.get(owner, []), service.host)
                # "visible": by `*` or by name; recordings show that `.` does not count here, not even at home
                if not rule.export or rule.export & {"*", proxy_ns}
            ]
        return found

    @staticmethod
    def specific(rules, host):
        exact = [rule for rule in rules if rule.host == host]
        if exact:
            return exact
        wild = [rule for rule in rules if rule.host.startswith("*") and subset_of(host, rule.host)]
        longest = max((len(rule.host) for rule in wild), default=0)
        return [rule for rule in wild if len(rule.host) == longest]


# ---- the scope (3.2 to 3.8)


class Scope:
    """A SidecarScope: `services` (legacy default scopes hold duplicates), and the keys it depends on."""

    def __init__(self, context, ns, sidecar=None, gateway=False):
        self.context, self.ns, self.sidecar = context, ns, sidecar
        release = self.release = context.release
        self.services, self.virtual_services, replaced = [], [], []
        if sidecar is None and (not since(release, "1.24") or gateway):
            self.virtual_services = context.visible_virtual_services("mesh", ns)
            winners = {}
            for s in context.candidates(ns):
                if since(release, "1.22"):
                    self.append(s)
                    continue
                self.services.append(s)
                held = winners.get(s.host)
                if held is None:
                    winners[s.host] = s
                elif s.kubernetes and not held.kubernetes:
                    replaced.append(held)
                    winners[s.host] = s
            keyed = self.services if since(release, "1.22") else [*winners.values(), *replaced]
        else:
            egress = (sidecar.spec.get("egress") if sidecar else None) or [{"hosts": ["*/*"]}]
            for listener in egress:
                self.listen(listener)
            keyed = self.services
        self.hosts = {s.host for s in self.services}
        self.keys = {ConfigKey("ServiceEntry", s.host, s.ns) for s in keyed}
        if since(release, "1.31"):
            self.keys |= {ConfigKey("Endpoints", s.host, s.ns) for s in keyed}
        if sidecar:
            self.keys.add(ConfigKey("Sidecar", sidecar.ref.name, sidecar.ref.namespace))
        for vs in self.virtual_services:
            self.keys.add(vs.key)
            if not since(release, "1.30"):
                self.keys |= set(vs.delegates)
        for s in keyed:
            if s in replaced and not since(release, "1.19"):  # sidecar.go: one list a host, the last one found
                winner = next(w for w in keyed if w.host == s.host and w is not s)
                if context.rules.lookup(ns, winner):
                    continue
            for rule in context.rules.lookup(ns, s):
                self.keys |= set(rule.keys if since(release, "1.14") else rule.keys[:1])
        if since(release, "1.30"):
            near = {ROOT, ns} | {s.ns for s in self.services}
            for o in context.of_kind("PeerAuthentication"):
                if o.ref.namespace in near:
                    self.keys.add(ConfigKey("PeerAuthentication", o.ref.name, o.ref.namespace))

    def listen(self, listener):
        context, release, ns = self.context, self.release, self.ns
        imports, excludes = {}, {}
        for entry in listener.get("hosts", ()):
            if entry.count("/") != 1:
                continue
            part, host = entry.split("/")
            into = imports
            if part.startswith("~") and since(release, "1.31"):
                into, part = excludes, part[1:] or "*"
            into.setdefault(ns if part == "." else part, []).append(host)
        port = listener.get("port") or {}
        match_port = port.get("number", 0) if port.get("protocol", "").upper() != "HTTP_PROXY" else 0

        def excluded(host, owner):
            return any(subset_of(host, e) for e in excludes.get(owner, []) + excludes.get("*", []))

        def imported(s):
            if excluded(s.host, s.ns):
                return False
            if s.ns in imports:
                if any(subset_of(s.host, h) for h in imports[s.ns]):
                    return True
                if not since(release, "1.15"):
                    return False
            return any(subset_of(s.host, h) for h in imports.get("*", []))

        candidates = context.candidates(ns)
        named = [(h, part) for part, hosts in imports.items() for h in hosts]
        if since(release, "1.31") and all(part != "*" and not h.startswith("*") for h, part in named):
            kept, default = context.index(), context.default("Service")  # sidecar.go, servicesForExactHosts
            candidates = [
                s for s in context.services if kept[s.host, s.ns] is s and is_service_visible(s, default, ns, release)
            ]
        matched = [s for s in candidates if imported(s)]
        if match_port:
            matched = [s.with_ports({match_port}) for s in matched if match_port in s.ports]
        owner = {}
        for s in matched:
            held = owner.get(s.host)
            if (
                held is None
                or s.ns == ns
                or (since(release, "1.24") and s.kubernetes and not held.kubernetes and held.ns != ns)
            ):
                owner[s.host] = s
        for s in matched:
            if s.ns == owner[s.host].ns:
                self.append(s)

        selected = []
        for vs in context.visible_virtual_services("mesh", ns):
            for host in vs.hosts:
                known = imports.get(vs.key.namespace, []) + imports.get("*", [])
                meets = any(subset_of(host, h) or subset_of(h, host) for h in known)
                if meets and not excluded(host, vs.key.namespace):
                    selected.append(vs)
                    break
        self.virtual_services += selected
        for vs in selected:
            for host, ports in destinations(vs, ns, release).items():
                s = self.destination(host)
                if s is None:
                    continue
                if match_port:
                    kept = {match_port}
                elif since(release, "1.15") and 0 not in ports:
                    kept = ports
                else:
                    kept = set(s.ports)
                if kept & set(s.ports):
                    self.append(s.with_ports(kept))

    def destination(self, host):
        index, default = self.context.index(), self.context.default("Service")
        if (host, self.ns) in index:
            return index[host, self.ns]
        seen = [s for (h, _), s in index.items() if h == host and is_service_visible(s, default, self.ns, self.release)]
        if not since(self.release, "1.30"):
            return min(seen, key=lambda s: s.ns, default=None)
        return min(seen, key=lambda s: (not s.kubernetes, s.created, s.ns), default=None)

    def append(self, s):
        """addService until 1.21, appendSidecarServices from 1.22 (3.2 e)."""
        at = next((i for i, held in enumerate(self.services) if held.host == s.host), None)
        if at is None:
            self.services.append(s)
            return
        held = self.services[at]
        if since(self.release, "1.22"):
            if held.kubernetes and not s.kubernetes:
                return
            if s.kubernetes and not held.kubernetes:
                self.services[at] = s
                return
            same = ("ns", "resolution", "kubernetes", "labels", "selector", "export")
            if any(getattr(held, f) != getattr(s, f) for f in same):
                return
        elif held.ns != s.ns:
            return
        self.services[at] = replace(held, ports=(*held.ports, *(p for p in s.ports if p not in held.ports)))

    def depends_on(self, key):
        """DependsOnConfig (3.8)."""
        if key.kind in cluster_kinds(self.release):
            return key.namespace in (ROOT, self.ns)
        if key.kind not in known_kinds(self.release):
            return True
        return key in self.keys


def cluster_kinds(release):
    kinds = {"EnvoyFilter", "AuthorizationPolicy", "RequestAuthentication"}
    if since(release, "1.18"):
        kinds |= {"WasmPlugin"}
    if since(release, "1.26"):
        kinds |= {"PeerAuthentication", "Telemetry"}
    if since(release, "1.30"):
        kinds = (kinds - {"PeerAuthentication"}) | {"TrafficExtension"}
    return kinds


def known_kinds(release):
    kinds = {"ServiceEntry", "VirtualService", "DestinationRule", "Sidecar"}
    if since(release, "1.22") and not since(release, "1.26"):
        kinds |= {"HTTPRoute", "TCPRoute", "TLSRoute", "GRPCRoute"}
    if since(release, "1.30"):
        kinds |= {"PeerAuthentication"}
    if since(release, "1.31"):
        kinds |= {"Endpoints"}
    return kinds


def scope_for(context, proxy, labels):
    """3.1."""
    ns = proxy.namespace
    if proxy.type == "router":
        return Scope(context, ns, gateway=since(context.release, "1.22"))
    own = [o for o in context.of_kind("Sidecar") if o.ref.namespace == ns]
    for sidecar in [o for o in own if "workloadSelector" in o.spec] + [
        o for o in own if "workloadSelector" not in o.spec
    ]:
        wanted = (sidecar.spec.get("workloadSelector") or {}).get("labels") or {}
        if all(labels.get(k) == v for k, v in wanted.items()):
            return Scope(context, ns, sidecar)
    for sidecar in context.of_kind("Sidecar"):
        if sidecar.ref.namespace == ROOT and "workloadSelector" not in sidecar.spec:
            return Scope(context, ns, sidecar)
    return Scope(context, ns)


# ---- proxies and pushes


@dataclass
class State:
    scope: Scope
    previous: Scope | None
    targets: list  # (host, namespace) of the proxy's services
    gateways: list  # the Gateways that select it


class Oracle:
    """One istiod of a release: its objects as told, its context as pushed, and each proxy's state."""

    def __init__(self, mesh, release):
        self.mesh, self.release = mesh, release
        filtered = mesh.env.get("PILOT_FILTER_GATEWAY_CLUSTER_CONFIG") == "true"
        self.context = self.scopes = Context(release, mesh.mesh_config, filtered, list(mesh.objects.values()))
        self.states = {p.id: State(self._scope(p), None, self._targets(p), self._gateways(p)) for p in mesh.proxies}

    def _labels(self, proxy):
        pods = [o for o in self.mesh.of_kind("Pod") if (o.ref.namespace, o.ref.name) == (proxy.namespace, proxy.name)]
        return pods[0].labels if pods else proxy.labels

    def _scope(self, proxy):
        return scope_for(self.scopes, proxy, self._labels(proxy))

    def _targets(self, proxy):
        labels = self._labels(proxy)
        found = [
            s
            for s in services_of(self.mesh.objects.values())
            if s.kubernetes and s.ns == proxy.namespace and s.selector and set(s.selector) <= set(labels.items())
        ]  # in the order of model/context.go, SetServiceInstances
        return [(s.host, s.ns) for s in sorted(found, key=lambda s: (s.created, s.host))]

    def _gateways(self, proxy):
        labels = self._labels(proxy)
        return [
            o
            for o in self.context.of_kind("Gateway")
            if all(labels.get(k) == v for k, v in o.spec.get("selector", {}).items())
        ]

    def push(self, mesh, request):
        """Write the objects, push the request; for each proxy id the keys that let it through (None: not needed)."""
        self.mesh, release, kinds = mesh, self.release, {key.kind for key in request.keys}
        everything = request.forced or (not since(release, "1.26") and not request.keys)
        if since(release, "1.31"):
            endpoints_only = bool(kinds) and kinds == {"Endpoints"}
        else:
            endpoints_only = not request.full
        if not endpoints_only:
            self._rebuild(kinds, everything)
        return {p.id: self._push_one(p, request, kinds, everything, endpoints_only) for p in mesh.proxies}

    def _rebuild(self, kinds, everything):
        """1.11: kinds the request names are read anew, the others stay as they were."""
        services, rebuilt = {"ServiceEntry"}, {"ServiceEntry", "VirtualService", "DestinationRule", "Sidecar"}
        authn = {"PeerAuthentication", "RequestAuthentication"}
        if since(self.release, "1.20.4"):
            services |= {"DNSName"}
        if since(self.release, "1.30"):
            rebuilt |= authn
        scopes = everything or bool(kinds & (rebuilt | services))

        def anew(kind):
            if kind in ("Service", "ServiceEntry"):
                return everything or bool(kinds & services)
            if kind in authn:
                return everything or bool(kinds & authn)
            return scopes if kind == "Sidecar" else everything or kind in kinds

        kept = [o for o in self.context.objects if not anew(o.ref.kind)]
        self.context = replace(self.context, objects=kept + [o for o in self.mesh.objects.values() if anew(o.ref.kind)])
        if scopes:
            self.scopes = self.context

    def _push_one(self, proxy, request, kinds, everything, endpoints_only):
        state, release = self.states[proxy.id], self.release
        if not endpoints_only:  # 2.5
            service = "ServiceEntry" in kinds
            own = any(k.namespace == proxy.namespace for k in request.keys)
            both = any(k.kind == "ServiceEntry" and k.namespace == proxy.namespace for k in request.keys)
            if (
                since(release, "1.28")
                or (since(release, "1.27.2"))
                or (since(release, "1.26.5") and not since(release, "1.27"))
            ):
                retarget = everything or both
            elif since(release, "1.26"):
                retarget = everything or service or own
            elif (
                since(release, "1.23")
                or since(release, "1.22.3")
                or (since(release, "1.21.5") and not since(release, "1.22"))
            ):
                retarget = everything or service
            else:
                retarget = True
            if retarget:
                state.targets = self._targets(proxy)
            triggers = {"ServiceEntry", "DestinationRule", "VirtualService", "Sidecar", "Ingress"}
            if since(release, "1.30"):
                triggers |= {"PeerAuthentication"}
            if everything or kinds & triggers:
                state.previous, state.scope = state.scope, self._scope(proxy)
            reset = (
                since(release, "1.23")
                or since(release, "1.22.3")
                or (since(release, "1.21.5") and not since(release, "1.22"))
            )
            if everything or "Gateway" in kinds or (retarget and reset):
                state.gateways = self._gateways(proxy)
        if everything:
            return request.keys
        kept = {k for k in request.keys if self._affects(proxy, state, k) or self._own(state, k)}
        if not kept:
            return None
        return kept if since(release, "1.26") else request.keys

    def _own(self, state, key):
        targets = state.targets if since(self.release, "1.20") else state.targets[:1]
        return key.kind == "ServiceEntry" and (key.name, key.namespace) in targets

    def _affects(self, proxy, state, key):
        """2.2."""
        if proxy.type == "sidecar":
            if key.kind == "Gateway" or (key.kind == "Secret" and not since(self.release, "1.14")):
                return False
            return state.scope.depends_on(key) or (state.previous is not None and state.previous.depends_on(key))
        if key.kind == "Sidecar":
            return False
        if key.kind != "ServiceEntry" or not since(self.release, "1.15"):
            return True
        if self.context.filter and since(self.release, "1.16") and not self._attached(proxy, state, key):
            return False
        if not since(self.release, "1.17"):
            found = self.context.index().get((key.name, key.namespace))
            return found is None or is_service_visible(
                found, self.context.default("Service"), proxy.namespace, self.release
            )
        return key.name in state.scope.hosts or (state.previous is not None and key.name in state.previous.hosts)

    def _attached(self, proxy, state, key):
        """ServiceAttachedToGateway (section 5)."""
        names = {f"{o.ref.namespace}/{o.ref.name}" for o in state.gateways}
        passthrough = any(
            (s.get("tls") or {}).get("mode") == "AUTO_PASSTHROUGH" for o in state.gateways for s in o.spec["servers"]
        )
        if passthrough and since(self.release, "1.16.2"):
            return True
        routed = [vs for vs in self.context.virtual_services if names & set(vs.gateways)]
        if any(key.name in destinations(vs, None, self.release) for vs in routed):
            return True
        if not routed and not since(self.release, "1.21"):
            return False
        if not since(self.release, "1.14"):
            return False
        for provider in self.context.config.get("extensionProviders", ()):
            for settings in provider.values():
                if isinstance(settings, dict) and "service" in settings:
                    owner, _, host = settings["service"].rpartition("/")
                    # push_context.go: until 1.24 the whole of it is taken for a host, which is nobody's
                    if host == key.name and (not owner or (owner == key.namespace and since(self.release, "1.25"))):
                        return True
        return False
