"""Variables of istiod's environment that make a release do what others do, or what none does by default."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pushsim.mesh import boolean

if TYPE_CHECKING:
    from pushsim.releases.switches import Rules


@dataclass(frozen=True, slots=True)
class Flag:
    """A variable that, if it has that value (the other is the default), sets fields of `Rules`."""

    name: str
    value: bool
    fields: tuple[tuple[str, Any], ...]


def _flag(name: str, value: bool, **fields: Any) -> Flag:
    return Flag(name, value, tuple(fields.items()))


#: What follows is of pilot/pkg/features; which releases know which, `chain` says.
HEADLESS_EDS = _flag("PILOT_ENABLE_EDS_FOR_HEADLESS_SERVICES", True, headless_eds=True)
GATEWAYS_AT_HOME = _flag("PILOT_SCOPE_GATEWAY_TO_NAMESPACE", True, gateways_at_home=True)
POD_LISTENERS = _flag("PILOT_ENABLE_HEADLESS_SERVICE_POD_LISTENERS", False, pod_listeners=False)
SERVICE_PUSH = _flag("ISTIO_ENABLE_OPTIMIZED_SERVICE_PUSH", False, service_update="always", hidden_update_silent=False)
ALIASES = _flag("ENABLE_EXTERNAL_NAME_ALIAS", True, external_name_aliases=True)
NO_ALIASES = _flag("ENABLE_EXTERNAL_NAME_ALIAS", False, external_name_aliases=False)
RULE_MERGE = _flag("ENABLE_ENHANCED_DESTINATIONRULE_MERGE", False, rule_merge="first")
UNIFIED_SCOPE = _flag("PILOT_UNIFIED_SIDECAR_SCOPE", False, namespace_of_host="own-or-first")
BEST_NAMESPACE = _flag("PILOT_SIDECAR_PICK_BEST_SERVICE_NAMESPACE", False, destination_namespace="alphabetical")


def known(flags: Iterable[Flag], *more: Flag, without: Iterable[Flag] = ()) -> tuple[Flag, ...]:
    """These flags and more, without some."""
    return tuple(flag for flag in (*flags, *more) if flag not in without)


def switched(rules: Rules, env: Mapping[str, str]) -> Rules:
    """A release with what istiod's environment sets; a value that istiod cannot read changes nothing."""
    fields = {
        field: value
        for flag in rules.flags
        if boolean(env.get(flag.name) or "") is flag.value
        for field, value in flag.fields
    }
    return replace(rules, **fields) if fields else rules
