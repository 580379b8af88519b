"""The benchmarks run, at toy sizes, and count what they should."""

import os
import subprocess
import sys
from pathlib import Path


def test_benchmarks_run_at_toy_sizes() -> None:
    root = Path(__file__).parents[1]
    env = {**os.environ, "PYTHONPATH": str(root), "PUSHSIM_BENCHMARK": "toy"}
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "--benchmark-disable"]
    done = subprocess.run([*command, "benchmarks"], cwd=root, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
