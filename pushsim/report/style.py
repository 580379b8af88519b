"""One style for all pictures: readable in black and white and to the colour-blind, the same bytes for the same data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pushsim.errors import EnvironmentProblem

#: Okabe and Ito's colours: told apart by the colour-blind, too.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#000000")

_SETTINGS = {
    "svg.hashsalt": "pushsim",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.titlesize": 9,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


@contextmanager
def figure(rows: int, columns: int, width: float = 4.0, height: float = 3.2) -> Iterator[tuple[Any, Any]]:
    """A figure and its axes (rows × columns, always two-dimensional), without a display.

    Raises EnvironmentProblem if matplotlib is not there.
    """
    try:
        import matplotlib as mpl
        from cycler import cycler
        from matplotlib.figure import Figure
    except ImportError:
        raise EnvironmentProblem("no matplotlib for plots: install pushsim[notebooks]") from None
    settings: Any = {**_SETTINGS, "axes.prop_cycle": cycler(color=COLOURS)}
    with mpl.rc_context(settings):
        drawn = Figure(figsize=(columns * width, rows * height))
        yield drawn, drawn.subplots(rows, columns, squeeze=False)


def save(drawn: Any, path: str | Path) -> Path:
    """Write it, in the format of its suffix. EnvironmentProblem if it can't be written."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    except OSError as error:
        raise EnvironmentProblem(f"{path}: cannot be written: {error.strerror}") from None
    return path
