"""Measures what work costs, on real processes: an istiod driven by our stub and clients, an Envoy fed by us."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import yaml

from pushsim.cost import Calibration
from pushsim.errors import EnvironmentProblem
from pushsim.files import write_whole


def needs_its_extra() -> None:
    """Say which extra is missing, before minutes are spent. Raises EnvironmentProblem."""
    missing = [name for name in ("aiohttp", "grpc", "psutil", "trustme", "envoy") if find_spec(name) is None]
    if missing:
        raise EnvironmentProblem(f"no {', '.join(missing)} to calibrate with: install pushsim[calibrate]")


def save(calibration: Calibration, path: Path) -> None:
    """Write a calibration file, whole or not at all. Raises EnvironmentProblem."""
    text = yaml.safe_dump(calibration.dump(), sort_keys=False, allow_unicode=True, width=120)
    write_whole(path, text)
