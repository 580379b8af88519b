"""`pushsim calibrate`: coefficients measured on the user's own istiod and proxies."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pushsim.cli.options import note

if TYPE_CHECKING:
    from pushsim.calibrate.fitting import Progress
    from pushsim.cost import Calibration


def calibrate(
    istiod_binary: Annotated[
        str | None, typer.Option("--istiod-binary", metavar="PATH", help="A pilot-discovery: its CPU and memory.")
    ] = None,
    prometheus: Annotated[
        list[str] | None,
        typer.Option("--prometheus", metavar="URL|FILE", help="An istiod's metrics: a server, or pages (repeatable)."),
    ] = None,
    config_dump: Annotated[
        list[str] | None,
        typer.Option("--config-dump", metavar="FILE", help="A proxy's /config_dump (repeatable); wants --envoy."),
    ] = None,
    envoy: Annotated[
        str | None, typer.Option("--envoy", metavar="PATH", help="An Envoy: memory and CPU of proxies.")
    ] = None,
    release: Annotated[
        str | None, typer.Option("--release", "-r", help="Istio release. [default: the binary's, else newest]")
    ] = None,
    out: Annotated[str | None, typer.Option("--out", metavar="FILE", help="Write the calibration there.")] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="List all coefficients with units, sources and errors.")
    ] = False,
    window: Annotated[str | None, typer.Option("--window", help="Time that --prometheus covers, like 1h.")] = None,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="How often istiod's probes are run.")] = 2,
    speed_only: Annotated[
        bool, typer.Option("--speed-only", help="Only this machine's cpu_speed, by --istiod-binary: a minute.")
    ] = False,
    size: Annotated[float, typer.Option("--size", min=0.02, max=4, help="Scales the probes' meshes.")] = 1.0,
) -> None:
    """Fit the cost model to your own istiod and proxies, and write a calibration file. Takes minutes of CPU time.

    What the data do not tell keeps its shipped value, marked fitted: false.

    Example: pushsim calibrate --istiod-binary ./pilot-discovery --envoy ./envoy --out calibration.yaml

    Example: pushsim calibrate --istiod-binary ./pilot-discovery --speed-only --out my-machine.yaml

    Example: pushsim calibrate --prometheus http://prometheus:9090 --release 1.24 --out calibration.yaml
    """
    from pushsim.calibrate import needs_its_extra, save
    from pushsim.cost import shipped
    from pushsim.errors import InputError, Problem
    from pushsim.releases import NEWEST, rules

    if list_:
        _list(shipped(rules(release or NEWEST).release))
        return
    if speed_only and not istiod_binary:
        raise InputError(Problem("no istiod to time", field="--speed-only", remedy="give --istiod-binary"))
    if not (istiod_binary or prometheus or envoy or config_dump):
        message = "nothing to fit to"
        raise InputError(
            Problem(message, remedy="give --istiod-binary, --prometheus, --config-dump or --envoy; or --list")
        )
    if out is None:
        raise InputError(Problem("nowhere to write to", remedy="give --out FILE"))
    needs_its_extra()
    from pushsim.calibrate.whole import fitted as fit

    with _Progress() as progress:
        fitted, whole = fit(
            istiod_binary,
            prometheus or (),
            config_dump or (),
            envoy,
            release,
            window=window,
            repeats=repeats,
            size=size,
            speed_only=speed_only,
            progress=progress,
        )
    if speed_only:
        save(fitted, Path(out))
        note(f"cpu_speed {fitted.cpu_speed:.2f}: istiod's work takes {1 / fitted.cpu_speed:.2f} times the CPU time of "
             f"the machine that the shipped calibration was made on; all else is as shipped")  # fmt: skip
        typer.echo(out)
        return
    if fitted.fit:
        save(fitted, Path(out))
        _told(fitted, out)
    if not whole:
        note("what was fitted by then was kept" if fitted.fit else "nothing was fitted yet")
        raise KeyboardInterrupt


def _told(calibration: Calibration, out: str) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    fitted = {name: c for name, c in calibration.coefficients.items() if c.fitted}
    table = Table("coefficient", "value", "error", "unit, per")
    for name, c in fitted.items():
        table.add_row(name, f"{c.value:.4g}", f"{100 * c.error:.0f} %", f"{c.unit}, {c.per}")
    console.print(table)
    out_of = [entry for name, entry in calibration.fit.items() if name.startswith("held out")]
    for name, entry in calibration.fit.items():
        if name.startswith("held out"):
            console.print(
                f"{name}: measured {entry['measured']:.4g}, predicted {entry['predicted']:.4g} "
                f"({100 * entry['error']:+.0f} %)"
            )
    kept = len(calibration.coefficients) - len(fitted)
    note(f"{len(fitted)} coefficients fitted, {kept} keep their shipped value (fitted: false); {len(out_of)} held out")
    typer.echo(out)


def _list(calibration: Calibration) -> None:
    for name, c in calibration.coefficients.items():
        typer.echo(f"{name}: {c.value:.4g} {c.unit} ±{100 * c.error:.0f} % per {c.per} [{c.part}] {c.source}")


class _Progress:
    """Says what is being measured: in place on a terminal, line by line elsewhere."""

    def __enter__(self) -> Progress:
        from rich.console import Console

        console = Console(stderr=True)
        self._status = console.status("measuring") if console.is_terminal else None
        if self._status is None:
            return lambda text: print(text, file=sys.stderr, flush=True)
        self._status.start()
        return self._status.update

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()


__all__ = ["calibrate"]
