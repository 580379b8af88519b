"""A Kubernetes API server that istiod accepts as its cluster: read-only over HTTP, written in process, loopback only.

`Cluster` is the state, `serve` puts HTTP on top: list, get and watch, with label and field selectors, metadata-only
answers, WatchList, bookmarks and 410 after compaction. One event loop owns a `Cluster`; `Cluster.write` is a plain
call, and a watcher sends all events of one write together.
"""

from pushsim.stub.api import serve
from pushsim.stub.cluster import Cluster
from pushsim.stub.identity import token

__all__ = ["Cluster", "serve", "token"]
