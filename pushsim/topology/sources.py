"""Churn sources that touch what the mesh already has: pods, endpoints, annotations, routing, nodes, istiod itself.

A rate that is not given is `default_rate`; a scenario should state its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, ClassVar, Literal

from pydantic import Field

from pushsim.mesh import Change, Object, Ref
from pushsim.secrets import usual
from pushsim.settings import ISTIOD_RESTART
from pushsim.topology.churn import Episode, Source, Step, wrote
from pushsim.topology.generate import certificate_name, destination_rule, routed
from pushsim.topology.seeds import Stream, suffix
from pushsim.topology.selection import Positive, Selector, Share
from pushsim.topology.spec import Name
from pushsim.topology.world import World
from pushsim.units import SECOND_NS, Duration, whole


class Targeted(Source):
    """A source that touches services of the mesh: those `select` matches, which have endpoints."""

    select: Selector = Field(default_factory=Selector, description="which services; default: all but system ones")

    def targets(self, world: World) -> list[Ref]:
        """The services it may touch, in order of creation."""
        living = ((world.objects[ref], workload) for ref, workload in world.workloads.items() if workload.living)
        return [held.ref for held, _ in living if self.select.matches(held) and self.fits(held)]

    def fits(self, service: Object) -> bool:
        return service.spec.get("clusterIP") != "None"

    def begin(self, world: World, stream: Stream) -> Episode:
        targets = self.targets(world)

        def episode(world: World, number: int, word: int) -> Iterator[Step]:
            if targets:
                yield from self.disturb(world, targets[word % len(targets)], word // len(targets))

        return episode

    def disturb(self, world: World, service: Ref, word: int) -> Iterator[Step]:
        """What happens to the service; word is this episode's random number."""
        raise NotImplementedError


class Rollout(Targeted):
    """New pods replace old ones one by one: scheduled, ready, then an old one ends. Sidecars of new pods connect.

    One that begins while another goes on replaces the others' new pods, too; no pod is replaced twice.
    """

    source: Literal["rollout"]
    default_rate: ClassVar[str] = "40/h"
    ready_after: Duration = Field(default=10 * SECOND_NS, description="from scheduled to ready")
    grace: Duration = Field(default=5 * SECOND_NS, description="from asked to end to gone")

    def disturb(self, world: World, service: Ref, word: int) -> Iterator[Step]:
        workload = world.workloads.get(service)
        for index, old in enumerate(list(workload.pods) if workload else []):
            if workload is None or old in workload.leaving:
                continue  # another rollout, which is not done yet, replaces it
            workload.leaving.add(old)
            name = f"{old.name.rpartition('-')[0] or old.name}-{suffix(word + index)}"
            new = Ref("Pod", old.namespace, name)
            yield from wrote(*world.start_pod(service, name, world.objects.get(old)))
            yield self.ready_after
            yield from wrote(*world.set_ready(service, [new], True))
            yield from wrote(*world.terminate(service, old))
            yield self.grace
            slices, gone = world.end_pod(service, old)
            yield from wrote(*slices, delete=gone)


class Scale(Targeted):
    """A service gets `by` more pods, and loses them again after `hold`."""

    source: Literal["scale"]
    default_rate: ClassVar[str] = "1/m"
    by: Positive = 1
    hold: Duration = Field(default=60 * SECOND_NS, description="how long the extra pods stay")
    ready_after: Duration = 10 * SECOND_NS

    def writes(self, span_ns: int) -> int:
        return self.by

    def disturb(self, world: World, service: Ref, word: int) -> Iterator[Step]:
        workload = world.workloads.get(service)
        if workload is None or not workload.pods:
            return
        like, added = workload.pods[0], list[Ref]()
        for index in range(self.by):
            name = f"{like.name.rpartition('-')[0] or like.name}-{suffix(word + index)}"
            yield from wrote(*world.start_pod(service, name, world.objects.get(like)))
            added.append(Ref("Pod", like.namespace, name))
        yield self.ready_after
        for pod in added:
            yield from wrote(*world.set_ready(service, [pod], True))
        yield self.hold
        for pod in added:
            slices, gone = world.end_pod(service, pod)
            yield from wrote(*slices, delete=gone)


