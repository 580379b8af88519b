"""The command line's exit codes and messages, as scripts see them."""

import ctypes
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import get_args

import pytest
from rich.console import Console

from pushsim import __version__, releases
from pushsim.cli import main
from pushsim.cli.options import Release
from pushsim.cli.progress import bars
from pushsim.errors import EnvironmentProblem
from pushsim.simulation import Simulation

VECTORS = Path(__file__).parent / "vectors"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


@pytest.mark.parametrize("arguments", [["bogus"], ["plan", "--bogus"], ["check"], ["plan", "--mode", "x", "mesh.yaml"]])
def test_wrong_use_is_bad_input(capsys, arguments):
    code, _, said = run(capsys, *arguments)
    assert code == 2
    assert "defect" not in said


def test_help_of_every_verb_has_an_example(capsys):
    code, listed, _ = run(capsys, "--help")
    verbs = [line.split()[0] for line in listed.split("Commands:")[1].splitlines() if line.strip()]
    assert code == 0
    assert {"plan", "simulate", "conform", "check", "schema", "scenarios"} <= set(verbs)
    for verb in verbs:
        code, text, _ = run(capsys, verb, "--help")
        assert (code, "Example:" in text) == (0, True), verb
        examples = [part for part in text.split("\n\n") if "Example:" in part]
        assert not [part for part in examples if re.search(r"\S {2,}\S", part)], "one command, as it is typed"


@pytest.mark.parametrize("line", [["record", "--random", "1", "--out", "o"], ["replay", "aisuite-small"]])
def test_whatever_runs_an_istiod_takes_the_one_of_the_environment(capsys, here, monkeypatch, line):
    monkeypatch.setenv("PUSHSIM_ISTIOD", "/no/such/istiod")
    code, _, said = run(capsys, *line)
    assert (code, "/no/such/istiod" in said) == (3, True), said


