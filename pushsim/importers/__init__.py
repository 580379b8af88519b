"""Meshes from elsewhere, as files that every other verb reads.

pilotload  a cluster file of pilot-load to a scenario
debug      dumps of istiod's /debug pages to manifests
held       what proxies really have (config_dump, /debug/adsz) against what they would have

A live cluster is `pushsim.cluster`.
"""

from pushsim.importers.debug import from_debug
from pushsim.importers.held import Held, inspect
from pushsim.importers.pilotload import from_pilot_load

__all__ = ["Held", "from_debug", "from_pilot_load", "inspect"]
