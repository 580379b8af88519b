"""Replay: the same scenario on a real istiod. This package is the only home of grpc."""
