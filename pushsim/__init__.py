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
    "check": "pushsim.scenario",
    "conform": "pushsim.conformance",
    "diff_releases": "pushsim.diff",
    "diff_scenario": "pushsim.diff",
    "export": "pushsim.exports",
    "load": "pushsim.result",
    "Sweep": "pushsim.sweeps",
    "report": "pushsim.reports",
    "scenarios": "pushsim.scenario",
    "schema": "pushsim.scenario",
    "simulate": "pushsim.runs",
    "sweep": "pushsim.sweeps",
    **dict.fromkeys(("compare", "inspect", "parity", "plan", "recommend", "replay", "size"), "pushsim.verbs"),
    "from_cluster": "pushsim.cluster",
    "from_debug": "pushsim.importers",
    "from_pilot_load": "pushsim.importers",
}
#: Names that are others at home.
_AT_HOME = {"conform": "run_folder", "from_cluster": "read", "load": "load_all", "scenarios": "bundled"}

if TYPE_CHECKING:
    from pushsim import plots
    from pushsim.cluster import read as from_cluster
    from pushsim.conformance import run_folder as conform
    from pushsim.diff import diff_releases, diff_scenario
    from pushsim.errors import PushsimError
    from pushsim.exports import export
    from pushsim.importers import from_debug, from_pilot_load
    from pushsim.mesh import Change, Mesh
    from pushsim.preview import Preview
    from pushsim.reports import report
    from pushsim.result import Result, Results
    from pushsim.result import load_all as load
    from pushsim.runs import simulate
    from pushsim.scenario import Scenario, check, schema
    from pushsim.scenario import bundled as scenarios
    from pushsim.sweeps import Sweep, sweep
    from pushsim.tables import COLUMNS
    from pushsim.verbs import compare, inspect, parity, plan, recommend, replay, size

__all__ = [
    "COLUMNS",
    "Change",
    "Mesh",
    "Preview",
    "PushsimError",
    "Result",
    "Results",
    "Scenario",
    "Sweep",
    "__version__",
    "check",
    "compare",
    "conform",
    "diff_releases",
    "diff_scenario",
    "export",
    "from_cluster",
    "from_debug",
    "from_pilot_load",
    "inspect",
    "load",
    "parity",
    "plan",
    "plots",
    "recommend",
    "replay",
    "report",
    "scenarios",
    "schema",
    "simulate",
    "size",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name == "plots":
        return import_module("pushsim.plots")
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
    return sorted({*globals(), *_HOMES, "plots"})
