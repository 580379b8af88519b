"""The churn of a living cluster: named sources, each an arrival process and what happens at an arrival.

A source is described by a section of the scenario. At each arrival an *episode* begins: a generator that yields the
changes it writes and, between them, how long it waits (ns). Episodes of all sources share one `World` and run in the
order of time, so the objects they write are consistent with each other. Times and choices of a source come from its own
random stream and from the mesh at the start: removing one source leaves those of the others as they were.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import Field, model_validator

from pushsim.mesh import Change, Mesh, Object
from pushsim.topology.seeds import Stream
from pushsim.topology.selection import Section
from pushsim.topology.world import World
from pushsim.units import SECOND_NS, Duration, Rate, rate, whole

#: The source of what a scenario dates itself.
CHANGES = "changes"
#: What an episode yields: a change, or nanoseconds to wait.
Step = Change | int
#: Starts the k-th episode; word is its random number.
Episode = Callable[[World, int, int], Iterator[Step]]
Arrivals = Iterator[tuple[int, Iterator[Step]]]


class Dated(NamedTuple):
    """A change of a churn source: ns since the start of the warm-up, the source's name, what it writes."""

    at_ns: int
    source: str
    change: Change


class Source(Section):
    """What all churn sources have in common: when.

    Arrivals come at `rate` (Poisson, or evenly spaced), or at the times given by `at`. `start`, `until` and `at` count
    from where counting starts (the end of the warm-up); without `start`, arrivals begin with the warm-up.
    """

    default_rate: ClassVar[str] = ""

    source: str
    name: str = Field(default="", description="in results; default: the source, numbered if it is there twice")
    rate: Rate | None = Field(default=None, description="arrivals, like 1/s or 40/h")
    arrivals: Literal["poisson", "even"] = Field(default="poisson", description="random or evenly spaced")
    at: list[Duration] | None = Field(default=None, description="instead of a rate: exact times")
    start: Duration | None = Field(default=None, description="first moment; default: with the warm-up")
    until: Duration | None = Field(default=None, description="last moment; default: the end")

    @model_validator(mode="after")
    def _when(self) -> Source:
        if self.rate is not None and self.at is not None:
            raise ValueError("rate and at exclude each other")
        if self.rate is not None and self.rate <= 0:
            raise ValueError("a rate must be above zero; leave the source out to be without it")
        if self.rate is None and self.at is None and not self.default_rate and not self.even_gap():
            raise ValueError(f"{self.source} needs a rate (like 1/s or 40/h) or times (at: [10s])")
        return self

    def even_gap(self) -> Fraction | None:
        """Nanoseconds between arrivals of a source that has a period of its own, where no rate is given."""
        return None

    def gap(self) -> Fraction:
        """Nanoseconds between arrivals, on the average, where there are no times."""
        even = self.even_gap() if self.rate is None else None
        return even or Fraction(SECOND_NS) / (self.rate or rate(self.default_rate))

    def writes(self, span_ns: int) -> int:
        """How many objects an arrival may write in a run of that length; 1 where that hangs on the mesh alone."""
        return 1

    def times(self, stream: Stream, warmup_ns: int, end_ns: int) -> Iterator[int]:
        """Arrival times, ascending, in [0, end_ns)."""
        if self.at is not None:
            yield from (warmup_ns + at for at in sorted(self.at) if warmup_ns + at < end_ns)
            return
        begin = 0 if self.start is None else warmup_ns + self.start
        end = end_ns if self.until is None else min(end_ns, warmup_ns + self.until)
        gap = self.gap()
        if self.arrivals == "even" or (self.rate is None and self.even_gap()):
            now, count = begin, 0
            while now < end:
                yield now
                count += 1
                now = begin + whole(count * gap)
            return
        now = begin + stream.exponential(gap)
        while now < end:
            yield now
            now += stream.exponential(gap)

    def begin(self, world: World, stream: Stream) -> Episode:
        """Chooses from the world at the start what the source may touch; returns what happens at an arrival."""
        raise NotImplementedError


def run(
    sources: Sequence[Source], mesh: Mesh, seed: int, warmup_ns: int, duration_ns: int, extra: Sequence[Dated] = ()
) -> Iterator[Dated]:
    """All changes of these sources in order of time; of equal times, in order of the list, `extra` last.

    extra: changes dated by the scenario itself. They are written over the world as they are.
    """
    world = World(mesh)
    end_ns = warmup_ns + duration_ns
    names = unique_names(sources)
    ticket = itertools.count()
    queue: list[tuple[int, int, int, Iterator[Step], Arrivals | None]] = []

    def wait(at: int, position: int, steps: Iterator[Step], upcoming: Arrivals | None = None) -> None:
        if at < end_ns:
            heapq.heappush(queue, (at, position, next(ticket), steps, upcoming))

    def arrive(position: int, upcoming: Arrivals) -> None:
        for at, steps in upcoming:
            wait(at, position, steps, upcoming)
            return

    for position, source in enumerate(sources):
        stream = f"churn/{names[position]}"
        episode = source.begin(world, Stream(seed, f"{stream}/choice"))
        times = source.times(Stream(seed, f"{stream}/times"), warmup_ns, end_ns)
        arrive(position, _arrivals(episode, times, Stream(seed, f"{stream}/episodes"), world))
    names.append(CHANGES)
    for dated in extra:
        wait(dated.at_ns, len(sources), _written(world, dated.change))
    while queue:
        at, position, _, steps, upcoming = heapq.heappop(queue)
        if upcoming:
            arrive(position, upcoming)
        world.now_s = at // SECOND_NS
        for step in steps:
            if isinstance(step, int):
                wait(at + step, position, steps)
                break
            yield Dated(at, names[position], step)


def _arrivals(episode: Episode, times: Iterator[int], words: Stream, world: World) -> Arrivals:
    for number, at in enumerate(times):
        yield at, episode(world, number, words.word())


def _written(world: World, change: Change) -> Iterator[Step]:
    """A change of the scenario's own, as the API server would date it."""
    applied = world.put(*(world.dated(held) for held in change.apply))
    world.remove(change.delete)
    yield Change(applied, change.delete, change.name)


def unique_names(sources: Sequence[Source]) -> list[str]:
    """The sources' names in results: `name`, else `source`, numbered from the second of that name on."""
    names: list[str] = []
    for source in sources:
        wanted = source.name or source.source
        taken, count = wanted, 1
        while taken in names:
            count += 1
            taken = f"{wanted}-{count}"
        names.append(taken)
    return names


def wrote(*objects: Object, delete: Sequence[Any] = (), name: str = "") -> Iterator[Change]:
    """A change, if there is anything in it."""
    if objects or delete:
        yield Change(tuple(objects), tuple(delete), name)
