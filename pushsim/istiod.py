"""Runs a real istiod (`pilot-discovery`, any release 1.14 to 1.31) on loopback, with a stub API as its cluster.

One process, one temporary directory with its files, four loopback ports, no Kubernetes, no certificates, no webhooks.
istiod dies with us: by process id at the end of the context, and by the kernel (PR_SET_PDEATHSIG) if we are killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import subprocess
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from pushsim import child
from pushsim.errors import EnvironmentProblem

#: What keeps istiod from writing to its cluster, from making certificates, and from injecting and validating.
ENVIRONMENT: Mapping[str, str] = {
    "ENABLE_CA_SERVER": "false",
    "PILOT_CERT_PROVIDER": "none",
    "INJECT_ENABLED": "false",
    "VALIDATION_WEBHOOK_CONFIG_NAME": "",
    "INJECTION_WEBHOOK_CONFIG_NAME": "",
    "PILOT_ENABLE_IP_AUTOALLOCATE": "false",
    "PILOT_ENABLE_CONFIG_DISTRIBUTION_TRACKING": "false",
    "ENABLE_LEADER_ELECTION": "false",
    "PILOT_ENABLE_GATEWAY_API": "false",
    "PILOT_ENABLE_GATEWAY_API_STATUS": "false",
    "PILOT_ENABLE_GATEWAY_API_DEPLOYMENT_CONTROLLER": "false",
    "PILOT_ENABLE_AMBIENT": "false",
    "POD_NAME": "istiod-stub",
    "POD_NAMESPACE": "istio-system",
    "CLUSTER_ID": "Kubernetes",
}

#: Beside that, how the recordings ran (`vectors/README.md`, "How istiod ran"): nobody waits for anybody.
RECORDING: Mapping[str, str] = {"PILOT_MAX_REQUESTS_PER_SECOND": "100000", "PILOT_PUSH_THROTTLE": "100"}
#: Plaintext streams bring a token and are known by it, so that they are sent secrets, as over mTLS in a cluster.
AUTHENTICATED: Mapping[str, str] = {"XDS_AUTH_PLAINTEXT": "true"}

MESH_CONFIG: Mapping[str, Any] = {
    "ingressControllerMode": "OFF",
    "rootNamespace": "istio-system",
    "trustDomain": "cluster.local",
}

READY_WITHIN_S = 60.0

#: Told each line of istiod's log.
OnLine = Callable[[str], None]


class Pages(NamedTuple):
    """Pages of metrics: one of each istiod that runs, and the last of each that was ended."""

    live: tuple[str, ...]
    past: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """Whose counters, added up, are those of all istiods since they began."""
        return self.past + self.live


@dataclass(frozen=True, slots=True)
class Settings:
    """How to run one istiod.

    binary:      path of a pilot-discovery.
    mesh_config: Istio's MeshConfig, laid over `MESH_CONFIG`. env: over `ENVIRONMENT`.
    cores:       which CPUs it may use (affinity, and GOMAXPROCS to their number); None: all.
    log_level:   istiod's `--log_output_level`.
    ports:       http, grpc, monitoring, ctrlz; 0 takes a free one.
    """

    binary: Path
    mesh_config: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    cores: Sequence[int] | None = None
    log_level: str = "default:info"
    ports: tuple[int, int, int, int] = (0, 0, 0, 0)


class Istiod:
    """A running istiod: where it listens, its metrics, its last words."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        release: str,
        ports: Sequence[int],
        log_file: Path | None = None,
        on_line: OnLine | None = None,
    ) -> None:
        self.process = process
        self.release = release
        self.http, self.grpc, self.monitoring = (f"127.0.0.1:{port}" for port in ports[:3])
        self._tail: deque[str] = deque(maxlen=200)
        self._drain = asyncio.create_task(child.drain(process, self._tail, log_file, on_line))
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def pids(self) -> tuple[int, ...]:
        """Its process id."""
        return (self.pid,)

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self.process.returncode is None

    def last_words(self, lines: int = 15) -> str:
        """The last lines of its log, indented."""
        return child.last_words(self._tail, lines)

    async def metrics_text(self) -> str:
        """Its metrics in Prometheus' text format. Raises EnvironmentProblem if it is gone."""
        with self._asking("read its metrics"):
            async with self._session.get(f"http://{self.monitoring}/metrics") as response:
                return await response.text()

    async def pages(self) -> Pages:
        """Its metrics. Raises EnvironmentProblem if it is gone."""
        return Pages((await self.metrics_text(),))

    async def debug(self, path: str) -> Any:
        """The JSON of a `/debug/…` page. Raises EnvironmentProblem."""
        with self._asking(f"read /debug/{path}", ValueError):
            async with self._session.get(f"http://{self.monitoring}/debug/{path}") as response:
                return json.loads(await response.text())

    async def collect_garbage(self) -> None:
        """Have it collect garbage now (its profile of the heap does). Raises EnvironmentProblem."""
        with self._asking("have it collect garbage"):
            async with self._session.get(f"http://{self.http}/debug/pprof/heap?gc=1&debug=1") as response:
                await response.read()

    async def cpu_profile(self, seconds: int) -> bytes:
        """A profile of its CPU time in the next so many seconds, as Go's pprof has it. Raises EnvironmentProblem."""
        url = f"http://{self.http}/debug/pprof/profile?seconds={seconds}"
        timeout = aiohttp.ClientTimeout(total=seconds + READY_WITHIN_S)
        with self._asking("take a profile of its CPU time"):
            async with self._session.get(url, timeout=timeout) as response:
                response.raise_for_status()
                return await response.read()

    @contextlib.contextmanager
    def _asking(self, wanted: str, *others: type[Exception]) -> Iterator[None]:
        """While it is asked for something: what goes wrong is an EnvironmentProblem."""
        wrong: tuple[type[Exception], ...] = (aiohttp.ClientError, TimeoutError, OSError, *others)
        try:
            yield
        except wrong as problem:
            raise self.problem(f"can't {wanted}: {problem}") from None

    async def ready(self) -> bool:
        """Whether it says that it is ready and accepts streams."""
        try:
            async with self._session.get(f"http://{self.http}/ready") as response:
                if response.status != 200:
                    return False
            _, writer = await asyncio.open_connection(*self.grpc.split(":"))
            writer.close()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False
        return True

    def problem(self, what: str) -> EnvironmentProblem:
        """An error about this istiod, with its exit status if it died, and its last log lines."""
        state = "" if self.alive else f" (it ended with {child.ending(self.process.returncode)})"
        return EnvironmentProblem(f"istiod {self.release}{state}: {what}; its last log lines:\n{self.last_words()}")

    async def gone(self) -> EnvironmentProblem:
        """Returns when the process has ended: the error that tells it."""
        await self.process.wait()
        return self.problem("it died")

    def taken(self) -> child.Taken:
        """What it takes of the machine. Raises EnvironmentProblem if it is gone."""
        if (found := child.taken(self.pid)) is None:
            raise self.problem("it died")
        return found

    async def kill(self) -> None:
        """End it at once, as a crash does."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    async def stop(self) -> None:
        """End it (politely, then not) and wait until it is gone; no harm if it already is."""
        await self._session.close()
        await child.end(self.process)
        await self._drain


def detect_release(binary: Path) -> str:
    """The release a binary says it is (`1.24.6`), "unknown" if it was built without. Raises EnvironmentProblem."""
    if not binary.is_file():
        raise EnvironmentProblem(f"there is no istiod binary at {binary} (give the path of a pilot-discovery)")
    if not os.access(binary, os.X_OK):
        raise EnvironmentProblem(f"{binary} is not executable (chmod +x it)")
    try:
        done = subprocess.run(
            [binary, "version", "-o", "json"],
            capture_output=True,
            text=True,
            timeout=30,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise EnvironmentProblem(f"{binary} can't be run: {problem}") from None
    found = re.search(r'"version":\s*"([^"]+)"', done.stdout)
    if done.returncode or not found:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise EnvironmentProblem(
            f"{binary} is not a pilot-discovery: `version` said {said[-1] if said else 'nothing'!r}"
        )
    return found[1]


def free_ports(wanted: Sequence[int]) -> list[int]:
    """The wanted loopback ports, a free one for each 0. Raises EnvironmentProblem naming one that is taken."""
    with contextlib.ExitStack() as held:
        ports = []
        for port in wanted:
            probe = held.enter_context(socket.socket())
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as problem:
                raise EnvironmentProblem(f"port {port} is taken: {problem.strerror} (give another, or none)") from None
            ports.append(probe.getsockname()[1])
        return ports


def command(settings: Settings, directory: Path, ports: Sequence[int]) -> list[str]:
    """istiod's command line; one serves every release, for istiod ignores flags it does not know."""
    http, grpc, monitoring, ctrlz = ports
    return [
        str(settings.binary.resolve()),
        "discovery",
        "--registries=Kubernetes",
        f"--kubeconfig={directory}/kubeconfig",
        f"--meshConfig={directory}/mesh.yaml",
        f"--networksConfig={directory}/networks.yaml",
        f"--httpAddr=127.0.0.1:{http}",
        f"--grpcAddr=127.0.0.1:{grpc}",
        "--secureGRPCAddr=",
        "--httpsAddr=",
        f"--monitoringAddr=127.0.0.1:{monitoring}",
        f"--ctrlz_port={ctrlz}",
        "--ctrlz_address=127.0.0.1",
        "--shutdownDuration=1s",
        "--domain=cluster.local",
        f"--log_output_level={settings.log_level}",
    ]


