"""The table of names that NDS sends; its type is Istio's own, and published for Go alone.

Source: pkg/dns/proto/nds.proto: a map from host to addresses, registry, short name and namespace.
"""

from __future__ import annotations

from pushsim.resources import Named, NameTable
from pushsim.sizes.wire import framed, text, texts


def name_table(resource: NameTable) -> int:
    """Length of a table."""
    return sum(framed(text(len(named.host)) + framed(_info(named))) for named in resource.hosts)


def _info(named: Named) -> int:
    return texts(named.addresses) + sum(map(text, map(len, (named.registry, named.short, named.namespace))))
