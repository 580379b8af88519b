"""What each xDS type holds for a proxy: the resources of CDS, EDS, LDS and RDS (reference `push-semantics` §6, §11.2).

Responses are made of blocks that proxies of one scope, or of all scopes, share as one object.

recipient    the proxy that resources are made for
clusters     CDS
assignments  EDS
listeners    LDS
routes       RDS
"""

from pushsim.generators.assignments import Assignments
from pushsim.generators.clusters import eds_names
from pushsim.generators.listeners import Listeners
from pushsim.generators.routes import Routes

__all__ = ["Generators", "eds_names"]


class Generators(Assignments, Listeners, Routes):
    """The resources of one proxy (or of all proxies that are equal to it) in one push."""
