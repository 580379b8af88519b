"""Records what a real istiod sends: a case in, the recordings' JSON out (`vectors/README.md`)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pushsim import istiod, stub
from pushsim.ads import Response
from pushsim.agents import configured
from pushsim.cases import Case
from pushsim.errors import EnvironmentProblem
from pushsim.files import write_whole
from pushsim.mesh import ON_DEMAND, SLICES_LATER_NS, XDS, Mode, Proxy
from pushsim.randomcase import Kinds, random_case, to_yaml
from pushsim.replay.fleet import Recorder
from pushsim.replay.quiet import DEBOUNCED, debounce_s, quiet, still_for_s, totals
from pushsim.units import SECOND_NS

#: Told, in words, where a recording is: "endpoints on 1.24.6, delta: step 3 of 9: b to zero".
Progress = Callable[[str], None]
MODES: tuple[Mode, ...] = ("sotw", "delta")
#: How often a recording is begun that a busy machine spoils.
ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class Transcript:
    """All responses of one recording, raw: by proxy id, in order of arrival; those on connecting, then by step."""

    release: str
    mode: Mode
    connect: Mapping[str, Sequence[Response]]
    steps: tuple[tuple[str, Mapping[str, Sequence[Response]]], ...]

    def recording(self) -> dict[str, Any]:
        """The recordings' format; every response on connecting is solicited."""
        return {
            "istio": self.release,
            "mode": self.mode,
            "on_demand": [xds for xds in XDS if xds in ON_DEMAND],
            "connect": {
                name: [{**r.as_recorded(), "solicited": True} for r in responses]
                for name, responses in self.connect.items()
            },
            "steps": [
                {"name": name, "responses": {proxy: [r.as_recorded() for r in got] for proxy, got in responses.items()}}
                for name, responses in self.steps
            ],
        }


class _Torn(Exception):
    """A step took so long to write that istiod may have pushed its first part alone."""


async def converse(case: Case, binary: Path, mode: Mode, progress: Progress = lambda _: None) -> Transcript:
    """Run a case on a real istiod: connect its proxies, then write each step once all is quiet.

    The case's mesh config and environment are laid over those of `istiod.run`. A step must be on the wire well within
    a debounce, or it is not one push: where a busy machine takes longer, all begins anew, up to `ATTEMPTS` times. So it
    does where istiod itself, short of processors, made several pushes of a step (told from 1.16 on); but what it does
    every time it means, and that is recorded. Raises EnvironmentProblem.
    """
    for attempt in range(ATTEMPTS):
        try:
            return await _converse(case, binary, mode, progress, last=attempt == ATTEMPTS - 1)
        except _Torn as torn:
            progress(f"{case.name}, {mode}: {torn}: beginning anew")
            told = torn
    raise EnvironmentProblem(
        f"{case.name}, {mode}: {told}, {ATTEMPTS} times over: the machine is too busy to record on"
    )


async def _converse(case: Case, binary: Path, mode: Mode, progress: Progress, *, last: bool) -> Transcript:
    cluster = stub.Cluster.of(case.mesh)
    env = {**istiod.RECORDING, **istiod.AUTHENTICATED, **case.mesh.env}
    settings = istiod.Settings(binary, case.mesh.mesh_config, env)
    pause_s = SLICES_LATER_NS / SECOND_NS  # within a step, before the EndpointSlices
    still_s, within_s = still_for_s(case.mesh.env), (debounce_s(case.mesh.env) + pause_s) / 2
    clock = asyncio.get_running_loop().time
    async with stub.serve(cluster) as url, istiod.run(settings, url) as server:
        head = f"{case.name} on {server.release}, {mode}"
        progress(f"{head}: connecting {len(case.mesh.proxies)} proxies")
        await quiet(server, cluster, None, still_s)
        proxies = configured(case.mesh)
        async with Recorder.connect(server, proxies, mode, ON_DEMAND, _token) as recorder:
            await quiet(server, cluster, recorder.fleet, still_s)
            connect = recorder.take()
            steps = []
            for index, change in enumerate(case.steps, 1):
                progress(f"{head}: step {index} of {len(case.steps)}: {change.name}")
                several = len(change.apply) + len(change.delete) > 1
                before, begun = await _debounced(server), clock()
                await cluster.write_in_order(change, pause_s)
                if several and (took := clock() - begun) > within_s:
                    raise _Torn(f"writing step {index} took {took * 1000:.0f} ms")
                await quiet(server, cluster, recorder.fleet, still_s)
                if several and not last and (pushes := await _debounced(server) - before) > 1:
                    raise _Torn(f"step {index} became {pushes:.0f} pushes")
                steps.append((change.name, recorder.take()))
    return Transcript(server.release, mode, connect, tuple(steps))


def _token(proxy: Proxy) -> str:
    return stub.token(proxy.namespace, proxy.service_account)


async def _debounced(server: istiod.Istiod) -> float:
    """How many pushes istiod has made of what it gathered in a debounce."""
    return totals(await server.metrics_text()).get(DEBOUNCED, 0.0)


def record_case(
    case: Case, binary: Path, out: Path, modes: Iterable[Mode] = MODES, progress: Progress = lambda _: None
) -> list[Path]:
    """Record a case on a real istiod, once per mode; returns the files, `OUT/CASE/1.24-sotw.json` and so on.

    binary: a pilot-discovery, 1.14 to 1.31. A file is written when its recording is whole. Raises EnvironmentProblem
    (no such binary, istiod ends or refuses a stream, no room to write) and InputError (a case that can't be written
    to the stub API).
    """
    written = []
    for mode in modes:
        transcript = asyncio.run(converse(case, binary, mode, progress))
        path = out / case.name / f"{minor(transcript.release)}-{mode}.json"
        written.append(write_whole(path, dumps(transcript.recording())))
        progress(f"wrote {path}")
    return written


def random_case_file(seed: int, out: Path, *, steps: int = 24, kinds: Kinds = "all") -> Path:
    """Make a random case of a seed (`randomcase.random_case`) and write it to `OUT/cases/seed-SEED.yaml`.

    Raises EnvironmentProblem if it can't be written.
    """
    return write_whole(out / "cases" / f"seed-{seed}.yaml", to_yaml(random_case(seed, steps, kinds)))


def minor(release: str) -> str:
    """`1.24` of `1.24.6`; the whole text if it is not a release's."""
    parts = release.split(".")
    return ".".join(parts[:2]) if len(parts) > 2 else release


def dumps(recording: Mapping[str, Any]) -> str:
    """A recording as compact JSON, one line for the connecting and one per step, so that a diff shows the step."""

    def compact(value: Any) -> str:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)

    head = f'{{"istio":{compact(recording["istio"])},"mode":{compact(recording["mode"])},'
    if "on_demand" in recording:
        head += f'"on_demand":{compact(recording["on_demand"])},'
    head += "\n"
    steps = ",\n".join(compact(step) for step in recording["steps"])
    return f'{head}"connect":{compact(recording["connect"])},\n"steps":[\n{steps}\n]}}\n'
