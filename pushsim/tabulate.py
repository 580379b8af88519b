"""From what a simulated run observed to the tables of its Result (`pushsim.tables`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pushsim.attribution import NO_SHARE, Share
from pushsim.control.cores import SECOND
from pushsim.control.tally import UNSET
from pushsim.cost import proxy_memory
from pushsim.mesh import Change
from pushsim.metrics import Samples, exact_quantiles
from pushsim.observed import Observed
from pushsim.result import tidy
from pushsim.tables import SCHEMAS, table_of

#: The label by which an EndpointSlice names its Service (kubernetes/api discovery/v1, LabelServiceName).
SERVICE_NAME = "kubernetes.io/service-name"

#: What stands behind a Service: pods, and slices that are deleted and so have no label left to name it. Beside others
#: they say nothing more.
_BEHIND = ("Pod", "EndpointSlice")

#: Kind, namespace and name.
Thing = tuple[str, str, str]


def tables(observed: Observed) -> dict[str, pa.Table]:
    """All tables of a run."""
    return {
        "rows": observed.rows(),
        "timeline": _timeline(observed),
        "churn": _churn(observed),
        "services": _services(observed),
        "proxies": _proxies(observed),
        "fan_out": _fan_out(observed),
        "delays": _delays(observed),
    }


def touched(change: Change) -> tuple[Thing, ...]:
    """The objects a change is about, once each, in its order; endpoints stand for their Service."""
    found: dict[Thing, None] = {}
    for held in change.apply:
        kind, namespace, name = held.ref
        if kind == "EndpointSlice" and SERVICE_NAME in held.labels:
            kind, name = "Service", held.labels[SERVICE_NAME]
        found["Service" if kind == "Endpoints" else kind, namespace, name] = None
    for kind, namespace, name in change.delete:
        found["Service" if kind == "Endpoints" else kind, namespace, name] = None
    if not found:
        found["MeshConfig" if change.mesh_config is not None else change.name, "", ""] = None
    others = tuple(thing for thing in found if thing[0] not in _BEHIND)
    return others or tuple(found)


def _written(observed: Observed) -> list[int]:
    return [number for number, at in observed.machine.written.items() if at >= observed.counted]


def _churn(observed: Observed) -> pa.Table:
    written = Counter(observed.changes[number].source for number in _written(observed))
    shares = observed.attribution.caused_by(lambda number: (observed.changes[number].source,))
    names = sorted({*written, *shares})
    return table_of(SCHEMAS["churn"], [[name, written[name], *_cost(shares.get(name, NO_SHARE))] for name in names])


def _services(observed: Observed) -> pa.Table:
    things = {number: touched(observed.changes[number].change) for number in observed.machine.written}
    written = Counter(thing for number in _written(observed) for thing in things[number])
    shares = observed.attribution.caused_by(lambda number: things[number])
    keys = sorted({*written, *shares}, key=lambda thing: (-shares.get(thing, NO_SHARE)[1], thing))
    return table_of(SCHEMAS["services"], [[*key, written[key], *_cost(shares.get(key, NO_SHARE))] for key in keys])


def _cost(share: Share) -> list[object]:
    pushes, size, core_ns = share
    return [tidy(float(pushes)), tidy(float(size)), tidy(float(core_ns / SECOND))]


def _fan_out(observed: Observed) -> pa.Table:
    """Namespace by namespace. Sums in floats: there may be millions of pairs, and their order is fixed."""
    groups = observed.machine.replicas[0].planner.groups
    to = [_shares([proxy.namespace for proxy in group.proxies]) for group in groups]
    namespaces = {
        number: [namespace for _, namespace, _ in touched(observed.changes[number].change)]
        for number in observed.machine.written
    }
    machine = observed.machine
    caused = {plan.number: machine.merged.causes(plan) for plan in machine.plans if plan.first != UNSET}
    sums: dict[tuple[tuple[int, ...], int], list[int]] = {}
    for place, amounts in enumerate(_pushes(observed)):
        for plan, group, amount in amounts:
            if plan in caused:
                sums.setdefault((caused[plan], group), [0, 0])[place] += amount
    origins: dict[tuple[int, ...], dict[str, float]] = {}
    found: dict[tuple[str, str], list[float]] = {}
    for (numbers, group), (pushes, size) in sums.items():
        if not numbers or not (pushes or size):
            continue
        if numbers not in origins:
            origins[numbers] = _mean([_shares(namespaces[number]) for number in numbers])
        for origin, part in origins[numbers].items():
            for target, share in to[group].items():
                cell = found.setdefault((origin, target), [0.0, 0.0])
                cell[0] += pushes * part * share
                cell[1] += size * part * share
    return table_of(SCHEMAS["fan_out"], [[*key, *tidy(found[key])] for key in sorted(found)])


def _pushes(observed: Observed) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
    """(plan, group, how many) of pushes, and (plan, group, bytes) of what was sent."""
    (plan, group, taken, _), sends = observed.used
    plans = observed.machine.plans
    pushed = zip(plan.tolist(), group.tolist(), taken.tolist(), strict=True)
    size = _sizes(observed) * sends.times
    return (
        [use for use in pushed if plans[use[0]].planned.needed],
        [*zip(sends.plan.tolist(), sends.group.tolist(), size.tolist(), strict=True)],
    )


def _sizes(observed: Observed) -> NDArray[np.int64]:
    """Bytes of each response that was sent, int64[n]."""
    plans, sends = observed.machine.plans, observed.used[1]
    steps = zip(sends.plan.tolist(), sends.step.tolist(), strict=True)
    return np.fromiter((plans[p].planned.responses[step].size_bytes for p, step in steps), np.int64, len(sends.plan))


def _shares(names: Sequence[str]) -> dict[str, float]:
    """How often each name occurs, as a share of all."""
    return {name: count / len(names) for name, count in sorted(Counter(names).items())}


def _mean(shares: Sequence[dict[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for each in shares:
        for name, share in each.items():
            found[name] = found.get(name, 0.0) + share / len(shares)
    return found


def _proxies(observed: Observed) -> pa.Table:
    machine = observed.machine
    groups = machine.replicas[0].planner.groups
    pushes, responses, size = ([0] * len(groups) for _ in range(3))
    pushed, sent = _pushes(observed)
    for _, place, amount in pushed:
        pushes[place] += amount
    for _, place, amount in sent:
        size[place] += amount
    for place, times in zip(observed.used[1].group.tolist(), observed.used[1].times.tolist(), strict=True):
        responses[place] += times
    memory = [
        proxy_memory(observed.calibration, shape, observed.workers, all_stats=observed.all_stats).value
        for shape in machine.shapes
    ]
    rows: list[list[object]] = []
    for place, group in enumerate(groups):
        first = group.proxies[0]
        known = [number for number in machine.shape[machine.offset[place] : machine.offset[place + 1]] if number >= 0]
        held = round(sum(memory[number] for number in known) / len(known)) if known else None
        told = [place, first.type, first.namespace, first.id, group.size]
        rows.append([*told, pushes[place], responses[place], size[place], held])
    return table_of(SCHEMAS["proxies"], rows)


#: Shares at which a distribution is told: thousandths, from the least sample to the greatest.
SHARES = tuple(number / 1000 for number in range(1001))


def _delays(observed: Observed) -> pa.Table:
    tally = observed.machine.tally
    completed = list(tally.completed.values())
    samples: Mapping[str, Samples] = {
        "converged": tally.converged,
        "received": tally.received,
        "completed": completed,
        "queued": tally.queued,
        "debounced": tally.debounced,
    }
    rows: list[list[object]] = []
    for name, delays in samples.items():
        told = zip(SHARES, exact_quantiles(delays, SHARES), strict=True)
        rows += [[name, share, tidy(ns / SECOND)] for share, ns in told if ns is not None]
    return table_of(SCHEMAS["delays"], rows)


def _timeline(observed: Observed) -> pa.Table:
    machine, counted, ended = observed.machine, observed.counted, observed.ended
    first, last = counted // SECOND, max(counted, ended - 1) // SECOND
    seconds = last - first + 1

    def per_second(times: Sequence[int]) -> NDArray[np.int64]:
        places = np.asarray(times, dtype=np.int64) // SECOND - first
        return np.bincount(places[(places >= 0) & (places < seconds)], minlength=seconds)

    pushes = [push for push in machine.tally.pushes if push.start >= counted]
    cores = np.zeros(seconds)
    for replica in machine.replicas:
        spent = np.asarray(replica.cores.spent[first : last + 1], dtype=np.float64)
        cores[: len(spent)] += spent / replica.cores.parts / SECOND / len(machine.replicas)
    written = [machine.written[number] for number in _written(observed)]
    shown = [
        (machine.written[number], machine.written[number] + took) for number, took in machine.tally.completed.items()
    ]
    waiting = np.cumsum(per_second([at for at, _ in shown])) - np.cumsum(per_second([at for _, at in shown]))
    responses, size = _spread(observed, first, seconds)
    columns = [
        [tidy(float((first + second) * SECOND - counted) / SECOND) for second in range(seconds)],
        per_second(written),
        per_second([push.start for push in pushes]),
        per_second([push.start for push in pushes if push.held]),
        [tidy(float(value)) for value in responses],
        [tidy(float(value)) for value in size],
        [tidy(float(value)) for value in cores],
        waiting,
        *_gauged(observed, first, seconds),
    ]
    schema = SCHEMAS["timeline"]
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)


def _gauged(observed: Observed, first: int, seconds: int) -> list[list[float]]:
    """Mean levels of the push queue and of the throttle by second, per replica."""
    machine = observed.machine
    gauges = np.asarray([(observed.counted, 0, 0), *machine.tally.gauges], dtype=np.float64)
    edges = (first + np.arange(seconds + 1)) * float(SECOND)
    # integrals were asked for once a second, from when counting began; in between they are taken to grow evenly
    grown = [np.diff(np.interp(edges, gauges[:, 0], gauges[:, column])) for column in (1, 2)]
    return [[tidy(float(value)) for value in each / SECOND / len(machine.replicas)] for each in grown]


def _spread(observed: Observed, first: int, seconds: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Responses and bytes by second, those of one row evenly between its first and last Send."""
    sends = observed.used[1]
    columns = (sends.first, sends.last, sends.times, sends.times * _sizes(observed))
    begin, end, times, size = (column.astype(np.float64) for column in columns)
    edges = (first + np.arange(seconds + 1)) * float(SECOND)
    done = np.zeros((2, seconds + 1))
    for place, edge in enumerate(edges[1:], 1):
        share = np.where(end > begin, np.clip((edge - begin) / np.maximum(end - begin, 1), 0, 1), begin < edge)
        done[:, place] = (share * times).sum(), (share * size).sum()
    done[:, -1] = times.sum(), size.sum()
    responses, sizes = np.diff(done, axis=1)
    return responses, sizes
