"""The one style of all plots, and what a plot is: a matplotlib figure that knows how to show and save itself.

No global state: figures are made without pyplot. Names from manifests are drawn as they are, never read as mathematics
or markup.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from pushsim.errors import EnvironmentProblem, InputError, Problem, expected, writing
from pushsim.figures import amount

try:
    import matplotlib
    from cycler import cycler
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, FuncFormatter
except ImportError:
    raise EnvironmentProblem("no matplotlib for plots: install pushsim[notebooks]") from None

#: Okabe and Ito's palette: told apart by the colour-blind, too (https://jfly.uni-koeln.de/color/).
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442")
#: Text, axes and grid. On a page they take the page's own colour, so that light and dark both read well.
INK, FAINT = "#1a1a1b", "#8c8c8d"
#: A perceptually even colour map that the colour-blind read as others do.
MAP = "cividis"

_RC = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.size": 9,
    "grid.color": FAINT,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "pushsim",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
}


@dataclass(frozen=True, repr=False)
class Plot:
    """A figure with its title and what it shows in words (`about`), for those who cannot see it."""

    figure: Figure
    title: str
    about: str = ""

    def svg(self) -> str:
        """The same plot has the same SVG, byte by byte."""
        return self._drawn("svg").decode()

    def inline_svg(self) -> str:
        """An `<svg>` element for a page: text and axes in the page's colour, faint lines in a mixture of it."""
        text = self.svg()
        text = text[text.index("<svg") :]
        return text.replace(INK, "currentColor").replace(FAINT, "currentColor")

    def png(self) -> bytes:
        """The picture on white, at 150 dots an inch."""
        return self._drawn("png")

    def save(self, path: str | Path) -> Path:
        """Write it as .svg or .png; InputError for another ending, EnvironmentProblem if it can't be written."""
        expected(path, (str, Path), "path", "a path")
        path = Path(path)
        if path.suffix not in (".svg", ".png"):
            raise InputError(
                Problem(
                    f"a plot cannot be a {path.suffix or 'file without ending'}",
                    str(path),
                    remedy="name it .svg or .png",
                )
            )
        with writing(path):
            path.write_bytes(self._drawn(path.suffix[1:]))
        return path

    def _drawn(self, form: str) -> bytes:
        target = io.BytesIO()
        options: dict[str, Any] = {"metadata": {"Date": None}} if form == "svg" else {"dpi": 150, "facecolor": "white"}
        with styled():
            self.figure.savefig(target, format=form, bbox_inches="tight", **options)
        return target.getvalue()

    def __repr__(self) -> str:
        return f"<Plot {self.title}: {self.about}>"

    def _repr_svg_(self) -> str:
        return self.svg()


@contextmanager
def styled() -> Iterator[None]:
    """Within it, matplotlib draws in our style."""
    with matplotlib.rc_context(_RC):  # type: ignore[arg-type]
        yield


def drawn(title: str, caption: str, size: tuple[float, float], draw: Callable[[Figure], str | None]) -> Plot:
    """A plot of that size in inches: `draw` fills the figure and may say what is seen; title above, caption below."""
    with styled():
        figure = Figure(figsize=size)
        about = draw(figure) or ""
        figure.suptitle(title, fontsize=11, fontweight="bold")
        wrapped = textwrap.fill(caption, int(size[0] * 16))
        figure.supxlabel(wrapped, fontsize=7, color=FAINT, ha="center")
    return Plot(figure, title, about)


def colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name; the palette begins again after seven."""
    return dict(zip(names, islice(cycle(COLOURS), len(names)), strict=True))


def formatted(axis: Any, unit: str) -> None:
    """Ticks of a matplotlib axis (`axes.xaxis`) as people read that unit."""
    if unit.startswith("B"):
        axis.set_major_formatter(FuncFormatter(lambda value, _: amount(value) + unit[1:]))
    elif unit in ("", "/s"):
        axis.set_major_formatter(EngFormatter(sep=""))
    else:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def shortened(name: str, most: int = 32) -> str:
    """A name that fits a label."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def placed(axes: Any, text: str) -> None:
    """Say in place of data that there is none."""
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color=FAINT)
