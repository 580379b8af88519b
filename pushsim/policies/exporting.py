"""Policies about who may see a service: exportTo by the service's nature, mesh-wide defaults, what istiod watches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator

from pushsim import environment
from pushsim.manifests.checks import check_mesh_config
from pushsim.manifests.meshconfig import FIELDS, plain
from pushsim.mesh import Mesh, Object
from pushsim.policies.base import Policy
from pushsim.settings import MOST_REPLICAS, Settings, overlay
from pushsim.topology.objects import edited
from pushsim.topology.selection import Positive, Selector
from pushsim.units import Cores

EXPORT_TO = "networking.istio.io/exportTo"
_MESH_CONFIG = FIELDS["MeshConfig"]


class ExportTo(Policy):
    """Services of that nature get an exportTo annotation, now and when they are created later."""

    name: ClassVar[str] = "export-to"
    value: str | list[str] = Field(default=".", description="`.` own namespace, `~` nobody, `*` all, or namespaces")
    services: Selector = Field(default_factory=Selector, description="which services; default: all but system ones")
    override: bool = Field(default=False, description="also replace an annotation that is there")

    @property
    def annotation(self) -> str:
        return self.value if isinstance(self.value, str) else ",".join(self.value)

    def admit(self, subject: Object, mesh: Mesh) -> Object:
        if subject.ref.kind != "Service" or not self.services.matches(subject):
            return subject
        held = subject.annotations.get(EXPORT_TO)
        if held == self.annotation or (held is not None and not self.override):
            return subject
        return edited(subject, metadata={"annotations": {**subject.annotations, EXPORT_TO: self.annotation}})


class DefaultExportTo(Policy):
    """Mesh-wide exportTo of everything that does not state its own."""

    name: ClassVar[str] = "default-export-to"
    services: list[str] = Field(default=["."], min_length=1)
    virtual_services: list[str] | None = None
    destination_rules: list[str] | None = None

    def control_plane(self, settings: Settings) -> Settings:
        wanted = {
            "defaultServiceExportTo": self.services,
            "defaultVirtualServiceExportTo": self.virtual_services,
            "defaultDestinationRuleExportTo": self.destination_rules,
        }
        over = {key: value for key, value in wanted.items() if value is not None}
        return replace(settings, mesh_config=overlay(settings.mesh_config, over))


class GatewayFilter(Policy):
    """Gateways get only clusters that some route of theirs names (PILOT_FILTER_GATEWAY_CLUSTER_CONFIG)."""

    name: ClassVar[str] = "gateway-filter"
    enabled: bool = True

    def control_plane(self, settings: Settings) -> Settings:
        value = "true" if self.enabled else "false"
        return replace(settings, env={**settings.env, "PILOT_FILTER_GATEWAY_CLUSTER_CONFIG": value})


class DiscoverySelectors(Policy):
    """istiod watches only namespaces that one of these Kubernetes label selectors selects."""

    name: ClassVar[str] = "discovery-selectors"
    selectors: list[dict[str, Any]] = Field(
        default=[
            {"matchLabels": {"istio-injection": "enabled"}},
            {"matchLabels": {"kubernetes.io/metadata.name": "istio-system"}},
        ],
        min_length=1,
        description="label selectors, any of which suffices",
    )

    def control_plane(self, settings: Settings) -> Settings:
        over = {"discoverySelectors": self.selectors}
        return replace(settings, mesh_config=overlay(settings.mesh_config, over))


class Knobs(Policy):
    """istiod's settings: `replicas`, `cpus`, `mode`, and environment and MeshConfig under Istio's own names."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: ClassVar[str] = "knobs"
    replicas: Positive | None = Field(default=None, le=MOST_REPLICAS)
    cpus: Cores | None = Field(default=None, gt=0)
    mode: Literal["sotw", "delta"] | None = None

    @model_validator(mode="after")
    def _known(self) -> Knobs:
        unknown = [
            key for key in self.model_extra or {} if key not in _MESH_CONFIG and (not key.isupper() or " " in key)
        ]
        if unknown:
            raise ValueError(
                f"{', '.join(unknown)}: neither replicas, cpus or mode, nor an environment variable (UPPER_CASE), "
                "nor a field of Istio's MeshConfig"
            )
        if wrong := [*environment.problems(self._of_environment, ""), *check_mesh_config(self._of_mesh_config, "")]:
            raise ValueError(str(wrong[0]))
        return self

    @property
    def _of_environment(self) -> dict[str, str]:
        return {key: text_of(value) for key, value in (self.model_extra or {}).items() if key not in _MESH_CONFIG}

    @property
    def _of_mesh_config(self) -> dict[str, Any]:
        return plain({key: value for key, value in (self.model_extra or {}).items() if key in _MESH_CONFIG})

    def control_plane(self, settings: Settings) -> Settings:
        return replace(
            settings,
            replicas=self.replicas or settings.replicas,
            cpus=self.cpus or settings.cpus,
            mode=self.mode or settings.mode,
            env={**settings.env, **self._of_environment},
            mesh_config=overlay(settings.mesh_config, self._of_mesh_config),
        )


def text_of(value: object) -> str:
    """An environment variable's value as a shell would write it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
