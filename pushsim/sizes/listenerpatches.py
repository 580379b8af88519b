"""EnvoyFilter patches of listeners: what they merge into listeners, filter chains and filters, put there or take away.

Source: pilot/pkg/networking/core/envoyfilter/listener_patch.go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import TypeVar

from betterproto2 import Message
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, FilterChainMatch, Listener, ListenerFilter
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpFilter,
)

from pushsim.sizes.envoyfilters import Patch, Spec, inserts, is_of_listener
from pushsim.sizes.wire import HCM, encoded, made, packed
from pushsim.sizes.written import merge, merge_any, merge_written, read

_MANAGER = "envoy.filters.network.http_connection_manager"
_KINDS = ("LISTENER", "LISTENER_FILTER", "FILTER_CHAIN", "NETWORK_FILTER", "HTTP_FILTER")
_VIRTUAL = ("virtualInbound", "virtualOutbound")
_M = TypeVar("_M", bound=Message)
_name = attrgetter("name")


def patched(built: Listener, known: Sequence[Patch], context: str) -> Listener:
    """A listener of a context with all that patches make of it, but for those that remove it."""
    socket = built.address.socket_address if built.address else None
    port = (socket.port_value if socket else None) or 0
    mine = [p for p in known if p.apply_to in _KINDS and p.fits(context) and is_of_listener(p, built.name, port)]
    if not mine:
        return built
    listener = Listener.parse(encoded(built))  # its parts may be others', too
    for patch in mine:
        if patch.apply_to == "LISTENER" and patch.operation == "MERGE":
            merge_written(listener, patch.value)
    filters = listener.listener_filters
    listener.listener_filters = _applied(filters, mine, "LISTENER_FILTER", ListenerFilter, _listener_filter)
    _patch_chains(listener, mine)
    return listener


def _patch_chains(listener: Listener, mine: Sequence[Patch]) -> None:
    virtual = listener.name in _VIRTUAL
    kept = [chain for chain in listener.filter_chains if _patch_chain(chain, mine, virtual)]
    last = listener.default_filter_chain
    if last is not None and last.filters and not _patch_chain(last, mine, virtual):
        listener.default_filter_chain = None
    new = (p for p in mine if p.apply_to == "FILTER_CHAIN" and p.operation == "ADD")
    added = (read(FilterChain, patch.value) for patch in new)
    listener.filter_chains = [*kept, *(chain for chain in added if chain is not None)]


def _patch_chain(chain: FilterChain, mine: Sequence[Patch], virtual: bool) -> bool:
    """Patch a filter chain; False if it is removed."""
    here = [patch for patch in mine if _is_of_chain(patch, chain, virtual)]
    for patch in here:
        if patch.apply_to == "FILTER_CHAIN" and patch.operation == "REMOVE":
            return False
        if patch.apply_to == "FILTER_CHAIN" and patch.operation == "MERGE":
            _merge_chain(chain, patch)
    chain.filters = _applied(chain.filters, here, "NETWORK_FILTER", Filter, _network_filter)
    for filter in chain.filters:
        if filter.name == _MANAGER:
            _patch_manager(filter, [patch for patch in here if _network_filter(patch) in (None, filter.name)])
    return bool(chain.filters)


def _patch_manager(filter: Filter, mine: Sequence[Patch]) -> None:
    if filter.typed_config is not None and any(patch.apply_to == "HTTP_FILTER" for patch in mine):
        manager = HttpConnectionManager.parse(filter.typed_config.value)
        manager.http_filters = _applied(manager.http_filters, mine, "HTTP_FILTER", HttpFilter, _http_filter)
        filter.typed_config = packed(manager, HCM)


def _applied(
    filters: list[_M], patches: Sequence[Patch], to: str, kind: type[_M], asked: Callable[[Patch], str | None]
) -> list[_M]:
    """Filters of a kind after all patches of it: first what comes and goes, then what is merged into them."""
    mine = [patch for patch in patches if patch.apply_to == to]
    for patch in mine:
        filters = _patched(filters, patch, kind, asked(patch))
    for filter in filters:
        for patch in mine:
            if patch.operation == "MERGE" and asked(patch) in (None, _name(filter)):
                _merge_filter(filter, patch)
    return filters


def _patched(filters: list[_M], patch: Patch, kind: type[_M], named: str | None) -> list[_M]:
    """Filters with one that a patch puts there, or without those that it takes away; lengths ask for no order.

    named: the filter that it asks for; None: any.
    """
    first = next((filter for filter in filters if _name(filter) == named), None)
    if patch.operation == "REMOVE":
        return filters if named is None else [filter for filter in filters if _name(filter) != named]
    replaces = patch.operation == "REPLACE" and first is not None
    anywhere = patch.operation in ("ADD", "INSERT_FIRST") or (inserts(patch) and named is None)
    new = read(kind, patch.value) if replaces or anywhere or (inserts(patch) and first is not None) else None
    if new is None:
        return filters
    return [*(filter for filter in filters if not replaces or filter is not first), new]


def _merge_chain(chain: FilterChain, patch: Patch) -> None:
    """Merge into a chain; where both have a transport socket of a name, into that alone."""
    source = read(FilterChain, patch.value)
    if source is None:
        return
    mine, other = chain.transport_socket, source.transport_socket
    if mine is None or other is None or mine.name != other.name:
        merge(chain, source)
    elif mine.typed_config is not None and other.typed_config is not None:
        merge_any(mine.typed_config, other.typed_config)


def _merge_filter(filter: Message, patch: Patch) -> None:
    """Merge what a filter is configured with; nothing where it is configured by another way."""
    assert isinstance(filter, Filter | HttpFilter | ListenerFilter)
    source = read(type(filter), patch.value)
    if source is None or filter.typed_config is None:
        return
    filter.name = source.name or filter.name
    if source.typed_config is not None:
        merge_any(filter.typed_config, source.typed_config)


def _listener(patch: Patch) -> Spec:
    return patch.match.get("listener") or {}


def _chain(patch: Patch) -> Spec:
    return _listener(patch).get("filterChain") or {}


def _listener_filter(patch: Patch) -> str | None:
    """The listener filter that a patch asks for; None: any."""
    return str(_listener(patch).get("listenerFilter") or "") or None


def _network_filter(patch: Patch) -> str | None:
    """The network filter that a patch asks for; None: any."""
    found = _chain(patch).get("filter")
    return None if found is None else str(found.get("name") or "")


def _http_filter(patch: Patch) -> str | None:
    """The HTTP filter that a patch asks for; None: any."""
    found = (_chain(patch).get("filter") or {}).get("subFilter")
    return None if found is None else str(found.get("name") or "")


def by_name(known: Sequence[Patch]) -> bool:
    """Whether patches of listeners ask for names, of these or in their filter chains."""
    asking = (_listener(patch) for patch in known if patch.apply_to in _KINDS)
    return any(wanted.get("name") or (wanted.get("filterChain") or {}).get("sni") for wanted in asking)


def _is_of_chain(patch: Patch, chain: FilterChain, virtual: bool) -> bool:
    """Whether a patch, which is for its listener, is for a filter chain (filterChainMatch)."""
    match, wanted = chain.filter_chain_match or made(FilterChainMatch), _chain(patch)
    port, here = int(_listener(patch).get("portNumber") or 0), match.destination_port or 0
    protocols = str(wanted.get("applicationProtocols") or "")
    return (
        not (virtual and port and port != here)
        and wanted.get("name") in (None, "", chain.name)
        and (not wanted.get("sni") or wanted["sni"] in match.server_names)
        and wanted.get("transportProtocol") in (None, "", match.transport_protocol)
        and (not protocols or set(protocols.split(",")) <= set(match.application_protocols))
        and int(wanted.get("destinationPort") or here) == here
    )