def test_python_runs_the_package_as_the_command():
    told = subprocess.run([sys.executable, "-m", "pushsim", "--version"], capture_output=True, text=True, check=True)
    assert __version__ in told.stdout
    wrong = subprocess.run([sys.executable, "-m", "pushsim", "check"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2


def test_the_version_is_told(capsys):
    code, told, _ = run(capsys, "--version")
    assert (code, told.strip()) == (0, f"pushsim {__version__}")


def piped(folder: Path, *arguments: str, stdout: int, stderr: int = subprocess.PIPE) -> tuple[int, str]:
    """Exit code and what is said of a pushsim of its own, which prints to that file descriptor."""
    (tiny := folder / "tiny.yaml").write_text(TINY)
    given = [sys.executable, "-m", "pushsim", *(str(tiny) if a == "TINY" else a for a in arguments)]
    ended = subprocess.run(given, stdout=stdout, stderr=stderr, text=True, check=False)
    return ended.returncode, ended.stderr


@pytest.mark.parametrize("arguments", [["scenarios"], ["schema"], ["simulate", "TINY", "--jobs", "1"]])
def test_who_reads_no_further_is_no_error_of_anybodys(tmp_path, arguments):
    """`pushsim … | head`: quiet, and the exit code that a shell gives for SIGPIPE; 1 is for checks that fail."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert piped(tmp_path, *arguments, stdout=writer) == (
            141,
            "",
        )
    finally:
        os.close(writer)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("arguments", [["scenarios"], ["schema"], ["simulate", "TINY", "--jobs", "1", "--json"]])
def test_a_full_device_is_the_environments_in_one_line(tmp_path, arguments):
    with Path("/dev/full").open("w") as full:
        code, said = piped(tmp_path, *arguments, stdout=full.fileno())
        assert (code, said) == (
            3,
            "pushsim: standard output: cannot be written: No space left on device (make room, or write elsewhere)\n",
        )
        assert piped(tmp_path, "check", "none.yaml", stdout=subprocess.DEVNULL, stderr=full.fileno()) == (2, None)


def test_an_unknown_release_lists_the_known_ones(capsys):
    code, _, said = run(capsys, "plan", "mesh.yaml", "--change", "c.yaml", "--release", "1.99")
    assert code == 2
    assert "1.24" in said


def test_a_mesh_without_proxies_names_the_option(capsys, tmp_path):
    mesh = tmp_path / "mesh.yaml"
    mesh.write_text("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c, image: i}]}\n")
    code, _, said = run(capsys, "plan", str(mesh), "--delete", "Pod/default/a")
    assert code == 2
    assert "--inject=all" in said


def test_a_scenario_without_proxies_names_the_field(capsys, tmp_path):
    pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c, image: i}]}\n"
    (tmp_path / "mesh.yaml").write_text(pod)
    (tmp_path / "s.yaml").write_text("mesh: {manifests: [mesh.yaml]}\nduration: 1s\n")
    code, _, said = run(capsys, "simulate", str(tmp_path / "s.yaml"))
    assert code == 2
    assert "mesh.inject: all" in said


def test_a_case_stands_alone(capsys):
    case = VECTORS / "cases" / "gateway-visibility.yaml"
    code, _, said = run(capsys, "plan", "mesh.yaml", "--case", str(case))
    assert code == 2
    assert "its own mesh" in said


def test_closed_standard_input_is_told(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    code, _, said = run(capsys, "plan", "-", "--delete", "Pod/default/a")
    assert code == 2
    assert "standard input is closed" in said


def test_a_case_is_answered_in_the_recordings_format(capsys):
    case = VECTORS / "cases" / "gateway-visibility.yaml"
    code, printed, _ = run(capsys, "plan", "--case", str(case), "--release", "1.24", "--mode", "sotw", "--json")
    answer = json.loads(printed)
    real = json.loads((VECTORS / "gateway-visibility" / "1.24-sotw.json").read_text())
    assert code == 0
    assert [step["name"] for step in answer["steps"]] == [step["name"] for step in real["steps"]]
    for ours, theirs in zip(
        [answer["connect"], *(s["responses"] for s in answer["steps"])],
        [real["connect"], *(s["responses"] for s in real["steps"])],
        strict=True,
    ):
        assert ours.keys() == theirs.keys()
        for proxy, responses in ours.items():
            assert all(response["why"] for response in responses)
            told = [(r["xds"], r["names"], r["removed_names"], r["solicited"]) for r in responses]
            assert told == [(r["xds"], r["names"], r["removed_names"], r["solicited"]) for r in theirs[proxy]]


TINY = """
mesh: {generate: {namespaces: 2, apps: [{name: web, pods: 2}]}}
churn: [{source: rollout, rate: 1/s}]
duration: 5s
variants: {unscoped: [], scoped: [namespace]}
"""


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["simulate", "TINY", "--jobs", "1"], "unscoped (interrupted)"),
        (
            ["simulate", "TINY", "--jobs", "1", "--json"],
            '"complete": false, "variants": {"unscoped": {"source"',
        ),
        (["compare", "TINY", "--jobs", "1"], "unscoped"),
        (["churn", "TINY", "--jobs", "1"], ""),
        (["size", "TINY", "--slo", "received_s.p99 < 5s", "--jobs", "1"], ""),
        (["published", "--case", "5"], ""),
        (["diff-releases", "--scenario", "TINY", "--from", "1.14", "--to", "1.24"], ""),
    ],
    ids=lambda given: given[0] if given else "",
)
def test_no_figure_is_drawn_from_a_run_that_ctrl_c_cut_short(capsys, monkeypatch, tmp_path, arguments, shown):
    """What shows a run itself says that it was cut short; what reckons with it has nothing to say."""
    (tmp_path / "tiny.yaml").write_text(TINY)
    tell, told = Simulation._tell, []

    def interrupted(self: Simulation, share: float) -> None:
        told.append(share)
        if share > 0.5:
            raise KeyboardInterrupt
        tell(self, share)

    monkeypatch.setattr(Simulation, "_tell", interrupted)
    code, printed, said = run(capsys, *(str(tmp_path / "tiny.yaml") if a == "TINY" else a for a in arguments))
    assert (code, "interrupted" in said) == (130, True)
    assert told.count(max(told)) == 1, "nothing else is begun"
    assert shown in printed if shown else not printed


def test_a_knob_that_is_wrong_is_told_with_its_scenario(capsys, tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY + "istiod: {env: {PILOT_DEBOUNCE_AFTER: 1}}\n")
    code, _, said = run(capsys, "simulate", str(tmp_path / "tiny.yaml"), "--jobs", "1")
    assert (code, said) == (
        2,
        f"pushsim: {tmp_path}/tiny.yaml: istiod.env.PILOT_DEBOUNCE_AFTER: '1' is not valid (add the unit: 1s)\n",
    )


def test_a_folder_that_cannot_be_made_is_told_before_anything_is_run(capsys, monkeypatch, tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    monkeypatch.setattr(Simulation, "run", None)
    code, _, said = run(capsys, "simulate", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path / "tiny.yaml" / "out"))
    assert (code, "tiny.yaml/out: cannot be written" in said) == (3, True)


@pytest.mark.parametrize("verb", ["simulate", "compare"])
def test_what_reading_a_scenarios_manifests_has_to_say_is_said_once(capsys, tmp_path, verb):
    """Gateway API is not modelled: figures are too low, whoever asks for them."""
    (tmp_path / "tiny.yaml").write_text(TINY.replace("{generate", "{manifests: [mesh.yaml], generate"))
    (tmp_path / "mesh.yaml").write_text(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: g, namespace: a}\n"
    )
    code, _, said = run(capsys, verb, str(tmp_path / "tiny.yaml"), "--jobs", "1")
    assert (code, said.count("pushes are under-predicted")) == (0, 1)


MESH = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.0.0.9, selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: shop, labels: {app: web}}
spec: {containers: [{name: istio-proxy, image: proxyv2}]}
status: {phase: Running, podIP: 10.0.0.1, conditions: [{type: Ready, status: "True"}]}
"""
QUIET = "mesh: {manifests: [mesh.yaml]}\nduration: 1s\nwarmup: 1s\nvariants: {unscoped: [], scoped: [namespace]}\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mesh.yaml").write_text(MESH)
    Path("quiet.yaml").write_text(QUIET)
    Path("load.yaml").write_text("namespaces: [{name: shop, applications: [{name: web, type: sidecar}]}]\n")
    Path("loaded.yaml").write_text(QUIET.replace("mesh.yaml", "load.yaml"))
    Path("none.csv").write_text("source,destination\n")
    Path("odd.json").write_text('{"variants": {"unscoped": {"bytes_sent": "many"}, "scoped": {"bytes_sent": 1}}}')
    Path("calls.csv").write_text("source,destination\nweb,shop/web\n")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plan", "mesh.yaml", "--inject", "al"], "Invalid value for '--inject': 'al' is not one of"),
        (["plan", "mesh.yaml", "-d", "Service/shop/web", "-r", "v1.24.3"], "is not known (did you mean 1.24.3? "),
        (["plan", "mesh.yaml", "-d", "Service/shop/web", "-r", "1.12"], "is not known (known: 1.13, "),
        (["simulate", "mesh.yaml"], "mesh.yaml: is a manifest, and no scenario (give a file that holds `mesh: "),
        (["check", "mesh.yaml"], "mesh.yaml: is a manifest, and no scenario"),
        (["simulate", "quiet.yaml", "--variant", "scopd"], "--variant: there is no policy, variant or file 'scopd'"),
        (["recommend", "mesh.yaml", "--calls", "calls.csv"], "source: 'web' is no service (did you mean shop/web?)"),
        (["recommend", "mesh.yaml"], "--calls: no calls to go by (give a CSV of source,destination,rate"),
        (["plan", "quiet.yaml", "-d", "Service/shop/web"], "quiet.yaml, document 1: is a scenario, and no manifest"),
        (["simulate", "."], "and `churn: [{source: rollout, rate: 40/h}]`, or ask `pushsim plan` about a change"),
        (["diff-releases", "--scenario", "quiet.yaml", "--from", "1.24", "--to", "1.24.6"],
         "1.24 and 1.24.6 are one release, 1.24.6 (give two)"),
        (["recommend", "mesh.yaml", "--calls", "none.csv"], "none.csv: holds no calls (watch for longer)"),
        (["churn", "--prometheus", "mesh.yaml", "--window", "5"], "--window: '5' is not a duration (add the unit: 5s)"),
        (["plan", "", "-d", "Service/shop/web"], "plan: is empty (is a shell variable unset? `.` is this folder)"),
        (["simulate", "quiet.yaml", "--out", ""], "--out: is empty (is a shell variable unset?"),
        (["simulate", "quiet.yaml", "--out="], "--out: is empty (is a shell variable unset?"),
        (["simulate", "-"], "a scenario must be a file, or the name of a bundled one (/dev/stdin is"),
        (["compare", "quiet.yaml", "--policy", "scoped+"], "--policy: a policy has no name (join names with +"),
        (["compare", "quiet.yaml", "--price-per-gb", "inf"], "price_per_gb must be 0 or more, not inf"),
        (["compare", "quiet.yaml", "--baseline", "odd.json", "--fail-on", "increase(bytes_sent) > 1%"],
         "--fail-on: the baseline has no number 'bytes_sent' of unscoped (write the baseline anew)"),
        (["sweep", "quiet.yaml", "--vary", "cpus=1", "--delay", "received_s.p98"],
         "--delay: there is no figure 'received_s.p98' (did you mean received_s.p99?)"),
        (["sweep", "quiet.yaml", "--vary", "cpus=1", "--scheduler", "here"], "--scheduler: 'here' is no address"),
        (["churn", "quiet.yaml"], "quiet.yaml: churn: has no churn to attribute (write ["),
        (["plan", "mesh.yaml", "-d", "Service/shop/web", "--explain", "web-1.shop"],
         "--explain: there is no proxy 'web-1.shop' (did you mean web-0.shop?)"),
        (["plan", "load.yaml", "-d", "Service/shop/web"], "load.yaml, document 1: is a cluster file of pilot-load, and "
         "no manifest (make a scenario of it: `pushsim import pilot-load FILE --to scenario.yaml`)"),
        (["plan", "mesh.yaml", "-c", "load.yaml"], "load.yaml, document 1: is a cluster file of pilot-load, and no "),
        (["check", "load.yaml"], "load.yaml: is a cluster file of pilot-load, and no scenario (make a scenario of it"),
        (["check", "loaded.yaml"], "load.yaml, document 1: is a cluster file of pilot-load, and no manifest"),
        (["simulate", "load.yaml"], "load.yaml: is a cluster file of pilot-load, and no scenario"),
        (["plan", "mesh.yaml"], "no change given (add --change FILE or --delete KIND/NAMESPACE/NAME)"),
        (["plan", "mesh.yaml", "-d", "Service"], "--delete: 'Service' is not [group/]Kind/[namespace/]name"),
        (["compare", "quiet.yaml", "--fail-on", "increase(unscoped:bytes_sent) > 1%"],
         "--fail-on: unscoped is the first, which increases are taken against (give --baseline, or name another var"),
        (["compare", "quiet.yaml", "--mesh", "old=gone/"], "--mesh old: gone/ is not there (give a folder of manifes"),
        (["size", "quiet.yaml", "--slo", "bytes_sent"], "--slo: 'bytes_sent' is no condition"),
        (["conform", "nowhere"], "nowhere: no such folder (give a folder with cases/NAME.yaml)"),
        (["export", "nowhere", "--to", "x.csv"], "nowhere: is not a result folder"),
    ],
)  # fmt: skip
def test_typical_slips_are_told_with_what_to_do(capsys, here, arguments, said):
    code, _, told = run(capsys, *arguments)
    assert (code, said in told) == (2, True), told


