"""One change of each kind to a generated mesh, and what `pushsim plan` takes for it in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sizes import FULL

from pushsim.mesh import Change, Mesh, Object, Ref
from pushsim.preview import preview
from pushsim.settings import PROFILES
from pushsim.topology import Generate, generate

#: (namespaces, services), two proxies a service.
SIZE = (250, 5_000) if FULL else (4, 20)
KINDS = (
    "new-service", "endpoint", "port", "namespace-sidecar", "root-sidecar", "gateway-virtual-service",
    "virtual-service", "destination-rule", "peer-authentication",
)  # fmt: skip


def mesh() -> Mesh:
    """Two proxies a service and four gateways, as Istio's chart installs it."""
    namespaces, services = SIZE
    apps = [{"name": "app", "total": services, "pods": 2}]
    gateways = {"count": 4, "virtual_services": 0.1}
    made = generate(Generate.model_validate({"namespaces": namespaces, "apps": apps, "gateways": gateways}), 1)
    return Mesh(made.objects, made.proxies, {**PROFILES["default"], **made.mesh_config}, made.env)


def _first(among: Mesh, kind: str, namespace: str = "") -> Object:
    objects: Iterator[Object] = (o for ref, o in among.objects.items() if ref.kind == kind)
    return next(o for o in objects if o.ref.namespace != "istio-system" and namespace in ("", o.ref.namespace))


def _new(kind: str, namespace: str, name: str, spec: dict[str, Any]) -> Object:
    created = "2024-01-01T00:00:00Z"
    metadata = {"name": name, "namespace": namespace, "creationTimestamp": created}
    return Object(Ref(kind, namespace, name), {"kind": kind, "metadata": metadata, "spec": spec})


def _with(written: Object, **fields: Any) -> Object:
    return Object(written.ref, {**written.body, **fields})


def change(among: Mesh, kind: str) -> Change:
    """The change of a kind."""
    service, route = _first(among, "Service"), _first(among, "VirtualService")
    namespace, name = service.ref.namespace, service.ref.name
    match kind:
        case "new-service":
            port = {"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}
            spec = {"clusterIP": "10.255.0.9", "selector": {"app": "brand-new"}, "ports": [port]}
            written = _new("Service", namespace, "brand-new", spec)
        case "endpoint":
            slice = _first(among, "EndpointSlice", namespace)
            written = _with(slice, endpoints=slice.body["endpoints"][:1])
        case "port":
            port = {"name": "tcp-x", "port": 9999, "targetPort": 9999, "protocol": "TCP"}
            written = _with(service, spec={**service.spec, "ports": [*service.spec["ports"], port]})
        case "namespace-sidecar" | "root-sidecar":
            home = namespace if kind == "namespace-sidecar" else "istio-system"
            written = _new("Sidecar", home, "default", {"egress": [{"hosts": ["./*", "istio-system/*"]}]})
        case "gateway-virtual-service":
            first, *others = route.spec["http"]
            written = _with(route, spec={**route.spec, "http": [{**first, "timeout": "3s"}, *others]})
        case "virtual-service":
            to = [{"route": [{"destination": {"host": name}}]}]
            written = _new("VirtualService", namespace, "m", {"hosts": [name], "http": to})
        case "destination-rule":
            policy = {"tls": {"mode": "ISTIO_MUTUAL"}}
            written = _new("DestinationRule", namespace, "m", {"host": name, "trafficPolicy": policy})
        case _:
            written = _new("PeerAuthentication", "istio-system", "default", {"mtls": {"mode": "STRICT"}})
    return Change((written,))


def measure(kind: str, release: str, mode: Any) -> None:
    """Print how many proxies a plan tells of, how many it pushes, its CPU milliseconds, and the process' peak in kB."""
    loaded = mesh()
    wanted = change(loaded, kind)
    begun = time.process_time()
    found = preview(loaded, wanted, release=release, mode=mode)
    spent = time.process_time() - begun
    told, pushed = (sum(len(group.proxies) for group in groups) for groups in (found.groups, found.pushed))
    # not getrusage: that of a process begins with its parent's (getrusage(2))
    peak = next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    print(told, pushed, round(1000 * spent), peak)


def measured(kind: str, release: str, mode: str) -> list[int]:
    """What `measure` prints, in a process of its own: a second plan of a process finds prepared what the first made."""
    done = subprocess.run(
        [sys.executable, "-c", f"from plans import measure; measure({kind!r}, {release!r}, {mode!r})"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(str(Path(place).resolve()) for place in sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    return [int(number) for number in done.stdout.split()]
