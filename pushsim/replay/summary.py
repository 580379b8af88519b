"""From what was seen of a real run to the Result that a simulation fills, too; what can't be known is absent."""

from __future__ import annotations

import math
import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import reduce
from statistics import fmean
from typing import Any

from pushsim import __version__
from pushsim.control import knobs
from pushsim.metrics import BOUNDS, Histogram, Samples, Scrape, exact_quantiles, read_openmetrics
from pushsim.moments import by_type
from pushsim.observed import QUANTILES
from pushsim.replay.log import TYPES
from pushsim.replay.riding import Ride
from pushsim.replay.run import Record
from pushsim.replay.shown import Shown, shown
from pushsim.replay.tabled import tables_of
from pushsim.result import Result, tidy
from pushsim.settings import Variant
from pushsim.units import SECOND_NS

#: A client that used more of its cores may have been what was waited for.
CLIENT_LIMIT = 0.8
#: Others that used more of istiod's cores disturbed it.
OTHERS_LIMIT = 0.05
_HISTOGRAMS = ("pilot_proxy_convergence_time", "pilot_proxy_queue_time", "pilot_debounce_time")


def result_of(
    variant: Variant,
    record: Record,
    identity: Mapping[str, Any],
    *,
    warmup_ns: int,
    duration_ns: int,
    detail: bool,
    more: Mapping[str, Any],
) -> Result:
    """The Result of a replayed variant; `more` goes into run.json."""
    complete = record.ended is None
    log = _counted(record)
    counting = record.counted >= 0
    ended = record.ended_at
    if complete:  # a quiet tail is not counted, as in a simulation
        ended = max([record.counted + duration_ns, *(row[1] for row in log[-1:])])
    found = shown(record.log, [written for _, written in _written(record)], record.proxies) if counting else Shown()
    summary: dict[str, Any] = {"source": "replayed"}
    if counting:
        summary |= _summary(variant, record, log, found, (ended - record.counted) / SECOND_NS)
    if record.connected >= 0:
        summary["connect"] = _connect(record)
    summary["valid"], summary["notes"] = _judged(record, summary)
    scenario = {
        **identity,
        "release": record.release,
        "duration_s": duration_ns / SECOND_NS,
        "warmup_s": warmup_ns / SECOND_NS,
    }
    cores = record.cores
    run = {
        **more,
        "engine": "istiod",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "machine": {"cpu": _cpu(), "cores": os.cpu_count(), "system": platform.platform()},
        "istiod_cores": list(cores.istiod or ()),
        "client_cores": list(cores.clients or ()),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else [],
    }
    if record.ended is not None:
        run["ended"] = str(record.ended) or "interrupted"
    versions = {"pushsim": __version__, "istio": record.release}
    tables = tables_of(record, log, found, ended, detail=detail)
    facts = {"scenario": scenario, "mode": record.mode, "versions": versions}
    return Result(variant.name, tidy(summary), tidy(facts), complete, tables, run)


def _written(record: Record) -> list[Any]:
    """The changes that were written while counting."""
    if record.counted < 0:
        return []
    return [(timed, written) for timed, written in record.written if written.at_ns >= record.counted]


def _counted(record: Record) -> list[tuple[int, ...]]:
    """The log's rows while counting, each with its place in the log before it."""
    if record.counted < 0:
        return []
    return [(place, *row) for place, row in enumerate(record.log.rows()) if row[0] >= record.counted]


