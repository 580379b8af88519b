"""Pictures of results, in one style: for notebooks, for reports, to paste into a design review.

Each function takes `Results` (or a sweep, or a parity table) and returns a `Plot`: shown by a notebook, saved as SVG or
PNG. Colours are told apart by the colour-blind, bars begin at zero, axes have units, and the caption says what made the
figures: source, release, seed, scenario and version.

Where Results are asked for, one Result or a mapping of them will do. All raise InputError for anything else, and for a
figure or value that there is not; `Plot.save` raises EnvironmentProblem where it cannot write.
"""

import pushsim.plots.style  # noqa: F401 - first: it says what to install where matplotlib is missing
from pushsim.plots.bars import before_after, memory
from pushsim.plots.delays import cdf
from pushsim.plots.graphs import call_graph
from pushsim.plots.heat import fan_out
from pushsim.plots.lines import timeline
from pushsim.plots.parity import parity, parity_details
from pushsim.plots.style import COLOURS, Plot
from pushsim.plots.sweeps import pareto, sweep_curve

__all__ = [
    "COLOURS",
    "Plot",
    "before_after",
    "call_graph",
    "cdf",
    "fan_out",
    "memory",
    "pareto",
    "parity",
    "parity_details",
    "sweep_curve",
    "timeline",
]
