"""The library as a notebook has it: public names, tables, what a result looks like."""

from __future__ import annotations

import ast
import doctest
import inspect
import pydoc
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import pushsim as ps
from pushsim import diff, figures, publication, result, verbs
from pushsim.cli.app import app
from pushsim.cli.imports import imports
from pushsim.manifests import parse_objects
from pushsim.mesh import Proxy
from pushsim.sources import caused
from pushsim.tables import COLUMNS, SCHEMAS

SCENARIO = """
# Who pays for <b>whose</b> changes?
mesh:
  generate:
    namespaces: 3
    apps: [{name: web, per_namespace: 2, pods: 2}]
    gateways: {count: 1}
istiod: {cpus: 1}
churn:
- {source: rollout, rate: 2/s}
- {source: services, rate: 1/s, prefix: training}
duration: 6s
warmup: 2s
variants: {unscoped: [], scoped: [namespace]}
"""


POD = """
apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: shop}
spec: {containers: [{name: istio-proxy, image: proxyv2}]}
status: {phase: Running, podIP: 10.0.0.1, conditions: [{type: Ready, status: "True"}]}
"""
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: books, namespace: shop}
spec: {clusterIP: 10.1.0.1, ports: [{name: http, port: 80}]}
"""


@pytest.fixture(scope="module")
def results() -> ps.Results:
    return ps.simulate(ps.Scenario.loads(SCENARIO))


#: How an answer is printed, which a function's caller has in hand.
PRINTING = {"json", "form", "to", "explain", "list_"}
#: What a public function leaves to another public name, and how that calls it.
ELSEWHERE = {
    ("compare", "fail_on"): (ps.Comparison.judge, "fail_on"),
    ("compare", "baseline"): (ps.Comparison.judge, "baseline"),
    ("diff-releases", "scenario"): (ps.diff_scenario, "scenario"),
    ("diff-releases", "variant"): (ps.diff_scenario, "variant"),
    ("sweep", "delay"): (ps.Sweep.recommended, "delay"),
    ("sweep", "cost"): (ps.Sweep.recommended, "cost"),
    ("simulate", "assumptions"): (ps.assumptions, "scenario"),
    ("simulate", "serve"): (ps.serving, "port"),
}
#: What is told once, for all of them.
OBVIOUS = {"scenario", "release", "releases", "mode", "inject", "namespace", "engine", "jobs", "progress", "results"}
NAMES = {"policies": ps.policies.described, "pilot-load": ps.from_pilot_load, "debug": ps.from_debug}
NAMES |= {"cluster": ps.from_cluster}
PLURALS = {"policy": "policies", "mesh": "meshes"}

VERBS = {
    command.name: command.callback
    for group in (app.registered_commands, imports.registered_commands)
    for command in group
    for command.name in [command.name or command.callback.__name__.replace("_", "-")]
}


def parameters(function) -> set[str]:
    return set(inspect.signature(function).parameters)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_a_function_with_the_same_options(verb):
    function = NAMES.get(verb) or getattr(ps, verb.replace("-", "_"))
    assert inspect.isfunction(function)
    for option in parameters(VERBS[verb]) - PRINTING:
        if (verb, option) in ELSEWHERE:
            other, called = ELSEWHERE[verb, option]
            assert called in parameters(other) and option not in parameters(function)
        else:
            plural = PLURALS.get(option, f"{option}s")
            assert {option, plural} & parameters(function), f"{verb} --{option}"


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_function_tells_of_each_parameter(verb):
    function = NAMES.get(verb) or getattr(ps, verb.replace("-", "_"))
    told = pydoc.render_doc(function, renderer=pydoc.plaintext)
    about = inspect.getdoc(function) or ""
    assert about.partition("\n")[0].endswith("."), "a sentence that fits a line"
    for name in parameters(function) - OBVIOUS:
        assert re.search(rf"\b{name}\b", about.partition("\n")[2]), f"{name} of {verb}: {told}"
    for name in parameters(function) & OBVIOUS - {"results", "releases"}:
        assert re.search(rf"\b{name}\b", ps.__doc__)


@pytest.mark.parametrize("module", [ps, figures, result, verbs, publication, diff])
def test_the_examples_in_the_documentation_are_true(module):
    assert doctest.testmod(module).failed == 0


def test_every_public_name_is_there_and_documented():
    for name in ps.__all__:
        assert name in dir(ps)
        assert getattr(ps, name).__doc__
    assert {*ps.__all__} == {*ps._HOMES, "__version__", "plots"}
    with pytest.raises(AttributeError, match="nonesuch"):
        ps.nonesuch  # noqa: B018


def test_a_verb_is_a_function_even_where_a_module_has_its_name():
    code = """if True:
        import pkgutil, importlib, sys, types
        import pushsim as ps
        for found in pkgutil.walk_packages(ps.__path__, "pushsim."):
            if ".scenarios" not in found.name:
                importlib.import_module(found.name)
        namesakes = [name for name in ps.__all__ if f"pushsim.{name}" in sys.modules and name != "plots"]
        assert {"plan", "parity", "recommend", "replay", "compare"} <= set(namesakes), namesakes
        assert all(isinstance(getattr(ps, name), types.FunctionType) for name in namesakes)
        from pushsim.plan import ProxyState
        assert isinstance(ps.verbs, types.ModuleType)
    """
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_plan_reads_what_the_command_line_reads(tmp_path):
    (tmp_path / "mesh.yaml").write_text(POD)
    (tmp_path / "change.yaml").write_text(SERVICE)
    answer = ps.plan(tmp_path / "mesh.yaml", change=tmp_path / "change.yaml", release="1.24")
    assert [proxy.id for group in answer.pushed for proxy in group.proxies] == ["web-0.shop"]
    with pytest.raises(ps.PushsimError, match="no change given"):
        ps.plan(tmp_path / "mesh.yaml")
    with pytest.raises(ps.PushsimError, match="no proxy found"):
        ps.plan(tmp_path / "change.yaml", delete=["Service/shop/books"])


def test_verbs_answer_as_functions():
    scenario = ps.Scenario.loads(SCENARIO).replaced({"duration": "2s"})
    compared = ps.compare(scenario, ["unscoped", "scoped"])
    assert [column.name for column in compared.columns] == ["unscoped", "scoped"]
    assert ps.recommend(scenario).objects
    assert ps.size(scenario, ["converged_s.p99 < 30s"], ["scoped"], max_replicas=1, max_cpus=2)["scoped"].met


def test_the_package_alone_imports_nothing_heavy():
    code = "import sys, pushsim, pushsim.cli.app; print(*{n.split('.')[0] for n in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "pandas", "pyarrow", "matplotlib", "networkx", "pydantic", "numba"} & set(loaded)


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_table_has_the_columns_that_are_documented(results, name):
    frame = results.frame(name)
    documented = [column for column in COLUMNS[name] if column in SCHEMAS[name].names]
    assert list(frame) == ["variant", *documented]
    assert set(frame["variant"]) == set(results)
    assert getattr(results, name).equals(frame)


def test_tables_add_up_to_the_summary(results):
    for name, one in results.items():
        pushes, size = one["proxy_pushes"], one["bytes_sent"]
        assert one.timeline["changes"].sum() == one["changes"]
        assert one.timeline["merged_pushes"].sum() == one["merged_pushes"]
        assert one.timeline["bytes_sent"].sum() == pytest.approx(size)
        assert one.timeline["responses"].sum() == pytest.approx(sum(one["responses"].values()))
        assert one.timeline["istiod_cpu_cores"].mean() == pytest.approx(one["istiod_cpu_cores.mean"], rel=0.2)
        assert one.timeline["changes_on_their_way"].iloc[-1] == 0, name
        assert one.timeline["changes_on_their_way"].min() >= 0
        assert one.proxies["proxy_pushes"].sum() == pushes
        assert one.proxies["bytes_sent"].sum() == size
        assert one.proxies["proxies"].sum() > 13  # with those that rollouts bring
        for table in (one.churn, one.services, one.fan_out):
            assert table["proxy_pushes"].sum() == pytest.approx(pushes)
        for source, part in one.summary["churn"].items():
            row = one.churn.set_index("source").loc[source]
            assert (row["changes"], round(row["proxy_pushes"])) == (part["changes"], part["proxy_pushes"])


def test_the_dearest_service_comes_first_and_slices_count_as_their_service(results):
    services = results["unscoped"].services
    assert services["bytes_sent"].is_monotonic_decreasing
    assert "EndpointSlice" not in set(services["kind"])
    assert services["name"].str.startswith("training").any()


def test_scoping_keeps_pushes_at_home(results):
    frame = results.fan_out
    sidecars = frame[frame["to_namespace"] != "istio-system"]
    abroad = sidecars[sidecars["from_namespace"] != sidecars["to_namespace"]].groupby("variant")["proxy_pushes"].sum()
    assert abroad["unscoped"] > 0
    assert "scoped" not in abroad


def test_the_summary_is_one_figure_a_row(results):
    summary = results.summary.set_index(["variant", "metric"])
    row = summary.loc["unscoped", "istiod_cpu_cores.mean"]
    assert row["unit"] == "cores"
    assert row["low"] < row["value"] < row["high"]
    assert summary.loc["unscoped", "bytes_sent"]["value"] == results["unscoped"]["bytes_sent"]
    assert not [metric for _, metric in summary.index if metric.startswith(("bounds", "histograms"))]


def test_a_result_shows_where_it_comes_from_and_its_main_figures(results):
    for text in (repr(results), results._repr_html_()):
        assert "Istio 1.24" in text
        assert "seed 1" in text
        assert "unscoped" in text
        assert "converged P99" in text
    assert "<b>whose</b>" not in results._repr_html_()
    assert "&lt;b&gt;whose" in results._repr_html_()
    assert "scoped" in repr(results["scoped"])


def test_what_is_saved_is_loaded_with_its_tables(results, tmp_path):
    results.save(tmp_path)
    back = ps.load(tmp_path)
    assert list(back) == list(results)
    assert back.question == results.question
    for name in SCHEMAS:
        assert back["scoped"].table(name).equals(results["scoped"].table(name)), name
    assert back["scoped"].frame("rows", ["xds", "size_bytes"]).shape[1] == 2
    twice = ps.load(tmp_path, tmp_path / "scoped")
    assert len(twice) == 3


def test_totals_need_only_the_columns_they_sum(results, tmp_path):
    results.save(tmp_path)
    one = ps.load(tmp_path)["unscoped"]
    totals = one.totals("xds").set_index("xds")
    assert totals["responses"].to_dict() == {k: v for k, v in one["responses"].items() if v}
    assert totals["bytes_sent"].sum() == one["bytes_sent"]


def test_an_unknown_table_is_told_with_the_nearest(results):
    with pytest.raises(ps.PushsimError, match="timeline"):
        results["scoped"].frame("timelin")


def test_the_notebooks_extra_is_enough_for_plots() -> None:
    """What only other extras bring (replay, webhook, cluster, distributed) is not there after `pushsim[notebooks]`."""
    others = ("aiohttp", "hpack", "psutil", "uvloop", "jsonpatch", "lightkube", "distributed", "trustme", "hypothesis")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({others!r})); import pushsim as ps; print(ps.plots.before_after)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr


def test_a_result_says_which_mode_its_release_was_taken_to_use():
    text = "mesh: {generate: {apps: [{name: a}]}}\nduration: 1s\nvariants: {own: [], asked: [{knobs: {mode: sotw}}]}\n"
    modes = {}
    for release in ("1.20", "1.24"):
        told = ps.simulate(ps.Scenario.loads(f"{text}istiod: {{release: '{release}'}}\n"))
        modes[release] = [result.identity["mode"] for result in told.values()]
    assert modes == {"1.20": ["sotw", "sotw"], "1.24": ["delta", "sotw"]}


def test_the_table_of_proxies_has_their_memory_as_the_summary_has():
    text = "mesh: {generate: {apps: [{name: a}, {name: b}]}}\nduration: 1s\n"
    told = ps.simulate(ps.Scenario.loads(text))["as-is"]
    (known,) = set(told.proxies["memory_bytes"])
    assert known == told["sidecar_memory_bytes.mean"] == told["sidecar_memory_bytes.max"]


def small() -> ps.Scenario:
    return ps.Scenario.loads(SCENARIO).replaced({"duration": "1s"})


class _Alien:
    """Nothing that any function takes."""


OF_RESULTS = [
    ps.plots.before_after, ps.plots.memory, ps.plots.cdf, ps.plots.fan_out, ps.plots.timeline, ps.plots.pareto,
    ps.plots.parity, ps.plots.parity_details, lambda it: ps.plots.sweep_curve(it, "cpus"),
    lambda it: ps.plots.call_graph(it, it), lambda it: ps.report(it, "x.html"), lambda it: ps.export(it, "x.csv"),
]  # fmt: skip
OF_SCENARIOS = [
    ps.simulate, ps.compare, ps.churn, ps.assumptions, lambda it: ps.size(it, []),
    lambda it: ps.sweep(it, {}), lambda it: ps.diff_scenario(it, "1.20", "1.24"), lambda it: ps.replay(it, "istiod"),
    lambda it: ps.parity(it, "istiod"), ps.Scenario.load, ps.Scenario.loads,
]  # fmt: skip
OF_PATHS = [
    ps.plan, ps.load, ps.recommend, ps.from_debug, ps.from_pilot_load, ps.conform, ps.calibrate,
    lambda it: ps.plan(ps.Mesh(), change=it), lambda it: ps.plan(ps.Mesh(), delete=it),
    lambda it: ps.diff_releases(it, it, "1.20", "1.24"), lambda it: ps.inspect(ps.Mesh(), it),
    lambda it: ps.recommend(ps.Mesh(), it), lambda it: ps.record(it, istiod_binary="istiod", out="x"),
    lambda it: ps.simulate(small(), it), lambda it: ps.compare(small(), it),
    lambda it: ps.size(small(), it), lambda it: ps.sweep(small(), it),
]  # fmt: skip


GIVEN = {"3": 3, "None": None, "dict": {"a": 1}, "list": [1], "class": _Alien, "object": _Alien()}


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
@pytest.mark.parametrize("function", [*OF_RESULTS, *OF_SCENARIOS, *OF_PATHS])
def test_what_a_function_cannot_take_is_told(function, given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if (function is ps.calibrate and given is None) or (function is ps.churn and given is None):
        return  # what is left out
    try:
        function(given)
    except ps.PushsimError as error:
        assert error.exit_code in (2, 3) and str(error)
    else:
        assert given is None, "None may mean all of them"


@pytest.mark.parametrize("release", [1.24, None, ["1.24"]])
def test_a_release_is_a_text(release):
    with pytest.raises(ps.PushsimError, match=r'a release must be a text, not .*\(write it in quotes: "1.24"\)'):
        ps.plan(ps.Mesh(), change=ps.Change(), release=release)


def test_one_text_may_be_given_for_a_list_of_them():
    scenario = small()
    assert list(ps.simulate(scenario, "scoped")) == ["scoped"]
    assert [column.name for column in ps.compare(scenario, "scoped").columns] == ["scoped"]
    assert list(ps.size(scenario, "converged_s.p99 < 30s", "scoped", max_replicas=1, max_cpus=1)) == ["scoped"]
    assert len(ps.sweep(scenario, "cpus=1").frame) == len(ps.sweep(scenario, {"cpus": "1", "policy": "none"}).frame) * 2


def test_pictures_are_drawn_of_one_result_too(results):
    one = ps.plots.before_after(results["scoped"])
    assert one.about == ps.plots.before_after({"scoped": results["scoped"]}).about != ""
    with pytest.raises(ps.PushsimError, match=r"no figure 'converged_s.p95' \(did you mean converged_s.p9"):
        ps.plots.before_after(results, ["converged_s.p95"])
    with pytest.raises(ps.PushsimError, match="value must not be 'bytes'"):
        ps.plots.fan_out(results, "bytes")
    with pytest.raises(ps.PushsimError, match="value must not be 'pushes'"):
        ps.plots.call_graph(None, results["scoped"], "pushes")
    with pytest.raises(ps.PushsimError, match="result must be one Result, not Results"):
        ps.plots.call_graph(None, results)


def test_assumptions_and_two_releases_are_asked_of_a_scenario_by_its_name(tmp_path):
    assert ps.assumptions("aisuite-small") == []
    (tmp_path / "small.yaml").write_text(SCENARIO)
    assert set(ps.diff_scenario(tmp_path / "small.yaml", "1.24", "1.24.1").results) == {"1.24", "1.24.1"}


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (
            lambda: ps.plan(ps.Mesh(), change=ps.Change(), mode="SOTW"),
            r"mode must not be 'SOTW' \(did you mean sotw",
        ),
        (lambda: ps.diff_releases(ps.Mesh(), ps.Change(), "1.20", "1.24", mode="state"), "mode must not be 'state'"),
        (lambda: ps.simulate(small(), engine="fast"), r"engine must not be 'fast' \(known: auto, simpy, kernel\)"),
        (lambda: ps.compare(small(), engine="numba"), "engine must not be"),
        (lambda: ps.sweep(small(), "cpus=1", engine="numba"), "engine must not be"),
        (lambda: ps.simulate(small(), detail="proxies"), r"detail must not be 'proxies' \(did you mean proxy\?\)"),
        (lambda: ps.recommend(small(), per="pod"), r"per must not be 'pod' \(known: namespace, workload\)"),
        (lambda: ps.compare(small(), seeds=0), "seeds must be 1 or more, not 0"),
        (lambda: ps.sweep(small(), "cpus=1", seeds=0), "seeds must be 1 or more"),
        (lambda: ps.size(small(), "bytes_sent < 1", seeds="x"), "seeds must be a whole number, not str 'x'"),
    ],
)
def test_a_choice_that_there_is_not_is_told_and_not_taken_for_another(ask, said):
    with pytest.raises(ps.PushsimError, match=said):
        ask()


def test_pods_are_injected_in_no_other_way_than_those_there_are(tmp_path):
    (tmp_path / "mesh.yaml").write_text(POD)
    with pytest.raises(ps.PushsimError, match=r"inject must not be 'al' \(did you mean all\?\)"):
        ps.plan(tmp_path / "mesh.yaml", delete="Pod/shop/web-0", inject="al")


def test_what_a_notebook_shows_of_an_answer_fits_its_cell(tmp_path):
    scenario = small()
    compared = ps.compare(scenario)
    service = ps.Change(parse_objects(yaml.safe_load_all(SERVICE)))
    answer = ps.plan(scenario.mesh, change=service, release="1.24")
    for shown in map(repr, (scenario, scenario.mesh, compared, ps.recommend(scenario), answer)):
        assert 0 < len(shown) < 2000 and "Ref(" not in shown, shown
    assert repr(answer).splitlines()[0] == "Istio 1.24.6, delta: "
    assert "variants unscoped, scoped" in repr(scenario)
    frame = compared.figures
    sent = frame[(frame["column"] == "scoped") & (frame["metric"] == "bytes_sent")].iloc[0]
    assert sent["value"] == sent["low"] == compared.summaries()["scoped"]["bytes_sent"] and sent["unit"] == "B"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda s: ps.simulate(s, jobs="2"), "jobs must be a whole number, not str '2'"),
        (lambda s: ps.simulate(s, jobs=0), "jobs must be 1 or more, not 0"),
        (lambda s: ps.simulate(s, progress=5), "progress must be a function"),
        (lambda s: ps.simulate(s, out=5), "out must be a path, not int 5"),
        (lambda s: ps.simulate(s, out=""), 'out must not be empty (give a path; "." is this folder)'),
        (lambda s: s.replaced("duration"), "values must be a mapping, not str 'duration' (write {"),
        (lambda s: ps.compare(s, price_per_gb=float("nan")), "price_per_gb must be 0 or more, not nan"),
        (lambda s: ps.compare(s, price_per_gb="x"), "price_per_gb must be a number, not str 'x'"),
        (lambda s: ps.compare(s, meshes=["a"]), "meshes must be folders by name, not list"),
        (lambda s: ps.size(s, "converged_s.p99"), "slo: 'converged_s.p99' is no condition"),
        (lambda s: ps.size(s, []), "slo: no promise to keep"),
        (lambda s: ps.compare(s).judge("bytes_sent"), "fail_on: 'bytes_sent' is no condition"),
        (
            lambda s: ps.compare(s).judge("increase(unscoped:bytes_sent) > 1%"),
            "(give baseline, or name another",
        ),
        (lambda s: ps.compare(s, "bogus"), "policy: there is no policy, variant or file 'bogus' (known: "),
        (lambda s: ps.compare(s, meshes={"old": "gone/"}), "mesh old: gone/ is not there (give a folder of manifests)"),
        (lambda s: ps.sweep(s, "cpus"), "vary: 'cpus' varies nothing (write NAME=a,b,c or"),
        (lambda s: ps.plan(s.mesh), "no change given (add change=FILE or delete=KIND/NAMESPACE/NAME)"),
        (lambda s: ps.plan(s.mesh, delete="Service"), "delete: 'Service' is not [group/]Kind/"),
        (lambda s: ps.recommend(s.mesh), "calls: no calls to go by (give a CSV"),
        (lambda s: ps.recommend(s, watched="5"), "watched: '5' is not a duration"),
        (
            lambda s: ps.replay(s, istiod="127.0.0.1:15010"),
            "istiod: is it to be watched or written to? (give observe ",
        ),
        (lambda s: ps.load("gone"), "(make one with `pushsim simulate --out DIR`)"),
        (lambda s: ps.load(), "no result folder given (give a folder that `pushsim simulate --out DIR` wrote)"),
        (
            lambda s: ps.size(s, "bytes_sent < 1", min_replicas=5, max_replicas=2),
            "max_replicas must be 5 to 1000, not 2",
        ),
        (lambda s: ps.compare(s, seeds=10**9), "seeds must be 100,000 at most, not 1,000,000,000"),
        (lambda s: ps.sweep(s, "replicas=1..1000000000"), "'1..1000000000' is 1,000,000,000 values (give fewer: 100"),
        (lambda s: ps.sweep(s, "cpus=1..1000", seeds=1000), "would be 2,000,000 runs (give fewer: 100,000 at most"),
        (lambda s: ps.size(s, "bytes_sent < 1", max_replicas=10**9), "max_replicas must be 1 to 1000, not 1e+09"),
        (lambda s: ps.size(s, "bytes_sent < 1", risk=2), "risk must be 1e-09 to 0.5, not 2"),
        (lambda s: ps.size(s, "bytes_sent < 1", max_cpus=0), "max_cpus must be 0.1 or more, not 0"),
        (lambda s: ps.sweep(s, "replicas=1", jobs=0), "jobs must be 1 or more, not 0"),
        (lambda s: ps.published("1"), "a case must be a number, not str '1'"),
        (lambda s: ps.plan("mesh.yaml", delete="Service/a", namespace=5), "namespace must be a text, not int 5"),
        (lambda s: ps.plan([""], delete="Service/a"), "mesh must not be empty"),
        (lambda s: ps.plots.before_after(ps.Results({}), []), "metrics must not be empty"),
    ],
)
def test_what_a_function_cannot_take_is_told_by_its_parameter(call, said):
    with pytest.raises(ps.PushsimError) as error:
        call(ps.Scenario.loads(SCENARIO))
    assert said in str(error.value)


def options_told() -> set[str]:
    """The options that problems name where a function may be told of them, as its keywords."""
    told = set()
    for path in Path(ps.__file__).parent.rglob("*.py"):
        if path.parent.name != "cli":
            for node in ast.walk(ast.parse(path.read_text())):
                raised = isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Problem", "wrong", "no_proxy")
                remedy = isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "remedy"
                if raised or remedy:
                    told |= set(re.findall(r"(?<![\w-])--([a-z-]+)", re.sub("`[^`]*`", "", ast.unparse(node))))
    return {option.replace("-", "_") for option in told}


def test_what_is_told_of_an_option_is_told_of_a_parameter_that_there_is():
    verbs_ = [getattr(ps, name) for name in ps.__all__ if inspect.isfunction(getattr(ps, name))]
    parameters = {name for verb in [*verbs_, ps.Comparison.judge] for name in inspect.signature(verb).parameters}
    several = {"policy": "policies", "mesh": "meshes", "tolerance": "tolerances", "case": "cases"}
    only_typed = {"serve"}  # a function is given the port itself
    assert len(told := options_told()) > 20
    assert not {name for name in told - only_typed if several.get(name, name) not in parameters}


def test_a_proxy_there_is_not_is_told_with_those_there_are():
    mesh = ps.Mesh({}, (Proxy("web-0", "shop", "10.1.0.1"),))
    answer = ps.plan(mesh, change=ps.Change(parse_objects([yaml.safe_load(SERVICE)])), release="1.24")
    with pytest.raises(KeyError) as error:
        answer.explain("web-1.shop")
    assert str(error.value) == "there is no proxy 'web-1.shop' (did you mean web-0.shop?)"


def test_a_run_says_that_it_begins_to_be_built():
    told = []
    ps.simulate(ps.Scenario.loads(SCENARIO), ["scoped"], progress=lambda name, share: told.append((name, share)))
    assert told[0] == ("scoped", 0.0)
    told.clear()
    caused(ps.Scenario.loads(SCENARIO), progress=lambda name, share: told.append(name))
    assert list(dict.fromkeys(told)) == ["with all sources", "without rollout", "without services"]


def test_a_picture_is_kept_in_a_path(results):
    with pytest.raises(ps.PushsimError, match="path must be a path, not int 5"):
        ps.plots.memory(results).save(5)
