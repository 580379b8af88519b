"""What-ifs by name, in three parts: what one installs, what the admission webhook does, what one sets at istiod."""

from __future__ import annotations

from pushsim.policies.base import Calls, Composed, Nothing, Policy
from pushsim.policies.dataplane import Ambient, TenantIngress
from pushsim.policies.exporting import (
    EXPORT_TO,
    DefaultExportTo,
    DiscoverySelectors,
    ExportTo,
    GatewayFilter,
    Knobs,
    text_of,
)
from pushsim.policies.registered import POLICIES, Files, Known, described, from_function, parse, resolve
from pushsim.policies.scoping import EgressList, ExcludeHosts, NamespaceScope, RootSidecar, WorkloadSelector

__all__ = [
    "EXPORT_TO",
    "POLICIES",
    "Ambient",
    "Calls",
    "Composed",
    "DefaultExportTo",
    "DiscoverySelectors",
    "EgressList",
    "ExcludeHosts",
    "ExportTo",
    "Files",
    "GatewayFilter",
    "Knobs",
    "Known",
    "NamespaceScope",
    "Nothing",
    "Policy",
    "RootSidecar",
    "TenantIngress",
    "WorkloadSelector",
    "described",
    "from_function",
    "parse",
    "resolve",
    "text_of",
]
