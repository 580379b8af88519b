"""What a synthetic mesh is to look like: the `mesh.generate` section of a scenario."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from pushsim.problems import Remedied
from pushsim.topology.selection import Labels, Positive, Section, Share, Whole, in_namespaces, no_truth

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
Name = Annotated[str, Field(pattern=rf"^{_LABEL}$", max_length=63)]


def _count(value: object) -> object:
    return [value, value] if isinstance(no_truth(value), int) else value


def _ordered(value: tuple[int, int]) -> tuple[int, int]:
    if not 0 <= value[0] <= value[1]:
        raise ValueError(f"[{value[0]}, {value[1]}] is no range: it needs 0 <= low <= high")
    return value


#: A number, or [low, high]: each one drawn evenly between the two, both ends included.
Count = Annotated[
    tuple[Whole, Whole],
    BeforeValidator(_count),
    AfterValidator(_ordered),
    PlainSerializer(lambda value: value[0] if value[0] == value[1] else list(value)),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "integer"}, "maxItems": 2}]}),
]
PortNumber = Annotated[Positive, Field(le=65535)]


#: More calls than anybody draws: a slip of the pen.
_MOST_CALLS = 10_000_000


class Namespaces(Section):
    """A group of namespaces: `name-000`, `name-001`, … or, without a count, just `name`."""

    name: Name
    count: Whole | None = Field(default=None, ge=0, description="how many; without it one, called exactly `name`")
    labels: Labels = Field(default_factory=dict)


class App(Section):
    """A kind of service: with `per_namespace` above 1 (or `total`) they are called `name-0`, `name-1`, …"""

    name: Name
    per_namespace: Count = Field(default=(1, 1), description="services per namespace: number or [low, high]")
    total: Whole | None = Field(default=None, ge=0, description="instead: services in all, spread evenly over them")
    pods: Count = Field(default=(1, 1), description="pods of each service: number or [low, high]")
    ports: dict[str, PortNumber] = Field(
        default={"http": 8080}, min_length=1, description="by name, which tells the protocol"
    )
    labels: Labels = Field(default_factory=dict, description="labels of services and pods")
    sidecar: bool = Field(default=True, description="pods are proxies")
    headless: bool = Field(default=False, description="clusterIP None and a StatefulSet's pod names")
    account: str = Field(default="default", description="service account of the pods")
    namespaces: list[str] = Field(default_factory=list, description="where, `*` allowed; default: all but istio-system")
    destination_rule: bool = Field(default=False, description="each service has a DestinationRule of its own")


class Gateways(Section):
    """Ingress gateways: pods of one Service `istio-ingressgateway`, and which services have routes at them."""

    count: Whole = Field(default=1, ge=0)
    namespace: Name = "istio-system"
    virtual_services: Annotated[Literal["all", "none"] | Share | list[str], BeforeValidator(no_truth)] = Field(
        default="all", description="services with a VirtualService at the gateway: all, none, a share or names of apps"
    )
    certificates: Whole = Field(default=0, ge=0, description="HTTPS servers, each with a Secret as its credential")


class Calls(Section):
    """The call graph between services.

    layered: each service calls `out_degree` services of the next app in the list. random: of any.
    scale-free: popular services get more callers (Barabási-Albert).
    """

    model: Literal["layered", "random", "scale-free"] = "layered"
    out_degree: Whole = Field(default=3, ge=0)
    local: Share = Field(default=0.8, description="share of the calls that stay inside the namespace")


class Generate(Section):
    """A seeded synthetic mesh."""

    namespaces: Annotated[int | list[Namespaces], BeforeValidator(no_truth)] = Field(
        default=1, description="number (ns-000 …) or list of groups"
    )
    apps: list[App] = Field(default_factory=list)
    gateways: Gateways = Field(default_factory=lambda: Gateways(count=0))
    calls: Calls = Field(default_factory=Calls)
    nodes: Positive | None = Field(default=None, description="default: one per 50 pods")
    zones: Positive = Field(default=3, le=26, description="nodes are spread over zones r-a, r-b, … of region r")

    at_most: Positive = Field(
        default=500_000, description="pods, services, namespaces and nodes in all: more is taken for a slip"
    )

    @model_validator(mode="after")
    def _distinct(self) -> Generate:
        names = [app.name for app in self.apps]
        doubles = sorted({name for name in names if names.count(name) > 1})
        if doubles:
            raise ValueError(f"two apps are called {', '.join(doubles)}")
        if isinstance(self.namespaces, int) and self.namespaces < 0:
            raise ValueError("a mesh cannot have a negative number of namespaces")
        return self

    @model_validator(mode="after")
    def _not_by_mistake(self) -> Generate:
        groups = self.namespaces
        spaces = groups if isinstance(groups, int) else sum(1 if g.count is None else g.count for g in groups)
        services, pods = 0, self.gateways.count
        labelled = self.namespace_labels() if spaces <= self.at_most else {}
        for app in self.apps:
            fitting = sum(in_namespaces(name, app.namespaces) for name in labelled)
            own = app.total if app.total is not None else fitting * sum(app.per_namespace) // 2
            services, pods = services + own, pods + own * sum(app.pods) // 2
        if spaces + services + pods + self.gateways.certificates + (self.nodes or 0) > self.at_most:
            made = f"{pods:,} pods of {services:,} services" if labelled else f"{spaces:,} namespaces"
            raise Remedied(f"would make {made}", "give fewer, or set mesh.generate.at_most if you mean it")
        if (calls := services * self.calls.out_degree) > _MOST_CALLS:
            raise Remedied(f"would make {calls:,} calls", f"give a lower calls.out_degree: {_MOST_CALLS:,} at most")
        return self

    def namespace_labels(self) -> dict[str, dict[str, str]]:
        """All namespaces in order, with their own labels; the gateways' and istio-system first."""
        system = ["istio-system", *([self.gateways.namespace] if self.gateways.count else [])]
        found: dict[str, dict[str, str]] = {name: {} for name in system}
        groups = self.namespaces
        if isinstance(groups, int):
            groups = [Namespaces(name="ns", count=groups)]
        for group in groups:
            if group.count is None:
                found[group.name] = group.labels
            else:
                found.update({f"{group.name}-{index:03d}": group.labels for index in range(group.count)})
        return found