class CrashLoop(Targeted):
    """One pod of a service turns unready and ready again, `failures` times."""

    source: Literal["crash-loop"]
    default_rate: ClassVar[str] = "1/m"
    failures: Positive = Field(default=1, description="in a row")
    down: Duration = Field(default=10 * SECOND_NS, description="how long it is not ready")
    up: Duration = Field(default=10 * SECOND_NS, description="how long it is ready between two failures")

    def writes(self, span_ns: int) -> int:
        return min(self.failures, 1 + span_ns // max(1, self.down + self.up))

    def disturb(self, world: World, service: Ref, word: int) -> Iterator[Step]:
        workload = world.workloads.get(service)
        if workload is None or not workload.pods:
            return
        pod = workload.pods[word % len(workload.pods)]
        for count in range(self.failures):
            if count:
                yield self.up
            yield from wrote(*world.set_ready(service, [pod], False))
            yield self.down
            yield from wrote(*world.set_ready(service, [pod], True))


class HpaAnnotation(Source):
    """An autoscaler rewrites an annotation every `period` on a share of the services; nothing that matters changes."""

    source: Literal["hpa-annotation"]
    period: Duration = Field(default=15 * SECOND_NS, gt=0)
    share: Share = Field(default=0.1, description="of the services (or their EndpointSlices) that are rewritten")
    kind: Literal["Service", "EndpointSlice"] = "Service"
    select: Selector = Field(default_factory=Selector)

    def even_gap(self) -> Fraction | None:
        return Fraction(self.period)

    def begin(self, world: World, stream: Stream) -> Episode:
        every = [ref for ref, held in world.objects.items() if ref.kind == self.kind and self.select.matches(held)]
        chosen = [every[index] for index in stream.sample(len(every), whole(self.share * len(every)))]
        phases = sorted((stream.below(self.period), ref) for ref in chosen)

        def episode(world: World, number: int, word: int) -> Iterator[Step]:
            before = 0
            for phase, ref in phases:
                yield phase - before
                before = phase
                seen = {"autoscaling.alpha.kubernetes.io/current-metrics": f"observed-{number}"}
                yield from wrote(*world.annotate(ref, seen))

        return episode


class NodeAdd(Source):
    """A node joins the cluster."""

    source: Literal["node-add"]
    default_rate: ClassVar[str] = "6/h"

    def begin(self, world: World, stream: Stream) -> Episode:
        labels = [held.labels for ref, held in world.objects.items() if ref.kind == "Node"] or [{}]

        def episode(world: World, number: int, word: int) -> Iterator[Step]:
            name = f"new-node-{number:03d}"
            world.nodes.append((name, labels[number % len(labels)].get("topology.kubernetes.io/zone", "")))
            own = {"labels": labels[number % len(labels)]}
            yield from wrote(*world.write("Node", "", name, meta=own, spec={}, status={}))

        return episode


class HeadlessStatefulSet(Targeted):
    """A StatefulSet behind a headless service restarts pod by pod: same name, new IP."""

    source: Literal["headless-statefulset"]
    default_rate: ClassVar[str] = "1/m"
    ready_after: Duration = 10 * SECOND_NS
    grace: Duration = 5 * SECOND_NS

    def fits(self, service: Object) -> bool:
        return service.spec.get("clusterIP") == "None"

    def disturb(self, world: World, service: Ref, word: int) -> Iterator[Step]:
        workload = world.workloads.get(service)
        for pod in reversed(list(workload.pods) if workload else []):
            held = world.objects.get(pod)
            if held is None:
                continue
            yield from wrote(*world.terminate(service, pod))
            yield self.grace
            slices, gone = world.end_pod(service, pod)
            yield from wrote(*slices, delete=gone)
            yield from wrote(*world.start_pod(service, pod.name, held))
            yield self.ready_after
            yield from wrote(*world.set_ready(service, [pod], True))


class ConfigPush(Targeted):
    """CI applies routing configuration: VirtualServices or DestinationRules of `objects` services, edited at once."""

    source: Literal["config-push"]
    default_rate: ClassVar[str] = "6/h"
    kind: Literal["VirtualService", "DestinationRule"] = "VirtualService"
    objects: Positive = 1

    def disturb(self, world: World, service: Ref, word: int) -> Iterator[Step]:
        peers = [service]
        if self.objects > 1:
            peers += [ref for ref in world.workloads if ref.namespace == service.namespace and ref != service]
        written: list[Object] = []
        for index in range(min(self.objects, len(peers))):
            target = peers[index]
            timeout = f"{5 + (word + index) % 3600}s"
            spec = destination_rule(target.namespace, target.name, timeout)
            if self.kind == "VirtualService":
                spec = _retimed(world, target, timeout)
            written.extend(world.write(self.kind, target.namespace, target.name, spec=spec))
        yield from wrote(*written)


def _retimed(world: World, service: Ref, timeout: str) -> dict[str, Any]:
    """The spec of the service's VirtualService (a new one if it has none) with that timeout on each HTTP route."""
    held = world.objects.get(Ref("VirtualService", service.namespace, service.name))
    if held is not None:
        return {**held.spec, "http": [{**route, "timeout": timeout} for route in held.spec.get("http") or ()]}
    ports = world.objects[service].spec.get("ports") or [{"port": 80}]
    route = routed(service.namespace, service.name, int(ports[0]["port"]))
    return {"hosts": [route["destination"]["host"]], "http": [{"route": [route], "timeout": timeout}]}


class CertificateRotation(Source):
    """The TLS Secret of a gateway is renewed. (Workload certificates are the agents' business and push nothing.)"""

    source: Literal["certificate-rotation"]
    default_rate: ClassVar[str] = "1/h"
    namespace: Name = "istio-system"
    secrets: Positive = Field(default=1, description="how many Secrets are renewed in turn")

    def begin(self, world: World, stream: Stream) -> Episode:
        def episode(world: World, number: int, word: int) -> Iterator[Step]:
            name = certificate_name(number % self.secrets)
            yield from wrote(*world.write("Secret", self.namespace, name, **usual(suffix(word, 12))))

        return episode


class IstiodRestart(Source):
    """One istiod replica, the next in turn, restarts: its proxies reconnect. A marker for the runner, no object."""

    source: Literal["istiod-restart"]

    def begin(self, world: World, stream: Stream) -> Episode:
        def episode(world: World, number: int, word: int) -> Iterator[Step]:
            yield Change(name=ISTIOD_RESTART)

        return episode
