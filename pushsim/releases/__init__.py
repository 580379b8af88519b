"""How Istio releases differ in who is pushed what: one frozen `Rules` value each.

Nothing else in pushsim asks for a version number: code asks the rules.

switches  `Rules`: one documented field for each behaviour that differs, with the pull request that changed it
chain     the releases, each built from the one before it
lookup    from a release as people write it to its rules
flags     variables of the environment that set some of them
differences  in which rules two releases differ, and by which pull request
"""

from pushsim.releases.differences import RuleDifference, differences
from pushsim.releases.flags import switched
from pushsim.releases.lookup import KNOWN, MINORS, NEWEST, RECORDED, rules, unproven
from pushsim.releases.switches import Kinds, Rules

__all__ = [
    "KNOWN",
    "MINORS",
    "NEWEST",
    "RECORDED",
    "Kinds",
    "RuleDifference",
    "Rules",
    "differences",
    "rules",
    "switched",
    "unproven",
]
