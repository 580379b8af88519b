"""A scenario that is small enough to replay in a test."""

SMALL = """
# Do a replay, and what is said of it, come out?
mesh:
  generate:
    namespaces: 2
    apps: [{name: app, per_namespace: 2, pods: 2}]
istiod: {release: "1.24", cpus: 1, env: {PILOT_MAX_REQUESTS_PER_SECOND: 1000, PILOT_DEBOUNCE_AFTER: 20ms}}
proxies: {mode: sotw}
churn: [{source: services, rate: 4/s, arrivals: even, start: 0s, until: 1s}]
clients: {reconnect: {every: never}}
duration: 1s
warmup: 0s
"""
