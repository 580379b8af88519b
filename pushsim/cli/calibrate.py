"""`pushsim calibrate`: coefficients measured on the user's own istiod and proxies."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pushsim.cli.options import note

if TYPE_CHECKING:
    from pushsim.calibrate.fitting import Findings, Progress
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
    size: Annotated[float, typer.Option("--size", min=0.02, max=4, help="Scales the probes' meshes.")] = 1.0,
) -> None:
    """Fit the cost model to your own istiod and proxies, and write a calibration file. Takes minutes of CPU time.

    What the data do not tell keeps its shipped value, marked fitted: false.

    Example: pushsim calibrate --istiod-binary ./pilot-discovery --envoy ./envoy --out calibration.yaml

    Example: pushsim calibrate --prometheus http://prometheus:9090 --release 1.24 --out calibration.yaml
    """
    from pushsim.cost import shipped
    from pushsim.errors import InputError, Problem
    from pushsim.releases import NEWEST, rules

    if list_:
        _list(shipped(rules(release or NEWEST).release))
        return
    if not (istiod_binary or prometheus or envoy or config_dump):
        message = "nothing to fit to"
        raise InputError(
            Problem(message, remedy="give --istiod-binary, --prometheus, --config-dump or --envoy; or --list")
        )
    if out is None:
        raise InputError(Problem("nowhere to write to", remedy="give --out FILE"))
    fitted, whole = _fitted(istiod_binary, prometheus, config_dump, envoy, release, window, repeats, size)
    if fitted.fit:
        _write(fitted, Path(out))
        _told(fitted, out)
    if not whole:
        note("interrupted: what was fitted by then was kept" if fitted.fit else "interrupted: nothing was fitted yet")
        raise typer.Exit(130)


def _needs_its_extra() -> None:
    """Say which extra is missing, before minutes are spent."""
    from importlib.util import find_spec

    from pushsim.errors import EnvironmentProblem

    missing = [name for name in ("aiohttp", "grpc", "psutil", "trustme", "envoy") if find_spec(name) is None]
    if missing:
        raise EnvironmentProblem(f"no {', '.join(missing)} to calibrate with: install pushsim[calibrate]")


def _fitted(
    istiod_binary: str | None,
    prometheus: list[str] | None,
    config_dump: list[str] | None,
    envoy: str | None,
    release: str | None,
    window: str | None,
    repeats: int,
    size: float,
) -> tuple[Calibration, bool]:
    """The calibration, and whether it is whole: an interrupt keeps the parts that were done."""
    _needs_its_extra()
    from pushsim.calibrate import dumps, fitting, monitored
    from pushsim.calibrate.counters import read, seconds
    from pushsim.istiod import detect_release
    from pushsim.releases import NEWEST, rules

    binary = Path(istiod_binary) if istiod_binary else None
    proxy = Path(envoy) if envoy else None
    release = rules(release or (fitting.minor(detect_release(binary)) if binary else NEWEST)).minor
    found: Findings = fitting.Findings()
    whole = True
    with _Progress() as progress:
        try:
            if prometheus:
                found += monitored.from_window(read(prometheus, seconds(window)), release)
            if binary:
                found += fitting.from_istiod(binary, progress, repeats=repeats, size=size)
            if proxy:
                found += fitting.from_envoy(proxy, release, progress)
            if config_dump:
                found += dumps.from_dumps([Path(dump) for dump in config_dump], proxy, release, found, progress)
            if proxy and binary:
                found += fitting.held_out(binary, proxy, fitting.calibration(release, found), progress)
        except KeyboardInterrupt:
            whole = False
    return fitting.calibration(release, found), whole


def _write(calibration: Calibration, path: Path) -> None:
    import yaml

    from pushsim.errors import EnvironmentProblem

    text = yaml.safe_dump(calibration.dump(), sort_keys=False, allow_unicode=True, width=120)
    try:
        partial = path.with_name(f"{path.name}.partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as problem:
        raise EnvironmentProblem(f"can't write {path}: {problem.strerror}") from None


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
