"""From what a simulated run observed (`control.Tally`) to its SUMMARY and rows.

Both engines fill the same tally, so both come through here. Quantiles are of all samples; memory quantiles of proxies
are over proxies and time: each state of each group of equal proxies weighs as long as proxies were in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from pushsim.attribution import NO_SHARE, Attribution, Share
from pushsim.control.cores import SECOND, THOUSAND, Cores
from pushsim.control.machine import Machine
from pushsim.control.sums import Merged, Sums
from pushsim.control.tally import UNSET, Plan, Sends, Sent, Uses
from pushsim.cost import (
    Bounds,
    Calibration,
    Holding,
    envoy_cpu,
    istiod_cpu,
    istiod_heap,
    istiod_memory,
    proxy_memory,
)
from pushsim.metrics import BOUNDS, Histogram, Samples, exact_quantiles, weighted_quantile
from pushsim.moments import histograms, sent
from pushsim.planner import Shape
from pushsim.settings import Timed
from pushsim.tables import DETAIL, ROWS, table_of

#: A quantile's name and its share.
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


@dataclass(frozen=True)
class Observed:
    """A machine that has run, with what its tables need beside it.

    counted, ended: when counting began and the run ended, ns of the machine's time.
    workers, memory_limit: of a proxy; all_stats: it keeps the statistics of its clusters.
    spent_before: core time before counting, by replica (in the cores' parts).
    """

    machine: Machine
    changes: Sequence[Timed]
    calibration: Calibration
    counted: int
    ended: int
    workers: int = 2
    memory_limit: int | None = None
    spent_before: Sequence[int] = ()
    all_stats: bool = False

    def summary(self) -> dict[str, Any]:
        """SUMMARY of formats.md, not yet rounded."""
        machine, tally = self.machine, self.machine.tally
        span_s = max(1, self.ended - self.counted) / SECOND
        pushes = len(tally.pushes)
        written = [number for number, at in machine.written.items() if at >= self.counted]
        bounds: dict[str, list[float]] = {}
        summary: dict[str, Any] = {
            "source": "simulated",
            "changes": len(written),
            "merged_pushes": pushes,
            "proxy_pushes": tally.pushed,
            "proxies_considered": tally.considered,
            "fan_out_mean": tally.pushed / pushes if pushes else 0.0,
            **sent(self.sums),
            "span_s": span_s,
        }
        summary["bytes_sent_per_s"] = summary["bytes_sent"] / span_s
        summary |= self._delays()
        summary |= self._istiod(span_s, bounds)
        summary |= self._proxies(span_s, bounds)
        summary["churn"] = self._churn(written)
        summary["queue_longest"] = max((replica.queue.longest for replica in machine.replicas), default=0)
        summary["debounces_held_to_max"] = sum(push.held for push in tally.pushes)
        if tally.rejected:
            summary["rejects"] = tally.rejected
        summary["reconnects"], summary["streams_refused"] = tally.connects, tally.refused
        summary["bounds"] = bounds
        summary["notes"] = self._notes(summary)
        return summary

    # ---- delays

    def _delays(self) -> dict[str, Any]:
        tally = self.machine.tally
        delays: dict[str, Any] = {}
        converged = Histogram.of_ns(BOUNDS["pilot_proxy_convergence_time"], tally.converged)
        if converged.count:
            delays["converged_s"] = {**_quantiles(tally.converged, QUANTILES), "mean": converged.mean}
            delays["converged_prometheus_s"] = {q: converged.quantile(QUANTILES[q]) for q in ("p50", "p90", "p99")}
        if len(tally.received):
            delays["received_s"] = _quantiles(tally.received, QUANTILES)
            delays["completed_s"] = _quantiles(list(tally.completed.values()), QUANTILES)
        if len(tally.away):
            delays["reconnected_s"] = _quantiles(tally.away, QUANTILES)
        for name, samples in (("queued_s", tally.queued), ("debounced_s", tally.debounced)):
            if len(samples):
                delays[name] = _quantiles(samples, ("p50", "p99", "max"))
        delays["histograms"] = histograms(tally)
        return delays

    # ---- istiod

    def amounts(self) -> Counter[str]:
        """istiod's work while counting, by cost driver."""
        return amounts_of(self.machine, self.sums)

    def _istiod(self, span_s: float, bounds: dict[str, list[float]]) -> dict[str, Any]:
        machine = self.machine
        replicas = len(machine.replicas)
        spent = (self._spent(number) / of.cores.parts / SECOND for number, of in enumerate(machine.replicas))
        mean = sum(spent) / span_s / replicas
        cpu = istiod_cpu(self.calibration, self.amounts())
        if cpu.value:
            bounds["istiod_cpu_cores.mean"] = [mean * cpu.low / cpu.value, mean * cpu.high / cpu.value]
        seconds = [each for replica in machine.replicas for each in self._seconds(replica.cores)]
        cores = {"mean": mean}
        if seconds:
            cores["p99"] = (exact_quantiles(seconds, (0.99,))[0] or 0) / machine.replicas[0].cores.parts / SECOND
        found: dict[str, Any] = {"istiod_cpu_cores": cores}
        for figure, priced in (("istiod_memory_bytes", istiod_memory), ("istiod_heap_bytes", istiod_heap)):
            means, highest = self._memory(priced)
            found[figure] = {"mean": round(means.value), "max": round(highest.value)}
            bounds[f"{figure}.mean"] = [means.low, means.high]
            bounds[f"{figure}.max"] = [highest.low, highest.high]
        return found

    def _seconds(self, cores: Cores) -> list[int]:
        """Work of each whole second while counting, in the cores' parts."""
        first, last = -(-self.counted // SECOND), self.ended // SECOND
        return cores.spent[first:last]

    def _memory(self, priced: Callable[..., Bounds]) -> tuple[Bounds, Bounds]:
        """Mean and highest memory of a replica, priced by `istiod_memory` or `istiod_heap`."""
        machine, tally = self.machine, self.machine.tally
        means, highest, shapes = Bounds(0, 0, 0), Bounds(0, 0, 0), machine.shapes
        for number, replica in enumerate(machine.replicas):
            dwell = {key: time for key, time in tally.dwell.items() if key[0] == number}
            names = sum(time * shapes[key[2]].names for key, time in dwell.items()) / max(1, sum(dwell.values()))
            inventory = replica.planner.inventory()
            connected, held = tally.connected[number], tally.held(number)
            on_average, most = connected.mean(self.ended), connected.highest
            mean = {name: level.mean(self.ended) for name, level in held.items()}
            mean_busy, most_busy = self._busy(number)
            at_mean = priced(self.calibration, Holding(inventory, on_average, on_average * names, mean, mean_busy))
            means += at_mean.times(*[1 / len(machine.replicas)] * 3)
            peaks = {name: level.highest for name, level in held.items()}
            at_most = priced(self.calibration, Holding(inventory, most, most * names, peaks, most_busy))
            highest = max(highest, at_most, key=lambda bound: bound.value)
        return means, highest

    def _busy(self, number: int) -> tuple[float, float]:
        """Which share of a replica's cores it worked on while counting, and in its busiest second."""
        cores, span = self.machine.replicas[number].cores, max(1, self.ended - self.counted)
        mean = self._spent(number) / (span * cores.whole)
        return mean, max([mean, *(spent / (SECOND * cores.whole) for spent in self._seconds(cores))])

    def _spent(self, number: int) -> int:
        """Work of a replica while counting, in its cores' parts."""
        before = self.spent_before[number] if number < len(self.spent_before) else 0
        return sum(self.machine.replicas[number].cores.spent) - before

    # ---- proxies

    def _proxies(self, span_s: float, bounds: dict[str, list[float]]) -> dict[str, Any]:
        machine = self.machine
        shapes = machine.shapes
        found: dict[str, Any] = {}
        for kind, gateway in (("sidecar", False), ("gateway", True)):
            dwell: Counter[Shape] = Counter()
            for (_, of_gateway, number), spent in machine.tally.dwell.items():
                if of_gateway == gateway and spent > 0:
                    dwell[shapes[number]] += spent
            if not dwell:
                continue
            memory = {
                shape: proxy_memory(self.calibration, shape, self.workers, all_stats=self.all_stats)
                for shape in sorted(dwell)
            }
            values, weights = [each.value for each in memory.values()], [dwell[shape] for shape in memory]
            total = sum(weights)
            mean = Bounds(0, 0, 0)
            for shape, each in memory.items():
                mean += each.times(*[dwell[shape] / total] * 3)
            most = max(memory.values(), key=lambda bound: bound.value)
            found[f"{kind}_memory_bytes"] = {
                "mean": round(mean.value),
                "p99": round(weighted_quantile(values, weights, 0.99) or 0),
                "max": round(most.value),
            }
            bounds[f"{kind}_memory_bytes.mean"] = [mean.low, mean.high]
            bounds[f"{kind}_memory_bytes.max"] = [most.low, most.high]
            cpu = envoy_cpu(self.calibration, self.sums.envoy[gateway])
            proxies = total / max(1, self.ended - self.counted)
            found[f"{kind}_cpu_cores"] = {"mean": cpu.value / span_s / proxies}
            bounds[f"{kind}_cpu_cores.mean"] = [cpu.low / span_s / proxies, cpu.high / span_s / proxies]
        return found

    # ---- who caused what

    def _churn(self, written: Iterable[int]) -> dict[str, Any]:
        """By source: changes, its share of proxy pushes, bytes and CPU, split evenly among a push's causes, and what is
        its own alone, which would not have been without it."""
        changes = Counter(self.changes[number].source for number in written)

        def source_of(number: int) -> tuple[str]:
            return (self.changes[number].source,)

        shares, alone = self.attribution.caused_by(source_of), self.attribution.caused_alone(source_of)
        return {
            source: {
                "changes": changes[source],
                **_costs(shares.get(source, NO_SHARE)),
                "saves": _costs(alone.get(source, NO_SHARE)),
            }
            for source in sorted({*changes, *shares})
        }

    @cached_property
    def attribution(self) -> Attribution:
        """Who caused what."""
        return Attribution(self.sums.caused)

    @cached_property
    def sums(self) -> Sums:
        """What uses of plans came to."""
        return self.machine.sums

    def _notes(self, summary: Mapping[str, Any]) -> list[str]:
        """What a reader of the figures should know."""
        notes = []
        held = summary["debounces_held_to_max"]
        if held:
            knobs = self.machine.replicas[0].knobs
            notes.append(
                f"{held} of {summary['merged_pushes']} pushes were held back until PILOT_DEBOUNCE_MAX "
                f"({knobs.debounce_max_ns / SECOND:g} s): changes came closer than PILOT_DEBOUNCE_AFTER "
                f"({knobs.debounce_after_ns / SECOND:g} s) to each other"
            )
        p99 = summary.get("converged_s", {}).get("p99", 0)
        if p99 > 30:
            notes.append(f"P99 of converged is {p99:.3g} s; Istio's own histogram ends at 30 s and shows no more")
        if self.memory_limit:
            for kind in ("sidecar", "gateway"):
                most = summary.get(f"{kind}_memory_bytes", {}).get("max", 0)
                if most > self.memory_limit:
                    notes.append(
                        f"a {kind} needs {most / 2**20:.0f} Mi, its limit is {self.memory_limit / 2**20:.0f} Mi"
                    )
        if summary["streams_refused"]:
            told = f"istiod refused {summary['streams_refused']} streams (PILOT_MAX_REQUESTS_PER_SECOND)"
            if away := summary.get("reconnected_s"):
                told += (
                    f"; proxies that lost theirs had another after {away['p50']:.3g} s (half of them), the last after "
                )
                told += f"{away['max']:.3g} s"
            notes.append(told)
        return notes

    # ---- rows

    @cached_property
    def used(self) -> tuple[Uses, Sends]:
        """What became of plans, by group."""
        return self.machine.uses()

    def rows(self) -> pa.Table:
        """rows.parquet: one row per (merged push, group of equal proxies, type), or per response if kept."""
        uses, sends = self.used
        queued = dict(
            zip(zip(uses.plan.tolist(), uses.group.tolist(), strict=True), uses.queued_at.tolist(), strict=True)
        )
        merged, told = self.machine.merged, dict[tuple[int, int], list[Any]]()
        counted, details, plans = self.counted, self.machine.tally.details, self.machine.plans

        def row(number: int, group: int, step: int, times: int, first: int, last: int) -> list[Any]:
            found = told.get((number, step))
            if found is None:
                found = told[number, step] = _told(merged, plans[number], step)
            since = queued.get((number, group))
            begun = since - counted if since is not None else None
            return [*found[:4], group, times, *found[4:], begun, first - counted, last - counted]

        if details is None:
            return table_of(ROWS, [row(*each) for each in zip(*(column.tolist() for column in sends), strict=True)])
        return table_of(DETAIL, [[*row(*_sent(each, self.machine)), *self._detail(each)] for each in details])

    def _detail(self, sent_: Sent) -> list[Any]:
        machine = self.machine
        group = machine.group_of[sent_.connection]
        proxy = machine.replicas[0].planner.groups[group].proxies[sent_.connection - machine.offset[group]]
        delays = [delay / SECOND if delay != UNSET else None for delay in (sent_.converged, sent_.received)]
        return [proxy.id, *delays]


def _told(merged: Merged, plan: Plan, step: int) -> list[Any]:
    """What rows say of a response, whoever gets it."""
    response = plan.planned.responses[step]
    about = [response.xds, response.solicited, response.resources, response.removed, response.size_bytes]
    return [plan.last, plan.first, plan.replica, len(merged.changes(plan)), *about]


def _sent(sent_: Sent, machine: Machine) -> tuple[int, int, int, int, int, int]:
    """One response as a row of `Sends`."""
    return sent_.plan.number, machine.group_of[sent_.connection], sent_.step, 1, sent_.sent, sent_.sent


def _costs(share: Share) -> dict[str, Any]:
    return {
        "proxy_pushes": round(share[0]),
        "bytes_sent": round(share[1]),
        "istiod_cpu_s": float(share[2] / SECOND),
    }


def amounts_of(machine: Machine, sums: Sums) -> Counter[str]:
    """istiod's work since counting began, by cost driver; of all replicas. sums: the machine's."""
    wakes = sum(replica.cores.woken for replica in machine.replicas) // THOUSAND
    return machine.tally.amounts + sums.amounts + Counter({"rest.wakes": wakes})


def _quantiles(samples: Samples, names: Iterable[str]) -> dict[str, float]:
    """Exact quantiles of delays in ns, in seconds."""
    chosen = list(names)
    values = exact_quantiles(samples, [QUANTILES[name] for name in chosen])
    return {name: value / SECOND for name, value in zip(chosen, values, strict=True) if value is not None}
