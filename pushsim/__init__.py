'''Predicts what an Istio configuration change or scoping policy costs to push; proves itself against a real istiod.

Every verb of the command line is a function here, with the same options. Nothing heavy is imported before it is used.

>>> import pushsim as ps
>>> scenario = ps.Scenario.loads("""
... # What does a rollout in one of two namespaces cost?
... mesh: {generate: {namespaces: 2, apps: [{name: web, pods: 2}]}}
... churn: [{source: rollout, rate: 1/s}]
... duration: 3s
... variants: {unscoped: [], scoped: [namespace]}
... """)
>>> r = ps.simulate(scenario)
>>> list(r)
['unscoped', 'scoped']
>>> r["scoped"]["bytes_sent"] < r["unscoped"]["bytes_sent"]
True
>>> r.timeline[["variant", "second_s", "changes"]].columns.to_list()
['variant', 'second_s', 'changes']

`r.summary`, `r.rows`, `r.timeline`, `r.churn`, `r.services`, `r.proxies` and `r.fan_out` are DataFrames, one
observation a row; `ps.COLUMNS` says what each column means, with its unit. `ps.plots.before_after(r)` and its like
draw them.

What means the same for every function:
    scenario:  a loaded `Scenario`, a file, or the name of a bundled one (`scenarios`).
    release:   an Istio release, minor or patch; default: the newest, a candidate without recordings (`Preview.proven`).
    mode:      "sotw" or "delta"; default: what that release's agent uses.
    inject:    which pods have a proxy: "all", "labelled" as Istio's webhook would, "detect" these and any that have.
    namespace: of objects that name none.
    engine:    "simpy", "kernel" (compiled) or "auto", the faster. Both give the same bytes.
    jobs:      runs at once, each in a process of its own.
    progress:  called now and then with what is done; what it raises ends the work.
'''

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

#: Where each public name lives.
_HOMES = {
    "COLUMNS": "pushsim.tables",
    "Change": "pushsim.mesh",
    "Mesh": "pushsim.mesh",
    "Preview": "pushsim.preview",
    "PushsimError": "pushsim.errors",
    "Result": "pushsim.result",
    "Results": "pushsim.result",
    "Scenario": "pushsim.scenario",
    "Comparison": "pushsim.compare",
    "Recommendation": "pushsim.recommend",
    "Live": "pushsim.live",
    "assumptions": "pushsim.publication",
    "check": "pushsim.scenario",
    "conform": "pushsim.conformance",
    "diff_scenario": "pushsim.diff",
    "export": "pushsim.exports",
    "load": "pushsim.result",
    "Sweep": "pushsim.sweeps",
    "report": "pushsim.reports",
    "scenarios": "pushsim.scenario",
    "serving": "pushsim.live",
    "schema": "pushsim.scenario",
    "simulate": "pushsim.runs",
    "sweep": "pushsim.sweeps",
    **dict.fromkeys(
        ("churn", "compare", "diff_releases", "inspect", "plan", "recommend", "size"),
        "pushsim.verbs",
    ),
    **dict.fromkeys(("calibrate", "parity", "record", "replay"), "pushsim.proving"),
    "doctor": "pushsim.doctor",
    "published": "pushsim.published",
    "webhook": "pushsim.webhook",
    "from_cluster": "pushsim.cluster",
    "from_debug": "pushsim.importers",
    "from_pilot_load": "pushsim.importers",
}
#: Names that are others at home.
_AT_HOME = {
    "conform": "run_folder",
    "from_cluster": "read",
    "load": "load_all",
    "policies": "described",
    "scenarios": "bundled",
}

if TYPE_CHECKING:
    from pushsim import plots
    from pushsim import policies as policies
    from pushsim.cluster import read as from_cluster
    from pushsim.compare import Comparison
    from pushsim.conformance import run_folder as conform
    from pushsim.diff import diff_scenario
    from pushsim.doctor import doctor
    from pushsim.errors import PushsimError
    from pushsim.exports import export
    from pushsim.importers import from_debug, from_pilot_load
    from pushsim.live import Live, serving
    from pushsim.mesh import Change, Mesh
    from pushsim.preview import Preview
    from pushsim.proving import calibrate, parity, record, replay
    from pushsim.publication import assumptions
    from pushsim.published import published
    from pushsim.recommend import Recommendation
    from pushsim.reports import report
    from pushsim.result import Result, Results
    from pushsim.result import load_all as load
    from pushsim.runs import simulate
    from pushsim.scenario import Scenario, check, schema
    from pushsim.scenario import bundled as scenarios
    from pushsim.sweeps import Sweep, sweep
    from pushsim.tables import COLUMNS
    from pushsim.verbs import churn, compare, diff_releases, inspect, plan, recommend, size
    from pushsim.webhook import webhook

__all__ = [
    "COLUMNS",
    "Change",
    "Comparison",
    "Live",
    "Mesh",
    "Preview",
    "PushsimError",
    "Recommendation",
    "Result",
    "Results",
    "Scenario",
    "Sweep",
    "__version__",
    "assumptions",
    "calibrate",
    "check",
    "churn",
    "compare",
    "conform",
    "diff_releases",
    "diff_scenario",
    "doctor",
    "export",
    "from_cluster",
    "from_debug",
    "from_pilot_load",
    "inspect",
    "load",
    "parity",
    "plan",
    "plots",
    "published",
    "recommend",
    "record",
    "replay",
    "report",
    "scenarios",
    "schema",
    "serving",
    "simulate",
    "size",
    "sweep",
    "webhook",
]


def __getattr__(name: str) -> Any:
    if name in ("plots", "policies"):
        return import_module(f"pushsim.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_HOMES[name]), _AT_HOME.get(name, name))
    return found


class _Package(ModuleType):
    """The package: where a verb and a module are namesakes (`plan`), its attribute is the verb.

    Importing a module sets it on its package; here that must not hide a function that is public. The module itself is
    had by `from pushsim.plan import …`.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, "plots", "policies"})