def test_a_sweep_in_which_nothing_is_pushed_is_an_answer_too(capsys, here):
    code, printed, _ = run(capsys, "sweep", "quiet.yaml", "--vary", "cpus=1,2")
    assert (code, "4 runs" in printed) == (0, True)


def test_what_a_folder_still_holds_of_an_earlier_run_is_told(capsys, here):
    assert run(capsys, "simulate", "quiet.yaml", "--out", "kept")[0] == 0
    code, _, told = run(capsys, "simulate", "quiet.yaml", "--out", "kept", "--variant", "unscoped")
    assert (code, "kept still holds other variants of an earlier run: scoped" in told) == (0, True)


def test_what_cannot_be_written_is_told_with_a_remedy(capsys, here):
    assert run(capsys, "simulate", "quiet.yaml", "--out", "kept")[0] == 0
    code, _, told = run(capsys, "export", "kept", "--to", "mesh.yaml/x.csv")
    assert (code == 3 and "(give a folder)" in told) or "give a folder" in told


@pytest.mark.parametrize(
    ("arguments", "read"),
    [
        (["compare", "quiet.yaml", "--json"], lambda found: found["variants"]["scoped"]["bytes_sent"] == 0),
        (
            ["check", "quiet.yaml", "--json"],
            lambda found: found["files"]["quiet.yaml"]["problems"] == [],
        ),
        (["scenarios", "--json"], lambda found: found["aisuite"].startswith("What did")),
        (["policies", "--json"], lambda found: "also" in found["namespace"]["parameters"]),
    ],
)
def test_scripts_read_json_from_every_verb_that_answers(capsys, here, arguments, read):
    code, printed, _ = run(capsys, *arguments)
    assert (code, bool(read(json.loads(printed)))) == (0, True)


