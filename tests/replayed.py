"""A scenario that is small enough to replay in a test, and what of a test's processes is left."""

import psutil

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


def left_running() -> list[psutil.Process]:
    """The processes we have begun and not ended.

    multiprocessing's resource tracker is none: it comes with the first pool, whichever test that is in, and stays.
    """
    return [child for child in psutil.Process().children(recursive=True) if not _ended_or_tracker(child)]


def _ended_or_tracker(process: psutil.Process) -> bool:
    try:
        return "multiprocessing.resource_tracker" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # a zombie, too
        return True
