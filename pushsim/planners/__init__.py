"""Istio's semantics as the control plane machine asks for them: the exact model behind `planner.Planner`.

istio      `IstioPlanner`: one istiod replica
proxies    who there is, and how they are grouped
course     pushes, made once for replicas that push the same
needs      what of them replicas still need
answers    what proxies are sent for them, priced
askers     `Asker`: who asks
states     states of proxies by number
owns       what of states is groups' own
templates  what one proxy is sent, from what another is
usual      what groups are sent of their own as long as policies stay as they are
intervals  what pushes were asked for, one by one and several as one
touching   whom pushes touch, and whom they leave alone
importers  which scopes a change may concern
showing    which changes a push is the first to show
cells      which cells of the xDS cache a response reads, and a change evicts
work       the work behind pushes, scopes and responses, by cost driver
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pushsim import releases
from pushsim.control.knobs import NAMES as KNOBS
from pushsim.memo import Memo
from pushsim.mesh import Mesh
from pushsim.planner import Planner
from pushsim.planners.istio import IstioPlanner
from pushsim.settings import Variant

__all__ = ["IstioPlanner", "begun", "planners"]

#: What the last run began with, and all that decides it: the next run may differ in knobs alone.
_last: list[tuple[Any, IstioPlanner]] = []
#: What pricing has built in all runs: lengths, by what decides them.
_built = Memo()


def planners(variant: Variant) -> Sequence[Planner]:
    """One planner per istiod replica of a variant.

    Raises:
        InputError: the release is not known.
    """
    return begun(variant).forks(variant.settings.replicas)


def begun(variant: Variant) -> IstioPlanner:
    """The planner of an istiod that all proxies have had their first conversation with; to be forked, not used.

    Runs that follow each other in a process share it if they differ in nothing that it hangs on.

    Raises:
        InputError: the release is not known.
    """
    mesh, settings = _configured(variant), variant.settings
    changes = [timed.change for timed in variant.changes]
    told = (mesh, tuple(mesh.objects), changes, settings.release, settings.mode)  # objects are in an order
    if not _last or _last[0][0] != told:
        rules = releases.rules(settings.release)
        _last[:] = [(told, IstioPlanner(mesh, changes, rules, settings.mode, _built))]
    return _last[0][1]


def _configured(variant: Variant) -> Mesh:
    """The variant's mesh with its control plane's mesh config and environment, but for knobs."""
    mesh, settings = variant.mesh, variant.settings
    env = {name: value for name, value in {**mesh.env, **settings.env}.items() if name not in KNOBS}
    return replace(mesh, mesh_config={**mesh.mesh_config, **settings.mesh_config}, env=env)
