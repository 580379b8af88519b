"""What each xDS type holds for a proxy: the resources of CDS, EDS, LDS, RDS and NDS (`push-semantics` §6, §11.2).

Responses are made of blocks that proxies of one scope, or of all scopes, share as one object.

recipient    the proxy that resources are made for
clusters     CDS
assignments  EDS
listeners    LDS, gateways their part, sockets those of sidecars where they meet
routes       RDS
tables       NDS
extensions   the names that ECDS is asked for
"""

from pushsim.generators.assignments import Assignments
from pushsim.generators.clusters import eds_names
from pushsim.generators.extensions import Extensions
from pushsim.generators.listeners import Listeners, listening_endpoints
from pushsim.generators.routes import Routes
from pushsim.generators.tables import Tables

__all__ = ["Generators", "eds_names", "listening_endpoints"]


class Generators(Assignments, Extensions, Listeners, Routes, Tables):
    """The resources of one proxy (or of all proxies that are equal to it) in one push."""