def _summary(
    variant: Variant, record: Record, log: Sequence[tuple[int, ...]], found: Shown, span_s: float
) -> dict[str, Any]:
    span_s = max(span_s, 1e-9)
    written = _written(record)
    responses = by_type(Counter(TYPES[row[3]] for row in log))
    size = sum(row[7] for row in log)
    pushes = [push for push in record.debounced if push.at_ns >= record.counted]
    summary: dict[str, Any] = {"changes": len(written), "merged_pushes": len(pushes)}
    if record.after:
        summary |= _metrics(_scraped(record.before), _scraped(record.after), len(pushes))
    summary |= {"responses": responses, "bytes_sent": size, "span_s": span_s, "bytes_sent_per_s": size / span_s}
    away = [took for lost_at, took in record.away if lost_at >= record.counted]
    if away:
        summary["reconnected_s"] = quantiles(away)
    if len(found.received):
        summary["received_s"] = quantiles(found.received)
        summary["completed_s"] = quantiles(list(found.completed.values()))
    summary |= _istiod(record, span_s)
    summary |= _clients(record, len(log), span_s)
    if (ride := record.ride) is not None:
        summary["envoy"] = _ride(ride)
    changes = Counter(timed.source for timed, _ in written)
    summary["churn"] = {source: {"changes": count} for source, count in sorted(changes.items())}
    known = knobs(record.release, variant.settings.cpus, variant.settings.env)
    maximum, after_s = known.debounce_max_ns / SECOND_NS, known.debounce_after_ns / SECOND_NS
    summary["debounces_held_to_max"] = sum(p.since_s >= maximum and p.quiet_s < after_s for p in pushes)
    if record.state_before and record.state_after:
        state, was = record.state_after, record.state_before
        summary["streams_refused"] = state.refused - was.refused
        summary["reconnects"] = state.connects - was.connects
        if record.restarts:
            summary["restarts"] = record.restarts
        if state.rejected:
            summary["rejects"] = state.rejected - was.rejected
    return summary


def _ride(ride: Ride) -> dict[str, Any]:
    """What an Envoy beside the proxies took: bytes private to its process, as a container without the binary's."""
    return {
        "proxy": ride.proxy,
        "version": ride.version,
        "workers": ride.workers,
        "memory_bytes": {"connected": ride.connected.private, "ended": ride.ended.private},
        "allocated_bytes": {"connected": ride.connected.allocated, "ended": ride.ended.allocated},
        "cpu_cores": {"mean": ride.cpu_s / max(ride.span_s, 1e-9)},
        "updates_accepted": ride.accepted,
        "updates_rejected": ride.rejected,
    }


def _scraped(pages: Sequence[str]) -> Scrape:
    """What all istiods counted, from their pages."""
    return reduce(Scrape.__add__, map(read_openmetrics, pages))


def _metrics(before: Scrape, after: Scrape, pushes: int) -> dict[str, Any]:
    """What istiod itself counted between two scrapes."""
    histograms = {name: h for name in _HISTOGRAMS if (h := between(before, after, name)) is not None}
    converged, queued = histograms.get(_HISTOGRAMS[0]), histograms.get(_HISTOGRAMS[1])
    found: dict[str, Any] = {}
    if converged is not None:
        found["proxy_pushes"] = converged.count
        found["fan_out_mean"] = converged.count / pushes if pushes else 0.0
        if converged.count:
            found["converged_s"] = {"mean": converged.mean}
            found["converged_prometheus_s"] = {q: converged.quantile(QUANTILES[q]) for q in ("p50", "p90", "p99")}
    if queued is not None:
        found["proxies_considered"] = queued.count
    found["histograms"] = {
        name: {"le": list(h.bounds), "counts": list(h.counts), "sum": h.sum} for name, h in histograms.items()
    }
    sent = ((xds, [scrape.total("pilot_xds_pushes", type=xds.lower()) for scrape in (before, after)]) for xds in TYPES)
    found["pilot_xds_pushes"] = by_type({xds: round(late - early) for xds, (early, late) in sent})
    return found


def between(before: Scrape, after: Scrape, name: str) -> Histogram | None:
    """What a histogram took in between two scrapes; None if the release has none of that name.

    A histogram is not on the page before its first observation: those that every release has are empty then.
    """
    late, early = after.histogram(name), before.histogram(name)
    if late is not None:
        return late if early is None else late - early
    always = name != "pilot_debounce_time"  # since 1.16
    return Histogram(BOUNDS[name], (0,) * (len(BOUNDS[name]) + 1)) if always or early is not None else None


def _istiod(record: Record, span_s: float) -> dict[str, Any]:
    samples = record.samples
    found: dict[str, Any] = {}
    if len(samples.cpu_s) > 1:
        seconds = sorted(cores for each in samples.per_second for cores in each)
        cores = {"mean": samples.spent_s / span_s, "p99": seconds[max(0, math.ceil(0.99 * len(seconds)) - 1)]}
        found["istiod_cpu_cores"] = cores
    for figure, values in (("istiod_memory_bytes", samples.rss), ("istiod_heap_bytes", samples.heap)):
        if values:
            found[figure] = {"mean": round(fmean(values)), "max": round(max(values))}
    return found


