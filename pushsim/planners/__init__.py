"""Istio's semantics as the control plane machine asks for them: the exact model behind `planner.Planner`.

istio  `IstioPlanner`: one istiod replica
cells  which cells of the xDS cache a response reads, and a change evicts
work   the work behind pushes, scopes and responses, by cost driver
"""

from collections.abc import Sequence

from pushsim.planner import Planner
from pushsim.planners.istio import IstioPlanner
from pushsim.settings import Variant

__all__ = ["IstioPlanner", "planners"]


def planners(variant: Variant) -> Sequence[Planner]:
    """One planner per istiod replica of a variant.

    Raises:
        InputError: the release is not known.
    """
    first = IstioPlanner(variant)
    return [first, *(IstioPlanner(variant, first) for _ in range(variant.settings.replicas - 1))]
