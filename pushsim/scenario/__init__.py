"""The question asked, as plain data: mesh, dated changes, control plane, seed and variants of one scenario file.

Time counts from the start of the warm-up, when everything is connected and quiet; counting begins at `warmup_ns`.
"""

from __future__ import annotations

from typing import Any

from pushsim.policies import POLICIES
from pushsim.scenario import bundle
from pushsim.scenario.loading import AS_IS, Scenario, check, checked, question_of
from pushsim.scenario.model import Assumption, Figure, Model, Published, Readings
from pushsim.settings import Clients, Settings, Timed, Variant

__all__ = [
    "AS_IS",
    "Assumption",
    "Clients",
    "Figure",
    "Model",
    "Published",
    "Readings",
    "Scenario",
    "Settings",
    "Timed",
    "Variant",
    "bundled",
    "check",
    "checked",
    "schema",
]


def bundled() -> list[tuple[str, str]]:
    """(name, question) of each scenario that comes with pushsim, by name; `Scenario.load(name)` reads one."""
    folder = bundle.folder()
    return [(name, question_of((folder / f"{name}.yaml").read_text(encoding="utf-8"))) for name in bundle.names()]


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the scenario file, as plain data, for editors and validators."""
    described = Model.model_json_schema()
    definitions = described.setdefault("$defs", {})
    choices: list[dict[str, Any]] = [{"type": "string", "description": "a policy's name or module:function"}]
    for name, policy in POLICIES.items():
        own = policy.model_json_schema(ref_template="#/$defs/{model}")
        definitions.update(own.pop("$defs", {}))
        own["properties"] = {key: value for key, value in own.get("properties", {}).items() if key != "documents"}
        parameters = {"anyOf": [own, {"type": "null"}]}
        shape = {"type": "object", "required": [name], "additionalProperties": False, "properties": {name: parameters}}
        choices.append(shape)
    function = {"type": "object", "patternProperties": {"^[^:]+:[^:]+$": {"type": "object"}}}
    choices.append({**function, "additionalProperties": False, "minProperties": 1, "maxProperties": 1})
    definitions["Policy"] = {"anyOf": choices}
    listed = described["properties"]["variants"]["additionalProperties"]["anyOf"][0]
    listed["items"] = {"$ref": "#/$defs/Policy"}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "pushsim scenario", **described}
