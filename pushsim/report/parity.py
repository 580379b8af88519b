"""Simulated against real: both distributions of converged and received, and the error of each figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pushsim.metrics import BOUNDS
from pushsim.parity import CONVERGED, Compared, Parity, shares
from pushsim.report.style import COLOURS, figure, save

_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


def parity_plot(found: Parity, path: str | Path) -> Path:
    """A row of three pictures per variant: shares converged by bucket bound, quantiles of received, errors."""
    compared = [each for each in found.variants.values() if each.real]
    with figure(max(1, len(compared)), 3) as (drawn, axes):
        for row, each in zip(axes, compared, strict=False):
            _converged(row[0], each)
            _received(row[1], each)
            _errors(row[2], each)
        drawn.suptitle(f"{found.scenario.path or 'scenario'}: Istio {found.release}, {found.mode}; simulated and real")
        return save(drawn, path)


def _converged(axis: Any, compared: Compared) -> None:
    bounds = BOUNDS[CONVERGED]
    for number, result in enumerate(compared.real):
        if real := shares(result.summary):
            label = f"real ({len(compared.real)})" if number == 0 else None
            axis.plot(bounds, real, "o-", color=COLOURS[1], alpha=0.6, label=label)
    if ours := shares(compared.simulated.summary):
        axis.plot(bounds, ours, "s--", color=COLOURS[0], label="simulated")
    axis.set(xscale="log", ylim=(-0.03, 1.03), xlabel="converged within, s (Istio's bounds)", ylabel="share of pushes")
    axis.set_title(compared.variant)
    axis.legend()


def _received(axis: Any, compared: Compared) -> None:
    def line(summary: Mapping[str, Any], style: str, **more: Any) -> None:
        found = summary.get("received_s", {})
        known = [(found[name], share) for name, share in _QUANTILES.items() if name in found]
        if known:
            delays, at = zip(*known, strict=True)
            axis.plot(delays, at, style, **more)

    for result in compared.real:
        line(result.summary, "o-", color=COLOURS[1], alpha=0.6)
    line(compared.simulated.summary, "s--", color=COLOURS[0])
    axis.set(xlabel="received within, s", ylabel="share of (change, proxy)", ylim=(0.45, 1.03), xlim=(0, None))


def _errors(axis: Any, compared: Compared) -> None:
    rows = [row for row in compared.rows if row.error is not None]
    names: Sequence[str] = [row.metric for row in rows]
    colours = [COLOURS[2] if row.within else COLOURS[5] for row in rows]
    axis.barh(names, [100 * (row.error or 0.0) for row in rows], color=colours)
    axis.invert_yaxis()
    axis.tick_params(axis="y", labelsize=6)
    axis.set(xlabel="error, % (shares: points)")
