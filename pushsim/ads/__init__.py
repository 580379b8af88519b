"""The ADS client of one proxy as a state machine without I/O: `client` keeps the protocol, `reading` the bytes."""

from pushsim.ads.client import CHILD, METHODS, AdsClient, ProtocolError, Response, node
from pushsim.ads.reading import Resource, name_of

__all__ = [
    "CHILD",
    "METHODS",
    "AdsClient",
    "ProtocolError",
    "Resource",
    "Response",
    "name_of",
    "node",
]
