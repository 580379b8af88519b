"""Bytes of every xDS resource and response, built from typed Envoy messages (see `Sizer`)."""

from __future__ import annotations

from pushsim.sizes.releases import SIZINGS, Sizing
from pushsim.sizes.sizer import Policies, Sizer

__all__ = ["SIZINGS", "Policies", "Sizer", "Sizing"]
