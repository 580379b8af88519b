"""What work costs: CPU of istiod and Envoy, memory of both; every coefficient with its unit, source and error.

coefficients   the table of defaults
calibration    a set of coefficients: shipped, or measured on the user's own istiod and proxies
prices         integer prices of istiod's work, for the machine
amounts        memory and Envoy's CPU, and bounds from the coefficients' errors
"""

from pushsim.cost.amounts import (
    OF_CACHE,
    Bounds,
    Holding,
    envoy_cpu,
    envoy_memory,
    envoy_work,
    istiod_cpu,
    istiod_heap,
    istiod_memory,
    keeps_all_stats,
    proxy_memory,
)
from pushsim.cost.calibration import Calibration, load, parse, shipped, table
from pushsim.cost.coefficients import DEFAULTS, DRIVERS, Coefficient
from pushsim.cost.prices import PACE, Price, Prices, Runtime

__all__ = [
    "DEFAULTS",
    "DRIVERS",
    "OF_CACHE",
    "PACE",
    "Bounds",
    "Calibration",
    "Coefficient",
    "Holding",
    "Price",
    "Prices",
    "Runtime",
    "envoy_cpu",
    "envoy_memory",
    "envoy_work",
    "istiod_cpu",
    "istiod_heap",
    "istiod_memory",
    "keeps_all_stats",
    "load",
    "parse",
    "proxy_memory",
    "shipped",
    "table",
]
