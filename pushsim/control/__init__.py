"""istiod as state machines without a clock: every method is told what time it is (ns, an integer).

cores      Go's scheduler in integers, and the rounding rule
debounce   the debouncer
queue      the push queue
limiter    the stream limiter; draws that need no generator
cache      the xDS cache and its token
knobs      Istio's own knobs and their defaults
replica    the parts of one istiod
state      of all connections, flat
wire       a stream's writer: from Send to the wire
serving    from the queue to a proxy
streams    who connects, and what is left when a stream ends
machine    the whole: what a driver calls, and from a change to the queue
tally      what is observed
"""

from pushsim.control.cores import NEVER, Cores
from pushsim.control.debounce import Batch, Debouncer
from pushsim.control.knobs import Knobs, knobs
from pushsim.control.limiter import RequestLimiter
from pushsim.control.machine import Machine
from pushsim.control.queue import PushQueue
from pushsim.control.state import LOG_NAMES
from pushsim.control.tally import Plan, PushRecord, Tally

__all__ = [
    "LOG_NAMES",
    "NEVER",
    "Batch",
    "Cores",
    "Debouncer",
    "Knobs",
    "Machine",
    "Plan",
    "PushQueue",
    "PushRecord",
    "RequestLimiter",
    "Tally",
    "knobs",
]
