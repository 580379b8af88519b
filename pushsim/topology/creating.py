"""Churn sources that create services, and may delete them again: new services, training jobs, new teams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import ClassVar, Literal

from pydantic import Field

from pushsim.mesh import Ref
from pushsim.topology.churn import Episode, Source, Step, wrote
from pushsim.topology.generate import namespace_object
from pushsim.topology.objects import Template
from pushsim.topology.seeds import Stream, suffix
from pushsim.topology.selection import Labels, Positive, Whole, in_namespaces
from pushsim.topology.spec import Name, PortNumber
from pushsim.topology.world import World
from pushsim.units import SECOND_NS, Duration, whole


class Creating(Source):
    """A source that creates services."""

    services: Positive = Field(default=1, description="created at each arrival")
    pods: Whole = Field(default=1, ge=0, description="of each service")
    ports: dict[str, PortNumber] = Field(default={"http": 8080}, min_length=1)
    labels: Labels = Field(default_factory=dict, description="of services and pods")
    sidecar: bool = Field(default=False, description="pods are proxies, which connect")
    headless: bool = False
    account: str = "default"
    lifetime: Duration | None = Field(default=None, description="deleted after that long; default: they stay")
    spread: Duration = Field(default=0, description="from the first to the last created; 0: one after another at once")
    ready_after: Duration = Field(default=0, description="from created to ready; 0: created ready")

    def writes(self, span_ns: int) -> int:
        return self.services * (1 + self.pods)

    def live(self, world: World, namespace: str, names: Sequence[str], word: int) -> Iterator[Step]:
        """Services come, their pods turn ready, all go: the changes of one episode in order of time."""
        agenda: list[tuple[int, int, int]] = []  # when (ns since the arrival), which phase, which service
        for index in range(len(names)):
            born = whole(Fraction(self.spread * index, len(names)))
            agenda.append((born, 0, index))
            if self.ready_after and self.pods:
                agenda.append((born + self.ready_after, 1, index))
            if self.lifetime is not None:
                agenda.append((born + self.lifetime, 2, index))
        now = 0
        for when, phase, index in sorted(agenda):
            if when > now:
                yield when - now
                now = when
            service = Ref("Service", namespace, names[index])
            workload = world.workloads.get(service)
            if phase == 0:
                template = self.template(namespace, names[index], word + index)
                yield from wrote(*world.deploy(template, self.pods, word + index, ready=not self.ready_after))
            elif phase == 1 and workload:
                yield from wrote(*world.set_ready(service, workload.pods, True))
            elif phase == 2:
                yield from wrote(delete=world.undeploy(service))

    def template(self, namespace: str, name: str, word: int) -> Template:
        ports = [(port, number, number) for port, number in self.ports.items()]
        return Template.of(
            namespace,
            name,
            self.labels,
            ports,
            replica_set=suffix(word, 10),
            sidecar=self.sidecar,
            headless=self.headless,
            account=self.account,
        )


class Services(Creating):
    """Services are created, each (with its pods and endpoints) a change of its own, in namespaces drawn at random."""

    source: Literal["services"]
    default_rate: ClassVar[str] = "1/m"
    namespaces: list[str] = Field(default_factory=list, description="where, `*` allowed; default: all but system ones")
    prefix: Name = "new"

    def begin(self, world: World, stream: Stream) -> Episode:
        every = [ref.name for ref in world.objects if ref.kind == "Namespace"]
        spaces = [name for name in every if in_namespaces(name, self.namespaces)]

        def episode(world: World, number: int, word: int) -> Iterator[Step]:
            if spaces:
                stem = f"{self.prefix}-{number}-{suffix(word)}"
                names = [stem] if self.services == 1 else [f"{stem}-{index}" for index in range(self.services)]
                yield from self.live(world, spaces[word % len(spaces)], names, word // len(spaces))

        return episode


class TrainingJob(Services):
    """A distributed training job: a burst of services that is deleted when the job is done."""

    source: Literal["training-job"]  # type: ignore[assignment]
    default_rate: ClassVar[str] = "1/m"
    services: Positive = 50
    lifetime: Duration | None = 120 * SECOND_NS
    spread: Duration = Field(default=SECOND_NS, description="a job's operator creates its services over that long")
    ready_after: Duration = Field(default=3 * SECOND_NS, description="from created to ready")
    prefix: Name = "job"


class NamespaceOnboarding(Creating):
    """A team moves in: a namespace, then its services with their pods."""

    source: Literal["namespace-onboarding"]
    default_rate: ClassVar[str] = "1/h"
    services: Positive = 5
    sidecar: bool = True
    spread: Duration = 5 * SECOND_NS
    prefix: Name = "team"

    def begin(self, world: World, stream: Stream) -> Episode:
        def episode(world: World, number: int, word: int) -> Iterator[Step]:
            name = f"{self.prefix}-{number:03d}"
            space = namespace_object(name, self.labels, world.created, injected=self.sidecar)
            yield from wrote(*world.put(space))
            yield from self.live(world, name, [f"app-{index}" for index in range(self.services)], word)

        return episode
