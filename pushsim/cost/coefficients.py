"""The coefficients of the cost model and their defaults.

Sources in brackets: [D] documented or measured by somebody, named; [E] estimated by people who read istiod's source
(reference `push-timing-and-cost.md` §8.3, one modern core, good to about a factor of two). `error` is relative: a value
of 10 with error 0.5 lies in 5…15. Nothing here was chosen to meet a published figure; `calibrate` replaces what it can
measure. "Profiles of istiod 1.14 to 1.30" are CPU profiles of 1.14.6, 1.17.8, 1.24.6 and 1.30.3 under three probes
of `calibrate` (gateways; few proxies, many services; many proxies, fifty services): errors of these when they are held
out are not independent of them. Those of one istiod, and what garbage collection does, are of the bundled
`overload-sidecars`, unscoped: what `parity` says of that scenario is not independent of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

#: What a coefficient is multiplied with to become a part of which total.
Part = Literal["istiod cpu", "istiod memory", "envoy cpu", "envoy memory", "delay", "factor"]


@dataclass(frozen=True, slots=True)
class Coefficient:
    """One number of the cost model.

    value:   in `unit` ("us" of one core, "ns", "bytes", "ms", "1").
    per:     what one of it is: a service, a byte, ….
    part:    the total it belongs to.
    error:   relative half width of the interval it lies in.
    source:  where the value is from.
    fitted:  whether it was measured on the system in question.
    """

    value: float
    unit: str
    per: str
    part: Part
    error: float
    source: str
    fitted: bool = False

    @property
    def interval(self) -> tuple[float, float]:
        """Lowest and highest value its error allows; never below zero."""
        return max(0.0, self.value * (1 - self.error)), self.value * (1 + self.error)


def _table(part: Part, unit: str, rows: str) -> dict[str, Coefficient]:
    """Coefficients from lines "name | value | error | per | source"."""
    table = {}
    for row in rows.strip().splitlines():
        name, value, error, per, source = (cell.strip() for cell in row.split("|"))
        table[name] = Coefficient(float(value), unit, per, part, float(error), source)
    return table


_ISTIOD_CPU = """
rest.wakes | 450 | 0.2 | first work after a rest (see rest.half) | [D] istiod 1.17 to 1.30: changes at once and apart
handler.events | 350 | 0.43 | event at a handler | [E] 0.2-0.5 ms
handler.endpoints | 1 | 0.5 | endpoint of the event's service | [E]
push.batches | 500 | 0.8 | batch of the debouncer that is pushed, whatever is in it | [E]
push.contexts | 500 | 0.8 | PushContext made, whatever is in it | [E]
push.services | 3 | 0.33 | service in a rebuilt index, times 1 + log2(S)/10 for the sort | [E] 2-4 us
push.endpoints | 0.2 | 0.5 | endpoint of those services | [E]
push.listed | 0.09 | 0.3 | EndpointSlice looked at to list instances (until 1.19) | [D] PushContexts of istiod 1.17.8
push.virtual_services | 7.5 | 0.33 | VirtualService in a rebuilt index | [E] 5-10 us
push.destination_rules | 4 | 0.25 | DestinationRule in a rebuilt index | [E] 3-5 us
push.configs | 2 | 0.6 | other config in a rebuilt index | [E] 1-3 us; [D] istio#25118: 3 us per Gateway
push.connections | 0.4 | 0.25 | connection enqueued by a Push | [E] 0.3-0.5 us
scope.sidecars | 20 | 0.5 | Sidecar converted | [E]
scope.wildcards | 0.1 | 0.5 | visible service tested against a wildcard egress host | [E]
scope.exact | 5 | 0.5 | exact egress host, searched | [E]
scope.indexed | 1 | 0.5 | exact egress host, looked up (1.31) | [E] istio#60473
scope.services | 1 | 0.5 | service selected | [E]; [D] istio#47221: 1.8 us per Sidecar and service
scope.derived | 1.5 | 0.33 | visible service of a namespace's derived scope | [E] 1-2 us
proxy.states | 6 | 0.75 | computeProxyState | [D] profiles of istiod 1.14 to 1.30
proxy.targets | 6 | 0.75 | service targets recomputed | [D] profiles of istiod 1.14 to 1.30
proxy.filters | 4 | 0.75 | needs-push check | [D] profiles of istiod 1.14 to 1.30: 13-23 us with both above
proxy.keys | 0.1 | 0.5 | changed key in that check | [E]
cds.hit | 2.5 | 0.2 | cluster found in the cache | [D] profiles of istiod 1.14 to 1.30: 2.0-3.2 us
cds.miss | 14 | 0.3 | cluster generated | [D] 10.4 us (istio#26514), 17.6 us (commit ec7f94af98d)
cds.inbound | 30 | 0.5 | inbound cluster | [E]
cds.walked | 1.2 | 0.25 | cluster that a delta push of CDS and its ACK compare | [D] CPU profiles of istiod 1.24, 1.30
cds.parsed | 0.6 | 0.4 | watched cluster, its name taken apart where a delta push looks for changes | [D] CPU profiles \
of istiod 1.24: 0.5-0.8 us
cds.static | 4 | 0.5 | cluster without a service | [D] istio#25511: 4.1 us without auto-mTLS
eds.hit | 0.75 | 0.33 | assignment found in the cache | [E] 0.5-1 us
eds.miss | 3.6 | 0.3 | assignment generated | [D] commit 3a7931db4c5
eds.endpoints | 2.45 | 0.3 | endpoint of a generated assignment | [D] commit 3a7931db4c5
eds.walked | 0.45 | 0.4 | watched cluster tested by a partial EDS and its ACK | [D] CPU profile of istiod 1.24.6
lds.ports | 0.7 | 0.25 | service port looked at for a sidecar's listeners | [D] profiles of istiod 1.14 to 1.30
lds.tcp | 40 | 0.6 | TCP or static listener | [E] 15-60 us
lds.http | 20 | 0.5 | HTTP or sniffed listener | [D] profiles of istiod 1.14 to 1.30; commit 0fb12bfcfe5: 227 us
lds.inbound | 40 | 0.6 | virtualInbound | [D] profiles of istiod 1.14 to 1.30
lds.chains | 18 | 0.3 | filter chain of a gateway | [D] commit 0fb12bfcfe5: 18.6 us
rds.hit | 0 | 0 | route found in the cache (its key costs rds.keys) | [E]
rds.keys | 2.5 | 0.4 | virtual host prepared for a route's key | [D] profiles of istiod 1.14 to 1.30: 1.4-4 us
rds.miss | 0 | 0 | route generated (its virtual hosts cost rds.hosts) | [D] istio#25116
rds.hosts | 8 | 0.3 | virtual host generated | [D] istio#25116
rds.routes | 6 | 0.2 | route of a VirtualService | [D] profiles of istiod 1.14 to 1.30: 4.8-7.2 us
rds.scanned | 0.016 | 0.5 | virtual host of a port looked at for one of its sniffed routes | [D] as cds.parsed: 15-18 ns
sds.hit | 1 | 0.5 | secret found in the cache | [D] pilot_xds_push_time of istiod 1.17.8 and 1.24.6, 205 secrets: 1.1 us
sds.miss | 10 | 0.4 | secret generated | [D] pilot_xds_push_time, 205 secrets: 1.17.8 8 us, 1.24.6 11 us
ecds.extensions | 8 | 0.5 | extension sent | [D] pilot_xds_push_time, 10-300: 1.17.8 5-9 us, 1.24.6 8-11, 1.31 11-14
nds.names | 1.6 | 0.5 | host in a table of names | [D] pilot_xds_push_time of istiod 1.24.6, 1,000 services: 1.3-2 us
send.responses | 40 | 0.4 | response sent, without its bytes | [D] profiles of istiod 1.14 to 1.30
send.locked | 27 | 0.5 | response: of its work, what is under locks that other pushes need | [D] traces of istiod \
1.24.6: 8 of 175 slices ended there
send.acks | 15 | 0.4 | ACK received | [E] 10-20 us; [D] profiles of istiod 1.30: 14 us overloaded, 26 us quiet
stream.opened | 3500 | 0.43 | connection accepted: TLS, authentication, metadata | [E] 2-5 ms
stream.keepalives | 20 | 0.5 | look at a silent stream, two in 30 s | [D] istiod 1.14 to 1.30: 15-18 us at speed 1.15
"""

_ISTIOD_CPU_BYTES = """
send.bytes | 1.1 | 0.25 | byte sent: copied, without TLS | [D] profiles of istiod 1.14 to 1.30: 1.0-1.2 ns
cds.marshalled | 4.2 | 0.3 | byte of clusters marshalled (not from the cache) | [D] as send.marshalled
eds.marshalled | 4.2 | 0.3 | byte of endpoints marshalled (not from the cache) | [D] as send.marshalled
lds.marshalled | 4.2 | 0.3 | byte of listeners marshalled | [D] as send.marshalled
rds.marshalled | 4.2 | 0.3 | byte of routes marshalled (not from the cache) | [D] as send.marshalled
send.marshalled | 4.2 | 0.3 | byte of other types marshalled | [D] CPU profiles of istiod 1.24: beside its resources
"""

_ISTIOD_MEMORY = """
memory.runtime | 85e6 | 0.3 | istiod, beside its heap: code, stacks | [E]
memory.base | 40e6 | 0.7 | istiod: its heap with nothing in it | [E] 150-300 MB in all
memory.services | 15e3 | 0.35 | service | [E] 10-20 kB
memory.endpoints | 1e4 | 0.5 | endpoint: an address of a service, whatever its ports, with its pod | [E]
memory.scopes | 700 | 0.5 | service in a scope that some proxy has | [D] heaps of istiod 1.14 to 1.24: 660-710
memory.configs | 15e3 | 0.35 | config | [E] 10-20 kB
memory.connections | 2.5e5 | 0.5 | connected proxy: its stream | [E]
memory.tls | 1e6 | 0.5 | connected proxy: TLS | [D] AKS istio-scale: 1.28-1.71 MB with the rest
memory.names | 370 | 0.5 | resource name watched by a proxy | [D] AKS istio-scale: +0.75 MB a proxy with 1,000 services
memory.making | 10 | 0.8 | byte of responses being generated: what it is made of | [E]
memory.flight | 2.5 | 0.25 | byte of responses that are sent and not written | [E] 2-3 times
memory.spare | 2 | 0.5 | byte of gRPC's buffers beside their responses (`send.pooled`) | [D] GOGC=100: what lives, twice
memory.cache | 2.2 | 0.1 | byte cached | [D] heap profiles of istiod 1.17.8, 1.24.6, 1.30.3: 1.09 that live
memory.entries | 2e3 | 0.5 | resource cached, beside its bytes: its key, what it hangs on | [D] istiod 1.14 to 1.24
"""

_ENVOY_MEMORY = """
envoy.memory.base | 15e6 | 0.2 | proxy: an Envoy with nothing to serve, without the pages of its binary | [E]
envoy.memory.cluster | 28e3 | 0.43 | cluster | [D] Envoy stats_integration_test: 16 kB (no stats) to 40.6 kB (all stats)
envoy.memory.cluster_worker | 1.6e3 | 0.5 | cluster and worker | [D] envoy#4196: 1.35-1.85 kB
envoy.memory.tls | 21e3 | 0.9 | client TLS context of a cluster | [D] envoy#18376: 100 kB a TLS cluster with 32 workers
envoy.memory.stats | 24e3 | 0.5 | cluster whose statistics are kept | [D] Envoy stats_integration_test: 16 to 40.6 kB
envoy.memory.assignment | 2e3 | 0.9 | load assignment with endpoints | [E]
envoy.memory.endpoint | 1.4e3 | 0.9 | endpoint | [D] Envoy stats_integration_test: 1.38 kB, without metadata
envoy.memory.listener | 18e3 | 0.5 | listener | [D] envoy#4196: 18 kB (TCP)
envoy.memory.listener_worker | 2e3 | 0.9 | listener and worker | [E]
envoy.memory.manager | 45e3 | 0.5 | HTTP connection manager with its route | [D] envoy#4196: 63 kB (HTTP listener)
envoy.memory.chain | 21e3 | 0.9 | filter chain with a server's TLS context | [E]
envoy.memory.message | 10 | 0.5 | byte of the largest response: what decoding it took | [E]
envoy.memory.host | 1e3 | 0.9 | virtual host | [E]
agent.memory | 33e6 | 0.5 | proxy: the agent beside Envoy | [D] istio#38000: 50 MB; istio#28652: 40-50 MB with Envoy
"""

_ENVOY_CPU = """
envoy.cpu.cluster | 600 | 0.5 | cluster with TLS added or altered | [D] istio#51160: 0.6 ms
envoy.cpu.assignment | 20 | 0.7 | load assignment | [E]
envoy.cpu.listener | 1000 | 0.7 | listener | [E]
envoy.cpu.route | 50 | 0.7 | route configuration | [E]
envoy.cpu.unchanged | 15 | 0.7 | cluster sent again as it was | [E] decode and hash
"""

DEFAULTS: Mapping[str, Coefficient] = {
    **_table("istiod cpu", "us", _ISTIOD_CPU),
    **_table("istiod cpu", "ns", _ISTIOD_CPU_BYTES),
    **_table("istiod memory", "bytes", _ISTIOD_MEMORY),
    **_table("envoy memory", "bytes", _ENVOY_MEMORY),
    **_table("envoy cpu", "us", _ENVOY_CPU),
    **_table("envoy cpu", "ns", "envoy.cpu.byte | 20 | 0.7 | byte received | [E] decode, validate, hash"),
    **_table(
        "delay",
        "ms",
        "rest.half | 2.5 | 0.5 | rest after which an istiod pays half of rest.wakes | [D] istiod 1.17.8, 1.24.6: "
        "CPU of changes 1 to 50 ms apart\n"
        "client.reply | 2 | 0.9 | response until the request that follows from it | [E] agent and Envoy\n"
        "client.latency | 0.2 | 0.9 | response on its way to the proxy | [E] one zone",
    ),
    **_table(
        "factor",
        "1",
        "send.pooled | 0 | 0 | whether Send takes a buffer of gRPC's pool (1 MiB above 32 KiB) | [D] go.mod\n"
        "send.written | 0.22 | 0.3 | share of sending a response that its stream's writer does, after Send | [D] "
        "profiles of istiod 1.24, 1.30: 18 to 24 %, 37 % where few are sent\n"
        "gc | 1.2 | 0.04 | istiod CPU, with garbage collection | [E] 1.15-1.25; [D] istio#18826: 14 % of CPU; gctrace "
        "of istiod 1.14 to 1.30, quiet and overloaded: 1.09 to 1.23\n"
        "gc.allocated | 230 | 0.3 | byte allocated in a us of istiod's work and collecting | [D] gctrace of quiet "
        "istiods: 283 (1.17.8), 187 (1.24.6), 220 (1.30.3); overloaded 430, with twice as much that lives\n"
        "gc.growth | 0.2 | 0.5 | what counts as living as it is allocated while garbage is marked, by what lives | [D] "
        "heap goals of istiod 1.14 to 1.30 after small pushes: 1.1 to 1.5 times those at rest\n"
        "gc.marking | 0.43 | 0.1 | share of istiod's work during which garbage is marked | [D] profiles of overloaded "
        "istiods: 10.3 to 11.7 % marks, which has a quarter of the cores; gctrace of four: 0.39 to 0.43\n"
        "envoy.memory.allocator | 1.1 | 0.1 | Envoy memory, with what the allocator keeps | [E] 1.0-1.2",
    ),
}

#: Drivers that a planner's `Counts` may name: all istiod CPU, and what `Planner.inventory` counts.
DRIVERS = frozenset(name for name, c in DEFAULTS.items() if c.part == "istiod cpu") | {
    "memory.services",
    "memory.endpoints",
    "memory.scopes",
    "memory.configs",
}

#: By the first release they hold for: coefficients in which releases differ. The nearest older release's apply.
BY_RELEASE: Mapping[str, Mapping[str, Coefficient]] = {
    "1.13": {
        **_table(
            "istiod cpu",
            "us",
            "eds.hit | 2.3 | 0.25 | assignment found in the cache | [D] CPU profiles of istiod 1.14.6, 1.17.8\n"
            "nds.names | 3 | 0.5 | host in a table of names | [D] pilot_xds_push_time of istiod 1.17.8, 1,000 services",
        ),
    },
    "1.22": {},  # as the table above says
    "1.24": _table(
        "factor", "1", "send.pooled | 1 | 0 | whether Send takes a buffer from gRPC's pool | [D] go.mod: grpc v1.67"
    ),
}
