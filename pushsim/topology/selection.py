"""Which objects something is about: by labels, namespace and name. Used by churn sources and policies alike."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from pushsim.mesh import Object
from pushsim.problems import Remedied

#: Where control planes live: never chosen unless named.
SYSTEM_NAMESPACES = frozenset({"istio-system", "kube-system"})


_LABEL_NAME = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)")
_LABEL_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def _labels(value: dict[str, str]) -> dict[str, str]:
    for key, text in value.items():
        prefix, slash, name = key.rpartition("/")
        if not _LABEL_NAME.fullmatch(name) or (slash and not _LABEL_PREFIX.fullmatch(prefix)):
            raise ValueError(
                f"{key!r} is no label name: use letters, digits, - _ . (at most 63), after an optional dns/"
            )
        if text and not _LABEL_NAME.fullmatch(text):
            raise ValueError(f"{text!r} (of {key}) is no label value: use letters, digits, - _ . (at most 63)")
    return value


#: Kubernetes labels.
Labels = Annotated[dict[str, str], AfterValidator(_labels)]


def no_truth(value: object) -> object:
    """What is to be a number, as it is. Refuses true and false (and yes, on, …), which pydantic takes for 1 and 0."""
    if isinstance(value, bool):
        raise Remedied(f"must be a number, not {str(value).lower()}", "write it in digits")
    return value


#: The numbers of our own files.
Whole = Annotated[int, BeforeValidator(no_truth)]
Positive = Annotated[Whole, Field(ge=1)]
Share = Annotated[float, BeforeValidator(no_truth), Field(ge=0, le=1)]


class Section(BaseModel):
    """Base of every section of our own files: unknown fields are errors, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Selector(Section):
    """Objects that have all the labels, and a namespace and name that match one of the patterns (`*` as in a shell).

    Without `namespaces`, every namespace but istio-system and kube-system.
    """

    labels: Labels = Field(default_factory=dict, description="labels that must all be there")
    namespaces: list[str] = Field(default_factory=list, description="namespaces, `*` allowed; default: all but system")
    names: list[str] = Field(default_factory=list, description="names, `*` allowed; default: all")

    def matches(self, subject: Object) -> bool:
        return (
            has_labels(subject.labels, self.labels)
            and in_namespaces(subject.ref.namespace, self.namespaces)
            and (not self.names or any(fnmatchcase(subject.ref.name, pattern) for pattern in self.names))
        )


def has_labels(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """All wanted labels are there with that value."""
    return all(labels.get(key) == value for key, value in wanted.items())


def in_namespaces(namespace: str, patterns: Sequence[str]) -> bool:
    """The namespace matches a pattern; without patterns, it is none of the system's."""
    if not patterns:
        return namespace not in SYSTEM_NAMESPACES
    return any(fnmatchcase(namespace, pattern) for pattern in patterns)