def _write_files(settings: Settings, directory: Path, cluster_url: str) -> None:
    """The files istiod reads; JSON is YAML."""
    config = {**MESH_CONFIG, **settings.mesh_config}
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "stub", "cluster": {"server": cluster_url}}],
        "users": [{"name": "stub", "user": {}}],
        "contexts": [{"name": "stub", "context": {"cluster": "stub", "user": "stub"}}],
        "current-context": "stub",
    }
    (directory / "mesh.yaml").write_text(json.dumps(config))
    (directory / "networks.yaml").write_text('{"networks": {}}')
    (directory / "kubeconfig").write_text(json.dumps(kubeconfig))
    (directory / "work").mkdir()


def environment(settings: Settings) -> dict[str, str]:
    """istiod's whole environment: nothing of ours but PATH, so that a run does not depend on the shell it came from."""
    env = {"PATH": os.environ.get("PATH", ""), **ENVIRONMENT}
    if settings.cores is not None:
        env["GOMAXPROCS"] = str(len(settings.cores))
    return env | {name: str(value) for name, value in settings.env.items()}


async def _spawn(settings: Settings, arguments: list[str], directory: Path) -> asyncio.subprocess.Process:
    env = environment(settings) | {"HOME": str(directory)}
    return await child.spawn(arguments, directory / "work", env, settings.cores)


