"""One push for one proxy: (proxy state, merged request, push) to (responses, new state, why).

The order is istiod's pushConnection: bring the proxy's state up to date, decide, then each watched type: CDS, EDS,
LDS, RDS. Then the proxy changes its subscriptions as Envoy does, and istiod answers. Everything here is a value;
`Istiod` holds the one thing that moves, the registry.

state          what is pushed, to whom, and what both sides remember
refresh        the proxy's state, brought up to date (computeProxyState)
pushing        `Pushing`: one push on its way to one proxy
cds, eds       which clusters and assignments it gets, all or a delta
lds, rds       which listeners and routes
nds, sds       the table of names, and which secrets
subscriptions  what the proxy then asks for, and what both sides remember
ondemand       types that it asks for only where it has something to, and how istiod answers
asking         what it asks for of these
rewriting      DestinationRules that istiod has written to
deciding       `plan`: all of it, in order
likeness       the same for proxies that differ only in the services they belong to
istiod         `Istiod`: the registry and the pushes made of it; a proxy's first conversation
"""

from pushsim.plan.deciding import answered, plan
from pushsim.plan.istiod import Istiod
from pushsim.plan.likeness import kin, kindred, likewise, shares
from pushsim.plan.refresh import recomputes_targets, refresh, takes_up_scope
from pushsim.plan.state import ASKS_NOTHING, Listening, Plan, ProxyState, Push, Response

__all__ = [
    "ASKS_NOTHING",
    "Istiod",
    "Listening",
    "Plan",
    "ProxyState",
    "Push",
    "Response",
    "answered",
    "kin",
    "kindred",
    "likewise",
    "plan",
    "recomputes_targets",
    "refresh",
    "shares",
    "takes_up_scope",
]
