"""Running an istiod, and recording one: with a program that behaves like it, and with a real one where there is one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from replayed import left_running

from pushsim import child, istiod
from pushsim.cases import Case, load_case, parse_case
from pushsim.errors import EnvironmentProblem
from pushsim.istiod import Settings, command, detect_release, environment, free_ports
from pushsim.mesh import Change
from pushsim.record import ATTEMPTS, minor, record_case
from pushsim.replay.quiet import LOOK_EVERY_S, Stillness, still_for_s, totals
from pushsim.stub import Cluster, serve

Binary = Callable[[str], Path]
LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def case() -> Case:
    def described(kind: str, name: str, **rest: Any) -> dict[str, Any]:
        version = "discovery.k8s.io/v1" if kind == "EndpointSlice" else "v1"
        labels = {"kubernetes.io/service-name": name} if kind == "EndpointSlice" else {}
        return {
            "apiVersion": version,
            "kind": kind,
            "metadata": {"name": name, "namespace": "ns", "labels": labels},
            **rest,
        }

    ports = {"ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]}
    service = {"spec": {"clusterIP": "10.0.0.1", **ports}}
    slices = {"addressType": "IPv4", "endpoints": [], **ports}
    body = {
        "about": "Two services.",
        "env": {"PILOT_DEBOUNCE_AFTER": "20ms"},
        "manifests": [described("Service", "a", **service), described("Service", "b", **service)],
        "proxies": [{"name": f"p{i}", "namespace": "ns", "ip": f"10.1.0.{i}"} for i in range(3)],
        "steps": [
            {"name": "endpoints of b", "apply": [described("EndpointSlice", "b", **slices)]},
            {"name": "new service c", "apply": [described("Service", "c", **service)]},
            {"name": "delete a", "delete": [{"kind": "Service", "namespace": "ns", "name": "a"}]},
        ],
    }
    return parse_case(body, "small")


def short(names: list[str]) -> list[str]:
    """Services for their clusters."""
    return [name.rpartition("|")[2].partition(".")[0] for name in names]


def run(settings: Settings, inside: Callable[[istiod.Istiod], Any] = lambda _: None) -> Any:
    async def main() -> Any:
        async with serve(Cluster()) as url, istiod.run(settings, url) as server:
            return inside(server)

    return asyncio.run(main())


def test_a_recording_holds_what_was_sent_step_by_step(binary: Binary, tmp_path: Path) -> None:
    told: list[str] = []
    (path,) = record_case(case(), binary("normal"), tmp_path / "out", ["sotw"], told.append)
    assert path == tmp_path / "out" / "small" / "1.24-sotw.json"
    found = json.loads(path.read_text())
    assert found["istio"] == "1.24.99" and found["mode"] == "sotw"
    assert set(found["connect"]) == {"p0.ns", "p1.ns", "p2.ns"}
    assert [(r["xds"], short(r["names"]), r["solicited"]) for r in found["connect"]["p1.ns"]] == [
        ("CDS", ["a", "b"], True), ("EDS", ["a", "b"], True), ("LDS", ["l"], True), ("RDS", ["80"], True),
    ]  # fmt: skip

    def step(number: int) -> list[tuple[str, list[str], bool]]:
        return [(r["xds"], short(r["names"]), r["solicited"]) for r in found["steps"][number]["responses"]["p2.ns"]]

    assert [s["name"] for s in found["steps"]] == ["endpoints of b", "new service c", "delete a"]
    assert step(0) == [("EDS", ["b"], False)]
    assert Counter(map(str, step(1))) == Counter(
        map(str, [("CDS", ["a", "b", "c"], False), ("EDS", ["a", "b"], False), ("LDS", ["l"], False),
                  ("RDS", ["80"], False), ("EDS", ["c"], True)])
    )  # fmt: skip
    assert step(2)[0] == ("CDS", ["b", "c"], False)
    assert found["connect"]["p0.ns"][0]["size_bytes"] > 50
    assert any("step 2 of 3: new service c" in line for line in told)
    assert [p.name for p in path.parent.iterdir()] == ["1.24-sotw.json"]
    assert not left_running()


def pushsim(*arguments: Any, **how: Any) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", "from pushsim.cli import main; main()", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, **how)


def test_a_random_case_is_written_and_recorded(binary: Binary, tmp_path: Path) -> None:
    options = ["--istiod-binary", binary("normal"), "--out", tmp_path, "--mode", "sotw", "--steps", 2]
    done = pushsim("record", "--random", 3, *options)
    assert done.returncode == 0, done.stderr
    case_file, recording = map(Path, done.stdout.split())
    assert (case_file, recording) == (tmp_path / "cases" / "seed-3.yaml", tmp_path / "seed-3" / "1.24-sotw.json")
    assert len(json.loads(recording.read_text())["steps"]) == len(load_case(case_file).steps) == 2


def test_a_recording_that_cannot_be_made_is_the_environments_fault(binary: Binary, tmp_path: Path) -> None:
    where = ["--random", 3, "--out", tmp_path / "out", "--istiod-binary"]
    for program, said in ((tmp_path / "nowhere", "no istiod binary"), (binary("exit"), "no such thing as a mesh")):
        done = pushsim("record", *where, program)
        assert (done.returncode, said in done.stderr, "Traceback" in done.stderr) == (3, True, False)
    (tmp_path / "file").write_text("")
    done = pushsim("record", "--random", 3, "--out", tmp_path / "file", "--istiod-binary", binary("normal"))
    assert (done.returncode, "cannot be written" in done.stderr) == (3, True)
    assert pushsim("record", "--out", tmp_path, "--istiod-binary", binary("normal")).returncode == 2


def test_an_interrupt_keeps_what_is_whole_and_leaves_nothing_running(binary: Binary, tmp_path: Path) -> None:
    line = [sys.executable, "-c", "from pushsim.cli import main; main()", "record", "--random", "3", "--random", "4"]
    line += ["--istiod-binary", str(binary("normal")), "--out", str(tmp_path / "out"), "--mode", "sotw", "--steps", "1"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as recorder:
        assert recorder.stderr is not None
        children: list[psutil.Process] = []
        for said in recorder.stderr:  # the first recording is written, the second one under way
            if "seed-4" in said and "connecting" in said:
                children = psutil.Process(recorder.pid).children()
                recorder.send_signal(signal.SIGINT)
                break
        assert recorder.wait(20) == 130
    assert children and not any(child.is_running() for child in children)
    found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert found == {"cases/seed-3.yaml", "cases/seed-4.yaml", "seed-3/1.24-sotw.json"}


def test_a_step_that_is_torn_by_a_busy_machine_is_recorded_anew(
    binary: Binary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written slower than a debounce, its parts may be two pushes."""
    whole, told, waits = case(), [], [0.03]
    torn = replace(whole, steps=(Change(tuple(o for step in whole.steps[:2] for o in step.apply), name="both"),))
    write = Cluster.write_in_order

    async def slow(cluster: Cluster, change: Change, pause_s: float = 0) -> None:
        await write(cluster, change, pause_s)
        await asyncio.sleep(waits.pop() if waits else 0)

    monkeypatch.setattr(Cluster, "write_in_order", slow)
    (path,) = record_case(torn, binary("normal"), tmp_path, ["sotw"], told.append)
    assert any("beginning anew" in line for line in told)
    assert len(json.loads(path.read_text())["steps"]) == 1
    waits[:] = [0.03] * ATTEMPTS
    with pytest.raises(EnvironmentProblem, match=r"writing step 1 took \d+ ms.*too busy"):
        record_case(torn, binary("normal"), tmp_path / "out", ["sotw"])
    assert not list((tmp_path / "out").rglob("*.json*")) and not left_running()