@asynccontextmanager
async def run(
    settings: Settings,
    cluster_url: str,
    log_file: Path | None = None,
    on_line: OnLine | None = None,
    begun: Callable[[Istiod], None] = lambda _istiod: None,
) -> AsyncIterator[Istiod]:
    """Run an istiod while the context is open; it is ready when the context opens.

    cluster_url: its API server. log_file: where its whole log goes; the last lines are in every error anyway.
    on_line: told each line of it. begun: told of the process, before it is ready.
    Call it from the main thread: the kernel ends istiod with the thread that started it.
    Raises EnvironmentProblem: no such binary, port taken, istiod exits at start or does not get ready (last log lines).
    """
    release = detect_release(settings.binary)
    with tempfile.TemporaryDirectory(prefix="pushsim-istiod-") as name:
        directory = Path(name)
        _write_files(settings, directory, cluster_url)
        istiod = await _start(settings, release, directory, log_file, on_line, begun)
        try:
            yield istiod
        finally:
            await istiod.stop()


async def _start(
    settings: Settings,
    release: str,
    directory: Path,
    log_file: Path | None,
    on_line: OnLine | None,
    begun: Callable[[Istiod], None],
) -> Istiod:
    """Start istiod and wait until it is ready; once more if another process took one of the free ports meanwhile."""
    for last in (False, False, True):
        ports = free_ports(settings.ports)
        process = await _spawn(settings, command(settings, directory, ports), directory)
        istiod = Istiod(process, release, ports, log_file, on_line)
        begun(istiod)
        try:
            await _wait_ready(istiod)
            return istiod
        except EnvironmentProblem:
            await istiod.stop()
            if last or all(settings.ports) or "address already in use" not in istiod.last_words():
                raise
        except BaseException:
            await istiod.stop()
            raise
    raise AssertionError("the last attempt returns or raises")


async def _wait_ready(istiod: Istiod) -> None:
    try:
        async with asyncio.timeout(READY_WITHIN_S):
            while not await istiod.ready():
                if not istiod.alive:
                    await istiod.stop()
                    raise istiod.problem("it ended before it was ready")
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise istiod.problem(f"it is not ready after {READY_WITHIN_S:.0f} s") from None
