"""The machine of `control`, compiled with numba: the fast engine. Its ordered log equals the reference's.

arrays   the state, flat
parts    cores, wakes, levels and the cache, compiled
queue    the push queue and the entries of plans, compiled
serving  from the queue to a proxy, compiled
loop     the loop, compiled
store    the arrays made larger, the tables of plans
replica  the parts of a replica, on the arrays
machine  `KernelMachine`: everything else, by the code of `control`
engine   `Kernel`: the phases of a run
"""

from pushsim.kernel.engine import Kernel
from pushsim.kernel.machine import KernelMachine

__all__ = ["Kernel", "KernelMachine"]
