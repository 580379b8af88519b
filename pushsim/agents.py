"""What a proxy's agent is told that istiod hears of: whether it answers DNS itself.

Sources: pilot/pkg/model/proxy_config.go (EffectiveProxyConfig), pkg/bootstrap/config.go (ISTIO_META_…).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import yaml

from pushsim.mesh import Mesh, Object, Proxy

#: Node metadata that decides what a proxy is sent.
KNOWN = frozenset({"DNS_CAPTURE", "DNS_AUTO_ALLOCATE"})
_ANNOTATION, _PREFIX = "proxy.istio.io/config", "ISTIO_META_"


def metadata_of(pod: Object) -> Mapping[str, str]:
    """A pod's own: of its annotation, and of its proxy's environment, as injection leaves it."""
    told: dict[str, str] = {}
    if (text := pod.annotations.get(_ANNOTATION)) is not None:
        told |= _known(_annotated(text))
    containers = (*(pod.spec.get("containers") or ()), *(pod.spec.get("initContainers") or ()))
    written = (env for c in containers if c.get("name") == "istio-proxy" for env in c.get("env") or ())
    if node := pod.spec.get("nodeName"):
        told["NODE_NAME"] = str(node)
    return told | _known({str(env.get("name")): env.get("value") for env in written})


def configured(mesh: Mesh) -> tuple[Proxy, ...]:
    """The proxies of a mesh with what its config tells all of them: MeshConfig's defaultConfig, and ProxyConfigs."""
    default = _known((mesh.mesh_config.get("defaultConfig") or {}).get("proxyMetadata"))
    configs = sorted(_telling(mesh.of_kind("ProxyConfig")), key=lambda o: (o.creation, o.ref.name))
    if not default and not configs:
        return mesh.proxies
    root = str(mesh.mesh_config.get("rootNamespace") or "istio-system")
    return tuple(replace(p, metadata=_effective(p, default, configs, root)) for p in mesh.proxies)


def _effective(proxy: Proxy, default: Mapping[str, str], configs: Iterable[Object], root: str) -> Mapping[str, str]:
    """Of several ProxyConfigs for the same, the oldest; one that selects workloads is above the pod's own."""

    def first(namespace: str, *, selecting: bool) -> Mapping[str, str]:
        for written in configs:
            fits = all(proxy.labels.get(key) == value for key, value in written.selects.items())
            if written.ref.namespace == namespace and bool(written.selects) == selecting and fits:
                return _known(written.spec["environmentVariables"])
        return {}

    own = first(proxy.namespace, selecting=False) if proxy.namespace != root else {}
    selected = first(proxy.namespace, selecting=True)
    return {**default, **first(root, selecting=False), **own, **proxy.metadata, **selected}


def _telling(configs: Iterable[Object]) -> Iterator[Object]:
    return (written for written in configs if written.spec.get("environmentVariables"))


@lru_cache
def _annotated(text: str) -> Any:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return None  # istiod logs it and goes on
    return found.get("proxyMetadata") if isinstance(found, Mapping) else None


def _known(variables: Any) -> dict[str, str]:
    """Of an agent's environment, what of it istiod hears that decides something."""
    if not isinstance(variables, Mapping):
        return {}
    named = ((str(name), value) for name, value in variables.items() if value is not None)
    ours = ((name.removeprefix(_PREFIX), str(value)) for name, value in named if name.startswith(_PREFIX))
    return {name: value for name, value in ours if name in KNOWN}
