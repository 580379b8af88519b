"""Kubernetes label and field selectors, as list and watch requests carry them, compiled to predicates."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

#: Whether an object (its whole manifest) is selected.
Selector = Callable[[Mapping[str, Any]], bool]

_COMMA = re.compile(r",(?![^()]*\))")
_SET = re.compile(r"^(?P<key>\S+)\s+(?P<op>in|notin)\s*\((?P<values>[^()]*)\)$")
_EQUAL = re.compile(r"^(?P<key>[^=!\s]+)\s*(?P<op>==|=|!=)\s*(?P<value>[^=!]*)$")
_BARE = re.compile(r"^(?P<not>!?)\s*(?P<key>[^=!\s(),]+)$")


def label_selector(text: str) -> Selector | None:
    """`a=b,c!=d,e in (f,g),h notin (i),j,!k`; None if it selects everything. Raises ValueError if it can't be read."""
    terms = [_label_term(part.strip()) for part in _COMMA.split(text) if part.strip()]
    if not terms:
        return None

    def selected(body: Mapping[str, Any]) -> bool:
        labels = body["metadata"].get("labels") or {}
        return all(term(labels) for term in terms)

    return selected


def _label_term(text: str) -> Callable[[Mapping[str, str]], bool]:
    if found := _SET.match(text):
        key = found["key"]
        values = frozenset(value.strip() for value in found["values"].split(","))
        if found["op"] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if found := _EQUAL.match(text):
        key, value = found["key"], found["value"].strip()
        if found["op"] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if found := _BARE.match(text):
        key, wanted = found["key"], not found["not"]
        return lambda labels: (key in labels) is wanted
    raise ValueError(f"can't read the label selector {text!r}")


def field_selector(text: str) -> Selector | None:
    """`metadata.name=x,status.phase!=Failed`; an absent field is ""; None if it selects all. Raises ValueError."""
    terms: list[tuple[tuple[str, ...], str, bool]] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        found = _EQUAL.match(part)
        if not found:
            raise ValueError(f"can't read the field selector {part!r}")
        terms.append((tuple(found["key"].split(".")), found["value"].strip(), found["op"] != "!="))
    if not terms:
        return None
    return lambda body: all((_at(body, path) == value) is equal for path, value, equal in terms)


def _at(body: Any, path: tuple[str, ...]) -> str:
    for name in path:
        body = body.get(name) if isinstance(body, Mapping) else None
    return "" if body is None else str(body)