def test_a_script_reads_what_check_has_to_say(capsys, here):
    Path("wrong.yaml").write_text(QUIET.replace("duration", "duraton"))
    code, printed, told = run(capsys, "check", "quiet.yaml", "wrong.yaml", "--json")
    (problem,) = json.loads(printed)["files"]["wrong.yaml"]["problems"]
    assert (code, problem["field"], problem["remedy"]) == (2, "duraton", "did you mean duration?")
    assert "duraton" in told


def test_standard_input_is_read_once(capsys, here, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(MESH.encode())))
    code, _, said = run(capsys, "plan", "-", "--change", "-")
    assert (code, "-: standard input was read already (give - once" in said) == (2, True), said


def test_a_variant_given_twice_is_run_once(capsys, here):
    code, printed, _ = run(capsys, "simulate", "quiet.yaml", "--variant", "scoped", "--variant", "scoped", "--json")
    assert (code, list(json.loads(printed)["variants"])) == (0, ["scoped"])


def test_a_scenario_may_come_from_what_is_no_file(capsys, here):
    os.mkfifo("pipe")
    writer = threading.Thread(target=lambda: Path("pipe").write_text(QUIET))
    writer.start()
    code, _, said = run(capsys, "check", "pipe")
    writer.join()
    assert code == 0, said


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("", "nothing changes: the scenario has no churn and no changes (write churn: "),
        ("churn: [{source: rollout, rate: 1/s}]\nmesh: {generate: {namespaces: 0, apps: []}}\n", "no proxy connects: "),
        ("istiod: {release: '1.31'}\n", "istiod.release: release 1.31.0-rc.0 is not checked against recordings"),
    ],
)
def test_what_makes_figures_zero_or_uncertain_is_told(capsys, tmp_path, more, said):
    mesh = "" if "mesh:" in more else "mesh: {generate: {namespaces: 1, apps: [{name: web}]}}\n"
    (tmp_path / "s.yaml").write_text(f"{mesh}{more}duration: 1s\n")
    code, printed, told = run(capsys, "simulate", str(tmp_path / "s.yaml"))
    assert code == 0
    assert " ".join(said.split()) in " ".join((printed + told).split())


