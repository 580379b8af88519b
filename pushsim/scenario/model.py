"""The scenario file, section by section: field types, defaults and what they mean. JSON Schema comes from here."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from pushsim.manifests.kinds import KINDS, WORKLOADS
from pushsim.manifests.meshconfig import plain
from pushsim.mesh import CLUSTER_SCOPED, Ref
from pushsim.problems import Remedied, nearest
from pushsim.settings import MOST_REPLICAS, Profile
from pushsim.topology import AnySource, Generate, Section
from pushsim.topology.selection import Positive, Share, Whole
from pushsim.units import SECOND_NS, Bytes, Cores, Duration, Rate, UnitError, duration, quantity


def _release(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise Remedied("a release must be text", 'put it in quotes: "1.30" would else become 1.3')
    return value


def _scalar(value: object) -> object:
    if not isinstance(value, str | int | float):
        raise Remedied("must be text, a number, true or false", 'write what a shell would have: "" for an empty one')
    return value


#: What an environment variable may be written as.
Scalar = Annotated[str | int | float | bool, BeforeValidator(_scalar)]


class MeshSection(Section):
    """The mesh: from manifests, generated, or both laid together."""

    manifests: list[str] = Field(default_factory=list, description="files or folders, relative to this file")
    generate: Generate | None = Field(default=None, description="a seeded synthetic mesh")
    inject: Literal["all", "labelled", "detect"] = Field(default="detect", description="which pods are proxies")

    @model_validator(mode="after")
    def _something(self) -> MeshSection:
        if not self.manifests and self.generate is None:
            raise ValueError("is empty: give manifests or generate")
        return self


class IstiodSection(Section):
    """The control plane."""

    release: Annotated[str, BeforeValidator(_release)] = Field(default="1.24", description="Istio minor or patch")
    replicas: Positive = Field(default=1, le=MOST_REPLICAS)
    cpus: Cores = Field(default=4.0, ge=0.001, description="cores of each replica")
    env: dict[str, Scalar] = Field(default_factory=dict, description="istiod's environment")
    mesh_config: Annotated[dict[str, Any], AfterValidator(plain)] = Field(
        default_factory=dict, description="MeshConfig, over the profile's"
    )
    profile: Profile = Field(default="default", description="default: Istio's chart; bare: istiod's built-in config")
    calibration: str | None = Field(default=None, description="calibration file; default: shipped, nearest release")


class ProxiesSection(Section):
    """What proxies have in common."""

    mode: Literal["sotw", "delta"] | None = Field(default=None, description="default: what the release's agent uses")
    workers: Positive = Field(default=2, description="Envoy worker threads")
    memory_limit: Bytes | None = Field(default=None, description="like 512Mi")


class Slow(Section):
    """Proxies that are slow to read."""

    share: Share = 0.0
    delay: Duration = 0


class Nack(Section):
    """Proxies that reject what they get."""

    share: Share = 0.0


class Reconnect(Section):
    """Age at which istiod ends a connection."""

    every: Duration | Literal["never"] = Field(default="never", description="a duration, or never")


class ClientsSection(Section):
    """Ill-behaved or recycled connections. Without `reconnect`: 30m with profile default, never with bare."""

    slow: Slow = Field(default_factory=Slow)
    nack: Nack = Field(default_factory=Nack)
    reconnect: Reconnect | None = None


def _deletable(kind: str) -> str:
    known = [each.name for each in KINDS.values() if each.watched or each.name in WORKLOADS]
    if kind not in known:
        raise Remedied(f"{kind!r} is no kind that istiod watches, nor one that has pods", nearest(kind, known, "kinds"))
    return kind


class Target(Section):
    """An object to delete; of a workload, its pods."""

    kind: Annotated[str, AfterValidator(_deletable)]
    name: str
    namespace: str = Field(default="", description="default: default, as kubectl's")

    @property
    def ref(self) -> Ref:
        return Ref(self.kind, "" if self.kind in CLUSTER_SCOPED else self.namespace or "default", self.name)


class DatedChange(Section):
    """Files applied and objects deleted together, `at` so long after counting began."""

    at: Duration
    apply: list[str] = Field(default_factory=list, description="files or folders, relative to this file")
    delete: list[Target] = Field(default_factory=list)
    name: str = ""

    @model_validator(mode="after")
    def _something(self) -> DatedChange:
        if not self.apply and not self.delete:
            raise ValueError("changes nothing: give apply or delete")
        return self


def _figure(value: object) -> tuple[float, float]:
    both = value if isinstance(value, list | tuple) else [value, value]
    if len(both) != 2:
        raise UnitError(value, "a figure or [low, high]", "write 5s, 300M, 15 or [15, 20]")
    low, high = (_number(end) for end in both)
    if low > high:
        raise UnitError(value, "a range", "write the lower end first")
    return float(low), float(high)


def _number(value: object) -> Fraction:
    try:
        return (
            Fraction(duration(value), SECOND_NS) if isinstance(value, str) and value.endswith("s") else quantity(value)
        )
    except UnitError as error:
        raise UnitError(error.args[0], "a figure", "write 5s, 300M, 15 or [15, 20]") from None


class Figure(Section):
    """A published figure of one variant, to stand beside what a run predicts.

    role: `used` if an assumption of this scenario was chosen from it, so that agreement proves nothing; else
    `predicted`, and the difference is our error.
    """

    metric: str = Field(description="dotted path into a SUMMARY, like converged_s.p99")
    variant: str
    value: Annotated[
        tuple[float, float],
        BeforeValidator(_figure),
        WithJsonSchema({"anyOf": [{"type": ["number", "string"]}, {"type": "array", "minItems": 2, "maxItems": 2}]}),
    ] = Field(description="in the metric's unit: 5s, 300M, 15, or [15, 20]")
    at_least: bool = Field(default=False, description="the figure is a bound: the method that took it saw no further")
    role: Literal["used", "predicted"] = "predicted"
    why: str = Field(default="", description="how it was taken, and if `used`, for which assumption")


class Readings(Section):
    """A published rate that does not say what was counted: its possible meanings, all printed."""

    rate: Rate
    of: list[str] = Field(min_length=1, description="totals of a SUMMARY; a mapping there is summed")
    table: str = Field(description="the one the table goes by")
    role: Literal["used", "predicted"] = "predicted"
    why: str = ""

    @model_validator(mode="after")
    def _one_of(self) -> Readings:
        if self.table not in self.of:
            raise ValueError(f"table: {self.table} is none of: {', '.join(self.of)}")
        return self


class Published(Section):
    """What somebody measured, and where it was published. Does not affect the answer."""

    source: str
    figures: list[Figure] = Field(default_factory=list)
    readings: Readings | None = None


class Assumption(Section):
    """A field that the published case does not give, and why it has this value; reports show it halved and doubled."""

    field: str = Field(description="dotted path, list items by name: mesh.generate.apps.predictor.pods")
    why: str = Field(min_length=1)


def _distinct(value: dict[str, Any] | None) -> dict[str, Any]:
    for name in value or {}:
        if not isinstance(name, str) or not name or any(sign in name for sign in "+/:"):
            raise ValueError(f"{name!r} is no name for a variant: leave out + / :")
    return value or {}


_POLICY_SCHEMA = {
    "type": "object",
    "additionalProperties": {"anyOf": [{"type": "array"}, {"type": "null"}]},
}


class Model(Section):
    """A pushsim scenario: the question asked. Its first comment puts it in words."""

    mesh: MeshSection
    istiod: IstiodSection = Field(default_factory=IstiodSection)
    proxies: ProxiesSection = Field(default_factory=ProxiesSection)
    clients: ClientsSection = Field(default_factory=ClientsSection)
    calls: str | None = Field(default=None, description="CSV of observed calls; default: mesh.generate.calls")
    churn: list[AnySource] = Field(default_factory=list, description="named sources of change")
    changes: list[DatedChange] = Field(default_factory=list, description="exact, dated changes")
    duration: Duration = Field(default=600 * SECOND_NS, gt=0, description="simulated time that is counted")
    warmup: Duration = Field(default=30 * SECOND_NS, description="simulated before that, not counted")
    seed: Whole = Field(default=1, ge=0)
    variants: Annotated[dict[str, Any], AfterValidator(_distinct), WithJsonSchema(_POLICY_SCHEMA)] = Field(
        default_factory=dict, description="name to list of policies; the first is the baseline"
    )
    published: Published | None = Field(default=None, description="figures to compare with; no effect on the answer")
    assumptions: list[Assumption] = Field(default_factory=list, description="no effect on the answer")
