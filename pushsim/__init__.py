"""Predicts what an Istio configuration change or scoping policy costs to push; proves itself against a real istiod."""

__version__ = "0.1.0"
