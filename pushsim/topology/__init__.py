"""Seeded synthetic meshes, call graphs and the churn of a living cluster.

Pure: no clock, no I/O, no global random state.
"""

from __future__ import annotations

from pushsim.topology.calls import call_graph, read_calls, watch
from pushsim.topology.churn import Dated, Source, run
from pushsim.topology.generate import generate
from pushsim.topology.objects import proxy_of
from pushsim.topology.registered import SOURCES, AnySource
from pushsim.topology.seeds import Stream
from pushsim.topology.selection import Labels, Section, Selector
from pushsim.topology.spec import App, Calls, Gateways, Generate, Namespaces

__all__ = [
    "SOURCES",
    "AnySource",
    "App",
    "Calls",
    "Dated",
    "Gateways",
    "Generate",
    "Labels",
    "Namespaces",
    "Section",
    "Selector",
    "Source",
    "Stream",
    "call_graph",
    "generate",
    "proxy_of",
    "read_calls",
    "run",
    "watch",
]
