"""The response around the resources: DiscoveryResponse and DeltaDiscoveryResponse.

Source: pilot/pkg/xds/ads.go and delta.go (version, nonce), pilot/pkg/xds/discovery.go (control plane identifier).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pushsim.mesh import TYPE_URLS, Mode, Xds
from pushsim.sizes.switches import Sizing
from pushsim.sizes.wire import framed, text, texts

#: `2026-08-22T10:00:00Z/3`: the push counter has one digit here, a byte more for each further one.
VERSION = 22
UUID = 36


class Envelope:
    """Lengths of whole responses of one istiod."""

    def __init__(self, sizing: Sizing, mode: Mode, env: Mapping[str, str]) -> None:
        self._delta = mode == "delta"
        self._framed: dict[tuple[Xds, int, int], int] = {}
        nonce = UUID + (VERSION if sizing.nonce_has_version else 0)
        self._fixed = text(VERSION) + text(nonce)
        if sizing.identifier:
            # {"Component":"istiod","ID":…,"Info":{…}}: everything but the pod's name is the build's
            self._fixed += framed(text(sizing.identifier + len(env.get("POD_NAME") or "istiod-stub")))

    def length(self, xds: Xds, resources: Iterable[tuple[str, int]], removed: Sequence[str]) -> int:
        """Length of a response with (name, length of its value) resources and removed names."""
        return self._fixed + text(len(TYPE_URLS[xds])) + self.framed(xds, resources) + texts(removed)

    def framed(self, xds: Xds, resources: Iterable[tuple[str, int]]) -> int:
        """What (name, length of its value) resources add to a response."""
        total, known = 0, self._framed
        for name, size in resources:
            key = (xds, len(name.encode()), size)
            length = known.get(key)
            if length is None:
                length = known[key] = self._framed_one(*key)
            total += length
        return total

    def _framed_one(self, xds: Xds, name: int, size: int) -> int:
        packed = framed(text(len(TYPE_URLS[xds])) + (framed(size) if size else 0))
        return framed(text(name) + packed) if self._delta else packed
