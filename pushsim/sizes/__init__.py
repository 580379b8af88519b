"""Bytes of every xDS resource and response, built from typed Envoy messages (see `Sizer`)."""

from __future__ import annotations

from pushsim.sizes.releases import SIZINGS
from pushsim.sizes.sizer import Policies, Sizer
from pushsim.sizes.switches import Sizing

__all__ = ["SIZINGS", "Policies", "Sizer", "Sizing"]