def _clients(record: Record, responses: int, span_s: float) -> dict[str, Any]:
    """What we took ourselves: fleet and stub together."""
    if record.state_after is None or record.state_before is None:
        return {}
    fleet_s = record.state_after.cpu_s - record.state_before.cpu_s
    cores = len(record.cores.clients or ()) or os.cpu_count() or 1
    used = (fleet_s + max(0.0, record.own_cpu_s if record.ended is None else 0.0)) / span_s
    found: dict[str, Any] = {"cores": cores, "cpu_cores": {"mean": used}, "fleet_cpu_s": fleet_s, "share": used / cores}
    if responses:
        found["fleet_cpu_s_per_1000_responses"] = 1000 * fleet_s / responses
    return {"clients": found}


def _connect(record: Record) -> dict[str, Any]:
    log, state = record.connect, record.connect_state
    counts = Counter(TYPES[place] for place in log.xds)
    last = log.at[-1] if len(log) else record.connected
    found: dict[str, Any] = {
        "seconds": (last - record.begun) / SECOND_NS,
        "responses": by_type(counts),
        "bytes_sent": sum(log.size),
        "istiod_cpu_s": record.connect_cpu_s,
    }
    if state is not None:
        found |= {"connections": state.connects, "streams_refused": state.refused, "fleet_cpu_s": state.cpu_s}
    return found


def _judged(record: Record, summary: Mapping[str, Any]) -> tuple[bool, list[str]]:
    """Whether the times of the run are istiod's, and what a reader should know."""
    notes: list[str] = []
    share = summary.get("clients", {}).get("share", 0.0)
    valid = share <= CLIENT_LIMIT
    if not valid:
        notes.append(f"invalid: the clients used {100 * share:.0f} % of their cores, so delays may be theirs")
    span_s = summary.get("span_s", 0.0)
    if span_s and record.cores.istiod:
        others = record.samples.others_s / span_s / len(record.cores.istiod)
        replicas = len(record.samples.cpu_s[0]) if record.samples.cpu_s else 1
        if replicas > len(record.cores.istiod):
            notes.append(f"{replicas} istiods shared {len(record.cores.istiod)} core(s): each had a part of one")
        if record.cores.shared:
            notes.append("istiod and its clients shared a core: trust no times")
        elif others > OTHERS_LIMIT:
            used = f"others used {100 * others:.0f} % of istiod's cores"
            told = f"real-time priority: {used} while it slept"
            notes.append(told if _real_time() else f"busy machine: {used}, so delays may be theirs")
    if held := summary.get("debounces_held_to_max"):
        notes.append(f"{held} of {summary['merged_pushes']} pushes were held back until PILOT_DEBOUNCE_MAX")
    theirs = summary.get("pilot_xds_pushes")
    if (ride := record.ride) is not None:
        notes.append(f"Envoy {ride.version} rode along as one more {ride.proxy}, which istiod's own figures have, too; "
                     "istiod left out its own filters, which a stock Envoy can't load")  # fmt: skip
    elif theirs is not None and theirs != summary["responses"]:
        notes.append(f"istiod counted other responses than came: {theirs}")
    if isinstance(record.ended, Exception):
        notes.append(str(record.ended).splitlines()[0])
    return valid, notes


def _real_time() -> bool:
    """Whether we, and so istiod, run at real-time priority: nobody else has a core that we want."""
    known = hasattr(os, "sched_getscheduler")
    return known and os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR)


def quantiles(samples: Samples) -> dict[str, float]:
    """Exact quantiles of delays in ns, in seconds."""
    values = exact_quantiles(samples, QUANTILES.values())
    return {name: value / SECOND_NS for name, value in zip(QUANTILES, values, strict=True) if value is not None}


def _cpu() -> str:
    """The processor's name."""
    try:
        with open("/proc/cpuinfo") as lines:  # noqa: PTH123 - a pseudo file
            return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        return platform.processor()
