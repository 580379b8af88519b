"""PushContext: the indexes istiod builds for a push, and keeps until a change of that kind (reference §1.11, §4).

services  `ServiceIndex`: services by host and by who sees them
routes    `RouteIndex`: VirtualServices by gateway and by who sees them
rules     `RuleIndex`: which DestinationRules apply to a service
push      `PushContext`, and what of it a request makes anew
"""

from pushsim.context.push import PushContext, build_context
from pushsim.context.routes import MESH_GATEWAY, Destination, Route, gateway_name
from pushsim.context.rules import MergedRule, applying, asks_hashing, shapes_connections

__all__ = [
    "MESH_GATEWAY", "Destination", "MergedRule", "PushContext", "Route", "applying", "asks_hashing", "build_context",
    "gateway_name", "shapes_connections",
]  # fmt: skip
