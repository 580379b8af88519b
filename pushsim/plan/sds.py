"""SDS: which secrets a proxy asks istiod for, and which of them a push sends (reference §6.8).

A proxy is taken to be known to istiod, as it is in a cluster, and allowed to read the secrets of its namespace.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from pushsim.blocks import Block, Blocks
from pushsim.context import PushContext
from pushsim.mesh import Mode, Proxy
from pushsim.plan.ondemand import Names, Service
from pushsim.plan.pushing import Pushing
from pushsim.plan.state import Response
from pushsim.registry import Registry
from pushsim.resources import Credential, Listener, OutboundCluster, Resource
from pushsim.secrets import AUTHORITY, held, related, secret_of
from pushsim.sizes.gateway import terminating
from pushsim.sizes.policy import policy_for
from pushsim.sizes.tls import credential_names, withheld

#: A cluster's name and those of the secrets that it names.
Naming = tuple[str, tuple[str, ...]]


def secrets(pushing: Pushing) -> Response | None:
    """The SDS response: all secrets, or those that changed; None if there is none."""
    watch, rules, request = pushing.state.asks.secrets, pushing.rules, pushing.request
    if not watch.open or not (pushing.everything or "Secret" in pushing.kinds):
        return None
    whole = pushing.everything or (rules.sds_full_list and request.full)
    names: Iterable[str] = watch.names
    if not whole:
        namespace = pushing.state.proxy.namespace
        changed = [key.name for key in request.keys if key.kind == "Secret" and key.namespace == namespace]
        names = (name for name in names if _concerns(name, namespace, changed))
    return service(pushing.state.proxy, pushing.state.mode, pushing.context, pushing.registry).response(
        names, whole=whole
    )


def _concerns(name: str, namespace: str, changed: Iterable[str]) -> bool:
    ref = secret_of(name, namespace)
    return ref is not None and any(related(ref.name, other) for other in changed)


def service(proxy: Proxy, mode: Mode, context: PushContext, registry: Registry) -> Service:
    """How istiod serves secrets to a proxy."""

    def found(names: Iterable[str]) -> Block:
        return Block(credential for name in names if (credential := _credential(name, proxy, registry)) is not None)

    return Service("SDS", context.rules, mode == "delta", found, context.rules.sds_empty_sent, removes=True)


def _credential(name: str, proxy: Proxy, registry: Registry) -> Credential | None:
    ref = secret_of(name, proxy.namespace)
    written = held(ref, registry.store.get) if ref is not None else None
    return Credential(name, name.endswith(AUTHORITY), written) if written is not None else None


def of_clusters(blocks: Blocks, context: PushContext, proxy: Proxy) -> tuple[Naming, ...]:
    """The clusters among those that name secrets."""
    if not context.rule_index.credentials:
        return ()
    return tuple(chain.from_iterable(_of_block(block, proxy.type == "sidecar") for block in blocks))


def _of_block(block: Block, sidecar: bool) -> tuple[Naming, ...]:
    def found() -> tuple[Naming, ...]:
        if block.parts:
            return tuple(chain.from_iterable(_of_block(part, sidecar) for part in block.parts))
        return tuple(_of_clusters(block, sidecar))

    return block.memo.once(found, "secrets", sidecar)


def _of_clusters(clusters: Iterable[Resource], sidecar: bool) -> Iterator[Naming]:
    for cluster in clusters:
        if not isinstance(cluster, OutboundCluster) or not cluster.rules:
            continue
        security = policy_for(cluster.rules, cluster.subset, cluster.port).get("tls") or {}
        if sidecar and withheld(cluster.rules, security):
            continue
        if names := credential_names(security, client=True):
            yield cluster.name, names


def of_listeners(blocks: Blocks) -> Names:
    """The secrets that a gateway's listeners name."""
    listeners = (listener for block in blocks for listener in block if isinstance(listener, Listener))
    served = chain.from_iterable(map(terminating, listeners))
    return frozenset(chain.from_iterable(credential_names(security, client=False) for security in served))
