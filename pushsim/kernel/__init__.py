"""The machine of `control`, compiled with numba: the fast engine. Its ordered log equals the reference's.

arrays   the state, flat
parts    wakes, levels and the cache, compiled
cores    Go's scheduler, compiled
queue    the push queue and the entries of plans, compiled
wire     what has been sent, on its way to the wire, compiled
asking   what proxies ask for, compiled
serving  from the queue to a proxy, compiled
loop     the loop, compiled
store    the arrays made larger, the tables of plans
replica  the parts of a replica, on the arrays
planning what connections are sent, asked of the planner once
machine  `KernelMachine`: everything else, by the code of `control`
engine   `Kernel`: the phases of a run
"""

from contextlib import suppress
from pathlib import Path


def _drop_stale() -> None:
    """Drop what was compiled before the newest of our sources.

    numba looks at the file of a function alone, but has compiled the functions that it calls into it (numba,
    "Notes on Caching": changes of functions in other files are not seen).
    """
    here = Path(__file__).parent
    sources = (*here.glob("*.py"), *(here.parent / "control").glob("*.py"))
    newest = max(source.stat().st_mtime_ns for source in sources)
    for compiled in here.glob("__pycache__/*.nbi"):
        with suppress(FileNotFoundError):  # another process that begins now drops them, too
            if compiled.stat().st_mtime_ns < newest:
                compiled.unlink()


_drop_stale()

from pushsim.kernel.engine import Kernel  # noqa: E402
from pushsim.kernel.machine import KernelMachine  # noqa: E402

__all__ = ["Kernel", "KernelMachine"]
