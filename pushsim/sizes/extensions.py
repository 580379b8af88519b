"""Filters of which listeners hold but the name, and what Envoy gets for it (ECDS).

Source: pilot/pkg/networking/core/extension/wasmplugin.go, pilot/pkg/model/extensions.go.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache
from typing import Any as Json

from envoy_data_plane.envoy.config.core.v3 import (
    AggregatedConfigSource,
    ApiVersion,
    AsyncDataSource,
    ConfigSource,
    DataSource,
    ExtensionConfigSource,
    HttpUri,
    RemoteDataSource,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.config.listener.v3 import Filter
from envoy_data_plane.envoy.extensions.filters.http.wasm.v3 import Wasm as HttpWasm
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.extensions.filters.network.wasm.v3 import Wasm as NetworkWasm
from envoy_data_plane.envoy.extensions.wasm.v3 import EnvironmentVariables, FailurePolicy, PluginConfig, VmConfig
from envoy_data_plane.google.protobuf import Any, StringValue

from pushsim.extensions import Place, Plugins, pull_secret
from pushsim.mesh import Object
from pushsim.resources import Extension
from pushsim.sizes.switches import Sizing
from pushsim.sizes.wire import TYPE_PREFIX, length, made, packed
from pushsim.sizes.written import length_of_written

_META = "ISTIO_META_WASM_"
_DOCKER = ".dockerconfigjson"
#: Digits of the version of a WasmPlugin that has none yet: what etcd counts to in a cluster that is some days old.
_VERSION = "000000"


def http_filters(plugins: Plugins, sizing: Sizing, place: Place) -> list[HttpFilter]:
    """The HTTP filters that WasmPlugins put into a chain."""
    names = plugins.filters(place, http=True)
    return [made(HttpFilter, name=name, config_discovery=_source("http", sizing.plugin_rbac)) for name in names]


def network_filters(plugins: Plugins, sizing: Sizing, place: Place) -> list[Filter]:
    """The network filters that WasmPlugins put into a chain."""
    names = plugins.filters(place, http=False)
    return [made(Filter, name=name, config_discovery=_source("network", sizing.plugin_rbac)) for name in names]


@lru_cache
def _source(layer: str, rbac: bool) -> ExtensionConfigSource:
    kinds = ["wasm.v3.Wasm", "rbac.v3.RBAC"] if rbac else ["wasm.v3.Wasm"]
    ads = made(
        ConfigSource,
        ads=AggregatedConfigSource(),
        resource_api_version=ApiVersion.V3,
        initial_fetch_timeout=timedelta(0),
    )
    urls = [f"{TYPE_PREFIX}envoy.extensions.filters.{layer}.{kind}" for kind in kinds]
    return made(ExtensionConfigSource, config_source=ads, type_urls=urls)


def extension(resource: Extension, sizing: Sizing) -> int:
    """Length of what Envoy gets for a name."""
    written = resource.written
    if not isinstance(written, Object):
        return length_of_written(HttpFilter, {"name": resource.name, "typed_config": written.get("typed_config") or {}})
    config = _plugin(written, resource.secret, sizing)
    if sizing.plugin_types and written.spec.get("type") == "NETWORK":
        body = packed(NetworkWasm(config=config), "envoy.extensions.filters.network.wasm.v3.Wasm")
    else:
        body = packed(HttpWasm(config=config), "envoy.extensions.filters.http.wasm.v3.Wasm")
    return length(made(TypedExtensionConfig, name=resource.name, typed_config=body))


def _plugin(plugin: Object, secret: Object | None, sizing: Sizing) -> PluginConfig:
    spec, ref = plugin.spec, plugin.ref
    written, configuration = spec.get("pluginConfig"), Any()
    if written:
        text = json.dumps(written, separators=(",", ":"), ensure_ascii=False)
        configuration = packed(StringValue(value=text), "google.protobuf.StringValue")
    machine = VmConfig(runtime="envoy.wasm.runtime.v8", code=_code(spec))
    if sizing.plugin_environment:
        machine.environment_variables = _environment(plugin, secret)
    made_of = PluginConfig(
        name=f"{ref.namespace}.{ref.name}{sizing.plugin_suffix}",
        root_id=str(spec.get("pluginName") or ""),
        vm_config=machine,
        configuration=configuration,
    )
    strategy = str(spec.get("failStrategy") or "FAIL_CLOSE")
    if sizing.plugin_failures == "policy":
        policies = {"FAIL_OPEN": FailurePolicy.FAIL_OPEN, "FAIL_RELOAD": FailurePolicy.FAIL_RELOAD}
        made_of.failure_policy = policies.get(strategy, FailurePolicy.FAIL_CLOSED)
    elif sizing.plugin_failures == "open":
        made_of.fail_open = strategy == "FAIL_OPEN"
    return made_of


def _code(spec: Mapping[str, Json]) -> AsyncDataSource:
    url = str(spec.get("url") or "")
    if url.startswith("file://"):
        return AsyncDataSource(local=DataSource(filename=url.removeprefix("file://")))
    uri = HttpUri(uri=url if "://" in url else f"oci://{url}", cluster="_", timeout=timedelta(seconds=30))
    return AsyncDataSource(remote=RemoteDataSource(http_uri=uri, sha256=str(spec.get("sha256") or "")))


def _environment(plugin: Object, secret: Object | None) -> EnvironmentVariables:
    spec = plugin.spec
    values = {f"{_META}PLUGIN_RESOURCE_VERSION": str(plugin.metadata.get("resourceVersion") or _VERSION)}
    if pull_secret(plugin) is not None:
        values[f"{_META}IMAGE_PULL_SECRET"] = _credential(secret)
    if spec.get("imagePullPolicy"):
        values[f"{_META}IMAGE_PULL_POLICY"] = str(spec["imagePullPolicy"])
    hosts = []
    for item in (spec.get("vmConfig") or {}).get("env") or ():
        if item.get("valueFrom") == "HOST":
            hosts.append(str(item.get("name") or ""))
        else:
            values[str(item.get("name") or "")] = str(item.get("value") or "")
    return EnvironmentVariables(host_env_keys=hosts, key_values=values)


def _credential(secret: Object | None) -> str:
    """What a Secret of a registry holds; "" if it is another or there is none."""
    if secret is None or secret.body.get("type") != "kubernetes.io/dockerconfigjson":
        return ""
    try:
        return base64.b64decode(str((secret.body.get("data") or {}).get(_DOCKER) or "")).decode()
    except ValueError:
        return ""
