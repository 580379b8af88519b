"""All that there is to fit to, in one calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pushsim.calibrate import dumps, fitting, monitored, of_envoy, of_istiod
from pushsim.calibrate.counters import read, seconds
from pushsim.cost import Calibration, shipped
from pushsim.given import as_path
from pushsim.istiod import detect_release
from pushsim.releases import NEWEST, rules

Paths = Sequence[str | Path]


def fitted(
    istiod_binary: str | Path | None = None,
    prometheus: Paths = (),
    config_dump: Paths = (),
    envoy: str | Path | None = None,
    release: str | None = None,
    *,
    window: str | None = None,
    repeats: int = 2,
    size: float = 1.0,
    speed_only: bool = False,
    progress: fitting.Progress = lambda _: None,
) -> tuple[Calibration, bool]:
    """The calibration, and whether it is whole: an interrupt keeps the parts that were done. Raises PushsimError."""
    binary = Path(as_path(istiod_binary, "istiod_binary")) if istiod_binary is not None else None
    proxy = Path(envoy) if envoy else None
    release = rules(release or (fitting.minor(detect_release(binary)) if binary else NEWEST)).minor
    if binary and speed_only:
        known = shipped(release)
        return replace(
            known, cpu_speed=of_istiod.measured_speed(binary, known, progress), machine=fitting.machine()
        ), True
    found = fitting.Findings()
    whole = True
    try:
        if prometheus:
            found += monitored.from_window(read([str(source) for source in prometheus], seconds(window)), release)
        if binary:
            found += of_istiod.from_istiod(binary, progress, repeats=repeats, size=size)
        if proxy:
            found += of_envoy.from_envoy(proxy, release, progress)
        if config_dump:
            found += dumps.from_dumps([Path(dump) for dump in config_dump], proxy, release, found, progress)
        if proxy and binary:
            found += of_envoy.held_out(binary, proxy, fitting.calibration(release, found), progress)
    except KeyboardInterrupt:
        whole = False
    return fitting.calibration(release, found), whole