def test_help_says_what_the_default_release_is_worth():
    told = get_args(Release)[1].help
    newest = releases.rules(releases.NEWEST).release
    assert newest not in releases.RECORDED
    assert f"[default: {releases.NEWEST}, a candidate without recordings; 1.30 has them]" in told
    assert releases.rules("1.30").release in releases.RECORDED


def test_help_names_one_default(capsys):
    for verb in ("simulate", "replay"):
        _, text, _ = run(capsys, verb, "--help")
        assert "[default: 0; x>=0]" not in text


def test_assumptions_that_a_scenario_does_not_state_are_no_empty_table(capsys, here):
    code, printed, said = run(capsys, "simulate", "quiet.yaml", "--assumptions")
    assert (code, "states no `assumptions`" in said, "assumption" in printed) == (0, True, False)


def test_a_baseline_that_nothing_is_taken_against_is_told(capsys, here):
    Path("base.json").write_text('{"variants": {"unscoped": {}, "scoped": {}}}')
    code, _, said = run(capsys, "compare", "quiet.yaml", "--baseline", "base.json")
    assert (code, "--baseline is for --fail-on 'increase(…) > N%', and there is none" in said) == (0, True)


def test_what_churn_causes_is_told_in_full_on_a_narrow_terminal(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "tiny.yaml").write_text(TINY)
    code, printed, _ = run(capsys, "churn", str(tmp_path / "tiny.yaml"), "--jobs", "1")
    assert (code, "…" in printed, "without it" in printed) == (0, False, True)


def test_bars_say_what_is_being_built(monkeypatch, capsys):
    monkeypatch.setattr(Console, "is_terminal", True)
    monkeypatch.setenv("COLUMNS", "120")
    with bars(["one", "other"], quiet=False) as tell:
        tell("one", 0.0)
        time.sleep(0.3)  # the bars are drawn a few times a second
        built = capsys.readouterr().err
        tell("one", 0.5)
    assert "builds the mesh and its configuration" in built
    assert "waits" in built


def broken_while_handled(number: int) -> None:
    try:
        signal.raise_signal(number)
    except KeyboardInterrupt:
        raise RuntimeError("no compiled object yet") from None


def broken_by_what_was_kept(number: int) -> None:
    kept: BaseException | None = None
    try:
        signal.raise_signal(number)
    except KeyboardInterrupt as error:
        kept = error
    raise EnvironmentProblem("the istiod has gone") from kept


def broken_without_a_word(number: int) -> None:
    """An interrupt in a callback from C goes to sys.unraisablehook, and the caller is none the wiser."""
    ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(number))()
    raise RuntimeError("no compiled object yet")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("broken", [broken_while_handled, broken_by_what_was_kept, broken_without_a_word])
def test_what_breaks_because_it_was_interrupted_is_no_defect(capsys, here, monkeypatch, number, broken):
    """numba leaves a library without its object when Ctrl-C comes while it compiles, as in a first large run."""
    monkeypatch.setattr(Simulation, "run", lambda self: broken(number))
    code, printed, said = run(capsys, "simulate", "quiet.yaml", "--jobs", "1", "--variant", "scoped")
    assert (code, printed, said) == (130, "", "pushsim: interrupted\n")
