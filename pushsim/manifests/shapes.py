"""What values of manifests may look like: a number, a mapping of strings, a port, …"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pushsim.errors import meant
from pushsim.manifests.document import HELM_REMEDY
from pushsim.units import UnitError, duration

Fault = tuple[str, str] | None  # (message, remedy)
Check = Callable[[Any], Fault]


def _kind_of(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return f"the string '{value[:40]}'"
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    return "null" if value is None else f"the number {value}"


def _typed(types: type | tuple[type, ...], wanted: str, remedy: str) -> Check:
    def check(value: Any) -> Fault:
        if isinstance(value, types) and (types is bool or not isinstance(value, bool)):
            return None
        return f"must be {wanted}, not {_kind_of(value)}", remedy

    return check


mapping = _typed(dict, "a mapping", "write 'key: value' lines below it")
listing = _typed(list, "a list", "write '- …' lines below it")
_string = _typed(str, "a string", "put it in quotes")
boolean = _typed(bool, "true or false", "write true or false without quotes")
number = _typed(int, "a whole number", "write it without quotes and unit")
amount = _typed((int, float), "a number", "write it without quotes and unit")


def string(value: Any) -> Fault:
    """A string without unrendered Helm template."""
    fault = _string(value)
    if fault is None and "{{" in value:
        return f"holds '{{{{' of an unrendered Helm template: '{value[:40]}'", HELM_REMEDY
    return fault


def strings(value: Any) -> Fault:
    """A mapping of strings, as labels and annotations are."""
    if fault := mapping(value):
        return fault
    for key, item in value.items():
        if not isinstance(item, str):
            return f"'{key}' must be a string, not {_kind_of(item)}", f'put it in quotes: {key}: "{item}"'
    return None


def port(value: Any) -> Fault:
    """A port number, 1 to 65535."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535:
        return None
    return f"must be a port number, not {_kind_of(value)}", "give a number from 1 to 65535, without quotes"


def port_or_socket(value: Any) -> Fault:
    """A port number, or 0 where a Unix socket is bound."""
    return None if value == 0 and not isinstance(value, bool) else port(value)


def port_or_name(value: Any) -> Fault:
    """A port number or the name of a container's port."""
    return None if isinstance(value, str) and value else port(value)


def replicas(value: Any) -> Fault:
    """A count of pods."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1_000_000:
        return None
    return f"must be a number of pods, not {_kind_of(value)}", "give a number from 0 to 1000000, without quotes"


def span(value: Any) -> Fault:
    """A Go duration, like 1h30m or 250ms."""
    try:
        duration(value)
    except UnitError as error:
        return f"must be a duration, not {_kind_of(value)}", error.remedy
    return None


def ports(value: Any) -> Fault:
    """A mapping of port numbers, as a WorkloadEntry's."""
    if fault := mapping(value):
        return fault
    return next((fault for item in value.values() if (fault := port(item))), None)


def needs(*names: str) -> Check:
    """A mapping that has these fields, and something in them."""

    def check(value: Any) -> Fault:
        if fault := mapping(value):
            return fault
        missing = next((name for name in names if value.get(name) in (None, "", [])), "")
        return (f"has no {missing}", f"add '{missing}: …' below it") if missing else None

    return check


def routes(value: Any) -> Fault:
    """A VirtualService's spec: without hosts it is one that others delegate to, which has neither of these."""
    if fault := mapping(value):
        return fault
    its = next((name for name in ("gateways", "tls", "tcp") if value.get(name)), "")
    if value.get("hosts") or not its:
        return None
    return "has no hosts", f"add 'hosts: …' below it, or leave out {its} if it is there to be delegated to"


def one_of(*names: str) -> Check:
    """One of some names."""

    def check(value: Any) -> Fault:
        if value in names:
            return None
        all_of_them = f"write one of {', '.join(names)}"
        return f"must not be {_kind_of(value)}", f"{meant(str(value).upper(), names)} {all_of_them}".lstrip()

    return check


def egress_host(value: Any) -> Fault:
    """`namespace/dnsName` of a Sidecar's egress: exactly one slash (istio.io/api, IstioEgressListener)."""
    if fault := string(value):
        return fault
    if value.count("/") != 1 or not all(value.split("/")):
        host = value.rpartition("/")[2] or "*"
        return f"'{value}' is not namespace/dnsName with exactly one '/'", f"write e.g. ./{host} or */{host}"
    return None
