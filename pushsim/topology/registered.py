"""All churn sources by name, and the section of a scenario that chooses among them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pushsim.topology.churn import Source
from pushsim.topology.creating import NamespaceOnboarding, Services, TrainingJob
from pushsim.topology.sources import (
    CertificateRotation,
    ConfigPush,
    CrashLoop,
    HeadlessStatefulSet,
    HpaAnnotation,
    IstiodRestart,
    NodeAdd,
    Rollout,
    Scale,
)

AnySource = Annotated[
    Rollout
    | Scale
    | CrashLoop
    | HpaAnnotation
    | TrainingJob
    | Services
    | NodeAdd
    | HeadlessStatefulSet
    | ConfigPush
    | CertificateRotation
    | IstiodRestart
    | NamespaceOnboarding,
    Field(discriminator="source"),
]

#: The sources by name.
SOURCES: dict[str, type[Source]] = {
    "rollout": Rollout,
    "scale": Scale,
    "crash-loop": CrashLoop,
    "hpa-annotation": HpaAnnotation,
    "training-job": TrainingJob,
    "services": Services,
    "node-add": NodeAdd,
    "headless-statefulset": HeadlessStatefulSet,
    "config-push": ConfigPush,
    "certificate-rotation": CertificateRotation,
    "istiod-restart": IstiodRestart,
    "namespace-onboarding": NamespaceOnboarding,
}
