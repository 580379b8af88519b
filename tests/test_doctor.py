"""What the doctor finds and advises."""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pushsim.cli import main
from pushsim.doctor import Check, doctor


def checks(**arguments: Any) -> dict[str, Check]:
    return {check.name: check for check in doctor(**arguments)}


def program(tmp_path: Path, says: str, code: int = 0) -> Path:
    path = tmp_path / "pilot-discovery"
    path.write_text(f"#!/bin/sh\necho '{says}'\nexit {code}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("version", "verdict"),
    [("1.14.6", "ok"), ("1.31.0-alpha.0", "ok"), ("1.13.9", "warning"), ("1.99.0", "warning"), ("unknown", "warning")],
)
def test_a_binary_and_its_release(tmp_path: Path, version: str, verdict: str) -> None:
    found = checks(istiod_binary=program(tmp_path, f'{{"version": "{version}"}}'))["istiod"]
    assert found.verdict == verdict and version in found.found
    assert bool(found.remedy) is (verdict != "ok")


def test_what_is_no_istiod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks(istiod_binary=program(tmp_path, "hello", 1))["istiod"].verdict == "problem"
    assert "no istiod binary" in checks(istiod_binary=tmp_path / "nowhere")["istiod"].found
    monkeypatch.delenv("PUSHSIM_ISTIOD", raising=False)
    assert "PUSHSIM_ISTIOD" in checks()["istiod"].remedy
    monkeypatch.setenv("PUSHSIM_ISTIOD", str(tmp_path / "nowhere"))
    assert "nowhere" in checks()["istiod"].found


def test_a_taken_port() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        found = checks(ports=(0, held.getsockname()[1]))["ports"]
    assert found.verdict == "problem" and "is taken" in found.found and found.remedy
    assert checks()["ports"].verdict == "ok"


def test_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    known = importlib.import_module

    def without(name: str, package: str | None = None) -> Any:
        if name.startswith(("hpack", "lightkube")):
            raise ImportError(name)
        return known(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    found = checks()
    assert found["extra replay"].verdict == "problem" and "pushsim[replay]" in found["extra replay"].remedy
    assert found["extra cluster"].verdict == "warning" and found["extra webhook"].verdict == "ok"
    assert "istiod" not in found


def test_too_many_proxies_for_the_memory() -> None:
    assert checks(proxies=10**9)["memory"].verdict == "warning"
    assert checks(proxies=1)["memory"].verdict == "ok"


def test_few_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 1000))
    assert checks(proxies=2000)["open files"].remedy.startswith("ulimit -Hn 2256")
    assert checks(proxies=200)["open files"].verdict == "ok"


def test_the_verb_says_it_all_and_exits_with_3_if_a_replay_can_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    binary = program(tmp_path, '{"version": "1.24.6"}')
    for line, code in ([], 0), (["--proxies", "99000000"], 3):
        with pytest.raises(SystemExit) as ended:
            main(["doctor", "--istiod-binary", str(binary), *line, "--json"])
        told = json.loads(capsys.readouterr().out)
        assert (ended.value.code, told["fine"]) == (code, not code)
        assert {check["name"] for check in told["checks"]} >= {"istiod", "ports", "open files", "cores"}


@pytest.mark.parametrize(
    ("arguments", "extras"),
    [
        (["webhook", "--policy", "export-to", "--cert", "c", "--key", "k"], "pushsim[webhook]"),
        (["parity", "aisuite-small", "--istiod-binary", "/no/such"], "pushsim[replay]"),
        (["calibrate", "--istiod-binary", "/no/such", "--out", "o"], "pushsim[calibrate]"),
    ],
)
def test_a_verb_that_wants_an_extra_says_which(tmp_path: Path, arguments: list[str], extras: str) -> None:
    """As after `pip install pushsim`: that is no defect."""
    others = ("aiohttp", "hpack", "psutil", "jsonpatch", "trustme")
    code = f"import sys; sys.modules.update(dict.fromkeys({others!r})); from pushsim.cli import main; main({arguments})"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    run = [sys.executable, "-c", code]
    told = subprocess.run(run, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert told.returncode == 3, told.stderr
    assert told.stderr.startswith("pushsim: no ") and told.stderr.endswith(f": install {extras}\n")
