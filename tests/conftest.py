"""What pip cannot bring is asked for by a marker and skipped, with a reason, where its variable is not set."""

import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job; what tests start would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("pushsim", deadline=None)  # a busy machine is no fault
settings.load_profile("pushsim")

#: Marker to the variable that names what it needs, and what that is.
OUTSIDE = {
    "istiod": ("PUSHSIM_ISTIOD", "a pilot-discovery binary"),
    "envoy": ("PUSHSIM_ENVOY", "an Envoy"),
    "browser": ("PUSHSIM_BROWSER", "a headless browser"),
    "prometheus": ("PUSHSIM_PROMETHEUS", "a Prometheus server"),
    "manifests": ("PUSHSIM_DATA", "a folder of real manifests"),
}


def outside(marker: str) -> Path:
    """The path of what a marker needs; skips the test where its variable is not set."""
    variable, what = OUTSIDE[marker]
    if not os.environ.get(variable):
        pytest.skip(f"needs {what}: set {variable}")
    return Path(os.environ[variable])


@pytest.fixture(scope="session")
def istiod_binary() -> Path:
    return outside("istiod")


@pytest.fixture(scope="session")
def real_manifests() -> Path:
    return outside("manifests")


@pytest.fixture
def binary(tmp_path: Path) -> Callable[[str], Path]:
    """A `pilot-discovery` of a given behaviour: see `fake_istiod.py`."""

    def make(behaviour: str) -> Path:
        program = tmp_path / "fake_istiod.py"
        shutil.copy(Path(__file__).parent / "fake_istiod.py", program)
        path = tmp_path / f"pilot-discovery-{behaviour}"
        path.write_text(f'#!/bin/sh\nexec {sys.executable} {program} {behaviour} "$@"\n')
        path.chmod(0o755)
        return path

    return make


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in OUTSIDE:
        if item.get_closest_marker(marker):
            outside(marker)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = Counter[str]()
    for report in terminalreporter.stats.get("skipped", []):
        for variable, _ in OUTSIDE.values():
            skipped[variable] += variable in str(report.longrepr)
    for variable, what in OUTSIDE.values():
        if skipped[variable]:
            terminalreporter.write_line(f"{skipped[variable]} not run for want of {what} ({variable} is not set)")
