"""Measures what work costs, on real processes: an istiod driven by our stub and clients, an Envoy fed by us."""