def test_a_step_of_which_istiod_makes_several_pushes_is_recorded_anew_unless_it_always_does(
    binary: Binary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, told = case(), []
    torn = replace(whole, steps=(Change(tuple(o for step in whole.steps[:2] for o in step.apply), name="both"),))
    made: list[float] = []

    async def debounced(_server: object) -> float:
        return made.pop(0) if made else 0.0

    monkeypatch.setattr(sys.modules[record_case.__module__], "_debounced", debounced)
    monkeypatch.setattr(sys.modules[record_case.__module__], "debounce_s", lambda _env: 60.0)
    made[:] = [3, 5, 2, 3]  # before and after the step, in the first recording and in the second
    record_case(torn, binary("normal"), tmp_path / "twice", ["sotw"], told.append)
    assert [line for line in told if "anew" in line] == [f"{torn.name}, sotw: step 1 became 2 pushes: beginning anew"]
    made[:] = [0, 2] * ATTEMPTS
    (path,) = record_case(torn, binary("normal"), tmp_path / "always", ["sotw"])
    assert path.exists() and made == [2], "the last one does not look"


def test_what_a_dying_istiod_said_is_told_and_no_half_file_is_left(binary: Binary, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem) as problem:
        record_case(case(), binary("die"), tmp_path / "out", ["sotw"])
    assert "about to die" in str(problem.value) and "1.24.99" in str(problem.value)
    assert problem.value.exit_code == 3
    assert not list((tmp_path / "out").rglob("*.json*"))


def test_a_refused_stream_is_told_with_its_reason(binary: Binary, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="RESOURCE_EXHAUSTED: request rate limit exceeded"):
        record_case(case(), binary("refuse"), tmp_path / "out", ["sotw"])
    assert not left_running()


def test_an_istiod_that_exits_at_start_shows_its_last_lines(binary: Binary) -> None:
    with pytest.raises(EnvironmentProblem, match=r"(?s)exit code 3.*before it was ready.*no such thing as a mesh"):
        run(Settings(binary("exit")))


def test_an_istiod_that_never_gets_ready_is_given_up_and_ended(binary: Binary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(istiod, "READY_WITHIN_S", 0.3)
    with pytest.raises(EnvironmentProblem, match="not ready after"):
        run(Settings(binary("silent")))
    assert not left_running()


def test_a_free_port_that_another_process_took_first_is_replaced(binary: Binary) -> None:
    assert run(Settings(binary("taken-once")), lambda server: server.release) == "1.24.99"


def test_a_wanted_port_that_is_taken_is_named(binary: Binary) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        with pytest.raises(EnvironmentProblem, match=f"port {port} is taken"):
            run(Settings(binary("normal"), ports=(0, port, 0, 0)))
        assert port not in free_ports([0, 0, 0])


def test_binaries_that_are_none(binary: Binary, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("text")
    with pytest.raises(EnvironmentProblem, match=r"not a pilot-discovery.*usage: other"):
        detect_release(binary("other"))
    with pytest.raises(EnvironmentProblem, match="no istiod binary"):
        detect_release(tmp_path / "nowhere")
    with pytest.raises(EnvironmentProblem, match="not executable"):
        detect_release(plain)
    plain.chmod(0o755)
    with pytest.raises(EnvironmentProblem, match="can't be run"):
        detect_release(plain)


def test_it_listens_on_loopback_only_and_is_gone_afterwards(binary: Binary) -> None:
    def listening(server: istiod.Istiod) -> tuple[int, set[str]]:
        connections = psutil.Process(server.pid).net_connections("tcp")
        return server.pid, {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}

    pid, addresses = run(Settings(binary("normal")), listening)
    assert addresses and addresses <= LOOPBACK
    assert not psutil.pid_exists(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="affinity is Linux's")
def test_cores_are_pinned_and_told_to_go(binary: Binary) -> None:
    core = min(os.sched_getaffinity(0))
    seen = run(Settings(binary("normal"), cores=[core]), lambda server: psutil.Process(server.pid).cpu_affinity())
    assert seen == [core]
    assert environment(Settings(Path("x"), cores=[0, 1]))["GOMAXPROCS"] == "2"


def test_the_environment_is_ours_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PILOT_DEBOUNCE_AFTER", "9s")
    env = environment(Settings(Path("x"), env={"PILOT_PUSH_THROTTLE": "7"}))
    assert "PILOT_DEBOUNCE_AFTER" not in env
    assert env["PILOT_PUSH_THROTTLE"] == "7" and env["ENABLE_CA_SERVER"] == "false"


def test_every_address_of_the_command_line_is_loopback() -> None:
    line = command(Settings(Path("x")), Path("/d"), [1, 2, 3, 4])
    addresses = [a.partition("=")[2] for a in line if "Addr=" in a or "address=" in a]
    assert addresses and all(a == "" or a.startswith("127.0.0.1") for a in addresses)


PARENT = """
import asyncio, sys
from pathlib import Path
from pushsim import istiod
from pushsim.stub import Cluster, serve
async def main():
    async with serve(Cluster()) as url, istiod.run(istiod.Settings(Path(sys.argv[1])), url) as server:
        print(server.pid, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_no_orphan_is_left_when_we_are_killed_or_interrupted(
    binary: Binary, end: signal.Signals, tmp_path: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, binary("normal")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},  # one that is killed leaves its files
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.is_running()
        parent.send_signal(end)
        parent.wait(20)
        child.wait(20)
    assert not child.is_running()


def test_totals_sum_over_labels() -> None:
    text = 'pilot_xds_pushes{type="cds"} 3\npilot_xds_pushes{type="eds"} 4\n# HELP pilot_xds_pushes x\nother 9\n'
    assert totals(text + "pilot_proxy_queue_time_count 1e+01\n") == {
        "pilot_xds_pushes": 7.0,
        "pilot_proxy_queue_time_count": 10.0,
    }


def test_it_is_quiet_after_so_many_looks_at_which_nothing_moved_and_nothing_was_under_way() -> None:
    stillness = Stillness(3 * LOOK_EVERY_S)

    def looks(*states: int, under_way: bool = False) -> list[bool]:
        return [stillness.look(state, under_way=under_way) for state in states]

    assert looks(1, 1, 1, 1) == [False, False, False, True]
    assert looks(2, 2, 2) == [False, False, False], "something moved"
    assert looks(2, under_way=True) == [False], "however long it is silent"
    assert looks(2, 2, 2) == [False, False, True]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
@pytest.mark.parametrize(("program", "busy"), [("input()", False), ("while True: pass", True)])
def test_a_process_that_has_work_is_told_from_one_that_sleeps(program: str, busy: bool) -> None:
    line = [sys.executable, "-c", f"print('begun', flush=True)\n{program}"]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        try:
            assert any(child.has_work(process.pid) is busy for _ in range(10_000))
            assert child.has_work(process.pid) is busy
        finally:
            process.kill()
    assert not child.has_work(process.pid)


def test_quiet_is_longer_than_a_debounce() -> None:
    assert still_for_s({}) == pytest.approx(0.3)
    assert still_for_s({"PILOT_DEBOUNCE_AFTER": "1s"}) == pytest.approx(2.1)
    assert still_for_s({"PILOT_DEBOUNCE_AFTER": "soon"}) == pytest.approx(0.3)


VECTORS = Path(__file__).parent / "vectors"


@pytest.mark.istiod
@pytest.mark.parametrize("mode", ["sotw", "delta"])
@pytest.mark.parametrize("name", ["endpoints", "services", "gateway-routing"])
def test_a_real_istiod_sends_again_what_was_recorded(istiod_binary: Path, name: str, mode: Any, tmp_path: Path) -> None:
    recorded = VECTORS / name / f"{minor(detect_release(istiod_binary))}-{mode}.json"
    if not recorded.exists():
        pytest.skip(f"{name} was not recorded on this release")
    (path,) = record_case(load_case(VECTORS / "cases" / f"{name}.yaml"), istiod_binary, tmp_path, [mode])
    got, want = json.loads(path.read_text()), json.loads(recorded.read_text())

    def signatures(responses: list[Any]) -> Counter[str]:
        return Counter(str([r["xds"], r["solicited"], r["names"], r["removed_names"]]) for r in responses)

    for ours, theirs in zip(got["steps"], want["steps"], strict=True):
        for proxy, responses in theirs["responses"].items():
            assert signatures(ours["responses"][proxy]) == signatures(responses), (ours["name"], proxy)


@pytest.mark.istiod
def test_a_real_istiod_asks_nothing_the_stub_does_not_know_and_listens_on_loopback_only(istiod_binary: Path) -> None:
    async def main() -> tuple[set[str], set[str]]:
        cluster = Cluster()
        async with serve(cluster) as url, istiod.run(Settings(istiod_binary), url) as server:
            connections = psutil.Process(server.pid).net_connections("tcp")
            return cluster.unknown, {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}

    unknown, addresses = asyncio.run(main())
    assert not unknown
    assert addresses <= LOOPBACK
