"""SidecarScope: which services, VirtualServices and DestinationRules a proxy's namespace imports (reference §3).

Scopes are lazy: a question about one host costs what that host costs, the full list is made once and kept. Proxies
with the same Sidecar and namespace share one `Scope`.

egress      `EgressListener`: what the `hosts` of one egress listener import
family      `Family`: what looks the same from all namespaces, made once for all scopes of a PushContext
scope       `Scope`: the services of a Sidecar, or of the default scope of a namespace
dependence  `dependence`: does a change of this key concern the proxies of a scope
scopes      `Scopes`: which scope a proxy has
"""

from pushsim.visibility.dependence import alike, short
from pushsim.visibility.egress import EgressListener
from pushsim.visibility.scope import Scope
from pushsim.visibility.scopes import ScopeKey, Scopes

__all__ = ["EgressListener", "Scope", "ScopeKey", "Scopes", "alike", "short"]
