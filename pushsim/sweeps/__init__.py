"""Many runs of one scenario over a grid of knobs, policies and seeds; what is worth choosing among them.

grid       what is varied, and the runs that come of it
executing  the runs, on local processes or a Dask scheduler, in any order
choosing   the Pareto front, its knee, and the trade-off in a sentence
sweeping   all of it, kept in a folder so that it can be resumed
"""

from pushsim.sweeps.choosing import Choice, front, knee
from pushsim.sweeps.grid import Point, grid, parse_vary
from pushsim.sweeps.sweeping import Sweep, load, sweep

__all__ = ["Choice", "Point", "Sweep", "front", "grid", "knee", "load", "parse_vary", "sweep"]
